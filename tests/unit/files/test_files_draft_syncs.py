"""Syncs of drafts: their order, what they cover, and that a failed one is the last."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.files.stores import (
    PNG,
    FailingDisk,
    ManualClock,
    WatchedDisk,
    attempt,
    draft_of,
    get,
    opened,
    publish_draft,
    put,
)
from tests.unit.files.test_files_order import RecordingDisk

from hmac_file_server.files.contract import Outcome, StorageError, StorageFailed, StorageFull, StorageReadOnly
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.drafts import LocalDraft
from hmac_file_server.files.paths import PRIVATE, parse

FOLDER = f"{PRIVATE}/uploads"


class SteppedDisk(RecordingDisk):
    """Syncs of one kind stop at a gate; each may be told to fail."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.armed = False
        self.gates: list[Future[None]] = []
        self.began = threading.Semaphore(0)
        self._gates_lock = threading.Lock()

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == self.kind and self.armed:
            gate: Future[None] = Future()
            with self._gates_lock:
                self.gates.append(gate)
            self.began.release()
            gate.result(30)

    def wait(self) -> Future[None]:
        """The gate of the sync that begins next."""
        assert self.began.acquire(timeout=30)
        return self.gates[-1]


class TestOrder:
    def test_the_bytes_and_the_first_time_the_name(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk) as store:
            disk.take()
            draft = draft_of(store, "d", b"one")
            draft.sync()
            assert disk.take() == [f"fdatasync {FOLDER}/d", f"fsync {FOLDER}"]
            draft.write_at(b"two", 3)
            draft.sync()
            assert disk.take() == [f"fdatasync {FOLDER}/d"]
            draft.sync()
            assert disk.take() == [], "nothing was written since"
            draft.discard()

    def test_the_folder_of_drafts_is_durable_before_the_store_opens(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk):
            events = disk.take()
        assert events.index(f"mkdir {FOLDER}") < events.index(f"fsync {PRIVATE}")

    def test_what_an_earlier_holder_left_is_not_trusted(self, tmp_path: Path) -> None:
        """It may have died between its last write and the sync, or before the name was durable."""
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk) as store:
            draft_of(store, "d", b"one").close()
            disk.take()
            draft = store.draft("d", create=False)
            assert draft is not None
            draft.sync()
            assert disk.take() == [f"fdatasync {FOLDER}/d", f"fsync {FOLDER}"]
            draft.discard()

    def test_one_sync_of_the_folder_serves_all_names(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk) as store:
            drafts = [draft_of(store, f"d{i}", b"x") for i in range(10)]
            disk.take()
            for draft in drafts:
                draft.sync()
            assert disk.take().count(f"fsync {FOLDER}") == 1
            another = draft_of(store, "another")
            another.sync()
            assert disk.take()[-1] == f"fsync {FOLDER}"
            for draft in (*drafts, another):
                draft.discard()

    def test_data_link_directory_row_answer(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk) as store:
            put(store, "a/seed", b"x")
            draft = draft_of(store, "d", b"hello")
            disk.take()
            store.publish_draft_soon(draft, parse("a/f"), PNG, 5, None, lambda _: disk.events.append("done"))
            store._committer.close()
            assert disk.take() == [f"fdatasync {FOLDER}/d", "link a/f", "fsync a", "commit", "done"]
            draft.discard()
            assert disk.take() == [f"unlink {FOLDER}/d"]

    def test_what_a_checkpoint_synced_is_not_synced_again(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk) as store:
            put(store, "a/seed", b"x")
            draft = draft_of(store, "d", b"hello")
            draft.sync()
            disk.take()
            publish_draft(store, draft, "a/f", 5)
            assert disk.take() == ["link a/f", "fsync a", "commit"]
            draft.discard()

    def test_relaxed_durability_syncs_nothing(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk, durability="relaxed", dedup=True) as store:
            disk.take()
            draft = draft_of(store, "d", b"one")
            draft.sync()
            assert publish_draft(store, draft, "a/f", 3).outcome is Outcome.CREATED
            assert publish_draft(store, draft, "a/f", 3).outcome is Outcome.SAME
            draft.discard()
            assert not [event for event in disk.take() if "sync" in event]

    def test_a_draft_shares_the_batch_of_the_others(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        with opened(tmp_path, disk=disk, submit=lambda work: work()) as store:
            put(store, "a/seed", b"x")
            gate, entered = threading.Event(), threading.Event()

            def block(_: object) -> None:
                entered.set()
                gate.wait(30)

            store.publish_soon(store.spool(), parse("gate"), PNG, block)
            assert entered.wait(30)
            drafts = [draft_of(store, f"d{i}", b"%d" % i) for i in range(6)]
            for draft in drafts:
                draft.sync()
            disk.take()
            ready = threading.Semaphore(0)
            for i, draft in enumerate(drafts):
                store.publish_draft_soon(draft, parse(f"a/{i}"), PNG, 1, None, lambda _: ready.release())
            gate.set()
            assert all(ready.acquire(timeout=30) for _ in drafts)
            assert disk.take() == [*(f"link a/{i}" for i in range(6)), "fsync a", "commit"]
            for draft in drafts:
                draft.discard()


class TestTogether:
    """Several threads sync one draft at once."""

    def test_one_that_waits_is_covered_by_the_next_and_no_more_are_made(self, tmp_path: Path) -> None:
        disk = SteppedDisk("fdatasync")
        with opened(tmp_path, disk=disk) as store, ThreadPoolExecutor(4) as pool:
            draft = draft_of(store, "d", b"one")
            draft.sync()
            disk.armed = True
            draft.write_at(b"two", 3)
            first = pool.submit(draft.sync)
            gate = disk.wait()
            waiting = []
            for i in range(3):
                draft.write_at(b"%d" % i, 6 + i)
                waiting.append(pool.submit(draft.sync))
            gate.set_result(None)
            first.result(30)
            disk.wait().set_result(None)
            disk.armed = False
            for each in waiting:
                each.result(30)
            assert len(disk.gates) == 2
            draft.discard()

    def test_what_is_written_while_a_sync_runs_is_not_covered_by_it(self, tmp_path: Path) -> None:
        disk = SteppedDisk("fdatasync")
        with opened(tmp_path, disk=disk) as store, ThreadPoolExecutor(1) as pool:
            draft = draft_of(store, "d", b"one")
            disk.armed = True
            first = pool.submit(draft.sync)
            gate = disk.wait()
            draft.write_at(b"two", 3)
            disk.armed = False
            gate.set_result(None)
            first.result(30)
            disk.take()
            draft.sync()
            assert disk.take() == [f"fdatasync {FOLDER}/d"]
            draft.discard()

    def test_all_who_wait_for_one_that_fails_are_told(self, tmp_path: Path) -> None:
        """The kernel would tell one of them, and the others that all is well."""
        disk = SteppedDisk("fdatasync")
        with opened(tmp_path, disk=disk) as store, ThreadPoolExecutor(4) as pool:
            draft = draft_of(store, "d", b"one")
            disk.armed = True
            syncing = [pool.submit(draft.sync)]
            gate = disk.wait()
            syncing += [pool.submit(draft.sync) for _ in range(3)]
            gate.set_exception(OSError(errno.EIO, "injected"))
            for each in syncing:
                assert isinstance(each.exception(30), StorageFailed)
            assert len(disk.gates) == 1
            draft.discard()

    def test_a_failed_sync_of_the_folder_fails_for_all_whose_names_it_was_for(self, tmp_path: Path) -> None:
        disk = SteppedDisk("fsync")
        with opened(tmp_path, disk=disk) as store, ThreadPoolExecutor(4) as pool:
            settled = draft_of(store, "settled", b"x")
            settled.sync()
            drafts = [draft_of(store, f"d{i}", b"x") for i in range(3)]
            disk.armed = True
            syncing = [pool.submit(draft.sync) for draft in drafts]
            gate = disk.wait()
            late = draft_of(store, "late", b"x")
            disk.armed = False
            gate.set_exception(OSError(errno.EIO, "injected"))
            for each in syncing:
                assert isinstance(each.exception(30), StorageFailed)
            assert len(disk.gates) == 1
            settled.write_at(b"y", 0)
            settled.sync()
            late.sync()
            drafts[0].close()
            again = store.draft("d0", create=False)
            assert again is not None
            with pytest.raises(StorageFailed):
                again.sync()
            for draft in (settled, late, again, *drafts[1:]):
                draft.discard()

    def test_a_name_that_came_while_the_folder_was_synced_needs_its_own(self, tmp_path: Path) -> None:
        disk = SteppedDisk("fsync")
        with opened(tmp_path, disk=disk) as store, ThreadPoolExecutor(2) as pool:
            first = draft_of(store, "first")
            disk.armed = True
            syncing = pool.submit(first.sync)
            gate = disk.wait()
            second = draft_of(store, "second")
            disk.armed = False
            gate.set_result(None)
            syncing.result(30)
            disk.take()
            second.sync()
            assert disk.take() == [f"fdatasync {FOLDER}/second", f"fsync {FOLDER}"]
            first.discard()
            second.discard()

    def test_many_threads(self, tmp_path: Path) -> None:
        """Whatever their order: when a sync returns, one of the disk has begun after the write and has ended."""

        class ModelDisk(WatchedDisk):
            def __init__(self) -> None:
                super().__init__()
                self.written: set[int] = set()
                self.safe: set[int] = set()
                self.syncs = 0
                self._covered = threading.local()

            def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if name == "fdatasync":
                    self._covered.writes = self.written.copy()

            def after(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
                if name == "pwrite":
                    self.written.add(args[2])
                elif name == "fdatasync":
                    self.safe |= self._covered.writes
                    self.syncs += 1

        disk = ModelDisk()
        with opened(tmp_path, disk=disk) as store, ThreadPoolExecutor(8) as pool:
            draft = draft_of(store, "d")

            def work(lane: int) -> None:
                for turn in range(40):
                    offset = 100 * lane + turn
                    draft.write_at(b"x", offset)
                    draft.sync()
                    assert offset in disk.safe

            list(pool.map(work, range(8)))
            assert 1 <= disk.syncs <= 320
            draft.discard()


class TestFailures:
    def test_after_one_nothing_is_written_or_synced(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fdatasync"}), 0, errno.EIO)
        events: list[str] = []
        with opened(tmp_path, disk=disk, log=lambda event, **_: events.append(event)) as store:
            draft = draft_of(store, "d", b"one")
            with pytest.raises(StorageFailed):
                draft.sync()
            for call in (draft.sync, lambda: draft.write_at(b"x", 0), draft.sync):
                with pytest.raises(StorageFailed, match="earlier sync"):
                    call()
            assert disk.count == 1, "the disk is not asked again"
            assert events == ["sync_failed"]
            assert draft.read_at(0, 10) == bytes(3)
            draft.close()
            # Whoever holds it next begins anew; what was acknowledged is for him to know.
            again = store.draft("d", create=False)
            assert again is not None
            again.write_at(b"one", 0)
            again.sync()
            again.discard()

    def test_what_was_not_synced_is_taken_out_with_its_room(self, tmp_path: Path) -> None:
        """Written again into the same room it would not reach the medium, and the next sync would not say so."""
        disk = FailingDisk(frozenset({"fdatasync"}), 1, errno.EIO)
        punched: list[tuple[int, int]] = []

        def punch(fd: int, offset: int, length: int) -> None:
            punched.append((offset, offset + length))
            Disk.punch(fd, offset, length)

        disk.punch = punch
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, "d")
            draft.write_at(b"a" * 5000, 0)
            draft.write_at(b"c" * 3000, 20_000)
            draft.sync()
            draft.write_at(b"b" * 4000, 5000)
            draft.write_at(b"b" * 1000, 9000)
            draft.write_at(b"d" * 100, 16_500)
            draft.write_at(b"e" * 10_000, 40_000)
            with pytest.raises(StorageFailed):
                draft.sync()
            # Whole blocks where nothing else is in them, and not a byte of what is durable.
            assert punched == [(5000, 12_288), (16_384, 16_600), (36_864, 53_248)]
            assert draft.read_at(0, 60_000) == b"a" * 5000 + bytes(15_000) + b"c" * 3000 + bytes(27_000)
            draft.close()
            again = store.draft("d", create=False)
            assert again is not None
            again.write_at(b"b" * 5000, 5000)
            again.sync()
            assert again.read_at(0, 10_000) == b"a" * 5000 + b"b" * 5000
            again.discard()
        assert len(punched) == 3

    def test_a_write_under_way_when_a_sync_fails_is_taken_out_too(self, tmp_path: Path) -> None:
        """And one that is refused takes nothing out: something durable may be in its place."""
        entered, go_on = threading.Event(), threading.Event()

        class SlowDisk(FailingDisk):
            def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if name == "pwrite" and bytes(args[1]) == b"late":
                    entered.set()
                    assert go_on.wait(30)
                super().before(name, args, kwargs)

        with opened(tmp_path, disk=SlowDisk(frozenset({"fdatasync"}), 1, errno.EIO)) as store:
            draft = draft_of(store, "d", b"durable")
            draft.sync()
            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(draft.write_at, b"late", 7)
                assert entered.wait(30)
                draft.write_at(b"x", 20)
                with pytest.raises(StorageFailed):
                    draft.sync()
                go_on.set()
                writing.result(30)
            assert draft.read_at(0, 30) == b"durable" + bytes(14)
            with pytest.raises(StorageFailed):
                draft.write_at(b"DURABLE", 0)
            assert draft.read_at(0, 7) == b"durable"
            draft.discard()

    def test_where_nothing_can_be_taken_out_the_upload_is_refused(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fdatasync"}), 0, errno.EIO)

        def punch(_fd: int, _offset: int, _length: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "no holes here")

        disk.punch = punch  # type: ignore[assignment]
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, "d", b"one")
            with pytest.raises(StorageFailed):
                draft.sync()
            draft.close()
            with pytest.raises(StorageFailed, match="earlier sync"):
                store.draft("d", create=False)
            other = draft_of(store, "e", b"two")
            other.sync()
            other.discard()

    def test_in_relaxed_durability_nothing_is_kept_in_mind(self, tmp_path: Path) -> None:
        with opened(tmp_path, durability="relaxed") as store:
            draft = draft_of(store, "d")
            before = sys.getsizeof(draft._unsynced)
            for turn in range(1000):
                draft.write_at(b"x", 2 * turn)
            assert sys.getsizeof(draft._unsynced) == before
            draft.discard()

    @pytest.mark.parametrize("number", [0, 1, 2, 5])
    def test_the_n_th_fails(self, tmp_path: Path, number: int) -> None:
        disk = FailingDisk(frozenset({"fdatasync"}), number, errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, "d")
            fine = 0
            for turn in range(8):
                try:
                    draft.write_at(b"x", turn)
                    draft.sync()
                    fine += 1
                except StorageFailed:
                    pass
            assert fine == number
            draft.discard()

    def test_no_space_at_the_sync(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fdatasync"}), 0, errno.ENOSPC)
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, "d", b"x")
            with pytest.raises(StorageFull):
                draft.sync()
            with pytest.raises(StorageFailed):
                draft.sync()
            draft.discard()

    def test_a_name_that_could_not_be_made_durable(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fsync"}), error=errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, "d", b"x")
            disk.number = disk.count
            with pytest.raises(StorageFailed):
                draft.sync()
            for call in (draft.sync, lambda: draft.write_at(b"x", 0)):
                with pytest.raises(StorageFailed):
                    call()
            draft.discard()

    def test_they_count_with_those_of_the_store(self, tmp_path: Path) -> None:
        clock = ManualClock()
        disk = FailingDisk(frozenset({"fdatasync"}), 0, errno.EIO, times=3)
        with opened(tmp_path, disk=disk, clock=clock) as store:
            attempt(lambda: put(store, "a", b"x"))
            clock.advance(601)
            draft = draft_of(store, "d", b"x")
            with pytest.raises(StorageFailed):
                draft.sync()
            assert not store.read_only, "the first was too long ago"
            draft.discard()
            draft = draft_of(store, "d", b"x")
            with pytest.raises(StorageFailed):
                draft.sync()
            assert store.read_only
            with pytest.raises(StorageReadOnly):
                store.admit(1)
            draft.discard()

    def test_a_poisoned_draft_is_not_published(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fdatasync", "link"}), 0, errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            disk.count = 0
            draft = draft_of(store, "d", b"x")
            with pytest.raises(StorageFailed):
                draft.sync()
            assert isinstance(attempt(lambda: publish_draft(store, draft, "f", 1)), StorageFailed)
            assert disk.count == 1
            assert store.head(parse("f")) is None
            draft.discard()

    def test_a_publish_whose_sync_fails_poisons(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fdatasync"}), 0, errno.EIO)
        events: list[str] = []
        with opened(tmp_path, disk=disk, log=lambda event, **_: events.append(event)) as store:
            draft = draft_of(store, "d", b"x")
            for _ in range(2):
                assert isinstance(attempt(lambda: publish_draft(store, draft, "f", 1)), StorageFailed)
            assert events == ["sync_failed"]
            assert store.head(parse("f")) is None
            draft.discard()


FAILABLE = frozenset(
    {"open", "pwrite", "pread", "fstat", "stat", "flock", "link", "unlink", "mkdir", "fsync", "fdatasync", "commit"}
)


class Told:
    """What was acknowledged: ranges of the draft, and the publish."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, bytes]] = []
        self.published = False


BODY = os.urandom(5000)


def life_of_an_upload(store: Any, told: Told) -> None:
    """Two chunks, let go, taken up again, the rest, published, dropped. Errors of the store end it."""
    draft: LocalDraft | None = None
    try:
        draft = draft_of(store, "d")
        for offset in (2000, 0):
            draft.write_at(BODY[offset : offset + 1000], offset)
            draft.sync()
            told.ranges.append((offset, BODY[offset : offset + 1000]))
        draft.close()
        draft = store.draft("d", create=False)
        assert draft is not None
        for offset in (1000, 3000):
            draft.write_at(BODY[offset : 2 * offset], offset)
        draft.sync()
        told.ranges = [(0, BODY)]
        if publish_draft(store, draft, "a/f", len(BODY)).outcome is Outcome.CREATED:
            told.published = True
            draft.discard()
    finally:
        if draft is not None:
            draft.close()


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_every_single_call_may_fail(memory_path: Path, error: int, durability: str) -> None:
    counting = FailingDisk(FAILABLE)
    with opened(memory_path / "count", disk=counting, durability=durability) as store:
        start = counting.count
        life_of_an_upload(store, Told())
    assert counting.count - start > 15
    for number in range(start, counting.count):
        root = memory_path / f"{number}"
        disk = FailingDisk(FAILABLE, number, error)
        told = Told()
        try:
            with opened(root, disk=disk, durability=durability, submit=lambda work: work()) as store:
                with contextlib.suppress(StorageError):
                    life_of_an_upload(store, told)
                resumed(store, told)
        except StorageError:
            pass  # rows that could not be written on closing: it said so
        with opened(root, durability=durability) as store:
            assert get(store, "a/f") in {None, BODY}
            resumed(store, told)


def resumed(store: Any, told: Told) -> None:
    """What was acknowledged is there."""
    if told.published:
        assert get(store, "a/f") == BODY
        return
    draft = store.draft("d", create=False)
    if told.ranges:
        assert draft is not None
    if draft is not None:
        for offset, piece in told.ranges:
            assert draft.read_at(offset, len(piece)) == piece
        draft.close()
