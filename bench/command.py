"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from bench import footprint, machine, profiling, report, results
from bench.client import Client
from bench.errors import BenchError
from bench.peers import external
from bench.peers.aiohttp_peer import Aiohttp
from bench.peers.contract import Peer, Placement
from bench.peers.nginx import Nginx
from bench.peers.ours import VARIANTS
from bench.results import Run
from bench.rows import GIB, ROWS, Row, disk_needed
from bench.table import Plan, Table, require_distinct, running, say

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "bench" / "results"
PAGE = PROJECT / "docs" / "performance.md"

EPILOG = """\
commands:
  run       measure and write bench/results/<time>-<mode>.json (the default)
  report    write the measured part of docs/performance.md from the newest results, or from the FILEs named;
            of several files of one mode, a row of a later file replaces that of an earlier one
  list      print the rows and servers
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench`."""
    p = argparse.ArgumentParser(
        prog="python -m bench", description="hmac-file-server beside nginx and aiohttp, in one run on the same cores.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("command", nargs="?", choices=("run", "report", "list"), default="run")
    p.add_argument("files", nargs="*", type=Path, metavar="FILE", help="results for `report`")
    p.add_argument("--rows", metavar="ROW,...", help="only these rows (see `list`)")
    p.add_argument("--servers", metavar="NAME,...", help="only these servers (see `list`)")
    p.add_argument("--rounds", type=int, default=5, help="rounds that count; one more is thrown away (default 5)")
    p.add_argument("--quick", action="store_true", help="one round that counts, 2 GiB touched: to see that all works")
    p.add_argument("--unpinned", action="store_true", help="all cores for everybody, two server processes")
    p.add_argument("--long", action="store_true", help="also let 10 GiB in and out and watch the memory")
    p.add_argument("--no-footprint", action="store_true", help="leave out start-up time and memory at rest")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=URL[,secret=S][,pid=N][,files=DIR]",
                   help="also measure a server that already runs; repeatable")  # fmt: skip
    p.add_argument(
        "--perf", action="store_true", help="also record the last round with perf and print the busiest functions"
    )
    p.add_argument(
        "--touch", type=int, default=6, metavar="GIB", help="memory touched before each large run (default 6)"
    )
    p.add_argument(
        "--work", type=Path, metavar="DIR", help="where the servers keep their files (default bench/results)"
    )
    return p


def _usage(message: str) -> NoReturn:
    parser().error(message)


def chosen_rows(text: str | None) -> list[Row]:
    """Return the rows named in `text`, in the order of the table; raises BenchError for an unknown one."""
    if text is None:
        return list(ROWS.values())
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise BenchError(f"unknown row {unknown[0]}; there are {', '.join(ROWS)}")
    return [row for key, row in ROWS.items() if key in names]


def chosen_peers(text: str | None, others: Sequence[str]) -> list[Peer]:
    """Return the servers named in `text` and those of `--peer`; raises BenchError for an unknown one."""
    known: dict[str, Peer] = {"nginx": Nginx(), "aiohttp": Aiohttp(), **VARIANTS}
    names = list(known) if text is None else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise BenchError(f"unknown server {unknown[0]}; there are {', '.join(known)}")
    peers = [peer for name, peer in known.items() if name in names]
    peers += [external.parse(other) for other in others]
    require_distinct([peer.name for peer in peers])
    return peers


def taking_part(row: Row, names: Sequence[str]) -> list[str]:
    """Return who is measured in a row: everybody else's server, and ours where the settings matter."""
    return [name for name in names if name not in VARIANTS or name in row.variants]


