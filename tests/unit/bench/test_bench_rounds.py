"""The arithmetic of samples, medians, ratios and the order of runs."""

from __future__ import annotations

import dataclasses
import math

import pytest
from bench.client import Measured
from bench.rounds import GIB, Sample, ratio, schedule, summarise
from hypothesis import given
from hypothesis import strategies as st


def sample(number: int, **changes: object) -> Sample:
    base = Sample(
        round=number, requests=8, body_bytes=2 * GIB, wall_s=4.0, server_cpu_s=1.0, client_cpu_s=0.5,
        peak_rss_bytes=1000, p50_us=10.0, p99_us=20.0, max_us=30.0,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_schedule_alternates_and_starts_with_the_round_to_throw_away() -> None:
    assert list(schedule(["a", "b", "c"], 2)) == [
        (0, "a"), (0, "b"), (0, "c"),
        (1, "c"), (1, "b"), (1, "a"),
        (2, "a"), (2, "b"), (2, "c"),
    ]  # fmt: skip


@given(st.lists(st.integers(), unique=True, max_size=6), st.integers(0, 6))
def test_schedule_visits_everybody_once_a_round(servers: list[int], rounds: int) -> None:
    visits = list(schedule(servers, rounds))
    assert sorted(visits) == sorted((number, server) for number in range(rounds + 1) for server in servers)


def test_sample_rates() -> None:
    one = sample(1)
    assert one.gib_per_s == 0.5
    assert one.requests_per_s == 2.0
    assert one.cpu_s_per_gib == 0.5
    assert one.cpu_us_per_request == 125_000.0


def test_sample_without_a_known_process_has_no_cost() -> None:
    one = sample(1, server_cpu_s=None)
    assert one.cpu_s_per_gib is None
    assert one.cpu_us_per_request is None


def measured(**changes: object) -> Measured:
    base = Measured(
        requests=3, ok=3, failed=0, gave_up=False, reconnects=0, body_bytes=30, wall_s=1.5, client_cpu_s=0.25,
        requests_per_s=2.0, bytes_per_s=20.0, p50_us=1.0, p90_us=2.0, p99_us=3.0, max_us=4.0,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_sample_of_takes_latencies_from_the_downloads_beside() -> None:
    upload, downloads = measured(), measured(p50_us=7.0, p99_us=8.0, max_us=9.0, body_bytes=999, wall_s=77.0)
    made = Sample.of(2, upload, 0.5, 4096, downloads)
    assert (made.p50_us, made.p99_us, made.max_us) == (7.0, 8.0, 9.0)
    assert (made.round, made.body_bytes, made.wall_s, made.server_cpu_s, made.peak_rss_bytes) == (2, 30, 1.5, 0.5, 4096)


def test_sample_of_takes_its_own_latencies_otherwise() -> None:
    made = Sample.of(1, measured(), None, None)
    assert (made.p50_us, made.p99_us, made.max_us, made.requests) == (1.0, 3.0, 4.0, 3)


def test_what_others_used_is_the_rest() -> None:
    assert Sample.of(1, measured(), 0.5, None, None, 1.0).others_cpu_s == 0.25
    assert Sample.of(1, measured(), 0.5, None, measured(), 1.0).others_cpu_s == 0.0  # two clients
    assert Sample.of(1, measured(), 0.9, None, None, 1.0).others_cpu_s == 0.0  # clocks tick in steps
    assert Sample.of(1, measured(), None, None, None, 1.0).others_cpu_s is None
    assert (
        summarise([sample(1, others_cpu_s=1.0), sample(2, others_cpu_s=3.0), sample(3)], large=True).others_cpu_share
        == 0.5
    )
    assert summarise([sample(1)], large=True).others_cpu_share is None


def test_summary_leaves_round_zero_out() -> None:
    rounds = [
        sample(0, wall_s=0.001, peak_rss_bytes=10**9),
        sample(1, wall_s=4.0),
        sample(2, wall_s=2.0),
        sample(3, wall_s=1.0),
    ]
    summary = summarise(rounds, large=True)
    assert (summary.rounds, summary.rate, summary.best, summary.worst) == (3, 1.0, 2.0, 0.5)
    assert summary.peak_rss_bytes == 1000


def test_summary_of_small_requests_counts_requests_and_microseconds() -> None:
    summary = summarise([sample(1), sample(2, wall_s=2.0, server_cpu_s=2.0)], large=False)
    assert summary.rate == 3.0
    assert summary.cpu == pytest.approx((125_000 + 250_000) / 2)


def test_summary_takes_medians_of_latency_but_the_highest_maximum_and_peak() -> None:
    rounds = [sample(i, p99_us=float(i), max_us=float(i), peak_rss_bytes=i) for i in (1, 2, 9)]
    summary = summarise(rounds, large=False)
    assert (summary.p99_us, summary.max_us, summary.peak_rss_bytes) == (2.0, 9.0, 9)
    assert summary.client_cpu_share == 0.125


def test_summary_without_known_process() -> None:
    summary = summarise([sample(1, server_cpu_s=None, peak_rss_bytes=None)], large=True)
    assert summary.cpu is None
    assert summary.peak_rss_bytes is None


def test_summary_of_nothing_kept_is_an_error() -> None:
    with pytest.raises(ValueError, match="no round"):
        summarise([sample(0)], large=True)


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [(1.0, 2.0, 0.5), (None, 2.0, None), (1.0, None, None), (1.0, 0.0, None), (0.0, 2.0, 0.0)],
)
def test_ratio(value: float | None, reference: float | None, expected: float | None) -> None:
    assert ratio(value, reference) == expected


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=9))
def test_median_lies_between_worst_and_best(walls: list[float]) -> None:
    summary = summarise([sample(i + 1, wall_s=wall) for i, wall in enumerate(walls)], large=True)
    assert summary.worst <= summary.rate <= summary.best
    assert math.isfinite(summary.rate)
