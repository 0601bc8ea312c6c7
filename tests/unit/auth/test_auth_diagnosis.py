"""The log says which part differed, costs little, and holds nothing secret."""

import hmac
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from tests.unit.auth.heads import NOW, SECRET, Head, gate, put, refused

from hmac_file_server.auth import Operation, diagnosis, messages, signing
from hmac_file_server.auth.keys import Key, KeyRing

EXPIRES = int(NOW) + 60
JUDGE = gate(delete_secret=b"ds", base_paths=("/", "/upload/", "/share/x/", "/share/"))
NAME = "d/très cool+.jpg"


def mac(text: str | bytes, secret: bytes = SECRET) -> str:
    return hmac.digest(secret, text.encode() if isinstance(text, str) else text, "sha256").hex()


CASES: list[tuple[str, str, Head, Operation]] = [
    ("size", "16 bytes less", put("/upload/d/a", f"v={mac('d/a 84')}", 100), Operation.PUT),
    ("size", "16 bytes more", put("/upload/d/a", f"v={mac('d/a 116')}", 100), Operation.PUT),
    ("size", "size 0", put("/upload/d/a", f"v={mac('d/a 0')}", 100), Operation.PUT),
    ("size", "size -1", put("/upload/d/a", f"v={mac('d/a -1')}", 100), Operation.PUT),
    ("layout", "path alone", put("/upload/d/a", f"v={mac('d/a')}", 100), Operation.PUT),
    (
        "layout",
        "v2 text",
        put("/upload/d/a", f"v={signing.v2(SECRET, 'd/a', 100, 'image/png')}", 100, "image/png"),
        Operation.PUT,
    ),
    ("path", "leading slash", put("/upload/d/a", f"v={mac('/upload/d/a 100')}", 100), Operation.PUT),
    ("path", "percent-encoded", put("/upload/" + NAME, f"v={mac(quote(NAME) + ' 100')}", 100), Operation.PUT),
    ("path", "lower case", put("/upload/" + NAME, f"v={mac('d/tr%c3%a8s%20cool%2b.jpg 100')}", 100), Operation.PUT),
    ("path", "decoded twice", put("/upload/d/a%20b", f"v={mac('d/a b 100')}", 100), Operation.PUT),
    ("path", "form D", put("/upload/d/\u00e9", "v=" + mac("d/e\u0301 100"), 100), Operation.PUT),
    ("path", "form C", put("/upload/d/e\u0301", "v=" + mac("d/\u00e9 100"), 100), Operation.PUT),
    ("path", "plus for space", put("/upload/d/a b", f"v={mac('d/a+b 100')}", 100), Operation.PUT),
    ("path", "space for plus", put("/upload/d/a+b", f"v={mac('d/a b 100')}", 100), Operation.PUT),
    ("path", "last segment", put("/upload/d/a", f"v={mac('a 100')}", 100), Operation.PUT),
    ("path", "base path '/share/'", put("/share/x/d/a", f"v={mac('x/d/a 5')}", 5), Operation.PUT),
    ("unknown_key", "none of the likely", put("/upload/d/a", f"v={mac('d/a 100', b'x' * 32)}", 100), Operation.PUT),
    (
        "type",
        "octet-stream",
        put("/d/a.jpg", f"v2={signing.v2(SECRET, 'd/a.jpg', 5, 'application/octet-stream')}", 5, "image/png"),
        Operation.PUT,
    ),
    (
        "type",
        "without its parameters",
        put("/d/a", f"v2={signing.v2(SECRET, 'd/a', 5, 'text/plain')}", 5, "text/plain; charset=x"),
        Operation.PUT,
    ),
    (
        "type",
        "charset",
        put("/d/a", f"v2={signing.v2(SECRET, 'd/a', 5, 'text/plain; charset=utf-8')}", 5, "text/plain"),
        Operation.PUT,
    ),
    ("type", "extension", put("/d/a.mp4", f"token={signing.v2(SECRET, 'd/a.mp4', 5, 'video/mp4')}", 5), Operation.PUT),
    (
        "type",
        "lower case",
        put("/d/a", f"v2={signing.v2(SECRET, 'd/a', 5, 'image/png')}", 5, "Image/PNG"),
        Operation.PUT,
    ),
    ("type", "empty type", put("/d/a", f"v2={signing.v2(SECRET, 'd/a', 5, '')}", 5), Operation.PUT),
    (
        "size",
        "16 bytes less",
        put("/d/a", f"v2={signing.v2(SECRET, 'd/a', 84, 'image/png')}", 100, "image/png"),
        Operation.PUT,
    ),
    ("layout", "v1 text", put("/d/a", f"v2={mac('d/a 5')}", 5, "image/png"), Operation.PUT),
    ("layout", "without a type", put("/d/a", f"v2={mac(b'd/a' + bytes(1) + b'5')}", 5, "image/png"), Operation.PUT),
    (
        "path",
        "leading slash",
        put("/d/a", f"v2={mac(messages.v2(b'/d/a', 5, b'image/png'))}", 5, "image/png"),
        Operation.PUT,
    ),
    ("layout", "without the delete secret", Head("DELETE", "/d/a", f"token={mac('d/a')}".encode()), Operation.DELETE),
    (
        "layout",
        "empty delete secret",
        Head("DELETE", "/d/a", f"token={mac(b'd/a' + bytes(1))}".encode()),
        Operation.DELETE,
    ),
    (
        "path",
        "leading slash",
        Head("DELETE", "/d/a", f"token={mac(messages.delete_token(b'/d/a', b'ds'))}".encode()),
        Operation.DELETE,
    ),
    ("method", "GET", put("/d/a", f"v3={signing.v3(SECRET, 'GET', '/d/a', EXPIRES)}&expires={EXPIRES}"), Operation.PUT),
    ("layout", "no expiry", put("/d/a", "v3=" + mac("PUT\n/d/a") + f"&expires={EXPIRES}"), Operation.PUT),
    (
        "path",
        "without its leading slash",
        put("/d/a", f"v3={mac(messages.v3(b'PUT', b'd/a', EXPIRES))}&expires={EXPIRES}"),
        Operation.PUT,
    ),
    ("layout", "an X-Signature", put("/d/a", f"v3={mac('/d/a')}&expires={EXPIRES}"), Operation.PUT),
    (
        "path",
        "percent-encoded",
        put(
            "/upload/" + NAME, f"v3={mac(messages.v3(b'PUT', b'/' + quote(NAME).encode(), EXPIRES))}&expires={EXPIRES}"
        ),
        Operation.PUT,
    ),
    (
        "path",
        "/upload/chunked",
        Head("POST", "/upload", b"", 5, {b"x-signature": mac("/upload/chunked").encode()}),
        Operation.UPLOAD,
    ),
    (
        "path",
        "leading slash",
        Head("POST", "/upload", b"", 5, {b"x-signature": mac("upload").encode()}),
        Operation.UPLOAD,
    ),
    (
        "path",
        "below its base path",
        Head("PUT", "/upload/d/a", b"", 5, {b"x-signature": mac("/d/a").encode()}),
        Operation.PUT,
    ),
    (
        "layout",
        "method and the path",
        Head("POST", "/upload", b"", 5, {b"x-signature": mac("POST\n/upload").encode()}),
        Operation.UPLOAD,
    ),
    (
        "unknown_key",
        "none of",
        Head("POST", "/upload", b"", 5, {b"x-signature": mac("/upload", b"q").encode()}),
        Operation.UPLOAD,
    ),
]


