"""Netlink messages: what is read from them, and that no bytes whatever upset the reader."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_file_server.network import rtnetlink
from hmac_file_server.network.rtnetlink import AddressState, Hop, Interrupted, LinkState, Queries

V4, V6 = socket.AF_INET, socket.AF_INET6


def message(kind: int, body: bytes, *, sequence: int = 1, flags: int = 2) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def address(kind: int, text: str) -> bytes:
    return attribute(kind, socket.inet_pton(V6 if ":" in text else V4, text))


def route(family: int, *attributes: bytes, to: int = 0, kind: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", family, to, 0, 0, 254, 3, 0, kind, flags) + b"".join(attributes)


def own_address(family: int, *attributes: bytes, scope: int = 0, index: int = 2, flags: int = 0x80) -> bytes:
    return struct.pack("=BBBBI", family, 24, flags, scope, index) + b"".join(attributes)


def error(code: int) -> bytes:
    return message(2, struct.pack("=i", -code) + bytes(16))


DONE = message(3, struct.pack("=i", 0))


class Kernel:
    """Answers every question with what is put into it, one datagram a read."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.asked: list[bytes] = []
        self.closed = False

    def send(self, data: bytes) -> int:
        self.asked.append(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)

    def setsockopt(self, *args: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    fake = Kernel()
    monkeypatch.setattr(socket, "socket", lambda *args: fake)
    return fake


@pytest.fixture
def queries(kernel: Kernel) -> Iterator[Queries]:
    with Queries() as asked:
        yield asked
    assert kernel.closed


def test_addresses(kernel: Kernel, queries: Queries) -> None:
    kernel.answers = [
        message(20, own_address(V4, address(1, "192.0.2.7"), address(2, "192.0.2.7")))
        + message(20, own_address(V4, address(1, "127.0.0.1"), scope=254, index=1)),
        message(20, own_address(V6, address(1, "2001:db8::7"), attribute(6, bytes(16))))
        # Point-to-point: the other end is IFA_ADDRESS.
        + message(20, own_address(V4, address(1, "198.51.100.1"), address(2, "198.51.100.2"), index=9)),
        # Of a family that is not ours, and one without an address.
        message(20, own_address(44, b"")) + message(20, own_address(V4)) + DONE,
    ]
    assert queries.addresses() == [
        AddressState("192.0.2.7", 0, 2),
        AddressState("127.0.0.1", 254, 1),
        AddressState("2001:db8::7", 0, 2),
        AddressState("198.51.100.2", 0, 9),
    ]
    length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", kernel.asked[0])
    assert (length, kind, flags, sequence) == (len(kernel.asked[0]), 22, 0x301, 1)


@pytest.mark.parametrize(
    ("flags", "running"), [(0x1 | 0x40 | 0x10000, True), (0x1, False), (0x40, False), (0x1 | 0x10000, False)]
)
def test_a_link(kernel: Kernel, queries: Queries, flags: int, running: bool) -> None:
    kernel.answers = [message(16, struct.pack("=BxHiII", 0, 1, 2, flags, 0) + attribute(3, b"eth0\0"))]
    assert queries.link(2) == LinkState("eth0", running)


def test_a_link_that_is_gone(kernel: Kernel, queries: Queries) -> None:
    kernel.answers = [error(errno.ENODEV)]
    assert queries.link(2) is None


def test_an_error_is_raised(kernel: Kernel, queries: Queries) -> None:
    kernel.answers = [error(errno.EPERM)]
    with pytest.raises(PermissionError):
        queries.addresses()
    kernel.answers = [message(3, struct.pack("=i", -errno.EMSGSIZE), sequence=2)]
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        queries.addresses()


def test_an_interrupted_answer_is_no_answer(kernel: Kernel, queries: Queries) -> None:
    kernel.answers = [message(20, own_address(V4, address(2, "192.0.2.7")), flags=2 | 0x10) + DONE]
    with pytest.raises(Interrupted):
        queries.addresses()


def test_answers_to_other_questions_are_left_out(kernel: Kernel, queries: Queries) -> None:
    stray = message(20, own_address(V4, address(2, "203.0.113.1")), sequence=77)
    kernel.answers = [stray + message(20, own_address(V4, address(2, "192.0.2.7"))) + stray, stray, DONE]
    assert [found.text for found in queries.addresses()] == ["192.0.2.7"]


def test_default_routes(kernel: Kernel, queries: Queries) -> None:
    kernel.answers = [
        message(24, route(V4, address(5, "192.0.2.1"), number(4, 2), number(6, 100)))
        + message(24, route(V4, number(4, 7)))
        # No default route, no route of ours, no way at all, a memory of a route.
        + message(24, route(V4, address(5, "192.0.2.2"), number(4, 2), to=8))
        + message(24, route(V6, number(4, 2)))
        + message(24, route(V4, number(4, 2), kind=7))
        + message(24, route(V4, number(4, 2), flags=0x200)),
        DONE,
    ]
    assert queries.default_routes(V4) == [Hop("192.0.2.1", 100, 2), Hop("", 0, 7)]


def test_a_metric_may_use_all_its_bits(kernel: Kernel, queries: Queries) -> None:
    kernel.answers = [message(24, route(V6, number(4, 2), number(6, 0xFFFFFFFF))) + DONE]
    assert queries.default_routes(V6) == [Hop("", 0xFFFFFFFF, 2)]


def test_several_next_hops(kernel: Kernel, queries: Queries) -> None:
    def hop(index: int, gateway: bytes) -> bytes:
        return struct.pack("=HBBi", 8 + len(gateway), 0, 0, index) + gateway

    hops = hop(2, address(5, "192.0.2.1")) + hop(3, address(5, "198.51.100.1")) + hop(4, b"")
    kernel.answers = [message(24, route(V4, attribute(9, hops), number(6, 5))) + DONE]
    assert queries.default_routes(V4) == [Hop("192.0.2.1", 5, 2), Hop("198.51.100.1", 5, 3), Hop("", 5, 4)]


def test_ipv4_by_way_of_an_ipv6_neighbour(kernel: Kernel, queries: Queries) -> None:
    via = struct.pack("=H", V6) + socket.inet_pton(V6, "fe80::1")
    kernel.answers = [message(24, route(V4, attribute(18, via), number(4, 2))) + DONE]
    assert queries.default_routes(V4) == [Hop("fe80::1", 0, 2)]


def test_a_routers_table_is_given_up(kernel: Kernel, queries: Queries) -> None:
    one = message(24, route(V4, number(4, 2), to=24))
    kernel.answers = [message(24, route(V4, number(4, 2))) + one * 500] * 100
    assert queries.default_routes(V4) == []
    # And soon, not at its end.
    assert len(kernel.answers) > 90


def test_an_old_kernel_filters_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(kernel, "setsockopt", refuse)
    with Queries() as old:
        kernel.answers = [message(24, route(V4, number(4, 2), kind=2)) + message(24, route(V4, number(4, 3))) + DONE]
        assert old.default_routes(V4) == [Hop("", 0, 3)]
    # The question has no filter: a kernel that does not know filters must not see one.
    assert kernel.asked[0][16 + 7] == 0


# --- events --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (message(16, bytes(16)), True),
        (message(17, bytes(16)), True),
        (message(20, own_address(V4)), True),
        (message(21, own_address(V6)), True),
        (message(24, route(V4)), True),
        (message(25, route(V6)), True),
        (message(24, route(V4, to=32)), False),
        (message(25, route(V6, to=64)), False),
        (message(24, route(V4, to=32)) + message(25, route(V4, to=24)), False),
        (message(24, route(V4, to=32)) + message(25, route(V4)), True),
        (b"", False),
    ],
)
def test_what_may_be_a_change(data: bytes, changes: bool) -> None:
    assert rtnetlink.tells_of_change(data) is changes


