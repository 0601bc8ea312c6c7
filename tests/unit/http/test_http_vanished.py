"""Connections whose own address the machine no longer has."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.child import wait_until
from tests.unit.http.site import (
    LOOPS,
    Body,
    Site,
    ask,
    certificate,
    client_context,
    read_all,
    read_until,
    server_context,
)

from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Limits, Response
from hmac_file_server.http.presence import Presence

NOWHERE = frozenset({"192.0.2.1"})
HERE = frozenset({"192.0.2.1", "127.0.0.1", "::1"})

Open = Callable[..., Site]


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest) -> Iterator[Open]:
    started: list[Site] = []

    def start(tls: ssl.SSLContext | None = None, **limits: object) -> Site:
        served = Site(limits=Limits(**limits), loop=request.param, tls=tls)  # type: ignore[arg-type]
        started.append(served)
        served.start()
        return served

    yield start
    for served in started:
        if served.running:
            served.stop()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


def vanish(served: Site, addresses: frozenset[str] = NOWHERE) -> int:
    count: int = served.call(lambda: served.listener.close_vanished(addresses))
    return count


def begun(served: Site, path: str) -> None:
    wait_until(lambda: path in served.exchanges, f"{path} is being handled")


# ---- which


class Transport:
    """A transport's socket with a name of choice."""

    def __init__(self, name: object, protocol: int = socket.IPPROTO_TCP) -> None:
        self._name = name
        self._protocol = protocol

    def get_extra_info(self, name: str) -> Transport:
        assert name == "socket"
        return self

    def getsockname(self) -> object:
        if isinstance(self._name, OSError):
            raise self._name
        return self._name

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_PROTOCOL)
        return self._protocol


@pytest.mark.parametrize(
    ("host", "addresses", "lacks"),
    [
        ("192.0.2.1", {"192.0.2.1"}, False),
        ("192.0.2.2", {"192.0.2.1"}, True),
        ("::ffff:192.0.2.1", {"192.0.2.1"}, False),
        ("::ffff:192.0.2.2", {"192.0.2.1"}, True),
        ("192.0.2.1", {"::ffff:192.0.2.1"}, False),
        ("2001:db8::1", {"2001:0db8:0::1"}, False),
        ("2001:db8::1", {"2001:db8::2", "192.0.2.1"}, True),
        ("fe80::1%eth0", {"fe80::1"}, False),
        ("fe80::1", {"fe80::1%eth0"}, False),
        ("127.0.0.1", {"192.0.2.1"}, True),
        ("127.0.0.2", {"127.0.0.1"}, False),
        ("::ffff:127.0.0.2", {"127.0.0.1"}, False),
        ("127.0.0.2", {"::1"}, True),
        ("::1", {"127.0.0.1"}, True),
        ("no address", {"192.0.2.1"}, False),
        ("192.0.2.1", {"", "no address"}, True),
        ("192.0.2.1", set(), True),
    ],
)
def test_which_addresses_are_gone(host: str, addresses: set[str], lacks: bool) -> None:
    presence = Presence(frozenset(addresses))
    assert presence.lacks(Transport((host, 8080))) is lacks
    assert presence.lacks(Transport((host, 8080, 0, 0))) is lacks


def test_what_has_no_address_to_lose() -> None:
    presence = Presence(NOWHERE)
    assert not presence.lacks(Transport("/run/socket"))
    assert not presence.lacks(Transport(OSError(9, "Bad file descriptor")))
    # Multipath TCP goes on over its other addresses.
    assert not presence.lacks(Transport(("192.0.2.2", 8080), 262))


# ---- what becomes of them


def test_nobody_is_dropped_while_the_address_is_there(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
        assert vanish(served, HERE) == 0
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")


@pytest.mark.parametrize("tls", [False, True])
def test_idle_connections_are_reset(serve: Open, keys: tuple[Path, Path], tls: bool) -> None:
    served = serve(server_context(*keys) if tls else None)
    plain = served.connect()
    with client_context(keys[0]).wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain as sock:
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
        assert vanish(served) == 1
        assert vanish(served) == 0
        wait_until(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET, "it is reset")
    wait_until(lambda: served.connections() == 0, "the connection is gone")


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("length", [60_000, 100_000_000])
def test_bodies_are_cut_with_all_that_came(serve: Open, keys: tuple[Path, Path], tls: bool, length: int) -> None:
    served = serve(server_context(*keys) if tls else None)
    plain = served.connect()
    with client_context(keys[0]).wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain as sock:
        sock.sendall(ask("PUT /put/a", f"Content-Length: {length}"))
        begun(served, "/put/a")
        sock.sendall(b"x" * 50_000)
        assert vanish(served) == 1
        assert vanish(served) == 0
        wait_until(lambda: len(served.ends) == 1, "the body is cut")
        wait_until(lambda: served.connections() == 0, "the connection is gone")
    assert served.ends == [BodyEnd(50_000, BodyCut.NETWORK_GONE)]
    assert len(served.sinks["/put/a"].data) == 50_000


@pytest.mark.parametrize("length", [60_000, 1_000_000])
def test_a_body_that_is_whole_by_then(serve: Open, length: int) -> None:
    """It counts; only its answer has nowhere to go."""
    served = serve()
    ends: list[BodyEnd] = []
    held: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        exchange.receive(Body(), ends.append)
        held.append(exchange)

    served.listener.handler = handle
    with served.connect() as sock:
        sock.sendall(ask("PUT /a", f"Content-Length: {length}"))
        wait_until(lambda: len(held) == 1, "the body has begun")
        sock.sendall(b"x" * length)
        assert vanish(served) == 1
        wait_until(lambda: len(ends) == 1 and served.connections() == 0, "the connection is gone")
        served.call(lambda: held[0].respond(Response(201)))
    assert ends == [BodyEnd(length)]
    assert served.done == [("/a", 499, 0)]


def test_a_handler_that_owes_an_answer(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /poll/a"))
        begun(served, "/poll/a")
        assert vanish(served) == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        wait_until(lambda: served.gone == ["/poll/a"], "it has been told")
    with served.connect() as sock:
        sock.sendall(ask("GET /slow"))
        begun(served, "/slow")
        assert vanish(served) == 1
        served.gate.set()
        wait_until(lambda: len(served.done) == 1, "it is logged")
    assert served.done == [("/slow", 499, 0)]


@pytest.mark.parametrize("action", ["file", "pieces"])
def test_a_file_on_its_way_out(serve: Open, action: str) -> None:
    """A body loop that sends does not wait until its client is said to have stalled."""
    served = serve()
    with served.connect(receive_buffer=4096) as sock:
        sock.sendall(ask(f"GET /{action}/50000000"))
        begun(served, f"/{action}/50000000")
        assert vanish(served) == 1
        wait_until(lambda: len(served.done) == 1, "the file is dropped")
        wait_until(lambda: served.connections() == 0, "the connection is gone")
        assert len(read_all(sock)) < 50_000_000
    assert served.done[0][1] == 200
    assert served.done[0][2] < 50_000_000
    assert served.spans[0].closed == 1


def test_only_connections_of_the_address_that_is_gone(serve: Open) -> None:
    served = serve()
    other = socket.create_server(("127.0.0.1", 0))
    with other, served.connect() as sock:
        near, far = socket.socketpair()
        served.call(lambda: served.listener.adopt_socket(near, ask("GET /hello"), "unix"))
        with far:
            far.settimeout(20)
            read_until(far, b"hello")
            sock.sendall(ask("GET /hello"))
            read_until(sock, b"hello")
            assert vanish(served) == 1
            far.sendall(ask("GET /hello"))
            read_until(far, b"hello")
