"""Virtual time: what is to happen and when, one event after the other, all of it decided by one seed.

Nothing waits in reality. An event is put somewhere into the future by whoever causes it, the next one in time is
taken, and the clock is then where it stood. Delays are drawn from the seed, so the order of everything that runs at
the same time in a real server - workers, the committer, the session writer, sockets, timers - is the seed's as well.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Protocol, TypeAlias

Call: TypeAlias = Callable[[], None]


class Owner(Protocol):
    """Whose events happen only as long as it lives."""

    @property
    def alive(self) -> bool:
        """Whether it does."""
        ...


class Clock:
    """The clock seam. Only the schedule moves it, but for jumps of the wall clock."""

    def __init__(self) -> None:
        self.steady = 1000.0
        self.wall = 1_800_000_000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


class Schedule:
    """The events to come. `keep` gets the trace line by line; its digest is kept anyway."""

    def __init__(self, seed: int, *, keep: list[str] | None = None) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.steps = 0
        self._keep = keep
        self._digest = hashlib.blake2b(digest_size=16)
        self._events: list[tuple[float, int, Owner | None, str, Call]] = []
        self._numbers = itertools.count()

    @property
    def digest(self) -> str:
        """Of everything that has happened."""
        return self._digest.hexdigest()

    def note(self, line: str) -> None:
        """Something happened, in words."""
        line = f"{self.clock.steady:.6f} {line}"
        self._digest.update(line.encode())
        if self._keep is not None:
            self._keep.append(line)

    def after(self, seconds: float, owner: Owner | None, label: str, call: Call) -> None:
        """Let something happen in so many seconds."""
        heapq.heappush(self._events, (self.clock.steady + seconds, next(self._numbers), owner, label, call))

    def step(self, until: float) -> bool:
        """The next event, if there is one before that time."""
        events = self._events
        while events and events[0][0] <= until:
            due, _, owner, label, call = heapq.heappop(events)
            if owner is not None and not owner.alive:
                continue
            passed = due - self.clock.steady
            if passed > 0:
                self.clock.steady = due
                self.clock.wall += passed
            self.steps += 1
            self.note(label)
            call()
            return True
        return False
