"""One server process: the real file store, session store, engine and protocols, with every thread made an event.

What runs here is the code of the server but for these parts. The committer and the session writer do what theirs do
with a batch, but the schedule says when and with how much of the queue. Workers and the event loop are the schedule's.
The coordinator is a bus between simulated servers, in the place of the one that speaks to Redis.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from tests.simulation.medium import ROOT, ProcessDisk, io_error

from hmac_file_server.auth import Gate, KeyRing
from hmac_file_server.config.base_paths import BasePaths
from hmac_file_server.files import local
from hmac_file_server.files.committer import Committer, Job, sync_all
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.protocols import Application
from hmac_file_server.stores.contract import Change, Create, Done, Result
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.uploads import Engine, Rules

if TYPE_CHECKING:
    from tests.simulation.world import World

SECRET = b"it-is-secret-it-is-secret-it-is-secret"
_SWEEP_SECONDS = 30.0
# What the log says of faults that no fault of the disk or the store explains.
_FAULTS = frozenset({"commit_failed", "publish_callback_failed", "session_callback_failed", "session_change_failed"})


class SteppedCommitter(Committer):
    """The committer without its thread: `_commit` is an event."""

    def __init__(self, server: Server, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._server = server
        self._waiting: list[Job] = []
        self._queue = self  # type: ignore[assignment]

    def put(self, job: Job) -> None:
        """In the place of the queue."""
        assert isinstance(job, Job)
        self._waiting.append(job)
        if len(self._waiting) == 1:
            self._server.later("commit", self._some)

    def _some(self) -> None:
        count = self._server.world.schedule.chance.randint(1, len(self._waiting))
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if self._waiting:
            self._server.later("commit", self._some)
        self._commit(batch)

    def _sync_directories(self, directories: Any) -> dict[Any, OSError]:
        return sync_all(self._disk, directories)


class SteppedStore(SqliteStore):
    """The session store without its thread: a commit is an event, and each answer to it another."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: list[tuple[Change, Done]] = []
        self._answers: list[tuple[Done, Result]] = []
        self._answered_at = float("-inf")
        super().__init__("uploads.db", full=True, connect=cast("Any", server.disk.connect), log=server.log)

    def submit(self, change: Change, done: Done, /) -> None:
        if not self._server.alive:
            return
        self._waiting.append((change, done))
        if len(self._waiting) == 1 and not self._answers:
            self._server.later("session commit", self._some)

    def _some(self) -> None:
        count = self._server.world.schedule.chance.randint(1, len(self._waiting))
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._commit(batch)
        if self._answers:
            self._server.later("session answer", self._tell)

    @property
    def answered_at(self) -> float:
        """When it last said what it had committed: now, if it still has something to say."""
        return self._server.world.schedule.clock.steady if self._answers else self._answered_at

    def _tell(self) -> None:
        self._answered_at = self._server.world.schedule.clock.steady
        done, result = self._answers.pop(0)
        if self._answers:
            self._server.later("session answer", self._tell)
        elif self._waiting:
            self._server.later("session commit", self._some)
        done(result)

    def _answer(self, done: Done, result: Result) -> None:
        self._answers.append((done, result))

    def _transact(self, changes: list[Change]) -> list[Result]:
        world = self._server.world
        results = super()._transact(changes)
        for change, result in zip(changes, results, strict=True):
            world.judge.committed(change, result, self._now(change))
        if world.take_fault("unanswered commit"):
            raise io_error()
        return results

    def _now(self, change: Change) -> Any:
        return self.get(change.session.id if isinstance(change, Create) else change.id)


