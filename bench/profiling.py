"""Where a server's time goes: `perf record` around the last round (`--perf`, needs linux-perf)."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import processes
from bench.errors import UnavailableError

SHOWN_LINES = 40


def require() -> str:
    """Return the path of perf; raises UnavailableError without it."""
    found = shutil.which("perf")
    if found is None:
        raise UnavailableError("perf is not installed: apt-get install linux-perf, or leave out --perf")
    return found


@contextlib.contextmanager
def recorded(root: int, target: Path) -> Iterator[None]:
    """Sample the tree under `root` into `target` meanwhile (1 kHz of CPU clock, call graphs by frame pointer)."""
    pids = ",".join(map(str, processes.tree(root, processes.read_stats())))
    command = [require(), "record", "-q", "-e", "cpu-clock", "-F", "1000", "-g", "-o", str(target), "-p", pids]
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait()


def flat(target: Path) -> str:
    """Return the busiest functions of a recording, without their callers."""
    command = [require(), "report", "-i", str(target), "--no-children", "-g", "none", "--sort", "dso,symbol", "--stdio"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.rstrip() for line in shown.stdout.splitlines() if line.strip() and not line.startswith("#")]
    return "\n".join(lines[:SHOWN_LINES])
