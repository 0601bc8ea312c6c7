"""What the kernel tells of Multipath TCP: in namespaces where it is set up, or not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self
from unittest import mock

import pytest
from tests.fixtures.namespaces import Namespace, network

from hmac_file_server.client import multipath, sockets

MPTCP = 262


@pytest.fixture
def place() -> Iterator[Namespace]:
    with network() as net:
        made = net.namespace("paths")
        made.up("lo")
        if made.run("cat", "/proc/sys/net/mptcp/enabled").strip() != "1":
            pytest.skip("this kernel has no Multipath TCP")
        made.ip("mptcp", "limits", "set", "add_addr_accepted", "0", "subflows", "2")
        yield made


def test_it_is_possible_with_endpoints(place: Namespace) -> None:
    assert not place.call(multipath.possible)
    for address in ("127.0.0.1", "127.0.0.2"):
        place.ip("mptcp", "endpoint", "add", address, "dev", "lo", "subflow")
        assert place.call(multipath.possible)
    place.ip("mptcp", "endpoint", "flush")
    assert not place.call(multipath.possible)


def test_it_is_possible_where_a_server_may_name_addresses(place: Namespace) -> None:
    place.ip("mptcp", "limits", "set", "add_addr_accepted", "2", "subflows", "2")
    assert place.call(multipath.possible)


@pytest.mark.parametrize(("listening", "connecting", "paths"), [(MPTCP, MPTCP, 1), (0, MPTCP, 0), (MPTCP, 0, 0)])
def test_paths_are_counted_where_both_speak_it(place: Namespace, listening: int, connecting: int, paths: int) -> None:
    with ExitStack() as rest:
        listener, near = (
            rest.enter_context(place.new_socket(protocol=protocol)) for protocol in (listening, connecting)
        )
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near.connect(listener.getsockname())
        rest.enter_context(listener.accept()[0])
        assert multipath.paths(near) == paths


def test_a_connection_asks_for_it_only_where_it_may_help(place: Namespace) -> None:
    def protocol() -> int:
        with sockets._socket(socket.AF_INET, mptcp=True) as made:
            return made.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)

    assert place.call(protocol) == socket.IPPROTO_TCP
    place.ip("mptcp", "endpoint", "add", "127.0.0.1", "dev", "lo", "subflow")
    assert place.call(protocol) == MPTCP


def reply(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


@pytest.mark.parametrize(
    "answer",
    [
        reply(2, struct.pack("=i", -2)),  # ENOENT: no path manager in this kernel
        reply(2, struct.pack("=i", -1)),  # EPERM
        reply(3, b""),
        b"",
        b"\0" * 16,
        b"\xff" * 7,
        reply(0x10, b"\3\1\0\0" + b"\2\0\1\0"),  # an attribute that is shorter than its own head
    ],
)
def test_no_answer_is_taken_for_a_no(answer: bytes) -> None:
    class Silent:
        settimeout = send = mock.Mock()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def recv(self, _size: int) -> bytes:
            if not answer:
                raise TimeoutError
            return answer

    with mock.patch("hmac_file_server.client.multipath.socket.socket", return_value=Silent()):
        assert not multipath.possible()


def test_what_cannot_be_asked_has_no_paths() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert multipath.paths(near) == 0
    assert multipath.paths(near) == 0
