"""Histories one after the other, against one server that is killed now and then."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fixtures.child import Child
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer, Settings, environment
from tests.history.clients import OPERATIONS, Crew, Upload

_ROOT: Final = Path(__file__).parent.parent.parent
_NEVER: Final = 1 << 62
_KILL_EVERY: Final = 5
SETTINGS: Final[Settings] = {
    "logging": {"level": "warning"},
    "uploads": {"max_sessions_per_owner": 1_000_000},
}


class UnfencedServer(FileServer):
    """See `unfenced_server`."""

    def start(self) -> None:
        """Start and wait for `GET /ready`, as the unaltered one does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        assert self.settings is not None
        self.write_config(self.settings)
        env = environment()
        self.child = Child(
            "unfenced hmac-file-server",
            [sys.executable, "-m", "tests.history.unfenced_server", "serve", "--config", str(self.config)],
            log=self.log,
            env={**env, "PYTHONPATH": os.pathsep.join([str(_ROOT), env["PYTHONPATH"]])},
            cwd=self.folder,
        )
        self.child.wait_ready(self._ready)


@dataclass(frozen=True)
class Verdict:
    """What came of one history: calls, those without an answer, and uploads whose calls have no order."""

    seed: int
    calls: int
    unknown: int
    uploads: int
    bad: tuple[str, ...]


def disturb(server: FileServer, relay: Relay, crew: Crew, seed: int, working: Future[list[Upload]]) -> None:
    """Cut all clients off again and again while they work, and kill the server once in some histories.

    On the thread that began the server: that is its parent, and would take it along.
    """
    chance = random.Random(seed)
    kill = seed % _KILL_EVERY == _KILL_EVERY - 1
    while not wait([working], 0.1 + 0.4 * chance.random()).done:
        if kill:
            kill = False
            assert server.child is not None
            os.kill(server.pid, signal.SIGKILL)
            crew.paused = True
            server.child.process.wait()
            server.start()
            crew.paused = False
        elif chance.random() < 0.5:
            # The server hears nothing of it: their old connections hang there.
            relay.reset_clients()
        else:
            relay.reset()


def rounds(server: FileServer, seeds: range, *, operations: int = OPERATIONS) -> Iterator[Verdict]:
    """Play and judge a history for each seed; the server runs already."""
    with ThreadPoolExecutor(1) as thread:
        for seed in seeds:
            relay = Relay(server.port, _NEVER)
            try:
                crew = Crew(relay.port, seed, operations=operations)
                working = thread.submit(crew.run)
                disturb(server, relay, crew, seed, working)
                uploads = working.result()
            finally:
                relay.close()
            calls = [call for upload in uploads for call in upload.calls]
            bad = tuple(upload.id for upload in uploads if not upload.linearizable())
            unknown = sum(call.returned is None for call in calls)
            yield Verdict(seed, len(calls), unknown, len(uploads), bad)
