"""The IETF draft: creation, and the interim answer 104."""

from __future__ import annotations

from urllib.parse import urljoin

from tests.conformance.catalogue import Level, draft_case, expect, since, skip, until
from tests.conformance.connection import Answer, request_head
from tests.conformance.draft import INTEROP, Draft
from tests.conformance.target import content, expect_ok, expect_status, number

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
CREATION = "Upload Creation"
STATUS_104 = "Status Code 104"
INTEROP_RULE = "Draft Version Identification"


@draft_case("draft-create-01", MUST, CREATION)
def creates_empty(draft: Draft) -> None:
    """A creation without content that is not the last request gets 2xx with `Location`: an upload at offset 0."""
    answer = draft.post(last=False)
    expect_ok(answer)
    expect(answer.has("location"), "no Location")
    draft.expect_state(urljoin(draft.target.url, answer.get("location") or ""), 0, complete=False)


@draft_case("draft-create-02", SHOULD, CREATION)
def creates_with_201(draft: Draft) -> None:
    """The status of a creation that is not complete is 201."""
    expect_status(draft.post(last=False, body=b"abc"), 201)


@draft_case("draft-create-03", MUST, CREATION)
def creates_with_a_piece(draft: Draft) -> None:
    """A creation with the first piece keeps it: HEAD tells its length, and that the upload is not complete."""
    data = content(50_000)
    answer = draft.post(last=False, body=data)
    expect_ok(answer)
    expect(draft.said_complete(answer) is not True, "called complete")
    url = draft.location(answer)
    expect(url is not None, "no Location")
    draft.expect_state(url or "", len(data), complete=False)


@draft_case("draft-create-04", MUST, CREATION, versions=until(5))
def creation_tells_offset(draft: Draft) -> None:
    """The answer to a creation that is not complete tells `Upload-Offset`, and that it is not complete."""
    answer = draft.post(last=False, body=b"abcde")
    expect(number(answer, "Upload-Offset") == 5, f"Upload-Offset {answer.get('upload-offset')}")
    draft.expect_complete(answer, False)


@draft_case("draft-create-05", SHOULD, CREATION, versions=since(6))
def creation_tells_state(draft: Draft) -> None:
    """The answer to a creation that is not complete says so, and tells `Upload-Offset` as clients hope."""
    answer = draft.post(last=False, body=b"abcde")
    draft.expect_complete(answer, False)
    expect(number(answer, "Upload-Offset") == 5, f"Upload-Offset {answer.get('upload-offset')}")


@draft_case("draft-create-06", MUST, CREATION)
def creates_complete(draft: Draft) -> None:
    """A creation with the whole content gets the target's own 2xx, which is not called incomplete."""
    data = content(50_000)
    answer = draft.post(last=True, body=data, length=len(data))
    expect_ok(answer)
    expect(draft.said_complete(answer) is not False, "called incomplete")
    url = draft.location(answer)
    if url is None:
        draft.expect_content(draft.target.url, answer, data) if answer.json().get("url") else None
        return
    draft.expect_state(url, len(data), complete=True)
    draft.expect_content(url, answer, data)


@draft_case("draft-create-07", MUST, CREATION)
def creates_complete_and_empty(draft: Draft) -> None:
    """A creation without content that is the last request is an empty upload, complete."""
    answer = draft.post(last=True, length=0)
    expect_ok(answer)
    expect(draft.said_complete(answer) is not False, "called incomplete")


@draft_case("draft-create-08", MUST, CREATION + "; Transfer Codings")
def creates_in_chunks(draft: Draft) -> None:
    """A creation with chunked framing is taken, and the framing does not count."""
    data = content(30_000)
    answer = draft.post(last=False, body=data, pieces=True)
    expect_ok(answer)
    draft.expect_state(draft.location(answer) or "", len(data), complete=False)


@draft_case("draft-create-09", MUST, CREATION + "; Structured Fields")
def parameters_are_ignored(draft: Draft) -> None:
    """Parameters of the draft's fields, of which it defines none, are ignored, and so is the case of the names."""
    value = draft.last_fields(False)[draft.completeness]
    answer = draft.post(last=False, body=b"abc", fields={draft.completeness: f"{value};reason=test"})
    expect_ok(answer)
    url = draft.location(answer)
    expect(url is not None, "no Location")
    draft.expect_state(url or "", 3, complete=False)
    draft.append(url or "", 3, b"def", fields={"Upload-Offset": "3;a=1"})
    draft.expect_state(url or "", 6, complete=False)


