"""Rounds of power cuts: the file system below a server is shut down while a crew uploads."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.crash.disk_audit import audit_of
from tests.crash.hatchery import HatchedServer, Hatchery
from tests.crash.killing import LossError
from tests.crash.volumes import Volume
from tests.crash.witnesses import Witnesses, resume
from tests.faults.chunks import processes
from tests.fixtures.server import FileServer, Settings
from tests.fixtures.uploaders import Crew

STORE: Final = "store"
VOLUME_BYTES: Final = 1 << 30
ANSWERS: Final = 80
"""A cut comes after so many answers at most."""
MOMENT_S: Final = 0.03
"""And so much later at most."""

Enough = Callable[[int], bool]
"""Asked after every round with the number of cuts until then: whether there are to be no more."""


def settings(volume: Volume, number: int) -> Settings:
    """One process or two, with deduplication or without."""
    return {
        "server": {"storage_path": str(volume.mount_point / STORE), "processes": 1 + number % 2},
        "uploads": {"chunk_size": "256KB", "durability": "full"},
        "deduplication": {"enabled": number % 4 < 2},
        "logging": {"level": "warning"},
    }


def end(server: FileServer) -> None:
    """Kill the server, if it has not ended by itself: one that was just starting does, without its storage."""
    with contextlib.suppress(FileNotFoundError):
        for pid in processes(server):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if isinstance(server, HatchedServer):
        server.kill(judge=False)
    else:
        assert server.child is not None
        server.child.process.wait(20)
        server.child = None


def start(server: FileServer, chosen: Settings) -> None:
    """Start the server, with other settings than before."""
    server.settings = chosen
    server.config.unlink(missing_ok=True)
    server.start()


@contextlib.contextmanager
def running(server: FileServer) -> Iterator[None]:
    """The server is started now and stopped in the end; killed, when something else went wrong before."""
    server.start()
    try:
        yield
    except BaseException:
        if server.child is not None:
            end(server)
        raise
    server.stop()


@contextlib.contextmanager
def hatched(folder: Path, volume: Volume) -> Iterator[FileServer]:
    """A server on a volume that starts as fast as possible; running, as `running` has it."""
    folder.mkdir()
    with Hatchery(folder) as hatchery:
        server = HatchedServer(folder / "server", settings(volume, 0), hatchery)
        with running(server):
            yield server


def cut(server: FileServer, volume: Volume, crew: Crew, chance: random.Random) -> Witnesses:
    """Work, cut the power in the middle of it, and have the file system again with what the disk has.

    Beside the crew, which uploads in chunks, there are witnesses for the other protocols. What they were told before
    the cut has the mark 0.

    Nothing counts as told that came after the cut was begun: a sync under way while the file system is shut down
    can return success although its journal commit was dropped; with a real power cut nobody hears of it.
    """
    ledger = crew.ledger
    witnesses = Witnesses(
        server,
        lambda: int(ledger.shut),
        seed=f"witness-{chance.randrange(10**9)}",
        each=1,
        excused=lambda: ledger.shut,
    )
    with crew.working(), witnesses.working():
        crew.ledger.wait(crew.ledger.totals.answers + chance.randrange(ANSWERS))
        time.sleep(chance.random() * MOMENT_S)  # any moment will do, as long as it is another one each time
        crew.ledger.close()
        volume.cut()
        end(server)
    volume.replay()
    crew.ledger.open()
    assert not witnesses.faults, witnesses.faults
    return witnesses


def cut_power(server: FileServer, volume: Volume, crew: Crew, chance: random.Random, enough: Enough) -> None:
    """Cut the power below a running server until that is enough, start it again each time and audit it.

    Raises LossError.
    """
    for done in itertools.count(1):
        witnesses = cut(server, volume, crew, chance)
        facts = witnesses.facts
        # Now the server has the databases as the cut left them, now all is looked at before it can mend anything.
        lost = audit_of(volume.mount_point / STORE, facts, 0, prefix=witnesses.seed) if done % 2 else []
        start(server, settings(volume, done))
        lost += crew.audit()
        lost += resume(server, [fact for fact in facts if not fact.mark])
        if lost:
            raise LossError(f"after cut {done}:\n" + "\n".join(lost[:20]))
        crew.prune()
        if enough(done):
            return
