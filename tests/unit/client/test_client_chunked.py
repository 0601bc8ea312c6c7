"""The chunk API as the client speaks it: what is asked, and what it makes of answers that are not what they should be."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_file_server.client.chunked import Chunked
from hmac_file_server.client.errors import BadAnswer, Refused, SessionGone, UploadFailed
from hmac_file_server.client.protocol import Answer, Facts, Piece, Received, Request, Session
from hmac_file_server.client.source import Portion, Source
from hmac_file_server.client.target import Target

FACTS = Facts("näme %.bin", 25, "text/plain", "key-1")
SESSION = Session("17_abc", 25, 10)
JSON = {"content-type": "application/json"}
CREATED = {"session_id": "17_abc", "chunk_size": 10, "total_chunks": 3, "expires_at": "2030-01-01T00:00:00Z"}
STATUS = {"total_size": 25, "chunk_size": 10, "received": [[0, 10], [20, 22]], "completed": False}
DONE = {
    "total_size": 25,
    "received": [[0, 25]],
    "completed": True,
    "filename": "n.bin",
    "size": 25,
    "url": "/x/n.bin",
    "blake3": "ab" * 32,
}


def answer(status: int, document: object, **fields: str) -> Answer:
    return Answer(status, {**JSON, **fields}, json.dumps(document).encode())


class Script:
    """Answers in order; keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    async def exchange(self, request: Request) -> Answer:
        self.requests.append(request)
        return self.answers.pop(0)


def target(**options: Any) -> Target:
    return Target.parse("https://files.example.org/below", clock=lambda: 1e9, **options)


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(work())


def portion(start: int = 0, length: int = 10) -> Portion:
    return Portion(Source(io.BytesIO(bytes(range(25)))), start, length)


# ---- begin


def test_a_creation_says_what_is_to_come() -> None:
    script = Script(answer(201, CREATED))
    session, told = run(lambda: Chunked(script, target(ticket="eyJ.eyJ.sig")).begin(FACTS))
    assert (session.id, session.size, session.chunk_size, session.expires) == ("17_abc", 25, 10, 1893456000.0)
    assert told == Received(())
    (request,) = script.requests
    assert (request.method, request.target, request.body) == ("POST", "/below/upload/chunked", None)
    assert request.headers == {
        "X-Filename": "n%C3%A4me%20%25.bin",
        "X-Total-Size": "25",
        "Content-Type": "text/plain",
        "Idempotency-Key": "key-1",
        "Authorization": "Bearer eyJ.eyJ.sig",
    }


def test_a_signature_is_over_the_name_as_it_is_sent() -> None:
    script = Script(answer(201, CREATED))
    run(lambda: Chunked(script, target(secret="secret")).begin(FACTS))
    fields = script.requests[0].headers
    expected = target(secret="secret").permission(
        "POST", "/below/upload/chunked", size=25, filename=fields["X-Filename"]
    )
    assert fields["X-Signature"] == expected["X-Signature"]


def test_after_a_repeated_creation_the_session_is_asked_for_its_bytes() -> None:
    script = Script(answer(201, CREATED), answer(200, STATUS))
    facts = Facts(FACTS.name, 25, None, "key-1", repeated=True)
    _, told = run(lambda: Chunked(script, target()).begin(facts))
    assert told.ranges == ((0, 10), (20, 22))
    assert script.requests[0].headers["Content-Type"] == "application/octet-stream"
    assert script.requests[1].target == "/below/upload/status?session_id=17_abc"


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        "text",
        {**CREATED, "session_id": "a b"},
        {**CREATED, "session_id": "a\r\nX: y"},
        {**CREATED, "session_id": 5},
        {**CREATED, "session_id": "a&b=c"},
        {**CREATED, "chunk_size": 0},
        {**CREATED, "chunk_size": "10"},
        {**CREATED, "chunk_size": True},
        {**CREATED, "chunk_size": None},
    ],
)
def test_creations_that_make_no_sense(document: object) -> None:
    with pytest.raises(BadAnswer) as failed:
        run(lambda: Chunked(Script(answer(201, document)), target()).begin(FACTS))
    assert not failed.value.retriable


