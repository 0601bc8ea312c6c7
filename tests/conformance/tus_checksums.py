"""tus 1.0.0: checksum and checksum-trailer."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib

from tests.conformance.catalogue import Level, expect, skip, tus_case
from tests.conformance.connection import Answer
from tests.conformance.target import OFFSET_TYPE, content, expect_refused, expect_status, number
from tests.conformance.tus import Tus

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
CHECKSUM = "checksum"
TRAILER = "checksum-trailer"

# CRC-32C (Castagnoli), bit-reflected.
_CASTAGNOLI = 0x82F63B78


def crc32c(data: bytes) -> int:
    """CRC-32C of RFC 3720, B.4."""
    table = []
    for number_ in range(256):
        value = number_
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
        table.append(value)
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = (checksum >> 8) ^ table[(checksum ^ byte) & 0xFF]
    return checksum ^ 0xFFFFFFFF


def digest(algorithm: str, data: bytes) -> bytes | None:
    """The checksum that `algorithm` names; None for one that is not known here."""
    if algorithm == "crc32":
        return zlib.crc32(data).to_bytes(4, "big")
    if algorithm == "crc32c":
        return crc32c(data).to_bytes(4, "big")
    name = algorithm.replace("-", "_") if algorithm.startswith("sha3") else algorithm.replace("-", "")
    if name not in hashlib.algorithms_guaranteed or name.startswith("shake"):
        return None
    return hashlib.new(name, data, usedforsecurity=False).digest()


def checksum(algorithm: str, data: bytes) -> str:
    """Value of Upload-Checksum."""
    found = digest(algorithm, data)
    if found is None:
        raise ValueError(algorithm)
    return f"{algorithm} {base64.b64encode(found).decode()}"


def algorithms(tus: Tus) -> list[str]:
    listed = tus.configuration.get("tus-checksum-algorithm") or ""
    return [name.strip() for name in listed.split(",") if name.strip()]


def expect_discarded(tus: Tus, url: str, offset: int, answer: Answer, what: str) -> None:
    expect_refused(answer, what)
    found = tus.offset(url)
    expect(found == offset, f"{what}: offset {found} instead of {offset}")


@tus_case("tus-checksum-01", MUST, "Checksum", CHECKSUM)
def names_algorithms(tus: Tus) -> None:
    """OPTIONS has `Tus-Checksum-Algorithm`, with sha1 in it, all in lower case."""
    names = algorithms(tus)
    expect("sha1" in names, f"Tus-Checksum-Algorithm: {names}")
    bad = [name for name in names if not re.fullmatch(r"[!-@\[-~]+", name)]
    expect(not bad, f"not lower-case ASCII: {bad}")


@tus_case("tus-checksum-02", MUST, "Checksum", CHECKSUM)
def good_checksum(tus: Tus) -> None:
    """A PATCH whose sha1 is right is stored."""
    url = tus.create(10)
    tus.append(url, 0, b"abcde", {"Upload-Checksum": checksum("sha1", b"abcde")})
    tus.append(url, 5, b"fghij", {"Upload-Checksum": checksum("sha1", b"fghij")})
    tus.target.expect_content(url, b"abcdefghij")


@tus_case("tus-checksum-03", MUST, "Checksum", CHECKSUM)
def bad_checksum(tus: Tus) -> None:
    """A PATCH whose sha1 is wrong is refused, and nothing of it is kept."""
    url = tus.create(10)
    tus.append(url, 0, b"abc")
    fields = {"Upload-Checksum": checksum("sha1", b"other")}
    expect_discarded(tus, url, 3, tus.patch(url, 3, b"defgh", fields), "wrong sha1")
    tus.append(url, 3, b"DEFGHIJ")
    tus.target.expect_content(url, b"abcDEFGHIJ")


@tus_case("tus-checksum-04", SHOULD, "Checksum", CHECKSUM)
def mismatch_is_460(tus: Tus) -> None:
    """The status of a wrong checksum is 460, with `Tus-Resumable`."""
    url = tus.create(5)
    answer = tus.patch(url, 0, b"abcde", {"Upload-Checksum": checksum("sha1", b"other")})
    expect_status(answer, 460)
    expect(answer.get("tus-resumable") == "1.0.0", "no Tus-Resumable")


@tus_case("tus-checksum-05", MUST, "Checksum", CHECKSUM)
def unknown_algorithm(tus: Tus) -> None:
    """A PATCH with an algorithm that the server does not name gets 400, and nothing of it is kept."""
    url = tus.create(5)
    answer = tus.patch(url, 0, b"abcde", {"Upload-Checksum": "nosuchsum " + base64.b64encode(b"x").decode()})
    expect_discarded(tus, url, 0, answer, "unknown algorithm")
    expect_status(answer, 400)


@tus_case("tus-checksum-06", MUST, "Checksum, Upload-Checksum", CHECKSUM)
def malformed_checksum(tus: Tus) -> None:
    """An `Upload-Checksum` that is none, or whose value is no checksum of its algorithm, is refused."""
    url = tus.create(5)
    right = checksum("sha1", b"abcde").split()[1]
    for value in ("sha1", f"{right}", "sha1 !!!", "sha1 " + base64.b64encode(b"short").decode()):
        answer = tus.patch(url, 0, b"abcde", {"Upload-Checksum": value})
        expect_discarded(tus, url, 0, answer, f"Upload-Checksum: {value}")


@tus_case("tus-checksum-07", MUST, "Checksum", CHECKSUM)
def every_algorithm(tus: Tus) -> None:
    """Every algorithm that the server names is really compared: right ones pass, wrong ones are refused."""
    tried = []
    for name in algorithms(tus):
        if digest(name, b"") is None:
            continue
        url = tus.create(9)
        tus.append(url, 0, b"123456789", {"Upload-Checksum": checksum(name, b"123456789")})
        url = tus.create(9)
        wrong = {"Upload-Checksum": checksum(name, b"123456780")}
        expect_discarded(tus, url, 0, tus.patch(url, 0, b"123456789", wrong), f"wrong {name}")
        tried.append(name)
    expect("sha1" in tried, "sha1 was not tried")
    tus.target.note(f"tried: {', '.join(tried)}")


@tus_case("tus-checksum-08", MUST, "Checksum", CHECKSUM)
def checksum_of_a_large_body(tus: Tus) -> None:
    """A body of many reads is compared as a whole: a wrong one of 1 MiB leaves nothing behind."""
    data = content(1 << 20)
    url = tus.create(len(data))
    wrong = {"Upload-Checksum": checksum("sha1", data[:-1] + b"?")}
    expect_discarded(tus, url, 0, tus.patch(url, 0, data, wrong), "wrong sha1")
    tus.append(url, 0, data, {"Upload-Checksum": checksum("sha1", data)})
    tus.target.expect_content(url, data)


@tus_case("tus-checksum-09", MUST, "Checksum", CHECKSUM)
def checksum_in_chunks(tus: Tus) -> None:
    """The checksum is that of the content, not of the chunked framing."""
    data = content(30_000)
    url = tus.create(len(data))
    wrong = {"Upload-Checksum": checksum("sha1", b"other")}
    expect_discarded(tus, url, 0, tus.patch(url, 0, data, wrong, pieces=True), "wrong sha1")
    answer = tus.patch(url, 0, data, {"Upload-Checksum": checksum("sha1", data)}, pieces=True)
    expect_status(answer, 204)
    expect(number(answer, "Upload-Offset") == len(data), f"Upload-Offset {answer.get('upload-offset')}")


@tus_case(
    "tus-checksum-10", SHOULD, "Creation With Upload: similar rules as for PATCH", CHECKSUM, "creation-with-upload"
)
def checksum_of_a_creation(tus: Tus) -> None:
    """A creation with content is compared too: a wrong checksum is refused, a right one passes."""
    fields = {"Upload-Length": "5", "Content-Type": OFFSET_TYPE}
    expect_refused(tus.post({**fields, "Upload-Checksum": checksum("sha1", b"other")}, b"abcde"), "wrong sha1")
    answer = tus.post({**fields, "Upload-Checksum": checksum("sha1", b"abcde")}, b"abcde")
    expect_status(answer, 201)
    expect(number(answer, "Upload-Offset") == 5, f"Upload-Offset {answer.get('upload-offset')}")


@tus_case("tus-checksum-11", MUST, "Checksum: once the entire request has been received", CHECKSUM)
def cut_with_checksum(tus: Tus) -> None:
    """A PATCH with a checksum that was cut is never taken as compared: it can be repeated from the offset told."""
    data = content(100_000)
    url = tus.create(len(data))
    fields = {"Upload-Checksum": checksum("sha1", data)}
    with tus.begin(url, 0, len(data), data[:60_000], fields) as cut:
        cut.delivered()
    offset = tus.offset(url)
    expect(offset <= 60_000, f"offset {offset} after 60000 bytes")
    tus.append(url, offset, data[offset:], {"Upload-Checksum": checksum("sha1", data[offset:])})
    tus.target.expect_content(url, data)


@tus_case("tus-checksum-12", OURS, "what cannot be compared is not kept", CHECKSUM)
def cut_with_checksum_leaves_nothing(tus: Tus) -> None:
    """Nothing is kept of a PATCH with a checksum that was cut, for nobody can say whether it was right."""
    url = tus.create(100_000)
    fields = {"Upload-Checksum": checksum("sha1", b"anything")}
    with tus.begin(url, 0, 100_000, content(60_000), fields) as cut:
        cut.delivered()
        cut.finish()
        cut.ended()
    tus.expect_offset(url, 0)


@tus_case("tus-trailer-01", MUST, "Checksum: as a trailer", TRAILER)
def good_trailer(tus: Tus) -> None:
    """A right checksum in the trailer of a chunked PATCH passes."""
    data = content(30_000)
    url = tus.create(len(data))
    answer = tus.patch(
        url,
        0,
        data,
        {"Trailer": "Upload-Checksum"},
        pieces=True,
        trailers={"Upload-Checksum": checksum("sha1", data)},
    )
    expect_status(answer, 204)
    expect(number(answer, "Upload-Offset") == len(data), f"Upload-Offset {answer.get('upload-offset')}")
    tus.target.expect_content(url, data)


@tus_case("tus-trailer-02", MUST, "Checksum: as a trailer", TRAILER)
def bad_trailer(tus: Tus) -> None:
    """A wrong checksum in the trailer is refused, and nothing of the body is kept."""
    data = content(30_000)
    url = tus.create(len(data))
    answer = tus.patch(
        url,
        0,
        data,
        {"Trailer": "Upload-Checksum"},
        pieces=True,
        trailers={"Upload-Checksum": checksum("sha1", b"other")},
    )
    expect_discarded(tus, url, 0, answer, "wrong sha1 in the trailer")
    tus.append(url, 0, data)


@tus_case("tus-trailer-03", MUST, "Checksum: as a trailer", TRAILER)
def unknown_trailer(tus: Tus) -> None:
    """An algorithm in the trailer that is not known gets 400, and nothing of the body is kept."""
    url = tus.create(5)
    answer = tus.patch(
        url,
        0,
        b"abcde",
        {"Trailer": "Upload-Checksum"},
        pieces=True,
        trailers={"Upload-Checksum": "nosuchsum eA=="},
    )
    expect_discarded(tus, url, 0, answer, "unknown algorithm in the trailer")
    expect_status(answer, 400)


@tus_case("tus-trailer-04", OURS, "a checksum that was promised and did not come is one that does not match", TRAILER)
def promised_trailer(tus: Tus) -> None:
    """A PATCH that announces the trailer and ends without it is refused, and nothing of it is kept."""
    url = tus.create(5)
    answer = tus.patch(url, 0, b"abcde", {"Trailer": "Upload-Checksum"}, pieces=True)
    if answer.ok:
        skip("the server does not insist on the trailer")
    expect_discarded(tus, url, 0, answer, "no trailer")
