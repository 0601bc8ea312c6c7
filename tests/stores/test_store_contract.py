"""The contract of a session store, held against every store there is."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.fixtures.sessions import Answer, checkpoint, create, made, session, submit
from tests.stores.conftest import AnyStore, OpenStore

from hmac_file_server.stores.contract import (
    COMPLETE,
    EXPIRED,
    FAILED,
    OPEN,
    Claim,
    Create,
    Finish,
    Remove,
    Session,
    SessionStore,
    Span,
    StoreError,
    TooManySessions,
)
from hmac_file_server.stores.sqlite import SqliteStore


def finish(session_id: str = "one", *, epoch: int = 0, state: str = COMPLETE, deadline: float = 3000.0) -> Finish:
    return Finish(session_id, epoch, state, b"receipt", deadline)


def ranges(store: SessionStore, session_id: str = "one") -> tuple[Span, ...]:
    found = store.get(session_id)
    assert found is not None
    return found.ranges


# -- create


def test_what_is_created_is_found_whole(any_store: AnyStore) -> None:
    full = session(
        "ä😀",
        key="key",
        chunk_size=5,
        media_type="text/plain",
        details=b"\0\xff",
        receipt=b"\1",
        epoch=3,
        ranges=((0, 2), (4, 6)),
        length=2**62,
        path="ä/😀",
        created=0.1,
    )
    assert made(any_store, create("x")) == session("x")
    assert made(any_store, Create(full, 5)) == full
    assert any_store.get("ä😀") == full
    assert any_store.by_key("key") == full
    assert any_store.get("nobody") is None
    assert any_store.by_key("nothing") is None
    assert full.received == 4


def test_unknown_length_stays_unknown_until_a_checkpoint_has_it(any_store: AnyStore) -> None:
    made(any_store, create(length=None))
    assert list(any_store.outstanding()) == [("one", 0, 0)]
    assert made(any_store, checkpoint("one", (0, 3), length=8, chunk_size=4)) is True
    found = any_store.get("one")
    assert found is not None
    assert (found.length, found.chunk_size) == (8, 4)
    assert made(any_store, checkpoint("one", (3, 4))) is True
    assert list(any_store.outstanding()) == [("one", 8, 4)]


@pytest.mark.parametrize("state", [OPEN, COMPLETE, FAILED, EXPIRED])
def test_a_key_opens_one_session_however_often_it_comes(any_store: AnyStore, state: str) -> None:
    first = made(any_store, create("first", key="key", owner="a"))
    if state != OPEN:
        made(any_store, finish("first", state=state))
    again = made(any_store, create("second", key="key", owner="b"))
    assert isinstance(first, Session)
    assert isinstance(again, Session)
    assert again.id == "first"
    assert again.state == state
    assert any_store.get("second") is None
    assert any_store.open_sessions() == (1 if state == OPEN else 0)


def test_a_repeat_by_key_succeeds_at_the_limit(any_store: AnyStore) -> None:
    made(any_store, create("first", limit=1, key="key"))
    again = made(any_store, create("second", limit=1, key="key"))
    assert isinstance(again, Session)
    assert again.id == "first"


def test_a_key_is_free_again_once_its_session_is_forgotten(any_store: AnyStore) -> None:
    made(any_store, create("first", key="key"))
    made(any_store, Remove("first", 0))
    assert any_store.by_key("key") is None
    again = made(any_store, create("second", key="key"))
    assert isinstance(again, Session)
    assert again.id == "second"


def test_an_id_is_never_used_twice(any_store: AnyStore) -> None:
    made(any_store, create("one", owner="alice"))
    assert isinstance(made(any_store, create("one", owner="bob")), StoreError)
    found = any_store.get("one")
    assert found is not None
    assert found.owner == "alice"
    assert any_store.open_sessions() == 1
    assert not isinstance(made(any_store, create("two", owner="bob", limit=1)), StoreError)


def test_the_limit_counts_open_sessions_of_one_owner(any_store: AnyStore) -> None:
    for name in ("a", "b"):
        assert isinstance(made(any_store, create(name, limit=2)), Session)
    refused = made(any_store, create("c", limit=2))
    assert isinstance(refused, TooManySessions)
    assert refused.code == "too_many_sessions"
    assert any_store.get("c") is None
    assert isinstance(made(any_store, create("d", limit=2, owner="bob")), Session)
    assert made(any_store, finish("a")) is True
    assert isinstance(made(any_store, create("e", limit=2)), Session)
    assert isinstance(made(any_store, create("f", limit=2)), TooManySessions)
    assert made(any_store, Remove("b", 0)) is True
    assert isinstance(made(any_store, create("f", limit=2)), Session)
    # One that had ended already frees nothing again.
    assert made(any_store, Remove("a", 0)) is True
    assert isinstance(made(any_store, create("g", limit=2)), TooManySessions)


def test_a_limit_of_none_admits_nobody(any_store: AnyStore) -> None:
    assert isinstance(made(any_store, create("a", limit=0)), TooManySessions)


def test_the_limit_is_exact_when_many_come_at_once(any_store: AnyStore) -> None:
    answers: list[Answer] = []
    threads = [
        threading.Thread(
            target=lambda first=first: answers.extend(
                submit(any_store, create(f"{first}-{number}", limit=7)) for number in range(10)
            )
        )
        for first in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results = [answer.get() for answer in answers]
    assert sum(isinstance(result, Session) for result in results) == 7
    assert sum(isinstance(result, TooManySessions) for result in results) == 43
    assert any_store.open_sessions() == 7


# -- checkpoints


@pytest.mark.parametrize(
    ("before", "span", "after"),
    [
        ([], (3, 5), ((3, 5),)),
        ([(3, 5)], (5, 7), ((3, 7),)),
        ([(3, 5)], (1, 3), ((1, 5),)),
        ([(3, 5)], (6, 7), ((3, 5), (6, 7))),
        ([(3, 5)], (3, 5), ((3, 5),)),
        ([(0, 9)], (3, 5), ((0, 9),)),
        ([(3, 5)], (0, 9), ((0, 9),)),
        ([(3, 5)], (3, 9), ((3, 9),)),
        ([(3, 5)], (0, 5), ((0, 5),)),
        ([(0, 2), (4, 6), (8, 10)], (2, 4), ((0, 6), (8, 10))),
        ([(0, 2), (4, 6), (8, 10)], (1, 9), ((0, 10),)),
        ([(0, 2), (4, 6), (8, 10)], (2, 8), ((0, 10),)),
        ([(0, 2), (4, 6), (8, 10)], (3, 7), ((0, 2), (3, 7), (8, 10))),
        ([(0, 2)], (2, 2), ((0, 2),)),
    ],
)
def test_a_span_is_merged_with_its_neighbours(
    any_store: AnyStore, before: list[Span], span: Span, after: tuple[Span, ...]
) -> None:
    made(any_store, create())
    made(any_store, create("other", ranges=((0, 1), (2, 3), (4, 10))))
    assert made(any_store, checkpoint("one", *before)) is True
    assert made(any_store, checkpoint("one", span)) is True
    assert ranges(any_store) == after
    assert ranges(any_store, "other") == ((0, 1), (2, 3), (4, 10))
    assert list(any_store.outstanding()) == [
        ("one", 10, sum(stop - start for start, stop in after)),
        ("other", 10, 8),
    ]


def spans_of(numbers: set[int]) -> tuple[Span, ...]:
    """The plain model: a set of byte numbers."""
    spans: list[Span] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number:
            spans[-1] = (spans[-1][0], number + 1)
        else:
            spans.append((number, number + 1))
    return tuple(spans)


_spans = st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_spans, max_size=6), min_size=1, max_size=8))
@example([[(0, 1), (2, 3), (4, 5)], [(1, 4)]])
def test_any_spans_merge_as_sets_do(any_store: AnyStore, steps: list[list[Span]]) -> None:
    made(any_store, create(length=100))
    model: set[int] = set()
    try:
        for spans in steps:
            assert made(any_store, checkpoint("one", *spans)) is True
            for span in spans:
                model.update(range(*span))
            assert ranges(any_store) == spans_of(model)
            assert list(any_store.outstanding()) == [("one", 100, len(model))]
    finally:
        made(any_store, Remove("one", 0))


def test_a_checkpoint_without_spans_moves_the_times(any_store: AnyStore) -> None:
    made(any_store, create(ranges=((0, 2),)))
    assert made(any_store, checkpoint(active=1234.5, deadline=2345.5)) is True
    assert any_store.get("one") == session(active=1234.5, deadline=2345.5, ranges=((0, 2),))


@pytest.mark.parametrize("span", [(5, 3), (-1, 3), (0, 2**63), (2**70, 2**71)])
def test_an_impossible_span_is_refused_and_changes_nothing(any_store: AnyStore, span: Span) -> None:
    made(any_store, create(ranges=((0, 2),)))
    answers = [submit(any_store, checkpoint("one", each)) for each in ((2, 3), span, (3, 4))]
    assert [isinstance(answer.get(), StoreError) for answer in answers] == [False, True, False]
    assert ranges(any_store) == ((0, 4),)
    assert list(any_store.outstanding()) == [("one", 10, 4)]


# -- epochs


def test_a_claim_counts_up_and_fences_who_held_it_before(any_store: AnyStore) -> None:
    made(any_store, create(ranges=((0, 1),)))
    claimed = made(any_store, Claim("one", 0))
    assert claimed == session(epoch=1, ranges=((0, 1),))
    assert made(any_store, Claim("one", 0)) is None
    assert made(any_store, Claim("nobody", 0)) is None
    for late in (checkpoint("one", (1, 2)), finish(), Remove("one", 0)):
        assert made(any_store, late) is False
    assert any_store.get("one") == claimed
    assert made(any_store, checkpoint("one", (1, 2), epoch=1)) is True
    assert made(any_store, finish(epoch=1)) is True


def test_changes_of_a_session_that_is_none_are_refused(any_store: AnyStore) -> None:
    for change in (checkpoint("none", (0, 1)), finish("none"), Remove("none", 0)):
        assert made(any_store, change) is False
    assert any_store.get("none") is None


def _claims(file: str, count: int, barrier: Barrier, results: Connection) -> None:
    store = SqliteStore(file, full=False)
    barrier.wait(60)
    won = [number for number in range(count) if made(store, Claim(f"{number:04}", 0)) is not None]
    results.send(won)
    store.close()


def test_a_claim_is_won_once_among_processes(any_store: AnyStore, database: str) -> None:
    count = 150
    for answer in [submit(any_store, create(f"{number:04}", limit=count)) for number in range(count)]:
        answer.get()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    children = []
    for _ in range(2):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_claims, args=(database, count, barrier, theirs))
        child.start()
        theirs.close()
        children.append((child, ours))
    barrier.wait(60)
    won = [number for number in range(count) if made(any_store, Claim(f"{number:04}", 0)) is not None]
    for child, ours in children:
        won += ours.recv()
        ours.close()
        child.join()
        assert child.exitcode == 0
        child.close()
    assert sorted(won) == list(range(count))


def test_changes_of_one_session_take_effect_in_order(any_store: AnyStore) -> None:
    answers = [submit(any_store, create())]
    for epoch in range(50):
        answers += [
            submit(any_store, checkpoint("one", (epoch, epoch + 1), epoch=epoch)),
            submit(any_store, Claim("one", epoch)),
            submit(any_store, checkpoint("one", (90, 99), epoch=epoch)),
        ]
    results = [answer.get() for answer in answers]
    assert results[1::3] == [True] * 50
    assert all(isinstance(result, Session) for result in results[2::3])
    assert results[3::3] == [False] * 50
    assert ranges(any_store) == ((0, 50),)


# -- ends


@pytest.mark.parametrize(("state", "left"), [(COMPLETE, ((0, 4),)), (FAILED, ()), (EXPIRED, ())])
def test_a_session_ends_once_and_stays_as_it_ended(any_store: AnyStore, state: str, left: tuple[Span, ...]) -> None:
    made(any_store, create(key="key"))
    made(any_store, checkpoint("one", (0, 4)))
    assert made(any_store, finish(state=state)) is True
    ended = any_store.get("one")
    assert ended == session(key="key", state=state, receipt=b"receipt", active=1001.0, deadline=3000.0, ranges=left)
    for other in (COMPLETE, FAILED, EXPIRED):
        assert made(any_store, finish(state=other, deadline=9.0)) is False
    assert made(any_store, checkpoint("one", (4, 5))) is False
    assert any_store.get("one") == any_store.by_key("key") == ended
    assert any_store.open_sessions() == 0
    assert list(any_store.outstanding()) == []


@pytest.mark.parametrize("state", [OPEN, "finished", ""])
def test_there_are_no_other_ends(any_store: AnyStore, state: str) -> None:
    made(any_store, create())
    assert isinstance(made(any_store, finish(state=state)), StoreError)
    assert any_store.get("one") == session()
    assert any_store.open_sessions() == 1


def test_a_session_ends_once_under_threads_that_race(any_store: AnyStore) -> None:
    rounds, racers = 20, 4
    for number in range(rounds):
        made(any_store, create(f"{number}"))
    barrier = threading.Barrier(racers)
    answers: list[tuple[int, str, Answer]] = []

    def race(state: str) -> None:
        for number in range(rounds):
            barrier.wait(60)
            answers.append((number, state, submit(any_store, finish(f"{number}", state=state))))

    threads = [threading.Thread(target=race, args=(state,)) for state in (COMPLETE, FAILED, EXPIRED, COMPLETE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [(number, state) for number, state, answer in answers if answer.get() is True]
    assert sorted(number for number, _state in winners) == list(range(rounds))
    for number, state in winners:
        found = any_store.get(f"{number}")
        assert found is not None
        assert found.state == state
    assert any_store.open_sessions() == 0


def test_what_is_removed_is_gone_with_its_ranges(any_store: AnyStore) -> None:
    made(any_store, create(ranges=((0, 2), (4, 6))))
    assert made(any_store, Remove("one", 0)) is True
    assert any_store.get("one") is None
    assert any_store.open_sessions() == 0
    assert made(any_store, Remove("one", 0)) is False
    made(any_store, create())
    assert any_store.get("one") == session()


# -- lists


def test_due_lists_the_earliest_first_in_any_state(any_store: AnyStore) -> None:
    for number in (5, 3, 1, 4, 2):
        made(any_store, create(f"{number}", deadline=float(number), ranges=((0, 3),)))
    made(any_store, finish("3", deadline=3.0))
    assert [found.id for found in any_store.due(4.0, 10)] == ["1", "2", "3", "4"]
    assert [found.id for found in any_store.due(4.0, 2)] == ["1", "2"]
    assert any_store.due(0.5, 10) == []
    assert any_store.due(1.0, 1) == [session("1", deadline=1.0)]  # without its ranges
    made(any_store, checkpoint("1", deadline=100.0))
    assert [found.id for found in any_store.due(4.0, 10)] == ["2", "3", "4"]


def test_outstanding_pages_through_all_open_sessions_while_they_change(any_store: AnyStore) -> None:
    count = 2500
    answers = [
        submit(any_store, create(f"{number:05}", limit=count, length=number, ranges=((0, 1),) if number else ()))
        for number in range(count)
    ]
    for answer in answers:
        answer.get()
    listing = iter(any_store.outstanding())
    seen = [next(listing)]
    made(any_store, Remove("00500", 0))  # on the page that was read
    made(any_store, finish("02400"))
    made(any_store, finish("02401", state=FAILED))
    seen += listing
    expected = [(f"{n:05}", n, 1 if n else 0) for n in range(count) if n not in {2400, 2401}]
    assert seen == expected
    assert any_store.open_sessions() == count - 3
    assert list(any_store.open_ids()) == [name for name, _length, _got in expected if name != "00500"]


def test_known_tells_sessions_from_strangers_in_batches(any_store: AnyStore) -> None:
    for answer in [submit(any_store, create(f"{number}", limit=2000)) for number in range(1200)]:
        answer.get()
    made(any_store, finish("7", state=EXPIRED))
    assert any_store.known(f"{number}" for number in range(-800, 1300)) == {f"{number}" for number in range(1200)}
    assert any_store.known([]) == set()


def test_text_that_is_no_text_is_an_error_and_hurts_nobody_else(any_store: AnyStore) -> None:
    answers = [submit(any_store, change) for change in (create("a"), create("\ud800"), create("b", path="\udfff"))]
    answers.append(submit(any_store, create("c", limit=2)))
    results = [answer.get() for answer in answers]
    assert [type(result) for result in results] == [Session, StoreError, StoreError, Session]
    for read in (any_store.get, any_store.by_key, lambda text: any_store.known([text])):
        with pytest.raises(StoreError):
            read("\ud800")
    assert any_store.open_sessions() == 2


# -- closing and reopening


def test_everything_is_there_after_it_was_reopened(open_any: OpenStore, database: str) -> None:
    store = open_any(database)
    answers = [submit(store, create(f"{number}", limit=500, key=f"k{number}")) for number in range(300)]
    answers += [submit(store, checkpoint(f"{number}", (0, 2), (5, 7))) for number in range(300)]
    answers += [submit(store, finish(f"{number}")) for number in range(10)]
    store.close()  # writes what was submitted
    assert not any(isinstance(answer.get(), StoreError) for answer in answers)
    store = open_any(database)
    assert store.open_sessions() == 290
    assert len(list(store.outstanding())) == 290
    assert ranges(store, "299") == ((0, 2), (5, 7))
    assert made(store, Claim("299", 0)) == store.get("299")
    assert isinstance(made(store, create("x", limit=290)), TooManySessions)
    store.close()


def test_a_closed_store_says_so_and_closes_again(open_any: OpenStore, database: str) -> None:
    store = open_any(database)
    made(store, create())
    store.close()
    store.close()
    assert isinstance(made(store, create("two")), StoreError)
    calls: list[Callable[[], object]] = [
        lambda: store.get("one"),
        lambda: store.by_key("one"),
        lambda: store.due(0.0, 1),
        lambda: list(store.outstanding()),
        store.open_sessions,
        lambda: store.known(["one"]),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="closed"):
            call()


def test_changes_submitted_while_it_closes_are_all_answered(open_any: OpenStore, database: str) -> None:
    store = open_any(database)
    begun = threading.Barrier(4)
    answers: list[Answer] = []

    def keep_submitting(first: int) -> None:
        begun.wait(60)
        for number in range(200):
            answers.append(submit(store, create(f"{first}-{number}", limit=1000)))  # noqa: PERF401 - one by one

    threads = [threading.Thread(target=keep_submitting, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    begun.wait(60)
    store.close()
    for thread in threads:
        thread.join()
    stored = sum(isinstance(answer.get(), Session) for answer in answers)
    store = open_any(database)
    assert store.open_sessions() == stored
    store.close()
    assert len(answers) == 600


def test_a_callback_may_submit_and_may_fail(any_store: AnyStore) -> None:
    second = Answer()

    def go_on(_result: object) -> None:
        any_store.submit(checkpoint("one", (0, 1)), second)
        raise RuntimeError("of the callback")

    first = Answer(go_on)
    any_store.submit(create(), first)
    assert second.get() is True
    assert made(any_store, create("two")) == session("two")
