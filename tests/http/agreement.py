"""Proxies in front: whatever they make of a request, the server understands what they forward as they do.

`python -m tests.http.agreement` sends every case of the table to the server directly and through nginx and haproxy, with
and without their buffering, and prints what became of each. Between a proxy and the server a tap keeps every byte.
A proxy marks each request that it means to be one with `X-Front`, so a request that the server sees without that mark
would be one that was smuggled through.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.fixtures import slots
from tests.fixtures.child import Child, accepts, free_port, program, wait_until
from tests.fixtures.server import FileServer
from tests.http.cases import CASES, PRESENT, PRESENT_BYTES, Case
from tests.http.haproxy import HAProxy
from tests.http.tap import Message, Passed, Tap, messages
from tests.http.wire import Talk, answers, converse, drain

SETTINGS = {"uploads": {"durability": "relaxed"}, "logging": {"level": "debug", "format": "json"}}
FRAMING = frozenset({400, 408, 411, 414, 417, 431, 501, 505})
"""Statuses of a request whose form is refused, here and at the proxies."""
AMBIGUOUS = ("te_", "cl_", "chunk_", "bare_lf", "cr_without", "line_", "leading_", "head_cut", "half_close", "field_",
             "pipeline_", "host_", "twice_", "expect_", "get_with", "http09", "http2_preface", "target_")  # fmt: skip
"""Names of cases that two readers may understand differently: framing, line ends, fields, hosts and targets."""

_PLAIN = re.compile(rb"[A-Za-z0-9/._-]{1,100}")
_BATCH = 170
_PROBE_PATH = "/ready"
_PROBE = b"GET /ready HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"
"""Sent behind each case, twice: what the case leaves open may swallow one."""


def ambiguous(case: Case) -> bool:
    return case.name.startswith(AMBIGUOUS)


class Front(Protocol):
    """A proxy that listens on the loopback interface."""

    @property
    def port(self) -> int: ...

    def stop(self) -> None: ...


class Nginx:
    """One nginx that forwards over kept connections; see `HAProxy`."""

    def __init__(self, folder: Path, backend: int, *, buffered: bool) -> None:
        self.port = free_port()
        temporary = "\n".join(
            f"{n}_temp_path {folder}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # As root the workers would become www-data, which cannot enter the folder of a root's test.
        config = folder / "nginx.conf"
        config.write_text(
            f"""
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log info;
            events {{ worker_connections 2048; }}
            http {{
                {temporary}
                access_log off;
                client_max_body_size 0; client_body_timeout 1s; client_header_timeout 1s; lingering_timeout 1s;
                keepalive_timeout 1s; large_client_header_buffers 4 32k;
                upstream files {{ server 127.0.0.1:{backend}; keepalive 8; }}
                server {{
                    listen 127.0.0.1:{self.port};
                    location / {{
                        proxy_pass http://files; proxy_http_version 1.1; proxy_set_header Connection "";
                        proxy_set_header Host $http_host; proxy_set_header X-Front $remote_addr;
                        proxy_next_upstream off; proxy_request_buffering {"on" if buffered else "off"};
                    }}
                }}
            }}
            """,
            encoding="utf-8",
        )
        self.child = Child(
            "nginx",
            [program("nginx", "nginx-light"), "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(config)],
            log=folder / "nginx.out",
            env=os.environ,
            cwd=folder,
        )
        self.child.wait_ready(lambda: accepts(self.port))

    def stop(self) -> None:
        self.child.stop()


FRONTS: dict[str, tuple[type[Nginx | HAProxy], bool]] = {
    "nginx": (Nginx, False),
    "nginx-buffered": (Nginx, True),
    "haproxy": (HAProxy, False),
    "haproxy-buffered": (HAProxy, True),
}


@dataclass(slots=True)
class _From(Talk):
    """A connection from an address of its own, by which it is known again behind the proxy."""

    source: str = ""

    def open(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(self.source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.local_port = self.sock.getsockname()[1]


@dataclass(frozen=True, slots=True)
class Logged:
    """A request as the server's log has it; a malformed one has the method "" and the status 0."""

    method: str
    path: str
    status: int
    taken: int


@dataclass(slots=True)
class Outcome:
    """What became of one case on one way."""

    statuses: tuple[int, ...] = ()
    """What the client was told; interim answers left out, 0 for what is no answer of HTTP/1.1."""
    understood: int = 0
    """Requests that reached the server and whose form it took."""


