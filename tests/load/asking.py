"""Many requests over a few connections, each answered before the next: as fast as one thread can."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.fixtures.server import FileServer

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """One answer. `headers` in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


Take = Callable[[int, Told], None]


@dataclass(slots=True)
class _Line:
    sock: socket.socket
    number: int = 0
    received: bytearray = field(default_factory=bytearray)


def parse(received: bytearray) -> Told | None:
    """Take a whole answer off the front, passing over interim ones; None while there is none."""
    while True:
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = bytes(received[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first[9:12])
        size = 0 if status < 200 or status == 204 else int(headers.get("content-length", "0"))
        if len(received) < end + 4 + size:
            return None
        body = bytes(received[end + 4 : end + 4 + size])
        del received[: end + 4 + size]
        if status >= 200:
            return Told(status, headers, body)


def ask(server: FileServer, requests: Iterable[bytes], take: Take, *, connections: int = 64) -> int:
    """Ask all of them (none may be a HEAD); `take` gets each answer with its number. How many there were.

    A connection that ends is a failure, and so is a minute without an answer.
    """
    waiting = enumerate(requests)
    epoll = select.epoll()
    lines: dict[int, _Line] = {}
    count = 0

    def next_one(line: _Line) -> bool:
        following = next(waiting, None)
        if following is None:
            return False
        line.number = following[0]
        line.sock.sendall(following[1])
        return True

    try:
        for _ in range(connections):
            sock = socket.create_connection((server.host, server.port), timeout=_PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = _Line(sock)
            if not next_one(line):
                sock.close()
                break
            lines[sock.fileno()] = line
            epoll.register(sock, select.EPOLLIN)
        while lines:
            events = epoll.poll(_PATIENCE)
            assert events, "no answer for a minute"
            for fd, _ in events:
                line = lines[fd]
                data = line.sock.recv(262144)
                assert data, f"the connection ended after {bytes(line.received)!r}"
                line.received += data
                told = parse(line.received)
                if told is None:
                    continue
                count += 1
                take(line.number, told)
                if not next_one(line):
                    epoll.unregister(fd)
                    lines.pop(fd).sock.close()
    finally:
        for line in lines.values():
            line.sock.close()
        epoll.close()
    return count


def at_once(server: FileServer, requests: list[bytes], *, last: int = 1) -> list[Told]:
    """Each on a connection of its own; the `last` bytes of all leave in one go when the rest of all is there."""
    socks = []
    try:
        for request in requests:
            sock = socket.create_connection((server.host, server.port), timeout=_PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            socks.append(sock)
            sock.sendall(request[:-last])
        for sock, request in zip(socks, requests, strict=True):
            sock.sendall(request[-last:])
        return [answer(sock) for sock in socks]
    finally:
        for sock in socks:
            sock.close()


def answer(sock: socket.socket) -> Told:
    """The next final answer on a connection."""
    received = bytearray()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        told = parse(received)
        if told is not None:
            return told
        data = sock.recv(262144)
        assert data, f"the connection ended after {bytes(received)!r}"
        received += data
    raise AssertionError("no answer for a minute")
