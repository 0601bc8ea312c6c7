"""A client of the chunk protocol that can stop, be cut and repeat itself wherever a network can make it."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import random
import signal
import socket
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.fixtures.child import wait_until
from tests.fixtures.server import Answer, FileServer
from tests.server import signatures
from tests.server.wire import EarlyEndError, Wire, children

PATH = "/upload/chunked"
KIB = 1 << 10
MIB = 1 << 20

Span = tuple[int, int]


def created(server: FileServer, size: int, *, name: str = "f.bin", headers: Mapping[str, str] | None = None) -> Answer:
    """The answer to the request that begins an upload."""
    return server.request("POST", PATH, None, {**creation(size, name), **(headers or {})})


def creation(size: int, name: str = "f.bin") -> dict[str, str]:
    """Headers of the request that begins an upload."""
    return {"X-Filename": name, "X-Total-Size": str(size), "X-Signature": signatures.mac(PATH), "Content-Length": "0"}


def content_digest(data: bytes) -> str:
    """A `Content-Digest` value (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def digest(data: bytes) -> str:
    """A `Digest` value (RFC 3230)."""
    return f"sha-256={base64.b64encode(hashlib.sha256(data).digest()).decode()}"


def spans(value: object) -> list[Span]:
    """Ranges out of an answer."""
    assert isinstance(value, list)
    return [(int(start), int(stop)) for start, stop in value]


def number(value: object) -> int:
    """A whole number out of an answer."""
    assert isinstance(value, int)
    return value


def text(value: object) -> str:
    """A string out of an answer."""
    assert isinstance(value, str)
    return value


def code(answer: Answer) -> tuple[int, object]:
    """Status and code of a problem."""
    return answer.status, answer.json()["code"]


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload session, and the bytes that belong into it."""

    server: FileServer
    id: str
    body: bytes
    chunk_size: int

    @property
    def total(self) -> int:
        """Number of chunks."""
        return -(-len(self.body) // self.chunk_size)

    def chunk(self, index: int) -> bytes:
        """The bytes of a chunk."""
        return self.body[index * self.chunk_size : (index + 1) * self.chunk_size]

    def head(self, index: int, *, offset: int = 0, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """Headers of a chunk, from `offset` on when that is not 0; without a Content-Length."""
        named = {"X-Upload-Session-ID": self.id, "X-Chunk-Number": str(index)}
        if offset:
            named["X-Chunk-Offset"] = str(offset)
        return {**named, **(headers or {})}

    def put(
        self, index: int, body: bytes | None = None, *, offset: int = 0, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A chunk, from `offset` on, or other bytes in its place, on a connection of its own."""
        data = self.chunk(index)[offset:] if body is None else body
        return self.server.request("PUT", PATH, data, self.head(index, offset=offset, headers=headers))

    def announce(
        self,
        wire: Wire,
        index: int,
        *,
        offset: int = 0,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send the head of a chunk, of the length it should have if not another is given."""
        size = len(self.chunk(index)) - offset if length is None else length
        wire.head("PUT", PATH, {**self.head(index, offset=offset, headers=headers), "Content-Length": str(size)})

    def begin(
        self,
        index: int,
        sent: int,
        *,
        body: bytes | None = None,
        offset: int = 0,
        headers: Mapping[str, str] | None = None,
        claimed: bool = False,
    ) -> Wire:
        """A connection on which a chunk (or other bytes in its place) was begun: `sent` bytes of it are under way.

        `claimed`: the server has said that it takes them, so that whoever comes from now on is the newcomer.
        """
        wire = Wire(self.server)
        if claimed:
            self.announce(wire, index, offset=offset, headers={**(headers or {}), "Expect": "100-continue"})
            assert wire.next_answer().status == 100
        else:
            self.announce(wire, index, offset=offset, headers=headers)
        data = self.chunk(index) if body is None else body
        wire.send(data[offset : offset + sent])
        return wire

    def look(self, *, wait: float | None = None) -> Answer:
        """The status answer."""
        query = f"session_id={self.id}" + ("" if wait is None else f"&wait={wait:g}")
        return self.server.request("GET", f"/upload/status?{query}")

    def status(self) -> dict[str, object]:
        """What a status answer tells; it must be one."""
        answer = self.look()
        assert answer.status == 200, answer.body
        return answer.json()

    def received(self) -> list[Span]:
        """Durable byte ranges as the status tells them."""
        return spans(self.status()["received"])

    def await_received(self, *expected: Span) -> None:
        """Ask until the status tells exactly these ranges. A body that stands still is told after a moment."""
        wait_until(lambda: self.received() == list(expected), f"received is {expected}")

    def prefix(self, index: int) -> int:
        """How many bytes of a chunk, from its start on, the status says are there."""
        begin = index * self.chunk_size
        for start, stop in self.received():
            if start <= begin < stop:
                return min(stop - begin, len(self.chunk(index)))
        return 0

    def finish(self) -> Answer:
        """Send what is missing, one chunk after the other, as a client does that came back."""
        answer: Answer | None = None
        for first, last in spans(self.status()["missing"]):
            for index in range(first, last + 1):
                answer = self.put(index, offset=self.prefix(index))
                assert answer.status == 200, answer.body
        return self.put(self.total - 1) if answer is None else answer

    def stored(self) -> bytes:
        """The published file, read where the status says it is."""
        status = self.status()
        assert status["completed"] is True
        answer = self.server.request("GET", target(status["url"]))
        assert answer.status == 200
        return answer.body

    def delete(self) -> Answer:
        """Give the upload up."""
        return self.server.request("DELETE", PATH, None, {"X-Upload-Session-ID": self.id})


def target(url: object) -> str:
    """Request target of a URL out of an answer."""
    return urlsplit(text(url)).path


def start(server: FileServer, body: bytes, *, name: str = "f.bin", headers: Mapping[str, str] | None = None) -> Upload:
    """Begin an upload."""
    answer = created(server, len(body), name=name, headers=headers)
    assert answer.status in {200, 201}, answer.body
    told = answer.json()
    return Upload(server, text(told["session_id"]), body, number(told["chunk_size"]))


def outcome(wire: Wire) -> tuple[int, object]:
    """How a request ended for its client: status and code of its answer, (0, "closed") when there was none."""
    try:
        answer = wire.answer()
    except (EarlyEndError, OSError):
        return 0, "closed"
    return answer.status, answer.json().get("code")


TAKEN_OVER: frozenset[tuple[int, object]] = frozenset({(409, "upload_taken_over"), (0, "closed")})
"""How a request ends whose chunk somebody else has taken over."""


def send_if_open(wire: Wire, data: bytes) -> None:
    """Send to a connection that the server may have closed."""
    try:
        wire.send(data)
    except OSError:
        return


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged yet, sent or not."""
    answer = fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])


