"""Log lines that come by the thousand: a few are written, the others are counted.

When a network goes away, every client on it is cut within a second, and a line for each would tell nothing that
the first few do not.
"""

from collections.abc import Callable


class Thinning:
    """Lets so many lines a second through. Not thread-safe: one per event loop."""

    __slots__ = ("_began", "_let", "_most", "_now", "_withheld")

    def __init__(self, most: int, *, now: Callable[[], float]) -> None:
        """At most `most` lines a second; `now` is a steady clock."""
        self._most = most
        self._now = now
        self._began = float("-inf")
        self._let = 0
        self._withheld = 0

    def lets(self) -> bool:
        """Whether one more line may be written now; it is counted if not."""
        now = self._now()
        if now - self._began >= 1.0:
            self._began, self._let = now, 0
        if self._let < self._most:
            self._let += 1
            return True
        self._withheld += 1
        return False

    def withheld(self, *, last: bool = False) -> int:
        """How many lines were not written, once their second is over, or at once if it is the `last` time."""
        if not self._withheld or (not last and self._now() - self._began < 1.0):
            return 0
        count, self._withheld = self._withheld, 0
        return count
