"""D-13: Redis emptied, rolled back, killed and frozen under eight uploading clients: the disk knows better."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.crash.killing import SETTINGS
from tests.faults.chunks import covers, kill, start
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.redis import RedisServer, running_redis
from tests.fixtures.server import FileServer
from tests.fixtures.uploaders import Crew

pytestmark = pytest.mark.server

ROUNDS = 8


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def mirrored(tmp_path: Path, redis: RedisServer) -> Iterator[FileServer]:
    """A server of two processes with Redis."""
    server = FileServer(
        tmp_path / "server",
        {**SETTINGS, "server": {"processes": 2}, "redis": {"enabled": True, "url": redis.url}},
    )
    server.start()
    yield server
    server.stop()


def emptied(redis: RedisServer) -> None:
    redis.flush()


def restarted_empty(redis: RedisServer) -> None:
    redis.kill()
    with contextlib.suppress(FileNotFoundError):
        (redis.folder / "dump.rdb").unlink()
    redis.start()


def rolled_back(redis: RedisServer) -> None:
    redis.roll_back(redis.folder / "kept-0.rdb")


def frozen(redis: RedisServer) -> None:
    redis.freeze()
    time.sleep(0.5)  # the length of the standstill is what is tested
    redis.thaw()


LOSSES: tuple[Callable[[RedisServer], None], ...] = (emptied, rolled_back, restarted_empty, frozen)


def test_d_13_the_loss_of_redis_is_no_loss(mirrored: FileServer, redis: RedisServer) -> None:
    """Its state goes in every way while uploads run; every answer fits those before it."""
    chance = random.Random("d-13")
    crew = Crew(mirrored, seed="d-13")
    with crew.working():
        crew.ledger.wait(20)
        redis.keep()
        for number in range(ROUNDS):
            crew.ledger.wait(crew.ledger.totals.answers + chance.randrange(60))
            LOSSES[number % len(LOSSES)](redis)
    assert crew.audit() == []
    redis.kill()
    with crew.working():
        crew.ledger.wait(crew.ledger.totals.answers + 60)
    crew.finish()
    assert crew.audit(everything=True) == []
    totals = crew.ledger.totals
    print(f"\n{totals}")
    assert totals.completed + totals.given_up == totals.begun
    redis.start()


@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: loss.__name__)
def test_d_13_the_server_is_killed_too(
    mirrored: FileServer, redis: RedisServer, loss: Callable[[RedisServer], None]
) -> None:
    """It starts with a Redis that knows nothing, or only what was long ago."""
    crew = Crew(mirrored, seed=f"d-13 {loss.__name__}")
    with crew.working():
        crew.ledger.wait(20)
        redis.keep()
        crew.ledger.wait(crew.ledger.totals.answers + 60)
        kill(mirrored)
    loss(redis)
    mirrored.start()
    assert crew.audit() == []
    crew.finish()
    assert crew.audit(everything=True) == []
    assert crew.ledger.totals.completed > 0


def test_d_13_the_server_starts_without_redis(mirrored: FileServer, redis: RedisServer) -> None:
    """It serves at once; when Redis comes it gets what it needs to know."""
    upload = start(mirrored, content(600_000, "d-13 start"), headers={"Idempotency-Key": "d-13"})
    assert upload.put(1).status == 200
    told = upload.received()
    kill(mirrored)
    redis.kill()
    mirrored.start()
    assert covers(upload.received(), told)
    assert start(mirrored, upload.body, headers={"Idempotency-Key": "d-13"}).id == upload.id
    redis.start()

    def mirrors() -> bool:
        with redis.client() as client:
            return any(upload.id.encode() in key for key in client.keys("*session:*"))

    wait_until(mirrors, "Redis has the session again", seconds=40)
    upload.finish()
    assert upload.stored() == upload.body
