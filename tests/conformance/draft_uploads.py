"""The IETF draft: offset retrieval, append, cancellation."""

from __future__ import annotations

from tests.conformance.catalogue import Level, draft_case, expect, since, until
from tests.conformance.draft import Draft
from tests.conformance.target import PARTIAL_TYPE, content, expect_ok, expect_refused, expect_status, number

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
RETRIEVAL = "Offset Retrieval"
APPEND = "Upload Append"


@draft_case("draft-offset-01", MUST, RETRIEVAL)
def head_tells_state(draft: Draft) -> None:
    """HEAD tells the offset and that the upload is not complete; once it is, that it is."""
    url = draft.create(6)
    draft.append(url, 0, b"abc")
    draft.expect_state(url, 3, complete=False)
    draft.append(url, 3, b"def", last=True)
    draft.expect_state(url, 6, complete=True)


@draft_case("draft-offset-02", MUST, RETRIEVAL, versions=until(4))
def head_is_204(draft: Draft) -> None:
    """The status of HEAD is 204."""
    expect_status(draft.head(draft.create()), 204)


@draft_case("draft-offset-03", MUST, RETRIEVAL, versions=since(5))
def head_is_success(draft: Draft) -> None:
    """The status of HEAD is 200 or 204."""
    expect_status(draft.head(draft.create()), 200, 204)


@draft_case("draft-offset-04", SHOULD, RETRIEVAL)
def head_is_not_cached(draft: Draft) -> None:
    """HEAD is answered with `Cache-Control: no-store`."""
    answer = draft.head(draft.create())
    expect("no-store" in answer.words("cache-control"), f"Cache-Control: {answer.get('cache-control')!r}")


@draft_case("draft-offset-05", MUST, RETRIEVAL, versions=since(7))
def head_tells_length(draft: Draft) -> None:
    """HEAD tells `Upload-Length` once the client has, at creation, later, or by the last request's length."""
    at_creation = draft.create(10)
    found = number(draft.head(at_creation), "Upload-Length")
    expect(found == 10, f"Upload-Length {found}")
    later = draft.create()
    expect(not draft.head(later).has("upload-length"), "a length that nobody told")
    draft.append(later, 0, b"abc", fields={"Upload-Length": "7"})
    found = number(draft.head(later), "Upload-Length")
    expect(found == 7, f"Upload-Length {found} told by an append")
    by_end = draft.create()
    draft.append(by_end, 0, b"abc", last=True)
    found = number(draft.head(by_end), "Upload-Length")
    expect(found == 3, f"Upload-Length {found} of a complete upload")


@draft_case("draft-offset-06", MUST, RETRIEVAL, versions=until(4))
def head_with_state_is_bad(draft: Draft) -> None:
    """HEAD that carries `Upload-Offset`, or says whether the upload is complete, gets 400."""
    url = draft.create()
    expect_status(draft.head(url, {"Upload-Offset": "0"}), 400, what="Upload-Offset")
    expect_status(draft.head(url, draft.last_fields(False)), 400, what=draft.completeness)


@draft_case("draft-offset-07", OURS, "early versions demand it, later ones are silent", versions=since(5))
def head_with_state_is_bad_later(draft: Draft) -> None:
    """HEAD that carries `Upload-Offset` or `Upload-Complete` gets 400."""
    url = draft.create()
    expect_status(draft.head(url, {"Upload-Offset": "0"}), 400, what="Upload-Offset")
    expect_status(draft.head(url, {"Upload-Complete": "?0"}), 400, what="Upload-Complete")


@draft_case("draft-offset-08", MUST, RETRIEVAL)
def head_of_unknown(draft: Draft) -> None:
    """HEAD of an unknown upload gets 404 or 410, without `Upload-Offset`."""
    answer = draft.head(draft.missing())
    expect_status(answer, 404, 410)
    expect(not answer.has("upload-offset"), "Upload-Offset of an upload that is not there")