def strong_case(reason: str, words: str, message: bytes) -> tuple[str, str, Head, Operation]:
    fields = {b"x-signature": mac(message).encode(), b"x-signature-expires": str(EXPIRES).encode(), b"x-filename": b"n"}
    return reason, words, Head("PUT", "/upload/d/a", b"", 100, fields), Operation.PUT


def strong(method: bytes = b"PUT", path: bytes = b"/upload/d/a", name: bytes = b"n", size: int = 100) -> bytes:
    return messages.x_signature_strong(method, path, name, size, EXPIRES)


CASES += [
    strong_case("layout", "path alone", b"/upload/d/a"),
    strong_case("filename", "no file name", strong(name=b"")),
    strong_case("filename", "last segment", strong(name=b"a")),
    strong_case("size", "size 0", strong(size=0)),
    strong_case("size", "16 bytes less", strong(size=84)),
    strong_case("size", "16 bytes more", strong(size=116)),
    strong_case("method", "POST", strong(method=b"POST")),
    strong_case("path", "/upload/chunked", strong(path=b"/upload/chunked")),
    strong_case("path", "without its base path", strong(path=b"/d/a")),
    strong_case("layout", "v3 text", messages.v3(b"PUT", b"/upload/d/a", EXPIRES)),
]


@pytest.mark.parametrize(("reason", "words", "head", "operation"), CASES)
def test_the_part_that_differs_is_named(reason: str, words: str, head: Head, operation: Operation) -> None:
    refusal = refused(JUDGE.authorise(head, operation), "bad_signature", reason)
    assert words in refusal.detail_log
    assert refusal.status == 403


