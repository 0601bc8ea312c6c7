"""The order of syncs, links, rows and answers, as the disk sees them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.files.stores import PNG, WatchedDisk, opened, put, put_soon

from hmac_file_server.files.contract import Entry, Outcome, Published
from hmac_file_server.files.paths import PRIVATE, parse


class RecordingDisk(WatchedDisk):
    """Writes down what it is asked for; descriptors are shown as the path they were opened under."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()

    def _name(self, fd: int | None) -> str:
        return self._names.get(-1 if fd is None else fd, "?")

    def _below(self, fd: int | None, name: str) -> str:
        above = self._name(fd)
        return name if above in {"?", "."} or name.startswith("/") else f"{above}/{name}"

    def after(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        with self._lock:
            if name == "open":
                path = str(args[0])
                root = path.startswith("/") and not path.startswith("/proc")
                shown = "." if root else "spool" if path == "." else self._below(kwargs.get("dir_fd"), path)
                self._names[result] = shown
            elif name in {"fsync", "fdatasync"}:
                self.events.append(f"{name} {self._name(args[0])}")
            elif name == "link":
                self.events.append(f"link {self._below(kwargs['dst_dir_fd'], args[1])}")
            elif name in {"mkdir", "unlink", "rmdir"}:
                self.events.append(f"{name} {self._below(kwargs.get('dir_fd'), args[0])}")
            elif name in {"commit", "sync"}:
                self.events.append(name)

    def take(self) -> list[str]:
        """What was written down since the last time."""
        with self._lock:
            events, self.events = self.events, []
        return events


def test_data_link_directory_row_answer(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk) as store:
        put(store, "a/seed", b"x")
        disk.take()
        spool = store.spool()
        spool.write(b"hello")
        store.publish_soon(spool, parse("a/f"), PNG, lambda _: disk.events.append("done"))
        store._committer.close()
        assert disk.take() == ["fdatasync spool", "link a/f", "fsync a", "commit", "done"]


def test_a_new_file_is_told_of_while_it_becomes_durable(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk) as store:
        put(store, "a/seed", b"x")
        disk.take()
        for content in (b"hello", b"hello", b"other"):
            spool = store.spool()
            spool.write(content)

            def placed(entry: Entry) -> None:
                disk.events.append(f"placed {entry.path} {entry.size}")

            ended = threading.Event()
            store.publish_soon(spool, parse("a/f"), PNG, lambda _, ended=ended: ended.set(), placed)  # type: ignore[misc]
            assert ended.wait(30)
            if content == b"hello" and "placed a/f 5" in disk.events:
                assert disk.take() == ["fdatasync spool", "link a/f", "placed a/f 5", "fsync a", "commit"]
        assert not [event for event in disk.take() if event.startswith("placed")], "it was there before"


def test_who_is_told_of_a_file_and_fails_does_no_harm(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        spool = store.spool()
        spool.write(b"hello")
        results: list[object] = []
        ended = threading.Event()

        def done(result: object) -> None:
            results.append(result)
            ended.set()

        store.publish_soon(spool, parse("a/f"), PNG, done, lambda _entry: 1 // 0)  # type: ignore[arg-type]
        assert ended.wait(30)
        assert isinstance(results[0], Published)


def test_new_directories_are_synced_up_to_the_root(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk) as store:
        disk.take()
        put(store, "a/b/c/f", b"x")
        events = disk.take()
        assert events[:5] == ["fdatasync spool", "mkdir a", "mkdir a/b", "mkdir a/b/c", "link a/b/c/f"]
        assert sorted(events[5:9]) == ["fsync .", "fsync a", "fsync a/b", "fsync a/b/c"]
        assert events[9:] == ["commit"]
        put(store, "a/b/c/g", b"x")
        assert disk.take() == ["fdatasync spool", "link a/b/c/g", "fsync a/b/c", "commit"]


def test_a_directory_that_another_process_made_is_not_trusted(tmp_path: Path) -> None:
    """Its maker may be about to sync its entry, or may have died before."""
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk) as store:
        (tmp_path / "a").mkdir()
        disk.take()
        put(store, "a/f", b"x")
        assert disk.take() == ["fdatasync spool", "link a/f", "fsync a", "fsync .", "commit"]


def test_a_batch_shares_its_syncs(tmp_path: Path) -> None:
    disk = RecordingDisk()
    # The data is synced in the calling thread, so that all jobs are queued while the committer is held up.
    with opened(tmp_path, disk=disk, submit=lambda work: work()) as store:
        for folder in "ab":
            put(store, f"{folder}/seed", b"x")
        gate = threading.Event()
        entered = threading.Event()

        def block(_: object) -> None:
            entered.set()
            gate.wait(30)

        store.publish_soon(store.spool(), parse("gate"), PNG, block)
        assert entered.wait(30)
        disk.take()
        waits = [put_soon(store, f"{'ab'[i % 2]}/{i}", b"%d" % i) for i in range(20)]
        gate.set()
        assert {wait().outcome for wait in waits} == {Outcome.CREATED}
        events = [event for event in disk.take() if not event.startswith("fdatasync")]
        links = [f"link {'ab'[i % 2]}/{i}" for i in range(20)]
        assert sorted(events[:20]) == sorted(links)
        assert sorted(events[20:22]) == ["fsync a", "fsync b"]
        assert events[22:] == ["commit"]


def test_relaxed_durability_syncs_nothing(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk, durability="relaxed", dedup=True) as store:
        disk.take()
        put(store, "a/f", b"x")
        put_soon(store, "a/g", b"y")()
        put(store, "a/f", b"x")
        store.delete(parse("a/g"), "asked")
        assert not [event for event in disk.take() if "sync" in event]


def test_a_deletion_is_synced_before_its_row_goes(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk) as store:
        put(store, "a/f", b"x")
        put(store, "a/g", b"x")
        disk.take()
        store.delete(parse("a/f"), "asked")
        assert disk.take() == ["unlink a/f", "fsync a", "commit"]


def test_same_is_answered_only_when_it_is_durable(tmp_path: Path) -> None:
    """A file without a row may be one whose publisher is between link and sync."""
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk) as store:
        (tmp_path / "f").write_bytes(b"hello")
        disk.take()
        assert put(store, "f", b"hello").outcome is Outcome.SAME
        assert disk.take() == ["fdatasync spool", "fsync f", "fsync .", "commit"]
        assert put(store, "f", b"hello").outcome is Outcome.SAME
        assert disk.take() == ["fdatasync spool"]


def test_a_comparison_is_same_only_when_it_is_durable(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk) as store:
        (tmp_path / "f").write_bytes(b"hello")
        comparison = store.compare(parse("f"))
        assert comparison is not None
        comparison.write(b"hello")
        disk.take()
        assert comparison.same()
        assert disk.take() == ["fsync f", "fsync ."]
        comparison.close()


@pytest.mark.parametrize("dedup", [False, True])
def test_a_dedup_hit_syncs_no_less_than_a_miss(tmp_path: Path, dedup: bool) -> None:
    disk = RecordingDisk()
    with opened(tmp_path, disk=disk, dedup=dedup) as store:
        put(store, "a/seed", b"seed")
        disk.take()
        syncs = []
        for path in ("a/first", "a/second"):
            put(store, path, b"the same bytes")
            syncs.append([event for event in disk.take() if "sync" in event or event == "commit"])
        assert syncs[0] == syncs[1] == ["fdatasync spool", "fsync a", "commit"]


def test_the_private_folder_and_the_root_are_durable_before_the_store_opens(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with opened(tmp_path / "x" / "y", disk=disk):
        events = disk.take()
    assert events[:4] == [f"mkdir {tmp_path / 'x'}", "fsync .", f"mkdir {tmp_path / 'x' / 'y'}", "fsync ."]
    assert events[-2:] == [f"fsync {PRIVATE}", "fsync ."]
