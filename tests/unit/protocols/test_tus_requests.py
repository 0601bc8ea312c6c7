"""Requests of tus when something goes wrong: a disk, a store, a rival, a part, a moment."""

from __future__ import annotations

import base64
import hashlib

import pytest
from tests.fixtures.content import content
from tests.unit.protocols import tus_site
from tests.unit.protocols.conftest import SECRET
from tests.unit.protocols.tus_site import STREAM, TusExchange, TusSite

from hmac_file_server.auth import signing
from hmac_file_server.files.contract import StorageBusy, StorageError, StorageFailed, StorageFull, StorageReadOnly
from hmac_file_server.http import BodyCut, Request
from hmac_file_server.uploads import Rules
from hmac_file_server.uploads.engine import FENCE_SECONDS

BODY = content(100, "a tus body")
NAMED = b"filename " + base64.b64encode(b"photo.png")


@pytest.fixture
def tus() -> TusSite:
    return TusSite()


def sha1(body: bytes) -> bytes:
    return b"sha1 " + base64.b64encode(hashlib.sha1(body).digest())


# ---- which protocol a request is of


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE", "GET"])
def test_every_answer_says_what_is_spoken(tus: TusSite, method: str) -> None:
    for path in ("/tus/", "/tus/x", "/tus/1_a"):
        asked = tus.ask(method, path, content_type=STREAM, upload_offset=b"0")
        assert asked.header("tus-resumable") == "1.0.0"
        assert asked.status in {404, 405}


@pytest.mark.parametrize("path", ["/tusk", "/tus.txt", "/tus1/x", "/tu"])
def test_other_paths_are_none_of_ours(tus: TusSite, path: str) -> None:
    asked = tus.ask("GET", path)
    assert asked.code == (404, "not_found")
    assert asked.header("tus-resumable") is None


def test_a_file_of_before_is_still_read(tus: TusSite) -> None:
    """Below what is an endpoint now, under a name that is no upload's."""
    tus.files.add("tus/old.png", b"picture")
    asked = tus.ask("GET", "/tus/old.png", tus_resumable=None)
    assert (asked.status, asked.answer.body) == (200, b"picture")


def test_switched_off(tus: TusSite) -> None:
    off = TusSite(resumable_uploads_enabled=False)
    signature = signing.x_signature(SECRET, "/tus/").encode()
    assert off.ask("POST", "/tus/", upload_length=b"1", x_signature=signature).code == (404, "not_found")
    assert off.ask("OPTIONS", "/tus/").header("tus-version") is None
    assert off.ask("GET", "/tus/1_a").code == (404, "not_found")


# ---- creation


FAILURES: list[tuple[StorageError, int, str]] = [
    (StorageFull("x"), 507, "storage_full"),
    (StorageBusy("x"), 503, "storage_busy"),
    (StorageReadOnly("x"), 503, "storage_read_only"),
    (StorageFailed("x"), 500, "storage_failed"),
]


@pytest.mark.parametrize("step", ["admit", "spool", "write", "publish"])
@pytest.mark.parametrize(("error", "status", "code"), FAILURES, ids=[code for _, _, code in FAILURES])
def test_a_short_upload_and_a_store_that_fails(
    tus: TusSite, step: str, error: StorageError, status: int, code: str
) -> None:
    tus.files.errors[step] = error
    asked = tus.post(BODY, upload_length=b"100", content_type=STREAM)
    assert asked.code == (status, code)
    assert asked.header("tus-resumable") == "1.0.0"
    assert tus.contents() == []
    assert tus.files.idle
    assert tus.world.sessions.sessions == {}


def test_a_short_upload(tus: TusSite) -> None:
    asked = tus.post(BODY, upload_length=b"100", content_type=STREAM, upload_metadata=NAMED)
    path = tus.path_of(asked)
    assert asked.offset == 100
    assert tus.contents() == [BODY]
    head = tus.head(path)
    assert (head.status, head.offset, head.header("upload-length")) == (200, 100, "100")
    assert head.header("upload-metadata") == NAMED.decode()
    assert tus.ask("GET", path).answer.body == BODY
    assert tus.promised == (0, 0)
    assert tus.ask("DELETE", path).status == 204
    assert tus.contents() == []
    assert tus.head(path).status == 404


