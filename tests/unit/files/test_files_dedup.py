"""Many files of the same bytes share one inode, and nobody can tell."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from tests.unit.files.stores import ManualClock, WatchedDisk, get, opened, put, put_soon

from hmac_file_server.files.contract import Metadata, Outcome
from hmac_file_server.files.paths import PRIVATE, parse

BODY = b"the same bytes" * 100


def blob(root: Path, body: bytes) -> Path:
    name = blake3(body).hexdigest()
    return root / PRIVATE / "blobs" / name[:2] / name


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_the_same_bytes_are_stored_once(tmp_path: Path, durability: str) -> None:
    with opened(tmp_path, durability=durability, dedup=True) as store:
        for i in range(5):
            assert put(store, f"{i}/f", BODY).outcome is Outcome.CREATED
        assert put(store, "other", BODY[:-1] + b"!").outcome is Outcome.CREATED
        assert len({inode(tmp_path / f"{i}/f") for i in range(5)}) == 1
        assert inode(tmp_path / "other") != inode(tmp_path / "0/f")
        assert (tmp_path / "0/f").stat().st_nlink == 6
        assert all(get(store, f"{i}/f") == BODY for i in range(5))


def test_each_twin_has_its_own_metadata(tmp_path: Path) -> None:
    clock = ManualClock()
    with opened(tmp_path, dedup=True, clock=clock) as store:
        first = put(store, "a.png", BODY, Metadata("image/png", owner="alice")).entry
        assert get(store, "a.png") == BODY
        clock.advance(1000)
        second = put(store, "b.txt", BODY, Metadata("text/plain", owner="bob", expires=9e9)).entry
        assert first is not None
        assert second is not None
        assert store.head(parse("a.png")) == first
        assert store.head(parse("b.txt")) == second
        assert (second.modified - first.modified, first.etag == second.etag) == (1000, False)
        assert first.digest == second.digest == "blake3:" + blake3(BODY).hexdigest()


def test_sha256_where_it_is_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path, dedup=True, dedup_hash="sha256") as store:
        put(store, "a", BODY)
        put(store, "b", BODY)
        entry = store.head(parse("a"))
        assert entry is not None
        assert entry.digest == "sha256:" + hashlib.sha256(BODY).hexdigest()
        assert inode(tmp_path / "a") == inode(tmp_path / "b")


@pytest.mark.parametrize(("size", "shared"), [(0, False), (1, True), (1000, True), (1001, False)])
def test_only_files_of_one_byte_to_the_limit_take_part(tmp_path: Path, size: int, shared: bool) -> None:
    with opened(tmp_path, dedup=True, dedup_max_size=1000) as store:
        for path in ("a", "b"):
            put(store, path, bytes(size))
        assert (inode(tmp_path / "a") == inode(tmp_path / "b")) == shared


@pytest.mark.parametrize("size", [None, 5])
def test_a_body_of_unknown_size_is_hashed_up_to_the_limit(tmp_path: Path, size: int | None) -> None:
    with opened(tmp_path, dedup=True, dedup_max_size=1000) as store:
        spool = store.spool(size)
        spool.write(b"hello")
        assert spool.digest == "blake3:" + blake3(b"hello").hexdigest()
        spool.write(bytes(995))
        assert spool.digest is not None
        spool.write(b"!")
        assert spool.digest is None
        spool.discard()
        assert store.spool(1001).digest is None


def test_without_dedup_nothing_is_hashed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        entry = put(store, "a", BODY).entry
        assert entry is not None
        assert entry.digest is None
        assert os.listdir(tmp_path / PRIVATE / "blobs") == []


class TestCollecting:
    def test_the_last_deletion_takes_the_blob_with_it(self, tmp_path: Path) -> None:
        with opened(tmp_path, dedup=True) as store:
            put(store, "a", BODY)
            put(store, "b", BODY)
            store.delete(parse("a"), "asked")
            assert blob(tmp_path, BODY).exists()
            assert get(store, "b") == BODY
            store.delete(parse("b"), "asked")
            assert not blob(tmp_path, BODY).exists()

    def test_a_round_collects_what_files_removed_by_hand_left(self, tmp_path: Path) -> None:
        clock = ManualClock()
        with opened(tmp_path, dedup=True, clock=clock) as store:
            put(store, "a", BODY)
            put(store, "b", b"another")
            (tmp_path / "a").unlink()
            store.expire(clock.time())
            assert not blob(tmp_path, BODY).exists()
            assert blob(tmp_path, b"another").exists()

    def test_a_thousand_rounds_of_upload_against_expiry_of_the_same_bytes(self, memory_path: Path) -> None:
        """S-42: whatever the collector does, an upload that was answered is there."""
        with opened(memory_path, durability="relaxed", dedup=True) as store:
            stop = threading.Event()
            faults: list[BaseException] = []

            def collect() -> None:
                try:
                    while not stop.is_set():
                        store._blobs.collect(blake3(BODY).hexdigest())
                except BaseException as error:
                    faults.append(error)

            def churn(name: str) -> None:
                try:
                    for i in range(500):
                        assert put(store, f"{name}/{i}", BODY).outcome is Outcome.CREATED
                        assert get(store, f"{name}/{i}") == BODY
                        assert store.delete(parse(f"{name}/{i}"), "race")
                except BaseException as error:
                    faults.append(error)

            collector = threading.Thread(target=collect)
            churners = [threading.Thread(target=churn, args=(name,)) for name in ("x", "y")]
            for thread in (collector, *churners):
                thread.start()
            for thread in churners:
                thread.join()
            stop.set()
            collector.join()
            assert faults == []

    def test_a_blob_collected_between_open_and_link_is_a_miss(self, tmp_path: Path) -> None:
        """The one order of events in which the link must fail, and the upload must not."""

        class RacingDisk(WatchedDisk):
            armed = False

            def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if name == "link" and self.armed:
                    self.armed = False
                    blob(tmp_path, BODY).unlink()

        disk = RacingDisk()
        with opened(tmp_path, dedup=True, disk=disk) as store:
            put(store, "a", BODY)
            (tmp_path / "a").unlink()
            disk.armed = True
            assert put(store, "b", BODY).outcome is Outcome.CREATED
            assert get(store, "b") == BODY
            assert inode(tmp_path / "b") == inode(blob(tmp_path, BODY))


class TestBlobsThatAreNotWhatTheySay:
    def test_one_of_another_size_is_not_used_and_replaced(self, tmp_path: Path) -> None:
        with opened(tmp_path, dedup=True) as store:
            put(store, "a", BODY)
            with blob(tmp_path, BODY).open("ab") as file:
                file.write(b"damage")
            put(store, "b", BODY)
            put(store, "c", BODY)
            assert (get(store, "b"), get(store, "c")) == (BODY, BODY)
            assert inode(tmp_path / "b") == inode(tmp_path / "c") == inode(blob(tmp_path, BODY))

    @pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
    def test_one_that_is_no_file_is_not_used(self, tmp_path: Path, kind: str) -> None:
        with opened(tmp_path, dedup=True) as store:
            place = blob(tmp_path, BODY)
            place.parent.mkdir()
            outside = tmp_path / "outside"
            outside.write_bytes(BODY)
            if kind == "link":
                place.symlink_to(outside)
            elif kind == "fifo":
                os.mkfifo(place)
            else:
                place.mkdir()
            assert put(store, "f", BODY).outcome is Outcome.CREATED
            assert get(store, "f") == BODY
            assert inode(tmp_path / "f") != inode(outside)

    def test_one_with_as_many_links_as_there_can_be_is_renewed(self, tmp_path: Path) -> None:
        class CrowdedDisk(WatchedDisk):
            crowded = 0

            def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if name == "link" and self.crowded:
                    self.crowded -= 1
                    raise OSError(errno.EMLINK, "injected")

        disk = CrowdedDisk()
        with opened(tmp_path, dedup=True, disk=disk) as store:
            put(store, "a", BODY)
            disk.crowded = 1
            put(store, "b", BODY)
            put(store, "c", BODY)
            assert inode(tmp_path / "a") != inode(tmp_path / "b") == inode(tmp_path / "c")
            assert all(get(store, path) == BODY for path in "abc")


def test_threads_with_the_same_bytes_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, dedup=True) as store:
        waits = [put_soon(store, f"{i % 5}/{i}", BODY) for i in range(60)]
        assert {wait().outcome for wait in waits} == {Outcome.CREATED}
        assert all(get(store, f"{i % 5}/{i}") == BODY for i in range(60))
        for i in range(60):
            assert store.delete(parse(f"{i % 5}/{i}"), "done")
        store._blobs.collect_all()
        assert list(store._blobs.names()) == []


def test_a_hit_makes_the_calls_of_a_miss_but_for_the_blob(tmp_path: Path) -> None:
    """S-43: the body is always taken and written in full; what differs is one look at the blob folder."""
    calls: list[tuple[str, int]] = []

    class CountingDisk(WatchedDisk):
        def after(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            if name in {"write", "fdatasync", "fsync", "commit"}:
                calls.append((name, result if name == "write" else 0))

    with opened(tmp_path, dedup=True, disk=CountingDisk()) as store:
        put(store, "d/seed", b"seed")
        seen = []
        for path in ("d/miss", "d/hit"):
            calls.clear()
            put(store, path, BODY)
            seen.append(list(calls))
        assert seen[0] == seen[1] == [("write", len(BODY)), ("fdatasync", 0), ("fsync", 0), ("commit", 0)]
