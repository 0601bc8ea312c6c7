"""The stores that the contract is held against: SQLite alone, and with a mirror in a real Redis."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.redis import RedisServer, running_redis
from tests.fixtures.sessions import Events

from hmac_file_server.stores.redis import RedisMirror
from hmac_file_server.stores.sqlite import SqliteStore

AnyStore = SqliteStore | RedisMirror
OpenStore = Callable[[str], AnyStore]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that leave it alone; every store has a prefix of its own."""
    with running_redis(tmp_path_factory.mktemp("shared-redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis to be maltreated."""
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def events() -> Events:
    """A log that can be waited for."""
    return Events()


@pytest.fixture(params=["sqlite", "mirror"])
def open_any(request: pytest.FixtureRequest) -> OpenStore:
    """Opens a store of either kind over a database file; its user closes it."""
    if request.param == "sqlite":
        return lambda file: SqliteStore(file, full=False)
    server: RedisServer = request.getfixturevalue("shared_redis")
    prefix = f"test-{next(_numbers)}:"
    return lambda file: RedisMirror(SqliteStore(file, full=False), server.url, prefix=prefix)


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Where the database goes."""
    return str(tmp_path / "sessions.db")


@pytest.fixture
def any_store(open_any: OpenStore, database: str) -> Iterator[AnyStore]:
    """An empty store of either kind."""
    store = open_any(database)
    yield store
    store.close()