def test_a_short_upload_that_cannot_be_recorded_leaves_nothing(tus: TusSite) -> None:
    """Its client does not know of it, so it will come again."""
    tus.world.fail("commit")
    asked = tus.post(BODY, upload_length=b"100", content_type=STREAM)
    assert asked.code == (503, "sessions_unavailable")
    assert tus.contents() == []
    assert [reason for _path, reason in tus.files.deleted] == ["its upload could not be recorded"]
    assert tus.post(BODY, upload_length=b"100", content_type=STREAM).status == 201


def halfway(tus: TusSite, **fields: bytes) -> TusExchange:
    """A short upload whose file is placed, and not durable yet."""
    signature = signing.x_signature(SECRET, "/tus/").encode()
    given = {"upload_length": b"100", "content_type": STREAM, "x_signature": signature, **fields}
    exchange = tus.begin("POST", "/tus/", 100, **given)
    exchange.send(BODY)
    exchange.end()
    tus.files.later.pop(0)()
    return exchange


@pytest.mark.parametrize("session_first", [False, True])
def test_a_short_upload_is_answered_when_file_and_session_are_durable(tus: TusSite, session_first: bool) -> None:
    exchange = halfway(tus)
    steps = [tus.files.run_later, tus.world.run]
    for step in reversed(steps) if session_first else steps:
        assert not exchange.answered
        step()
    assert exchange.status == 201
    assert tus.head(tus.path_of(exchange)).offset == 100


@pytest.mark.parametrize("session_first", [False, True])
def test_a_short_upload_whose_file_could_not_be_made_durable_is_forgotten(tus: TusSite, session_first: bool) -> None:
    tus.files.errors["sync"] = StorageFailed("x")
    exchange = halfway(tus)
    if session_first:
        tus.world.run()
        assert len(tus.world.sessions.sessions) == 1
    tus.run()
    assert exchange.code == (500, "storage_failed")
    assert tus.world.sessions.sessions == {}


def test_a_relaxed_server_does_not_wait_for_the_session(tus: TusSite) -> None:
    tus.world.engine.rules = Rules(full=False)
    exchange = halfway(tus)
    tus.files.run_later()
    path = tus.path_of(exchange)
    assert tus.world.sessions.sessions == {}
    assert tus.world.engine.progress(path.removeprefix("/tus/")).complete
    assert tus.head(path).offset == 100
    tus.world.advance(0.1)
    assert len(tus.world.sessions.sessions) == 1
    assert tus.head(path).offset == 100


def test_a_relaxed_server_forgets_what_was_ended_before_it_was_written(tus: TusSite) -> None:
    tus.world.engine.rules = Rules(full=False)
    exchange = halfway(tus)
    tus.files.run_later()
    path = tus.path_of(exchange)
    assert tus.ask("DELETE", path).status == 204
    tus.world.advance(0.1)
    assert tus.world.sessions.sessions == {}
    assert tus.contents() == []
    assert tus.head(path).status == 404


def test_a_relaxed_server_writes_down_its_sessions_when_it_stops(tus: TusSite) -> None:
    tus.world.engine.rules = Rules(full=False)
    halfway(tus)
    tus.files.run_later()
    tus.world.engine.close()
    assert len(tus.world.sessions.pending) == 1


def test_a_short_upload_that_is_cut(tus: TusSite) -> None:
    signature = signing.x_signature(SECRET, "/tus/").encode()
    exchange = tus.begin("POST", "/tus/", 100, upload_length=b"100", content_type=STREAM, x_signature=signature)
    exchange.send(BODY[:99])
    exchange.end(BodyCut.STALLED)
    tus.run()
    assert exchange.code == (408, "body_stalled")
    assert tus.contents() == []
    assert tus.files.idle


@pytest.mark.parametrize("check", [None, sha1(BODY), sha1(b"other")])
def test_a_short_upload_and_its_checksum(tus: TusSite, check: bytes | None) -> None:
    asked = tus.post(BODY, upload_length=b"100", content_type=STREAM, upload_checksum=check)
    right = check != sha1(b"other")
    assert asked.status == (201 if right else 460)
    assert tus.contents() == ([BODY] if right else [])
    assert tus.files.idle


