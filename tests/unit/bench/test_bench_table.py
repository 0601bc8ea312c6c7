"""Whole rows, small ones, against the real nginx and aiohttp."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.client import Client
from bench.errors import BenchError
from bench.peers.aiohttp_peer import Aiohttp
from bench.peers.contract import Placement, Server
from bench.peers.nginx import Nginx
from bench.rows import KIB, MIB, Row
from bench.table import Plan, Table, require_distinct, running

pytestmark = pytest.mark.peer

CORES = frozenset(os.sched_getaffinity(0))
PLAN = Plan(rounds=2, server_cores=CORES, client_cores=CORES, processes=1, touch=MIB)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("table")


@pytest.fixture(scope="module")
def servers(work: Path) -> Iterator[list[Server]]:
    with running([Nginx(), Aiohttp()], work / "servers", Placement(CORES, 1), strict=True) as started:
        yield started
    assert not any(server.alive() for server in started)


@pytest.fixture(scope="module")
def table(work: Path) -> Table:
    return Table(Client.build(work, CORES), work, PLAN)


def names_under(folder: Path) -> list[str]:
    return sorted(name for _, _, names in os.walk(folder) for name in names)


def test_small_uploads_are_timed_checked_and_kept(table: Table, servers: list[Server]) -> None:
    row = Row("small", "small", "put", 4, 120, 10 * KIB, (), per_folder=50)
    result = table.run(row, servers)
    assert result.failures == {}
    for server in servers:
        samples = result.samples[server.name]
        assert [sample.round for sample in samples] == [0, 1, 2]
        assert all(sample.requests == 120 and sample.body_bytes == 120 * 10 * KIB for sample in samples)
        assert all(sample.server_cpu_s is not None and sample.peak_rss_bytes for sample in samples)
        assert server.files is not None
        assert len(names_under(server.files)) >= 360


def test_large_uploads_are_removed_after_each_run(table: Table, servers: list[Server]) -> None:
    row = Row("large", "large", "put", 2, 3, 2 * MIB, ())
    result = table.run(row, servers)
    assert result.failures == {}
    for server in servers:
        assert server.files is not None
        folders = [folder for folder in server.files.iterdir() if folder.name.startswith("large-")]
        assert len(folders) == 3
        assert all(list(folder.iterdir()) == [] for folder in folders)


def test_downloads_fetch_what_was_uploaded_before(table: Table, servers: list[Server]) -> None:
    result = table.run(Row("get", "get", "get", 4, 90, 10 * KIB, (), files=30), servers)
    assert result.failures == {}
    assert all(len(samples) == 3 for samples in result.samples.values())


def test_downloads_beside_an_upload(table: Table, servers: list[Server]) -> None:
    result = table.run(Row("both", "both", "put", 1, 2, 8 * MIB, (), beside_interval_us=100), servers)
    assert result.failures == {}
    assert all(sample.max_us >= sample.p99_us > 0 for samples in result.samples.values() for sample in samples)


def test_a_server_that_refuses_is_out_of_the_row_and_says_why(table: Table, servers: list[Server]) -> None:
    nginx, aiohttp = servers
    aiohttp.secret, right = b"wrong", aiohttp.secret
    try:
        result = table.run(Row("refused", "refused", "put", 1, 5, 100, ()), servers)
    finally:
        aiohttp.secret = right
    assert set(result.failures) == {aiohttp.name}
    assert "status 403" in result.failures[aiohttp.name]
    assert result.samples[aiohttp.name] == []
    assert len(result.samples[nginx.name]) == 3


def test_a_server_whose_files_lie_elsewhere_is_out(table: Table, servers: list[Server], tmp_path: Path) -> None:
    nginx = servers[0]
    nginx.files, right = tmp_path, nginx.files
    try:
        result = table.run(Row("elsewhere", "elsewhere", "put", 1, 5, 100, ()), [nginx])
    finally:
        nginx.files = right
    assert "was not made" in result.failures["nginx"]


def test_two_servers_of_one_name() -> None:
    require_distinct(["a", "b"])
    with pytest.raises(BenchError, match="called a"):
        require_distinct(["a", "b", "a"])
