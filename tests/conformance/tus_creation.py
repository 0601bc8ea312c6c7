"""tus 1.0.0: creation, creation-with-upload, creation-defer-length."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.conformance.catalogue import Level, expect, skip, tus_case
from tests.conformance.target import (
    OFFSET_TYPE,
    content,
    expect_ok,
    expect_refused,
    expect_status,
    number,
)
from tests.conformance.tus import RESUMABLE, Tus, metadata

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
DEFER = "creation-defer-length"
WITH_UPLOAD = "creation-with-upload"


@tus_case("tus-creation-01", MUST, "Creation, POST", "creation")
def creates(tus: Tus) -> None:
    """POST with `Upload-Length` gets 201 with a `Location` that is an upload."""
    answer = tus.post({"Upload-Length": "10"})
    expect_status(answer, 201)
    tus.expect_offset(tus.target.created(tus.target.url, answer, RESUMABLE), 0)


@tus_case("tus-creation-02", MUST, "Creation, POST", "creation")
def creates_another(tus: Tus) -> None:
    """Two creations with the same fields are two uploads, and what is sent to one is not in the other."""
    fields = {"Upload-Metadata": metadata(filename=b"same.bin")}
    first, second = tus.create(5, fields), tus.create(5, fields)
    expect(first != second, f"both are {first}")
    tus.append(first, 0, b"abcde")
    tus.expect_offset(second, 0)


@tus_case("tus-creation-03", MUST, "Creation, POST", "creation")
def no_length(tus: Tus) -> None:
    """POST with neither `Upload-Length` nor `Upload-Defer-Length` is refused."""
    expect_refused(tus.post({}))


@tus_case("tus-creation-04", MUST, "Headers, Upload-Length", "creation")
def bad_length(tus: Tus) -> None:
    """POST with an `Upload-Length` that is no non-negative integer is refused."""
    for value in ("-1", "1e3", "ten", "0x10", "1.5", "5, 6"):
        expect_refused(tus.post({"Upload-Length": value}), f"Upload-Length: {value}")


@tus_case("tus-creation-05", SHOULD, "Creation, POST", "creation")
def both_lengths(tus: Tus) -> None:
    """POST with `Upload-Length` and `Upload-Defer-Length` at once is refused."""
    expect_refused(tus.post({"Upload-Length": "5", "Upload-Defer-Length": "1"}))


@tus_case("tus-creation-06", MUST, "Creation, Upload-Metadata", "creation")
def metadata_comes_back(tus: Tus) -> None:
    """HEAD gives `Upload-Metadata` back as it was sent: binary values, empty ones, and keys without a space."""
    value = metadata(filename="Blümchen.pdf".encode(), raw=bytes(range(256))) + ",empty,is_confidential"
    url = tus.create(5, {"Upload-Metadata": value})
    found = tus.head(url).get("upload-metadata")
    expect(found == value, f"Upload-Metadata: {found!r} instead of {value!r}")
    tus.append(url, 0, b"abcde")
    found = tus.head(url).get("upload-metadata")
    expect(found == value, f"once complete, Upload-Metadata: {found!r}")


@tus_case("tus-creation-07", SHOULD, "Creation, Upload-Metadata", "creation")
def bad_metadata(tus: Tus) -> None:
    """`Upload-Metadata` that breaks its rules is refused: an empty key, a key twice, a value that is no Base64."""
    for value in ("filename eA==,filename eQ==", "filename !!!", "filename eA== eQ==", ",", "a eA==,,b eA=="):
        expect_refused(tus.post({"Upload-Length": "5", "Upload-Metadata": value}), f"Upload-Metadata: {value}")


@tus_case("tus-creation-08", MUST, "Creation, Upload-Metadata: header smuggling", "creation")
def metadata_smuggles_nothing(tus: Tus) -> None:
    """A file name with line ends in the metadata adds no field to any answer."""
    name = b'x"\r\nX-Smuggled: yes\r\n\r\n.txt'
    answer = tus.post(
        {"Upload-Length": "5", "Upload-Metadata": metadata(filename=name, filetype=b"a/b\r\nX-Smuggled: 1")}
    )
    if answer.refused:
        return
    expect_status(answer, 201)
    url = tus.target.created(tus.target.url, answer, RESUMABLE)
    tus.append(url, 0, b"abcde")
    for found in (answer, tus.head(url), tus.target.ask("GET", url, RESUMABLE), tus.target.ask("GET", url)):
        expect(not found.has("x-smuggled"), "a field was smuggled in")


@tus_case("tus-creation-09", MUST, "Creation, POST; Requests, HEAD", "creation")
def empty_upload(tus: Tus) -> None:
    """An upload of length 0 is complete at once: offset and length are 0."""
    answer = tus.head(tus.create(0))
    expect_ok(answer, "HEAD")
    expect(number(answer, "Upload-Offset") == 0, "offset")
    expect(number(answer, "Upload-Length") == 0, "length")


@tus_case("tus-creation-10", MUST, "Creation, POST", "creation")
def too_long(tus: Tus) -> None:
    """POST with a length above `Tus-Max-Size` gets 413; one of the very length does not."""
    most = tus.need_max_size()
    expect_status(tus.post({"Upload-Length": str(most + 1)}), 413)
    expect(tus.post({"Upload-Length": str(most)}).status != 413, "413 for the size that is allowed")


@tus_case("tus-creation-11", OURS, "uploads are known by their URL alone", "creation")
def unguessable(tus: Tus) -> None:
    """The URLs of two uploads made one after the other differ in at least 16 signs."""
    first, second = tus.create(5), tus.create(5)
    differing = sum(a != b for a, b in zip(first, second, strict=False))
    expect(differing >= 16, f"{differing} signs differ")


@tus_case("tus-creation-12", SHOULD, "Creation, POST: behind a proxy the server does not know its name", "creation")
def location_leads_back(tus: Tus) -> None:
    """`Location` is relative, or names the host that the request was sent to."""
    location = tus.post({"Upload-Length": "5"}).get("location") or ""
    netloc = urlsplit(location).netloc
    expect(bool(location), "no Location")
    expect(not netloc or netloc == urlsplit(tus.target.url).netloc, f"Location {location}")


@tus_case("tus-upload-01", MUST, "Creation With Upload", "creation", WITH_UPLOAD)
def whole_upload(tus: Tus) -> None:
    """POST with the whole content gets 201 with `Upload-Offset`, and the upload is complete."""
    data = content(30_000)
    answer = tus.post({"Upload-Length": str(len(data)), "Content-Type": OFFSET_TYPE}, data)
    expect_status(answer, 201)
    expect(number(answer, "Upload-Offset") == len(data), f"Upload-Offset {answer.get('upload-offset')}")
    url = tus.target.created(tus.target.url, answer, RESUMABLE)
    tus.expect_offset(url, len(data))
    tus.target.expect_content(url, data)


@tus_case("tus-upload-02", MUST, "Creation With Upload", "creation", WITH_UPLOAD)
def first_piece(tus: Tus) -> None:
    """POST with a piece of the content tells how much it took, and PATCH goes on from there."""
    answer = tus.post({"Upload-Length": "10", "Content-Type": OFFSET_TYPE}, b"abcd")
    expect_status(answer, 201)
    expect(number(answer, "Upload-Offset") == 4, f"Upload-Offset {answer.get('upload-offset')}")
    url = tus.target.created(tus.target.url, answer, RESUMABLE)
    tus.expect_offset(url, 4)
    tus.append(url, 4, b"efghij")
    tus.target.expect_content(url, b"abcdefghij")


@tus_case("tus-upload-03", SHOULD, "Creation With Upload", "creation", WITH_UPLOAD)
def with_expectation(tus: Tus) -> None:
    """POST with `Expect: 100-continue` is told to go on, and then gets 201."""
    fields = {**tus.target.headers, **RESUMABLE, "Upload-Length": "5", "Content-Type": OFFSET_TYPE}
    answer = tus.target.ask_continue("POST", tus.target.url, fields, b"abcde")
    expect_status(answer, 201)
    expect(any(found.status == 100 for found in answer.interim), "no 100 (Continue)")
    tus.target.created(tus.target.url, answer, RESUMABLE)


@tus_case("tus-upload-04", SHOULD, "Creation With Upload", "creation", WITH_UPLOAD)
def other_type(tus: Tus) -> None:
    """POST with a body of another type creates the upload, and the body is as good as absent."""
    answer = tus.post({"Upload-Length": "10", "Content-Type": "application/octet-stream"}, b"abcde")
    expect_status(answer, 201)
    expect(answer.get("upload-offset") in {None, "0"}, f"Upload-Offset {answer.get('upload-offset')}")
    tus.expect_offset(tus.target.created(tus.target.url, answer, RESUMABLE), 0)


@tus_case("tus-upload-05", MUST, "Creation With Upload; RFC 9112, 7.1", "creation", WITH_UPLOAD)
def upload_in_chunks(tus: Tus) -> None:
    """POST with a body in chunked framing is taken."""
    data = content(20_000)
    answer = tus.post({"Upload-Length": str(len(data)), "Content-Type": OFFSET_TYPE}, data, pieces=True)
    expect_status(answer, 201)
    expect(number(answer, "Upload-Offset") == len(data), f"Upload-Offset {answer.get('upload-offset')}")


@tus_case("tus-upload-06", MUST, "Creation With Upload; Headers, Upload-Length", "creation", WITH_UPLOAD)
def upload_too_long(tus: Tus) -> None:
    """POST whose body is longer than `Upload-Length` is refused."""
    fields = {"Upload-Length": "5", "Content-Type": OFFSET_TYPE}
    expect_refused(tus.post(fields, b"abcdef"), "Content-Length")
    expect_refused(tus.post(fields, b"abcdef", pieces=True), "chunked")


@tus_case("tus-upload-07", MUST, "Creation With Upload, Creation", "creation", WITH_UPLOAD, DEFER)
def upload_of_unknown_length(tus: Tus) -> None:
    """POST with a piece and a deferred length: the piece is kept, the length follows."""
    fields = {"Upload-Defer-Length": "1", "Content-Type": OFFSET_TYPE}
    answer = tus.post(fields, b"abcde")
    expect_status(answer, 201)
    expect(number(answer, "Upload-Offset") == 5, f"Upload-Offset {answer.get('upload-offset')}")
    url = tus.target.created(tus.target.url, answer, RESUMABLE)
    tus.append(url, 5, b"fgh", {"Upload-Length": "8"})
    tus.target.expect_content(url, b"abcdefgh")


@tus_case("tus-upload-08", SHOULD, "Creation With Upload; Creation, POST", "creation", WITH_UPLOAD)
def empty_upload_with_type(tus: Tus) -> None:
    """POST of length 0 with the type of an upload is complete, with `Upload-Offset: 0`."""
    answer = tus.post({"Upload-Length": "0", "Content-Type": OFFSET_TYPE})
    expect_status(answer, 201)
    url = tus.target.created(tus.target.url, answer, RESUMABLE)
    expect(number(answer, "Upload-Offset") == 0, f"Upload-Offset {answer.get('upload-offset')}")
    tus.expect_offset(url, 0)


@tus_case("tus-defer-01", MUST, "Creation, POST", DEFER)
def deferred(tus: Tus) -> None:
    """While the length is not known, HEAD tells `Upload-Defer-Length: 1` and no `Upload-Length`."""
    url = tus.create(None)
    for offset in (0, 5):
        answer = tus.head(url)
        expect_ok(answer, "HEAD")
        expect(answer.get("upload-defer-length") == "1", f"Upload-Defer-Length {answer.get('upload-defer-length')!r}")
        expect(not answer.has("upload-length"), f"Upload-Length {answer.get('upload-length')}")
        expect(number(answer, "Upload-Offset") == offset, f"Upload-Offset {answer.get('upload-offset')}")
        if offset == 0:
            tus.append(url, 0, b"abcde")


@tus_case("tus-defer-02", SHOULD, "Creation, POST", DEFER)
def bad_deferral(tus: Tus) -> None:
    """`Upload-Defer-Length` with any other value than 1 gets 400."""
    for value in ("0", "2", "true", "1,1"):
        expect_status(tus.post({"Upload-Defer-Length": value}), 400, what=f"Upload-Defer-Length: {value}")


@tus_case("tus-defer-03", MUST, "Creation, POST", DEFER)
def length_follows(tus: Tus) -> None:
    """`Upload-Length` on a later PATCH sets the length: HEAD tells it, and no longer that it is deferred."""
    url = tus.create(None)
    tus.append(url, 0, b"abcde")
    tus.append(url, 5, b"fgh", {"Upload-Length": "10"})
    answer = tus.head(url)
    expect(number(answer, "Upload-Length") == 10, f"Upload-Length {answer.get('upload-length')}")
    expect(not answer.has("upload-defer-length"), "still deferred")
    tus.append(url, 8, b"ij")
    tus.target.expect_content(url, b"abcdefghij")


@tus_case("tus-defer-04", MUST, "Creation, POST", DEFER)
def length_is_final(tus: Tus) -> None:
    """A length that was set is not changed by a later PATCH."""
    url = tus.create(None)
    tus.append(url, 0, b"abc", {"Upload-Length": "10"})
    tus.patch(url, 3, b"d", {"Upload-Length": "20"})
    found = number(tus.head(url), "Upload-Length")
    expect(found == 10, f"Upload-Length {found} instead of 10")


@tus_case("tus-defer-05", MUST, "Headers, Upload-Length", DEFER)
def length_below_offset(tus: Tus) -> None:
    """A length below what is stored already, or that is none, is refused."""
    url = tus.create(None)
    tus.append(url, 0, b"abcde")
    for value in ("4", "-1", "many"):
        expect_refused(tus.patch(url, 5, b"", {"Upload-Length": value}), f"Upload-Length: {value}")
    tus.expect_offset(url, 5)


@tus_case("tus-defer-06", MUST, "Creation, POST; Requests, HEAD", DEFER)
def length_completes(tus: Tus) -> None:
    """A PATCH without a byte whose `Upload-Length` is the offset completes the upload."""
    url = tus.create(None)
    tus.append(url, 0, b"abcde")
    tus.append(url, 5, b"", {"Upload-Length": "5"})
    answer = tus.head(url)
    expect(number(answer, "Upload-Length") == 5, f"Upload-Length {answer.get('upload-length')}")
    tus.target.expect_content(url, b"abcde")


@tus_case("tus-defer-07", MUST, "Creation, POST", DEFER)
def deferred_too_long(tus: Tus) -> None:
    """A deferred length above `Tus-Max-Size` gets 413."""
    most = tus.need_max_size()
    url = tus.create(None)
    expect_status(tus.patch(url, 0, b"abc", {"Upload-Length": str(most + 1)}), 413)


@tus_case("tus-defer-08", SHOULD, "Creation, POST: what a client repeats whose answer was lost", DEFER)
def same_length_again(tus: Tus) -> None:
    """The same `Upload-Length` on every PATCH, or on one of an upload created with it, does no harm."""
    url = tus.create(None)
    tus.append(url, 0, b"abc", {"Upload-Length": "6"})
    tus.append(url, 3, b"d", {"Upload-Length": "6"})
    tus.append(url, 4, b"ef", {"Upload-Length": "6"})
    known = tus.create(3)
    tus.append(known, 0, b"abc", {"Upload-Length": "3"})


@tus_case("tus-defer-09", MUST, "Headers, Upload-Length", DEFER)
def longer_than_told_now(tus: Tus) -> None:
    """A PATCH that sets a length its own body goes past is refused, and nothing is stored past it."""
    url = tus.create(None)
    expect_refused(tus.patch(url, 0, b"abcdef", {"Upload-Length": "5"}))
    expect_refused(tus.patch(url, 0, b"a" * 30_000, {"Upload-Length": "5"}, pieces=True), "chunked")
    if tus.head(url).ok:
        found = tus.offset(url)
        expect(found <= 5, f"offset {found} of a length of 5")
    else:
        skip("the server ended the upload")
