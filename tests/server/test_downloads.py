"""GET and HEAD: ranges, conditions, names, types, and the header fields of every route."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote, unquote

import pytest
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer
from tests.server import signatures
from tests.server.wire import Wire

SIZE = 1000
BODY = content(SIZE, "ranges")
LARGE_SIZE = 9_000_001
LARGE = content(LARGE_SIZE, "large")


def store(server: FileServer, path: str, body: bytes, media_type: str = "video/mp4") -> str:
    """Publish once; the URL path."""
    target = slots.target(path, slots.v1(path, len(body)))
    assert server.request("PUT", target, body, {"Content-Type": media_type}).status == 201
    return "/upload/" + quote(path)


@pytest.fixture(scope="module")
def url(module_server: FileServer) -> str:
    return store(module_server, "ranges/small.mp4", BODY)


@pytest.fixture(scope="module")
def large(module_server: FileServer) -> str:
    return store(module_server, "ranges/large.mp4", LARGE)


@pytest.fixture(scope="module")
def empty(module_server: FileServer) -> str:
    return store(module_server, "ranges/empty.mp4", b"")


# --- ranges ----------------------------------------------------------------------------------------------


def spans(size: int) -> dict[str, tuple[int, int] | None]:
    """Range values and the bytes they mean: (first, last), or None for the whole file."""
    last = size - 1
    return {
        "bytes=0-0": (0, 0),
        "bytes=0-": (0, last),
        "bytes=0-99": (0, 99),
        "bytes=100-199": (100, 199),
        f"bytes={last}-": (last, last),
        f"bytes={last}-{last}": (last, last),
        f"bytes={size - 10}-{size + 10}": (size - 10, last),
        f"bytes=1-{10**18}": (1, last),
        "bytes=-1": (last, last),
        "bytes=-10": (size - 10, last),
        f"bytes=-{size}": (0, last),
        f"bytes=-{size + 1}": (0, last),
        "bytes=-9999999999999999999": (0, last),
        "BYTES=5-6": (5, 6),
        "bytes= 5-6": (5, 6),
        "bytes=007-009": (7, 9),
        # Not understood, or more than one: the whole file (RFC 9110 section 14.2).
        "bytes=0-0,2-2": None,
        "bytes=0-99,0-99,0-99": None,
        "bytes=" + "0-,".join([""] * 600): None,
        "bytes=": None,
        "bytes=-": None,
        "bytes=5": None,
        "bytes=9-5": None,
        "bytes=--5": None,
        "bytes=+1-5": None,
        "bytes=1_0-20": None,
        "bytes=0x1-0x5": None,
        "bytes=1.0-5": None,
        "bytes=a-b": None,
        "bytes=٣-٤": None,
        "bytes 0-5": None,
        "items=0-5": None,
        "0-5": None,
        "bytes=10000000000000000000000-": None,
    }


@pytest.mark.parametrize("value", list(spans(SIZE)))
@pytest.mark.parametrize("big", [False, True], ids=["small", "large"])
def test_ranges(module_server: FileServer, url: str, large: str, value: str, big: bool) -> None:
    target, body = (large, LARGE) if big else (url, BODY)
    # The same position in the list, for the other size.
    value = list(spans(len(body)))[list(spans(SIZE)).index(value)]
    span = spans(len(body))[value]
    got = module_server.request("GET", target, headers={"Range": value.encode().decode("latin-1")})
    if span is None:
        assert (got.status, got.body == body) == (200, True)
        assert "content-range" not in got.headers
        return
    first, last = span
    assert (got.status, got.body == body[first : last + 1]) == (206, True)
    assert got.headers["content-range"] == f"bytes {first}-{last}/{len(body)}"
    assert got.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize("value", ["bytes={size}-", "bytes={size}-{size}", "bytes=99999999999-", "bytes=-0"])
@pytest.mark.parametrize("which", ["url", "large"])
def test_ranges_that_nothing_satisfies(
    module_server: FileServer, request: pytest.FixtureRequest, which: str, value: str
) -> None:
    target = request.getfixturevalue(which)
    size = SIZE if which == "url" else LARGE_SIZE
    got = module_server.request("GET", target, headers={"Range": value.format(size=size)})
    assert (got.status, got.json()["code"]) == (416, "range_not_satisfiable")
    assert got.headers["content-range"] == f"bytes */{size}"


def test_an_empty_file(module_server: FileServer, empty: str) -> None:
    got = module_server.request("GET", empty)
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "0")
    assert module_server.request("HEAD", empty).headers["content-length"] == "0"
    for value, status in (("bytes=0-", 416), ("bytes=0-0", 416), ("bytes=-0", 416), ("bytes=-1", 200)):
        got = module_server.request("GET", empty, headers={"Range": value})
        assert got.status == status, value
        assert got.headers.get("content-range") == ("bytes */0" if status == 416 else None)


def test_head_knows_no_ranges(module_server: FileServer, url: str) -> None:
    """RFC 9110 section 14.2: Range is for GET alone."""
    for value in ("bytes=0-5", "bytes=99999-"):
        head = module_server.request("HEAD", url, headers={"Range": value})
        assert (head.status, head.headers["content-length"]) == (200, str(SIZE))
        assert "content-range" not in head.headers


def test_head_is_get_without_the_body(module_server: FileServer, url: str, large: str, empty: str) -> None:
    for target in (url, large, empty, "/upload/ranges/missing", "/", "/health", "/ready"):
        get = module_server.request("GET", target)
        head = module_server.request("HEAD", target)
        assert head.body == b""
        assert head.status == get.status
        assert {**head.headers, "date": ""} == {**get.headers, "date": ""}, target


def test_a_large_range_list_costs_nothing(module_server: FileServer, large: str) -> None:
    """CVE-2025-62727 and CVE-2011-3192: thousands of ranges in one field are one whole file or a refusal."""
    value = "bytes=" + ",".join(f"{number}-{number}" for number in range(4_000))
    got = module_server.request("GET", large, headers={"Range": value[:30_000]})
    assert got.status in {200, 431}


def test_sendfile_of_many_offsets(module_server: FileServer, large: str) -> None:
    """Ranges around every buffer border, on one connection, each byte-identical."""
    with Wire(module_server) as wire:
        for border in (65_536, 524_288, 2_097_152, 4_194_304, LARGE_SIZE):
            for first in (0, max(0, border - 65_537), border - 65_536, border - 1):
                last = min(border, LARGE_SIZE - 1)
                wire.head("GET", large, {"Range": f"bytes={first}-{last}"})
                answer = wire.answer()
                assert (answer.status, answer.body == LARGE[first : last + 1]) == (206, True), (first, last)


def test_pipelined_gets_are_answered_in_order(module_server: FileServer, url: str, large: str) -> None:
    with Wire(module_server) as wire:
        for _ in range(3):
            wire.head("GET", large, {"Range": "bytes=0-2000000"})
            wire.head("GET", url)
            wire.head("HEAD", url)
            wire.head("GET", "/upload/ranges/missing")
        for _ in range(3):
            assert wire.answer().body == LARGE[:2_000_001]
            assert wire.answer().body == BODY
            assert wire.answer(bodiless=True).headers["content-length"] == str(SIZE)
            assert wire.answer().status == 404


# --- conditions ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validators(module_server: FileServer, url: str) -> tuple[str, str, int]:
    """ETag, Last-Modified, and the latter in epoch seconds."""
    headers = module_server.request("HEAD", url).headers
    modified = headers["last-modified"]
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', headers["etag"])
    return headers["etag"], modified, int(parsedate_to_datetime(modified).timestamp())


CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({"If-None-Match": "{etag}"}, 304),
    ({"If-None-Match": "W/{etag}"}, 304),
    ({"If-None-Match": '"a", {etag}, "b"'}, 304),
    ({"If-None-Match": '"a",W/{etag}'}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"a"'}, 200),
    ({"If-None-Match": ""}, 200),
    ({"If-None-Match": "{bare}"}, 200),
    ({"If-None-Match": '"a"', "If-Modified-Since": "{date}"}, 200),
    ({"If-None-Match": "{etag}", "If-Modified-Since": "{before}"}, 304),
    ({"If-Modified-Since": "{date}"}, 304),
    ({"If-Modified-Since": "{after}"}, 304),
    ({"If-Modified-Since": "{before}"}, 200),
    ({"If-Modified-Since": "{asctime}"}, 304),
    ({"If-Modified-Since": "{rfc850}"}, 304),
    ({"If-Modified-Since": "yesterday"}, 200),
    ({"If-Modified-Since": ""}, 200),
    ({"If-Modified-Since": "Thu, 01 Jan 99999 00:00:00 GMT"}, 200),
    ({"If-Match": "{etag}"}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"a", {etag}'}, 200),
    ({"If-Match": '"a"'}, 412),
    ({"If-Match": "W/{etag}"}, 412),
    ({"If-Match": '"a"', "If-None-Match": "{etag}"}, 412),
    ({"If-Match": "{etag}", "If-None-Match": "{etag}"}, 304),
    ({"If-Match": "{etag}", "If-Unmodified-Since": "{before}"}, 200),
    ({"If-Unmodified-Since": "{date}"}, 200),
    ({"If-Unmodified-Since": "{after}"}, 200),
    ({"If-Unmodified-Since": "{before}"}, 412),
    ({"If-Unmodified-Since": "junk"}, 200),
    ({"If-Unmodified-Since": "{before}", "If-Modified-Since": "{date}"}, 412),
    # With a range: the conditions come first, then If-Range says whether the range counts.
    ({"Range": "bytes=0-9", "If-None-Match": "{etag}"}, 304),
    ({"Range": "bytes=0-9", "If-Match": '"a"'}, 412),
    ({"Range": "bytes=0-9", "If-Match": "{etag}"}, 206),
    ({"Range": "bytes=0-9", "If-Range": "{etag}"}, 206),
    ({"Range": "bytes=0-9", "If-Range": '"a"'}, 200),
    ({"Range": "bytes=0-9", "If-Range": "W/{etag}"}, 200),
    ({"Range": "bytes=0-9", "If-Range": "{date}"}, 206),
    ({"Range": "bytes=0-9", "If-Range": "{before}"}, 200),
    ({"Range": "bytes=0-9", "If-Range": "{after}"}, 200),
    ({"Range": "bytes=0-9", "If-Range": "junk"}, 200),
    ({"Range": "bytes=9999-", "If-Range": "{etag}"}, 416),
    ({"Range": "bytes=9999-", "If-Range": '"a"'}, 200),
    ({"Range": "bytes=9999-", "If-None-Match": "{etag}"}, 304),
    ({"If-Range": "{etag}"}, 200),
]


@pytest.mark.parametrize(("fields", "status"), CONDITIONS, ids=range(len(CONDITIONS)))
def test_conditions(
    module_server: FileServer, url: str, validators: tuple[str, str, int], fields: Mapping[str, str], status: int
) -> None:
    etag, date, modified = validators
    words = {
        "etag": etag,
        "bare": etag.strip('"'),
        "date": date,
        "before": formatdate(modified - 1, usegmt=True),
        "after": formatdate(modified + 1, usegmt=True),
        "asctime": time.asctime(time.gmtime(modified)),
        "rfc850": time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(modified)),
    }
    headers = {name: value.format(**words) for name, value in fields.items()}
    got = module_server.request("GET", url, headers=headers)
    assert got.status == status
    if status == 304:
        assert got.body == b""
        assert (got.headers["etag"], got.headers["last-modified"]) == (etag, date)
        assert "content-length" not in got.headers
    elif status == 206:
        assert got.body == BODY[:10]
    elif status == 200:
        assert got.body == BODY
    else:
        assert got.headers["content-type"] == "application/problem+json"
    if "Range" not in fields:
        assert module_server.request("HEAD", url, headers=headers).status == status


def test_validators_stay_the_same(server: FileServer) -> None:
    """Over a repeat of the upload, a restart, and in every spelling of the URL."""
    url = store(server, "stay/a.mp4", BODY)
    before = server.request("HEAD", url).headers
    store(server, "stay/a.mp4", BODY)
    server.stop()
    server.start()
    for target in (url, "/stay/a.mp4", "/download/stay/a.mp4"):
        after = server.request("HEAD", target).headers
        assert (after["etag"], after["last-modified"]) == (before["etag"], before["last-modified"])


# --- names and types -------------------------------------------------------------------------------------


def hostile_names() -> list[str]:
    """File names that break quoting, decoding, headers or eyes somewhere: more than two hundred."""
    names = [f"a{chr(code)}b" for code in range(0x20, 0x100) if chr(code) not in "/\\" and not 0x7F <= code <= 0x9F]
    names += [f"{left}{right}" for left in "\"'%;=, *" for right in "\"'%;=, *"]
    names += [
        "%2e%2e%2fetc%2fpasswd",
        "a%0d%0aSet-Cookie: x=1",
        "%00",
        "UTF-8''fake.txt",
        'x"; filename="evil.exe',
        "x'; filename*=UTF-8''evil.exe",
        "=?utf-8?q?evil=2Eexe?=",
        "naïve.txt",
        "日本語.png",
        "עברית.txt",
        "العربية.pdf",
        "👍🏽.gif",
        "👨‍👩‍👧.jpg",
        "cafe\u0301",
        "caf\u00e9",
        "\u1e9b\u0323",
        "\ufb01le",
        "a\u00a0b",
        "a\u2009b",
        "a\u3000b",
        "\U0001f600" * 50,
        "x" * 255,
        "desktop.ini",
        "-rf",
        "--help",
        "~",
        "$(id)",
        "`id`",
        "a|b",
        "a&b",
        "<script>alert(1)<script>",
        "file.tar.gz.exe",
        " lead",
        "trail ",
        "trail.",
        "...",
    ]
    return list(dict.fromkeys(names))


NAMES = hostile_names()
BATCH = 20


def shown_name(disposition: str) -> str:
    """What a reader of RFC 6266 takes as the file name: the extended parameter wins, else the quoted one."""
    match = re.fullmatch(
        r"(?:inline|attachment); filename=\"([ !#-\[\]-~]*)\"(?:; filename\*=UTF-8''([A-Za-z0-9!#$&+^`|~._%-]*))?",
        disposition,
    )
    assert match is not None, disposition
    quoted, extended = match.groups()
    if extended is None:
        return quoted
    assert re.fullmatch(r"(?:[^%]|%[0-9A-F]{2})*", extended), extended
    return unquote(extended, errors="strict")


@pytest.mark.parametrize("start", range(0, len(NAMES), BATCH))
def test_names_come_back_as_they_went_up(module_server: FileServer, start: int) -> None:
    assert len(NAMES) > 200
    for name in NAMES[start : start + BATCH]:
        target = store(module_server, f"names/{start}/{hashlib.sha1(name.encode()).hexdigest()}/{name}", b"x")
        headers = module_server.request("GET", target).headers
        assert shown_name(headers["content-disposition"]) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("photo\u202egpj.exe", "photo_gpj.exe"),
        ("a\u2066b\u2069c", "a_b_c"),
        ("a\u200fb", "a_b"),
        ("a\u2028b", "a_b"),
    ],
)
def test_marks_that_turn_names_around_are_not_shown(module_server: FileServer, name: str, shown: str) -> None:
    target = store(module_server, f"names/bidi/{name}", b"x")
    assert shown_name(module_server.request("HEAD", target).headers["content-disposition"]) == shown


INLINE = (
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "audio/mpeg",
    "audio/ogg",
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "text/plain",
    "text/plain; charset=utf-8",
    "IMAGE/PNG",
)
ATTACHED = (
    "text/html",
    "TEXT/HTML",
    "text/html; charset=utf-8",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/xml",
    "application/xml",
    "application/pdf",
    "multipart/related",
    "message/rfc822",
    "text/css",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/octet-stream",
    "application/x-shockwave-flash",
    "text/cache-manifest",
    "text/vcard",
    "image/x-icon",
    "unknown/unknown",
)


@pytest.mark.parametrize("media_type", INLINE + ATTACHED)
def test_only_harmless_types_are_shown_in_place(module_server: FileServer, media_type: str) -> None:
    """S-09: HTML, SVG, XML and PDF in the server's own origin would run as the server."""
    target = store(module_server, f"types/{media_type}/a.png".replace("; ", "-"), b"<script>", media_type)
    headers = module_server.request("GET", target).headers
    assert headers["content-type"] == media_type
    kind = "inline" if media_type in INLINE else "attachment"
    assert headers["content-disposition"] == f'{kind}; filename="a.png"'
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "sandbox" in policy.split("; ")


