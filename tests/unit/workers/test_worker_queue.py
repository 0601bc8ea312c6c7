"""The bounded queue of the worker pool: full is told and untold by turns, and no job is ever lost for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hmac_file_server.workers import PoolSize, WorkerPool

PATIENCE = 20.0


class Told:
    """What `on_full` was told; `wait` for something to be told."""

    def __init__(self) -> None:
        self.seen: list[bool] = []
        self.pool: WorkerPool | None = None
        self._changed = threading.Condition()
        self._inside = threading.Lock()

    def __call__(self, full: bool) -> None:
        # One call at a time, and the pool's lock is free: otherwise this would raise or hang.
        assert self._inside.acquire(blocking=False), "two calls at once"
        try:
            if self.pool is not None:
                assert self.pool._ready.acquire(timeout=PATIENCE), "told with the lock held"
                self.pool._ready.release()
        finally:
            self._inside.release()
        with self._changed:
            self.seen.append(full)
            self._changed.notify_all()

    def wait(self, *expected: bool) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.seen == list(expected), PATIENCE), self.seen


class Turnstile:
    """A job that says when it was begun, and waits to be let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.opened.wait(PATIENCE)
        self.ended.set()


Make = Callable[..., WorkerPool]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(told: Told) -> Iterator[Make]:
    """Pools that tell `told`, closed at the end."""
    pools: list[WorkerPool] = []

    def pool(size: PoolSize, **options: Any) -> WorkerPool:
        pools.append(WorkerPool(size, on_full=told, **options))
        told.pool = pools[-1]
        return pools[-1]

    yield pool
    for each in pools:
        each.close()


def crowd(pool: WorkerPool, busy: int, waiting: int) -> list[Turnstile]:
    """Jobs that keep `busy` threads, and `waiting` more behind them."""
    jobs = [Turnstile() for _ in range(busy + waiting)]
    for job in jobs[:busy]:
        pool.submit(job)
    for job in jobs[:busy]:
        assert job.begun.wait(PATIENCE)
    for job in jobs[busy:]:
        pool.submit(job)
    return jobs


def open_all(jobs: list[Turnstile]) -> None:
    for job in jobs:
        job.opened.set()


def test_full_at_the_size_of_the_queue_and_no_more_at_half(make: Make, told: Told) -> None:
    now = [100.0]
    pool = make(PoolSize(base=1, dynamic=False), queue_size=6, monotonic=lambda: now[0])
    jobs = crowd(pool, 1, 5)
    assert told.seen == []
    assert pool.full_since is None
    now[0] = 123.0
    jobs += crowd(pool, 0, 1)
    assert told.seen == [True]
    assert pool.full_since == 123.0
    # More come all the same: nothing is refused, and it is not told again.
    now[0] = 130.0
    jobs += crowd(pool, 0, 2)
    assert told.seen == [True]
    assert pool.full_since == 123.0
    # Eight wait. Those that are begun leave seven, six, five, four.
    for at in range(4):
        jobs[at].opened.set()
        assert jobs[at + 1].begun.wait(PATIENCE)
        assert told.seen == [True]
    jobs[4].opened.set()
    told.wait(True, False)
    assert pool.waiting == 3
    assert pool.full_since is None
    open_all(jobs)
    for job in jobs:
        assert job.ended.wait(PATIENCE)
    assert told.seen == [True, False]


def test_between_half_and_full_nothing_is_told(make: Make, told: Told) -> None:
    """A queue that breathes does not stop and start its sources with every breath."""
    pool = make(PoolSize(base=1, dynamic=False), queue_size=4)
    jobs = crowd(pool, 1, 4)
    told.wait(True)
    for at in range(20):
        jobs[at].opened.set()
        assert jobs[at + 1].begun.wait(PATIENCE)
        assert pool.waiting == 3
        jobs += crowd(pool, 0, 1)
    assert told.seen == [True]
    open_all(jobs)
    told.wait(True, False)


