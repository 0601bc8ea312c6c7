"""`python -m bench.fuzz`: mutated requests of every route and protocol to the real server, and what came of them.

First those of somebody who has no key, then those of somebody who has one. Nothing may be stored that was not signed for,
nothing outside the storage folder may change, and no request may be answered as a fault of the server's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fixtures import slots
from tests.fixtures.server import FileServer
from tests.http.fuzzing import Crowd
from tests.http.mutations import Generator

from bench.errors import BenchError, MismatchError
from bench.table import say

EXISTING = "existing/file.txt"
CONTENT = b"abcdefghijklmnopqrstuvwxyz"
CLIENTS = 2
_SERVER_CHOSEN = re.compile(r"[0-9a-f]{32}/[^/]+")
_SLICE = 5000
SETTINGS: dict[str, dict[str, object]] = {
    "uploads": {"durability": "relaxed", "max_sessions_per_owner": 1_000_000},
    "server": {"max_upload_size": "1MB"},
    "timeouts": {"header_timeout": "5s", "stall_timeout": "5s"},
    "logging": {"level": "warn"},
}


def crowd(port: int, seed: str, number: int, requests: int, *, foreign: bool) -> tuple[Counter[int], set[str]]:
    """What one client process was answered, and the paths that it signed. Raises FuzzError."""
    generator = Generator(f"{seed} {number} {foreign}", EXISTING, foreign=foreign, folder=f"fuzz{number}")
    clients = Crowd(port, generator)
    try:
        while clients.answered < requests:
            clients.run(min(_SLICE, requests - clients.answered))
    finally:
        clients.close()
    return clients.counted, generator.signed


def around(server: FileServer) -> dict[str, tuple[int, int]]:
    """Size and time of everything beside the storage folder; the log is left out."""
    found = {}
    for folder, _, names in os.walk(server.folder):
        if Path(folder).is_relative_to(server.storage):
            continue
        for name in names:
            path = Path(folder) / name
            if path != server.log:
                found[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def judge(server: FileServer, before: dict[str, tuple[int, int]], signed: set[str], *, chosen: bool) -> int:
    """How many files are published. Raises MismatchError when one is there that nobody signed for."""
    if around(server) != before:
        raise MismatchError("something outside the storage folder has changed")
    published = server.files()
    strange = {name for name in published if not (chosen and _SERVER_CHOSEN.fullmatch(name))} - signed - {EXISTING}
    if strange:
        raise MismatchError(f"{len(strange)} files that nobody signed for, such as {sorted(strange)[:5]}")
    if (server.storage / EXISTING).read_bytes() != CONTENT:
        raise MismatchError("the file that was there has changed")
    for line in server.log_text().splitlines():
        if " ERROR " in line or "Traceback" in line:
            raise MismatchError(f"the server's log has: {line}")
    return len(published)


def measure(work: Path, *, requests: int, processes: int, seed: str) -> str:
    """Send and judge; what was done, in a line. Raises MismatchError for what is not as it must be."""
    settings = {**SETTINGS, "server": {**SETTINGS["server"], "processes": processes}}
    server = FileServer(work / "server", settings)
    server.start()
    counted: Counter[int] = Counter()
    try:
        target = slots.target(EXISTING, slots.v1(EXISTING, len(CONTENT)))
        if server.request("PUT", target, CONTENT).status != 201:
            raise BenchError("the server does not take a file")
        before = around(server)
        began = time.monotonic()
        shares = ((True, requests // 4), (False, requests - requests // 4))
        files = 0
        with ProcessPoolExecutor(CLIENTS, mp_context=multiprocessing.get_context("spawn")) as pool:
            for foreign, share in shares:
                running = [
                    pool.submit(crowd, server.port, seed, number, share // CLIENTS, foreign=foreign)
                    for number in range(CLIENTS)
                ]
                signed: set[str] = set()
                for future in running:
                    told, paths = future.result()
                    counted += told
                    signed |= paths
                files = judge(server, before, signed, chosen=not foreign)
                if foreign and files != 1:
                    raise MismatchError("somebody without the key has stored a file")
                who = "without" if foreign else "with"
                say(
                    f"{share} requests of somebody {who} the key in {time.monotonic() - began:.0f} s, {files} files stored"
                )
        seconds = time.monotonic() - began
        if server.request("GET", "/health").status != 200:
            raise MismatchError("the server is not well")
    except AssertionError as failure:
        raise MismatchError(f"seed {seed}: {failure}") from failure
    finally:
        server.stop()
    answers = sum(count for status, count in counted.items() if status >= 200)
    faults = {status: counted[status] for status in sorted(counted) if status >= 500}
    classes = Counter(f"{status // 100}xx" for status in counted.elements())
    return (
        f"{answers} requests from seed {seed} in {seconds:.0f} s ({answers / seconds:.0f}/s): "
        f"{', '.join(f'{count} {name}' for name, count in sorted(classes.items()))} "
        f"(of those {', '.join(f'{count} times {status}' for status, count in faults.items())}); {files} files stored, each signed for; "
        "no fault, no traceback, nothing outside the folder"
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.fuzz`."""
    p = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__.partition("\n")[0])
    p.add_argument("--requests", type=int, default=1_000_000, metavar="N", help="how many (default 1000000)")
    p.add_argument("--processes", type=int, default=2, metavar="N", help="server processes (default 2)")
    p.add_argument("--seed", default="fuzz", help="the requests follow from it")
    p.add_argument("--work", type=Path, metavar="DIR", help="where the server keeps its files (default bench/results)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Send, judge and print; returns 0 when all is as it must be, 1 otherwise, 130 when interrupted."""
    options = parser().parse_args(arguments)
    if options.requests < 100 or options.processes < 1:
        parser().error("at least a hundred requests and one process")
    parent: Path = options.work or Path(__file__).parent / "results"
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as work:
            print(measure(Path(work), requests=options.requests, processes=options.processes, seed=options.seed))
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
