"""PUT by every slot scheme, in the message forms of the published vectors: what is stored, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

import pytest
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, StartServer
from tests.server import signatures
from tests.server.wire import Wire

Request = tuple[str, Mapping[str, str]]
"""Target and headers."""


def by_v1(path: str, size: int, media_type: str) -> Request:
    return slots.target(path, slots.v1(path, size)), {"Content-Type": media_type}


def by_v1_whole(path: str, size: int, media_type: str) -> Request:
    """As the Go hmac-file-server signs: the whole URL path."""
    return slots.target(path, slots.v1(f"upload/{path}", size)), {"Content-Type": media_type}


def by_v2(path: str, size: int, media_type: str) -> Request:
    return slots.target(path, slots.v2(path, size, media_type)), {"Content-Type": media_type}


def by_token(path: str, size: int, media_type: str) -> Request:
    return slots.target(path, slots.token(path, size, media_type)), {"Content-Type": media_type}


def by_v3(path: str, size: int, media_type: str) -> Request:
    query = signatures.v3("PUT", f"/upload/{path}", signatures.in_future())
    return slots.target(path, query), {"Content-Type": media_type}


def by_prosody(path: str, size: int, media_type: str) -> Request:
    slot, _, filename = path.partition("/")
    claims: dict[str, object] = {
        "slot": slot,
        "filename": filename,
        "filesize": size,
        "filetype": media_type,
        "sub": "alice@example.org",
        "exp": signatures.in_future(),
    }
    return "/upload/" + quote(path), {"Content-Type": media_type, "Authorization": slots.bearer(claims)}


def by_x_signature(path: str, size: int, media_type: str) -> Request:
    return "/upload/" + quote(path), {
        "Content-Type": media_type,
        "X-Signature": slots.x_signature(f"/upload/{path}"),
    }


def by_strong_signature(path: str, size: int, media_type: str) -> Request:
    headers = signatures.strong("PUT", f"/upload/{path}", size)
    return "/upload/" + quote(path), {"Content-Type": media_type, **headers}


def by_ticket(path: str, size: int, media_type: str) -> Request:
    token = signatures.ticket(path=path, max_size=size, type=media_type)
    return "/upload/" + quote(path), {"Content-Type": media_type, **signatures.bearer(token)}


def by_ticket_in_query(path: str, size: int, media_type: str) -> Request:
    return slots.target(path, "ticket=" + signatures.ticket(prefix="")), {"Content-Type": media_type}


Scheme = Callable[[str, int, str], Request]
SLOTS: tuple[Scheme, ...] = (by_v1, by_v1_whole, by_v2, by_token, by_v3, by_prosody)
OTHERS: tuple[Scheme, ...] = (by_x_signature, by_strong_signature, by_ticket, by_ticket_in_query)
SCHEMES = SLOTS + OTHERS
BIND_SIZE = (by_v1, by_v1_whole, by_v2, by_token, by_prosody, by_strong_signature)

# The odd names of the reference's section 5.4, and what phones call their pictures.
NAMES = (
    "bar.jpg",
    "très cool.jpg",
    "a+b&c%20 (1).txt",
    "50% off#?;=@~!$'*.tar.gz",
    "日本.png",
    "noext",
    "...",
    "..a",
    " leading and trailing ",
    "IMG_20250717 👨‍👩‍👧.heic",
    "A" * 200,
    "ü" * 127,
)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.__name__)
@pytest.mark.parametrize("size", [0, 1, 10_240, 300_000])
def test_a_file_goes_up_and_comes_back(module_server: FileServer, scheme: Scheme, size: int) -> None:
    path = f"{scheme.__name__}-{size}/photo.jpg"
    body = content(size, path)
    target, headers = scheme(path, size, "image/jpeg")
    created = module_server.request("PUT", target, body, headers)
    assert created.status == 201, created.body
    if scheme in SLOTS:
        # XMPP clients are told 201 and nothing else.
        assert created.body == b""
    else:
        receipt = created.json()
        assert (receipt["success"], receipt["filename"], receipt["size"]) == (True, "photo.jpg", size)
        assert module_server.request("GET", str(receipt["url"])).body == body
        assert created.headers["etag"] == module_server.request("HEAD", f"/upload/{path}").headers["etag"]
    for url in (f"/upload/{path}", f"/{path}"):
        got = module_server.request("GET", url)
        assert (got.status, got.body == body) == (200, True)
        assert got.headers["content-type"] == "image/jpeg"
        assert got.headers["content-disposition"] == 'inline; filename="photo.jpg"'


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", [by_v1, by_v2, by_prosody, by_v3, by_x_signature], ids=lambda s: s.__name__)
def test_odd_names_are_kept(module_server: FileServer, scheme: Scheme, name: str) -> None:
    path = f"odd-{scheme.__name__}/{name}"
    target, headers = scheme(path, 3, "image/png")
    assert module_server.request("PUT", target, b"odd", headers).status == 201
    assert (module_server.storage / path).read_bytes() == b"odd"
    assert module_server.request("GET", "/upload/" + quote(path)).body == b"odd"
    # Every spelling of one path is one file: escapes in lower case, and as few of them as RFC 3986 allows.
    assert module_server.request("GET", "/upload/" + quote(path, safe="/!$&'()*+,;=:@~")).body == b"odd"
    lower = "/upload/" + "".join(f"%{byte:02x}" if byte != 0x2F else "/" for byte in path.encode())
    assert module_server.request("GET", lower).body == b"odd"


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.__name__)
@pytest.mark.parametrize("size", [5, 200_000])
def test_the_same_again_is_201_and_other_bytes_409(module_server: FileServer, scheme: Scheme, size: int) -> None:
    path = f"again-{scheme.__name__}-{size}/f.bin"
    body = content(size, path)
    other = content(size, path + "other")
    target, headers = scheme(path, size, "image/png")
    first = module_server.request("PUT", target, body, headers)
    assert first.status == 201
    etag = module_server.request("HEAD", f"/upload/{path}").headers["etag"]
    for _ in range(2):
        repeat = module_server.request("PUT", target, body, headers)
        assert (repeat.status, repeat.body) == (201, first.body)
        conflict = module_server.request("PUT", target, other, headers)
        assert (conflict.status, conflict.json()["code"]) == (409, "exists")
    got = module_server.request("GET", f"/upload/{path}")
    assert (got.body == body, got.headers["etag"]) == (True, etag)


@pytest.mark.parametrize("scheme", BIND_SIZE, ids=lambda scheme: scheme.__name__)
@pytest.mark.parametrize("delta", [-16, -1, 1, 16, 1 << 40])
def test_another_size_is_refused_before_the_body(module_server: FileServer, scheme: Scheme, delta: int) -> None:
    path = f"size-{scheme.__name__}-{delta}/f.bin"
    target, headers = scheme(path, 1000, "image/png")
    with Wire(module_server) as wire:
        wire.head("PUT", target, {**headers, "Content-Length": str(1000 + delta), "Expect": "100-continue"})
        answer = wire.next_answer()
    # The HMAC covers the size; the token only names it.
    expected = (413, "size_mismatch") if scheme is by_prosody else (403, "bad_signature")
    assert (answer.status, answer.json()["code"]) == expected
    assert module_server.request("GET", f"/upload/{path}").status == 404


@pytest.mark.parametrize("scheme", BIND_SIZE, ids=lambda scheme: scheme.__name__)
@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_short_body_is_no_file(module_server: FileServer, scheme: Scheme, size: int) -> None:
    """The client ends its side early: it is told so, and nothing is there; the same slot is good for a retry."""
    path = f"short-{scheme.__name__}-{size}/f.bin"
    body = content(size, path)
    target, headers = scheme(path, size, "image/png")
    with Wire(module_server) as wire:
        wire.head("PUT", target, {**headers, "Content-Length": str(size)})
        wire.send(body[:-1])
        wire.sock.shutdown(1)
        answer = wire.answer()
    assert (answer.status, answer.json()["code"]) == (400, "incomplete")
    assert module_server.request("GET", f"/upload/{path}").status == 404
    assert module_server.request("PUT", target, body, headers).status == 201


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.__name__)
def test_without_any_length(module_server: FileServer, scheme: Scheme) -> None:
    """No Content-Length and not chunked is an empty body in HTTP; a file is not created by omission."""
    target, headers = scheme(f"no-length-{scheme.__name__}/f.bin", 10, "image/png")
    with Wire(module_server) as wire:
        wire.head("PUT", target, headers)
        answer = wire.answer()
    assert (answer.status, answer.json()["code"]) == (411, "length_required")


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.__name__)
def test_chunked_bodies(module_server: FileServer, scheme: Scheme) -> None:
    """Refused where the signature binds the length; elsewhere the file is what was decoded."""
    path = f"chunked-{scheme.__name__}/f.bin"
    body = content(100_000, path)
    target, headers = scheme(path, len(body), "image/png")
    with Wire(module_server) as wire:
        wire.head("PUT", target, {**headers, "Transfer-Encoding": "chunked"})
        if scheme in BIND_SIZE:
            answer = wire.answer()
            if scheme is by_prosody:
                assert (answer.status, answer.json()["code"]) == (413, "size_mismatch")
            else:
                assert (answer.status, answer.json()["code"]) == (411, "length_required")
            return
        for start in range(0, len(body), 7_919):
            piece = body[start : start + 7_919]
            wire.send(b"%x;note=1\r\n%b\r\n" % (len(piece), piece))
        wire.send(b"0\r\nX-Signature: 00\r\n\r\n")
        assert wire.answer().status == 201
    assert module_server.request("GET", f"/upload/{path}").body == body


@pytest.mark.parametrize("scheme", [by_v2, by_token], ids=lambda scheme: scheme.__name__)
def test_the_type_is_bound(module_server: FileServer, scheme: Scheme) -> None:
    """v2 and token sign the Content-Type as it is sent, with its parameters; none means octet-stream."""
    path = f"typed-{scheme.__name__}/a.txt"
    target, _ = scheme(path, 12, "text/plain; charset=utf-8")
    for other in ("text/plain", "text/plain;charset=utf-8", "text/html", "TEXT/plain; charset=utf-8", ""):
        headers = {"Content-Type": other} if other else {}
        answer = module_server.request("PUT", target, b"twelve bytes", headers)
        assert (answer.status, answer.json()["code"]) == (403, "bad_signature"), other
    right = {"Content-Type": "text/plain; charset=utf-8"}
    assert module_server.request("PUT", target, b"twelve bytes", right).status == 201
    assert module_server.request("HEAD", f"/upload/{path}").headers["content-type"] == "text/plain; charset=utf-8"
    path = f"typed-{scheme.__name__}/none"
    target, _ = scheme(path, 3, "application/octet-stream")
    assert module_server.request("PUT", target, b"abc").status == 201
    assert module_server.request("HEAD", f"/upload/{path}").headers["content-type"] == "application/octet-stream"


def test_a_bound_type_that_is_none_is_not_served(module_server: FileServer) -> None:
    """Clients of XMPP servers ask for slots with any text as type; readers get one that is one."""
    for scheme in (by_v2, by_token, by_prosody):
        path = f"typed-none-{scheme.__name__}/a.bin"
        target, headers = scheme(path, 3, "no type at all")
        assert module_server.request("PUT", target, b"abc", headers).status == 201
        head = module_server.request("HEAD", f"/upload/{path}").headers
        assert head["content-type"] == "application/octet-stream"
        assert head["content-disposition"].startswith("attachment")


def test_a_prosody_token_says_the_type(module_server: FileServer) -> None:
    """As Prosody's own receiver: another Content-Type is let through, and GET gives the slot's."""
    target, headers = by_prosody("typed-jwt/a.jpg", 3, "image/jpeg")
    sent = {**headers, "Content-Type": "text/html"}
    assert module_server.request("PUT", target, b"abc", sent).status == 201
    assert module_server.request("HEAD", "/upload/typed-jwt/a.jpg").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("image/png", 201),
        ('image/png; q=1; x="a;b"', 201),
        ("nonsense", 400),
        ("text/", 400),
        ("text/html\x0b", 400),
        ("a/b, c/d", 400),
        ("x/" + "y" * 300, 400),
        ("text/html; charset=\xe9", 400),
    ],
)
def test_what_is_no_media_type_is_refused(module_server: FileServer, value: str, status: int) -> None:
    path = f"media/{abs(hash(value))}.bin"
    target = slots.target(path, slots.v1(path, 3))
    with Wire(module_server) as wire:
        wire.send(
            f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Type: {value}\r\n\r\nabc".encode(
                "latin-1"
            )
        )
        answer = wire.answer()
    assert answer.status == status
    assert module_server.request("HEAD", f"/upload/{path}").status == (200 if status == 201 else 404)


def test_type_and_name_by_extension_when_none_is_sent(module_server: FileServer) -> None:
    for name, media_type, kind in (
        ("a.jpg", "image/jpeg", "inline"),
        ("a.html", "text/html", "attachment"),
        ("a.svg", "image/svg+xml", "attachment"),
        ("a.pdf", "application/pdf", "attachment"),
        ("a.unknown", "application/octet-stream", "attachment"),
        ("a", "application/octet-stream", "attachment"),
    ):
        path = f"by-extension/{name}"
        assert module_server.request("PUT", slots.target(path, slots.v1(path, 1)), b"x").status == 201
        headers = module_server.request("HEAD", f"/upload/{path}").headers
        assert headers["content-type"] == media_type
        assert headers["content-disposition"] == f'{kind}; filename="{name}"'


def test_expired_permissions(module_server: FileServer) -> None:
    """From the second named on, void: no User-Agent, no proxy header and no parameter widens it."""
    past = signatures.in_future(-1)
    wide = {"User-Agent": "bot android client", "X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"}
    path = "expired/f.bin"
    v3 = slots.target(path, signatures.v3("PUT", f"/upload/{path}", past) + "&resume_allowed=true")
    answer = module_server.request("PUT", v3, b"abc", wide)
    assert (answer.status, answer.json()["code"]) == (403, "signature_expired")
    strong = signatures.strong("PUT", f"/upload/{path}", 3, expires=past)
    answer = module_server.request("PUT", f"/upload/{path}", b"abc", {**wide, **strong})
    assert (answer.status, answer.json()["code"]) == (403, "signature_expired")
    claims: dict[str, object] = {"slot": "expired", "filename": "f.bin", "filesize": 3, "exp": past}
    answer = module_server.request("PUT", f"/upload/{path}", b"abc", {**wide, "Authorization": slots.bearer(claims)})
    assert (answer.status, answer.json()["code"]) == (410, "slot_expired")
    ticket = signatures.bearer(signatures.ticket(path=path, exp=past))
    answer = module_server.request("PUT", f"/upload/{path}", b"abc", {**wide, **ticket})
    assert (answer.status, answer.json()["code"]) == (401, "token_expired")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_strong_signature_binds_every_part(module_server: FileServer) -> None:
    path, body = "/upload/strong/f.bin", b"0123456789"
    good = signatures.strong("PUT", path, len(body), "naïve.txt".encode().decode("latin-1"))
    others: list[tuple[str, bytes, dict[str, str]]] = [
        ("/upload/strong/g.bin", body, good),
        ("/strong/f.bin", body, good),
        (path, body + b"x", good),
        (path, body, {**good, "X-Filename": "other.txt"}),
        (path, body, {key: value for key, value in good.items() if key != "X-Filename"}),
        (path, body, {**good, "X-Signature-Expires": str(signatures.in_future(900))}),
        (path, body, signatures.strong("POST", path, len(body))),
    ]
    for target, sent, headers in others:
        answer = module_server.request("PUT", target, sent, headers)
        assert (answer.status, answer.json()["code"]) == (403, "bad_signature"), headers
    headers = signatures.strong("PUT", path, len(body), "holiday.txt")
    receipt = module_server.request("PUT", path, body, headers)
    assert (receipt.status, receipt.json()["filename"]) == (201, "holiday.txt")
    assert 'filename="holiday.txt"' in module_server.request("HEAD", path).headers["content-disposition"]


@pytest.mark.parametrize(
    "target",
    [
        "/upload/../../etc/passwd",
        "/upload/a/%2e%2e/b",
        "/upload/a%2fb",
        "/upload/a%5cb",
        "/upload/a%00b",
        "/upload/a%0ab",
        "/upload//a",
        "/upload/a/./b",
        "/upload/.hmac-file-server/state.db",
        "/.hmac-file-server/state.db",
        "/upload/.HMAC-file-server/lock",
        "/upload/a/",
        "/upload/" + "a" * 256,
        "/upload/" + "/".join(["a" * 100] * 11),
        "/upload/%ff%fe",
        "/upload/%ed%a0%80",
    ],
)
def test_paths_that_lead_elsewhere(module_server: FileServer, target: str) -> None:
    """Refused with 400 or 403 even under a signature that was made for exactly this spelling."""
    before = module_server.files()
    for text in {target, target.removeprefix("/upload"), target.removeprefix("/upload/")}:
        for headers, query in (({"X-Signature": signatures.mac(text)}, ""), ({}, "?" + slots.v1(text, 1))):
            answer = module_server.request("PUT", target + query, b"x", headers)
            assert answer.status in {400, 403}, f"{target}{query}: {answer.status}"
    assert module_server.request("GET", target).status in {400, 404}
    assert module_server.files() == before


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/upload", "/upload/status", "/upload-status", "/uploader.js"]
)
def test_no_file_takes_the_place_of_an_endpoint(module_server: FileServer, path: str) -> None:
    before = module_server.files()
    answer = module_server.request("PUT", path, b"x", {"X-Signature": slots.x_signature(path)})
    assert (answer.status, answer.json()["code"]) == (405, "method_not_allowed")
    assert module_server.files() == before


def test_a_directory_is_no_place_for_a_file(module_server: FileServer) -> None:
    assert module_server.request("PUT", slots.target("dir/a/b", slots.v1("dir/a/b", 1)), b"x").status == 201
    for path in ("dir/a", "dir/a/b/c"):
        answer = module_server.request("PUT", slots.target(path, slots.v1(path, 1)), b"x")
        assert (answer.status, answer.json()["code"]) == (409, "exists")
        answer = module_server.request("PUT", slots.target(path, slots.v1(path, 100_000)), bytes(100_000))
        assert (answer.status, answer.json()["code"]) == (409, "exists")
    for path in ("dir/a", "dir", "dir/a/b/c", "dir/a/b/"):
        assert module_server.request("GET", f"/upload/{path}").status == 404


def test_limits_of_size(start_server: StartServer) -> None:
    server = start_server({"server": {"max_upload_size": "1MB"}})
    limit = 1 << 20
    for size, status in ((limit - 1, 201), (limit, 201), (limit + 1, 413), (10**18, 413)):
        path = f"limit/{size}"
        with Wire(server) as wire:
            wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
            if status == 201:
                wire.send(bytes(size))
            answer = wire.answer()
        assert answer.status == status
        if status == 413:
            assert answer.json()["code"] == "too_large"
    # Without a length the limit holds for what is decoded.
    for size, status in ((limit, 201), (limit + 1, 413)):
        target, headers = by_v3(f"limit/chunked-{size}", size, "image/png")
        with Wire(server) as wire:
            wire.head("PUT", target, {**headers, "Transfer-Encoding": "chunked"})
            for _ in range(size // 65536):
                wire.send(b"10000\r\n" + bytes(65536) + b"\r\n")
            wire.send((b"1\r\nx\r\n" if size % 65536 else b"") + b"0\r\n\r\n")
            answer = wire.answer()
        assert answer.status == status, answer.body
    assert server.files() == {f"limit/{limit - 1}", f"limit/{limit}", f"limit/chunked-{limit}"}


def test_allowed_extensions(start_server: StartServer) -> None:
    server = start_server({"uploads": {"allowed_extensions": [".jpg", "PNG"]}})
    for name, status in (
        ("a.jpg", 201),
        ("a.JPG", 201),
        ("a.png", 201),
        ("a.gif", 415),
        ("jpg", 415),
        ("a.jpg.exe", 415),
    ):
        path = f"ext/{name}"
        answer = server.request("PUT", slots.target(path, slots.v1(path, 1)), b"x")
        assert answer.status == status, name
        if status == 415:
            assert answer.json()["code"] == "extension_refused"


def test_partial_puts_are_refused(module_server: FileServer) -> None:
    """A PUT with Content-Range would store a part as if it were the whole (RFC 9110 section 14.5)."""
    path = "partial/f.bin"
    answer = module_server.request(
        "PUT", slots.target(path, slots.v1(path, 3)), b"abc", {"Content-Range": "bytes 0-2/9"}
    )
    assert (answer.status, answer.json()["code"]) == (415, "coding_refused")
    assert module_server.request("HEAD", f"/upload/{path}").status == 404


def test_content_coding_is_kept_as_bytes(module_server: FileServer) -> None:
    """A body is never decompressed: what was sent is what is stored (S-16)."""
    path, body = "coded/f.bin", b"\x1f\x8b not gzip at all"
    answer = module_server.request(
        "PUT", slots.target(path, slots.v1(path, len(body))), body, {"Content-Encoding": "gzip"}
    )
    assert answer.status in {201, 415}
    if answer.status == 201:
        got = module_server.request("GET", f"/upload/{path}")
        assert (got.body, got.headers.get("content-encoding")) == (body, None)


def test_a_new_key_is_taken_and_the_old_one_for_a_while(start_server: StartServer) -> None:
    new, old = "new-secret-new-secret-new-secret", "old-secret-old-secret-old-secret"
    server = start_server({"security": {"secret": [new, old]}})
    for secret, status in ((new, 201), (old, 201), ("gone-secret-gone-secret-gone", 403)):
        path = f"rotation/{secret[:3]}"
        assert server.request("PUT", slots.target(path, slots.v1(path, 1, secret)), b"x").status == status