@draft_case("draft-offset-09", MUST, "Offset")
def offset_never_decreases(draft: Draft) -> None:
    """Whatever is done to an upload, appends, refusals, a cut, the offset told never goes back."""
    data = content(60_000)
    url = draft.create(len(data))
    last = 0
    for step in range(4):
        if step == 0:
            draft.append(url, 0, data[:20_000])
        elif step == 1:
            draft.patch(url, 7, b"x")
        elif step == 2:
            with draft.begin(url, 20_000, 40_000, data[20_000:40_000]) as cut:
                cut.delivered()
        else:
            draft.append(url, last, data[last:50_000])
        found = draft.offset(url)
        expect(found >= last, f"offset {found} after {last}")
        last = found
    draft.append(url, 50_000, data[50_000:], last=True)
    draft.expect_content(url, None, data)


@draft_case("draft-offset-10", OURS, "a browser can read it", versions=since(4))
def get_tells_state(draft: Draft) -> None:
    """GET of an upload resource that is not complete tells the same fields as HEAD."""
    url = draft.create(5)
    draft.append(url, 0, b"abc")
    answer = draft.target.ask("GET", url, draft.fields)
    expect_ok(answer)
    expect(number(answer, "Upload-Offset") == 3, f"Upload-Offset {answer.get('upload-offset')}")
    draft.expect_complete(answer, False)


@draft_case("draft-append-01", MUST, APPEND)
def append_succeeds(draft: Draft) -> None:
    """An append that is not the last gets 2xx and moves the offset by its length."""
    data = content(50_000)
    url = draft.create()
    draft.append(url, 0, data[:20_000])
    draft.expect_state(url, 20_000, complete=False)
    draft.append(url, 20_000, data[20_000:])
    draft.expect_state(url, 50_000, complete=False)


@draft_case("draft-append-02", MUST, APPEND, versions=until(5))
def append_tells_offset(draft: Draft) -> None:
    """The answer to an append tells `Upload-Offset`; one that is not the last is not complete, up to version 4 by 201."""
    url = draft.create()
    answer = draft.append(url, 0, b"abc")
    if draft.newest < 5:
        expect_status(answer, 201)
    draft.expect_complete(answer, False)
    expect(number(answer, "Upload-Offset") == 3, f"Upload-Offset {answer.get('upload-offset')}")
    answer = draft.patch(url, 3, b"def", last=True)
    expect_ok(answer)
    expect(draft.said_complete(answer) is not False, "the last append is called incomplete")
    expect(number(answer, "Upload-Offset") == 6, f"Upload-Offset {answer.get('upload-offset')}")


@draft_case("draft-append-03", MUST, APPEND, versions=since(7))
def append_tells_completeness(draft: Draft) -> None:
    """The answer to an append that is not the last has `Upload-Complete: ?0`, that to the last one `?1`."""
    url = draft.create(6)
    draft.expect_complete(draft.append(url, 0, b"abc"), False, "not the last")
    draft.expect_complete(draft.append(url, 3, b"def", last=True), True, "the last")


@draft_case("draft-append-04", SHOULD, APPEND, versions=(6,))
def append_does_not_contradict(draft: Draft) -> None:
    """The answers to appends do not say the opposite of what is so."""
    url = draft.create(6)
    expect(draft.said_complete(draft.append(url, 0, b"abc")) is not True, "called complete")
    expect(draft.said_complete(draft.append(url, 3, b"def", last=True)) is not False, "called incomplete")


@draft_case("draft-append-05", MUST, APPEND)
def last_append(draft: Draft) -> None:
    """The last append completes the upload, and the content is that of all requests in their order."""
    data = content(100_000)
    url = draft.create(len(data), data[:10])
    draft.append(url, 10, data[10:60_000])
    answer = draft.append(url, 60_000, data[60_000:], last=True)
    draft.expect_state(url, len(data), complete=True)
    draft.expect_content(url, answer, data)


