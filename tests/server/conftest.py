"""Tests over real sockets against the real server process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.server import FileServer, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts the server."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """One server for the tests of a module, which keep to paths of their own."""
    yield from running(tmp_path_factory.mktemp("module-server"))
