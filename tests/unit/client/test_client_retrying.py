"""Backoff with an injected clock and generator, Retry-After, and the watchdog."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hmac_file_server.client.retrying import LONGEST_RETRY_AFTER, Backoff, retry_after
from hmac_file_server.client.watchdog import GRACE, Watchdog


def most() -> float:
    """The greatest number that a generator of [0, 1) can be taken to draw."""
    return 1.0


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff(base=0.25, cap=3.0, draw=most)
    delays = [backoff.failed(began=10.0 * n, now=10.0 * n + 1) for n in range(1, 8)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert backoff.attempt == 7


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2000))
@settings(deadline=None)
def test_jitter_is_full_and_never_overflows(drawn: float, failures: int) -> None:
    backoff = Backoff(base=0.5, cap=30.0, draw=lambda: drawn)
    delay = 0.0
    for number in range(failures):
        delay = backoff.failed(began=100.0 * number, now=100.0 * number)
    assert delay == pytest.approx(drawn * min(30.0, 0.5 * 2.0 ** min(failures - 1, 100)), abs=1e-6)


def test_progress_begins_it_anew() -> None:
    backoff = Backoff(base=1.0, cap=30.0, draw=most)
    for number in range(1, 5):
        backoff.failed(began=number * 100.0, now=number * 100.0)
    backoff.progressed()
    assert backoff.attempt == 0
    assert backoff.failed(began=1000.0, now=1000.0) == 1.0


def test_connections_that_fail_together_are_one_failure() -> None:
    draws = iter([0.5, 0.9])
    backoff = Backoff(base=1.0, cap=30.0, draw=lambda: next(draws))
    assert backoff.failed(began=5.0, now=10.0) == 0.5
    assert backoff.failed(began=6.0, now=10.1) == pytest.approx(0.4)
    assert backoff.failed(began=9.9, now=10.2) == pytest.approx(0.3)
    assert backoff.attempt == 1
    # One that began after that failure is another.
    assert backoff.failed(began=10.5, now=11.0) == pytest.approx(1.8)
    assert backoff.attempt == 2


def test_what_the_server_asks_for_outlasts_a_change_of_the_network() -> None:
    backoff = Backoff(base=10.0, cap=10.0, draw=most)
    backoff.failed(began=0.0, now=0.0)
    backoff.hurry(1.0)
    assert backoff.remaining(1.0) == 0.0
    backoff.failed(began=2.0, now=2.0, least=7.0)
    backoff.hurry(3.0)
    assert backoff.remaining(3.0) == 6.0
    assert backoff.remaining(9.0) == 0.0


class Failing(RuleBasedStateMachine):
    """Any order of attempts, failures, progress and changes of the network."""

    @initialize(base=st.floats(0.01, 2), cap=st.floats(2, 60))
    def begin(self, base: float, cap: float) -> None:
        self.base, self.cap = base, cap
        self.now = 0.0
        self.drawn = 0.0
        self.backoff = Backoff(base=base, cap=cap, draw=lambda: self.drawn)
        self.begun: list[float] = []
        self.asked_until = 0.0

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def attempt(self) -> None:
        self.begun.append(self.now)

    @rule(drawn=st.floats(0, 1, exclude_max=True), least=st.sampled_from([0.0, 0.0, 1.0, 50.0]))
    def fail(self, drawn: float, least: float) -> None:
        self.drawn = drawn
        before = self.backoff.attempt
        delay = self.backoff.failed(self.begun.pop() if self.begun else self.now, self.now, least)
        self.asked_until = max(self.asked_until, self.now + least)
        assert self.backoff.attempt - before in {0, 1}
        assert delay >= least - 1e-6
        assert delay <= max(self.cap, self.asked_until - self.now) + 1e-6

    @rule()
    def progress(self) -> None:
        self.backoff.progressed()
        assert self.backoff.attempt == 0

    @rule()
    def hurry(self) -> None:
        self.backoff.hurry(self.now)
        assert self.backoff.remaining(self.now) == pytest.approx(max(0.0, self.asked_until - self.now))

    @invariant()
    def never_waits_for_ever(self) -> None:
        if hasattr(self, "backoff"):
            assert 0.0 <= self.backoff.remaining(self.now) <= self.cap + 50.0 + 1e-6


TestFailing = Failing.TestCase
TestFailing.settings = settings(max_examples=60, deadline=None)


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        (None, None, 0.0),
        ("0", None, 0.0),
        ("7", None, 7.0),
        (" 7 ", None, 7.0),
        ("99999999999999999999", None, LONGEST_RETRY_AFTER),
        (formatdate(NOW + 30, usegmt=True), None, 30.0),
        (formatdate(NOW - 30, usegmt=True), None, 0.0),
        # Our clock is an hour off; the server's own says what it means.
        (formatdate(NOW + 3630, usegmt=True), formatdate(NOW + 3600, usegmt=True), 30.0),
        (formatdate(NOW + 30, usegmt=True), "yesterday", 30.0),
        ("soon", None, 0.0),
        ("-5", None, 0.0),
        ("1.5", None, 0.0),
        ("٣", None, 0.0),
        ("", None, 0.0),
    ],
)
def test_retry_after(value: str | None, date: str | None, seconds: float) -> None:
    assert retry_after(value, date, NOW) == seconds


@given(st.text(max_size=40), st.none() | st.text(max_size=40))
def test_retry_after_takes_anything(value: str, date: str | None) -> None:
    assert 0.0 <= retry_after(value, date, NOW) <= LONGEST_RETRY_AFTER


# ---- the watchdog


def test_silence_is_noticed_after_its_time() -> None:
    watchdog = Watchdog(5.0, now=0.0)
    assert not watchdog.sample(1.0, 100, 0.0)
    assert not watchdog.sample(5.9, 100, 4.9)
    assert watchdog.sample(6.0, 100, 5.0)


def test_acknowledged_bytes_are_progress_and_nothing_else_is() -> None:
    watchdog = Watchdog(5.0, now=0.0)
    for second in range(1, 60):
        assert not watchdog.sample(float(second), second, None)
    # Probes of a closed window are answered, but nothing is taken.
    assert watchdog.sample(65.0, 59, 0.1)
    # Fewer is none either: something was lost.
    assert watchdog.sample(66.0, 10, None)
    watchdog.moved(66.0)
    assert not watchdog.sample(70.0, 59, None)


def test_after_a_change_of_the_network_it_must_be_heard_of_soon() -> None:
    watchdog = Watchdog(5.0, now=0.0)
    assert not watchdog.sample(1.0, 10, 0.0)
    watchdog.suspect(2.0)
    assert not watchdog.sample(2.0 + GRACE - 0.01, 10, 2.0)
    assert watchdog.sample(2.0 + GRACE, 10, 2.0)


def test_who_is_heard_of_after_a_change_has_the_whole_time_again() -> None:
    watchdog = Watchdog(5.0, now=0.0)
    watchdog.suspect(2.0)
    assert not watchdog.sample(2.6, 0, 0.3)
    assert not watchdog.sample(6.9, 0, 4.0)
    assert watchdog.sample(7.0, 0, 4.4)


def test_who_moves_after_a_change_is_trusted() -> None:
    watchdog = Watchdog(5.0, now=0.0)
    watchdog.suspect(2.0)
    assert not watchdog.sample(2.2, 1, None)
    assert not watchdog.sample(6.0, 1, None)
    assert watchdog.sample(7.2, 1, None)
