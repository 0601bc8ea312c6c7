"""Uploads by uploader.js in Node processes of their own."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fixtures.child import wait_until
from tests.fixtures.node import environment, node
from tests.fixtures.server import SECRET, FileServer

HERE = Path(__file__).parent
MODULE = HERE.parent.parent / "src" / "hmac_file_server" / "web" / "uploader.js"

MIB = 1024 * 1024


def signature(path: str = "/upload/chunked") -> str:
    """The path-only X-Signature."""
    return hmac.new(SECRET.encode(), path.encode(), hashlib.sha256).hexdigest()


@dataclass(slots=True)
class Run:
    """One upload by one process."""

    process: subprocess.Popen[str]
    output: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def lines(self) -> list[dict[str, Any]]:
        """What the process has told so far; the line that it is writing is left out."""
        text = self.output.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith("{")]

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Events of these names, in order."""
        return [line for line in self.lines() if line.get("event") in names]

    def wait_for(self, found: Callable[[dict[str, Any]], bool], what: str, *, seconds: float = 30) -> None:
        """Until a line of the output is this."""
        wait_until(
            lambda: any(found(line) for line in self.lines()) or self.process.poll() is not None, what, seconds=seconds
        )
        assert any(found(line) for line in self.lines()), self.output.read_text(encoding="utf-8")[-4000:]

    def wait_for_event(self, name: str, *, seconds: float = 30) -> None:
        self.wait_for(lambda line: line.get("event") == name, name, seconds=seconds)

    def order(self, word: str) -> None:
        """`pause`, `resume`, `abort`, `discard` or `signal`."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def result(self, *, seconds: float = 60) -> dict[str, Any]:
        """The result, once it is done."""
        last = self._end(seconds)
        assert "result" in last, self.output.read_text(encoding="utf-8")[-4000:]
        result = last["result"]
        assert isinstance(result, dict)
        return result

    def memory(self) -> int:
        """Bytes that the process needed, at most."""
        return int(self.lines()[-1]["memory"])

    def failure(self, *, seconds: float = 60) -> dict[str, Any]:
        """The error that ended it."""
        failures = [line["failure"] for line in [self._end(seconds), *self.lines()] if "failure" in line]
        assert failures, self.output.read_text(encoding="utf-8")[-4000:]
        failure = failures[0]
        assert isinstance(failure, dict)
        return failure

    def kill(self) -> None:
        """As a crash would end it."""
        self.process.kill()
        self.process.wait()

    def _end(self, seconds: float) -> dict[str, Any]:
        code = self.process.wait(seconds)
        assert code == 0, self.output.read_text(encoding="utf-8")[-4000:]
        return self.lines()[-1]


@dataclass(slots=True)
class NodeUploader:
    """Runs uploads; `store` is where they remember unfinished ones."""

    folder: Path
    started: list[tuple[Run, Any]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def store(self) -> Path:
        return self.folder / "sessions"

    def start(
        self,
        path: Path,
        url: str,
        options: Mapping[str, object] | None = None,
        *,
        remember: bool = False,
        endpoint: str = "/upload/chunked",
        abortable: bool = False,
        strict: bool = False,
        surroundings: Mapping[str, str] | None = None,
        within: Callable[[list[str]], list[str]] = list,
    ) -> Run:
        """Begin to upload a file to the server at a URL; `within` makes the command one for another network."""
        self.folder.mkdir(exist_ok=True)
        number = next(self.numbers)
        job = self.folder / f"job-{number}.json"
        content = {
            "module": str(MODULE),
            "path": str(path),
            "endpoint": url + endpoint,
            "options": {"signature": signature(endpoint), "retryDelay": {"base": 20, "max": 200}, **(options or {})},
            "abortable": abortable,
            **({"store": str(self.store)} if remember else {}),
            **({"secret": SECRET} if strict else {}),
        }
        job.write_text(json.dumps(content), encoding="utf-8")
        output = self.folder / f"upload-{number}.log"
        stream = output.open("w", encoding="utf-8")
        process = subprocess.Popen(
            within(["setpriv", "--pdeathsig", "TERM", node(), str(HERE / "driver.mjs"), str(job)]),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment(), **(surroundings or {})},
        )
        run = Run(process, output)
        self.started.append((run, stream))
        return run

    def stop(self) -> None:
        """End those that still run."""
        for run, stream in self.started:
            if run.process.poll() is None:
                run.kill()
            if run.process.stdin is not None:
                run.process.stdin.close()
            stream.close()


def stored(server: FileServer, result: Mapping[str, Any]) -> bytes:
    """The content of the file that a result names."""
    path = "/" + str(result["url"]).split("/", 3)[3]
    answered = server.request("GET", path)
    assert answered.status == 200, answered
    return answered.body