def test_chunks_so_small_that_there_are_too_many() -> None:
    facts = Facts("x", 10**12, None, "k")
    with pytest.raises(BadAnswer):
        run(lambda: Chunked(Script(answer(201, {**CREATED, "chunk_size": 1})), target()).begin(facts))


def test_a_page_of_somebody_else() -> None:
    page = Answer(200, {"content-type": "text/html"}, b"<h1>Welcome to our hotel</h1>")
    with pytest.raises(BadAnswer, match="no server of uploads"):
        run(lambda: Chunked(Script(page), target()).begin(FACTS))


# ---- ask


def test_a_status_is_what_the_server_has() -> None:
    script = Script(answer(200, {**STATUS, "expires_at": "2030-01-01T00:00:00Z"}))
    told = run(lambda: Chunked(script, target()).ask(SESSION, wait=7.5))
    assert told == Received(((0, 10), (20, 22)), None, 10, 1893456000.0)
    assert script.requests[0].target.endswith("?session_id=17_abc&wait=7.5")
    assert script.requests[0].wait == 7.5
    script = Script(answer(200, STATUS))
    run(lambda: Chunked(script, target()).ask(SESSION, wait=1000))
    assert script.requests[0].wait == 60


def test_a_complete_upload_tells_its_url_and_digest() -> None:
    told = run(lambda: Chunked(Script(answer(200, DONE)), target()).ask(SESSION))
    assert told.result is not None
    assert told.result.url == "https://files.example.org/below/x/n.bin"
    assert told.result.digest == "blake3:" + "ab" * 32
    assert (told.result.size, told.result.filename, told.result.session_id) == (25, "n.bin", "17_abc")


@pytest.mark.parametrize(
    "received",
    [
        None,
        "all",
        5,
        [[0]],
        [[0, 1, 2]],
        [["0", "1"]],
        [[0, True]],
        [[0, 26]],
        [[-1, 5]],
        [[5, 5]],
        [[5, 4]],
        [[0, 10], [5, 12]],
        [[10, 12], [0, 5]],
        [[0.0, 5.0]],
    ],
)
def test_an_account_that_cannot_be_right_is_not_believed(received: object) -> None:
    with pytest.raises(BadAnswer):
        run(lambda: Chunked(Script(answer(200, {**STATUS, "received": received})), target()).ask(SESSION))


def test_a_session_of_another_file_is_not_continued() -> None:
    with pytest.raises(BadAnswer, match="another size"):
        run(lambda: Chunked(Script(answer(200, {**STATUS, "total_size": 26})), target()).ask(SESSION))


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists))
def test_any_account_is_taken_or_refused(received: object) -> None:
    try:
        told = run(lambda: Chunked(Script(answer(200, {**STATUS, "received": received})), target()).ask(SESSION))
    except BadAnswer:
        return
    assert [list(span) for span in told.ranges] == received


def test_sessions_that_are_gone() -> None:
    gone = answer(404, {"code": "upload_not_found"}, **{"content-type": "application/problem+json"})
    with pytest.raises(SessionGone):
        run(lambda: Chunked(Script(gone), target()).ask(SESSION))


# ---- send


def test_a_chunk_and_its_rest() -> None:
    for piece, offset in ((Piece(10, 20, 1, 10), None), (Piece(13, 20, 1, 10), "3")):
        script = Script(answer(200, {**STATUS, "received": [[0, 22]]}))
        body = portion(piece.start, piece.length)
        told = asyncio.run(Chunked(script, target()).send(SESSION, piece, body))
        assert told.ranges == ((0, 22),)
        (request,) = script.requests
        assert (request.method, request.target) == ("PUT", "/below/upload/chunked")
        assert request.body is body
        assert request.headers["X-Upload-Session-ID"] == "17_abc"
        assert request.headers["X-Chunk-Number"] == "1"
        assert request.headers.get("X-Chunk-Offset") == offset
        assert "Content-Digest" not in request.headers
        assert "Authorization" not in request.headers


