"""Digests that a client announces for a body: Content-Digest (RFC 9530) and Digest (RFC 3230)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from hmac import compare_digest
from typing import Any, Final

from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.request import Request

_HASHES: Final[dict[str, Callable[[], Any]]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
_SIZES: Final = {"sha-256": 32, "sha-512": 64}
# RFC 9651: dictionary members that are byte sequences. Parameters after them carry no meaning here.
_MEMBER: Final = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):(?:;[^,]*)?")
_INSTANCE: Final = re.compile(r"([A-Za-z0-9-]+)=([A-Za-z0-9+/=]+)")
_LONGEST: Final = 1024


class BodyDigest:
    """The digest of a body as it comes, and what it should be. See `uploads.Check`."""

    __slots__ = ("_expected", "_hash")

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self._hash = _HASHES[algorithm]()
        self._expected = expected

    def update(self, data: memoryview) -> None:
        """The next bytes."""
        self._hash.update(data)

    def matches(self) -> bool:
        """Whether the bytes so far are the announced ones."""
        return compare_digest(self._hash.digest(), self._expected)


def body_digest(request: Request) -> BodyDigest | None:
    """The digest announced for the body by an algorithm that is known here; None when there is none.

    Of several, one is enough to know. Raises HttpError 400 `bad_digest` for a field that is malformed, or a digest
    of the wrong length.
    """
    for name, pattern in ((b"content-digest", _MEMBER), (b"digest", _INSTANCE)):
        value = request.header(name)
        if value is None:
            continue
        if len(value) > _LONGEST or not value.isascii():
            raise _bad()
        found: dict[str, bytes] = {}
        for member in value.decode("ascii").split(","):
            match = pattern.fullmatch(member.strip(" \t"))
            if match is None:
                raise _bad()
            algorithm = match[1].lower()
            if algorithm in _HASHES:
                # Of two of one name the last counts (RFC 9651 section 4.2.2).
                found[algorithm] = _decoded(match[2], _SIZES[algorithm])
        for algorithm in _HASHES:
            if algorithm in found:
                return BodyDigest(algorithm, found[algorithm])
    return None


def _decoded(text: str, size: int) -> bytes:
    try:
        # Padding may be missing (RFC 9651 section 4.2.7).
        value = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise _bad() from None
    if len(value) != size:
        raise _bad()
    return value


def _bad() -> HttpError:
    return HttpError(400, "bad_digest", "The digest of the body is malformed.")
