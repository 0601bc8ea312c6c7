"""Runs of the installed command `upload`, as its users start it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer, environment

PATIENCE = 60.0


def command() -> list[str]:
    """The installed program; the module where there is none."""
    installed = Path(sys.executable).with_name("hmac-file-server")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "hmac_file_server"]


def variables(state: Path, **more: str) -> dict[str, str]:
    """Nothing of ours but what is given, and state of the test's own."""
    kept = {name: value for name, value in environment().items() if not name.startswith("HMAC_FILE_SERVER_")}
    return {**kept, "XDG_STATE_HOME": str(state), **more}


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended."""

    code: int
    out: str
    err: str

    @property
    def urls(self) -> list[str]:
        return self.out.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What `--json` wrote."""
        return [json.loads(line) for line in self.out.splitlines()]

    def event(self, name: str) -> dict[str, Any]:
        """The only event of this name."""
        (found,) = [event for event in self.events if event["event"] == name]
        return found


class Running:
    """A run that is under way; its output is gathered as it comes."""

    def __init__(self, *arguments: str, state: Path, folder: Path, **more: str) -> None:
        self.process = subprocess.Popen(
            [*command(), "upload", *arguments], cwd=folder, env=variables(state, **more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._threads = [
            threading.Thread(target=self._gather, args=("out", self.process.stdout)),
            threading.Thread(target=self._gather, args=("err", self.process.stderr)),
        ]
        for thread in self._threads:
            thread.start()

    def _gather(self, name: str, stream: Any) -> None:
        with stream:
            for line in stream:
                self._lines[name].append(line)

    def events(self) -> list[dict[str, Any]]:
        """The events of `--json` so far."""
        return [json.loads(line) for line in list(self._lines["out"]) if line.endswith("\n")]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> Ended:
        """Its end."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return Ended(code, "".join(self._lines["out"]), "".join(self._lines["err"]))

    def kill(self) -> Ended:
        """SIGKILL, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        return self.wait()


class CalmRelay(Relay):
    """A relay whose clients may have been killed a moment ago: what is closed already needs no reset."""

    def _reset(self) -> None:
        self._writers = {writer for writer in self._writers if not writer.is_closing()}
        super()._reset()


@contextlib.contextmanager
def running(*arguments: str, state: Path, folder: Path, **more: str) -> Iterator[Running]:
    """A run that is killed at the end of the block if nobody waited for it."""
    run = Running(*arguments, state=state, folder=folder, **more)
    try:
        yield run
    finally:
        run.kill()


def upload(*arguments: str, state: Path, folder: Path, **more: str) -> Ended:
    """A run to its end. It never shows a traceback."""
    with running(*arguments, state=state, folder=folder, **more) as run:
        ended = run.wait()
    assert "Traceback" not in ended.err, ended.err
    return ended


def fetched(server: FileServer, url: str) -> bytes:
    """What the server serves at a URL, whatever host the client knew it by."""
    path = "/" + url.split("/", 3)[3]
    answer = server.request("GET", path)
    assert answer.status == 200, (url, answer.body)
    return answer.body
