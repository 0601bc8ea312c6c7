"""The simulated disk forgets what no sync covers, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import random

import pytest
from tests.simulation.medium import ROOT, Crash, Medium, ProcessDisk

CUTS = 60
_FILE = os.O_RDWR | os.O_CREAT


def disk_of(medium: Medium) -> tuple[ProcessDisk, int]:
    """A process's disk, and the root."""
    disk = ProcessDisk(medium, lambda _call: None)
    return disk, disk.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)


def medium() -> Medium:
    return Medium(lambda: 0.0, "test")


def after_cuts(synced_file: bool, synced_folder: bool) -> set[bytes | None]:
    """What is found of a file of ten bytes, over many cuts; None: no file."""
    found: set[bytes | None] = set()
    for seed in range(CUTS):
        there = medium()
        disk, root = disk_of(there)
        fd = disk.open("f", _FILE, dir_fd=root)
        disk.pwrite(fd, b"01234", 0)
        if synced_file:
            disk.fdatasync(fd)
        disk.pwrite(fd, b"56789", 5)
        if synced_folder:
            disk.fsync(root)
        there.power_cut(random.Random(seed))
        node = there.find("f")
        found.add(None if node is None else bytes(node.live))
    return found


def test_what_is_synced_is_there() -> None:
    found = after_cuts(synced_file=True, synced_folder=True)
    assert None not in found
    assert all(content is not None and content[:5] == b"01234" for content in found)
    assert {b"01234", b"0123456789"} <= found


def test_what_is_not_synced_may_be_there_or_not() -> None:
    found = after_cuts(synced_file=False, synced_folder=False)
    assert {None, b"", b"01234", b"\0\0\0\0\x0056789", b"0123456789"} <= found
    assert None not in after_cuts(synced_file=False, synced_folder=True)


def test_settled_is_what_no_cut_can_change() -> None:
    there = medium()
    disk, root = disk_of(there)
    fd = disk.open("f", _FILE, dir_fd=root)
    disk.pwrite(fd, b"01234", 0)
    node = there.find("f")
    assert node is not None
    assert node.settled(0, 5) is None
    disk.fdatasync(fd)
    assert node.settled(0, 5) == b"01234"
    disk.pwrite(fd, b"12", 1)
    assert node.settled(0, 5) == b"01234"
    disk.pwrite(fd, b"?", 4)
    assert (node.settled(0, 5), node.settled(0, 4)) == (None, b"0123")
    assert there.safe("f") is None
    disk.fsync(root)
    assert there.safe("f") is node
    disk.unlink("f", dir_fd=root)
    assert there.safe("f") is None
    for seed in range(CUTS):
        assert node.settled(0, 4) == b"0123", seed


def test_a_failed_sync_is_made_good_by_no_later_one() -> None:
    there = medium()
    failing = [True]

    def before(call: str) -> None:
        if call == "fdatasync" and failing:
            failing.clear()
            raise OSError(errno.EIO, "injected")

    disk = ProcessDisk(there, before)
    root = disk.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
    fd = disk.open("f", _FILE, dir_fd=root)
    disk.pwrite(fd, b"01234", 0)
    with pytest.raises(OSError, match="injected"):
        disk.fdatasync(fd)
    disk.fdatasync(fd)
    node = there.find("f")
    assert node is not None
    assert node.settled(0, 5) is None
    # Written once more, and synced, it is there.
    disk.pwrite(fd, b"01234", 0)
    disk.fdatasync(fd)
    assert node.settled(0, 5) == b"01234"


def test_a_dead_process_holds_nothing_and_does_nothing() -> None:
    there = medium()
    disk, root = disk_of(there)
    other, other_root = disk_of(there)
    fd = disk.open("f", _FILE, dir_fd=root)
    disk.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    again = other.open("f", os.O_RDWR, dir_fd=other_root)
    with pytest.raises(BlockingIOError):
        other.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    disk.die()
    other.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(Crash):
        disk.pwrite(fd, b"x", 0)


def test_names_are_made_as_the_kernel_makes_them() -> None:
    there = medium()
    made: list[str] = []
    there.published = lambda path, _node: made.append(path)
    disk, root = disk_of(there)
    fd = disk.open(".", os.O_TMPFILE | os.O_RDWR, dir_fd=root)
    proc = disk.open("/proc/self/fd", os.O_RDONLY)
    disk.link(b"%d" % fd, "f", src_dir_fd=proc, dst_dir_fd=root)
    with pytest.raises(FileExistsError):
        disk.link(b"%d" % fd, "f", src_dir_fd=proc, dst_dir_fd=root)
    assert disk.fstat(fd).st_nlink == 1
    disk.unlink("f", dir_fd=root)
    with pytest.raises(FileNotFoundError):
        disk.link(b"%d" % fd, "g", src_dir_fd=proc, dst_dir_fd=root)
    assert made == ["f"]
