"""tus from the client's side: against a server in memory, over a network that fails anywhere."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.content import content
from tests.unit.client.upload_worlds import KEY, TusServer, answer, drive

from hmac_file_server.client import tus as module
from hmac_file_server.client.errors import BadAnswer, Refused, SessionGone
from hmac_file_server.client.protocol import Answer, Facts, Received, Request, Session
from hmac_file_server.client.status import session_of
from hmac_file_server.client.target import Target
from hmac_file_server.client.tus import Tus, metadata

MIB = 1 << 20
DATA = content(5 * MIB + 3, "tus")
SECRET = "0123456789abcdef0123456789abcdef"
OPEN = Target.parse("http://h:1080/files/")
FACTS = Facts("a file.bin", len(DATA), None, KEY)


def upload(server: TusServer, data: bytes = DATA, target: Target = OPEN, **options: Any) -> str:
    return asyncio.run(drive(Tus(server, target, **options), data)).url


def test_one_creation_and_one_patch() -> None:
    server = TusServer()
    result = asyncio.run(drive(Tus(server, OPEN), DATA))
    assert [request.method for request in server.requests] == ["POST", "PATCH"]
    assert server.whole() == [DATA]
    assert (result.url, result.size, result.filename) == ("http://h:1080/files/0", len(DATA), "a file.bin")
    fields = server.requests[0].headers
    assert fields["Upload-Length"] == str(len(DATA))
    assert fields["Upload-Metadata"] == "filename " + base64.b64encode(b"a file.bin").decode()
    assert server.requests[0].target == "/files/"


def test_an_empty_file() -> None:
    server = TusServer()
    upload(server, b"")
    assert server.whole() == [b""]
    assert server.sent("PATCH") == []


def test_pieces_where_they_are_wanted() -> None:
    server = TusServer()
    upload(server, chunk_size=MIB)
    assert [request.headers["Upload-Offset"] for request in server.sent("PATCH")] == [str(n * MIB) for n in range(6)]
    assert server.whole() == [DATA]


def test_a_cut_costs_only_what_did_not_arrive() -> None:
    server = TusServer(cuts={1: 1000, 3: 7})
    upload(server)
    assert [request.method for request in server.requests] == ["POST", "PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]
    assert server.whole() == [DATA]
    assert server.received == len(DATA)


def test_parts_side_by_side() -> None:
    server = TusServer()
    remote = Tus(server, OPEN, parallel=4)
    result = asyncio.run(drive(remote, DATA, media_type="video/mp4"))
    assert remote.parallel
    assert server.whole() == [DATA]
    assert len(server.sent("POST")) == 5
    final = server.sent("POST")[-1].headers
    assert final["Upload-Concat"] == "final;/files/0 /files/1 /files/2 /files/3"
    assert final["X-Total-Size"] == str(len(DATA))
    assert "filetype " + base64.b64encode(b"video/mp4").decode() in final["Upload-Metadata"]
    assert "Upload-Metadata" not in server.sent("POST")[0].headers
    assert result.url == "http://h:1080/files/4"
    # A key for each, so that a repeat finds the same.
    assert len({request.headers["Idempotency-Key"] for request in server.sent("POST")}) == 5


def test_a_server_that_cannot_join_parts_gets_one_upload() -> None:
    server = TusServer(extensions="creation,termination")
    remote = Tus(server, OPEN, parallel=4)
    asyncio.run(drive(remote, DATA))
    assert not remote.parallel
    assert len(server.sent("POST")) == 1
    assert server.whole() == [DATA]


def test_a_small_file_has_no_parts() -> None:
    server = TusServer()
    upload(server, DATA[:1000], parallel=4)
    assert [request.method for request in server.requests] == ["POST", "PATCH"]


def test_the_last_parts_may_end_at_the_same_moment() -> None:
    async def body() -> None:
        server = TusServer()
        remote = Tus(server, OPEN, parallel=2)
        session, _ = await remote.begin(FACTS)
        first, second = session.extra["parts"]
        for path, data in ((first, DATA[: session.chunk_size]), (second, DATA[session.chunk_size :])):
            server.uploads[path].content = data
        told = await asyncio.gather(*(remote.ask(session) for _ in range(4)))
        assert len({one.result for one in told}) == 1
        assert len([r for r in server.sent("POST") if r.headers["Upload-Concat"].startswith("final")]) == 1

    asyncio.run(body())


def test_checksums_go_with_pieces() -> None:
    server = TusServer()
    upload(server, checksum="sha256", chunk_size=2 * MIB)
    assert all(request.headers["Upload-Checksum"].startswith("sha256 ") for request in server.sent("PATCH"))
    assert len(server.sent("PATCH")) == 3
    assert server.whole() == [DATA]


def test_without_a_size_checksums_go_with_pieces_of_five_mebibytes() -> None:
    server = TusServer()
    upload(server, checksum="sha1")
    assert [request.headers["Upload-Offset"] for request in server.sent("PATCH")] == ["0", str(5 * MIB)]


@pytest.mark.parametrize("extensions", ["creation", "creation,checksum"])
def test_a_server_that_checks_nothing_gets_no_checksums(extensions: str) -> None:
    server = TusServer(extensions=extensions)
    upload(server, checksum="sha512" if "checksum" in extensions else "sha256")
    assert not any("Upload-Checksum" in request.headers for request in server.sent("PATCH"))


def test_an_algorithm_that_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(ValueError):
        Tus(TusServer(), OPEN, checksum="crc32")


def test_a_wrong_checksum_is_repeated() -> None:
    wrong = iter([answer(460), answer(460)])
    server = TusServer()
    server.special = lambda request: next(wrong, None) if request.method == "PATCH" else None
    upload(server, checksum="sha1")
    assert server.whole() == [DATA]


@settings(deadline=None, max_examples=100)
@given(
    size=st.integers(0, 3 * MIB),
    parallel=st.integers(1, 4),
    chunk_size=st.none() | st.integers(MIB // 3, 2 * MIB),
    cuts=st.dictionaries(st.integers(0, 30), st.integers(0, 3 * MIB), max_size=12),
    keyed=st.booleans(),
)
def test_whatever_fails_the_content_arrives_and_nothing_goes_twice(
    size: int, parallel: int, chunk_size: int | None, cuts: dict[int, int], keyed: bool
) -> None:
    server = TusServer(cuts=cuts, keyed=keyed)
    data = DATA[:size]
    result = asyncio.run(drive(Tus(server, OPEN, parallel=parallel, chunk_size=chunk_size), data))
    path = result.url.removeprefix("http://h:1080")
    assert server.uploads[path].content == data
    assert not server.uploads[path].partial
    assert server.received == size
    if keyed:
        assert len(server.whole()) == 1


# ---- Location


@pytest.mark.parametrize(
    "location",
    ["{path}", "http://h:1080{path}", "https://h{path}", "http://h{path}", "//h:1080{path}", "..{path}"],
)
def test_a_location_may_be_absolute_and_of_another_scheme(location: str) -> None:
    server = TusServer(location=location)
    assert upload(server) == "http://h:1080/files/0"


@pytest.mark.parametrize("location", ["http://elsewhere{path}", "ftp://h{path}", "", "//h@elsewhere{path}"])
def test_a_location_elsewhere_is_not_followed(location: str) -> None:
    server = TusServer(location=location)
    with pytest.raises(BadAnswer):
        upload(server)
    assert [request.method for request in server.requests] == ["POST"]


@pytest.mark.parametrize(
    ("url", "secret", "endpoint"),
    [
        ("http://h", SECRET, "/tus/"),
        ("http://h/", SECRET, "/tus/"),
        ("http://h/up/", SECRET, "/up/tus/"),
        ("http://h/tus", SECRET, "/tus/"),
        ("http://h/up/tus/", SECRET, "/up/tus/"),
        ("http://h", None, "/tus/"),
        ("http://h/files", None, "/files"),
        ("http://h/files/", None, "/files/"),
        ("http://h/tus", None, "/tus"),
    ],
)
def test_where_uploads_are_begun(url: str, secret: str | None, endpoint: str) -> None:
    server = TusServer()
    upload(server, target=Target.parse(url, secret=secret))
    assert server.requests[0].target == endpoint


def test_every_request_but_the_preflight_is_signed_where_there_is_a_secret() -> None:
    server = TusServer(cuts={2: 10})
    upload(server, target=Target.parse("http://h:1080", secret=SECRET), parallel=2)
    for request in server.requests:
        assert ("X-Signature" in request.headers) == (request.method != "OPTIONS")


# ---- what servers answer


def failing(*answers: Answer, method: str = "PATCH") -> TusServer:
    left = iter(answers)
    server = TusServer()
    server.special = lambda request: next(left, None) if request.method == method else None
    return server


@pytest.mark.parametrize("status", [408, 409, 423, 429, 500, 502, 503])
def test_what_passes_is_tried_again(status: int) -> None:
    server = failing(answer(status))
    upload(server)
    assert server.whole() == [DATA]


@pytest.mark.parametrize("status", [400, 401, 403, 412, 413, 415])
def test_what_does_not_pass_ends_it(status: int) -> None:
    with pytest.raises(Refused) as refusal:
        upload(failing(answer(status)))
    assert refusal.value.status == status
    assert not refusal.value.retriable


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_that_is_gone_can_only_be_begun_anew(status: int) -> None:
    with pytest.raises(SessionGone):
        upload(failing(answer(status)))


@pytest.mark.parametrize(("status", "kind"), [(404, SessionGone), (410, SessionGone), (403, SessionGone)])
def test_a_head_that_finds_nothing(status: int, kind: type[Exception]) -> None:
    remote = Tus(failing(answer(status), method="HEAD"), OPEN)
    with pytest.raises(kind):
        asyncio.run(remote.ask(Session("/files/0", 5, 0)))


def test_a_head_that_is_refused_for_a_secret_is_no_end() -> None:
    remote = Tus(failing(answer(403), method="HEAD"), Target.parse("http://h", secret=SECRET))
    with pytest.raises(Refused) as refusal:
        asyncio.run(remote.ask(Session("/files/0", 5, 0)))
    assert not isinstance(refusal.value, SessionGone)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (answer(200), BadAnswer),
        (answer(200, upload_offset="x"), BadAnswer),
        (answer(200, upload_offset="-1"), BadAnswer),
        (answer(200, upload_offset="6"), SessionGone),
        (answer(200, upload_offset="1", upload_length="6"), SessionGone),
    ],
)
def test_a_head_that_cannot_be_right(head: Answer, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        asyncio.run(Tus(failing(head, method="HEAD"), OPEN).ask(Session("/files/0", 5, 0)))


@pytest.mark.parametrize("told", [{}, {"upload_offset": "x"}, {"upload_offset": str(len(DATA) + 1)}])
def test_an_offset_that_cannot_be_right_is_asked_for_again(told: dict[str, str]) -> None:
    server = failing(answer(204, None, **told))
    upload(server)
    assert server.whole() == [DATA]
    assert len(server.sent("HEAD")) == 1


@pytest.mark.parametrize("reply", [answer(200), answer(413), answer(201)])
def test_a_creation_that_does_not_succeed(reply: Answer) -> None:
    with pytest.raises((Refused, BadAnswer)):
        upload(failing(reply, method="POST"))


def test_a_file_that_is_too_long_is_refused_before_anything_is_begun() -> None:
    server = failing(answer(204, tus_max_size="5", tus_extension="concatenation"), method="OPTIONS")
    with pytest.raises(Refused) as refusal:
        upload(server, parallel=2)
    assert refusal.value.code == "too_large"
    assert server.sent("POST") == []


def test_a_part_that_is_gone_ends_the_session() -> None:
    server = TusServer()
    server.special = lambda request: (
        answer(404, {"code": "part_missing", "detail": "gone"})
        if request.headers.get("Upload-Concat", "").startswith("final")
        else None
    )
    with pytest.raises(SessionGone):
        upload(server, parallel=2)


# ---- this server's own account


def ours(request: Request, told: dict[str, object]) -> Answer | None:
    if request.method == "POST":
        return answer(201, location="/tus/1795396185_jk65niymmvsn73en5gcfmpu7ti")
    if request.method == "PATCH":
        return answer(204, upload_offset="5")
    if request.target.startswith("/upload/status"):
        return answer(200, told)
    return None


def test_this_server_says_where_the_file_is() -> None:
    server = TusServer()
    told: dict[str, object] = {
        "completed": True, "received": [[0, 5]], "total_size": 5, "url": "/ab/x.bin", "filename": "x.bin",
        "blake3": "1" * 64,
    }  # fmt: skip
    server.special = lambda request: ours(request, told)
    result = asyncio.run(drive(Tus(server, Target.parse("http://h:1080")), b"12345"))
    assert result.url == "http://h:1080/ab/x.bin"
    assert result.digest == "blake3:" + "1" * 64
    assert result.filename == "x.bin"
    assert result.session_id == "1795396185_jk65niymmvsn73en5gcfmpu7ti"


def test_a_long_poll_where_there_is_one() -> None:
    server = TusServer()
    server.special = lambda request: ours(request, {"completed": False, "received": [[0, 2]], "total_size": 5})
    remote = Tus(server, Target.parse("http://h:1080"))
    session = Session("/tus/1795396185_jk65niymmvsn73en5gcfmpu7ti", 5, 0)
    assert asyncio.run(remote.ask(session, wait=3)) == Received(((0, 2),))
    assert server.requests[-1].target.endswith("&wait=3")
    assert server.requests[-1].wait == 3


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/tus/1795396185_jk65niymmvsn73en5gcfmpu7ti", True), ("/up/tus/1795396185_jk65niymmvsn73en5gcfmpu7ti", True),
        ("/files/1795396185_jk65niymmvsn73en5gcfmpu7ti", False), ("/tus/24e533e02ec3bc40c387f1a0e460e216", False),
        ("/tus/", False), ("tus", False),
    ],
)  # fmt: skip
def test_which_uploads_are_of_this_server(path: str, found: bool) -> None:
    assert (session_of(path) is not None) == found


# ---- ending and remembering


def test_discarding_ends_every_part() -> None:
    async def body() -> None:
        server = TusServer()
        remote = Tus(server, OPEN, parallel=3)
        session, _ = await remote.begin(FACTS)
        await remote.discard(session)
        await remote.discard(session)
        assert server.uploads == {}

    asyncio.run(body())


def test_discarding_is_refused() -> None:
    with pytest.raises(Refused):
        asyncio.run(Tus(failing(answer(403), method="DELETE"), OPEN).discard(Session("/files/0", 5, 0)))


@pytest.mark.parametrize("parallel", [1, 3])
def test_another_run_goes_on(parallel: int) -> None:
    async def body() -> None:
        server = TusServer()
        first = Tus(server, OPEN, parallel=parallel)
        session, _ = await first.begin(FACTS)
        saved = json.loads(json.dumps(first.saved(session)))
        assert KEY in json.dumps(saved) or parallel == 1
        for path in session.extra.get("parts", [session.id]):
            server.uploads[path].content = DATA[:100] if path == session.id else b""
        second = Tus(server, OPEN)
        restored = second.restored(saved, FACTS)
        assert restored == session
        assert second.parallel == (parallel > 1)
        assert (await second.ask(session)).ranges == ((0, 100),)
        await drive(second, DATA, session=restored)
        assert server.whole() == [DATA]
        assert server.received == len(DATA) - 100

    asyncio.run(body())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), st.sampled_from(["url", "size", "chunk_size", "expires", "extra"]))  # fmt: skip
def test_any_state_is_survived(value: object, name: str) -> None:
    saved = {"url": "/files/0", "size": len(DATA), "chunk_size": 0, "expires": None, "extra": {}}
    remote = Tus(TusServer(), OPEN)
    assert remote.restored(saved, FACTS) is not None
    session = remote.restored({**saved, name: value}, FACTS)
    assert session is None or session.size == len(DATA)
    assert remote.restored({name: value}, FACTS) is None
    extra = {"parts": ["/a", "/b"], "key": "k"}
    parts = {**saved, "chunk_size": len(DATA) // 2 + 1, "extra": extra}
    assert remote.restored(parts, FACTS) is not None
    assert remote.restored({**parts, "extra": {**extra, "parts": value}}, FACTS) is None or value == []


@pytest.mark.parametrize("url", ["http://evil/x", "x", "", "/a b", "/a\r\nX: y", None, 5])
def test_a_url_in_the_state_is_a_path(url: object) -> None:
    saved = {"url": url, "size": len(DATA), "chunk_size": 0, "expires": None, "extra": {}}
    assert Tus(TusServer(), OPEN).restored(saved, FACTS) is None


@pytest.mark.parametrize(
    ("name", "media_type", "text"),
    [
        ("a", None, "filename YQ=="), ("tr\u00e8s", "text/plain", "filename dHLDqHM=,filetype dGV4dC9wbGFpbg=="),
        ("", None, "filename "), ("\udcff", None, "filename Pw=="),
    ],
)  # fmt: skip
def test_metadata(name: str, media_type: str | None, text: str) -> None:
    assert metadata(name, media_type) == text


def test_the_version() -> None:
    assert module.VERSION == "1.0.0"
