"""What is begun in one protocol and finished in another. No specification asks for it: these cases are ours."""

from __future__ import annotations

from tests.conformance.catalogue import Level, expect, skip, tus_case
from tests.conformance.content_range import Ranges
from tests.conformance.draft import Draft
from tests.conformance.target import content, expect_ok, expect_status, number
from tests.conformance.tus import Tus

OURS = Level.OURS
SOURCE = "not said: one upload, several protocols"


def draft_for(tus: Tus) -> Draft:
    """A client of the draft's form without a version, for servers that speak both."""
    draft = Draft(tus.target, None)
    if draft.spoken is not None:
        skip("the server does not speak the draft")
    return draft


@tus_case("crossing-01", OURS, SOURCE, "creation")
def tus_then_draft(tus: Tus) -> None:
    """An upload begun in tus is finished in the draft."""
    draft, data = draft_for(tus), content(50_000)
    url = tus.create(len(data))
    tus.append(url, 0, data[:20_000])
    draft.expect_state(url, 20_000, complete=False)
    draft.append(url, 20_000, data[20_000:], last=True)
    tus.expect_offset(url, len(data))
    tus.target.expect_content(url, data)


@tus_case("crossing-02", OURS, SOURCE, "creation")
def draft_then_tus(tus: Tus) -> None:
    """An upload begun in the draft, with its length, is gone on with in tus and ended in the draft."""
    draft, data = draft_for(tus), content(50_000)
    url = draft.create(len(data), data[:20_000])
    tus.expect_offset(url, 20_000)
    found = number(tus.head(url), "Upload-Length")
    expect(found == len(data), f"Upload-Length {found}")
    tus.append(url, 20_000, data[20_000:40_000])
    answer = draft.append(url, 40_000, data[40_000:], last=True)
    draft.expect_content(url, answer, data)


@tus_case("crossing-03", OURS, SOURCE, "creation")
def range_after_tus(tus: Tus) -> None:
    """An upload begun in tus is finished by PUT with Content-Range."""
    ranges, data = Ranges(tus.target), content(50_000)
    if ranges.spoken is not None:
        skip("the server does not take PUT with Content-Range")
    url = tus.create(len(data))
    tus.append(url, 0, data[:20_000])
    ranges.expect_kept(url, 20_000, len(data))
    answer = ranges.piece(url, 20_000, data[20_000:], len(data))
    expect_status(answer, 200, 201)
    tus.expect_offset(url, len(data))
    tus.target.expect_content(url, data)


@tus_case("crossing-04", OURS, SOURCE, "creation")
def takeover_across(tus: Tus) -> None:
    """A PATCH of tus that hangs is taken over by a client of the draft, which loses nothing."""
    draft, data = draft_for(tus), content(200_000)
    url = tus.create(len(data))
    with tus.begin(url, 0, len(data), data[:100_000]) as old:
        old.delivered()
        answer = draft.head(url)
        expect_ok(answer, "HEAD")
        offset = number(answer, "Upload-Offset")
        expect(offset == 100_000, f"offset {offset}")
        draft.append(url, offset, data[offset:], last=True)
        expect(old.ended(), "the old request still hangs")
    tus.target.expect_content(url, data)
