"""Servers that start within a few dozen milliseconds: forked from a process that has imported everything.

`python -m tests.crash.hatchery` reads a line of JSON for each server to be started from its standard input and
answers with one; servers end with it. `Hatchery` is the test's end of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn, Self

from tests.crash import alterations
from tests.crash.syscalls import Watch
from tests.fixtures.child import Child, wait_until
from tests.fixtures.server import FileServer, Settings, environment

import hmac_file_server
from hmac_file_server.cli import main

_ROOT: Final = Path(__file__).parent.parent.parent
_PDEATHSIG: Final = 1
_DEADLINE: Final = 30.0


class Hatchery:
    """The process, and its servers by their pids."""

    def __init__(self, folder: Path) -> None:
        """Start it; what it says itself goes to a file in `folder`."""
        self.watch = Watch(folder)
        """Over the calls of its servers; of one at a time, if it is to tell anything."""
        env = {**environment(), **self.watch.environment}
        env["PYTHONPATH"] = os.pathsep.join([str(_ROOT), env["PYTHONPATH"]])
        with (folder / "hatchery.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.crash.hatchery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, question: Mapping[str, object]) -> int:
        """A question, and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the hatchery has ended with {self._process.wait(20)}"
        return int(answer)

    def start(self, config: Path, log: Path, alteration: str) -> int:
        """Start a server; its pid."""
        return self.ask({"start": str(config), "log": str(log), "alteration": alteration})

    def code(self, pid: int) -> int:
        """The exit code of a server that has ended, or ends now; negative: the signal."""
        return self.ask({"wait": pid})


class _Hatched(Child):
    """A server as a child of the hatchery's."""

    def __init__(self, hatchery: Hatchery, pid: int, log: Path) -> None:
        self.name = "hmac-file-server"
        self.log = log
        self._hatchery = hatchery
        self._pid = pid
        self._ended = os.pidfd_open(pid)
        self._code: int | None = None

    @property
    def pid(self) -> int:
        return self._pid

    def ended(self, seconds: float = 0) -> bool:
        """Whether it has ended; waits for it for a while."""
        if self._code is None and select.select([self._ended], [], [], seconds)[0]:
            os.close(self._ended)
            self._code = self._hatchery.code(self._pid)
        return self._code is not None

    def wait(self, seconds: float = 20) -> int:
        """Its exit code, once it has ended."""
        assert self.ended(seconds), f"{self.name} has not ended within {seconds:g} s"
        assert self._code is not None
        return self._code

    def kill(self) -> int:
        """SIGKILL, unless it has ended; its exit code."""
        if not self.ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        return self.wait()

    def stop(self, *, seconds: float = 20.0) -> int:
        if not self.ended():
            os.kill(self._pid, signal.SIGTERM)
            if not self.ended(seconds):
                return self.kill()
        return self.wait()


class HatchedServer(FileServer):
    """A server in one process, which may be altered (see `alterations`)."""

    def __init__(self, folder: Path, settings: Settings, hatchery: Hatchery, *, alteration: str = "") -> None:
        super().__init__(folder, settings)
        self.alteration = alteration
        self._hatchery = hatchery
        self._hatched: _Hatched | None = None

    @property
    def storage(self) -> Path:
        """Where its files are: as set, or in its folder."""
        assert self.settings is not None
        return Path(str(self.settings.get("server", {}).get("storage_path", self.folder / "files")))

    def start(self, *, await_ready: bool = True) -> None:
        """Start it and, unless told otherwise, wait until it is ready or has ended."""
        self.launch()
        if await_ready:
            deadline = time.monotonic() + _DEADLINE
            while not self._ready():
                assert not self.ended(), f"ended with {self.exit_code()} at start:\n{self.log_text()[-4000:]}"
                assert time.monotonic() < deadline, f"not ready:\n{self.log_text()[-4000:]}"
                time.sleep(0.002)

    def launch(self) -> None:
        """Start it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            assert self.settings is not None
            self.write_config(self.settings)
        pid = self._hatchery.start(self.config, self.log, self.alteration)
        self.child = self._hatched = _Hatched(self._hatchery, pid, self.log)

    def came_up(self) -> bool:
        """Wait until it is ready or has ended; whether it is ready."""
        wait_until(lambda: self._ready() or self.ended(), "the server is ready or has ended", seconds=_DEADLINE)
        return not self.ended()

    def ended(self, seconds: float = 0) -> bool:
        """Whether it has ended by itself."""
        assert self._hatched is not None
        return self._hatched.ended(seconds)

    def exit_code(self) -> int:
        """Its exit code, once it has ended."""
        assert self._hatched is not None
        return self._hatched.wait()

    def kill(self, *, judge: bool = True) -> None:
        """SIGKILL, if it is there; `judge`: there must be no traceback in its log."""
        if self._hatched is not None:
            self._hatched.kill()
        self.child = self._hatched = None
        assert not judge or "Traceback" not in self.log_text(), self.log_text()[-8000:]


# ---- the process


def _serve() -> None:
    for module in pkgutil.walk_packages(hmac_file_server.__path__, "hmac_file_server."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                _become(question)
        print(answer, flush=True)


def _become(question: Mapping[str, str]) -> NoReturn:
    """Be a server until its end."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.close(null)
    os.close(log)
    os.chdir(Path(question["start"]).parent)
    code = 1
    try:
        alterations.alter(question["alteration"])
        code = main(["serve", "--config", question["start"]])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
