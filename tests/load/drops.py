"""Thousands of uploads cut in one moment, and all of their clients back within seconds (G-23, N-29)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

from tests.fixtures.child import wait_until
from tests.fixtures.server import SECRET, FileServer, Settings
from tests.load import gauges
from tests.load.asking import Told, ask
from tests.load.crowd import CrowdProcess, Storm
from tests.load.slow_uploads import KIB, put_requests

from hmac_file_server.auth import signing

LENGTH: Final = 1 << 20
_PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen; times in seconds, descriptors without those of drafts."""

    kind: str
    uploads: int
    base: int
    during: int
    settled: float
    after: int
    lines: int
    busy: float
    back: Storm | None

    def line(self) -> str:
        """One line of all."""
        text = (
            f"{self.uploads} {self.kind} uploads reset at once: {self.lines} log lines, descriptors (but drafts) {self.base} before,"
            f" {self.during} during, {self.after} after {self.settled:.2f} s, then cpu {self.busy:.2f} cores"
        )
        if self.back is not None:
            text += (
                f"; all back within 5 s: {self.back.answered} answered, statuses {self.back.statuses},"
                f" p50 {self.back.p50 * 1e3:.1f} ms p99 {self.back.p99 * 1e3:.1f} ms max {self.back.most * 1e3:.1f} ms"
            )
        return text


def create(server: FileServer, count: int, length: int = LENGTH) -> list[str]:
    """Begin so many tus uploads; their targets."""
    signature = signing.x_signature(SECRET.encode(), "/tus/")
    request = (
        f"POST /tus/ HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Length: {length}\r\n"
        f"X-Signature: {signature}\r\nContent-Length: 0\r\n\r\n"
    ).encode()
    found: list[str] = []

    def take(_: int, told: Told) -> None:
        assert told.status == 201, told
        found.append(urljoin("/tus/", told.headers["location"]))

    ask(server, (request for _ in range(count)), take)
    return found


def patches(targets: list[str], first: int = KIB) -> list[bytes]:
    """The beginning of a PATCH for each."""
    return [
        f"PATCH {target} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: {LENGTH}\r\n"
        f"Content-Type: application/offset+octet-stream\r\n\r\n".encode()
        + bytes(first)
        for target in targets
    ]


def heads(targets: list[str]) -> list[bytes]:
    """How far is each?"""
    return [f"HEAD {target} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\n\r\n".encode() for target in targets]


def measure(folder: Path, count: int, *, processes: int, kind: str, seconds: float = 5.0) -> Figures:
    """Cut so many uploads of a kind ("PUT" or "tus") at once."""
    settings: Settings = {"server": {"processes": processes}, "uploads": {"max_sessions_per_owner": 1_000_000}}
    server = FileServer(folder / "server", settings)
    server.start()
    crowd = CrowdProcess(server.host, server.port)
    try:
        targets = create(server, count) if kind == "tus" else []
        requests = patches(targets) if targets else put_requests(count, LENGTH)
        base = gauges.transient(server)
        crowd.join(requests)
        crowd.drip(KIB)
        wait_until(lambda: crowd.state()["sent"] >= 2 * count * KIB, "all of them drip", seconds=_PATIENCE)
        # Some may have been connected by the kernel, and not accepted yet.
        each = 2 if targets else 3
        wait_until(lambda: gauges.transient(server) >= base + each * count, "all are accepted", seconds=_PATIENCE)
        assert crowd.state()["answered"] == 0, crowd.said()
        during = gauges.transient(server)
        said = gauges.log_lines(server)
        began = time.monotonic()
        crowd.reset()
        wait_until(lambda: gauges.transient(server) <= base + 2, "the descriptors are free", seconds=_PATIENCE)
        settled = time.monotonic() - began
        after = gauges.transient(server)
        # The last count of what was withheld comes when its second is over.
        busy = gauges.busy(server, 2.0)
        lines = gauges.log_lines(server) - said
        back = crowd.storm(heads(targets), seconds) if targets else None
        return Figures(kind, count, base, during, settled, after, lines, busy, back)
    finally:
        crowd.close()
        server.stop()
