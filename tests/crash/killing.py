"""Rounds of killing: SIGKILL for a server, or for one of its processes, while a crew uploads."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

from tests.faults.chunks import processes
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer, Settings
from tests.fixtures.uploaders import Crew
from tests.server.wire import children

SETTINGS: Final[Settings] = {"uploads": {"chunk_size": "256KB"}, "logging": {"level": "warning"}}
ANSWERS: Final = 60
"""A kill comes after so many answers at most."""
MOMENT_S: Final = 0.03
"""And so much later at most."""
AUDIT_EVERY: Final = 10
"""Kills of single processes between two audits with all clients at rest."""

Tell = Callable[[int], None]
"""Called after every round with the number of kills until then."""


class LossError(AssertionError):
    """Something that was told is not so."""


def kill_servers(server: FileServer, crew: Crew, kills: int, chance: random.Random, tell: Tell) -> None:
    """Kill the whole server `kills` times, start it again each time and audit it. Raises LossError."""
    for done in range(1, kills + 1):
        with crew.working():
            _wait(crew, chance)
            _kill(server, chance)
        server.start()
        _audit(crew, f"kill {done}")
        crew.prune()
        tell(done)


def kill_processes(server: FileServer, crew: Crew, kills: int, chance: random.Random, tell: Tell) -> None:
    """Kill one serving process of several `kills` times; the rest, and the clients, go on. Raises LossError."""
    done = 0
    while done < kills:
        with crew.working():
            for _ in range(min(AUDIT_EVERY, kills - done)):
                _wait(crew, chance)
                serving = children(server.pid)
                victim = chance.choice(sorted(serving))
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda serving=serving, victim=victim: _replaced(server, serving, victim), "a successor")  # type: ignore[misc]
                done += 1
                tell(done)
        _audit(crew, f"kill {done}")
        crew.prune()


def _replaced(server: FileServer, before: list[int], victim: int) -> bool:
    now = children(server.pid)
    return victim not in now and len(now) == len(before)


def finish(crew: Crew) -> None:
    """Bring every upload to its end and look at all of them once more. Raises LossError."""
    crew.finish()
    _audit(crew, "the last kill", everything=True)


def _wait(crew: Crew, chance: random.Random) -> None:
    """Until a moment at which to kill."""
    crew.ledger.wait(crew.ledger.totals.answers + chance.randrange(ANSWERS))
    time.sleep(chance.random() * MOMENT_S)  # any moment will do, as long as it is another one each time


def _kill(server: FileServer, chance: random.Random) -> None:
    """All processes at once, or only the one that was started, whose end is the others'."""
    assert server.child is not None
    pids = processes(server)
    for pid in pids if chance.random() < 0.8 else pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.child.process.wait(20)
    wait_until(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")], "the server is gone")


def _audit(crew: Crew, when: str, *, everything: bool = False) -> None:
    lost = crew.audit(everything=everything)
    if lost:
        raise LossError(f"after {when}:\n" + "\n".join(lost[:20]))