@pytest.mark.parametrize("size", [100, 40])
def test_a_first_body_with_a_wrong_checksum_ends_the_upload(tus: TusSite, size: int) -> None:
    asked = tus.post(BODY[:size], upload_length=b"101", content_type=STREAM, upload_checksum=sha1(b"other"))
    assert asked.code == (460, "checksum_mismatch")
    assert tus.world.sessions.sessions == {}
    assert tus.promised == (0, 0)


def test_a_repeated_creation_keeps_what_it_took_over(tus: TusSite) -> None:
    fields = {
        "x_signature": signing.x_signature(SECRET, "/tus/").encode(),
        "upload_length": b"%d" % len(BODY),
        "content_type": STREAM,
        "idempotency_key": b"once",
    }
    first = tus.begin("POST", "/tus/", 40, **fields)
    tus.run()
    first.send(BODY[:40])
    first.end()
    # The disk is slow, and the client comes back on another network before the bytes are synced.
    repeat = tus.begin("POST", "/tus/", 60, **fields)
    tus.world.clock.advance(FENCE_SECONDS)
    while not repeat.taken:
        timer = next(timer for timer in tus.world.timers if timer.due <= tus.world.clock.steady)
        tus.world.timers.remove(timer)
        timer.call()
    repeat.send(BODY[:60])
    repeat.end()
    tus.run()
    assert first.code == (409, "upload_taken_over")
    assert (repeat.status, repeat.offset) == (201, 60)
    path = f"/tus/{repeat.header('location')}"
    assert tus.head(path).offset == 60
    assert tus.patch(path, 60, BODY[60:]).status == 204
    assert tus.contents() == [BODY]


def test_a_late_creation_leaves_its_upload_to_its_repeat(tus: TusSite, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {
        "x_signature": signing.x_signature(SECRET, "/tus/").encode(),
        "upload_length": b"%d" % len(BODY),
        "content_type": STREAM,
        "idempotency_key": b"once",
    }
    repeat = tus.begin("POST", "/tus/", 60, **fields)
    tus.run()
    repeat.send(BODY[:30])

    class Lost(TusExchange):
        def __init__(self, parsed: Request) -> None:
            super().__init__(parsed)
            self.body_lost = True

    monkeypatch.setattr(tus_site, "TusExchange", Lost)
    late = tus.begin("POST", "/tus/", 40, **fields)
    monkeypatch.undo()
    tus.run()
    assert late.code == (400, "incomplete")
    assert not repeat.over
    repeat.send(BODY[30:60])
    repeat.end()
    tus.run()
    assert (repeat.status, repeat.offset) == (201, 60)
    assert tus.patch(f"/tus/{repeat.header('location')}", 60, BODY[60:]).status == 204
    assert tus.contents() == [BODY]


def test_a_repeated_creation_tells_the_last_offset_when_the_file_is_there(tus: TusSite) -> None:
    once = {"idempotency_key": b"once"}
    path = tus.create(len(BODY), **once)
    tus.world.fail("publish")
    assert tus.patch(path, 0, BODY).code == (507, "storage_full")
    tus.world.fail("publish")
    again = {"upload_length": b"%d" % len(BODY), "content_type": STREAM, **once}
    assert tus.post(b"", **again).code == (507, "storage_full")
    repeated = tus.post(b"", **again)
    assert (repeated.status, repeated.offset) == (201, len(BODY))
    assert tus.contents() == [BODY]


def test_a_repeat_of_what_is_being_made_of_parts_keeps_it(tus: TusSite) -> None:
    parts = [tus.part(BODY[:40]), tus.part(BODY[40:])]
    fields = {
        "x_signature": signing.x_signature(SECRET, "/tus/").encode(),
        "upload_concat": f"final;{' '.join(parts)}".encode(),
        "idempotency_key": b"once",
    }
    first = tus.begin("POST", "/tus/", None, **fields)
    while tus.world.sessions.pending or tus.world.sessions.answers:
        tus.world.step(len(tus.world.jobs))
    # A worker has yet to come to it when its client asks once more, and asks again later.
    repeat = tus.begin("POST", "/tus/", None, **fields)
    tus.world.clock.advance(FENCE_SECONDS)
    for timer in [timer for timer in tus.world.timers if timer.due <= tus.world.clock.steady]:
        tus.world.timers.remove(timer)
        timer.call()
    tus.run()
    assert first.code == (409, "upload_taken_over")
    assert repeat.status == 201
    assert tus.head(f"/tus/{repeat.header('location')}").offset == len(BODY)
    assert BODY in tus.contents()


def test_a_creation_that_cannot_be_recorded(tus: TusSite) -> None:
    tus.world.fail("commit")
    assert tus.post(None, upload_length=b"100").code == (503, "sessions_unavailable")
    assert tus.promised == (0, 0)


def test_too_many_uploads() -> None:
    tus = TusSite(max_sessions_per_owner=0)
    assert tus.post(None, upload_length=b"100").code == (429, "too_many_sessions")


def test_a_busy_server(tus: TusSite) -> None:
    tus.site.busy = True
    assert tus.post(None, upload_length=b"100").code == (503, "server_busy")


# ---- rivals


def test_whoever_is_at_the_durable_offset_has_the_upload(tus: TusSite) -> None:
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100)
    old.send(BODY[:60])
    new = tus.patch(path, 0, BODY)
    assert new.status == 204
    assert old.code == (409, "upload_taken_over")
    assert tus.contents() == [BODY]


