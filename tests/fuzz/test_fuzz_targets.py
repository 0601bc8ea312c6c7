"""The parsers under mutation: a moment for each here, `python -m tests.fuzz` for as long as wanted.

`FUZZ_SECONDS` says how long for each target, `FUZZ_SEED` from which seed.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.__main__ import blind
from tests.fuzz.corpus import FOUND
from tests.fuzz.mutation import Mutator
from tests.fuzz.target import SEPARATOR, Target
from tests.fuzz.targets import TARGETS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0.12"))
SEED = int(os.environ.get("FUZZ_SEED", "20261128"))

by_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@by_target
def test_seeds_and_findings(target: Target) -> None:
    """What is well-formed among the seeds is taken: a target that refuses everything would find nothing."""
    assert sum(map(target.run, target.seeds)) > 0
    for data in FOUND.get(target.name, ()):
        target.run(data)


def test_findings_belong_to_a_target() -> None:
    assert set(FOUND) <= set(TARGETS)


@by_target
def test_mutated_inputs(target: Target) -> None:
    executions, taken = blind(target.name, SECONDS, SEED)
    assert executions > 0
    assert taken <= executions


@by_target
def test_words_of_the_grammar_in_any_order(target: Target) -> None:
    words = st.sampled_from([*target.tokens, *target.seeds]) | st.binary(max_size=3)

    @settings(max_examples=15, deadline=None, database=None)
    @given(st.lists(words, max_size=6))
    def run(pieces: list[bytes]) -> None:
        target.run(b"".join(pieces))

    run()


def test_a_seed_gives_the_same_inputs_again() -> None:
    target = TARGETS["request-head"]
    one, other = Mutator(target, 7), Mutator(target, 7)
    first = [one.next() for _ in range(200)]
    assert first == [other.next() for _ in range(200)]
    assert len(set(first)) > 150
    assert first != [Mutator(target, 8).next() for _ in range(200)]


def test_a_parser_that_does_not_keep_its_word_is_found() -> None:
    """A negative control: it takes a number with a sign."""

    def run(data: bytes) -> bool:
        try:
            number = int(data)
        except ValueError:
            return False
        assert b"%d" % number == data, data
        return True

    mutator = Mutator(Target("control", run, (b"1", b"25"), (b"+", b"_")), SEED)
    inputs = [mutator.next() for _ in range(2000)]
    with pytest.raises(AssertionError):
        sum(map(run, inputs))


def test_parts_are_exchanged_between_inputs() -> None:
    target = Target("parts", bool, (b"a" + SEPARATOR + b"b", b"c" + SEPARATOR + b"d"))
    mutator = Mutator(target, 1)
    assert any(
        {data.split(SEPARATOR)[0], data.split(SEPARATOR)[-1]} == {b"a", b"d"}
        for data in (mutator.next() for _ in range(3000))
    )
