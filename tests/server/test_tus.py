"""tus 1.0.0 over real sockets: what clients do, what networks do to them, and what permissions bound."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from blake3 import blake3
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer, running
from tests.server import signatures
from tests.server.wire import Wire

TUS = {"Tus-Resumable": "1.0.0"}
SIGNED = {**TUS, "X-Signature": slots.x_signature("/tus/")}
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}
BODY = content(200_000, "a tus upload")
HALF = len(BODY) // 2

_names = itertools.count()


def base64_of(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def metadata(**values: str) -> str:
    return ",".join(f"{key} {base64_of(value)}" for key, value in values.items())


class Client:
    """A client of tus that takes what it is given."""

    def __init__(self, server: FileServer) -> None:
        self.server = server

    def post(self, body: bytes | None = None, headers: Mapping[str, str] | None = None, **fields: str) -> Answer:
        """POST with `fields`, whose names are spelled with underscores."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.server.request("POST", "/tus/", body, {**(SIGNED if headers is None else headers), **named})

    def create(self, length: int | None, **fields: str) -> str:
        """Begin an upload; its path."""
        if length is None:
            fields["Upload_Defer_Length"] = "1"
        elif length >= 0:
            fields["Upload_Length"] = str(length)
        return path_of(self.post(None, None, **fields))

    def head(self, path: str) -> Answer:
        return self.server.request("HEAD", path, None, TUS)

    def offset(self, path: str) -> int:
        answer = self.head(path)
        assert answer.status == 200, answer
        return int(answer.headers["upload-offset"])

    def patch(self, path: str, offset: int, body: bytes, **fields: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.server.request("PATCH", path, body, {**STREAM, "Upload-Offset": str(offset), **named})

    def get(self, path: str) -> Answer:
        return self.server.request("GET", path, None, TUS)

    def delete(self, path: str) -> Answer:
        return self.server.request("DELETE", path, None, TUS)

    def part(self, body: bytes) -> str:
        """A part that is whole."""
        fields = {**SIGNED, **STREAM, "Upload-Length": str(len(body)), "Upload-Concat": "partial"}
        return path_of(self.server.request("POST", "/tus/", body, fields))


def path_of(answer: Answer) -> str:
    """The path of what was created; the Location is relative to `/tus/`."""
    assert answer.status == 201, answer.body
    location = answer.headers["location"]
    assert "/" not in location
    return f"/tus/{location}"


@pytest.fixture
def tus(module_server: FileServer) -> Client:
    return Client(module_server)


def code(answer: Answer) -> tuple[int, object]:
    return answer.status, answer.json()["code"]


# ---- the core


@pytest.mark.parametrize("target", ["/tus", "/tus/", "/tus/1_a"])
def test_what_there_is(tus: Client, target: str) -> None:
    for headers in ({}, TUS, {"Tus-Resumable": "0.2.2"}):
        answer = tus.server.request("OPTIONS", target, None, headers)
        assert answer.status == 204
        assert answer.headers["tus-resumable"] == answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-extension"].split(",") == [
            "creation",
            "creation-with-upload",
            "creation-defer-length",
            "expiration",
            "checksum",
            "checksum-trailer",
            "termination",
            "concatenation",
            "concatenation-unfinished",
        ]
        assert answer.headers["tus-max-size"] == str(10 << 30)
        assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256,sha512,md5,blake3"
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        assert "Upload-Offset" in answer.headers["access-control-allow-headers"]


def test_an_upload_in_pieces(tus: Client) -> None:
    kept = metadata(filename="holiday.jpg", note="", filetype="image/jpeg")
    answer = tus.post(Upload_Length=str(len(BODY)), Upload_Metadata=kept)
    path = path_of(answer)
    assert "upload-offset" not in answer.headers
    position = 0
    for size in (1, 70_000, 60_000, len(BODY) - 130_001):
        found = tus.head(path)
        assert found.headers["upload-offset"] == str(position)
        assert found.headers["upload-length"] == str(len(BODY))
        assert found.headers["upload-metadata"] == kept
        assert found.headers["cache-control"] == "no-store"
        assert parsedate_to_datetime(found.headers["upload-expires"]).timestamp() > time.time() + 80_000
        patched = tus.patch(path, position, BODY[position : position + size])
        position += size
        assert (patched.status, patched.headers["upload-offset"]) == (204, str(position))
        assert ("upload-expires" in patched.headers) is (position < len(BODY))
    got = tus.get(path)
    assert (got.status, got.body, got.headers["content-type"]) == (200, BODY, "image/jpeg")
    assert "inline" in got.headers["content-disposition"]
    assert "holiday.jpg" in got.headers["content-disposition"]
    found = tus.head(path)
    assert (found.headers["upload-offset"], found.headers["upload-length"]) == (str(len(BODY)), str(len(BODY)))
    assert "upload-expires" not in found.headers
    assert tus.patch(path, position, b"").status == 204
    (stored,) = [name for name in tus.server.files() if name.endswith("holiday.jpg")]
    assert (tus.server.storage / stored).read_bytes() == BODY


