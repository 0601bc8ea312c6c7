"""The mirror in Redis: what it holds, and that losing it in any way costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.redis import PASSWORD, RedisServer, running_redis
from tests.fixtures.sessions import Events, checkpoint, create, made, session, submit

from hmac_file_server.stores.contract import COMPLETE, EXPIRED, Claim, Finish, Remove, Session, StoreError
from hmac_file_server.stores.redis import RedisMirror
from hmac_file_server.stores.redis_client import PREFIX
from hmac_file_server.stores.sqlite import SqliteStore

OpenMirror = Callable[..., RedisMirror]


@pytest.fixture
def open_mirror(own_redis: RedisServer, database: str, events: Events) -> Iterator[OpenMirror]:
    """Opens mirrors over one database and one Redis, that look at it often."""
    opened: list[RedisMirror] = []

    def open_one(url: str = "") -> RedisMirror:
        store = SqliteStore(database, full=False)
        opened.append(RedisMirror(store, url or own_redis.url, log=events, probe=0.05))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def mirror(open_mirror: OpenMirror) -> RedisMirror:
    return open_mirror()


def documents(server: RedisServer) -> dict[str, Session]:
    """What Redis holds."""
    with server.client() as client:
        names = [key.decode() for key in client.keys(PREFIX + "session:*")]
        values = client.mget(names) if names else []
        found = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return {
        name.removeprefix(PREFIX + "session:"): msgspec.json.decode(value, type=Session)
        for name, value in found.items()
    }


def mirrored(server: RedisServer, store: RedisMirror, *session_ids: str) -> None:
    """Until Redis holds these sessions as the disk does, and no others."""

    def same() -> bool:
        return documents(server) == {session_id: store.get(session_id) for session_id in session_ids}

    wait_until(same, f"Redis holds {session_ids}")


# -- what it holds


def test_every_change_is_mirrored(own_redis: RedisServer, mirror: RedisMirror) -> None:
    made(mirror, create("a", key="k", details=b"\0\xff", ranges=((0, 2),)))
    made(mirror, create("b"))
    mirrored(own_redis, mirror, "a", "b")
    made(mirror, Claim("a", 0))
    made(mirror, checkpoint("a", (4, 6), epoch=1))
    mirrored(own_redis, mirror, "a", "b")
    assert documents(own_redis)["a"].ranges == ((0, 2), (4, 6))
    made(mirror, Finish("a", 1, COMPLETE, b"receipt", 9.0))
    made(mirror, Remove("b", 0))
    mirrored(own_redis, mirror, "a")
    assert documents(own_redis)["a"].receipt == b"receipt"


def test_documents_have_an_end(own_redis: RedisServer, database: str, events: Events) -> None:
    mirror = RedisMirror(SqliteStore(database, full=False), own_redis.url, prefix="p:", ttl=1000, log=events)
    made(mirror, create())
    mirror.close()
    with own_redis.client() as client:
        assert client.keys() == [b"p:session:one"]  # no marker is left behind
        assert 990 <= client.ttl("p:session:one") <= 1000


def test_what_was_submitted_is_mirrored_before_it_closes(own_redis: RedisServer, open_mirror: OpenMirror) -> None:
    mirror = open_mirror()
    answers = [submit(mirror, create(f"{number}", limit=1000)) for number in range(300)]
    mirror.close()
    assert all(isinstance(answer.get(), Session) for answer in answers)
    assert len(documents(own_redis)) == 300


def test_refused_changes_are_not_mirrored(own_redis: RedisServer, mirror: RedisMirror) -> None:
    made(mirror, create("a", limit=1))
    assert isinstance(made(mirror, create("b", limit=1)), StoreError)
    assert made(mirror, checkpoint("a", (0, 1), epoch=7)) is False
    assert made(mirror, Claim("c", 0)) is None
    made(mirror, create("d", owner="bob"))
    mirrored(own_redis, mirror, "a", "d")


def test_sessions_from_before_are_mirrored_at_the_start(
    own_redis: RedisServer, database: str, open_mirror: OpenMirror
) -> None:
    store = SqliteStore(database, full=False)
    for answer in [submit(store, create(f"{number}", limit=1000, length=None)) for number in range(500)]:
        answer.get()
    made(store, Finish("7", 0, EXPIRED, b"", 9.0))
    store.close()
    mirror = open_mirror()
    mirrored(own_redis, mirror, *(f"{number}" for number in range(500) if number != 7))


def test_documents_of_a_server_with_another_store_are_left_alone(
    own_redis: RedisServer, open_mirror: OpenMirror, tmp_path: Path
) -> None:
    other = RedisMirror(SqliteStore(str(tmp_path / "other.db"), full=False), own_redis.url)
    made(other, create("theirs"))
    wait_until(lambda: "theirs" in documents(own_redis), "theirs is mirrored")
    ours = open_mirror()
    made(ours, create("ours"))
    wait_until(lambda: set(documents(own_redis)) == {"theirs", "ours"}, "both are there")
    own_redis.flush()
    wait_until(lambda: "ours" in documents(own_redis), "ours is there again")
    made(other, checkpoint("theirs", (0, 1)))
    wait_until(lambda: set(documents(own_redis)) == {"theirs", "ours"}, "both are there again")
    other.close()


# -- D-13: Redis lost, emptied, rolled back, partitioned


def test_d13_redis_missing_at_start(own_redis: RedisServer, open_mirror: OpenMirror, events: Events) -> None:
    own_redis.stop()
    mirror = open_mirror()
    made(mirror, create("a"))
    assert made(mirror, checkpoint("a", (0, 5))) is True
    events.wait("redis_lost")
    own_redis.start()
    events.wait("redis_back")
    mirrored(own_redis, mirror, "a")
    assert events.names == ["redis_lost", "redis_back"]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_d13_redis_dies_in_mid_session(own_redis: RedisServer, mirror: RedisMirror, events: Events, how: str) -> None:
    made(mirror, create("a", key="ka"))
    made(mirror, create("b"))
    mirrored(own_redis, mirror, "a", "b")
    getattr(own_redis, how)()
    assert made(mirror, checkpoint("a", (0, 5))) is True
    assert made(mirror, create("a2", key="ka")) == mirror.get("a")  # no second session for one upload
    assert made(mirror, Remove("b", 0)) is True
    made(mirror, create("c"))
    events.wait("redis_lost")
    assert made(mirror, checkpoint("a", (5, 7))) is True
    own_redis.start()
    events.wait("redis_back")
    mirrored(own_redis, mirror, "a", "c")
    assert documents(own_redis)["a"].ranges == ((0, 7),)
    assert mirror.get("a2") is None
    assert events.names == ["redis_lost", "redis_back"]


def test_d13_redis_emptied_in_mid_session(own_redis: RedisServer, mirror: RedisMirror, events: Events) -> None:
    for name in ("a", "b"):
        made(mirror, create(name, key=name))
    made(mirror, checkpoint("a", (0, 5)))
    mirrored(own_redis, mirror, "a", "b")
    own_redis.flush()
    assert made(mirror, create("a2", key="a")) == session(
        "a", key="a", active=1001.0, deadline=2001.0, ranges=((0, 5),)
    )
    mirrored(own_redis, mirror, "a", "b")
    own_redis.flush()  # and when nothing happens at all
    mirrored(own_redis, mirror, "a", "b")
    assert events.names == []


def test_d13_redis_rolled_back_in_mid_session(own_redis: RedisServer, mirror: RedisMirror) -> None:
    for name in ("a", "b", "c", "ended"):
        made(mirror, create(name, key=name))
    made(mirror, checkpoint("a", (0, 2)))
    mirrored(own_redis, mirror, "a", "b", "c", "ended")
    old = own_redis.keep()
    assert made(mirror, Claim("a", 0)) is not None
    assert made(mirror, checkpoint("a", (2, 9), epoch=1)) is True
    assert made(mirror, Finish("b", 0, COMPLETE, b"receipt", 9.0)) is True
    assert made(mirror, Finish("ended", 0, EXPIRED, b"", 9.0)) is True  # and nobody touches it again
    made(mirror, create("d"))
    mirrored(own_redis, mirror, "a", "b", "c", "d", "ended")
    own_redis.roll_back(old)
    # The truth never went back, and who held the upload before its claim is still fenced.
    assert made(mirror, checkpoint("a", (9, 10), epoch=0)) is False
    found = mirror.get("a")
    assert found is not None
    assert (found.epoch, found.ranges) == (1, ((0, 9),))
    assert made(mirror, Finish("b", 0, EXPIRED, b"", 9.0)) is False
    assert made(mirror, create("b2", key="b")) == mirror.get("b")
    mirrored(own_redis, mirror, "a", "b", "c", "d", "ended")
    assert documents(own_redis)["b"].state == COMPLETE
    assert documents(own_redis)["ended"].state == EXPIRED
    assert documents(own_redis)["a"].epoch == 1


def test_d13_redis_partitioned_delays_nothing(own_redis: RedisServer, open_mirror: OpenMirror, events: Events) -> None:
    mirror = open_mirror()
    made(mirror, create("a", length=10_000))
    mirrored(own_redis, mirror, "a")
    own_redis.freeze()
    for number in range(500):  # more than a second each, did one wait for Redis
        assert made(mirror, checkpoint("a", (2 * number, 2 * number + 1))) is True
    assert "redis_back" not in events.names
    events.wait("redis_lost")
    own_redis.thaw()
    events.wait("redis_back")
    mirrored(own_redis, mirror, "a")
    assert len(documents(own_redis)["a"].ranges) == 500


def test_what_was_removed_while_redis_was_away_is_removed_from_it(
    own_redis: RedisServer, mirror: RedisMirror, events: Events
) -> None:
    made(mirror, create("a"))
    made(mirror, create("b"))
    mirrored(own_redis, mirror, "a", "b")
    own_redis.keep()  # it comes back with what it had
    own_redis.kill()
    assert made(mirror, Remove("b", 0)) is True
    events.wait("redis_lost")
    own_redis.start()
    events.wait("redis_back")
    mirrored(own_redis, mirror, "a")


def test_it_closes_while_redis_hangs(own_redis: RedisServer, open_mirror: OpenMirror, database: str) -> None:
    mirror = open_mirror()
    made(mirror, create("a"))
    mirrored(own_redis, mirror, "a")
    own_redis.freeze()
    answer = submit(mirror, checkpoint("a", (0, 5)))
    mirror.close()
    assert answer.get() is True
    store = SqliteStore(database, full=False)
    found = store.get("a")
    assert found is not None
    assert found.ranges == ((0, 5),)
    store.close()


def test_a_redis_that_refuses_to_write_is_lost_and_comes_back(
    own_redis: RedisServer, mirror: RedisMirror, events: Events
) -> None:
    made(mirror, create("a"))
    mirrored(own_redis, mirror, "a")
    with own_redis.client() as client:
        client.config_set("maxmemory", "1")
        assert made(mirror, checkpoint("a", (0, 5))) is True
        events.wait("redis_lost")
        client.config_set("maxmemory", "0")
    events.wait("redis_back")
    mirrored(own_redis, mirror, "a")


def test_redis_maltreated_while_uploads_go_on(own_redis: RedisServer, mirror: RedisMirror) -> None:
    """Threads checkpoint and repeat their creation; Redis dies, is emptied and rolled back under them."""
    old = own_redis.keep()
    stop = threading.Event()
    faults: list[str] = []
    progress = threading.Semaphore(0)
    last: dict[str, int] = {}

    def upload(name: str) -> None:
        offset = 0
        while not stop.is_set():
            first = made(mirror, create(f"{name}-{offset}", limit=10, key=name, length=10**9))
            if not isinstance(first, Session) or first.id != f"{name}-0":
                faults.append(f"a second session: {first}")
            if made(mirror, checkpoint(f"{name}-0", (offset, offset + 1))) is not True:
                faults.append("refused")
            offset += 1
            last[name] = offset
            found = mirror.get(f"{name}-0")
            if found is None or found.ranges != ((0, offset),):
                faults.append(f"lost: {found}")
            progress.release()

    threads = [threading.Thread(target=upload, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()

    def some_progress() -> None:
        for _ in range(60):
            assert progress.acquire(timeout=60)

    for maltreat in (
        own_redis.flush,
        own_redis.kill,
        own_redis.start,
        lambda: own_redis.roll_back(old),
        own_redis.freeze,
        own_redis.thaw,
        own_redis.stop,
        own_redis.start,
    ):
        some_progress()
        maltreat()
    some_progress()
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert mirror.open_sessions() == 3
    mirrored(own_redis, mirror, "a-0", "b-0", "c-0")
    assert {name: documents(own_redis)[f"{name}-0"].received for name in "abc"} == last


def test_many_changes_without_redis_wait_in_bounded_memory(
    own_redis: RedisServer, mirror: RedisMirror, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    monkeypatch.setattr("hmac_file_server.stores.redis._WAITING", 50)
    own_redis.stop()
    for answer in [submit(mirror, create(f"{number}", limit=500)) for number in range(400)]:
        answer.get()
    assert len(mirror._waiting) <= 50
    own_redis.start()
    events.wait("redis_back")
    mirrored(own_redis, mirror, *(f"{number}" for number in range(400)))


# -- the URL


def test_the_password_is_used_and_never_logged(tmp_path: Path, database: str, events: Events) -> None:
    with running_redis(tmp_path / "locked", password=True) as server:
        mirror = RedisMirror(SqliteStore(database, full=False), server.url, log=events)
        made(mirror, create())
        mirrored(server, mirror, "one")
        server.stop()
        made(mirror, checkpoint("one", (0, 1)))
        events.wait("redis_lost")
        server.start()
        events.wait("redis_back")
        mirror.close()
        wrong = RedisMirror(SqliteStore(database, full=False), server.url.replace("%2Fword", "%2FWORD"), log=events)
        events.wait("redis_lost", 2)
        wrong.close()
    for secret in (PASSWORD, "pass%2Fword", "%2FWORD", "word with"):
        assert secret not in str(events.seen)


@pytest.mark.parametrize("url", ["http://:secret@127.0.0.1/", "redis://:secret@127.0.0.1:port/", "nonsense"])
def test_a_url_that_is_none_is_an_error_without_it(database: str, url: str) -> None:
    store = SqliteStore(database, full=False)
    with pytest.raises(StoreError) as caught:
        RedisMirror(store, url)
    assert "secret" not in str(caught.value)
    assert made(store, create()) == session()  # it is open still
    store.close()


def test_the_answer_never_waits_for_redis(own_redis: RedisServer, mirror: RedisMirror) -> None:
    own_redis.freeze()  # and stays so until the fixture ends it
    answers = [submit(mirror, create(f"{number}", limit=10)) for number in range(10)]
    assert all(isinstance(answer.get(), Session) for answer in answers)
    assert mirror.open_sessions() == 10
    assert len(list(mirror.outstanding())) == 10
    assert mirror.known(["1", "x"]) == {"1"}
    assert len(mirror.due(1e9, 100)) == 10
    assert mirror.by_key("x") is None
