"""Connections on their way between processes: what arrives is what was sent, or nothing was."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmac_file_server.network import handoff as module
from hmac_file_server.network.handoff import Handoff


@pytest.fixture
def handoff() -> Iterator[Handoff]:
    made = Handoff(3)
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    theirs.settimeout(20)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 1024 * 1024, 9_000_000])
def test_a_connection_with_what_was_read_from_it(handoff: Handoff, pair: Pair, size: int) -> None:
    ours, theirs = pair
    before = descriptors()
    data = (b"%d " % size) * (size // 2 + 1)
    assert handoff.send(1, ours.fileno(), data[:size], "[2001:db8::1]:4711")
    assert handoff.receive(0) is None
    received = handoff.receive(1)
    assert received is not None
    sock, got, peer = received
    with sock:
        assert (got, peer) == (data[:size], "[2001:db8::1]:4711")
        assert not os.get_inheritable(sock.fileno())
        # The sender's own descriptor may go; the connection lives on with the duplicate.
        ours.close()
        sock.sendall(b"here")
        assert theirs.recv(100) == b"here"
    assert theirs.recv(100) == b""
    assert handoff.receive(1) is None
    assert descriptors() == before - 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=40_000), st.text(max_size=40)), max_size=6))
def test_messages_keep_their_order_and_do_not_mix(
    handoff: Handoff, pair: Pair, messages: list[tuple[int, bytes, str]]
) -> None:
    for index, data, peer in messages:
        assert handoff.send(index, pair[0].fileno(), data, peer)
    for index in range(3):
        for _, data, peer in [message for message in messages if message[0] == index]:
            received = handoff.receive(index)
            assert received is not None
            received[0].close()
            assert received[1:] == (data, peer)
        assert handoff.receive(index) is None


def test_the_kinds_of_sockets(handoff: Handoff) -> None:
    for family in (socket.AF_INET, socket.AF_UNIX):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            assert handoff.send(0, sock.fileno(), b"", "unix")
            received = handoff.receive(0)
            assert received is not None
            with received[0] as given_away:
                assert (given_away.family, given_away.type) == (family, socket.SOCK_STREAM)


def test_a_full_inbox_takes_nothing_more_until_it_is_read(handoff: Handoff, pair: Pair) -> None:
    before = descriptors()
    sent = 0
    while handoff.send(2, pair[0].fileno(), b"x" * 10_000, "peer"):
        sent += 1
        assert sent < 10_000
    assert sent >= 8
    # Others are not held up by it.
    assert handoff.send(1, pair[0].fileno(), b"y", "peer")
    received = handoff.receive(2)
    assert received is not None
    received[0].close()
    assert handoff.send(2, pair[0].fileno(), b"z", "peer")
    taken = []
    while (more := handoff.receive(2)) is not None:
        more[0].close()
        taken.append(more[1])
    assert taken[-1] == b"z"
    assert len([data for data in taken if data == b"x" * 10_000]) == sent - 1
    assert descriptors() == before


def test_what_can_not_be_sent(handoff: Handoff, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    for data in (b"data", b"x" * 100_000):
        assert not handoff.send(0, -1, data, "peer")

    def none_left(_fd: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", none_left)
    assert not handoff.send(0, pair[0].fileno(), b"x" * 100_000, "peer")
    monkeypatch.undo()
    assert handoff.receive(0) is None
    assert descriptors() == before


def test_a_long_peer_is_cut(handoff: Handoff, pair: Pair) -> None:
    assert handoff.send(0, pair[0].fileno(), b"data", "p" * 300)
    received = handoff.receive(0)
    assert received is not None
    received[0].close()
    assert received[1:] == (b"data", "p" * 256)


def test_a_receiver_without_descriptors_drops_the_connection_and_no_other(handoff: Handoff, pair: Pair) -> None:
    ours, theirs = pair
    assert handoff.send(0, ours.fileno(), b"x" * 100_000, "lost")
    assert handoff.send(0, ours.fileno(), b"lost", "lost")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 8, hard))
    try:
        try:
            while True:
                filler.append(os.dup(0))
        except OSError:
            pass
        assert handoff.receive(0) is None
    finally:
        for fd in filler:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert handoff.send(0, ours.fileno(), b"kept", "peer")
    received = handoff.receive(0)
    assert received is not None
    with received[0] as sock:
        assert received[1] == b"kept"
        sock.sendall(b"here")
        assert theirs.recv(10) == b"here"


@pytest.mark.parametrize("message", [b"", b"\0", b"\0\0\3\0\0\0\0\0\0\0\5abcxx", b"\1\0\0\0\0\0\0\0\0\0\5"])
def test_a_message_that_is_not_whole_is_dropped(message: bytes, pair: Pair) -> None:
    before = descriptors()
    fd = os.dup(pair[0].fileno())
    assert module._unpack(message, [fd]) is None
    assert module._unpack(b"\0\0\0\0\0\0\0\0\0\0\0", []) is None
    with open("/dev/null", "rb") as no_socket:
        assert module._unpack(b"\0\0\0\0\0\0\0\0\0\0\0", [os.dup(no_socket.fileno())]) is None
    assert descriptors() == before


def test_each_process_reads_its_own_inbox_and_writes_to_all(pair: Pair) -> None:
    handoff = Handoff(2)
    handoff.keep_only(1)
    assert handoff.inbox(0).fileno() == -1
    assert handoff.receive(0) is None
    # Nobody reads the other one any more: its parent, which would keep it, is not here.
    assert not handoff.send(0, pair[0].fileno(), b"", "peer")
    assert handoff.send(1, pair[0].fileno(), b"", "peer")
    received = handoff.receive(1)
    assert received is not None
    received[0].close()
    handoff.close()
    handoff.close()
    assert handoff.receive(1) is None
    assert not handoff.send(1, pair[0].fileno(), b"", "peer")


def test_too_few_descriptors_for_the_inboxes() -> None:
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Handoff(10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() == before
