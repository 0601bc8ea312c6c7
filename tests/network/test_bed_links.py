"""The bed of links is what it says: rates, delays, losses, cuts, addresses and counters, with real sockets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import statistics
import struct
import termios
import time
from collections.abc import Iterator

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.links import LINKS, Bed, Counters, LinkName, Quality, bed
from tests.fixtures.namespaces import Namespace, execute, why_not

PORT = 900
PATIENCE = 20.0
MIB = 2**20
# What of an IPv4 packet of 1500 bytes is UDP payload.
DATAGRAM = 1472


@pytest.fixture
def made() -> Iterator[Bed]:
    """Both links with 20 Mbit/s and a round trip of 30 ms."""
    with bed() as one:
        yield one


@contextlib.contextmanager
def datagrams(made: Bed, link: LinkName) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A UDP socket of the client, bound to a link, and one of the server."""
    with (
        made.client.new_socket(kind=socket.SOCK_DGRAM) as near,
        made.server.new_socket(kind=socket.SOCK_DGRAM) as far,
    ):
        for one, address in ((near, (made.client_address(link), 0)), (far, (made.address, PORT))):
            one.settimeout(PATIENCE)
            one.bind(address)
        near.connect((made.address, PORT))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        yield near, far


@contextlib.contextmanager
def listening(made: Bed) -> Iterator[socket.socket]:
    with made.server.call(socket.create_server, (made.address, PORT)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


@contextlib.contextmanager
def connected(made: Bed, listener: socket.socket, link: LinkName | None = None) -> Iterator[tuple[socket.socket, ...]]:
    """Both ends of a TCP connection: the client's, the server's."""
    source = made.client_address(link) if link else ""
    with made.client.connect((made.address, PORT), source=source, timeout=PATIENCE) as near:
        far, _ = listener.accept()
        with far:
            far.settimeout(PATIENCE)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield near, far


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, "the other end is gone"
        data += piece
    return data


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the kernel still holds for the other end (SIOCOUTQ)."""
    (held,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(held)


def nothing_told(sock: socket.socket) -> bool:
    """No error, no data, no end."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return False
    return not select.select([sock], [], [], 0)[0]


def accounted(counters: Counters) -> int:
    """Packets of which it is known what became of them."""
    lost = (counters.overflowed, counters.lost, counters.cut, counters.stray)
    return counters.delivered.packets + sum(tally.packets for tally in lost)


class TestRoads:
    def test_wifi_is_preferred(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener) as (near, far):
            assert near.getsockname()[0] == "10.71.0.2"
            assert far.getpeername() == near.getsockname()
            near.sendall(b"hello")
            assert receive(far, 5) == b"hello"
        assert made.counters()["wifi"].to_server.connections == 1
        assert made.counters()["mobile"].to_server.entered.packets == 0

    def test_what_is_bound_to_mobile_goes_over_mobile(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener, "mobile") as (near, far):
            far.sendall(b"hello")
            assert receive(near, 5) == b"hello"
            assert near.getsockname()[0] == "10.72.0.2"
        assert made.counters()["mobile"].to_server.connections == 1
        assert made.counters()["wifi"].to_server.entered.packets == 0

    def test_both_at_once(self, made: Bed) -> None:
        with (
            listening(made) as listener,
            connected(made, listener, "wifi") as (one, one_far),
            connected(made, listener, "mobile") as (other, other_far),
        ):
            one.sendall(b"1" * 1000)
            other.sendall(b"2" * 1000)
            assert receive(one_far, 1000) + receive(other_far, 1000) == b"1" * 1000 + b"2" * 1000
        assert [made.counters()[link].to_server.fresh for link in LINKS] == [1000, 1000]

    def test_programs_run_in_the_client(self, made: Bed) -> None:
        done = made.run_in_client(["ip", "-o", "-4", "address", "show", "scope", "global"])
        assert done.returncode == 0
        assert b"10.71.0.2/24" in done.stdout
        assert b"10.72.0.2/24" in done.stdout
        assert made.run_in_client(["sh", "-c", "echo complaint >&2; exit 3"]).stderr == b"complaint\n"

    def test_no_ipv6_and_nothing_but_what_was_sent(self, made: Bed) -> None:
        assert made.client.ip("-6", "address", "show", "dev", "wifi") == ""
        for link in LINKS:
            for counters in (made.counters()[link].to_server, made.counters()[link].to_client):
                assert counters == Counters()


class TestQuality:
    def test_a_round_trip_takes_two_delays(self) -> None:
        with bed(wifi=Quality(delay=0.015), mobile=Quality(delay=0.040)) as made:
            for link, least in (("wifi", 0.030), ("mobile", 0.080)):
                with datagrams(made, "wifi" if link == "wifi" else "mobile") as (near, far):
                    trips = []
                    for _ in range(15):
                        began = time.monotonic()
                        near.send(b"ping")
                        _, peer = far.recvfrom(10)
                        far.sendto(b"pong", peer)
                        near.recv(10)
                        trips.append(time.monotonic() - began)
                # Tolerance: never less; the best of fifteen no more than 5 ms longer.
                assert least <= min(trips) < least + 0.005

    @pytest.mark.parametrize("rate", [2e6, 20e6])
    def test_packets_come_at_the_rate(self, rate: float) -> None:
        with bed(wifi=Quality(rate=rate, delay=0.015, queue=0.2)) as made, datagrams(made, "wifi") as (near, far):
            count = int(rate / 8 * 0.15 / 1500)
            for _ in range(count):
                near.send(bytes(DATAGRAM))
            arrivals = []
            for _ in range(count):
                far.recv(2000)
                arrivals.append(time.monotonic())
        # The median time that half of them take: what is seen late on a busy machine does not count. Tolerance: a tenth.
        half = count // 2
        took = statistics.median(later - earlier for earlier, later in zip(arrivals, arrivals[half:], strict=False))
        assert took == pytest.approx(half * 1500 * 8 / rate, rel=0.1)

    def test_a_stream_gets_the_rate(self, made: Bed) -> None:
        data = content(3 * MIB, "rate")
        with listening(made) as listener, connected(made, listener) as (near, far):
            sending = made.client.begin(near.sendall, data)
            assert receive(far, len(data)) == data
            sending.result(PATIENCE)
        marks = made.progress()
        assert marks[-1][1] == len(data)
        bits = len(data) * 1500 / 1448 * 8
        took = marks[-1][0] - marks[0][0]
        # No faster than the rate (but for one tick of the notes). Slow start costs a few round trips, a busy machine more.
        assert bits / 20e6 - 0.03 < took < bits / 20e6 * 1.5
        health = made.health()
        print(f"processor time of the router at 20 Mbit/s: {health['processor'] / health['seconds']:.0%}")

    def test_much_faster_links(self) -> None:
        fast = Quality(rate=200e6, delay=0.015)
        data = content(16 * MIB, "fast")
        with bed(wifi=fast) as made, listening(made) as listener, connected(made, listener) as (near, far):
            sending = made.client.begin(near.sendall, data)
            assert receive(far, len(data)) == data
            sending.result(PATIENCE)
            assert made.delivered() == len(data)
            # `bed` itself sees to it that the router kept up.
            assert sum(made.health()["overrun"].values()) == 0

    def test_the_queue_holds_a_tenth_of_a_second(self, made: Bed) -> None:
        with datagrams(made, "wifi") as (near, _):
            for _ in range(400):
                near.send(bytes(DATAGRAM))
            wait_until(lambda: accounted(made.counters()["wifi"].to_server) == 400, "every packet came or was lost")
        counters = made.counters()["wifi"].to_server
        # 250 kB are 166 packets; while these were sent some had left. 40 of them would be 24 ms.
        assert 166 <= counters.delivered.packets <= 206
        assert counters.overflowed.packets == 400 - counters.delivered.packets

    def test_loss(self) -> None:
        with bed(wifi=Quality(rate=100e6, loss=0.2), seed="loss") as made, datagrams(made, "wifi") as (near, far):
            for _ in range(1000):
                near.send(bytes(10))
            wait_until(lambda: accounted(made.counters()["wifi"].to_server) == 1000, "every packet came or was lost")
            counters = made.counters()["wifi"].to_server
            for _ in range(counters.delivered.packets):
                far.recv(100)
            assert counters.overflowed.packets == 0
            # Four deviations of a binomial distribution are 51.
            assert 149 <= counters.lost.packets <= 251

    def test_tcp_gets_over_loss(self) -> None:
        data = content(MIB, "loss")
        with (
            bed(wifi=Quality(loss=0.02, delay=0.005), seed=3) as made,
            listening(made) as listener,
            connected(made, listener) as (near, far),
        ):
            sending = made.client.begin(near.sendall, data)
            assert receive(far, len(data)) == data
            sending.result(PATIENCE)
            counters = made.counters()["wifi"].to_server
            assert counters.lost.packets > 0
            assert counters.fresh == len(data)
            # What was lost was sent again; little else was.
            assert counters.lost.payload <= counters.resent < 4 * counters.lost.payload + 20000

    def test_a_drop_of_the_rate(self, made: Bed) -> None:
        with datagrams(made, "wifi") as (near, far):
            made.rate("wifi", 120e3)
            for _ in range(4):
                near.send(bytes(DATAGRAM))
            far.recv(2000)
            began = time.monotonic()
            for _ in range(3):
                far.recv(2000)
            # 100 ms each. Tolerance: a fifth, as the first one may have been seen late.
            assert time.monotonic() - began == pytest.approx(0.3, rel=0.2)
            made.quality("wifi", rate=20e6, delay=0.0)
            began = time.monotonic()
            near.send(b"fast")
            assert far.recv(2000) == b"fast"
            assert time.monotonic() - began < 0.1


class TestCuts:
    def test_a_cut_tells_nobody_and_ends(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener) as (near, far):
            made.cut("wifi")
            before = made.client.ip("address"), made.client.ip("route")
            near.sendall(b"nobody hears this")
            wait_until(lambda: made.counters()["wifi"].to_server.cut.packets >= 2, "TCP has tried twice")
            assert nothing_told(near)
            assert nothing_told(far)
            assert (made.client.ip("address"), made.client.ip("route")) == before
            assert made.delivered() == 0
            made.mend("wifi")
            assert receive(far, 17) == b"nobody hears this"

    def test_what_is_on_its_way_is_lost(self) -> None:
        with bed(wifi=Quality(delay=1.0)) as made, datagrams(made, "wifi") as (near, far):
            near.send(b"too late")
            wait_until(lambda: made.counters()["wifi"].to_server.carried.packets == 1, "it is on its way")
            made.cut("wifi")
            made.mend("wifi")
            made.quality("wifi", delay=0.0)
            near.send(b"later")
            assert far.recv(100) == b"later"
            assert made.counters()["wifi"].to_server.cut.packets == 1

    def test_in_one_direction(self, made: Bed) -> None:
        with datagrams(made, "wifi") as (near, far):
            made.cut("wifi", to_server="nothing", to_client="all")
            near.send(b"lost")
            far.sendto(b"heard", near.getsockname())
            assert near.recv(100) == b"heard"
            assert nothing_told(far)

    def test_answers_get_lost_but_acknowledgements_do_not(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener) as (near, far):
            made.cut("wifi", to_server="all", to_client="no answers")
            near.sendall(b"question" * 1000)
            receive(far, 8000)
            wait_until(lambda: unacknowledged(near) == 0, "the question is acknowledged")
            far.sendall(b"answer")
            wait_until(lambda: made.counters()["wifi"].to_client.cut.payload >= 6, "the answer is lost")
            assert nothing_told(near)
            made.mend("wifi")
            assert receive(near, 6) == b"answer"

    def test_the_other_link_is_not_concerned(self, made: Bed) -> None:
        made.cut("wifi")
        with listening(made) as listener, connected(made, listener, "mobile") as (near, far):
            near.sendall(b"over here")
            assert receive(far, 9) == b"over here"

    def test_flapping(self, made: Bed) -> None:
        made.flap("wifi", up=0.05, down=0.05)
        with datagrams(made, "wifi") as (near, _):

            def turns() -> bool:
                near.send(b"?")
                counters = made.counters()["wifi"].to_server
                return counters.delivered.packets > 10 and counters.cut.packets > 10

            wait_until(turns, "some pass and some do not")
            made.mend("wifi")
            settled = made.counters()["wifi"].to_server.cut.packets
            for _ in range(30):
                near.send(b"!")
            wait_until(
                lambda: (
                    accounted(made.counters()["wifi"].to_server) == made.counters()["wifi"].to_server.entered.packets
                ),
                "all have come",
            )
            assert made.counters()["wifi"].to_server.cut.packets == settled


class TestBlackHoles:
    def test_old_connections_are_silent_and_new_ones_work(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener) as (old, old_far):
            old.sendall(b"before")
            assert receive(old_far, 6) == b"before"
            assert made.black_hole("wifi") == 1
            seen = made.counters()["wifi"].to_client.entered.packets
            old.sendall(b"into the hole")
            wait_until(lambda: made.counters()["wifi"].to_server.cut.packets >= 2, "TCP has tried twice")
            with connected(made, listener) as (new, new_far):
                new.sendall(b"after")
                assert receive(new_far, 5) == b"after"
            assert nothing_told(old)
            assert nothing_told(old_far)
            old_far.sendall(b"nor this way")
            wait_until(lambda: made.counters()["wifi"].to_client.cut.packets >= 1, "nothing comes back either")
            assert nothing_told(old)
            assert made.counters()["wifi"].to_client.entered.packets > seen
            made.mend("wifi")
            assert nothing_told(old)

    def test_the_other_links_connections_live(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener, "mobile") as (near, far):
            assert made.black_hole("wifi") == 0
            near.sendall(b"alive")
            assert receive(far, 5) == b"alive"


class TestAddresses:
    def shown(self, made: Bed, link: LinkName) -> str:
        return made.client.ip("-4", "address", "show", "dev", link)

    def test_down_and_up(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener) as (near, far):
            made.down("wifi")
            assert self.shown(made, "wifi") == ""
            assert "dev wifi" not in made.client.ip("route", "show", "table", "all")
            assert ",UP" not in made.client.ip("link", "show", "dev", "wifi").split(">")[0]
            far.sendall(b"to nobody")
            wait_until(lambda: made.counters()["wifi"].to_client.stray.packets > 0, "it has no way to the client")
            with connected(made, listener) as (other, _):
                assert other.getsockname()[0] == made.client_address("mobile")
            made.up("wifi")
            # The same address, so TCP goes on where it was.
            assert receive(near, 9) == b"to nobody"
            with connected(made, listener) as (again, _):
                assert again.getsockname()[0] == "10.71.0.2"

    def test_new_addresses(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener) as (old, old_far):
            made.cut("wifi")
            made.up("wifi", "new")
            assert made.client_address("wifi") == "10.71.0.3"
            assert "10.71.0.3/24" in self.shown(made, "wifi")
            assert "10.71.0.2/24" not in self.shown(made, "wifi")
            with connected(made, listener) as (new, new_far):
                assert new.getsockname()[0] == "10.71.0.3"
                new.sendall(b"here I am")
                assert receive(new_far, 9) == b"here I am"
            # The old address is nobody's: no reset comes, in neither direction.
            old_far.sendall(b"where are you")
            wait_until(lambda: made.counters()["wifi"].to_client.stray.packets > 0, "the router knows no such address")
            assert nothing_told(old)
            assert nothing_told(old_far)
        made.up("wifi", "10.71.0.99")
        assert made.client_address("wifi") == "10.71.0.99"
        with pytest.raises(AssertionError, match=r"10\.72"):
            made.up("wifi", "10.72.0.9")

    def test_leaving_the_reach_of_a_network(self, made: Bed) -> None:
        with listening(made) as listener, connected(made, listener) as (old, _):
            made.switch("wifi")
            assert self.shown(made, "wifi") == ""
            with connected(made, listener) as (other, _):
                assert other.getsockname()[0] == made.client_address("mobile")
            made.up("wifi", "new")
            with connected(made, listener) as (new, _):
                assert new.getsockname()[0] == "10.71.0.3"
            assert nothing_told(old)

    def test_an_old_address_is_taken_nowhere(self, made: Bed) -> None:
        made.down("wifi")
        # A kernel sends nothing from an address that it does not have, so let it have this one.
        made.client.add_address("lo", "10.71.0.2/32")
        with datagrams(made, "wifi") as (near, _):
            near.send(b"with the old address")
            wait_until(lambda: made.counters()["mobile"].to_server.stray.packets == 1, "mobile does not take it")
        assert made.counters()["mobile"].to_server.delivered.packets == 0

    def test_no_way_at_all_is_told_at_once(self, made: Bed) -> None:
        for link in LINKS:
            made.down(link)
        with pytest.raises(OSError, match="unreachable"):
            made.client.connect((made.address, PORT))


class TestTheBedItself:
    @pytest.mark.parametrize("name", ["cubic", "reno"])
    def test_what_tcp_does_is_not_the_machines_setting(self, name: str) -> None:
        with bed(congestion=name) as made, listening(made) as listener:
            for link in LINKS:
                with connected(made, listener, link) as (near, far):
                    for one in (near, far):
                        told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                        assert told.rstrip(b"\0") == name.encode()
                made.up(link, "new")
                with connected(made, listener, link) as (near, _):
                    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(name.encode())

    def test_what_the_kernel_does_not_have_is_left_out(self) -> None:
        with bed(congestion="nonsense") as made, listening(made) as listener, connected(made, listener) as (near, far):
            near.sendall(b"all the same")
            assert receive(far, 12) == b"all the same"

    def test_every_packet_is_accounted_for(self) -> None:
        narrow = Quality(rate=4e6, delay=0.005, loss=0.01)
        with bed(wifi=narrow) as made, datagrams(made, "wifi") as (near, far):
            for number in range(600):
                near.send(bytes(number))
                if number % 100 == 99:
                    made.cut("wifi") if number % 200 == 99 else made.up("wifi")
            far.sendto(b"!", near.getsockname())
            wait_until(lambda: accounted(made.counters()["wifi"].to_server) == 600, "all is known")
            counters = made.counters()["wifi"].to_server
            assert counters.entered.packets == 600
            assert counters.entered.bytes == sum(28 + number for number in range(600))
            assert counters.cut.packets > 0
            wait_until(lambda: accounted(made.counters()["wifi"].to_client) == 1, "that one too")

    def test_nothing_is_left(self) -> None:
        with bed() as made:
            names = [made.client.name, made.server.name]
            listed = execute("ip", "netns", "list")
            assert all(name in listed for name in names)
            pid = made._relay.pid
        assert not any(name in execute("ip", "netns", "list") for name in names)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_a_router_that_may_not_take_frames_skips_the_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if reason := why_not():
            pytest.skip(reason)
        with monkeypatch.context() as patched:
            # Packet sockets need CAP_NET_RAW.
            command = Namespace.command
            weaker = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
            patched.setattr(Namespace, "command", lambda self, args: [*command(self, args)[:3], *weaker, *args])
            with pytest.raises(pytest.skip.Exception, match="not permitted"), bed():
                pass

    def test_a_router_that_died_is_told_of(self, made: Bed) -> None:
        relay = made._relay
        os.kill(relay.pid, signal.SIGKILL)
        relay.wait(PATIENCE)
        with pytest.raises((pytest.fail.Exception, ConnectionError, BrokenPipeError)):
            made.counters()
        # The end of the bed would complain of it, rightly.
        made.close = made._control.close  # type: ignore[method-assign]
        made.health = lambda: {"overrun": {}}  # type: ignore[method-assign]

    def test_what_the_router_does_not_know_is_an_error(self, made: Bed) -> None:
        with pytest.raises(AssertionError, match="ValueError: nonsense"):
            made._ask(do="nonsense", link="wifi")
        with pytest.raises(AssertionError, match="KeyError"):
            made._ask(do="pass", link="ethernet", to_server="all", to_client="all")
        assert made.delivered() == 0

    def test_two_beds_at_once(self, made: Bed) -> None:
        with bed() as other, listening(made) as here, listening(other) as there:
            with connected(made, here) as (near, far), connected(other, there) as (other_near, other_far):
                near.sendall(b"one")
                other_near.sendall(b"two")
                assert receive(far, 3) + receive(other_far, 3) == b"onetwo"
            assert (made.connections(), other.connections()) == (1, 1)
