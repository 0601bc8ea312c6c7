"""The store against a plain model: any changes in any order, by two processes' stores, closed and reopened."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs
from tests.fixtures.sessions import made, session

from hmac_file_server.stores.contract import (
    COMPLETE,
    EXPIRED,
    FAILED,
    OPEN,
    Checkpoint,
    Claim,
    Create,
    Finish,
    Remove,
    Session,
    Span,
    TooManySessions,
)
from hmac_file_server.stores.sqlite import SqliteStore

OWNERS = st.sampled_from(["alice", "bob"])
KEYS = st.none() | st.sampled_from(["k1", "k2", "k3"])
EPOCHS = st.sampled_from([0, 0, 0, 1, -1])
TIMES = st.integers(0, 50).map(float)
LIMIT = 4


def runs(numbers: set[int]) -> tuple[Span, ...]:
    edges = sorted(n for n in numbers if n - 1 not in numbers), sorted(n + 1 for n in numbers if n + 1 not in numbers)
    return tuple(zip(*edges, strict=True))


class Model:
    """One session as it ought to be."""

    def __init__(self, found: Session) -> None:
        self.session = found
        self.bytes: set[int] = set()

    def whole(self) -> Session:
        return structs.replace(self.session, ranges=runs(self.bytes))

    def change(self, **fields: Any) -> None:
        self.session = structs.replace(self.session, **fields)


class StoreMachine(RuleBasedStateMachine):
    """Two stores over one file; every step goes through either."""

    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="sessions-")
        self.file = str(Path(self.folder) / "sessions.db")
        self.stores = [SqliteStore(self.file, full=False) for _ in range(2)]
        self.model: dict[str, Model] = {}
        self.count = 0

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    def open_of(self, owner: str) -> int:
        return sum(each.session.state == OPEN and each.session.owner == owner for each in self.model.values())

    def held(self, session_id: str, offset: int) -> tuple[int, Model | None]:
        """The epoch to use, right when the offset is 0; the model when the change should succeed by it."""
        model = self.model.get(session_id)
        epoch = (model.session.epoch if model else 0) + offset
        return epoch, model if model and not offset else None

    @rule(target=ids, via=st.integers(0, 1), owner=OWNERS, key=KEYS, deadline=TIMES, known=st.booleans())
    def create(self, via: int, owner: str, key: str | None, deadline: float, known: bool) -> str:
        self.count += 1
        new = session(f"{self.count}", owner=owner, key=key, deadline=deadline, length=60 if known else None)
        result = made(self.stores[via], Create(new, LIMIT))
        same = next((each for each in self.model.values() if key is not None and each.session.key == key), None)
        if same is not None:
            assert result == same.whole()
            return same.session.id
        if self.open_of(owner) >= LIMIT:
            assert isinstance(result, TooManySessions)
        else:
            assert result == new
            self.model[new.id] = Model(new)
        return new.id

    @rule(via=st.integers(0, 1), session_id=ids, offset=EPOCHS)
    def claim(self, via: int, session_id: str, offset: int) -> None:
        epoch, model = self.held(session_id, offset)
        result = made(self.stores[via], Claim(session_id, epoch))
        if model is None:
            assert result is None
        else:
            model.change(epoch=epoch + 1)
            assert result == model.whole()

    @rule(
        via=st.integers(0, 1),
        session_id=ids,
        offset=EPOCHS,
        spans=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=4),
        active=TIMES,
        deadline=TIMES,
        length=st.none() | st.integers(50, 60),
    )
    def checkpoint(
        self,
        via: int,
        session_id: str,
        offset: int,
        spans: list[Span],
        active: float,
        deadline: float,
        length: int | None,
    ) -> None:
        epoch, model = self.held(session_id, offset)
        halfopen = tuple((start, start + size) for start, size in spans)
        result = made(self.stores[via], Checkpoint(session_id, epoch, halfopen, active, deadline, length))
        if model is None or model.session.state != OPEN:
            assert result is False
            return
        assert result is True
        model.change(active=active, deadline=deadline)
        if length is not None:
            model.change(length=length)
        for span in halfopen:
            model.bytes.update(range(*span))

    @rule(
        via=st.integers(0, 1),
        session_id=ids,
        offset=EPOCHS,
        state=st.sampled_from([COMPLETE, FAILED, EXPIRED]),
        deadline=TIMES,
    )
    def finish(self, via: int, session_id: str, offset: int, state: str, deadline: float) -> None:
        epoch, model = self.held(session_id, offset)
        result = made(self.stores[via], Finish(session_id, epoch, state, b"receipt", deadline))
        if model is None or model.session.state != OPEN:
            assert result is False
            return
        assert result is True
        model.change(state=state, deadline=deadline, receipt=b"receipt")
        if state != COMPLETE:
            model.bytes.clear()

    @rule(via=st.integers(0, 1), session_id=ids, offset=EPOCHS)
    def remove(self, via: int, session_id: str, offset: int) -> None:
        epoch, model = self.held(session_id, offset)
        assert made(self.stores[via], Remove(session_id, epoch)) is (model is not None)
        if model is not None:
            del self.model[session_id]

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = SqliteStore(self.file, full=False)

    @rule(now=TIMES, limit=st.integers(1, 9))
    def due(self, now: float, limit: int) -> None:
        found = self.stores[0].due(now, limit)
        late = sorted(each.session.deadline for each in self.model.values() if each.session.deadline <= now)
        assert [each.deadline for each in found] == late[:limit]
        assert all(each == self.model[each.id].session for each in found)

    @invariant()
    def everything_is_as_it_ought_to_be(self) -> None:
        if not hasattr(self, "stores"):
            return
        for store in self.stores:
            for session_id, model in self.model.items():
                assert store.get(session_id) == model.whole()
            wanted = [each.whole() for each in self.model.values() if each.session.state == OPEN]
            assert store.open_sessions() == len(wanted)
            assert set(store.open_ids()) == {each.id for each in wanted}
            assert set(store.outstanding()) == {
                (each.id, each.received if each.length is None else each.length, each.received) for each in wanted
            }
            names = [f"{number}" for number in range(self.count + 2)]
            assert store.known(names) == set(self.model)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
