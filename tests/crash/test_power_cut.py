"""Real power cuts below the store: ext4 and xfs on a loop device, shut down in the middle of the work by FS_IOC_SHUTDOWN.

See `volumes`.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest
from blake3 import blake3
from tests.crash.volumes import EXT4, KINDS, NoVolumeError, Volume, mounted

from hmac_file_server.clock import SystemClock
from hmac_file_server.files import fsck
from hmac_file_server.files.contract import Metadata, Outcome, StorageError
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import PRIVATE, parse

CYCLES = {kind: 25 if kind == EXT4 else 6 for kind in KINDS}
WORKERS = 8


@pytest.fixture(params=KINDS)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    try:
        with mounted(tmp_path / "volume", size=96 << 20, kind=request.param) as volume:
            yield volume
    except NoVolumeError as error:
        pytest.skip(str(error))


def body_of(path: str) -> bytes:
    """The bytes that belong to a path, of 1 byte to 40 KiB; some paths share theirs."""
    seed = path.rpartition("-")[2]
    length = 1 + int.from_bytes(blake3(seed.encode()).digest(2)) % 40_000
    return blake3(seed.encode()).digest(length)


class Clients:
    """Threads that upload until the power goes, and remember what they were told."""

    def __init__(self, store: LocalFileStore, cycle: int, enough: int) -> None:
        self.store = store
        self.cycle = cycle
        self.enough = enough
        self.told: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.ready = threading.Event()
        self.stop = threading.Event()
        self.faults: list[BaseException] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(WORKERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def heard(self) -> tuple[dict[str, str], set[str]]:
        """What was acknowledged by now: files with their types, deletions.

        Asked for right before the cut. A sync that is under way while the file system is shut down can return
        success although its journal commit was dropped; with a real power cut nobody hears of it.
        """
        with self._lock:
            return dict(self.told), set(self.deleted)

    def _run(self, worker: int) -> None:
        chance = random.Random(f"{self.cycle} {worker}")
        try:
            for number in range(100_000):
                if self.stop.is_set():
                    return
                folder = (
                    f"{self.cycle}/{chance.randrange(5)}"
                    if chance.random() < 0.5
                    else f"{self.cycle}-{worker}-{number}/new"
                )
                path = f"{folder}/{worker}.{number}-{chance.randrange(200)}"
                media_type = f"text/x-{worker}"
                spool = self.store.spool()
                try:
                    spool.write(body_of(path))
                    result = self.store.publish(spool, parse(path), Metadata(media_type))
                finally:
                    spool.discard()
                assert result.outcome is Outcome.CREATED
                with self._lock:
                    self.told[path] = media_type
                    if len(self.told) >= self.enough:
                        self.ready.set()
                if chance.random() < 0.1:
                    with self._lock:
                        del self.told[path]
                    if self.store.delete(parse(path), "asked"):
                        with self._lock:
                            self.deleted.add(path)
        except StorageError:
            pass  # the power is gone
        except BaseException as error:
            self.faults.append(error)
        finally:
            self.ready.set()


def cycle(volume: Volume, number: int, disk: Callable[[], Disk] = Disk) -> tuple[dict[str, str], set[str]]:
    """Work, cut the power, mount again; what the clients had been told: files with their types, deletions."""
    root = volume.mount_point / "root"
    with ThreadPoolExecutor(4) as pool:
        store = LocalFileStore(root, dedup=number % 2 == 1, clock=SystemClock(), submit=pool.submit, disk=disk())
        try:
            with Clients(store, number, enough=random.Random(number).randrange(1, 120)) as clients:
                clients.ready.wait(60)
                told, deleted = clients.heard()
                volume.cut()
            assert clients.faults == []
        finally:
            with contextlib.suppress(StorageError):  # nothing can be written any more
                store.close()
    volume.replay()
    # What was promised and then given up again, while the power went, may be there or not.
    return {path: kind for path, kind in told.items() if path in clients.told}, deleted


def losses(volume: Volume, told: dict[str, str], deleted: set[str]) -> list[str]:
    """What was promised and is not there, and what is there and is not whole."""
    root = volume.mount_point / "root"
    found = []
    with ThreadPoolExecutor(2) as pool:
        store = LocalFileStore(root, clock=SystemClock(), submit=pool.submit)
        try:
            for path, media_type in told.items():
                reader = store.open(parse(path))
                if reader is None:
                    found.append(f"{path}: lost")
                    continue
                body = reader.read(0, 1 << 20)
                reader.close()
                if body != body_of(path):
                    found.append(f"{path}: {len(body)} bytes, not what was uploaded")
                elif reader.entry.media_type != media_type:
                    found.append(f"{path}: metadata lost")
            found += [f"{path}: back from the dead" for path in deleted if store.head(parse(path)) is not None]
        finally:
            store.close()
    for folder, folders, files in os.walk(root):
        if PRIVATE in folders:
            folders.remove(PRIVATE)
        for name in files:
            path = os.path.relpath(os.path.join(folder, name), root)
            if Path(folder, name).read_bytes() != body_of(path):
                found.append(f"{path}: visible, but not whole")
    return found


def test_nothing_acknowledged_is_lost(volume: Volume) -> None:
    """G-03: every cut in the middle of eight clients' uploads, on one file system that lives through all of them."""
    told: dict[str, str] = {}
    deleted: set[str] = set()
    cycles = CYCLES[volume.kind]
    for number in range(cycles):
        new, gone = cycle(volume, number)
        told |= new
        deleted |= gone
        assert losses(volume, new, gone) == []
    assert len(told) > 10 * cycles
    assert losses(volume, told, deleted) == []
    report = fsck.check(volume.mount_point / "root", repair=True)
    assert {problem.code for problem in report.problems} <= {"row_without_file", "file_without_row", "orphan_blob"}
    assert fsck.check(volume.mount_point / "root", repair=False).problems == ()


class NoFileSync(Disk):
    """The negative control: data is not synced."""

    fdatasync = staticmethod(os.fstat)  # type: ignore[assignment]


def test_without_the_sync_of_files_the_same_cuts_lose_some(volume: Volume) -> None:
    """Else the test above would prove nothing."""
    found: list[str] = []
    for number in range(8):
        told, deleted = cycle(volume, number, NoFileSync)
        found += losses(volume, told, deleted)
    assert any("not what was uploaded" in text or "not whole" in text or "lost" in text for text in found)
