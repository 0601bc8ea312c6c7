"""Every vector of the reference: signed with our functions, and judged by the gate.

Sources: Prosody (documentation, and URLs captured from 0.12.3), ejabberd 23.01, prosody-filer's own
tests, Metronome's source, the Go hmac-file-server 3.4.0. "Live" ones were handed out by real servers.
"""

import hmac
import json
from base64 import b64decode, urlsafe_b64decode
from urllib.parse import unquote

import pytest
from tests.unit.auth.heads import Head, gate, granted, put, refused

from hmac_file_server.auth import Operation, signing

D = "3b8c8cea-1d43-4088-b686-8751ef3251a9"
ALICE = "9637f279e87dc3aba7eb582ceceaa621fa695865"
GO = b"test-secret-0123456789"
LIVE = b"it-is-secret"
OCTETS = "application/octet-stream"

V1 = [
    (b"secret string", "foo/bar.jpg", 1048576, "e6df55a04516617d6a86ad6ca23879819591085a1a8c0041f4da06824f5d2db7"),
    (b"mysecret", "thomas/abc/catmetal.jpg", 23026, "7b8879e2d1c733b423a70cde30cecc3a3c64a03f790d1b5bcbb2a6aca52b477e"),
    (LIVE, f"{D}/bar.jpg", 1048576, "222829711d0b2181616f18b5902693a713d324e268c83df9652a0326b60886d8"),
    (LIVE, f"{D}/très cool.jpg", 23456, "090622987586c34b4fcc28d51fd25d59468bb889437a82eea4b555f1527271be"),
    (
        LIVE,
        f"{ALICE}/fk3me2yqV0gnndQzcUeJy30IqvaPnw9nv3OW58Px/bar.jpg",
        1048576,
        "fa905357073b2052829b996b73895318e81218f901b90d6e01aa70ba4dfa5eee",
    ),
    (LIVE, "upload/foo/bar.jpg", 1048576, "2f8ad7840d76d1ed040f1bbde309e522edf1374b3572dada922105b8010baca1"),
    (GO, "u1/a.txt", 5, "a7923c6dd369a13478c8c87691bd77a95e6068183c8c2b17100cdcd2caf869f1"),
    (GO, "c184288b/abc/test video.mp4", 104857600, "a881e111f47fda3e37cd23cedc078ed95c1681e35a7c6cef03e4fafa4c176720"),
    (GO, "upload/ü/ä.txt", 0, "057b2ec4340abaaa56c3095f523b3f0634b5dfdc109653de99be6dbb48fc5c21"),
]

V2 = [
    (
        b"secret string",
        "foo/bar.jpg",
        1048576,
        "image/jpeg",
        "a19d27add075aa60035e27c05e794f13079ba48c508852b3d7160a6bec0f85ab",
    ),
    (
        b"mysecret",
        "thomas/abc/catmetal.jpg",
        23026,
        "image/jpeg",
        "7318cd44d4c40731e3b2ff869f553ab2326eae631868e7b8054db20d4aee1c06",
    ),
    (
        LIVE,
        f"{D}/très cool.jpg",
        23456,
        "image/jpeg",
        "ebe634ce3dd23acbdcf46d4ca72871086fc15944bb33c9e885d47ff41c22b9bd",
    ),
    (LIVE, f"{D}/noext", 0, OCTETS, "cdc50b068292dbd6755f8b949b8275a648dc54e7a443dda6bb8f8c758419a003"),
    (
        LIVE,
        f"{D}/a.txt",
        12,
        "text/plain; charset=utf-8",
        "c5abc4d5c6b42051282dbb049bee0b19fa0e5e1a95c97bc9cf4956943787aee1",
    ),
    (
        LIVE,
        "535ecb2b-99d6-432a-b521-096b95bb7cc0/bar.jpg",
        1048576,
        "image/jpeg",
        "ca4bd6ae0777342ebdedf4bfe297d1420c76355e65e7bbf2b07b7fa2d29f9836",
    ),
    (LIVE, "Ab3dE6/bar.jpg", 1048576, "image/jpeg", "0cd2e072291e47058a8a05939596987f8f83b6c508ad5b92ce19f3a3548ab39a"),
    (GO, "u2/b.jpg", 5, "image/jpeg", "33ab481e3f997c5a80c8ec208931acc1955e76e35f9ac030fe060a2fe495c202"),
    (
        GO,
        "u2/a.txt",
        5,
        "text/plain; charset=utf-8",
        "50afdbd8bff8b463acd7ff3580ce0855e9d6d197b4cf09d14af6819597faf7bd",
    ),
    (GO, "u2/b.txt", 5, "text/plain", "1d7d1f60ebd42226680a2a4a052455acd366aa89032313d5b436e27c4afb0d98"),
    (GO, "u2/c.jpg", 5, OCTETS, "6ed4fd86ce74a80b1a26554f0998616c82a5173c71b0fe484c8894ec9593d7b1"),
]