@dataclass(slots=True)
class Run:
    """Every case, sent on one way."""

    name: str
    server: FileServer
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Where the server did not understand what was meant; there must be none."""
    forwarded: int = 0
    refused: int = 0
    """Of the forwarded ones, those whose form the server refused."""


def _source(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


def _log(server: FileServer) -> dict[str, list[Logged]]:
    """What the server understood, by the peer as its log names it.

    Requests are written some time after they were answered, malformed ones at once; yet those end their connection.
    """
    found: dict[str, list[Logged]] = defaultdict(list)
    malformed: Counter[str] = Counter()
    for line in server.log_text().splitlines():
        if not line.startswith("{"):
            continue
        entry = json.loads(line)
        if entry["event"] == "request":
            found[entry["peer"]].append(Logged(entry["method"], entry["path"], entry["status"], entry["bytes_in"]))
        elif entry["event"] == "request_malformed":
            malformed[entry["peer"]] += 1
    for peer, count in malformed.items():
        found[peer] += [Logged("", "", 0, 0)] * count
    return found


def _understood(each: Logged) -> bool:
    """Whether it is a request of a case whose form was taken."""
    return bool(each.method) and each.status not in FRAMING and each.path != _PROBE_PATH


def _settled(server: FileServer, mark: str) -> None:
    """Wait until the log has everything up to now."""
    assert server.request("GET", f"/upload/{mark}").status == 404
    wait_until(lambda: f"/upload/{mark}" in server.log_text(), "the access log is written")


def _told(talk: Talk, case: Case) -> tuple[int, ...]:
    try:
        found = answers(bytes(talk.received), bodiless=case.bodiless)
    except (AssertionError, KeyError):
        return (0,)
    return tuple(answer.status for answer in found if answer.status >= 200)


def _send(port: int) -> list[_From]:
    talks = [_From([case.data + _PROBE * 2], source=_source(number)) for number, case in enumerate(CASES)]
    # Each at once after its connection was made, which a proxy keeps for a second without a request; whatever a case
    # leaves open, the second probe ends.
    for start in range(0, len(talks), _BATCH):
        batch: list[Talk] = list(talks[start : start + _BATCH])
        for talk in batch:
            talk.open(port)
            talk.send(0)
        try:
            drain(batch, 40)
        finally:
            for talk in batch:
                talk.close()
    return talks


def directly(server: FileServer) -> Run:
    """Every case with nothing in between; whoever waits for more is told that nothing more comes."""
    run = Run("direct", server)
    talks = [_From([case.data + _PROBE], half_close=True, source=_source(number)) for number, case in enumerate(CASES)]
    converse(server.port, list(talks), seconds=40)
    _settled(server, "all-sent-directly")
    log = _log(server)
    for talk, case in zip(talks, CASES, strict=True):
        seen = log.get(f"{talk.source}:{talk.local_port}", [])
        run.outcomes[case.name] = Outcome(_told(talk, case), sum(map(_understood, seen)))
    return run


def through(name: str, folder: Path, server: FileServer) -> Run:
    """Every case through a proxy, and what the server made of it."""
    run = Run(name, server)
    kind, buffered = FRONTS[name]
    folder.mkdir()
    tap = Tap(server.port)
    front: Front | None = None
    try:
        front = kind(folder, tap.port, buffered=buffered)
        talks = _send(front.port)
        _settled(server, f"all-sent-through-{name}")
    finally:
        if front is not None:
            front.stop()
        tap.close()
        shutil.rmtree(folder, ignore_errors=True)
    log = _log(server)
    meant: Counter[str] = Counter()
    for passed in tap.passed:
        found, rest = messages(bytes(passed.forwarded))
        seen = log.get(passed.peer, [])
        run.forwarded += len(found)
        for message, each in zip(found, seen, strict=False):
            run.refused += not each.method or each.status in FRAMING
            meant[message.marks[0].decode() if message.marks else ""] += _understood(each)
        run.faults += faults(passed, found, rest, seen)
    for number, (talk, case) in enumerate(zip(talks, CASES, strict=True)):
        run.outcomes[case.name] = Outcome(_told(talk, case), meant[_source(number)])
    return run


def faults(passed: Passed, found: list[Message], rest: bytes, seen: list[Logged]) -> Iterator[str]:
    """Where the server read one connection in another way than the proxy that wrote it."""

    def fault(what: str) -> str:
        return f"{what}: forwarded {bytes(passed.forwarded[-2000:])!r:.1500}, seen {seen[-3:]}"

    sources = {b"127.0.0.1", *(_source(number).encode() for number in range(len(CASES)))}
    for number, message in enumerate(found):
        if len(message.marks) != 1 or message.marks[0] not in sources:
            yield fault(f"request {number} is not one that the proxy meant")
    if len(seen) > len(found) and rest and seen[len(found)].method:
        yield fault("a request was taken that has no canonical reading")
    elif len(seen) > len(found) + bool(rest):
        yield fault(f"{len(seen)} requests were seen of {len(found)} that were meant")
    for message, each in zip(found, seen, strict=False):
        if not each.method:
            continue
        path = message.target.partition(b"?")[0]
        if each.method != message.method:
            yield fault(f"{message.method} was seen as {each.method}")
        elif _PLAIN.fullmatch(path) is not None and path.decode() != each.path:
            yield fault(f"{path!r} was seen as {each.path}")
        elif each.method != "PUT" or each.status != 201:
            continue
        elif not message.complete or each.taken != len(message.body):
            yield fault(f"a body of {len(message.body)} bytes was taken for one of {each.taken}")
    if any(not each.method for each in seen[:-1]):
        yield fault("a connection went on after a malformed request")


def stored_wrongly(run: Run) -> list[str]:
    """Cases whose files are there with other bytes than the case says, or that carry something smuggled."""
    wrong = []
    for case in CASES:
        for path, body in case.stored:
            place = run.server.storage / path
            # A proxy refuses some that we take: then there is no file.
            if place.exists() and place.read_bytes() != body:
                wrong.append(f"{case.name}: other bytes")
        for path in case.absent:
            place = run.server.storage / path
            if not place.exists():
                continue
            # The proxy mended what we do not forgive, or the probe filled a body up: what is there was sent in one
            # piece, or is the data of chunks whose framing we find too long.
            found = place.read_bytes()
            if "smuggled" in path or not (found in case.data + _PROBE * 2 or found == b"x" * len(found)):
                wrong.append(f"{case.name}: {path}")
    return wrong


def verdict(direct: Outcome, front: Outcome) -> str:
    """Whether both took the same, or who took more."""
    if direct.understood == front.understood:
        return "same"
    return "proxy forgives" if front.understood > direct.understood else "proxy refuses"


@contextmanager
def backend(folder: Path) -> Iterator[FileServer]:
    """A server with the file that the table wants to be there."""
    server = FileServer(folder, SETTINGS)
    server.start()
    try:
        target = slots.target(PRESENT, slots.v1(PRESENT, len(PRESENT_BYTES)))
        assert server.request("PUT", target, PRESENT_BYTES).status == 201
        yield server
    finally:
        server.stop()


def _line(case: Case, runs: Sequence[Run]) -> str:
    cells = []
    for run in runs:
        outcome = run.outcomes[case.name]
        told = Counter(outcome.statuses)
        text = ",".join(f"{status}" + (f"x{count}" if count > 2 else "") for status, count in told.items())
        cells.append(f"{text or '-'}/{outcome.understood}")
    return f"{case.name:44.44} " + " ".join(f"{cell:20.20}" for cell in cells)


def report(runs: Sequence[Run], *, every: bool) -> str:
    """The matrix, and below it the sums."""
    direct, *fronts = runs
    lines = [f"{'case: statuses told / requests understood':44} " + " ".join(f"{run.name:20}" for run in runs)]
    for case in CASES:
        outcome = direct.outcomes[case.name]
        if every or any(verdict(outcome, run.outcomes[case.name]) != "same" for run in fronts):
            lines.append(_line(case, runs))
    for run in fronts:
        for title, chosen in (("all", CASES), ("ambiguous", [case for case in CASES if ambiguous(case)])):
            counted = Counter(verdict(direct.outcomes[case.name], run.outcomes[case.name]) for case in chosen)
            lines.append(
                f"{run.name}: {title} {len(chosen)} cases: same {counted['same']}, mended by the proxy "
                f"{counted['proxy forgives']}, refused by the proxy {counted['proxy refuses']}"
            )
        wrong = run.faults + stored_wrongly(run)
        lines.append(
            f"{run.name}: {run.forwarded} requests forwarded, {run.forwarded - run.refused} understood as meant, "
            f"{run.refused} refused, {len(wrong)} understood otherwise"
        )
        lines += wrong[:20]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the matrix; 0 when nothing was understood in another way than a proxy meant it."""
    parser = argparse.ArgumentParser(prog="python -m tests.http.agreement", description=__doc__)
    parser.add_argument("--all", action="store_true", help="cases in which all agree as well")
    parser.add_argument("fronts", nargs="*", default=list(FRONTS), metavar="FRONT", help=f"of {', '.join(FRONTS)}")
    options = parser.parse_args(arguments)
    if not set(options.fronts) <= set(FRONTS):
        parser.error(f"fronts are {', '.join(FRONTS)}")
    runs = []
    with tempfile.TemporaryDirectory(prefix="agreement-") as work:
        with backend(Path(work) / "direct") as server:
            runs.append(directly(server))
        for name in options.fronts:
            with backend(Path(work) / name) as server:
                runs.append(through(name, Path(work) / f"front-{name}", server))
        print(report(runs, every=options.all))
        return int(any(run.faults or stored_wrongly(run) for run in runs[1:]))


if __name__ == "__main__":
    sys.exit(main())
