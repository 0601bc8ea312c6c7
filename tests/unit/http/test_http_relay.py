"""TLS connections that another process serves: bytes both ways, with back-pressure, to either end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.child import wait_until
from tests.unit.http.site import (
    LOOPS,
    Site,
    ask,
    certificate,
    client_context,
    put,
    read_all,
    read_until,
    server_context,
)

from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Limits, Response
from hmac_file_server.http.connection import State
from hmac_file_server.network.handoff import Handoff

CLOSE = ask("GET /hello", "Connection: close")
SIZE = 20 * 1024 * 1024
BODY = bytes(range(256)) * (SIZE // 256)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


class Front:
    """A site with TLS in front of a plain one, which serves everything but /here/."""

    def __init__(self, loop: str, keys: tuple[Path, Path], **limits: object) -> None:
        self.front = Site(limits=Limits(**limits), loop=loop, tls=server_context(*keys))  # type: ignore[arg-type]
        self.back = Site(limits=Limits(**limits), loop=loop)  # type: ignore[arg-type]
        self.handoff = Handoff(2)
        self.refuse = False
        self.adopting = True
        self._context = client_context(keys[0])
        for site in (self.front, self.back):
            site.start()
        self.front.listener.handler = self._handle
        self.back.call(self._listen)

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.handoff.inbox(1).fileno(), self._adopt)

    def _adopt(self) -> None:
        while (given := self.handoff.receive(1)) is not None:
            if self.adopting:
                self.back.listener.adopt_socket(*given)
            else:
                given[0].close()

    def _handle(self, exchange: Exchange) -> None:
        if exchange.request.path.startswith("/here/"):
            exchange.respond(Response(200, b"", b"here"))
        elif not exchange.hand_over(self._give):
            exchange.respond(Response(503, b"", b"refused"))

    def _give(self, fd: int, data: bytes, peer: str) -> bool:
        return not self.refuse and self.handoff.send(1, fd, data, peer)

    def connect(self, *, receive_buffer: int | None = None) -> ssl.SSLSocket:
        return self._context.wrap_socket(self.front.connect(receive_buffer=receive_buffer), server_hostname="127.0.0.1")

    def relaying(self) -> bool:
        return [connection.state for connection in self.front.listener.connections] == [State.RELAYING]

    def empty(self) -> None:
        wait_until(lambda: self.front.connections() == self.back.connections() == 0, "the connections are gone")

    def stop(self) -> None:
        if self.back.running:
            self.back.call(lambda: asyncio.get_running_loop().remove_reader(self.handoff.inbox(1).fileno()))
        for site in (self.front, self.back):
            if site.running:
                site.stop()
        self.handoff.close()


Start = Callable[..., Front]


@pytest.fixture(params=LOOPS)
def start(request: pytest.FixtureRequest, keys: tuple[Path, Path]) -> Iterator[Start]:
    made: list[Front] = []

    def begin(**limits: object) -> Front:
        made.append(Front(request.param, keys, **limits))
        return made[-1]

    yield begin
    for front in made:
        front.stop()


def test_one_request_after_the_other(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        sock.sendall(ask("GET /here/"))
        read_until(sock, b"here")
        for number in range(5):
            sock.sendall(ask("GET /hello"))
            assert read_until(sock, b"hello").startswith(b"HTTP/1.1 200 ")
            sock.sendall(put(f"/put/{number}", b"x" * number * 70_000))
            read_until(sock, b"%d" % (number * 70_000))
        assert front.relaying()
        sock.sendall(CLOSE)
        assert read_all(sock).endswith(b"hello")
    front.empty()
    assert [entry[:2] for entry in front.front.done] == [("/here/", 200)]
    assert len(front.back.done) == 11


def test_the_peer_travels_along(start: Start) -> None:
    front = start()
    front.back.listener.handler = lambda exchange: exchange.respond(Response(200, b"", exchange.peer.encode()))
    with front.connect() as sock:
        sock.sendall(ask("GET /peer", "Connection: close"))
        host, port = sock.getsockname()
        assert read_all(sock).endswith(f"{host}:{port}".encode())


def test_earlier_answers_come_first(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        sock.sendall(ask("GET /here/") * 50 + put("/put/a", b"abc") + ask("GET /bytes/100000") + CLOSE)
        received = read_all(sock)
    lengths = [int(part.split(b"\r\n", 1)[0]) for part in received.split(b"Content-Length: ")[1:]]
    assert lengths == [*[4] * 50, 1, 100_000, 5]


def test_a_large_body_each_way(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        sock.sendall(ask("PUT /put/a", f"Content-Length: {SIZE}", "Expect: 100-continue"))
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        sock.sendall(BODY)
        read_until(sock, b"%d" % SIZE)
        sock.sendall(ask(f"GET /file/{SIZE}") + CLOSE)
        assert len(read_all(sock)) > SIZE
    assert zlib.crc32(front.back.bodies["/put/a"].data) == zlib.crc32(BODY)


def test_both_ways_at_once(start: Start) -> None:
    """A client that sends its next bodies while it is still being answered."""
    front = start()
    with front.connect() as sock:
        # From one thread: what is sent fits into the buffers on the way.
        sock.sendall(ask("GET /file/8000000") + put("/put/a", b"x" * 300_000) + ask("GET /file/8000000") + CLOSE)
        received = read_all(sock)
    assert received.count(b"HTTP/1.1 ") == 4
    assert received.count(b"\0") == 16_000_000


def test_a_process_that_reads_slowly_holds_its_client_back(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        writer = threading.Thread(target=sock.sendall, args=(put(f"/hold/{100_000}", BODY),))
        writer.start()
        wait_until(lambda: front.back.held is not None and len(front.back.held.data) >= 100_000, "the sink is busy")
        (connection,) = front.front.listener.connections
        relay = connection._relay
        assert relay is not None
        wait_until(lambda: relay._writing and relay._waiting_bytes > 256 * 1024, "the relay is full")
        for _ in range(20):
            front.front.call(lambda: None)
        assert relay._waiting_bytes < 2 * 1024 * 1024
        front.back.gate.set()
        # Python's TLS sockets want one thread at a time.
        writer.join(20)
        read_until(sock, b"%d" % SIZE)
    assert zlib.crc32(front.back.bodies["/hold/100000"].data) == zlib.crc32(BODY)


def test_a_client_that_reads_slowly_holds_its_process_back(start: Start) -> None:
    front = start()
    with front.connect(receive_buffer=65_536) as sock:
        sock.sendall(ask("GET /file/30000000") + CLOSE)
        wait_until(front.relaying, "the connection is relayed")
        (connection,) = front.front.listener.connections
        wait_until(lambda: connection._write_paused, "the client does not read")
        size: int = front.front.call(connection._transport.get_write_buffer_size)
        assert size < 2 * 1024 * 1024
        assert read_all(sock).count(b"\0") == 30_000_000


# ---- ends


def test_a_process_that_does_not_take_it(start: Start) -> None:
    front = start()
    front.refuse = True
    with front.connect() as sock:
        sock.sendall(ask("GET /hello") + ask("GET /here/"))
        received = read_until(sock, b"here")
        assert received.startswith(b"HTTP/1.1 503 ")
        assert received.count(b"HTTP/1.1 200 ") == 1


def test_a_client_that_leaves(start: Start) -> None:
    """All that it had sent is delivered, unless so much was waiting that it was not read any more."""
    front = start()
    with front.connect() as sock:
        sock.sendall(ask("GET /here/"))
        read_until(sock, b"here")
        sock.sendall(ask("PUT /put/a", f"Content-Length: {SIZE}", body=BODY[:500_000]))
        wait_until(lambda: "/put/a" in front.back.exchanges, "the body has begun")
    wait_until(lambda: len(front.back.ends) == 1, "the body has ended")
    assert front.back.ends == [BodyEnd(500_000, BodyCut.DISCONNECTED)]
    front.empty()


def test_a_client_that_leaves_while_its_process_is_busy(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        # With all that the server had said read, the socket is closed and not reset.
        sock.sendall(ask("GET /here/"))
        read_until(sock, b"here")
        sock.sendall(ask("PUT /hold/100000", f"Content-Length: {SIZE}", body=BODY[:500_000]))
        wait_until(lambda: front.back.held is not None and bool(front.back.held.data), "the sink is busy")
    front.back.gate.set()
    wait_until(lambda: len(front.back.ends) == 1, "the body has ended")
    (end,) = front.back.ends
    assert end == BodyEnd(500_000, BodyCut.DISCONNECTED)
    front.empty()


def test_a_client_that_leaves_amid_its_answer(start: Start) -> None:
    front = start()
    with front.connect(receive_buffer=65_536) as sock:
        sock.sendall(ask("GET /file/30000000"))
        sock.recv(1000)
    front.empty()
    assert front.back.done[0][2] < 30_000_000


@pytest.mark.parametrize("answer", [True, False])
def test_a_process_that_closes(start: Start, answer: bool) -> None:
    front = start()

    def close(exchange: Exchange) -> None:
        if answer:
            exchange.respond(Response(200, b"", b"last", close=True))
        else:
            exchange.abort()

    front.back.listener.handler = close
    with front.connect() as sock:
        sock.sendall(ask("GET /a"))
        received = b""
        with contextlib.suppress(ssl.SSLError, OSError):
            received = read_all(sock)
        assert received.endswith(b"last") is answer
    front.empty()


def test_a_refused_body_lets_its_client_read_the_refusal(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        sent = 0
        sock.sendall(ask("PUT /refuse", f"Content-Length: {SIZE}"))
        while sent < 4_000_000:
            sock.sendall(BODY[:100_000])
            sent += 100_000
        assert read_until(sock, b"no").startswith(b"HTTP/1.1 403 ")
    front.empty()


def test_a_process_that_dies(start: Start) -> None:
    """Its end of the pair closes with it."""
    front = start()
    front.adopting = False
    with front.connect() as sock:
        sock.sendall(ask("PUT /put/a", f"Content-Length: {SIZE}", body=b"x" * 200_000))
        with contextlib.suppress(ssl.SSLError, OSError):
            assert read_all(sock) == b""
    front.empty()


def test_the_end_of_the_server(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
        front.back.stop()
        front.front.stop()
        with contextlib.suppress(ssl.SSLError, OSError):
            assert read_all(sock) == b""


def test_the_end_of_the_front_while_a_process_is_busy(start: Start) -> None:
    """What it has not taken by then is dropped with the pair."""
    front = start()
    with front.connect() as sock:
        writer = threading.Thread(target=_send, args=(sock, put("/hold/100000", BODY)))
        writer.start()
        wait_until(lambda: front.back.held is not None and bool(front.back.held.data), "the sink is busy")
        (connection,) = front.front.listener.connections
        relay = connection._relay
        assert relay is not None
        wait_until(lambda: relay._writing, "the relay waits")
        front.front.stop()
        assert relay._sock.fileno() == -1
        front.back.gate.set()
        writer.join(20)
    wait_until(lambda: len(front.back.ends) == 1, "the body has ended")
    assert front.back.ends[0].cut is BodyCut.DISCONNECTED


def _send(sock: ssl.SSLSocket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)


def test_the_end_of_the_front_alone(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        sock.sendall(ask("PUT /put/a", f"Content-Length: {SIZE}", body=b"x" * 200_000))
        wait_until(lambda: "/put/a" in front.back.exchanges, "the body has begun")
        front.front.stop()
        wait_until(lambda: len(front.back.ends) == 1, "the body has ended")
    assert front.back.ends[0].cut is BodyCut.DISCONNECTED


def test_a_vanished_address_ends_the_relay(start: Start) -> None:
    front = start()
    with front.connect() as sock:
        sock.sendall(ask("PUT /put/a", f"Content-Length: {SIZE}", body=b"x" * 200_000))
        wait_until(lambda: "/put/a" in front.back.exchanges, "the body has begun")
        assert front.front.call(lambda: front.front.listener.close_vanished(frozenset())) == 1
        wait_until(lambda: len(front.back.ends) == 1, "the body has ended")
    assert front.back.ends == [BodyEnd(200_000, BodyCut.DISCONNECTED)]
    front.empty()


def test_no_pair_to_be_had(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    front = start()

    def none_left() -> None:
        raise OSError(24, "Too many open files")

    with front.connect() as sock:
        sock.sendall(ask("GET /here/"))
        read_until(sock, b"here")
        monkeypatch.setattr(socket, "socketpair", none_left)
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"refused")
        monkeypatch.undo()
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