def test_ranges_of_a_finished_upload(tus: Client) -> None:
    path = path_of(tus.post(BODY, {**SIGNED, **STREAM}, Upload_Length=str(len(BODY))))
    part = tus.server.request("GET", path, None, {**TUS, "Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, BODY[10:20])
    assert part.headers["tus-resumable"] == "1.0.0"


def test_an_unfinished_upload_tells_how_far_it_is(tus: Client) -> None:
    path = tus.create(len(BODY), Upload_Metadata=metadata(filename="a.bin"))
    tus.patch(path, 0, BODY[:1000])
    told = tus.get(path).json()
    assert (told["uploaded_bytes"], told["total_size"], told["completed"]) == (1000, len(BODY), False)
    assert told["received"] == [[0, 1000]]
    assert (told["session_id"], told["filename"]) == (path.removeprefix("/tus/"), "a.bin")


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1", "1.0", ""])
@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
def test_other_versions(tus: Client, method: str, version: str | None) -> None:
    path = "/tus/" if method == "POST" else tus.create(5)
    headers = {**SIGNED, **STREAM, "Upload-Length": "5", "Upload-Offset": "0", "X-HTTP-Method-Override": method}
    del headers["Tus-Resumable"]
    if version is not None:
        headers["Tus-Resumable"] = version
    answer = tus.server.request("POST", path, b"", headers)
    assert (answer.status, answer.headers["tus-version"], answer.headers["tus-resumable"]) == (412, "1.0.0", "1.0.0")
    if method != "POST":
        assert tus.offset(path) == 0


def test_the_method_that_counts(tus: Client) -> None:
    path = tus.create(10)

    def overridden(method: str, body: bytes = b"", **fields: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return tus.server.request("POST", path, body, {**STREAM, "X-HTTP-Method-Override": method, **named})

    assert overridden("PATCH", b"hello", Upload_Offset="0").status == 204
    assert overridden("HEAD").headers["upload-offset"] == "5"
    assert overridden("patch", b"world", Upload_Offset="5").headers["upload-offset"] == "10"
    assert overridden("GET").body == b"helloworld"
    assert overridden("DELETE").status == 204
    assert tus.head(path).status == 404
    assert tus.server.request("POST", "/tus/", None, {**SIGNED, "X-HTTP-Method-Override": "DELETE"}).status == 405
    assert tus.server.request("PUT", "/tus/", b"", {**SIGNED, "X-HTTP-Method-Override": "POST"}).status == 405


@pytest.mark.parametrize("method", ["POST", "PUT", "SEARCH"])
def test_methods_that_mean_nothing(tus: Client, method: str) -> None:
    path = tus.create(5)
    answer = tus.server.request("POST", path, b"", {**STREAM, "X-HTTP-Method-Override": method})
    assert code(answer) == (405, "method_not_allowed")
    assert "PATCH" in answer.headers["allow"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "DELETE"])
def test_nothing_but_creation_at_the_collection(tus: Client, method: str) -> None:
    answer = tus.server.request(method, "/tus/", None, TUS)
    assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert answer.headers["tus-resumable"] == "1.0.0"


@pytest.mark.parametrize("name", ["1_a", "x", "1_a/b", "..%2e", "1795386961_" + "a" * 65])
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE", "GET"])
def test_uploads_that_are_not_there(tus: Client, method: str, name: str) -> None:
    answer = tus.server.request(method, f"/tus/{name}", None, {**STREAM, "Upload-Offset": "0"})
    assert answer.status == (404 if "%" not in name else answer.status)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert "upload-offset" not in answer.headers


def test_another_offset(tus: Client) -> None:
    path = tus.create(len(BODY))
    tus.patch(path, 0, BODY[:1000])
    for offset in (0, 999, 1001, len(BODY), 10**30):
        answer = tus.patch(path, offset, BODY[offset : offset + 10])
        assert code(answer) == (409, "offset_mismatch")
        assert (answer.headers["upload-offset"], answer.json()["offset"]) == ("1000", 1000)
    assert tus.offset(path) == 1000
    assert tus.patch(path, 1000, BODY[1000:]).status == 204


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Content-Type": "application/octet-stream"}, (415, "content_type_refused")),
        ({"Content-Type": ""}, (415, "content_type_refused")),
        ({"Upload-Offset": "-1"}, (400, "bad_field")),
        ({"Upload-Offset": "+0"}, (400, "bad_field")),
        ({"Upload-Offset": ""}, (400, "bad_field")),
        ({"Upload-Offset": "0x0"}, (400, "bad_field")),
        ({"Upload-Length": "x"}, (400, "bad_field")),
        ({"Upload-Length": "6"}, (400, "length_conflict")),
        ({"Upload-Checksum": "sha1"}, (400, "bad_digest")),
        ({"Upload-Checksum": "sha1 !!!"}, (400, "bad_digest")),
        ({"Upload-Checksum": "sha1 AAAA"}, (400, "bad_digest")),
        ({"Upload-Checksum": "crc32 AAAA"}, (400, "checksum_unsupported")),
        ({"Upload-Checksum": "SHA1 " + base64_of(b"x" * 20)}, (400, "checksum_unsupported")),
    ],
)
def test_requests_that_are_wrong(tus: Client, fields: dict[str, str], expected: tuple[int, str]) -> None:
    path = tus.create(5)
    answer = tus.server.request("PATCH", path, b"hello", {**STREAM, "Upload-Offset": "0", **fields})
    assert code(answer) == expected
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert tus.offset(path) == 0


def test_a_missing_offset(tus: Client) -> None:
    path = tus.create(5)
    assert code(tus.server.request("PATCH", path, b"hello", STREAM)) == (400, "bad_field")


@pytest.mark.parametrize("kind", ["application/offset+octet-stream; x=y", "Application/Offset+Octet-Stream"])
def test_spellings_of_the_type(tus: Client, kind: str) -> None:
    path = tus.create(5)
    assert tus.patch(path, 0, b"hello", Content_Type=kind).status == 204


def test_more_than_the_length(tus: Client) -> None:
    path = tus.create(10)
    assert code(tus.patch(path, 0, b"x" * 11)) == (413, "too_large")
    tus.patch(path, 0, b"hello")
    assert code(tus.patch(path, 5, b"x" * 6)) == (413, "too_large")
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": "5", "Transfer-Encoding": "chunked"})
        wire.send(b"3\r\nwor\r\n3\r\nld!\r\n0\r\n\r\n")
        answer = wire.answer()
    assert code(answer) == (413, "too_large")
    offset = tus.offset(path)
    assert 5 <= offset < 10
    assert tus.patch(path, offset, b"helloworld"[offset:]).status == 204
    assert tus.get(path).body == b"helloworld"
    assert code(tus.patch(path, 10, b"x")) == (413, "too_large")
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": "10", "Transfer-Encoding": "chunked"})
        wire.send(b"1\r\nx\r\n0\r\n\r\n")
        assert wire.answer().status == 413
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": "10", "Transfer-Encoding": "chunked"})
        wire.send(b"0\r\n\r\n")
        assert wire.answer().status == 204
    assert code(tus.patch(path, 5, b"world")) == (409, "offset_mismatch")


