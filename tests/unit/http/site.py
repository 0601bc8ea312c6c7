"""A listener with a small application of its own, on an event loop in a thread, for tests of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from hmac_file_server.http import BodyEnd, Exchange, Limits, Listener, Response
from hmac_file_server.http.connection import Connection
from hmac_file_server.http.errors import HttpError

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


class Body:
    """A sink that keeps what it is given."""

    def __init__(self, most: int | None = None, hold: tuple[int, threading.Event] | None = None) -> None:
        """`most`: bytes it takes before it refuses. `hold`: at so many bytes it waits for the event."""
        self.data = bytearray()
        self.writes = 0
        self.most = most
        self.hold = hold

    def write(self, view: memoryview) -> None:
        self.writes += 1
        self.data += view
        if self.most is not None and len(self.data) > self.most:
            raise ValueError("the sink is full")
        if self.hold is not None and len(self.data) >= self.hold[0]:
            self.hold[1].wait(20)


class Span:
    """A `FileSource` over a file of zeros; without descriptor it has to be read."""

    def __init__(self, size: int, *, descriptor: bool = True) -> None:
        self.size = size
        self.descriptor = descriptor
        self.fd = os.memfd_create("span")
        os.truncate(self.fd, size)
        self.closed = 0

    def fileno(self) -> int | None:
        return self.fd if self.descriptor else None

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.fd, length, offset)

    def close(self) -> None:
        self.closed += 1
        if self.closed == 1:
            os.close(self.fd)


@dataclass
class Site:
    """`seen`: requests given to the application; `bodies`: what PUT brought, by path; `ends`: how bodies ended;
    `done`: status and body bytes of every answered exchange; `refused`: what could not be parsed;
    `exchanges` and `sinks`: the latest of each path; `gone`: paths of clients that left early."""

    limits: Limits = field(default_factory=Limits)
    loop: str = "uvloop"
    tls: ssl.SSLContext | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)
    bodies: dict[str, Body] = field(default_factory=dict)
    ends: list[BodyEnd] = field(default_factory=list)
    done: list[tuple[str, int, int]] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    exchanges: dict[str, Exchange] = field(default_factory=dict)
    sinks: dict[str, Body] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    port: int = 0
    listener: Listener = field(init=False)
    held: Body | None = None
    gate: threading.Event = field(default_factory=threading.Event)

    running: bool = False

    def start(self) -> None:
        self.running = True
        self._pool = ThreadPoolExecutor(8)
        self._loop = LOOPS[self.loop]()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)
        self.port = sock.getsockname()[1]
        started = threading.Event()

        async def begin() -> None:
            self.listener = Listener(
                self._handle,
                self.limits,
                on_done=lambda exchange, status, sent: self.done.append((exchange.request.path, status, sent)),
                on_refused=self._refused,
            )
            await self.listener.start([sock], self.tls)
            started.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(begin())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self, grace: float = 0.0) -> None:
        """`grace` in seconds, for requests under way; the gate opens when the listener has begun to stop."""
        self.running = False
        stopped = asyncio.run_coroutine_threadsafe(self.listener.stop(grace), self._loop)
        self.call(lambda: None)
        self.gate.set()
        stopped.result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()
        self._pool.shutdown()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run on the event loop; its result."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connections(self) -> int:
        count: int = self.call(lambda: len(self.listener.connections))
        return count

    def _refused(self, connection: Connection, status: int, code: str) -> None:
        self.refused.append((status, code))

    def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        self.seen.append((request.method, request.path))
        self.exchanges[request.path] = exchange
        _, action, *rest = request.path.split("/")
        if action == "put":
            self._put(exchange, later=False, sink=Body())
        elif action == "later":
            self._put(exchange, later=True, sink=Body())
        elif action == "full":
            self._put(exchange, later=False, sink=Body(int(rest[0])))
        elif action == "hold":
            self.held = Body(hold=(int(rest[0]), self.gate))
            self._put(exchange, later=False, sink=self.held)
        elif action == "limit":
            self._put(exchange, later=False, sink=Body(), limit=int(rest[0]))
        elif action == "receive-later":
            self._pool.submit(
                lambda: self._loop.call_soon_threadsafe(lambda: self._put(exchange, later=False, sink=Body()))
            )
        elif action == "refuse":
            exchange.respond(Response(403, b"", b"no"))
        elif action == "bytes":
            exchange.respond(Response(200, b"", b"b" * int(rest[0])))
        elif action in {"file", "pieces"}:
            span = Span(int(rest[0]), descriptor=action == "file")
            self.spans.append(span)
            exchange.respond(Response(200, b"", source=span, length=span.size))
        elif action == "slow":
            self._pool.submit(self._after_gate, exchange)
        elif action == "poll":
            exchange.on_gone(lambda: self.gone.append(request.path))
        elif action == "interim":
            exchange.interim(104, b"Upload-Offset: 7\r\n")
            exchange.respond(Response(200, b"", b"after"))
        elif action == "boom":
            raise RuntimeError("boom")
        elif action == "teapot":
            raise HttpError(418, "teapot", "Short and stout.")
        elif action == "none":
            exchange.respond(Response(204))
        else:
            exchange.respond(Response(200, b"", b"hello"))

    def _after_gate(self, exchange: Exchange) -> None:
        self.gate.wait(20)
        exchange.respond_soon(Response(200, b"", b"slow"))

    def _put(self, exchange: Exchange, *, later: bool, sink: Body, limit: int | None = None) -> None:
        path = exchange.request.path
        self.sinks[path] = sink

        def ended(end: BodyEnd) -> None:
            self.ends.append(end)
            if end.cut is None:
                self.bodies[path] = sink
                response = Response(201, b"", b"%d" % len(sink.data))
            else:
                response = Response(400, b"", end.cut.value.encode())
            if later:
                self._pool.submit(exchange.respond_soon, response)
            else:
                exchange.respond(response)

        exchange.receive(sink, ended, limit=limit)


@contextlib.contextmanager
def site(**options: Any) -> Iterator[Site]:
    served = Site(**options)
    served.start()
    try:
        yield served
    finally:
        served.stop()


def ask(*parts: str, body: bytes = b"") -> bytes:
    """A request: its line, then fields; Host is added."""
    return "\r\n".join([parts[0] + " HTTP/1.1", "Host: t", *parts[1:]]).encode() + b"\r\n\r\n" + body


def put(path: str, body: bytes, *fields: str) -> bytes:
    return ask(f"PUT {path}", f"Content-Length: {len(body)}", *fields, body=body)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = bytearray()
    while True:
        try:
            data = sock.recv(262144)
        except ConnectionResetError:
            break
        if not data:
            break
        received += data
    return bytes(received)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Until `end` stands at the end of what came; AssertionError when the server closes first."""
    received = bytearray()
    while not received.endswith(end):
        data = sock.recv(262144)
        assert data, f"closed after {bytes(received[-300:])!r}"
        received += data
    return bytes(received)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, made by openssl."""
    certificate_file, key_file = folder / "tls.pem", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key_file), "-out", str(certificate_file)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate_file, key_file


def server_context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return context


def client_context(certificate_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate_file))
