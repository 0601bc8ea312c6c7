"""G-03 for uploads in chunks: the power goes at random moments under eight uploading clients.

The server keeps its files on an ext4 of its own that is shut down in the middle of the work, with all that was not
synced (see `volumes`). `POWER_CUTS=200` cuts more often than the default.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.altered import AlteredServer
from tests.crash.altered_server import UNSYNCED
from tests.crash.volumes import Volume, obstacle
from tests.faults.chunks import kill
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer, Settings
from tests.fixtures.uploaders import Crew

CUTS = int(os.environ.get("POWER_CUTS", "25"))
SEED = os.environ.get("POWER_CUT_SEED", "20261122")
SECONDS_EACH = 6
ANSWERS = 80
MOMENT_S = 0.03
CONTROL_CUTS = 8


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
    volume = Volume(tmp_path / "volume", size=1 << 30)
    try:
        volume.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop mount here: {error.stderr.decode().strip()}")
    try:
        yield volume
    finally:
        volume.unmount()


def settings(volume: Volume, number: int) -> Settings:
    """One process or two, with deduplication or without."""
    return {
        "server": {"storage_path": str(volume.mount_point / "store"), "processes": 1 + number % 2},
        "uploads": {"chunk_size": "256KB", "durability": "full"},
        "deduplication": {"enabled": number % 4 < 2},
        "logging": {"level": "warning"},
    }


def cut(server: FileServer, volume: Volume, crew: Crew, chance: random.Random) -> None:
    """Work, cut the power in the middle of it, and start again from what the disk has.

    Nothing counts as told that came after the cut was begun: a sync under way while the file system is shut down
    can return success although its journal commit was dropped; with a real power cut nobody hears of it.
    """
    with crew.working():
        crew.ledger.wait(crew.ledger.totals.answers + chance.randrange(ANSWERS))
        time.sleep(chance.random() * MOMENT_S)  # any moment will do, as long as it is another one each time
        crew.ledger.close()
        volume.cut()
        kill(server)

    def unmounted() -> bool:
        try:
            volume.unmount()
        except subprocess.CalledProcessError:
            return False
        return True

    wait_until(unmounted, "nothing uses the volume")
    volume.mount()
    crew.ledger.open()


@pytest.mark.server
@pytest.mark.timeout(60 + SECONDS_EACH * CUTS)
def test_g_03_nothing_told_is_lost(volume: Volume, tmp_path: Path) -> None:
    """One file system that lives through all the cuts; every range, session, URL and file that was told is there."""
    server = FileServer(tmp_path / "server", settings(volume, 0))
    crew = Crew(server, seed=f"{SEED} cut")
    chance = random.Random(SEED)
    server.start()
    try:
        for number in range(1, CUTS + 1):
            cut(server, volume, crew, chance)
            server.settings = settings(volume, number)
            server.start()
            assert crew.audit() == [], f"seed {SEED}, cut {number}"
            crew.prune()
        crew.finish()
        totals = crew.ledger.totals
        print(f"\nseed {SEED}: {CUTS} cuts, {totals}")
        assert crew.audit(everything=True) == []
        assert totals.completed + totals.given_up == totals.begun
        assert totals.completed > CUTS
    finally:
        if server.child is not None:
            server.stop()


@pytest.mark.server
@pytest.mark.timeout(60 + SECONDS_EACH * CONTROL_CUTS)
def test_without_the_sync_the_same_cuts_lose_some(volume: Volume, tmp_path: Path) -> None:
    """The negative control: else the test above would prove nothing."""
    server = AlteredServer(tmp_path / "server", settings(volume, 0), UNSYNCED)
    crew = Crew(server, seed=f"{SEED} control")
    chance = random.Random(SEED)
    server.start()
    lost: list[str] = []
    try:
        for _ in range(CONTROL_CUTS):
            cut(server, volume, crew, chance)
            server.start()
            lost += crew.audit()
            if lost:
                break
    finally:
        if server.child is not None:
            server.stop()
    print("\n".join(lost))
    assert lost, f"{CONTROL_CUTS} cuts lost nothing although nothing was synced"