# (URL as captured, size, protocol, type): paths as real clients send them, escapes and all.
CAPTURED = [
    (f"/upload/{D}/bar.jpg?v=222829711d0b2181616f18b5902693a713d324e268c83df9652a0326b60886d8", 1048576, None),
    (
        "/upload/a53b274a-8de0-4440-9fc7-719fa4d9ef1b/tr%c3%a8s%20cool.jpg?v=17c1b46ce0002b3fdc6332321c245afcb1bd4089cf0fd9f49a50a232c73f4e40",
        23456,
        None,
    ),
    (
        "/upload/87f7c1ad-1b2c-49b5-b9e5-d1df45723346/a%2bb%26c%2520%20%281%29.txt?v=44dd7d9884a2232924fa786da9c7fb28db5d2bc9ba5d9ddc82d2a0b36f27abda",
        12,
        None,
    ),
    (
        "/upload/9e176016-00ec-40dc-884a-d718d4f4ce0e/50%25%20off%23%3f%3b%3d%40~%21%24%27%2a.tar.gz?v=453d59ae6ccbfcdca1c1205809d1b1a9ac81926baee3eb5fcb8e2c36fd89df86",
        7,
        None,
    ),
    (
        "/upload/55eb9c9d-4d0e-4861-87c4-a2c6759ea52a/%e6%97%a5%e6%9c%ac.png?v=f2bc7500fb9f9f545126e4302edbc3e5d2e6c637f7813690dd49183a50b7dc89",
        5,
        None,
    ),
    (
        "/upload/535ecb2b-99d6-432a-b521-096b95bb7cc0/bar.jpg?v2=ca4bd6ae0777342ebdedf4bfe297d1420c76355e65e7bbf2b07b7fa2d29f9836",
        1048576,
        "image/jpeg",
    ),
    (
        "/upload/368f212e-e941-4b95-ad95-e6173a4e3ac3/noext?v2=fc7470876f918b3f688dd46cc55856e13b1339f1df39bd523c726e3b8e89d654",
        0,
        None,
    ),
    (
        f"/upload/{ALICE}/AuptFby832AY6e0SlTHCuMzPWACi3PR3KCqfzHz8/tr%C3%A8s_cool.jpg?v=9ed8b29ce80e64aebeeefaca68319712ff49644c973c6373e3f291047f34c46d",
        23456,
        None,
    ),
    (
        f"/upload/{ALICE}/gzQM4rFaYTM3uTZC7ORpzBSvVk0p0h2IqJiHVT9x/%E6%97%A5%E6%9C%AC.png?v=036b53404c0b6e3bdc7ab7bee299e9a2b3c5fdfda71393b5c352cf3af50c435a",
        5,
        None,
    ),
]

V3 = [
    (GO, "PUT", "/u3/sub/f.txt", 1893456000, "4000676785cf1242b06338e58869f5000eee5ea1a13fd632316e7aff0a55dd36"),
    (GO, "PUT", "/u3/a b.txt", 1893456000, "f8e192d3f9ced313c7317bdffead53e6bffbd6914752ac14f241e8eb6274828f"),
    (
        LIVE,
        "PUT",
        "/upload/foo/bar.jpg",
        1700000000,
        "e8929a6db5aa8b8ca5628bb920c3639dddb445e62dc65b85f548ebdc6a22f271",
    ),
]

