"""D-15: two servers on one storage: refused when they could not talk to each other, one upload of both when they can."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    TAKEN_OVER,
    Upload,
    arrived,
    code,
    covers,
    drafts,
    kill,
    outcome,
    processes,
    send_if_open,
    start,
)
from tests.fixtures.child import stand_still, wait_until
from tests.fixtures.content import content
from tests.fixtures.redis import RedisServer, running_redis
from tests.fixtures.server import Answer, FileServer, Settings
from tests.fixtures.uploaders import Crew
from tests.server.wire import Wire

pytestmark = pytest.mark.server

HALF = MIB // 2
ROAMING_KILLS = 8

Make = Callable[..., FileServer]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Make]:
    """A maker of servers on one storage; those that run in the end are stopped and judged."""
    made: list[FileServer] = []

    def make(redis: RedisServer | None, *, processes: int = 1, chunk_size: str = "1MB") -> FileServer:
        settings: Settings = {
            "server": {"storage_path": str(tmp_path / "shared" / "files"), "processes": processes},
            "uploads": {"chunk_size": chunk_size},
            "redis": {"enabled": redis is not None, **({} if redis is None else {"url": redis.url})},
        }
        server = FileServer(tmp_path / f"server-{len(made)}", settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture(params=[1, 2], ids=["one-process", "two-processes"])
def pair(request: pytest.FixtureRequest, servers: Make, redis: RedisServer) -> tuple[FileServer, FileServer]:
    """Two servers that share storage and Redis, both running."""
    first, second = (servers(redis, processes=request.param) for _ in range(2))
    first.start()
    second.start()
    return first, second


def at(server: FileServer, upload: Upload) -> Upload:
    """The same upload, asked for at another server."""
    return dataclasses.replace(upload, server=server)


def await_heard(*servers: FileServer) -> None:
    """Until an upload that one server holds can be had from each of the others: they hear each other."""
    for one in servers:
        for other in servers:
            if one is not other:
                upload = start(one, content(2 * MIB, "heard"))
                assert upload.put(0).status == 200
                there = at(other, upload)
                wait_until(lambda there=there: there.put(1).status == 200, "the servers hear each other")  # type: ignore[misc]


def refused(server: FileServer) -> str:
    """Start one that must not start; what it said."""
    with pytest.raises(AssertionError, match="ended with 1 at start"):
        server.start()
    server.child = None
    return server.log_text()


@pytest.mark.parametrize("count", [1, 2])
def test_d_15_a_second_server_does_not_start(servers: Make, redis: RedisServer, count: int) -> None:
    """Neither alone nor with Redis; the first does not notice, and its uploads go on."""
    first = servers(None, processes=count)
    first.start()
    upload = start(first, content(3 * MIB, "d-15 alone"))
    with upload.begin(0, HALF) as wire:
        upload.await_received((0, HALF))
        for second in (servers(None, processes=count), servers(redis, processes=count)):
            log = refused(second)
            assert "another server uses this store" in log
            assert "Traceback" not in log
        wire.send(upload.chunk(0)[HALF:])
        assert wire.answer().status == 200
    upload.finish()
    assert upload.stored() == upload.body


def test_d_15_one_without_redis_does_not_join_those_with_it(servers: Make, redis: RedisServer) -> None:
    first, second, alone = servers(redis), servers(redis), servers(None)
    first.start()
    second.start()
    assert "another server uses this store" in refused(alone)
    first.stop()
    assert "another server uses this store" in refused(alone)
    second.stop()
    alone.start()
    assert alone.request("GET", "/ready").status == 200


def test_d_15_an_upload_goes_on_at_the_other_server(pair: tuple[FileServer, FileServer]) -> None:
    """The first still holds it, with a connection that hangs: its bytes are kept, its connection is ended."""
    first, second = pair
    await_heard(first, second)
    upload = start(first, content(3 * MIB, "d-15"))
    there = at(second, upload)
    assert upload.put(2).status == 200
    with upload.begin(0, HALF) as hanging:
        upload.await_received((0, HALF), (2 * MIB, 3 * MIB))
        assert there.received() == [(0, HALF), (2 * MIB, 3 * MIB)]
        answer = there.put(0, offset=HALF)
        assert (answer.status, answer.json()["received"]) == (200, [[0, MIB], [2 * MIB, 3 * MIB]])
        assert outcome(hanging) in TAKEN_OVER
    # And back.
    answer = upload.put(1)
    assert (answer.status, answer.json()["completed"]) == (200, True)
    assert there.put(1).json() == answer.json()
    assert upload.stored() == upload.body
    assert there.stored() == upload.body
    assert there.status() == upload.status()


def test_d_15_what_lies_in_the_old_socket_comes_along(pair: tuple[FileServer, FileServer]) -> None:
    """Nobody asked the first for its status: bytes that reached its machine are taken before it lets go."""
    first, second = pair
    await_heard(first, second)
    upload = start(first, content(2 * MIB, "d-15 eager"))
    there = at(second, upload)
    with upload.begin(0, HALF) as hanging:
        wait_until(arrived(hanging), "the beginning has arrived")
        with Wire(second) as new:
            there.announce(new, 0, headers={"Expect": "100-continue"})
            assert new.next_answer().status == 100
            assert covers(there.received(), [(0, HALF)])
            # What the old one sends now is too late, and wrong.
            send_if_open(hanging, bytes(HALF))
            new.send(there.chunk(0))
            assert new.answer().status == 200
        assert outcome(hanging) in TAKEN_OVER
    there.finish()
    assert there.stored() == upload.body


def test_d_15_a_status_asked_elsewhere_ends_nobody_and_hears_of_progress(pair: tuple[FileServer, FileServer]) -> None:
    """A long poll at the second server is answered by what the first receives."""
    first, second = pair
    await_heard(first, second)
    upload = start(first, content(2 * MIB, "d-15 poll"))
    there = at(second, upload)
    with upload.begin(1, HALF) as wire, ThreadPoolExecutor(1) as pool:
        upload.await_received((MIB, MIB + HALF))
        assert there.received() == [(MIB, MIB + HALF)]
        polling = pool.submit(there.look, wait=60)
        # The poll may come after the change, so there are changes until it is answered.
        assert upload.put(0).status == 200
        place = HALF
        while not polling.done() and place < MIB - 1:
            wire.send(upload.chunk(1)[place : place + 1])
            place += 1
            upload.received()
        assert covers([(int(a), int(b)) for a, b in polling.result(60).json()["received"]], [(MIB, MIB + HALF)])  # type: ignore[attr-defined]
        wire.send(upload.chunk(1)[place:])
        assert wire.answer().json()["completed"] is True
    assert there.stored() == upload.body


def test_d_15_one_idempotency_key_is_one_upload_at_both(pair: tuple[FileServer, FileServer]) -> None:
    """The answer to the creation is lost, and the client tries the other server."""
    first, second = pair
    body = content(MIB, "d-15 key")
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda number: start(pair[number % 2], body, headers={"Idempotency-Key": "once"}), range(16))
        )
    assert len({upload.id for upload in made}) == 1
    assert at(second, made[0]).put(0).json()["completed"] is True
    assert at(first, made[0]).stored() == body


def busy(answer: Answer) -> bool:
    """Whether the upload is at another server that cannot be asked; that is said as it should be."""
    if answer.status != 503:
        return False
    assert code(answer) == (503, "upload_busy")
    assert int(answer.headers["retry-after"]) > 0
    return True


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_d_15_without_redis_it_waits_for_the_first_to_let_go(
    pair: tuple[FileServer, FileServer], redis: RedisServer, end: str
) -> None:
    """503 and Retry-After as long as the first has it; nothing is lost, and nothing forked, by asking."""
    first, second = pair
    upload = start(first, content(2 * MIB, "d-15 alone"))
    there = at(second, upload)
    with upload.begin(0, HALF) as hanging:
        upload.await_received((0, HALF))
        redis.kill()
        assert busy(there.put(0))
        assert busy(there.put(1))
        assert there.received() == [(0, HALF)]
        assert busy(there.delete())
        hanging.send(upload.chunk(0)[HALF:])
        assert hanging.answer().status == 200
    assert busy(there.put(1))
    if end == "stopped":
        first.stop()
    else:
        kill(first)
        first.child = None
    assert there.received() == [(0, MIB)]
    assert there.put(1).json()["completed"] is True
    assert there.stored() == upload.body
    redis.start()


def test_d_15_redis_comes_back(pair: tuple[FileServer, FileServer], redis: RedisServer) -> None:
    """The first is asked as soon as it can be, and its hanging connection is taken over."""
    first, second = pair
    upload = start(first, content(2 * MIB, "d-15 back"))
    there = at(second, upload)
    with upload.begin(0, HALF) as hanging:
        upload.await_received((0, HALF))
        redis.kill()
        assert busy(there.put(0, offset=HALF))
        redis.start()
        wait_until(lambda: not busy(there.put(0, offset=HALF)), "the servers hear each other again", seconds=40)
        assert outcome(hanging) in TAKEN_OVER
    assert there.received() == [(0, MIB)]
    there.finish()
    assert there.stored() == upload.body


def test_d_15_the_first_stands_still(pair: tuple[FileServer, FileServer]) -> None:
    """It holds the upload and hears nothing. Once it is killed the second goes on from what was told."""
    first, second = pair
    await_heard(first, second)
    upload = start(first, content(2 * MIB, "d-15 still"))
    there = at(second, upload)
    with upload.begin(0, HALF):
        upload.await_received((0, HALF))
        assert first.child is not None
        pids = processes(first)
        for pid in pids:
            stand_still(pid)
        assert busy(there.put(0, offset=HALF))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        first.child.process.wait(20)
        first.child = None
        wait_until(lambda: there.put(0, offset=HALF).status == 200, "the dead hold nothing")
    there.finish()
    assert there.stored() == upload.body
    assert drafts(FileServer(second.folder.parent / "shared")) == []


@pytest.mark.timeout(240)
def test_d_15_clients_roam_while_servers_are_killed(servers: Make, redis: RedisServer) -> None:
    """Each request to any of two servers, one of which is killed now and then: nothing that was told is lost."""
    first, second = servers(redis, processes=2, chunk_size="256KB"), servers(redis, chunk_size="256KB")
    for server in (first, second):
        server.start()
    await_heard(first, second)
    chance = random.Random("roaming")
    crew = Crew(first, second, seed="roaming", clients=4, sizes=(100 * KIB, 2 * MIB))
    for number in range(ROAMING_KILLS):
        with crew.working():
            crew.ledger.wait(crew.ledger.totals.answers + chance.randrange(40))
            time.sleep(chance.random() * 0.03)  # any moment will do, as long as it is another one each time
            victim = (first, second)[number % 2]
            kill(victim)
            # The other one serves alone.
            crew.ledger.wait(crew.ledger.totals.answers + 10)
        victim.start()
        assert crew.audit() == []
    crew.finish()
    assert crew.audit(everything=True) == []
    totals = crew.ledger.totals
    print(f"\n{ROAMING_KILLS} kills, {totals}")
    assert totals.completed + totals.given_up == totals.begun
