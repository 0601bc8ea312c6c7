"""`python -m bench.switch`: uploads that lose their network every few seconds, by many clients to many servers.

A client with two links, a router with rate, delay and queue, and a server, in network namespaces (needs root). The link
in use dies, nobody is told, and a second later the other one is there with another address. For each client and server:
the time beside the ideal, what was sent twice, the longest stall, whether the content is equal and whether somebody
had to lend a hand. Outcomes are kept in a file: what is there already is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.fixtures import node

from bench import machine
from bench.errors import BenchError, MismatchError
from bench.switching import clients, page, plot, scenario, servers
from bench.switching.clients import Client
from bench.switching.journey import Upload, run
from bench.switching.outcome import DONE, Outcome, Outcomes
from bench.switching.scenario import Scenario
from bench.switching.servers import PROJECT, Kind, TuspyServer, digest_of
from bench.table import say

RESULTS: Final = Path(__file__).parent / "results"
DOCS: Final = PROJECT / "docs"
PAGE: Final = DOCS / "switching.md"
DRAWING: Final = DOCS / "switching.svg"
PIECE: Final = 1 << 20


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m bench.switch`."""
    ideal = Scenario()
    p = argparse.ArgumentParser(prog="python -m bench.switch", description=(__doc__ or "").partition("\n")[0])
    p.add_argument(
        "--client", action="append", default=[], metavar="NAME", help=f"{', '.join(clients.CLIENTS)}; repeatable (all)"
    )
    p.add_argument("--server", action="append", default=[], metavar="NAME[=URL]",
                   help=f"{', '.join(servers.KINDS)}, or any other's URL for uploads by tus; repeatable (all)")  # fmt: skip
    p.add_argument("--size", type=scenario.size, default=ideal.size, help="of the file (100MiB)")
    p.add_argument("--rate", type=scenario.rate, default=ideal.rate, help="of each link, with all heads (20Mbit)")
    p.add_argument("--rtt", type=scenario.seconds, default=ideal.rtt, metavar="TIME", help="there and back (30ms)")
    p.add_argument("--every", type=scenario.seconds, default=ideal.every, metavar="TIME", help="a link dies (5s)")
    p.add_argument(
        "--outage",
        type=scenario.seconds,
        default=ideal.outage,
        metavar="TIME",
        help="until the other one is there (1s)",
    )
    p.add_argument(
        "--patience",
        type=float,
        default=ideal.patience,
        metavar="N",
        help="times the ideal until a client is stopped (3)",
    )
    p.add_argument(
        "--mptcp", action="store_true", help="Multipath TCP on both ends, both links up, one of them lost every time"
    )
    p.add_argument(
        "--json",
        type=Path,
        default=RESULTS / "switch.json",
        metavar="FILE",
        help="keeps the outcomes (bench/results/switch.json)",
    )
    p.add_argument("--again", action="store_true", help="run what is in that file already, too")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw the progress over time as SVG")
    p.add_argument(
        "--write-docs", action="store_true", help="write table and drawing to docs/, of all outcomes in the file"
    )
    p.add_argument(
        "--work", type=Path, default=RESULTS, metavar="DIR", help="where the servers keep their files (bench/results)"
    )
    return p


def wanted(options: argparse.Namespace) -> Scenario:
    """The scenario that was asked for; raises BenchError for one that cannot be."""
    names = [field.name for field in dataclasses.fields(Scenario)]
    try:
        return Scenario(**{name: getattr(options, name) for name in names})
    except ValueError as error:
        raise BenchError(str(error)) from error


def pairs(options: argparse.Namespace, what: Scenario) -> list[tuple[Client, Kind]]:
    """Who uploads to whom; raises BenchError for names that nobody has, and for none at all."""
    found = [
        (client, server)
        for server in servers.chosen(options.server)
        for client in clients.chosen(options.client)
        if client.fits(server) and (client.mptcp or not what.mptcp)
    ]
    if not found:
        raise BenchError("none of these clients has a protocol in common with any of these servers")
    return found


def write_upload(path: Path, size: int) -> Upload:
    """A file of random bytes."""
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            file.write(os.urandom(min(PIECE, size - start)))
    return Upload(path, digest_of(path))


def told(outcome: Outcome, what: Scenario) -> str:
    """One line for whoever waits for the table."""
    columns = dict(zip(page.columns(what), page.cells(outcome, what), strict=True))
    return ", ".join(f"{name} {value}" for name, value in list(columns.items())[2:])


