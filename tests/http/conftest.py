"""One server for the tests of this folder, judged by its log at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.server import FileServer
from tests.http.cases import PRESENT, PRESENT_BYTES

QUICK = {"uploads": {"durability": "relaxed"}, "logging": {"level": "debug"}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


def judge(server: FileServer) -> None:
    """Nothing that a client sent may have been the server's fault."""
    log = server.log.read_text(encoding="utf-8", errors="replace")
    failures = [line for line in log.splitlines() if " ERROR " in line or "Traceback" in line]
    assert not failures, failures[:5]


def serving(folder: Path, durability: str) -> Iterator[FileServer]:
    # At other levels the log counts requests that were cut instead of telling of each.
    server = FileServer(folder, {"uploads": {"durability": durability}, "logging": {"level": "debug"}})
    server.start()
    try:
        target = slots.target(PRESENT, slots.v1(PRESENT, len(PRESENT_BYTES)))
        assert server.request("PUT", target, PRESENT_BYTES).status == 201
        yield server
        judge(server)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Answers small uploads inline (relaxed durability)."""
    yield from serving(tmp_path_factory.mktemp("quick"), "relaxed")


@pytest.fixture(scope="session")
def durable_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Answers uploads from another thread, after their syncs (full durability)."""
    yield from serving(tmp_path_factory.mktemp("durable"), "full")
