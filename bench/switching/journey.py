"""One run: a client uploads to a server while its links come and go."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import machine
from bench.errors import BenchError
from bench.switching.clients import Client, Job, surroundings
from bench.switching.outcome import DONE, GAVE_UP, NEVER, Outcome
from bench.switching.road import Road, Traffic, road, stall
from bench.switching.scenario import Scenario
from bench.switching.servers import Kind, empty

LOOK: Final = 0.005
"""Seconds between two looks at the client."""

BEGIN_WITHIN: Final = 60.0
"""Seconds that a client may take to send its first packet; a browser takes some."""

GRAIN: Final = 0.2
"""Seconds between two points of a drawing."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The file, and its SHA-256 in hexadecimal."""

    path: Path
    digest: str


class Running:
    """A client process with its output in files."""

    def __init__(self, client: Client, job: Job, way: Road) -> None:
        """Start it."""
        self._output, self._errors = job.folder / "output", job.folder / "errors"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = way.client.popen(
                client.begin(job),
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=job.folder,
                env={**surroundings(), "HOME": str(job.folder)}, start_new_session=True,
            )  # fmt: skip
        self._lines = self._output.open("rb")
        self._rest = b""
        self._told: dict[str, object] = {}

    def ended(self) -> str | None:
        """How, or None while it runs. A client that says it is done need not have ended its process."""
        code = self._process.poll()
        if self.says("done"):
            return DONE
        if code is None:
            return None
        return DONE if code == 0 else GAVE_UP

    def says(self, word: str) -> bool:
        """Whether a line of its output was JSON with that member."""
        *lines, self._rest = (self._rest + self._lines.read()).split(b"\n")
        for line in lines:
            self._told.update(members(line))
        return word in self._told

    def told(self, word: str) -> str:
        """What it said with that word, if it is a text."""
        value = self._told.get(word)
        return value if isinstance(value, str) else ""

    def stop(self) -> None:
        """Kill it if it runs, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._lines.close()

    def words(self) -> str:
        """The end of what it complained of, in one line."""
        text = self._errors.read_text(errors="replace")
        return " | ".join(line.strip() for line in text.strip().splitlines()[-4:])[-400:]


def members(line: bytes) -> dict[str, object]:
    """What a line of JSON has; nothing for any other line."""
    if not line.startswith(b"{"):
        return {}
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to the road: `at` seconds after the first packet, the link in use dies or the other comes."""

    at: float
    dies: bool


def events(scenario: Scenario) -> Iterator[Event]:
    """All of them, in order, without end."""
    for at in scenario.switches():
        yield Event(at, dies=True)
        yield Event(at + scenario.outage, dies=False)


def run(client: Client, server: Kind, scenario: Scenario, upload: Upload, place: Path) -> Outcome:
    """Run it in a folder that is emptied first; raises BenchError when it could not even begin."""
    folder = empty(place)
    mine, theirs = empty(folder / "client"), empty(folder / "server")
    try:
        with road(scenario) as way, server.running(way.server, way.address, theirs) as site:
            running = Running(client, Job(upload.path, site, mine), way)
            try:
                began = _begun(running, way, client)
                start, work = way.traffic(), machine.busy_seconds()
                ended, seconds, before = _travel(running, way, scenario, began)
                busy = (machine.busy_seconds() - work) / seconds
                traffic, progress = way.traffic().since(start), way.progress()
            finally:
                running.stop()
            equal = site.has(upload.path.stat().st_size, upload.digest, running.told("done")) if ended == DONE else None
    except (AssertionError, OSError) as error:
        raise BenchError(f"{client.name} to {server.name}: {error}") from error
    return Outcome(
        client=client.name,
        server=server.name,
        scenario=scenario.key,
        ended=ended,
        seconds=seconds,
        switches=scenario.switches_within(seconds),
        sent=traffic.sent,
        arrived=traffic.arrived,
        fresh=traffic.fresh,
        connections=traffic.connections,
        joined=traffic.joined,
        reconnects=0 if before is None else traffic.connections - before.connections,
        stall=stall([mark for mark in progress if mark[0] >= began], began, began + seconds),
        equal=equal,
        progress=sparse([(when - began, fresh - start.fresh) for when, fresh in progress if when >= began]),
        busy=busy,
        words="" if ended == DONE else running.words(),
        when=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def sparse(progress: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """As much of it as can be seen in a drawing: a point every GRAIN seconds, and those around pauses."""
    kept: list[tuple[float, int]] = []
    for (when, fresh), (later, _) in itertools.zip_longest(progress, progress[1:], fillvalue=(math.inf, 0)):
        if not kept or when - kept[-1][0] >= GRAIN or later - when >= GRAIN:
            kept.append((round(when, 2), fresh))
    return kept


def _begun(running: Running, way: Road, client: Client) -> float:
    """Wait for the client's first packet, or its word that it begins; when that was."""
    deadline = time.monotonic() + BEGIN_WITHIN
    while not (running.says("begin") if client.announces else way.begun()):
        if running.ended() or time.monotonic() > deadline:
            raise BenchError(f"{client.name} has sent nothing: {running.words()}")
        time.sleep(LOOK)
    return time.monotonic()


def _travel(running: Running, way: Road, scenario: Scenario, began: float) -> tuple[str, float, Traffic | None]:
    """Switch until the client ends; how it did, after how many seconds, and what had gone before the first switch."""
    coming = events(scenario)
    following = next(coming)
    before: Traffic | None = None
    while True:
        ended = running.ended()
        now = time.monotonic()
        if ended is not None:
            return ended, now - began, before
        if now - began > scenario.limit:
            return NEVER, now - began, before
        if now - began >= following.at:
            if following.dies:
                before = before or way.traffic()
                way.lose()
            else:
                way.change()
            following = next(coming)
        time.sleep(max(0.0, min(LOOK, following.at - (time.monotonic() - began))))
