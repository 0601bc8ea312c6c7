"""The arithmetic of a link: with a clock that the test holds in its hand."""

from __future__ import annotations

import random
import socket
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.fixtures.link_wire import LEAST_QUEUE, Counters, Packet, Pipe, Quality, Spans, Tally, Wire, parse

CLIENT, SERVER = socket.inet_aton("10.71.0.2"), socket.inet_aton("10.70.0.1")
SYN, ACK = 0x02, 0x10
# A packet of 1500 bytes takes 1.5 ms, and arrives 10 ms after it has left.
FAST = Quality(rate=8e6, delay=0.010, queue=0.1)


def frame(
    payload: int = 0,
    *,
    sequence: int = 0,
    port: int = 1000,
    flags: int = ACK,
    source: bytes = CLIENT,
    target: bytes = SERVER,
    options: int = 0,
    protocol: int = 6,
    fragment: int = 0,
) -> bytes:
    """An Ethernet frame with a TCP segment; `options` are bytes of TCP options."""
    size = 40 + options + payload
    return (
        bytes(12) + b"\x08\x00"
        + b"\x45\x00" + size.to_bytes(2) + bytes(2) + fragment.to_bytes(2) + b"\x40" + bytes([protocol]) + bytes(2)
        + source + target
        + port.to_bytes(2) + (80).to_bytes(2) + (sequence % 2**32).to_bytes(4) + bytes(4)
        + bytes([(20 + options) // 4 << 4, flags]) + bytes(6) + bytes(options) + bytes(payload)
    )  # fmt: skip


def packet(payload: int = 0, *, to_server: bool = True, **what: int) -> Packet:
    ends = {} if to_server else {"source": SERVER, "target": CLIENT}
    found = parse(frame(payload, **what, **ends), to_server=to_server)  # type: ignore[arg-type]
    assert found is not None
    return found


def big(number: int = 0) -> Packet:
    """1500 bytes, the number-th of a stream."""
    return packet(1460, sequence=number * 1460)


def drops(counters: Counters) -> int:
    return sum(tally.packets for tally in (counters.overflowed, counters.lost, counters.cut, counters.stray))


class TestParsing:
    def test_a_segment(self) -> None:
        found = parse(frame(100, sequence=7, port=1234, options=12), to_server=True)
        assert found is not None
        assert (found.size, found.payload, found.sequence, found.begins) == (152, 100, 7, False)
        assert (found.source, found.target) == (CLIENT, SERVER)

    def test_both_directions_are_one_flow(self) -> None:
        there = packet(port=1234)
        back = bytearray(frame(source=SERVER, target=CLIENT))
        back[34:36], back[36:38] = (80).to_bytes(2), (1234).to_bytes(2)
        found = parse(bytes(back), to_server=False)
        assert found is not None
        assert found.flow == there.flow

    def test_a_connection_begins_with_the_clients_syn(self) -> None:
        assert packet(flags=SYN).begins
        assert not packet(flags=SYN | ACK).begins
        assert not packet(flags=SYN, to_server=False).begins

    def test_padding_of_short_frames_is_no_payload(self) -> None:
        found = parse(frame() + bytes(6), to_server=True)
        assert found is not None
        assert (found.size, found.payload) == (40, 0)

    def test_other_protocols_are_carried_without_a_flow(self) -> None:
        assert packet(protocol=17).flow == b""
        assert packet(fragment=185).flow == b""

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            frame()[:33],
            frame()[:40],
            frame().replace(b"\x08\x00\x45", b"\x86\xdd\x45"),
            frame().replace(b"\x08\x00\x45", b"\x08\x06\x45"),
            frame().replace(b"\x08\x00\x45", b"\x08\x00\x65"),
            frame().replace(b"\x08\x00\x45", b"\x08\x00\x44"),
        ],
        ids=["nothing", "no head", "cut", "IPv6", "ARP", "wrong version", "short head"],
    )
    def test_what_is_no_packet(self, data: bytes) -> None:
        assert parse(data, to_server=True) is None

    @given(st.binary(max_size=80), st.integers(0, 60))
    def test_garbage_does_no_harm(self, noise: bytes, at: int) -> None:
        whole = frame(20)
        data = whole[:at] + noise + whole[at + len(noise) :]
        found = parse(data, to_server=True)
        assert found is None or 0 <= found.payload < found.size <= len(data) - 14


