"""`python -m bench.simulate`: play many seeds of the simulation, on every core.

Each seed is a world of its own (see `tests.simulation.world`): one or two servers on one disk, devices that upload in
every protocol, a network that cuts, delays and repeats, crashes and power cuts between any two calls. A seed that
breaks a rule is printed; it breaks it every time, and belongs into `tests/simulation/seeds.py`.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.simulation.alterations import ALTERATIONS, altered
from tests.simulation.world import STEPS, simulate

from bench.table import say

_SHARE = 25
_SAID = 20


@dataclass(frozen=True, slots=True)
class Share:
    """Seeds that one process plays in a row."""

    seeds: range
    steps: int
    alteration: str | None


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a share: totals, and the seeds that broke a rule with what they broke."""

    seeds: int
    steps: int
    answers: int
    crashes: int
    complete: int
    broken: tuple[tuple[int, str], ...]


def play(share: Share) -> Played:
    """Play a share."""
    steps = answers = crashes = complete = 0
    broken: list[tuple[int, str]] = []
    with altered(share.alteration):
        for seed in share.seeds:
            try:
                run = simulate(seed, steps=share.steps)
            except Exception as error:  # whatever a seed raises is what was looked for
                broken.append((seed, f"{type(error).__name__}: {error}"))
            else:
                steps += run.steps
                answers += run.answers
                crashes += run.crashes
                complete += run.complete
    gc.collect()
    return Played(len(share.seeds), steps, answers, crashes, complete, tuple(broken))


def shares(first: int, count: int, steps: int, alteration: str | None) -> Iterator[Share]:
    """The seeds, in shares."""
    for start in range(first, first + count, _SHARE):
        yield Share(range(start, min(start + _SHARE, first + count)), steps, alteration)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.simulate`."""
    p = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__.partition("\n")[0])
    p.add_argument("--seeds", type=int, default=10_000, metavar="N", help="how many (default 10000)")
    p.add_argument("--first", type=int, default=0, metavar="S", help="the first of them (default 0)")
    p.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"of the rough part (default {STEPS})")
    p.add_argument("--alter", choices=sorted(ALTERATIONS), help="take a safety out of the server first")
    p.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes")
    p.add_argument("--trace", type=int, metavar="SEED", help="print everything that happens in one seed")
    return p


def trace(seed: int, steps: int, alteration: str | None) -> int:
    """Print one seed."""
    lines: list[str] = []
    with altered(alteration):
        try:
            simulate(seed, steps=steps, keep=lines)
        except Exception as error:
            lines.append(f"{type(error).__name__}: {error}")
    print("\n".join(lines))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; returns 0 when no seed broke a rule, 1 when one did, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if options.trace is not None:
        return trace(options.trace, options.steps, options.alter)
    if min(options.seeds, options.jobs, options.steps) < 1:
        parser().error("--seeds, --steps and --jobs must be at least 1")
    work = list(shares(options.first, options.seeds, options.steps, options.alter))
    begun = time.monotonic()
    played: list[Played] = []
    said = 0
    try:
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            for one in pool.imap_unordered(play, work):
                played.append(one)
                for seed, what in one.broken:
                    said += 1
                    if said <= _SAID:
                        say(f"seed {seed}: {what}")
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    seconds = time.monotonic() - begun
    broken = sum(len(one.broken) for one in played)
    steps = sum(one.steps for one in played)
    print(
        f"seeds {sum(one.seeds for one in played)}   steps {steps}   answers {sum(one.answers for one in played)}   "
        f"crashes {sum(one.crashes for one in played)}   uploads finished {sum(one.complete for one in played)}   "
        f"{seconds:.0f} s\n{'NOT REACHED' if broken else 'reached    '}  no rule broken: {broken} seeds did"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