def test_a_digest_is_that_of_the_body() -> None:
    script = Script(answer(200, DONE))
    body = portion(3, 7)
    told = run(lambda: Chunked(script, target(), piece_digests=True).send(SESSION, Piece(3, 10, 0, 0), body))
    expected = base64.b64encode(hashlib.sha256(bytes(range(3, 10))).digest()).decode()
    assert script.requests[0].headers["Content-Digest"] == f"sha-256=:{expected}:"
    assert told.result is not None


def test_a_strict_server_is_told_the_permission_from_then_on() -> None:
    refused = answer(403, {"code": "missing_credentials"}, **{"content-type": "application/problem+json"})
    script = Script(refused, answer(200, STATUS), answer(200, STATUS))
    remote = Chunked(script, target(secret="secret"))

    async def work() -> None:
        # The body is read from the source anew: the engine sends it once more.
        with pytest.raises(Refused) as failed:
            await remote.send(SESSION, Piece(0, 10, 0, 0), portion())
        assert (failed.value.code, failed.value.retriable) == ("signature_wanted", True)
        await remote.send(SESSION, Piece(0, 10, 0, 0), portion())
        await remote.ask(SESSION)

    run(work)
    expected = target(secret="secret").permission("PUT", "/below/upload/chunked", size=10)
    assert expected.items() <= script.requests[1].headers.items()
    assert "X-Signature" in script.requests[2].headers


def test_a_question_is_repeated_with_the_permission() -> None:
    refused = answer(403, {"code": "missing_credentials"})
    script = Script(refused, answer(200, STATUS))
    run(lambda: Chunked(script, target(ticket="eyJ.eyJ.sig")).ask(SESSION))
    assert script.requests[1].headers["Authorization"] == "Bearer eyJ.eyJ.sig"


def test_without_any_permission_a_refusal_is_final() -> None:
    refused = answer(403, {"code": "missing_credentials"}, **{"content-type": "application/problem+json"})
    with pytest.raises(Refused) as failed:
        run(lambda: Chunked(Script(refused), target()).ask(SESSION))
    assert (failed.value.code, failed.value.retriable) == ("missing_credentials", False)


# ---- end, and other runs


@pytest.mark.parametrize("status", [204, 404, 410])
def test_discarding(status: int) -> None:
    script = Script(Answer(status, {}, b""))
    run(lambda: Chunked(script, target()).discard(SESSION))
    (request,) = script.requests
    assert (request.method, request.headers["X-Upload-Session-ID"]) == ("DELETE", "17_abc")


def test_discarding_that_fails_is_told() -> None:
    with pytest.raises(UploadFailed):
        run(lambda: Chunked(Script(Answer(503, {}, b"")), target()).discard(SESSION))


def test_what_is_saved_is_restored() -> None:
    remote = Chunked(Script(), target(secret="secret"))
    saved = json.loads(json.dumps(remote.saved(SESSION)))
    assert remote.restored(saved, FACTS) == SESSION
    assert "secret" not in json.dumps(saved)
    assert remote.restored(saved, Facts("x", 26, None, "k")) is None


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"id": "17_abc", "size": 25},
        {"id": "17_abc", "size": 25, "chunk_size": 0},
        {"id": "17 abc", "size": 25, "chunk_size": 10},
        {"id": None, "size": 25, "chunk_size": 10},
        {"id": "17_abc", "size": 25, "chunk_size": "10"},
    ],
)
def test_what_was_damaged_is_not_restored(saved: dict[str, object]) -> None:
    assert Chunked(Script(), target()).restored(saved, FACTS) is None
