"""Expiry: what goes, when, why, and what never does."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.files.stores import FailingDisk, ManualClock, get, opened, put, tree

from hmac_file_server.files.contract import Deletion, Metadata, Outcome
from hmac_file_server.files.paths import PRIVATE, parse

DAY = 86400.0


class Journal:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_file_goes_when_its_own_time_is_over(tmp_path: Path, clock: ManualClock, durability: str) -> None:
    journal = Journal()
    with opened(tmp_path, clock=clock, durability=durability, log=journal) as store:
        put(store, "a/b/short", b"12345", Metadata(expires=clock.time() + 10))
        put(store, "a/long", b"1", Metadata(expires=clock.time() + 1000))
        put(store, "a/ever", b"1")
        store.metadata.flush()
        clock.advance(9)
        assert store.expire(clock.time()) == []
        clock.advance(1)
        assert store.expire(clock.time()) == [Deletion("a/b/short", 5, "expires")]
        assert journal.events == [("file_expired", {"path": "a/b/short", "size": 5, "reason": "expires"})]
        assert tree(tmp_path) == {"a": None, "a/long": b"1", "a/ever": b"1"}
        assert store.metadata.get("a/b/short") is None
        assert put(store, "a/b/short", b"new").outcome is Outcome.CREATED
        assert store.expire(clock.time()) == []


def test_no_file_outlives_the_time_of_the_server(tmp_path: Path, clock: ManualClock) -> None:
    with opened(tmp_path, clock=clock, file_ttl=DAY) as store:
        put(store, "first", b"1", Metadata(expires=clock.time() + 9 * DAY))
        clock.advance(DAY / 2)
        put(store, "second", b"1")
        clock.advance(DAY / 2 - 1)
        assert store.expire(clock.time()) == []
        clock.advance(1)
        assert store.expire(clock.time()) == [Deletion("first", 1, "file_ttl")]
        clock.advance(DAY / 2)
        assert store.expire(clock.time()) == [Deletion("second", 1, "file_ttl")]


def test_without_a_time_of_the_server_nothing_old_goes(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "old").write_bytes(b"1")
    os.utime(tmp_path / "old", (0, 0))
    with opened(tmp_path, clock=clock) as store:
        put(store, "f", b"1")
        clock.advance(1e9)
        assert store.expire(clock.time()) == []


def test_files_from_before_go_by_their_time_of_change(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "a").mkdir()
    for name, age in (("a/old", 2 * DAY), ("young", DAY / 2), ("a/edge", DAY)):
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, (0, clock.time() - age))
    with opened(tmp_path, clock=clock, file_ttl=DAY) as store:
        assert {d.path for d in store.expire(clock.time())} == {"a/old", "a/edge"}
        assert tree(tmp_path) == {"young": b"1"}


def test_a_twin_without_a_row_is_not_judged_by_the_time_of_its_twin(tmp_path: Path, clock: ManualClock) -> None:
    """A dedup hit links an old inode. Between its link and its row it must not look old."""
    clock.now = os.stat(tmp_path).st_ctime + 120
    with opened(tmp_path, clock=clock, dedup=True, file_ttl=DAY) as store:
        put(store, "first", b"the same")
        os.utime(tmp_path / "first", (0, clock.time() - 9 * DAY))
        put(store, "second", b"the same")
        for name in ("first", "second"):
            row = store.metadata.get(name)
            assert row is not None
            store.metadata.remove([row])
        clock.advance(3600)
        assert store.expire(clock.time()) == []


@pytest.mark.parametrize("seconds", [1, 59])
def test_a_file_published_a_moment_ago_is_not_taken_for_one_from_before(
    tmp_path: Path, clock: ManualClock, seconds: int
) -> None:
    with opened(tmp_path, clock=clock, file_ttl=0.0) as store:
        (tmp_path / "f").write_bytes(b"1")
        os.utime(tmp_path / "f", (0, 0))
        clock.now = (tmp_path / "f").stat().st_ctime + seconds
        assert store.expire(clock.time()) == []


def test_nothing_else_is_ever_touched(tmp_path: Path, clock: ManualClock) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"1")
    (root / "empty").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "filelink").symlink_to(outside / "secret")
    os.mkfifo(root / "pipe")
    (root / "bad\nname").write_bytes(b"1")
    (root / ".HMAC-FILE-SERVER").mkdir()
    (root / ".HMAC-FILE-SERVER" / "x").write_bytes(b"1")
    with open(os.fsencode(root) + b"/\xff\xfe", "wb") as file:
        file.write(b"1")
    for folder, _, files in os.walk(tmp_path):
        for name in files:
            os.utime(Path(folder, name), (0, 0), follow_symlinks=False)
    private = None
    with opened(root, clock=clock, file_ttl=1.0) as store:
        private = sorted((root / PRIVATE).rglob("*"))
        before = sorted(os.listdir(root))
        assert store.expire(clock.time()) == []
        assert sorted(os.listdir(root)) == before
        assert sorted((root / PRIVATE).rglob("*")) == private
    assert (outside / "secret").read_bytes() == b"1"


def test_a_row_whose_file_is_gone_goes_without_a_word(tmp_path: Path, clock: ManualClock) -> None:
    journal = Journal()
    with opened(tmp_path, clock=clock, log=journal) as store:
        put(store, "f", b"1", Metadata(expires=clock.time() + 1))
        (tmp_path / "f").unlink()
        clock.advance(2)
        assert store.expire(clock.time()) == []
        assert store.metadata.get("f") is None
        assert journal.events == []


def test_a_file_replaced_by_hand_does_not_pay_for_the_old_row(tmp_path: Path, clock: ManualClock) -> None:
    with opened(tmp_path, clock=clock) as store:
        put(store, "f", b"1", Metadata(expires=clock.time() + 1))
        (tmp_path / "f").write_bytes(b"something else")
        clock.advance(2)
        assert store.expire(clock.time()) == []
        assert get(store, "f") == b"something else"


def test_a_reader_of_an_expired_file_finishes(tmp_path: Path, clock: ManualClock) -> None:
    with opened(tmp_path, clock=clock) as store:
        put(store, "f", b"hello", Metadata(expires=clock.time()))
        reader = store.open(parse("f"))
        assert reader is not None
        assert len(store.expire(clock.time())) == 1
        assert reader.read(0, 5) == b"hello"
        reader.close()


def test_more_files_than_one_round_of_the_lock(tmp_path: Path, clock: ManualClock) -> None:
    with opened(tmp_path, clock=clock, durability="relaxed") as store:
        for i in range(300):
            put(store, f"{i % 5}/{i}", b"1", Metadata(expires=clock.time()))
        store.metadata.flush()
        assert len(store.expire(clock.time())) == 300
        assert tree(tmp_path) == {}
        assert store.metadata.select("1") == []


def test_one_that_cannot_be_removed_does_not_keep_the_others(tmp_path: Path, clock: ManualClock) -> None:
    journal = Journal()
    disk = FailingDisk(frozenset({"unlink"}))
    with opened(tmp_path, clock=clock, disk=disk, log=journal) as store:
        for i in range(130):
            put(store, f"{i}", b"1", Metadata(expires=clock.time()))
        disk.number = disk.count
        gone = store.expire(clock.time())
        assert 0 < len(gone) < 130
        assert [fields["code"] for fields in journal.named("expiry_failed")] == ["storage_failed"]
        assert len(gone) + len(store.expire(clock.time())) == 130


class TestClocksThatJump:
    """D-14: a wall clock set wrong must not cost every file its life."""

    def test_a_jump_forward_holds_expiry_for_an_hour(self, tmp_path: Path, clock: ManualClock) -> None:
        journal = Journal()
        with opened(tmp_path, clock=clock, file_ttl=DAY, log=journal) as store:
            put(store, "f", b"1")
            assert store.expire(clock.time()) == []
            clock.advance(60)
            clock.now += 10 * DAY
            assert store.expire(clock.time()) == []
            assert [fields["reason"] for fields in journal.named("expiry_held")] == ["clock_jump"]
            clock.advance(60)
            assert store.expire(clock.time()) == [], "still held"
            clock.now -= 10 * DAY
            clock.advance(3600)
            assert store.expire(clock.time()) == [], "set right again: nothing is due"
            assert get(store, "f") == b"1"

    def test_a_clock_that_stays_is_believed(self, tmp_path: Path, clock: ManualClock) -> None:
        with opened(tmp_path, clock=clock, file_ttl=DAY) as store:
            put(store, "f", b"1")
            store.expire(clock.time())
            clock.now += 10 * DAY
            assert store.expire(clock.time()) == []
            clock.advance(3601)
            assert len(store.expire(clock.time())) == 1

    def test_a_jump_back_removes_nothing(self, tmp_path: Path, clock: ManualClock) -> None:
        with opened(tmp_path, clock=clock, file_ttl=DAY) as store:
            put(store, "f", b"1")
            clock.now -= 10 * DAY
            assert store.expire(clock.time()) == []


def test_expiry_against_publishing_and_reading(memory_path: Path) -> None:
    """Two sweepers, two publishers of the same paths, a reader: nobody fails, no answer was false."""
    with opened(memory_path, durability="relaxed", dedup=True) as one, opened(memory_path, durability="relaxed") as two:
        stop = threading.Event()
        faults: list[BaseException] = []

        def loop(work: Any) -> threading.Thread:
            def run() -> None:
                try:
                    while not stop.is_set():
                        work()
                except BaseException as error:
                    faults.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        def read() -> None:
            for i in range(5):
                assert get(one, f"race/{i}") in {None, b"%d" % i}

        threads = [
            loop(lambda: one.expire(1_800_000_000.0)),
            loop(lambda: two.expire(1_800_000_000.0)),
            loop(read),
        ]
        try:
            for _ in range(40):
                for store in (one, two):
                    for i in range(5):
                        outcome = put(store, f"race/{i}", b"%d" % i, Metadata(expires=1.0)).outcome
                        assert outcome in {Outcome.CREATED, Outcome.SAME}
                        put(store, f"race/stays{i}", b"x")
                        assert get(store, f"race/stays{i}") == b"x"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert faults == []