def test_chunked_bodies(tus: Client) -> None:
    path = tus.create(len(BODY))
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Transfer-Encoding": "chunked"})
        for start in range(0, len(BODY), 50_000):
            piece = BODY[start : start + 50_000]
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        wire.send(b"0\r\n\r\n")
        assert wire.answer().headers["upload-offset"] == str(len(BODY))
    assert tus.get(path).body == BODY


# ---- creation


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (400, "bad_field")),
        ({"Upload_Length": "1", "Upload_Defer_Length": "1"}, (400, "bad_field")),
        ({"Upload_Defer_Length": "2"}, (400, "bad_field")),
        ({"Upload_Defer_Length": "0"}, (400, "bad_field")),
        ({"Upload_Length": "-1"}, (400, "bad_field")),
        ({"Upload_Length": "ten"}, (400, "bad_field")),
        ({"Upload_Length": ""}, (400, "bad_field")),
        ({"Upload_Length": str((10 << 30) + 1)}, (413, "too_large")),
        ({"Upload_Length": "9" * 40}, (413, "too_large")),
        ({"Upload_Length": "1", "Upload_Metadata": "filename !"}, (400, "bad_field")),
        ({"Upload_Length": "1", "Upload_Metadata": "a YQ==,a YQ=="}, (400, "bad_field")),
        ({"Upload_Length": "1", "Upload_Metadata": ","}, (400, "bad_field")),
        ({"Upload_Length": "1", "Upload_Metadata": "na\u00efve YQ=="}, (400, "bad_field")),
        ({"Upload_Length": "1", "Upload_Concat": "whole"}, (400, "bad_field")),
        ({"Upload_Concat": "final;"}, (400, "bad_field")),
        ({"Upload_Concat": "final;/tus/x"}, (400, "bad_field")),
        ({"Upload_Concat": "final;http://[/tus/1_a"}, (400, "bad_field")),
        ({"Upload_Length": "1", "Upload_Concat": "final;/tus/1_a"}, (400, "bad_field")),
        ({"Upload_Concat": "final;/tus/1_a"}, (404, "part_missing")),
        ({"Upload_Length": "1", "Idempotency_Key": "k" * 256}, (400, "bad_field")),
    ],
)
def test_creations_that_are_wrong(tus: Client, fields: dict[str, str], expected: tuple[int, str]) -> None:
    answer = tus.post(None, None, **fields)
    assert code(answer) == expected
    assert answer.headers["tus-resumable"] == "1.0.0"


def test_both_spellings_of_the_collection(tus: Client) -> None:
    headers = {**TUS, "X-Signature": slots.x_signature("/tus"), "Upload-Length": "3"}
    answer = tus.server.request("POST", "/tus", None, headers)
    assert answer.status == 201
    # Both are relative to the URL that was asked.
    assert answer.headers["location"].startswith("tus/")
    assert tus.patch("/" + answer.headers["location"], 0, b"abc").status == 204


def test_an_empty_upload_is_complete_at_once(tus: Client) -> None:
    path = tus.create(0, Upload_Metadata=metadata(filename="empty.txt"))
    assert tus.head(path).headers["upload-length"] == "0"
    assert tus.offset(path) == 0
    assert (tus.get(path).status, tus.get(path).body) == (200, b"")
    assert tus.patch(path, 0, b"").status == 204


@pytest.mark.parametrize("size", [0, 1, 10_000, len(BODY)])
def test_creation_with_upload(tus: Client, size: int) -> None:
    answer = tus.post(BODY[:size], {**SIGNED, **STREAM}, Upload_Length=str(len(BODY)))
    path = path_of(answer)
    assert answer.headers["upload-offset"] == str(size)
    assert ("upload-expires" in answer.headers) is (size < len(BODY))
    if size < len(BODY):
        assert tus.patch(path, size, BODY[size:]).status == 204
    assert tus.get(path).body == BODY


def test_creation_with_upload_asks_first(tus: Client) -> None:
    with Wire(tus.server) as wire:
        headers = {**SIGNED, **STREAM, "Upload-Length": "5", "Content-Length": "5", "Expect": "100-continue"}
        wire.head("POST", "/tus/", headers)
        assert wire.next_answer().status == 100
        wire.send(b"hello")
        assert wire.answer().headers["upload-offset"] == "5"
    with Wire(tus.server) as wire:
        wire.head("POST", "/tus/", {**headers, "X-Signature": slots.x_signature("/other")})
        assert wire.next_answer().status == 403


def test_a_body_of_another_type_counts_as_none(tus: Client) -> None:
    answer = tus.post(b"hello", Upload_Length="5", Content_Type="text/plain")
    path = path_of(answer)
    assert "upload-offset" not in answer.headers
    assert tus.offset(path) == 0


def test_a_first_body_longer_than_the_upload(tus: Client) -> None:
    assert code(tus.post(b"123456", {**SIGNED, **STREAM}, Upload_Length="5")) == (413, "too_large")
    assert code(tus.post(b"1", {**SIGNED, **STREAM}, Upload_Length="0")) == (413, "too_large")


def test_a_cut_creation_is_found_by_its_key(tus: Client) -> None:
    """The client has never seen a Location, but knows what it asked for."""
    fields = {**SIGNED, **STREAM, "Upload-Length": str(len(BODY)), "Idempotency-Key": f"key-{next(_names)}"}
    with Wire(tus.server) as wire:
        wire.head("POST", "/tus/", {**fields, "Content-Length": str(len(BODY))})
        wire.send(BODY[:HALF])
    path = ""
    offset = -1
    until = time.monotonic() + 10
    while offset != HALF and time.monotonic() < until:
        answer = tus.server.request("POST", "/tus/", b"", fields)
        path = path_of(answer)
        offset = int(answer.headers["upload-offset"])
    assert tus.offset(path) == HALF
    again = tus.server.request("POST", "/tus/", BODY, fields)
    assert (path_of(again), again.headers["upload-offset"]) == (path, str(HALF))
    assert tus.patch(path, HALF, BODY[HALF:]).status == 204
    last = tus.server.request("POST", "/tus/", BODY, fields)
    assert (path_of(last), last.headers["upload-offset"]) == (path, str(len(BODY)))
    other = tus.server.request("POST", "/tus/", None, {**fields, "Upload-Length": "7"})
    assert code(other) == (422, "key_reused")


