"""tus 1.0.0: concatenation and concatenation-unfinished."""

from __future__ import annotations

import threading
from urllib.parse import urljoin, urlsplit

from tests.conformance.catalogue import Level, expect, skip, tus_case
from tests.conformance.target import OFFSET_TYPE, content, expect_ok, expect_refused, expect_status, number
from tests.conformance.tus import RESUMABLE, Tus, metadata

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
CONCAT = "concatenation"
UNFINISHED = "concatenation-unfinished"
PARTIAL = {"Upload-Concat": "partial"}


def part(tus: Tus, data: bytes) -> str:
    """A complete partial upload."""
    url = tus.create(len(data), PARTIAL)
    tus.append(url, 0, data)
    return url


@tus_case("tus-concat-01", MUST, "Concatenation", CONCAT)
def partial_upload(tus: Tus) -> None:
    """HEAD of a partial upload tells `Upload-Concat: partial` and `Upload-Offset`."""
    url = tus.create(5, PARTIAL)
    for offset in (0, 5):
        answer = tus.head(url)
        expect_ok(answer, "HEAD")
        expect(answer.get("upload-concat") == "partial", f"Upload-Concat {answer.get('upload-concat')!r}")
        expect(number(answer, "Upload-Offset") == offset, f"Upload-Offset {answer.get('upload-offset')}")
        if offset == 0:
            tus.append(url, 0, b"abcde")


@tus_case("tus-concat-02", MUST, "Concatenation", CONCAT)
def final_upload(tus: Tus) -> None:
    """A final upload of two parts is as long as both, complete, and has their content in the order given."""
    first, second = content(40_000, 1), content(30_001, 2)
    url = tus.final(part(tus, first), part(tus, second))
    answer = tus.head(url)
    expect_ok(answer, "HEAD")
    expect(number(answer, "Upload-Length") == 70_001, f"Upload-Length {answer.get('upload-length')}")
    expect(number(answer, "Upload-Offset") == 70_001, f"Upload-Offset {answer.get('upload-offset')}")
    tus.target.expect_content(url, first + second)


@tus_case("tus-concat-03", MUST, "Concatenation", CONCAT)
def other_order(tus: Tus) -> None:
    """The order of the list counts, not that of creation."""
    first, second = part(tus, b"world"), part(tus, b"hello ")
    tus.target.expect_content(tus.final(second, first), b"hello world")


@tus_case("tus-concat-04", MUST, "Concatenation", CONCAT)
def final_tells_its_parts(tus: Tus) -> None:
    """HEAD of a final upload tells `Upload-Concat` as it was sent."""
    value = f"final;{part(tus, b'abc')} {part(tus, b'def')}"
    answer = tus.post({"Upload-Concat": value})
    expect_status(answer, 201)
    found = tus.head(tus.target.created(tus.target.url, answer, RESUMABLE)).get("upload-concat")
    expect(found == value, f"Upload-Concat: {found!r} instead of {value!r}")


@tus_case("tus-concat-05", MUST, "Concatenation", CONCAT)
def patch_of_final(tus: Tus) -> None:
    """PATCH of a final upload gets 403 and changes nothing."""
    url = tus.final(part(tus, b"abc"), part(tus, b"def"))
    for body in (b"", b"x"):
        expect_status(tus.patch(url, 6, body), 403, what=f"{len(body)} bytes")
    tus.expect_offset(url, 6)
    tus.target.expect_content(url, b"abcdef")


@tus_case("tus-concat-06", MUST, "Concatenation, Upload-Concat", CONCAT)
def relative_and_absolute(tus: Tus) -> None:
    """Parts may be named by absolute URLs and by paths, also mixed."""
    first, second = part(tus, b"abc"), part(tus, b"def")
    expect(bool(urlsplit(first).netloc), "no absolute URL")
    tus.target.expect_content(tus.final(first, urlsplit(second).path), b"abcdef")


@tus_case("tus-concat-07", MUST, "Concatenation", CONCAT)
def metadata_is_its_own(tus: Tus) -> None:
    """The metadata of parts is not that of the final upload, which has its own or none."""
    fields = {**PARTIAL, "Upload-Metadata": metadata(filename=b"part.bin")}
    first = tus.create(3, fields)
    tus.append(first, 0, b"abc")
    second = part(tus, b"def")
    found = tus.head(tus.final(first, second)).get("upload-metadata")
    expect(not found, f"Upload-Metadata {found!r} out of a part")
    own = metadata(filename=b"whole.bin")
    first, second = part(tus, b"abc"), part(tus, b"def")
    found = tus.head(tus.final(first, second, fields={"Upload-Metadata": own})).get("upload-metadata")
    expect(found == own, f"Upload-Metadata {found!r} instead of {own!r}")


