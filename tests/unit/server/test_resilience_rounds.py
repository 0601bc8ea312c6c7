"""What a process does when its network changes: which word goes where, how often, and that nothing stays paused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from hmac_file_server import resilience
from hmac_file_server.config import Settings
from hmac_file_server.http import Listener
from hmac_file_server.network.addresses import Snapshot
from hmac_file_server.resilience import PAUSED, Resilience
from hmac_file_server.telemetry import log
from hmac_file_server.telemetry.events import Event
from hmac_file_server.uploads import Engine


class FakeMonitor:
    """Tells of a change when the test says so."""

    made: list[FakeMonitor]

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[Snapshot, Snapshot], None],
        interval: float,
        **_: Any,
    ) -> None:
        self.on_change = on_change
        self.interval = interval
        self.running = False
        FakeMonitor.made.append(self)

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class Process:
    """A listener, an engine and a log that note what is asked of them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[str] = []
        self.vanished = 0
        self.resumed = asyncio.Event()
        monkeypatch.setattr(log, "event", self._event)
        FakeMonitor.made = []
        monkeypatch.setattr(resilience, "Monitor", FakeMonitor)

    def _event(self, kind: Event, /, **fields: Any) -> None:
        self.did.append(f"log {kind.name}" + "".join(f" {value}" for value in fields.values()))

    def flush_all(self) -> None:
        self.did.append("flush")

    def pause_bodies(self, reason: str) -> None:
        self.did.append(f"pause {reason}")

    def resume_bodies(self, reason: str) -> None:
        self.did.append(f"resume {reason}")
        self.resumed.set()

    def close_vanished(self, addresses: frozenset[str]) -> int:
        self.did.append(f"close but {','.join(sorted(addresses))}")
        return self.vanished

    def take(self) -> list[str]:
        did, self.did = self.did, []
        return did

    def watch(self, settings: Settings, *, loud: bool = True) -> Resilience:
        return Resilience(settings, cast("Listener", self), cast("Engine", self), loud=loud)


def network(*addresses: str) -> Snapshot:
    return Snapshot(frozenset(), frozenset(), frozenset(addresses))


def with_times(**times: float) -> Settings:
    plain = Settings()
    return replace(plain, network_resilience=replace(plain.network_resilience, **times))


def play(monkeypatch: pytest.MonkeyPatch, scene: Callable[[Process], Any]) -> None:
    async def run() -> None:
        await scene(Process(monkeypatch))

    asyncio.run(run())


ONE, OTHER = network("192.0.2.1", "127.0.0.1"), network("127.0.0.1", "192.0.2.9")


def test_a_change_in_the_guide_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is made durable before its sockets stand still; they go on when the network is quiet."""

    async def scene(process: Process) -> None:
        watch = process.watch(with_times(stabilization_delay=0.01, max_pause=60.0))
        FakeMonitor.made[0].on_change(ONE, network("192.0.2.1", "127.0.0.1", "192.0.2.2"))
        assert process.take() == ["log network_changed", "log uploads_paused", "flush", f"pause {PAUSED}"]
        await process.resumed.wait()
        assert process.take() == [f"resume {PAUSED}", "log uploads_resumed"]
        watch.stop()
        assert process.take() == []

    play(monkeypatch, scene)


def test_connections_to_an_address_that_is_gone_are_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(process: Process) -> None:
        watch = process.watch(with_times(stabilization_delay=60.0))
        process.vanished = 3
        FakeMonitor.made[0].on_change(ONE, OTHER)
        assert process.take() == [
            "log network_changed",
            "close but 127.0.0.1,192.0.2.9",
            "log addresses_vanished 3",
            "log uploads_paused",
            "flush",
            f"pause {PAUSED}",
        ]
        watch.stop()

    play(monkeypatch, scene)


def test_only_one_process_writes_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pause; what each has closed is its own to tell."""

    async def scene(process: Process) -> None:
        watch = process.watch(with_times(stabilization_delay=60.0), loud=False)
        process.vanished = 1
        FakeMonitor.made[0].on_change(ONE, OTHER)
        assert process.take() == [
            "close but 127.0.0.1,192.0.2.9",
            "log addresses_vanished 1",
            "flush",
            f"pause {PAUSED}",
        ]
        watch.stop()
        assert process.take() == [f"resume {PAUSED}"]

    play(monkeypatch, scene)


def test_a_network_that_flaps_is_one_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(process: Process) -> None:
        now = 100.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now, raising=False)
        watch = process.watch(with_times(stabilization_delay=60.0, max_pause=600.0))
        for turn in range(40):
            now = 100.0 + turn * 0.1
            FakeMonitor.made[0].on_change(*((ONE, OTHER), (OTHER, ONE))[turn % 2])
        did = process.take()
        assert did.count("log network_changed") == 4
        assert did.count(f"pause {PAUSED}") == 1
        # Each time an address went, whoever used it is told.
        assert sum(word.startswith("close") for word in did) == 40
        watch.stop()

    play(monkeypatch, scene)


def test_nothing_stays_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the end nor when the times are changed meanwhile."""

    async def scene(process: Process) -> None:
        settings = with_times(stabilization_delay=60.0, max_pause=600.0)
        watch = process.watch(settings)
        FakeMonitor.made[0].on_change(ONE, OTHER)
        process.take()
        watch.configure(settings)
        assert (process.take(), len(FakeMonitor.made)) == ([], 1)
        watch.configure(with_times(stabilization_delay=5.0, poll_interval=7.0))
        assert process.take() == [f"resume {PAUSED}", "log uploads_resumed"]
        old, new = FakeMonitor.made
        assert (old.running, new.running, new.interval) == (False, True, 7.0)
        new.on_change(OTHER, ONE)
        assert f"pause {PAUSED}" in process.take()
        watch.stop()
        assert process.take() == [f"resume {PAUSED}", "log uploads_resumed"]
        assert not new.running
        watch.stop()
        assert process.take() == []

    play(monkeypatch, scene)


def test_no_pause_when_there_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`max_pause = "0s"`: what can never go on is closed all the same."""

    async def scene(process: Process) -> None:
        watch = process.watch(with_times(max_pause=0.0))
        FakeMonitor.made[0].on_change(ONE, OTHER)
        assert process.take() == ["log network_changed", "close but 127.0.0.1,192.0.2.9"]
        watch.stop()
        assert process.take() == []

    play(monkeypatch, scene)


def test_switched_off_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(process: Process) -> None:
        off = with_times()
        off = replace(off, server=replace(off.server, networkevents=False))
        watch = process.watch(off)
        watch.configure(replace(off, network_resilience=replace(off.network_resilience, max_pause=1.0)))
        assert FakeMonitor.made == []
        watch.stop()
        assert process.take() == []

    play(monkeypatch, scene)
