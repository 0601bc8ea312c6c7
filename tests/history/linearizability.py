"""Is there an order in which all of it could have happened, one thing after the other? (Wing and Gong 1993)

A history is a list of calls with the time of their invocation and that of their answer. It is linearizable when every
call can be given one moment between the two, such that a sequential object, going from call to call in the order of
these moments, answers each as it was answered. A call without an answer may have happened at any time since, or never.

The search goes from state to state; what was tried (which calls are done, in which state) is not tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

State = TypeVar("State")
Operation = TypeVar("Operation")
Asked_contra = TypeVar("Asked_contra", contravariant=True)


@dataclass(frozen=True)
class Call(Generic[Operation]):
    """One call: `operation` is what was asked and what was answered; `returned` None: nobody knows."""

    invoked: float
    returned: float | None
    operation: Operation


class Model(Protocol[State, Asked_contra]):
    """A sequential object. States are hashable."""

    def initial(self) -> State:
        """Where it begins."""
        ...

    def whole(self, state: State, operation: Asked_contra) -> Iterable[State]:
        """Where a call leads that was answered as it was; nowhere when it would not have been answered so."""
        ...

    def partly(self, state: State, operation: Asked_contra) -> Iterable[State]:
        """Where a call leads that is not done, or of which nobody knows whether it was: each differs from `state`."""
        ...


class UndecidedError(Exception):
    """The search was too long."""


def linearizable(calls: Sequence[Call[Operation]], model: Model[State, Operation], *, limit: int = 2_000_000) -> bool:
    """Whether there is such an order. Raises UndecidedError after `limit` states."""
    answered = [call for call in calls if call.returned is not None]
    every = sorted(answered, key=lambda call: call.invoked)
    unknown = sorted((call for call in calls if call.returned is None), key=lambda call: call.invoked)
    count = len(every)
    # Which of the answered calls are done: all before `first`, and those in `mask` counted from there.
    start = (0, 0, model.initial())
    seen = {start}
    stack = [start]
    while stack:
        first, mask, state = stack.pop()
        if first == count:
            return True
        # Whatever is next happens before the first answer that is still due.
        horizon = float("inf")
        candidates = []
        position = first
        while position < count and every[position].invoked <= horizon:
            if not mask >> (position - first) & 1:
                returned = every[position].returned
                horizon = min(horizon, float("inf") if returned is None else returned)
                candidates.append(position)
            position += 1
        following: list[tuple[int, int, State]] = []
        for position in candidates:
            call = every[position]
            if call.invoked > horizon:
                continue
            following.extend((first, mask, reached) for reached in model.partly(state, call.operation))
            done = mask | 1 << (position - first)
            skip = 0
            while done >> skip & 1:
                skip += 1
            following.extend((first + skip, done >> skip, reached) for reached in model.whole(state, call.operation))
        for call in unknown:
            if call.invoked > horizon:
                break
            following.extend((first, mask, reached) for reached in model.partly(state, call.operation))
        for node in following:
            if node not in seen:
                seen.add(node)
                stack.append(node)
        if len(seen) > limit:
            raise UndecidedError(f"more than {limit} states")
    return False
