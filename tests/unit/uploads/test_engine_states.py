"""The table of states: every row of it, and that nothing else can happen."""

from __future__ import annotations

import itertools

import pytest
from tests.fixtures.engine_world import World

from hmac_file_server.stores.contract import COMPLETE, EXPIRED, FAILED, OPEN, Session
from hmac_file_server.uploads.states import TABLE, Event, State, after
from hmac_file_server.uploads.upload import Upload

ROWS = {
    "open": {
        "checkpoint": "open",
        "all there": "publishing",
        "lost": "failed",
        "refused": "failed",
        "expire": "expired",
        "cancel": "gone",
    },
    "publishing": {"published": "complete", "refused": "failed", "put off": "open"},
    "complete": {"cancel": "gone", "forget": "gone"},
    "failed": {"cancel": "gone", "forget": "gone"},
    "expired": {"cancel": "gone", "forget": "gone"},
    "gone": {},
}
PAIRS = list(itertools.product(State, Event))


def upload(state: State) -> Upload:
    session = Session(
        id="1_a", protocol="chunked", path="a", length=1, filename="a", owner="a", created=0, active=0, deadline=0
    )
    draft = World().processes[0].files.draft(session.id, create=True)
    assert draft is not None
    made = Upload(session, draft, None)
    made.state = state
    return made


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_what_follows(state: State, event: Event) -> None:
    expected = ROWS[state].get(event)
    assert after(state, event) == expected
    assert TABLE.get((state, event)) == expected


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_an_upload_follows_the_table(state: State, event: Event) -> None:
    subject = upload(state)
    expected = ROWS[state].get(event)
    version = subject.version
    if expected is None:
        with pytest.raises(RuntimeError, match=event):
            subject.happen(event)
        assert (subject.state, subject.version) == (state, version)
    else:
        subject.happen(event)
        assert (subject.state, subject.version) == (expected, version + 1)


def test_every_state_can_be_reached_and_all_end_in_gone() -> None:
    reached = {State.OPEN}
    for _ in State:
        reached |= {following for (state, _), following in TABLE.items() if state in reached}
    assert reached == set(State)
    assert not [event for (state, event) in TABLE if state is State.GONE]
    for state in set(State) - {State.GONE}:
        ends = {state}
        for _ in State:
            ends |= {following for (before, _), following in TABLE.items() if before in ends}
        assert State.GONE in ends


def test_a_store_spells_the_states_alike() -> None:
    assert {OPEN, COMPLETE, FAILED, EXPIRED} == {State.OPEN, State.COMPLETE, State.FAILED, State.EXPIRED}
