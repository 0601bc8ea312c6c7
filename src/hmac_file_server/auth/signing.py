"""Signing: pure functions from a secret and what is permitted to a signature or a token.

A path is a storage path (no leading slash, percent-decoded: "uuid/très cool.jpg") for v1, v2, token and
delete_token; it is absolute ("/upload/uuid/très cool.jpg") for v3, x_signature and x_signature_strong.
Sizes are bytes, expiries epoch seconds. MACs are HMAC-SHA256 in lower-case hex. All raise ValueError
for a field that could not be verified unambiguously: NUL or control characters, negative numbers.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hmac_file_server.auth import jws, messages
from hmac_file_server.auth.claims import PROSODY_KIND, TICKET_AUDIENCE, TICKET_KIND, TicketClaims
from hmac_file_server.auth.keys import Key

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_METHOD: Final = re.compile("[A-Z]+")


def v1(secret: bytes, path: str, size: int) -> str:
    """Slot v1, for `?v=`: binds path and size (Prosody, ejabberd)."""
    return _hex(secret, messages.v1(_storage_path(path), _count(size)))


def v2(secret: bytes, path: str, size: int, media_type: str) -> str:
    """Slot v2, for `?v2=`: binds path, size and the exact Content-Type (Prosody)."""
    return _hex(secret, messages.v2(_storage_path(path), _count(size), _text(media_type)))


def token(secret: bytes, path: str, size: int, media_type: str) -> str:
    """Metronome's `?token=` for PUT: the text of v2."""
    return v2(secret, path, size, media_type)


def delete_token(secret: bytes, path: str, delete_secret: bytes) -> str:
    """Metronome's `?token=` for DELETE."""
    return _hex(secret, messages.delete_token(_storage_path(path), delete_secret))


def v3(secret: bytes, method: str, path: str, expires: int) -> str:
    """Slot v3, for `?v3=&expires=`: binds method, absolute path and expiry."""
    return _hex(secret, messages.v3(_verb(method), _absolute_path(path), _count(expires)))


def x_signature(secret: bytes, path: str) -> str:
    """The guide's X-Signature: binds the absolute path and nothing else."""
    return _hex(secret, messages.x_signature(_absolute_path(path)))


def x_signature_strong(secret: bytes, method: str, path: str, filename: str, size: int, expires: int) -> str:
    """X-Signature to go with X-Signature-Expires. `filename` is X-Filename as sent, "" when it is not sent."""
    message = messages.x_signature_strong(
        _verb(method), _absolute_path(path), _text(filename), _count(size), _count(expires)
    )
    return _hex(secret, message)


def ticket(secret: bytes, claims: Mapping[str, Any]) -> str:
    """Our own ticket; `aud` is added. Raises ValueError when the server would refuse the claims.

    Claims: exactly one of `path` (storage path) and `prefix` (of storage paths, "" = anywhere), `exp`;
    optional `max_size`, `type`, `files` (needs `jti`), `ops` (names of `Operation`; default put, upload,
    create, chunk), `sub`, `jti`, `nbf`, `iat`, `file_expires`.
    """
    complete = {"aud": TICKET_AUDIENCE, **claims}
    unknown = complete.keys() - set(TicketClaims.__struct_fields__)
    if unknown:
        raise ValueError(f"unknown claims: {', '.join(sorted(unknown))}")
    try:
        msgspec.convert(complete, TicketClaims)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    return jws.sign(Key(secret), TICKET_KIND, complete, name_key=True)


def prosody_jwt(secret: bytes, claims: Mapping[str, Any]) -> str:
    """A token as Prosody's mod_http_file_share hands it out; claims are kept as given, in their order."""
    return jws.sign(Key(secret), PROSODY_KIND, claims, name_key=False)


def _hex(secret: bytes, message: bytes) -> str:
    if not secret:
        raise ValueError("the secret must not be empty")
    return Key(secret).mac(message).hex()


def _text(text: str) -> bytes:
    if _CONTROL.search(text) is not None:
        raise ValueError("control characters cannot be signed")
    return text.encode()


def _storage_path(path: str) -> bytes:
    if not path or path.startswith("/"):
        raise ValueError("a storage path has no leading slash and is not empty")
    return _text(path)


def _absolute_path(path: str) -> bytes:
    if not path.startswith("/"):
        raise ValueError("an absolute path begins with a slash")
    return _text(path)


def _verb(method: str) -> bytes:
    if _METHOD.fullmatch(method) is None:
        raise ValueError("a method is upper-case letters")
    return method.encode("ascii")


def _count(number: int) -> int:
    if not 0 <= number < 10**19:
        raise ValueError("sizes and expiries have 1 to 19 digits")
    return number