def test_the_name_and_the_type(tus: Client) -> None:
    def stored(**fields: str) -> tuple[str, str]:
        got = tus.get(path_of(tus.post(b"x", {**SIGNED, **STREAM}, Upload_Length="1", **fields)))
        return got.headers["content-disposition"].partition('filename="')[2].rstrip('"'), got.headers["content-type"]

    assert stored() == ("file", "application/octet-stream")
    assert stored(Upload_Metadata=metadata(name="b.png", type="image/webp")) == ("b.png", "image/webp")
    both = metadata(name="b.png", filename="a.gif", filetype="image/png", type="image/webp")
    assert stored(Upload_Metadata=both) == ("a.gif", "image/png")
    assert stored(Upload_Metadata=metadata(filename="../../etc/x.txt"))[0] == "_.._etc_x.txt"
    # What is no type is none, and says nothing against the upload.
    assert stored(Upload_Metadata=metadata(filename="a.png", filetype="pic\r\nture")) == ("a.png", "image/png")
    assert stored(Upload_Metadata=metadata(filename="a.png", filetype="application/octet-stream"))[1] == "image/png"
    assert stored(Upload_Metadata="relativePath,filename " + base64_of("a b.txt"))[0] == "a b.txt"


def test_a_short_file_in_one_request(tus: Client) -> None:
    """It is stored as a PUT is, and is an upload like any other afterwards."""
    before = tus.server.files()
    kept = metadata(filename="short.txt", note="kept")
    digest = base64_of(hashlib.sha1(b"short").digest())
    answer = tus.post(
        b"short", {**SIGNED, **STREAM}, Upload_Length="5", Upload_Metadata=kept, Upload_Checksum=f"sha1 {digest}"
    )
    path = path_of(answer)
    assert answer.headers["upload-offset"] == "5"
    assert "upload-expires" not in answer.headers
    head = tus.head(path)
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("5", "5")
    assert head.headers["upload-metadata"] == kept
    assert (tus.get(path).body, tus.get(path).headers["content-type"]) == (b"short", "text/plain")
    assert tus.patch(path, 5, b"").status == 204
    status = tus.server.request("GET", f"/upload/status?session_id={path.removeprefix('/tus/')}").json()
    assert (status["completed"], status["filename"], status["received"]) == (True, "short.txt", [[0, 5]])
    assert tus.delete(path).status == 204
    assert tus.server.files() == before
    assert tus.head(path).status == 404


def test_a_short_file_that_cannot_be(tus: Client) -> None:
    before = tus.server.files()
    wrong = f"md5 {base64_of(b'x' * 16)}"
    answer = tus.post(b"short", {**SIGNED, **STREAM}, Upload_Length="5", Upload_Checksum=wrong)
    assert code(answer) == (460, "checksum_mismatch")
    with Wire(tus.server) as wire:
        wire.head("POST", "/tus/", {**SIGNED, **STREAM, "Upload-Length": "5", "Content-Length": "5"})
        wire.send(b"shor")
    assert tus.server.files() == before
    place = f"held/{next(_names)}.bin"
    tus.server.request("PUT", f"/upload/{place}?{slots.v1(place, 5)}", b"other")
    bearer = signatures.bearer(signatures.ticket(path=place, ops=["create"], files=1))
    assert code(tus.post(b"short", {**TUS, **STREAM, **bearer}, Upload_Length="5")) == (409, "exists")
    assert tus.post(b"other", {**TUS, **STREAM, **bearer}, Upload_Length="5").status == 201


# ---- a length that comes later


def test_a_deferred_length(tus: Client) -> None:
    path = tus.create(None)
    head = tus.head(path)
    assert (head.headers["upload-defer-length"], head.headers["upload-offset"]) == ("1", "0")
    assert "upload-length" not in head.headers
    assert tus.patch(path, 0, BODY[:HALF]).headers["upload-offset"] == str(HALF)
    assert "upload-length" not in tus.head(path).headers
    assert code(tus.patch(path, HALF, b"", Upload_Length=str(HALF - 1))) == (400, "length_conflict")
    assert code(tus.patch(path, HALF, b"", Upload_Length=str(11 << 30))) == (413, "too_large")
    assert tus.patch(path, HALF, b"", Upload_Length=str(len(BODY))).status == 204
    head = tus.head(path)
    assert head.headers["upload-length"] == str(len(BODY))
    assert "upload-defer-length" not in head.headers
    assert code(tus.patch(path, HALF, BODY[HALF:], Upload_Length=str(len(BODY) + 1))) == (400, "length_conflict")
    assert tus.patch(path, HALF, BODY[HALF:], Upload_Length=str(len(BODY))).status == 204
    assert tus.get(path).body == BODY


def test_a_length_that_is_told_once_all_is_there(tus: Client) -> None:
    path = tus.create(None)
    tus.patch(path, 0, BODY)
    assert tus.get(path).json()["completed"] is False
    assert tus.patch(path, len(BODY), b"", Upload_Length=str(len(BODY))).status == 204
    assert tus.get(path).body == BODY


def test_an_empty_upload_of_deferred_length(tus: Client) -> None:
    path = tus.create(None)
    assert tus.patch(path, 0, b"", Upload_Length="0").status == 204
    assert tus.get(path).body == b""
    assert tus.head(path).headers["upload-length"] == "0"


# ---- checksums

DIGESTS = {
    "sha1": hashlib.sha1(BODY).digest(),
    "sha256": hashlib.sha256(BODY).digest(),
    "sha512": hashlib.sha512(BODY).digest(),
    "md5": hashlib.md5(BODY).digest(),
    "blake3": blake3(BODY).digest(),
}


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_checksums(tus: Client, algorithm: str) -> None:
    path = tus.create(len(BODY))
    checksum = f"{algorithm} {base64_of(DIGESTS[algorithm])}"
    wrong = BODY[:-1] + b"?"
    answer = tus.patch(path, 0, wrong, Upload_Checksum=checksum)
    assert code(answer) == (460, "checksum_mismatch")
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert tus.offset(path) == 0
    assert tus.patch(path, 0, BODY, Upload_Checksum=checksum).status == 204
    assert tus.get(path).body == BODY