class TestSpans:
    def test_bytes_count_once(self) -> None:
        spans = Spans(0)
        assert [spans.add(0, 10), spans.add(10, 10), spans.add(0, 10), spans.add(5, 20), spans.add(25, 0)] == [
            10, 10, 0, 5, 0,
        ]  # fmt: skip

    @given(
        st.integers(0, 2**32 - 1),
        st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=40),
    )
    def test_like_a_set_of_bytes_wherever_the_stream_begins(self, first: int, pieces: list[tuple[int, int]]) -> None:
        spans = Spans(first)
        assert spans.prefix == 0
        seen: set[int] = set()
        for start, length in pieces:
            new = set(range(start, start + length)) - seen
            seen |= new
            assert spans.add((first + start) % 2**32, length) == len(new)
            assert spans.prefix == next(place for place in range(400) if place not in seen)

    def test_streams_longer_than_the_numbers(self) -> None:
        spans = Spans(0)
        step = 2**30
        assert all(spans.add(number * step % 2**32, step) == step for number in range(10))
        assert spans.add(9 * step % 2**32, step) == 0
        assert spans.prefix == 10 * step


class TestRate:
    def test_a_packet_takes_its_time_on_the_wire_and_the_delay(self) -> None:
        pipe = Pipe(FAST, 1)
        pipe.push(5.0, big())
        assert pipe.due() == pytest.approx(5.0115)
        assert pipe.pop(5.0114) == []
        assert pipe.pop(5.0116) == [big().frame]
        assert pipe.due() is None

    def test_packets_queue_behind_each_other(self) -> None:
        pipe = Pipe(FAST, 1)
        for number in range(10):
            pipe.push(0.0, big(number))
        arrivals = []
        while (due := pipe.due()) is not None:
            arrivals += [due] * len(pipe.pop(due))
        assert arrivals == pytest.approx([0.010 + 0.0015 * (number + 1) for number in range(10)])

    def test_an_idle_wire_saves_nothing_up(self) -> None:
        pipe = Pipe(FAST, 1)
        pipe.push(0.0, big())
        pipe.pop(100.0)
        pipe.push(100.0, big(1))
        pipe.push(100.0, big(2))
        assert pipe.due() == pytest.approx(100.0115)
        assert len(pipe.pop(100.0116)) == 1

    def test_what_is_asked_late_is_as_if_it_was_asked_in_time(self) -> None:
        pipe = Pipe(FAST, 1)
        pipe.push(0.0, big())
        pipe.push(0.001, big(1))
        assert len(pipe.pop(0.0131)) == 2

    def test_the_queue_has_an_end(self) -> None:
        pipe = Pipe(FAST, 1)
        for number in range(100):
            pipe.push(0.0, big(number))
        # A tenth of a second of 8 Mbit/s is 100 kB.
        assert pipe.queued == 66 * 1500
        assert pipe.counters.overflowed == Tally(34, 34 * 1500, 34 * 1460)
        assert len(pipe.pop(1.0)) == 66

    def test_slow_links_queue_a_few_packets_all_the_same(self) -> None:
        slow = Quality(rate=64e3, queue=0.1)
        assert slow.limit() == LEAST_QUEUE
        pipe = Pipe(slow, 1)
        for number in range(20):
            pipe.push(0.0, big(number))
        assert pipe.queued == LEAST_QUEUE

    def test_a_packet_larger_than_the_queue_passes_alone(self) -> None:
        pipe = Pipe(FAST, 1)
        huge = packet(60000)
        pipe.push(0.0, replace(huge, size=10**6))
        assert len(pipe.pop(2.0)) == 1

    def test_a_drop_of_the_rate_concerns_what_waits(self) -> None:
        pipe = Pipe(FAST, 1)
        for number in range(60):
            pipe.push(0.0, big(number))
        assert len(pipe.pop(0.0105 + 0.0015)) == 1
        pipe.change(0.012, replace(FAST, rate=80e3))
        # What had left has left; of the rest, the least queue stays, and each packet takes 150 ms now.
        assert pipe.queued == LEAST_QUEUE
        assert len(pipe.pop(0.024)) == 7
        assert pipe.pop(0.16) == []
        assert len(pipe.pop(0.18)) == 1
        assert pipe.counters.overflowed.packets == 60 - 8 - 8

    def test_a_shorter_delay_does_not_reorder(self) -> None:
        pipe = Pipe(FAST, 1)
        pipe.push(0.0, big(0))
        pipe.change(0.002, replace(FAST, delay=0.0))
        pipe.push(0.002, big(1))
        assert pipe.pop(0.004) == []
        assert pipe.pop(0.0116) == [big(0).frame, big(1).frame]


