"""One upload as a sequential object: which bytes it has, whose they are, and whether it was ended.

Its bytes come from the front, in runs; clients send either of two variants of the file that differ in every byte, so
what is read back tells whose bytes they are. An append is not one moment: what has come of it may be seen on the way,
and stays when it is cut. But once it is acknowledged all of its bytes are there, and they are its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Runs: TypeAlias = tuple[tuple[int, int], ...]
"""(variant, bytes) from the front; neighbours differ in their variant."""


@dataclass(frozen=True)
class Append:
    """Bytes from `start` to `stop` of a variant.

    `answer`: "ok"; "mismatch", the upload was at `offset`; "differs", other bytes are there; "gone", there is no such
    upload; "cut", some of it may be there; "unknown".
    """

    start: int
    stop: int
    variant: int
    answer: Literal["ok", "mismatch", "differs", "gone", "cut", "unknown"]
    offset: int = -1


@dataclass(frozen=True)
class Look:
    """How far is it? `offset` None: there is no such upload."""

    offset: int | None


@dataclass(frozen=True)
class Read:
    """The whole file."""

    content: Runs


@dataclass(frozen=True)
class Missing:
    """There is no file to be read, of an upload that was complete."""


@dataclass(frozen=True)
class End:
    """DELETE. `answer`: "ok"; "gone", there was none; "unknown"."""

    answer: Literal["ok", "gone", "unknown"]


Operation: TypeAlias = Append | Look | Read | Missing | End


@dataclass(frozen=True)
class State:
    """Bytes, or the end. `removed`: the file has gone already, its upload has not: the end is two steps."""

    runs: Runs = ()
    ended: bool = False
    removed: bool = False

    @property
    def offset(self) -> int:
        return sum(length for _, length in self.runs)


def lengthened(runs: Runs, variant: int, length: int) -> Runs:
    """Runs with more bytes of a variant behind."""
    if not length:
        return runs
    if runs and runs[-1][0] == variant:
        return (*runs[:-1], (variant, runs[-1][1] + length))
    return (*runs, (variant, length))


def own(runs: Runs, start: int, stop: int, variant: int) -> bool:
    """Whether the bytes that are there of a span are of a variant."""
    offset = 0
    for other, length in runs:
        if other != variant and offset < stop and offset + length > start:
            return False
        offset += length
    return True


class UploadModel:
    """See the module. `length`: bytes of the whole; `seen`: where the upload may have stood between two calls."""

    def __init__(self, length: int, seen: Iterable[int]) -> None:
        self.length = length
        self._seen = sorted({*seen, length})

    def initial(self) -> State:
        return State()

    def whole(self, state: State, operation: Operation) -> Iterable[State]:
        if isinstance(operation, Append):
            return self._appended(state, operation)
        if isinstance(operation, Look):
            fits = state.ended if operation.offset is None else not state.ended and state.offset == operation.offset
            return [state] if fits else []
        if isinstance(operation, Read):
            fits = not state.ended and not state.removed and operation.content == state.runs
            return [state] if fits else []
        if isinstance(operation, Missing):
            return [state] if state.ended or state.removed else []
        if operation.answer == "ok":
            return [] if state.ended else [State(ended=True)]
        return [state] if state.ended else []

    def _appended(self, state: State, append: Append) -> Iterable[State]:
        answer = append.answer
        if answer == "gone":
            return [state] if state.ended else []
        if answer == "cut":
            # Perhaps it was ended by the end of the upload.
            return [state]
        if state.ended:
            return []
        offset = state.offset
        if answer == "mismatch":
            return [state] if offset == append.offset else []
        same = own(state.runs, append.start, append.stop, append.variant)
        if answer == "differs":
            return [] if same else [state]
        if offset < append.start or not same:
            return []
        more = max(0, append.stop - offset)
        return [replace(state, runs=lengthened(state.runs, append.variant, more))]

    def partly(self, state: State, operation: Operation) -> Iterable[State]:
        if isinstance(operation, End):
            if state.ended or operation.answer == "gone":
                return []
            ended = [State(ended=True)] if operation.answer == "unknown" else []
            whole = state.offset == self.length and not state.removed
            return [*ended, replace(state, removed=True)] if whole else ended
        if not isinstance(operation, Append) or state.ended or operation.answer in {"mismatch", "differs", "gone"}:
            return []
        offset = state.offset
        if not operation.start <= offset < operation.stop:
            return []
        if not own(state.runs, operation.start, operation.stop, operation.variant):
            return []
        return [
            replace(state, runs=lengthened(state.runs, operation.variant, there - offset))
            for there in self._seen
            if offset < there <= operation.stop
        ]


def offsets(operations: Sequence[Operation]) -> set[int]:
    """Where the upload was seen, or may be seen by its next reader: what an append can have stopped at."""
    found: set[int] = set()
    for operation in operations:
        if isinstance(operation, Append):
            found |= {operation.start, operation.stop, operation.offset}
        elif isinstance(operation, Look) and operation.offset is not None:
            found.add(operation.offset)
        elif isinstance(operation, Read):
            found |= set(itertools.accumulate(length for _, length in operation.content))
    return {offset for offset in found if offset > 0}