def test_what_the_old_one_brought_is_held_against_the_new_one(tus: TusSite) -> None:
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100)
    old.send(b"?" * 60)
    assert tus.patch(path, 0, BODY).code == (409, "chunk_differs")
    assert old.code == (409, "upload_taken_over")
    assert tus.head(path).offset == 60


@pytest.mark.parametrize("offset", [1, 59, 61, 100, 200])
def test_another_offset_disturbs_nobody(tus: TusSite, offset: int) -> None:
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100)
    old.send(BODY[:60])
    new = tus.patch(path, offset, BODY[offset:])
    assert new.code == (409, "offset_mismatch")
    # It is the current one, and so never the one that was sent.
    assert new.offset == new.json["offset"] == 60
    assert not old.over
    old.send(BODY[60:])
    old.end()
    tus.run()
    assert old.status == 204
    assert tus.contents() == [BODY]


def test_the_offset_that_is_reached_but_not_durable_is_good(tus: TusSite) -> None:
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100)
    old.send(BODY[:60])
    assert tus.patch(path, 60, BODY[60:]).status == 204
    assert old.code == (409, "upload_taken_over")
    assert tus.contents() == [BODY]


def test_whoever_asks_waits_for_what_is_on_its_way(tus: TusSite) -> None:
    """The client's old connection is read to its end before its new one is told the offset."""
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100)
    asked = tus.begin("HEAD", path)
    for start in range(0, 50, 10):
        assert not asked.answered
        old.send(BODY[start : start + 10])
        tus.world.advance(0.003)
    tus.world.advance(0.003)
    tus.run()
    assert (asked.status, asked.offset) == (200, 50)
    assert not old.over


def test_whoever_asks_does_not_wait_for_ever(tus: TusSite) -> None:
    path = tus.create(1000)
    old = tus.begin_patch(path, 0, 1000)
    asked = tus.begin("HEAD", path)
    sent = 0
    while not asked.answered:
        old.send(b"x")
        sent += 1
        assert sent < 100
        tus.world.advance(0.003)
    assert asked.offset is not None
    assert 0 < asked.offset <= sent


def test_a_checksum_is_not_undone_by_whoever_asks(tus: TusSite) -> None:
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100, upload_checksum=sha1(BODY))
    old.send(BODY[:60])
    assert tus.head(path).offset == 0
    old.send(BODY[60:])
    old.end()
    tus.run()
    assert (old.status, old.offset) == (204, 100)


@pytest.mark.parametrize("cut", [BodyCut.DISCONNECTED, BodyCut.STALLED, BodyCut.NETWORK_GONE, BodyCut.ABORTED])
def test_what_came_of_a_cut_body_is_kept(tus: TusSite, cut: BodyCut) -> None:
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100)
    old.send(BODY[:60])
    old.end(cut)
    tus.run()
    assert old.status in {400, 408, 503}
    assert tus.head(path).offset == 60
    assert tus.patch(path, 60, BODY[60:]).status == 204
    assert tus.contents() == [BODY]