class TestLoss:
    def test_about_as_many_as_said_and_the_same_ones_every_time(self) -> None:
        def survivors(seed: int) -> list[bytes]:
            pipe = Pipe(Quality(rate=1e9, delay=0.0, loss=0.1), seed)
            arrived = []
            for number in range(5000):
                pipe.push(float(number), packet(10, sequence=number * 10))
                arrived += pipe.pop(number + 0.5)
            assert pipe.counters.lost.packets + len(arrived) == 5000
            assert pipe.counters.carried.packets == 5000
            return arrived

        first = survivors(1)
        assert 4400 < len(first) < 4600
        assert survivors(1) == first
        assert survivors(2) != first

    def test_none(self) -> None:
        pipe = Pipe(FAST, 1)
        for number in range(1000):
            pipe.push(float(number), big(number))
        assert len(pipe.pop(2000.0)) == 1000


class TestCounting:
    def test_what_tcp_repeats(self) -> None:
        pipe = Pipe(FAST, 1)
        for sequence in (0, 1460, 0, 730):
            pipe.push(0.0, packet(1460, sequence=sequence))
        pipe.pop(1.0)
        assert pipe.counters.carried.payload == 4 * 1460
        assert pipe.counters.fresh == 2 * 1460
        assert pipe.counters.resent == 2 * 1460

    def test_what_comes_behind_a_hole_cannot_be_read(self) -> None:
        pipe = Pipe(FAST, 1)
        for sequence, flags in ((99, SYN), (100, ACK), (300, ACK)):
            pipe.push(0.0, packet(100 * (flags == ACK), sequence=sequence, flags=flags))
        pipe.pop(1.0)
        assert (pipe.counters.fresh, pipe.counters.readable) == (200, 100)
        pipe.push(1.0, packet(100, sequence=200))
        pipe.pop(2.0)
        assert (pipe.counters.fresh, pipe.counters.readable) == (300, 300)

    def test_what_was_swallowed_on_its_way_is_no_news_on_the_wire_but_at_its_end(self) -> None:
        pipe = Pipe(FAST, 1)
        pipe.push(0.0, big())
        pipe.passing = "nothing"
        pipe.swallow(0.005)
        pipe.passing = "all"
        pipe.push(1.0, big())
        pipe.pop(2.0)
        assert (pipe.counters.resent, pipe.counters.fresh) == (1460, 1460)
        assert pipe.counters.cut.packets == 1

    def test_heads_of_requests(self) -> None:
        pipe = Pipe(FAST, 1)
        head = b"PUT /upload HTTP/1.1\r\nHost: x\r\n\r\n"
        pieces = [head + b"body", b"PUT", b"POST / HTTP/1.1\r\nX-Long: ", b"y\r\n\r\n", b"DELETE / HTTP/1.1\r\n\r\n"]
        sequence = 0
        segments = []
        for piece in [*pieces, head + b"body"]:
            segments.append((sequence, piece))
            sequence += len(piece)
        # A head that TCP repeats is none.
        for place, piece in [*segments, segments[0]]:
            data = bytearray(frame(len(piece), sequence=place))
            data[-len(piece) :] = piece
            found = parse(bytes(data), to_server=True)
            assert found is not None
            pipe.push(0.0, found)
        pipe.pop(1.0)
        assert pipe.counters.requests == 4
        assert pipe.counters.heads == 2 * len(head) + len(pieces[2]) + len(pieces[4])

    def test_connections(self) -> None:
        wire = Wire("wifi", FAST, CLIENT, 1)
        for port, sequence in ((1, 100), (2, 100), (1, 100), (1, 999)):
            wire.push(0.0, packet(port=port, sequence=sequence, flags=SYN), to_server=True)
            wire.push(0.0, packet(10, port=port, sequence=sequence + 1), to_server=True)
        wire.to_server.pop(1.0)
        # A SYN that is repeated is the same connection, a port that is used again is not.
        assert wire.to_server.counters.connections == 3
        assert wire.to_server.counters.fresh == 30
        assert wire.to_server.counters.resent == 10