X_SIGNATURE = [
    (GO, "POST", "/upload", Operation.UPLOAD, "6c194ad097f748631b2e5f3df48b1b656e553a99d0899c284b33bec3f44452b6"),
    (
        GO,
        "POST",
        "/upload/chunked",
        Operation.CREATE,
        "a6ac20983809a613f18722dbc7d081aab125834c7beb4d13eec891e4e8d82317",
    ),
    (GO, "PUT", "/upload/chunked", Operation.CHUNK, "a6ac20983809a613f18722dbc7d081aab125834c7beb4d13eec891e4e8d82317"),
    (
        GO,
        "POST",
        "/chunked-upload",
        Operation.CREATE,
        "937260e15fb89c5b1a09a8de2ae896316fb7692bf10838f8b78842984cbdf0ce",
    ),
    (GO, "PUT", "/u9/a.txt", Operation.PUT, "7d8cc7d996b04a6300efb30a9dbd6a684fad6b6da4021a51c1dc93cfeb394843"),
    (
        GO,
        "GET",
        "/download/u1/a.txt",
        Operation.DOWNLOAD,
        "4c9d01df4f356e2be695d7bf182ac15f98e23c77519c11682999063a989f9358",
    ),
    (
        LIVE,
        "POST",
        "/upload/chunked",
        Operation.CREATE,
        "a063a13ef05053b1186b7325e18373208a321115b3e35f2d4f85d20d091a8175",
    ),
]

# What the Go server takes besides, and must not be taken here: (parameter, path, size, type, MAC, the text behind it).
GO_FALLBACKS = [
    ("v", "u1/c.txt", 5, None, "0522c169102a8635a2089d536f63dcea29e0bd2560780f75d3905f6ea6474540", b"u1/c.txt"),
    ("v", "u1/d.txt", 5, None, "7d503e523257ce3c1d5936b9745e240798dca7a1cd5b3381d5296954b83d8487", b"u1/d.txt -1"),
    (
        "v2",
        "u2/d.jpg",
        5,
        "image/jpeg",
        "d5a1a79a27d2a1f5fd57055f7001339de14e5a3f3806b6eb9ab1f0a1a46adf5f",
        b"u2/d.jpg\x005",
    ),
    (
        "token",
        "u2/d.jpg",
        5,
        "image/jpeg",
        "d5a1a79a27d2a1f5fd57055f7001339de14e5a3f3806b6eb9ab1f0a1a46adf5f",
        b"u2/d.jpg\x005",
    ),
    (
        "token",
        "u2/e.jpg",
        5,
        "image/jpeg",
        "804a8429856de54e857e6e664a499a1320ea5d0b4786f77eb7dad3146251102b",
        b"u2/e.jpg",
    ),
    (
        "v2",
        "u2/e.jpg",
        5,
        "image/jpeg",
        "804a8429856de54e857e6e664a499a1320ea5d0b4786f77eb7dad3146251102b",
        b"u2/e.jpg",
    ),
]

# The Go server's Bearer payloads: standard base64, fields joined by NUL.
GO_BEARER = [
    (
        GO,
        ["user@example.org", "pic.jpg", "5", "1893369600", "1893456000", "network_resilient"],
        "g5IZ632R7Do+uFVWWDm80cgKYFAFI8Zq6NnJfiEjZns=",
    ),
    (GO, ["user@example.org", "pic.jpg", "5", "1893456000", "abc123"], "qhp+jjGlRObgCOF2gEhoKHy8gz8e/lJF+LeUlLB4feU="),
    (GO, ["user@example.org", "pic.jpg", "5", "1893452400"], "B+MnrtZBojcxy/l29XJfPUuVegzCZmZF9cU3Hv8QQ9s="),
    (GO, ["user@example.org", "pic.jpg", "5"], "gso+qZoF6iVQUyPedilp77cabi9eAYhrqglGof10RmM="),
    (GO, ["user@example.org", "1893456000"], "wpOBamDyr7veEhsYkfcH08BCttpPgewhNvku5XS99ss="),
    (LIVE, ["alice@localhost", "bar.jpg", "1048576", "1699996400"], "80+Jr8P+WZJyo+SLt+gTBH7TgnYA3XjpDnRXed06+WA="),
]

