"""Admission by space and inodes, over threads and processes."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.files.stores import FailingDisk, ManualClock, get, opened, put

from hmac_file_server.files.contract import StorageFailed, StorageFull
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.paths import parse
from hmac_file_server.files.space import SharedCounters, Space

GIB = 1 << 30


class SmallDisk(Disk):
    """Says what free space there is, and counts how often it is asked."""

    def __init__(self, free: int, inodes: int = 1_000_000, files: int = 1) -> None:
        self.free = free
        self.inodes = inodes
        self.files = files
        self.asked = 0

        def statvfs(_: int) -> Any:
            self.asked += 1
            return SimpleNamespace(f_bavail=self.free // 4096, f_frsize=4096, f_favail=self.inodes, f_files=self.files)

        self.statvfs = statvfs  # type: ignore[assignment]


def space(
    disk: Disk,
    *,
    reserve: int = 0,
    counters: SharedCounters | None = None,
    slot: int = 0,
    clock: ManualClock | None = None,
) -> Space:
    return Space(
        disk,
        0,
        reserve=reserve,
        counters=SharedCounters() if counters is None else counters,
        slot=slot,
        monotonic=(ManualClock() if clock is None else clock).monotonic,
    )


def test_to_the_last_byte_and_not_beyond() -> None:
    one = space(SmallDisk(1000 * 4096), reserve=100 * 4096)
    held = one.admit(900 * 4096)
    with pytest.raises(StorageFull) as full:
        one.admit(1)
    assert full.value.code == "storage_full"
    one.admit(0).release()
    held.release()
    one.admit(900 * 4096).release()
    with pytest.raises(StorageFull):
        one.admit(900 * 4096 + 1)
    assert one.outstanding() == 0


def test_a_reserve_larger_than_what_is_free_admits_nothing() -> None:
    one = space(SmallDisk(10 * 4096), reserve=20 * 4096)
    with pytest.raises(StorageFull):
        one.admit(0)
    assert one.available() == 0


def test_releasing_twice_gives_back_once() -> None:
    one = space(SmallDisk(100 * GIB))
    first, second = one.admit(100), one.admit(10)
    first.release()
    first.release()
    assert one.outstanding() == 10
    second.release()
    assert one.outstanding() == 0


def test_what_is_written_is_outstanding_no_more() -> None:
    one = space(SmallDisk(100 * GIB))
    held = one.admit(100)
    held.consume(60)
    assert one.outstanding() == 40
    held.consume(60)
    assert one.outstanding() == 0
    held.release()
    held.consume(5)
    assert one.outstanding() == 0


def test_a_reservation_that_is_forgotten_is_given_back() -> None:
    one = space(SmallDisk(100 * GIB))
    one.admit(100)
    gc.collect()
    assert one.outstanding() == 0


def test_processes_see_each_other() -> None:
    counters = SharedCounters(3)
    disk = SmallDisk(100 * 4096)
    spaces = [space(disk, counters=counters, slot=slot) for slot in range(3)]
    held = spaces[0].admit(60 * 4096)
    spaces[1].admit(40 * 4096).release()
    with pytest.raises(StorageFull):
        spaces[2].admit(41 * 4096)
    held.release()
    spaces[2].admit(100 * 4096).release()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_across_a_fork() -> None:
    counters = SharedCounters(2)
    one = space(SmallDisk(100 * 4096), counters=counters)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            held = space(SmallDisk(100 * 4096), counters=counters, slot=1).admit(60 * 4096)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            held.release()
            os._exit(0)
        finally:
            os._exit(1)
    try:
        assert os.read(ready[0], 1) == b"x"
        with pytest.raises(StorageFull):
            one.admit(41 * 4096)
        os.write(go[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        one.admit(100 * 4096).release()
    finally:
        for fd in (*ready, *go):
            os.close(fd)


def test_a_process_that_died_gives_its_share_back_when_its_slot_is_taken_again() -> None:
    counters = SharedCounters(2)
    disk = SmallDisk(100 * 4096)
    lost = space(disk, counters=counters, slot=1).admit(60 * 4096)
    one = space(disk, counters=counters, slot=0)
    with pytest.raises(StorageFull):
        one.admit(41 * 4096)
    space(disk, counters=counters, slot=1)
    one.admit(100 * 4096).release()
    lost._space = None  # it died; nobody releases this


def test_fifty_threads_never_get_a_byte_too_many() -> None:
    one = space(SmallDisk(20 * 4096))
    admitted: list[object] = []
    refused: list[StorageFull] = []

    def admit() -> None:
        try:
            admitted.append(one.admit(4096))
        except StorageFull as error:
            refused.append(error)

    threads = [threading.Thread(target=admit) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(admitted), len(refused)) == (20, 30)


class TestInodes:
    def test_each_upload_may_need_two(self) -> None:
        one = space(SmallDisk(100 * GIB, inodes=16 + 5))
        held = [one.admit(1) for _ in range(3)]
        with pytest.raises(StorageFull):
            one.admit(1)
        del held[0]
        one.admit(1).release()

    def test_none_left(self) -> None:
        with pytest.raises(StorageFull):
            space(SmallDisk(100 * GIB, inodes=16)).admit(0)

    def test_file_systems_without_a_number_of_inodes(self) -> None:
        space(SmallDisk(100 * GIB, inodes=0, files=0)).admit(1).release()


class TestAsking:
    def test_far_from_the_limit_once_a_second(self) -> None:
        disk, clock = SmallDisk(100 * GIB), ManualClock()
        one = space(disk, clock=clock)
        for _ in range(100):
            one.admit(1000).release()
        assert disk.asked == 1
        clock.advance(1.5)
        one.admit(1000).release()
        assert disk.asked == 2

    def test_near_the_limit_every_time(self) -> None:
        disk = SmallDisk(2 * GIB)
        one = space(disk)
        one.admit(GIB).release()
        disk.free = GIB // 2
        with pytest.raises(StorageFull):
            one.admit(GIB)

    def test_a_large_upload_asks_again(self) -> None:
        disk = SmallDisk(100 * GIB)
        one = space(disk)
        one.admit(1).release()
        disk.free = 50 * GIB
        with pytest.raises(StorageFull):
            one.admit(99 * GIB)
        assert one.outstanding() == 0

    def test_a_disk_that_does_not_answer(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"statvfs"}), 0)
        with opened(tmp_path, disk=disk) as store:
            with pytest.raises(StorageFailed):
                store.admit(1)
            assert store._space.outstanding() == 0
            store.admit(1).release()


def test_a_size_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        space(SmallDisk(GIB)).admit(-1)


def test_a_store_keeps_its_reserve(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    with opened(tmp_path, min_free_bytes=found.f_blocks * found.f_frsize) as store:
        with pytest.raises(StorageFull):
            store.admit(0)
        # What is there is served and deleted all the same (S-56).
        put(store, "f", b"x")
        assert get(store, "f") == b"x"
        assert store.delete(parse("f"), "asked")
