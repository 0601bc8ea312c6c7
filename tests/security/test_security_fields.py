"""Every spelling of a path in every field that carries an id, a name or a path (S-01, S-02).

`test_security_identifiers.py` and `tests/http/test_paths.py` have those that need to be told apart; here are the others, and
all of those of which they take a share. What is stored stands under the path that its permission says, or under one that
the server chose; nothing is read or written anywhere else.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote_from_bytes, unquote

import pytest
from tests.fixtures import slots
from tests.fixtures.server import FileServer
from tests.http.spellings import spellings
from tests.http.wire import Answer
from tests.security.site import CANARY_BYTES, PRIVATE, Site
from tests.server.signatures import in_future, mac, ticket

SPELLINGS = spellings()
CHOSEN = re.compile(r"[0-9a-f]{32}/[^/\x00-\x1f\\]+")
FIELDS = [value for value in SPELLINGS if len(value) < 7000 and not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value)]
TEXTS = [value.decode("utf-8", "replace") for value in SPELLINGS]


@pytest.fixture(scope="module")
def site(quick: FileServer) -> Iterator[Site]:
    made = Site(quick)
    made.plant()
    before = made.around()
    yield made
    made.close()
    assert made.around() == before
    assert made.escaped() == []
    assert (quick.storage / PRIVATE / "canary.txt").read_bytes() == CANARY_BYTES


@pytest.fixture(autouse=True)
def stored_where_it_may(site: Site) -> Iterator[None]:
    """After each test: files stand under paths that the server chose, or that a token said word for word."""
    site.server.request("GET", "/health")
    known = site.server.files()
    yield
    for name in site.server.files() - known:
        assert CHOSEN.fullmatch(name) or name in TEXTS or name.startswith("named/"), name
        assert not name.lower().startswith(PRIVATE), name
        assert not {"", ".", ".."} & set(name.split("/")), name


def path_of(answer: Answer) -> str:
    """The storage path behind the URL of a receipt; the path of an endpoint is served below /download/."""
    return unquote(json.loads(answer.body)["url"])[1:].removeprefix("download/")


def test_there_are_as_many_as_promised() -> None:
    assert len(SPELLINGS) >= 2000
    assert len(FIELDS) >= 2000


def test_claims_of_prosody_s_tokens(site: Site) -> None:
    """They name a slot and a file: the target has to be just these two, whatever they hold."""
    for number, text in enumerate(TEXTS):
        slot, filename = (text, "f.bin") if number % 2 else ("slot", text)
        token = slots.bearer({"slot": slot, "filename": filename, "filesize": 1, "exp": in_future()}).encode()
        if len(token) > 8000:
            continue
        for target in (b"/upload/slot/f.bin", b"/upload/victim/photo.jpg"):
            answer = site.ask("PUT", target, {"Authorization": token}, b"x")
            assert answer.status in {400, 401, 403}, (text, answer)


def test_paths_in_tickets(site: Site) -> None:
    """An empty file is stored at once: under the path of the ticket as it stands there, or below its prefix, or nowhere."""
    stored = 0
    for number, text in enumerate(TEXTS):
        claims = {"path": text} if number % 2 else {"prefix": text}
        token = ticket(**claims).encode()
        if len(token) > 8000:
            continue
        fields = {"X-Filename": b"f.bin", "X-Total-Size": b"0", "Authorization": b"Bearer " + token}
        answer = site.ask("POST", b"/upload/chunked", fields)
        assert answer.status in {201, 400, 401, 403, 409, 415}, (text, answer)
        if answer.status == 201:
            path = path_of(answer)
            if number % 2:
                assert path == text, (text, path)
            else:
                assert path.startswith(text), (text, path)
                # What the server put behind the prefix is a folder and a name of its own.
                assert CHOSEN.fullmatch(path.removeprefix(text).removeprefix("/")), (text, path)
                (site.server.storage / path).unlink()
            stored += 1
    assert stored > 300


def test_names_of_sessions_that_are_signed(site: Site) -> None:
    """X-Filename, in a signature that binds it as well; the other half is in test_s_02_s_30_names_of_sessions."""
    weak = mac("/upload/chunked").encode()
    for number, value in enumerate(FIELDS[1::2]):
        fields = {"X-Filename": value, "X-Total-Size": b"0"}
        expires = in_future()
        text = f"hmac-file-server X-Signature 2\0POST\0/upload/chunked\0{value.strip(b' ').decode('latin-1')}\0{0}\0{expires}"
        if number % 2 and value.isascii():
            fields |= {"X-Signature": mac(text).encode(), "X-Signature-Expires": b"%d" % expires}
        else:
            fields["X-Signature"] = weak
        answer = site.ask("POST", b"/upload/chunked", fields)
        assert answer.status in ({201} if value.strip() else {400, 403}), (value, answer)
        if answer.status == 201:
            document = json.loads(answer.body)
            assert CHOSEN.fullmatch(path_of(answer)), document
            assert not set(document["filename"]) & set('/\\\0\r\n"<>|:*?'), document


def test_names_in_metadata_of_any_key(site: Site) -> None:
    """The other half is in test_s_02_names_in_metadata."""
    signature = mac("/tus/").encode()
    keys = (b"filename", b"name", b"relativePath", b"path", b"filetype", b"type", b"id")
    for number, spelling in enumerate(SPELLINGS[::2]):
        value = base64.b64encode(spelling)
        if len(value) > 7000:
            continue
        pairs = b",".join(key + b" " + value for key in (keys[number % len(keys)], b"filename") if key)
        if keys[number % len(keys)] == b"filename":
            pairs = b"filename " + value
        fields = {"Tus-Resumable": b"1.0.0", "Upload-Length": b"0", "X-Signature": signature, "Upload-Metadata": pairs}
        answer = site.ask("POST", b"/tus/", fields)
        assert answer.status == 201, (spelling, answer)
        location = answer.headers[b"location"].rpartition(b"/")[2]
        assert re.fullmatch(rb"[0-9]+_[0-9a-z]+", location), location


def test_names_of_the_drafts(site: Site) -> None:
    """Content-Disposition of a creation names the file for people."""
    signature = mac("/upload").encode()
    for number, value in enumerate(FIELDS):
        quoted = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        disposition = (
            b'attachment; filename="' + quoted + b'"',
            b"attachment; filename*=UTF-8''" + value,
            b"inline; filename=" + value,
        )[number % 3]
        fields = {"X-Signature": signature, "Upload-Complete": b"?1", "Content-Disposition": disposition}
        answer = site.ask("POST", b"/upload", fields, b"draft")
        assert answer.status in {200, 201, 400}, (value, answer)
        if answer.status != 400:
            document = json.loads(answer.body)
            assert CHOSEN.fullmatch(path_of(answer)), document


def test_parts_of_forms(site: Site) -> None:
    """The boundary, the name of a field, a type, and a file name in a second place: none decides where bytes go."""
    signature = mac("/upload").encode()
    for number, value in enumerate(FIELDS):
        quoted = value.replace(b"\\", b"\\\\").replace(b'"', b"%22")
        kind, heads = b"multipart/form-data; boundary=limit", b'name="file"; filename="x.bin"'
        more = b""
        if number % 4 == 0:
            heads = (
                b'name="file"; filename="x.bin"; path="'
                + quoted
                + b"\"; filename*=UTF-8''"
                + value.replace(b" ", b"%20")
            )
        elif number % 4 == 1:
            more = b"\r\nContent-Type: " + (value.strip() or b"a/b") + b"\r\nContent-Location: " + value
        elif number % 4 == 2:
            more = b"\r\nX-Filename: " + value + b"\r\nContent-Transfer-Encoding: " + value
        else:
            kind = b'multipart/form-data; boundary="' + quoted[:60] + b'"'
        boundary = quoted[:60] if number % 4 == 3 else b"limit"
        body = (
            b"--"
            + boundary
            + b"\r\nContent-Disposition: form-data; "
            + heads
            + more
            + b"\r\n\r\nabc\r\n--"
            + boundary
            + b"--\r\n"
        )
        answer = site.ask("POST", b"/upload", {"X-Signature": signature, "Content-Type": kind}, body)
        assert answer.status in {200, 400, 415}, (value, answer)
        if answer.status == 200:
            assert CHOSEN.fullmatch(path_of(answer))


QUERIES = (b"ticket", b"v", b"v2", b"v3", b"token", b"expires", b"url", b"path", b"filename", b"session_id")


def test_values_of_a_query(site: Site) -> None:
    """Credentials and addresses that are paths: nothing is permitted, and of pages nothing is shown but pages."""
    for number, spelling in enumerate(SPELLINGS):
        value = quote_from_bytes(spelling, safe="/%.~").encode()
        name = QUERIES[number % len(QUERIES)]
        answer = site.ask("PUT", b"/upload/named/q.bin?" + name + b"=" + value, body=b"x")
        assert answer.status in {400, 401, 403, 411, 414}, (spelling, answer)
        answer = site.ask("GET", b"/?" + name + b"=" + value, {"Accept": b"text/html"})
        assert answer.status in {200, 400, 401, 403, 414}, (spelling, answer)
        if number % 5:
            continue  # drawing takes its time
        answer = site.ask("GET", b"/upload-qr.svg?url=http://t/" + value)
        assert answer.status in {200, 400, 414}, (spelling, answer)
        if answer.status == 200:
            assert answer.headers[b"content-type"] == b"image/svg+xml"


IGNORED = ("X-Original-URL", "X-Rewrite-URL", "X-Accel-Redirect", "X-Sendfile", "X-Forwarded-Host", "X-Forwarded-Prefix", "Destination",
           "Slug", "Referer", "Content-Location", "Link", "Origin", "Cookie", "Forwarded", "X-Forwarded-For", "User-Agent", "From", "X-File-SHA256")  # fmt: skip


def test_fields_that_name_nothing_here(site: Site) -> None:
    """All at once, to a page, to a file that is not there and to a beginning of an upload."""
    for value in (value for value in FIELDS if len(value) < 1500):
        fields = dict.fromkeys(IGNORED, value)
        assert site.ask("GET", b"/health", fields).body == b"OK\n", value
        assert site.ask("GET", b"/upload/named/none", fields).status == 404, value


def test_credentials_that_are_paths(site: Site) -> None:
    for value in FIELDS:
        for fields in (
            {"Authorization": b"Bearer " + value},
            {"X-Signature": value},
            {"X-Signature": mac("/upload/named/c.bin").encode(), "X-Signature-Expires": value or b"x"},
            {"Idempotency-Key": value, "Authorization": value},
        ):
            answer = site.ask("PUT", b"/upload/named/c.bin", fields, b"x")
            assert answer.status in {400, 401, 403, 431}, (value, fields, answer)
