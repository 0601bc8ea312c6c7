"""The pause while the network changes: short, bounded, and never a way to stand still for ever."""

import enum
from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """What `call_later` gives back (asyncio.TimerHandle)."""

    def cancel(self) -> Any:
        """Call no more."""
        ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class _State(enum.Enum):
    OPEN = enum.auto()
    PAUSED = enum.auto()
    WORN = enum.auto()
    """Open, although the network is not quiet: the last pause was as long as a pause may be."""


class PauseGate:
    """Pauses on a change, resumes after `delay` seconds of quiet, or when the pause has lasted `max_pause`.

        state    a change                quiet for `delay`    paused for `max_pause`
        OPEN     -> PAUSED, on_pause     -                    -
        PAUSED   goes on                 -> OPEN, on_resume   -> WORN, on_resume
        WORN     -                       -> OPEN              -

    So a network that flaps without end is paused for once, and then used as it is: progress between two flaps
    is worth more than waiting. With a `max_pause` of 0 nothing is ever paused.

    Not thread-safe: everything happens on the event loop that `call_later` belongs to.
    """

    def __init__(
        self,
        delay: float,
        max_pause: float,
        *,
        call_later: CallLater,
        monotonic: Callable[[], float],
        on_pause: Callable[[], None],
        on_resume: Callable[[], None],
    ) -> None:
        """`delay` and `max_pause` in seconds; `monotonic` is the clock by which `call_later` counts."""
        self._delay = delay
        self._max_pause = max_pause
        self._call_later = call_later
        self._monotonic = monotonic
        self._on_pause = on_pause
        self._on_resume = on_resume
        self._state = _State.OPEN
        self._changed_at = 0.0
        self._paused_at = 0.0
        self._timer: Timer | None = None
        self._closed = False

    @property
    def paused(self) -> bool:
        """Whether uploads should wait now."""
        return self._state is _State.PAUSED

    def changed(self) -> None:
        """The network has changed just now."""
        if self._closed or self._max_pause <= 0:
            return
        # A timer may be late, behind this call: what was due before it comes first.
        self._settle()
        now = self._changed_at = self._monotonic()
        if self._state is _State.OPEN:
            self._state = _State.PAUSED
            self._paused_at = now
            self._wait(now)
            self._on_pause()

    def close(self) -> None:
        """No more pauses; one under way ends now. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        was, self._state = self._state, _State.OPEN
        if was is _State.PAUSED:
            self._on_resume()

    def _due(self) -> float:
        quiet = self._changed_at + self._delay
        return min(quiet, self._paused_at + self._max_pause) if self._state is _State.PAUSED else quiet

    def _wait(self, now: float) -> None:
        """One timer is enough: it is set for the earliest end, and set again where that has moved."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._call_later(max(0.0, self._due() - now), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._settle()

    def _settle(self) -> None:
        """Do what is due by now."""
        while self._state is not _State.OPEN:
            now = self._monotonic()
            if now < self._due():
                if self._timer is None:
                    self._wait(now)
                return
            was = self._state
            quiet = now >= self._changed_at + self._delay
            self._state = _State.OPEN if quiet else _State.WORN
            if was is _State.PAUSED:
                self._on_resume()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