@draft_case("draft-append-06", MUST, APPEND)
def empty_last_append(draft: Draft) -> None:
    """An append without content that is the last completes the upload."""
    url = draft.create(5)
    if draft.newest < 7:
        # Up to here a server may take an upload for complete once a declared length is reached.
        url = draft.create()
    draft.append(url, 0, b"abcde")
    answer = draft.append(url, 5, b"", last=True)
    draft.expect_state(url, 5, complete=True)
    draft.expect_content(url, answer, b"abcde")


@draft_case("draft-append-07", MUST, "Completeness; Length", versions=since(7))
def length_does_not_complete(draft: Draft) -> None:
    """An upload whose offset has reached its length is not complete until a request says so."""
    url = draft.create(5)
    draft.expect_complete(draft.append(url, 0, b"abcde"), False)
    draft.expect_state(url, 5, complete=False)


@draft_case("draft-append-08", OURS, "a client of version 6 ends so when it reads from a stream", versions=(6,))
def length_completes(draft: Draft) -> None:
    """An upload whose offset has reached its declared length is complete."""
    url = draft.create(5)
    draft.append(url, 0, b"abcde")
    draft.expect_state(url, 5, complete=True)


@draft_case("draft-append-09", MUST, APPEND)
def wrong_offset(draft: Draft) -> None:
    """An append at another offset gets 409 with the right one in `Upload-Offset`, and changes nothing."""
    url = draft.create(10)
    draft.append(url, 0, b"abcde")
    for offset in (0, 4, 6, 9):
        answer = draft.patch(url, offset, b"x")
        expect_status(answer, 409, what=f"append at {offset} instead of 5")
        expect(number(answer, "Upload-Offset") == 5, f"Upload-Offset {answer.get('upload-offset')}")
    draft.expect_state(url, 5, complete=False)
    answer = draft.append(url, 5, b"fghij", last=True)
    draft.expect_content(url, answer, b"abcdefghij")


@draft_case("draft-append-10", SHOULD, APPEND)
def wrong_offset_is_not_complete(draft: Draft) -> None:
    """Such a 409 says that the upload is not complete."""
    answer = draft.patch(draft.create(10), 5, b"x", last=True)
    expect_status(answer, 409)
    draft.expect_complete(answer, False)


@draft_case("draft-append-11", SHOULD, "Problem Types, Mismatching Offset", versions=since(6))
def wrong_offset_problem(draft: Draft) -> None:
    """Such a 409 is of the problem type mismatching-upload-offset, with both offsets."""
    url = draft.create(10)
    draft.append(url, 0, b"abcde")
    found = draft.expect_problem(draft.patch(url, 7, b"x"), "mismatching-upload-offset")
    expect(found.get("expected-offset") == 5, f"expected-offset {found.get('expected-offset')!r}")
    expect(found.get("provided-offset") == 7, f"provided-offset {found.get('provided-offset')!r}")


@draft_case("draft-append-12", MUST, APPEND)
def append_without_offset(draft: Draft) -> None:
    """An append without `Upload-Offset`, or with one that is no non-negative integer, is refused; nothing changes."""
    url = draft.create(10)
    fields = draft.patch_fields(0, last=False)
    del fields["Upload-Offset"]
    expect_refused(draft.target.ask("PATCH", url, fields, b"abc"), "no Upload-Offset")
    for value in ("-1", "zero", '"0"', "0.0", "?0", ":AA==:", "0, 0"):
        expect_refused(draft.patch(url, value, b"abc"), f"Upload-Offset: {value}")
    draft.expect_state(url, 0, complete=False)