PROSODY_DOC_JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE2MTIxMTM0NjAsImV4cGlyZXMiOjE2MTI3MTc5NjAsImZpbGVuYW1"
    "lIjoicGljdHVyZS5wbmciLCJmaWxlc2l6ZSI6NzE2OCwiZmlsZXR5cGUiOiJpbWFnZS9wbmciLCJpYXQiOjE2MTIxMTMxNjAsInN"
    "sb3QiOiJSVmJLQWdXUGNyVVlBb2RqIiwic3ViIjoidXNlckBleGFtcGxlLmNvbSJ9.4GiEI4ed8M6rouL4pvN1yGl23ns5dxlokC"
    "jwnWR6xCo"
)
PROSODY_LIVE_JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3OTUzNjM4MzYsImV4cCI6MTc5NTM2NDEzNiwiZXhwaXJlcyI6MTc"
    "5NTk2ODYzNiwiZmlsZXR5cGUiOiJpbWFnZS9qcGVnIiwic3ViIjoiYWxpY2VAbG9jYWxob3N0IiwiZmlsZW5hbWUiOiJiYXIuanB"
    "nIiwiZmlsZXNpemUiOjEwNDg1NzYsInNsb3QiOiJnSXRjWFdFVTdZWDNub0RMTklKdHJpakoifQ.qq-diKjIViGo-lt-Q7SLDPc-"
    "wZnVPCcJLVy5dRoHF4c"
)


@pytest.mark.parametrize(("secret", "path", "size", "expected"), V1)
def test_v1(secret: bytes, path: str, size: int, expected: str) -> None:
    assert signing.v1(secret, path, size) == expected
    grant = granted(gate(secret).authorise(put("/upload/" + path, f"v={expected}", size), Operation.PUT))
    assert (grant.scheme, grant.exact_size, grant.form) == ("v1", size, "relative")
    grant = granted(gate(secret).authorise(put("/" + path, f"v={expected.upper()}", size), Operation.PUT))
    assert grant.form == ("whole" if path.startswith("upload/") else "relative")


@pytest.mark.parametrize(("secret", "path", "size", "media_type", "expected"), V2)
def test_v2_and_token(secret: bytes, path: str, size: int, media_type: str, expected: str) -> None:
    assert signing.v2(secret, path, size, media_type) == expected
    assert signing.token(secret, path, size, media_type) == expected
    for parameter in ("v2", "token"):
        head = put("/upload/" + path, f"{parameter}={expected}", size, media_type)
        grant = granted(gate(secret).authorise(head, Operation.PUT))
        assert (grant.scheme, grant.exact_size, grant.media_type) == (parameter, size, media_type)
        if media_type == OCTETS:
            granted(gate(secret).authorise(put("/upload/" + path, f"{parameter}={expected}", size), Operation.PUT))


@pytest.mark.parametrize(("url", "size", "media_type"), CAPTURED)
def test_captured_urls(url: str, size: int, media_type: str | None) -> None:
    path, _, query = url.partition("?")
    granted(gate(LIVE).authorise(put(unquote(path), query, size, media_type), Operation.PUT))
    refused(gate(LIVE).authorise(put(unquote(path), query, size + 1, media_type), Operation.PUT), "bad_signature")
    refused(gate(LIVE + b"!").authorise(put(unquote(path), query, size, media_type), Operation.PUT), "bad_signature")


def test_the_captured_dot_dot_signs_right_but_its_path_never_reaches_the_gate() -> None:
    # The slot of a file named "..": the HTTP room refuses such a path before anybody asks for permission.
    mac = "be5a48215b51d06f2b031212ef8cfbabdf38c567069b3d2b3ab3c30a324702d6"
    assert signing.v1(LIVE, "e9bb76e7-5d21-487e-9700-821640c0974a/..", 3) == mac