@draft_case("draft-create-10", MUST, CREATION + "; RFC 9110, 10.1.1")
def expectation_is_met(draft: Draft) -> None:
    """A creation with `Expect: 100-continue` gets 100, whether or not it gets 104."""
    answer = draft.target.ask_continue("POST", draft.target.url, draft.create_fields(last=False, length=5), b"abcde")
    expect_ok(answer)
    draft.location(answer)
    expect(any(found.status == 100 for found in answer.interim), "no 100 (Continue)")


@draft_case("draft-create-11", SHOULD, CREATION + ": as much of the content as possible", versions=until(9))
def cut_creation_keeps_bytes(draft: Draft) -> None:
    """A creation that was to be complete and was cut is found by its 104, with what it brought, and not complete."""
    data = content(200_000)
    url = cut_creation(draft, data, 150_000)
    draft.expect_state(url, 150_000, complete=False)


@draft_case("draft-create-12", MUST, CREATION + ", Offset Retrieval, Upload Append", versions=until(9))
def cut_creation_goes_on(draft: Draft) -> None:
    """Such an upload goes on by PATCH from the offset that HEAD tells, to the target's own answer."""
    data = content(200_000)
    url = cut_creation(draft, data, 100_000)
    answer = draft.head(url)
    expect_ok(answer, "HEAD")
    draft.expect_complete(answer, False, "HEAD")
    offset = number(answer, "Upload-Offset")
    expect(offset <= 100_000, f"offset {offset} after 100000 bytes")
    final = draft.append(url, offset, data[offset:], last=True)
    draft.expect_state(url, len(data), complete=True)
    draft.expect_content(url, final, data)


@draft_case("draft-create-13", SHOULD, "Security Considerations")
def upload_urls_differ(draft: Draft) -> None:
    """The URLs of two uploads made one after the other are hard to guess from each other: 16 signs differ."""
    first, second = draft.create(), draft.create()
    differing = sum(a != b for a, b in zip(first, second, strict=False))
    expect(first != second, "the same")
    expect(differing >= 16, f"{differing} signs differ")


def cut_creation(draft: Draft, data: bytes, sent: int) -> str:
    """The upload that was made by a creation with all of `data` of which only `sent` bytes came."""
    with draft.target.connect(draft.target.url) as connection:
        fields = {**draft.create_fields(last=True, length=len(data)), "Content-Length": str(len(data))}
        connection.send(request_head("POST", connection.address, fields))
        interim = connection.interim(2)
        if interim is None:
            skip("no 104, and so no name of the upload")
        place = interim.get("location")
        expect(interim.status == 104, f"interim answer {interim.status}")
        expect(place is not None, "104 without Location")
        url = urljoin(draft.target.url, place or "")
        draft.target.remember(url, draft.fields)
        connection.send(data[:sent])
        connection.finish()
        connection.ended()
    return url


def first_104(
    draft: Draft, fields: dict[str, str] | None = None, *, last: bool = True, seconds: float = 1
) -> tuple[Answer | None, Answer]:
    """The first 104 to a creation of five bytes, and the final answer. The body goes after the 104, or `seconds`."""
    with draft.target.connect(draft.target.url) as connection:
        sent = {**draft.create_fields(last=last, length=5), "Content-Length": "5", **(fields or {})}
        connection.send(request_head("POST", connection.address, sent))
        interim = connection.interim(seconds)
        connection.send(b"abcde")
        final = connection.answer()
    for found in (interim, *final.interim):
        if found is not None and found.status == 104:
            if found.has("location"):
                draft.target.remember(urljoin(draft.target.url, found.get("location") or ""), draft.fields)
            draft.location(final)
            return found, final
    draft.location(final)
    return None, final


@draft_case("draft-104-01", SHOULD, CREATION, versions=until(9))
def announces_early(draft: Draft) -> None:
    """A creation gets 104 before its content was sent."""
    with draft.target.connect(draft.target.url) as connection:
        fields = {**draft.create_fields(last=True, length=5), "Content-Length": "5"}
        connection.send(request_head("POST", connection.address, fields))
        interim = connection.interim(2)
        connection.send(b"abcde")
        final = connection.answer()
    draft.location(final)
    expect(interim is not None and interim.status == 104, "no 104 within two seconds")
    if interim is not None and interim.has("location"):
        draft.target.remember(urljoin(draft.target.url, interim.get("location") or ""), draft.fields)


