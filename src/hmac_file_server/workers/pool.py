"""The pool of disk workers: a queue, and threads that come and go with its length."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)

Job = Callable[[], None]
OnResize = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How a pool is sized.

    `base` threads are always there. With `dynamic`, one more is started whenever a job arrives while at
    least `grow_at` wait, up to `most`; one is given back when a thread finds at most `shrink_at` waiting and
    has been idle for `linger` seconds.
    """

    base: int = 4
    most: int = 32
    grow_at: int = 50
    shrink_at: int = 10
    dynamic: bool = True
    linger: float = 5.0


class WorkerPool:
    """Runs jobs on threads. `submit` never blocks and never refuses."""

    def __init__(self, size: PoolSize, *, name: str = "worker", on_resize: OnResize | None = None) -> None:
        """`on_resize(old, new, waiting)` is told of every change of the number of threads."""
        self._size = size
        self._name = name
        self._on_resize = on_resize
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

    def submit(self, job: Job) -> None:
        """Run `job` soon. What it raises is logged. After `close`, it runs at once in the calling thread."""
        grown: tuple[int, int, int] | None = None
        with self._ready:
            if self._closing:
                closed = True
            else:
                closed = False
                self._jobs.append(job)
                size = self._size
                if self._idle:
                    self._ready.notify()
                elif size.dynamic and len(self._jobs) >= size.grow_at and self._count < size.most:
                    grown = (self._count, self._count + 1, len(self._jobs))
                    self._start()
        if closed:
            _run(job)
        elif grown is not None and self._on_resize is not None:
            self._on_resize(*grown)

    def close(self) -> None:
        """Finish what was submitted, then end the threads."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        self._count += 1
        self._started += 1
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        size = self._size
        while True:
            shrunk: tuple[int, int, int] | None = None
            with self._ready:
                while not self._jobs:
                    if self._closing:
                        self._leave()
                        return
                    self._idle += 1
                    awoken = self._ready.wait(size.linger)
                    self._idle -= 1
                    if not awoken and self._count > size.base and len(self._jobs) <= size.shrink_at:
                        shrunk = (self._count, self._count - 1, len(self._jobs))
                        self._leave()
                        break
                else:
                    job = self._jobs.popleft()
            if shrunk is not None:
                if self._on_resize is not None:
                    self._on_resize(*shrunk)
                return
            _run(job)

    def _leave(self) -> None:
        self._count -= 1
        self._threads.discard(threading.current_thread())


def _run(job: Job) -> None:
    try:
        job()
    except Exception:
        _log.exception("a worker's job failed")
