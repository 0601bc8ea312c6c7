"""Targets: what a link says, what is signed, and that nothing secret is ever shown."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server import signatures

from hmac_file_server.auth import signing
from hmac_file_server.client.target import Target, TargetError, sign

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_893_452_400.0
TICKET = "aGVhZA.eyJtYXhfc2l6ZSI6MTB9.c2lnbmVk"


def ticket_of(payload: object) -> str:
    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    return f"{part(b'{}')}.{part(json.dumps(payload).encode())}.{part(b'signature')}"


@pytest.mark.parametrize(
    ("text", "origin", "host", "port", "tls", "prefix"),
    [
        ("https://files.example.org", "https://files.example.org", "files.example.org", 443, True, ""),
        ("https://files.example.org/", "https://files.example.org", "files.example.org", 443, True, ""),
        ("http://files.example.org:80/", "http://files.example.org", "files.example.org", 80, False, ""),
        ("http://127.0.0.1:8080/a/b/", "http://127.0.0.1:8080", "127.0.0.1", 8080, False, "/a/b"),
        ("https://[::1]:8443/up", "https://[::1]:8443", "::1", 8443, True, "/up"),
        ("HTTPS://Files.Example.ORG/Up", "https://files.example.org", "files.example.org", 443, True, "/Up"),
        ("https://b\u00fccher.example/", "https://xn--bcher-kva.example", "xn--bcher-kva.example", 443, True, ""),
        ("https://h/tr\u00e8s", "https://h", "h", 443, True, "/tr%C3%A8s"),
        ("  https://h/x\n", "https://h", "h", 443, True, "/x"),
    ],
)
def test_a_base_url_is_taken_apart(text: str, origin: str, host: str, port: int, tls: bool, prefix: str) -> None:
    target = Target.parse(text)
    assert (target.origin, target.host, target.port, target.tls, target.prefix) == (origin, host, port, tls, prefix)
    assert target.kind == "none"
    assert target.path("/upload/chunked") == prefix + "/upload/chunked"
    assert target.base_url == origin + prefix
    assert f"{'https' if tls else 'http'}://{target.authority}" == origin


@pytest.mark.parametrize("form", ["https://h/up/#ticket={}", "https://h/up/?ticket={}", "https://h/up?x=1&ticket={}"])
def test_a_link_brings_its_ticket(form: str) -> None:
    target = Target.parse(form.format(TICKET))
    assert target.kind == "ticket"
    assert target.prefix == "/up"
    assert target.slot is None
    assert target.permission("POST", "/up/upload/chunked") == {"Authorization": f"Bearer {TICKET}"}
    assert TICKET not in target.base_url


def test_the_same_ticket_twice_is_one_ticket() -> None:
    target = Target.parse(f"https://h/?ticket={TICKET}#ticket={TICKET}", ticket=f" {TICKET}\n")
    assert target.kind == "ticket"


def test_a_ticket_for_a_base_url() -> None:
    assert Target.parse("https://h", ticket=TICKET).permission("POST", "/tus/") == {"Authorization": f"Bearer {TICKET}"}


@pytest.mark.parametrize(
    "url", ["https://h/u/d4e5/photo.jpg?v2=33ab", "https://h/u/d4e5/photo.jpg?v3=1&expires=2", "https://h/x?sig=1"]
)
def test_a_signed_url_is_a_slot(url: str) -> None:
    target = Target.parse(url)
    assert target.kind == "slot"
    assert target.slot == url.removeprefix("https://h")
    assert target.permission("PUT", url) == {}
    assert target.base_url == url.partition("?")[0]
    assert target.prefix == ""


@pytest.mark.parametrize(
    "text",
    [
        "", "files.example.org", "ftp://h/", "https://", "https:///x", "https://h:99999/", "https://h:0/",
        "https://h:x/", "https://user:password@h/", "https://user@h/", "https://h/a b", "https://h/%ff", "https://h/%0a",
        "https://h/?x=y", "https://h/\udcff", "https://[::1/", "https://h\u2100/", "https://h/?ticket=a&ticket=b",
        f"https://h/?ticket={TICKET}&v2=33ab", "https://h/#ticket=", "https://h/#ticket=abc",
        f"https://h/#ticket={TICKET}x=", "https://h/#ticket=" + "a" * 8200 + ".b.c", f"https://h/#ticket={TICKET}/",
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(TargetError) as refusal:
        Target.parse(text)
    assert TICKET not in str(refusal.value)
    assert "password" not in str(refusal.value).partition(" in the URL")[2]


@pytest.mark.parametrize(
    ("text", "ticket", "secret"),
    [
        ("https://h", TICKET, SECRET),
        (f"https://h/#ticket={TICKET}", None, SECRET),
        (f"https://h/#ticket={TICKET}", TICKET + "x", None),
        ("https://h/x?v2=1", None, SECRET),
        ("https://h", None, ""),
        ("https://h", "no ticket\n", None),
    ],
)
def test_contradictions_are_refused(text: str, ticket: str | None, secret: str | None) -> None:
    with pytest.raises(TargetError) as refusal:
        Target.parse(text, ticket=ticket, secret=secret)
    for private in (TICKET, SECRET):
        assert private not in str(refusal.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Target.parse("https://h", secret=SECRET),
        lambda: Target.parse("https://h", secret=SECRET.encode()),
        lambda: Target.parse(f"https://h/#ticket={TICKET}"),
        lambda: Target.parse("https://h/x?v2=0123456789abcdef0123456789abcdef"),
    ],
)
def test_nothing_secret_is_ever_shown(make: Callable[[], Target]) -> None:
    target = make()
    shown = f"{target!r} {target} {target.base_url} {target.origin} {[target]} {target.claims}"
    assert SECRET not in shown
    assert TICKET not in shown
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            write(target)


def test_a_target_cannot_be_changed() -> None:
    target = Target.parse("https://h")
    with pytest.raises(AttributeError):
        target.host = "elsewhere"
    with pytest.raises(AttributeError):
        del target.host


# ---- signatures


def test_the_documented_vector() -> None:
    signature = sign(SECRET.encode(), "POST", "/upload", "photo.jpg", 1048576, 1893456000)
    assert signature == "f4d9b9d90f2482fbd592c624db895accffe25aed00c3eb29b0e5d0f11b32de31"


def test_a_request_is_signed_for_its_method_path_name_size_and_an_hour() -> None:
    target = Target.parse("https://h", secret=SECRET, clock=lambda: NOW)
    fields = target.permission("POST", "/upload", size=1048576, filename="photo.jpg")
    assert fields == {
        "X-Signature": "f4d9b9d90f2482fbd592c624db895accffe25aed00c3eb29b0e5d0f11b32de31",
        "X-Signature-Expires": "1893456000",
    }


def test_every_request_is_signed_anew() -> None:
    now = [NOW]
    target = Target.parse("https://h", secret=SECRET, clock=lambda: now[0])
    first = target.permission("PUT", "/upload/chunked", size=5)
    now[0] += 1
    second = target.permission("PUT", "/upload/chunked", size=5)
    assert first["X-Signature"] != second["X-Signature"]
    assert int(second["X-Signature-Expires"]) == int(first["X-Signature-Expires"]) + 1


def test_the_path_is_signed_decoded_and_without_its_query() -> None:
    target = Target.parse("https://h/tr%c3%a8s", secret=SECRET, clock=lambda: NOW)
    fields = target.permission("GET", target.path("/a%20b?session_id=1"))
    expected = signing.x_signature_strong(SECRET.encode(), "GET", "/tr\u00e8s/a b", "", 0, int(NOW) + 3600)
    assert fields["X-Signature"] == expected


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]),
    path=st.text(st.characters(exclude_categories=("Cc", "Cs"))),
    name=st.text(st.characters(exclude_categories=("Cc", "Cs"))),
    size=st.integers(0, 10**19 - 1),
    expires=st.integers(0, 10**19 - 1),
)
def test_what_the_client_signs_is_what_the_server_signs(
    method: str, path: str, name: str, size: int, expires: int
) -> None:
    ours = sign(SECRET.encode(), method, "/" + path, name, size, expires)
    assert ours == signing.x_signature_strong(SECRET.encode(), method, "/" + path, name, size, expires)
    assert ours == signatures.mac(
        "\0".join(("hmac-file-server X-Signature 2", method, "/" + path, name, str(size), str(expires))), SECRET
    )


@pytest.mark.parametrize(
    ("method", "path", "name", "size", "expires"),
    [
        ("PUT", "x", "", 0, 0), ("PUT", "/\0", "", 0, 0), ("PUT", "/", "a\nb", 0, 0), ("PUT", "/", "", -1, 0),
        ("PUT", "/", "", 0, 10**19), ("", "/", "", 0, 0), ("P\0T", "/", "", 0, 0), ("PUT", "/\x85", "", 0, 0),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_not_signed(
    method: str, path: str, name: str, size: int, expires: int
) -> None:
    with pytest.raises(ValueError):
        sign(SECRET.encode(), method, path, name, size, expires)


# ---- other origins


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere/tus/1", "http://h/tus/1", "https://h:8443/tus/1", "//elsewhere/tus/1", "https://h.evil/x",
        "https://h@evil/x", "ftp://h/x", "https://[h/x", "", "relative",
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", [Target.parse("https://h", ticket=TICKET), Target.parse("https://h", secret=SECRET)])
def test_nothing_is_told_to_another_origin(target: Target, url: str) -> None:
    assert target.permission("PATCH", url, size=1) == {}


@pytest.mark.parametrize("url", ["https://h/tus/1", "https://H:443/tus/1", "/tus/1", "https://h"])
def test_the_same_origin_in_another_spelling_is_told(url: str) -> None:
    assert Target.parse("https://h", ticket=TICKET).permission("PATCH", url)


@pytest.mark.parametrize(
    ("location", "meant"),
    [
        ("1_abc", "https://h:8443/up/tus/1_abc"),
        ("/up/tus/1_abc", "https://h:8443/up/tus/1_abc"),
        ("https://other/x?y=1", "https://other/x?y=1"),
        ("//other/x", "https://other/x"),
        ("../x", "https://h:8443/up/x"),
    ],
)
def test_a_location_is_relative_to_its_request(location: str, meant: str) -> None:
    assert Target.parse("https://h:8443/up").resolve("/up/tus/", location) == meant


@pytest.mark.parametrize(
    "location", ["ftp://h/x", "http://", "https://h:x/", "a b", "x\r\ny", "javascript:x", "https://[h"]
)
def test_a_location_that_is_no_url_is_refused(location: str) -> None:
    with pytest.raises(TargetError):
        Target.parse("https://h").resolve("/tus/", location)


# ---- claims


def test_what_a_ticket_says_of_itself() -> None:
    claims = {"max_size": 10, "files": 2, "exp": 99, "prefix": "alice", "ops": ["upload", "create", 7]}
    told = Target.parse("https://h", ticket=ticket_of(claims)).claims
    assert told is not None
    assert (told.max_size, told.files, told.expires, told.prefix) == (10, 2, 99, "alice")
    assert told.operations == {"upload", "create"}


def test_the_tickets_of_this_server_are_read() -> None:
    ticket = signatures.ticket(prefix="", max_size=5, ops=["create"])
    told = Target.parse("https://h", ticket=ticket).claims
    assert told is not None
    assert told.max_size == 5


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["max_size", "files", "exp", "prefix", "ops"]) | st.text(), inner)))  # fmt: skip
def test_any_payload_is_survived(payload: object) -> None:
    told = Target.parse("https://h", ticket=ticket_of(payload)).claims
    assert (told is not None) == isinstance(payload, dict)


@given(st.text())
def test_any_text_is_a_target_or_refused(text: str) -> None:
    for candidate in (text, f"https://h/{text}", f"https://h/#{text}", f"https://{text}"):
        try:
            target = Target.parse(candidate)
        except TargetError:
            continue
        assert target.origin.isascii()
        assert target.prefix.isascii()
        assert "\n" not in target.authority
