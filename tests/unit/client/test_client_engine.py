"""The engine against a protocol in memory whose attempts fail as a script says: any faults, in any order."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.content import content

from hmac_file_server.client.engine import Engine, Terms
from hmac_file_server.client.errors import BadAnswer, ConnectionLost, GaveUp, Refused, SessionGone, UploadFailed
from hmac_file_server.client.exchanges import Http
from hmac_file_server.client.plan import first_missing, merged
from hmac_file_server.client.protocol import Body, Facts, Piece, Ranges, Received, Result, Session
from hmac_file_server.client.retrying import Backoff
from hmac_file_server.client.source import Portion, Source
from hmac_file_server.client.target import Target

SIZE, CHUNK = 1000, 100
DATA = content(SIZE, "engine")
FAULTS = ("cut", "refused", "busy", "taken over", "silent answer", "digest")


class World:
    """A protocol and its server. `faults`: what happens to request number n, by n; the rest succeeds.

    It asserts that nothing is sent which an answer told to be there, that no chunk is sent twice at a time, and that
    after a failure nothing of a chunk is sent before a question that was asked later was answered.
    """

    name = "memory"

    def __init__(self, faults: Mapping[int, str], *, parallel: bool = True, resumable: bool = True) -> None:
        self.parallel = parallel
        self.resumable = resumable
        self.faults = faults
        self.requests = 0
        self.draw = random.Random(1)
        self.stored = bytearray(SIZE)
        self.there: Ranges = ()
        self.told: Ranges = ()
        self.under_way: set[int] = set()
        self.unsure: dict[int, int] = {}
        self.questions = 0
        self.answered = 0
        self.sessions: dict[str, str] = {}
        self.gone = 0
        self.sent = 0
        self.chunk_size = CHUNK

    async def begin(self, facts: Facts) -> tuple[Session, Received]:
        fault = await self._fault()
        if fault == "refused":
            raise ConnectionLost("refused")
        session = self.sessions.setdefault(facts.key, facts.key)
        if fault is not None:
            raise ConnectionLost("the answer was lost")
        self._tell()
        return Session(session, SIZE, self.chunk_size), Received(self.there, self._result())

    async def ask(self, session: Session, *, wait: float = 0.0) -> Received:
        self.questions += 1
        number = self.questions
        if self.gone:
            self.gone -= 1
            self.there = self.told = ()
            self.unsure.clear()
            self.sessions.clear()
            raise SessionGone("gone", code="upload_not_found", status=404)
        there = self.there
        if await self._fault() is not None:
            raise ConnectionLost("no answer")
        self.answered = max(self.answered, number)
        self.unsure = {chunk: needed for chunk, needed in self.unsure.items() if needed > number}
        self.told = merged((*self.told, *there))
        return Received(there, self._result(), self.chunk_size)

    async def send(self, session: Session, piece: Piece, body: Body) -> Received:
        assert isinstance(body, Portion)
        assert piece.chunk not in self.under_way
        assert piece.chunk not in self.unsure
        assert piece.stop == min(piece.chunk_start + session.chunk_size, SIZE)
        assert first_missing(self.told, piece.start) == piece.start
        assert self.parallel or not self.under_way
        if not self.parallel:
            assert piece.start == first_missing(self.there, 0)
        self.under_way.add(piece.chunk)
        try:
            fault = await self._fault()
            if fault == "refused":
                raise ConnectionLost("refused")
            if session.id not in self.sessions.values():
                raise SessionGone("gone", code="upload_not_found", status=404)
            if session.chunk_size != self.chunk_size:
                raise Refused("other chunks", code="bad_chunk_length", status=400)
            arrived = piece.length if fault is None else self.draw.randrange(piece.length + 1)
            if fault == "silent answer":
                arrived = piece.length
            body.written = piece.length
            if fault == "digest":
                arrived = 0
            data = body.source.read(piece.start, arrived)
            self.stored[piece.start : piece.start + arrived] = data
            self.there = merged((*self.there, (piece.start, piece.start + arrived)))
            self.sent += arrived
            if fault is not None:
                self.unsure[piece.chunk] = self.questions + 1
            if fault in {"cut", "silent answer"}:
                raise ConnectionLost("cut")
            if fault == "busy":
                raise Refused("busy", code="server_busy", status=503, retriable=True, retry_after="0")
            if fault == "taken over":
                raise Refused("taken over", code="upload_taken_over", status=409, retriable=True)
            if fault == "digest":
                raise Refused("digest", code="digest_mismatch", status=400, retriable=True)
            self._tell()
            return Received(self.there, self._result())
        finally:
            self.under_way.discard(piece.chunk)

    async def discard(self, session: Session) -> None:
        self.there = ()

    def saved(self, session: Session) -> Mapping[str, Any]:
        return {"id": session.id}

    def restored(self, saved: Mapping[str, Any], facts: Facts) -> Session | None:
        return Session(saved["id"], facts.size, self.chunk_size)

    def _tell(self) -> None:
        self.told = merged((*self.told, *self.there))

    def _result(self) -> Result | None:
        return Result("https://files.example.org/x", SIZE, "x") if self.there == ((0, SIZE),) else None

    async def _fault(self) -> str | None:
        number = self.requests
        self.requests += 1
        for _ in range(self.draw.randrange(4)):
            await asyncio.sleep(0)
        return self.faults.get(number)


async def uploaded(world: World, *, parallel: int = 4, patience: float | None = 20.0) -> Result:
    source = Source(io.BytesIO(DATA))
    http = Http(Target.parse("http://127.0.0.1:9"))
    engine = Engine(
        source,
        world,
        http,
        Facts("x", SIZE, None, "key"),
        Terms(parallel=parallel, patience=patience, digest=False),
        backoff=Backoff(base=0.0005, cap=0.002, draw=lambda: 0.5),
        wall=lambda: 0.0,
    )
    try:
        return await engine.run()
    finally:
        await http.aclose()


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(st.integers(0, 60), st.sampled_from(FAULTS), max_size=40),
    st.integers(1, 6),
    st.booleans(),
)
def test_whatever_fails_every_byte_arrives_and_none_is_sent_knowingly_twice(
    faults: dict[int, str], parallel: int, side_by_side: bool
) -> None:
    world = World(faults, parallel=side_by_side)
    result = asyncio.run(uploaded(world, parallel=parallel))
    assert result.size == SIZE
    assert bytes(world.stored) == DATA
    assert len(world.sessions) == 1
    # Even what was lost on the way came only once to the server, since it was always asked.
    assert world.sent == SIZE


def test_a_protocol_that_cannot_resume_begins_anew() -> None:
    world = World({1: "refused", 3: "refused"}, parallel=False, resumable=False)
    world.chunk_size = SIZE
    assert asyncio.run(uploaded(world)).size == SIZE
    assert bytes(world.stored) == DATA


def test_a_session_that_is_gone_is_begun_anew_once() -> None:
    world = World({3: "cut"})
    world.gone = 1
    assert asyncio.run(uploaded(world)).size == SIZE
    world = World(dict.fromkeys(range(3, 200, 3), "cut"))
    world.gone = 2
    with pytest.raises(SessionGone):
        asyncio.run(uploaded(world))


def test_chunks_of_another_size_are_found_out_about() -> None:
    world = World({})

    class Changing(World):
        async def begin(self, facts: Facts) -> tuple[Session, Received]:
            session, told = await super().begin(facts)
            self.chunk_size = 70
            return session, told

    world = Changing({})
    assert asyncio.run(uploaded(world)).size == SIZE
    assert bytes(world.stored) == DATA


@pytest.mark.parametrize("failure", [Refused("no", code="bad_field", status=400), BadAnswer("no", retriable=False)])
def test_what_is_final_is_not_tried_again(failure: UploadFailed) -> None:
    class Refusing(World):
        async def begin(self, facts: Facts) -> tuple[Session, Received]:
            self.requests += 1
            raise failure

    world = Refusing({})
    with pytest.raises(type(failure)) as failed:
        asyncio.run(uploaded(world))
    assert failed.value is failure
    assert world.requests == 1


def test_other_bytes_at_the_server_are_final_unless_they_are_the_same_after_all() -> None:
    class Differing(World):
        once = True

        async def send(self, session: Session, piece: Piece, body: Body) -> Received:
            if self.once:
                self.once = False
                await super().send(session, piece, body)
                self.unsure[piece.chunk] = self.questions + 1
                raise Refused("other bytes", code="chunk_differs", status=409)
            return await super().send(session, piece, body)

    assert asyncio.run(uploaded(Differing({}))).size == SIZE

    class Always(World):
        async def send(self, session: Session, piece: Piece, body: Body) -> Received:
            raise Refused("other bytes", code="chunk_differs", status=409)

    with pytest.raises(Refused, match="other bytes"):
        asyncio.run(uploaded(Always({})))


def test_nonsense_from_somebody_in_between_is_waited_out() -> None:
    class Hotel(World):
        pages = 3

        async def ask(self, session: Session, *, wait: float = 0.0) -> Received:
            if self.pages:
                self.pages -= 1
                self.questions += 1
                raise BadAnswer("a page", retriable=False)
            return await super().ask(session, wait=wait)

    world = Hotel({2: "cut"})
    assert asyncio.run(uploaded(world)).size == SIZE
    assert world.pages == 0


def test_patience_ends_when_nothing_moves() -> None:
    world = World(dict.fromkeys(range(1, 100_000), "refused"))
    with pytest.raises(GaveUp) as failed:
        asyncio.run(uploaded(world, patience=0.2))
    assert isinstance(failed.value.__cause__, ConnectionLost)
