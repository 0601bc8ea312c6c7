"""Tells a transfer that is dead from one that is slow, by what the peer's kernel acknowledges."""

from typing import Final

GRACE: Final = 0.5
"""Seconds in which a transfer must show that it lives after the network changed."""
CLOSED_WINDOW: Final = 60.0
"""Seconds for which a peer may read nothing as long as it acknowledges our probes."""


class Watchdog:
    """Fed with what is known of one transfer at a moment; says when it is time to ask the server.

    Bytes that are acknowledged are progress, also while our buffers are full. A peer that takes nothing but answers the
    kernel's probes of its window is busy, not gone: it has a minute. Times in seconds, of any clock that only rises.
    """

    def __init__(self, timeout: float, now: float) -> None:
        self._timeout = timeout
        self._limit = timeout
        self._since = now
        self._moved = now
        self._acknowledged = 0

    def moved(self, now: float) -> None:
        """There was progress."""
        self._since = self._moved = now
        self._limit = self._timeout

    def suspect(self, now: float) -> None:
        """The network changed: the transfer lives if anything is heard of it from now on."""
        self._since = now
        self._limit = min(GRACE, self._timeout)

    def sample(self, now: float, acknowledged: int, silence: float | None) -> bool:
        """Whether nothing moves. `acknowledged` bytes; `silence` since the peer acknowledged anything, if known."""
        if acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
            self.moved(now)
            return False
        quiet = now - self._since
        if quiet < self._limit:
            return False
        heard = silence is not None and silence < quiet
        return not heard or now - self._moved >= CLOSED_WINDOW
