"""What a run goes through: a file, two links, and when which of them is there."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

PACKET = 1500
"""Bytes of a full packet."""

SEGMENT = 1448
"""Bytes of content in it: 20 of IPv4, 20 of TCP and 12 of its time stamps are not."""


def _number(text: str, ending: str, what: str) -> float:
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?i?){ending}", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    value = float(found[1]) * _UNITS[found[2]]
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be more than nothing")
    return value


def size(text: str) -> int:
    """Bytes of "100MiB", "5MB" or "1024"; argparse.ArgumentTypeError for anything else."""
    return int(_number(text, "b?", "a size such as 100MiB"))


def rate(text: str) -> float:
    """Bits a second of "20Mbit"; argparse.ArgumentTypeError for anything else."""
    return _number(text, "(?:bit|bit/s)", "a rate such as 20Mbit")


def seconds(text: str) -> float:
    """Seconds of "30ms", "5s" or "5"; argparse.ArgumentTypeError for anything else."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|)", text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30ms or 5s")
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`size` bytes over links of `rate` bits a second and `rtt` seconds there and back.

    Every `every` seconds from the first packet on, the link in use is dead: packets vanish, its address goes away at
    the client, and the server is told nothing. `outage` seconds later the other link is there, with a new address.
    With `mptcp` both ends speak Multipath TCP and both links are there, but for those `outage` seconds.
    A client that needs more than `patience` times the ideal is stopped.
    """

    size: int = 100 * 2**20
    rate: float = 20e6
    rtt: float = 0.030
    every: float = 5.0
    outage: float = 1.0
    mptcp: bool = False
    patience: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.outage < self.every:
            raise ValueError("the outage must be shorter than the time from one switch to the next")

    def after(self, work: float) -> float:
        """When a client that never idles while there is a link has used one for `work` seconds.

        With `mptcp` there always is one.
        """
        if self.mptcp or not self.outage:
            return work
        full, rest = divmod(max(0.0, work - self.every), self.every - self.outage)
        if work <= self.every:
            return work
        # Bytes that end where a link does have not waited for the next one.
        outages = int(full) + (1 if rest > 0 else 0)
        return work + outages * self.outage

    @property
    def ideal(self) -> float:
        """Seconds that nobody can do better: the file's bytes at the whole rate, and the outages meanwhile."""
        return self.after(self.size * 8 / self.rate)

    @property
    def ideal_of_packets(self) -> float:
        """The same with the heads that IP and TCP put before every full packet."""
        return self.after(self.size * 8 / self.rate * PACKET / SEGMENT)

    @property
    def limit(self) -> float:
        """Seconds after which a client is stopped."""
        return self.patience * self.ideal

    def switches(self) -> Iterator[float]:
        """When links die, in seconds after the first packet; without end."""
        number = 0
        while True:
            number += 1
            yield number * self.every

    def switches_within(self, duration: float) -> int:
        """How many links died in the first `duration` seconds."""
        return max(0, math.ceil(duration / self.every) - 1)

    @property
    def key(self) -> str:
        """The same text for the same scenario, and no other."""
        return " ".join(f"{name}={value:g}" for name, value in asdict(self).items())

    def __str__(self) -> str:
        """In words."""
        how = "Multipath TCP, one of two links is lost" if self.mptcp else "the link dies"
        return (
            f"{self.size / 2**20:g} MiB over {self.rate / 1e6:g} Mbit/s and {self.rtt * 1e3:g} ms there and back, "
            f"{how} every {self.every:g} s for {self.outage:g} s"
        )
