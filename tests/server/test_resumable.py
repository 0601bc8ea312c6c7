"""Resumable uploads of the IETF over real sockets: every version, from the slot to the published file."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping

import pytest
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer, StartServer
from tests.server import signatures
from tests.server.wire import Wire

VERSIONS = (None, 3, 4, 5, 6, 7, 8, 9, 12)
_names = itertools.count()


def new_name() -> str:
    return f"resumable/{next(_names)}.bin"


class Draft:
    """How a client of one version spells its requests."""

    def __init__(self, version: int | None) -> None:
        self.version = version

    @property
    def field(self) -> str:
        return "upload-incomplete" if self.version == 3 else "upload-complete"

    @property
    def ends_by_length(self) -> bool:
        return self.version is not None and self.version <= 6

    def completeness(self, *, complete: bool) -> str:
        return "?1" if complete != (self.version == 3) else "?0"

    def headers(self, *, complete: bool | None = None, **more: str) -> dict[str, str]:
        headers = {} if self.version is None else {"Upload-Draft-Interop-Version": str(self.version)}
        if complete is not None:
            headers[self.field.title()] = self.completeness(complete=complete)
        return headers | {name.replace("_", "-"): value for name, value in more.items()}

    def appends(self, offset: int, *, complete: bool, **more: str) -> dict[str, str]:
        headers = self.headers(complete=complete, Upload_Offset=str(offset), **more)
        if self.version is None or self.version >= 6:
            headers["Content-Type"] = "application/partial-upload"
        return headers

    def is_complete(self, answer: Answer) -> bool:
        value = answer.headers[self.field]
        assert value in {"?0", "?1"}
        return value == self.completeness(complete=True)


@pytest.fixture(params=VERSIONS, ids=lambda version: f"version {version}")
def draft(request: pytest.FixtureRequest) -> Draft:
    return Draft(request.param)


def send(
    server: FileServer, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    """One request; interim answers, which http.client would take for the last one, are passed over."""
    fields = dict(headers or {})
    if method in {"PUT", "POST", "PATCH"}:
        fields["Content-Length"] = str(len(body))
    with Wire(server) as wire:
        wire.head(method, target, fields)
        wire.send(body)
        return wire.answer(bodiless=method == "HEAD")


def slot(name: str, size: int) -> str:
    return slots.target(name, slots.v1(name, size))


def stored(server: FileServer, name: str) -> bytes:
    return (server.storage / name).read_bytes()


def create(server: FileServer, draft: Draft, name: str, size: int, body: bytes = b"", **more: str) -> Answer:
    headers = draft.headers(complete=False, Upload_Length=str(size), **more)
    answer = send(server, "PUT", slot(name, size), body, headers)
    assert answer.status == 201, answer
    assert not draft.is_complete(answer)
    assert answer.headers["upload-offset"] == str(len(body))
    return answer


def place(answer: Answer) -> str:
    location = answer.headers["location"]
    assert location.startswith("/tus/")
    return location


def test_a_slot_is_filled_by_appending(module_server: FileServer, draft: Draft) -> None:
    data, name = content(300_000, "resumable"), new_name()
    location = place(create(module_server, draft, name, len(data), data[:100_000]))
    asked = send(module_server, "HEAD", location, headers=draft.headers())
    assert asked.status == 204
    assert asked.headers["upload-offset"] == "100000"
    assert asked.headers["upload-length"] == "300000"
    assert asked.headers["cache-control"] == "no-store"
    assert not draft.is_complete(asked)
    assert not (module_server.storage / name).exists()
    more = send(module_server, "PATCH", location, data[100_000:200_000], draft.appends(100_000, complete=False))
    assert more.status == (201 if draft.version in {3, 4} else 204)
    assert more.headers["upload-offset"] == "200000"
    assert not draft.is_complete(more)
    last = send(module_server, "PATCH", location, data[200_000:], draft.appends(200_000, complete=True))
    assert (last.status, last.body) == (201, b"")
    assert draft.is_complete(last)
    assert last.headers["upload-offset"] == "300000"
    assert stored(module_server, name) == data
    after = send(module_server, "HEAD", location, headers=draft.headers())
    assert after.status == 204
    assert draft.is_complete(after)
    assert after.headers["upload-offset"] == "300000"


def test_a_slot_is_filled_at_once(module_server: FileServer, draft: Draft) -> None:
    data, name = content(70_000, "resumable"), new_name()
    answer = send(module_server, "PUT", slot(name, len(data)), data, draft.headers(complete=True))
    assert (answer.status, answer.body) == (201, b"")
    assert draft.is_complete(answer)
    assert stored(module_server, name) == data


def test_104_comes_first_and_names_the_resource(module_server: FileServer, draft: Draft) -> None:
    data, name = content(50_000, "resumable"), new_name()
    with Wire(module_server) as wire:
        wire.head("PUT", slot(name, len(data)), draft.headers(complete=True, Content_Length=str(len(data))))
        if draft.version is None:
            wire.send(data)
            answer = wire.next_answer()
            assert answer.status == 201
            return
        early = wire.next_answer()
        assert early.status == 104
        assert early.headers["upload-draft-interop-version"] == str(draft.version)
        location = place(early)
        limit = early.headers.get("upload-limit")
        if draft.version < 6:
            assert limit is None
        else:
            key = "expires" if draft.version == 6 else "max-age"
            assert limit is not None
            assert f"{key}=8" in limit
            assert "max-size=50000" in limit
            assert "min-size=0" in limit
        wire.send(data)
        final = wire.answer()
        assert (final.status, final.body) == (201, b"")
        assert draft.is_complete(final)
        assert stored(module_server, name) == data
    assert draft.is_complete(send(module_server, "HEAD", location, headers=draft.headers()))


def test_nobody_else_gets_a_104(module_server: FileServer) -> None:
    for fields in (
        {"Upload-Complete": "?1"},
        {"Upload-Incomplete": "?0"},
        {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "2"},
        {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "six"},
        {"Upload-Draft-Interop-Version": "8"},
        {"Upload-Complete": "1", "Upload-Draft-Interop-Version": "8"},
        {},
    ):
        name = new_name()
        answer = module_server.request("PUT", slot(name, 5), b"hello", fields)
        assert answer.status == 201, fields
        assert stored(module_server, name) == b"hello"


def test_a_reset_upload_goes_on_where_it_was(module_server: FileServer, draft: Draft) -> None:
    data, name = content(3_000_000, "resumable"), new_name()
    location = place(create(module_server, draft, name, len(data)))
    wire = Wire(module_server)
    wire.head("PATCH", location, draft.appends(0, complete=True, Content_Length=str(len(data))))
    wire.send(data[:1_500_000])
    # Still open, as far as the server knows: the newcomer ends it.
    asked = send(module_server, "HEAD", location, headers=draft.headers())
    offset = int(asked.headers["upload-offset"])
    assert 0 < offset <= 1_500_000
    with Wire(module_server) as other:
        other.head("PATCH", location, draft.appends(offset, complete=True, Content_Length=str(len(data) - offset)))
        other.send(data[offset:])
        final = other.answer()
    wire.reset()
    assert final.status == 201
    assert draft.is_complete(final)
    assert stored(module_server, name) == data


def test_the_wrong_offset_is_told_the_right_one(module_server: FileServer, draft: Draft) -> None:
    data, name = content(10_000, "resumable"), new_name()
    location = place(create(module_server, draft, name, len(data), data[:4000]))
    for offset in (0, 3999, 4001, 10_000, 20_000):
        answer = send(module_server, "PATCH", location, data[4000:], draft.appends(offset, complete=True))
        assert answer.status == 409
        assert answer.headers["upload-offset"] == "4000"
        assert not draft.is_complete(answer)
        problem = answer.json()
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
        assert problem["expected-offset"] == 4000
        assert problem["provided-offset"] == offset
    last = send(module_server, "PATCH", location, data[4000:], draft.appends(4000, complete=True))
    assert last.status == 201
    assert stored(module_server, name) == data


def test_the_last_answer_is_repeated(module_server: FileServer, draft: Draft) -> None:
    data, name = content(10_000, "resumable"), new_name()
    location = place(create(module_server, draft, name, len(data), data[:5000]))
    first = send(module_server, "PATCH", location, data[5000:], draft.appends(5000, complete=True))
    assert first.status == 201
    for _ in range(3):
        answer = send(module_server, "PATCH", location, b"", draft.appends(len(data), complete=True))
        assert (answer.status, answer.body) == (201, b"")
        assert draft.is_complete(answer)
        assert answer.headers["upload-offset"] == "10000"
    assert stored(module_server, name) == data


def test_an_empty_file(module_server: FileServer, draft: Draft) -> None:
    name = new_name()
    headers = draft.headers(complete=False, Upload_Length="0")
    begun = send(module_server, "PUT", slot(name, 0), b"", headers)
    location = place(begun)
    if draft.ends_by_length:
        assert draft.is_complete(begun)
        assert stored(module_server, name) == b""
        return
    assert not (module_server.storage / name).exists()
    answer = send(module_server, "PATCH", location, b"", draft.appends(0, complete=True))
    assert answer.status == 201
    assert draft.is_complete(answer)
    assert stored(module_server, name) == b""


def test_a_signature_binds_the_whole_length(module_server: FileServer) -> None:
    name = new_name()
    draft = Draft(None)
    for length in ("99", "101"):
        headers = draft.headers(complete=False, Upload_Length=length)
        assert send(module_server, "PUT", slot(name, 100), b"x" * 10, headers).status == 403
    # Without a length there is nothing that the signature could be held against.
    answer = send(module_server, "PUT", slot(name, 100), b"x" * 100, draft.headers(complete=False))
    assert (answer.status, answer.json()["code"]) == (411, "length_required")
    answer = send(module_server, "PUT", slot(name, 100), b"x" * 99, draft.headers(complete=True))
    assert answer.status == 403


def test_other_content_at_the_path_is_a_conflict(module_server: FileServer) -> None:
    data, name = content(9000, "resumable"), new_name()
    assert send(module_server, "PUT", slot(name, len(data)), data).status == 201
    draft = Draft(None)
    location = place(create(module_server, draft, name, len(data), data[:5000]))
    answer = send(module_server, "PATCH", location, b"x" * 4000, draft.appends(5000, complete=True))
    assert (answer.status, answer.json()["code"]) == (409, "exists")
    assert draft.is_complete(answer)
    again = send(module_server, "HEAD", location)
    assert again.status == 409
    location = place(create(module_server, draft, name, len(data), data[:5000]))
    answer = send(module_server, "PATCH", location, data[5000:], draft.appends(5000, complete=True))
    assert answer.status == 201
    assert stored(module_server, name) == data


def post(server: FileServer, target: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    signature = {"X-Signature": slots.x_signature(target)}
    return send(server, "POST", target, body, {**signature, **headers})


@pytest.mark.parametrize("target", ["/upload", "/tus/"])
def test_a_posted_upload_gets_a_place_of_its_own(module_server: FileServer, target: str) -> None:
    data = content(20_000, "resumable")
    draft = Draft(None)
    headers = draft.headers(complete=False, Content_Disposition='inline; filename="a b.txt"', Content_Type="text/plain")
    begun = post(module_server, target, data[:7000], headers)
    assert begun.status == 201
    location = place(begun)
    final = send(module_server, "PATCH", location, data[7000:], draft.appends(7000, complete=True))
    assert final.status == (200 if target == "/upload" else 201)
    receipt = final.json()
    assert receipt["size"] == len(data)
    assert receipt["filename"] == "a b.txt"
    got = send(module_server, "GET", str(receipt["url"]))
    assert got.body == data
    assert got.headers["content-type"].startswith("text/plain")
    again = send(module_server, "PATCH", location, b"", draft.appends(len(data), complete=True))
    assert again.json() == receipt


def test_lengths_that_disagree(module_server: FileServer) -> None:
    draft = Draft(9)
    name = new_name()
    inconsistent = "https://iana.org/assignments/http-problem-types#inconsistent-upload-length"
    headers = Draft(None).headers(complete=True, Upload_Length="10")
    answer = send(module_server, "PUT", slot(name, 10), b"x" * 9, headers)
    assert (answer.status, answer.json()["type"]) == (400, inconsistent)
    location = place(create(module_server, Draft(None), name, 10, b"x" * 4))
    again = draft.appends(4, complete=False, Upload_Length="11")
    answer = send(module_server, "PATCH", location, b"x", again)
    assert (answer.status, answer.json()["type"]) == (400, inconsistent)
    short = send(module_server, "PATCH", location, b"x", draft.appends(4, complete=True))
    assert (short.status, short.json()["type"]) == (400, inconsistent)


def test_more_than_was_announced_ends_the_upload(module_server: FileServer) -> None:
    draft = Draft(9)
    for chunked in (False, True):
        name = new_name()
        location = place(create(module_server, Draft(None), name, 10, b"x" * 4))
        with Wire(module_server) as wire:
            if chunked:
                wire.head("PATCH", location, draft.appends(4, complete=True, Transfer_Encoding="chunked"))
                wire.send(b"7\r\n1234567\r\n0\r\n\r\n")
            else:
                wire.head("PATCH", location, draft.appends(4, complete=True, Content_Length="7"))
                wire.send(b"1234567")
            answer = wire.answer()
        assert answer.status == 400
        assert str(answer.json()["type"]).endswith("#inconsistent-upload-length")
        assert send(module_server, "HEAD", location, headers=draft.headers()).status == 410
        assert not (module_server.storage / name).exists()


def test_the_type_is_mandatory_from_version_six(module_server: FileServer, draft: Draft) -> None:
    data, name = content(100, "resumable"), new_name()
    location = place(create(module_server, draft, name, len(data)))
    headers = draft.appends(0, complete=True)
    headers["Content-Type"] = "application/octet-stream"
    answer = send(module_server, "PATCH", location, data, headers)
    if draft.version is not None and draft.version < 6:
        assert answer.status == 201
    else:
        assert answer.status == 415
        assert answer.headers["accept-patch"] == "application/partial-upload"


def test_a_length_that_becomes_known_at_the_end(module_server: FileServer, draft: Draft) -> None:
    data = content(30_000, "resumable")
    begun = post(module_server, "/tus/", data[:10_000], draft.headers(complete=False))
    location = place(begun)
    asked = send(module_server, "HEAD", location, headers=draft.headers())
    assert "upload-length" not in asked.headers
    more = send(module_server, "PATCH", location, data[10_000:20_000], draft.appends(10_000, complete=False))
    assert more.status in {201, 204}
    final = send(module_server, "PATCH", location, data[20_000:], draft.appends(20_000, complete=True))
    assert final.status == 201
    assert send(module_server, "GET", str(final.json()["url"])).body == data


def test_the_old_versions_end_by_length(module_server: FileServer, draft: Draft) -> None:
    data, name = content(1000, "resumable"), new_name()
    location = place(create(module_server, draft, name, len(data), data[:400]))
    answer = send(module_server, "PATCH", location, data[400:], draft.appends(400, complete=False))
    if draft.ends_by_length:
        assert answer.status == 201
        assert draft.is_complete(answer)
        assert stored(module_server, name) == data
    else:
        assert answer.status == 204
        assert not draft.is_complete(answer)
        assert not (module_server.storage / name).exists()


def test_cancellation(module_server: FileServer, draft: Draft) -> None:
    data, name = content(1000, "resumable"), new_name()
    location = place(create(module_server, draft, name, len(data), data[:400]))
    assert send(module_server, "DELETE", location, headers=draft.headers()).status == 204
    assert send(module_server, "HEAD", location, headers=draft.headers()).status == 404
    answer = send(module_server, "PATCH", location, data[400:], draft.appends(400, complete=True))
    assert (answer.status, answer.json()["code"]) == (404, "upload_not_found")


def digest(data: bytes, algorithm: str = "sha-256") -> str:
    raw = hashlib.new(algorithm.replace("-", ""), data).digest()
    return f"{algorithm}=:{base64.b64encode(raw).decode()}:"


def test_a_body_that_is_not_its_digest_is_not_appended(module_server: FileServer) -> None:
    data, name = content(1000, "resumable"), new_name()
    draft = Draft(9)
    location = place(create(module_server, Draft(None), name, len(data), data[:400]))
    bad = draft.appends(400, complete=True, Content_Digest=digest(b"other"))
    answer = send(module_server, "PATCH", location, data[400:], bad)
    assert (answer.status, answer.json()["code"]) == (400, "digest_mismatch")
    assert send(module_server, "HEAD", location, headers=draft.headers()).headers["upload-offset"] == "400"
    good = draft.appends(400, complete=True, Content_Digest=digest(data[400:]))
    assert send(module_server, "PATCH", location, data[400:], good).status == 201
    assert stored(module_server, name) == data


def test_what_is_asked_without_a_word_of_the_draft(module_server: FileServer) -> None:
    data, name = content(1000, "resumable"), new_name()
    location = place(create(module_server, Draft(None), name, len(data), data[:400]))
    seen = send(module_server, "GET", location)
    assert seen.status == 200
    document = seen.json()
    assert (document["uploaded_bytes"], document["total_size"], document["completed"]) == (400, 1000, False)
    assert seen.headers["upload-offset"] == "400"
    assert send(module_server, "HEAD", location).headers["upload-offset"] == "400"


def test_offsets_have_no_place_in_a_question(module_server: FileServer) -> None:
    location = place(create(module_server, Draft(None), new_name(), 10, b"x"))
    for headers in ({"Upload-Offset": "1"}, {"Upload-Complete": "?0"}):
        assert send(module_server, "HEAD", location, headers=headers).status == 400


def test_a_strong_signature_binds_the_whole_upload(module_server: FileServer) -> None:
    data, name = content(5000, "resumable"), new_name()
    draft = Draft(None)
    target = f"/upload/{name}"
    headers = draft.headers(complete=False, Upload_Length="5000")
    signed = signatures.strong("PUT", target, 5000)
    begun = send(module_server, "PUT", target, data[:1000], {**headers, **signed})
    assert begun.status == 201
    final = send(module_server, "PATCH", place(begun), data[1000:], draft.appends(1000, complete=True))
    assert final.status == 201
    assert final.json()["size"] == 5000
    assert stored(module_server, name) == data


# ---- digests of the whole


def test_what_the_whole_has_to_be_is_checked_before_it_is_published(module_server: FileServer) -> None:
    data = content(40_000, "resumable")
    draft = Draft(None)
    for said_at, right in itertools.product(("creation", "end"), (True, False)):
        name = new_name()
        expected = digest(data if right else b"other", "sha-512" if right else "sha-256")
        early = {"Repr_Digest": expected} if said_at == "creation" else {}
        late = {"Repr_Digest": expected} if said_at == "end" else {}
        location = place(create(module_server, draft, name, len(data), data[:10_000], **early))
        last = draft.appends(10_000, complete=True, **late)
        answer = send(module_server, "PATCH", location, data[10_000:], last)
        if right:
            assert answer.status == 201
            assert stored(module_server, name) == data
        else:
            assert (answer.status, answer.json()["code"]) == (400, "digest_mismatch")
            assert draft.is_complete(answer)
            assert not (module_server.storage / name).exists()
            assert send(module_server, "HEAD", location).status == 400


def test_the_whole_in_one_request_is_held_against_its_digest(module_server: FileServer) -> None:
    data = content(40_000, "resumable")
    draft = Draft(8)
    for right in (True, False):
        name = new_name()
        headers = draft.headers(complete=True, Repr_Digest=digest(data if right else b"other"))
        answer = send(module_server, "PUT", slot(name, len(data)), data, headers)
        assert answer.status == (201 if right else 400)
        assert (module_server.storage / name).exists() == right


def test_a_digest_that_is_none_is_refused(module_server: FileServer) -> None:
    draft = Draft(None)
    for bad in ("sha-256=abc", "sha-256=:AAAA:", "sha-256"):
        headers = draft.headers(complete=False, Upload_Length="5", Repr_Digest=bad)
        answer = send(module_server, "PUT", slot(new_name(), 5), b"", headers)
        assert (answer.status, answer.json()["code"]) == (400, "bad_digest")
    unknown = draft.headers(complete=True, Repr_Digest="unixsum=:AAAA:")
    assert send(module_server, "PUT", slot(new_name(), 5), b"hello", unknown).status == 201


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_the_digest_of_the_whole_is_told_when_it_is_wanted(module_server: FileServer, algorithm: str) -> None:
    data, name = content(40_000, "resumable"), new_name()
    draft = Draft(9)
    wanted = {"Want-Repr-Digest": f"md5=10, {algorithm}=3, crc32c=5"}
    location = place(create(module_server, Draft(None), name, len(data), data[:10_000]))
    last = {**draft.appends(10_000, complete=True), **wanted}
    answer = send(module_server, "PATCH", location, data[10_000:], last)
    assert answer.status == 201
    assert answer.headers["repr-digest"] == digest(data, algorithm)
    again = send(module_server, "HEAD", location, headers={**draft.headers(), **wanted})
    assert again.headers["repr-digest"] == digest(data, algorithm)
    unwanted = send(module_server, "HEAD", location, headers=draft.headers())
    assert "repr-digest" not in unwanted.headers


# ---- Content-Range


def ranged(server: FileServer, location: str, body: bytes, value: str) -> Answer:
    return send(server, "PUT", location, body, {"Content-Range": value})


def test_content_range_fills_an_upload(module_server: FileServer) -> None:
    data, name = content(5000, "resumable"), new_name()
    location = place(create(module_server, Draft(None), name, len(data)))
    asked = ranged(module_server, location, b"", "bytes */5000")
    assert asked.status == 308
    assert "range" not in asked.headers
    first = ranged(module_server, location, data[:2000], "bytes 0-1999/5000")
    assert (first.status, first.headers["range"]) == (308, "bytes=0-1999")
    for start in (0, 1999, 2001):
        wrong = ranged(module_server, location, data[start : start + 1000], f"bytes {start}-{start + 999}/5000")
        assert (wrong.status, wrong.headers["range"]) == (308, "bytes=0-1999")
    open_end = ranged(module_server, location, data[2000:3000], "bytes 2000-2999/*")
    assert (open_end.status, open_end.headers["range"]) == (308, "bytes=0-2999")
    asked = ranged(module_server, location, b"", "bytes */*")
    assert (asked.status, asked.headers["range"]) == (308, "bytes=0-2999")
    last = ranged(module_server, location, data[3000:], "bytes 3000-4999/5000")
    assert (last.status, last.body) == (201, b"")
    assert stored(module_server, name) == data
    assert ranged(module_server, location, b"", "bytes */5000").status == 201
    assert ranged(module_server, location, data[3000:], "bytes 3000-4999/5000").status == 201


def test_content_range_of_a_length_that_is_told_last(module_server: FileServer) -> None:
    data = content(5000, "resumable")
    location = place(post(module_server, "/tus/", b"", Draft(None).headers(complete=False)))
    assert ranged(module_server, location, data[:3000], "bytes 0-2999/*").status == 308
    assert ranged(module_server, location, data[3000:], "bytes 3000-4999/*").headers["range"] == "bytes=0-4999"
    final = ranged(module_server, location, b"", "bytes */5000")
    assert final.status == 201
    assert send(module_server, "GET", str(final.json()["url"])).body == data


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("bytes 0-9/5", 10),
        ("bytes 9-0/10", 10),
        ("bytes 0-9/10", 9),
        ("bytes 0-9", 10),
        ("chunks 0-9/10", 10),
        ("bytes */10", 1),
        ("bytes -1-9/10", 10),
        ("bytes 0-9/ten", 10),
    ],
)
def test_content_ranges_that_make_no_sense(module_server: FileServer, value: str, size: int) -> None:
    location = place(create(module_server, Draft(None), new_name(), 10))
    answer = ranged(module_server, location, b"x" * size, value)
    assert (answer.status, answer.json()["code"]) == (400, "bad_field")
    assert send(module_server, "HEAD", location).headers["upload-offset"] == "0"


def test_content_range_of_another_total_is_a_conflict(module_server: FileServer) -> None:
    location = place(create(module_server, Draft(None), new_name(), 10))
    answer = ranged(module_server, location, b"x" * 5, "bytes 0-4/11")
    assert (answer.status, answer.json()["code"]) == (400, "length_conflict")


# ---- discovery


@pytest.mark.parametrize("target", ["/upload/some/file", "/upload", "/tus/"])
def test_options_tell_the_limits(module_server: FileServer, target: str) -> None:
    answer = send(module_server, "OPTIONS", target)
    assert answer.status == 204
    assert "application/partial-upload" in answer.headers["accept-patch"]
    limit = answer.headers["upload-limit"]
    assert "max-size=" in limit
    assert "min-size=0" in limit
    assert "max-age=86400" in limit


# ---- other permissions


def test_every_scheme_begins_one(module_server: FileServer) -> None:
    data = content(4000, "resumable")
    draft = Draft(None)
    kind = "application/octet-stream"
    for scheme in ("v2", "token", "v3", "prosody", "ticket"):
        name = f"resumable-{scheme}/{next(_names)}.bin"
        target, headers = f"/upload/{name}", {"Content-Type": kind}
        if scheme == "v2":
            target = slots.target(name, slots.v2(name, len(data), kind))
        elif scheme == "token":
            target = slots.target(name, slots.token(name, len(data), kind))
        elif scheme == "v3":
            target = slots.target(name, signatures.v3("PUT", target, signatures.in_future()))
        elif scheme == "prosody":
            slot_name, _, filename = name.partition("/")
            claims: dict[str, object] = {
                "slot": slot_name,
                "filename": filename,
                "filesize": len(data),
                "filetype": kind,
                "exp": signatures.in_future(),
            }
            headers["Authorization"] = slots.bearer(claims)
        else:
            headers |= signatures.bearer(signatures.ticket(prefix=f"resumable-{scheme}/", type=kind))
        headers |= draft.headers(complete=False, Upload_Length=str(len(data)))
        begun = send(module_server, "PUT", target, data[:1500], headers)
        assert begun.status == 201, (scheme, begun)
        final = send(module_server, "PATCH", place(begun), data[1500:], draft.appends(1500, complete=True))
        assert final.status == 201
        assert bool(final.body) == (scheme == "ticket")
        assert stored(module_server, name) == data


def test_a_token_that_binds_the_size_declares_it(module_server: FileServer) -> None:
    draft = Draft(None)
    slot_name = f"resumable-bound-{next(_names)}"
    claims: dict[str, object] = {
        "slot": slot_name,
        "filename": "a.bin",
        "filesize": 100,
        "exp": signatures.in_future(),
    }
    headers = {"Authorization": slots.bearer(claims), **draft.headers(complete=False)}
    location = place(send(module_server, "PUT", f"/upload/{slot_name}/a.bin", b"x" * 50, headers))
    assert send(module_server, "HEAD", location).headers["upload-length"] == "100"
    early = send(module_server, "PATCH", location, b"x" * 49, draft.appends(50, complete=True))
    assert early.status == 400
    assert send(module_server, "PATCH", location, b"x" * 50, draft.appends(50, complete=True)).status == 201


def test_no_permission_no_upload(module_server: FileServer) -> None:
    draft = Draft(8)
    headers = draft.headers(complete=True)
    for method, target in (("PUT", "/upload/a/b.bin"), ("POST", "/upload"), ("POST", "/tus/")):
        with Wire(module_server) as wire:
            wire.head(method, target, {**headers, "Content-Length": "5"})
            wire.send(b"hello")
            assert wire.next_answer().status == 403


def test_an_upload_that_is_too_long_is_told_the_limit(start_server: StartServer) -> None:
    server = start_server({"server": {"max_upload_size": "1KB"}})
    draft = Draft(8)
    for headers, body in (
        (draft.headers(complete=False, Upload_Length="2000"), b""),
        (draft.headers(complete=True), b"x" * 2000),
        (draft.headers(complete=False), b"x" * 2000),
    ):
        answer = post(server, "/tus/", body, headers)
        assert (answer.status, answer.json()["code"]) == (413, "too_large")
        assert "max-size=1024" in answer.headers["upload-limit"]
    location = place(post(server, "/tus/", b"x" * 1000, Draft(None).headers(complete=False)))
    answer = send(server, "PATCH", location, b"x" * 25, draft.appends(1000, complete=False))
    assert (answer.status, answer.json()["code"]) == (413, "too_large")
    assert "max-size=1024" in answer.headers["upload-limit"]
    assert send(server, "HEAD", location).status == 410


# ---- settings, time, processes


def test_progress_is_told_while_a_body_comes(module_server: FileServer) -> None:
    data, name = content(200_000, "resumable"), new_name()
    draft = Draft(8)
    location = place(create(module_server, draft, name, len(data)))
    with Wire(module_server) as wire:
        wire.head("PATCH", location, draft.appends(0, complete=True, Content_Length=str(len(data))))
        wire.send(data[:120_000])
        told = wire.next_answer()
        assert told.status == 104
        assert told.headers["upload-draft-interop-version"] == "8"
        assert "location" not in told.headers
        assert 0 < int(told.headers["upload-offset"]) <= 120_000
        wire.send(data[120_000:])
        assert wire.answer().status == 201
    assert stored(module_server, name) == data


def test_interim_answers_can_be_switched_off(start_server: StartServer) -> None:
    server = start_server({"uploads": {"interim_responses": False}})
    with Wire(server) as wire:
        name = new_name()
        wire.head("PUT", slot(name, 5), {**Draft(8).headers(complete=True), "Content-Length": "5"})
        wire.send(b"hello")
        assert wire.next_answer().status == 201


def test_switched_off_the_fields_mean_nothing(start_server: StartServer) -> None:
    server = start_server({"uploads": {"resumable_uploads_enabled": False}})
    name = new_name()
    for complete in (True, False):
        headers = {**Draft(8).headers(complete=complete), "Upload-Length": "99"}
        answer = server.request("PUT", slot(name, 5), b"hello", headers)
        assert answer.status == 201
        assert "upload-complete" not in answer.headers
        assert stored(server, name) == b"hello"
    assert post(server, "/tus/", b"hello", Draft(8).headers(complete=True)).status == 404
    options = send(server, "OPTIONS", "/upload/a")
    assert "upload-limit" not in options.headers
    assert "accept-patch" not in options.headers


def test_the_offset_survives_a_restart(start_server: StartServer) -> None:
    server = start_server({})
    data, name = content(500_000, "resumable"), new_name()
    draft = Draft(8)
    location = place(create(server, draft, name, len(data), data[:200_000]))
    server.stop()
    server.start()
    asked = send(server, "HEAD", location, headers=draft.headers())
    assert asked.headers["upload-offset"] == "200000"
    last = send(server, "PATCH", location, data[200_000:], draft.appends(200_000, complete=True))
    assert (last.status, last.body) == (201, b"")
    server.stop()
    server.start()
    again = send(server, "PATCH", location, b"", draft.appends(500_000, complete=True))
    assert (again.status, again.body) == (201, b"")
    assert stored(server, name) == data


def test_any_process_takes_any_request(start_server: StartServer) -> None:
    server = start_server({"server": {"processes": 2}})
    data = content(50_000, "resumable")
    draft = Draft(8)
    for _ in range(8):
        name = new_name()
        location = place(create(server, draft, name, len(data), data[:20_000]))
        for _ in range(4):
            asked = send(server, "HEAD", location, headers=draft.headers())
            assert asked.headers["upload-offset"] == "20000"
        last = send(server, "PATCH", location, data[20_000:], draft.appends(20_000, complete=True))
        assert last.status == 201
        assert stored(server, name) == data


def test_a_permission_that_has_ended_completes_nothing_for_ever(start_server: StartServer) -> None:
    server = start_server({"uploads": {"max_resumable_age": "1s"}})
    draft = Draft(None)
    name = new_name()
    target = f"/upload/{name}"
    query = signatures.v3("PUT", target, signatures.in_future(2))
    headers = draft.headers(complete=False, Upload_Length="1000000")
    begun = send(server, "PUT", f"{target}?{query}", b"x", headers)
    assert begun.status == 201, begun
    location, offset = place(begun), 1
    answer = begun
    # Every byte lengthens the life of the upload, but not that of the permission.
    while answer.status in {201, 204}:
        answer = send(server, "PATCH", location, b"x", draft.appends(offset, complete=False))
        offset += 1
        assert offset < 1_000_000
    assert (answer.status, answer.json()["code"]) == (410, "upload_expired")
    assert send(server, "HEAD", location).status in {404, 410}


def test_a_repeated_creation_finds_its_upload(module_server: FileServer) -> None:
    data, name = content(1000, "resumable"), new_name()
    draft = Draft(None)
    headers = draft.headers(complete=False, Upload_Length="1000", Idempotency_Key=f"key-{name}")
    first = send(module_server, "PUT", slot(name, 1000), data[:300], headers)
    assert first.status == 201
    again = send(module_server, "PUT", slot(name, 1000), data[:300], headers)
    assert again.status == 409
    assert again.headers["upload-offset"] == "300"
    assert place(again) == place(first)
    assert send(module_server, "PATCH", place(again), data[300:], draft.appends(300, complete=True)).status == 201
    assert stored(module_server, name) == data


def test_a_creation_that_was_cut_can_be_resumed(module_server: FileServer) -> None:
    data, name = content(400_000, "resumable"), new_name()
    draft = Draft(8)
    with Wire(module_server) as wire:
        wire.head("PUT", slot(name, len(data)), draft.headers(complete=True, Content_Length=str(len(data))))
        location = place(wire.next_answer())
        wire.send(data[:250_000])
        told = wire.next_answer()
        assert told.status == 104
        kept = int(told.headers["upload-offset"])
        wire.reset()
    offset = int(send(module_server, "HEAD", location, headers=draft.headers()).headers["upload-offset"])
    assert 0 < kept <= offset <= 250_000
    last = send(module_server, "PATCH", location, data[offset:], draft.appends(offset, complete=True))
    assert (last.status, last.body) == (201, b"")
    assert stored(module_server, name) == data


def test_100_continue_comes_after_104(module_server: FileServer) -> None:
    name = new_name()
    with Wire(module_server) as wire:
        headers = Draft(8).headers(complete=True, Content_Length="200000", Expect="100-continue")
        wire.head("PUT", slot(name, 200_000), headers)
        assert [wire.next_answer().status, wire.next_answer().status] == [104, 100]
        wire.send(b"x" * 200_000)
        assert wire.answer().status == 201


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Content-Disposition": "inline; filename*=UTF-8''na%C3%AFve%20file.txt"}, "naïve file.txt"),
        ({"Content-Disposition": 'attachment; filename="q\\"uote.txt"; filename*=UTF-8\'\'x.txt'}, "x.txt"),
        ({"Content-Disposition": "inline; filename=plain.txt"}, "plain.txt"),
        ({"X-Filename": "given.txt"}, "given.txt"),
        ({"Upload-Metadata": "filename " + base64.b64encode(b"meta.txt").decode()}, "meta.txt"),
        ({"Upload-Metadata": "filename %%%"}, "file"),
        ({"Content-Disposition": 'inline; filename="../../etc/passwd"'}, None),
        ({}, "file"),
    ],
)
def test_names_for_people(module_server: FileServer, fields: dict[str, str], expected: str | None) -> None:
    headers = {**Draft(None).headers(complete=True), **fields}
    receipt = post(module_server, "/tus/", b"hello", headers).json()
    if expected is None:
        assert "/" not in str(receipt["filename"])
    else:
        assert receipt["filename"] == expected


def test_two_ends_that_wait_for_the_digest_get_one_answer(module_server: FileServer) -> None:
    data, name = content(8 << 20, "resumable"), new_name()
    draft = Draft(None)
    location = place(create(module_server, draft, name, len(data), data, Repr_Digest=digest(data, "sha-512")))
    with Wire(module_server) as first, Wire(module_server) as second:
        for wire in (first, second):
            wire.head("PATCH", location, {**draft.appends(len(data), complete=True), "Content-Length": "0"})
        assert [first.answer().status, second.answer().status] == [201, 201]
    assert stored(module_server, name) == data
