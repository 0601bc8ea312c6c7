"""tus 1.0.0 on networks that fail: the client is back before its old request ended, and what was sent comes late.

The probes A to D of a raw socket client; the letters are those of the server's documentation. E, a server that is
killed, is nothing that a client can do.
"""

from __future__ import annotations

import threading
import time

from tests.conformance.catalogue import Level, expect, tus_case
from tests.conformance.connection import Answer, NoAnswer
from tests.conformance.target import content, expect_ok, expect_status, number
from tests.conformance.tus import RESUMABLE, Tus

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
SIZE = 2 << 20
HALF = SIZE // 2


@tus_case("tus-probe-01", MUST, "Requests, HEAD and PATCH: the offset told is the current one")
def silent_rival(tus: Tus) -> None:
    """A: while an old PATCH hangs in silence, HEAD tells an offset that a new PATCH may go on from, and it is whole."""
    data = content(SIZE)
    url = tus.create(SIZE)
    with tus.begin(url, 0, SIZE, data[:HALF]) as old:
        old.delivered()
        started = time.monotonic()
        offset = tus.offset(url)
        tus.target.note(f"HEAD after {(time.monotonic() - started) * 1000:.0f} ms, {offset} of {HALF} bytes kept")
        expect(offset <= HALF, f"offset {offset} after {HALF} bytes")
        tus.append(url, offset, data[offset:])
    tus.expect_offset(url, SIZE)
    tus.target.expect_content(url, data)


@tus_case("tus-probe-02", SHOULD, "Requests, PATCH: store as much as possible")
def silent_rival_loses_nothing(tus: Tus) -> None:
    """A: every byte that the silent PATCH brought is in the offset that HEAD tells."""
    data = content(SIZE)
    url = tus.create(SIZE)
    with tus.begin(url, 0, SIZE, data[:HALF]) as old:
        old.delivered()
        tus.expect_offset(url, HALF)


@tus_case("tus-probe-03", OURS, "a takeover is not felt: 50 ms")
def quick_takeover(tus: Tus) -> None:
    """A: from the HEAD of the client that is back to its answer it takes less than 50 ms, at the best of five."""
    data = content(SIZE)
    times = []
    for _ in range(5):
        url = tus.create(SIZE)
        with tus.begin(url, 0, SIZE, data[:HALF]) as old, tus.target.connect(url) as new:
            old.delivered()
            started = time.monotonic()
            new.request("HEAD", RESUMABLE)
            answer = new.answer(head=True)
            times.append(time.monotonic() - started)
            expect_ok(answer, "HEAD")
            expect(number(answer, "Upload-Offset") == HALF, f"Upload-Offset {answer.get('upload-offset')}")
    tus.target.note(", ".join(f"{seconds * 1000:.1f}" for seconds in times) + " ms")
    expect(min(times) < 0.05, f"{min(times) * 1000:.0f} ms")


@tus_case("tus-probe-04", MUST, "Requests, PATCH")
def takeover_by_patch(tus: Tus) -> None:
    """A: a new PATCH at the right offset gets through while an old one that brought nothing hangs in silence."""
    data = content(100_000)
    url = tus.create(len(data))
    tus.append(url, 0, data[:40_000])
    with tus.begin(url, 40_000, 60_000, b"") as old:
        old.delivered()
        tus.append(url, 40_000, data[40_000:])
    tus.target.expect_content(url, data)


def late(tus: Tus) -> Answer:
    """B, and the answer to the new request; what is stored has to be that of one request, unmixed."""
    data, strange = content(SIZE), b"?" * (SIZE - HALF)
    url = tus.create(SIZE)
    with tus.begin(url, 0, SIZE, data[:HALF]) as old:
        old.delivered()
        offset = tus.offset(url)
        with tus.begin(url, offset, SIZE - offset, data[offset : offset + 100_000]) as new:
            old.send(strange[:300_000])
            new.send(data[offset + 100_000 : offset + 200_000])
            old.send(strange[300_000:])
            new.send(data[offset + 200_000 :])
            answer = new.answer()
    tus.expect_offset(url, SIZE)
    tus.target.expect_content(url, data if answer.ok else data[:HALF] + strange)
    return answer


@tus_case("tus-probe-05", MUST, "Requests, PATCH")
def late_bytes(tus: Tus) -> None:
    """B: late bytes of the old connection are never mixed with those of the new one: the one that succeeds is stored."""
    answer = late(tus)
    expect(answer.ok or answer.refused, f"{answer.status}")
    tus.target.note(
        "the new request is stored" if answer.ok else f"the old request is stored, the new one {answer.status}"
    )


@tus_case("tus-probe-06", MUST, "Requests, PATCH")
def late_bytes_at_rest(tus: Tus) -> None:
    """B: late bytes of the old connection change nothing either while no new one is sending."""
    data = content(SIZE)
    url = tus.create(SIZE)
    with tus.begin(url, 0, SIZE, data[:HALF]) as old:
        old.delivered()
        offset = tus.offset(url)
        old.send(b"?" * (SIZE - HALF))
        old.ended()
    found = tus.offset(url)
    expect(found >= offset, f"offset {found} after {offset} was told")
    if found > offset:
        tus.target.note("the old request was let live")
    if found < SIZE:
        tus.append(url, found, data[found:])
    # A server may let the old request live on. Then what it brought counts, and nothing else.
    tus.target.expect_content(url, data[:HALF] + b"?" * (found - HALF) + data[max(found, HALF) :])


