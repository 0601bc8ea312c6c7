"""Ranges, dates, dispositions and media types as functions, over more values than sockets could carry."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from email.utils import formatdate
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols.download import _date, _range, disposition
from hmac_file_server.protocols.media import INLINE, is_inline, media_type


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 200))
def test_a_span_is_inside_the_file_or_past_its_end(first: int, last: int, size: int) -> None:
    span = _range(b"bytes=%d-%d" % (first, last), size)
    if last < first:
        assert span is None
    elif first >= size:
        assert span is not None
        assert span[0] >= size
    else:
        assert span == (first, min(last, size - 1))


@given(st.integers(0, 300), st.integers(0, 200))
def test_a_suffix(count: int, size: int) -> None:
    span = _range(b"bytes=-%d" % count, size)
    if not count:
        assert span is not None
        assert span[0] >= size
    elif not size:
        assert span is None
    else:
        assert span == (max(0, size - count), size - 1)


@given(st.binary(max_size=60))
def test_any_value_gives_a_span_or_none(value: bytes) -> None:
    span = _range(value, 100)
    assert span is None or span[0] >= 0
    assert _range(b"bytes=" + value, 100) is None or b"," not in value


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine's time zone, which must not matter."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("moment", [0, 784_111_777, 1_700_000_000, 2**31 + 5])
def test_the_three_forms_of_a_date(moment: int) -> None:
    """RFC 9110 section 5.6.7; asctime names no zone and is in UTC all the same."""
    utc = time.gmtime(moment)
    assert _date(formatdate(moment, usegmt=True).encode()) == moment
    assert _date(time.asctime(utc).encode()) == moment
    if 1970 <= utc.tm_year < 2038:
        assert _date(time.strftime("%A, %d-%b-%y %H:%M:%S GMT", utc).encode()) == moment


@given(st.binary(max_size=60))
def test_what_is_no_date_is_none(value: bytes) -> None:
    found = _date(value)
    assert found is None or isinstance(found, int)


@pytest.mark.parametrize("value", [None, b"", b"yesterday", b"\xff", b"Thu, 01 Jan 99999 00:00:00 GMT", b"0"])
def test_no_dates(value: bytes | None) -> None:
    assert _date(value) is None


# --- Content-Disposition ---------------------------------------------------------------------------------

FORM = re.compile(
    r"attachment; filename=\"([ !#-\[\]-~]*)\"(?:; filename\*=UTF-8''((?:[A-Za-z0-9!#$&+^`|~._-]|%[0-9A-F]{2})*))?"
)
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(st.text(max_size=100))
def test_a_name_goes_through_a_header(name: str) -> None:
    """RFC 6266: two forms, both readable; RFC 8187: the extended one is the name itself, less what is unfit."""
    match = FORM.fullmatch(disposition("attachment", name).decode("ascii"))
    assert match is not None
    quoted, extended = match.groups()
    shown = quoted if extended is None else unquote(extended, errors="strict")
    assert shown == UNFIT.sub("_", name)
    assert len(quoted) == len(name)


# --- media types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "image/png",
        "text/plain; charset=utf-8",
        "text/plain;charset=utf-8",
        "text/plain ; charset=utf-8",
        'multipart/mixed; boundary="a; b"',
        'a/b; c="\\""',
        "application/vnd.oasis.opendocument.text",
        "a/b;c=d;e=f",
        "a/b;",
        "a/b; ;\t;c=d",
        "x/" + "y" * 253,
    ],
)
def test_media_types_are_kept_as_sent(value: str) -> None:
    assert media_type(value.encode()) == value
    # Also from the table of known ones.
    assert media_type(value.encode()) == value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text",
        b"/",
        b"text/",
        b"/plain",
        b"text/plain; charset",
        b"text/plain; charset=",
        b"text/pl ain",
        b"text/plain, text/html",
        b"text/plain\r\nX: y",
        b"text/plain\x00",
        b"text/pl\xc3\xa4in",
        b'a/b; c="',
        b"x/" + b"y" * 254,
    ],
)
def test_what_is_no_media_type(value: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        media_type(value)
    assert (caught.value.status, caught.value.code) == (400, "bad_media_type")


def test_no_media_type_is_none() -> None:
    assert media_type(None) is None


@given(st.binary(max_size=300))
def test_a_kept_type_can_stand_in_a_header(value: bytes) -> None:
    try:
        kept = media_type(value)
    except HttpError:
        return
    assert kept is not None
    assert re.fullmatch(r"[\t\x20-\x7e]{3,255}", kept)


def test_a_hostile_type_costs_no_time() -> None:
    """Linear, whatever is sent (S-58): this would take for ever if the expression backtracked."""
    for value in (
        b"a/b" + b" " * 250,
        b"a/b" + b";     " * 40 + b"@ @",
        b"a/b" + b" ; " * 80 + b"@",
        b"a/b" + b"; a=b " * 40 + b"@",
        b'a/b; c="' + b"\\" * 245,
        b'a/b; c="' + b"\\x" * 120,
        b"a/b" + b";a=" * 80,
    ):
        with pytest.raises(HttpError):
            media_type(value)


def test_the_safe_list() -> None:
    for value in INLINE:
        assert is_inline(value)
        assert is_inline(f"{value.upper()} ; charset=x")
    for value in ("text/html", "image/svg+xml", "application/pdf", "text/plainx", "", "image/", "xtext/plain"):
        assert not is_inline(value)
