"""Every route, with every method, with every kind of credentials: nothing that changes anything goes unsigned.

Deny by default is only worth something if no handler forgot to ask (CVE-2026-40344, CVE-2025-31489).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from tests.fixtures import slots
from tests.fixtures.server import DELETE_SECRET, SECRET, Answer, FileServer, StartServer
from tests.server import signatures
from tests.server.signatures import mac

ROUTES = (
    "/",
    "/health",
    "/ready",
    "/upload",
    "/upload/",
    "/upload/chunked",
    "/chunked-upload",
    "/upload/status",
    "/upload-status",
    "/upload/dir/file.bin",
    "/dir/file.bin",
    "/download/dir/file.bin",
    "/tus/",
    "/tus/abc",
    "/uploader.js",
    "/%75pload",
    "/upload/%64ir/file.bin",
)
WRITING = ("PUT", "POST", "DELETE")
OTHER = ("PATCH", "TRACE", "PROPFIND", "MKCOL", "COPY", "MOVE", "LOCK", "QUERY")
BODY = b"0123456789"


@dataclass(frozen=True)
class Source:
    """Credentials that must not count: a query, header fields, or both."""

    name: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def unsigned_token(claims: Mapping[str, object], header: Mapping[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}."


def bad_sources() -> Iterator[Source]:
    wrong = "another-secret-another-secret-another"
    zeros = "0" * 64
    claims: dict[str, object] = {
        "slot": "dir",
        "filename": "file.bin",
        "filesize": len(BODY),
        "exp": int(time.time()) + 300,
    }
    ticket: dict[str, object] = {
        "aud": "hmac-file-server",
        "prefix": "",
        "exp": int(time.time()) + 300,
        "ops": ["put", "upload", "create", "chunk", "delete", "download"],
    }
    yield Source("nothing")
    yield Source("basic", headers={"Authorization": "Basic YWRtaW46YWRtaW4="})
    yield Source("cookie", headers={"Cookie": "session=1; token=" + zeros})
    for parameter in ("v", "v2", "token"):
        yield Source(f"{parameter} zeros", f"{parameter}={zeros}")
        yield Source(f"{parameter} empty", f"{parameter}=")
        yield Source(f"{parameter} empty key", f"{parameter}=" + mac(f"dir/file.bin {len(BODY)}", ""))
        yield Source(f"{parameter} short", f"{parameter}={zeros[:-1]}")
    yield Source("v3 zeros", f"v3={zeros}&expires={int(time.time()) + 300}")
    yield Source("v3 without expires", f"v3={zeros}")
    yield Source("expires alone", f"expires={int(time.time()) + 300}")
    yield Source("v1 other key", slots.v1("dir/file.bin", len(BODY), wrong))
    yield Source("v2 other key", slots.v2("dir/file.bin", len(BODY), secret=wrong))
    yield Source("token other key", slots.delete_token("dir/file.bin", secret=wrong))
    yield Source("delete by put token", "token=" + mac("dir/file.bin\0", SECRET))
    yield Source("X-Signature zeros", headers={"X-Signature": zeros})
    yield Source("X-Signature empty", headers={"X-Signature": ""})
    yield Source("X-Signature other key", headers={"X-Signature": mac("/upload", wrong)})
    yield Source("X-Signature of another path", headers={"X-Signature": mac("/elsewhere", SECRET)})
    yield Source("bearer empty", headers={"Authorization": "Bearer "})
    yield Source("bearer junk", headers={"Authorization": "Bearer abc.def.ghi"})
    yield Source("bearer other key", headers={"Authorization": slots.bearer(claims, wrong)})
    yield Source("bearer alg none", headers={"Authorization": "Bearer " + unsigned_token(claims, {"alg": "none"})})
    none = unsigned_token(ticket, {"alg": "none", "typ": "ticket+jwt"})
    yield Source("ticket alg none", f"ticket={none}")
    yield Source("two sources", slots.v1("dir/file.bin", len(BODY)), {"X-Signature": zeros})
    yield Source("two parameters", slots.v1("dir/file.bin", len(BODY)) + "&v=" + zeros)
    yield Source("upper-case parameter", "V" + slots.v1("dir/file.bin", len(BODY))[1:])
    yield Source("old bearer layout", "user=alice&expiry=1700000000", {"Authorization": "Bearer 80+Jr8P+WZJyo+SLt+g="})


SOURCES = tuple(bad_sources())


@pytest.fixture(scope="module")
def stored(module_server: FileServer) -> bytes:
    """A file that all these requests would destroy or replace."""
    answer = module_server.request(
        "PUT", slots.target("dir/file.bin", slots.v1("dir/file.bin", 6)), b"stored", {"Content-Type": "text/plain"}
    )
    assert answer.status == 201
    return b"stored"


def judge(answer: Answer, context: str) -> None:
    """A refusal, in the form of every refusal, that says nothing of what would have been right."""
    assert answer.status in {401, 403}, f"{context}: {answer.status}"
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", context
    assert problem["status"] == answer.status
    assert isinstance(problem["code"], str)
    assert problem["code"]
    assert ("www-authenticate" in answer.headers) is (answer.status == 401), context
    assert answer.headers["access-control-allow-origin"] == "*", context


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_nothing_is_written_without_a_good_signature(module_server: FileServer, stored: bytes, source: Source) -> None:
    before = module_server.files()
    for route in ROUTES:
        target = route + (f"?{source.query}" if source.query else "")
        for method in WRITING:
            answer = module_server.request(method, target, BODY, source.headers)
            context = f"{method} {target} {dict(source.headers)}"
            if method == "DELETE" and route in {"/upload/chunked", "/chunked-upload"}:
                # There it is the session's id that permits, and none is named.
                assert (answer.status, answer.json()["code"]) == (400, "bad_field"), context
            elif method == "POST" and route not in {"/upload", "/%75pload"}:
                # 412: no version of tus is named (tus 1.0.0, "Tus-Version").
                assert answer.status in {401, 403, 404, 412}, f"{context}: {answer.status}"
            else:
                judge(answer, context)
    assert module_server.files() == before
    assert module_server.request("GET", "/upload/dir/file.bin").body == stored


@pytest.mark.parametrize("method", OTHER)
def test_other_methods_do_nothing(module_server: FileServer, stored: bytes, method: str) -> None:
    before = module_server.files()
    query = slots.v1("dir/file.bin", len(BODY))
    for route in ROUTES:
        for target in (route, f"{route}?{query}"):
            answer = module_server.request(method, target, BODY, {"X-Signature": mac(route, SECRET)})
            assert answer.status in {405, 501}, f"{method} {target}: {answer.status}"
    assert module_server.files() == before
    assert module_server.request("GET", "/upload/dir/file.bin").body == stored


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_never_changes_anything(module_server: FileServer, stored: bytes, method: str) -> None:
    before = module_server.files()
    for route in ROUTES:
        for source in SOURCES:
            target = route + (f"?{source.query}" if source.query else "")
            answer = module_server.request(method, target, headers=source.headers)
            assert answer.status in {200, 400, 401, 403, 404}, f"{method} {target}: {answer.status}"
    assert module_server.files() == before


def test_a_signature_for_one_method_is_none_for_another(module_server: FileServer, stored: bytes) -> None:
    """What lets a file be put does not let it be deleted, and the other way round."""
    path = "one/method.bin"
    put = slots.target(path, slots.v2(path, len(BODY)))
    assert module_server.request("DELETE", put).status == 403
    delete = slots.target(path, slots.delete_token(path))
    assert module_server.request("PUT", delete, BODY).status == 403
    assert module_server.request("POST", put, BODY).status == 404
    assert module_server.request("POST", "/upload?" + slots.v1("", len(BODY)), BODY).status == 403
    assert module_server.request("PUT", put, BODY).status == 201
    assert module_server.request("DELETE", delete).status == 204


def test_a_refused_method_names_the_allowed_ones(module_server: FileServer) -> None:
    answer = module_server.request("PATCH", "/upload/a/b.bin", b"")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, PUT, POST, DELETE, OPTIONS"


@pytest.mark.parametrize("route", ROUTES)
def test_preflight_is_answered_everywhere(module_server: FileServer, route: str) -> None:
    """OPTIONS needs no permission and gives none; without it web clients cannot upload."""
    answer = module_server.request("OPTIONS", route, headers={"Origin": "https://chat.example.org"})
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    methods = {method.strip() for method in answer.headers["access-control-allow-methods"].split(",")}
    assert {"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"} <= methods
    wanted = {"authorization", "content-type", "x-signature", "x-filename", "range"}
    assert wanted <= {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}


def test_disabled_schemes_are_refused(start_server: StartServer) -> None:
    """With one scheme enabled, the right signatures of all others are worth nothing."""
    server = start_server({"security": {"secret": SECRET, "delete_secret": DELETE_SECRET, "schemes": ["v2"]}})
    path = "a/b.bin"
    exp = int(time.time()) + 300
    claims = {"slot": "a", "filename": "b.bin", "filesize": len(BODY), "exp": exp}
    refused = [
        (slots.target(path, slots.v1(path, len(BODY))), {}),
        (slots.target(path, slots.token(path, len(BODY))), {}),
        (slots.target(path, signatures.v3("PUT", f"/upload/{path}", exp)), {}),
        (f"/upload/{path}", {"X-Signature": slots.x_signature(f"/upload/{path}")}),
        (f"/upload/{path}", {"Authorization": slots.bearer(claims)}),
    ]
    for target, headers in refused:
        answer = server.request("PUT", target, BODY, headers)
        assert (answer.status, answer.json()["code"]) == (403, "scheme_disabled"), target
    assert server.request("DELETE", slots.target(path, slots.delete_token(path))).json()["code"] == "scheme_disabled"
    assert server.files() == set()
    assert server.request("PUT", slots.target(path, slots.v2(path, len(BODY))), BODY).status == 201


def test_without_a_delete_secret_nobody_deletes_by_token(start_server: StartServer) -> None:
    server = start_server({"security": {"delete_secret": ""}})
    path = "a/b.bin"
    assert server.request("PUT", slots.target(path, slots.token(path, len(BODY))), BODY).status == 201
    for text in (f"{path}\0", path, f"{path}\0\0"):
        answer = server.request("DELETE", slots.target(path, "token=" + mac(text, SECRET)))
        assert answer.status == 403
    assert server.files() == {path}


def test_strict_signatures_refuse_the_path_alone(start_server: StartServer) -> None:
    server = start_server({"security": {"strict_signatures": True}})
    answer = server.request("PUT", "/upload/a/b.bin", BODY, {"X-Signature": slots.x_signature("/upload/a/b.bin")})
    assert (answer.status, answer.json()["code"]) == (403, "signature_too_weak")
    strong = signatures.strong("PUT", "/upload/a/b.bin", len(BODY))
    assert server.request("PUT", "/upload/a/b.bin", BODY, strong).status == 201
