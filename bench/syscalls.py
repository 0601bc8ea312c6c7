"""`python -m bench.syscalls`: crash the server before every single call of an upload into the kernel.

For each protocol a whole upload is traced; then, once for each of its calls, the server is killed before it, or the
power of its disk is cut, it is started again, all that the client was told is asked for, and the upload is brought
to its end. At some points every call of the servers that come next is killed too.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crash.crash_points import CrashRig, Make, crash_at_each
from tests.crash.hatchery import Hatchery
from tests.crash.killing import LossError
from tests.crash.one_upload import PROTOCOLS
from tests.crash.syscalls import Point, points
from tests.crash.volumes import Volume, obstacle

from bench.errors import BenchError, MismatchError
from bench.table import say

_VOLUME: int = 2 << 30


def kills(rig: CrashRig, make: Make, size: int, *, recoveries: int, chance: random.Random, cut: bool) -> str:
    """Crash an upload by one protocol at each of its calls; what was done, in a line. Raises LossError."""
    began = time.monotonic()
    rig.trace(make, size=size)
    wanted = points(rig.trace(make, size=size))
    before = rig.totals.crashes
    missed = crash_at_each(rig, make, wanted, cut=cut, size=size)
    chosen: list[Point] = chance.sample(wanted, min(recoveries, len(wanted)))
    again = sum(rig.crash_again_and_again(make, point, size=size) for point in chosen)
    rig.check()
    word = "power cuts" if cut else "kills"
    more = f", {again} kills of the servers that followed {len(chosen)} of them" if chosen else ""
    return (
        f"{make.protocol}: {rig.totals.crashes - before} {word} at {len(wanted)} calls ({len(missed)} not met){more}; "
        f"{time.monotonic() - began:.0f} s"
    )


def measure(work: Path, *, size: int, recoveries: int, seed: str, cuts: bool) -> list[str]:
    """All of it, one line a protocol and kind of crash. Raises MismatchError for whatever was lost."""
    lines = []
    chance = random.Random(seed)
    with Hatchery(work / "hatchery") as hatchery:
        for cut in (False, True) if cuts else (False,):
            for make in PROTOCOLS:
                folder = work / f"{make.protocol}-{'cut' if cut else 'kill'}"
                volume = Volume(folder / "volume", size=_VOLUME) if cut else None
                try:
                    if volume is not None:
                        volume.mount()
                    with CrashRig(folder, hatchery, volume=volume) as rig:
                        line = kills(rig, make, size, recoveries=0 if cut else recoveries, chance=chance, cut=cut)
                except AssertionError as failure:
                    kind = "a loss" if isinstance(failure, LossError) else "a failure"
                    raise MismatchError(f"seed {seed}, {kind}: {failure}") from failure
                finally:
                    if volume is not None:
                        volume.unmount()
                say(line)
                lines.append(line)
    return lines


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.syscalls`."""
    p = argparse.ArgumentParser(prog="python -m bench.syscalls", description=__doc__.partition("\n")[0])
    p.add_argument("--size", type=int, default=600_000, metavar="BYTES", help="of each upload (default 600000)")
    p.add_argument("--recoveries", type=int, default=4, metavar="N", help="points after which each call is killed too")
    p.add_argument("--seed", default="syscalls", help="which points those are follows from it")
    p.add_argument("--no-cuts", action="store_true", help="kill only; power cuts need root and loop devices")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the server keeps its files (default bench/results)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Crash, audit and print; returns 0 when nothing was lost, 1 otherwise, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if options.size < 1 or options.recoveries < 0:
        parser().error("a size of at least one byte, and no fewer than no recoveries")
    parent: Path = options.work or Path(__file__).parent / "results"
    parent.mkdir(parents=True, exist_ok=True)
    why_not = obstacle()
    if why_not is not None and not options.no_cuts:
        say(f"no power cuts: {why_not}")
    try:
        with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as work:
            cuts = why_not is None and not options.no_cuts
            lines = measure(Path(work), size=options.size, recoveries=options.recoveries, seed=options.seed, cuts=cuts)
            print("\n".join((*lines, "nothing was lost")))
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
