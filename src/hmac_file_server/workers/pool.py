"""The pool of disk workers: a queue, and threads that come and go with its length."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)

Job = Callable[[], None]
OnResize = Callable[[int, int, int], None]
OnFull = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How a pool is sized.

    `base` threads are always there. With `dynamic`, one more is started whenever a job arrives and at least
    `grow_at` wait for which nobody is idle, up to `most`; one is given back each time that no more than
    `shrink_at` jobs have waited for `linger` seconds.
    """

    base: int = 4
    most: int = 32
    grow_at: int = 50
    shrink_at: int = 10
    dynamic: bool = True
    linger: float = 5.0


class WorkerPool:
    """Runs jobs on threads. `submit` never blocks and never refuses.

    The queue is full when `queue_size` jobs wait for which nobody is idle and no thread can be added, until half
    of them or fewer do; with 0 it is never full. Full or not, it takes every job: whoever brings more work is
    told, and is to hold it back where it comes from. A pool grows before it is full, also when `grow_at` is more.
    """

    def __init__(
        self,
        size: PoolSize,
        *,
        queue_size: int = 0,
        name: str = "worker",
        on_resize: OnResize | None = None,
        on_full: OnFull | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_resize(old, new, waiting)` is told of every change of the number of threads.

        `on_full(True)` and `on_full(False)` are told by turns, one call at a time, on any thread, with no lock
        held: it may submit jobs. A change that was undone before it could be told is not told.
        """
        self._size = size
        self._monotonic = monotonic
        self._busy_at = float("-inf")
        """When more than `shrink_at` jobs waited last, or a thread was given back."""
        self._name = name
        self._on_resize = on_resize
        self._on_full = on_full
        self._full_since: float | None = None
        self._told_full = False
        self._telling = False
        self._queue_size = queue_size
        self._grow_at = min(size.grow_at, queue_size) if queue_size else size.grow_at
        self._jobs: deque[Job] = deque()
        self._ready = threading.Condition(threading.Lock())
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._count = 0
        self._started = 0
        self._closing = False
        with self._ready:
            for _ in range(size.base):
                self._start()

    @property
    def threads(self) -> int:
        """Threads at work or waiting for it."""
        return self._count

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._jobs)

    @property
    def full_since(self) -> float | None:
        """When the queue became full, by the pool's monotonic clock in seconds; None when it is not."""
        return self._full_since

    def submit(self, job: Job) -> None:
        """Run `job` soon. What it raises is logged. After `close`, it runs at once in the calling thread."""
        grown: tuple[int, int, int] | None = None
        filled = False
        with self._ready:
            if self._closing:
                closed = True
            else:
                closed = False
                self._jobs.append(job)
                size = self._size
                if self._idle:
                    self._ready.notify()
                # An idle thread that was woken before may not have come to its job yet.
                waiting = len(self._jobs) - self._idle
                if size.dynamic and waiting >= self._grow_at and self._count < size.most:
                    self._busy_at = self._monotonic()
                    old = self._count
                    # Where the system grants no thread, the job waits for one of those there are.
                    with contextlib.suppress(RuntimeError):
                        self._start()
                        grown = (old, old + 1, waiting)
                if self._queue_size and waiting >= self._queue_size and grown is None and self._full_since is None:
                    self._full_since = self._monotonic()
                    filled = True
        if closed:
            _run(job)
            return
        if grown is not None and self._on_resize is not None:
            self._on_resize(*grown)
        if filled:
            self._tell_full()

    def close(self) -> None:
        """Finish what was submitted, then end the threads."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._started + 1}", daemon=True)
        thread.start()
        self._threads.add(thread)
        self._count += 1
        self._started += 1

    def _work(self) -> None:
        while True:
            with self._ready:
                job = self._take()
                relieved = self._full_since is not None and len(self._jobs) - self._idle <= self._queue_size // 2
                if relieved:
                    self._full_since = None
                if job is None:
                    resized = None if self._closing else (self._count + 1, self._count, len(self._jobs))
                    break
            if relieved:
                self._tell_full()
            _run(job)
        if relieved:
            self._tell_full()
        if resized is not None and self._on_resize is not None:
            self._on_resize(*resized)

    def _take(self) -> Job | None:
        """The next job; None when this thread has left the pool. The caller holds the lock."""
        size = self._size
        while True:
            waiting = len(self._jobs)
            if waiting > size.shrink_at:
                self._busy_at = self._monotonic()
            calm = self._monotonic() - self._busy_at if self._count > size.base else 0.0
            if self._count > size.base and waiting <= size.shrink_at and calm >= size.linger and not self._closing:
                self._busy_at = self._monotonic()
                if waiting:
                    # It may have been woken for that job.
                    self._ready.notify()
                self._leave()
                return None
            if waiting:
                return self._jobs.popleft()
            if self._closing:
                self._leave()
                return None
            self._idle += 1
            # A wait that timed out may have swallowed a notification, so its result means nothing.
            self._ready.wait(None if self._count <= size.base else max(0.0, size.linger - calm))
            self._idle -= 1

    def _leave(self) -> None:
        self._count -= 1
        self._threads.discard(threading.current_thread())

    def _tell_full(self) -> None:
        """Tell what has changed since it was told last, unless another thread is about it: that one goes on."""
        if self._on_full is None:
            return
        while True:
            with self._ready:
                full = self._full_since is not None
                if self._telling or full == self._told_full:
                    return
                self._telling = True
                self._told_full = full
            try:
                self._on_full(full)
            except Exception:
                _log.exception("a pool's on_full failed")
            finally:
                with self._ready:
                    self._telling = False


def _run(job: Job) -> None:
    try:
        job()
    except Exception:
        _log.exception("a worker's job failed")
