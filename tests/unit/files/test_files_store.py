"""The store as the rooms above use it, in both durabilities, with and without deduplication."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.files.stores import PNG, FailingDisk, ManualClock, get, open_descriptors, opened, put, put_soon

from hmac_file_server.clock import SystemClock
from hmac_file_server.files import media_types
from hmac_file_server.files.contract import (
    FileStore,
    Metadata,
    Outcome,
    Published,
    Reservation,
    StorageBusy,
    StorageFailed,
    StorageFull,
)
from hmac_file_server.files.local import LocalFileStore, LocalReader
from hmac_file_server.files.locking import lock
from hmac_file_server.files.paths import PRIVATE, parse


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "above" / "root"


@pytest.fixture(params=["full", "relaxed"])
def durability(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["plain", "dedup"])
def store(root: Path, durability: str, request: pytest.FixtureRequest) -> Iterator[LocalFileStore]:
    before = open_descriptors()
    with opened(root, durability=durability, dedup=request.param) as store:
        yield store
    del store
    assert open_descriptors() <= before


def test_the_store_fulfils_the_contract(root: Path) -> None:
    with opened(root) as store:
        contract: FileStore = store
        assert contract.head(parse("a")) is None


def test_a_published_file_is_read_with_its_metadata(store: LocalFileStore) -> None:
    meta = Metadata("text/x-own", "Ferien Größe.txt", "alice", 2_000_000_000.0, None)
    published = put(store, "a/b/c.txt", b"hello", meta)
    assert published.outcome is Outcome.CREATED
    entry = published.entry
    assert entry is not None
    assert (entry.path, entry.size, entry.media_type, entry.filename) == (
        "a/b/c.txt",
        5,
        "text/x-own",
        "Ferien Größe.txt",
    )
    assert (entry.owner, entry.expires, entry.created) == ("alice", 2_000_000_000.0, 1_800_000_000.0)
    assert entry.modified == 1_800_000_000
    assert entry.etag.startswith('"')
    assert entry.etag.endswith('"')
    assert store.head(parse("a/b/c.txt")) == entry
    reader = store.open(parse("a/b/c.txt"))
    assert reader is not None
    assert reader.entry == entry
    assert (reader.read(0, 99), reader.read(1, 2), reader.read(5, 9), reader.read(99, 9)) == (b"hello", b"el", b"", b"")
    descriptor = reader.fileno()
    assert descriptor is not None
    assert os.fstat(descriptor).st_size == 5
    reader.close()
    reader.close()
    assert reader.fileno() is None


def test_nothing_of_the_entry_changes_when_it_is_read_from_the_database(root: Path, durability: str) -> None:
    with opened(root, durability=durability) as store:
        entry = put(store, "a.bin", b"x" * 1000, Metadata(owner="bob")).entry
    with opened(root, durability=durability) as store:
        assert store.head(parse("a.bin")) == entry


@pytest.mark.parametrize("path", ["", "a", "a/b", "a/b/c"])
def test_where_nothing_is_there_is_nothing(store: LocalFileStore, path: str) -> None:
    put(store, "a/b/c/d", b"x")
    if path:
        assert store.head(parse(path)) is None
    assert store.head(parse("a/b/c/d/e")) is None
    assert store.head(parse("z/y")) is None
    assert store.compare(parse("z/y")) is None
    assert not store.delete(parse("z/y"), "asked")


def test_the_same_bytes_again_are_the_same_and_others_conflict(store: LocalFileStore) -> None:
    first = put(store, "a/f", b"hello")
    assert put(store, "a/f", b"hello", Metadata("text/other")) == Published(Outcome.SAME, first.entry)
    assert put(store, "a/f", b"hellO") == Published(Outcome.CONFLICT, first.entry)
    assert put(store, "a/f", b"hell") == Published(Outcome.CONFLICT, first.entry)
    assert get(store, "a/f") == b"hello"


def test_same_holds_for_files_larger_than_one_step(store: LocalFileStore) -> None:
    body = os.urandom(3 << 20)
    put(store, "big", body)
    assert put(store, "big", body).outcome is Outcome.SAME
    assert put(store, "big", body[:-1] + bytes([body[-1] ^ 1])).outcome is Outcome.CONFLICT


def test_what_is_no_file_in_the_way_is_a_conflict_without_an_entry(store: LocalFileStore) -> None:
    put(store, "a/b", b"x")
    assert put(store, "a", b"x") == Published(Outcome.CONFLICT, None)
    assert put(store, "a/b/c", b"x") == Published(Outcome.CONFLICT, None)


def test_a_fifo_in_the_tree_neither_blocks_nor_is_served(store: LocalFileStore, root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert store.open(parse("pipe")) is None
    assert put(store, "pipe", b"x") == Published(Outcome.CONFLICT, None)
    assert not store.delete(parse("pipe"), "asked")


def test_an_empty_file_is_a_file(store: LocalFileStore) -> None:
    assert put(store, "empty", b"").outcome is Outcome.CREATED
    assert get(store, "empty") == b""
    assert put(store, "empty", b"").outcome is Outcome.SAME


def test_publish_soon_answers_once_from_any_thread(store: LocalFileStore) -> None:
    waits = [put_soon(store, f"many/{i % 7}/{i}", b"%d" % i) for i in range(100)]
    assert {wait().outcome for wait in waits} == {Outcome.CREATED}
    assert all(get(store, f"many/{i % 7}/{i}") == b"%d" % i for i in range(100))


def test_of_many_for_one_path_one_wins(store: LocalFileStore) -> None:
    waits = [put_soon(store, "one/path", b"%d" % (i % 3)) for i in range(30)]
    outcomes = [wait().outcome for wait in waits]
    assert outcomes.count(Outcome.CREATED) == 1
    winner = get(store, "one/path")
    for i, outcome in enumerate(outcomes):
        assert (outcome is not Outcome.CONFLICT) == (b"%d" % (i % 3) == winner)


def test_a_discarded_spool_leaves_nothing(store: LocalFileStore, root: Path) -> None:
    spool = store.spool()
    spool.write(b"x" * 100_000)
    assert spool.size == 100_000
    spool.discard()
    spool.discard()
    with pytest.raises(StorageFailed):
        spool.write(b"more")
    assert sorted(os.listdir(root)) == [PRIVATE]
    assert os.listdir(root / PRIVATE / "spool") == []


def test_a_published_spool_has_ended(store: LocalFileStore) -> None:
    spool = store.spool()
    spool.write(b"x")
    store.publish(spool, parse("x"), PNG)
    spool.discard()
    assert get(store, "x") == b"x"
    with pytest.raises(StorageFailed):
        spool.write(b"more")


def test_write_takes_any_buffer_and_empty_ones(store: LocalFileStore) -> None:
    spool = store.spool()
    for piece in (b"a", bytearray(b"b"), memoryview(b"xcx")[1:2], b""):
        spool.write(piece)
    store.publish(spool, parse("x"), PNG)
    assert get(store, "x") == b"abc"


def test_a_spool_of_another_store_is_refused(store: LocalFileStore) -> None:
    class Foreign:
        size = 0
        digest = None

        def write(self, view: object) -> None: ...

        def discard(self) -> None: ...

    with pytest.raises(TypeError):
        store.publish(Foreign(), parse("x"), PNG)
    with pytest.raises(TypeError):
        store.publish_soon(Foreign(), parse("x"), PNG, lambda _: None)


def test_modes_are_private_to_the_server_and_its_group(store: LocalFileStore, root: Path) -> None:
    put(store, "a/b", b"x")
    assert stat.S_IMODE((root / "a/b").stat().st_mode) & ~0o640 == 0
    assert stat.S_IMODE((root / "a").stat().st_mode) & ~0o750 == 0
    for folder in (PRIVATE, f"{PRIVATE}/spool", f"{PRIVATE}/blobs"):
        assert stat.S_IMODE((root / folder).stat().st_mode) == 0o700


class TestShortBodies:
    def test_put_is_spool_and_publish_in_one(self, store: LocalFileStore) -> None:
        first = store.put(parse("a/f"), b"hello", PNG)
        assert first.outcome is Outcome.CREATED
        assert first.entry is not None
        assert (first.entry.size, first.entry.media_type) == (5, "image/png")
        assert store.put(parse("a/f"), memoryview(b"hello"), PNG) == Published(Outcome.SAME, first.entry)
        assert store.put(parse("a/f"), b"other", PNG) == Published(Outcome.CONFLICT, first.entry)
        assert get(store, "a/f") == b"hello"
        assert store._space.outstanding() == 0

    @pytest.mark.parametrize("number", range(12))
    def test_a_put_that_fails_leaves_nothing(self, root: Path, durability: str, number: int) -> None:
        disk = FailingDisk(frozenset({"write", "link", "open", "statvfs", "fdatasync"}), error=28)
        with opened(root, durability=durability, disk=disk) as store:
            store.put(parse("a/seed"), b"x", PNG)
            before = open_descriptors()
            disk.number, disk.count = number, 0
            try:
                published = store.put(parse("a/f"), b"hello", PNG)
            except StorageFull:
                assert disk.count == number + 1
                assert get(store, "a/f") is None
            else:
                assert disk.count <= number
                assert published.outcome is Outcome.CREATED
            disk.number = None
            assert open_descriptors() <= before
            assert os.listdir(root / PRIVATE / "spool") == []
            assert get(store, "a/seed") == b"x"

    def test_load_brings_short_files_whole_and_opens_long_ones(self, store: LocalFileStore) -> None:
        entry = put(store, "a/f", b"hello").entry
        assert store.load(parse("a/f"), 5) == (entry, b"hello")
        reader = store.load(parse("a/f"), 4)
        assert isinstance(reader, LocalReader)
        assert (reader.entry, reader.read(0, 9)) == (entry, b"hello")
        reader.close()
        assert store.load(parse("a"), 5) is None
        assert store.load(parse("b"), 5) is None
        put(store, "empty", b"")
        loaded = store.load(parse("empty"), 5)
        assert isinstance(loaded, tuple)
        assert loaded[1] == b""

    def test_load_after_a_change_by_hand(self, store: LocalFileStore, root: Path) -> None:
        put(store, "f", b"hello")
        assert store.load(parse("f"), 99) is not None
        (root / "f").write_bytes(b"hi")
        loaded = store.load(parse("f"), 99)
        assert isinstance(loaded, tuple)
        assert (loaded[0].size, loaded[1]) == (2, b"hi")

    def test_a_failed_read_closes_the_file(self, root: Path) -> None:
        disk = FailingDisk(frozenset({"pread"}), 0)
        with opened(root, disk=disk) as store:
            put(store, "f", b"hello")
            before = open_descriptors()
            with pytest.raises(StorageFailed):
                store.load(parse("f"), 99)
            assert open_descriptors() == before


def test_new_settings_take_effect_without_reopening(root: Path) -> None:
    clock = ManualClock()
    with opened(root, clock=clock) as store:
        put(store, "a", b"same")
        put(store, "b", b"same")
        store.configure(min_free_bytes=0, file_ttl=60.0, dedup=True, dedup_max_size=4)
        put(store, "c", b"same")
        put(store, "d", b"same")
        put(store, "e", b"long!")
        inodes = {name: (root / name).stat().st_ino for name in "abcde"}
        assert inodes["a"] != inodes["b"] != inodes["c"] == inodes["d"]
        entry = store.head(parse("e"))
        assert entry is not None
        assert entry.digest is None
        store.configure(min_free_bytes=1 << 60, file_ttl=60.0, dedup=False, dedup_max_size=4)
        with pytest.raises(StorageFull):
            store.admit(0)
        clock.advance(61)
        assert len(store.expire(clock.time())) == 5


class TestComparing:
    def compare(self, store: LocalFileStore, path: str, *pieces: bytes) -> bool:
        comparison = store.compare(parse(path))
        assert comparison is not None
        for piece in pieces:
            comparison.write(memoryview(piece))
        same = comparison.same()
        comparison.close()
        comparison.close()
        return same

    def test_pieces_are_compared_in_order(self, store: LocalFileStore) -> None:
        put(store, "f", b"hello world")
        assert self.compare(store, "f", b"hello", b" ", b"world")
        assert self.compare(store, "f", b"hello world")
        assert not self.compare(store, "f", b"hello")
        assert not self.compare(store, "f", b"hello world", b"!")
        assert not self.compare(store, "f", b"hello", b"_", b"world")
        assert not self.compare(store, "f", b"hellx", b"o world")
        assert not self.compare(store, "f")

    def test_large_pieces(self, store: LocalFileStore) -> None:
        body = os.urandom((2 << 20) + 17)
        put(store, "f", body)
        assert self.compare(store, "f", body)
        assert not self.compare(store, "f", body + b"x")
        assert not self.compare(store, "f", body[:-1] + bytes([body[-1] ^ 1]))

    def test_nothing_is_stored(self, store: LocalFileStore, root: Path) -> None:
        put(store, "f", b"hello")
        before = sorted(os.listdir(root))
        self.compare(store, "f", b"other")
        assert sorted(os.listdir(root)) == before
        assert get(store, "f") == b"hello"

    def test_a_file_deleted_meanwhile_is_still_compared(self, store: LocalFileStore) -> None:
        put(store, "f", b"hello")
        comparison = store.compare(parse("f"))
        assert comparison is not None
        assert comparison.entry.size == 5
        store.delete(parse("f"), "asked")
        comparison.write(b"hellO")
        assert not comparison.same()
        comparison.close()


class TestDeleting:
    def test_deleted_is_gone_and_logged_and_may_be_published_again(self, root: Path, durability: str) -> None:
        events: list[tuple[str, dict[str, object]]] = []
        with opened(root, durability=durability, log=lambda event, **fields: events.append((event, fields))) as store:
            put(store, "a/b/c", b"old")
            assert store.delete(parse("a/b/c"), "request by token")
            assert events == [("file_deleted", {"path": "a/b/c", "size": 3, "reason": "request by token"})]
            assert store.head(parse("a/b/c")) is None
            assert not (root / "a").exists(), "empty parents go with the file"
            assert put(store, "a/b/c", b"new", Metadata("text/plain")).outcome is Outcome.CREATED
            entry = store.head(parse("a/b/c"))
            assert entry is not None
            assert entry.media_type == "text/plain"

    def test_parents_that_are_not_empty_stay(self, store: LocalFileStore, root: Path) -> None:
        put(store, "a/b/c", b"1")
        put(store, "a/x", b"2")
        store.delete(parse("a/b/c"), "asked")
        assert sorted(os.listdir(root / "a")) == ["x"]

    def test_a_reader_that_is_forgotten_closes_its_file(self, store: LocalFileStore) -> None:
        put(store, "f", b"hello")
        before = open_descriptors()
        reader = store.open(parse("f"))
        assert reader is not None
        del reader
        assert open_descriptors() == before

    def test_a_reader_keeps_its_bytes(self, store: LocalFileStore) -> None:
        put(store, "f", b"hello")
        reader = store.open(parse("f"))
        assert reader is not None
        store.delete(parse("f"), "asked")
        assert reader.read(0, 5) == b"hello"
        reader.close()

    def test_a_row_without_its_file_goes_too(self, store: LocalFileStore, root: Path) -> None:
        put(store, "f", b"hello")
        (root / "f").unlink()
        assert store.head(parse("f")) is None
        assert not store.delete(parse("f"), "asked")
        assert store.metadata.get("f") is None


class TestFilesThatWereThereBefore:
    def test_they_are_served_by_extension_and_time(self, store: LocalFileStore, root: Path) -> None:
        (root / "old").mkdir()
        (root / "old/Photo.JPG").write_bytes(b"jpeg")
        os.utime(root / "old/Photo.JPG", ns=(0, 1_500_000_000_123_456_789))
        entry = store.head(parse("old/Photo.JPG"))
        assert entry is not None
        assert (entry.media_type, entry.size, entry.modified, entry.filename) == (
            "image/jpeg",
            4,
            1_500_000_000,
            "Photo.JPG",
        )
        assert entry.created == pytest.approx(1_500_000_000.123456)
        assert entry.etag == f'"{1_500_000_000_123_456_789:x}-4"'
        assert (entry.owner, entry.expires, entry.digest) == (None, None, None)

    def test_a_repeat_of_them_is_the_same_and_gives_them_a_row(self, store: LocalFileStore, root: Path) -> None:
        (root / "f").write_bytes(b"hello")
        os.utime(root / "f", (0, 1_500_000_000))
        assert put(store, "f", b"hello").outcome is Outcome.SAME
        assert put(store, "f", b"other").outcome is Outcome.CONFLICT
        row = store.metadata.get("f")
        assert row is not None
        assert (row.media_type, row.created) == ("image/png", 1_500_000_000.0)

    def test_one_that_is_changed_in_place_is_seen_changed(self, store: LocalFileStore, root: Path) -> None:
        put(store, "f.txt", b"hello", Metadata("text/x-own"))
        assert get(store, "f.txt") == b"hello"
        (root / "f.txt").write_bytes(b"something longer")
        entry = store.head(parse("f.txt"))
        assert entry is not None
        assert (entry.size, entry.media_type) == (16, "text/plain")
        assert get(store, "f.txt") == b"something longer"

    def test_one_that_is_replaced_by_hand_is_seen_replaced(self, store: LocalFileStore, root: Path) -> None:
        put(store, "f", b"hello")
        assert get(store, "f") == b"hello"
        (root / "new").write_bytes(b"hullo there")
        (root / "new").rename(root / "f")
        assert get(store, "f") == b"hullo there"

    def test_an_unreadable_directory_is_as_good_as_none(self, root: Path) -> None:
        with opened(root) as store:
            put(store, "a/f", b"x")
        disk = FailingDisk(frozenset({"open"}), error=13)
        with opened(root, disk=disk) as store:
            disk.number, disk.times, disk.count = 0, 99, 0
            assert store.head(parse("a/f")) is None
            disk.number = None


class TestDirectories:
    def test_one_removed_by_hand_is_made_again(self, store: LocalFileStore, root: Path) -> None:
        put(store, "a/b/f", b"1")
        (root / "a/b/f").unlink()
        (root / "a/b").rmdir()
        (root / "a").rmdir()
        assert store.head(parse("a/b/f")) is None
        assert put(store, "a/b/g", b"2").outcome is Outcome.CREATED
        assert get(store, "a/b/g") == b"2"

    def test_one_replaced_by_hand_is_found(self, store: LocalFileStore, root: Path) -> None:
        put(store, "a/f", b"1")
        (root / "a/f").unlink()
        (root / "a").rmdir()
        (root / "a").mkdir()
        (root / "a/f").write_bytes(b"by hand")
        assert get(store, "a/f") == b"by hand"

    def test_one_moved_by_hand_is_noticed_within_a_second(self, root: Path) -> None:
        clock = ManualClock()
        with opened(root, clock=clock) as store:
            put(store, "a/f", b"1")
            (root / "a").rename(root / "b")
            clock.advance(2)
            assert store.head(parse("a/f")) is None
            assert get(store, "b/f") == b"1"
            put(store, "a/g", b"2")
            assert (root / "a/g").read_bytes() == b"2"

    def test_more_directories_than_the_cache_holds(self, store: LocalFileStore) -> None:
        before = len(open_descriptors())
        for i in range(700):
            put_soon(store, f"{i}/f", b"%d" % i)() if i % 50 == 0 else store._directories.make(f"{i}")
        assert len(open_descriptors()) - before < 600
        assert len(store._directories) <= 512
        assert get(store, "650/f") == b"650"

    def test_pruning_against_publishing(self, store: LocalFileStore) -> None:
        """Publishers make a directory that a deleter prunes at the same time; nobody ever fails."""
        stop = threading.Event()
        faults: list[BaseException] = []

        def prune() -> None:
            try:
                while not stop.is_set():
                    store.delete(parse("race/dir/seed"), "race")
            except BaseException as error:
                faults.append(error)

        thread = threading.Thread(target=prune)
        thread.start()
        try:
            for i in range(150):
                assert put(store, "race/dir/seed", b"%d" % i).outcome in {Outcome.CREATED, Outcome.CONFLICT}
                assert put(store, f"race/dir/{i}", b"x").outcome is Outcome.CREATED
                assert store.delete(parse(f"race/dir/{i}"), "done")
        finally:
            stop.set()
            thread.join()
        assert faults == []


class TestOpeningAndClosing:
    def test_close_is_idempotent_and_waits_for_what_was_begun(self, root: Path, durability: str) -> None:
        with opened(root, durability=durability) as store:
            waits = [put_soon(store, f"f{i}", b"x") for i in range(50)]
            store.close()
            store.close()
            assert {wait().outcome for wait in waits} == {Outcome.CREATED}
        with opened(root) as store:
            assert all(store.metadata.committed(f"f{i}") is not None for i in range(50))

    def test_workers_that_are_gone_are_answered_as_busy(self, root: Path) -> None:
        def submit(work: object) -> None:
            raise RuntimeError("cannot schedule new futures after shutdown")

        with opened(root, submit=submit) as store:
            wait = put_soon(store, "f", b"x")
            with pytest.raises(StorageBusy):
                wait()

    def test_a_callback_that_raises_harms_nobody(self, root: Path) -> None:
        events: list[str] = []
        with opened(root, log=lambda event, **_: events.append(event)) as store:

            def done(result: object) -> None:
                raise ValueError("a fault of the caller")

            spool = store.spool()
            store.publish_soon(spool, parse("a"), PNG, done)
            assert put(store, "b", b"x").outcome is Outcome.CREATED
        assert events == ["publish_callback_failed"]

    def test_two_stores_on_one_tree_see_each_other(self, root: Path, durability: str) -> None:
        with opened(root, durability=durability) as one, opened(root, durability=durability) as two:
            put(one, "a/f", b"1")
            assert get(two, "a/f") == b"1"
            assert put(two, "a/f", b"1").outcome is Outcome.SAME
            assert two.delete(parse("a/f"), "asked")
            assert get(one, "a/f") is None
            assert put(one, "a/f", b"2").outcome is Outcome.CREATED
            assert get(two, "a/f") == b"2"

    def test_what_another_process_has_no_row_for_yet_is_not_remembered(self, root: Path) -> None:
        # The age of a file is told by the kernel's clock, so this needs the real one.
        with (
            opened(root, durability="relaxed", clock=SystemClock()) as one,
            opened(root, durability="relaxed", clock=SystemClock()) as two,
        ):
            one._committer.flush_soon = lambda: None  # type: ignore[method-assign]
            put(one, "f.txt", b"1", Metadata("text/x-own"))
            early = two.head(parse("f.txt"))
            assert early is not None
            assert early.media_type == "text/plain", "all that is known is the extension"
            one.metadata.flush()
            late = two.head(parse("f.txt"))
            assert late is not None
            assert late.media_type == "text/x-own"

    def test_one_server_a_store(self, root: Path) -> None:
        from hmac_file_server.files.contract import StoreInUse

        with lock(root) as held:
            with pytest.raises(StoreInUse) as refused:
                lock(root)
            assert refused.value.code == "store_in_use"
            held.release()
            lock(root).release()

    def test_a_folder_that_is_made_for_a_store_is_not_for_everybody(self, tmp_path: Path) -> None:
        """The names in it are half of every link."""
        place = tmp_path / "new" / "store"
        lock(place).release()
        assert stat.S_IMODE(place.stat().st_mode) & ~0o750 == 0
        assert stat.S_IMODE((place / PRIVATE).stat().st_mode) == 0o700

    def test_switching_from_relaxed_to_full_syncs_everything_once(self, root: Path) -> None:
        with opened(root, durability="relaxed") as store:
            put(store, "f", b"x")
        for expected in (1, 0):
            disk = FailingDisk(frozenset({"sync"}))
            with opened(root, disk=disk):
                assert disk.count == expected


class TestReservations:
    def test_a_spool_consumes_and_releases_its_reservation(self, store: LocalFileStore) -> None:
        reservation: Reservation = store.admit(10 << 20)
        spool = store.spool(10 << 20, reservation)
        assert store._space.outstanding() == 10 << 20
        for _ in range(10):
            spool.write(bytes(1 << 20))
        assert store._space.outstanding() == 2 << 20
        store.publish(spool, parse("f"), PNG)
        assert store._space.outstanding() == 0

    def test_a_discarded_spool_releases_too(self, store: LocalFileStore) -> None:
        spool = store.spool(100, store.admit(100))
        spool.discard()
        assert store._space.outstanding() == 0


class TestTickets:
    def test_uses_are_counted_across_stores_and_restarts(self, root: Path, durability: str) -> None:
        with opened(root, durability=durability) as one, opened(root, durability=durability) as two:
            assert one.take_ticket("t", 3, 9e9)
            assert two.take_ticket("t", 3, 9e9)
            assert one.take_ticket("t", 3, 9e9)
            assert not two.take_ticket("t", 3, 9e9)
            two.give_back_ticket("t")
            assert one.take_ticket("t", 3, 9e9)
        with opened(root, durability=durability) as store:
            assert not store.take_ticket("t", 3, 9e9)
            assert store.take_ticket("other", 1, 9e9)
            assert not store.take_ticket("none", 0, 9e9)
            for _ in range(9):
                store.give_back_ticket("other")
            assert [store.take_ticket("other", 1, 9e9) for _ in range(2)] == [True, False]

    def test_fifty_threads_never_take_one_too_many(self, root: Path) -> None:
        with opened(root, durability="relaxed") as store:
            taken: list[bool] = []
            threads = [
                threading.Thread(target=lambda: taken.append(store.take_ticket("t", 20, 9e9))) for _ in range(50)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert taken.count(True) == 20


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "image/png"),
        ("a/b.d/c.TAR.GZ", "application/gzip"),
        ("photo.jpeg", "image/jpeg"),
        ("noext", "application/octet-stream"),
        ("a.unknown", "application/octet-stream"),
        ("a.html", "text/html"),
        ("a.svg", "image/svg+xml"),
    ],
)
def test_media_types_by_name(name: str, expected: str) -> None:
    assert media_types.by_name(name) == expected