def versions() -> dict[str, str]:
    """Return the versions of what is measured and of what it runs on."""
    found = {"CPython": platform.python_version()}
    for package in ("hmac-file-server", "uvloop", "httptools", "aiohttp"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is not None:
        shown = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False).stderr
        found["nginx"] = shown.strip().rpartition("/")[2].partition(" ")[0]
    return found


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for the servers' files; it goes at the end, also after Ctrl-C or SIGTERM."""
    parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(options: argparse.Namespace) -> int:
    """Run the chosen rows; returns 1 when a server dropped out of one."""
    rows, peers = chosen_rows(options.rows), chosen_peers(options.servers, options.peer)
    rounds = 1 if options.quick else options.rounds
    if rounds < 1:
        _usage("--rounds must be at least 1")
    cores = sorted(os.sched_getaffinity(0))
    everywhere = frozenset(cores)
    mode = "unpinned" if options.unpinned else "pinned"
    if len(cores) < 2:
        raise BenchError("one core for server and client tells nothing about either: two are needed")
    width = 2 if options.unpinned else 1
    server_cores = everywhere if options.unpinned else frozenset(cores[:1])
    client_cores = everywhere if options.unpinned else frozenset(cores[1:2])
    touch = (min(options.touch, 2) if options.quick else options.touch) * GIB
    if options.perf:
        profiling.require()
        RESULTS.mkdir(parents=True, exist_ok=True)
    plan = Plan(rounds, server_cores, client_cores, width, touch, RESULTS if options.perf else None)
    names = [peer.name for peer in peers]
    parent = options.work or RESULTS
    with work_folder(parent) as work:
        machine.require_disk(work, disk_needed(rows, {row.key: taking_part(row, names) for row in rows}, rounds + 1))
        client = Client.build(work, client_cores)
        now = dt.datetime.now(dt.UTC)
        run = Run(
            mode, now.isoformat(timespec="seconds"), machine.describe(work), versions(),
            {"rounds": str(rounds), "touch_gib": str(plan.touch // GIB), "rows": options.rows or "all", "perf": "recorded" if options.perf else "no"},
        )  # fmt: skip
        alone = [row for row in rows if not row.beside]
        beside = [row for row in rows if row.beside]
        try:
            if alone:
                _run_rows(
                    run, Table(client, work, plan), alone, peers, work / "rows", Placement(server_cores, width), options
                )
            if beside:
                # Two loads at once need both cores on both sides; nginx then gets the second worker such a machine has.
                table = Table(client.on(everywhere), work, plan)
                _run_rows(
                    run, table, beside, peers, work / "beside", Placement(everywhere, 1), options, nginx_workers=2
                )
            if not options.no_footprint and any(name in VARIANTS for name in names):
                run.facts.update(footprint.measure(client, work, everywhere, rounds, long=options.long))
        finally:
            if run.samples or run.facts:
                target = RESULTS / f"{now.strftime('%Y%m%dT%H%M%SZ')}-{mode}.json"
                RESULTS.mkdir(parents=True, exist_ok=True)
                target.write_text(run.to_json(), encoding="utf-8")
                print(report.terminal(run))
                print(f"\nwritten: {target.relative_to(PROJECT)}")
    return 1 if run.failures else 0


def _run_rows(
    run: Run, table: Table, rows: list[Row], peers: Sequence[Peer], work: Path, placement: Placement, options: argparse.Namespace,
    *, nginx_workers: int | None = None,
) -> None:  # fmt: skip
    strict = options.servers is not None or bool(options.peer)
    wanted = {name for row in rows for name in taking_part(row, [peer.name for peer in peers])}
    with contextlib.ExitStack() as stack:
        servers = []
        for peer in peers:
            if peer.name not in wanted:
                continue
            wide = nginx_workers if nginx_workers and peer.name == "nginx" else placement.processes
            servers += stack.enter_context(running([peer], work, Placement(placement.cores, wide), strict=strict))
        if not servers:
            raise BenchError("no server could be started")
        run.settings.update({server.name: dict(server.settings) for server in servers})
        for row in rows:
            names = taking_part(row, [server.name for server in servers])
            run.add(table.run(row, [server for server in servers if server.name in names]))
            for name in names if options.perf else ():
                recording = RESULTS / f"perf-{row.key}-{name}.data"
                if recording.exists():
                    say(
                        f"\n{row.title}, {name} (whole recording: bench/results/{recording.name})\n{profiling.flat(recording)}"
                    )


def write_report(files: Sequence[Path]) -> int:
    """Put the figures into docs/performance.md."""
    by_mode: dict[str, list[Run]] = {}
    for file in files or results.newest(RESULTS):
        try:
            run = results.parse(file.read_text(encoding="utf-8"), file.name)
        except OSError as error:
            raise BenchError(f"{file}: {error.strerror}") from error
        by_mode.setdefault(run.mode, []).append(run)
    merged = [results.merge(by_mode[mode]) for mode in sorted(by_mode)]
    PAGE.write_text(
        report.replace_measured(PAGE.read_text(encoding="utf-8"), report.markdown(merged)), encoding="utf-8"
    )
    print(f"written: {PAGE.relative_to(PROJECT)}")
    return 0


def show_list() -> int:
    """Print rows and servers."""
    for key, row in ROWS.items():
        print(f"{key:<18} {row.title}  [{', '.join(row.variants)}]")
    print(f"\nservers: nginx, aiohttp, {', '.join(VARIANTS)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed with one line on stderr, 2 usage, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "report":
            return write_report(options.files)
        if options.command == "list":
            return show_list()
        return measure(options)
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
