"""What the figures were measured on, and the memory and disk they may use."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from bench.errors import BenchError


def parse_meminfo(text: str, field: str) -> int:
    """Return a field of /proc/meminfo in bytes; 0 when it is not there."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0


def free_memory() -> int:
    """Return the bytes of memory that nothing uses, not even the page cache."""
    return parse_meminfo(Path("/proc/meminfo").read_text(), "MemFree")


def parse_busy_ticks(text: str) -> int:
    """Return the clock ticks all cores have spent working, from /proc/stat: user, nice, system, irq and softirq."""
    fields = [int(field) for field in text.split("\n", 1)[0].split()[1:]]
    return sum(fields[i] for i in (0, 1, 2, 5, 6))


def busy_seconds() -> float:
    """Return the CPU seconds that everything on this machine together has used."""
    return parse_busy_ticks(Path("/proc/stat").read_text()) / os.sysconf("SC_CLK_TCK")


def filesystem_of(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that holds `path`, by the longest mount point above it."""
    mounts = Path("/proc/mounts").read_text() if mounts is None else mounts
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, fstype, *_ = line.split(" ")
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def cpu_model(cpuinfo: str) -> str:
    """Return the first "model name" of /proc/cpuinfo, or the architecture where there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def describe(work: Path) -> dict[str, str]:
    """Return what a reader needs to judge the figures."""
    memory = parse_meminfo(Path("/proc/meminfo").read_text(), "MemTotal")
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "filesystem": filesystem_of(work.resolve()),
    }


def require_disk(work: Path, needed: int) -> None:
    """Refuse a work directory in memory or without room; raises BenchError."""
    kind = filesystem_of(work.resolve())
    if kind in {"tmpfs", "ramfs", "devtmpfs"}:
        raise BenchError(f"the work directory is on {kind}: choose one on a real disk with --work DIR")
    free = shutil.disk_usage(work).free
    if free < needed:
        raise BenchError(
            f"the work directory has {free / 2**30:.0f} GiB free and the chosen rows need up to"
            f" {needed / 2**30:.0f} GiB: choose another with --work DIR, or fewer rows or rounds",
        )