def test_nothing_is_kept_of_a_cut_body_with_a_checksum(tus: Client) -> None:
    path = tus.create(len(BODY))
    checksum = f"sha1 {base64_of(DIGESTS['sha1'])}"
    fields = {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY)), "Upload-Checksum": checksum}
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, fields)
        wire.send(BODY[:HALF])
    assert tus.offset(path) == 0
    assert tus.patch(path, 0, BODY, Upload_Checksum=checksum).status == 204


def trailed(tus: Client, path: str, body: bytes, trailer: bytes) -> Answer:
    fields = {**STREAM, "Upload-Offset": "0", "Transfer-Encoding": "chunked", "Trailer": "Upload-Checksum"}
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, fields)
        wire.send(b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, trailer))
        return wire.answer()


@pytest.mark.parametrize("algorithm", DIGESTS)
@pytest.mark.parametrize("size", [500, len(BODY)])
def test_checksums_in_a_trailer(tus: Client, algorithm: str, size: int) -> None:
    path = tus.create(size)
    body = BODY[:size]
    digest = blake3(body).digest() if algorithm == "blake3" else hashlib.new(algorithm, body).digest()
    right = f"Upload-Checksum: {algorithm} {base64_of(digest)}\r\n".encode()
    assert code(trailed(tus, path, body[::-1], right)) == (460, "checksum_mismatch")
    assert tus.offset(path) == 0
    assert code(trailed(tus, path, body, b"Upload-Checksum: sum AAAA\r\n")) == (400, "checksum_unsupported")
    assert code(trailed(tus, path, body, b"")) == (400, "bad_digest")
    assert tus.offset(path) == 0
    answer = trailed(tus, path, body, right)
    assert (answer.status, answer.headers["upload-offset"]) == (204, str(size))
    assert tus.get(path).body == body


def test_a_first_body_that_is_not_what_its_checksum_says_makes_no_upload(tus: Client) -> None:
    before = tus.server.files()
    wrong = f"sha1 {base64_of(b'x' * 20)}"
    answer = tus.post(BODY, {**SIGNED, **STREAM}, Upload_Length=str(len(BODY)), Upload_Checksum=wrong)
    assert code(answer) == (460, "checksum_mismatch")
    assert "location" not in answer.headers
    assert tus.server.files() == before
    right = f"sha1 {base64_of(DIGESTS['sha1'])}"
    answer = tus.post(BODY, {**SIGNED, **STREAM}, Upload_Length=str(len(BODY)), Upload_Checksum=right)
    assert tus.get(path_of(answer)).body == BODY


# ---- the end


def test_the_end_of_an_unfinished_upload(tus: Client) -> None:
    path = tus.create(len(BODY))
    tus.patch(path, 0, BODY[:HALF])
    assert tus.delete(path).status == 204
    for answer in (tus.head(path), tus.delete(path), tus.get(path), tus.patch(path, HALF, BODY[HALF:])):
        assert answer.status == 404
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert "upload-offset" not in answer.headers


def test_the_end_of_a_finished_upload_is_that_of_its_file(tus: Client) -> None:
    before = tus.server.files()
    path = path_of(tus.post(BODY, {**SIGNED, **STREAM}, Upload_Length=str(len(BODY))))
    (made,) = tus.server.files() - before
    assert tus.server.request("GET", f"/{made}").body == BODY
    assert tus.delete(path).status == 204
    assert tus.server.files() == before
    assert tus.head(path).status == tus.delete(path).status == 404
    assert tus.server.request("GET", f"/{made}").status == 404


def test_a_file_that_was_there_before_outlives_the_upload(tus: Client) -> None:
    """The same bytes at the same path are a success, but not a file of this upload's making."""
    place = f"held/{next(_names)}.bin"
    put = tus.server.request("PUT", f"/upload/{place}?{slots.v1(place, len(BODY))}", BODY)
    assert put.status == 201
    # Whole seconds are what an upload's id tells of its beginning.
    time.sleep(1.1)
    bearer = signatures.bearer(signatures.ticket(path=place, ops=["create"]))
    answer = tus.post(BODY, {**TUS, **STREAM, **bearer}, Upload_Length=str(len(BODY)))
    assert tus.delete(path_of(answer)).status == 204
    assert tus.server.request("GET", f"/upload/{place}").body == BODY


def test_a_path_that_is_taken_by_other_bytes(tus: Client) -> None:
    place = f"held/{next(_names)}.bin"
    tus.server.request("PUT", f"/upload/{place}?{slots.v1(place, 5)}", b"other")
    bearer = signatures.bearer(signatures.ticket(path=place, ops=["create"]))
    path = path_of(tus.post(None, {**TUS, **bearer}, Upload_Length="5"))
    assert code(tus.patch(path, 0, b"hello")) == (409, "exists")
    head = tus.head(path)
    assert head.status == 410
    assert "upload-offset" not in head.headers
    assert code(tus.patch(path, 5, b"")) == (409, "exists")


def test_the_end_while_bytes_come(tus: Client) -> None:
    path = tus.create(len(BODY))
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY))})
        wire.send(BODY[:HALF])
        until = time.monotonic() + 10
        while tus.offset(path) < HALF and time.monotonic() < until:
            pass
        assert tus.delete(path).status == 204
        assert code(wire.answer()) == (409, "upload_taken_over")
    assert tus.head(path).status == 404


# ---- uploads made of parts


