"""Raw bytes to a socket and back: many conversations at once, sent in pieces, answers parsed strictly."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]*\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)\r\n")
_BATCH = 200

PROBE = b"GET /health HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Header names are lower case; a repeated header fails the parse."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def answers(received: bytes, *, bodiless: frozenset[int] = frozenset()) -> list[Answer]:
    """Every answer in what a connection sent, interim ones too; AssertionError for anything else in it.

    `bodiless`: numbers (from 0, interim answers not counted) of the answers to HEAD requests.
    """
    found: list[Answer] = []
    finals = 0
    position = 0
    while position < len(received):
        line = _STATUS.match(received, position)
        assert line is not None, f"no status line at {position}: {received[position : position + 80]!r}"
        status = int(line.group(1))
        position = line.end()
        headers: dict[bytes, bytes] = {}
        while not received.startswith(b"\r\n", position):
            pair = _FIELD.match(received, position)
            assert pair is not None, f"no field at {position}: {received[position : position + 80]!r}"
            name = pair.group(1).lower()
            assert name not in headers, f"{name!r} stands twice"
            headers[name] = pair.group(2)
            position = pair.end()
        position += 2
        length = 0
        if status >= 200:
            if status not in {204, 304}:
                length = int(headers[b"content-length"])
            if finals in bodiless:
                length = 0
            finals += 1
        body = received[position : position + length]
        assert len(body) == length, f"the body of a {status} has {len(body)} of {length} bytes"
        found.append(Answer(status, headers, body))
        position += length
    return found


@dataclass(slots=True, eq=False)
class Talk:
    """One connection: what is sent, piece by piece, and what came back."""

    pieces: Sequence[bytes]
    half_close: bool = False
    received: bytearray = field(default_factory=bytearray)
    reset: bool = False
    ended: bool = False
    local_port: int = 0
    sock: socket.socket | None = None

    def open(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.local_port = self.sock.getsockname()[1]

    def send(self, number: int) -> None:
        if number >= len(self.pieces) or self.sock is None:
            return
        try:
            self.sock.settimeout(20)
            self.sock.sendall(self.pieces[number])
            if self.half_close and number == len(self.pieces) - 1:
                self.sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            # The server may have said its last word already; what it said is read all the same.
            self.pieces = self.pieces[: number + 1]

    def read(self) -> None:
        """Take what is there; never waits."""
        if self.sock is None:
            return
        self.sock.setblocking(False)
        try:
            while True:
                data = self.sock.recv(262144)
                if not data:
                    self.ended = True
                    return
                self.received += data
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.reset = self.ended = True

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Barrier:
    """A connection whose answer shows that the server has read whatever was sent to it before."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self) -> None:
        self._sock.sendall(b"GET /health HTTP/1.1\r\nHost: barrier\r\n\r\n")
        received = b""
        while b"\r\n\r\nOK\n" not in received:
            data = self._sock.recv(65536)
            assert data, "the server closed an innocent connection"
            received += data

    def close(self) -> None:
        self._sock.close()


def converse(port: int, talks: Iterable[Talk], *, seconds: float = 20.0) -> None:
    """Hold all conversations: piece by piece, with the server reading in between, until it closes them.

    Every talk has to end with the server's close (send `PROBE`, or half-close, where it would go on);
    AssertionError when one does not within `seconds` of its last byte.
    """
    barrier = Barrier(port)
    try:
        waiting = list(talks)
        for start in range(0, len(waiting), _BATCH):
            _batch(port, waiting[start : start + _BATCH], barrier, seconds)
    finally:
        barrier.close()


def _batch(port: int, talks: list[Talk], barrier: Barrier, seconds: float) -> None:
    try:
        for talk in talks:
            talk.open(port)
        barrier.wait()
        step = 0
        open_talks = talks
        while open_talks:
            for talk in open_talks:
                talk.send(step)
            step += 1
            open_talks = [talk for talk in open_talks if step < len(talk.pieces)]
            if open_talks:
                barrier.wait()
                for talk in open_talks:
                    talk.read()
        drain(talks, seconds)
    finally:
        for talk in talks:
            talk.close()


def drain(talks: list[Talk], seconds: float) -> None:
    """Read until the server has closed them all; AssertionError when it has not within `seconds`."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        left = 0
        for talk in talks:
            if not talk.ended and talk.sock is not None:
                selector.register(talk.sock, selectors.EVENT_READ, talk)
                left += 1
        while left:
            rest = deadline - time.monotonic()
            if rest <= 0:
                open_talks = [bytes(t.pieces[0][:300]) for t in talks if not t.ended]
                raise AssertionError(f"not closed in {seconds:g} s: {open_talks}")
            for key, _ in selector.select(rest):
                talk = key.data
                talk.read()
                if talk.ended:
                    selector.unregister(key.fileobj)
                    left -= 1


def splits(data: bytes, *, most: int = 200) -> list[list[bytes]]:
    """`data` in two pieces, at every position, or at `most` of them spread over its length and near CRLFs."""
    positions = range(1, len(data))
    if len(data) > 50_000:
        most //= 8
    if len(positions) > most:
        step = len(data) / (most // 2)
        chosen = {max(1, int(step * number)) for number in range(most // 2)}
        chosen |= set(range(1, min(len(data), most // 4)))
        chosen |= {len(data) - p for p in range(1, most // 4)}
        chosen &= set(positions)
        return [[data[:position], data[position:]] for position in sorted(chosen)]
    return [[data[:position], data[position:]] for position in positions]


def single_bytes(data: bytes, *, most: int = 400) -> list[bytes]:
    """`data` byte by byte; of a long one only the first and the last bytes go singly."""
    if len(data) <= most:
        return [data[p : p + 1] for p in range(len(data))]
    half = most // 2
    head = [data[p : p + 1] for p in range(half)]
    tail = [data[p : p + 1] for p in range(len(data) - half, len(data))]
    return [*head, data[half : len(data) - half], *tail]


class Line:
    """A kept-alive connection for one request after another; opened anew when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock: socket.socket | None = None
        self.opened = 0

    def ask(self, request: bytes, *, head: bool = False) -> Answer:
        """The final answer to one whole request, sent at once."""
        if self._sock is None:
            self._sock = socket.create_connection(("127.0.0.1", self._port), timeout=20)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.opened += 1
        self._sock.sendall(request)
        received = bytearray()
        while True:
            data = self._sock.recv(262144)
            assert data, f"closed without an answer to {request[:200]!r}"
            received += data
            end = received.find(b"\r\n\r\n")
            if end < 0:
                continue
            length = _LENGTH.search(received, 0, end + 2)
            body = 0 if head or length is None else int(length.group(1))
            if len(received) >= end + 4 + body:
                break
        (answer,) = answers(bytes(received), bodiless=frozenset({0} if head else ()))
        if answer.headers.get(b"connection") == b"close":
            self.close()
        return answer

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")
