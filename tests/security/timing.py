"""How long the server takes over two things that nobody shall be able to tell apart (S-07, S-43, G-22).

Both classes are asked for in random order over one connection, so that whatever else happens on the machine happens to
both. The slowest quarter of all is left out (they met something else), and Welch's t says how surely the means of the
rest differ: beyond 4.5 either way, they do.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import secrets
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fixtures import slots
from tests.fixtures.server import FileServer
from tests.load.asking import Told, answer
from tests.server.signatures import bearer, mac, ticket

LIMIT: Final = 4.5
_KEPT: Final = 0.75
_BODY: Final = 16 * 1024
_RUNS: Final = itertools.count()
_OTHER: Final = {digit: f"{(int(digit, 16) + 8) % 16:x}" for digit in "0123456789abcdef"}


@dataclass(frozen=True, slots=True)
class Compared:
    """Two classes of requests, by the seconds they took."""

    what: str
    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def trimmed(self) -> tuple[list[float], list[float]]:
        """Both without the slowest quarter of all."""
        together = sorted([*self.first, *self.second])
        most = together[int(len(together) * _KEPT) - 1]
        return [took for took in self.first if took <= most], [took for took in self.second if took <= most]

    @property
    def t(self) -> float:
        """Welch's t of the trimmed samples."""
        return welch(*self.trimmed)

    def line(self) -> str:
        """One line of all."""
        first, second = self.trimmed
        return (
            f"{self.what}: {len(self.first)} pairs, mean {statistics.fmean(first) * 1e6:.1f} and"
            f" {statistics.fmean(second) * 1e6:.1f} us, t = {self.t:+.2f}"
        )


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Welch's t: the difference of two means, in standard errors."""
    spread = statistics.variance(first) / len(first) + statistics.variance(second) / len(second)
    return (statistics.fmean(first) - statistics.fmean(second)) / math.sqrt(spread)


class Stopwatch:
    """One connection, and the time from a request's last byte to its answer's."""

    def __init__(self, server: FileServer) -> None:
        self.sock = socket.create_connection((server.host, server.port), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[float, Told]:
        """Seconds, and the answer."""
        began = time.perf_counter()
        self.sock.sendall(request)
        told = answer(self.sock)
        return time.perf_counter() - began, told

    def close(self) -> None:
        """Close it."""
        self.sock.close()


def shape(told: Told) -> tuple[int, dict[str, str], int]:
    """What of an answer must be equal: all but the time, and what names the request or the file."""
    named = {"date", "etag", "location", "x-request-id", "content-location"}
    fields = {name: value for name, value in told.headers.items() if name not in named}
    fields |= {f"length of {name}": str(len(value)) for name, value in told.headers.items() if name in named}
    return told.status, fields, len(told.body)


def uploads(pairs: int) -> Iterator[tuple[int, bytes]]:
    """PUTs in an order to be kept: (0, the first of a content), (1, the same content by another owner).

    The second one of a content comes in the neighbourhood of the first one of the next, on either side.
    """
    run = next(_RUNS)
    owners = [bearer(ticket(prefix=f"{name}-{run}", sub=name))["Authorization"] for name in ("anna", "bert")]

    def put(owner: int, number: int, body: bytes) -> tuple[int, bytes]:
        path = f"/upload/{('anna', 'bert')[owner]}-{run}/{number:06d}"
        fields = f"Host: t\r\nAuthorization: {owners[owner]}\r\nContent-Length: {len(body)}\r\n"
        return owner, f"PUT {path} HTTP/1.1\r\n{fields}\r\n".encode() + body

    before: bytes | None = None
    for number in range(pairs + 1):
        body = secrets.token_bytes(_BODY)
        due = []
        if number < pairs:
            due.append(put(0, number, body))
        if before is not None:
            due.append(put(1, number - 1, before))
        random.shuffle(due)
        yield from due
        before = body


def contents(server: FileServer, pairs: int) -> Compared:
    """Uploads of new contents, and of contents that somebody else has stored."""
    took: tuple[list[float], list[float]] = ([], [])
    watch = Stopwatch(server)
    try:
        for owner, request in itertools.chain(uploads(20), uploads(pairs)):
            seconds, told = watch.ask(request)
            assert told.status == 201, told
            took[owner].append(seconds)
    finally:
        watch.close()
    return Compared("first and second upload of a content", tuple(took[0][20:]), tuple(took[1][20:]))


def refused(number: int, right: str, known: int) -> str:
    """A signature of which so many digits are right, and the next one is wrong for sure."""
    rest = f"{random.getrandbits(256):064x}"
    return right[:known] + _OTHER[right[known]] + rest[: len(right) - known - 1]


def signatures(server: FileServer, pairs: int, scheme: str = "v1") -> Compared:
    """Signatures that are wrong from the first digit on, and those that are wrong in the last one only."""
    path = "/upload/timing/file"
    right = slots.v1("timing/file", 0).partition("=")[2] if scheme == "v1" else mac(path)
    took: tuple[list[float], list[float]] = ([], [])
    watch = Stopwatch(server)
    order = [0, 1] * (pairs + 100)
    random.shuffle(order)
    try:
        for number, known in enumerate(order):
            value = refused(number, right, (0, len(right) - 1)[known])
            target, field = (f"{path}?v={value}", "") if scheme == "v1" else (path, f"X-Signature: {value}\r\n")
            request = f"PUT {target} HTTP/1.1\r\nHost: t\r\n{field}Content-Length: 0\r\n\r\n".encode()
            seconds, told = watch.ask(request)
            assert told.status == 403, told
            if number >= 200:
                took[known].append(seconds)
    finally:
        watch.close()
    return Compared(f"no digit and all but one digit of a {scheme} signature right", tuple(took[0]), tuple(took[1]))


def identifiers(server: FileServer, pairs: int) -> Compared:
    """Ids of uploads that are wrong from the first digit of their random part on, or in the last one only."""
    fields = {"X-Filename": "f", "X-Total-Size": "1000", "X-Signature": mac("/upload/chunked")}
    begun = server.request("POST", "/upload/chunked", b"", fields)
    assert begun.status == 201, begun
    second, _, right = str(json.loads(begun.body)["session_id"]).partition("_")
    took: tuple[list[float], list[float]] = ([], [])
    watch = Stopwatch(server)
    order = [0, 1] * (pairs + 100)
    random.shuffle(order)
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    try:
        for number, known in enumerate(order):
            kept = (0, len(right) - 1)[known]
            other = random.choice([digit for digit in digits if digit != right[kept]])
            rest = "".join(random.choices(digits, k=len(right) - kept - 1))
            target = f"/upload/status?session_id={second}_{right[:kept]}{other}{rest}"
            seconds, told = watch.ask(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            assert told.status == 404, told
            if number >= 200:
                took[known].append(seconds)
    finally:
        watch.close()
    return Compared("no digit and all but one digit of an upload's id right", tuple(took[0]), tuple(took[1]))


def server_for(folder: Path, leak: str | None = None) -> FileServer:
    """A quiet server of one process, with a leak in it or without."""
    settings = {"logging": {"level": "error"}}
    if leak is None:
        return FileServer(folder, settings)
    return FileServer(folder, settings, program=("tests.security.leaking_server", leak))
