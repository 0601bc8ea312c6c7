"""The IETF draft: lengths, limits, digests, and requests that meet each other."""

from __future__ import annotations

import base64
import hashlib
import threading
import time

from tests.conformance.catalogue import Level, draft_case, expect, since, skip
from tests.conformance.connection import Answer, NoAnswer
from tests.conformance.draft import Draft
from tests.conformance.structured import dictionary
from tests.conformance.target import PARTIAL_TYPE, content, expect_ok, expect_refused, expect_status, number

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
LENGTH = "Length"
LIMITS = "Limits"
CONCURRENCY = "Concurrency"
SIZE = 2 << 20
HALF = SIZE // 2


@draft_case("draft-length-01", MUST, LENGTH, versions=since(7))
def lengths_of_one_creation(draft: Draft) -> None:
    """A last creation whose `Upload-Length` is not its `Content-Length` is refused."""
    expect_refused(draft.post(last=True, body=b"abcde", length=7), "longer")
    expect_refused(draft.post(last=True, body=b"abcde", length=4), "shorter")


@draft_case("draft-length-02", MUST, LENGTH, versions=since(7))
def lengths_of_two_requests(draft: Draft) -> None:
    """An append whose `Upload-Length` is not that of an earlier request is refused, and changes nothing."""
    url = draft.create(10)
    expect_refused(draft.patch(url, 0, b"abc", fields={"Upload-Length": "11"}), "another Upload-Length")
    found = number(draft.head(url), "Upload-Length")
    expect(found == 10, f"Upload-Length {found}")


@draft_case("draft-length-03", MUST, LENGTH, versions=since(7))
def length_of_the_last_append(draft: Draft) -> None:
    """A last append that does not end at the length told before is refused, and completes nothing."""
    url = draft.create(10)
    expect_refused(draft.patch(url, 0, b"abcde", last=True), "too short")
    answer = draft.head(url)
    if answer.ok:
        draft.expect_complete(answer, False, "HEAD")


@draft_case("draft-length-04", SHOULD, "Problem Types, Inconsistent Length", versions=since(7))
def length_problem(draft: Draft) -> None:
    """Such refusals are 400 of the problem type inconsistent-upload-length."""
    answer = draft.post(last=True, body=b"abcde", length=7)
    expect_status(answer, 400)
    draft.expect_problem(answer, "inconsistent-upload-length")
    answer = draft.patch(draft.create(10), 0, b"abc", fields={"Upload-Length": "11"})
    expect_status(answer, 400)
    draft.expect_problem(answer, "inconsistent-upload-length")


@draft_case("draft-length-05", MUST, LENGTH + "; Upload Append", versions=since(6))
def past_the_length(draft: Draft) -> None:
    """An append that goes past the length is refused, and nothing is stored past it."""
    for pieces in (False, True):
        url = draft.create(10)
        draft.append(url, 0, b"abcde")
        expect_refused(draft.patch(url, 5, b"f" * 30_000, pieces=pieces), "chunked" if pieces else "Content-Length")
        answer = draft.head(url)
        if answer.ok:
            expect(number(answer, "Upload-Offset") <= 10, f"Upload-Offset {answer.get('upload-offset')} of 10")


@draft_case("draft-length-06", MUST, "Upload Append", versions=since(8))
def past_the_length_deactivates(draft: Draft) -> None:
    """An upload whose content went past its length is not to be gone on with."""
    url = draft.create(10)
    expect_refused(draft.patch(url, 0, b"f" * 30_000, pieces=True))
    expect_refused(draft.patch(url, 0, b"abc"), "append at 0")
    expect_refused(draft.patch(url, 10, b"", last=True), "append at 10")
    answer = draft.head(url)
    expect(answer.refused or draft.said_complete(answer) is False, "HEAD calls it complete")


@draft_case("draft-length-07", MUST, LENGTH, versions=since(7))
def malformed_length(draft: Draft) -> None:
    """A malformed `Upload-Length` is ignored: the upload has no length yet."""
    for value in ("-1", "ten", '"10"', "10.5", "?1"):
        url = draft.create(fields={"Upload-Length": value})
        answer = draft.head(url)
        expect_ok(answer, "HEAD")
        expect(not answer.has("upload-length"), f"Upload-Length: {value} became {answer.get('upload-length')}")


@draft_case("draft-length-08", MUST, LENGTH, versions=since(4))
def length_of_a_cut_append(draft: Draft) -> None:
    """A last append that was cut told the length all the same: one that would end elsewhere is refused."""
    url = draft.create()
    with draft.begin(url, 0, 100_000, content(60_000)) as cut:
        cut.delivered()
        cut.finish()
        cut.ended()
    offset = draft.offset(url)
    expect_refused(draft.patch(url, offset, b"end", last=True), "a shorter upload")
    answer = draft.head(url)
    if answer.ok:
        draft.expect_complete(answer, False, "HEAD")


