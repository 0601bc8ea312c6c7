"""Uploads by PUT with Content-Range, as the resumable uploads of Google's services have them.

An upload is made by a creation in tus 1.0.0, or else in the draft; its URL then takes PUT. There is no standard
for it: what is a MUST here is what every client of this dialect relies on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tests.conformance.catalogue import Failed, Level, Skipped, expect, range_case, skip
from tests.conformance.connection import Answer, NoAnswer
from tests.conformance.draft import Draft
from tests.conformance.target import Target, content, expect_refused, expect_status
from tests.conformance.tus import Tus

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
STATUS_CHECK = "Google Cloud Storage, resumable uploads: check the status"
CHUNKS = "Google Cloud Storage, resumable uploads: upload in chunks"
RANGE = "RFC 9110, 14.4"


@dataclass
class Ranges:
    """PUT requests with Content-Range to one server."""

    target: Target

    @cached_property
    def spoken(self) -> str | None:
        """Why the dialect is not spoken here; None when it is."""
        try:
            answer = self.put(self.create(10), "bytes */10")
        except Skipped as reason:
            return str(reason)
        except (Failed, NoAnswer, OSError) as error:
            return f"a status check: {error}"
        return None if answer.status == 308 else f"a status check is answered {answer.status}, not 308"

    @cached_property
    def _tus(self) -> Tus | None:
        tus = Tus(self.target)
        return tus if tus.spoken is None and "creation" in tus.extensions else None

    def create(self, length: int | None) -> str:
        """The URL of a new upload; `length` None leaves it open."""
        tus = self._tus
        if tus is not None:
            if length is None and "creation-defer-length" not in tus.extensions:
                skip("no upload of unknown length can be created")
            return tus.create(length)
        draft = Draft(self.target, None)
        if draft.spoken is not None:
            skip("no upload can be created by tus or the draft")
        return draft.create(length)

    def put(self, url: str, span: str, body: bytes = b"") -> Answer:
        return self.target.ask("PUT", url, {"Content-Range": span}, body)

    def piece(self, url: str, offset: int, body: bytes, total: int | str) -> Answer:
        return self.put(url, f"bytes {offset}-{offset + len(body) - 1}/{total}", body)

    def expect_kept(self, url: str, kept: int, total: int | str) -> None:
        """Failed unless a status check tells that `kept` bytes are there, and that they are not all."""
        answer = self.put(url, f"bytes */{total}")
        expect_status(answer, 308, what="status check")
        wanted = f"bytes=0-{kept - 1}" if kept else None
        expect(answer.get("range") == wanted, f"Range {answer.get('range')!r} instead of {wanted!r}")


@range_case("range-01", MUST, STATUS_CHECK)
def status_of_new(ranges: Ranges) -> None:
    """`bytes */N` of a new upload gets 308 without `Range`."""
    ranges.expect_kept(ranges.create(10), 0, 10)


@range_case("range-02", MUST, CHUNKS)
def first_piece(ranges: Ranges) -> None:
    """The first piece gets 308 with the `Range` that is kept, and a status check tells the same."""
    url = ranges.create(10)
    answer = ranges.piece(url, 0, b"abcde", 10)
    expect_status(answer, 308)
    expect(answer.get("range") == "bytes=0-4", f"Range {answer.get('range')!r}")
    ranges.expect_kept(url, 5, 10)


@range_case("range-03", MUST, CHUNKS)
def last_piece(ranges: Ranges) -> None:
    """The piece that ends at the total gets 200 or 201, and the content is whole."""
    data = content(100_000)
    url = ranges.create(len(data))
    expect_status(ranges.piece(url, 0, data[:60_000], len(data)), 308, what="first piece")
    answer = ranges.piece(url, 60_000, data[60_000:], len(data))
    expect_status(answer, 200, 201, what="last piece")
    ranges.target.expect_content(url, data)


@range_case("range-04", MUST, CHUNKS)
def one_piece(ranges: Ranges) -> None:
    """One piece of the whole content gets 200 or 201."""
    url = ranges.create(5)
    expect_status(ranges.piece(url, 0, b"abcde", 5), 200, 201)
    ranges.target.expect_content(url, b"abcde")


@range_case("range-05", MUST, STATUS_CHECK)
def status_of_complete(ranges: Ranges) -> None:
    """`bytes */N` of a complete upload gets 200 or 201, however often."""
    url = ranges.create(5)
    expect_status(ranges.piece(url, 0, b"abcde", 5), 200, 201, what="upload")
    expect_status(ranges.put(url, "bytes */5"), 200, 201, what="status check")
    expect_status(ranges.put(url, "bytes */5"), 200, 201, what="another")


@range_case("range-06", MUST, CHUNKS)
def gap(ranges: Ranges) -> None:
    """A piece that begins behind what is kept is not stored."""
    url = ranges.create(10)
    expect_status(ranges.piece(url, 0, b"abc", 10), 308, what="first piece")
    answer = ranges.piece(url, 5, b"fg", 10)
    expect(answer.status == 308 or answer.refused, f"{answer.status}")
    ranges.expect_kept(url, 3, 10)


@range_case("range-07", MUST, RANGE)
def malformed(ranges: Ranges) -> None:
    """A `Content-Range` that is none, or contradicts itself or the body's length, is refused and nothing is stored."""
    url = ranges.create(10)
    for span in (
        "bytes 0-4",
        "bytes 4-0/10",
        "bytes 0-10/10",
        "bytes 0-3/10",
        "bytes 0-5/10",
        "lines 0-4/10",
        "bytes a-b/c",
    ):
        expect_refused(ranges.put(url, span, b"abcde"), f"Content-Range: {span}")
    ranges.expect_kept(url, 0, 10)


