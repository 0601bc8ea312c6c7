"""The application over a store in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from tests.unit.uploads.memory_store import MemoryStore

from hmac_file_server.auth import Gate, KeyRing, Refusal
from hmac_file_server.config import Settings
from hmac_file_server.config.base_paths import BasePaths
from hmac_file_server.http import Exchange
from hmac_file_server.protocols import Application
from hmac_file_server.uploads import Engine

SECRET = b"it-is-secret-it-is-secret-it-is-secret"
NOW = 1_700_000_000.0


class Stopped:
    """A clock that stands still."""

    def time(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Site:
    """An application, and what it told of refusals."""

    def __init__(self, settings: Settings) -> None:
        self.store = MemoryStore()
        self.refusals: list[Refusal] = []
        self.not_ready: str | None = None
        self.clock = Stopped()
        self.busy = False
        # Uploads in pieces are tested with the engine itself.
        self.engine: object = None
        self.application = Application(
            settings,
            store=self.store,
            engine=cast("Engine", self.engine),
            gate=self.gate(settings),
            clock=self.clock,
            random=lambda count: bytes(range(count)),
            submit=self.submit,
            call_soon=lambda callback, *arguments: callback(*arguments),
            call_later=lambda _seconds, _callback: None,
            give=lambda _process, _fd, _data, _peer: False,
            ready=lambda: self.not_ready,
            busy=lambda: self.busy,
            on_refusal=self.refused,
        )

    def gate(self, settings: Settings) -> Gate:
        return Gate(
            KeyRing([SECRET]),
            base_paths=BasePaths(settings.server.base_path),
            clock=self.clock,
            delete_secret=b"delete-secret-delete-secret",
        )

    def submit(self, job: Callable[[], None]) -> None:
        self.store.later.append(job)

    def refused(self, exchange: Exchange, refusal: Refusal) -> None:
        self.refusals.append(refusal)


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[[Settings], Site]:
    return Site


@pytest.fixture
def site() -> Site:
    return Site(Settings())
