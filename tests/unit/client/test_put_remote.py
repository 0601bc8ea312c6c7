"""One PUT from the client's side: resumed where the server can, begun anew where it cannot."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.content import content
from tests.server import signatures
from tests.unit.client.upload_worlds import KEY, PutServer, Stored, answer, drive

from hmac_file_server.client.errors import BadAnswer, Refused, SessionGone, UploadFailed
from hmac_file_server.client.protocol import Answer, Facts, Received, Result, Session
from hmac_file_server.client.put import Put
from hmac_file_server.client.target import Target

DATA = content(300_000, "put")
SECRET = "0123456789abcdef0123456789abcdef"
SLOT = Target.parse("http://h:1080/u/d4e5/photo.jpg?v2=33ab")
FACTS = Facts("a file.bin", len(DATA), None, KEY)
SESSION = "/tus/1795396185_jk65niymmvsn73en5gcfmpu7ti"


def ticket(**claims: object) -> Target:
    return Target.parse("http://h:1080/up", ticket=signatures.ticket(**claims))


def upload(server: PutServer, target: Target = SLOT, data: bytes = DATA, **options: Any) -> Result:
    return asyncio.run(drive(Put(server, target), data, **options))


def failing(*answers: Answer, method: str = "PATCH", **options: Any) -> PutServer:
    left = iter(answers)
    server = PutServer(**options)
    server.special = lambda request: next(left, None) if request.method == method else None
    return server


# ---- where the server can resume


def test_a_slot_is_begun_and_filled() -> None:
    server = PutServer()
    result = upload(server, media_type="image/jpeg")
    assert [request.method for request in server.requests] == ["OPTIONS", "PUT", "PATCH"]
    creation, append = server.requests[1], server.requests[2]
    assert creation.target == "/u/d4e5/photo.jpg?v2=33ab"
    assert creation.headers["Upload-Complete"] == "?0"
    assert creation.headers["Upload-Length"] == str(len(DATA))
    # What a slot may bind.
    assert creation.headers["Content-Type"] == "image/jpeg"
    assert creation.body is None
    assert append.headers["Upload-Complete"] == "?1"
    assert server.files == {"/u/d4e5/photo.jpg": DATA}
    assert (result.url, result.size, result.digest) == ("http://h:1080/u/d4e5/photo.jpg", len(DATA), None)
    assert result.filename == "a file.bin"


def test_an_empty_file_is_whole_at_once() -> None:
    server = PutServer()
    assert upload(server, data=b"").url == "http://h:1080/u/d4e5/photo.jpg"
    assert server.files == {"/u/d4e5/photo.jpg": b""}
    assert [request.method for request in server.requests] == ["OPTIONS", "PUT"]


def test_a_cut_costs_only_what_did_not_arrive() -> None:
    server = PutServer(cuts={2: 1000, 4: 7})
    upload(server)
    assert [request.method for request in server.requests][2:] == ["PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]
    assert server.files["/u/d4e5/photo.jpg"] == DATA
    assert server.received == len(DATA)


def test_an_answer_that_was_lost_is_asked_for_again() -> None:
    server = PutServer(receipts=True, cuts={2: len(DATA)})
    result = upload(server)
    assert [request.method for request in server.requests][2:] == ["PATCH", "HEAD", "PATCH"]
    assert server.requests[-1].body is None
    assert result.filename == "as understood"
    assert server.received == len(DATA)


@settings(deadline=None)
@given(
    size=st.integers(0, len(DATA)),
    resumable=st.booleans(),
    cuts=st.dictionaries(st.integers(0, 20), st.integers(0, len(DATA)), max_size=10),
)
def test_whatever_fails_the_content_arrives(size: int, resumable: bool, cuts: dict[int, int]) -> None:
    server = PutServer(resumable=resumable, cuts=cuts)
    upload(server, data=DATA[:size])
    assert server.files["/u/d4e5/photo.jpg"] == DATA[:size]
    if resumable:
        assert server.received == size


def test_a_ticket_without_a_path_of_its_own_lets_the_server_choose() -> None:
    server = PutServer(receipts=True)
    result = upload(server, ticket(prefix="", ops=["upload", "create", "chunk"]), name='tr\u00e8s "a".bin')
    creation = server.requests[1]
    assert (creation.method, creation.target) == ("POST", "/up/upload")
    assert creation.headers["Content-Disposition"] == "attachment; filename*=UTF-8''tr%C3%A8s%20%22a%22.bin"
    assert creation.headers["Authorization"].startswith("Bearer ")
    assert result.url == "http://h:1080/up/0/file"
    assert result.digest == "sha256:" + "0" * 64
    assert result.filename == "as understood"


def test_a_secret_lets_the_server_choose() -> None:
    server = PutServer(receipts=True)
    upload(server, Target.parse("http://h:1080", secret=SECRET))
    assert (server.requests[1].method, server.requests[1].target) == ("POST", "/upload")
    assert "X-Signature" not in server.requests[0].headers
    assert all("X-Signature" in request.headers for request in server.requests[1:])


@pytest.mark.parametrize(
    ("claims", "path"),
    [
        ({"path": "alice/x y.bin"}, "/up/alice/x%20y.bin"),
        ({"path": "alice/x", "ops": ["put"]}, "/up/alice/x"),
        ({"prefix": "alice"}, f"/up/alice/{KEY}/a%20file.bin"),
        ({"prefix": "", "ops": ["put", "delete"]}, f"/up/{KEY}/a%20file.bin"),
    ],
)
def test_a_ticket_for_put_has_a_path(claims: dict[str, object], path: str) -> None:
    server = PutServer()
    upload(server, ticket(**claims))
    assert (server.requests[1].method, server.requests[1].target) == ("PUT", path)
    assert server.files[path] == DATA


@pytest.mark.parametrize(
    ("url", "path"),
    [("http://h/dir/", "/dir/a%20file.bin"), ("http://h/dir/x", "/dir/x"), ("http://h", "/a%20file.bin")],
)
def test_a_plain_url_is_taken_as_curl_does(url: str, path: str) -> None:
    server = PutServer()
    upload(server, Target.parse(url))
    assert server.files == {path: DATA}


# ---- where it cannot


def test_a_plain_put() -> None:
    server = PutServer(resumable=False)
    remote = Put(server, SLOT)
    result = asyncio.run(drive(remote, DATA, media_type="image/jpeg"))
    assert not remote.resumable
    assert [request.method for request in server.requests] == ["OPTIONS", "PUT"]
    sent = server.requests[1]
    assert sent.target == "/u/d4e5/photo.jpg?v2=33ab"
    assert sent.headers == {"Content-Type": "image/jpeg"}
    assert server.files["/u/d4e5/photo.jpg"] == DATA
    assert result.url == "http://h:1080/u/d4e5/photo.jpg"


def test_a_plain_put_begins_anew() -> None:
    server = PutServer(resumable=False, cuts={1: 1000})
    upload(server)
    assert server.received == len(DATA) + 1000
    assert server.files["/u/d4e5/photo.jpg"] == DATA


def test_a_plain_put_of_nothing() -> None:
    server = PutServer(resumable=False)
    upload(server, data=b"")
    assert server.files == {"/u/d4e5/photo.jpg": b""}


def test_a_plain_put_with_a_secret_has_a_path_of_its_own() -> None:
    server = PutServer(resumable=False)
    upload(server, Target.parse("http://h:1080", secret=SECRET))
    assert server.files == {f"/upload/{KEY}/a%20file.bin": DATA}
    assert "X-Signature" in server.requests[1].headers


def test_a_link_permits_no_plain_put() -> None:
    with pytest.raises(Refused) as refusal:
        upload(PutServer(resumable=False), ticket(prefix="", ops=["upload", "create", "chunk"]))
    assert refusal.value.code == "not_resumable"


def test_of_a_plain_put_nothing_is_known_kept_or_ended() -> None:
    async def body() -> None:
        server = PutServer(resumable=False)
        remote = Put(server, SLOT)
        session, told = await remote.begin(FACTS)
        assert told == Received(())
        assert await remote.ask(session) == Received(())
        assert remote.saved(session) == {}
        assert remote.restored({}, FACTS) is None
        await remote.discard(session)
        assert [request.method for request in server.requests] == ["OPTIONS"]
        # The query of a slot permits something.
        assert "33ab" not in session.id

    asyncio.run(body())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_a_plain_put_is_refused(status: int) -> None:
    with pytest.raises(UploadFailed) as refusal:
        upload(failing(answer(status), method="PUT", resumable=False))
    assert refusal.value.status == status


# ---- what servers answer


@pytest.mark.parametrize("reply", [answer(201), answer(201, location="/x"), answer(201, None, upload_complete="?0")])
def test_a_server_that_promised_to_resume_and_does_not(reply: Answer) -> None:
    with pytest.raises(BadAnswer):
        asyncio.run(Put(failing(reply, method="PUT"), SLOT).begin(FACTS))


def test_a_resource_elsewhere_is_not_followed() -> None:
    reply = answer(201, None, location="http://elsewhere/x", upload_complete="?0")
    with pytest.raises(BadAnswer):
        upload(failing(reply, method="PUT"))


@pytest.mark.parametrize("offset", [0, 10])
def test_a_creation_that_was_repeated_finds_what_the_first_one_brought(offset: int) -> None:
    """Servers that heed Idempotency-Key answer 409 when the upload has bytes: an empty body is not where it ends."""
    server = PutServer()
    server.uploads["/resources/x"] = Stored(len(DATA), DATA[:offset])
    told = {"location": "/resources/x", "upload_complete": "?0", "upload_offset": str(offset)}
    reply = answer(409 if offset else 201, None, **told)
    server.special = lambda request: reply if request.method == "PUT" else None
    session, found = asyncio.run(Put(server, SLOT).begin(replace(FACTS, repeated=True)))
    assert session.id == "/resources/x"
    assert found == Received(((0, offset),) if offset else ())


def test_a_path_that_is_taken_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        upload(failing(answer(409, {"code": "exists", "detail": "taken"}), method="PUT"))
    assert refusal.value.code == "exists"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_passes_is_tried_again(status: int) -> None:
    server = failing(answer(status))
    upload(server)
    assert server.files["/u/d4e5/photo.jpg"] == DATA


@pytest.mark.parametrize(("status", "kind"), [(403, Refused), (413, Refused), (404, SessionGone), (410, SessionGone)])
def test_what_does_not_pass_ends_it(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        upload(failing(answer(status)))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (answer(204), BadAnswer), (answer(204, None, upload_offset="x"), BadAnswer),
        (answer(204, None, upload_offset="6"), SessionGone), (answer(404), SessionGone), (answer(500), Refused),
    ],
)  # fmt: skip
def test_a_head_that_does_not_help(head: Answer, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        asyncio.run(Put(failing(head, method="HEAD"), SLOT).ask(Session("/resources/0", 5, 0)))


# ---- this server's own account


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"received": [[0, 2]], "total_size": 5, "completed": False}, Received(((0, 2),))),
        (
            {"received": [[0, 5]], "total_size": 5, "completed": True, "url": "/x", "filename": "x"},
            Received(((0, 5),), Result("http://h:1080/u/d4e5/photo.jpg", 5, "x", None, SESSION.removeprefix("/tus/"))),
        ),
    ],
)
def test_the_status_disturbs_nobody(told: dict[str, object], known: Received) -> None:
    server = PutServer()
    server.special = lambda request: answer(200, told)
    assert asyncio.run(Put(server, SLOT).ask(Session(SESSION, 5, 0), wait=2)) == known
    assert [request.method for request in server.requests] == ["GET"]
    assert server.requests[0].wait == 2


def test_all_bytes_there_and_not_complete_is_completed() -> None:
    server = PutServer()
    replies = {
        "GET": answer(200, {"received": [[0, 5]], "total_size": 5, "completed": False}),
        "PATCH": answer(200, {"url": "/x", "filename": "x", "size": 5}),
    }
    server.special = lambda request: replies[request.method]
    told = asyncio.run(Put(server, SLOT).ask(Session(SESSION, 5, 0)))
    assert told.result is not None
    assert told.result.url == "http://h:1080/x"
    assert server.requests[-1].headers["Upload-Complete"] == "?1"
    assert server.requests[-1].headers["Upload-Offset"] == "5"


@pytest.mark.parametrize(
    "received",
    [[[0, 6]], [[2, 1]], [[0, 2], [1, 3]], [[-1, 2]], ["x"], [[0]], [[0, 1.5]], [[True, 2]], [[0, 0]]],
)
def test_an_account_that_cannot_be_right(received: object) -> None:
    server = PutServer()
    server.special = lambda request: answer(200, {"received": received, "total_size": 5})
    with pytest.raises(BadAnswer):
        asyncio.run(Put(server, SLOT).ask(Session(SESSION, 5, 0)))


def test_a_status_of_another_upload() -> None:
    server = PutServer()
    server.special = lambda request: answer(200, {"received": [], "total_size": 6})
    with pytest.raises(BadAnswer):
        asyncio.run(Put(server, SLOT).ask(Session(SESSION, 5, 0)))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(410, {"code": "upload_expired", "detail": "late"}), SessionGone),
        (answer(404, {"code": "upload_not_found", "detail": "?"}), SessionGone),
        (answer(409, {"code": "exists", "detail": "other"}), Refused),
    ],
)
def test_what_the_status_refuses(reply: Answer, kind: type[Exception]) -> None:
    server = PutServer()
    server.special = lambda request: reply
    with pytest.raises(kind):
        asyncio.run(Put(server, SLOT).ask(Session(SESSION, 5, 0)))


def test_a_server_that_only_looks_like_this_one_is_asked_by_head() -> None:
    server = PutServer()
    replies = {"GET": answer(404), "HEAD": answer(204, None, upload_offset="3")}
    server.special = lambda request: replies[request.method]
    assert asyncio.run(Put(server, SLOT).ask(Session(SESSION, 5, 0))) == Received(((0, 3),))


# ---- ending and remembering


def test_discarding() -> None:
    async def body() -> None:
        server = PutServer()
        remote = Put(server, SLOT)
        session, _ = await remote.begin(FACTS)
        await remote.discard(session)
        await remote.discard(session)
        assert server.uploads == {}
        with pytest.raises(Refused):
            await Put(failing(answer(403), method="DELETE"), SLOT).discard(session)

    asyncio.run(body())


def test_another_run_goes_on() -> None:
    async def body() -> None:
        server = PutServer()
        first = Put(server, SLOT)
        session, _ = await first.begin(FACTS)
        server.uploads[session.id].content = DATA[:1000]
        saved = json.loads(json.dumps(first.saved(session)))
        assert "33ab" not in json.dumps(saved)
        second = Put(server, SLOT)
        restored = second.restored(saved, FACTS)
        assert restored == session
        await drive(second, DATA, session=restored)
        assert server.files["/u/d4e5/photo.jpg"] == DATA
        assert server.received == len(DATA) - 1000

    asyncio.run(body())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["url", "size", "expires", "name"]),
)
def test_any_state_is_survived(value: object, name: str) -> None:
    saved = {"url": "/resources/0", "size": len(DATA), "expires": None, "name": "a file.bin"}
    remote = Put(PutServer(), SLOT)
    assert remote.restored(saved, FACTS) is not None
    session = remote.restored({**saved, name: value}, FACTS)
    assert session is None or session.size == len(DATA)
    assert remote.restored({name: value}, FACTS) is None
