"""Checksums of one request's body as tus announces them: `Upload-Checksum: algorithm base64` (tus 1.0.0, "Checksum").

In a head or, for a chunked body, in its trailer section ("Checksum Trailer").
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any, Final

import blake3

from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.request import Request

_FIELD: Final = b"upload-checksum"
_HASHES: Final[dict[str, Callable[[], Any]]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "blake3": blake3.blake3,
}
ALGORITHMS: Final = tuple(_HASHES)
"""Names, as `Tus-Checksum-Algorithm` lists them."""

_SIZES: Final = {name: len(make().digest()) for name, make in _HASHES.items()}


class Checksum:
    """The checksum of a body whose head announces it. See `uploads.Check`."""

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


class TrailingChecksum:
    """The checksum of a body that says only at its end what it should be, and by which algorithm.

    All of them are computed meanwhile. A body whose announced trailer does not come never matches.
    """

    __slots__ = ("_hashes", "_trailers", "fault")

    def __init__(self, trailers: Callable[[], Mapping[bytes, bytes]]) -> None:
        """`trailers` is asked once the body is whole: lower-case names, values."""
        self._hashes = {name: make() for name, make in _HASHES.items()}
        self._trailers = trailers
        self.fault: HttpError | None = None

    def update(self, data: memoryview) -> None:
        """The next bytes."""
        for each in self._hashes.values():
            each.update(data)

    def matches(self) -> bool:
        """Whether the bytes so far are the announced ones; False with a `fault` if that is not understood."""
        try:
            algorithm, expected = _parse(self._trailers().get(_FIELD, b""))
        except HttpError as error:
            self.fault = error
            return False
        return compare_digest(self._hashes[algorithm].digest(), expected)


def body_checksum(
    request: Request, trailers: Callable[[], Mapping[bytes, bytes]]
) -> Checksum | TrailingChecksum | None:
    """What a request announces for its body, None when it announces nothing.

    Raises HttpError 400: `checksum_unsupported` for an algorithm that is not known here, `bad_digest` for what
    is malformed.
    """
    value = request.header(_FIELD)
    if value is not None:
        return Checksum(*_parse(value))
    announced = (request.header(b"trailer") or b"").lower().split(b",")
    if request.chunked and _FIELD in {name.strip(b" \t") for name in announced}:
        return TrailingChecksum(trailers)
    return None


def _parse(value: bytes) -> tuple[str, bytes]:
    """(algorithm, digest)."""
    name, space, encoded = value.partition(b" ")
    if not space:
        raise HttpError(400, "bad_digest", "Upload-Checksum must be the name of an algorithm, a space and Base64.")
    algorithm = name.decode("ascii", "replace")
    if algorithm not in _HASHES:
        raise HttpError(400, "checksum_unsupported", f"Upload-Checksum may be one of {', '.join(ALGORITHMS)}.")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != _SIZES[algorithm]:
        raise HttpError(400, "bad_digest", f"Upload-Checksum is not the Base64 of a {algorithm} digest.")
    return algorithm, digest
