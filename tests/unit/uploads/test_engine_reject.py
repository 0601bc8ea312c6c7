"""An upload that its client spoilt: it ends at once, for good, and the reason is repeated."""

from __future__ import annotations

import pytest
from tests.fixtures.engine_world import World

from hmac_file_server.stores.contract import FAILED, StoreError
from hmac_file_server.uploads import Progress, State, UploadRefused

BODY = bytes(range(64))
TICKET = ("ticket", 1, 4e9)
REASON = UploadRefused("length_conflict", "More came than was announced.")


@pytest.fixture
def world() -> World:
    return World()


def reject(world: World, upload: str) -> object:
    done = world.expect("reject")
    world.engine.reject(upload, REASON, done)
    world.run()
    return done.result


def test_what_is_rejected_has_failed_for_good(world: World) -> None:
    upload = world.create(64, ticket=TICKET).id
    body = world.lease(upload, (0, 64))
    body.write(BODY[:32])
    ended = reject(world, upload)
    assert isinstance(ended, Progress)
    assert ended.state is State.FAILED
    assert ended.receipt is not None
    assert (ended.receipt.code, ended.receipt.detail) == ("length_conflict", "More came than was announced.")
    assert world.tickets == {"ticket": 0}
    assert world.disk.find(upload) is None
    pool = world.processes[0].pool
    assert (pool.bytes, pool.uploads) == (0, 0)
    (session,) = world.sessions.sessions.values()
    assert session.state == FAILED
    with pytest.raises(UploadRefused):
        body.write(BODY[32:])
    again = world.open(upload)
    assert isinstance(again, Progress)
    assert again.receipt == ended.receipt
    world.end()


def test_what_has_ended_already_stays_as_it_is(world: World) -> None:
    upload = world.create(0).id
    ended = reject(world, upload)
    assert isinstance(ended, Progress)
    assert ended.complete
    assert ended.receipt is not None
    assert ended.receipt.code == ""
    world.end()


def test_a_rejection_that_was_not_confirmed_may_be_repeated(world: World) -> None:
    upload = world.create(64).id
    world.fail("commit")
    assert isinstance(reject(world, upload), StoreError)
    ended = reject(world, upload)
    assert isinstance(ended, Progress)
    assert ended.state is State.FAILED
    world.end()


def test_an_upload_that_is_not_there_cannot_be_rejected(world: World) -> None:
    result = reject(world, "1_abc")
    assert isinstance(result, UploadRefused)
    assert result.code == "upload_not_found"
    world.end()