@draft_case("draft-limit-01", MUST, LIMITS, versions=since(6))
def limits_are_well_formed(draft: Draft) -> None:
    """`Upload-Limit` is a dictionary wherever it stands, and its known keys have non-negative integers."""
    posted = draft.post(last=False)
    expect_ok(posted, "creation")
    url = draft.location(posted) or ""
    answers = [draft.target.ask("OPTIONS", draft.target.url, draft.fields), *posted.interim, posted, draft.head(url)]
    found = [limits for answer in answers if (limits := draft.limits(answer)) is not None]
    if not found:
        skip("the server tells no limits")


@draft_case("draft-limit-02", MUST, LIMITS, versions=since(6))
def limits_speak_the_version(draft: Draft) -> None:
    """The lifetime in `Upload-Limit` is `expires` in version 6 and `max-age` from 7 on, never the other."""
    answer = draft.head(draft.create())
    limits = draft.limits(answer)
    if limits is None:
        skip("the server tells no limits")
    right, wrong = ("expires", "max-age") if draft.version == 6 else ("max-age", "expires")
    expect(wrong not in limits, f"Upload-Limit: {answer.get('upload-limit')}")
    if right not in limits:
        skip("the server tells no lifetime")


@draft_case("draft-limit-03", MUST, LIMITS + "; Upload Creation", versions=since(8))
def limits_everywhere(draft: Draft) -> None:
    """Where HEAD tells limits, the answer to an incomplete creation does as well."""
    posted = draft.post(last=False)
    expect_ok(posted, "creation")
    if draft.limits(draft.head(draft.location(posted) or "")) is None:
        skip("the server tells no limits")
    expect(draft.limits(posted) is not None, "a creation without Upload-Limit")


@draft_case("draft-limit-04", SHOULD, LIMITS, versions=since(6))
def options_tells_limits(draft: Draft) -> None:
    """OPTIONS of the target tells `Upload-Limit`."""
    answer = draft.target.ask("OPTIONS", draft.target.url, draft.fields)
    expect_ok(answer)
    expect(draft.limits(answer) is not None, "no Upload-Limit")


@draft_case("draft-limit-05", MUST, LIMITS, versions=since(9))
def options_accepts_patches(draft: Draft) -> None:
    """OPTIONS of the target has `Accept-Patch` with application/partial-upload."""
    answer = draft.target.ask("OPTIONS", draft.target.url, draft.fields)
    expect_ok(answer)
    expect(PARTIAL_TYPE in answer.words("accept-patch"), f"Accept-Patch: {answer.get('accept-patch')!r}")


@draft_case("draft-limit-06", MUST, LIMITS, versions=since(8))
def too_large_tells_limits(draft: Draft) -> None:
    """A 413 because of `max-size` has `Upload-Limit`."""
    limits = draft.limits(draft.target.ask("OPTIONS", draft.target.url, draft.fields)) or {}
    most = limits.get("max-size")
    if not isinstance(most, int) or most >= 999_999_999_999_999:
        skip("the server tells no max-size")
    answer = draft.post(last=False, length=most + 1)
    if answer.status != 413:
        skip(f"more than max-size is answered {answer.status}")
    expect(draft.limits(answer) is not None, "413 without Upload-Limit")


@draft_case("draft-limit-07", SHOULD, LIMITS, versions=since(7))
def limits_do_not_shrink(draft: Draft) -> None:
    """The limits told at creation still hold later: max-size and max-append-size are not smaller."""
    posted = draft.post(last=False)
    expect_ok(posted, "creation")
    first = draft.limits(posted)
    url = draft.location(posted) or ""
    draft.append(url, 0, b"abc")
    later = draft.limits(draft.head(url))
    if first is None or later is None:
        skip("the server tells no limits")
    for key in ("max-size", "max-append-size"):
        before, after = first.get(key), later.get(key)
        if isinstance(after, int):
            expect(isinstance(before, int) and after >= before, f"{key} was {before!r} and is {after!r}")


def field(algorithm: str, data: bytes) -> str:
    """A digest field of RFC 9530."""
    found = hashlib.new(algorithm.replace("-", ""), data).digest()
    return f"{algorithm}=:{base64.b64encode(found).decode()}:"


