"""Side channels: `python -m bench.timing`: what the time of an answer tells (S-07, S-43, G-22).

Whether a content is stored already, how much of a signature is right, and how much of an upload's id: two classes of
requests in random order, and Welch's t of their times, which stays within 4.5 where nothing is told. The same
measurements of a server that does leak (comparisons with an early exit, known contents not synced) must go beyond it:
otherwise they would have found nothing here either. The deterministic share of `make test` is in
tests/security/test_security_timing.py. Wants a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fixtures.server import FileServer
from tests.security import timing
from tests.security.timing import LIMIT, Compared

Measure = Callable[[FileServer], Compared]


def measured(work: Path, leak: str | None, measure: Measure) -> Compared:
    """A measurement of a server of its own."""
    with tempfile.TemporaryDirectory(prefix="timing-", dir=work) as folder:
        server = timing.server_for(Path(folder) / "server", leak)
        server.start()
        try:
            return measure(server)
        finally:
            server.stop()


def plan(pairs: int, comparisons: int) -> list[tuple[str | None, Measure]]:
    """What is measured, of which server."""
    half = comparisons // 2

    def contents(server: FileServer) -> Compared:
        return timing.contents(server, pairs)

    def slots(server: FileServer) -> Compared:
        return timing.signatures(server, half)

    def fields(server: FileServer) -> Compared:
        return timing.signatures(server, half, "X-Signature")

    def identifiers(server: FileServer) -> Compared:
        return timing.identifiers(server, half)

    return [
        (None, contents),
        (None, slots),
        (None, fields),
        (None, identifiers),
        ("dedup", contents),
        ("compare", slots),
        ("compare", fields),
    ]


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.timing`."""
    p = argparse.ArgumentParser(prog="python -m bench.timing", description=__doc__.partition("\n")[0])
    p.add_argument("--pairs", type=int, default=2000, metavar="N", help="contents that are uploaded twice (2000)")
    p.add_argument("--comparisons", type=int, default=20_000, metavar="N", help="wrong signatures and ids (20000)")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the servers keep their files (bench/results)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when nothing leaks and every leak was found."""
    options = parser().parse_args(arguments)
    work: Path = options.work or Path(__file__).parent / "results"
    work.mkdir(parents=True, exist_ok=True)
    failed = 0
    for leak, measure in plan(options.pairs, options.comparisons):
        found = measured(work, leak, measure)
        good = (abs(found.t) > LIMIT) is (leak is not None)
        failed |= not good
        expected = f"|t| < {LIMIT}" if leak is None else f"negative control, |t| > {LIMIT}"
        print(f"{'reached    ' if good else 'NOT REACHED'}  {expected}: {found.line()}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
