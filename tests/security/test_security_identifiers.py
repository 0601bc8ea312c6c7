"""Ids, names and numbers in every field that can carry one: none of them leads anywhere else (S-01, S-02, S-25, S-26)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote_from_bytes

import pytest
from tests.fixtures.server import FileServer
from tests.http.spellings import spellings
from tests.http.wire import Answer
from tests.security.site import CANARY_BYTES, PRIVATE, Site
from tests.server.signatures import mac, ticket

SPELLINGS = spellings()
NAME = re.compile(r"[0-9a-f]{32}/[^/\x00-\x1f\\]+")
"""Where a file goes whose path the server chooses."""


@pytest.fixture(scope="module")
def site(quick: FileServer) -> Iterator[Site]:
    """At the end nothing outside the storage folder is other than it was, and in it is only what the server named."""
    made = Site(quick)
    made.plant()
    before = made.around()
    yield made
    made.close()
    assert made.around() == before
    assert made.escaped() == []
    assert (quick.storage / PRIVATE / "canary.txt").read_bytes() == CANARY_BYTES
    assert [name for name in quick.files() if NAME.fullmatch(name) is None] == []


def fits(value: bytes) -> bool:
    """Whether a field can carry it at all; what cannot is the parser's business (tests/http)."""
    return not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) and len(value) < 7000


IDS = [value for value in SPELLINGS if fits(value)]


# --- ids -------------------------------------------------------------------------------------------------


def test_s_01_ids_in_a_path(site: Site) -> None:
    """CVE of tus-node-server, 2026: an id that was decoded after it had been looked at."""
    tus = {"Tus-Resumable": b"1.0.0"}
    verbs = (("HEAD", tus), ("DELETE", tus), ("PATCH", {"Upload-Complete": b"?1", "Upload-Offset": b"0"}))
    for number, spelling in enumerate(SPELLINGS):
        method, fields = verbs[number % len(verbs)]
        answer = site.ask(method, b"/tus/" + spelling, fields)
        assert answer.status in {400, 404, 405, 412, 414}, (method, spelling, answer)


def test_s_01_ids_have_one_form(site: Site) -> None:
    """Of a living upload: no other spelling of its id is it."""
    begun = site.ask("POST", b"/upload/chunked", creation(b"f.bin", 10))
    upload = json.loads(begun.body)["session_id"].encode()
    tus = {"Tus-Resumable": b"1.0.0"}
    assert site.ask("HEAD", b"/tus/" + upload, tus).status == 200
    letters = upload[-1:]
    others = [
        upload.upper(), b"0" + upload, upload + b"/", upload + b"%00", upload + b".", upload + b"%20", b"%2f" + upload,
        b"./" + upload, upload + b"/../" + upload, upload[:-1], upload + letters, upload.replace(b"_", b"%5f%5f"),
        upload.replace(b"_", b"-"), b"x/" + upload, upload + b";x", upload + b"%0a", b"*", upload[:12] + b"*",
    ]  # fmt: skip
    for other in others:
        assert site.ask("HEAD", b"/tus/" + other, tus).status in {400, 404}, other
        if fits(other):
            answer = site.ask(
                "PUT", b"/upload/chunked", {"X-Upload-Session-ID": other, "X-Chunk-Number": b"0"}, b"x" * 10
            )
            assert answer.status == 404, other
    escaped = b"".join(b"%%%02x" % byte for byte in upload)
    assert site.ask("HEAD", b"/tus/" + escaped, tus).status == 200, "decoded once it is the same"
    assert site.ask("HEAD", b"/tus/" + escaped.replace(b"%", b"%25"), tus).status in {400, 404}
    assert json.loads(site.ask("GET", b"/upload/status?session_id=" + upload).body)["uploaded_bytes"] == 0


def test_s_02_ids_in_a_field(site: Site) -> None:
    """The forgotten second source of an id (tuspyserver #93, tus-java-server #89)."""
    for number, value in enumerate(IDS):
        method = ("PUT", "POST", "DELETE")[number % 3]
        answer = site.ask(method, b"/upload/chunked", {"X-Upload-Session-ID": value, "X-Chunk-Number": b"0"})
        assert answer.status in ({400, 403} if not value.strip() else {404}), (value, answer)


