"""Drafts: who may hold one, what is read and written, who finds and removes them."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.files.stores import (
    FailingDisk,
    ManualClock,
    WatchedDisk,
    draft_of,
    open_descriptors,
    opened,
    publish_draft,
    put,
)

from hmac_file_server.files import fsck
from hmac_file_server.files.contract import DraftHeld, Outcome, StorageBusy, StorageError, StorageFailed, StorageFull
from hmac_file_server.files.paths import PRIVATE

NAME = "1800000000_0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the drafts of a store at `tmp_path` are."""
    return tmp_path / PRIVATE / "uploads"


class GatedDisk(WatchedDisk):
    """Calls of one kind wait at a gate; `entered` tells that one has come there."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == self.kind and not self.gate.is_set():
            self.entered.set()
            assert self.gate.wait(30)


class TestNames:
    @pytest.mark.parametrize("name", ["a", "0", NAME, "-", "_", "a" * 80])
    def test_good(self, tmp_path: Path, folder: Path, name: str) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, name)
            assert draft.name == name
            assert os.listdir(folder) == [name]
            draft.discard()

    @pytest.mark.parametrize(
        "name", ["", "A", "a" * 81, ".", "..", "../a", "a/b", "a.b", "a\n", "a\0", "ä", "a b", "%2e", "/etc/passwd"]
    )
    def test_bad(self, tmp_path: Path, folder: Path, name: str) -> None:
        with opened(tmp_path) as store:
            with pytest.raises(ValueError, match="no name"):
                store.draft(name, create=True)
            with pytest.raises(ValueError, match="no name"):
                store.drop_draft(name)
            assert os.listdir(folder) == []


class TestOpening:
    def test_modes(self, tmp_path: Path, folder: Path) -> None:
        before = os.umask(0o022)
        try:
            with opened(tmp_path) as store:
                draft_of(store, NAME).close()
        finally:
            os.umask(before)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o640

    def test_a_missing_one_is_none_unless_it_is_to_be_made(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store:
            assert store.draft(NAME, create=False) is None
            assert os.listdir(folder) == []
            draft_of(store, NAME, b"one").close()
            for create in (False, True):
                again = store.draft(NAME, create=create)
                assert again is not None
                assert again.read_at(0, 10) == b"one"
                again.close()

    def test_one_holder_at_a_time(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store, opened(tmp_path) as other:
            draft = draft_of(store, NAME)
            for each in (store, other):
                for create in (False, True):
                    with pytest.raises(DraftHeld) as held:
                        each.draft(NAME, create=create)
                    assert held.value.code == "upload_busy"
            draft_of(other, "another").close()
            draft.close()
            draft_of(other, NAME).close()

    def test_one_that_is_forgotten_is_let_go(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            draft_of(store, NAME)
            gc.collect()
            draft_of(store, NAME).close()

    def test_a_link_is_not_followed(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store:
            victim = tmp_path / "victim"
            victim.write_bytes(b"precious")
            (folder / NAME).symlink_to(victim)
            for create in (False, True):
                with pytest.raises(StorageFailed):
                    store.draft(NAME, create=create)
            assert not store.drafts(9e12)
            assert victim.read_bytes() == b"precious"

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
    def test_only_plain_files(self, tmp_path: Path, folder: Path, make: Callable[[Path], None]) -> None:
        before = open_descriptors()
        with opened(tmp_path) as store:
            make(folder / NAME)
            for create in (False, True):
                with pytest.raises(StorageFailed):
                    store.draft(NAME, create=create)
            assert store.drafts(9e12) == []
        assert open_descriptors() <= before

    @pytest.mark.parametrize(
        ("kind", "error", "expected"),
        [
            ("open", errno.EMFILE, StorageBusy),
            ("open", errno.ENOSPC, StorageFull),
            ("open", errno.ENOENT, StorageFailed),
            ("fstat", errno.EIO, StorageFailed),
            ("stat", errno.EIO, StorageFailed),
            ("flock", errno.ENOLCK, StorageFailed),
        ],
    )
    def test_a_disk_that_fails_leaves_no_descriptor(
        self, tmp_path: Path, kind: str, error: int, expected: type[StorageError]
    ) -> None:
        disk = FailingDisk(frozenset({kind}), error=error)
        with opened(tmp_path, disk=disk) as store:
            before = open_descriptors()
            disk.number = disk.count
            with pytest.raises(expected):
                store.draft(NAME, create=True)
            assert open_descriptors() <= before
            draft_of(store, NAME).close()

    def test_a_process_that_is_killed_holds_it_no_more(self, tmp_path: Path) -> None:
        code = """
