"""Clients that ask and ask, and do not read (N-19, S-15, S-53): what is held for them is bounded."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Final

from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.load import gauges
from tests.load.crowd import SOURCES

_PATH: Final = "pipeline/sixty.bin"
_SIZE: Final = 60_000
_GET: Final = f"GET /upload/{_PATH} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
_AT_ONCE: Final = 200
# What one connection may hold in user space: requests read but not begun, and answers that the kernel did not take.
EACH: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen."""

    connections: int
    asked: int
    before: int
    held: int
    caught_up: float
    slowest: float
    base: int
    after: int

    def line(self) -> str:
        """One line of all."""
        return (
            f"{self.connections} clients pipeline and do not read, {self.asked} requests for 60 kB sent: memory"
            f" {self.before / gauges.MIB:.1f} -> {self.held / gauges.MIB:.1f} MiB"
            f" ({(self.held - self.before) / self.connections / 1024:.0f} KiB each), the first other request is answered after {self.caught_up:.1f} s, the slowest of 20"
            f" more after {self.slowest * 1e3:.0f} ms, descriptors {self.base} before, {self.after} after"
        )


def flood(server: FileServer, connections: int, rounds: int) -> Figures:
    """So many clients send requests, as many as are taken, for so many rounds; then all of them go."""
    body = content(_SIZE, "pipelines")
    assert server.request("PUT", slots.target(_PATH, slots.v1(_PATH, _SIZE)), body).status == 201
    before, base = gauges.proportional(server), gauges.descriptors(server)
    flooding = _GET * _AT_ONCE
    socks: list[socket.socket] = []
    asked = 0
    try:
        for number in range(connections):
            sock = socket.socket()
            socks.append(sock)
            # Small, so that what is not read waits at the server.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(20)
            sock.bind((SOURCES[number % len(SOURCES)], 0))
            sock.connect((server.host, server.port))
            sock.setblocking(False)
        positions = [0] * connections
        for _ in range(rounds):
            for number, sock in enumerate(socks):
                try:
                    # Requests stay whole over sends that were cut short.
                    positions[number] += sock.send(flooding[positions[number] % len(flooding) :])
                except BlockingIOError:
                    continue
        asked = sum(position // len(_GET) for position in positions)
        began = time.perf_counter()
        assert server.request("GET", "/health").status == 200
        caught_up = time.perf_counter() - began
        slowest = 0.0
        for _ in range(20):
            began = time.perf_counter()
            assert server.request("GET", f"/upload/{_PATH}").body == body
            slowest = max(slowest, time.perf_counter() - began)
        held = gauges.proportional(server)
        # Whoever reads after all gets all answers in order, from the first byte on.
        sock = socks[0]
        sock.settimeout(20)
        received = bytearray()
        while len(received) < 3 * _SIZE:
            data = sock.recv(65536)
            assert data
            received += data
        assert received.startswith(b"HTTP/1.1 200 ")
        assert bytes(received).partition(b"\r\n\r\n")[2].startswith(body)
    finally:
        for sock in socks:
            sock.close()
    wait_until(lambda: gauges.descriptors(server) <= base + 2, "the descriptors are free", seconds=60)
    return Figures(connections, asked, before, held, caught_up, slowest, base, gauges.descriptors(server))
