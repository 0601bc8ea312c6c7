"""Tells when a transfer does not move any more, by what the peer's kernel acknowledges."""

from typing import Final

GRACE: Final = 0.5
"""Seconds in which a transfer must show that it lives after the network changed."""


class Watchdog:
    """Fed with what is known of one transfer at a moment; says when it is time to ask the server.

    Bytes that are acknowledged are progress, also while our own buffers are full. Times in seconds, of any clock that
    only rises.
    """

    def __init__(self, timeout: float, now: float) -> None:
        self._timeout = timeout
        self._limit = timeout
        self._since = now
        self._suspected = False
        self._acknowledged = 0

    def moved(self, now: float) -> None:
        """There was progress."""
        self._since = now
        self._limit = self._timeout
        self._suspected = False

    def suspect(self, now: float) -> None:
        """The network changed: the transfer lives if anything is heard of it from now on."""
        self._since = now
        self._limit = min(GRACE, self._timeout)
        self._suspected = True

    def sample(self, now: float, acknowledged: int, silence: float | None) -> bool:
        """Whether nothing moves. `acknowledged` bytes; `silence` since the peer acknowledged anything, if known."""
        if acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
            self.moved(now)
            return False
        quiet = now - self._since
        if quiet < self._limit:
            return False
        if self._suspected and silence is not None and silence < quiet:
            # Heard of since the change, even if only of a window that is closed.
            self._suspected = False
            self._limit = self._timeout
            return quiet >= self._timeout
        return True