@draft_case("draft-digest-01", SHOULD, "Integrity Digests, Content Digests", versions=since(6))
def content_digest(draft: Draft) -> None:
    """An append with a right `Content-Digest` is taken; one with a wrong one is refused and not appended."""
    url = draft.create(10)
    draft.append(url, 0, b"abcde", fields={"Content-Digest": field("sha-256", b"abcde")})
    expect_refused(draft.patch(url, 5, b"fghij", fields={"Content-Digest": field("sha-256", b"other")}), "sha-256")
    expect_refused(draft.patch(url, 5, b"fghij", fields={"Content-Digest": field("sha-512", b"other")}), "sha-512")
    draft.expect_state(url, 5, complete=False)
    draft.append(url, 5, b"fghij", last=True, fields={"Content-Digest": field("sha-512", b"fghij")})


@draft_case("draft-digest-02", SHOULD, "Integrity Digests, Content Digests", versions=since(6))
def content_digest_of_creation(draft: Draft) -> None:
    """A creation with a wrong `Content-Digest` is refused, one with a right one is taken."""
    wrong = {"Content-Digest": field("sha-256", b"other")}
    expect_refused(draft.post(last=True, body=b"abcde", fields=wrong), "complete")
    refused = draft.post(last=False, body=b"abcde", fields=wrong)
    expect_refused(refused, "incomplete")
    right = {"Content-Digest": field("sha-256", b"abcde")}
    expect_ok(draft.post(last=True, body=b"abcde", fields=right), "a right one")


@draft_case("draft-digest-03", SHOULD, "Integrity Digests, Representation Digests", versions=since(6))
def representation_digest(draft: Draft) -> None:
    """With a wrong `Repr-Digest` at creation the upload fails when it is complete; with a right one it succeeds."""
    url = draft.create(6, fields={"Repr-Digest": field("sha-256", b"other")})
    draft.append(url, 0, b"abc")
    answer = draft.patch(url, 3, b"def", last=True)
    expect_refused(answer, "a wrong Repr-Digest")
    url = draft.create(6, fields={"Repr-Digest": field("sha-256", b"abcdef")})
    draft.append(url, 0, b"abc")
    draft.expect_content(url, draft.append(url, 3, b"def", last=True), b"abcdef")


@draft_case("draft-digest-04", SHOULD, "Integrity Digests, Representation Digests", versions=since(6))
def representation_digest_in_one(draft: Draft) -> None:
    """The same for a creation that is complete at once."""
    wrong = {"Repr-Digest": field("sha-256", b"other")}
    expect_refused(draft.post(last=True, body=b"abcde", fields=wrong), "a wrong Repr-Digest")
    expect_ok(draft.post(last=True, body=b"abcde", fields={"Repr-Digest": field("sha-256", b"abcde")}), "a right one")


@draft_case("draft-digest-05", SHOULD, "Integrity Digests, Representation Digests", versions=since(6))
def wanted_digest(draft: Draft) -> None:
    """With `Want-Repr-Digest` at creation the final answer has a right `Repr-Digest`, also over several requests."""
    wanted = {"Want-Repr-Digest": "sha-256=10, sha-512=1"}
    one = draft.post(last=True, body=b"abcdef", fields=wanted)
    url = draft.create(6, fields=wanted)
    draft.append(url, 0, b"abc")
    for name, answer in (("one request", one), ("two requests", draft.append(url, 3, b"def", last=True))):
        expect_ok(answer, name)
        value = answer.get("repr-digest")
        expect(value is not None, f"{name}: no Repr-Digest")
        members = dictionary(value or "")
        expect(bool(members.keys() & {"sha-256", "sha-512"}), f"{name}: Repr-Digest {value!r}")
        for algorithm in ("sha-256", "sha-512"):
            if algorithm in members:
                right = hashlib.new(algorithm.replace("-", ""), b"abcdef").digest()
                expect(members[algorithm] == right, f"{name}: wrong {algorithm}")


@draft_case("draft-digest-06", MUST, "Integrity Digests; RFC 9530, 2 and 3", versions=since(6))
def unknown_digests(draft: Draft) -> None:
    """Digests of algorithms that nobody knows are ignored."""
    strange = "nosuch=:AAAA:"
    answer = draft.post(last=False, body=b"abc", fields={"Content-Digest": strange, "Repr-Digest": strange})
    expect_ok(answer, "creation")
    url = draft.location(answer) or ""
    draft.append(url, 3, b"def", last=True, fields={"Content-Digest": strange})
    draft.expect_state(url, 6, complete=True)


