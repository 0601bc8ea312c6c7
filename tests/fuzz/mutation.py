"""Mutations without coverage: for where atheris is not, and for the share of it that `make test` runs."""

from __future__ import annotations

import random

from tests.fuzz.target import SEPARATOR, Target

_INTERESTING = (
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc2\x85",
    b"\xed\xa0\x80",
    b"9" * 19,
    b"-1",
    b"%00",
    b"%",
    b'"',
)


class Mutator:
    """Endless inputs for one target from one seed."""

    def __init__(self, target: Target, seed: int, corpus: tuple[bytes, ...] = ()) -> None:
        # Text, because a seed that is text gives the same on every machine.
        self._random = random.Random(f"{target.name} {seed}")
        self._pool = [*target.seeds, *corpus] or [b""]
        self._tokens = target.tokens + _INTERESTING
        self._parts = any(SEPARATOR in seed for seed in target.seeds)

    def next(self) -> bytes:
        rng = self._random
        data = rng.choice(self._pool)
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            data = self._change(data)
        return data[:8000]

    def keep(self, data: bytes) -> None:
        """Go on from this one too."""
        if len(self._pool) < 2000:
            self._pool.append(data)

    def _change(self, data: bytes) -> bytes:
        rng = self._random
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 30)))
        way = rng.randrange(8)
        if way == 0 and data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        if way == 1:
            return data[:at] + bytes([rng.randrange(256)]) + data[at:]
        if way == 2:
            return data[:at] + data[end:]
        if way in {3, 4}:
            return data[:at] + rng.choice(self._tokens) + data[at:]
        if way == 5:
            return data[:at] + rng.choice(self._tokens) + data[end:]
        if way == 6:
            return data[:at] + data[at:end] * rng.choice((2, 2, 3, 40)) + data[end:]
        other = rng.choice(self._pool)
        if self._parts:
            # A part of another one in the place of one of ours.
            ours, theirs = data.split(SEPARATOR), other.split(SEPARATOR)
            ours[rng.randrange(len(ours))] = rng.choice(theirs)
            return SEPARATOR.join(ours)
        return data[:at] + other[rng.randint(0, len(other)) :]
