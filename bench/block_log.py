"""`python -m bench.block_log`: record every write to a server's disk, and cut the power anywhere in the record.

Clients upload in chunks, by tus and by PUT to a server whose disk is recorded. Then the disk of each cut is made: all
that was flushed before it, and of what came later everything, some writes, or some of their sectors. It is mounted and
held against what had been told by then. After some cuts a server is started, and every open upload finished. Needs
root.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crash.altered_server import SHORT_LOG
from tests.crash.block_log import cuts
from tests.crash.replaying import record, replay
from tests.crash.volumes import NoVolumeError

from bench.errors import BenchError, MismatchError
from bench.table import say

EACH = 50
"""Cuts of one recording, at most."""
START_EVERY = 10


def measure(*, number: int, seconds: float, facts: int, seed: str) -> str:
    """Record, cut and audit until there were so many cuts, or for so long; what was done, in a line.

    Raises MismatchError for whatever was lost, BenchError.
    """
    began = time.monotonic()
    recordings = started = told = writes = flushes = done = 0
    while done < number and time.monotonic() - began < seconds:
        share = min(EACH, number - done)
        name = f"{seed}-{recordings}"
        # One process and two; SQLite's log as it is, and one that is soon written over in place.
        processes, alteration = 1 + recordings % 2, SHORT_LOG if recordings % 4 >= 2 else ""
        try:
            with tempfile.TemporaryDirectory(prefix="record-") as work:
                made = record(Path(work), seed=name, facts=facts, alteration=alteration, processes=processes)
                begun = range(0, share, START_EVERY)
                lost = replay(made, cuts(made.begin, made.end, number=share, seed=name), started=begun)
        except NoVolumeError as error:
            raise BenchError(str(error)) from error
        except AssertionError as failure:
            raise MismatchError(f"seed {name}: {failure}") from failure
        if lost:
            raise MismatchError(f"seed {name}, {len(lost)} losses:\n" + "\n".join(lost[:20]))
        recordings += 1
        started += len(begun)
        told += len(made.facts)
        flushes += sum(record.is_flush for record in made.log.records)
        writes += sum(not record.is_flush for record in made.log.records)
        done += share
        say(f"{done} of {number} cuts")
    return (
        f"{done} cuts of {recordings} recordings in {time.monotonic() - began:.0f} s: {writes} writes, {flushes} flushes, "
        f"{told} answers; a server started after {started}; nothing was lost"
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.block_log`."""
    p = argparse.ArgumentParser(prog="python -m bench.block_log", description=__doc__.partition("\n")[0])
    p.add_argument("--cuts", type=int, default=1000, metavar="N", help="how many cuts (default 1000)")
    p.add_argument("--seconds", type=float, default=math.inf, metavar="S", help="or after so long (default: no matter)")
    p.add_argument("--answers", type=int, default=400, metavar="N", help="answers a recording (default 400)")
    p.add_argument("--seed", default="record", help="what the clients do and where the cuts are follows from it")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, cut and print; returns 0 when nothing was lost, 1 otherwise, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if options.cuts < 1 or options.answers < 1:
        parser().error("--cuts and --answers must be at least 1")
    try:
        print(measure(number=options.cuts, seconds=options.seconds, facts=options.answers, seed=options.seed))
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
