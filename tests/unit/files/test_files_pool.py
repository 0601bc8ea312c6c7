"""The pool of what unfinished uploads may still write, over threads and processes."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.files.stores import FailingDisk, attempt, opened, put
from tests.unit.files.test_files_space import GIB, SmallDisk, space

from hmac_file_server.files.contract import StorageFull, StorageReadOnly
from hmac_file_server.files.space import Admitted, LocalSpacePool, SharedCounters, Space

BLOCK = 4096


def pool_of(one: Space) -> LocalSpacePool:
    return LocalSpacePool(one, one.admit)


def test_to_the_last_byte_and_not_beyond() -> None:
    one = space(SmallDisk(1000 * BLOCK), reserve=100 * BLOCK)
    pool = pool_of(one)
    pool.add(600 * BLOCK)
    spool = one.admit(300 * BLOCK)
    with pytest.raises(StorageFull):
        pool.add(1)
    assert pool.outstanding == (600 * BLOCK, 1)
    pool.subtract(BLOCK)
    pool.add(BLOCK)
    with pytest.raises(StorageFull):
        one.admit(1)
    spool.release()
    assert one.outstanding() == 600 * BLOCK


def test_what_was_promised_before_a_restart_counts_whether_it_fits_or_not() -> None:
    one = space(SmallDisk(10 * BLOCK))
    pool = pool_of(one)
    pool.charge(100 * BLOCK)
    pool.charge(0)
    assert pool.outstanding == (100 * BLOCK, 2)
    assert one.available() == 0
    with pytest.raises(StorageFull):
        pool.add(0)
    pool.subtract(95 * BLOCK)
    pool.leave()
    pool.add(5 * BLOCK)


def test_nothing_is_given_back_that_was_never_taken() -> None:
    one = space(SmallDisk(100 * BLOCK))
    pool = pool_of(one)
    spool = one.admit(50 * BLOCK)
    pool.add(10)
    pool.subtract(11)
    pool.leave()
    pool.leave()
    assert pool.outstanding == (0, 0)
    assert one.outstanding() == 50 * BLOCK
    spool.release()
    assert one.outstanding() == 0


@pytest.mark.parametrize("call", ["add", "charge", "subtract"])
def test_a_size_is_not_negative(call: str) -> None:
    one = space(SmallDisk(GIB))
    pool = pool_of(one)
    with pytest.raises(ValueError, match="negative"):
        getattr(pool, call)(-1)
    assert pool.outstanding == (0, 0)
    assert one.outstanding() == 0


def test_each_upload_counts_with_its_inodes() -> None:
    one = space(SmallDisk(100 * GIB, inodes=16 + 5))
    pool = pool_of(one)
    for _ in range(3):
        pool.add(1)
    for admit in (pool.add, one.admit):
        with pytest.raises(StorageFull):
            admit(1)
    pool.subtract(3)
    with pytest.raises(StorageFull):
        one.admit(1)
    pool.leave()
    one.admit(1).release()


def test_other_processes_see_it() -> None:
    counters = SharedCounters(3)
    disk = SmallDisk(100 * BLOCK)
    spaces = [space(disk, counters=counters, slot=slot) for slot in range(3)]
    pool = pool_of(spaces[0])
    pool.add(60 * BLOCK)
    spaces[1].admit(40 * BLOCK).release()
    with pytest.raises(StorageFull):
        spaces[2].admit(41 * BLOCK)
    with pytest.raises(StorageFull):
        pool_of(spaces[1]).add(41 * BLOCK)
    pool.subtract(60 * BLOCK)
    spaces[2].admit(100 * BLOCK).release()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_across_a_fork() -> None:
    counters = SharedCounters(2)
    one = space(SmallDisk(100 * BLOCK), counters=counters)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            pool = pool_of(space(SmallDisk(100 * BLOCK), counters=counters, slot=1))
            pool.add(60 * BLOCK)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            pool.subtract(20 * BLOCK)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            os._exit(0)
        finally:
            os._exit(1)
    try:
        assert os.read(ready[0], 1) == b"x"
        assert one.available() == 40 * BLOCK
        with pytest.raises(StorageFull):
            one.admit(41 * BLOCK)
        os.write(go[1], b"x")
        assert os.read(ready[0], 1) == b"x"
        one.admit(60 * BLOCK).release()
        os.write(go[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        # It is dead, its slot still stands; its successor begins by clearing it and counts anew.
        assert one.available() == 60 * BLOCK
        pool_of(space(SmallDisk(100 * BLOCK), counters=counters, slot=1)).charge(10 * BLOCK)
        assert one.available() == 90 * BLOCK
    finally:
        for fd in (*ready, *go):
            os.close(fd)


def test_threads_lose_no_count() -> None:
    one = space(SmallDisk(100 * GIB))
    pool = pool_of(one)

    def work() -> None:
        for size in range(1, 200):
            pool.add(size)
            pool.subtract(size // 2)
            one.admit(size).release()
            pool.subtract(size - size // 2)
            pool.leave()
            pool.charge(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.outstanding == (6 * 199, 6 * 199)
    assert one.outstanding() == 6 * 199


def test_fifty_threads_never_get_a_byte_too_many() -> None:
    pool = pool_of(space(SmallDisk(20 * BLOCK)))
    refused: list[StorageFull] = []

    def add() -> None:
        try:
            pool.add(BLOCK)
        except StorageFull as error:
            refused.append(error)

    threads = [threading.Thread(target=add) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.outstanding == (20 * BLOCK, 20)
    assert len(refused) == 30


class TestOfAStore:
    def test_there_is_one(self, tmp_path: Path) -> None:
        with opened(tmp_path) as store:
            assert store.pool() is store.pool()

    def test_single_uploads_and_the_pool_share_the_space(self, tmp_path: Path) -> None:
        found = os.statvfs(tmp_path)
        most = found.f_blocks * found.f_frsize
        with opened(tmp_path) as store:
            pool = store.pool()
            pool.add(1)
            pool.charge(most)
            with pytest.raises(StorageFull):
                store.admit(1)
            with pytest.raises(StorageFull):
                pool.add(1)
            pool.subtract(most)
            store.admit(1).release()
            assert store._space.outstanding() == 1

    def test_a_store_that_is_read_only_takes_none(self, tmp_path: Path) -> None:
        disk = FailingDisk(frozenset({"fdatasync"}), 0, errno.EIO, times=2)
        with opened(tmp_path, disk=disk) as store:
            for name in "ab":
                attempt(lambda name=name: put(store, name, b"x"))  # type: ignore[misc]
            with pytest.raises(StorageReadOnly):
                store.pool().add(1)
            store.pool().charge(1)
            assert store.pool().outstanding == (1, 1)


class PoolMachine(RuleBasedStateMachine):
    """The pools of two processes and single uploads beside them, against plain sums."""

    def __init__(self) -> None:
        super().__init__()
        counters = SharedCounters(2)
        self.disk = SmallDisk(1000 * BLOCK)
        self.spaces = [space(self.disk, reserve=10 * BLOCK, counters=counters, slot=slot) for slot in range(2)]
        self.pools = [pool_of(each) for each in self.spaces]
        self.missing: list[list[int]] = [[], []]
        self.spools: list[tuple[Admitted, int]] = []

    def left(self) -> int:
        promised = sum(map(sum, self.missing)) + sum(size for _, size in self.spools)
        return self.disk.free - 10 * BLOCK - promised

    @initialize(free=st.integers(0, 2000))
    def begin(self, free: int) -> None:
        self.disk.free = free * BLOCK

    @rule(slot=st.integers(0, 1), size=st.integers(0, 900 * BLOCK))
    def add(self, slot: int, size: int) -> None:
        fits = self.left() >= size
        try:
            self.pools[slot].add(size)
            assert fits
            self.missing[slot].append(size)
        except StorageFull:
            assert not fits

    @rule(slot=st.integers(0, 1), size=st.integers(0, 900 * BLOCK))
    def charge(self, slot: int, size: int) -> None:
        self.pools[slot].charge(size)
        self.missing[slot].append(size)

    @rule(slot=st.integers(0, 1), which=st.integers(0, 99), part=st.floats(0, 1))
    def write(self, slot: int, which: int, part: float) -> None:
        if self.missing[slot]:
            which %= len(self.missing[slot])
            size = int(self.missing[slot][which] * part)
            self.pools[slot].subtract(size)
            self.missing[slot][which] -= size

    @rule(slot=st.integers(0, 1), which=st.integers(0, 99))
    def end(self, slot: int, which: int) -> None:
        if self.missing[slot]:
            self.pools[slot].subtract(self.missing[slot].pop(which % len(self.missing[slot])))
            self.pools[slot].leave()

    @rule(slot=st.integers(0, 1), size=st.integers(0, 900 * BLOCK))
    def admit(self, slot: int, size: int) -> None:
        fits = self.left() >= size
        try:
            self.spools.append((self.spaces[slot].admit(size), size))
            assert fits
        except StorageFull:
            assert not fits

    @rule(which=st.integers(0, 99))
    def release(self, which: int) -> None:
        if self.spools:
            self.spools.pop(which % len(self.spools))[0].release()

    @invariant()
    def the_sums_agree(self) -> None:
        for each in self.spaces:
            assert each.available() == max(0, self.left())
        for pool, missing in zip(self.pools, self.missing, strict=True):
            assert pool.outstanding == (sum(missing), len(missing))

    def teardown(self) -> None:
        for spool, _ in self.spools:
            spool.release()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(sizes=st.lists(st.integers(0, 50 * BLOCK), max_size=20), free=st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_what_is_promised_never_exceeds_what_is_there(sizes: list[int], free: int) -> None:
    one = space(SmallDisk(free * BLOCK))
    pool = pool_of(one)
    for size in sizes:
        available = one.available()
        try:
            pool.add(size)
        except StorageFull:
            assert size > available
        else:
            assert one.available() == available - size
    assert one.outstanding() <= free * BLOCK