@draft_case("draft-append-13", MUST, "Completeness", versions=since(6))
def malformed_completeness(draft: Draft) -> None:
    """A malformed completeness is as good as none: it completes nothing."""
    url = draft.create(10)
    for value in ("true", "1", "yes", "?2", '"?1"'):
        answer = draft.patch(url, draft.offset(url), b"a", fields={draft.completeness: value})
        expect(answer.ok or answer.refused, f"{draft.completeness}: {value}: {answer.status}")
    answer = draft.head(url)
    expect_ok(answer, "HEAD")
    draft.expect_complete(answer, False, "HEAD")


@draft_case("draft-append-14", MUST, "Media Type application/partial-upload", versions=since(6))
def wrong_type(draft: Draft) -> None:
    """An append of another media type, or of none, is refused and changes nothing."""
    url = draft.create(10)
    expect_refused(draft.patch(url, 0, b"abc", fields={"Content-Type": "text/plain"}), "text/plain")
    fields = draft.patch_fields(0, last=False)
    del fields["Content-Type"]
    expect_refused(draft.target.ask("PATCH", url, fields, b"abc"), "no type")
    draft.expect_state(url, 0, complete=False)


@draft_case("draft-append-15", SHOULD, "Media Type application/partial-upload; RFC 5789, 2.2", versions=since(6))
def wrong_type_is_415(draft: Draft) -> None:
    """The status for it is 415, with `Accept-Patch`."""
    answer = draft.patch(draft.create(10), 0, b"abc", fields={"Content-Type": "text/plain"})
    expect_status(answer, 415)
    expect(PARTIAL_TYPE in answer.words("accept-patch"), f"Accept-Patch: {answer.get('accept-patch')!r}")


@draft_case("draft-append-16", MUST, APPEND)
def append_after_the_end(draft: Draft) -> None:
    """An append with content to a complete upload is refused and changes nothing."""
    url = draft.create(5)
    answer = draft.append(url, 0, b"abcde", last=True)
    for last in (True, False):
        expect_refused(draft.patch(url, 5, b"f", last=last))
    draft.expect_state(url, 5, complete=True)
    draft.expect_content(url, answer, b"abcde")


@draft_case("draft-append-17", SHOULD, APPEND, versions=since(7))
def append_after_the_end_problem(draft: Draft) -> None:
    """Such a refusal is of the problem type inconsistent-upload-length, or completed-upload in 7 and 8."""
    url = draft.create(5)
    draft.append(url, 0, b"abcde", last=True)
    answer = draft.patch(url, 5, b"f", last=True)
    old = draft.newest < 9 and str(answer.json().get("type")).endswith("#completed-upload")
    draft.expect_problem(answer, "completed-upload" if old else "inconsistent-upload-length")


@draft_case("draft-append-18", OURS, "Responses to Uploads: a server may replay the final answer")
def final_answer_again(draft: Draft) -> None:
    """The last append, repeated after its answer was lost, gets the same answer again: status and content."""
    url = draft.create()
    first = draft.append(url, 0, b"abcde", last=True)
    again = draft.patch(url, 5, b"", last=True)
    expect(again.status == first.status, f"{again.status} after {first.status}")
    expect(again.body == first.body, f"{again.body[:80]!r} after {first.body[:80]!r}")
    expect(again.get("content-type") == first.get("content-type"), f"Content-Type {again.get('content-type')!r}")


@draft_case("draft-append-19", MUST, "Transfer Codings")
def append_in_chunks(draft: Draft) -> None:
    """An append with chunked framing is taken, and the framing does not count."""
    data = content(40_000)
    url = draft.create()
    answer = draft.patch(url, 0, data, pieces=True)
    expect_ok(answer)
    draft.expect_state(url, len(data), complete=False)
    final = draft.patch(url, len(data), b"end", last=True, pieces=True)
    expect_ok(final)
    draft.expect_state(url, len(data) + 3, complete=True)
    draft.expect_content(url, final, data + b"end")


