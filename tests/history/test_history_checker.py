"""The checker itself: histories that are known to be good or bad, and ones that are made of an order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.history.linearizability import Call, UndecidedError, linearizable
from tests.history.upload_model import Append, End, Look, Missing, Operation, Read, State, UploadModel, offsets

History = Sequence[tuple[float, float | None, Operation]]
LENGTH = 10


def check(history: History) -> bool:
    calls = [Call(invoked, returned, operation) for invoked, returned, operation in history]
    return linearizable(calls, UploadModel(LENGTH, offsets([call.operation for call in calls])))


def sent(start: int, stop: int, variant: int = 0) -> Append:
    return Append(start, stop, variant, "ok")


GOOD: dict[str, History] = {
    "nothing": [],
    "one after the other": [(0, 1, sent(0, 4)), (2, 3, Look(4)), (4, 5, sent(4, 10)), (6, 7, Read(((0, 10),)))],
    "a look at the same time": [(0, 3, sent(0, 4)), (1, 2, Look(0)), (1, 2, Look(4))],
    "a look on the way": [(0, 9, sent(0, 8)), (1, 2, Look(3)), (3, 4, Look(5))],
    "a lost answer that counted": [(0, None, Append(0, 4, 0, "unknown")), (5, 6, Look(4))],
    "a lost answer that did not": [(0, None, Append(0, 4, 0, "unknown")), (5, 6, Look(0))],
    "a lost answer that counts late": [
        (0, None, Append(0, 4, 0, "unknown")),
        (5, 6, Look(0)),
        (7, 8, Look(2)),
        (9, 10, sent(2, 10, 0)),
    ],
    "a cut body": [
        (0, 3, Append(0, 10, 1, "cut")),
        (4, 5, Look(6)),
        (6, 7, sent(6, 10)),
        (8, 9, Read(((1, 6), (0, 4)))),
    ],
    "the same bytes by two": [(0, 5, sent(0, 10)), (1, 6, sent(0, 10)), (7, 8, Read(((0, 10),)))],
    "other bytes by two": [(0, 5, sent(0, 10)), (1, 6, Append(0, 10, 1, "differs")), (7, 8, Read(((0, 10),)))],
    "told where it is": [(0, 1, sent(0, 4)), (2, 3, Append(0, 4, 1, "mismatch", 4))],
    "ended": [(0, 1, sent(0, 4)), (2, 3, End("ok")), (4, 5, Look(None)), (6, 7, Append(4, 10, 0, "gone"))],
    "ended without an answer": [(0, None, End("unknown")), (2, 3, Look(0)), (4, 5, Look(None)), (6, 7, End("gone"))],
    "its file goes first": [
        (0, 1, sent(0, 10)),
        (2, 9, End("ok")),
        (3, 4, Missing()),
        (5, 6, Look(10)),
        (7, 8, Look(None)),
    ],
    "ended at the same time": [(0, 5, End("ok")), (1, 4, sent(0, 4)), (6, 7, Look(None))],
}
BAD: dict[str, History] = {
    "an offset of nobody": [(0, 1, Look(3))],
    "an acknowledged byte is lost": [(0, 1, sent(0, 4)), (2, 3, Look(0))],
    "an offset that decreases": [(0, 9, sent(0, 8)), (1, 2, Look(5)), (3, 4, Look(3))],
    "an append behind the end": [(0, 1, sent(4, 10))],
    "two owners of a byte": [(0, 5, sent(0, 10, 0)), (1, 6, sent(0, 10, 1))],
    "bytes of another": [(0, 1, sent(0, 10, 0)), (2, 3, Read(((1, 10),)))],
    "a byte of another": [(0, 1, sent(0, 10, 0)), (2, 3, Read(((0, 6), (1, 1), (0, 3))))],
    "a cut body after its answer": [(0, 1, Append(0, 10, 0, "cut")), (2, 3, Look(0)), (4, 5, Look(4))],
    "seen before it was sent": [(0, 1, Look(4)), (2, 3, sent(0, 4))],
    "seen after its end": [(0, 1, End("ok")), (2, 3, Look(0))],
    "ended by nobody": [(0, 1, Look(None))],
    "a file goes by itself": [(0, 1, sent(0, 10)), (2, 3, Missing())],
    "a file that comes back": [(0, 1, sent(0, 10)), (2, 9, End("ok")), (3, 4, Missing()), (5, 6, Read(((0, 10),)))],
    "ended twice": [(0, 1, End("ok")), (2, 3, End("ok"))],
    "differs from nothing": [(0, 1, Append(0, 4, 0, "differs")), (2, 3, Look(0))],
    "a wrong place": [(0, 1, sent(0, 4)), (2, 3, Append(0, 4, 1, "mismatch", 3))],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history(name: str) -> None:
    assert check(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history(name: str) -> None:
    assert not check(BAD[name])


def test_a_search_is_bounded() -> None:
    history: History = [(0, 1 + index, sent(0, 1)) for index in range(9)]
    calls = [Call(invoked, returned, operation) for invoked, returned, operation in history]
    with pytest.raises(UndecidedError):
        linearizable(calls, UploadModel(LENGTH, ()), limit=5)


def played(seed: int, count: int) -> list[tuple[float, float | None, Operation]]:
    """A history that was made of an order: each call happens at its moment, somewhere within its time."""
    chance = random.Random(seed)
    model = UploadModel(LENGTH, range(1, LENGTH + 1))
    state = State()
    history: list[tuple[float, float | None, Operation]] = []
    for moment in range(count):
        start = chance.choice([state.offset, chance.randint(0, LENGTH - 1)])
        stop = chance.randint(min(start + 1, LENGTH), LENGTH)
        variant = chance.randint(0, 1)
        candidates: list[Operation] = [
            Look(None if state.ended else state.offset),
            Append(start, stop, variant, "ok"),
            Append(start, stop, variant, "differs"),
            Append(start, stop, variant, "mismatch", state.offset),
            Append(start, stop, variant, "gone"),
            End("gone"),
            *([End("ok")] if chance.random() < 0.1 else []),
            Read(state.runs),
        ]
        if chance.random() < 0.2 and start < stop:
            unknown = Append(start, stop, variant, "unknown")
            state = chance.choice([state, *model.partly(state, unknown)])
            history.append((moment - 3 * chance.random(), None, unknown))
            continue
        possible = [(each, next(iter(model.whole(state, each)), None)) for each in candidates]
        operation, following = chance.choice([(each, reached) for each, reached in possible if reached is not None])
        assert following is not None
        state = following
        history.append((moment - 3 * chance.random(), moment + 3 * chance.random(), operation))
    return history


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 25))
def test_what_was_made_of_an_order_has_one(seed: int, count: int) -> None:
    assert check(played(seed, count))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1 << 30))
def test_what_has_no_order_is_found(seed: int) -> None:
    """Against trying all orders, on histories of which some answers were exchanged."""
    chance = random.Random(seed)
    history = played(seed, 6)
    looks = [index for index, (_, _, operation) in enumerate(history) if isinstance(operation, Look)]
    for index in looks:
        invoked, returned, _ = history[index]
        history[index] = (invoked, returned, Look(chance.choice([None, *range(LENGTH + 1)])))
    history = [entry for entry in history if entry[1] is not None]
    assert check(history) == by_trying(history)


def by_trying(history: History) -> bool:
    """Whether one of all orders fits. Without what is seen on the way of an append."""
    model = UploadModel(LENGTH, offsets([operation for _, _, operation in history]))
    for order in itertools.permutations(history):
        if any(later[1] is not None and later[1] < earlier[0] for earlier, later in itertools.combinations(order, 2)):
            continue
        states = {model.initial()}
        for position, (invoked, _, operation) in enumerate(order):
            del invoked
            reached = set(states)
            # Any call that is not done yet may have come partly, if it had been made.
            pending = [
                entry for entry in order[position:] if all(entry[0] <= (other[1] or 0) for other in order[position:])
            ]
            grown = True
            while grown:
                more = {to for state in reached for entry in pending for to in model.partly(state, entry[2])} - reached
                reached |= more
                grown = bool(more)
            states = {to for state in reached for to in model.whole(state, operation)}
        if states:
            return True
    return False
