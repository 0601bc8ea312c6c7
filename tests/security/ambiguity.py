"""How a regular expression may explode, judged by its structure and not by a clock.

The expression becomes an automaton whose states are its characters (Glushkov) and whose edges are counted: two edges
between the same states are two ways of going there. A backtracking matcher takes

- exponential time if some state can be left and reached again in two ways by one text: `(a+)+`, `(a|a)*`;
- polynomial time if one loop can go over into another by a text that both take: `a*a*`.

(Weideman et al., "Analyzing Matching Time Behavior of Backtracking Regular Expression Matchers", CIAA 2016.) Assertions
count as nothing, repeats of more than a few times as endless, and every text may be followed by one that does not match:
what is called harmless here is harmless, and the reverse need not hold. What a search skips before a match is not judged.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final, Literal

_COPIES: Final = 5
Kind = Literal["exponential", "polynomial"]


@dataclass
class _Part:
    """A part of an expression: states it begins and ends with, in so many ways, and ways of being empty."""

    first: Counter[int]
    last: Counter[int]
    empty: int


class _Automaton:
    """States are numbers, `letters[state]` what a state takes, as bits, `edges[a][b]` ways from a to b."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        text, flags = pattern.pattern, pattern.flags
        tree = _parser.parse(text, flags)
        self._flags = flags
        self._bytes = isinstance(text, bytes)
        self._alphabet = sorted({*range(256), *(() if self._bytes else self._beyond(tree))})
        self.letters: list[int] = []
        self.edges: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._sequence(tree)

    def _beyond(self, tree: Any) -> Iterator[int]:
        """Characters beyond Latin-1 that the expression tells apart."""
        yield 0x10FFFD
        for operation, argument in tree:
            if operation in {sre.LITERAL, sre.NOT_LITERAL} and argument > 255:
                yield argument
            elif operation is sre.RANGE:
                yield from (point for point in (*argument, argument[1] + 1) if 255 < point < 0x110000)
            elif operation is sre.IN:
                yield from self._beyond(argument)
            elif operation is sre.BRANCH:
                for branch in argument[1]:
                    yield from self._beyond(branch)
            elif operation is sre.SUBPATTERN:
                yield from self._beyond(argument[3])
            elif operation in _REPEATS:
                yield from self._beyond(argument[2])
            elif operation is sre.ATOMIC_GROUP:
                yield from self._beyond(argument)

    # ---- letters

    def _taken(self, operation: Any, argument: Any, point: int) -> bool:
        if operation is sre.LITERAL:
            return bool(argument == point)
        if operation is sre.RANGE:
            return bool(argument[0] <= point <= argument[1])
        if operation is sre.CATEGORY:
            word = _CATEGORIES[argument]
            kind = re.compile(word.encode() if self._bytes else word, self._flags & re.ASCII)
            return kind.match(bytes([point]) if self._bytes else chr(point)) is not None  # type: ignore[arg-type]
        raise NotImplementedError(operation)

    def _set(self, operation: Any, argument: Any) -> int:
        """The letters that one character of the expression takes."""
        if operation is sre.ANY:
            return self._mask(lambda point: bool(self._flags & re.DOTALL) or point != 10)
        if operation is sre.NOT_LITERAL:
            return self._mask(lambda point: not self._folded(sre.LITERAL, argument, point))
        if operation is sre.LITERAL:
            return self._mask(lambda point: self._folded(operation, argument, point))
        members = list(argument)
        negated = members[0][0] is sre.NEGATE
        members = members[negated:]
        return self._mask(
            lambda point: any(self._folded(member[0], member[1], point) for member in members) is not negated
        )

    def _folded(self, operation: Any, argument: Any, point: int) -> bool:
        points = {point}
        if self._flags & re.IGNORECASE:
            both = (chr(point).lower(), chr(point).upper())
            points |= {ord(other) for other in both if len(other) == 1 and (not self._bytes or ord(other) < 256)}
        return any(self._taken(operation, argument, one) for one in points)

    def _mask(self, taken: Any) -> int:
        return sum(1 << number for number, point in enumerate(self._alphabet) if taken(point))

    # ---- states and edges

    def _state(self, letters: int) -> _Part:
        self.letters.append(letters)
        number = len(self.letters) - 1
        return _Part(Counter({number: 1}), Counter({number: 1}), 0)

    def _connect(self, last: Counter[int], first: Counter[int]) -> None:
        for one, ways in last.items():
            for other, more in first.items():
                self.edges[one][other] += ways * more

    def _then(self, one: _Part, other: _Part) -> _Part:
        self._connect(one.last, other.first)
        first = one.first + _times(other.first, one.empty)
        last = other.last + _times(one.last, other.empty)
        return _Part(first, last, min(2, one.empty * other.empty))

    def _sequence(self, tree: Any) -> _Part:
        whole = _Part(Counter(), Counter(), 1)
        for operation, argument in tree:
            whole = self._then(whole, self._part(operation, argument))
        return whole

    def _part(self, operation: Any, argument: Any) -> _Part:
        if operation in {sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN}:
            return self._state(self._set(operation, argument))
        if operation in {sre.AT, sre.ASSERT, sre.ASSERT_NOT}:
            return _Part(Counter(), Counter(), 1)
        if operation is sre.SUBPATTERN:
            return self._sequence(argument[3])
        if operation is sre.ATOMIC_GROUP:
            return self._sequence(argument)
        if operation is sre.BRANCH:
            parts = [self._sequence(branch) for branch in argument[1]]
            first = sum((part.first for part in parts), Counter())
            last = sum((part.last for part in parts), Counter())
            return _Part(first, last, min(2, sum(part.empty for part in parts)))
        if operation in _REPEATS:
            return self._repeat(*argument)
        raise NotImplementedError(operation)

    def _repeat(self, least: int, most: Any, tree: Any) -> _Part:
        if most is not sre.MAXREPEAT and most <= _COPIES:
            whole = _Part(Counter(), Counter(), 1)
            for number in range(int(most)):
                part = self._sequence(tree)
                if number >= least:
                    part.empty = max(1, part.empty)
                whole = self._then(whole, part)
                # However many of the last copies are left out, that is one way of leaving them out.
                whole.empty = min(1, whole.empty)
            return whole
        part = self._sequence(tree)
        self._connect(part.last, part.first)
        # An empty turn ends the loop.
        return _Part(part.first, part.last, 1 if least == 0 or part.empty else 0)


