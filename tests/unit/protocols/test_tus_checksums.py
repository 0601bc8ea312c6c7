"""Upload-Checksum: every algorithm, in heads and in trailers, against digests made without the code under test."""

from __future__ import annotations

import base64
import hashlib
import itertools

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocols.exchanges import request

from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols.checksums import ALGORITHMS, Checksum, TrailingChecksum, body_checksum

NAMES = ("sha1", "sha256", "sha512", "md5", "blake3")


def digest(algorithm: str, body: bytes) -> bytes:
    return blake3.blake3(body).digest() if algorithm == "blake3" else hashlib.new(algorithm, body).digest()


def field(algorithm: str, value: bytes) -> bytes:
    return algorithm.encode() + b" " + base64.b64encode(value)


def checksum(value: bytes | None, trailers: dict[bytes, bytes] | None = None) -> Checksum | TrailingChecksum | None:
    """As a request has it: in its head, or, with `trailers`, announced for its end."""
    fields = {} if value is None else {"upload_checksum": value}
    if trailers is not None:
        fields |= {"trailer": b"Expires, Upload-Checksum", "transfer_encoding": b"chunked"}
    return body_checksum(request("PATCH", "/tus/1_a", b"", None, **fields), lambda: trailers or {})


def fed(check: Checksum | TrailingChecksum | None, body: bytes, cuts: set[int]) -> Checksum | TrailingChecksum:
    assert check is not None
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    for start, stop in itertools.pairwise(edges):
        # Only valid during the call, as a body loop's buffer is.
        buffer = bytearray(body[start:stop])
        check.update(memoryview(buffer))
        buffer[:] = bytes(len(buffer))
    return check


def test_the_algorithms() -> None:
    assert ALGORITHMS == NAMES


@given(
    algorithm=st.sampled_from(NAMES),
    body=st.binary(max_size=300),
    cuts=st.sets(st.integers(1, 299), max_size=4),
    flip=st.none() | st.integers(0, 299),
    trailing=st.booleans(),
)
def test_only_the_same_bytes_match(
    algorithm: str, body: bytes, cuts: set[int], flip: int | None, trailing: bool
) -> None:
    value = field(algorithm, digest(algorithm, body))
    sent = bytearray(body)
    if flip is not None and sent:
        sent[flip % len(sent)] ^= 1
    check = checksum(None, {b"upload-checksum": value}) if trailing else checksum(value)
    assert fed(check, bytes(sent), cuts).matches() is (bytes(sent) == body)


def test_nothing_announced() -> None:
    assert checksum(None) is None
    # A trailer that is not that of a chunked body, or is another one.
    assert body_checksum(request("PATCH", "/", trailer=b"Upload-Checksum"), dict) is None
    other = request("PATCH", "/", trailer=b"Expires", transfer_encoding=b"chunked")
    assert body_checksum(other, dict) is None


WRONG = [
    (b"", "bad_digest"),
    (b"sha1", "bad_digest"),
    (b"sha1 ", "bad_digest"),
    (b"sha1 AAAA", "bad_digest"),
    (b"sha1  " + base64.b64encode(b"x" * 20), "bad_digest"),
    (b"sha1 " + base64.b64encode(b"x" * 20).rstrip(b"="), "bad_digest"),
    (b"sha1 " + base64.b64encode(b"x" * 21), "bad_digest"),
    (b"sha256 " + base64.b64encode(b"x" * 20), "bad_digest"),
    (b"sha1 \xff", "bad_digest"),
    (b"crc32 AAAA", "checksum_unsupported"),
    (b"SHA1 " + base64.b64encode(b"x" * 20), "checksum_unsupported"),
    (b"sha-1 AAAA", "checksum_unsupported"),
    (b"\xff AAAA", "checksum_unsupported"),
    (b" AAAA", "checksum_unsupported"),
]


@pytest.mark.parametrize(("value", "code"), WRONG)
def test_what_cannot_be_compared(value: bytes, code: str) -> None:
    with pytest.raises(HttpError) as refused:
        checksum(value)
    assert (refused.value.status, refused.value.code) == (400, code)


@pytest.mark.parametrize(("value", "code"), WRONG)
def test_what_cannot_be_compared_at_the_end(value: bytes, code: str) -> None:
    check = fed(checksum(None, {b"upload-checksum": value}), b"body", set())
    assert isinstance(check, TrailingChecksum)
    assert check.fault is None
    assert not check.matches()
    assert check.fault is not None
    assert (check.fault.status, check.fault.code) == (400, code)


def test_a_trailer_that_does_not_come() -> None:
    check = fed(checksum(None, {b"expires": b"never"}), b"", set())
    assert not check.matches()
    assert isinstance(check, TrailingChecksum)
    assert check.fault is not None


def test_the_head_counts_more_than_the_end() -> None:
    body = b"body"
    check = checksum(field("sha1", digest("sha1", body)), {b"upload-checksum": b"sha1 AAAA"})
    assert fed(check, body, set()).matches()
