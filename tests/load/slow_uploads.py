"""Thousands of uploads at a kilobyte a second each, and a fast client beside them (G-10, G-11, S-53)."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer, Settings
from tests.load import gauges
from tests.load.asking import answer
from tests.load.crowd import CrowdProcess

PROBED: Final = ("tests.load.probed_server",)
KIB: Final = 1 << 10
_FAST_BYTES: Final = 8 << 20
_PIECE: Final = bytes(range(256)) * 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen. Memory in bytes, lateness in seconds, throughput in bytes a second."""

    uploads: int
    before: gauges.Held
    during: gauges.Held
    lag_p99: float
    lag_most: float
    idle_rate: float
    beside_rate: float
    sent: int
    refused: int
    cpu: float

    @property
    def each(self) -> float:
        """Bytes of memory that one upload adds."""
        return (self.during.proportional - self.before.proportional) / self.uploads

    @property
    def share(self) -> float:
        """What a fast client gets beside them of what it gets alone."""
        return self.beside_rate / self.idle_rate

    def line(self) -> str:
        """One line of all."""
        mib = gauges.MIB
        return (
            f"{self.uploads} uploads at 1 KiB/s: memory {self.during.proportional / mib:.1f} MiB"
            f" ({self.before.proportional / mib:.1f} before, {self.each / KIB:.1f} KiB each; summed with what is"
            f" shared {self.during.resident / mib:.1f} MiB), descriptors {self.during.descriptors}, threads"
            f" {self.during.threads}, cpu {self.cpu:.2f} cores, event loop lag p99 {self.lag_p99 * 1e3:.1f} ms max"
            f" {self.lag_most * 1e3:.1f} ms, fast client {self.beside_rate / mib:.0f} of {self.idle_rate / mib:.0f}"
            f" MiB/s ({self.share:.0%}), failed sends {self.refused}"
        )


def put_requests(count: int, size: int, prefix: str = "slow", first: int = KIB) -> list[bytes]:
    """Signed uploads, with the first bytes of their bodies."""
    found = []
    for number in range(count):
        path = f"{prefix}/{number}"
        target = slots.target(path, slots.v1(path, size))
        found.append(f"PUT {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(first))
    return found


def fast(server: FileServer, seconds: float, prefix: str) -> float:
    """Bytes a second that one client uploads, 8 MiB after 8 MiB over one connection."""
    began = time.perf_counter()
    number = 0
    with socket.create_connection((server.host, server.port), timeout=60) as sock:
        while number < 2 or time.perf_counter() - began < seconds:
            path = f"{prefix}/{number}"
            target = slots.target(path, slots.v1(path, _FAST_BYTES))
            sock.sendall(f"PUT {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {_FAST_BYTES}\r\n\r\n".encode())
            sent = 0
            while sent < _FAST_BYTES:
                sock.sendall(_PIECE)
                sent += len(_PIECE)
            assert answer(sock).status == 201
            number += 1
        return number * _FAST_BYTES / (time.perf_counter() - began)


def lags(folder: Path, since: dict[str, int]) -> list[float]:
    """What the probes have noted since the last call."""
    found: list[float] = []
    for path in folder.glob("lag.*"):
        text = path.read_text(encoding="ascii")
        end = text.rfind("\n") + 1
        found += [float(line) for line in text[since.get(path.name, 0) : end].splitlines()]
        since[path.name] = end
    return sorted(found)


def measure(folder: Path, count: int, *, processes: int, seconds: float) -> Figures:
    """Let so many upload for so long; each of them and the server must be well all the while."""
    settings: Settings = {"server": {"processes": processes}}
    server = FileServer(folder / "server", settings, program=PROBED)
    server.start()
    crowd = CrowdProcess(server.host, server.port)
    try:
        fast(server, seconds / 4, "warm")
        idle_rate = fast(server, seconds, "alone")
        before = gauges.held(server)
        size = 1 << 20
        crowd.join(put_requests(count, size))
        crowd.drip(KIB)
        wait_until(lambda: crowd.state()["sent"] >= 2 * count * KIB, "all of them drip", seconds=120)
        everybody = before.descriptors + 3 * count - 20
        wait_until(lambda: gauges.descriptors(server) >= everybody, "all are accepted", seconds=120)
        since: dict[str, int] = {}
        lags(server.folder, since)
        used, began = gauges.cpu(server), time.monotonic()
        time.sleep(seconds)
        cpu = (gauges.cpu(server) - used) / (time.monotonic() - began)
        late = lags(server.folder, since)
        during = gauges.held(server)
        beside_rate = fast(server, seconds, "beside")
        state = crowd.state()
        assert state["answered"] == 0, f"{state['answered']} of the slow ones were refused or cut: {crowd.said()}"
        return Figures(
            uploads=count,
            before=before,
            during=during,
            lag_p99=late[(len(late) - 1) * 99 // 100],
            lag_most=late[-1],
            idle_rate=idle_rate,
            beside_rate=beside_rate,
            sent=state["sent"],
            refused=state["refused"],
            cpu=cpu,
        )
    finally:
        crowd.close()
        server.stop()