@tus_case("tus-concat-08", SHOULD, "Concatenation", CONCAT)
def final_with_length(tus: Tus) -> None:
    """A final upload created with `Upload-Length` is refused."""
    value = f"final;{part(tus, b'abc')} {part(tus, b'def')}"
    expect_refused(tus.post({"Upload-Concat": value, "Upload-Length": "6"}))


@tus_case("tus-concat-09", MUST, "Concatenation", CONCAT)
def final_of_unknown(tus: Tus) -> None:
    """A final upload of a part that is not there, or of no part at all, is refused."""
    known = part(tus, b"abc")
    expect_refused(tus.post({"Upload-Concat": f"final;{known} {tus.missing()}"}), "unknown part")
    expect_refused(tus.post({"Upload-Concat": f"final;{urljoin(tus.target.url, '/')}"}), "no upload's URL")
    expect_refused(tus.post({"Upload-Concat": "final;"}), "no part")


@tus_case("tus-concat-10", SHOULD, "Concatenation", CONCAT)
def final_of_whole_uploads(tus: Tus) -> None:
    """A final upload of uploads that are not partial is refused."""
    url = tus.create(3)
    tus.append(url, 0, b"abc")
    expect_refused(tus.post({"Upload-Concat": f"final;{url} {part(tus, b'def')}"}))


@tus_case("tus-concat-11", SHOULD, "Concatenation, Upload-Concat", CONCAT)
def strange_concat(tus: Tus) -> None:
    """`Upload-Concat` with any other value is refused."""
    for value in ("whole", "partial;x", "final"):
        expect_refused(tus.post({"Upload-Concat": value, "Upload-Length": "5"}), f"Upload-Concat: {value}")


@tus_case("tus-concat-12", SHOULD, "Concatenation", CONCAT)
def final_too_early(tus: Tus) -> None:
    """Without `concatenation-unfinished`, a final upload of unfinished parts is refused."""
    if UNFINISHED in tus.extensions:
        skip("the server offers concatenation-unfinished")
    expect_refused(tus.post({"Upload-Concat": f"final;{tus.create(3, PARTIAL)} {part(tus, b'def')}"}))


