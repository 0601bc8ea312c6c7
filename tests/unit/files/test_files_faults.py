"""Disks that fail: nothing false is ever acknowledged, nothing leaks, and service goes on afterwards."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.files.stores import (
    CHANGING,
    PNG,
    FailingDisk,
    ManualClock,
    WatchedDisk,
    attempt,
    get,
    open_descriptors,
    opened,
    put,
    put_soon,
)

from hmac_file_server.files.contract import (
    Outcome,
    PathRefused,
    Published,
    StorageBusy,
    StorageError,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)
from hmac_file_server.files.disk import storage_error
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import PRIVATE, parse

FAILABLE = CHANGING | {"fstat", "stat", "pread", "statvfs"}


def scenario(store: LocalFileStore, told: dict[str, bytes]) -> None:
    """Every kind of call; what the store acknowledges goes to `told`. Errors of the store are expected."""

    def publish(path: str, body: bytes, *, soon: bool = False) -> None:
        try:
            reservation = store.admit(len(body))
            reservation.release()
            result = put_soon(store, path, body)() if soon else put(store, path, body)
        except (StorageError, PathRefused):
            return
        if result.outcome is not Outcome.CONFLICT:
            told[path] = body

    publish("a/b/one", b"one" * 1000)
    publish("a/two", b"one" * 1000)
    publish("a/b/one", b"one" * 1000)
    publish("three", b"three", soon=True)
    for call in (lambda: store.head(parse("a/two")), lambda: store.compare(parse("three"))):
        try:
            found = call()
            if found is not None and not hasattr(found, "etag"):
                found.close()
        except StorageError:
            pass
    told.pop("a/two", None)
    with contextlib.suppress(StorageError):
        store.delete(parse("a/two"), "asked")
    publish("a/two", b"again", soon=True)
    with contextlib.suppress(StorageError):
        store.expire(1_800_000_000.0)


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_every_single_call_may_fail(memory_path: Path, error: int, durability: str) -> None:
    counting = FailingDisk(FAILABLE)
    with opened(memory_path / "count", disk=counting, durability=durability, dedup=True) as store:
        scenario(store, {})
    assert counting.count > 60
    before = open_descriptors()
    for number in range(counting.count):
        root = memory_path / f"{number}"
        disk = FailingDisk(FAILABLE, number, error)
        told: dict[str, bytes] = {}
        try:
            with opened(root, disk=disk, durability=durability, dedup=True, submit=lambda work: work()) as store:
                scenario(store, told)
                for path, body in told.items():
                    assert get(store, path) == body, (number, path)
        except StorageError:
            pass  # the store did not open, or could not write its rows on closing: it said so
        # The fault is over.
        with opened(root, durability=durability, dedup=True) as store:
            for path, body in told.items():
                assert get(store, path) == body, (number, path)
            for path, body in (("a/b/one", b"one" * 1000), ("three", b"three"), ("new/file", b"new")):
                assert put(store, path, body).outcome is not Outcome.CONFLICT, (number, path)
    gc.collect()
    assert open_descriptors() <= before


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_short_writes_lose_nothing(tmp_path: Path, piece: int) -> None:
    class ShortDisk(WatchedDisk):
        def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            if name == "write":
                return lambda fd, view: os.write(fd, view[:piece])
            return super()._watched(name, real)

    body = os.urandom(9000)
    with opened(tmp_path, disk=ShortDisk(), dedup=True) as store:
        published = put(store, "f", body)
        assert get(store, "f") == body
    with opened(tmp_path / "other", dedup=True) as store:
        twin = put(store, "f", body)
    assert published.entry is not None
    assert twin.entry is not None
    assert published.entry.digest == twin.entry.digest


def test_a_disk_that_takes_no_bytes_is_not_asked_for_ever(tmp_path: Path) -> None:
    class StuckDisk(WatchedDisk):
        def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            return (lambda fd, view: 0) if name == "write" else super()._watched(name, real)

    with opened(tmp_path, disk=StuckDisk()) as store:
        spool = store.spool()
        with pytest.raises(StorageFailed):
            spool.write(b"x")
        spool.discard()


def test_a_full_disk_says_so_and_recovers(tmp_path: Path) -> None:
    disk = FailingDisk(frozenset({"write"}), 1, errno.ENOSPC, times=3)
    with opened(tmp_path, disk=disk) as store:
        spool = store.spool()
        spool.write(b"one")
        with pytest.raises(StorageFull) as full:
            spool.write(b"two")
        assert full.value.code == "storage_full"
        spool.discard()
        for _ in range(2):
            assert isinstance(attempt(lambda: put(store, "f", b"x")), StorageFull)
        assert put(store, "f", b"x").outcome is Outcome.CREATED


class TestFailedSyncs:
    """fsyncgate: after an error the kernel takes the pages for clean, so a second sync would lie."""

    def test_a_failed_data_sync_is_never_tried_again(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fdatasync", "link"}), 0, errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            disk.count = 0
            assert isinstance(attempt(lambda: put(store, "f", b"x")), StorageFailed)
            assert disk.count == 1, "neither a second sync nor a link"
            assert store.head(parse("f")) is None
            assert put(store, "f", b"x").outcome is Outcome.CREATED

    def test_a_failed_directory_sync_is_not_acknowledged(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fsync"}))
        events: list[str] = []
        with opened(tmp_path, disk=disk, log=lambda event, **_: events.append(event)) as store:
            put(store, "other", b"x")
            disk.number = disk.count
            assert isinstance(attempt(lambda: put(store, "f", b"x")), StorageFailed)
            assert events == ["sync_failed"]
            assert store.metadata.get("f") is None
            # Another may have been told that it is there: the name stays, and the repeat is answered.
            assert put(store, "f", b"x").outcome is Outcome.SAME
            assert store.metadata.get("f") is not None

    def test_only_those_who_depend_on_it_are_told(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fsync"}))
        with opened(tmp_path, disk=disk, submit=lambda work: work()) as store:
            put(store, "good/seed", b"x")
            put(store, "bad/seed", b"x")
            bad = os.stat(tmp_path / "bad").st_ino
            real = store._disk.fsync

            def fsync(fd: int) -> None:
                if os.fstat(fd).st_ino == bad:
                    raise OSError(errno.EIO, "injected")
                real(fd)

            store._disk.fsync = fsync  # type: ignore[assignment]
            waits = [put_soon(store, f"{'bad' if i % 2 else 'good'}/{i}", b"x") for i in range(10)]
            results = [attempt(wait) for wait in waits]
        assert [isinstance(result, Published) for result in results] == [True, False] * 5

    def test_after_the_second_failure_nothing_more_is_admitted(self, tmp_path: Path) -> None:
        clock = ManualClock()
        disk = FailingDisk(frozenset({"fdatasync"}), 0, errno.EIO, times=99)
        with opened(tmp_path, disk=disk, clock=clock) as store:
            attempt(lambda: put(store, "a", b"x"))
            clock.advance(601)
            attempt(lambda: put(store, "b", b"x"))
            assert not store.read_only
            store.admit(1).release()
            clock.advance(599)
            attempt(lambda: put(store, "c", b"x"))
            assert store.read_only
            with pytest.raises(StorageReadOnly):
                store.admit(1)

    def test_a_failed_sync_of_a_deletion_is_told(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fsync"}))
        with opened(tmp_path, disk=disk) as store:
            put(store, "f", b"x")
            disk.number = disk.count
            with pytest.raises(StorageFailed):
                store.delete(parse("f"), "asked")
            assert store.head(parse("f")) is None


class TestMetadataThatFails:
    def test_a_failed_commit_is_not_acknowledged_and_the_repeat_is(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"commit"}))
        with opened(tmp_path, disk=disk) as store:
            disk.number = disk.count
            assert isinstance(attempt(lambda: put(store, "f", b"x")), StorageError)
            again = put(store, "f", b"x")
            assert again.outcome is Outcome.SAME
            assert again.entry is not None
            assert again.entry.media_type == "image/png"

    def test_rows_that_wait_are_kept_until_the_database_takes_them(self, tmp_path: Path) -> None:
        events: list[str] = []
        disk = FailingDisk(frozenset({"commit"}))
        with opened(tmp_path, disk=disk, durability="relaxed", log=lambda event, **_: events.append(event)) as store:
            store._committer.flush_soon = lambda: None  # type: ignore[method-assign]
            put(store, "f", b"x")
            disk.number = disk.count
            with pytest.raises(StorageError):
                store.metadata.flush()
            entry = store.head(parse("f"))
            assert entry is not None
            assert entry.media_type == "image/png"
            assert store.metadata.flush() == 1
            assert store.metadata.pending == {}

    def test_the_flush_of_the_committer_logs_its_failure(self, tmp_path: Path) -> None:
        events: list[str] = []
        disk = FailingDisk(frozenset({"commit"}))
        with opened(tmp_path, disk=disk, durability="relaxed", log=lambda event, **_: events.append(event)) as store:
            disk.number = disk.count
            put(store, "f", b"x")
            store._committer.close()
            store._committer._gather()
        assert events[0] == "metadata_flush_failed"
        with opened(tmp_path) as store:
            assert store.metadata.committed("f") is not None

    def test_a_database_that_is_none_is_an_error_of_the_contract(self, tmp_path: Path) -> None:
        (tmp_path / PRIVATE).mkdir()
        (tmp_path / PRIVATE / "state.db").write_bytes(b"this is no database" * 100)
        before = open_descriptors()
        with pytest.raises(StorageFailed), opened(tmp_path):
            pass
        gc.collect()
        assert open_descriptors() <= before

    def test_a_newer_database_is_refused(self, tmp_path: Path) -> None:
        with opened(tmp_path):
            pass
        connection = sqlite3.connect(tmp_path / PRIVATE / "state.db")
        connection.execute("PRAGMA user_version=99")
        connection.close()
        with pytest.raises(StorageError), opened(tmp_path):
            pass


class TestSpoolsWithNames:
    """File systems without O_TMPFILE."""

    @staticmethod
    def disk() -> WatchedDisk:
        class OldDisk(WatchedDisk):
            def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if name == "open" and (args[1] & os.O_TMPFILE) == os.O_TMPFILE:
                    raise OSError(errno.EOPNOTSUPP, "injected")

        return OldDisk()

    @pytest.mark.parametrize("dedup", [False, True])
    def test_they_work_and_leave_nothing(self, tmp_path: Path, dedup: bool) -> None:
        with opened(tmp_path, disk=self.disk(), dedup=dedup) as store:
            assert put(store, "a/f", b"one").outcome is Outcome.CREATED
            assert put(store, "a/g", b"one").outcome is Outcome.CREATED
            assert put(store, "a/f", b"two").outcome is Outcome.CONFLICT
            spool = store.spool()
            spool.write(b"x")
            assert len(os.listdir(tmp_path / PRIVATE / "spool")) == 1
            spool.discard()
            assert os.listdir(tmp_path / PRIVATE / "spool") == []
            assert (get(store, "a/f"), get(store, "a/g")) == (b"one", b"one")
            assert ((tmp_path / "a/f").stat().st_nlink == 3) == dedup

    def test_orphans_are_swept_by_age_and_only_when_nobody_has_them_open(self, tmp_path: Path) -> None:
        clock = ManualClock()
        with opened(tmp_path, disk=self.disk(), clock=clock) as store:
            spool = store.spool()
            spool.write(b"in use")
            folder = tmp_path / PRIVATE / "spool"
            (in_use,) = os.listdir(folder)
            (folder / "old").write_bytes(b"left")
            (folder / "young").write_bytes(b"left")
            (folder / "link").symlink_to("/etc/passwd")
            for name in (in_use, "old"):
                os.utime(folder / name, (0, clock.now - 7200))
            os.utime(folder / "young", (0, clock.now - 60))
            with opened(tmp_path, clock=clock):
                assert sorted(os.listdir(folder)) == sorted([in_use, "link", "young"])
            store.publish(spool, parse("f"), PNG)
            assert get(store, "f") == b"in use"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, ""), StorageFull),
        (OSError(errno.EDQUOT, ""), StorageFull),
        (OSError(errno.EFBIG, ""), StorageFull),
        (OSError(errno.EIO, ""), StorageFailed),
        (OSError(errno.EROFS, ""), StorageReadOnly),
        (OSError(errno.EMFILE, ""), StorageBusy),
        (OSError(errno.ENFILE, ""), StorageBusy),
        (OSError("no number"), StorageFailed),
        (sqlite3.OperationalError("x"), StorageFailed),
    ],
)
def test_errors_of_the_system_in_words_of_the_contract(error: OSError, kind: type[StorageError]) -> None:
    found = storage_error(error)
    assert type(found) is kind
    assert found.code == kind.code
    assert "/" not in str(found)
