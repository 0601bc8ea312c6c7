"""A disk whose every write is recorded, and what a power cut at any place of the record may have left of it.

`recorded` mounts an ext4 on it: nbdkit with `block_recorder`, nbdfuse, a loop device. `BlockLog` reads the record,
`Replay` makes the disk of a cut: all that was written before the last flush that had been answered, and of what came
after it everything (`PREFIX`), some writes (`SUBSET`), or some of their sectors (`TORN`). So a disk with a cache that
is written back in any order looks when the power comes back.
"""

from __future__ import annotations

import bisect
import contextlib
import enum
import mmap
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.crash import block_recorder
from tests.crash.volumes import NoVolumeError, below, mount, obstacle, unmount
from tests.fixtures.child import wait_until

DISK_BYTES: Final = 128 << 20
SECTOR: Final = 512
"""What a disk writes whole or not at all."""
_PIECE: Final = 1 << 16
_MAKE: Final = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0")


@dataclass(frozen=True, slots=True)
class Recorder:
    """A mounted file system whose disk is recorded."""

    image: Path
    """The disk before anything was written to it; it stays as it is."""
    log: Path
    mount_point: Path

    def length(self) -> int:
        """Length of the log: whatever was written or flushed until now lies before it."""
        return os.stat(self.log).st_size


def hindrance() -> str | None:
    """Why nothing can be recorded here."""
    for tool in ("nbdkit", "nbdfuse", "fusermount3"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not os.path.exists("/dev/fuse"):
        return "there is no FUSE"
    return obstacle()


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[Recorder]:
    """A recorder that is mounted now and is unmounted in the end. Raises NoVolumeError."""
    reason = hindrance()
    if reason is not None:
        raise NoVolumeError(reason)
    with below(folder):
        image, log, fuse, mount_point = (folder / name for name in ("image", "log", "fuse", "recorded"))
        fuse.mkdir()
        mount_point.mkdir()
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run([*_MAKE, str(image)], check=True, capture_output=True)
        with _served(folder, fuse, image, log) as disk:
            try:
                mount(disk, mount_point)
            except subprocess.CalledProcessError as error:
                raise NoVolumeError(f"no loop mount here: {error.stderr.decode().strip()}") from error
            try:
                yield Recorder(image, log, mount_point)
            finally:
                unmount(disk, mount_point)


@contextlib.contextmanager
def _served(folder: Path, fuse: Path, image: Path, log: Path) -> Iterator[Path]:
    """The disk as a file whose writes are recorded."""
    disk = fuse / "disk"
    plugin = ["nbdkit", "-s", "python", str(Path(block_recorder.__file__)), f"image={image}", f"log={log}"]
    with (folder / "nbdfuse.log").open("wb") as output:
        process = subprocess.Popen(["nbdfuse", str(disk), "--command", *plugin], stdout=output, stderr=output)
    try:
        wait_until(lambda: disk.exists() or process.poll() is not None, "the disk is there")
        if process.poll() is not None:
            raise NoVolumeError(f"no recorded disk here: {(folder / 'nbdfuse.log').read_text()}")
        yield disk
    finally:
        wait_until(lambda: process.poll() is not None or _let_go(fuse), "nothing uses the disk")
        process.wait(20)


def _let_go(fuse: Path) -> bool:
    return subprocess.run(["fusermount3", "-u", str(fuse)], check=False, capture_output=True).returncode == 0


@dataclass(frozen=True, slots=True)
class Record:
    """One write, or a flush when it has no bytes. `start` is where its bytes begin in the log."""

    offset: int
    start: int
    length: int
    is_flush: bool

    @property
    def end(self) -> int:
        """Where it ends in the log."""
        return self.start + self.length


class BlockLog:
    """The record of a disk, read."""

    def __init__(self, log: Path) -> None:
        with log.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.records = list(self._read())
        self._ends = [record.end for record in self.records]

    def _read(self) -> Iterator[Record]:
        header = block_recorder.HEADER
        place = 0
        while place < len(self._data):
            kind, offset, length = header.unpack_from(self._data, place)
            place += header.size
            yield Record(offset, place, length, kind == block_recorder.FLUSH)
            place += length

    def bytes_of(self, record: Record) -> bytes:
        """What was written."""
        return self._data[record.start : record.end]

    def count(self, length: int) -> int:
        """How many records the log had when it was so long."""
        return bisect.bisect_right(self._ends, length)

    def length(self, count: int) -> int:
        """How long the log was with so many records."""
        return self._ends[count - 1] if count else 0


class Loss(enum.StrEnum):
    """What becomes of writes that no flush has covered."""

    PREFIX = "prefix"
    SUBSET = "subset"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class Cut:
    """The power goes when `count` records are in the log; `seed` says which of the last writes reached the disk."""

    count: int
    loss: Loss
    seed: str

    def __str__(self) -> str:
        """For the list of losses."""
        return f"{self.loss} of {self.count} records ({self.seed})"


def cuts(begin: int, end: int, *, number: int, seed: str) -> list[Cut]:
    """So many cuts with `begin` to `end` records, in their order; all ways of loss in turn."""
    chance = random.Random(seed)
    counts = sorted(chance.randint(begin, end) for _ in range(number))
    ways = list(Loss)
    return [Cut(count, ways[index % len(ways)], f"{seed} {index}") for index, count in enumerate(counts)]


class Replay:
    """Makes the disks that cuts leave, for cuts in the order of the log."""

    def __init__(self, recorder: Recorder, log: BlockLog) -> None:
        self._log = log
        self._flushed = bytearray(recorder.image.read_bytes())
        self._count = 0
        empty = bytes(_PIECE)
        view = memoryview(self._flushed)
        self._used = {place for place in range(0, len(view), _PIECE) if view[place : place + _PIECE] != empty}

    def make(self, cut: Cut, disk: Path) -> None:
        """Write the disk of a cut to a file."""
        records = self._log.records
        flushed = max((index for index in range(self._count, cut.count) if records[index].is_flush), default=None)
        if flushed is not None:
            for record in records[self._count : flushed]:
                self._write(record)
            self._count = flushed
        with disk.open("wb") as file:
            file.truncate(len(self._flushed))
            fd = file.fileno()
            for place in sorted(self._used):
                os.pwrite(fd, memoryview(self._flushed)[place : place + _PIECE], place)
            for offset, data in self._reached(records[self._count : cut.count], cut):
                os.pwrite(fd, data, offset)

    def _write(self, record: Record) -> None:
        self._flushed[record.offset : record.offset + record.length] = self._log.bytes_of(record)
        first = record.offset // _PIECE * _PIECE
        self._used.update(range(first, record.offset + record.length, _PIECE))

    def _reached(self, records: list[Record], cut: Cut) -> Iterator[tuple[int, bytes]]:
        """What reached the disk of writes that no flush had covered."""
        chance = random.Random(cut.seed)
        share = chance.random()
        for record in records:
            if record.is_flush:
                continue
            data = self._log.bytes_of(record)
            if cut.loss is Loss.PREFIX:
                yield record.offset, data
            elif chance.random() >= share:
                continue
            elif cut.loss is Loss.SUBSET or chance.random() < 0.5:
                yield record.offset, data
            else:
                for place in range(0, record.length, SECTOR):
                    if chance.random() < 0.5:
                        yield record.offset + place, data[place : place + SECTOR]