def arrived(wire: Wire) -> Callable[[], bool]:
    """Whether all that was sent has reached the server's machine."""
    return lambda: unacknowledged(wire.sock) == 0


def shuffled(count: int, seed: str) -> list[int]:
    """The numbers below `count` in an order that is the same in every run."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def drafts(server: FileServer) -> list[str]:
    """Files of unfinished uploads."""
    folder = server.storage / ".hmac-file-server" / "uploads"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def processes(server: FileServer) -> list[int]:
    """The server's processes: the one that was started, and those that it started."""
    return [server.pid, *children(server.pid)]


def kill(server: FileServer) -> None:
    """SIGKILL for all of the server's processes, and wait until nothing of them is left."""
    assert server.child is not None
    pids = processes(server)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.child.process.wait(20)
    wait_until(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")], "the server is gone")


def descriptors(pids: Sequence[int]) -> int:
    """Open descriptors of some processes together; folders, of which the server keeps some at hand, left out."""
    count = 0
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        count += sum(not os.path.isdir(f"{folder}/{entry}") for entry in os.listdir(folder))
    return count


def sockets(server: FileServer) -> int:
    """Connections on the server's port (IPv4) that are established at the server's end."""
    with open(f"/proc/{server.pid}/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[1].endswith(f":{server.port:04X}") and row[3] == "01" for row in rows)


def covers(ranges: Sequence[Span], wanted: Sequence[Span]) -> bool:
    """Whether every wanted range lies within one of `ranges`."""
    return all(any(start <= low and high <= stop for start, stop in ranges) for low, high in wanted)