def test_uploads_made_of_parts(tus: Client) -> None:
    before = tus.server.files()
    first, second, empty = tus.part(BODY[:HALF]), tus.part(BODY[HALF:]), tus.part(b"")
    head = tus.head(first)
    assert (head.headers["upload-concat"], head.headers["upload-offset"]) == ("partial", str(HALF))
    assert tus.patch(first, HALF, b"").status == 204
    assert tus.server.files() == before
    concat = f"final;{first} {tus.server.url}{second} {empty}  {first}"
    answer = tus.post(Upload_Concat=concat, Upload_Metadata=metadata(filename="whole.bin"))
    path = path_of(answer)
    whole = BODY + BODY[:HALF]
    head = tus.head(path)
    assert head.headers["upload-concat"] == concat
    assert head.headers["upload-offset"] == head.headers["upload-length"] == str(len(whole))
    assert head.headers["upload-metadata"] == metadata(filename="whole.bin")
    assert tus.get(path).body == whole
    assert code(tus.patch(path, len(whole), b"")) == (403, "made_of_parts")
    for part in (first, second, empty):
        assert tus.delete(part).status == 204
    assert tus.get(path).body == whole
    assert tus.delete(path).status == 204
    assert tus.server.files() == before


def test_parts_that_are_still_under_way(tus: Client) -> None:
    first, second = (tus.create(length, Upload_Concat="partial") for length in (HALF, None))
    path = path_of(tus.post(Upload_Concat=f"final;{first} {second}"))
    head = tus.head(path)
    assert head.status == 200
    assert head.headers["upload-concat"] == f"final;{first} {second}"
    assert not {"upload-offset", "upload-length", "upload-defer-length"} & head.headers.keys()
    assert code(tus.patch(path, 0, b"x")) == (403, "made_of_parts")
    assert tus.get(path).json()["completed"] is False
    tus.patch(second, 0, BODY[HALF:], Upload_Length=str(len(BODY) - HALF))
    head = tus.head(path)
    assert head.headers["upload-length"] == str(len(BODY))
    assert "upload-offset" not in head.headers
    tus.patch(first, 0, BODY[:HALF])
    assert tus.head(path).headers["upload-offset"] == str(len(BODY))
    assert tus.get(path).body == BODY


def test_parts_that_are_gone(tus: Client) -> None:
    first, second = tus.part(b"one"), tus.create(3, Upload_Concat="partial")
    path = path_of(tus.post(Upload_Concat=f"final;{first} {second}"))
    tus.delete(first)
    assert tus.head(path).status == 404
    assert tus.delete(path).status == 204


def test_an_upload_is_no_part_unless_it_was_meant_to_be(tus: Client) -> None:
    path = tus.create(10)
    assert code(tus.post(Upload_Concat=f"final;{path}")) == (404, "part_missing")


def test_a_repeated_final_is_the_same_by_its_key(tus: Client) -> None:
    part = tus.part(b"part")
    fields = {"Upload_Concat": f"final;{part}", "Idempotency_Key": f"key-{next(_names)}"}
    assert path_of(tus.post(None, None, **fields)) == path_of(tus.post(None, None, **fields))


# ---- permission


@pytest.mark.parametrize("headers", [{}, {"X-Signature": slots.x_signature("/upload")}, {"X-Signature": "0" * 64}])
def test_nothing_is_begun_without_permission(tus: Client, headers: dict[str, str]) -> None:
    answer = tus.post(None, {**TUS, **headers}, Upload_Length="5")
    assert answer.status == 403
    assert answer.headers["tus-resumable"] == "1.0.0"


def test_a_strong_signature_binds_size_and_name(tus: Client) -> None:
    strong = signatures.strong("POST", "/tus/", 5, "signed.txt")
    assert tus.post(None, {**TUS, **strong}, Upload_Length="6").status == 403
    named = metadata(filename="other.txt")
    path = path_of(tus.post(None, {**TUS, **strong}, Upload_Length="5", Upload_Metadata=named))
    tus.patch(path, 0, b"hello")
    assert "signed.txt" in tus.get(path).headers["content-disposition"]


def test_a_strong_signature_binds_a_deferred_length(tus: Client) -> None:
    strong = {**TUS, **signatures.strong("POST", "/tus/", 5), "X-Total-Size": "5"}
    path = path_of(tus.post(None, strong, Upload_Defer_Length="1"))
    assert code(tus.patch(path, 0, b"hell", Upload_Length="4")) == (413, "size_mismatch")
    assert tus.patch(path, 0, b"hello", Upload_Length="5").status == 204
    part = tus.part(b"hello")
    assert code(tus.post(None, strong, Upload_Concat=f"final;{part} {part}")) == (413, "size_mismatch")
    assert tus.get(path_of(tus.post(None, strong, Upload_Concat=f"final;{part}"))).body == b"hello"
    late = tus.create(None, Upload_Concat="partial")
    path = path_of(tus.post(None, strong, Upload_Concat=f"final;{late}"))
    tus.patch(late, 0, b"hell", Upload_Length="4")
    assert tus.head(path).status == 413


def test_a_ticket_binds_the_size(tus: Client) -> None:
    bearer = {**TUS, **signatures.bearer(signatures.ticket(prefix="t", max_size=5))}
    assert code(tus.post(None, bearer, Upload_Length="6")) == (413, "too_large")
    path = path_of(tus.post(None, bearer, Upload_Defer_Length="1"))
    assert code(tus.patch(path, 0, b"123456")) == (413, "too_large")
    assert code(tus.patch(path, 0, b"", Upload_Length="6")) == (413, "too_large")
    assert tus.patch(path, 0, b"12345", Upload_Length="5").status == 204
    part = tus.part(b"123")
    assert code(tus.post(None, bearer, Upload_Concat=f"final;{part} {part}")) == (413, "too_large")


def test_a_ticket_binds_place_type_and_number(tus: Client) -> None:
    bearer = {**TUS, **signatures.bearer(signatures.ticket(prefix="t/u", type="image/png", files=1))}
    other = metadata(filename="a.gif", filetype="image/gif")
    assert code(tus.post(None, bearer, Upload_Length="1", Upload_Metadata=other)) == (415, "type_mismatch")
    before = tus.server.files()
    path = path_of(tus.post(b"x", {**bearer, **STREAM}, Upload_Length="1", Upload_Metadata=metadata(filename="a.png")))
    (made,) = tus.server.files() - before
    assert made.startswith("t/u/")
    assert tus.get(path).headers["content-type"] == "image/png"
    assert code(tus.post(None, bearer, Upload_Length="1")) == (403, "ticket_used_up")
    # Parts are no files.
    assert tus.post(None, bearer, Upload_Length="1", Upload_Concat="partial").status == 201


