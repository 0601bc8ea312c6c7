"""`python -m bench.takeover`: how long an upload takes to go on after its client changed networks.

A phone with two links, a router and a server, in network namespaces (needs root). Each round begins a chunk over
one link, cuts that link at the phone's end while the body is under way, so that the server notices nothing,
and comes back over the other link: the status is asked for and the chunk is continued. Whatever had reached
the server before the cut has to be there afterwards, and every file has to be what was sent.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.switching import Switch, rig, switches
from tests.fixtures.namespaces import why_not
from tests.fixtures.server import Settings

from bench.errors import BenchError, MismatchError
from bench.table import say

STATUS_BOUND_S = 0.050
ACCEPTED_BOUND_S = 0.100
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over many rounds, in seconds."""

    p50: float
    p99: float
    most: float

    def __str__(self) -> str:
        """The three in milliseconds."""
        return f"p50 {self.p50 * 1e3:7.2f} ms   p99 {self.p99 * 1e3:7.2f} ms   max {self.most * 1e3:7.2f} ms"


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value; percentiles by nearest rank."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Spread(rank(0.5), rank(0.99), ordered[-1])


def lines(rounds: Sequence[Switch]) -> list[str]:
    """What is printed of the rounds: the figures, and whether the goals were reached."""
    status = spread([one.status for one in rounds])
    accepted = spread([one.accepted for one in rounds])
    both = spread([one.status + one.accepted for one in rounds])
    lost = sum(one.lost for one in rounds)
    goals = [
        (f"status p99 below {STATUS_BOUND_S * 1e3:.0f} ms", status.p99 < STATUS_BOUND_S),
        (f"next byte p99 below {ACCEPTED_BOUND_S * 1e3:.0f} ms", accepted.p99 < ACCEPTED_BOUND_S),
        ("no received byte lost", lost == 0),
    ]
    return [
        f"switches              {len(rounds)}",
        f"status answered       {status}",
        f"next byte accepted    {accepted}",
        f"both                  {both}",
        f"received bytes lost   {lost}",
        *(f"{'reached    ' if reached else 'NOT REACHED'}  {goal}" for goal, reached in goals),
    ]


def reached(rounds: Sequence[Switch]) -> bool:
    """Whether every goal was."""
    return not any(line.startswith("NOT") for line in lines(rounds))


def measure(count: int, processes: int, work: Path, tell: Callable[[str], None]) -> list[Switch]:
    """Switch `count` times; raises BenchError where that cannot be done, MismatchError for a wrong file."""
    reason = why_not()
    if reason:
        raise BenchError(reason)
    settings: Settings = {
        "server": {"processes": processes},
        "uploads": {"chunk_size": "1MB"},
        "logging": {"level": "warning"},
    }
    found: list[Switch] = []
    try:
        with rig(work, settings) as made:
            for one in switches(made, count, chunk_size=MIB):
                found.append(one)
                if len(found) % 100 == 0:
                    tell(f"{len(found)} of {count}")
    except AssertionError as failure:
        raise MismatchError(f"after {len(found)} switches: {failure}") from failure
    return found


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.takeover`."""
    p = argparse.ArgumentParser(prog="python -m bench.takeover", description=__doc__.partition("\n")[0])
    p.add_argument("--switches", type=int, default=500, metavar="N", help="how often to switch (default 500)")
    p.add_argument("--processes", type=int, default=1, metavar="N", help="server processes (default 1)")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the server keeps its files (default bench/results)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0 when every goal was reached, 1 when not, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if options.switches < 1 or options.processes < 1:
        parser().error("--switches and --processes must be at least 1")
    parent: Path = options.work or Path(__file__).parent / "results"
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as work:
            found = measure(options.switches, options.processes, Path(work), say)
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    print("\n".join(lines(found)))
    return 0 if reached(found) else 1


if __name__ == "__main__":
    sys.exit(main())
