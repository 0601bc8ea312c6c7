"""Tokens: Prosody's and ours, and that neither passes for the other."""

import hashlib
import hmac
import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.auth.heads import NOW, SECRET, Head, StoppedClock, gate, granted, put, refused

from hmac_file_server.auth import Grant, Operation, signing
from hmac_file_server.auth.jws import LONGEST_TOKEN
from hmac_file_server.auth.keys import key_id

EXP = int(NOW) + 300
SLOT = {
    "slot": "gItcXWEU7YX3noDLNIJtrijJ",
    "iat": int(NOW),
    "exp": EXP,
    "sub": "alice@localhost",
    "filename": "très cool.jpg",
    "filesize": 23456,
    "filetype": "image/jpeg",
    "expires": int(NOW) + 604800,
}
SLOT_PATH = "/share/gItcXWEU7YX3noDLNIJtrijJ/très cool.jpg"
TICKET: dict[str, Any] = {"prefix": "", "exp": EXP}


def encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def forged(header: object, claims: object, secret: bytes = SECRET, digest: str = "sha256") -> str:
    """A token with any header and payload, rightly signed."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = f"{encoded(head)}.{encoded(body)}"
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), digest))}"


def bearer(token: str, path: str = SLOT_PATH, method: str = "PUT", size: int | None = 23456, **more: str) -> Head:
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
    return Head(method, path, b"", size, {b"authorization": b"Bearer " + token.encode(), **fields})


def without(claims: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name not in names}


# Prosody's


def test_a_slot_token_grants_what_it_says() -> None:
    grant = granted(gate().authorise(bearer(signing.prosody_jwt(SECRET, SLOT)), Operation.PUT))
    assert grant == Grant(
        scheme="prosody-jwt",
        key_id=key_id(SECRET),
        form="relative",
        owner="alice@localhost",
        exact_size=23456,
        media_type="image/jpeg",
        filename="très cool.jpg",
        file_expires=float(int(NOW) + 604800),
        until=float(EXP),
    )


def test_optional_claims_may_be_missing() -> None:
    token = signing.prosody_jwt(SECRET, without(SLOT, "sub", "filetype", "expires", "iat"))
    grant = granted(gate().authorise(bearer(token), Operation.PUT))
    assert (grant.owner, grant.media_type, grant.file_expires) == (None, None, None)


@pytest.mark.parametrize("missing", ["slot", "filename", "filesize", "exp"])
def test_required_claims_may_not(missing: str) -> None:
    token = signing.prosody_jwt(SECRET, without(SLOT, missing))
    refused(gate().authorise(bearer(token), Operation.PUT), "bad_token", "malformed")


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("slot", ["", 5, None, ["x"], "a" * 256]),
        ("filename", ["", 5, None, {}]),
        ("filesize", [-1, 1.5, "5", True, None, 2**63, 1e300]),
        ("exp", [-1, 1.5, "5", True, None, 2**63, [EXP]]),
        ("expires", [-1, 1.5, "5", False]),
        ("sub", ["", 5, "a\nb", "a\0b", "x" * 3000]),
        ("filetype", [5, ["image/png"]]),
    ],
)
def test_claims_of_another_type_are_malformed(claim: str, values: list[Any]) -> None:
    for value in values:
        token = signing.prosody_jwt(SECRET, {**SLOT, claim: value})
        refused(gate().authorise(bearer(token), Operation.PUT), "bad_token", "malformed")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999", "[" * 3000, "1" * 5000])
def test_numbers_that_are_none(constant: str) -> None:
    body = json.dumps(SLOT).replace(str(EXP), constant).encode()
    token = forged({"alg": "HS256", "typ": "JWT"}, body)
    refused(gate().authorise(bearer(token), Operation.PUT), "bad_token", "malformed")


def test_whole_numbers_may_be_written_as_lua_does() -> None:
    token = signing.prosody_jwt(SECRET, {**SLOT, "filesize": 23456.0, "exp": float(EXP)})
    assert granted(gate().authorise(bearer(token), Operation.PUT)).exact_size == 23456


@pytest.mark.parametrize("filetype", ["text/html\r\nX: y", "", "日本/語", "a" * 300, " x"])
def test_a_type_that_cannot_stand_in_a_header_is_octet_stream(filetype: str) -> None:
    token = signing.prosody_jwt(SECRET, {**SLOT, "filetype": filetype})
    assert granted(gate().authorise(bearer(token), Operation.PUT)).media_type == "application/octet-stream"


def test_another_content_type_is_accepted_as_prosody_does_and_the_slots_counts() -> None:
    token = signing.prosody_jwt(SECRET, SLOT)
    head = bearer(token, content_type="text/html")
    assert granted(gate().authorise(head, Operation.PUT)).media_type == "image/jpeg"


def test_the_slot_expires_to_the_second_and_says_410() -> None:
    clock = StoppedClock(EXP - 0.001)
    judge = gate(clock=clock)
    head = bearer(signing.prosody_jwt(SECRET, SLOT))
    granted(judge.authorise(head, Operation.PUT))
    clock.now = EXP
    refusal = refused(judge.authorise(head, Operation.PUT), "slot_expired", "expired")
    assert (refusal.status, refusal.challenge) == (410, None)
    forged_head = bearer(forged({"alg": "HS256", "typ": "JWT"}, SLOT, b"q" * 32))
    refused(judge.authorise(forged_head, Operation.PUT), "bad_token", "unknown_key")


@pytest.mark.parametrize(
    "path",
    [
        "/share/gItcXWEU7YX3noDLNIJtrijK/très cool.jpg",
        "/share/gItcXWEU7YX3noDLNIJtrijJ/other.jpg",
        "/share/gItcXWEU7YX3noDLNIJtrijJ",
        "/share/gItcXWEU7YX3noDLNIJtrijJ/",
        "/share/gItcXWEU7YX3noDLNIJtrijJ/x/très cool.jpg",
        "/share/x/gItcXWEU7YX3noDLNIJtrijJ/très cool.jpg",
        "/other/gItcXWEU7YX3noDLNIJtrijJ/très cool.jpg",
        "/",
    ],
)
def test_a_slot_token_is_for_one_path(path: str) -> None:
    token = signing.prosody_jwt(SECRET, SLOT)
    refusal = refused(gate().authorise(bearer(token, path), Operation.PUT), "not_covered", "path")
    assert (refusal.status, refusal.challenge) == (403, None)


def test_a_slot_token_below_any_base_path() -> None:
    token = signing.prosody_jwt(SECRET, SLOT)
    for prefix in ("/", "/share/", "/upload/"):
        head = bearer(token, prefix + "gItcXWEU7YX3noDLNIJtrijJ/très cool.jpg")
        granted(gate().authorise(head, Operation.PUT))
    refused(gate(base_paths=("/share/",)).authorise(bearer(token, "/x/y"), Operation.PUT), "not_covered")


def test_the_size_is_in_the_token_so_a_chunked_body_is_bounded_too() -> None:
    head = bearer(signing.prosody_jwt(SECRET, SLOT), size=None)
    assert granted(gate().authorise(head, Operation.PUT)).exact_size == 23456
    head = bearer(signing.prosody_jwt(SECRET, SLOT), size=5)
    assert granted(gate().authorise(head, Operation.PUT)).exact_size == 23456, "413 is the upload flow's to say"


# Ours


def test_a_ticket_grants_what_it_says() -> None:
    claims = {
        "prefix": "alice",
        "exp": EXP,
        "max_size": 5_000_000_000,
        "type": "image/png",
        "files": 3,
        "ops": ["put", "delete"],
        "sub": "alice@example.org",
        "jti": "AbC-1_2",
        "file_expires": EXP + 9,
    }
    head = bearer(signing.ticket(SECRET, claims), "/upload/alice/a.png", content_type="image/png")
    assert granted(gate().authorise(head, Operation.PUT)) == Grant(
        scheme="ticket",
        key_id=key_id(SECRET),
        form="relative",
        owner="alice@example.org",
        max_size=5_000_000_000,
        media_type="image/png",
        prefix="alice/",
        file_expires=float(EXP + 9),
        ticket_id="AbC-1_2",
        max_files=3,
        until=float(EXP),
    )


@pytest.mark.parametrize("operation", list(Operation))
def test_operations(operation: Operation) -> None:
    method = {Operation.PUT: "PUT", Operation.DELETE: "DELETE", Operation.DOWNLOAD: "GET"}.get(operation, "POST")
    path = "/download/a/b" if operation is Operation.DOWNLOAD else "/upload/a/b"
    only = signing.ticket(SECRET, {**TICKET, "ops": [operation.value]})
    granted(gate().authorise(bearer(only, path, method), operation))
    others = [other.value for other in Operation if other is not operation]
    token = signing.ticket(SECRET, {**TICKET, "ops": others})
    refused(gate().authorise(bearer(token, path, method), operation), "not_covered", "operation")
    default = gate().authorise(bearer(signing.ticket(SECRET, TICKET), path, method), operation)
    if operation in {Operation.DELETE, Operation.DOWNLOAD}:
        refused(default, "not_covered", "operation")
    else:
        granted(default)


@pytest.mark.parametrize(
    ("claims", "inside", "outside"),
    [
        (
            {"path": "a/b.txt"},
            ["/a/b.txt", "/upload/a/b.txt"],
            ["/a/b.txt2", "/a", "/a/b.txt/c", "/b.txt", "/", "/x/a/b.txt"],
        ),
        ({"prefix": "a"}, ["/a/b", "/upload/a/b/c"], ["/a", "/ab/c", "/b/a", "/upload/", "/"]),
        ({"prefix": "a/"}, ["/a/b", "/upload/a/b/c"], ["/a", "/ab/c", "/b/a"]),
        ({"prefix": "a/b"}, ["/a/b/c"], ["/a/bc", "/a/b", "/a/c"]),
        ({"prefix": ""}, ["/a", "/upload/a/b"], ["/", "/upload/"]),
    ],
)
def test_paths(claims: dict[str, str], inside: list[str], outside: list[str]) -> None:
    token = signing.ticket(SECRET, {"exp": EXP, "ops": ["put", "delete", "download"], **claims})
    for path in inside:
        granted(gate().authorise(bearer(token, path), Operation.PUT))
        granted(gate().authorise(bearer(token, path, "DELETE"), Operation.DELETE))
        stored = path.removeprefix("/upload/").lstrip("/")
        granted(gate().authorise(bearer(token, "/download/" + stored, "GET"), Operation.DOWNLOAD))
    for path in outside:
        refused(gate().authorise(bearer(token, path), Operation.PUT), "not_covered", "path")
        refused(gate().authorise(bearer(token, path, "DELETE"), Operation.DELETE), "not_covered", "path")
    for path in ("/download/", "/a/b.txt", "/upload/a/b.txt"):
        refused(gate().authorise(bearer(token, path, "GET"), Operation.DOWNLOAD), "not_covered", "path")
    refused(gate(base_paths=("/only/",)).authorise(bearer(token, "/a/b"), Operation.PUT), "not_covered", "path")


def test_a_ticket_is_for_storage_paths_not_for_whole_ones() -> None:
    # Otherwise one ticket would be good for two files.
    token = signing.ticket(SECRET, {"path": "upload/a", "exp": EXP})
    refused(gate().authorise(bearer(token, "/upload/a"), Operation.PUT), "not_covered", "path")
    granted(gate().authorise(bearer(token, "/upload/upload/a"), Operation.PUT))


def test_where_the_server_chooses_the_path_the_grant_says_what_it_covers() -> None:
    token = signing.ticket(SECRET, {"prefix": "alice", "exp": EXP})
    for operation in (Operation.UPLOAD, Operation.CREATE, Operation.CHUNK):
        grant = granted(gate().authorise(bearer(token, "/upload/chunked", "POST"), operation))
        assert grant.covers("alice/x")
        assert not grant.covers("alice")
        assert not grant.covers("alicia/x")
        assert not grant.covers("x")
    exact = granted(
        gate().authorise(
            bearer(signing.ticket(SECRET, {"path": "p/q", "exp": EXP}), "/upload", "POST"), Operation.UPLOAD
        )
    )
    assert (exact.covers("p/q"), exact.covers("p/q/r"), exact.covers("p")) == (True, False, False)
    anywhere = granted(gate().authorise(bearer(signing.ticket(SECRET, TICKET), "/upload", "POST"), Operation.UPLOAD))
    assert anywhere.covers("anything/at all")


def test_the_type_of_a_put_must_be_the_tickets() -> None:
    token = signing.ticket(SECRET, {**TICKET, "type": "image/png"})
    granted(gate().authorise(bearer(token, "/a", content_type="image/png"), Operation.PUT))
    for other in ("image/jpeg", "image/png; x=y", "IMAGE/PNG"):
        refused(gate().authorise(bearer(token, "/a", content_type=other), Operation.PUT), "not_covered", "type")
    refused(gate().authorise(bearer(token, "/a"), Operation.PUT), "not_covered", "type")
    form = bearer(token, "/upload", "POST", content_type="multipart/form-data; boundary=x")
    assert granted(gate().authorise(form, Operation.UPLOAD)).media_type == "image/png"


def test_times() -> None:
    clock = StoppedClock(EXP - 0.001)
    judge = gate(clock=clock)
    head = bearer(signing.ticket(SECRET, {**TICKET, "nbf": int(NOW)}), "/a")
    granted(judge.authorise(head, Operation.PUT))
    clock.now = EXP
    refusal = refused(judge.authorise(head, Operation.PUT), "token_expired", "expired")
    assert refusal.status == 401
    assert refusal.challenge is not None
    clock.now = NOW - 0.001
    refused(judge.authorise(head, Operation.PUT), "bad_token", "not_yet")


def test_in_the_query() -> None:
    token = signing.ticket(SECRET, TICKET)
    assert granted(gate().authorise(put("/a/b", f"ticket={token}"), Operation.PUT)).scheme == "ticket"
    granted(gate().authorise(put("/a/b", f"lang=en&ticket={token}"), Operation.PUT))
    for query in (f"ticket={token}&ticket={token}", f"ticket={token};", f"Ticket={token}", "ticket"):
        refused(gate().authorise(put("/a/b", query), Operation.PUT), "malformed_credentials")
    refused(gate().authorise(put("/a/b", "ticket=abc"), Operation.PUT), "bad_token")
    slot = signing.prosody_jwt(SECRET, SLOT)
    refused(gate().authorise(put(SLOT_PATH, f"ticket={slot}", 23456), Operation.PUT), "bad_token", "malformed")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": EXP},
        {"prefix": ""},
        {"prefix": "", "path": "a", "exp": EXP},
        {**TICKET, "prefix": "/a"},
        {"path": "", "exp": EXP},
        {"path": "/a", "exp": EXP},
        {"path": "a\nb", "exp": EXP},
        {**TICKET, "exp": -1},
        {**TICKET, "exp": "5"},
        {**TICKET, "exp": True},
        {**TICKET, "exp": 1.5},
        {**TICKET, "max_size": -1},
        {**TICKET, "files": 0, "jti": "a"},
        {**TICKET, "files": 2},
        {**TICKET, "jti": ""},
        {**TICKET, "jti": "a b"},
        {**TICKET, "jti": "a" * 129},
        {**TICKET, "ops": []},
        {**TICKET, "ops": ["put", "fly"]},
        {**TICKET, "ops": "put"},
        {**TICKET, "sub": "a\r\nb"},
        {**TICKET, "type": "x\ny"},
        {**TICKET, "aud": "somebody else"},
        {**TICKET, "aud": ["hmac-file-server"]},
        {**TICKET, "nbf": -1},
    ],
)
def test_bad_tickets_are_neither_signed_nor_accepted(claims: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        signing.ticket(SECRET, claims)
    token = forged({"alg": "HS256", "typ": "ticket+jwt"}, {"aud": "hmac-file-server", **claims})
    refused(gate().authorise(bearer(token, "/a"), Operation.PUT), "bad_token", "malformed")


def test_misspelt_claims_are_not_signed() -> None:
    with pytest.raises(ValueError, match="maxsize"):
        signing.ticket(SECRET, {**TICKET, "maxsize": 5})


# Both


def test_neither_kind_passes_for_the_other() -> None:
    both = {**SLOT, **TICKET, "aud": "hmac-file-server", "ops": ["put"]}
    as_slot = forged({"alg": "HS256", "typ": "JWT"}, both)
    as_ticket = forged({"alg": "HS256", "typ": "ticket+jwt"}, both)
    assert granted(gate().authorise(bearer(as_slot), Operation.PUT)).scheme == "prosody-jwt"
    assert granted(gate().authorise(bearer(as_ticket), Operation.PUT)).scheme == "ticket"
    assert granted(gate().authorise(bearer(as_ticket, "/else/where"), Operation.PUT)).scheme == "ticket"
    refused(gate().authorise(bearer(as_slot, "/else/where"), Operation.PUT), "not_covered")
    # Prosody's secret never makes tickets by accident: its claims under our type are not enough, nor ours under its
    refused(gate().authorise(bearer(forged({"alg": "HS256", "typ": "ticket+jwt"}, SLOT)), Operation.PUT), "bad_token")
    ours = {**TICKET, "aud": "hmac-file-server"}
    refused(gate().authorise(bearer(forged({"alg": "HS256", "typ": "JWT"}, ours)), Operation.PUT), "bad_token")
    # and without our audience a ticket is none
    refused(gate().authorise(bearer(forged({"alg": "HS256", "typ": "ticket+jwt"}, TICKET)), Operation.PUT), "bad_token")


def test_one_kind_can_be_enabled_without_the_other() -> None:
    slot, ticket = signing.prosody_jwt(SECRET, SLOT), signing.ticket(SECRET, TICKET)
    only_slot, only_ticket = gate(schemes=("prosody-jwt",)), gate(schemes=("ticket",))
    granted(only_slot.authorise(bearer(slot), Operation.PUT))
    refused(only_slot.authorise(bearer(ticket), Operation.PUT), "scheme_disabled")
    refused(only_slot.authorise(put("/a", f"ticket={ticket}"), Operation.PUT), "scheme_disabled")
    granted(only_ticket.authorise(bearer(ticket), Operation.PUT))
    refused(only_ticket.authorise(bearer(slot), Operation.PUT), "scheme_disabled")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "typ": "JWT"},
        {"alg": "None", "typ": "JWT"},
        {"alg": "hs256", "typ": "JWT"},
        {"alg": "HS384", "typ": "JWT"},
        {"alg": "HS512", "typ": "JWT"},
        {"alg": "RS256", "typ": "JWT"},
        {"alg": "ES256", "typ": "JWT"},
        {"typ": "JWT"},
        {"alg": None, "typ": "JWT"},
        {"alg": ["HS256"], "typ": "JWT"},
        {"alg": {"HS256": 1}, "typ": "JWT"},
        {"alg": "HS256"},
        {"alg": "HS256", "typ": "jwt+x"},
        {"alg": "HS256", "typ": "at+jwt"},
        {"alg": "HS256", "typ": None},
        {"alg": "HS256", "typ": ["JWT"]},
        {"alg": "HS256", "typ": "JWT", "crit": ["b64"], "b64": False},
        {"alg": "HS256", "typ": "JWT", "crit": ["x"], "x": 1},
        {"alg": "HS256", "typ": "JWT", "crit": []},
        {"alg": "HS256", "typ": "JWT", "b64": True},
        {"alg": "HS256", "typ": "JWT", "kid": 5},
        {"alg": "HS256", "typ": "JWT", "kid": {}},
        {"alg": "HS256", "typ": "JWT", "kid": "../../dev/null"},
        {"alg": "HS256", "typ": "JWT", "kid": ""},
        ["alg", "HS256"],
        "HS256",
        5,
        None,
        b"{",
        b"",
        b"\xff\xfe",
        b"[" * 700,
        b'{"alg":' * 100,
    ],
)
def test_headers_that_are_refused(header: object) -> None:
    for digest in ("sha256", "sha384", "sha512"):
        refusal = refused(gate().authorise(bearer(forged(header, SLOT, digest=digest)), Operation.PUT), "bad_token")
        assert (refusal.status, refusal.challenge) == (401, 'Bearer realm="hmac-file-server"')


def test_other_algorithms_are_refused_although_rightly_signed() -> None:
    for name, digest in (("HS384", "sha384"), ("HS512", "sha512")):
        refused(
            gate().authorise(bearer(forged({"alg": name, "typ": "JWT"}, SLOT, digest=digest)), Operation.PUT),
            "bad_token",
        )
    body = f"{encoded(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())}.{encoded(json.dumps(SLOT).encode())}."
    refused(gate().authorise(bearer(body), Operation.PUT), "bad_token")


def test_the_key_a_token_names_is_the_one_that_counts() -> None:
    old, new = b"o" * 32, b"n" * 32
    by_old = bearer(signing.ticket(old, TICKET), "/a")
    assert granted(gate(new, old).authorise(by_old, Operation.PUT)).key_id == key_id(old)
    refused(gate(new).authorise(by_old, Operation.PUT), "bad_token", "unknown_key")
    lying = forged(
        {"alg": "HS256", "typ": "ticket+jwt", "kid": key_id(new)}, {**TICKET, "aud": "hmac-file-server"}, old
    )
    refused(gate(new, old).authorise(bearer(lying, "/a"), Operation.PUT), "bad_token", "unknown_key")
    nameless = bearer(signing.prosody_jwt(old, SLOT))
    assert granted(gate(new, old).authorise(nameless, Operation.PUT)).key_id == key_id(old)


def test_a_separate_token_secret() -> None:
    judge = gate(SECRET, jwt_secrets=(b"j" * 32, b"i" * 32))
    for secret in (b"j" * 32, b"i" * 32):
        granted(judge.authorise(bearer(signing.prosody_jwt(secret, SLOT)), Operation.PUT))
        granted(judge.authorise(bearer(signing.ticket(secret, TICKET)), Operation.PUT))
    for token in (signing.prosody_jwt(SECRET, SLOT), signing.ticket(SECRET, TICKET)):
        refused(judge.authorise(bearer(token), Operation.PUT), "bad_token", "unknown_key")


@pytest.mark.parametrize(
    "secret",
    [b"-----BEGIN PUBLIC KEY-----", b"ssh-rsa AAAAB3NzaC1yc2E", b'{"kty":"oct","k":"AA"}', b"[" * 100_000, b"short"],
)
def test_any_bytes_are_a_key(secret: bytes) -> None:
    # PyJWT guards against public keys used as secrets, and warns of short ones; which keys are good was judged before.
    granted(gate(secret).authorise(bearer(signing.prosody_jwt(secret, SLOT)), Operation.PUT))


def test_tokens_have_one_spelling() -> None:
    token = signing.prosody_jwt(SECRET, SLOT)
    head, body, mac = token.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(mac[-1])
    for spelled in (
        token + "=",
        token + "\n",
        " " + token + ".",
        f"{head}.{body}.{mac}=",
        f"{head}.{body}.{mac}.{mac}",
        f"{head}.{body}",
        f"{head}.{body}.",
        f".{body}.{mac}",
        f"{head}..{mac}",
        f"{head}.{body}.!{mac}",
        f"{head}.{body}=.{mac}",
        f"{head} .{body}.{mac}",
        f"{head}.{body}.{mac[:-1]}{'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'[last + 1]}",
        f'"{token}"',
        "",
        ".",
        "..",
        "a" * 100,
        "é" * 50,
    ):
        refused(gate().authorise(bearer(spelled), Operation.PUT), "bad_token")
    long = signing.prosody_jwt(SECRET, {**SLOT, "padding": "x" * LONGEST_TOKEN})
    refused(gate().authorise(bearer(long), Operation.PUT), "bad_token", "malformed")


def test_the_word_bearer_is_in_any_case_and_spaces_may_be_several() -> None:
    token = signing.prosody_jwt(SECRET, SLOT).encode()
    for value in (b"bearer " + token, b"BEARER " + token, b"Bearer    " + token):
        granted(gate().authorise(Head("PUT", SLOT_PATH, b"", 23456, {b"authorization": value}), Operation.PUT))
    for value in (b"Bearer", b"Bearer ", b"Bearer " + token + b" x", b"Bearer x, Bearer " + token):
        refused(
            gate().authorise(Head("PUT", SLOT_PATH, b"", 23456, {b"authorization": value}), Operation.PUT), "bad_token"
        )


@given(position=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7), ours=st.booleans())
def test_every_changed_bit_of_a_token_is_refused(position: int, bit: int, ours: bool) -> None:
    token = bytearray((signing.ticket(SECRET, TICKET) if ours else signing.prosody_jwt(SECRET, SLOT)).encode())
    token[position % len(token)] ^= 1 << bit
    head = Head("PUT", SLOT_PATH, b"", 23456, {b"authorization": b"Bearer " + bytes(token)})
    refused(gate().authorise(head, Operation.PUT), "bad_token")


@given(payload=st.binary(max_size=300), typ=st.sampled_from(["JWT", "ticket+jwt"]))
def test_no_signed_payload_raises(payload: bytes, typ: str) -> None:
    # Whoever holds the secret may sign nonsense.
    refused(gate().authorise(bearer(forged({"alg": "HS256", "typ": typ}, payload)), Operation.PUT))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    claim=st.sampled_from([*SLOT, "prefix", "path", "ops", "files", "jti", "max_size", "type", "aud", "nbf"]),
    value=JSON,
    ours=st.booleans(),
)
def test_no_claim_raises(claim: str, value: object, ours: bool) -> None:
    claims = {**TICKET, "aud": "hmac-file-server", claim: value} if ours else {**SLOT, claim: value}
    token = forged({"alg": "HS256", "typ": "ticket+jwt" if ours else "JWT"}, claims)
    answer = gate().authorise(bearer(token), Operation.PUT)
    assert answer is not None


def test_pyjwt_is_imported_only_when_a_token_comes() -> None:
    code = (
        "import sys; from hmac_file_server.auth import Gate, signing; "
        "assert 'jwt' not in sys.modules; "
        "signing.v1(b'k' * 32, 'a', 1); assert 'jwt' not in sys.modules; "
        "signing.ticket(b'k' * 32, {'prefix': '', 'exp': 1}); assert 'jwt' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr


def test_the_key_id_in_a_ticket_is_not_a_plain_hash_of_the_secret() -> None:
    assert key_id(SECRET) != hashlib.sha256(SECRET).hexdigest()[:8]
