"""Requests of the chunk API, one after the other: each field, each state of an upload, each repeat."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from tests.fixtures.content import content
from tests.unit.protocols.chunk_site import KIB, PATH, ChunkSite, Told, digest
from tests.unit.protocols.conftest import NOW, SECRET

from hmac_file_server.auth import signing
from hmac_file_server.files.contract import StorageFailed
from hmac_file_server.http import BodyCut
from hmac_file_server.protocols.chunked import CHUNKS_MAX

BODY = content(2500, "a body")
HUGE = b"1" + b"0" * 40


@pytest.fixture
def chunks() -> ChunkSite:
    return ChunkSite()


def part(number: int) -> bytes:
    return BODY[number * KIB : (number + 1) * KIB]


def send_all(chunks: ChunkSite, session: str) -> Told:
    """All chunks; the answer to the last one."""
    for number in range(2):
        assert chunks.chunk(session, number, part(number)).status == 200
    return chunks.chunk(session, 2, part(2))


# --- beginning -------------------------------------------------------------------------------------------


def test_what_a_session_is_told(chunks: ChunkSite) -> None:
    told = chunks.create(len(BODY), b"large file.zip")
    document = told.json
    session = document["session_id"]
    assert told.status == 201
    # `<unix time>_<128 random bits>`, as in the guide.
    assert re.fullmatch(r"1800000000_[a-z2-7]{26}", session)
    assert re.fullmatch(r"/[0-9a-f]{32}/large%20file\.zip", document.pop("url"))
    assert document == {
        "session_id": session,
        "chunk_size": KIB,
        "total_chunks": 3,
        "filename": "large file.zip",
        "total_size": 2500,
        "expires_at": "2027-01-16T08:00:00Z",
        "completed": False,
    }
    assert f"Location: /upload/status?session_id={session}\r\n".encode() in told.head
    assert b"Cache-Control: no-store\r\n" in told.head
    assert chunks.promised == (2500, 1)


def test_the_other_name_of_the_path_has_the_other_name_of_the_status(chunks: ChunkSite) -> None:
    signature = signing.x_signature(SECRET, "/chunked-upload").encode()
    fields = {"x-filename": b"a", "x-total-size": b"3", "x-signature": signature}
    told = chunks.ask("POST", fields, path="/chunked-upload")
    assert f"Location: /upload-status?session_id={told.json['session_id']}\r\n".encode() in told.head
    assert chunks.ask("POST", fields).code == (403, "bad_signature")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(({"x_total_size": size}, (400, "bad_field")) for size in (b"-", b"", b"-1", b"+5", b"05", b"00", b"1.5")),
        *(({"x_total_size": size}, (400, "bad_field")) for size in (b"0x10", b"1e3", b"1_0", b"5,5", b"5 5", HUGE)),
        *(({"x_total_size": size}, (400, "bad_field")) for size in (b"five", "\u0665".encode(), b"-0", b"9" * 19)),
        ({"x_total_size": b"9" * 18}, (413, "too_large")),
        ({"name": b"-"}, (400, "bad_field")),
        ({"name": b""}, (400, "bad_field")),
        ({"idempotency_key": b""}, (400, "bad_field")),
        ({"idempotency_key": b"k" * 256}, (400, "bad_field")),
        ({"content_type": b"no type"}, (400, "bad_media_type")),
        ({"content_type": b"text/" + b"x" * 251}, (400, "bad_media_type")),
        ({"x_signature": b"-"}, (403, "missing_credentials")),
        ({"x_signature": b"0" * 64}, (403, "bad_signature")),
        ({"x_signature": b"0" * 63}, (403, "malformed_credentials")),
        ({"x_upload_session_id": b""}, (400, "bad_field")),
    ],
)
def test_malformed_beginnings(chunks: ChunkSite, fields: dict[str, Any], expected: tuple[int, str]) -> None:
    told = chunks.create(**fields)
    assert told.code == expected
    assert told.json["status"] == told.status
    assert (chunks.sessions, chunks.promised) == (0, (0, 0))
    assert not chunks.world.disk.names


def test_the_largest_file_and_the_next(chunks: ChunkSite) -> None:
    most = chunks.settings.server.max_upload_size
    assert chunks.create(most + 1).code == (413, "too_large")
    assert chunks.create(most).status == 201
    assert chunks.sessions == 1


def test_no_more_than_a_hundred_thousand_chunks(chunks: ChunkSite) -> None:
    """The chunk grows with the file, in whole KiB."""
    for size in (KIB * CHUNKS_MAX, KIB * CHUNKS_MAX + 1, 10**10):
        told = chunks.create(size).json
        assert told["total_chunks"] <= CHUNKS_MAX
        assert told["chunk_size"] % KIB == 0
        assert told["total_chunks"] == -(-size // told["chunk_size"])
    assert chunks.create(KIB * CHUNKS_MAX).json["chunk_size"] == KIB
    assert chunks.create(KIB * CHUNKS_MAX + 1).json["chunk_size"] == 2 * KIB


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("na\u00efve \u2603.txt".encode(), "na\u00efve \u2603.txt"),
        (b"na%C3%AFve%20%E2%98%83.txt", "na\u00efve \u2603.txt"),
        (b"na\xefve.txt", "na\u00efve.txt"),
        ("nai\u0308ve.txt".encode(), "na\u00efve.txt"),
        (b"../../etc/passwd", "_.._etc_passwd"),
        (b"..%2F..%2Fetc%2Fpasswd", "_.._etc_passwd"),
        (b"C:\\Users\\a.txt", "C__Users_a.txt"),
        (b".hmac-file-server", "hmac-file-server"),
        (b"..", "file"),
        (b". . .", "file"),
        (b"%00%01%0d%0aSet-Cookie:x", "____Set-Cookie_x"),
        (b"a\x01b", "a_b"),
        ("\u202etxt.exe".encode(), "_txt.exe"),
        (b'<a href="x">|*?', "_a href=_x_____"),
        (b"x" * 4096 + b".txt", "x" * 196 + ".txt"),
        ("\u00e9".encode() * 2048, "\u00e9" * 100),
    ],
)
def test_names(chunks: ChunkSite, sent: bytes, meant: str) -> None:
    """For people; never a way to another place."""
    told = chunks.create(0, sent).json
    assert told["filename"] == meant
    assert re.fullmatch(r"/[0-9a-f]{32}/[^/]+", unquote(told["url"]))
    assert unquote(told["url"]).rpartition("/")[2] == meant
    assert chunks.look(told["session_id"]).json["filename"] == meant


def test_a_strong_signature_does_not_change_what_a_name_means(chunks: ChunkSite) -> None:
    """It binds the name as it was sent; what is meant is the same."""
    sent = "caf%C3%A9.txt"
    expires = int(NOW) + 60
    strong = signing.x_signature_strong(SECRET, "POST", PATH, sent, 7, expires).encode()
    fields = {"x_signature": strong, "x_signature_expires": b"%d" % expires}
    told = chunks.create(7, sent.encode(), **fields)
    assert (told.status, told.json["filename"]) == (201, "caf\u00e9.txt")
    assert chunks.create(8, sent.encode(), **fields).code == (403, "bad_signature")
    assert chunks.create(7, b"cafe.txt", **fields).code == (403, "bad_signature")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, None),
        (b"application/octet-stream", None),
        (b"text/x-note; charset=utf-8", "text/x-note; charset=utf-8"),
    ],
)
def test_the_type(chunks: ChunkSite, sent: bytes | None, kept: str | None) -> None:
    """What clients send who were not told a type is none."""
    session = chunks.begin(3, **({} if sent is None else {"content_type": sent}))
    stored = chunks.world.sessions.sessions[session]
    assert stored.media_type == kept


def test_extensions() -> None:
    chunks = ChunkSite(allowed_extensions=(".txt",))
    assert chunks.create(3, b"a.bin").code == (415, "extension_refused")
    assert chunks.create(3, b"txt").code == (415, "extension_refused")
    # The name that counts is the one that is understood.
    assert chunks.create(3, b"a.bin%2Etxt").status == 201
    assert chunks.create(3, b"A.TXT").status == 201
    assert chunks.sessions == 2


def test_a_busy_server_begins_nothing_and_goes_on_with_all(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    chunks.site.busy = True
    told = chunks.create()
    assert told.code == (503, "server_busy")
    assert b"Retry-After: " in told.head
    assert send_all(chunks, session).json["completed"] is True
    assert chunks.create(x_signature=b"0" * 64).status == 403


def test_no_room(chunks: ChunkSite) -> None:
    chunks.world.fail("admission")
    assert chunks.create().code == (507, "storage_full")
    assert (chunks.sessions, chunks.promised) == (0, (0, 0))
    assert chunks.create().status == 201


@pytest.mark.parametrize("fault", ["commit", "answer"])
def test_a_session_that_could_not_be_recorded(chunks: ChunkSite, fault: str) -> None:
    chunks.world.fail(fault)
    told = chunks.create()
    assert told.code == (503, "sessions_unavailable")
    assert b"Retry-After: " in told.head
    chunks.world.end()
    assert (chunks.sessions, chunks.promised) == (0, (0, 0))


# --- idempotency keys ------------------------------------------------------------------------------------


def test_a_key_finds_its_session_in_every_state(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY), idempotency_key=b'"k"')
    assert chunks.begin(len(BODY), idempotency_key=b'"k"') == session
    # It is opaque: quoted or not are two.
    assert chunks.begin(len(BODY), idempotency_key=b"k") != session
    assert chunks.promised == (2 * len(BODY), 2)
    send_all(chunks, session)
    told = chunks.create(len(BODY), idempotency_key=b'"k"').json
    assert (told["session_id"], told["completed"]) == (session, True)
    assert chunks.delete(session).status == 204
    assert chunks.begin(len(BODY), idempotency_key=b'"k"') != session


def test_a_key_is_for_one_upload(chunks: ChunkSite) -> None:
    session = chunks.begin(10, idempotency_key=b"\xff\x00\x7f" * 85)
    for changed in ({"size": 11}, {"name": b"other.bin"}):
        fields: dict[str, Any] = {"size": 10, "idempotency_key": b"\xff\x00\x7f" * 85, **changed}
        assert chunks.create(**fields).code == (422, "key_reused")
    assert chunks.promised == (10, 1)
    assert chunks.look(session).status == 200


def test_a_key_of_an_upload_that_expired_begins_no_dead_session(chunks: ChunkSite) -> None:
    session = chunks.begin(10, idempotency_key=b"k")
    expire(chunks)
    assert chunks.look(session).code == (410, "upload_expired")
    assert chunks.create(10, idempotency_key=b"k").code == (410, "upload_expired")
    chunks.delete(session)
    assert chunks.create(10, idempotency_key=b"k").status == 201


def expire(chunks: ChunkSite) -> None:
    """Let the time of every open session be over."""
    chunks.world.advance(chunks.world.rules.max_age + 1)
    chunks.world.engine.sweep()
    chunks.world.run()


# --- chunks ----------------------------------------------------------------------------------------------


def test_chunks_in_any_order(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    told = chunks.chunk(session, 2, part(2)).json
    assert told == {
        "success": True,
        "chunk": 2,
        "uploaded_bytes": 452,
        "total_size": 2500,
        "progress": 452 / 2500,
        "completed": False,
        "received": [[2048, 2500]],
    }
    assert chunks.chunk(session, 0, part(0)).json["received"] == [[0, 1024], [2048, 2500]]
    told = chunks.chunk(session, 1, part(1)).json
    url = told["url"]
    assert told == {
        "success": True,
        "chunk": 1,
        "uploaded_bytes": 2500,
        "total_size": 2500,
        "progress": 1.0,
        "completed": True,
        "received": [[0, 2500]],
        "filename": "f.bin",
        "size": 2500,
        "url": url,
        "sha256": digest(BODY),
    }
    assert chunks.contents() == [BODY]
    assert chunks.promised == (0, 0)


@pytest.mark.parametrize(
    ("number", "fields", "expected"),
    [
        *((number, {}, (400, "bad_chunk_number")) for number in (b"", b"-1", b"+1", b"01", b"1.0", b"x", b"1 1", HUGE)),
        *((number, {}, (400, "bad_chunk_number")) for number in (b"3", b"4", b"9" * 18, b"9" * 19)),
        *((b"1", {"x-chunk-offset": at}, (400, "bad_field")) for at in (b"", b"-1", b"+1", b"01", b"x", HUGE)),
        *((b"1", {"x-chunk-offset": at}, (400, "bad_chunk_length")) for at in (b"1", b"1024", b"1025", b"9" * 18)),
        (b"1", {"content-digest": b"sha-256=:AAAA:"}, (400, "bad_digest")),
        (b"1", {"digest": b"?"}, (400, "bad_digest")),
        (b"1", {"content-digest": b"sha-256=:" + b"A" * 43 + b"=:"}, (400, "digest_mismatch")),
        (b"1", {"x-upload-session-id": b""}, (400, "bad_field")),
        (b"1", {"x-upload-session-id": b"1700000000_nobody"}, (404, "upload_not_found")),
        (b"1", {"x-upload-session-id": b"../../state.db"}, (404, "upload_not_found")),
        (b"1", {"x-upload-session-id": b"\xff\xfe"}, (404, "upload_not_found")),
        (b"1", {"x-upload-session-id": b"1" * 8000}, (404, "upload_not_found")),
    ],
)
def test_malformed_chunks(
    chunks: ChunkSite, number: bytes, fields: dict[str, bytes], expected: tuple[int, str]
) -> None:
    """Nothing is taken, nothing changes."""
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 0, part(0))
    before = chunks.look(session).json
    told = chunks.chunk(session, number, part(1), fields=fields)
    assert told.code == expected
    assert chunks.look(session).json == before
    assert (chunks.sessions, chunks.promised) == (1, (len(BODY) - KIB, 1))
    assert chunks.chunk(session, 1, part(1)).status == 200


def test_a_chunk_without_a_number(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    assert chunks.ask("PUT", {"x-upload-session-id": session.encode()}, part(0)).code == (400, "bad_chunk_number")


def test_the_rest_of_a_chunk(chunks: ChunkSite) -> None:
    """What a cut body brought is there; X-Chunk-Offset goes on."""
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 1, part(1)[:100], pieces=[part(1)[:100]], end=BodyCut.DISCONNECTED)
    assert chunks.look(session).json["received"] == [[1024, 1124]]
    at = {"x-chunk-offset": b"100"}
    told = chunks.chunk(session, 1, part(1)[101:], fields=at)
    assert (told.code, told.json["expected"]) == ((400, "bad_chunk_length"), 924)
    assert chunks.chunk(session, 1, part(1)[100:], fields=at).json["received"] == [[1024, 2048]]
    # Overlap is compared, not written.
    half = {"x-chunk-offset": b"50"}
    assert chunks.chunk(session, 1, part(1)[50:], fields=half).status == 200
    assert chunks.chunk(session, 1, bytes(974), fields=half).code == (409, "chunk_differs")
    assert chunks.chunk(session, 1, b"", fields={"x-chunk-offset": b"1024"}).status == 200
    assert chunks.chunk(session, 2, b"", fields={"x-chunk-offset": b"452"}).json["expected"] == 452


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_wrong_lengths(chunks: ChunkSite, number: int, change: int) -> None:
    session = chunks.begin(len(BODY))
    chunks.chunk(session, (number + 1) % 3, part((number + 1) % 3))
    body = (part(number) + bytes(1000))[: len(part(number)) + change]
    told = chunks.chunk(session, number, body)
    assert (told.code, told.json["expected"]) == ((400, "bad_chunk_length"), len(part(number)))
    told = chunks.chunk(session, number, pieces=[body])
    assert (told.code, told.json["expected"]) == ((400, "bad_chunk_length"), len(part(number)))
    # The bytes that were right may be kept, those behind the end of the chunk never are.
    for start, stop in chunks.look(session).json["received"]:
        assert start // KIB in {number, (number + 1) % 3}
        assert stop <= len(BODY)
    assert send_all(chunks, session).json["completed"] is True
    assert chunks.contents() == [BODY]


def test_bytes_behind_a_chunk_that_is_there(chunks: ChunkSite) -> None:
    """No length was said, so none was wrong; success would promise that the bytes were taken."""
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 1, part(1))
    end = {"x-chunk-offset": b"1024"}
    assert chunks.chunk(session, 1, pieces=[], fields=end).status == 200
    for more in ([b"x"], [b"x" * 5000]):
        told = chunks.chunk(session, 1, pieces=more, fields=end)
        assert (told.code, told.json["expected"]) == ((400, "bad_chunk_length"), 0)
    empty = chunks.begin(0)
    assert chunks.chunk(empty, 0, pieces=[]).json["completed"] is True
    assert chunks.chunk(empty, 0, pieces=[b"x"]).code == (400, "bad_chunk_length")
    assert chunks.chunk(empty, 0, b"x").code == (400, "bad_chunk_number")
    assert chunks.chunk(empty, 1, b"").code == (400, "bad_chunk_number")


# --- another length than was announced -------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 700, 1023, 1025, 2499, 2500])
def test_the_first_chunk_says_how_long_chunks_are(chunks: ChunkSite, size: int) -> None:
    """As long as nothing is there; also when it is the whole file."""
    session = chunks.begin(len(BODY))
    pieces = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    told = chunks.chunk(session, 0, pieces[0])
    assert told.status == 200, told.body
    status = chunks.look(session).json
    assert (status["chunk_size"], status["total_chunks"], status["chunks"]) == (size, len(pieces), 1)
    for number in {1, len(pieces) - 1} & set(range(len(pieces))):
        told = chunks.chunk(session, number, pieces[number])
        assert told.status == 200
    if len(pieces) <= 4:
        for number, piece in enumerate(pieces):
            told = chunks.chunk(session, number, piece)
        assert told.json["completed"] is True
        assert chunks.contents() == [BODY]


def test_not_once_something_is_there(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 1, part(1))
    assert chunks.chunk(session, 0, BODY[:700]).code == (400, "bad_chunk_length")
    other = chunks.begin(len(BODY))
    chunks.chunk(other, 0, BODY[:700])
    assert chunks.chunk(other, 0, part(0)).code == (400, "bad_chunk_length")
    assert chunks.look(other).json["chunk_size"] == 700
    # Not by another chunk than the first, nor by a part of it, nor by a body that does not say.
    third = chunks.begin(len(BODY))
    assert chunks.chunk(third, 1, BODY[:700]).code == (400, "bad_chunk_length")
    assert chunks.chunk(third, 0, BODY[:700], fields={"x-chunk-offset": b"1"}).code == (400, "bad_chunk_length")
    assert chunks.chunk(third, 0, pieces=[BODY[:700]]).code == (400, "bad_chunk_length")
    assert chunks.look(third).json["chunk_size"] == KIB


def test_not_beyond_the_whole_nor_into_too_many_chunks(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    assert chunks.chunk(session, 0, BODY + b"x").code == (400, "bad_chunk_length")
    assert chunks.chunk(session, 0, b"").code == (400, "bad_chunk_length")
    large = chunks.begin(2 * CHUNKS_MAX)
    assert chunks.chunk(large, 0, b"x").code == (400, "bad_chunk_length")
    assert chunks.chunk(large, 0, b"xy").json["received"] == [[0, 2]]
    assert chunks.look(large).json["total_chunks"] == CHUNKS_MAX


def test_an_adopted_size_outlives_the_process(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 0, BODY[:700])
    chunks.world.kill(chunks.world.processes[0])
    chunks.world.restart()
    chunks.site.application.engine = chunks.world.engine
    assert chunks.look(session).json["chunk_size"] == 700
    for number in range(1, 4):
        told = chunks.chunk(session, number, BODY[number * 700 : (number + 1) * 700])
    assert told.json["completed"] is True
    assert chunks.contents() == [BODY]


# --- repeats and ends ------------------------------------------------------------------------------------


def test_repeats_of_a_complete_upload(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    final = send_all(chunks, session).json
    for number in (0, 1, 2):
        assert chunks.chunk(session, number, part(number)).json == {**final, "chunk": number}
        assert chunks.chunk(session, number, pieces=[part(number)[:7], part(number)[7:]]).status == 200
        assert chunks.chunk(session, number, bytes(len(part(number)))).code == (409, "chunk_differs")
        wrong = {"content-digest": b"sha-256=:" + b"A" * 43 + b"=:"}
        assert chunks.chunk(session, number, part(number), fields=wrong).code == (400, "digest_mismatch")
        for body in (part(number)[:-1], part(number) + b"x"):
            told = chunks.chunk(session, number, body)
            assert (told.code, told.json["expected"]) == ((400, "bad_chunk_length"), len(part(number)))
            told = chunks.chunk(session, number, pieces=[body])
            assert (told.code, told.json["expected"]) == ((400, "bad_chunk_length"), len(part(number)))
        cut = chunks.chunk(session, number, pieces=[part(number)], end=BodyCut.DISCONNECTED)
        assert cut.code == (400, "incomplete")
    assert chunks.chunk(session, 1, part(1)[9:], fields={"x-chunk-offset": b"9"}).status == 200
    assert chunks.chunk(session, 3, b"x").code == (400, "bad_chunk_number")
    assert chunks.chunk(session, 1, b"", fields={"x-chunk-offset": b"1024"}).json == {**final, "chunk": 1}
    # Nor does it become a session of other chunks.
    assert chunks.chunk(session, 0, BODY).code == (400, "bad_chunk_length")
    assert chunks.files.idle


def test_a_repeat_when_the_disk_fails(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    send_all(chunks, session)
    for step in ("open", "read"):
        chunks.files.errors = {step: StorageFailed("no")}
        assert chunks.chunk(session, 0, part(0)).code == (500, "storage_failed")
    chunks.files.errors = {}
    assert chunks.chunk(session, 0, part(0)).status == 200
    assert chunks.files.idle


def test_other_content_at_the_path_ends_the_upload_for_good(chunks: ChunkSite) -> None:
    """As a ticket for one path does; every later question is answered so."""
    chunks.site.application.random = bytes
    first = chunks.begin(len(BODY))
    second = chunks.begin(len(BODY), idempotency_key=b"k")
    third = chunks.begin(len(BODY))
    assert send_all(chunks, first).json["completed"] is True
    for number in (0, 1):
        chunks.chunk(second, number, part(number))
    told = chunks.chunk(second, 2, part(2)[:-1] + b"x")
    assert told.code == (409, "exists")
    for again in (
        chunks.chunk(second, 2, part(2)[:-1] + b"x"),
        chunks.chunk(second, 0, part(0)),
        chunks.chunk(second, 7, b"of any length"),
        chunks.chunk(second, 0, b"", fields={"x-chunk-offset": b"1024"}),
        chunks.look(second),
        chunks.look(second, "&wait=60"),
        chunks.create(len(BODY), idempotency_key=b"k"),
    ):
        assert again.code == (409, "exists")
    # The same content is no conflict.
    assert send_all(chunks, third).json["completed"] is True
    assert chunks.contents() == [BODY]
    assert chunks.promised == (0, 0)
    assert chunks.delete(second).status == 204
    assert chunks.look(second).code == (404, "upload_not_found")


def test_an_expired_upload_says_so_whatever_is_asked(chunks: ChunkSite) -> None:
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 0, part(0))
    expire(chunks)
    for told in (
        chunks.chunk(session, 1, part(1)),
        chunks.chunk(session, 0, part(0)),
        chunks.chunk(session, 9, b"of any length"),
        chunks.chunk(session, 0, b"", fields={"x-chunk-offset": b"1024"}),
        chunks.look(session),
        chunks.look(session, "&wait=60"),
    ):
        assert told.code == (410, "upload_expired")
    assert chunks.promised == (0, 0)
    # Forgotten after as long again.
    expire(chunks)
    assert chunks.look(session).code == (404, "upload_not_found")
    assert chunks.chunk(session, 1, part(1)).code == (404, "upload_not_found")
    assert chunks.sessions == 0


def test_delete_in_every_state(chunks: ChunkSite) -> None:
    sessions = {}
    sessions["new"] = chunks.begin(len(BODY))
    sessions["begun"] = chunks.begin(len(BODY))
    chunks.chunk(sessions["begun"], 1, part(1))
    sessions["complete"] = chunks.begin(len(BODY))
    send_all(chunks, sessions["complete"])
    sessions["empty"] = chunks.begin(0)
    for name, session in sessions.items():
        told = chunks.delete(session)
        assert (told.status, told.body) == (204, b""), name
        assert chunks.delete(session).code == (404, "upload_not_found"), name
        assert chunks.look(session).code == (404, "upload_not_found"), name
        assert chunks.chunk(session, 0, part(0)).code == (404, "upload_not_found"), name
    expired = chunks.begin(len(BODY))
    expire(chunks)
    assert chunks.delete(expired).status == 204
    assert chunks.delete(expired).code == (404, "upload_not_found")
    assert chunks.delete("").code == (400, "bad_field")
    assert chunks.delete("x").code == (404, "upload_not_found")
    assert (chunks.sessions, chunks.promised) == (0, (0, 0))
    # What was published stays.
    assert sorted(chunks.contents()) == [b"", BODY]


def test_a_publish_that_was_put_off_is_asked_for_again(chunks: ChunkSite) -> None:
    """By the last chunk, or without one byte."""
    for again in (part(2), b""):
        session = chunks.begin(len(BODY))
        chunks.world.fail("publish")
        assert send_all(chunks, session).code == (507, "storage_full")
        status = chunks.look(session).json
        assert (status["completed"], status["missing"]) == (False, [])
        fields = {} if again else {"x-chunk-offset": b"452"}
        assert chunks.chunk(session, 2, again, fields=fields).json["completed"] is True
        assert chunks.look(session).json["completed"] is True


def test_an_empty_file_that_was_put_off(chunks: ChunkSite) -> None:
    chunks.world.fail("publish")
    assert chunks.create(0, idempotency_key=b"k").code == (507, "storage_full")
    told = chunks.create(0, idempotency_key=b"k").json
    assert (told["completed"], told["total_chunks"]) == (False, 0)
    assert chunks.chunk(told["session_id"], 0, b"").json["completed"] is True
    assert chunks.contents() == [b""]


def test_a_session_store_that_fails(chunks: ChunkSite) -> None:
    """503 with Retry-After; what was acknowledged stays, and the repeat succeeds."""
    session = chunks.begin(len(BODY))
    chunks.chunk(session, 0, part(0))
    chunks.world.fail("commit")
    told = chunks.chunk(session, 1, part(1))
    assert told.code == (503, "sessions_unavailable")
    assert b"Retry-After: " in told.head
    assert chunks.look(session).json["received"] == [[0, 1024]]
    assert send_all(chunks, session).json["completed"] is True
    chunks.world.engine.close()
    chunks.world.kill(chunks.world.processes[0])
    chunks.world.restart()
    chunks.site.application.engine = chunks.world.engine
    asks: list[Callable[[], Told]] = [
        lambda: chunks.look(session),
        lambda: chunks.chunk(session, 0, part(0)),
        lambda: chunks.delete(session),
    ]
    for ask in asks:
        chunks.world.fail("read")
        assert ask().code == (503, "sessions_unavailable")
    assert chunks.look(session).json["completed"] is True


def test_the_owner_is_told_to_the_log_of_every_request(chunks: ChunkSite) -> None:
    token = signing.ticket(SECRET, {"prefix": "alice", "exp": int(NOW) + 60, "sub": "alice@example.org"})
    fields = {"x-filename": b"a", "x-total-size": b"3", "authorization": b"Bearer " + token.encode()}
    exchange = chunks.exchange("POST", fields)
    chunks.world.run()
    session = Told(exchange.answers[0]).json["session_id"].encode()
    assert exchange.owner == "alice@example.org"
    for _ in range(2):
        exchange = chunks.exchange("PUT", {"x-upload-session-id": session, "x-chunk-number": b"0"}, b"abc")
        chunks.world.run()
        assert Told(exchange.answers[0]).json["completed"] is True
        assert exchange.owner == "alice@example.org"