def test_the_sent_type_is_shown_but_cannot_break_a_line() -> None:
    query = f"v2={signing.v2(SECRET, 'd/a', 5, 'application/octet-stream')}"
    for sent in (b"a/\xff\x1b[31m\n", b"x" * 5000):
        refusal = refused(gate().authorise(put("/d/a", query, 5, sent), Operation.PUT), "bad_signature", "type")
        assert refusal.detail_log.isascii()
        assert refusal.detail_log.isprintable()
        assert len(refusal.detail_log) < 400


@pytest.mark.parametrize(("reason", "words", "head", "operation"), CASES)
def test_nothing_secret_is_in_a_refusal(reason: str, words: str, head: Head, operation: Operation) -> None:
    del reason, words
    refusal = refused(JUDGE.authorise(head, operation))
    text = repr(refusal)
    given = head.query.partition(b"=")[2][:64].decode() or head.fields[b"x-signature"].decode()
    assert given not in text
    assert given[:12] not in text
    assert SECRET.decode() not in text
    assert all(len(word) < 40 for word in refusal.detail_log.split())


def all_variants(path: str) -> Iterator[Iterator[diagnosis.Variant]]:
    from hmac_file_server.config.base_paths import BasePaths

    bases = BasePaths(f"/{'p/' * n}" for n in range(60))
    yield diagnosis.v1_variants(path, 100, b"text/plain; x=y", bases)
    yield diagnosis.v2_variants(path, 100, b"Text/plain; x=y", bases)
    yield diagnosis.delete_variants(path, b"ds", bases)
    yield diagnosis.v3_variants("PATCH", path, b"v3=x", 5, bases)
    yield diagnosis.signature_variants("PATCH", path, bases)
    yield diagnosis.strong_variants("PATCH", path, b"name", 100, 5, bases)


@pytest.mark.parametrize("keys", [1, 2, 7, 30])
def test_the_work_is_bounded(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing([b"%032d" % number for number in range(keys)])
    spent = 0
    real: Callable[[Key, bytes], bytes] = Key.mac

    def counting(key: Key, message: bytes) -> bytes:
        nonlocal spent
        spent += 1
        return real(key, message)

    monkeypatch.setattr(Key, "mac", counting)
    for variants in all_variants("/" + "p/" * 60 + "très +cool%20e\u0301.txt"):
        spent = 0
        assert diagnosis.explain("v1", ring, b"\0" * 32, variants).reason == "unknown_key"
        assert spent <= diagnosis.BUDGET


def test_a_token_refusal_names_the_part() -> None:
    token = signing.prosody_jwt(SECRET, {"slot": "s", "filename": "f", "filesize": 5, "exp": EXPIRES})
    judge = gate()
    slot = refused(
        judge.authorise(put("/share/x/f", authorization=f"Bearer {token}"), Operation.PUT), "not_covered", "path"
    )
    name = refused(
        judge.authorise(put("/share/s/g", authorization=f"Bearer {token}"), Operation.PUT), "not_covered", "path"
    )
    assert "slot" in slot.detail_log
    assert "file name" in name.detail_log
    late = refused(gate(now=EXPIRES + 5).authorise(put("/share/s/f", authorization=f"Bearer {token}"), Operation.PUT))
    assert "5 s ago" in late.detail_log
    for refusal in (slot, name, late):
        assert token[-43:] not in repr(refusal)
