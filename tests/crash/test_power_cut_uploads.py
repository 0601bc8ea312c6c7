"""G-03 for uploads in chunks: the power goes at random moments under eight uploading clients.

The server keeps its files on a file system of its own, ext4 or xfs, that is shut down in the middle of the work, with
all that was not synced (see `volumes`). `POWER_CUTS=200` cuts more often than the default, `python -m bench.power_cuts`
too.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.altered import AlteredServer
from tests.crash.altered_server import UNSYNCED
from tests.crash.cutting import VOLUME_BYTES, cut, cut_power, hatched, running, settings
from tests.crash.killing import finish
from tests.crash.volumes import EXT4, KINDS, NoVolumeError, Volume, mounted
from tests.fixtures.uploaders import Crew

CUTS = {kind: int(os.environ.get("POWER_CUTS", "25" if kind == EXT4 else "6")) for kind in KINDS}
SEED = os.environ.get("POWER_CUT_SEED", "20261122")
SECONDS_EACH = 6
CONTROL_CUTS = 8


@pytest.fixture(params=KINDS)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    try:
        with mounted(tmp_path / "volume", size=VOLUME_BYTES, kind=request.param) as volume:
            yield volume
    except NoVolumeError as error:
        pytest.skip(str(error))


@pytest.mark.server
@pytest.mark.timeout(60 + SECONDS_EACH * max(CUTS.values()))
def test_g_03_nothing_told_is_lost(volume: Volume, tmp_path: Path) -> None:
    """One file system that lives through all the cuts; every range, session, URL and file that was told is there."""
    cuts = CUTS[volume.kind]
    with hatched(tmp_path / "hatchery", volume) as server:
        crew = Crew(server, seed=f"{SEED} cut")
        cut_power(server, volume, crew, random.Random(SEED), lambda done: done >= cuts)
        finish(crew)
        totals = crew.ledger.totals
        print(f"\nseed {SEED}: {cuts} cuts, {totals}")
        assert totals.completed + totals.given_up == totals.begun
        assert totals.completed > cuts


@pytest.mark.server
@pytest.mark.timeout(60 + SECONDS_EACH * CONTROL_CUTS)
def test_without_the_sync_the_same_cuts_lose_some(volume: Volume, tmp_path: Path) -> None:
    """The negative control: else the test above would prove nothing."""
    server = AlteredServer(tmp_path / "server", settings(volume, 0), UNSYNCED)
    crew = Crew(server, seed=f"{SEED} control")
    chance = random.Random(SEED)
    lost: list[str] = []
    with running(server):
        for _ in range(CONTROL_CUTS):
            cut(server, volume, crew, chance)
            server.start()
            lost += crew.audit()
            if lost:
                break
    print("\n".join(lost))
    assert lost, f"{CONTROL_CUTS} cuts lost nothing although nothing was synced"