def test_a_ticket_without_the_operation(tus: Client) -> None:
    bearer = signatures.bearer(signatures.ticket(prefix="t", ops=["put"]))
    assert tus.post(None, {**TUS, **bearer}, Upload_Length="1").status == 403


def test_credentials_on_an_upload_do_not_matter(tus: Client) -> None:
    path = tus.create(5)
    headers = {**STREAM, "Upload-Offset": "0", "X-Signature": "0" * 64}
    assert tus.server.request("PATCH", path, b"hello", headers).status == 204


@pytest.mark.parametrize("path", ["/tus", "/tus/", "/tus/x", "/tus/1_a"])
def test_no_file_is_put_there(tus: Client, path: str) -> None:
    headers = {"X-Signature": slots.x_signature(path)}
    answer = tus.server.request("PUT", path, b"x", headers)
    assert answer.status in {400, 404, 405}
    assert not any(name.startswith("tus") for name in tus.server.files())


# ---- networks


def test_a_client_that_is_back_goes_on_at_once(tus: Client) -> None:
    """A: the old request hangs in silence; nothing of it is lost, and nobody waits for its end."""
    path = tus.create(len(BODY))
    with Wire(tus.server) as old:
        old.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY))})
        old.send(BODY[:HALF])
        until = time.monotonic() + 10
        while (offset := tus.offset(path)) < HALF and time.monotonic() < until:
            pass
        assert offset == HALF
        assert tus.patch(path, HALF, BODY[HALF:]).status == 204
        assert code(old.answer()) == (409, "upload_taken_over")
    assert tus.get(path).body == BODY


def test_late_bytes_of_the_old_request(tus: Client) -> None:
    """B: they change nothing, however late they come."""
    path = tus.create(len(BODY))
    with Wire(tus.server) as old:
        old.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY))})
        old.send(BODY[:HALF])
        offset = tus.offset(path)
        with Wire(tus.server) as new:
            new.head("PATCH", path, {**STREAM, "Upload-Offset": str(offset), "Content-Length": str(len(BODY) - offset)})
            new.send(BODY[offset : offset + 10])
            assert code(old.answer()) == (409, "upload_taken_over")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                old.send(b"?" * 1000)
            new.send(BODY[offset + 10 :])
            assert new.answer().status == 204
    assert tus.get(path).body == BODY


def test_what_came_before_a_reset_is_kept(tus: Client) -> None:
    """C: and HEAD tells of it at once."""
    path = tus.create(len(BODY))
    with Wire(tus.server) as old:
        old.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY))})
        old.send(BODY[:HALF])
        assert tus.offset(path) <= HALF
    assert tus.offset(path) == HALF
    assert tus.patch(path, HALF, BODY[HALF:]).status == 204


@pytest.mark.parametrize("size", [20_000, len(BODY)])
def test_one_of_two_succeeds(tus: Client, size: int) -> None:
    """D: and the other one is told so."""
    path = tus.create(size)
    answers: list[Answer] = []
    barrier = threading.Barrier(2)

    def send() -> None:
        barrier.wait()
        answers.append(tus.patch(path, 0, BODY[:size]))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [204, 409]
    assert tus.get(path).body == BODY[:size]


@pytest.mark.parametrize("size", [60_000, 8 << 20])
def test_the_last_offset_means_that_the_file_is_there(tus: Client, size: int) -> None:
    """A client that has seen it asks no further."""
    body = content(size, "all there")
    path = tus.create(size)
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(size)})
        wire.send(body)
    until = time.monotonic() + 20
    while (offset := tus.offset(path)) < size and time.monotonic() < until:
        pass
    assert offset == size
    assert tus.server.request("GET", f"/upload/status?session_id={path.removeprefix('/tus/')}").json()["completed"]
    assert tus.get(path).body == body


def test_whoever_asks_does_no_harm(tus: Client) -> None:
    path = tus.create(len(BODY))
    with Wire(tus.server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY))})
        told = 0
        for start in range(0, len(BODY), 40_000):
            wire.send(BODY[start : start + 40_000])
            assert tus.get(path).status == 200
            offset = tus.offset(path)
            assert told <= offset <= start + 40_000
            told = offset
        assert wire.answer().status == 204


def test_an_offset_that_was_told_is_good(tus: Client) -> None:
    """Also when more has come of the old request since: the bytes are held against the new ones."""
    path = tus.create(len(BODY))
    with Wire(tus.server) as old:
        old.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY))})
        old.send(BODY[:HALF])
        # Nobody has asked since the creation.
        assert tus.patch(path, 0, BODY).status == 204
        assert code(old.answer()) == (409, "upload_taken_over")
    path = tus.create(len(BODY))
    with Wire(tus.server) as old:
        old.head("PATCH", path, {**STREAM, "Upload-Offset": "0", "Content-Length": str(len(BODY))})
        old.send(b"?" * HALF)
        until = time.monotonic() + 10
        while tus.offset(path) < HALF and time.monotonic() < until:
            pass
        assert code(tus.patch(path, 0, BODY)) == (409, "offset_mismatch")


# ---- other servers


def server_of(folder: Path, settings: Mapping[str, Mapping[str, object]]) -> Iterator[Client]:
    for server in running(folder, settings):
        yield Client(server)


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Client]:
    yield from server_of(tmp_path / "several", {"server": {"processes": 3}})


def test_several_processes(several: Client) -> None:
    """Every connection may come to any of them; parts are of all of them."""
    path = several.create(len(BODY))
    for start in range(0, len(BODY), 10_000):
        assert several.offset(path) == start
        assert several.patch(path, start, BODY[start : start + 10_000]).status == 204
    assert several.get(path).body == BODY
    parts = [several.part(BODY[start : start + 10_000]) for start in range(0, len(BODY), 10_000)]
    path = path_of(several.post(Upload_Concat="final;" + " ".join(parts)))
    assert several.offset(path) == len(BODY)
    assert several.get(path).body == BODY
    assert several.delete(path).status == 204
    assert several.head(path).status == 404


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Client]:
    yield from server_of(tmp_path / "strict", {"security": {"strict_signatures": True}})


