"""Attacks on the real server, by the ids of the list that THREAT_MODEL.md is made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.server import FileServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder may start the server."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


def without_faults(server: FileServer) -> None:
    """Nothing that a client sent may have been the server's fault."""
    failures = [line for line in server.log_text().splitlines() if " ERROR " in line or "Traceback" in line]
    assert not failures, failures[:5]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """One server for the tests of a module, which stores short files without syncs; judged by its log."""
    settings = {"uploads": {"durability": "relaxed", "max_sessions_per_owner": 100_000}}
    server = FileServer(tmp_path_factory.mktemp("security") / "server", settings)
    server.start()
    try:
        yield server
        without_faults(server)
    finally:
        server.stop()