import sys
from pathlib import Path
from tests.unit.files.stores import draft_of, opened
with opened(Path(sys.argv[1])) as store:
    draft = draft_of(store, sys.argv[2], b"from the other")
    draft.sync()
    print("held", flush=True)
    sys.stdin.readline()
"""
        with opened(tmp_path) as store:
            holder = subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path), NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == b"held\n"
                with pytest.raises(DraftHeld):
                    store.draft(NAME, create=False)
                assert store.drafts(9e12) == []
                assert not store.drop_draft(NAME)
            finally:
                holder.kill()
                holder.communicate()
            draft = store.draft(NAME, create=False)
            assert draft is not None
            assert draft.read_at(0, 100) == b"from the other"
            draft.discard()

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_child_made_meanwhile_keeps_no_hold(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, NAME)
            go = os.pipe()
            child = os.fork()
            if child == 0:  # nothing of pytest may run here
                os.close(go[1])
                os.read(go[0], 1)
                os._exit(0)
            try:
                draft.close()
                draft_of(store, NAME).close()
            finally:
                for fd in go:
                    os.close(fd)
                os.waitpid(child, 0)


class TestReadingAndWriting:
    def test_at_any_offset_with_zeros_between(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, NAME)
            draft.write_at(memoryview(b"-tail-")[1:-1], 1 << 33)
            draft.write_at(bytearray(b"head"), 0)
            draft.write_at(b"", 5)
            assert draft.read_at(0, 6) == b"head\0\0"
            assert draft.read_at((1 << 33) - 2, 100) == b"\0\0tail"
            assert draft.read_at(1 << 34, 100) == b""
            assert draft.read_at(0, 0) == b""
            found = (folder / NAME).stat()
            assert found.st_size == (1 << 33) + 4
            assert found.st_blocks * 512 < 1 << 20, "it is sparse"
            draft.discard()

    @given(st.data())
    @settings(max_examples=30, deadline=None)
    def test_as_a_bytearray(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        with opened(tmp_path_factory.mktemp("root"), durability="relaxed") as store:
            draft = draft_of(store, NAME)
            model = bytearray()
            for _ in range(data.draw(st.integers(1, 12))):
                offset, piece = data.draw(st.integers(0, 300)), data.draw(st.binary(max_size=200))
                draft.write_at(piece, offset)
                if piece:
                    model += bytes(max(0, offset - len(model)))
                    model[offset : offset + len(piece)] = piece
                if data.draw(st.booleans()):
                    draft.close()
                    reopened = store.draft(NAME, create=False)
                    assert reopened is not None
                    draft = reopened
                start, length = data.draw(st.integers(0, 500)), data.draw(st.integers(0, 500))
                assert draft.read_at(start, length) == model[start : start + length]
            draft.discard()

    @pytest.mark.parametrize("piece", [1, 7, 4096])
    def test_short_writes_and_reads_lose_nothing(self, tmp_path: Path, piece: int) -> None:
        class ShortDisk(WatchedDisk):
            def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
                if name == "pwrite":
                    return lambda fd, view, offset: os.pwrite(fd, view[:piece], offset)
                if name == "pread":
                    return lambda fd, length, offset: os.pread(fd, min(piece, length), offset)
                return super()._watched(name, real)

        body = os.urandom(9001)
        with opened(tmp_path, disk=ShortDisk()) as store:
            draft = draft_of(store, NAME)
            draft.write_at(body[5000:], 5000)
            draft.write_at(body[:5000], 0)
            assert draft.read_at(0, 9001) == body
            assert draft.read_at(0, 10_000) == body
            assert draft.read_at(4999, 2) == body[4999:5001]
            draft.discard()

    def test_a_disk_that_takes_no_bytes_is_not_asked_for_ever(self, tmp_path: Path) -> None:
        class StuckDisk(WatchedDisk):
            def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
                return (lambda fd, view, offset: 0) if name == "pwrite" else super()._watched(name, real)

        with opened(tmp_path, disk=StuckDisk()) as store:
            draft = store.draft(NAME, create=True)
            assert draft is not None
            with pytest.raises(StorageFailed):
                draft.write_at(b"x", 0)
            draft.discard()

    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
    def test_a_full_disk_says_so_and_the_draft_goes_on_after(self, tmp_path: Path, error: int) -> None:
        disk = FailingDisk(frozenset({"pwrite"}), 1, error)
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, NAME, b"one")
            with pytest.raises(StorageFull) as full:
                draft.write_at(b"two", 3)
            assert full.value.code == "storage_full"
            draft.write_at(b"two", 3)
            draft.sync()
            assert draft.read_at(0, 10) == b"onetwo"
            draft.discard()

    @pytest.mark.parametrize("kind", ["pwrite", "pread"])
    def test_a_medium_that_fails(self, tmp_path: Path, kind: str) -> None:
        disk = FailingDisk(frozenset({kind}), error=errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, NAME, b"one")
            disk.number = disk.count
            with pytest.raises(StorageFailed):
                draft.write_at(b"x", 0) if kind == "pwrite" else draft.read_at(0, 1)
            draft.discard()

    def test_many_threads_at_once(self, tmp_path: Path) -> None:
        body = random.Random(3).randbytes(400_000)
        step = 1000
        offsets = list(range(0, len(body), step))
        random.Random(4).shuffle(offsets)
        with opened(tmp_path) as store:
            draft = draft_of(store, NAME)

            def work(offset: int) -> None:
                draft.write_at(memoryview(body)[offset : offset + step], offset)
                if offset % 50_000 == 0:
                    draft.sync()
                assert draft.read_at(offset, step) == body[offset : offset + step]

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(work, offsets))
            assert draft.read_at(0, len(body) + 1) == body
            draft.discard()


class TestLettingGo:
    @pytest.mark.parametrize("end", ["close", "discard"])
    def test_after_it_nothing_works(self, tmp_path: Path, folder: Path, end: str) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, NAME, b"one")
            getattr(draft, end)()
            for call in (lambda: draft.write_at(b"x", 0), lambda: draft.read_at(0, 1), draft.sync):
                with pytest.raises(StorageFailed, match="closed"):
                    call()
            draft.close()
            draft.discard()
            assert (folder / NAME).exists() == (end == "close"), "once it is let go it is not ours to remove"

    def test_a_write_under_way_ends_in_its_own_file(self, tmp_path: Path, folder: Path) -> None:
        disk = GatedDisk("pwrite")
        with opened(tmp_path, disk=disk) as store, opened(tmp_path) as other, ThreadPoolExecutor(1) as pool:
            draft = draft_of(store, NAME)
            disk.gate.clear()
            writing = pool.submit(draft.write_at, b"late", 0)
            assert disk.entered.wait(30)
            draft.close()
            with pytest.raises(StorageFailed):
                draft.write_at(b"later", 0)
            with pytest.raises(DraftHeld):
                other.draft(NAME, create=False)
            disk.gate.set()
            writing.result(30)
            draft_of(other, NAME).close()
            assert (folder / NAME).read_bytes() == b"late"

    def test_a_discard_under_a_write_frees_the_name_at_once(self, tmp_path: Path, folder: Path) -> None:
        disk = GatedDisk("pwrite")
        with opened(tmp_path, disk=disk) as store, opened(tmp_path) as other, ThreadPoolExecutor(1) as pool:
            draft = draft_of(store, NAME)
            disk.gate.clear()
            writing = pool.submit(draft.write_at, b"late", 0)
            assert disk.entered.wait(30)
            draft.discard()
            assert os.listdir(folder) == []
            fresh = draft_of(other, NAME, b"new")
            disk.gate.set()
            writing.result(30)
            fresh.close()
            assert (folder / NAME).read_bytes() == b"new"

    def test_threads_that_write_while_another_closes(self, tmp_path: Path, folder: Path) -> None:
        """No write ever goes to a descriptor that was closed, or has another file behind it by now."""
        with opened(tmp_path, durability="relaxed") as store, ThreadPoolExecutor(5) as pool:
            before = open_descriptors()
            for turn in range(60):
                draft = draft_of(store, NAME)
                barrier = threading.Barrier(5)

                def write(lane: int, draft: Any = draft, barrier: threading.Barrier = barrier) -> int:
                    barrier.wait(30)
                    for count in range(1000):
                        try:
                            draft.write_at(b"%d" % lane, 4 * count + lane)
                        except StorageFailed:
                            return count
                    return 1000

                writers = [pool.submit(write, lane) for lane in range(4)]
                barrier.wait(30)
                for _ in range(turn % 7):
                    # What a write to a stale number would hit.
                    with open(tmp_path / "bystander", "wb"):
                        pass
                draft.close()
                with open(tmp_path / "bystander", "wb"):
                    counts = [writer.result(30) for writer in writers]
                assert (tmp_path / "bystander").stat().st_size == 0
                there = (folder / NAME).read_bytes()
                for lane, count in enumerate(counts):
                    assert there[lane : 4 * count : 4] == b"%d" % lane * count
                assert store.drop_draft(NAME)
            assert open_descriptors() <= before

    def test_a_store_that_was_closed_first(self, tmp_path: Path, folder: Path) -> None:
        before = open_descriptors()
        with opened(tmp_path) as store:
            draft, other = draft_of(store, NAME, b"x"), draft_of(store, "other", b"x")
        draft.write_at(b"y", 1)
        with pytest.raises(StorageError):
            draft.sync()
        draft.close()
        other.discard()
        assert (folder / NAME).read_bytes() == b"xy"
        assert open_descriptors() <= before


class TestFindingAndDropping:
    def test_those_that_are_old_and_held_by_nobody(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store, opened(tmp_path) as other:
            held, held_elsewhere = draft_of(store, "held"), draft_of(other, "held-elsewhere")
            for name in ("old", "young"):
                draft_of(store, name).close()
            (folder / "Strange.name").write_bytes(b"")
            for name in ("old", "held", "held-elsewhere", "Strange.name"):
                os.utime(folder / name, (1000, 1000))
            assert store.drafts(1000) == []
            assert store.drafts(1001) == other.drafts(1001) == ["old"]
            assert sorted(store.drafts(9e12)) == ["old", "young"]
            held.close()
            held_elsewhere.close()
            assert sorted(store.drafts(1001)) == ["held", "held-elsewhere", "old"]

    def test_looking_holds_nothing(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            draft_of(store, NAME).close()
            before = open_descriptors()
            assert store.drafts(9e12) == [NAME]
            assert open_descriptors() <= before
            draft_of(store, NAME).close()

    def test_a_folder_that_cannot_be_read(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"listdir"}), error=errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            disk.number = disk.count
            with pytest.raises(StorageFailed):
                store.drafts(9e12)

    def test_only_what_nobody_holds_is_dropped(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store, opened(tmp_path) as other:
            draft = draft_of(store, NAME)
            assert not store.drop_draft(NAME)
            assert not other.drop_draft(NAME)
            assert not store.drop_draft("missing")
            draft.close()
            assert other.drop_draft(NAME)
            assert not store.drop_draft(NAME)
            assert os.listdir(folder) == []

    @pytest.mark.parametrize("kind", ["open", "unlink", "stat"])
    def test_a_disk_that_fails(self, tmp_path: Path, kind: str) -> None:
        disk = FailingDisk(frozenset({kind}), error=errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            draft_of(store, NAME).close()
            before = open_descriptors()
            disk.number = disk.count
            with pytest.raises(StorageFailed):
                store.drop_draft(NAME)
            assert open_descriptors() <= before
            assert store.drop_draft(NAME)

    def test_a_discard_that_fails_leaves_it_for_the_sweep(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"unlink"}), 0, errno.EIO)
        with opened(tmp_path, disk=disk) as store:
            draft_of(store, NAME).discard()
            assert store.drafts(9e12) == [NAME]
            assert store.drop_draft(NAME)

    @pytest.mark.parametrize("create", [True, False])
    def test_one_that_is_removed_between_open_and_lock_is_not_held(
        self, tmp_path: Path, folder: Path, create: bool
    ) -> None:
        """Its inode is no draft any more: what is written to it would be lost."""

        class RacingDisk(WatchedDisk):
            times = 0

            def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if name == "flock" and args[1] == fcntl.LOCK_EX | fcntl.LOCK_NB and self.times:
                    self.times -= 1
                    (folder / NAME).unlink()

        disk = RacingDisk()
        with opened(tmp_path, disk=disk) as store:
            draft_of(store, NAME, b"old").close()
            disk.times = 1
            draft = store.draft(NAME, create=create)
            if create:
                assert draft is not None
                assert draft.read_at(0, 10) == b""
                assert (folder / NAME).exists()
                draft.discard()
            else:
                assert draft is None
            draft_of(store, NAME, b"old").close()
            disk.times = 1
            assert not store.drop_draft(NAME)
            disk.times = 99
            with pytest.raises(StorageBusy):
                store.draft(NAME, create=True)
            disk.times = 0

    def test_another_that_took_the_name_meanwhile_is_found_instead(self, tmp_path: Path, folder: Path) -> None:
        class RacingDisk(WatchedDisk):
            armed = False

            def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if name == "flock" and self.armed:
                    self.armed = False
                    (folder / NAME).unlink()
                    (folder / NAME).write_bytes(b"new")

        disk = RacingDisk()
        with opened(tmp_path, disk=disk) as store:
            draft_of(store, NAME, b"old").close()
            disk.armed = True
            draft = store.draft(NAME, create=False)
            assert draft is not None
            assert draft.read_at(0, 10) == b"new"
            draft.discard()

    def test_openers_and_sweepers_at_once(self, tmp_path: Path, folder: Path) -> None:
        """There is never more than one who holds it, and whoever does finds his bytes under its name."""
        holders: list[int] = []
        stop = threading.Event()

        def open_and_write(store: Any, lane: int) -> int:
            held = 0
            for turn in range(300):
                try:
                    draft = store.draft(NAME, create=True)
                except (DraftHeld, StorageBusy):
                    continue
                holders.append(lane)
                assert holders == [lane]
                word = b"%d-%d" % (lane, turn)
                draft.write_at(word, 0)
                assert (folder / NAME).read_bytes().startswith(word)
                held += 1
                holders.clear()
                draft.discard() if turn % 2 else draft.close()
            return held

        def sweep(store: Any) -> int:
            swept = 0
            while not stop.is_set():
                for name in store.drafts(9e12):
                    swept += store.drop_draft(name)
            return swept

        with (
            opened(tmp_path, durability="relaxed") as one,
            opened(tmp_path, durability="relaxed") as two,
            ThreadPoolExecutor(4) as pool,
        ):
            sweeping = pool.submit(sweep, two)
            writing = [pool.submit(open_and_write, store, lane) for lane, store in enumerate((one, two, one))]
            try:
                held = [each.result(60) for each in writing]
            finally:
                stop.set()
            sweeping.result(30)
            assert sum(held) > 0


class TestCheck:
    """What fsck makes of the folder."""

    def test_drafts_are_no_garbage(self, tmp_path: Path, folder: Path) -> None:
        root = tmp_path
        with opened(root, dedup=True) as store:
            held = draft_of(store, "held", b"under way")
            draft_of(store, "idle", b"to be continued").close()
            published = draft_of(store, "published", b"whole")
            hasher = store.new_hasher(5)
            assert hasher is not None
            hasher.update(b"whole")
            publish_draft(store, published, "f", 5, store.digest_text(hasher))
            published.close()
            for name in ("held", "idle", "published"):
                os.utime(folder / name, (0, 0))
            assert fsck.check(root, repair=True, clock=ManualClock(4e9)).problems == ()
            assert sorted(os.listdir(folder)) == ["held", "idle", "published"]
            held.close()

    def test_what_can_be_no_draft_is_reported_and_left(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store:
            put(store, "f", b"x")
        (folder / "Strange.name").write_bytes(b"")
        (folder / "link").symlink_to("/etc/passwd")
        (folder / "folder").mkdir()
        with open(os.fsencode(folder) + b"/\xff", "wb"):
            pass
        before = open_descriptors()
        report = fsck.check(tmp_path, repair=True, clock=ManualClock(4e9))
        assert open_descriptors() <= before
        found = sorted((problem.code, problem.path.rpartition("/")[2]) for problem in report.problems)
        assert found == [
            ("not_a_file", "folder"),
            ("not_a_file", "link"),
            ("strange_name", "Strange.name"),
            ("strange_name", "\\udcff"),
        ]
        assert report.repaired == ()
        assert len(os.listdir(folder)) == 4

    def test_a_store_from_before_there_were_drafts(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store:
            put(store, "f", b"x")
        folder.rmdir()
        assert fsck.check(tmp_path, repair=False, clock=ManualClock(4e9)).problems == ()
        with opened(tmp_path) as store:
            draft = draft_of(store, NAME, b"y")
            assert publish_draft(store, draft, "g", 1).outcome is Outcome.CREATED
            draft.discard()
