"""Connections that end between the last byte of an upload and its answer (N-38): nothing is lost, nothing comes twice."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.load import drops

KINDS: Final = ("PUT", "large PUT", "tus")
_SIZES: Final = {"PUT": 3000, "large PUT": 200_000, "tus": 3000}
_RESET: Final = struct.pack("ii", 1, 0)
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen. `there`: files that were published by what was cut; the others by its repetition."""

    cut: int
    there: int
    published: int
    spooled: int

    def line(self) -> str:
        """One line of all."""
        return (
            f"{self.cut} uploads cut between their last byte and the answer: {self.there} were stored all the same, all"
            f" {self.published} after a repetition, each once and whole, {self.spooled} bodies left over"
        )


def body_of(number: int) -> bytes:
    """The bytes of an upload; no two are the same."""
    kind = KINDS[number % len(KINDS)]
    return content(_SIZES[kind] + number, f"last byte {number}")


def _request(number: int, target: str) -> bytes:
    body = body_of(number)
    if KINDS[number % len(KINDS)] != "tus":
        return f"PUT {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    fields = "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
    return f"PATCH {target} HTTP/1.1\r\nHost: t\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _target(server: FileServer, number: int) -> str:
    body = body_of(number)
    if KINDS[number % len(KINDS)] == "tus":
        return drops.create(server, 1, length=len(body))[0]
    path = f"last/{number}"
    return slots.target(path, slots.v1(path, len(body)))


def _cut(server: FileServer, number: int, request: bytes) -> None:
    """Send all of it, and be gone: by a reset, by a close, or by a close of one side first."""
    with socket.create_connection((server.host, server.port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request)
        if number // len(KINDS) % 3 == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif number // len(KINDS) % 3 == 1:
            sock.shutdown(socket.SHUT_WR)


def _again(server: FileServer, number: int, target: str) -> None:
    """Ask how it went and send what is missing, as a client does."""
    body = body_of(number)
    if KINDS[number % len(KINDS)] != "tus":
        assert server.request("PUT", target, body).status == 201
        return
    for _ in range(5):
        told = server.request("HEAD", target, None, {"Tus-Resumable": "1.0.0"})
        assert told.status == 200, told
        offset = int(told.headers["upload-offset"])
        if offset == len(body):
            return
        fields = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        status = server.request("PATCH", target, body[offset:], fields).status
        if status == 204:
            return
        # What was cut has come to its end meanwhile.
        assert status == 409
    raise AssertionError("an upload does not end")


def published(server: FileServer) -> list[bytes]:
    """Contents of all files."""
    return sorted((server.storage / name).read_bytes() for name in server.files())


def cut(server: FileServer, count: int) -> Figures:
    """So many, several at a time; the server must have been empty, and be one process."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        targets = list(pool.map(lambda number: _target(server, number), range(count)))
        requests = [_request(number, target) for number, target in enumerate(targets)]
        list(pool.map(lambda number: _cut(server, number, requests[number]), range(count)))
        # A connection that was accepted after it had gone brought nothing; all others have come to their end.
        wait_until(lambda: server.request("GET", "/health").status == 200, "the server has caught up")
        there = len(server.files())
        list(pool.map(lambda number: _again(server, number, targets[number]), range(count)))
    wait_until(lambda: len(server.files()) >= count, "all are there", seconds=60)
    assert published(server) == sorted(body_of(number) for number in range(count))
    wait_until(lambda: not server.spooled(), "no body is left over", seconds=60)
    return Figures(count, there, len(server.files()), len(server.spooled()))
