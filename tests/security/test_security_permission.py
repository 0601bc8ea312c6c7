"""Nothing is begun without permission, whatever protocol it is begun in (S-05), and tokens are read with care (S-57)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sqlite3
from collections.abc import Mapping

import pytest
from tests.fixtures.server import SECRET, FileServer
from tests.server.signatures import bearer, in_future, mac, strong, ticket, token
from tests.server.test_permission_matrix import SOURCES, Source

BODY = b"0123456789"
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--b--\r\n'
TUS = {"Tus-Resumable": "1.0.0"}
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}
DRAFT = {"Upload-Draft-Interop-Version": "6"}
# Every way to begin an upload: method, target, fields, body.
BEGINNINGS: tuple[tuple[str, str, Mapping[str, str], bytes], ...] = (
    ("POST", "/tus/", {**TUS, "Upload-Length": "10"}, b""),
    ("POST", "/tus", {**TUS, "Upload-Length": "10"}, b""),
    ("POST", "/tus/", {**STREAM, "Upload-Length": "10"}, BODY),
    ("POST", "/tus/", {**STREAM, "Upload-Length": "0"}, b""),
    ("POST", "/tus/", {**TUS, "Upload-Defer-Length": "1"}, b""),
    ("POST", "/tus/", {**TUS, "Upload-Concat": "partial", "Upload-Length": "10"}, b""),
    ("POST", "/tus/", {**TUS, "Upload-Concat": "final;/tus/1_a"}, b""),
    ("POST", "/tus/", {**DRAFT, "Upload-Complete": "?1"}, BODY),
    ("POST", "/tus/", {"Upload-Incomplete": "?1"}, BODY),
    ("PUT", "/upload/dir/file.bin", {"Upload-Complete": "?0", "Upload-Length": "10"}, BODY[:5]),
    ("PUT", "/upload/dir/file.bin", {**DRAFT, "Upload-Complete": "?1"}, BODY),
    ("PUT", "/upload/dir/file.bin", {"Upload-Incomplete": "?0"}, BODY),
    ("PUT", "/dir/file.bin", {"X-HTTP-Method-Override": "GET"}, BODY),
    ("PUT", "/dir/file.bin", {"X-Upload-Session-ID": "1_a", "X-Chunk-Number": "0"}, BODY),
    ("POST", "/upload", {"Content-Type": "multipart/form-data; boundary=b", "Upload-Complete": "?1"}, FORM),
    ("POST", "/upload", {"Content-Type": "multipart/form-data; boundary=b", **DRAFT, "Upload-Complete": "?0"}, FORM),
    ("POST", "/upload", {"Content-Type": "multipart/form-data; boundary=b", "Accept": "text/html"}, FORM),
    ("POST", "/upload/chunked", {"X-Filename": "f", "X-Total-Size": "10"}, b""),
    ("PUT", "/upload/chunked", {"X-Filename": "f", "X-Total-Size": "0"}, b""),
    ("POST", "/chunked-upload", {"X-Filename": "f", "X-Total-Size": "10", "Idempotency-Key": "k"}, b""),
    ("DELETE", "/upload/dir/file.bin", {"X-HTTP-Method-Override": "GET"}, b""),
)


def sessions(server: FileServer) -> int:
    """How many uploads the server knows, of whatever state."""
    path = server.storage / ".hmac-file-server" / "uploads.db"
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        (count,) = database.execute("SELECT count(*) FROM uploads").fetchone()
    finally:
        database.close()
    return int(count)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_s_05_every_way_to_begin_an_upload_asks_the_gate(quick: FileServer, source: Source) -> None:
    """MinIO CVE-2026-40344: a kind of request that one handler forgot to ask about."""
    before = quick.files(), sessions(quick)
    for method, target, fields, body in BEGINNINGS:
        length = {} if body or method == "DELETE" else {"Content-Length": "0"}
        query = f"?{source.query}" if source.query else ""
        answer = quick.request(method, target + query, body or None, {**fields, **length, **source.headers})
        context = f"{method} {target} {dict(fields)} {source.name}: {answer.status} {answer.body[:200]!r}"
        assert answer.status in {401, 403}, context
        assert "location" not in answer.headers, context
    assert (quick.files(), sessions(quick)) == before


def test_s_05_the_same_requests_are_taken_with_permission(server: FileServer) -> None:
    """Or else the test above would show nothing. On a server of its own: what it begins is none of the others'."""
    taken = []
    for number, (method, target, fields, body) in enumerate(BEGINNINGS):
        if method == "DELETE" or "X-Upload-Session-ID" in fields or "Upload-Concat" in fields:
            continue
        place = target.replace("dir", f"permitted-{number}")
        permission = bearer(ticket(prefix="", ops=["put", "upload", "create"]))
        answer = server.request(method, place, body or None, {**fields, "Content-Length": str(len(body)), **permission})
        taken.append((answer.status, method, place, dict(fields), answer.body[:200]))
    # 104: the interim answer to a client of the drafts comes first, which this one takes for the last.
    assert {one[0] for one in taken} <= {104, 200, 201}, [one for one in taken if one[0] > 201]
    assert len(taken) > 15


