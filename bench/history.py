"""`python -m bench.history`: whether all that many clients were told of few uploads could have happened in some order.

Sixteen clients work on eight uploads at a time, are cut off, leave, take over; in every fifth history the server is
killed and started again. Then an order of all calls is looked for, upload by upload (see `tests.history`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fixtures.server import FileServer
from tests.history.clients import OPERATIONS
from tests.history.linearizability import UndecidedError
from tests.history.rounds import SETTINGS, UnfencedServer, Verdict, rounds

from bench.table import say


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.history`."""
    p = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__.partition("\n")[0])
    p.add_argument("--histories", type=int, default=200, metavar="N", help="how many (default 200)")
    p.add_argument("--first", type=int, default=0, metavar="S", help="the seed of the first (default 0)")
    p.add_argument("--operations", type=int, default=OPERATIONS, metavar="N", help=f"of each (default {OPERATIONS})")
    p.add_argument("--processes", type=int, default=1, metavar="N", help="server processes (default 1)")
    p.add_argument("--unfenced", action="store_true", help="a server on which nobody takes anything over")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the server keeps its files (default bench/results)")
    return p


def play(server: FileServer, seeds: range, operations: int) -> list[Verdict]:
    """Play them all."""
    found: list[Verdict] = []
    for verdict in rounds(server, seeds, operations=operations):
        found.append(verdict)
        for upload in verdict.bad:
            say(f"history {verdict.seed}: no order for upload {upload}")
        if len(found) % 20 == 0:
            say(f"{len(found)} of {len(seeds)}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; returns 0 when every history has an order, 1 when one has none, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if min(options.histories, options.operations, options.processes) < 1:
        parser().error("--histories, --operations and --processes must be at least 1")
    parent: Path = options.work or Path(__file__).parent / "results"
    parent.mkdir(parents=True, exist_ok=True)
    kind = UnfencedServer if options.unfenced else FileServer
    begun = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as work:
            server = kind(Path(work) / "server", {**SETTINGS, "server": {"processes": options.processes}})
            server.start()
            try:
                found = play(server, range(options.first, options.first + options.histories), options.operations)
            finally:
                if server.child is not None:
                    server.child.stop()
    except UndecidedError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    bad = sum(bool(verdict.bad) for verdict in found)
    print(
        f"histories {len(found)}   calls {sum(verdict.calls for verdict in found)}   "
        f"unanswered {sum(verdict.unknown for verdict in found)}   uploads {sum(verdict.uploads for verdict in found)}   "
        f"{time.monotonic() - begun:.0f} s\n{'NOT REACHED' if bad else 'reached    '}  every one has an order: {bad} have none"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
