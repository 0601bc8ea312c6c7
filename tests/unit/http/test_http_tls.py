"""The connection over TLS, on both event loops: bodies and files go through the event loop there."""

from __future__ import annotations

import contextlib
import socket
import ssl
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

from hmac_file_server.http import BodyCut, Limits

CLOSE = ask("GET /hello", "Connection: close")

Open = Callable[..., Site]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest, keys: tuple[Path, Path]) -> Iterator[Open]:
    started: list[Site] = []

    def start(**limits: object) -> Site:
        served = Site(limits=Limits(**limits), loop=request.param, tls=server_context(*keys))  # type: ignore[arg-type]
        started.append(served)
        served.start()
        return served

    yield start
    for served in started:
        if served.running:
            served.stop()


@pytest.fixture
def connect(keys: tuple[Path, Path]) -> Iterator[Callable[[Site], ssl.SSLSocket]]:
    context = client_context(keys[0])
    opened: list[ssl.SSLSocket] = []

    def connect(served: Site) -> ssl.SSLSocket:
        sock = context.wrap_socket(served.connect(), server_hostname="127.0.0.1")
        opened.append(sock)
        return sock

    yield connect
    for sock in opened:
        sock.close()


Connect = Callable[[Site], ssl.SSLSocket]


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def test_keep_alive_and_pipelining(serve: Open, connect: Connect) -> None:
    served = serve()
    served.gate.set()
    sock = connect(served)
    for _ in range(3):
        sock.sendall(ask("GET /hello"))
        assert read_until(sock, b"hello").startswith(b"HTTP/1.1 200 ")
    data = b"".join(ask(f"GET /bytes/{number}") for number in range(300))
    sock.sendall(data + ask("GET /slow") + ask("GET /file/1000000") + CLOSE)
    lengths = [int(part.split(b"\r\n", 1)[0]) for part in read_all(sock).split(b"Content-Length: ")[1:]]
    assert lengths == [*range(300), 4, 1000000, 5]
    assert all(span.closed == 1 for span in served.spans)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000, 12_000_000])