@tus_case("tus-probe-07", MUST, "Requests, PATCH")
def after_reset(tus: Tus) -> None:
    """C: after a connection was reset in the middle, the offset is one that was sent, and the rest makes it whole."""
    data = content(SIZE)
    url = tus.create(SIZE)
    tus.begin(url, 0, SIZE, data[:HALF]).reset()
    offset = tus.offset(url)
    tus.target.note(f"{offset * 100 // HALF} % kept")
    expect(offset <= HALF, f"offset {offset} after {HALF} bytes")
    tus.append(url, offset, data[offset:])
    tus.target.expect_content(url, data)


@tus_case("tus-probe-08", SHOULD, "Requests, PATCH: store as much as possible")
def reset_loses_little(tus: Tus) -> None:
    """C: of what had reached the server before the reset, something is kept."""
    data = content(SIZE)
    url = tus.create(SIZE)
    with tus.begin(url, 0, SIZE, data[:HALF]) as cut:
        cut.delivered()
        cut.reset()
    offset = tus.offset(url)
    tus.target.note(f"{offset * 100 // HALF} % kept")
    expect(offset > 0, "nothing was kept")


@tus_case("tus-probe-09", MUST, "Requests, PATCH")
def two_at_once(tus: Tus) -> None:
    """D: of two PATCHes at offset 0 at once at most one succeeds, and the upload can be made whole."""
    data = content(SIZE)
    url = tus.create(SIZE)
    answers = two_patches(tus, url, data)
    tus.target.note(" and ".join("closed" if answer is None else str(answer.status) for answer in answers))
    won = [answer for answer in answers if answer is not None and answer.ok]
    complete = [answer for answer in won if answer.get("upload-offset") == str(SIZE)]
    expect(len(complete) <= 1, "both say that they stored everything")
    offset = tus.offset(url)
    if offset < SIZE:
        tus.append(url, offset, data[offset:])
    tus.target.expect_content(url, data)


@tus_case("tus-probe-10", OURS, "one succeeds, the other is told the conflict")
def two_at_once_cleanly(tus: Tus) -> None:
    """D: of two PATCHes at offset 0 at once exactly one gets 204 and the other 409, in five of five attempts."""
    data = content(SIZE)
    for _ in range(5):
        url = tus.create(SIZE)
        answers = two_patches(tus, url, data)
        statuses = sorted(0 if answer is None else answer.status for answer in answers)
        expect(statuses == [204, 409], f"statuses {statuses}")
        tus.expect_offset(url, SIZE)
        tus.target.expect_content(url, data)


@tus_case("tus-probe-11", OURS, "a monitor does no harm")
def head_of_a_moving_upload(tus: Tus) -> None:
    """HEAD of an upload that is moving does not end its PATCH, and tells an offset that only grows."""
    data = content(SIZE)
    url = tus.create(SIZE)
    step = SIZE // 16
    last = 0
    with tus.begin(url, 0, SIZE, data[:step]) as moving:
        for start in range(step, SIZE, step):
            moving.send(data[start : start + step])
            found = tus.offset(url)
            expect(last <= found <= start + step, f"offset {found} after {last}, with {start + step} sent")
            last = found
        answer = moving.answer()
    expect_status(answer, 204, what="the PATCH that was watched")
    tus.target.expect_content(url, data)


@tus_case("tus-probe-12", OURS, "what hangs is ended at once")
def old_request_is_ended(tus: Tus) -> None:
    """A: once a new PATCH took over, the old request is answered or closed, not left hanging."""
    data = content(100_000)
    url = tus.create(len(data))
    with tus.begin(url, 0, len(data), data[:10_000]) as old:
        old.delivered()
        offset = tus.offset(url)
        tus.append(url, offset, data[offset:])
        expect(old.ended(2), "the old request still hangs")


@tus_case("tus-probe-13", MUST, "Requests, PATCH")
def cut_anywhere(tus: Tus) -> None:
    """C: wherever the server is when a connection is reset, even before it saw the request, the upload can be made whole."""
    data = content(SIZE)
    for sent in (0, 1, 100_000, HALF):
        url = tus.create(SIZE)
        tus.begin(url, 0, SIZE, data[:sent], accepted=False).reset()
        tus.finish(url, data, sent)


@tus_case("tus-probe-14", OURS, "the client is where its newest request is")
def newest_wins(tus: Tus) -> None:
    """B: it is the new request that succeeds, with the whole upload in its answer."""
    answer = late(tus)
    expect_status(answer, 204, what="PATCH of the new connection")
    expect(number(answer, "Upload-Offset") == SIZE, f"Upload-Offset {answer.get('upload-offset')}")


def two_patches(tus: Tus, url: str, data: bytes) -> list[Answer | None]:
    """The answers to two PATCHes of `data` at 0, sent at the same time; None for a connection that was closed."""
    found: dict[int, Answer | None] = {}
    barrier = threading.Barrier(2)

    def send(place: int) -> None:
        found[place] = None
        with tus.target.connect(url) as connection:
            barrier.wait()
            try:
                connection.request("PATCH", {**tus.patch_fields(0), "Content-Length": str(len(data))}, data)
                found[place] = connection.answer()
            except (NoAnswer, OSError):
                return

    senders = [threading.Thread(target=send, args=(place,)) for place in range(2)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return [found.get(0), found.get(1)]