def test_the_events_socket_is_closed_when_it_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Refused(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        def close(self) -> None:
            closed.append(True)
            super().close()

    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(PermissionError):
        rtnetlink.events()
    assert closed == [True]


def test_the_events_socket_never_blocks() -> None:
    with rtnetlink.events() as events:
        assert not events.getblocking()
        assert not os.get_inheritable(events.fileno())
        assert events.getsockname()[1] == rtnetlink.GROUPS


# --- any bytes -----------------------------------------------------------------------------------------------


def everything_read(data: bytes) -> int:
    count = 0
    for _, _, _, body in rtnetlink.messages(data):
        assert len(body) <= len(data)
        count += 1 + len(rtnetlink._attributes(body, 8))
    return count


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes(data: bytes) -> None:
    assert everything_read(data) <= len(data)
    assert rtnetlink.tells_of_change(data) in {True, False}


@given(st.data())
@settings(deadline=None)
def test_a_message_that_is_cut_or_bent(data: st.DataObject) -> None:
    """Lengths that lie lead nowhere: not beyond the end, and not round in circles."""
    whole = message(24, route(V4, number(4, 2), attribute(9, bytes(16)), address(5, "192.0.2.1"))) + message(
        20, own_address(V6, address(1, "2001:db8::7"))
    )
    bent = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        bent[data.draw(st.integers(0, len(bent) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(bent[: data.draw(st.integers(0, len(bent)))])
    assert everything_read(cut) <= len(cut)
    assert rtnetlink.tells_of_change(cut) in {True, False}


@given(st.dictionaries(st.sampled_from([4, 5, 6, 9, 18]), st.binary(max_size=40)))
@settings(deadline=None)
def test_next_hops_of_any_bytes(attributes: dict[int, bytes]) -> None:
    hops = rtnetlink._hops(V4, attributes)
    assert len(hops) <= 1 + len(attributes.get(9, b"")) // 8


def test_bodies_that_are_too_short(kernel: Kernel, queries: Queries) -> None:
    kernel.answers = [message(20, b"\2\2") + message(20, own_address(V4, attribute(2, b"short"))) + DONE]
    assert queries.addresses() == []
    kernel.answers = [message(16, b"\0\0\0\0", sequence=2)]
    assert queries.link(2) is None
    kernel.answers = [message(24, b"\2\0\0\0", sequence=3) + message(3, b"", sequence=3)]
    assert queries.default_routes(V4) == []
