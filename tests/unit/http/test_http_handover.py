"""Connections that one listener gives to another: between two in one process, and between processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.child import wait_until
from tests.unit.http.site import LOOPS, Body, Site, ask, put, read_all, read_until

from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Limits, Response
from hmac_file_server.network.handoff import Handoff

CLOSE = ask("GET /hello", "Connection: close")


class Two:
    """Two sites; the first gives what is under /to/ to the second, unless `refuse` is set."""

    def __init__(self, loop: str, **limits: object) -> None:
        self.first = Site(limits=Limits(**limits), loop=loop)  # type: ignore[arg-type]
        self.second = Site(limits=Limits(**limits), loop=loop)  # type: ignore[arg-type]
        self.handoff = Handoff(2)
        self.refuse = False
        self.given: list[bytes] = []
        self.begun: list[bool] = []
        for site in (self.first, self.second):
            site.start()
        self.first.listener.handler = self._handle
        self.second.call(self._listen)

    def _listen(self) -> None:
        loop = self.second.listener._event_loop
        loop.add_reader(self.handoff.inbox(1).fileno(), self._adopt)

    def _adopt(self) -> None:
        while (given := self.handoff.receive(1)) is not None:
            self.second.listener.adopt_socket(*given)

    def give(self, fd: int, data: bytes, peer: str) -> bool:
        self.given.append(data)
        return not self.refuse and self.handoff.send(1, fd, data, peer)

    def hand_over(self, exchange: Exchange) -> None:
        self.begun.append(exchange.hand_over(self.give))
        if not self.begun[-1]:
            exchange.respond(Response(503, b"", b"refused"))

    def _handle(self, exchange: Exchange) -> None:
        if exchange.request.path.startswith("/later-to/"):
            self.first._pool.submit(lambda: self.first._loop.call_soon_threadsafe(self.hand_over, exchange))
        elif exchange.request.path.startswith("/to/"):
            self.hand_over(exchange)
        else:
            if exchange.request.path.startswith("/bytes/"):
                _keep_much(exchange)
            self.first._handle(exchange)

    def stop(self) -> None:
        loop = self.second.listener._event_loop
        self.second.call(lambda: loop.remove_reader(self.handoff.inbox(1).fileno()))
        for site in (self.first, self.second):
            if site.running:
                site.stop()
        self.handoff.close()


def _keep_much(exchange: Exchange) -> None:
    """Let answers wait in user space, whatever the kernel at hand would take, without a pause of the requests."""
    connection = exchange._connection
    connection._socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    connection._transport.set_write_buffer_limits(high=1 << 30)


Start = Callable[..., Two]


@pytest.fixture(params=LOOPS)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    made: list[Two] = []

    def begin(**limits: object) -> Two:
        made.append(Two(request.param, **limits))
        return made[-1]

    yield begin
    for two in made:
        two.stop()


def route(two: Two, handle: Callable[[Exchange], None]) -> None:
    two.second.listener.handler = handle


def receiver(two: Two) -> Callable[[Exchange], None]:
    """Serves /to/x as the site serves /put/x, and says who asked."""

    def handle(exchange: Exchange) -> None:
        path = exchange.request.path
        if path.startswith(("/to/", "/later-to/")):
            two.second._put(exchange, later=False, sink=Body())
        else:
            two.second._handle(exchange)

    return handle


# ---- two listeners


@pytest.mark.parametrize("prefix", ["/to/", "/later-to/"])
@pytest.mark.parametrize("size", [0, 10, 60_000, 3_000_000])
@pytest.mark.parametrize("first", [0, 7, 50_000])
def test_a_request_goes_on_where_it_was_given(start: Start, prefix: str, size: int, first: int) -> None:
    """Whatever of the body has arrived travels along; the client notices nothing."""
    two = start()
    route(two, receiver(two))
    body = (b"%d " % size) * (size // 2 + 1)
    body = body[:size]
    path = prefix + "a"
    request = put(path, body)
    cut = len(request) - size + min(first, size)
    with two.first.connect() as sock:
        sock.sendall(request[:cut])
        wait_until(lambda: len(two.begun) == 1, "the connection was handed over")
        sock.sendall(request[cut:])
        assert read_until(sock, b"%d" % size).startswith(b"HTTP/1.1 201 ")
        # It stays where it is, for further requests too.
        sock.sendall(put("/put/b", b"more") + CLOSE)
        assert read_all(sock).count(b"HTTP/1.1 20") == 2
    assert two.second.bodies[path].data == body
    assert two.second.bodies["/put/b"].data == b"more"
    wait_until(lambda: two.first.connections() == 0, "the first has forgotten it")
    # Logged once, by whom it was answered.
    assert two.first.done == []
    assert [entry[:2] for entry in two.second.done] == [(path, 201), ("/put/b", 201), ("/hello", 200)]


def test_the_peer_travels_along(start: Start) -> None:
    two = start()
    route(two, lambda exchange: exchange.respond(Response(200, b"", exchange.peer.encode())))
    with two.first.connect() as sock:
        sock.sendall(ask("GET /to/a", "Connection: close"))
        host, port = sock.getsockname()
        assert read_all(sock).endswith(f"{host}:{port}".encode())


def test_an_invitation_comes_from_whom_it_was_given_to(start: Start) -> None:
    two = start()
    route(two, receiver(two))
    with two.first.connect() as sock:
        sock.sendall(ask("PUT /to/a", "Content-Length: 200000", "Expect: 100-continue"))
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"x" * 200_000)
        read_until(sock, b"200000")
    assert two.second.ends == [BodyEnd(200_000)]


def test_earlier_answers_come_first(start: Start) -> None:
    """Also those that the client does not read yet, more than the kernel takes."""
    two = start()
    route(two, receiver(two))
    with two.first.connect(receive_buffer=4096) as sock:
        sock.sendall(ask("GET /bytes/3000000") + ask("GET /bytes/5") + put("/to/a", b"abc") + CLOSE)
        wait_until(lambda: len(two.begun) == 1, "the connection is being handed over")
        assert two.given == []
        received = read_all(sock)
    lengths = [int(part.split(b"\r\n", 1)[0]) for part in received.split(b"Content-Length: ")[1:]]
    assert lengths == [3_000_000, 5, 1, 5]
    assert two.given == [put("/to/a", b"abc") + CLOSE]
    assert [entry[:2] for entry in two.first.done] == [("/bytes/3000000", 200), ("/bytes/5", 200)]
    assert two.second.bodies["/to/a"].data == b"abc"


def test_many_pipelined_bytes(start: Start) -> None:
    """As much unread as the buffer of a process holds, far more than a message takes."""
    two = start(pending_bytes=2_000_000)
    route(two, receiver(two))
    first = two.first.listener
    rest = b"".join(put(f"/put/{number}", b"%02d" % number * 11_000) for number in range(50)) + CLOSE
    assert len(rest) > 1_000_000
    release = threading.Event()

    def wait(exchange: Exchange) -> None:
        held.append(exchange)
        release.set()

    held: list[Exchange] = []
    first.handler = wait
    with two.first.connect() as sock:
        sock.sendall(put("/to/a", b"") + rest)
        assert release.wait(20)
        connection = next(iter(first.connections))
        wait_until(lambda: len(connection._own) == len(rest), "all is read")
        two.first.call(lambda: two.hand_over(held[0]))
        assert two.given == [put("/to/a", b"") + rest]
        assert read_all(sock).count(b"HTTP/1.1 20") == 52
    for number in range(50):
        assert two.second.bodies[f"/put/{number}"].data == b"%02d" % number * 11_000


def test_a_refused_connection_stays(start: Start) -> None:
    two = start()
    two.refuse = True
    with two.first.connect() as sock:
        sock.sendall(ask("GET /to/a") + ask("GET /hello"))
        received = read_until(sock, b"hello")
        assert received.count(b"HTTP/1.1 503 ") == 1
        assert b"refused" in received
        sock.sendall(put("/put/a", b"x" * 200_000))
        read_until(sock, b"200000")
    assert two.begun == [False]
    assert [entry[:2] for entry in two.first.done] == [("/to/a", 503), ("/hello", 200), ("/put/a", 201)]


@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 300_000])
def test_a_connection_that_is_refused_late(start: Start, body: bytes) -> None:
    """`hand_over` had to wait for earlier answers, so it is the connection that says no."""
    two = start()
    two.refuse = True
    with two.first.connect(receive_buffer=4096) as sock:
        sock.sendall(ask("GET /bytes/3000000") + put("/to/a", body) + CLOSE)
        wait_until(lambda: len(two.begun) == 1, "the connection is being handed over")
        received = read_all(sock)
    assert two.begun == [True]
    head, _, document = received[3_000_000:].rpartition(b"HTTP/1.1 503 ")[2].partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json\r\n" in head
    assert json.loads(document.split(b"\n", 1)[0])["code"] == "server_busy"
    expected = [("/bytes/3000000", 200), ("/to/a", 503)]
    if not body:
        # Where nothing is left unread, the connection lives on.
        expected.append(("/hello", 200))
    assert [entry[:2] for entry in two.first.done] == expected


def test_giving_fails(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    two = start()

    def fail(_fd: int, _data: bytes, _peer: str) -> bool:
        raise ValueError("no")

    two.give = fail  # type: ignore[method-assign,assignment]
    with two.first.connect() as sock:
        sock.sendall(ask("GET /to/a", "Connection: close"))
        assert read_all(sock).endswith(b"refused")
    assert [record.message for record in caplog.records if "could not be handed over" in record.message]


def test_a_client_that_leaves_before_it_is_given_away(start: Start) -> None:
    two = start()
    with two.first.connect(receive_buffer=4096) as sock:
        sock.sendall(ask("GET /bytes/3000000") + put("/to/a", b"abc"))
        wait_until(lambda: len(two.begun) == 1, "the connection is being handed over")
    wait_until(lambda: two.first.connections() == 0, "the connection is gone")
    assert two.given == []
    assert [entry[:2] for entry in two.first.done] == [("/bytes/3000000", 200), ("/to/a", 499)]


def test_a_client_that_never_reads_is_not_waited_for(start: Start) -> None:
    two = start(send_stall_timeout=0.2, pipeline_burst=1_000_000)
    with two.first.connect(receive_buffer=4096) as sock:
        # Answered in one turn of the loop, so that nothing is written before the connection is to go.
        sock.sendall(ask("GET /bytes/1000000") * 30 + put("/to/a", b"abc"))
        wait_until(lambda: two.first.connections() == 0 and len(two.begun) == 1, "the connection is gone")
    assert two.given == []
    assert two.first.done[-1] == ("/to/a", 499, 0)


def test_what_can_not_be_handed_over(start: Start) -> None:
    two = start()
    results = []

    def handle(exchange: Exchange) -> None:
        if exchange.request.path == "/touched":
            exchange.receive(Body(), lambda _: None)
            results.append(exchange.hand_over(two.give))
            exchange.respond(Response(200, b"", b"touched"))
        elif exchange.request.path == "/answered":
            exchange.respond(Response(200, b"", b"answered"))
            results.append(exchange.hand_over(two.give))
        else:
            held.append(exchange)

    held: list[Exchange] = []
    two.first.listener.handler = handle
    with two.first.connect() as sock:
        sock.sendall(put("/touched", b"x") + ask("GET /answered"))
        read_until(sock, b"answered")
        sock.sendall(ask("GET /wait"))
        wait_until(lambda: len(held) == 1, "the request is there")
        two.first.call(lambda: next(iter(two.first.listener.connections)).abort())
    wait_until(lambda: two.first.connections() == 0, "the connection is gone")
    results.append(two.first.call(lambda: held[0].hand_over(two.give)))
    assert results == [False, False, False]
    assert two.given == []
    assert not held[0].answered


def test_a_handed_over_exchange_is_out_of_reach(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    two = start()
    route(two, receiver(two))
    held: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        held.append(exchange)
        two.hand_over(exchange)
        exchange.cut(BodyCut.TAKEN_OVER)
        exchange.abort()
        exchange.respond(Response(500))
        exchange.on_gone(lambda: two.first.gone.append("gone"))

    two.first.listener.handler = handle
    with caplog.at_level(logging.WARNING), two.first.connect() as sock:
        sock.sendall(put("/to/a", b"abc"))
        read_until(sock, b"3")
        wait_until(lambda: held[0].answered, "it is gone here")
        assert not two.first.call(lambda: held[0].hand_over(two.give))
    wait_until(lambda: two.second.connections() == 0, "the connection is gone")
    assert (two.first.done, two.first.gone, caplog.records) == ([], [], [])


# ---- the adopter's own rules


def test_an_adopted_connection_counts(start: Start) -> None:
    two = start(max_connections=1)
    route(two, receiver(two))
    with two.second.connect() as full:
        full.sendall(ask("GET /hello"))
        read_until(full, b"hello")
        with two.first.connect() as sock:
            sock.sendall(put("/to/a", b"abc"))
            assert b'"code": "too_many_connections"' in read_all(sock)
    assert two.second.refused == [(503, "too_many_connections")]


def test_a_half_closed_client(start: Start) -> None:
    two = start()
    route(two, receiver(two))
    with two.first.connect() as sock:
        sock.sendall(put("/later-to/a", b"abc") + ask("GET /hello"))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b"hello")
    with two.first.connect() as sock:
        sock.sendall(ask("PUT /later-to/b", "Content-Length: 100", body=b"abc"))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b"disconnected")
    assert two.second.ends == [BodyEnd(3), BodyEnd(3, BodyCut.DISCONNECTED)]


def test_a_connection_given_to_one_that_drains(start: Start) -> None:
    """The request is served, then the connection is closed."""
    two = start()
    route(two, receiver(two))

    def drain() -> None:
        two.second.listener.draining = True

    two.second.call(drain)
    with two.first.connect() as sock:
        sock.sendall(put("/to/a", b"abc") + CLOSE)
        received = read_all(sock)
        assert received.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close\r\n" in received


def test_a_connection_given_to_one_that_has_stopped(start: Start) -> None:
    two = start()
    sock, other = socket.socketpair()

    async def after_stop() -> None:
        await two.second.listener.stop(0)
        two.second.listener.adopt_socket(sock, ask("GET /hello"), "peer")

    asyncio.run_coroutine_threadsafe(after_stop(), two.second._loop).result(20)
    with other:
        other.settimeout(20)
        assert other.recv(100) == b""
    two.second.running = False
    two.second.gate.set()


def test_adopted_then_the_client_is_gone(start: Start) -> None:
    two = start()
    sock, other = socket.socketpair()
    other.close()
    two.second.call(lambda: two.second.listener.adopt_socket(sock, put("/put/a", b"abc"), "peer"))
    wait_until(lambda: len(two.second.ends) == 1 and two.second.connections() == 0, "it is dealt with")
    assert two.second.ends == [BodyEnd(3)]


# ---- processes


class Cluster:
    def __init__(self, loop: str, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cluster.py")), loop, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.ports: list[int] = json.loads(self.process.stdout.readline())

    def order(self, text: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        if text != "quit":
            assert self.process.stdout.readline() == "done\n"

    def connect(self, index: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[index]), timeout=20)

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.order("quit")
        self.process.communicate(timeout=20)


@pytest.fixture(params=LOOPS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    started = Cluster(request.param, 3)
    yield started
    started.stop()


def answer(sock: socket.socket) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(read_until(sock, b"}").partition(b"\r\n\r\n")[2])
    return document


def test_from_process_to_process_and_back(cluster: Cluster) -> None:
    with cluster.connect(0) as sock:
        peer = "{}:{}".format(*sock.getsockname())
        for number, process in enumerate([1, 2, 0, 0, 2, 1]):
            body = b"%d" % number * 400_000
            sock.sendall(put(f"/{process}/{number}", body))
            assert answer(sock) == {
                "process": process,
                "peer": peer,
                "path": f"/{process}/{number}",
                "size": len(body),
                "crc": zlib.crc32(body),
                "cut": None,
            }


def test_pipelined_requests_through_all_processes(cluster: Cluster) -> None:
    order = [number * 7 % 3 for number in range(60)]
    with cluster.connect(1) as sock:
        for number, process in enumerate(order):
            sock.sendall(put(f"/{process}/{number}", b"x" * (number * 997)))
        sock.shutdown(socket.SHUT_WR)
        received = read_all(sock)
    documents = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert [document["process"] for document in documents] == order
    assert [document["size"] for document in documents] == [number * 997 for number in range(60)]


def test_a_connection_given_to_a_dead_process_waits_for_its_successor(cluster: Cluster) -> None:
    cluster.order("stop 2")
    with cluster.connect(0) as sock, cluster.connect(0) as barrier:
        body = b"z" * 3_000_000
        sock.sendall(ask("PUT /2/a", f"Content-Length: {len(body)}", body=body[:1000]))
        barrier.sendall(ask("GET /0/barrier"))
        answer(barrier)
        # Given away by now, and not taken.
        cluster.order("kill 2")
        cluster.order("start 2")
        sock.sendall(body[1000:])
        document = answer(sock)
        assert (document["process"], document["size"], document["crc"]) == (2, len(body), zlib.crc32(body))


def test_a_full_inbox_is_an_honest_no(cluster: Cluster) -> None:
    cluster.order("stop 2")
    socks: list[socket.socket] = []
    refused = 0
    try:
        with cluster.connect(0) as barrier:
            while not refused:
                assert len(socks) < 2000
                sock = cluster.connect(0)
                socks.append(sock)
                # Accepted before the barrier is asked.
                sock.sendall(ask("GET /0/first"))
                answer(sock)
                sock.sendall(put(f"/2/{len(socks)}", b"x" * 9000))
                barrier.sendall(ask("GET /0/barrier"))
                answer(barrier)
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    refused += sock.recv(9) == b"HTTP/1.1 "
        assert b"busy" in _rest(socks.pop())
        # Whoever was taken is served when there is time again.
        cluster.order("kill 2")
        cluster.order("start 2")
        for number, sock in enumerate(socks):
            sock.settimeout(20)
            assert answer(sock)["path"] == f"/2/{number + 1}"
    finally:
        for sock in socks:
            sock.close()


def _rest(sock: socket.socket) -> bytes:
    with sock:
        sock.settimeout(20)
        return read_until(sock, b"busy")