@draft_case("draft-append-20", MUST, APPEND)
def cut_append_is_not_complete(draft: Draft) -> None:
    """A last append that was cut does not complete the upload; the rest, sent from the offset told, does."""
    data = content(200_000)
    url = draft.create(len(data))
    with draft.begin(url, 0, len(data), data[:120_000]) as cut:
        cut.delivered()
    answer = draft.head(url)
    expect_ok(answer, "HEAD")
    draft.expect_complete(answer, False, "HEAD")
    offset = number(answer, "Upload-Offset")
    expect(offset <= 120_000, f"offset {offset} after 120000 bytes")
    final = draft.append(url, offset, data[offset:], last=True)
    draft.expect_content(url, final, data)


@draft_case("draft-append-21", SHOULD, APPEND + ": as much as possible")
def cut_append_keeps_bytes(draft: Draft) -> None:
    """All that an append brought before its connection was closed is kept."""
    data = content(200_000)
    url = draft.create(len(data))
    with draft.begin(url, 0, len(data), data[:120_000]) as cut:
        cut.finish()
        cut.ended()
    draft.expect_state(url, 120_000, complete=False)


@draft_case("draft-append-22", MUST, APPEND)
def append_to_unknown(draft: Draft) -> None:
    """An append to an unknown upload gets 404 or 410."""
    expect_status(draft.patch(draft.missing(), 0, b"abc"), 404, 410)


@draft_case("draft-append-23", MUST, "RFC 9110, 10.1.1")
def append_with_expectation(draft: Draft) -> None:
    """An append with `Expect: 100-continue` gets 100, whether or not it gets 104."""
    url = draft.create(5)
    answer = draft.target.ask_continue("PATCH", url, draft.patch_fields(0, last=True), b"abcde")
    expect_ok(answer)
    expect(any(found.status == 100 for found in answer.interim), "no 100 (Continue)")


@draft_case("draft-cancel-01", MUST, "Upload Cancellation", versions=until(7))
def cancels_with_204(draft: Draft) -> None:
    """DELETE of an upload gets 204."""
    url = draft.create(10)
    draft.append(url, 0, b"abc")
    expect_status(draft.delete(url), 204)


@draft_case("draft-cancel-02", MUST, "Upload Cancellation", versions=since(8))
def cancels(draft: Draft) -> None:
    """DELETE of an upload gets 2xx."""
    url = draft.create(10)
    draft.append(url, 0, b"abc")
    expect_ok(draft.delete(url))


@draft_case("draft-cancel-03", SHOULD, "Upload Cancellation")
def cancelled_is_gone(draft: Draft) -> None:
    """Afterwards HEAD and PATCH get 404 or 410."""
    url = draft.create(10)
    expect_ok(draft.delete(url), "DELETE")
    expect_status(draft.head(url), 404, 410, what="HEAD")
    expect_status(draft.patch(url, 0, b"abc"), 404, 410, what="PATCH")


@draft_case("draft-cancel-04", SHOULD, "Upload Cancellation; Concurrency")
def cancel_ends_transfers(draft: Draft) -> None:
    """DELETE ends an append that is under way."""
    url = draft.create(100_000)
    with draft.begin(url, 0, 100_000, content(30_000)) as busy:
        busy.delivered()
        expect_ok(draft.delete(url), "DELETE")
        expect(busy.ended(), "the append goes on")
    expect_status(draft.head(url), 404, 410, what="HEAD")


@draft_case("draft-cancel-05", MUST, "Upload Cancellation", versions=until(4))
def cancel_with_state_is_bad(draft: Draft) -> None:
    """DELETE that carries `Upload-Offset`, or says whether the upload is complete, gets 400 and deletes nothing."""
    url = draft.create()
    for fields in ({"Upload-Offset": "0"}, draft.last_fields(False)):
        answer = draft.target.ask("DELETE", url, {**draft.fields, **fields})
        expect_status(answer, 400, what=next(iter(fields)))
    draft.expect_state(url, 0, complete=False)