def test_s_02_ids_in_a_query(site: Site) -> None:
    for spelling in SPELLINGS:
        value = quote_from_bytes(spelling, safe="/%\\.;").encode()
        answer = site.ask("GET", b"/upload/status?session_id=" + value)
        assert answer.status in {400, 404, 414}, (spelling, answer)


def test_s_02_ids_in_a_list_of_parts(site: Site) -> None:
    forms = (b"", b"/tus/", b"https://elsewhere/tus/")
    for number, value in enumerate(IDS):
        url = forms[number % len(forms)] + value
        fields = {"Tus-Resumable": b"1.0.0", "Upload-Concat": b"final;" + url, "X-Signature": mac("/tus/").encode()}
        answer = site.ask("POST", b"/tus/", fields)
        assert answer.status in {400, 404}, (value, answer)


# --- names -----------------------------------------------------------------------------------------------


def creation(name: bytes, size: int = 0) -> dict[str, bytes]:
    signature = mac("/upload/chunked").encode()
    return {"X-Filename": name, "X-Total-Size": b"%d" % size, "X-Signature": signature}


def test_s_02_s_30_names_of_sessions(site: Site) -> None:
    """The Go server joins X-Filename to its folder; here an empty file is stored at once, under each of these names."""
    made = 0
    for value in IDS[::2]:
        answer = site.ask("POST", b"/upload/chunked", creation(value))
        assert answer.status == 201 or (not value.strip() and answer.status == 400), (value, answer)
        made += answer.status == 201
    assert made > 700
    assert len(site.server.files()) >= made


def test_s_02_names_in_metadata(site: Site) -> None:
    """Every byte can come, as Base64; in a key it cannot."""
    signature = mac("/tus/").encode()
    for spelling in SPELLINGS[1::2]:
        value = base64.b64encode(spelling)
        if len(value) > 7000:
            continue
        fields = {"Tus-Resumable": b"1.0.0", "Upload-Length": b"0", "X-Signature": signature}
        pairs = (b"filename ", b"name ", b"relativePath ", b"path ")
        answer = site.ask("POST", b"/tus/", {**fields, "Upload-Metadata": b",".join(pair + value for pair in pairs)})
        assert answer.status == 201, (spelling, answer)


def test_s_02_paths_in_a_ticket(site: Site) -> None:
    """Whoever signs tickets may be a program that was given a path by somebody else."""
    for number, spelling in enumerate(SPELLINGS[::8]):
        path = spelling.decode("utf-8", "replace")
        for claims in ({"path": path}, {"prefix": path}):
            token = ticket(jti=f"t{number}", **claims).encode()
            answer = site.ask("POST", b"/upload/chunked", {
                "X-Filename": b"f.bin", "X-Total-Size": b"1", "Authorization": b"Bearer " + token,
            })  # fmt: skip
            assert answer.status in {201, 400, 401, 403}, (spelling, answer)
            if answer.status == 201:
                url = json.loads(answer.body)["url"]
                assert not {"..", ".", ""} & set(url.split("/")[1:]), (spelling, url)
                assert PRIVATE not in url.lower().split("/"), (spelling, url)


def test_s_02_other_fields_that_name_something(site: Site) -> None:
    """What nobody reads as a path, given one."""
    for value in (value for value in IDS[::5] if len(value) < 300):
        fields = {
            "Idempotency-Key": value[:255] or b"k",
            "Upload-Metadata": b"filename",
            "X-HTTP-Method-Override": b"POST",
            "X-Forwarded-Prefix": value,
            "X-Forwarded-Host": value,
            "X-Original-URL": value,
            "X-Rewrite-URL": value,
            "X-Accel-Redirect": value,
            "X-Sendfile": value,
            "Destination": value,
            "Slug": value,
            "Referer": value,
        }
        answer = site.ask("POST", b"/upload/chunked", {**creation(b"f.bin"), **fields})
        assert answer.status in {201, 422}, (value, answer)
        assert site.ask("GET", b"/health", fields).body == b"OK\n"