def test_s_05_a_permission_for_one_route_is_none_for_another(quick: FileServer) -> None:
    """Path-only and strong X-Signatures, held against every other way to begin."""
    before = quick.files(), sessions(quick)
    for method, target, fields, body in BEGINNINGS:
        for signed in ("/", "/upload/", "/tus/x", "/upload/status", "/download/dir/file.bin", "dir/file.bin"):
            for permission in ({"X-Signature": mac(signed)}, strong(method, signed, len(body))):
                extra = {} if "X-Filename" not in fields else {"X-Filename": fields["X-Filename"]}
                answer = quick.request(
                    method, target, body or None, {"Content-Length": str(len(body)), **fields, **permission, **extra}
                )
                # 411: the strong form binds a size that the request does not say.
                assert answer.status in {403, 411}, (method, target, signed, answer.body[:200])
    assert (quick.files(), sessions(quick)) == before


def nested(depth: int, kind: str = "[") -> bytes:
    """JSON nested so deep, as the value of a claim."""
    opening, closing = (b"[", b"]") if kind == "[" else (b'{"a":', b"}")
    return (
        b'{"aud":"hmac-file-server","exp":%d,"prefix":' % in_future() + opening * depth + b"1" + closing * depth + b"}"
    )


def compact(header: bytes, payload: bytes) -> str:
    """A token of these bytes, rightly signed."""

    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    signed = f"{part(header)}.{part(payload)}"
    return f"{signed}.{part(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())}"


TOKENS = (
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', nested(2500)),
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', nested(900, "{")),
    compact(b'{"alg":"HS256","typ":"JWT"}', nested(2500)),
    compact(b'{"alg":"HS256","typ":"ticket+jwt","x":' + b"[" * 300 + b"]" * 300 + b"}", b"{}"),
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', b'{"exp":' + b"9" * 5000 + b"}"),
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', b'{"exp":1e400,"prefix":""}'),
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', b'{"aud":"hmac-file-server",' * 200),
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', b'{"prefix":"\\ud800"}'),
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', b'\xff\xfe{"prefix":""}'),
    compact(b'{"alg":"HS256","typ":"ticket+jwt"}', b"[" * 6000),
    compact(b'{"alg":"none","typ":"ticket+jwt"}', json.dumps({"prefix": "", "exp": in_future()}).encode()),
    "A" * 8000,
    "A" * 30_000,
    ".".join("A" * 2000 for _ in range(3)),
    "." * 8000,
)


@pytest.mark.parametrize("number", range(len(TOKENS)))
def test_s_57_signed_tokens_of_any_content(quick: FileServer, number: int) -> None:
    """The only JSON that is read is that of tokens: however deep and long, it is a refusal and nothing else."""
    value = TOKENS[number]
    for headers, query in ((bearer(value), ""), ({}, f"?ticket={value}")):
        answer = quick.request("PUT", f"/upload/deep/file.bin{query}", BODY, headers)
        assert answer.status in {400, 401, 414, 431}, answer.body
    assert quick.request("GET", "/health").status == 200
    assert not os.path.exists(quick.storage / "deep")


def test_s_57_claims_that_nobody_knows_are_passed_over(quick: FileServer) -> None:
    """The control: what was refused above is not refused for having something deep in it."""
    claims = {"aud": "hmac-file-server", "exp": in_future(), "prefix": "shallow", "x": [[[[1]]]]}
    permission = bearer(token(claims, {"alg": "HS256", "typ": "ticket+jwt"}))
    assert quick.request("PUT", "/upload/shallow/file.bin", BODY, permission).status == 201