def test_metronome_delete() -> None:
    expected = "3fcf4f998e11ebd990230ca5d76aded0b7421d64d66a64afa6f1690c24cc66fd"
    assert signing.delete_token(LIVE, "Ab3dE6/bar.jpg", b"delete-secret") == expected
    head = Head("DELETE", "/upload/Ab3dE6/bar.jpg", f"token={expected}".encode())
    grant = granted(gate(LIVE, delete_secret=b"delete-secret").authorise(head, Operation.DELETE))
    assert (grant.scheme, grant.exact_size) == ("token", None)
    refused(gate(LIVE, delete_secret=b"delete-secreu").authorise(head, Operation.DELETE), "bad_signature")
    refused(gate(LIVE).authorise(head, Operation.DELETE), "scheme_disabled")


@pytest.mark.parametrize(("secret", "method", "path", "expires", "expected"), V3)
def test_v3(secret: bytes, method: str, path: str, expires: int, expected: str) -> None:
    assert signing.v3(secret, method, path, expires) == expected
    head = put(path, f"v3={expected}&expires={expires}")
    grant = granted(gate(secret, now=expires - 0.001).authorise(head, Operation.PUT))
    assert (grant.scheme, grant.form, grant.exact_size) == ("v3", "whole", None)
    refused(gate(secret, now=expires).authorise(head, Operation.PUT), "signature_expired", "expired")


@pytest.mark.parametrize(("secret", "method", "path", "operation", "expected"), X_SIGNATURE)
def test_x_signature(secret: bytes, method: str, path: str, operation: Operation, expected: str) -> None:
    assert signing.x_signature(secret, path) == expected
    for given in (expected, expected.upper()):
        head = Head(method, path, b"", 9, {b"x-signature": given.encode()})
        grant = granted(gate(secret).authorise(head, operation))
        assert (grant.scheme, grant.form) == ("signature", "whole")
        refused(gate(secret, strict=True).authorise(head, operation), "signature_too_weak", "strict")


@pytest.mark.parametrize(("parameter", "path", "size", "media_type", "mac", "text"), GO_FALLBACKS)
def test_weak_texts_of_the_go_server_are_refused(
    parameter: str, path: str, size: int, media_type: str | None, mac: str, text: bytes
) -> None:
    assert hmac.digest(GO, text, "sha256").hex() == mac
    head = put("/" + path, f"{parameter}={mac}", size, media_type)
    refusal = refused(gate(GO).authorise(head, Operation.PUT), "bad_signature")
    assert refusal.reason in {"layout", "size"}


def test_a_chunked_body_with_the_go_servers_minus_one_is_refused() -> None:
    mac = "7d503e523257ce3c1d5936b9745e240798dca7a1cd5b3381d5296954b83d8487"
    refused(gate(GO).authorise(put("/u1/d.txt", f"v={mac}", None), Operation.PUT), "length_required", "length")


def test_v3_without_the_expiry_in_its_text_is_refused() -> None:
    mac = "ea6e6c9cc95f437ecfdd7fc33b4ca92565d4af79623ec3a1b53989feb67d98fd"
    assert hmac.digest(GO, b"PUT\n/u3/h.txt", "sha256").hex() == mac
    head = put("/u3/h.txt", f"v3={mac}&expires=1893456000")
    refused(gate(GO).authorise(head, Operation.PUT), "bad_signature", "layout")


@pytest.mark.parametrize(
    ("path", "sent", "guessed"),
    [
        ("u2/b.txt", "text/plain", "text/plain; charset=utf-8"),
        ("u2/c.jpg", OCTETS, "image/jpeg"),
        ("u2/page.html", "application/xhtml+xml", "text/html; charset=utf-8"),
    ],
)
def test_types_guessed_from_the_extension_are_refused(path: str, sent: str, guessed: str) -> None:
    for parameter in ("v2", "token"):
        head = put("/" + path, f"{parameter}={signing.v2(GO, path, 5, guessed)}", 5, sent)
        refusal = refused(gate(GO).authorise(head, Operation.PUT), "bad_signature", "type")
        assert "extension" in refusal.detail_log or "charset" in refusal.detail_log


