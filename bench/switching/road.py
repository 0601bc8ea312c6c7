"""The way from a client to a server, and what happens to it: the test bed's two links, one of which is in use."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.fixtures.links import LINKS, Bed, LinkName, Quality, bed
from tests.fixtures.namespaces import Namespace, why_not

from bench.errors import BenchError
from bench.switching.scenario import Scenario

NOTICEABLE: Final = 4096
"""Bytes that count as the file going on; what asks for a status is shorter."""

_GATES: Final = {"connections": "MPCapableSYNRX", "joined": "MPJoinSynRx"}
"""Of the server's kernel: what it was asked for with Multipath TCP (/proc/net/netstat, MPTcpExt)."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went to the server so far; bytes of TCP's content, over both links.

    sent        went on the air, also what vanished there
    arrived     came to the server
    fresh       the same, without what TCP repeated within a connection
    connections that began; with Multipath TCP, `joined` are the paths that were added to them
    """

    sent: int
    arrived: int
    fresh: int
    connections: int
    joined: int

    def since(self, start: Traffic) -> Traffic:
        """Bytes since then; connections are all that there are, for those from before may be used on."""
        return dataclasses.replace(
            self, sent=self.sent - start.sent, arrived=self.arrived - start.arrived, fresh=self.fresh - start.fresh
        )


class Road:
    """Two links of which one is in use; with Multipath TCP both."""

    def __init__(self, made: Bed) -> None:
        self._bed = made
        self._used: LinkName = LINKS[0]
        if not made.mptcp:
            made.switch(self._other())

    @property
    def client(self) -> Namespace:
        """Where the client runs."""
        return self._bed.client

    @property
    def server(self) -> Namespace:
        """Where the server runs."""
        return self._bed.server

    @property
    def address(self) -> str:
        """The server's."""
        return self._bed.address

    def lose(self) -> None:
        """The link in use is dead, and its address gone at the client; the server is told nothing."""
        self._bed.switch(self._used)

    def change(self) -> None:
        """The other link is there, with a new address; with Multipath TCP, the lost one is there again."""
        if self._bed.mptcp:
            self._bed.up(self._used, address="new")
            self._used = self._other()
        else:
            self._used = self._other()
            self._bed.up(self._used, address="new")

    def begun(self) -> bool:
        """Whether a client has sent anything."""
        return self._bed.connections() > 0

    def traffic(self) -> Traffic:
        """So far."""
        both = [link.to_server for link in self._bed.counters().values()]
        connections, joined = sum(one.connections for one in both), 0
        if self._bed.mptcp:
            told = netstat(self.server.run("cat", "/proc/net/netstat"), "MPTcpExt")
            joined = told[_GATES["joined"]]
            connections -= joined
        return Traffic(
            sum(one.carried.payload for one in both),
            sum(one.delivered.payload for one in both),
            sum(one.fresh for one in both),
            connections,
            joined,
        )

    def progress(self) -> list[tuple[float, int]]:
        """When (time.monotonic) `fresh` came to be what."""
        return self._bed.progress()

    def _other(self) -> LinkName:
        return LINKS[1 - LINKS.index(self._used)]


def netstat(text: str, group: str) -> Mapping[str, int]:
    """The counters of a group of /proc/net/netstat, whose lines come in pairs: names, then values. KeyError if none."""
    lines = [line.split()[1:] for line in re.findall(rf"^{group}:.*$", text, re.MULTILINE)]
    if len(lines) != 2:
        raise KeyError(group)
    return {name: int(value) for name, value in zip(*lines, strict=True)}


def stall(progress: Sequence[tuple[float, int]], began: float, ended: float) -> float:
    """Longest time in which fewer than NOTICEABLE bytes came, from `began` to `ended`, in seconds."""
    longest, since, count = 0.0, began, 0
    for when, fresh in progress:
        if fresh - count >= NOTICEABLE:
            longest = max(longest, when - since)
            since, count = when, fresh
    return max(longest, ended - since)


@contextlib.contextmanager
def road(scenario: Scenario) -> Iterator[Road]:
    """The links of a scenario, gone at the end. Raises BenchError where they cannot be had."""
    if reason := why_not():
        raise BenchError(reason)
    quality = Quality(rate=scenario.rate, delay=scenario.rtt / 2)
    with bed(wifi=quality, mobile=quality, mptcp=scenario.mptcp) as made:
        yield Road(made)
