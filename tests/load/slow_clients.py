"""slowhttptest against the server: slow heads, slow bodies, slow readers, heads with many ranges (G-18, N-17 to N-20)."""

from __future__ import annotations

import csv
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fixtures import slots
from tests.fixtures.child import program, wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.load import gauges

_STORED: Final = "slow/stored.bin"
_STORED_BYTES: Final = 4 << 20
_BODY: Final = 1 << 20
_INTERVAL: Final = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen; `unavailable`: seconds in which the tool's own probe got no answer within three seconds."""

    mode: str
    connections: int
    most: int
    unavailable: int
    rows: int
    slowest: float
    probes: int
    resident_before: int
    resident: int
    base: int
    after: int
    failures: int

    def line(self) -> str:
        """One line of all."""
        available = "throughout" if not self.unavailable else f"in {self.rows - self.unavailable} of {self.rows} rows"
        return (
            f"{self.mode} with {self.connections} connections ({self.most} open at most): service available"
            f" {available}, slowest of {self.probes} requests {self.slowest * 1e3:.0f} ms, memory"
            f" {self.resident / gauges.MIB:.1f} MiB ({self.resident_before / gauges.MIB:.1f} before), descriptors"
            f" {self.base} before, {self.after} after, {self.failures} answers 5xx"
        )


def _words(mode: str, server: FileServer) -> list[str]:
    stored = f"{server.url}/upload/{_STORED}"
    if mode == "slow-heads":
        return ["-H", "-i", str(_INTERVAL), "-x", "24", "-u", f"{server.url}/health"]
    if mode == "slow-bodies":
        target = slots.target("slow/body.bin", slots.v1("slow/body.bin", _BODY))
        words = ["-B", "-i", str(_INTERVAL), "-x", "10", "-s", str(_BODY), "-t", "PUT"]
        return [*words, "-f", "application/octet-stream", "-u", server.url + target]
    if mode == "slow-readers":
        return ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3", "-u", stored]
    return ["-R", "-t", "HEAD", "-a", "5", "-b", "3000", "-u", stored]


def attack(server: FileServer, folder: Path, mode: str, connections: int, seconds: int) -> Figures:
    """So many slow clients for so long, against a server that holds nothing else."""
    body = content(_STORED_BYTES, "slow clients")
    assert server.request("PUT", slots.target(_STORED, slots.v1(_STORED, len(body))), body).status in {201, 200}
    before, base = gauges.proportional(server), gauges.descriptors(server)
    statistics = folder / mode
    rate = max(100, connections // max(1, seconds // 3))
    words = ["-c", str(connections), "-r", str(rate), "-l", str(seconds), "-p", "3", "-g", "-o", str(statistics)]
    tool = subprocess.Popen(
        [program("slowhttptest", "slowhttptest"), *words, *_words(mode, server)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    slowest, probes, resident, most = 0.0, 0, before, base
    try:
        while tool.poll() is None:
            began = time.perf_counter()
            answer = server.request("GET", "/health", timeout=30)
            assert answer.status == 200
            slowest = max(slowest, time.perf_counter() - began)
            probes += 1
            resident = max(resident, gauges.proportional(server))
            most = max(most, gauges.descriptors(server))
            assert probes < 10_000
            time.sleep(0.2)
    finally:
        tool.kill()
        tool.wait()
    wait_until(lambda: gauges.descriptors(server) <= base + 4, "the descriptors are free", seconds=60)
    rows = list(csv.DictReader(statistics.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    assert rows, "slowhttptest told nothing"
    available = [int(next(value for name, value in row.items() if "Available" in name)) for row in rows]
    connected = [int(row["Connected"]) for row in rows]
    lines = server.log_text().splitlines()
    return Figures(
        mode=mode,
        connections=connections,
        most=max(connected),
        unavailable=sum(not value for value in available),
        rows=len(rows),
        slowest=slowest,
        probes=probes,
        resident_before=before,
        resident=resident,
        base=base,
        after=gauges.descriptors(server),
        failures=sum(f" 50{digit} in=" in line for line in lines for digit in "0234567"),
    )
