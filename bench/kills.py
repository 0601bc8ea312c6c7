"""`python -m bench.kills`: kill the server again and again under eight uploading clients, and look for losses.

The server, or one of its processes, gets SIGKILL at a random moment, is started again, and is asked for all
that any client was ever told: every durable range, session, URL and finished file.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crash.killing import SETTINGS, finish, kill_processes, kill_servers
from tests.fixtures.server import FileServer
from tests.fixtures.uploaders import Crew

from bench.errors import BenchError, MismatchError
from bench.table import say

VICTIMS = ("server", "process")


def measure(work: Path, *, kills: int, victim: str, processes: int, seed: str) -> str:
    """Kill and audit; what was done, in a line. Raises MismatchError for whatever was lost."""
    server = FileServer(work / "server", {**SETTINGS, "server": {"processes": processes}})
    crew = Crew(server, seed=seed)
    began = time.monotonic()
    killed = 0

    def tell(done: int) -> None:
        nonlocal killed
        killed = done
        if done % 50 == 0:
            say(f"{done} of {kills} kills, {crew.ledger.totals}")

    rounds = kill_servers if victim == "server" else kill_processes
    server.start()
    try:
        rounds(server, crew, kills, random.Random(seed), tell)
        finish(crew)
    except AssertionError as failure:
        raise MismatchError(f"seed {seed}, after {killed} kills: {failure}") from failure
    finally:
        if server.child is not None:
            server.stop()
    return f"{killed} kills of a {victim} in {time.monotonic() - began:.0f} s, {crew.ledger.totals}; nothing was lost"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.kills`."""
    p = argparse.ArgumentParser(prog="python -m bench.kills", description=__doc__.partition("\n")[0])
    p.add_argument("--kills", type=int, default=1000, metavar="N", help="how often to kill (default 1000)")
    p.add_argument("--victim", choices=VICTIMS, default="server", help="all of it, or one process (default server)")
    p.add_argument("--processes", type=int, default=2, metavar="N", help="server processes (default 2)")
    p.add_argument("--seed", default="kills", help="what the clients do and when the kills come follows from it")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the server keeps its files (default bench/results)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, audit and print; returns 0 when nothing was lost, 1 otherwise, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if options.kills < 1 or options.processes < 1 or (options.victim == "process" and options.processes < 2):
        parser().error("at least one kill and one process, and two processes for one of them to be killed")
    parent: Path = options.work or Path(__file__).parent / "results"
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as work:
            print(
                measure(
                    Path(work),
                    kills=options.kills,
                    victim=options.victim,
                    processes=options.processes,
                    seed=options.seed,
                )
            )
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
