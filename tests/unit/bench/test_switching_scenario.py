"""Sizes, rates, when links die, and the time that nobody can do better."""

from __future__ import annotations

import argparse
import dataclasses
from itertools import islice

import pytest
from bench.switching import scenario
from bench.switching.journey import Event, events
from bench.switching.scenario import Scenario
from hypothesis import assume, given, settings
from hypothesis import strategies as st

scenarios = st.builds(
    Scenario,
    size=st.integers(1, 2**31),
    rate=st.floats(1e5, 1e9),
    rtt=st.floats(0, 1),
    every=st.floats(1, 60),
    outage=st.just(0.0) | st.floats(0.01, 0.9),
)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("100MiB", 100 * 2**20),
        ("24 mib", 24 * 2**20),
        ("5MB", 5 * 10**6),
        ("1.5KiB", 1536),
        ("1024", 1024),
        ("3b", 3),
        ("2g", 2 * 10**9),
    ],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert scenario.size(text) == bytes_


@pytest.mark.parametrize(
    ("text", "bits"), [("20Mbit", 20e6), ("20 mbit/s", 20e6), ("512kbit", 512e3), ("9600bit", 9600)]
)
def test_rates(text: str, bits: float) -> None:
    assert scenario.rate(text) == bits


@pytest.mark.parametrize(("text", "seconds"), [("30ms", 0.03), ("5s", 5), ("5", 5), ("1.5 s", 1.5), ("0", 0)])
def test_times(text: str, seconds: float) -> None:
    assert scenario.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (scenario.size, ""),
        (scenario.size, "0"),
        (scenario.size, "much"),
        (scenario.size, "-5MB"),
        (scenario.size, "5 i"),
        (scenario.rate, "20"),
        (scenario.rate, "20MB"),
        (scenario.rate, "0bit"),
        (scenario.seconds, "-1s"),
        (scenario.seconds, "1h"),
        (scenario.seconds, ""),
    ],
)
def test_what_is_none(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(argparse.ArgumentTypeError):
        parse(text)


def test_the_scenario_of_the_page() -> None:
    """100 MiB at 20 Mbit/s take 41.9 s: five before the first switch, then four of every five seconds."""
    page = Scenario()
    assert page.ideal == pytest.approx(100 * 2**20 * 8 / 20e6 + 10)
    assert page.ideal_of_packets == pytest.approx(100 * 2**20 * 8 / 20e6 * 1500 / 1448 + 10)
    assert page.limit == pytest.approx(3 * page.ideal)
    assert page.switches_within(page.ideal) == 10
    assert str(page) == "100 MiB over 20 Mbit/s and 30 ms there and back, the link dies every 5 s for 1 s"


def test_two_links_at_once_lose_no_time() -> None:
    one = Scenario(mptcp=True)
    assert one.ideal == pytest.approx(100 * 2**20 * 8 / 20e6)
    assert "Multipath TCP" in str(one)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [(0.0, 0.0), (4.9, 4.9), (5.0, 5.0), (5.1, 6.1), (9.0, 10.0), (9.1, 11.1), (13.0, 15.0)],
)
def test_outages_are_added_when_they_are_met(work: float, seconds: float) -> None:
    """What is done when a link dies need not wait for the other one."""
    assert Scenario().after(work) == pytest.approx(seconds)


@settings(deadline=None)
@given(scenarios, st.floats(0, 1000))
def test_the_ideal_is_the_work_and_the_outages_in_it(one: Scenario, work: float) -> None:
    took = one.after(work)
    outages = (took - work) / one.outage if one.outage else 0
    assert outages == pytest.approx(round(outages), abs=1e-6)
    # At the edge a rounding error makes the difference of one.
    assume(abs(took / one.every - round(took / one.every)) > 1e-9)
    if one.outage:
        assert round(outages) == one.switches_within(took)


@settings(deadline=None)
@given(scenarios, st.floats(0, 1000), st.floats(0, 1000))
def test_more_work_never_takes_less_time(one: Scenario, some: float, more: float) -> None:
    assert one.after(some) <= one.after(some + more) + 1e-9
    assert one.after(some) >= some


@settings(deadline=None)
@given(scenarios, st.floats(0.001, 1000))
def test_switches_are_counted_as_they_happen(one: Scenario, duration: float) -> None:
    number = one.switches_within(duration)
    assume(abs(duration / one.every - round(duration / one.every)) > 1e-9)
    died = list(islice(one.switches(), number + 1))
    assert all(at < duration for at in died[:-1])
    assert died[-1] > duration


@pytest.mark.parametrize(("every", "outage"), [(5, 5), (1, 2), (5, -1)])
def test_outages_that_never_end(every: float, outage: float) -> None:
    with pytest.raises(ValueError, match="shorter"):
        Scenario(every=every, outage=outage)


@settings(deadline=None)
@given(scenarios, scenarios)
def test_a_key_is_of_one_scenario(one: Scenario, other: Scenario) -> None:
    assert one.key == dataclasses.replace(one).key
    if any(
        f"{getattr(one, field.name):g}" != f"{getattr(other, field.name):g}" for field in dataclasses.fields(Scenario)
    ):
        assert one.key != other.key


def test_links_die_and_come() -> None:
    assert list(islice(events(Scenario(every=5, outage=1)), 4)) == [
        Event(5, dies=True),
        Event(6, dies=False),
        Event(10, dies=True),
        Event(11, dies=False),
    ]
