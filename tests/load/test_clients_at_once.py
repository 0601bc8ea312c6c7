"""Shares of `python -m bench.load`: slow clients, pipelines, session floods, races for quotas, and ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fixtures.server import FileServer, StartServer
from tests.load import last_bytes, lifetimes, pipelines, quota_races, session_floods, slow_clients
from tests.load.gauges import MIB
from tests.server.disks import may_mount, tmpfs

ROUNDS = 12


@pytest.mark.parametrize("mode", ["slow-heads", "slow-bodies", "slow-readers", "slow-ranges"])
def test_g_18_slowhttptest(start_server: StartServer, tmp_path: Path, mode: str) -> None:
    """N-18, N-19: whatever is slow, others are served, and what was held is given back."""
    server = start_server({"server": {"processes": 2}})
    seen = slow_clients.attack(server, tmp_path, mode, 300, 2)
    assert seen.rows >= 2
    assert seen.failures == 0
    assert seen.probes >= 2
    assert seen.resident < seen.resident_before + 300 * 64 * 1024
    assert seen.after <= seen.base + 4


def test_n_19_pipelines_that_are_not_read(start_server: StartServer) -> None:
    """S-53: what waits for each of them has a bound, however much it asks for."""
    server = start_server({"server": {"processes": 2}})
    seen = pipelines.flood(server, 60, 30)
    assert seen.asked > 100 * 60
    assert seen.held - seen.before < 60 * pipelines.EACH
    assert seen.after <= seen.base + 2


def test_s_51_sessions_without_number(start_server: StartServer) -> None:
    """Nothing for who may not, a thousand for who may, and no memory of the others."""
    server = start_server(session_floods.settings(2))
    for warm in ("unsigned", "by ever new owners"):
        session_floods.flood(server, warm, 200)
    unsigned = session_floods.flood(server, "unsigned", 2000)
    assert unsigned.statuses == {403: 2000}
    assert (unsigned.drafts, unsigned.disk // MIB) == (0, 0)
    assert unsigned.memory < 4 * MIB
    one = session_floods.flood(server, "by one owner", 2000)
    assert one.statuses == {201: 1000, 429: 1000}
    assert one.drafts == 1000
    assert one.disk < 32 * MIB
    assert one.memory < 24 * MIB


@pytest.fixture
def racing(tmp_path: Path) -> FileServer:
    return FileServer(tmp_path / "server", quota_races.settings(2))


@pytest.mark.skipif(may_mount(), reason="with a file system of its own space is raced for as well")
def test_g_24_races_for_files_and_sessions(racing: FileServer) -> None:
    racing.start()
    try:
        quota_races.race(racing, ROUNDS, space=False)
        quota_races.crash(racing, space=False)
    finally:
        racing.stop()


@pytest.mark.skipif(not may_mount(), reason="needs a file system of its own")
@pytest.mark.parametrize("processes", [1, 2])
def test_g_24_races_for_files_sessions_and_space(tmp_path: Path, processes: int) -> None:
    """S-11, S-46: never one too many, never one too few, and the same after SIGKILL."""
    with tmpfs(tmp_path / "disk", size="256m") as disk:
        server = FileServer(disk / "server", quota_races.settings(processes))
        server.start()
        try:
            tally = quota_races.race(server, ROUNDS, space=True)
            assert tally.runners == 4 * ROUNDS * quota_races.RUNNERS
            quota_races.crash(server, space=True)
        finally:
            server.stop()


def test_n_38_gone_between_the_last_byte_and_the_answer(start_server: StartServer) -> None:
    """By three protocols: the same files in the end, once, and nothing left over."""
    seen = last_bytes.cut(start_server({}), 150)
    assert (seen.published, seen.spooled) == (150, 0)


def test_g_27_sigterm_under_load(tmp_path: Path) -> None:
    """What goes on is finished, what does not is cut, and the end is an orderly one."""
    seen = lifetimes.drain(tmp_path, 200, 2)
    assert seen.code == 0
    assert seen.finished
    # Eight seconds to finish and one and a half to read that it was cut; the rest is a busy machine's.
    assert seen.seconds < 30