# --- whose is it -----------------------------------------------------------------------------------------


def test_s_25_another_s_id_is_as_good_as_none(site: Site) -> None:
    """Nextcloud CVE-2026-45283: every verb asks for the id, and no error tells one."""
    ids = [
        json.loads(site.ask("POST", b"/upload/chunked", creation(b"f.bin", 10)).body)["session_id"] for _ in range(3)
    ]
    tus = {"Tus-Resumable": b"1.0.0"}
    stream = {**tus, "Content-Type": b"application/offset+octet-stream", "Upload-Offset": b"0"}
    version = {"Upload-Draft-Interop-Version": b"6"}
    draft = {**version, "Upload-Complete": b"?1", "Upload-Offset": b"0", "Content-Type": b"application/partial-upload"}

    def verbs(upload: str) -> list[Answer]:
        other = upload.encode()
        named = {"X-Upload-Session-ID": other, "X-Chunk-Number": b"0"}
        return [
            site.ask("PUT", b"/upload/chunked", named, b"0123456789"),
            site.ask("DELETE", b"/upload/chunked", named),
            site.ask("GET", b"/upload/status?session_id=" + other),
            site.ask("GET", b"/upload/status?session_id=" + other + b"&wait=1"),
            *(site.ask(method, b"/tus/" + other, tus) for method in ("HEAD", "GET", "DELETE")),
            site.ask("PATCH", b"/tus/" + other, stream, b"0123456789"),
            site.ask("PATCH", b"/tus/" + other, draft, b"0123456789"),
            *(site.ask(method, b"/tus/" + other, version) for method in ("HEAD", "GET", "DELETE")),
            site.ask("PUT", b"/tus/" + other, {"Content-Range": b"bytes 0-9/10"}, b"0123456789"),
            site.ask("POST", b"/tus/" + other, {**stream, "X-HTTP-Method-Override": b"PATCH"}, b"0123456789"),
        ]

    def shape(answer: Answer) -> tuple[int, dict[bytes, bytes], bytes]:
        """What can be told apart, without what differs between any two answers."""
        headers = {name: value for name, value in answer.headers.items() if name not in {b"date", b"x-request-id"}}
        return answer.status, headers, re.sub(rb'"request_id": ?"[^"]*"', b"", answer.body)

    first = ids[0]
    stamp, _, token = first.partition("_")
    for other in (f"{stamp}_{token[:-1]}{'a' if token[-1] != 'a' else 'b'}", f"{stamp}_{token[::-1]}", f"1_{token}"):
        answers = verbs(other)
        assert {answer.status for answer in answers} == {404}
        random = verbs("1795396905_vfaxuu3tkdswhhrdffhieym7ry")
        assert [shape(one)[0] for one in answers] == [shape(one)[0] for one in random]
        for answer, nobody in zip(answers, random, strict=True):
            assert shape(answer) == shape(nobody)
            for upload in ids:
                assert upload.encode() not in answer.body
    status = json.loads(site.ask("GET", b"/upload/status?session_id=" + first.encode()).body)
    assert (status["uploaded_bytes"], status["completed"]) == (0, False)


# --- numbers ---------------------------------------------------------------------------------------------

_SPELLED = (
    b"+10", b"-1", b"-10", b"1_0", b"10_", b"0x0A", b"0o12", b"0b1010", b"1e1", b"1E1", b"10.0", b"10.", b".1e2", b"NaN",
    b"nan", b"Infinity", b"inf", b"-inf", b"ten", b"1 0", b"10,10", b"10, 10", b"10;10", b"'10'", b'"10"', b"10\x0b", b"10\x0c",
    b"\xc2\xa010", b"10\xc2\xa0", b"\xa010", b"\x8510", "١٠".encode(), "１０".encode(), "𝟏𝟎".encode(), "൧൦".encode(),
    "²".encode(), "Ⅹ".encode(), b"1" * 5000, b"9" * 41, b"?1", b"10?", b"true", b"null", b"%31%30", b"$10",
)  # fmt: skip
_HUGE = (b"18446744073709551616", b"9223372036854775808", b"340282366920938463463374607431768211456", b"9" * 40)