@draft_case("draft-104-02", MUST, STATUS_104 + "; " + INTEROP_RULE, versions=until(9))
def interim_has_what_it_must(draft: Draft) -> None:
    """The first 104 has `Location`, and echoes the version of the request."""
    interim, _ = first_104(draft)
    if interim is None:
        skip("the server sends no 104")
    expect(interim.has("location"), "104 without Location")
    expect(interim.get(INTEROP) == str(draft.version), f"{INTEROP}: {interim.get(INTEROP)!r}")


@draft_case("draft-104-03", MUST, CREATION, versions=until(9))
def one_location(draft: Draft) -> None:
    """104 and the final answer to a creation that is not complete name the same `Location`."""
    interim, final = first_104(draft, last=False)
    if interim is None:
        skip("the server sends no 104")
    expect_ok(final)
    expect(final.get("location") == interim.get("location"), f"{interim.get('location')} and {final.get('location')}")


@draft_case("draft-104-04", MUST, INTEROP_RULE, versions=(None,))
def no_104_without_version(draft: Draft) -> None:
    """A request without a version gets no 104, to a creation as little as to an append."""
    interim, final = first_104(draft, seconds=0.2)
    expect_ok(final)
    expect(interim is None, "104 to a creation without a version")
    data = content(300_000)
    answer = draft.append(draft.create(len(data)), 0, data, last=True)
    expect(not any(found.status == 104 for found in answer.interim), "104 to an append without a version")


@draft_case("draft-104-05", MUST, INTEROP_RULE, versions=(None,))
def no_104_for_unknown_version(draft: Draft) -> None:
    """A request whose version is none of the draft's, or is malformed, gets no 104."""
    for value in ("1", "0", "-6", "six", "6.5", '"6"', "6, 7"):
        interim, _ = first_104(draft, {INTEROP: value}, seconds=0.2)
        expect(interim is None, f"104 to {INTEROP}: {value}")


@draft_case("draft-104-06", MUST, "Upload Append", versions=until(9))
def progress_names_no_location(draft: Draft) -> None:
    """104 to an append never has `Location`; where it tells `Upload-Offset`, the offset only grows, up to the end."""
    data = content(4 << 20)
    url = draft.create(len(data))
    with draft.begin(url, 0, len(data), b"", accepted=False) as connection:
        for start in range(0, len(data), 1 << 18):
            connection.send(data[start : start + (1 << 18)])
        answer = connection.answer()
    expect_ok(answer, "PATCH")
    last = 0
    progress = [found for found in answer.interim if found.status == 104]
    for found in progress:
        expect(not found.has("location"), "Location in 104 to an append")
        expect(found.get(INTEROP) == str(draft.version), f"{INTEROP}: {found.get(INTEROP)!r}")
        if found.has("upload-offset"):
            offset = number(found, "Upload-Offset")
            expect(last <= offset <= len(data), f"offset {offset} after {last}")
            last = offset
    draft.target.note(f"{len(progress)} interim answers")
    draft.expect_content(url, answer, data)


@draft_case("draft-104-07", MUST, "Upload Creation", versions=(6, 7, 8, 9))
def interim_has_limits(draft: Draft) -> None:
    """The first 104 has `Upload-Limit` if the final answer to an incomplete creation has."""
    interim, final = first_104(draft, last=False)
    if interim is None:
        skip("the server sends no 104")
    if draft.limits(final) is None:
        skip("the server tells no limits")
    expect(draft.limits(interim) is not None, "104 without Upload-Limit")


@draft_case("draft-104-08", OURS, "what is newer than the newest known is spoken to as that", versions=(9,))
def newer_versions(draft: Draft) -> None:
    """Versions above 9 are answered as 9 is, and 104 echoes the version that was asked in."""
    for version in (10, 15):
        newer = Draft(draft.target, version)
        expect(newer.spoken is None, newer.spoken or "")
        interim, _ = first_104(newer)
        if interim is not None:
            expect(interim.get(INTEROP) == str(version), f"{INTEROP}: {interim.get(INTEROP)!r}")
        url = newer.create(3)
        newer.expect_complete(newer.append(url, 0, b"abc", last=True), True)
