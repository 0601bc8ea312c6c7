"""Rounds of power cuts: the file system below a server is shut down while a crew uploads."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from tests.crash.killing import LossError
from tests.crash.volumes import Volume
from tests.faults.chunks import kill
from tests.fixtures.server import FileServer, Settings
from tests.fixtures.uploaders import Crew

VOLUME_BYTES: Final = 1 << 30
ANSWERS: Final = 80
"""A cut comes after so many answers at most."""
MOMENT_S: Final = 0.03
"""And so much later at most."""

Tell = Callable[[int], None]
"""Called after every round with the number of cuts until then."""


def settings(volume: Volume, number: int) -> Settings:
    """One process or two, with deduplication or without."""
    return {
        "server": {"storage_path": str(volume.mount_point / "store"), "processes": 1 + number % 2},
        "uploads": {"chunk_size": "256KB", "durability": "full"},
        "deduplication": {"enabled": number % 4 < 2},
        "logging": {"level": "warning"},
    }


def cut(server: FileServer, volume: Volume, crew: Crew, chance: random.Random) -> None:
    """Work, cut the power in the middle of it, and have the file system again with what the disk has.

    Nothing counts as told that came after the cut was begun: a sync under way while the file system is shut down
    can return success although its journal commit was dropped; with a real power cut nobody hears of it.
    """
    with crew.working():
        crew.ledger.wait(crew.ledger.totals.answers + chance.randrange(ANSWERS))
        time.sleep(chance.random() * MOMENT_S)  # any moment will do, as long as it is another one each time
        crew.ledger.close()
        volume.cut()
        kill(server)
    volume.replay()
    crew.ledger.open()


def cut_power(server: FileServer, volume: Volume, crew: Crew, cuts: int, chance: random.Random, tell: Tell) -> None:
    """Cut the power below a running server `cuts` times, start it again each time and audit it. Raises LossError."""
    for done in range(1, cuts + 1):
        cut(server, volume, crew, chance)
        server.settings = settings(volume, done)
        server.start()
        lost = crew.audit()
        if lost:
            raise LossError(f"after cut {done}:\n" + "\n".join(lost[:20]))
        crew.prune()
        tell(done)