class Bus:
    """How the servers ask each other: messages get lost, come late, twice and in any order. See `Coordinator`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.on_release: Callable[[str, Callable[[], None]], None] | None = None
        self.on_progress: Callable[[str], None] | None = None

    def start(self, on_release: Callable[[str, Callable[[], None]], None], on_progress: Callable[[str], None]) -> None:
        self.on_release, self.on_progress = on_release, on_progress

    def ask(self, upload_id: str, done: Callable[[bool], None], /) -> None:
        world, server = self._server.world, self._server
        others = [other for other in world.servers if other is not server and other.alive]
        if not others or world.deaf:
            done(False)
            return
        open_questions = [done]
        left = {other.name for other in others}

        def answer(result: bool) -> None:
            if open_questions:
                open_questions.pop()(result)

        def heard(name: str) -> None:
            left.discard(name)
            if not left:
                answer(True)

        def asked(other: Server) -> None:
            assert other.bus.on_release is not None
            other.bus.on_release(
                upload_id, lambda: self._send(server, "released", functools.partial(heard, other.name))
            )

        for other in others:
            self._send(other, "release", functools.partial(asked, other))
        world.schedule.after(1.0, server, "question over", lambda: answer(False))

    def tell(self, upload_id: str, /) -> None:
        for other in self._server.world.servers:
            if other is not self._server and other.alive and other.bus.on_progress is not None:
                self._send(other, "progress", functools.partial(other.bus.on_progress, upload_id))

    def _send(self, to: Server, label: str, call: Callable[[], None]) -> None:
        chance = self._server.world.schedule.chance
        roll = chance.random()
        if self._server.world.quiet or roll > 0.15:
            self._server.world.schedule.after(chance.random() * 0.01, to, label, call)
        elif roll > 0.08:
            self._server.world.schedule.after(chance.random() * 1.5, to, label + " late", call)

    def close(self) -> None:
        """Nothing to end."""


class Server:
    """A process that serves until it dies."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.unanswered = 0
        self._loop_until = 0.0
        schedule = world.schedule
        self.disk = ProcessDisk(world.medium, self._before)
        committer = functools.partial(SteppedCommitter, self)
        # No thread of theirs is ever started.
        with mock.patch.object(local, "Committer", committer), mock.patch.object(threading.Thread, "start"):
            self.files = LocalFileStore(
                Path(ROOT),
                dedup=world.dedup,
                dedup_hash="sha256",
                clock=schedule.clock,
                random=schedule.chance.randbytes,
                disk=cast("Disk", self.disk),
                submit=self.submit,
                log=self.log,
            )
            self.store = SteppedStore(self)
        self.bus = Bus(self)
        self.engine = Engine(
            self.files,
            self.store,
            clock=schedule.clock,
            random=schedule.chance.randbytes,
            submit=self.submit,
            call_later=self.call_later,
            coordinator=self.bus,
            log=self.log,
            rules=Rules(
                max_age=world.settings.uploads.max_resumable_age,
                sessions_per_owner=world.settings.uploads.max_sessions_per_owner,
                held=world.held,
            ),
        )
        self.engine.recover()
        self.bus.start(self.engine.release, self.engine.progressed)
        gate = Gate(KeyRing([SECRET]), base_paths=BasePaths(world.settings.server.base_path), clock=schedule.clock)
        self.application = Application(
            world.settings,
            store=self.files,
            engine=self.engine,
            gate=gate,
            clock=schedule.clock,
            random=schedule.chance.randbytes,
            submit=self.submit,
            call_soon=self.call_soon,
            call_later=self.call_later,
            give=lambda _process, _fd, _data, _peer: False,
            ready=lambda: None,
            busy=lambda: False,
            on_refusal=lambda _exchange, refusal: world.judge.blame(f"refused: {refusal.detail_log}"),
        )
        self.call_later(_SWEEP_SECONDS * schedule.chance.random(), self._sweep)

    def _before(self, call: str) -> None:
        """A call that changes something is about to be made."""
        self.world.before(self, call)

    # ---- threads, as events

    def later(self, label: str, call: Callable[[], None]) -> None:
        """On a thread of its own, soon."""
        self.world.schedule.after(self.world.pause(), self, f"{self.name}: {label}", call)

    def submit(self, call: Callable[[], None]) -> None:
        """On a worker."""
        if self.alive:
            self.later("worker", call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """On the event loop, after a while."""
        self.world.schedule.after(seconds, self, f"{self.name}: timer", call)

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """On the event loop, in the order of the calls."""
        schedule = self.world.schedule
        now = schedule.clock.steady
        self._loop_until = max(self._loop_until, now + schedule.chance.random() * 0.001)
        schedule.after(self._loop_until - now, self, f"{self.name}: loop", functools.partial(call, *arguments))

    def _sweep(self) -> None:
        def work() -> None:
            if self.world.may_sweep:
                self.sweep()
            self.call_later(_SWEEP_SECONDS, self._sweep)

        self.submit(work)

    def sweep(self) -> None:
        self.engine.sweep()

    def log(self, event: str, /, **fields: object) -> None:
        if event in _FAULTS and self.alive:
            self.world.judge.blame(f"{self.name} logs {event}: {fields}")

    # ---- the end

    def die(self) -> None:
        """SIGKILL."""
        self.alive = False
        self.disk.die()

    def promised(self) -> tuple[int, int]:
        """Bytes and uploads that space is promised to."""
        return self.files.pool().outstanding
