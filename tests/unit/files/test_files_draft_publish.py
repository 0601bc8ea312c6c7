"""Publishing drafts: outcomes, repeats after a crash, deduplication."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from blake3 import blake3
from tests.unit.files.power import PowerCut, PowerDisk
from tests.unit.files.stores import (
    PNG,
    FailingDisk,
    ManualClock,
    WatchedDisk,
    attempt,
    draft_of,
    get,
    open_descriptors,
    opened,
    publish_draft,
    put,
    tree,
)
from tests.unit.files.test_files_dedup import blob

from hmac_file_server.files import fsck
from hmac_file_server.files.contract import (
    Draft,
    Metadata,
    Outcome,
    PathRefused,
    Published,
    StorageBusy,
    StorageError,
    StorageFailed,
)
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import PRIVATE, parse

BODY = b"hello world" * 100
DIGEST = "blake3:" + blake3(BODY).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the drafts of a store at `tmp_path` are."""
    return tmp_path / PRIVATE / "uploads"


def no_proc() -> WatchedDisk:
    """A machine where a descriptor cannot be linked."""

    class BareDisk(WatchedDisk):
        def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name == "open" and args[0] == "/proc/self/fd":
                raise OSError(errno.ENOENT, "injected")

    return BareDisk()


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize("proc", [True, False], ids=["by descriptor", "by name"])
class TestOutcomes:
    def test_a_new_path(self, tmp_path: Path, folder: Path, durability: str, proc: bool) -> None:
        clock = ManualClock()
        with opened(tmp_path, durability=durability, disk=None if proc else no_proc(), clock=clock) as store:
            draft = draft_of(store, "d", BODY)
            meta = Metadata("image/png", "x.png", "alice", clock.now + 50, "t")
            published = publish_draft(store, draft, "a/b/f", len(BODY), DIGEST, meta)
            assert published.outcome is Outcome.CREATED
            assert published.entry == store.head(parse("a/b/f"))
            assert published.entry is not None
            assert (published.entry.media_type, published.entry.owner, published.entry.digest) == (
                "image/png",
                "alice",
                DIGEST,
            )
            assert get(store, "a/b/f") == BODY
            # The draft is as it was, but for writing.
            assert os.listdir(folder) == ["d"]
            assert draft.read_at(0, 5) == BODY[:5]
            with pytest.raises(StorageFailed):
                draft.write_at(b"x", 0)
            draft.discard()
            assert os.listdir(folder) == []
            assert get(store, "a/b/f") == BODY
            assert store.head(parse("a/b/f")) == published.entry
            assert (tmp_path / "a/b/f").stat().st_nlink == 1

    def test_the_same_bytes_by_somebody_else(self, tmp_path: Path, folder: Path, durability: str, proc: bool) -> None:
        with opened(tmp_path, durability=durability, disk=None if proc else no_proc()) as store:
            first = put(store, "f", BODY, Metadata("text/plain", owner="bob"))
            for digest in (None, DIGEST):
                draft = draft_of(store, "d", BODY)
                published = publish_draft(store, draft, "f", len(BODY), digest)
                assert published == Published(Outcome.SAME, first.entry)
                assert os.listdir(folder) == ["d"]
                draft.discard()

    def test_other_bytes(self, tmp_path: Path, folder: Path, durability: str, proc: bool) -> None:
        with opened(tmp_path, durability=durability, disk=None if proc else no_proc()) as store:
            first = put(store, "f", BODY[:-1] + b"!")
            draft = draft_of(store, "d", BODY)
            for size in (len(BODY), len(BODY)):
                assert publish_draft(store, draft, "f", size) == Published(Outcome.CONFLICT, first.entry)
            draft.close()
            assert (folder / "d").read_bytes() == BODY
            assert get(store, "f") == BODY[:-1] + b"!"
            again = store.draft("d", create=False)
            assert again is not None
            assert publish_draft(store, again, "g", len(BODY)).outcome is Outcome.CREATED
            again.discard()

    def test_nothing_at_all(self, tmp_path: Path, durability: str, proc: bool) -> None:
        with opened(tmp_path, durability=durability, disk=None if proc else no_proc(), dedup=True) as store:
            draft = draft_of(store, "d")
            assert publish_draft(store, draft, "f", 0, "blake3:" + blake3().hexdigest()).outcome is Outcome.CREATED
            assert get(store, "f") == b""
            draft.discard()
            assert list((tmp_path / PRIVATE / "blobs").iterdir()) == []