def measure(options: argparse.Namespace, what: Scenario, kept: Outcomes) -> int:
    """Run the pairs, one after the other; returns how many could not be run."""
    failed = 0
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-switch-", dir=options.work) as work:
        upload: Upload | None = None
        for client, server in pairs(options, what):
            name = f"{client.name} to {server.name}"
            if not options.again and kept.get(what, client.name, server.name) is not None:
                say(f"{name}: known")
                continue
            if reason := client.needs() or server.missing():
                say(f"{name}: left out: {reason}")
                failed += 1
                continue
            upload = upload or write_upload(Path(work) / "upload.bin", what.size)
            try:
                outcome = run(client, server, what, upload, Path(work) / "run")
            except BenchError as error:
                say(f"{name}: failed: {error}")
                failed += 1
                continue
            kept.put(outcome)
            say(f"{name}: {told(outcome, what)}")
            if outcome.ended == DONE and outcome.equal is False:
                raise MismatchError(f"{name}: the server has another file than was sent")
    return failed


def lines(outcomes: Sequence[Outcome]) -> list[plot.Line]:
    """What is drawn: every client with our server; with others, those that speak tus only."""
    return [
        plot.Line(
            page.title(one.client).replace("`", "") + ("" if one.server == "ours" else f" to {one.server}"),
            one.progress,
            one.seconds,
            one.ended == DONE,
        )
        for one in page.ordered(outcomes)
        if one.server == "ours" or one.client not in page.OURS
    ]


def versions() -> dict[str, str]:
    """Of what was measured."""
    found = {"hmac-file-server": importlib.metadata.version("hmac-file-server")}
    for name in ("tus-js-client", "@tus/server", "@tus/file-store"):
        file = node.PACKAGES / "node_modules" / name / "package.json"
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))["version"]
    found["tuspy"] = importlib.metadata.version("tuspy")
    for folder in TuspyServer.python.parent.parent.glob("lib/python*/site-packages/tuspyserver-*.dist-info"):
        found["tuspyserver"] = folder.name.removeprefix("tuspyserver-").removesuffix(".dist-info")
    for name, command in (("Node", node.node()), ("curl", "curl"), ("Chromium", "chromium")):
        if version := _version(command):
            found[name] = version
    return found


def _version(command: str) -> str:
    """The number in what a program says of itself; empty when it is not there."""
    if shutil.which(command) is None:
        return ""
    output = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    return next((word.removeprefix("v") for word in output.split() if any(c.isdigit() for c in word)), "")


def write_docs(what: Scenario, kept: Outcomes) -> None:
    """Put the table into docs/switching.md and the drawing beside it."""
    both = [dataclasses.replace(what, mptcp=mptcp) for mptcp in (False, True)]
    parts = [(one, kept.of(one)) for one in both if kept.of(one)]
    if not parts:
        raise BenchError("there are no outcomes of this scenario yet")
    measured = page.markdown(parts, machine.describe(PROJECT), versions())
    PAGE.write_text(page.replace_measured(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
    if outcomes := kept.of(both[0]):
        DRAWING.write_text(plot.draw(both[0], lines(outcomes)), encoding="utf-8")
    print(f"written: {PAGE.relative_to(PROJECT)}, {DRAWING.relative_to(PROJECT)}")


def chosen_outcomes(options: argparse.Namespace, what: Scenario, kept: Outcomes) -> Iterator[Outcome]:
    """Those of the pairs that were asked for."""
    for client, server in pairs(options, what):
        outcome = kept.get(what, client.name, server.name)
        if outcome is not None:
            yield outcome


def work(options: argparse.Namespace) -> int:
    """Measure, print and draw; returns 1 when a run failed or a goal was not reached."""
    what, kept = wanted(options), Outcomes(options.json)
    failed = measure(options, what, kept)
    outcomes = list(chosen_outcomes(options, what, kept))
    if outcomes:
        print(page.terminal(outcomes, what))
    if options.plot:
        options.plot.write_text(plot.draw(what, lines(outcomes)), encoding="utf-8")
    if options.write_docs:
        write_docs(what, kept)
    return 1 if failed or any(goal.met is False for goal in page.goals(outcomes, what)) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 0 when every run was made and every goal reached, 1 when not, 2 for usage, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        return work(options)
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