@pytest.mark.parametrize("action", ["put", "later"])
def test_bodies_of_every_size_and_what_follows_them(serve: Open, connect: Connect, size: int, action: str) -> None:
    """Requests sent right behind a large body reach the connection while the body still has it."""
    served = serve()
    sock = connect(served)
    body = (b"%d " % size) * (size // 2 + 1)
    sock.sendall(put(f"/{action}/x", body[:size]) + put(f"/{action}/y", b"next") + ask("GET /hello") * 50 + CLOSE)
    assert statuses(read_all(sock)) == [201, 201, *[200] * 51]
    assert served.bodies[f"/{action}/x"].data == body[:size]
    assert served.bodies[f"/{action}/y"].data == b"next"


@pytest.mark.parametrize("chunked", [False, True])
def test_what_comes_while_the_body_loop_has_not_told_that_the_body_is_whole(
    serve: Open, connect: Connect, chunked: bool
) -> None:
    served = serve()
    sock, other = connect(served), connect(served)
    body = b"x" * 1_000_000
    if chunked:
        coded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        sock.sendall(ask("PUT /hold/1000000", "Transfer-Encoding: chunked", body=coded))
    else:
        sock.sendall(put("/hold/1000000", body))
    wait_until(lambda: served.held is not None and len(served.held.data) == 1_000_000, "the body is there")
    for piece in (
        b"GET /hel",
        b"lo HTTP/1.1\r\nHo",
        b"st: t\r\n",
        b"\r\n" + ask("PUT /put/y", "Content-Length: 3"),
        b"abc",
    ):
        sock.sendall(piece)
        other.sendall(ask("GET /hello"))
        read_until(other, b"hello")
    served.gate.set()
    sock.sendall(CLOSE)
    assert statuses(read_all(sock)) == [201, 200, 201, 200]
    assert served.bodies["/hold/1000000"].data == body
    assert served.bodies["/put/y"].data == b"abc"


def test_many_large_bodies_on_one_connection(serve: Open, connect: Connect) -> None:
    """More than what may wait for the body loop, so that reading stops and goes on."""
    served = serve()
    sock = connect(served)
    for number in range(5):
        sock.sendall(put(f"/put/{number}", b"z" * 4_000_000))
        assert b" 201 " in read_until(sock, b"4000000")
    assert all(body.data == b"z" * 4_000_000 for body in served.bodies.values())


def test_chunked_bodies_and_what_follows_them(serve: Open, connect: Connect) -> None:
    served = serve()
    sock = connect(served)
    coded = b"10000\r\n" + b"c" * 65536 + b"\r\n"
    sock.sendall(ask("PUT /put/x", "Transfer-Encoding: chunked", body=coded * 40 + b"0\r\n\r\n"))
    sock.sendall(put("/put/y", b"z") + CLOSE)
    assert statuses(read_all(sock)) == [201, 201, 200]
    assert served.bodies["/put/x"].data == b"c" * 65536 * 40
    assert served.bodies["/put/y"].data == b"z"


@pytest.mark.parametrize("path", ["/file/10000000", "/pieces/10000000"])
def test_large_files(serve: Open, connect: Connect, path: str) -> None:
    served = serve()
    sock = connect(served)
    sock.sendall(ask(f"GET {path}") + ask(f"GET {path}") + CLOSE)
    received = read_all(sock)
    assert statuses(received) == [200, 200, 200]
    assert len(received) > 20_000_000
    assert all(span.closed == 1 for span in served.spans)


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("polite", [True, False])
def test_a_cut_body(serve: Open, connect: Connect, size: int, polite: bool) -> None:
    """With and without a close_notify; nothing of the body is a request."""
    served = serve()
    sock = connect(served)
    sock.sendall(ask("PUT /put/x", f"Content-Length: {size}", body=b"half"))
    wait_until(lambda: bool(served.seen), "the request is seen")
    if polite:
        with contextlib.suppress(OSError):
            sock.unwrap().close()
    else:
        sock.close()
    wait_until(lambda: bool(served.ends), "the body has ended")
    assert served.ends[0].cut is BodyCut.DISCONNECTED
    assert served.bodies == {}
    wait_until(lambda: served.connections() == 0, "the connection is gone")
    assert len(served.seen) == len(served.done) == 1


def test_a_body_that_is_whole_when_the_client_leaves(serve: Open, connect: Connect) -> None:
    """TLS has no half-close that event loops know: the answer may be lost, the body is not."""
    served = serve()
    sock = connect(served)
    sock.sendall(put("/put/x", b"w" * 500_000))
    with contextlib.suppress(OSError):
        sock.unwrap().close()
    wait_until(lambda: bool(served.ends), "the body has ended")
    assert served.ends[0].cut is None
    assert served.bodies["/put/x"].data == b"w" * 500_000


def test_an_early_answer_can_be_read_by_a_client_that_keeps_sending(serve: Open, connect: Connect) -> None:
    served = serve()
    sock = connect(served)
    sock.sendall(ask("PUT /refuse", "Content-Length: 1000000000"))
    for _ in range(100):
        sock.sendall(b"x" * 30_000)
    assert b" 403 " in read_until(sock, b"\r\n\r\nno")


def test_stalls_over_tls(serve: Open, connect: Connect) -> None:
    served = serve(stall_timeout=0.3, header_timeout=0.3, idle_timeout=0.3)
    sock = connect(served)
    sock.sendall(ask("PUT /put/x", "Content-Length: 100000", body=b"half"))
    assert b" 400 " in read_until(sock, b"stalled")
    slow = connect(served)
    slow.sendall(b"GET /he")
    assert b" 408 " in read_until(slow, b"}\n")
    idle = connect(served)
    idle.sendall(ask("GET /hello"))
    assert read_all(idle).endswith(b"hello")
    wait_until(lambda: served.connections() == 0, "all are gone", seconds=30)


def test_a_reader_that_stops_is_cut(serve: Open, keys: tuple[Path, Path]) -> None:
    served = serve(send_stall_timeout=0.5)
    plain = served.connect(receive_buffer=4096)
    with client_context(keys[0]).wrap_socket(plain, server_hostname="127.0.0.1") as sock:
        sock.sendall(ask("GET /pieces/50000000"))
        wait_until(lambda: bool(served.spans), "the request is seen")
        wait_until(lambda: bool(served.spans[0].closed), "the file is given back")
        wait_until(lambda: served.connections() == 0, "the connection is gone")


def test_silence_before_the_handshake_ends(serve: Open) -> None:
    served = serve(header_timeout=0.5)
    with served.connect() as sock:
        assert read_all(sock) == b""


def test_plain_http_on_a_tls_port(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(CLOSE)
        sock.shutdown(socket.SHUT_WR)
        assert b"HTTP" not in read_all(sock)
    assert served.seen == []