class TestCuts:
    def wire(self) -> Wire:
        wire = Wire("wifi", FAST, CLIENT, 1)
        wire.push(0.0, packet(port=1, flags=SYN), to_server=True)
        wire.push(0.0, packet(port=2, flags=SYN), to_server=True)
        assert len(wire.to_server.pop(1.0)) == 2
        return wire

    def test_what_is_on_its_way_is_lost(self) -> None:
        wire = self.wire()
        for to_server in (True, False):
            wire.push(1.0, packet(100, port=1, to_server=to_server), to_server=to_server)
        wire.pass_only(1.005, "nothing", "nothing")
        wire.push(1.006, packet(100, port=1), to_server=True)
        wire.pass_only(1.007, "all", "all")
        assert wire.due() is None
        assert wire.to_server.counters.cut.packets == 2
        assert wire.to_client.counters.cut.packets == 1

    def test_one_direction(self) -> None:
        wire = self.wire()
        wire.pass_only(1.0, "nothing", "all")
        wire.push(1.0, packet(100, port=1), to_server=True)
        wire.push(1.0, packet(100, port=1, to_server=False), to_server=False)
        assert wire.to_server.pop(2.0) == []
        assert len(wire.to_client.pop(2.0)) == 1

    def test_answers_get_lost_and_acknowledgements_do_not(self) -> None:
        wire = self.wire()
        wire.pass_only(1.0, "all", "no answers")
        wire.push(1.0, packet(0, to_server=False), to_server=False)
        wire.push(1.0, packet(1, to_server=False), to_server=False)
        assert wire.to_client.pop(2.0) == [packet(0, to_server=False).frame]

    def test_a_black_hole_is_for_the_connections_of_then(self) -> None:
        wire = self.wire()
        assert wire.forget_flows(1.0) == 2
        wire.push(1.0, packet(5, port=1), to_server=True)
        back = packet(5, to_server=False)
        back.flow = packet(port=2).flow
        wire.push(1.0, back, to_server=False)
        assert wire.due() is None
        wire.push(1.0, packet(port=3, flags=SYN), to_server=True)
        wire.push(1.0, packet(5, port=3), to_server=True)
        assert len(wire.to_server.pop(2.0)) == 2

    def test_a_black_hole_stays_one_for_a_repeated_syn_and_ends_with_a_new_one(self) -> None:
        wire = self.wire()
        wire.forget_flows(1.0)
        wire.push(1.0, packet(port=1, flags=SYN), to_server=True)
        assert wire.to_server.pop(2.0) == []
        wire.push(2.0, packet(port=1, flags=SYN, sequence=77), to_server=True)
        wire.push(2.0, packet(1, port=1, sequence=78), to_server=True)
        assert len(wire.to_server.pop(3.0)) == 2
        assert wire.to_server.counters.connections == 3

    def test_mending_does_not_mend_a_black_hole(self) -> None:
        wire = self.wire()
        wire.forget_flows(1.0)
        wire.pass_only(1.0, "all", "all")
        wire.push(1.0, packet(5, port=1), to_server=True)
        assert wire.to_server.pop(2.0) == []

    def test_a_black_hole_swallows_what_is_on_its_way(self) -> None:
        wire = self.wire()
        wire.push(1.0, packet(5, port=1), to_server=True)
        wire.push(1.0, packet(protocol=17), to_server=True)
        wire.forget_flows(1.005)
        assert wire.to_server.pop(2.0) == [packet(protocol=17).frame]

    def test_addresses(self) -> None:
        wire = self.wire()
        other = socket.inet_aton("10.71.0.3")
        wire.push(1.0, packet(5, port=1), to_server=True)
        wire.readdress(1.005, other)
        wire.push(1.1, packet(5, port=1), to_server=True)
        wire.push(1.1, packet(5, port=1, to_server=False), to_server=False)
        assert wire.due() is None
        found = parse(frame(source=other), to_server=True)
        assert found is not None
        wire.push(1.1, found, to_server=True)
        assert wire.to_server.pop(2.0) == [found.frame]
        assert (wire.to_server.counters.cut.packets, wire.to_server.counters.stray.packets) == (1, 1)
        assert wire.to_client.counters.stray.packets == 1

    def test_no_address_no_packets(self) -> None:
        wire = self.wire()
        wire.readdress(1.0, b"")
        wire.push(1.1, packet(5), to_server=True)
        assert wire.due() is None


