"""Load: `python -m bench.load SCENARIO...`: much at once, and what the server holds and answers meanwhile.

Each scenario prints one line of figures for each size, and fails where a bound is broken that does not depend on the
machine: a request refused that should not be, a count that is wrong, something lost. The goals that do depend on it
stand beside the figures in docs/reliability.md. Everything is sent to loopback. The shares of `make test` are in
tests/load.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fixtures.server import FileServer
from tests.load import drops, last_bytes, lifetimes, pipelines, quota_races, session_floods, slow_clients, slow_uploads
from tests.load.crowd import allow_descriptors
from tests.server.disks import may_mount, tmpfs


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `count` None: as many as the scenario's goal says."""

    work: Path
    processes: int
    count: int | None
    seconds: float

    def many(self, usual: int) -> int:
        """How many."""
        return usual if self.count is None else self.count


def _slow_uploads(options: Options) -> Iterator[str]:
    for number, (count, processes) in enumerate(((10_000, options.processes), (5_000, 1))):
        if number and options.count is not None:
            return
        folder = options.work / str(number)
        seen = slow_uploads.measure(folder, options.many(count), processes=processes, seconds=options.seconds)
        yield f"{processes} processes: {seen.line()}"


def _drop(options: Options) -> Iterator[str]:
    for kind in ("PUT", "tus"):
        yield drops.measure(options.work / kind, options.many(10_000), processes=options.processes, kind=kind).line()


def _slow_clients(mode: str) -> Callable[[Options], Iterator[str]]:
    def run(options: Options) -> Iterator[str]:
        with _serving(options, {}) as server:
            seconds = max(10, int(options.seconds * 6))
            yield slow_clients.attack(server, options.work, mode, options.many(4000), seconds).line()

    return run


def _pipelining(options: Options) -> Iterator[str]:
    with _serving(options, {}) as server:
        yield pipelines.flood(server, options.many(500), 50).line()


def _sessions(options: Options) -> Iterator[str]:
    with _serving(options, session_floods.settings(options.processes)) as server:
        for kind, share in (("unsigned", 1), ("by one owner", 1), ("by ever new owners", 10)):
            yield session_floods.flood(server, kind, options.many(1_000_000) // share).line()


def _quota(options: Options) -> Iterator[str]:
    rounds = options.many(1000) // (4 if may_mount() else 3)
    if not may_mount():
        with _serving(options, quota_races.settings(options.processes)) as server:
            tally = quota_races.race(server, rounds, space=False)
            quota_races.crash(server, space=False)
            yield tally.line() + " (no races for space: they need a file system of their own)"
        return
    with tmpfs(options.work / "disk", size="256m") as disk:
        server = FileServer(disk / "server", quota_races.settings(options.processes))
        server.start()
        try:
            tally = quota_races.race(server, rounds, space=True)
            quota_races.crash(server, space=True)
            yield tally.line()
        finally:
            server.stop()


def _last_byte(options: Options) -> Iterator[str]:
    with _serving(replace(options, processes=1), {}) as server:
        yield last_bytes.cut(server, options.many(1000)).line()


def _grow(options: Options) -> Iterator[str]:
    yield lifetimes.growth(options.work, options.many(10) << 30).line()


def _cold_start(options: Options) -> Iterator[str]:
    for processes in sorted({1, options.processes}):
        folder = options.work / str(processes)
        yield f"{processes} processes: {lifetimes.cold_starts(folder, options.many(11), processes).line()}"
    yield lifetimes.drain(options.work / "drain", 1000, options.processes).line()


SCENARIOS: dict[str, Callable[[Options], Iterator[str]]] = {
    "slow-uploads": _slow_uploads,
    "slow-heads": _slow_clients("slow-heads"),
    "slow-bodies": _slow_clients("slow-bodies"),
    "slow-readers": _slow_clients("slow-readers"),
    "slow-ranges": _slow_clients("slow-ranges"),
    "drop": _drop,
    "pipelining": _pipelining,
    "sessions": _sessions,
    "quota": _quota,
    "last-byte": _last_byte,
    "grow": _grow,
    "cold-start": _cold_start,
}


class _serving:  # noqa: N801 - used like a function
    """A server for a scenario."""

    def __init__(self, options: Options, settings: dict[str, dict[str, object]]) -> None:
        sections: dict[str, dict[str, object]] = {"server": {"processes": options.processes}, **settings}
        self._server = FileServer(options.work / "server", sections)

    def __enter__(self) -> FileServer:
        self._server.start()
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.stop()


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.load`."""
    p = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__.partition("\n")[0])
    p.add_argument("scenarios", nargs="+", choices=[*SCENARIOS, "all"], metavar="SCENARIO", help=", ".join(SCENARIOS))
    p.add_argument("--count", type=int, metavar="N", help="connections, sessions, rounds, GiB or starts (the goal's)")
    p.add_argument("--processes", type=int, default=2, metavar="N", help="server processes (default 2)")
    p.add_argument("--seconds", type=float, default=5.0, metavar="S", help="how long each state is watched (default 5)")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the server keeps its files (default bench/results)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios and print their lines; returns 1 when a bound was broken."""
    options = parser().parse_args(arguments)
    chosen = list(SCENARIOS) if "all" in options.scenarios else options.scenarios
    parent: Path = options.work or Path(__file__).parent / "results"
    parent.mkdir(parents=True, exist_ok=True)
    allow_descriptors()
    broken = 0
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="load-", dir=parent) as work:
            try:
                for line in SCENARIOS[name](Options(Path(work), options.processes, options.count, options.seconds)):
                    print(f"{name}: {line}", flush=True)
            except AssertionError as failure:
                broken = 1
                print(f"{name}: FAILED: {failure}", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(main())
