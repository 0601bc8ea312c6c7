"""Everything in this folder follows the guide of the original server line by line."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.redis import RedisServer, running_redis
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer
from tests.guide.servers import StartGuideServer, guide_server

StartRelay = Callable[[FileServer, int], Relay]

pytest.register_assert_rewrite("tests.guide.script")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The guide's clients are curl, Node and Chromium."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.peer)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """One server on the guide's configuration for the tests of a module."""
    server = guide_server(tmp_path_factory.mktemp("guide") / "server")
    try:
        server.start()
        yield server
    finally:
        _end(server)


@pytest.fixture
def start_guide_server(tmp_path: Path) -> Iterator[StartGuideServer]:
    """A factory of servers on the guide's configuration that one test may do anything with."""
    numbers = itertools.count()
    with contextlib.ExitStack() as started:

        def start(*overrides: str, **other: str) -> FileServer:
            server = guide_server(tmp_path / f"server-{next(numbers)}", *overrides, **other)
            started.callback(_end, server)
            server.start()
            return server

        yield start


@pytest.fixture
def start_relay() -> Iterator[StartRelay]:
    """A factory of relays in front of a server: `start_relay(server, hold_after)`."""
    with contextlib.ExitStack() as started:

        def start(server: FileServer, hold_after: int) -> Relay:
            relay = Relay(server.port, hold_after)
            started.callback(relay.close)
            return relay

        yield start


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own for one test, that it may stop."""
    with running_redis(tmp_path / "redis") as redis:
        yield redis


def _end(server: FileServer) -> None:
    try:
        server.stop()
    finally:
        shutil.rmtree(server.storage, ignore_errors=True)  # hundreds of megabytes that nobody looks at again