@range_case("range-08", MUST, RANGE)
def other_total(ranges: Ranges) -> None:
    """A total other than the one told before is refused, and nothing is stored."""
    url = ranges.create(10)
    expect_refused(ranges.piece(url, 0, b"abcde", 11))
    ranges.expect_kept(url, 0, 10)


@range_case("range-09", SHOULD, CHUNKS)
def cut_piece(ranges: Ranges) -> None:
    """What a piece brought before its connection was closed is kept, and the status check tells it."""
    data = content(200_000)
    url = ranges.create(len(data))
    fields = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}", "Content-Length": str(len(data))}
    with ranges.target.begin("PUT", url, fields, data[:120_000]) as cut:
        cut.finish()
        cut.ended()
    ranges.expect_kept(url, 120_000, len(data))
    expect_status(ranges.piece(url, 120_000, data[120_000:], len(data)), 200, 201, what="the rest")
    ranges.target.expect_content(url, data)


@range_case("range-10", SHOULD, "Google Cloud Storage, resumable uploads: content of unknown size")
def unknown_total(ranges: Ranges) -> None:
    """While the total is not known, it is `*`; the piece that tells it ends the upload."""
    url = ranges.create(None)
    answer = ranges.piece(url, 0, b"abcde", "*")
    expect_status(answer, 308, what="first piece")
    expect(answer.get("range") == "bytes=0-4", f"Range {answer.get('range')!r}")
    ranges.expect_kept(url, 5, "*")
    expect_status(ranges.piece(url, 5, b"fgh", 8), 200, 201, what="last piece")
    ranges.target.expect_content(url, b"abcdefgh")


@range_case("range-11", MUST, STATUS_CHECK)
def unknown_upload(ranges: Ranges) -> None:
    """A piece for an upload that never was, or a status check of it, gets 404 or 410."""
    url = ranges.create(10)
    base, last = url.rstrip("/").rsplit("/", 1)
    turned = last[:-4] + "".join("0" if sign != "0" else "1" for sign in last[-4:])
    expect_status(ranges.put(f"{base}/{turned}", "bytes */10"), 404, 410, what="status check")
    expect_status(ranges.piece(f"{base}/{turned}", 0, b"abcde", 10), 404, 410, what="piece")


@range_case("range-12", OURS, "a client that did not see its answer repeats the piece")
def same_piece_again(ranges: Ranges) -> None:
    """A piece that is there already is not stored twice, and its answer leads the client on."""
    url = ranges.create(10)
    expect_status(ranges.piece(url, 0, b"abcde", 10), 308, what="first time")
    answer = ranges.piece(url, 0, b"abcde", 10)
    expect(answer.status == 308 or answer.refused, f"{answer.status}")
    ranges.expect_kept(url, 5, 10)
    expect_status(ranges.piece(url, 5, b"fghij", 10), 200, 201, what="last piece")
    ranges.target.expect_content(url, b"abcdefghij")


@range_case("range-13", MUST, CHUNKS)
def silent_rival(ranges: Ranges) -> None:
    """While an old PUT hangs in silence, a status check tells a range that a new PUT may go on from."""
    data = content(200_000)
    url = ranges.create(len(data))
    fields = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}", "Content-Length": str(len(data))}
    with ranges.target.begin("PUT", url, fields, data[:100_000]) as old:
        old.delivered()
        answer = ranges.put(url, f"bytes */{len(data)}")
        expect_status(answer, 308, what="status check")
        told = answer.get("range")
        expect(told is None or told.removeprefix("bytes=0-").isdecimal(), f"Range {told!r}")
        offset = 0 if told is None else int(told.removeprefix("bytes=0-")) + 1
        expect(offset <= 100_000, f"{offset} bytes kept of 100000")
        expect_status(ranges.piece(url, offset, data[offset:], len(data)), 200, 201, what="the rest")
    ranges.target.expect_content(url, data)
