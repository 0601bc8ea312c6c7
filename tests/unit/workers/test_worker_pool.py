"""The worker pool: every job runs once, threads come and go with the queue, closing finishes what was begun."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hmac_file_server.workers import PoolSize, WorkerPool

PATIENCE = 20.0
Resize = tuple[int, int, int]


class Resizes:
    """What a pool told of its size; `wait` for a size to be reached."""

    def __init__(self) -> None:
        self.seen: list[Resize] = []
        self._changed = threading.Condition()

    def __call__(self, old: int, new: int, waiting: int) -> None:
        with self._changed:
            self.seen.append((old, new, waiting))
            self._changed.notify_all()

    def wait(self, condition: Callable[[list[Resize]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.seen), PATIENCE), self.seen


class Gate:
    """A job that says when it has begun, and waits to be let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.opened.wait(PATIENCE)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def resizes() -> Resizes:
    return Resizes()


@pytest.fixture
def make(resizes: Resizes) -> Iterator[Callable[..., WorkerPool]]:
    """Pools that are closed at the end; `resizes` hears of them."""
    pools: list[WorkerPool] = []

    def pool(size: PoolSize, **options: Any) -> WorkerPool:
        pools.append(WorkerPool(size, on_resize=resizes, **options))
        return pools[-1]

    yield pool
    for each in pools:
        each.close()


def hold(pool: WorkerPool, count: int) -> list[Gate]:
    """Keep `count` threads busy."""
    gates = [Gate() for _ in range(count)]
    for gate in gates:
        pool.submit(gate)
    for gate in gates:
        assert gate.begun.wait(PATIENCE)
    return gates


def release(gates: list[Gate]) -> None:
    for gate in gates:
        gate.opened.set()


def crowd(pool: WorkerPool, base: int, count: int) -> list[Gate]:
    """Keep `base` threads busy, then leave `count` jobs waiting: the pool grows as far as it may."""
    gates = hold(pool, base)
    for _ in range(count):
        gates.append(Gate())
        pool.submit(gates[-1])
    return gates


def settle(pool: WorkerPool, count: int = 1) -> None:
    """Return once `count` jobs submitted now have run."""
    done = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(lambda: (done.wait(PATIENCE), None)[1])
    done.wait(PATIENCE)


def test_a_job_runs_on_another_thread(make: Callable[..., WorkerPool]) -> None:
    pool = make(PoolSize(base=2), name="disk")
    names: list[str] = []
    done = threading.Event()

    def job() -> None:
        names.append(threading.current_thread().name)
        done.set()

    pool.submit(job)
    assert done.wait(PATIENCE)
    assert names[0].startswith("disk-")
    assert pool.threads == 2


def test_as_many_jobs_run_at_once_as_there_are_threads(make: Callable[..., WorkerPool]) -> None:
    pool = make(PoolSize(base=3, dynamic=False))
    # A barrier of three opens only if three jobs run at the same time.
    settle(pool, 2)
    gates = hold(pool, 3)
    waiting = threading.Event()
    pool.submit(waiting.set)
    assert pool.waiting == 1
    assert not waiting.is_set()
    release(gates)
    assert waiting.wait(PATIENCE)


def test_jobs_are_begun_in_order(make: Callable[..., WorkerPool]) -> None:
    pool = make(PoolSize(base=1, dynamic=False))
    gates = hold(pool, 1)
    order: list[int] = []
    for number in range(100):
        pool.submit(lambda number=number: order.append(number))  # type: ignore[misc]
    release(gates)
    settle(pool)
    assert order == list(range(100))


def test_submitting_never_waits_and_grows_the_pool_up_to_its_most(
    make: Callable[..., WorkerPool], resizes: Resizes
) -> None:
    pool = make(PoolSize(base=2, most=5, grow_at=3, shrink_at=0, linger=3600.0))
    gates = crowd(pool, 2, 20)
    assert pool.threads == 5
    release(gates)
    settle(pool, 5)
    assert [(old, new) for old, new, _ in resizes.seen] == [(2, 3), (3, 4), (4, 5)]
    assert all(waiting >= 3 for _, _, waiting in resizes.seen)


def test_below_the_threshold_it_does_not_grow(make: Callable[..., WorkerPool], resizes: Resizes) -> None:
    pool = make(PoolSize(base=1, most=5, grow_at=10, shrink_at=0))
    gates = hold(pool, 1)
    for _ in range(9):
        pool.submit(lambda: None)
    assert pool.threads == 1
    pool.submit(lambda: None)
    assert pool.threads == 2
    release(gates)
    assert resizes.seen == [(1, 2, 10)]


def test_a_pool_that_is_not_dynamic_keeps_its_size(make: Callable[..., WorkerPool], resizes: Resizes) -> None:
    pool = make(PoolSize(base=2, most=32, grow_at=1, shrink_at=0, dynamic=False))
    gates = hold(pool, 2)
    for _ in range(100):
        pool.submit(lambda: None)
    assert pool.threads == 2
    release(gates)
    settle(pool)
    assert resizes.seen == []


def test_idle_threads_leave_one_by_one(make: Callable[..., WorkerPool], resizes: Resizes) -> None:
    pool = make(PoolSize(base=1, most=4, grow_at=2, shrink_at=0, linger=0.02))
    gates = crowd(pool, 1, 10)
    assert pool.threads == 4
    release(gates)
    resizes.wait(lambda seen: bool(seen) and seen[-1][1] == 1)
    assert [(old, new) for old, new, _ in resizes.seen[-3:]] == [(4, 3), (3, 2), (2, 1)]
    # And there is still somebody for the next job.
    settle(pool)
    assert pool.threads == 1


