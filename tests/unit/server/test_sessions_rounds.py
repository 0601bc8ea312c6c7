"""What a process does about upload sessions all the time: count them, look through them, begin and end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.engine_world import FakeFiles, World

from hmac_file_server.config import Settings
from hmac_file_server.files.paths import PRIVATE
from hmac_file_server.sessions import DATABASE, Sessions, gauges, open_store, rules_of
from hmac_file_server.stores.contract import StoreError
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.telemetry import log
from hmac_file_server.telemetry.events import Event


class Lines:
    """What was logged: names and fields."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setattr(log, "event", self._event)

    def _event(self, kind: Event, /, *, exc: BaseException | None = None, **fields: Any) -> None:
        self.seen.append((kind.name, fields))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        seen, self.seen = self.seen, []
        return seen


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    return Lines(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / PRIVATE).mkdir()
    plain = Settings()
    return replace(plain, server=replace(plain.server, storage_path=tmp_path))


class Held:
    """The sessions of one process of two, with a clock that stands still and a store that counts as it is told."""

    def __init__(self, settings: Settings, world: World, slot: int = 0) -> None:
        self.world = world
        self.gauges = gauges(2)
        self.sessions = Sessions(
            settings,
            FakeFiles(world.processes[0]),  # type: ignore[arg-type]
            clock=world.clock,
            submit=self.submit,
            slot=slot,
            slots=2,
            gauges=self.gauges,
        )
        self.count: int | StoreError = 0
        self.sessions.engine.open_sessions = self._open_sessions  # type: ignore[method-assign]

    def submit(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work).start()

    def _open_sessions(self) -> int:
        if isinstance(self.count, StoreError):
            raise self.count
        return self.count

    def report(self, count: int | StoreError, *transfers: int, after: float = 0.0) -> None:
        """A look at the numbers, `after` seconds later."""
        self.world.clock.advance(after)
        self.count = count
        for slot, number in enumerate(transfers):
            self.gauges[slot] = number
        self.sessions._report()


def held(settings: Settings, play: Callable[[Held], None], slot: int = 0) -> None:
    """Play on an event loop, as a process does."""

    async def run() -> None:
        it = Held(settings, World(), slot)
        try:
            play(it)
        finally:
            it.sessions.close()

    asyncio.run(run())


def pair(count: int, transfers: int) -> list[tuple[str, dict[str, Any]]]:
    """The guide's two lines."""
    return [("sessions_active", {"count": count}), ("resilient_uploads", {"count": transfers})]


def test_numbers_are_told_when_they_change(settings: Settings, lines: Lines) -> None:
    def play(it: Held) -> None:
        it.report(0, 0, 0)
        assert lines.take() == []
        it.report(3, 1, 2)
        assert lines.take() == pair(3, 3)
        it.report(3, 2, 1, after=5)
        assert lines.take() == []
        it.report(3, 2, 2, after=5)
        assert lines.take() == pair(3, 4)
        it.report(0, 0, 0, after=5)
        assert lines.take() == pair(0, 0)

    held(settings, play)


def test_the_same_numbers_are_told_once_a_minute(settings: Settings, lines: Lines) -> None:
    """A running server says that uploads are under way; one at rest says nothing."""

    def play(it: Held) -> None:
        it.report(2, 1)
        assert lines.take() == pair(2, 1)
        for _ in range(11):
            it.report(2, 1, after=5)
        assert lines.take() == []
        it.report(2, 1, after=5)
        assert lines.take() == pair(2, 1)
        it.report(0, 0)
        lines.take()
        for _ in range(100):
            it.report(0, 0, after=60)
        assert lines.take() == []

    held(settings, play)


def test_a_store_that_cannot_be_read_tells_no_numbers(settings: Settings, lines: Lines) -> None:
    def play(it: Held) -> None:
        it.report(2, 1)
        lines.take()
        it.report(StoreError("no"), 0, after=100)
        assert lines.take() == []
        it.report(2, 0, after=5)
        assert lines.take() == pair(2, 0)

    held(settings, play)


