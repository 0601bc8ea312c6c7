"""The sink of a form's body: the same form in any pieces gives the same file, the same fault the same refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.protocols.conftest import SECRET, Site
from tests.unit.protocols.exchanges import FakeExchange, request

from hmac_file_server.auth import signing
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import StorageFailed, StorageFull
from hmac_file_server.http import BodyCut, Exchange

BOUNDARY = b"bound"
HEAD = b'--bound\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
END = b"\r\n--bound--\r\n"


def pieces(form: bytes, cuts: list[int]) -> list[bytes]:
    """The form, cut at these places."""
    places = sorted({0, len(form), *(cut % (len(form) + 1) for cut in cuts)})
    return [form[start:stop] for start, stop in pairwise(places)]


def post(
    site: Site, body: list[bytes], *, chunked: bool = False, cut: BodyCut | None = None
) -> tuple[int, dict[str, Any]]:
    fields: dict[str, Any] = {
        "content_type": b"multipart/form-data; boundary=" + BOUNDARY,
        "x_signature": signing.x_signature(SECRET, "/upload").encode(),
    }
    if chunked:
        fields["transfer_encoding"] = b"chunked"
    length = None if chunked else sum(map(len, body))
    exchange = FakeExchange(request("POST", "/upload", length=length, **fields), body, cut)
    site.application.handle(cast("Exchange", exchange))
    site.store.run_later()
    return exchange.answer.status, json.loads(exchange.answer.body)


CONTENT = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"-", b"--", b"--bound", b"\r\n--boun", b"bound", b"x", b"\x00", b"--\r\n"]
    ),
    max_size=30,
).map(b"".join)


@given(CONTENT, st.lists(st.integers(0, 400), max_size=12), st.booleans())
@example(b"", list(range(200)), False)
@example(b"\r\n--bound", list(range(200)), True)
@settings(deadline=None)
def test_any_cut_gives_the_same_file(content: bytes, cuts: list[int], chunked: bool) -> None:
    if b"\r\n--bound" in content or content.startswith(b"--bound"):
        content = content.replace(b"bound", b"bond")
    site = Site(Settings())
    status, receipt = post(site, pieces(HEAD + content + END, cuts), chunked=chunked)
    assert (status, receipt.get("size")) == (200, len(content)), receipt
    ((entry, stored),) = site.store.files.values()
    assert stored == content
    assert (entry.media_type, entry.filename) == ("image/png", "a.png")
    assert site.store.idle


FAULTS = {
    "preamble": b"junk\r\n" + HEAD + b"x" + END,
    "two files": HEAD + b"x" + b"\r\n" + HEAD + b"y" + END,
    "no end": HEAD + b"x",
    "epilogue": HEAD + b"x" + END + b"y" * 140_000,
    "no file": b'--bound\r\nContent-Disposition: form-data; name="a"\r\n\r\nx' + END,
    "empty": b"",
    "bare LF": HEAD.replace(b"\r\nContent-Type", b"\nContent-Type") + b"x" + END,
    "bare LF at the end": HEAD.replace(b"image/png", b"image/png\n") + b"x" + END,
}


@pytest.mark.parametrize("name", list(FAULTS))
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_any_cut_gives_the_same_refusal(site: Site, name: str, size: int) -> None:
    form = FAULTS[name]
    if size == 1 and len(form) > 10_000:
        size = 64
    body = [form[start : start + size] for start in range(0, len(form), size)]
    status, problem = post(site, body)
    assert (status, problem["code"]) == (400, "bad_multipart")
    assert site.store.files == {}
    assert site.store.idle


def test_a_form_is_no_larger_than_its_file_may_be() -> None:
    settings = Settings()
    site = Site(replace(settings, server=replace(settings.server, max_upload_size=1000)))
    assert post(site, [HEAD, bytes(1000), END])[0] == 200
    assert post(site, [HEAD, bytes(1001), END])[1]["code"] == "too_large"
    assert post(site, [HEAD, bytes(1_000_000), END])[1]["code"] == "too_large"
    assert site.store.idle


@pytest.mark.parametrize("step", ["admit", "spool", "write", "publish"])
@pytest.mark.parametrize(("error", "status"), [(StorageFull("x"), 507), (StorageFailed("x"), 500)])
def test_a_store_that_fails(site: Site, step: str, error: StorageFull | StorageFailed, status: int) -> None:
    site.store.errors[step] = error
    assert post(site, [HEAD, b"abc", END])[0] == status
    assert site.store.files == {}
    assert site.store.idle


def test_a_form_is_admitted_by_its_length(site: Site) -> None:
    site.store.free = 100_000
    assert post(site, [HEAD, bytes(200_000), END])[1]["code"] == "storage_full"
    assert post(site, [HEAD, bytes(90_000), END])[0] == 200
    assert site.store.idle


@pytest.mark.parametrize("cut", [BodyCut.DISCONNECTED, BodyCut.STALLED, BodyCut.ABORTED, BodyCut.TOO_LARGE])
def test_a_cut_form_leaves_nothing(site: Site, cut: BodyCut) -> None:
    assert post(site, [HEAD, b"abc"], cut=cut)[0] in {400, 408, 413, 503}
    assert site.store.files == {}
    assert site.store.idle


def test_a_part_type_that_is_none_has_its_own_code(site: Site) -> None:
    form = HEAD.replace(b"image/png", b"nonsense") + b"x" + END
    assert post(site, [form])[1]["code"] == "bad_media_type"
