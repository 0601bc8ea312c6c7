"""After a refusal: which part differed? For the log only, so that "invalid MAC" need not be guessed at.

A bounded number of likely other texts is tried against the given signature. Nothing found here ever
grants anything.
"""

import hmac
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from hmac_file_server.auth import messages
from hmac_file_server.auth.grant import Refusal
from hmac_file_server.auth.keys import KeyRing
from hmac_file_server.auth.refusals import refuse
from hmac_file_server.config.base_paths import BasePaths

BUDGET: Final = 20
"""MACs tried at most; a refusal must stay cheaper than the request it refuses."""

_ENCRYPTED: Final = "16 bytes less (the file was encrypted after the slot was asked for)"

# What the Go server and prosody-filer sign by extension, whatever Content-Type the client sends.
_GUESSED: Final = {
    "txt": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "xml": "text/xml; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "pdf": "application/pdf",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "svg": "image/svg+xml",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "m4a": "audio/mp4",
    "zip": "application/zip",
}


class Variant(NamedTuple):
    """Another text that may have been signed: what that would mean, in words, and the text."""

    reason: str
    words: str
    message: bytes


def explain(scheme: str, keys: KeyRing, given: bytes, variants: Iterable[Variant]) -> Refusal:
    """`bad_signature`, with the first variant that fits as its reason; `unknown_key` when none does."""
    spent = 0
    for variant in variants:
        for key in keys:
            if spent == BUDGET:
                break
            spent += 1
            if hmac.compare_digest(key.mac(variant.message), given):
                return refuse("bad_signature", variant.reason, f"{scheme}: the signature fits {variant.words}")
    return refuse(
        "bad_signature",
        "unknown_key",
        f"{scheme}: the signature fits none of the likely texts under any key in force ({len(keys)})",
    )


def other_paths(path: str, base_paths: BasePaths) -> Iterator[tuple[str, str]]:
    """(words, text) of spellings of one absolute path that signers are known to get wrong."""
    relative = base_paths.relative(path)
    tail = path[1:] if relative is None else relative
    seen = {tail, path[1:]}
    candidates = [("with its leading slash", path)]
    candidates += [
        (f"below the base path {prefix!a}", path[len(prefix) :])
        for prefix in base_paths.prefixes
        if path.startswith(prefix)
    ]
    escaped = quote(tail, safe="/-._~")
    candidates += [
        ("percent-encoded", escaped),
        ("percent-encoded in lower case", _lower_escapes(escaped)),
        ("decoded twice", unquote(tail)),
        ("in Unicode form C", unicodedata.normalize("NFC", tail)),
        ("in Unicode form D", unicodedata.normalize("NFD", tail)),
        ("with plus for space", tail.replace(" ", "+")),
        ("with space for plus", tail.replace("+", " ")),
        ("as its last segment alone", tail.rpartition("/")[2]),
    ]
    for words, text in candidates:
        if text and text not in seen:
            seen.add(text)
            yield words, text


def v1_variants(path: str, size: int, sent_type: bytes, base_paths: BasePaths) -> Iterator[Variant]:
    """What may have been signed in place of v1."""
    tail = _tail(path, base_paths)
    yield Variant("size", _ENCRYPTED, messages.v1(tail, size - 16))
    yield Variant("size", "16 bytes more", messages.v1(tail, size + 16))
    yield Variant("layout", "the path alone, which is not accepted", tail)
    for words, text in other_paths(path, base_paths):
        yield Variant("path", f"the path {words}", messages.v1(text.encode(), size))
    yield Variant("layout", "the v2 text, sent as v", messages.v2(tail, size, sent_type))
    yield Variant("size", "size 0", messages.v1(tail, 0))
    yield Variant("size", "size -1 (chunked, in the Go server)", messages.v1(tail, -1))


def v2_variants(path: str, size: int, sent_type: bytes, base_paths: BasePaths) -> Iterator[Variant]:
    """What may have been signed in place of v2 or token."""
    tail = _tail(path, base_paths)
    for words, guess in _other_types(path, sent_type):
        yield Variant("type", f"{words}; the request has type {_shown(sent_type)}", messages.v2(tail, size, guess))
    yield Variant("size", _ENCRYPTED, messages.v2(tail, size - 16, sent_type))
    yield Variant("size", "16 bytes more", messages.v2(tail, size + 16, sent_type))
    yield Variant("layout", "path and size without a type, which is not accepted", b"%b\0%d" % (tail, size))
    yield Variant("layout", "the path alone, which is not accepted", tail)
    yield Variant("layout", "the v1 text, sent as v2 or token", messages.v1(tail, size))
    for words, text in other_paths(path, base_paths):
        yield Variant("path", f"the path {words}", messages.v2(text.encode(), size, sent_type))