def test_it_becomes_full_again(make: Make, told: Told) -> None:
    pool = make(PoolSize(base=2, dynamic=False), queue_size=3)
    expected: list[bool] = []
    for _ in range(5):
        jobs = crowd(pool, 2, 3)
        expected.append(True)
        told.wait(*expected)
        open_all(jobs)
        expected.append(False)
        told.wait(*expected)
        for job in jobs:
            assert job.ended.wait(PATIENCE)


def test_a_pool_that_can_grow_is_not_full(make: Make, told: Told) -> None:
    """Also when the queue is shorter than the threshold for growing, which it would otherwise never reach."""
    pool = make(PoolSize(base=1, most=3, grow_at=50, shrink_at=0, linger=3600.0), queue_size=2)
    jobs = crowd(pool, 1, 2)
    assert jobs[1].begun.wait(PATIENCE)
    assert pool.threads == 2
    assert told.seen == []
    jobs += crowd(pool, 0, 1)
    assert jobs[2].begun.wait(PATIENCE)
    assert pool.threads == 3
    assert told.seen == []
    # Three threads are at work and one job waits; nothing can be added for those that come now.
    jobs += crowd(pool, 0, 1)
    assert told.seen == [True]
    open_all(jobs)
    told.wait(True, False)


def test_a_pool_that_is_granted_no_thread_is_full(make: Make, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make(PoolSize(base=1, most=4, grow_at=2, shrink_at=0, linger=3600.0), queue_size=2)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    jobs = crowd(pool, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        jobs += crowd(pool, 0, 1)
    assert told.seen == [True]
    open_all(jobs)
    told.wait(True, False)


def test_jobs_for_idle_threads_do_not_wait(make: Make, told: Told) -> None:
    pool = make(PoolSize(base=4, dynamic=False), queue_size=1)
    for _ in range(50):
        jobs = crowd(pool, 4, 0)
        open_all(jobs)
        for job in jobs:
            assert job.ended.wait(PATIENCE)
        # Ended, but not yet idle: let them come to rest, so that the next four find somebody.
        rest = threading.Barrier(5)
        for _ in range(4):
            pool.submit(lambda rest=rest: (rest.wait(PATIENCE), None)[1])  # type: ignore[misc]
        rest.wait(PATIENCE)
        with contextlib.suppress(threading.BrokenBarrierError):
            rest.abort()
    assert pool.waiting == 0
    # By turns, whatever was told: a job that arrived before a thread had come back did wait.
    assert told.seen == [True, False] * (len(told.seen) // 2)


@pytest.mark.parametrize("size", [PoolSize(base=1, dynamic=False), PoolSize(base=1, most=2, grow_at=3)])
def test_without_a_size_a_queue_is_never_full(make: Make, told: Told, size: PoolSize) -> None:
    pool = make(size)
    jobs = crowd(pool, 1, 200)
    assert pool.full_since is None
    open_all(jobs)
    for job in jobs:
        assert job.ended.wait(PATIENCE)
    assert told.seen == []


def test_nobody_needs_to_listen() -> None:
    pool = WorkerPool(PoolSize(base=1, dynamic=False), queue_size=1)
    jobs = crowd(pool, 1, 3)
    assert pool.full_since is not None
    open_all(jobs)
    pool.close()
    assert pool.full_since is None
    assert all(job.ended.is_set() for job in jobs)


def test_a_listener_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[bool] = []

    def fail(full: bool) -> None:
        seen.append(full)
        raise RuntimeError("of the listener")

    pool = WorkerPool(PoolSize(base=1, dynamic=False), queue_size=2, on_full=fail)
    with caplog.at_level(logging.ERROR):
        jobs = crowd(pool, 1, 2)
        open_all(jobs)
        pool.close()
    assert seen == [True, False]
    assert len(caplog.records) == 2
    assert all(job.ended.is_set() for job in jobs)


def test_a_listener_may_submit() -> None:
    pools: list[WorkerPool] = []
    ran: list[bool] = []

    def submit(full: bool) -> None:
        pools[0].submit(lambda: ran.append(full))

    pools.append(WorkerPool(PoolSize(base=1, dynamic=False), queue_size=4, on_full=submit))
    open_all(crowd(pools[0], 1, 4))
    pools[0].close()
    # After closing, a job runs at once, before those that wait.
    assert sorted(ran) == [False, True]


def test_a_change_during_a_call_is_told_after_it() -> None:
    """The threads that drain the queue do not overtake the one that still tells that it is full."""
    inside, go_on = threading.Event(), threading.Event()
    seen: list[bool] = []

    def slow(full: bool) -> None:
        if full:
            inside.set()
            assert go_on.wait(PATIENCE)
        seen.append(full)

    pool = WorkerPool(PoolSize(base=1, dynamic=False), queue_size=2, on_full=slow)
    jobs = crowd(pool, 1, 1)
    jobs.append(Turnstile())
    submitter = threading.Thread(target=pool.submit, args=(jobs[-1],))
    submitter.start()
    assert inside.wait(PATIENCE)
    open_all(jobs)
    for job in jobs:
        assert job.ended.wait(PATIENCE)
    assert pool.full_since is None
    assert seen == []
    go_on.set()
    submitter.join(PATIENCE)
    pool.close()
    assert seen == [True, False]


def test_many_submitters_and_many_turns() -> None:
    """Nothing is lost, calls alternate, and the last word is that it is not full."""
    told = Told()
    pool = WorkerPool(PoolSize(base=2, most=4, grow_at=3, shrink_at=1, linger=0.001), queue_size=5, on_full=told)
    told.pool = pool
    ran: list[tuple[int, int]] = []
    start = threading.Barrier(6)

    def submit(submitter: int) -> None:
        start.wait(PATIENCE)
        for number in range(300):
            pool.submit(lambda number=number: ran.append((submitter, number)))  # type: ignore[misc]

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert sorted(ran) == [(submitter, number) for submitter in range(6) for number in range(300)]
    assert told.seen == [True, False] * (len(told.seen) // 2)
    assert pool.full_since is None


class Queue(RuleBasedStateMachine):
    """A pool of fixed size against counting: which jobs are begun, how many wait, what was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Told()
        self.now = 0.0

    @initialize(base=st.integers(1, 3), spare=st.integers(1, 6))
    def make(self, base: int, spare: int) -> None:
        # Longer than there are threads: whether the first jobs find them idle is a matter of timing.
        self.queue = queue = base + spare
        self.pool = WorkerPool(
            PoolSize(base=base, dynamic=False), queue_size=queue, on_full=self.told, monotonic=lambda: self.now
        )
        self.told.pool = self.pool
        self.running: list[Turnstile] = []
        self.waiting: list[Turnstile] = []
        self.expected: list[bool] = []
        self.full_since: float | None = None
        # All threads are busy from here on.
        for job in crowd(self.pool, base, 0):
            self.running.append(job)

    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        for _ in range(count):
            self.now += 1
            self.waiting += crowd(self.pool, 0, 1)
            if len(self.waiting) >= self.queue and self.full_since is None:
                self.full_since = self.now
                self.expected.append(True)

    @rule(which=st.integers(0, 2))
    @precondition(lambda self: self.waiting)
    def finish(self, which: int) -> None:
        self.now += 1
        job = self.running.pop(which % len(self.running))
        following = self.waiting.pop(0)
        job.opened.set()
        assert following.begun.wait(PATIENCE)
        assert job.ended.wait(PATIENCE)
        self.running.append(following)
        if self.full_since is not None and len(self.waiting) <= self.queue // 2:
            self.full_since = None
            self.expected.append(False)

    @invariant()
    def agrees(self) -> None:
        self.told.wait(*self.expected)
        assert self.pool.full_since == self.full_since
        assert self.pool.waiting == len(self.waiting)
        assert not any(job.begun.is_set() for job in self.waiting)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            jobs = self.running + self.waiting
            open_all(jobs)
            self.pool.close()
            assert all(job.ended.is_set() for job in jobs)
            assert self.told.seen == [True, False] * (len(self.told.seen) // 2)
            assert self.pool.full_since is None


TestQueue = Queue.TestCase
TestQueue.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
