"""Faults of networks, clients and the server itself, against the real server process (N-01 to N-40)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.server import FileServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts the server."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


@pytest.fixture(params=[1, 2], ids=["one-process", "two-processes"])
def chunk_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileServer]:
    """A server with chunks of 1 MiB. With two processes, most connections meet the process that has not the upload."""
    server = FileServer(
        tmp_path / "chunk-server", {"server": {"processes": request.param}, "uploads": {"chunk_size": "1MB"}}
    )
    server.start()
    yield server
    server.stop()
