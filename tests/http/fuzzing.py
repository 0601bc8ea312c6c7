"""Mutated requests to a server over many connections at once, and every answer judged."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.http.mutations import Generator, filled

ALLOWED = frozenset({501, 503, 505, 507})
"""5xx that a request can bring about: what is not implemented, another version, a busy server, a full disk."""

_HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")
_ID = re.compile(rb"Location: (?:[^\r\n]*/)?([0-9]+_[0-9a-z]+)\r\n|\"session_id\": \"([0-9]+_[0-9a-z]+)\"")
_KNOWN = 400
_PATIENCE = 60.0


class FuzzError(AssertionError):
    """A connection whose answers are not as they must be: where in which seed, what was sent, what came."""


def statuses(received: bytes) -> list[int]:
    """The status of every answer; AssertionError when something else stands in between.

    An answer whose announced body is not there at all is one to HEAD.
    """
    found = []
    position = end = 0
    while position < len(received):
        head = _HEAD.match(received, position)
        assert head is not None, received[position : position + 200]
        status = int(head.group(1))
        found.append(status)
        position = end = head.end()
        length = _LENGTH.search(received, head.start(), head.end())
        if length is not None and not received.startswith(b"HTTP/1.1 ", position):
            position += int(length.group(1))
    assert len(received) in {position, end}, "the last answer is cut"
    return found


@dataclass(slots=True, eq=False)
class _Line:
    """One connection: what is left to send, and what came."""

    number: int
    sock: socket.socket
    pieces: list[bytes]
    sent: bytes
    left: memoryview
    received: bytearray = field(default_factory=bytearray)
    writing: bool = True


class Crowd:
    """Connections with requests of one generator, as many at a time as `width`.

    `counted` has how often each status came, `answered` how many final answers. Ids of uploads are learned from them.
    """

    def __init__(self, port: int, generator: Generator, *, width: int = 40) -> None:
        self.counted: Counter[int] = Counter()
        self.answered = 0
        self.connections = 0
        self._port = port
        self._generator = generator
        self._width = width
        self._known: list[bytes] = []
        self._selector = selectors.DefaultSelector()
        self._open = 0

    def run(self, answers: int) -> None:
        """Go on until there are so many answers more. Raises FuzzError."""
        until = self.answered + answers
        heard = time.monotonic()
        while self.answered < until or self._open:
            while self._open < self._width and self.answered < until:
                self._begin()
            events = self._selector.select(1.0)
            if events:
                heard = time.monotonic()
            elif time.monotonic() - heard > _PATIENCE:
                waiting = [key.data.sent[:300] for key in self._selector.get_map().values()]
                raise FuzzError(f"not answered in {_PATIENCE:g} s: {waiting}")
            for key, mask in events:
                line: _Line = key.data
                if mask & selectors.EVENT_READ and self._read(line):
                    continue
                if mask & selectors.EVENT_WRITE and line.writing:
                    self._write(line)

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.sock.close()
        self._selector.close()

    def _begin(self) -> None:
        pieces = [filled(piece, self._known) for piece in self._generator.connection()]
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The loopback connects at once.
        sock.connect(("127.0.0.1", self._port))
        sock.setblocking(False)
        line = _Line(self.connections, sock, pieces[1:], b"".join(pieces), memoryview(pieces[0]))
        self.connections += 1
        self._open += 1
        self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, line)
        self._write(line)

    def _write(self, line: _Line) -> None:
        """Send one piece: those that follow wait for the next turn, so that the server may read in between."""
        try:
            line.left = line.left[line.sock.send(line.left) :]
            if line.left:
                return
            if line.pieces:
                line.left = memoryview(line.pieces.pop(0))
                return
            line.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            # The server may have said its last word already; what it said is read all the same.
            pass
        line.writing = False
        self._selector.modify(line.sock, selectors.EVENT_READ, line)

    def _read(self, line: _Line) -> bool:
        """Take what is there; whether that was the end."""
        try:
            while data := line.sock.recv(262144):
                line.received += data
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        self._selector.unregister(line.sock)
        line.sock.close()
        self._open -= 1
        self._judge(line)
        return True

    def _judge(self, line: _Line) -> None:
        try:
            found = statuses(bytes(line.received))
            wrong = [status for status in found if status >= 500 and status not in ALLOWED]
            assert not wrong, found
        except AssertionError as failure:
            raise FuzzError(
                f"connection {line.number}: {failure}\nsent {line.sent!r:.4000}\ngot {bytes(line.received)!r:.2000}"
            ) from None
        self.counted.update(found)
        self.answered += sum(status >= 200 for status in found)
        for match in _ID.finditer(line.received):
            known = match[1] or match[2]
            if len(self._known) < _KNOWN:
                self._known.append(known)
            else:
                self._known[hash(known) % _KNOWN] = known
