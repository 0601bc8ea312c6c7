"""A client that writes its own bytes: half requests, slow bodies, resets, whatever a phone on a train sends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.fixtures.server import Answer, FileServer


class EarlyEndError(Exception):
    """The server closed the connection before a whole answer."""


class Wire:
    """One connection to a server; every read waits for `timeout` seconds at most."""

    def __init__(self, server: FileServer, *, timeout: float = 20) -> None:
        self.sock = socket.create_connection((server.host, server.port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = f"{server.host}:{server.port}"
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def head(self, method: str, target: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a request head; Host is added."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, *, bodiless: bool = False) -> Answer:
        """The next final answer; interim ones are passed over. Raises EarlyEndError."""
        while True:
            answer = self.next_answer(bodiless=bodiless)
            if answer.status >= 200:
                return answer

    def next_answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer, interim or final. Raises EarlyEndError."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if status < 200 or status in {204, 304} or bodiless:
            length = 0
        while len(self._buffer) < length:
            self._fill()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(status, headers, body)

    def is_closed(self) -> bool:
        """Wait for the end of the connection; False when the server sends something first."""
        try:
            return not self._buffer and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """End with RST, as a phone's network stack does when its address goes away."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _fill(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise EarlyEndError(self._buffer[:200])
        self._buffer += data


def memory(pid: int) -> int:
    """Resident anonymous and file memory of a process in bytes (what the kernel counts as RssAnon + RssFile)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmRSS")


def children(pid: int) -> list[int]:
    """Child processes of a process."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
        return [int(word) for word in listed.read().split()]