@draft_case("draft-rival-01", MUST, CONCURRENCY)
def told_offset_holds(draft: Draft) -> None:
    """A: the offset told while an old append hangs in silence is accepted by a new append, and the upload is whole."""
    data = content(SIZE)
    url = draft.create(SIZE)
    with draft.begin(url, 0, SIZE, data[:HALF]) as old:
        old.delivered()
        started = time.monotonic()
        offset = draft.offset(url)
        draft.target.note(f"HEAD after {(time.monotonic() - started) * 1000:.0f} ms, {offset} of {HALF} bytes kept")
        expect(offset <= HALF, f"offset {offset} after {HALF} bytes")
        answer = draft.append(url, offset, data[offset:], last=True)
    draft.expect_state(url, SIZE, complete=True)
    draft.expect_content(url, answer, data)


@draft_case("draft-rival-02", SHOULD, "Upload Append: as much as possible")
def told_offset_is_all(draft: Draft) -> None:
    """A: that offset counts every byte that the old append brought."""
    data = content(SIZE)
    url = draft.create(SIZE)
    with draft.begin(url, 0, SIZE, data[:HALF]) as old:
        old.delivered()
        draft.expect_state(url, HALF, complete=False)


@draft_case("draft-rival-03", SHOULD, CONCURRENCY)
def head_ends_the_old(draft: Draft) -> None:
    """HEAD ends an append that is under way: its request is answered or closed."""
    url = draft.create(SIZE)
    with draft.begin(url, 0, SIZE, content(HALF)) as old:
        old.delivered()
        expect_ok(draft.head(url), "HEAD")
        expect(old.ended(), "the old append still hangs")


@draft_case("draft-rival-04", MUST, CONCURRENCY)
def late_bytes(draft: Draft) -> None:
    """B: what the old connection sends after HEAD told the offset does not move it."""
    data = content(SIZE)
    url = draft.create(SIZE)
    with draft.begin(url, 0, SIZE, data[:HALF]) as old:
        old.delivered()
        offset = draft.offset(url)
        old.send(b"?" * (SIZE - HALF))
        with draft.begin(url, offset, SIZE - offset, data[offset : offset + 100_000]) as new:
            old.ended()
            new.send(data[offset + 100_000 :])
            answer = new.answer()
    expect_ok(answer, "the new append")
    draft.expect_state(url, SIZE, complete=True)
    draft.expect_content(url, answer, data)


@draft_case("draft-rival-05", MUST, CONCURRENCY)
def after_reset(draft: Draft) -> None:
    """C: after a connection was reset, the offset is one that was sent, and the rest makes the upload whole."""
    data = content(SIZE)
    url = draft.create(SIZE)
    draft.begin(url, 0, SIZE, data[:HALF]).reset()
    offset = draft.offset(url)
    draft.target.note(f"{offset * 100 // HALF} % kept")
    expect(offset <= HALF, f"offset {offset} after {HALF} bytes")
    draft.expect_content(url, draft.append(url, offset, data[offset:], last=True), data)


@draft_case("draft-rival-06", MUST, CONCURRENCY)
def two_at_once(draft: Draft) -> None:
    """D: of two last appends at offset 0 at once at most one succeeds, and the upload can be made whole."""
    data = content(SIZE)
    url = draft.create(SIZE)
    found: dict[int, Answer | None] = {0: None, 1: None}
    barrier = threading.Barrier(2)

    def send(place: int) -> None:
        with draft.target.connect(url) as connection:
            barrier.wait()
            try:
                fields = {**draft.patch_fields(0, last=True), "Content-Length": str(SIZE)}
                connection.request("PATCH", fields, data)
                found[place] = connection.answer()
            except (NoAnswer, OSError):
                return

    senders = [threading.Thread(target=send, args=(place,)) for place in found]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    answers = list(found.values())
    draft.target.note(" and ".join("closed" if answer is None else str(answer.status) for answer in answers))
    expect(sum(answer is not None and answer.ok for answer in answers) <= 1, "both succeed")
    state = draft.head(url)
    expect_ok(state, "HEAD")
    won = next((answer for answer in answers if answer is not None and answer.ok), None)
    if draft.said_complete(state) is not True:
        offset = number(state, "Upload-Offset")
        won = draft.append(url, offset, data[offset:], last=True)
    draft.expect_content(url, won, data)


@draft_case("draft-rival-07", MUST, CONCURRENCY)
def takeover_by_append(draft: Draft) -> None:
    """A new append at the right offset gets through while an old one that brought nothing hangs in silence."""
    data = content(100_000)
    url = draft.create(len(data))
    draft.append(url, 0, data[:40_000])
    with draft.begin(url, 40_000, 60_000, b"") as old:
        old.delivered()
        answer = draft.append(url, 40_000, data[40_000:], last=True)
    draft.expect_content(url, answer, data)
