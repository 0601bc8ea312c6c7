"""Sets of byte ranges: which bytes of an upload are there."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]


class RangeSet:
    """Sorted, disjoint, non-touching half-open spans `(start, stop)` of byte offsets. Not thread-safe."""

    __slots__ = ("_starts", "_stops", "total")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.total = 0
        """Bytes in the set."""
        for start, stop in spans:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> int:
        """Add a span, merged with those it touches; the number of bytes that were not there before.

        Raises ValueError for a negative offset or a span that ends before it begins.
        """
        if start < 0 or stop < start:
            raise ValueError("a span begins at or after 0 and ends no earlier than it begins")
        if start == stop:
            return 0
        starts, stops = self._starts, self._stops
        first = bisect_left(stops, start)
        last = bisect_right(starts, stop)
        before = sum(stops[i] - starts[i] for i in range(first, last))
        if first < last:
            start = min(start, starts[first])
            stop = max(stop, stops[last - 1])
        starts[first:last] = [start]
        stops[first:last] = [stop]
        new = stop - start - before
        self.total += new
        return new

    def covers(self, start: int, stop: int) -> bool:
        """Whether every byte of the span is in the set; an empty span always is."""
        return start >= stop or self.reach(start) >= stop

    def reach(self, offset: int) -> int:
        """The end of the unbroken run of bytes that begins at `offset`; `offset` itself when it is not in the set."""
        index = bisect_right(self._starts, offset) - 1
        return max(offset, self._stops[index]) if index >= 0 else offset

    def within(self, start: int, stop: int) -> list[Span]:
        """The parts of the set inside a span."""
        found = []
        for index in range(bisect_right(self._stops, start), len(self._starts) if start < stop else 0):
            if self._starts[index] >= stop:
                break
            found.append((max(start, self._starts[index]), min(stop, self._stops[index])))
        return found

    def missing(self, start: int, stop: int) -> list[Span]:
        """The parts of a span that are not in the set."""
        gaps = []
        for there, end in self.within(start, stop):
            if there > start:
                gaps.append((start, there))
            start = end
        if start < stop:
            gaps.append((start, stop))
        return gaps

    def spans(self) -> tuple[Span, ...]:
        """All spans, in order."""
        return tuple(zip(self._starts, self._stops, strict=True))

    def __iter__(self) -> Iterator[Span]:
        return zip(self._starts, self._stops, strict=True)

    def __len__(self) -> int:
        return len(self._starts)