def delete_variants(path: str, delete_secret: bytes, base_paths: BasePaths) -> Iterator[Variant]:
    """What may have been signed in place of Metronome's delete token."""
    tail = _tail(path, base_paths)
    yield Variant("layout", "the path without the delete secret, which is not accepted", tail)
    yield Variant("layout", "the path and an empty delete secret", messages.delete_token(tail, b""))
    for words, text in other_paths(path, base_paths):
        yield Variant("path", f"the path {words}", messages.delete_token(text.encode(), delete_secret))


def v3_variants(method: str, path: str, query: bytes, expires: int, base_paths: BasePaths) -> Iterator[Variant]:
    """What may have been signed in place of v3."""
    verb, target = method.encode(), path.encode()
    for other in _OTHER_METHODS:
        if other != method:
            yield Variant("method", f"the method {other}", messages.v3(other.encode(), target, expires))
    yield Variant("layout", "no expiry, which is not accepted", b"%b\n%b" % (verb, target))
    yield Variant("layout", "the path alone (an X-Signature)", target)
    yield Variant("path", "the path without its leading slash", messages.v3(verb, target[1:], expires))
    yield Variant("path", "the path with its query", messages.v3(verb, target + b"?" + query, expires))
    for words, text in other_paths(path, base_paths):
        if not text.startswith("/"):
            yield Variant("path", f"the path {words}", messages.v3(verb, b"/" + text.encode(), expires))


def signature_variants(method: str, path: str, base_paths: BasePaths) -> Iterator[Variant]:
    """What may have been signed in place of a path-only X-Signature."""
    for alias in _ENDPOINTS:
        if alias != path:
            yield Variant("path", f"the path {alias}", alias.encode())
    for text in base_paths.forms(path):
        yield Variant("path", "the path without its leading slash or base path", text.encode())
        yield Variant("path", "the path below its base path", b"/" + text.encode())
    yield Variant("layout", "the method and the path", f"{method}\n{path}".encode())
    for words, text in other_paths(path, base_paths):
        yield Variant("path", f"the path {words}, with a slash before it", b"/" + text.encode())


def strong_variants(
    method: str, path: str, filename: bytes, size: int, expires: int, base_paths: BasePaths
) -> Iterator[Variant]:
    """What may have been signed in place of a strong X-Signature."""
    verb, target, strong = method.encode(), path.encode(), messages.x_signature_strong
    yield Variant("layout", "the path alone, sent with X-Signature-Expires", target)
    yield Variant("filename", "no file name", strong(verb, target, b"", size, expires))
    last = target.rpartition(b"/")[2]
    yield Variant("filename", "the path's last segment as file name", strong(verb, target, last, size, expires))
    yield Variant("size", "size 0", strong(verb, target, filename, 0, expires))
    yield Variant("size", "16 bytes less", strong(verb, target, filename, size - 16, expires))
    yield Variant("size", "16 bytes more", strong(verb, target, filename, size + 16, expires))
    for other in _OTHER_METHODS:
        if other != method:
            yield Variant("method", f"the method {other}", strong(other.encode(), target, filename, size, expires))
    for alias in _ENDPOINTS:
        if alias != path:
            yield Variant("path", f"the path {alias}", strong(verb, alias.encode(), filename, size, expires))
    for text in base_paths.forms(path):
        other_path = b"/" + text.encode()
        yield Variant("path", "the path without its base path", strong(verb, other_path, filename, size, expires))
    yield Variant("layout", "the v3 text", messages.v3(verb, target, expires))


_OTHER_METHODS: Final = ("PUT", "POST", "GET", "DELETE")
_ENDPOINTS: Final = (
    "/upload",
    "/upload/chunked",
    "/chunked-upload",
    "/upload/",
    "/upload/status",
    "/upload-status",
)


def _tail(path: str, base_paths: BasePaths) -> bytes:
    relative = base_paths.relative(path)
    return (path[1:] if relative is None else relative).encode()


def _other_types(path: str, sent: bytes) -> Iterator[tuple[str, bytes]]:
    bare = sent.partition(b";")[0].strip()
    guess = _GUESSED.get(path.rpartition("/")[2].rpartition(".")[2].lower(), "").encode()
    seen = {sent}
    for words, other in (
        ("type application/octet-stream", messages.DEFAULT_MEDIA_TYPE),
        ("the type without its parameters", bare),
        ("the type with charset=utf-8", bare + b"; charset=utf-8"),
        ("the type in lower case", sent.lower()),
        ("the type guessed from the extension, which is not accepted", guess),
        ("the type guessed from the extension, without a charset", guess.partition(b";")[0]),
        ("an empty type", b""),
    ):
        if other not in seen and (other or words == "an empty type"):
            seen.add(other)
            yield words, other


def _shown(sent: bytes) -> str:
    return ascii(sent[:80].decode("latin-1"))


def _lower_escapes(escaped: str) -> str:
    parts = escaped.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])