class TestRefusals:
    def test_another_size(self, tmp_path: Path) -> None:
        for durability in ("full", "relaxed"):
            with opened(tmp_path / durability, durability=durability) as store:
                draft = draft_of(store, "d", BODY)
                with pytest.raises(StorageFailed, match="size"):
                    publish_draft(store, draft, "f", len(BODY) + 1)
                draft.close()
                assert tree(tmp_path / durability) == {}

    def test_bytes_behind_the_end_are_dropped(self, tmp_path: Path) -> None:
        for durability in ("full", "relaxed"):
            with opened(tmp_path / durability, durability=durability) as store:
                for number, size in enumerate((len(BODY) - 1, 1, 0)):
                    draft = draft_of(store, f"d{number}", BODY)
                    assert publish_draft(store, draft, f"f{number}", size).outcome is Outcome.CREATED
                    assert get(store, f"f{number}") == BODY[:size]
                    draft.discard()

    def test_a_draft_that_is_closed(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, "d", BODY)
            draft.close()
            with pytest.raises(StorageFailed, match="closed"):
                publish_draft(store, draft, "f", len(BODY))

    def test_a_draft_of_another_kind(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store, pytest.raises(TypeError):
            store.publish_draft_soon(cast("Draft", object()), parse("f"), PNG, 0, None, print)

    def test_a_folder_in_the_way_and_a_name_too_long(self, tmp_path: Path, folder: Path) -> None:
        (tmp_path / "a").mkdir()
        disk = FailingDisk(frozenset({"link"}), error=errno.ENAMETOOLONG)
        with opened(tmp_path, disk=disk) as store:
            draft = draft_of(store, "d", BODY)
            assert publish_draft(store, draft, "a", len(BODY)) == Published(Outcome.CONFLICT, None)

            disk.number = disk.count
            with pytest.raises(PathRefused):
                publish_draft(store, draft, "b", len(BODY))
            assert os.listdir(folder) == ["d"]
            draft.discard()

    def test_a_draft_that_somebody_removed_by_hand(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, "d", BODY)
            (folder / "d").unlink()
            with pytest.raises(StorageFailed):
                publish_draft(store, draft, "f", len(BODY))
            draft.discard()

    def test_workers_that_were_shut_down(self, tmp_path: Path) -> None:
        pool = ThreadPoolExecutor(1)
        with opened(tmp_path, submit=pool.submit) as store:
            draft = draft_of(store, "d", BODY)
            pool.shutdown()
            with pytest.raises(StorageBusy):
                publish_draft(store, draft, "f", len(BODY))
            draft.close()
            draft_of(store, "d").close()


class TestLettingGoMeanwhile:
    """A publish under way keeps the file; the caller may go."""

    @pytest.mark.parametrize("end", ["close", "discard"])
    def test_it_is_published_all_the_same(self, tmp_path: Path, end: str) -> None:
        queued: list[Any] = []
        before = open_descriptors()
        with opened(tmp_path, submit=queued.append) as store:
            draft = draft_of(store, "d", BODY)
            ready = threading.Event()
            results: list[object] = []

            def done(result: object) -> None:
                results.append(result)
                ready.set()

            draft.sync()
            store.publish_draft_soon(draft, parse("f"), PNG, len(BODY), None, done)
            draft.close()
            assert not store.drop_draft("d"), "it is held until the publish ends"
            queued.pop()()
            assert ready.wait(30)
            (result,) = results
            assert isinstance(result, Published)
            assert result.outcome is Outcome.CREATED
            assert get(store, "f") == BODY
            assert store.drop_draft("d")
        assert open_descriptors() <= before

    def test_done_may_discard(self, tmp_path: Path, folder: Path) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, "d", BODY)
            ready = threading.Event()

            def done(_: object) -> None:
                draft.discard()
                ready.set()

            store.publish_draft_soon(draft, parse("f"), PNG, len(BODY), None, done)
            assert ready.wait(30)
            assert os.listdir(folder) == []
            assert get(store, "f") == BODY

    def test_two_drafts_race_for_one_path(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store, ThreadPoolExecutor(4) as pool:
            drafts = [draft_of(store, f"d{i}", b"%d" % (i // 2)) for i in range(4)]
            found = list(pool.map(lambda draft: publish_draft(store, draft, "f", 1).outcome.name, drafts))
            assert sorted(found) == ["CONFLICT", "CONFLICT", "CREATED", "SAME"]
            for draft in drafts:
                draft.discard()


class TestDedup:
    def test_a_draft_becomes_the_blob_and_later_ones_share_it(self, tmp_path: Path) -> None:
        with opened(tmp_path, dedup=True) as store:
            for name in ("one", "two", "three"):
                draft = draft_of(store, name, BODY)
                assert publish_draft(store, draft, name, len(BODY), DIGEST).outcome is Outcome.CREATED
                draft.discard()
            put(store, "four", BODY)
            inodes = {(tmp_path / name).stat().st_ino for name in ("one", "two", "three", "four")}
            assert inodes == {blob(tmp_path, BODY).stat().st_ino}
            assert blob(tmp_path, BODY).stat().st_nlink == 5
        assert fsck.check(tmp_path, repair=False, clock=ManualClock(4e9)).problems == ()

    @pytest.mark.parametrize("digest", [None, DIGEST])
    def test_without_it_or_without_a_digest_nothing_is_shared(self, tmp_path: Path, digest: str | None) -> None:
        with opened(tmp_path, dedup=digest is None) as store:
            for name in ("one", "two"):
                draft = draft_of(store, name, BODY)
                publish_draft(store, draft, name, len(BODY), digest)
                draft.discard()
            assert (tmp_path / "one").stat().st_ino != (tmp_path / "two").stat().st_ino
            assert not blob(tmp_path, BODY).exists()
            entry = store.head(parse("one"))
            assert entry is not None
            assert entry.digest == digest

    def test_what_is_too_large_takes_no_part(self, tmp_path: Path) -> None:
        with opened(tmp_path, dedup=True, dedup_max_size=len(BODY) - 1) as store:
            draft = draft_of(store, "d", BODY)
            publish_draft(store, draft, "f", len(BODY), DIGEST)
            draft.discard()
            assert not blob(tmp_path, BODY).exists()

    @pytest.mark.parametrize("name", ["blake3", "sha256"])
    def test_hashers(self, tmp_path: Path, name: str) -> None:
        with opened(tmp_path, dedup=True, dedup_hash=name, dedup_max_size=100) as store:
            assert store.new_hasher(101) is None
            hasher = store.new_hasher(100)
            assert hasher is not None
            hasher.update(b"ab")
            branch = hasher.copy()
            hasher.update(memoryview(b"c"))
            assert store.digest_text(hasher) == put(store, "f", b"abc").entry.digest  # type: ignore[union-attr]
            assert store.digest_text(branch) == put(store, "g", b"ab").entry.digest  # type: ignore[union-attr]
            assert store.new_hasher(0) is not None
            store.configure(min_free_bytes=0, file_ttl=None, dedup=False, dedup_max_size=100)
            assert store.new_hasher(100) is None

    def test_a_blob_is_not_changed_through_the_draft_that_it_came_from(self, tmp_path: Path) -> None:
        with opened(tmp_path, dedup=True) as store:
            draft = draft_of(store, "d", BODY)
            publish_draft(store, draft, "f", len(BODY), DIGEST)
            with pytest.raises(StorageFailed):
                draft.write_at(b"EVIL", 0)
            assert get(store, "f") == BODY
            draft.discard()


class TestRepeats:
    """The receipt was lost: D-07, D-08, D-10."""

    @pytest.mark.parametrize("durability", ["full", "relaxed"])
    @pytest.mark.parametrize("dedup", [True, False])
    def test_the_same_inode_is_the_same_without_reading_it(self, tmp_path: Path, durability: str, dedup: bool) -> None:
        disk = FailingDisk(frozenset({"pread"}))
        with opened(tmp_path, durability=durability, dedup=dedup, disk=disk) as store:
            draft = draft_of(store, "d", BODY)
            first = publish_draft(store, draft, "a/f", len(BODY))
            assert publish_draft(store, draft, "a/f", len(BODY)) == Published(Outcome.SAME, first.entry)
            draft.close()
        with opened(tmp_path, durability=durability, dedup=dedup, disk=disk) as store:
            again = store.draft("d", create=False)
            assert again is not None
            assert publish_draft(store, again, "a/f", len(BODY)) == Published(Outcome.SAME, first.entry)
            again.discard()
            assert disk.count == 0
            assert store.head(parse("a/f")) == first.entry

    def test_a_twin_by_its_digest(self, tmp_path: Path) -> None:
        """The draft gave way to the blob that was there: other inode, same bytes."""
        disk = FailingDisk(frozenset({"pread"}))
        with opened(tmp_path, dedup=True, disk=disk) as store:
            put(store, "twin", BODY)
            draft = draft_of(store, "d", BODY)
            first = publish_draft(store, draft, "f", len(BODY), DIGEST)
            assert (tmp_path / "f").stat().st_ino == (tmp_path / "twin").stat().st_ino
            assert publish_draft(store, draft, "f", len(BODY), DIGEST) == Published(Outcome.SAME, first.entry)
            assert disk.count == 0
            # Its digest is not known any more after a restart, when nobody hashed it again.
            assert publish_draft(store, draft, "f", len(BODY)) == Published(Outcome.SAME, first.entry)
            assert disk.count > 0
            draft.discard()

    @pytest.mark.parametrize("durability", ["full", "relaxed"])
    @pytest.mark.parametrize("dedup", ["off", "first", "twin"])
    def test_a_kill_after_every_single_call(self, memory_path: Path, durability: str, dedup: str) -> None:
        """All that was done stays in the page cache; the next process repeats the publish until it is told."""

        def begin(root: Path, cut: int | None) -> tuple[PowerDisk, LocalFileStore]:
            root.mkdir(exist_ok=True)
            disk = PowerDisk(root, cut)
            store = LocalFileStore(
                root,
                disk=disk,
                durability=durability,
                dedup=dedup != "off",
                clock=ManualClock(),
                submit=lambda work: work(),
            )
            return disk, store

        def end(store: LocalFileStore, draft: Any) -> None:
            """What the kernel does for a process that is no more."""
            if draft is not None:
                with contextlib.suppress(PowerCut):
                    draft.close()
            with contextlib.suppress(PowerCut, StorageError):
                store.close()

        def publish(store: LocalFileStore, draft: Any) -> Published | StorageError:
            return attempt(lambda: publish_draft(store, draft, "a/b/f", len(BODY), DIGEST if dedup != "off" else None))

        def one_life(root: Path, cut: int | None) -> tuple[int, int, Published | StorageError | None]:
            """Counted calls before and after the publish, and its answer."""
            disk, store = begin(root, None)
            draft: Any = None
            try:
                store._committer.flush_soon = lambda: None  # type: ignore[method-assign]  # rows wait, and die with it
                if dedup == "twin":
                    put(store, "twin", BODY)
                    store.metadata.flush()
                draft = draft_of(store, "d", BODY)
                draft.sync()
                start = disk.calls
                disk.cut_after = None if cut is None else start + cut
                answer = publish(store, draft)
                published = disk.calls
                with contextlib.suppress(PowerCut):
                    draft.discard()
                return start, published, answer
            finally:
                end(store, draft)

        start, calls, whole = one_life(memory_path / "whole", None)
        assert isinstance(whole, Published)
        steps = calls - start
        assert steps >= (5 if durability == "full" else 3)
        outcomes = set()
        for cut in range(steps + 2):
            root = memory_path / f"{cut}"
            _, _, told = one_life(root, cut)
            _, store = begin(root, None)
            draft = store.draft("d", create=False)
            if draft is None:  # D-10 has happened: it was removed, so it had been told
                assert isinstance(told, Published)
                assert get(store, "a/b/f") == BODY
                end(store, None)
                continue
            first = publish(store, draft)
            assert isinstance(first, Published)
            outcomes.add(first.outcome)
            assert first.outcome in {Outcome.CREATED, Outcome.SAME}
            if isinstance(told, Published) and durability == "full":
                assert first == Published(Outcome.SAME, told.entry)
            # And once more, by the next process.
            end(store, draft)
            _, store = begin(root, None)
            draft = store.draft("d", create=False)
            assert draft is not None
            second = publish(store, draft)
            assert second == Published(Outcome.SAME, first.entry)
            draft.discard()
            assert store.head(parse("a/b/f")) == first.entry
            assert get(store, "a/b/f") == BODY
            end(store, None)
            assert fsck.check(root, repair=False, clock=ManualClock(4e9)).problems == ()
        assert outcomes == {Outcome.CREATED, Outcome.SAME}

    def test_a_link_whose_directory_was_never_synced_is_synced_by_the_repeat(self, tmp_path: Path) -> None:
        """D-07 without a power cut: the first process died between link and sync."""
        disk = FailingDisk(frozenset({"fsync"}))
        with opened(tmp_path) as store:
            put(store, "a/seed", b"x")
            draft = draft_of(store, "d", BODY)
            draft.sync()
            draft.close()
        os.link(tmp_path / PRIVATE / "uploads" / "d", tmp_path / "a" / "f")
        with opened(tmp_path, disk=disk) as store:
            again = store.draft("d", create=False)
            assert again is not None
            before = disk.count
            published = publish_draft(store, again, "a/f", len(BODY), None, Metadata("text/x-own"))
            assert published.outcome is Outcome.SAME
            assert disk.count >= before + 2, "the file and its directory"
            assert published.entry is not None
            assert published.entry.media_type == "text/x-own"
            assert store.metadata.committed("a/f") is not None
            again.discard()

    def test_one_that_was_deleted_meanwhile_is_published_again(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            draft = draft_of(store, "d", BODY)
            publish_draft(store, draft, "f", len(BODY))
            assert store.delete(parse("f"), "asked")
            assert publish_draft(store, draft, "f", len(BODY)).outcome is Outcome.CREATED
            draft.discard()
            assert get(store, "f") == BODY
