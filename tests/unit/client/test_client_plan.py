"""What is planned is exactly what is missing: for any ranges, sizes, chunks, failures and orders."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from hmac_file_server.client.plan import Plan, first_missing, merged
from hmac_file_server.client.protocol import Piece, Ranges

SIZES = st.integers(0, 400)
CHUNKS = st.integers(0, 70)


def spans_within(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    edge = st.integers(0, size)
    return st.lists(st.tuples(edge, edge), max_size=12)


PLANS = st.tuples(SIZES, CHUNKS).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), spans_within(pair[0]))
)


def bytes_of(spans: list[tuple[int, int]] | Ranges) -> set[int]:
    return {byte for start, stop in spans for byte in range(start, stop)}


def taken(plan: Plan) -> list[Piece]:
    found = []
    while (piece := plan.take()) is not None:
        found.append(piece)
    return found


@settings(deadline=None)
@given(spans_within(200))
def test_merged_spans_have_the_same_bytes_and_are_apart(spans: list[tuple[int, int]]) -> None:
    found = merged(spans)
    assert bytes_of(found) == bytes_of(spans)
    assert all(start < stop for start, stop in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))


@settings(deadline=None)
@given(spans_within(200), st.integers(0, 210))
def test_the_first_missing_byte(spans: list[tuple[int, int]], start: int) -> None:
    there = bytes_of(spans)
    expected = start
    while expected in there:
        expected += 1
    assert first_missing(merged(spans), start) == expected


@settings(deadline=None)
@given(PLANS)
def test_of_every_chunk_the_rest_from_its_first_missing_byte_is_taken_once(
    plan_of: tuple[int, int, list[tuple[int, int]]],
) -> None:
    size, chunk_size, spans = plan_of
    there = bytes_of(spans)
    plan = Plan(size, chunk_size, merged(spans))
    pieces = taken(plan)
    length = chunk_size or max(size, 1)
    expected = []
    for chunk, start in enumerate(range(0, size, length)):
        stop = min(start + length, size)
        missing = [byte for byte in range(start, stop) if byte not in there]
        if missing:
            expected.append(Piece(missing[0], stop, chunk, start))
    assert pieces == expected
    assert plan.under_way == len(pieces)
    assert plan.take() is None
    assert plan.acknowledged == len(there)
    assert plan.whole == (len(there) == size)


@settings(deadline=None)
@given(SIZES, CHUNKS, st.data())
def test_where_chunks_were_sent_in_order_nothing_is_taken_that_is_there(
    size: int, chunk_size: int, data: st.DataObject
) -> None:
    length = chunk_size or max(size, 1)
    # What this client leaves behind: of each chunk a beginning.
    spans = [(start, start + data.draw(st.integers(0, min(length, size - start)))) for start in range(0, size, length)]
    plan = Plan(size, chunk_size, merged(spans))
    planned = [byte for piece in taken(plan) for byte in range(piece.start, piece.stop)]
    assert len(planned) == len(set(planned))
    assert set(planned) == set(range(size)) - bytes_of(spans)


def test_what_is_correct_replaces_what_was_believed() -> None:
    plan = Plan(100, 10, ((0, 100),))
    assert plan.whole
    assert plan.take() is None
    plan.correct(((0, 35), (40, 100)))
    assert not plan.whole
    assert taken(plan) == [Piece(35, 40, 3, 30)]


def test_a_file_of_any_size_is_passed_over_in_few_steps() -> None:
    plan = Plan(10**15, 5, ((0, 10**15 - 1),))
    assert plan.take() == Piece(10**15 - 1, 10**15, 10**15 // 5 - 1, 10**15 - 5)


def test_an_empty_file_needs_nothing() -> None:
    plan = Plan(0, 5)
    assert plan.whole
    assert plan.chunks == 0
    assert plan.take() is None


class Uploading(RuleBasedStateMachine):
    """Workers that take, succeed, fail in the middle and give back, in any order, against a server that remembers."""

    pieces: Bundle[Piece] = Bundle("pieces")

    def __init__(self) -> None:
        super().__init__()
        self.size, self.chunk_size = 97, 10
        self.plan = Plan(self.size, self.chunk_size)
        self.server: set[int] = set()
        self.under_way: dict[int, Piece] = {}
        self.unknown: dict[int, int] = {}
        self.asked = 0
        self.answers: list[tuple[int, Ranges]] = []

    def ranges(self) -> Ranges:
        return merged([(byte, byte + 1) for byte in self.server])

    @rule(target=pieces)
    @precondition(lambda self: len(self.under_way) < 4)
    def take(self) -> Piece:
        piece = self.plan.take()
        missing = {byte // self.chunk_size for byte in range(self.size) if byte not in self.server}
        if piece is None:
            assert missing <= set(self.under_way) | set(self.unknown)
            return Piece(0, 0, -1, 0)
        assert piece.chunk not in self.under_way
        assert piece.chunk not in self.unknown
        assert not bytes_of([(piece.start, piece.stop)]) & self.server
        self.under_way[piece.chunk] = piece
        return piece

    @rule(piece=consumes(pieces))
    def succeed(self, piece: Piece) -> None:
        if piece.chunk >= 0:
            self._end(piece, piece.length)

    @rule(piece=consumes(pieces), arrived=st.integers(0, 10))
    def fail(self, piece: Piece, arrived: int) -> None:
        """Some of it arrived, and nobody knows how much before the next question is answered."""
        if piece.chunk >= 0:
            del self.under_way[piece.chunk]
            self.server |= set(range(piece.start, piece.start + min(arrived, piece.length)))
            self.plan.give_back(piece, unknown=self.asked + 1)
            self.unknown[piece.chunk] = self.asked + 1

    @rule()
    def ask(self) -> None:
        self.asked += 1
        self.answers.append((self.asked, self.ranges()))

    @rule()
    @precondition(lambda self: self.answers)
    def answer(self) -> None:
        """The answer tells what was there when it was asked for."""
        number, ranges = self.answers.pop(0)
        self.plan.learn(ranges)
        self.plan.answered(number)
        self.unknown = {chunk: needed for chunk, needed in self.unknown.items() if needed > number}

    def _end(self, piece: Piece, arrived: int) -> None:
        del self.under_way[piece.chunk]
        self.server |= set(range(piece.start, piece.start + arrived))
        self.plan.give_back(piece)
        self.plan.learn(((piece.chunk_start, piece.start + arrived),))
        assert self.plan.missing(piece) == piece.start + arrived

    @invariant()
    def agrees(self) -> None:
        assert bytes_of(self.plan.received) <= self.server
        unknown = {byte // self.chunk_size for byte in self.server - bytes_of(self.plan.received)}
        # What the plan does not know of lies in chunks that it takes to be unknown.
        assert unknown <= set(self.unknown)
        assert self.plan.unknown == len(self.unknown)
        assert self.plan.under_way == len(self.under_way)


TestUploading = Uploading.TestCase
TestUploading.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
