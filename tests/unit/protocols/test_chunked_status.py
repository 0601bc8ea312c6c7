"""The status of uploads in chunks, and waiting for the next change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.fixtures.content import content
from tests.unit.protocols.chunk_site import KIB, ChunkExchange, ChunkSite, Told, digest

BODY = content(2500, "a body")


@pytest.fixture
def chunks() -> ChunkSite:
    return ChunkSite()


def part(number: int) -> bytes:
    return BODY[number * KIB : (number + 1) * KIB]


def poll(chunks: ChunkSite, session: str, wait: str) -> ChunkExchange:
    """A request that waits."""
    exchange = chunks.exchange("GET", {}, path="/upload/status", query=f"session_id={session}&wait={wait}")
    chunks.world.run()
    return exchange


def watchers(chunks: ChunkSite) -> int:
    return len(chunks.world.engine._watchers)


def test_what_it_tells(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 2, part(2))
    chunks.world.advance(10)
    chunks.chunk(session, 0, part(0))
    told = chunks.look(session)
    assert b"Cache-Control: no-store\r\n" in told.head
    assert told.json == {
        "session_id": session,
        "filename": "f.bin",
        "uploaded_bytes": 1476,
        "total_size": 2500,
        "progress": 1476 / 2500,
        "completed": False,
        "chunks": 2,
        "chunk_size": 1024,
        "total_chunks": 3,
        "missing": [[1, 1]],
        "received": [[0, 1024], [2048, 2500]],
        "last_activity": "2027-01-15T08:00:10Z",
        "expires_at": "2027-01-16T08:00:10Z",
    }
    chunks.chunk(session, 1, part(1))
    done = chunks.look(session).json
    assert done["url"].endswith("/f.bin")
    assert {key: done[key] for key in ("completed", "chunks", "missing", "received", "size", "sha256", "progress")} == {
        "completed": True,
        "chunks": 3,
        "missing": [],
        "received": [[0, 2500]],
        "size": 2500,
        "sha256": digest(BODY),
        "progress": 1.0,
    }


def test_of_an_empty_file(chunks: ChunkSite) -> None:
    status = chunks.look(chunks.begin(0)).json
    found = {key: status[key] for key in ("completed", "chunks", "total_chunks", "missing", "received", "progress")}
    assert found == {
        "completed": True,
        "chunks": 0,
        "total_chunks": 0,
        "missing": [],
        "received": [],
        "progress": 1.0,
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (400, "bad_field")),
        ("session_id", (400, "bad_field")),
        ("session_id=", (400, "bad_field")),
        ("session=1_a", (400, "bad_field")),
        ("SESSION_ID=1_a", (400, "bad_field")),
        ("session_id=1_a", (404, "upload_not_found")),
        ("session_id=%31_a", (404, "upload_not_found")),
        ("session_id=../state.db", (404, "upload_not_found")),
        ("session_id=" + "1" * 7000, (404, "upload_not_found")),
        ("session_id=1_a;x", (404, "upload_not_found")),
        ("session_id=1_a=b", (404, "upload_not_found")),
        *(
            (f"session_id=1_a&wait={wait}", (400, "bad_field"))
            for wait in ("", "-1", "+1", "x", "nan", "inf", "1e3", "1.", ".5", "1_0", "9" * 7, "1.1234567", "0x1")
        ),
        *((f"session_id=1_a&wait={wait}", (404, "upload_not_found")) for wait in ("0", "1", "0.5", "60", "999999")),
    ],
)
def test_malformed_questions(chunks: ChunkSite, query: str, expected: tuple[int, str]) -> None:
    for path in ("/upload/status", "/upload-status"):
        assert chunks.ask("GET", {}, path=path, query=query).code == expected
    assert watchers(chunks) == 0


def test_a_change_answers(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    waiting = [poll(chunks, session, wait) for wait in ("60", "0.5", "999999")]
    assert not any(exchange.answered for exchange in waiting)
    chunks.chunk(session, 1, part(1))
    assert [Told(exchange.answers[0]).json["received"] for exchange in waiting] == [[[1024, 2048]]] * 3
    assert watchers(chunks) == 0
    # What was the timer's is nobody's now.
    chunks.world.end(bound=120)
    assert [len(exchange.answers) for exchange in waiting] == [1, 1, 1]


@pytest.mark.parametrize(("wait", "seconds"), [("0.5", 0.5), ("7", 7.0), ("60", 60.0), ("999999", 60.0)])
def test_no_change_answers_when_the_time_is_over(chunks: ChunkSite, wait: str, seconds: float) -> None:
    session = chunks.begin(len(BODY))
    exchange = poll(chunks, session, wait)
    chunks.world.advance(seconds - 0.01)
    assert not exchange.answered
    chunks.world.advance(0.02)
    assert Told(exchange.answers[0]).json["received"] == []
    assert watchers(chunks) == 0


def test_no_wait_is_no_wait(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    for wait in ("0", "0.0", "000000"):
        assert poll(chunks, session, wait).answered


def test_a_client_that_leaves_is_forgotten(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    leaving, staying = poll(chunks, session, "60"), poll(chunks, session, "60")
    assert leaving.gone is not None
    leaving.gone()
    chunks.chunk(session, 1, part(1))
    assert (len(leaving.answers), len(staying.answers)) == (0, 1)
    assert watchers(chunks) == 0
    other = poll(chunks, session, "60")
    assert other.gone is not None
    other.gone()
    assert watchers(chunks) == 0
    chunks.world.end(bound=120)
    assert not other.answers
    assert not leaving.answers


def delete(chunks: ChunkSite, session: str) -> None:
    assert chunks.delete(session).status == 204


def expire(chunks: ChunkSite, _session: str) -> None:
    chunks.world.clock.advance(chunks.world.rules.max_age + 1)
    chunks.world.engine.sweep()
    chunks.world.run()


@pytest.mark.parametrize(
    ("end", "expected"),
    [(delete, (404, "upload_not_found")), (expire, (410, "upload_expired"))],
)
@pytest.mark.parametrize("there", [False, True], ids=["nothing", "something"])
def test_an_end_is_a_change(
    chunks: ChunkSite, end: Callable[[ChunkSite, str], None], expected: tuple[int, str], there: bool
) -> None:
    """Also of an upload of which nothing ever came."""
    session = chunks.begin(len(BODY))
    if there:
        chunks.chunk(session, 1, part(1))
    exchange = poll(chunks, session, "60")
    end(chunks, session)
    assert Told(exchange.answers[0]).code == expected
    assert watchers(chunks) == 0


def test_completion_is_waited_for(chunks: ChunkSite) -> None:
    """One that asks while the file is being published is told once it is there, not that nothing is missing."""
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 1, part(1))
    complete_but_one = chunks.chunk(session, 0, part(0))
    assert complete_but_one.json["completed"] is False
    last = chunks.exchange("PUT", {"x-upload-session-id": session.encode(), "x-chunk-number": b"2"}, part(2))
    while chunks.world.engine.progress(session).received != len(BODY):
        assert chunks.world.step()
    assert not last.answered
    exchange = chunks.exchange("GET", {}, path="/upload/status", query=f"session_id={session}&wait=60")
    assert not exchange.answered
    chunks.world.run()
    assert Told(exchange.answers[0]).json["completed"] is True
    assert Told(last.answers[0]).json["completed"] is True
    # One that is complete is never waited for.
    assert poll(chunks, session, "60").answered


def test_a_conflict_is_told_to_who_waits_for_completion(chunks: ChunkSite) -> None:
    chunks.site.application.random = bytes
    first, second = chunks.begin(3), chunks.begin(3)
    chunks.chunk(first, 0, b"abc")
    last = chunks.exchange("PUT", {"x-upload-session-id": second.encode(), "x-chunk-number": b"0"}, b"xyz")
    while chunks.world.engine.progress(second).received != 3:
        assert chunks.world.step()
    exchange = chunks.exchange("GET", {}, path="/upload/status", query=f"session_id={second}&wait=60")
    chunks.world.run()
    assert Told(exchange.answers[0]).code == Told(last.answers[0]).code == (409, "exists")


def test_a_store_that_fails_while_somebody_waits(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    chunks.world.engine.close()
    chunks.world.kill(chunks.world.processes[0])
    chunks.world.restart()
    chunks.site.application.engine = chunks.world.engine
    exchange = poll(chunks, session, "60")
    assert not exchange.answered
    chunks.world.fail("read")
    chunks.world.engine.progressed(session)
    assert Told(exchange.answers[0]).code == (503, "sessions_unavailable")
    assert watchers(chunks) == 0