def test_the_download_route_always_attaches(module_server: FileServer) -> None:
    store(module_server, "types/down.png", b"x", "image/png")
    headers = module_server.request("GET", "/download/types/down.png").headers
    assert headers["content-disposition"] == 'attachment; filename="down.png"'


# --- the header fields of every route --------------------------------------------------------------------

COMMON = {"date", "access-control-allow-origin", "access-control-expose-headers", "x-content-type-options"}
FILE = COMMON | {
    "content-type",
    "content-length",
    "etag",
    "last-modified",
    "content-disposition",
    "content-security-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "accept-ranges",
    "cache-control",
}
PROBLEM = COMMON | {"content-type", "content-length", "cache-control"}


@pytest.mark.parametrize(
    ("method", "target", "headers", "status", "fields"),
    [
        ("GET", "{url}", {}, 200, FILE),
        ("HEAD", "{url}", {}, 200, FILE),
        ("GET", "{url}", {"Range": "bytes=0-1"}, 206, FILE | {"content-range"}),
        ("GET", "{url}", {"Range": "bytes=9999-"}, 416, PROBLEM | {"content-range"}),
        ("GET", "{url}", {"If-None-Match": "*"}, 304, FILE - {"content-length"}),
        ("GET", "{url}", {"If-Match": '"a"'}, 412, PROBLEM),
        ("GET", "/upload/missing", {}, 404, PROBLEM),
        ("GET", "/upload/a%2fb", {}, 400, PROBLEM | {"connection"}),
        ("PUT", "/upload/new/file", {}, 403, PROBLEM),
        ("PUT", "/upload/new/file", {"Authorization": "Bearer x"}, 401, PROBLEM | {"www-authenticate"}),
        ("PUT", "{v1}", {}, 201, COMMON | {"content-length"}),
        (
            "PUT",
            "/upload/headers/b",
            {"X-Signature": "{signature}"},
            201,
            COMMON | {"content-type", "content-length", "etag"},
        ),
        ("POST", "/upload", {"X-Signature": "{form}"}, 415, PROBLEM),
        ("POST", "/elsewhere", {}, 404, PROBLEM),
        ("DELETE", "{delete}", {}, 204, COMMON),
        ("DELETE", "/upload/headers/a", {}, 403, PROBLEM),
        ("PATCH", "/", {}, 405, PROBLEM | {"allow"}),
        (
            "OPTIONS",
            "/upload/x",
            {},
            204,
            COMMON
            | {"allow", "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age"}
            | {"upload-limit", "accept-patch"},
        ),
        ("GET", "/health", {}, 200, COMMON | {"content-type", "content-length", "cache-control"}),
        ("GET", "/ready", {}, 200, COMMON | {"content-type", "content-length", "cache-control"}),
        (
            "GET",
            "/",
            {},
            200,
            COMMON
            | {"content-type", "content-length", "cache-control", "content-security-policy", "referrer-policy"}
            | {"etag", "vary", "cross-origin-opener-policy"},
        ),
    ],
)
def test_header_fields(
    module_server: FileServer,
    url: str,
    method: str,
    target: str,
    headers: dict[str, str],
    status: int,
    fields: set[str],
) -> None:
    """A snapshot: no field appears or goes unnoticed, no route forgets CORS, none tells the server's version."""
    words = {
        "url": url,
        "v1": slots.target("headers/a", slots.v1("headers/a", 0)),
        "delete": slots.target("headers/a", slots.delete_token("headers/a")),
        "signature": slots.x_signature("/upload/headers/b"),
        "form": signatures.mac("/upload"),
    }
    sent = {name: value.format(**words) for name, value in headers.items()}
    body = b"" if method in {"PUT", "POST"} else None
    got = module_server.request(method, target.format(**words), body, sent)
    assert got.status == status
    assert set(got.headers) == fields
    assert got.headers["access-control-allow-origin"] == "*"
    assert got.headers["x-content-type-options"] == "nosniff"


