"""Fixtures that every part of the test suite may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from tests.fixtures.server import FileServer, Settings, StartServer, running

# `make test` tries the same examples every time, so that a change is judged by what it changed; the hunts of
# `make soak` try new ones.
hypothesis.settings.register_profile("same", derandomize=True)
if "HMAC_FILE_SERVER_SOAK" not in os.environ:
    hypothesis.settings.load_profile("same")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """A server of its own for one test, with the defaults of the fixture."""
    yield from running(tmp_path / "server")


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """A factory of servers with other settings; all of them are stopped and judged at the end."""
    started: list[FileServer] = []

    def start(settings: Settings) -> FileServer:
        server = FileServer(tmp_path / f"server-{len(started)}", settings)
        started.append(server)
        server.start()
        return server

    yield start
    failures: list[AssertionError] = []
    for server in started:
        try:
            server.stop()
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """One server for all tests that only add files under paths of their own."""
    yield from running(tmp_path_factory.mktemp("shared-server"))
