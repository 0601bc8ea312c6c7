"""Notices changes of the machine's network: within milliseconds by netlink, within seconds by looking."""

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from hmac_file_server.network import rtnetlink
from hmac_file_server.network.addresses import Snapshot, snapshot

OnChange = Callable[[Snapshot, Snapshot], None]

# However many events there are, the network is not looked at more often than this.
_SPACING: Final = 0.05
_RETRY: Final = 1.0
# Events that are read in one go, before others on the event loop have their turn.
_READS: Final = 64
_BUFFER: Final = 1 << 16


class Log(Protocol):
    """Takes a log event by name, with its fields."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Log it."""
        ...


def _no_log(event: str, /, **fields: object) -> None:
    """Nobody listens."""


class Monitor:
    """Tells of each change of the network: `on_change(old, new)`, on the event loop, with `old != new`.

    Events only say that it is time to look: what they tell is lost when there are too many (ENOBUFS), and most
    of it changes nothing for clients. A snapshot decides. It is also taken every `poll_interval`, whatever the
    events say, because they may not be permitted here, or not reach this namespace.

    Logged: `network_watch_limited` (reason) when there are no events, only looking; `network_unreadable`
    (reason) when the network cannot be looked at. Each once, until it works again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_change: OnChange,
        poll_interval: float,
        *,
        take: Callable[[], Snapshot] = snapshot,
        events: Callable[[], socket.socket] = rtnetlink.events,
        monotonic: Callable[[], float] = time.monotonic,
        log: Log = _no_log,
    ) -> None:
        """`poll_interval` in seconds; 0 or less: events only. `take` and `events` may raise OSError."""
        self._loop = loop
        self._on_change = on_change
        self._poll_interval = poll_interval
        self._take = take
        self._open_events = events
        self._monotonic = monotonic
        self._log = log
        self._current: Snapshot | None = None
        self._events: socket.socket | None = None
        self._events_failed = False
        self._unreadable = False
        self._looked_at = float("-inf")
        self._look_timer: asyncio.TimerHandle | None = None
        self._poll_timer: asyncio.TimerHandle | None = None
        self._running = False

    @property
    def current(self) -> Snapshot | None:
        """The network when it was looked at last; None before the first look that succeeded."""
        return self._current

    @property
    def listening(self) -> bool:
        """Whether events are heard; otherwise changes are noticed by looking only."""
        return self._events is not None

    def start(self) -> None:
        """Take the first snapshot, and watch from then on. Does not raise."""
        self._running = True
        # In this order, nothing can happen in between unnoticed.
        self._listen()
        self._look()
        self._schedule_poll()

    def stop(self) -> None:
        """Watch no more. Idempotent; to be called before the event loop is closed."""
        self._running = False
        for timer in (self._look_timer, self._poll_timer):
            if timer is not None:
                timer.cancel()
        self._look_timer = self._poll_timer = None
        self._stop_listening()

    # ---- events

    def _listen(self) -> None:
        try:
            events = self._open_events()
        except OSError as error:
            self._deaf(error)
            return
        self._events = events
        self._events_failed = False
        self._loop.add_reader(events.fileno(), self._readable)

    def _deaf(self, error: OSError) -> None:
        if not self._events_failed:
            self._events_failed = True
            self._log("network_watch_limited", reason=_reason(error))

    def _stop_listening(self) -> None:
        if self._events is not None:
            self._loop.remove_reader(self._events.fileno())
            self._events.close()
            self._events = None

    def _readable(self) -> None:
        """Read what there is, all of it: it may have been a burst."""
        changed = False
        for _ in range(_READS):
            if self._events is None:
                break
            try:
                data = self._events.recv(_BUFFER)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # Events were lost, nobody knows which.
                changed = True
                if error.errno != errno.ENOBUFS:
                    self._stop_listening()
                    self._deaf(error)
            else:
                changed = changed or rtnetlink.tells_of_change(data)
        if changed:
            self._look_soon()

    def _look_soon(self) -> None:
        if self._look_timer is not None:
            return
        wait = self._looked_at + _SPACING - self._monotonic()
        if wait <= 0:
            self._look()
        else:
            self._look_timer = self._loop.call_later(wait, self._look)

    # ---- looking

    def _schedule_poll(self) -> None:
        if self._poll_interval > 0:
            self._poll_timer = self._loop.call_later(self._poll_interval, self._poll)

    def _poll(self) -> None:
        # First, because what follows calls others.
        self._schedule_poll()
        if self._events is None:
            self._listen()
        self._look()

    def _look(self) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        self._looked_at = self._monotonic()
        try:
            new = self._take()
        except OSError as error:
            # Until a look succeeds, the network is taken to be as it was.
            if not self._unreadable:
                self._unreadable = True
                self._log("network_unreadable", reason=_reason(error))
            if self._running:
                self._look_timer = self._loop.call_later(_RETRY, self._look)
            return
        self._unreadable = False
        old, self._current = self._current, new
        if old is not None and new != old and self._running:
            self._on_change(old, new)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
