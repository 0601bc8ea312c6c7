"""What the project has set itself to reach, judged on the measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.rounds import Summary, ratio

MIB = 2**20

Summaries = Mapping[str, Mapping[str, Summary]]
"""Row key -> server name -> summary."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal; `value` None when the run did not measure it."""

    goal: str
    value: float | None
    limit: float
    at_least: bool

    @property
    def met(self) -> bool | None:
        """Whether it was reached, None when not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def _of(summaries: Summaries, row: str, server: str) -> Summary | None:
    return summaries.get(row, {}).get(server)


def _rate(summaries: Summaries, row: str, server: str) -> float | None:
    mine, reference = _of(summaries, row, server), _of(summaries, row, "nginx")
    return ratio(mine.rate if mine else None, reference.rate if reference else None)


def _cpu(summaries: Summaries, row: str, server: str) -> float | None:
    mine, reference = _of(summaries, row, server), _of(summaries, row, "nginx")
    return ratio(mine.cpu if mine else None, reference.cpu if reference else None)


def judge(summaries: Summaries, facts: Mapping[str, float]) -> list[Verdict]:
    """Return every goal with its value; `facts` holds what is not a row (see `bench.footprint`)."""
    durable, beside = _of(summaries, "put-10k", "ours-full"), _of(summaries, "beside-put", "ours-dedup")
    paced = _of(summaries, "beside-put-paced", "ours-dedup")
    return [
        Verdict("PUT 1 GiB, throughput to nginx", _rate(summaries, "put-1g", "ours"), 0.9, at_least=True),
        Verdict("PUT 1 GiB, CPU to nginx", _cpu(summaries, "put-1g", "ours"), 1.15, at_least=False),
        Verdict("PUT 8 x 256 MiB, throughput to nginx", _rate(summaries, "put-8x256m", "ours"), 0.9, at_least=True),
        Verdict("PUT 8 x 256 MiB, CPU to nginx", _cpu(summaries, "put-8x256m", "ours"), 1.15, at_least=False),
        Verdict("GET 1 GiB, throughput to nginx", _rate(summaries, "get-1g", "ours"), 0.9, at_least=True),
        Verdict("PUT 10 KiB, rate to nginx", _rate(summaries, "put-10k", "ours"), 0.9, at_least=True),
        Verdict("GET 10 KiB, rate to nginx", _rate(summaries, "get-10k", "ours"), 0.45, at_least=True),
        Verdict(
            "PUT 1 GiB with BLAKE3 dedup, throughput to nginx",
            _rate(summaries, "put-1g", "ours-dedup"),
            0.65,
            at_least=True,
        ),
        Verdict(
            "GET 10 KiB beside a hashed 1 GiB PUT, p99 in ms",
            beside.p99_us / 1e3 if beside else None,
            5,
            at_least=False,
        ),
        Verdict(
            "the same, a GET every millisecond (harder than was set), p99 in ms",
            paced.p99_us / 1e3 if paced else None,
            5,
            at_least=False,
        ),
        Verdict(
            "durable PUT 10 KiB at 32 connections, per second", durable.rate if durable else None, 1000, at_least=True
        ),
        Verdict("memory at rest, MiB", _mib(facts.get("rest_rss_bytes")), 64, at_least=False),
        Verdict(
            "memory growth while 10 GiB stream through, MiB", _mib(facts.get("stream_growth_bytes")), 8, at_least=False
        ),
        Verdict("from start to first accepted byte, ms", _ms(facts.get("first_byte_s")), 500, at_least=False),
    ]


def _mib(value: float | None) -> float | None:
    return None if value is None else value / MIB


def _ms(value: float | None) -> float | None:
    return None if value is None else value * 1e3