def test_the_end_ends_a_transfer(tus: TusSite) -> None:
    path = tus.create(100)
    old = tus.begin_patch(path, 0, 100)
    old.send(BODY[:60])
    assert tus.ask("DELETE", path).status == 204
    tus.world.advance(1)
    assert old.code == (409, "upload_taken_over")
    assert tus.head(path).status == 404
    assert tus.promised == (0, 0)


# ---- publishing


def publish_later(tus: TusSite) -> tuple[str, TusExchange]:
    """An upload whose last byte is durable, but for whose file the disk has no room yet."""
    path = tus.create(100)
    tus.world.fail("publish")
    last = tus.patch(path, 0, BODY)
    assert last.code == (507, "storage_full")
    assert tus.contents() == []
    return path, last


def test_the_last_offset_is_told_once_the_file_is_there(tus: TusSite) -> None:
    path, _last = publish_later(tus)
    head = tus.head(path)
    assert (head.status, head.offset) == (200, 100)
    assert tus.contents() == [BODY]


def test_nor_is_it_told_when_the_file_cannot_be(tus: TusSite) -> None:
    """And no 4xx: that would be the end of the upload to its client."""
    path, _last = publish_later(tus)
    tus.world.fail("publish")
    head = tus.head(path)
    assert (head.status, head.offset) == (507, None)


def test_an_empty_patch_at_the_end_publishes_what_was_put_off(tus: TusSite) -> None:
    path, _last = publish_later(tus)
    assert tus.patch(path, 100, b"").status == 204
    assert tus.contents() == [BODY]


def test_whoever_asks_meanwhile_waits(tus: TusSite) -> None:
    path = tus.create(100)
    last = tus.begin_patch(path, 0, 100)
    last.send(BODY)
    last.end()
    asked = tus.begin("HEAD", path)
    while not asked.answered:
        if not tus.world.step():
            tus.world.clock.advance(0.001)
    assert (asked.offset, tus.contents()) == (100, [BODY])
    tus.run()
    assert last.status == 204


def test_a_lost_upload_is_gone(tus: TusSite) -> None:
    """Its bytes were removed from the storage by somebody."""
    path = tus.create(100)
    tus.patch(path, 0, BODY[:60])
    tus.world.power_cut()
    tus.world.restart()
    tus.site.application.engine = tus.world.engine
    name = path.removeprefix("/tus/")
    tus.world.disk.names[name].removed = True
    assert tus.patch(path, 60, BODY[60:]).code == (410, "upload_lost")
    head = tus.head(path)
    assert (head.status, head.offset) == (410, None)


def test_an_expired_upload(tus: TusSite) -> None:
    path = tus.create(100)
    tus.world.advance(2 * 86400)
    tus.world.engine.sweep()
    tus.run()
    assert tus.head(path).status == 410
    assert tus.patch(path, 0, BODY).code == (410, "upload_expired")
    assert tus.ask("GET", path).code == (410, "upload_expired")
    assert tus.ask("DELETE", path).status == 204
    assert tus.head(path).status == 404


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "GET", "DELETE"])
def test_a_store_that_cannot_be_read(tus: TusSite, method: str) -> None:
    """No 4xx."""
    path = tus.create(100)
    tus.world.power_cut()
    tus.world.restart()
    tus.site.application.engine = tus.world.engine
    tus.world.fail("read")
    asked = tus.ask(method, path, b"", content_type=STREAM, upload_offset=b"0")
    assert asked.status == 503


def test_a_file_that_cannot_be_removed_keeps_its_upload(tus: TusSite) -> None:
    path = tus.path_of(tus.post(BODY, upload_length=b"100", content_type=STREAM))
    tus.files.errors["delete"] = StorageReadOnly("x")
    assert tus.ask("DELETE", path).code == (503, "storage_read_only")
    assert tus.head(path).status == 200
    del tus.files.errors["delete"]
    assert tus.ask("DELETE", path).status == 204
    assert tus.head(path).status == 404


