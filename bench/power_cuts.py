"""`python -m bench.power_cuts`: cut the power below the server again and again under eight uploading clients.

The server keeps its files on a file system of its own, ext4 or xfs on a loop device, which is shut down at a random
moment with all that was not synced. Then the journal is replayed, the server started again and asked for all that
any client was ever told: every durable range, session, URL and finished file. Needs root.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crash.cutting import VOLUME_BYTES, cut_power, hatched
from tests.crash.killing import finish
from tests.crash.volumes import EXT4, KINDS, NoVolumeError, mounted
from tests.fixtures.uploaders import Crew

from bench.errors import BenchError, MismatchError
from bench.table import say


def measure(work: Path, *, cuts: int, seconds: float, kind: str, seed: str) -> str:
    """Cut and audit until there were so many cuts, or for so long; what was done, in a line.

    Raises MismatchError for whatever was lost, BenchError.
    """
    done = 0
    began = time.monotonic()

    def enough(until: int) -> bool:
        nonlocal done
        done = until
        if done % 50 == 0:
            say(f"{done} of {cuts} cuts, {crew.ledger.totals}")
        return done >= cuts or time.monotonic() - began > seconds

    try:
        with (
            mounted(work / "volume", size=VOLUME_BYTES, kind=kind) as volume,
            hatched(work / "hatchery", volume) as server,
        ):
            crew = Crew(server, seed=seed)
            cut_power(server, volume, crew, random.Random(seed), enough)
            finish(crew)
    except NoVolumeError as error:
        raise BenchError(str(error)) from error
    except AssertionError as failure:
        raise MismatchError(f"seed {seed}, after {done} cuts: {failure}") from failure
    return f"{done} power cuts on {kind} in {time.monotonic() - began:.0f} s, {crew.ledger.totals}; nothing was lost"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.power_cuts`."""
    p = argparse.ArgumentParser(prog="python -m bench.power_cuts", description=__doc__.partition("\n")[0])
    p.add_argument("--cuts", type=int, default=500, metavar="N", help="how often to cut (default 500)")
    p.add_argument("--seconds", type=float, default=math.inf, metavar="S", help="or after so long (default: no matter)")
    p.add_argument("--fs", choices=KINDS, default=EXT4, help=f"the file system (default {EXT4})")
    p.add_argument("--seed", default="cuts", help="what the clients do and when the cuts come follows from it")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the image is kept (default bench/results)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut, audit and print; returns 0 when nothing was lost, 1 otherwise, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if options.cuts < 1:
        parser().error("--cuts must be at least 1")
    parent: Path = options.work or Path(__file__).parent / "results"
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as work:
            print(measure(Path(work), cuts=options.cuts, seconds=options.seconds, kind=options.fs, seed=options.seed))
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