@tus_case("tus-concat-13", MUST, "Concatenation", CONCAT)
def parallel_parts(tus: Tus) -> None:
    """Four parts that are sent at the same time are all whole, and so is the final upload."""
    pieces = [content(150_000, seed) for seed in range(4)]
    urls = [tus.create(len(piece), PARTIAL) for piece in pieces]
    statuses: dict[int, int] = {}

    def send(place: int) -> None:
        statuses[place] = tus.patch(urls[place], 0, pieces[place]).status

    senders = [threading.Thread(target=send, args=(place,)) for place in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    expect(statuses == dict.fromkeys(range(4), 204), f"statuses {statuses}")
    tus.target.expect_content(tus.final(*urls), b"".join(pieces))


@tus_case("tus-concat-14", OURS, "parts may be used again, says Concatenation", CONCAT)
def parts_again(tus: Tus) -> None:
    """A part may stand in one list twice, and in more than one final upload."""
    first, second = part(tus, b"abc"), part(tus, b"def")
    tus.target.expect_content(tus.final(first, second, first), b"abcdefabc")
    tus.target.expect_content(tus.final(second, first), b"defabc")


@tus_case("tus-concat-15", OURS, "parts may be deleted afterwards, says Concatenation", CONCAT, "termination")
def parts_deleted(tus: Tus) -> None:
    """Deleting the parts afterwards leaves the final upload whole."""
    first, second = part(tus, b"abc"), part(tus, b"def")
    url = tus.final(first, second)
    for used in (first, second):
        tus.target.ask("DELETE", used, RESUMABLE)
    answer = tus.head(url)
    expect_ok(answer, "HEAD of the final upload")
    expect(number(answer, "Upload-Offset") == 6, f"Upload-Offset {answer.get('upload-offset')}")
    tus.target.expect_content(url, b"abcdef")


@tus_case("tus-concat-16", MUST, "Concatenation, Creation With Upload", CONCAT, "creation-with-upload")
def parts_with_content(tus: Tus) -> None:
    """Partial uploads may be created with their content."""
    urls = [tus.create(3, {**PARTIAL, "Content-Type": OFFSET_TYPE}, data) for data in (b"abc", b"def")]
    tus.target.expect_content(tus.final(*urls), b"abcdef")


@tus_case("tus-concat-17", MUST, "Concatenation; Creation, POST", CONCAT)
def empty_parts(tus: Tus) -> None:
    """A part may be empty."""
    empty = tus.create(0, PARTIAL)
    url = tus.final(empty, part(tus, b"abc"))
    tus.expect_offset(url, 3)
    tus.target.expect_content(url, b"abc")


@tus_case("tus-unfinished-01", MUST, "Concatenation", UNFINISHED)
def early_final(tus: Tus) -> None:
    """A final upload may be created before its parts are complete; it is complete once they are."""
    urls = [tus.create(3, PARTIAL) for _ in range(2)]
    tus.append(urls[0], 0, b"abc")
    url = tus.final(*urls)
    tus.append(urls[1], 0, b"def")
    answer = tus.head(url)
    expect_ok(answer, "HEAD")
    expect(number(answer, "Upload-Offset") == 6, f"Upload-Offset {answer.get('upload-offset')}")
    expect(number(answer, "Upload-Length") == 6, f"Upload-Length {answer.get('upload-length')}")
    tus.target.expect_content(url, b"abcdef")


@tus_case("tus-unfinished-02", SHOULD, "Concatenation", UNFINISHED)
def no_offset_before(tus: Tus) -> None:
    """While parts are missing, HEAD of the final upload has no `Upload-Offset`."""
    answer = tus.head(tus.final(tus.create(3, PARTIAL), part(tus, b"def")))
    expect_ok(answer, "HEAD")
    expect(not answer.has("upload-offset"), f"Upload-Offset {answer.get('upload-offset')}")


@tus_case("tus-unfinished-03", MUST, "Concatenation", UNFINISHED)
def length_before(tus: Tus) -> None:
    """While parts are missing, HEAD of the final upload tells `Upload-Concat`, and the length that can be computed."""
    value = f"final;{tus.create(30, PARTIAL)} {part(tus, b'def')}"
    answer = tus.post({"Upload-Concat": value})
    expect_status(answer, 201)
    found = tus.head(tus.target.created(tus.target.url, answer, RESUMABLE))
    expect_ok(found, "HEAD")
    expect(found.get("upload-concat") == value, f"Upload-Concat {found.get('upload-concat')!r}")
    expect(number(found, "Upload-Length") == 33, f"Upload-Length {found.get('upload-length')}")


@tus_case("tus-unfinished-04", MUST, "Concatenation", UNFINISHED)
def patch_of_early_final(tus: Tus) -> None:
    """PATCH of a final upload whose parts are missing gets 403 and changes none of them."""
    missing = tus.create(3, PARTIAL)
    url = tus.final(missing, part(tus, b"def"))
    expect_status(tus.patch(url, 0, b"abc"), 403)
    tus.expect_offset(missing, 0)


@tus_case("tus-unfinished-05", SHOULD, "Concatenation", UNFINISHED, "creation-defer-length")
def early_final_of_unknown_length(tus: Tus) -> None:
    """A part of unknown length may stand in it: the length of the whole is told once it is known."""
    late = tus.create(None, PARTIAL)
    url = tus.final(part(tus, b"abc"), late)
    answer = tus.head(url)
    expect_ok(answer, "HEAD")
    expect(not answer.has("upload-length"), f"Upload-Length {answer.get('upload-length')}")
    tus.append(late, 0, b"defg", {"Upload-Length": "4"})
    expect(number(tus.head(url), "Upload-Length") == 7, "length of the whole")
    tus.expect_offset(url, 7)
    tus.target.expect_content(url, b"abcdefg")


@tus_case("tus-unfinished-06", MUST, "Concatenation", UNFINISHED)
def several_early_parts(tus: Tus) -> None:
    """The order in which parts are finished does not matter, nor in how many pieces they come."""
    pieces = [content(20_000, seed) for seed in range(3)]
    urls = [tus.create(len(piece), PARTIAL) for piece in pieces]
    url = tus.final(*urls)
    for place in (2, 0, 1):
        tus.append(urls[place], 0, pieces[place][:7000])
    for place in (1, 2, 0):
        tus.append(urls[place], 7000, pieces[place][7000:])
    tus.expect_offset(url, 60_000)
    tus.target.expect_content(url, b"".join(pieces))
