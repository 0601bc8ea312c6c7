"""Sessions begun without number: without a permission, by one owner, and by ever new ones (S-51)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fixtures.server import FileServer
from tests.load import gauges
from tests.load.asking import Told, ask
from tests.server.signatures import bearer, ticket

_PRIVATE: Final = ".hmac-file-server"
_LENGTH: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen of one flood. Memory and disk are what grew, in bytes."""

    kind: str
    asked: int
    statuses: dict[int, int]
    rate: float
    memory: int
    disk: int
    drafts: int

    def line(self) -> str:
        """One line of all."""
        return (
            f"{self.asked} sessions asked for {self.kind}: statuses {dict(sorted(self.statuses.items()))},"
            f" {self.rate:.0f} a second, memory +{self.memory / gauges.MIB:.1f} MiB, disk +{self.disk / gauges.MIB:.1f}"
            f" MiB in {self.drafts} drafts"
        )


def settings(processes: int) -> dict[str, dict[str, object]]:
    """Of a server to be flooded; it promises a gibibyte to each, which no disk has."""
    return {
        "server": {"processes": processes, "min_free_bytes": "1MB"},
        "logging": {"level": "error"},
    }


def _head(credentials: str, length: int) -> bytes:
    return (
        f"POST /tus/ HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Length: {length}\r\n{credentials}"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def requests(kind: str, count: int) -> Iterator[bytes]:
    """So many of a kind: "unsigned", "by one owner", "by ever new owners"."""
    one = bearer(ticket(prefix="flood", ops=["create"]))["Authorization"]
    for _ in range(count):
        if kind == "unsigned":
            yield _head("X-Signature: " + "0" * 64 + "\r\n", _LENGTH)
        elif kind == "by one owner":
            yield _head(f"Authorization: {one}\r\n", 1000)
        else:
            new = bearer(ticket(prefix="flood", ops=["create"]))["Authorization"]
            yield _head(f"Authorization: {new}\r\n", 1000)


def on_disk(folder: Path) -> int:
    """Bytes that files take."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def flood(server: FileServer, kind: str, count: int) -> Figures:
    """Ask for so many."""
    memory, disk = gauges.proportional(server), on_disk(server.folder)
    drafts = server.storage / _PRIVATE / "uploads"
    before = len(os.listdir(drafts))
    statuses: dict[int, int] = {}

    def take(_: int, told: Told) -> None:
        statuses[told.status] = statuses.get(told.status, 0) + 1

    began = time.perf_counter()
    asked = ask(server, requests(kind, count), take, connections=32)
    took = time.perf_counter() - began
    return Figures(
        kind=kind,
        asked=asked,
        statuses=statuses,
        rate=asked / took,
        memory=gauges.proportional(server) - memory,
        disk=on_disk(server.folder) - disk,
        drafts=len(os.listdir(drafts)) - before,
    )