def upload_of_ten(site: Site) -> bytes:
    answer = site.ask("POST", b"/upload/chunked", creation(b"numbers.bin", 10))
    upload: str = json.loads(answer.body)["session_id"]
    return upload.encode()


def fields_with_numbers() -> Iterator[tuple[str, Callable[[Site, bytes, bytes], Answer]]]:
    """Each asks with one number that is wrong, of an upload of ten bytes."""
    signed = {"X-Signature": mac("/upload/chunked").encode()}
    tus = {"Tus-Resumable": b"1.0.0", "X-Signature": mac("/tus/").encode()}
    stream = {**tus, "Content-Type": b"application/offset+octet-stream"}
    body = b"0123456789"
    yield (
        "X-Total-Size",
        lambda site, _id, value: site.ask(
            "POST", b"/upload/chunked", {**signed, "X-Filename": b"f", "X-Total-Size": value}
        ),
    )
    yield (
        "X-Chunk-Number",
        lambda site, upload, value: site.ask(
            "PUT", b"/upload/chunked", {"X-Upload-Session-ID": upload, "X-Chunk-Number": value}, body
        ),
    )
    yield (
        "X-Chunk-Offset",
        lambda site, upload, value: site.ask(
            "PUT",
            b"/upload/chunked",
            {"X-Upload-Session-ID": upload, "X-Chunk-Number": b"0", "X-Chunk-Offset": value},
            b"",
        ),
    )
    yield (
        "wait",
        lambda site, upload, value: site.ask(
            "GET",
            b"/upload/status?session_id=" + upload + b"&wait=" + quote_from_bytes(value, safe="+%$?.:,;'\"").encode(),
        ),
    )
    yield "Upload-Length", lambda site, _id, value: site.ask("POST", b"/tus/", {**tus, "Upload-Length": value})
    yield (
        "Upload-Defer-Length",
        lambda site, _id, value: site.ask("POST", b"/tus/", {**tus, "Upload-Defer-Length": value}),
    )
    yield (
        "Upload-Offset",
        lambda site, upload, value: site.ask("PATCH", b"/tus/" + upload, {**stream, "Upload-Offset": value}, body),
    )
    yield (
        "Upload-Offset of the draft",
        lambda site, upload, value: site.ask(
            "PATCH",
            b"/tus/" + upload,
            {"Content-Type": b"application/partial-upload", "Upload-Complete": b"?1", "Upload-Offset": value},
            body,
        ),
    )
    yield (
        "Content-Range",
        lambda site, upload, value: site.ask("PUT", b"/tus/" + upload, {"Content-Range": b"bytes 0-9/" + value}, body),
    )
    yield (
        "Content-Range, first",
        lambda site, upload, value: site.ask(
            "PUT", b"/tus/" + upload, {"Content-Range": b"bytes " + value + b"-9/10"}, body
        ),
    )


@pytest.mark.parametrize(
    ("name", "ask"), list(fields_with_numbers()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_s_26_numbers_have_one_spelling(site: Site, name: str, ask: Callable[[Site, bytes, bytes], Answer]) -> None:
    """CPython's int() takes "+10", "1_0", Arabic digits and a vertical tab around them; nothing here does."""
    upload = upload_of_ten(site)
    for value in _SPELLED:
        if (not fits(value) and value[:1] != b"1") or (name == "wait" and value == b"10.0"):
            continue
        answer = ask(site, upload, value)
        # 431 and 414: it is too long for a field or a target. 308: a range that does not begin where the upload ends.
        assert answer.status in {400, 404, 409, 414, 431}, (name, value[:50], answer)
    for value in _HUGE:
        answer = ask(site, upload, value)
        assert answer.status in {400, 409, 413, 416}, (name, value, answer)
    status = json.loads(site.ask("GET", b"/upload/status?session_id=" + upload).body)
    assert (status["uploaded_bytes"], status["completed"], status["total_size"]) == (0, False, 10), name