def test_the_first_process_speaks_for_all(settings: Settings, lines: Lines) -> None:
    """The others put their number where it can be read."""

    async def run(slot: int) -> list[int]:
        it = Held(settings, World(), slot)
        it.count = 1
        it.sessions.engine._transfers = 7
        task = asyncio.get_running_loop().create_task(it.sessions._report_often())
        while not it.gauges[slot]:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        it.sessions.close()
        return list(it.gauges)

    assert asyncio.run(run(1)) == [0, 7]
    assert lines.take() == []
    assert asyncio.run(run(0)) == [7, 0]
    assert lines.take() == pair(1, 7)


def test_a_sweep_that_fails_is_told_and_done_again(
    settings: Settings, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        it = Held(settings, World())
        enough = asyncio.Event()
        loop = asyncio.get_running_loop()
        turns: list[int] = []

        def sweep() -> None:
            turns.append(1)
            if len(turns) > 2:
                loop.call_soon_threadsafe(enough.set)
                return
            raise StoreError("no")

        it.sessions.engine.sweep = sweep  # type: ignore[method-assign]
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def short(seconds: float) -> None:
            pauses.append(seconds)
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", short)
        await it.sessions.start()
        await enough.wait()
        await it.sessions.stop()
        it.sessions.close()
        # Twice a minute, or four times while a session lives.
        assert set(pauses) <= {30.0, 1.0}
        assert 30.0 in pauses

    asyncio.run(run())
    failed = [fields["reason"] for name, fields in lines.seen if name == "sessions_sweep_failed"]
    assert failed == ["sessions_unavailable"] * 2


def test_a_start_that_cannot_recover_is_no_start(settings: Settings) -> None:
    async def run() -> None:
        it = Held(settings, World())

        def recover() -> None:
            raise StoreError("no")

        it.sessions.engine.recover = recover  # type: ignore[method-assign]
        with pytest.raises(StoreError):
            await it.sessions.start()
        await it.sessions.stop()
        it.sessions.close()

    asyncio.run(run())


def test_timers_from_any_thread_and_after_the_end(settings: Settings) -> None:
    async def run() -> Sessions:
        it = Held(settings, World())
        called = asyncio.Event()
        thread = threading.Thread(target=it.sessions.call_later, args=(0.0, called.set))
        thread.start()
        await called.wait()
        thread.join()
        it.sessions.close()
        return it.sessions

    ended = asyncio.run(run())
    ended.call_later(0.0, lambda: pytest.fail("called after the end"))


def test_new_settings_are_the_engine_s_rules(settings: Settings) -> None:
    def play(it: Held) -> None:
        uploads = replace(settings.uploads, max_resumable_age=7.0, max_sessions_per_owner=3)
        it.sessions.configure(replace(settings, uploads=uploads))
        rules = it.sessions.engine.rules
        assert (rules.max_age, rules.sessions_per_owner, rules.full) == (7.0, 3, True)

    held(settings, play)
    relaxed = replace(settings, uploads=replace(settings.uploads, durability="relaxed"))
    assert rules_of(relaxed).full is False


def test_the_store_lies_in_the_private_folder(settings: Settings) -> None:
    store, coordinator = open_store(settings, loud=True)
    store.close()
    assert (settings.server.storage_path / PRIVATE / DATABASE).is_file()
    asked: list[bool] = []
    coordinator.ask("1_a", asked.append)
    assert asked == [False]
    coordinator.close()


def test_a_redis_that_cannot_be_used_leaves_no_store_open(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from hmac_file_server.stores import redis_coordinator

    def refuse(*_arguments: object, **_named: object) -> None:
        raise StoreError("no")

    closed: list[bool] = []
    close = SqliteStore.close

    def noted(store: SqliteStore) -> None:
        closed.append(True)
        close(store)

    monkeypatch.setattr(SqliteStore, "close", noted)
    monkeypatch.setattr(redis_coordinator, "RedisCoordinator", refuse)
    redis = replace(settings.redis, enabled=True, url="redis://127.0.0.1:1/0")
    with pytest.raises(StoreError):
        open_store(replace(settings, redis=redis), loud=False)
    assert closed


def test_gauges_are_one_memory(settings: Settings) -> None:
    """One number a process, however many."""
    for count in (1, 2, 600):
        shared = gauges(count)
        assert list(shared) == [0] * count
        shared[count - 1] = 1 << 40
        assert sum(shared) == 1 << 40
