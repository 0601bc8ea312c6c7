"""The pause gate: resumes after quiet, never pauses for longer than allowed, never for nothing (N-36, N-37)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hmac_file_server.network import PauseGate

DELAY = 2.0
MAX_PAUSE = 30.0


@dataclass(order=True)
class Call:
    due: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """A clock and timers that move when told to, and what the gate said, with the time."""

    def __init__(self, delay: float = DELAY, max_pause: float = MAX_PAUSE) -> None:
        self.now = 1000.0
        self.calls: list[Call] = []
        self.said: list[tuple[float, str]] = []
        self.gate = PauseGate(
            delay,
            max_pause,
            call_later=self.call_later,
            monotonic=lambda: self.now,
            on_pause=lambda: self.say("pause"),
            on_resume=lambda: self.say("resume"),
        )

    def say(self, word: str) -> None:
        # Whoever is told may ask: the answer agrees with what is told.
        assert self.gate.paused == (word == "pause")
        self.said.append((self.now - 1000.0, word))

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Call:
        assert seconds >= 0
        call = Call(self.now + seconds, len(self.calls), callback)
        heapq.heappush(self.calls, call)
        return call

    def sleep(self, seconds: float) -> None:
        """Let time pass; timers fire when they are due."""
        end = self.now + seconds
        while self.calls and self.calls[0].due <= end:
            call = heapq.heappop(self.calls)
            self.now = max(self.now, call.due)
            if not call.cancelled:
                call.callback()
        self.now = end

    def jump(self, seconds: float) -> None:
        """Let time pass with the event loop busy: timers that are due fire later."""
        self.now += seconds


@pytest.fixture
def world() -> World:
    return World()


def test_a_change_pauses_until_two_seconds_of_quiet(world: World) -> None:
    assert not world.gate.paused
    world.gate.changed()
    assert world.gate.paused
    world.sleep(1.9)
    assert world.gate.paused
    world.sleep(0.2)
    assert not world.gate.paused
    world.sleep(100)
    assert world.said == [(0, "pause"), (2, "resume")]


def test_every_change_begins_the_quiet_anew(world: World) -> None:
    for _ in range(5):
        world.gate.changed()
        world.sleep(1.5)
    world.sleep(10)
    assert world.said == [(0, "pause"), (8, "resume")]


def test_a_new_change_pauses_anew(world: World) -> None:
    for _ in range(3):
        world.gate.changed()
        world.sleep(10)
    assert [word for _, word in world.said] == ["pause", "resume"] * 3


@pytest.mark.parametrize("name", ["N-36"])
def test_n36_a_pause_never_lasts_for_ever(world: World, name: str) -> None:
    """The network changes all the time: after `max_pause` the uploads go on, and are not paused again."""
    for _ in range(600):
        world.gate.changed()
        world.sleep(1.0)
    assert world.said == [(0, "pause"), (30, "resume")]


@pytest.mark.parametrize("name", ["N-37"])
def test_n37_flapping_every_500_ms_for_a_minute(world: World, name: str) -> None:
    for _ in range(120):
        world.gate.changed()
        world.sleep(0.5)
    assert world.said == [(0, "pause"), (30, "resume")]
    # It settles: from here on a change counts again.
    world.sleep(DELAY)
    world.gate.changed()
    world.sleep(5)
    assert world.said[2:] == [(62, "pause"), (64, "resume")]


def test_after_a_forced_resume_quiet_must_come_before_the_next_pause(world: World) -> None:
    for _ in range(31):
        world.gate.changed()
        world.sleep(1)
    assert not world.gate.paused
    world.sleep(0.5)
    world.gate.changed()
    assert not world.gate.paused
    world.sleep(1.9)
    world.gate.changed()
    assert not world.gate.paused
    world.sleep(2.0)
    world.gate.changed()
    assert world.gate.paused


def test_a_late_timer_changes_nothing_about_the_order(world: World) -> None:
    """The event loop was busy, and the next change is read before the timer of the last one fires."""
    world.gate.changed()
    world.jump(5.0)
    world.gate.changed()
    assert [word for _, word in world.said] == ["pause", "resume", "pause"]
    world.sleep(2.0)
    assert not world.gate.paused


def test_a_late_timer_does_not_lengthen_a_pause_beyond_its_limit(world: World) -> None:
    for _ in range(30):
        world.gate.changed()
        world.jump(1.0)
    world.jump(0.5)
    world.gate.changed()
    assert not world.gate.paused
    assert [word for _, word in world.said] == ["pause", "resume"]


def test_quiet_and_the_limit_at_the_same_moment_are_quiet() -> None:
    world = World(delay=2.0, max_pause=2.0)
    world.gate.changed()
    world.sleep(2.0)
    world.gate.changed()
    assert [word for _, word in world.said] == ["pause", "resume", "pause"]


def test_a_limit_below_the_delay() -> None:
    world = World(delay=10.0, max_pause=3.0)
    world.gate.changed()
    world.sleep(4)
    world.gate.changed()
    world.sleep(9)
    world.gate.changed()
    world.sleep(10)
    world.gate.changed()
    assert [(round(at), word) for at, word in world.said] == [(0, "pause"), (3, "resume"), (23, "pause")]


def test_with_no_pause_allowed_nothing_is_paused() -> None:
    world = World(max_pause=0.0)
    for _ in range(10):
        world.gate.changed()
        world.sleep(0.1)
    assert world.said == []
    assert world.calls == []


def test_without_a_delay_it_resumes_at_the_next_turn() -> None:
    world = World(delay=0.0)
    world.gate.changed()
    assert world.gate.paused
    world.sleep(0)
    assert world.said == [(0, "pause"), (0, "resume")]


def test_closing_resumes(world: World) -> None:
    world.gate.changed()
    world.gate.close()
    world.gate.close()
    assert world.said == [(0, "pause"), (0, "resume")]
    world.gate.changed()
    world.sleep(100)
    assert len(world.said) == 2
    assert all(call.cancelled for call in world.calls)


def test_closing_an_open_gate_says_nothing(world: World) -> None:
    world.gate.close()
    assert world.said == []


def test_a_listener_that_raises_stops_no_timer() -> None:
    world = World()
    failures = iter([RuntimeError("of the listener")])

    def fail() -> None:
        for failure in failures:
            raise failure

    resumed: list[float] = []
    gate = PauseGate(
        DELAY, MAX_PAUSE, call_later=world.call_later, monotonic=lambda: world.now,
        on_pause=fail, on_resume=lambda: resumed.append(world.now),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="of the listener"):
        gate.changed()
    world.sleep(DELAY)
    assert resumed == [1002.0]


def test_there_is_never_more_than_one_timer(world: World) -> None:
    for _ in range(1000):
        world.gate.changed()
        world.sleep(0.01)
        assert sum(not call.cancelled for call in world.calls) <= 1
    # A flood of changes is not a flood of timers.
    assert len(world.calls) <= 1


def expected(changes: list[float], delay: float, limit: float) -> list[tuple[float, str]]:
    """What must be said for changes at these times (sorted), by the rules and not by a state machine."""
    said: list[tuple[float, str]] = []
    at = 0
    while at < len(changes):
        # One restless time: changes closer together than `delay`.
        end = at
        while end + 1 < len(changes) and changes[end + 1] < changes[end] + delay:
            end += 1
        said += [(changes[at], "pause"), (min(changes[end] + delay, changes[at] + limit), "resume")]
        at = end + 1
    return said


@given(
    gaps=st.lists(st.integers(0, 40), max_size=60),
    delay=st.integers(1, 20),
    limit=st.integers(1, 100),
    lazy=st.lists(st.booleans(), min_size=60, max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_any_sequence_of_changes(gaps: list[int], delay: int, limit: int, lazy: list[bool]) -> None:
    """With timers that are on time, or late by as much as the loop is busy until the next change."""
    world = World(delay, limit)
    changes: list[float] = []
    for gap, late in zip(gaps, lazy, strict=False):
        (world.jump if late else world.sleep)(gap)
        changes.append(world.now - 1000.0)
        world.gate.changed()
    world.sleep(1000)
    assert not world.gate.paused
    want = expected(changes, delay, limit)
    assert [word for _, word in world.said] == [word for _, word in want]
    if not any(lazy[: len(gaps)]):
        assert world.said == want


class Pauses(RuleBasedStateMachine):
    """What must hold at every moment, whatever happens and however late timers are."""

    @initialize(delay=st.floats(0.1, 5), limit=st.floats(0.1, 40))
    def make(self, delay: float, limit: float) -> None:
        self.delay, self.limit = delay, limit
        self.world = World(delay, limit)
        self.changed_at = float("-inf")
        self.on_time = True

    @rule()
    def change(self) -> None:
        self.world.gate.changed()
        self.changed_at = self.world.now
        self.on_time = True

    @rule(seconds=st.floats(0, 12))
    def sleep(self, seconds: float) -> None:
        self.world.sleep(seconds)
        self.on_time = True

    @rule(seconds=st.floats(0, 12))
    def jump(self, seconds: float) -> None:
        self.world.jump(seconds)
        self.on_time = False

    @invariant()
    def the_words_alternate(self) -> None:
        words = [word for _, word in self.world.said]
        assert words == (["pause", "resume"] * len(words))[: len(words)]
        assert self.world.gate.paused == (len(words) % 2 == 1)

    @invariant()
    def a_pause_ends(self) -> None:
        if self.world.gate.paused and self.on_time:
            paused_for = self.world.now - 1000.0 - self.world.said[-1][0]
            assert paused_for < self.limit + 1e-6
            assert self.world.now - self.changed_at < self.delay + 1e-6

    @invariant()
    def somebody_will_end_it(self) -> None:
        if self.world.gate.paused:
            assert sum(not call.cancelled for call in self.world.calls) == 1

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.sleep(self.delay + self.limit)
            assert not self.world.gate.paused


TestPauses = Pauses.TestCase
TestPauses.settings = settings(max_examples=100, deadline=None)
