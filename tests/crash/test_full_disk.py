"""Real full disks: a file system in memory with little space, and one with few inodes. Needs root to mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hmac_file_server.clock import SystemClock
from hmac_file_server.files import fsck
from hmac_file_server.files.contract import Metadata, Outcome, StorageError, StorageFull
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import PRIVATE, parse

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mounted-{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no mount here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def put(store: LocalFileStore, path: str, body: bytes) -> Outcome:
    spool = store.spool(len(body), store.admit(len(body)))
    try:
        spool.write(body)
        return store.publish(spool, parse(path), Metadata()).outcome
    finally:
        spool.discard()


def occupy(file: Path) -> None:
    """Take what space there is."""
    with file.open("wb", buffering=0) as taken, contextlib.suppress(OSError):
        while True:
            taken.write(bytes(4096))


def fill(store: LocalFileStore, size: int) -> list[str]:
    """Upload until the store says that it is full."""
    stored: list[str] = []
    for number in range(10_000):
        path = f"{number}/f"
        try:
            assert put(store, path, bytes([number % 256]) * size) is Outcome.CREATED
        except StorageFull:
            return stored
        stored.append(path)
    raise AssertionError("the disk never filled")


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize(("options", "size"), [("size=8m", 100_000), ("size=64m,nr_inodes=80", 100)])
def test_a_full_disk(mount: Mount, pool: ThreadPoolExecutor, options: str, size: int, durability: str) -> None:
    """S-55, S-56, D-16: refused cleanly; reading and deleting go on; uploads go on when there is space again."""
    root = mount(options) / "root"
    store = LocalFileStore(root, durability=durability, min_free_bytes=1 << 20, clock=SystemClock(), submit=pool.submit)
    try:
        stored = fill(store, size)
        assert len(stored) > 20
        assert os.listdir(root / PRIVATE / "spool") == []
        for path in stored:
            reader = store.open(parse(path))
            assert reader is not None
            assert len(reader.read(0, size + 1)) == size
            reader.close()
        for path in stored[:3]:
            assert store.delete(parse(path), "asked")
        assert put(store, "again", b"x" * size) is Outcome.CREATED
    finally:
        store.close()
    assert fsck.check(root, repair=False).problems == ()


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_disk_that_fills_under_an_admitted_upload(mount: Mount, pool: ThreadPoolExecutor, durability: str) -> None:
    """Somebody else took the space: the write says so, nothing is visible, nothing is kept."""
    place = mount("size=8m")
    store = LocalFileStore(place / "root", durability=durability, clock=SystemClock(), submit=pool.submit)
    try:
        spool = store.spool(1 << 20, store.admit(1 << 20))
        occupy(place / "somebody else")
        with pytest.raises(StorageFull):
            spool.write(bytes(1 << 20))
        spool.discard()
        with pytest.raises(StorageFull):
            store.admit(1 << 20)
        (place / "somebody else").unlink()
        assert put(store, "f", bytes(1 << 20)) is Outcome.CREATED
    finally:
        store.close()


def test_no_space_for_metadata_is_no_false_answer(mount: Mount, pool: ThreadPoolExecutor) -> None:
    place = mount("size=4m")
    store = LocalFileStore(place / "root", clock=SystemClock(), submit=pool.submit)
    try:
        spool = store.spool()
        spool.write(b"hello")
        occupy(place / "somebody else")
        try:
            store.publish(spool, parse("a/b/c/d/e/f"), Metadata("text/x-own"))
            acknowledged = True
        except StorageError:
            acknowledged = False
        (place / "somebody else").unlink()
        if not acknowledged:
            assert put(store, "a/b/c/d/e/f", b"hello") in {Outcome.CREATED, Outcome.SAME}
        entry = store.head(parse("a/b/c/d/e/f"))
        assert entry is not None
        assert entry.size == 5
    finally:
        store.close()
