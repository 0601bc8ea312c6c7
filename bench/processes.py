"""CPU seconds and memory of a process and all its descendants, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that matter here; times in clock ticks."""

    pid: int
    parent: int
    own_ticks: int
    reaped_ticks: int


def parse_stat(text: str) -> Stat:
    """Parse one /proc/PID/stat line (proc(5)); the name in parentheses may hold anything, even ") "."""
    pid, rest = text.split(" (", 1)
    fields = rest.rsplit(") ", 1)[1].split()
    # fields[0] is field 3 (state) of the manual page.
    utime, stime, cutime, cstime = (int(fields[i]) for i in (11, 12, 13, 14))
    return Stat(pid=int(pid), parent=int(fields[1]), own_ticks=utime + stime, reaped_ticks=cutime + cstime)


def read_stats(proc: Path = PROC) -> dict[int, Stat]:
    """Return the stat of every process that still exists while it is read."""
    stats: dict[int, Stat] = {}
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        try:
            stat = parse_stat((proc / name / "stat").read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        stats[stat.pid] = stat
    return stats


def tree(root: int, stats: dict[int, Stat]) -> list[int]:
    """Return `root` and its living descendants, root first; empty when root is gone."""
    if root not in stats:
        return []
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found = [root]
    for pid in found:  # grows while it is walked
        found.extend(sorted(children.get(pid, [])))
    return found


def cpu_seconds(root: int, stats: dict[int, Stat] | None = None) -> float:
    """Return utime + stime of the tree under `root`, with the children it has already waited for."""
    stats = read_stats() if stats is None else stats
    return sum(stats[p].own_ticks + stats[p].reaped_ticks for p in tree(root, stats)) / TICKS_PER_SECOND


def parse_status_bytes(text: str, field: str) -> int:
    """Return a "VmRSS:   123 kB" field of /proc/PID/status in bytes; 0 when absent (a zombie has none)."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0


def _sum_of(pids: Iterable[int], field: str) -> int:
    total = 0
    for pid in pids:
        try:
            total += parse_status_bytes((PROC / str(pid) / "status").read_text(), field)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def resident_bytes(root: int) -> int:
    """Return the resident memory of the tree, summed: pages shared by two processes count twice."""
    return _sum_of(tree(root, read_stats()), "VmRSS")


def peak_resident_bytes(root: int) -> int:
    """Return the summed peak resident memory of the tree since the last `reset_peak`."""
    return _sum_of(tree(root, read_stats()), "VmHWM")


def reset_peak(root: int) -> None:
    """Set the peak of each process of the tree back to what it holds now (proc(5), clear_refs 5)."""
    for pid in tree(root, read_stats()):
        try:
            (PROC / str(pid) / "clear_refs").write_text("5")
        except (FileNotFoundError, ProcessLookupError):
            continue


def pin(root: int, cores: set[int]) -> None:
    """Let every thread of the tree run on `cores` only."""
    for pid in tree(root, read_stats()):
        try:
            tasks = os.listdir(PROC / str(pid) / "task")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for task in tasks:
            try:
                os.sched_setaffinity(int(task), cores)
            except ProcessLookupError:
                continue
