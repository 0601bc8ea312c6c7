"""Sets of ranges against sets of numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.uploads.ranges import RangeSet, Span

END = 40
SPANS = st.tuples(st.integers(0, END), st.integers(0, END)).map(lambda pair: (min(pair), max(pair)))


def numbers(spans: list[Span] | tuple[Span, ...]) -> set[int]:
    return {number for start, stop in spans for number in range(start, stop)}


@given(st.lists(SPANS, max_size=12), SPANS)
def test_a_set_of_ranges_is_a_set_of_numbers(spans: list[Span], asked: Span) -> None:
    ranges = RangeSet()
    model: set[int] = set()
    for start, stop in spans:
        added = set(range(start, stop))
        assert ranges.add(start, stop) == len(added - model)
        model |= added
        assert ranges.total == len(model)
    start, stop = asked
    within = model & set(range(start, stop))
    assert numbers(ranges.spans()) == model
    assert numbers(ranges.within(start, stop)) == within
    assert numbers(ranges.missing(start, stop)) == set(range(start, stop)) - model
    assert ranges.covers(start, stop) == (set(range(start, stop)) <= model)
    reach = start
    while reach in model:
        reach += 1
    assert ranges.reach(start) == reach
    assert list(ranges) == list(ranges.spans())
    assert len(ranges) == len(ranges.spans())


@given(st.lists(SPANS, max_size=12))
def test_spans_are_sorted_and_do_not_touch(spans: list[Span]) -> None:
    found = RangeSet(spans).spans()
    assert all(start < stop for start, stop in found)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))
    assert RangeSet(found).spans() == found


@given(st.lists(SPANS, max_size=12), SPANS)
def test_parts_are_sorted_and_lie_within(spans: list[Span], asked: Span) -> None:
    ranges = RangeSet(spans)
    start, stop = asked
    for parts in (ranges.within(start, stop), ranges.missing(start, stop)):
        assert parts == sorted(parts)
        assert all(start <= first < last <= stop for first, last in parts)


@pytest.mark.parametrize("span", [(-1, 3), (3, 2)])
def test_what_is_no_span_is_refused(span: Span) -> None:
    with pytest.raises(ValueError, match="span"):
        RangeSet().add(*span)


def test_huge_offsets_cost_nothing() -> None:
    ranges = RangeSet([(0, 1 << 62), (1 << 62, 1 << 63)])
    assert ranges.spans() == ((0, 1 << 63),)
    assert ranges.total == 1 << 63
