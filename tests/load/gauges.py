"""What all processes of a server hold and use, read from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from tests.fixtures.server import FileServer

MIB = 1 << 20


def pids(server: FileServer) -> list[int]:
    """The server's processes, its parent first."""
    return processes.tree(server.pid, processes.read_stats())


def resident(server: FileServer) -> int:
    """Bytes of memory, summed over the processes: what two of them share counts twice."""
    return processes.resident_bytes(server.pid)


def proportional(server: FileServer) -> int:
    """Bytes of memory, what is shared by two processes counted half for each."""
    total = 0
    for pid in pids(server):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            total += processes.parse_status_bytes(text, "Pss")
    return total


def descriptors(server: FileServer) -> int:
    """Open descriptors of all processes."""
    total = 0
    for pid in pids(server):
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{pid}/fd"))
    return total


def transient(server: FileServer) -> int:
    """Open descriptors but those of drafts: uploads at rest keep theirs open for a minute, for their next bytes."""
    total = 0
    drafts = f"{server.storage}/.hmac-file-server/uploads/"
    for pid in pids(server):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    total += not os.readlink(f"/proc/{pid}/fd/{name}").startswith(drafts)
    return total


def threads(server: FileServer) -> int:
    """Threads of all processes."""
    total = 0
    for pid in pids(server):
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{pid}/task"))
    return total


def cpu(server: FileServer) -> float:
    """Processor seconds used so far."""
    return processes.cpu_seconds(server.pid)


def log_lines(server: FileServer) -> int:
    """Lines of the log so far."""
    return server.log.read_bytes().count(b"\n")


def busy(server: FileServer, seconds: float) -> float:
    """The share of one processor that the server uses, over so many seconds."""
    before, began = cpu(server), time.monotonic()
    time.sleep(seconds)
    return (cpu(server) - before) / (time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Held:
    """What a server holds at one time."""

    resident: int
    proportional: int
    descriptors: int
    threads: int


def held(server: FileServer) -> Held:
    """Now."""
    return Held(resident(server), proportional(server), descriptors(server), threads(server))
