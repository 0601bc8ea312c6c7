"""tus-js-client in Node."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from tests.fixtures import node
from tests.fixtures.child import Child

HERE = Path(__file__).parent


class Job(msgspec.Struct, frozen=True):
    """What a process is to upload.

    path      the file
    options   of tus-js-client
    input     how the client gets the file: `buffer`, `file` (a stream that tells its length) or `stream`
    stopAt    give up once the server has accepted that many bytes
    terminate and have the server forget it then
    storage   a file for the URLs of unfinished uploads; one that is there is resumed
    """

    path: str
    options: Mapping[str, object]
    input: str = "buffer"
    stopAt: int = 0  # noqa: N815 - a name of JavaScript
    terminate: bool = False
    storage: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request of the client, and the answer to it. Names of fields are in lower case."""

    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Run:
    """One upload."""

    child: Child

    def lines(self) -> list[dict[str, Any]]:
        """What the process has told so far; the line that it is writing is left out."""
        text = self.child.log_text()
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def exchanges(self) -> list[Exchange]:
        """Answered requests, in order."""
        return [Exchange(**line) for line in self.lines() if "status" in line]

    def finish(self) -> str:
        """URL of the upload, once it is done."""
        url = self._end()["done"]
        assert isinstance(url, str)
        return url

    def stopped(self) -> tuple[str, int]:
        """URL of the upload that was given up, and how much of it was accepted."""
        end = self._end()
        return end["stopped"], end["offset"]

    def _end(self) -> dict[str, Any]:
        code = self.child.process.wait(60)
        assert code == 0, self.child.log_text()[-8000:]
        return self.lines()[-1]


@dataclass(slots=True)
class TusJsClient:
    """Runs uploads in Node processes of their own."""

    folder: Path
    started: list[Child] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, job: Job) -> Run:
        """Begin."""
        node.package("tus-js-client")
        number = next(self.numbers)
        self.folder.mkdir(exist_ok=True)
        file = self.folder / f"job-{number}.json"
        file.write_bytes(msgspec.json.encode(job))
        child = Child(
            "tus-js-client",
            [node.node(), str(HERE / "upload.mjs"), str(file)],
            log=self.folder / f"upload-{number}.log",
            env=node.environment(),
            cwd=self.folder,
        )
        self.started.append(child)
        return Run(child)

    def stop(self) -> None:
        """End those that still run."""
        for child in self.started:
            child.stop()
