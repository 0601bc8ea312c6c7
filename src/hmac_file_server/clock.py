"""The clock seam: time is passed in, so that tests can jump it."""

import time as _time
from typing import Protocol


class Clock(Protocol):
    """What the rooms may know about time."""

    def time(self) -> float:
        """Seconds since the epoch, wall clock; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point; never jumps back."""
        ...


class SystemClock:
    """The machine's own clock."""

    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)
