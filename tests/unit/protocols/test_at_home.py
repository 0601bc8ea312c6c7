"""A request that another process serves: given away at once, a little later, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from tests.unit.protocols.exchanges import FakeExchange, request

from hmac_file_server.protocols.resources import at_home

if TYPE_CHECKING:
    from hmac_file_server.http import Exchange
    from hmac_file_server.protocols.application import Application

UPLOAD = "1752751996_abcdefghijklmnopqrstuvwxyz"


class Engine:
    here = 0

    def home(self, upload_id: str) -> int:
        return 1


class App:
    """An application whose timers are run by hand, and of which the other process has room after some tries."""

    def __init__(self, full: int) -> None:
        self.engine = Engine()
        self.full = full
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.given: list[int] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((seconds, callback))

    def give(self, process: int, fd: int, data: bytes, peer: str) -> bool:
        self.full -= 1
        if self.full < 0:
            self.given.append(process)
        return self.full < 0


class Given(FakeExchange):
    """An exchange that can be given away."""

    gone = False

    @property
    def answered(self) -> bool:
        return self.gone or bool(self.answers)

    def hand_over(self, give: Callable[[int, bytes, str], bool]) -> bool:
        self.gone = give(0, b"", self.peer)
        return self.gone


def play(full: int) -> tuple[App, Given, float]:
    """The application, the exchange, and how long it took."""
    app, exchange = App(full), Given(request("GET", f"/tus/{UPLOAD}"))
    assert not at_home(cast("Application", app), cast("Exchange", exchange), UPLOAD)
    waited = 0.0
    while app.timers:
        seconds, callback = app.timers.pop()
        waited += seconds
        callback()
    return app, exchange, waited


def test_given_away_at_once() -> None:
    app, exchange, waited = play(0)
    assert (app.given, exchange.answers, waited) == ([1], [], 0.0)


def test_a_full_inbox_is_tried_again() -> None:
    """N-29: when everybody comes back at once, nobody is refused for what is over in a moment."""
    app, exchange, waited = play(3)
    assert (app.given, exchange.answers) == ([1], [])
    assert 0 < waited < 0.1


def test_one_that_stays_full_is_a_503_within_two_seconds() -> None:
    app, exchange, waited = play(1000)
    assert app.given == []
    assert exchange.answer.status == 503
    assert b"Retry-After: " in exchange.answer.head
    assert 1 < waited <= 2
