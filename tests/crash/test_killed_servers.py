"""N-24, G-01: SIGKILL at random moments under eight uploading clients; nothing that was told is lost.

`KILLS=1000` kills more often than the default, which is meant for every run; `python -m bench.kills` does so too.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from tests.crash.killing import SETTINGS, Tell, finish, kill_processes, kill_servers
from tests.fixtures.server import FileServer
from tests.fixtures.uploaders import Crew, Totals

KILLS = int(os.environ.get("KILLS", "12"))
SEED = os.environ.get("KILL_SEED", "20261122")
SECONDS_EACH = 5


def total(crew: Crew, kills: int) -> Totals:
    """What the crew was told, printed; pytest shows it with -s, and when the test fails."""
    totals = crew.ledger.totals
    print(f"\nseed {SEED}: {kills} kills, {totals}")
    return totals


def ignore(_kills: int) -> None:
    """The test says nothing before its end."""


@pytest.mark.server
@pytest.mark.timeout(60 + SECONDS_EACH * KILLS)
@pytest.mark.parametrize("processes", [1, 2])
def test_n_24_the_server_is_killed(tmp_path: Path, processes: int) -> None:
    server = FileServer(tmp_path / "server", {**SETTINGS, "server": {"processes": processes}})
    crew = Crew(server, seed=f"{SEED} {processes}")
    tell: Tell = ignore
    server.start()
    try:
        kill_servers(server, crew, KILLS, random.Random(SEED), tell)
        finish(crew)
        totals = total(crew, KILLS)
        assert totals.completed + totals.given_up == totals.begun
        assert totals.completed > KILLS
    finally:
        server.stop()


@pytest.mark.server
@pytest.mark.timeout(60 + SECONDS_EACH * KILLS)
def test_n_24_one_process_is_killed(tmp_path: Path) -> None:
    """The uploads that it held go on with its successor, all others as if nothing had happened."""
    server = FileServer(tmp_path / "server", {**SETTINGS, "server": {"processes": 2}})
    crew = Crew(server, seed=f"{SEED} one")
    server.start()
    try:
        kill_processes(server, crew, KILLS, random.Random(SEED), ignore)
        finish(crew)
        totals = total(crew, KILLS)
        assert totals.completed + totals.given_up == totals.begun
        assert totals.completed > KILLS
        assert server.log_text().count("starting it again") == KILLS
    finally:
        server.stop()
