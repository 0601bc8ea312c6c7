"""The order of runs, and what is made of their figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.client import Measured

GIB = 2**30

Visited = TypeVar("Visited")


def schedule(servers: Sequence[Visited], rounds: int) -> Iterator[tuple[int, Visited]]:
    """Yield (round, server). Round 0 is the one to throw away; every odd round visits the servers backwards."""
    for number in range(rounds + 1):
        for server in servers if number % 2 == 0 else reversed(servers):
            yield number, server


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run of one server.

    `server_cpu_s` and `peak_rss_bytes` are None for a server whose process is not known. In a row with downloads
    beside an upload the latencies are those of the downloads, all the rest is the upload's. `others_cpu_s` is what
    neither the server nor the client used: kernel threads, and whatever else ran on the machine.
    """

    round: int
    requests: int
    body_bytes: int
    wall_s: float
    server_cpu_s: float | None
    client_cpu_s: float
    peak_rss_bytes: int | None
    p50_us: float
    p99_us: float
    max_us: float
    others_cpu_s: float | None = None

    @classmethod
    def of(
        cls, number: int, measured: Measured, cpu: float | None, peak: int | None, latencies: Measured | None = None,
        busy: float | None = None,
    ) -> Sample:  # fmt: skip
        """Combine what the client saw with what the server cost."""
        timed = latencies or measured
        clients = measured.client_cpu_s + (latencies.client_cpu_s if latencies else 0.0)
        others = None if busy is None or cpu is None else max(0.0, busy - cpu - clients)
        return cls(
            round=number, requests=measured.ok, body_bytes=measured.body_bytes, wall_s=measured.wall_s, server_cpu_s=cpu,
            client_cpu_s=measured.client_cpu_s, peak_rss_bytes=peak, p50_us=timed.p50_us, p99_us=timed.p99_us, max_us=timed.max_us,
            others_cpu_s=others,
        )  # fmt: skip

    @property
    def gib_per_s(self) -> float:
        """Body bytes in GiB per second of wall time."""
        return self.body_bytes / GIB / self.wall_s

    @property
    def requests_per_s(self) -> float:
        """Answered requests per second of wall time."""
        return self.requests / self.wall_s

    @property
    def cpu_s_per_gib(self) -> float | None:
        """Server CPU seconds for each GiB of body."""
        return None if self.server_cpu_s is None else self.server_cpu_s / (self.body_bytes / GIB)

    @property
    def cpu_us_per_request(self) -> float | None:
        """Server CPU microseconds for each request."""
        return None if self.server_cpu_s is None else self.server_cpu_s / self.requests * 1e6


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the kept rounds. `rate` and `best` in GiB/s (large) or requests/s, `cpu` in s/GiB or us/request."""

    rounds: int
    rate: float
    best: float
    worst: float
    cpu: float | None
    p50_us: float
    p99_us: float
    max_us: float
    peak_rss_bytes: int | None
    client_cpu_share: float
    others_cpu_share: float | None


def summarise(samples: Sequence[Sample], *, large: bool) -> Summary:
    """Reduce the samples of one server in one row; round 0 is left out. Raises ValueError when nothing is left."""
    kept = [sample for sample in samples if sample.round > 0]
    if not kept:
        raise ValueError("no round was kept")
    rates = [s.gib_per_s if large else s.requests_per_s for s in kept]
    costs = [cost for s in kept if (cost := s.cpu_s_per_gib if large else s.cpu_us_per_request) is not None]
    peaks = [s.peak_rss_bytes for s in kept if s.peak_rss_bytes is not None]
    others = [s.others_cpu_s / s.wall_s for s in kept if s.others_cpu_s is not None]
    return Summary(
        rounds=len(kept), rate=statistics.median(rates), best=max(rates), worst=min(rates),
        cpu=statistics.median(costs) if costs else None,
        p50_us=statistics.median(s.p50_us for s in kept), p99_us=statistics.median(s.p99_us for s in kept),
        max_us=max(s.max_us for s in kept), peak_rss_bytes=max(peaks) if peaks else None,
        client_cpu_share=statistics.median(s.client_cpu_s / s.wall_s for s in kept),
        others_cpu_share=statistics.median(others) if others else None,
    )  # fmt: skip


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return value / reference, or None when either is unknown or the reference is zero."""
    return value / reference if value is not None and reference else None