def test_it_grows_again_after_shrinking(make: Callable[..., WorkerPool], resizes: Resizes) -> None:
    pool = make(PoolSize(base=1, most=3, grow_at=2, shrink_at=0, linger=0.02))
    for turn in range(1, 4):
        release(crowd(pool, 1, 10))
        resizes.wait(lambda seen, turn=turn: len(seen) == 4 * turn)  # type: ignore[misc]
    assert pool.threads == 1


def test_hysteresis_a_short_lull_costs_no_thread(make: Callable[..., WorkerPool], resizes: Resizes) -> None:
    """Between the two thresholds, and for `linger` seconds below the lower one, nothing changes."""
    clock = Hand()
    pool = make(PoolSize(base=1, most=2, grow_at=4, shrink_at=2, linger=10.0), monotonic=clock)
    gates = hold(pool, 1)
    spare = [Gate() for _ in range(8)]
    for gate in spare:
        pool.submit(gate)
    assert resizes.seen == [(1, 2, 4)]
    assert spare[0].begun.wait(PATIENCE)
    # Seven wait. One by one they are taken, and a long time passes with each: above the threshold it counts not.
    release(gates)
    for number in range(4):
        clock.now += 100.0
        spare[number].opened.set()
        assert spare[number + 2].begun.wait(PATIENCE)
        assert pool.threads == 2
    # Two wait: the lull begins, and ends before ten seconds are over.
    clock.now += 9.0
    spare[4].opened.set()
    assert spare[6].begun.wait(PATIENCE)
    assert pool.threads == 2
    clock.now += 2.0
    spare[5].opened.set()
    resizes.wait(lambda seen: len(seen) == 2)
    assert resizes.seen[-1][:2] == (2, 1)
    # The job that waited was not lost with the thread that left.
    release(spare)
    assert spare[7].begun.wait(PATIENCE)
    settle(pool)


@pytest.mark.parametrize("linger", [0.0, 0.0001, 0.001])
def test_no_job_is_lost_while_threads_come_and_go(
    make: Callable[..., WorkerPool], resizes: Resizes, linger: float
) -> None:
    """Each round waits for its jobs: one that was left to nobody would stop it."""
    pool = make(PoolSize(base=1, most=8, grow_at=1, shrink_at=5, linger=linger))
    count = 0
    lock = threading.Lock()
    for turn in range(300):
        size = turn % 7 + 1
        done = threading.Semaphore(0)

        def job(done: threading.Semaphore = done) -> None:
            nonlocal count
            with lock:
                count += 1
            done.release()

        for _ in range(size):
            pool.submit(job)
        assert all(done.acquire(timeout=PATIENCE) for _ in range(size)), f"a job of round {turn} waits for nobody"
    assert count == sum(turn % 7 + 1 for turn in range(300))
    assert pool.waiting == 0


def test_many_submitters(make: Callable[..., WorkerPool]) -> None:
    pool = make(PoolSize(base=2, most=6, grow_at=2, shrink_at=1, linger=0.001))
    ran: list[tuple[int, int]] = []
    start = threading.Barrier(8)

    def submit(submitter: int) -> None:
        start.wait(PATIENCE)
        for number in range(500):
            pool.submit(lambda number=number: ran.append((submitter, number)))  # type: ignore[misc]

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert len(ran) == 4000
    assert len(set(ran)) == 4000


def test_a_job_that_raises_is_logged_and_harms_nobody(
    make: Callable[..., WorkerPool], caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(PoolSize(base=1, dynamic=False))

    def fail() -> None:
        raise RuntimeError("of the job")

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            pool.submit(fail)
        settle(pool)
    assert len(caplog.records) == 3
    assert "of the job" in str(caplog.records[0].exc_info)
    assert pool.threads == 1


def test_closing_finishes_what_was_submitted(resizes: Resizes) -> None:
    pool = WorkerPool(PoolSize(base=2, dynamic=False), on_resize=resizes)
    gates = hold(pool, 2)
    ran: list[int] = []
    for number in range(50):
        pool.submit(lambda number=number: ran.append(number))  # type: ignore[misc]
    closer = threading.Thread(target=pool.close)
    closer.start()
    release(gates)
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert sorted(ran) == list(range(50))
    assert pool.threads == 0
    # The end of a pool is no change of its size.
    assert resizes.seen == []


def test_jobs_of_jobs_are_finished_too() -> None:
    pool = WorkerPool(PoolSize(base=1))
    ran: list[str] = []
    gates = hold(pool, 1)

    def first() -> None:
        ran.append("first")
        pool.submit(lambda: ran.append("second"))

    pool.submit(first)
    closer = threading.Thread(target=pool.close)
    closer.start()
    release(gates)
    closer.join(PATIENCE)
    assert ran == ["first", "second"]


def test_after_closing_a_job_runs_at_once_in_the_callers_thread() -> None:
    pool = WorkerPool(PoolSize(base=1))
    pool.close()
    pool.close()
    ran: list[int | None] = []
    pool.submit(lambda: ran.append(threading.current_thread().ident))
    assert ran == [threading.get_ident()]


def test_a_thread_that_cannot_be_started_is_done_without(
    make: Callable[..., WorkerPool], resizes: Resizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has no thread to give: the job waits for those there are, and nobody miscounts."""
    pool = make(PoolSize(base=1, most=4, grow_at=2, shrink_at=0, linger=3600.0))
    gates = hold(pool, 1)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.submit(lambda: None)
        pool.submit(done.set)
    assert (pool.threads, pool.waiting) == (1, 2)
    assert resizes.seen == []
    release(gates)
    assert done.wait(PATIENCE)
