from __future__ import annotations

from hmac_file_server.telemetry.thinning import Thinning


class Steady:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_of_a_second_are_written_and_the_others_counted() -> None:
    clock = Steady()
    thinning = Thinning(3, now=clock)
    assert [thinning.lets() for _ in range(10)] == [True] * 3 + [False] * 7
    assert thinning.withheld() == 0, "the second is not over"
    clock.now += 1.0
    assert thinning.withheld() == 7
    assert thinning.withheld() == 0
    assert thinning.lets()


def test_seconds_do_not_lend_to_each_other() -> None:
    clock = Steady()
    thinning = Thinning(2, now=clock)
    for _ in range(5):
        assert [thinning.lets() for _ in range(3)] == [True, True, False]
        clock.now += 1.0
    assert thinning.withheld() == 5


def test_a_flood_that_goes_on_is_told_of_each_second() -> None:
    clock = Steady()
    thinning = Thinning(1, now=clock)
    told = []
    for _ in range(30):
        thinning.lets()
        clock.now += 0.1
        told.append(thinning.withheld())
    assert sum(told) + thinning.withheld(last=True) == 30 - 3
    assert len([count for count in told if count]) <= 3


def test_the_last_time_waits_for_nothing() -> None:
    thinning = Thinning(0, now=Steady())
    assert not thinning.lets()
    assert thinning.withheld(last=True) == 1
    assert thinning.withheld(last=True) == 0