_REPEATS: Final = {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}
_CATEGORIES: Final = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}


def _times(count: Counter[int], ways: int) -> Counter[int]:
    return Counter({state: number * ways for state, number in count.items() if ways})


def ambiguity(pattern: re.Pattern[Any]) -> Kind | None:
    """How a match by it may explode; None when it cannot."""
    automaton = _Automaton(pattern)
    reach = {state: _reachable(automaton.edges, state) for state in range(len(automaton.letters))}
    looping = [state for state in reach if state in reach[state]]
    if any(_returns_twice(automaton, state, reach) for state in looping):
        return "exponential"
    for one in looping:
        for other in looping:
            if other != one and other in reach[one] and _overlaps(automaton, one, other, reach):
                return "polynomial"
    return None


def _reachable(edges: defaultdict[int, Counter[int]], start: int) -> set[int]:
    found: set[int] = set()
    waiting = list(edges[start])
    while waiting:
        state = waiting.pop()
        if state not in found:
            found.add(state)
            waiting.extend(edges[state])
    return found


def _returns_twice(automaton: _Automaton, state: int, reach: dict[int, set[int]]) -> bool:
    """Whether one text leads from a state to itself in two ways."""
    edges, letters = automaton.edges, automaton.letters
    home = {other for other in reach[state] if state in reach[other]}
    start = (state, state, False)
    seen = {start}
    waiting = [start]
    while waiting:
        one, other, parted = waiting.pop()
        for next_one, ways in edges[one].items():
            for next_other in edges[other]:
                if next_one not in home or next_other not in home or not letters[next_one] & letters[next_other]:
                    continue
                twice = parted or next_one != next_other or (one == other and ways > 1)
                if twice and next_one == next_other == state:
                    return True
                found = (next_one, next_other, twice)
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
    return False


def _overlaps(automaton: _Automaton, first: int, second: int, reach: dict[int, set[int]]) -> bool:
    """Whether one text leads from the first to itself, from the first to the second, and from the second to itself."""
    edges, letters = automaton.edges, automaton.letters
    goal = (first, second, second)
    waiting = [(first, first, second)]
    seen = set(waiting)
    while waiting:
        a, b, c = waiting.pop()
        for next_a in edges[a]:
            if first not in reach[next_a] and next_a != first:
                continue
            for next_b in edges[b]:
                both = letters[next_a] & letters[next_b]
                if not both or (second not in reach[next_b] and next_b != second):
                    continue
                for next_c in edges[c]:
                    if not both & letters[next_c] or (second not in reach[next_c] and next_c != second):
                        continue
                    found = (next_a, next_b, next_c)
                    if found == goal:
                        return True
                    if found not in seen:
                        seen.add(found)
                        waiting.append(found)
    return False