def test_the_end_of_an_upload_that_is_being_published(tus: TusSite) -> None:
    path = tus.create(100)
    last = tus.begin_patch(path, 0, 100)
    last.send(BODY)
    last.end()
    gone = tus.begin("DELETE", path)
    tus.run()
    assert (last.status, gone.status) == (204, 204)
    assert tus.contents() == []
    assert tus.head(path).status == 404


# ---- uploads made of parts


def test_parts_cannot_be_copied(tus: TusSite) -> None:
    """The client never knows of the upload that could not be made, and makes another."""
    parts = [tus.part(BODY[:60]), tus.part(BODY[60:])]
    tus.world.fail("copy")
    assert tus.final(*parts).code == (507, "storage_full")
    assert len(tus.world.sessions.sessions) == 2
    path = tus.path_of(tus.final(*parts))
    assert tus.contents() == [BODY]
    assert tus.head(path).offset == 100


def test_parts_cannot_be_copied_yet(tus: TusSite) -> None:
    first, second = tus.part(BODY[:60]), tus.create(40, upload_concat=b"partial")
    path = tus.path_of(tus.final(first, second))
    assert (tus.head(path).status, tus.head(path).offset) == (200, None)
    tus.patch(second, 0, BODY[60:])
    tus.world.fail("copy")
    assert tus.head(path).status == 507
    assert tus.head(path).offset == 100
    assert tus.contents() == [BODY]


def test_several_ask_for_one_that_is_being_made(tus: TusSite) -> None:
    first = tus.create(100, upload_concat=b"partial")
    path = tus.path_of(tus.final(first))
    tus.patch(first, 0, BODY)
    asked = [tus.begin("HEAD", path) for _ in range(3)]
    tus.world.advance(5)
    assert {each.status for each in asked} == {200}
    assert asked[-1].offset == 100
    assert tus.head(path).offset == 100
    assert tus.contents() == [BODY]


def test_a_final_that_was_made_but_not_published(tus: TusSite) -> None:
    first = tus.create(100, upload_concat=b"partial")
    path = tus.path_of(tus.final(first))
    tus.patch(first, 0, BODY)
    tus.world.fail("publish")
    assert tus.head(path).status == 507
    # It has its bytes by now.
    assert tus.ask("DELETE", first).status == 204
    assert tus.head(path).offset == 100
    assert tus.contents() == [BODY]


def test_parts_are_of_this_protocol_alone(tus: TusSite) -> None:
    part = tus.part(BODY)
    name = part.removeprefix("/tus/").encode()
    assert tus.ask("HEAD", part, tus_resumable=None, upload_draft_interop_version=b"8").offset == 100
    appended = tus.ask(
        "PATCH",
        part,
        b"",
        tus_resumable=None,
        upload_complete=b"?1",
        upload_offset=b"100",
        content_type=b"application/partial-upload",
    )
    assert appended.code == (403, "made_of_parts")
    assert tus.ask("PUT", "/upload/chunked", b"", x_upload_session_id=name, x_chunk_number=b"0").status != 201
    assert tus.contents() == []


# ---- permission over time


def test_no_upload_outlives_its_permission_for_long() -> None:
    tus = TusSite(max_resumable_age=100.0)
    until = tus.site.clock.time() + 50
    path = "/tus/"
    signature = signing.x_signature_strong(SECRET, "POST", "/tus/", "", 100, int(until))
    fields = {"x_signature": signature.encode(), "x_signature_expires": b"%d" % until}
    created = tus.ask("POST", path, None, upload_length=b"100", **fields)
    path = tus.path_of(created)
    assert tus.patch(path, 0, BODY[:10]).status == 204
    tus.site.clock.time = lambda: until + 99.0  # type: ignore[method-assign]
    assert tus.patch(path, 10, BODY[10:20]).status == 204
    tus.site.clock.time = lambda: until + 100.0  # type: ignore[method-assign]
    assert tus.patch(path, 20, BODY[20:]).code == (410, "upload_expired")
    assert tus.head(path).status == 410
    assert tus.patch(path, 20, BODY[20:]).code == (410, "upload_expired")
    assert tus.promised == (0, 0)