def test_problems_have_one_form(module_server: FileServer) -> None:
    got = module_server.request("GET", "/upload/missing")
    problem = got.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert problem["type"] == "urn:hmac-file-server:error:not_found"
    assert (problem["status"], problem["code"]) == (404, "not_found")
    second = module_server.request("GET", "/upload/missing").json()
    assert problem["request_id"] != second["request_id"]


# --- what is not served ----------------------------------------------------------------------------------


def test_no_prefix_of_a_url_lists_anything(module_server: FileServer, url: str) -> None:
    """GHSA-qmfx-75ff-8mw6: a shortened URL is answered exactly as a random one."""

    def judged(answer: Answer) -> tuple[int, object, object]:
        document = answer.json()
        return answer.status, document["code"], document["detail"]

    random = judged(module_server.request("GET", "/upload/no-such-thing"))
    for length in range(len("/upload/"), len(url)):
        prefix = url[:length]
        assert judged(module_server.request("GET", prefix)) == random, prefix


@pytest.mark.parametrize(
    "target",
    [
        "/.hmac-file-server/state.db",
        "/upload/.hmac-file-server/state.db",
        "/download/.hmac-file-server/lock",
        "/.HMAC-FILE-SERVER/state.db",
        "/%2ehmac-file-server/state.db",
        "/.hmac-file-server%20/state.db",
        "/.hmac-file-server./state.db",
        "/.hmac%E2%80%8B-file-server/state.db",
        "/upload/../.hmac-file-server/state.db",
        "/upload/x/%2e%2e/.hmac-file-server/state.db",
    ],
)
def test_the_private_folder_is_never_served(module_server: FileServer, target: str) -> None:
    for method in ("GET", "HEAD"):
        answer = module_server.request(method, target)
        assert answer.status in {400, 404}
        assert b"SQLite" not in answer.body


def test_links_and_special_files_are_not_followed(module_server: FileServer, url: str) -> None:
    folder = module_server.storage / "planted"
    folder.mkdir()
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "inside").symlink_to(module_server.storage / "ranges" / "small.mp4")
    (folder / "folder").symlink_to(module_server.storage / "ranges")
    (folder / "private").symlink_to(module_server.storage / ".hmac-file-server")
    os.mkfifo(folder / "pipe")
    for name in ("passwd", "inside", "folder/small.mp4", "private/state.db", "pipe", ""):
        assert module_server.request("GET", f"/upload/planted/{name}").status == 404
    for name in ("passwd", "folder/new", "private/new", "pipe"):
        path = f"planted/{name}"
        answer = module_server.request("PUT", slots.target(path, slots.v1(path, 1)), b"x")
        assert answer.status == 409
    assert not (module_server.storage / "ranges" / "new").exists()
