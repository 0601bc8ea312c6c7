"""When to try again: exponential backoff with full jitter, and Retry-After (RFC 9110, section 10.2.3)."""

import random
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

BASE: Final = 0.25
CAP: Final = 30.0
LONGEST_RETRY_AFTER: Final = 3600.0


class Backoff:
    """Delays after failures of one upload, which several connections have in common.

    Full jitter: a delay is evenly distributed between 0 and `base * 2 ** (attempt - 1)` seconds, at most `cap`. When a
    network goes, all connections fail: attempts that had begun before the latest failure are part of it, they wait for
    the same moment and make nobody wait longer.
    """

    def __init__(self, *, base: float = BASE, cap: float = CAP, draw: Callable[[], float] = random.random) -> None:
        """`base` and `cap` in seconds; `draw` returns numbers in [0, 1)."""
        self._base = base
        self._cap = cap
        self._draw = draw
        self._latest = float("-inf")
        self._not_before = float("-inf")
        self._least_before = float("-inf")
        self.attempt = 0
        """Failures in a row without progress."""

    def progressed(self) -> None:
        """Something went on: the next failure is the first one again."""
        self.attempt = 0

    def failed(self, began: float, now: float, least: float = 0.0) -> float:
        """Seconds from `now` until the next attempt, after one that began at `began` failed. At least `least`."""
        if began >= self._latest:
            self.attempt += 1
            self._latest = now
            # 2 ** 1024 would overflow; the cap is reached long before.
            bound = min(self._cap, self._base * 2.0 ** min(self.attempt - 1, 64))
            self._not_before = now + self._draw() * bound
        if least > 0:
            self._least_before = max(self._least_before, now + least)
        return self.remaining(now)

    def remaining(self, now: float) -> float:
        """Seconds from `now` until the next attempt."""
        return max(0.0, self._not_before - now, self._least_before - now)

    def hurry(self, now: float) -> None:
        """The network changed: nobody needs to wait any longer, but for what the server has asked for."""
        self._not_before = min(self._not_before, now)


def retry_after(value: str | None, date: str | None, now: float) -> float:
    """Seconds that the server asks to wait: Retry-After in seconds or as a date; 0 when it says nothing of use.

    A date is held against the answer's own `date` where there is one, because our clock may be another. `now` is in
    epoch seconds. Bounded by an hour.
    """
    if value is None:
        return 0.0
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        until = _moment(text)
        if until is None:
            return 0.0
        since = _moment(date) if date is not None else None
        seconds = until - (now if since is None else since)
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _moment(text: str) -> float | None:
    """An HTTP date as epoch seconds."""
    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