def test_strict_signatures(strict: Client) -> None:
    assert strict.post(Upload_Length="5").status == 403
    path = path_of(strict.post(None, {**TUS, **signatures.strong("POST", "/tus/", 5)}, Upload_Length="5"))

    def asked(method: str, size: int, body: bytes | None = None, **fields: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        signed = signatures.strong(method, path, size)
        return strict.server.request(method, path, body, {**STREAM, **signed, **named})

    assert strict.head(path).status == strict.delete(path).status == strict.get(path).status == 403
    assert strict.patch(path, 0, b"hello").status == 403
    assert asked("HEAD", 0).headers["upload-offset"] == "0"
    assert asked("PATCH", 5, b"hello", Upload_Offset="0").status == 204
    assert asked("GET", 0).body == b"hello"
    assert asked("DELETE", 0).status == 204


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Client]:
    uploads = {"allowed_extensions": [".txt"], "max_sessions_per_owner": 1, "max_resumable_age": "2s"}
    yield from server_of(tmp_path / "small", {"server": {"max_upload_size": "1KB"}, "uploads": uploads})


def test_the_settings_bound_uploads(small: Client) -> None:
    named = metadata(filename="a.txt")
    assert small.server.request("OPTIONS", "/tus/").headers["tus-max-size"] == "1024"
    assert code(small.post(Upload_Length="1025", Upload_Metadata=named)) == (413, "too_large")
    assert code(small.post(Upload_Length="1", Upload_Metadata=metadata(filename="a.exe"))) == (415, "extension_refused")
    assert code(small.post(Upload_Length="1")) == (415, "extension_refused")
    bearer = {**TUS, **signatures.bearer(signatures.ticket(prefix="t"))}
    path = path_of(small.post(None, bearer, Upload_Defer_Length="1", Upload_Metadata=named))
    assert code(small.patch(path, 0, b"x" * 1025)) == (413, "too_large")
    part = path_of(small.post(b"x" * 600, {**SIGNED, **STREAM}, Upload_Length="600", Upload_Concat="partial"))
    final = small.post(Upload_Concat=f"final;{part} {part}", Upload_Metadata=named)
    assert code(final) == (413, "too_large")


def test_uploads_expire(small: Client) -> None:
    answer = small.post(Upload_Length="5", Upload_Metadata=metadata(filename="a.txt"))
    path = path_of(answer)
    assert parsedate_to_datetime(answer.headers["upload-expires"]).timestamp() <= time.time() + 3
    until = time.monotonic() + 20
    while (head := small.head(path)).status == 200 and time.monotonic() < until:
        time.sleep(0.1)
    assert head.status == 410
    assert "upload-offset" not in head.headers
    assert code(small.patch(path, 0, b"hello")) == (410, "upload_expired")
    assert code(small.get(path)) == (410, "upload_expired")
    assert small.delete(path).status == 204
    assert small.head(path).status == 404


def test_no_permission_lives_for_ever(small: Client) -> None:
    """However often the upload is continued in time: a ticket's end, and as long again as an upload may rest."""
    bearer = signatures.bearer(signatures.ticket(prefix="t", exp=signatures.in_future(1)))
    named = metadata(filename="a.txt")
    path = path_of(small.post(None, {**TUS, **bearer}, Upload_Length="1000", Upload_Metadata=named))
    offset = 0
    until = time.monotonic() + 20
    while (answer := small.patch(path, offset, b"x")).status == 204 and time.monotonic() < until:
        offset += 1
        time.sleep(0.1)
    assert code(answer) == (410, "upload_expired")
    assert offset > 10
    assert small.head(path).status == 410
    assert code(small.patch(path, offset, b"x")) == (410, "upload_expired")


@pytest.fixture
def without(tmp_path: Path) -> Iterator[Client]:
    yield from server_of(tmp_path / "without", {"uploads": {"resumable_uploads_enabled": False}})


def test_switched_off_it_is_as_if_it_were_not_there(without: Client) -> None:
    answer = without.post(Upload_Length="5")
    assert code(answer) == (404, "not_found")
    options = without.server.request("OPTIONS", "/tus/", None, TUS)
    assert options.status == 204
    for found in (answer, options, without.head("/tus/1_a"), without.get("/tus/1_a")):
        assert not any(name.startswith("tus-") for name in found.headers)
    assert without.head("/tus/1_a").status == without.get("/tus/1_a").status == 404


def test_uploads_outlive_the_server(tmp_path: Path) -> None:
    """E: killed in the middle, it goes on where it was acknowledged."""
    server = FileServer(tmp_path)
    server.start()
    tus = Client(server)
    path = tus.create(len(BODY), Upload_Metadata=metadata(filename="survivor.bin"))
    part = tus.part(b"part")
    final = tus.create(5, Upload_Concat="partial")
    whole = path_of(tus.post(Upload_Concat=f"final;{part} {final}"))
    tus.patch(path, 0, BODY[:HALF])
    with Wire(server) as wire:
        wire.head("PATCH", path, {**STREAM, "Upload-Offset": str(HALF), "Content-Length": str(len(BODY) - HALF)})
        wire.send(BODY[HALF:-1])
        until = time.monotonic() + 10
        while (told := tus.offset(path)) < len(BODY) - 1 and time.monotonic() < until:
            pass
        assert server.child is not None
        server.child.process.kill()
        server.child.process.wait()
    server.child = None
    server.start()
    try:
        offset = tus.offset(path)
        assert offset >= told
        assert tus.head(path).headers["upload-metadata"] == metadata(filename="survivor.bin")
        assert tus.patch(path, offset, BODY[offset:]).status == 204
        assert tus.get(path).body == BODY
        assert tus.patch(final, 0, b" five").status == 204
        assert tus.head(whole).headers["upload-offset"] == "9"
        assert tus.get(whole).body == b"part five"
    finally:
        server.stop()