class TestFlapping:
    def passes(self, wire: Wire, when: float) -> bool:
        wire.turn(when)
        wire.push(when, packet(1), to_server=True)
        return bool(wire.to_server.pop(when + 0.02))

    def test_by_turns(self) -> None:
        wire = Wire("wifi", FAST, CLIENT, 1)
        wire.flap(0.0, 0.5, 0.25)
        assert wire.due() == 0.5
        # 10.4 s have 13 whole turns of 0.75 s, and 0.65 s are left.
        assert [self.passes(wire, when) for when in (0.1, 0.45, 0.55, 0.7, 0.8, 1.2, 1.3, 10.4)] == [
            True, True, False, False, True, True, False, False,
        ]  # fmt: skip

    def test_until_it_is_mended(self) -> None:
        wire = Wire("wifi", FAST, CLIENT, 1)
        wire.flap(0.0, 0.5, 0.5)
        assert not self.passes(wire, 0.6)
        wire.stop_flapping()
        wire.pass_only(0.7, "all", "all")
        assert all(self.passes(wire, when) for when in (0.8, 1.6, 2.7))
        assert wire.due() is None


class LinkMachine(RuleBasedStateMachine):
    """Whatever happens to a link: no packet appears from nothing, none is counted twice, none overtakes another."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire("wifi", FAST, CLIENT, 7)
        self.now = 0.0
        self.sent = 0
        self.last = -1
        self.arrived = 0
        self.random = random.Random(1)

    @rule(count=st.integers(1, 80), payload=st.sampled_from([1, 700, 1460]), port=st.integers(1, 3))
    def push(self, count: int, payload: int, port: int) -> None:
        for _ in range(count):
            self.wire.push(self.now, packet(payload, sequence=self.sent, port=port), to_server=True)
            self.sent += 1

    @rule(port=st.integers(1, 3))
    def begin(self, port: int) -> None:
        self.wire.push(self.now, packet(sequence=self.sent, port=port, flags=SYN), to_server=True)
        self.sent += 1

    @rule(seconds=st.floats(0.0, 0.2))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take()

    @rule()
    def wait_for_what_is_due(self) -> None:
        due = self.wire.due()
        if due is not None:
            self.now = max(self.now, due)
            before = self.arrived
            cut = drops(self.wire.to_server.counters)
            self.take()
            moved = self.arrived > before or drops(self.wire.to_server.counters) > cut
            assert moved or self.wire.due() != due

    @rule(
        rate=st.sampled_from([64e3, 8e6, 100e6]), delay=st.sampled_from([0.0, 0.05]), loss=st.sampled_from([0.0, 0.3])
    )
    def change(self, rate: float, delay: float, loss: float) -> None:
        self.wire.to_server.change(self.now, Quality(rate, delay, loss))

    @rule(passing=st.sampled_from(["all", "nothing", "no answers"]))
    def pass_only(self, passing: str) -> None:
        self.wire.pass_only(self.now, passing, "all")  # type: ignore[arg-type]

    @rule()
    def black_hole(self) -> None:
        self.wire.forget_flows(self.now)

    @rule(up=st.sampled_from([0.05, 0.5]), down=st.sampled_from([0.01, 0.5]))
    def flap(self, up: float, down: float) -> None:
        self.wire.flap(self.now, up, down)

    @precondition(lambda self: self.wire.to_server.passing == "all")
    @rule()
    def stop_flapping(self) -> None:
        self.wire.stop_flapping()

    @rule()
    def move(self) -> None:
        self.wire.readdress(self.now, self.random.choice([CLIENT, b"", SERVER]))

    def take(self) -> None:
        self.wire.turn(self.now)
        for data in self.wire.to_server.pop(self.now):
            sequence = int.from_bytes(data[38:42])
            assert sequence > self.last
            self.last = sequence
            self.arrived += 1

    @invariant()
    def every_packet_is_somewhere_once(self) -> None:
        pipe = self.wire.to_server
        counters = pipe.counters
        assert counters.entered.packets == self.sent
        assert counters.delivered.packets == self.arrived
        waiting = len(pipe._queue) + len(pipe._line)
        assert self.sent == self.arrived + drops(counters) + waiting
        assert (
            0
            <= counters.readable
            <= counters.fresh
            <= counters.delivered.payload
            <= counters.carried.payload
            <= counters.entered.payload
        )
        assert 0 <= counters.resent <= counters.carried.payload
        assert pipe.queued == sum(one.size for _, one in pipe._queue)
        assert len(pipe._queue) <= 1 or pipe.queued <= pipe.quality.limit()


TestLink = LinkMachine.TestCase
