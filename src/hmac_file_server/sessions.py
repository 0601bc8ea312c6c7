"""Upload sessions of one process put together: their store, the coordinator, the engine, and its rounds."""

import asyncio
import contextlib
import mmap
import os
import socket
from collections.abc import Callable
from typing import Final

from hmac_file_server.clock import Clock
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import FileStore, StorageError
from hmac_file_server.files.paths import PRIVATE
from hmac_file_server.stores.alone import NoCoordinator
from hmac_file_server.stores.contract import Coordinator, SessionStore, StoreError
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.telemetry import events, log
from hmac_file_server.uploads import Engine, Rules
from hmac_file_server.workers import done_by

DATABASE: Final = "uploads.db"
_SWEEP_SECONDS: Final = 30.0
# The guide shows both lines; once a minute is enough for people, and never more than one line for each change.
_REPORT_SECONDS: Final = 5.0
_REPORT_AGAIN: Final = 60.0
_DAY: Final = 86400

Submit = Callable[[Callable[[], None]], object]


def gauges(processes: int) -> "memoryview[int]":
    """One number a process that all of them can read: its transfers. To be made before the fork."""
    return memoryview(mmap.mmap(-1, max(mmap.PAGESIZE, 8 * processes))).cast("q")[:processes]


class Sessions:
    """What the serving process holds of uploads in pieces. Made and used on its event loop."""

    def __init__(
        self,
        settings: Settings,
        files: FileStore,
        *,
        clock: Clock,
        submit: Submit,
        slot: int,
        slots: int,
        gauges: "memoryview[int]",
    ) -> None:
        """Open the store; `gauges` has one number a process: its transfers. Raises StoreError, StorageError."""
        self._clock = clock
        self._submit = submit
        self._slot = slot
        self._gauges = gauges
        self._loop = asyncio.get_running_loop()
        self._reported: tuple[int, int] = (0, 0)
        self._reported_at = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        self.store, self._coordinator = open_store(settings, loud=slot == 0)
        self.engine = Engine(
            files,
            self.store,
            clock=clock,
            random=os.urandom,
            submit=submit,
            call_later=self.call_later,
            coordinator=self._coordinator,
            log=log.named,
            rules=rules_of(settings),
            slot=slot,
            slots=slots,
        )

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run on the event loop after a while; from any thread. After the loop has closed, does nothing."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, callback)

    async def start(self) -> None:
        """Recover what a former process left, and begin the rounds. Raises StoreError, StorageError."""
        await self._loop.run_in_executor(None, self.engine.recover)
        self._coordinator.start(self.engine.release, self.engine.progressed)
        self._tasks.append(self._loop.create_task(self._sweep_often()))
        self._tasks.append(self._loop.create_task(self._report_often()))

    def configure(self, settings: Settings) -> None:
        """Take new settings; they count for what happens from now on."""
        self.engine.rules = rules_of(settings)

    async def stop(self) -> None:
        """End the rounds and let go of every upload. Transfers have been ended; workers still run."""
        for task in self._tasks:
            task.cancel()
        self._coordinator.close()
        await self._loop.run_in_executor(None, self.engine.close)

    def close(self) -> None:
        """Close the store; blocks. After the workers have ended."""
        self.store.close()

    async def _sweep_often(self) -> None:
        while True:
            await done_by(self._submit, self._sweep)
            await asyncio.sleep(max(0.5, min(_SWEEP_SECONDS, self.engine.rules.max_age / 4)))

    def _sweep(self) -> None:
        try:
            self.engine.sweep()
        except (StoreError, StorageError) as error:
            log.event(events.SESSIONS_SWEEP_FAILED, reason=error.code, exc=error)

    async def _report_often(self) -> None:
        """The guide's two lines: when a number changed, at most every five seconds; unchanged ones, each minute."""
        while True:
            self._gauges[self._slot] = self.engine.transfers
            if self._slot == 0:
                self._report()
            await asyncio.sleep(_REPORT_SECONDS if self._reported != (0, 0) else 1.0)

    def _report(self) -> None:
        try:
            figures = (self.engine.open_sessions(), sum(self._gauges))
        except StoreError:
            return
        now = self._clock.monotonic()
        again = figures != (0, 0) and now - self._reported_at >= _REPORT_AGAIN
        if figures != self._reported or again:
            self._reported, self._reported_at = figures, now
            log.event(events.SESSIONS_ACTIVE, count=figures[0])
            log.event(events.RESILIENT_UPLOADS, count=figures[1])


def open_store(settings: Settings, *, loud: bool) -> tuple[SessionStore, Coordinator]:
    """The session store that the settings describe, and who else to ask. Raises StoreError.

    `loud`: this process says in the log when Redis goes and comes, for all.
    """
    file = os.fspath(settings.server.storage_path / PRIVATE / DATABASE)
    store = SqliteStore(file, full=settings.uploads.durability == "full", log=log.named)
    if not settings.redis.enabled:
        return store, NoCoordinator()
    from hmac_file_server.stores.redis import RedisMirror
    from hmac_file_server.stores.redis_coordinator import RedisCoordinator

    try:
        ttl = int(3 * settings.uploads.max_resumable_age) + _DAY
        mirror = RedisMirror(store, settings.redis.url, ttl=ttl, log=log.named if loud else None)
        node = f"{socket.gethostname()}:{os.getpid()}"
        return mirror, RedisCoordinator(settings.redis.url, node=node)
    except BaseException:
        store.close()
        raise


def rules_of(settings: Settings) -> Rules:
    """The engine's rules."""
    uploads = settings.uploads
    return Rules(
        max_age=uploads.max_resumable_age,
        sessions_per_owner=uploads.max_sessions_per_owner,
        full=uploads.durability == "full",
    )