def test_the_mac_in_prosodys_readme_is_an_illustration_only() -> None:
    for secret in (b"secret string", b"mysecret", LIVE):
        assert not signing.v1(secret, "foo/bar.jpg", 1048576).startswith("49e9309f")
        assert not signing.v2(secret, "foo/bar.jpg", 1048576, "image/jpeg").startswith("49e9309f")


@pytest.mark.parametrize(("secret", "parts", "given"), GO_BEARER)
def test_bearer_macs_of_the_go_server_are_refused(secret: bytes, parts: list[str], given: str) -> None:
    assert hmac.digest(secret, "\0".join(parts).encode(), "sha256") == b64decode(given)
    for path in ("/pic.jpg", "/upload/x/pic.jpg", "/bar.jpg"):
        head = put(path, f"user={parts[0]}&expiry=1893456000", 5, authorization=f"Bearer {given}")
        refusal = refused(gate(secret).authorise(head, Operation.PUT), "bad_token")
        assert (refusal.status, refusal.challenge) == (401, 'Bearer realm="hmac-file-server"')
        refused(
            gate(secret).authorise(put(path, b"token=" + given.encode(), 5), Operation.PUT), "malformed_credentials"
        )


def claims_of(token: str) -> dict[str, object]:
    payload = token.split(".")[1]
    claims: dict[str, object] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def test_prosodys_documented_token() -> None:
    secret = b"U2VjcmV0VG9rZW4wMzYz"
    claims = claims_of(PROSODY_DOC_JWT)
    assert list(claims) == sorted(claims)
    assert signing.prosody_jwt(secret, claims) == PROSODY_DOC_JWT
    head = put(f"/share/{claims['slot']}/picture.png", size=7168, authorization=f"Bearer {PROSODY_DOC_JWT}")
    grant = granted(gate(secret, now=1612113200).authorise(head, Operation.PUT))
    assert (grant.scheme, grant.owner, grant.exact_size) == ("prosody-jwt", "user@example.com", 7168)
    assert (grant.media_type, grant.filename, grant.file_expires) == ("image/png", "picture.png", 1612717960.0)
    refusal = refused(gate(secret, now=1612113460).authorise(head, Operation.PUT), "slot_expired", "expired")
    assert refusal.status == 410


def test_prosodys_live_token() -> None:
    assert signing.prosody_jwt(LIVE, claims_of(PROSODY_LIVE_JWT)) == PROSODY_LIVE_JWT
    head = put("/share/gItcXWEU7YX3noDLNIJtrijJ/bar.jpg", size=1048576, authorization=f"Bearer {PROSODY_LIVE_JWT}")
    grant = granted(gate(LIVE, now=1795363900).authorise(head, Operation.PUT))
    assert (grant.owner, grant.exact_size, grant.file_expires) == ("alice@localhost", 1048576, 1795968636.0)
    refused(gate(LIVE + b"?", now=1795363900).authorise(head, Operation.PUT), "bad_token", "unknown_key")
    other_slot = put("/share/C7ff0jh9SCwMb54XpYHxuDtH/bar.jpg", authorization=f"Bearer {PROSODY_LIVE_JWT}")
    assert refused(gate(LIVE, now=1795363900).authorise(other_slot, Operation.PUT), "not_covered").status == 403


@pytest.mark.parametrize(
    "path",
    ["/share/C7ff0jh9SCwMb54XpYHxuDtH/tr%C3%A8s%20cool.jpg", "/share/FzbbKeQykFJ89lHGOUlOeHYB/a+b&c%2520%20(1).txt"],
)
def test_prosodys_other_escaping_of_token_urls(path: str) -> None:
    decoded = unquote(path)
    _, _, slot, filename = decoded.split("/")
    token = signing.prosody_jwt(LIVE, {"slot": slot, "filename": filename, "filesize": 3, "exp": 1795364136})
    head = put(decoded, size=3, authorization=f"Bearer {token}")
    assert granted(gate(LIVE).authorise(head, Operation.PUT)).filename == filename
