"""Fields of the upload protocols, of downloads and of pages."""

from __future__ import annotations

import base64
import re
from email.message import Message
from types import SimpleNamespace
from typing import cast
from urllib.parse import unquote

from tests.fuzz.target import Target, joined, refused, split

from hmac_file_server.files.contract import Entry
from hmac_file_server.http import Exchange, Request
from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols import content_range, download, page_code, page_form, page_negotiation, tus
from hmac_file_server.protocols.application import Application
from hmac_file_server.protocols.checksums import ALGORITHMS, TrailingChecksum, body_checksum
from hmac_file_server.protocols.chunked import file_name
from hmac_file_server.protocols.digests import body_digest
from hmac_file_server.protocols.interop import NEWEST, OLDEST, completes, dialect_of, speaks
from hmac_file_server.protocols.media import is_inline, media_type, well_formed
from hmac_file_server.protocols.representation import announced, wanted
from hmac_file_server.protocols.resources import is_id, logged_path
from hmac_file_server.protocols.structured import boolean, dictionary, natural

_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
SIZES = (0, 1, 20, 2**40)


def _request(**named: bytes) -> Request:
    """As the parser of heads hands it out; ValueError for a value that it would not."""
    fields = {}
    for name, value in named.items():
        if _VALUE.fullmatch(value) is None:
            raise ValueError("no value of a field")
        if value:
            fields[name.replace("_", "-").encode()] = value.strip(b" \t")
    return Request("PUT", "/x", b"", fields, http10=False)


def structured(data: bytes) -> bool:
    flag, count, members = boolean(data), natural(data), dictionary(data)
    assert flag in {True, False, None}
    if flag is not None:
        assert boolean(b"?1" if flag else b"?0") is flag
        assert data.strip(b" ").startswith((b"?0", b"?1"))
    if count is not None:
        assert 0 <= count < 10**15
        assert natural(b"%d" % count) == count
        assert re.match(rb" *-?0*%d(?![0-9])" % count, data)
    if members is not None:
        assert all(re.fullmatch(r"[a-z*][a-z0-9_.*-]*", key) for key in members)
    return flag is not None or count is not None or bool(members)


def dialects(data: bytes) -> bool:
    version, complete, incomplete, length, digest, want = split(data, 6)
    try:
        request = _request(
            upload_draft_interop_version=version, upload_complete=complete, upload_incomplete=incomplete,
            upload_length=length, repr_digest=digest, want_repr_digest=want,
        )  # fmt: skip
    except ValueError:
        return False
    dialect = dialect_of(request)
    assert OLDEST <= dialect.rules <= NEWEST
    assert re.fullmatch(
        rb"(?:[!-~]+: [ -~]+\r\n)*", dialect.echo + dialect.completeness(complete=True) + dialect.limits(5, 1.5)
    )
    ends = completes(request)
    assert ends in {True, False, None}
    assert speaks(request) is any((version, complete, incomplete))
    assert wanted(request) in {None, "sha-256", "sha-512"}
    try:
        told = announced(request)
    except HttpError as error:
        return refused(error, "bad_digest")
    if told is not None:
        again = _request(repr_digest=told.field.partition(b": ")[2].rstrip())
        assert announced(again) == told
    return ends is not None or told is not None


def digests(data: bytes) -> bool:
    content, instance = split(data, 2)
    try:
        request = _request(content_digest=content, digest=instance)
        check = body_digest(request)
    except ValueError:
        return False
    except HttpError as error:
        return refused(error, "bad_digest")
    if check is None:
        return False
    check.update(memoryview(b"x"))
    expected = check._expected
    assert len(expected) in {32, 64}
    encoded = base64.b64encode(expected).rstrip(b"=")
    # What is compared with is what was sent; the last character may carry bits that mean nothing.
    assert encoded[:-1] in content + b"," + instance
    return True


def checksums(data: bytes) -> bool:
    field, trailer, trailing = split(data, 3)
    try:
        request = _request(upload_checksum=field, trailer=trailer)
        request.chunked = True
        check = body_checksum(request, lambda: {b"upload-checksum": trailing})
    except ValueError:
        return False
    except HttpError as error:
        return refused(error, "bad_digest", "checksum_unsupported")
    if check is None:
        return False
    check.update(memoryview(b"abc"))
    right = check.matches()
    if isinstance(check, TrailingChecksum):
        if check.fault is not None:
            assert check.fault.status == 400
            assert not right
    else:
        name, _, encoded = field.strip(b" \t").partition(b" ")
        assert name.decode() in ALGORITHMS
        assert base64.b64encode(check._expected)[:-3] == encoded[: len(base64.b64encode(check._expected)) - 3]
    return True


def metadata(data: bytes) -> bool:
    try:
        found = tus.parse_metadata(data)
    except HttpError as error:
        return refused(error, "bad_field")
    assert data.isascii()
    if not data:
        assert found == {}
        return False
    rendered = b",".join(key.encode() + b" " + base64.b64encode(value) for key, value in found.items())
    assert tus.parse_metadata(rendered) == found
    assert len(found) == data.count(b",") + 1
    for key in found:
        assert key.isascii()
        assert not set(key) & set(" ,\r\n")
    return True


def concat(data: bytes) -> bool:
    try:
        text, parts = tus.parse_concat(data)
    except HttpError as error:
        return refused(error, "bad_field")
    # It is sent back as it came.
    assert text.encode("ascii") == data
    for part in parts:
        assert is_id(part), part
    if parts:
        assert tus.parse_concat(b"final;" + b" ".join(b"/tus/" + part.encode() for part in parts))[1] == parts
    return True


_SPAN = re.compile(rb"[0-9]{1,18}")


def content_ranges(data: bytes) -> bool:
    found = content_range._RANGE.fullmatch(data)
    kind, space, rest = data.partition(b" " if b" " in data else b"\t")
    # The same by hand.
    span, slash, total = rest.lstrip(b" \t").partition(b"/")
    first, dash, last = span.partition(b"-")
    by_hand = (
        kind.rstrip(b"\t").lower() == b"bytes"
        and bool(space)
        and bool(slash)
        and (total == b"*" or _SPAN.fullmatch(total) is not None)
        and (span == b"*" or (bool(dash) and _SPAN.fullmatch(first) is not None and _SPAN.fullmatch(last) is not None))
    )
    assert (found is not None) == by_hand, data
    return by_hand


def ranges(data: bytes) -> bool:
    taken = False
    for size in SIZES:
        span = download._range(data, size)
        if span is None:
            continue
        taken = True
        first, last = span
        assert data.lower().startswith(b"bytes=")
        assert b"," not in data
        assert first >= size or 0 <= first <= last < size, (size, span)
        if first < size:
            assert download._range(b"bytes=%d-%d" % (first, last), size) == span
    return taken


def conditions(data: bytes) -> bool:
    """Dates and tags of a conditional request: 200, 304 or 412, and a date only where there is one."""
    match, none_match, since, unmodified, if_range = split(data, 5)
    try:
        request = _request(
            if_match=match,
            if_none_match=none_match,
            if_modified_since=since,
            if_unmodified_since=unmodified,
            if_range=if_range,
        )
    except ValueError:
        return False
    entry = cast("Entry", SimpleNamespace(etag='"tag"', modified=1_700_000_000))
    exchange = cast("Exchange", SimpleNamespace(request=request))
    verdict = download._conditions(exchange, entry)
    assert verdict in {200, 304, 412}
    if none_match.strip() == b'"tag"' and not match and not unmodified:
        assert verdict == 304
    if match.strip() == b'"tag"':
        assert verdict != 412
    request.method = "GET"
    if download._range_applies(exchange, entry) and if_range:
        assert request.header(b"if-range") == b'"tag"' or download._date(request.header(b"if-range")) == entry.modified
    return any(download._date(value) is not None for value in (since, unmodified, if_range)) or verdict != 200


_EXTENDED = re.compile(rb"; filename\*=UTF-8''([A-Za-z0-9!#$&+^_`|~.%-]+)\Z")


def disposition(data: bytes) -> bool:
    """Any name comes back as it was, less what must not be shown; and the field is one line of ASCII."""
    name = data.decode("utf-8", "surrogateescape")
    field = download.disposition("attachment", name)
    assert re.fullmatch(rb"[ -~]+", field), field
    shown = download._UNFIT_IN_NAMES.sub("_", name)
    if download._DEVICE.match(shown):
        shown = "_" + shown
    quoted = re.match(rb'attachment; filename="([^"\\]*)"', field)
    assert quoted is not None, field
    extended = _EXTENDED.search(field, quoted.end())
    assert (field[quoted.end() :] == b"") is (extended is None), field
    got = quoted[1].decode() if extended is None else unquote(extended[1].decode("ascii"), errors="strict")
    assert got == shown, (got, shown)
    # As the standard library reads it, and as a form's parser does.
    message = Message()
    message["Content-Disposition"] = field.decode("ascii")
    assert message.get_content_disposition() == "attachment"
    return bool(name)


def names(data: bytes) -> bool:
    """X-Filename, and what a file is called after it: fit for every file system, and clean already."""
    name = file_name(data)
    clean = Application.clean_name(cast("Application", None), name)
    assert 0 < len(clean.encode("utf-8")) <= 200
    assert not set(clean) & set('/\\\0\r\n"<>|:*?')
    assert clean.strip(" .") == clean or clean == "file"
    assert Application.clean_name(cast("Application", None), clean) == clean, clean
    return clean != "file"


def media_types(data: bytes) -> bool:
    bound = well_formed(data.decode("utf-8", "replace"))
    assert re.fullmatch(r"[\t -~]{3,255}", bound)
    try:
        found = media_type(data)
    except HttpError as error:
        return refused(error, "bad_media_type")
    assert found is not None
    assert found.encode() == data
    message = Message()
    message["Content-Type"] = found
    assert message.get_content_type() == found.partition(";")[0].strip().lower()
    if is_inline(found):
        assert message.get_content_type() in {
            "text/plain",
            *(f"{k}/{message.get_content_subtype()}" for k in ("image", "audio", "video")),
        }
        assert message.get_content_type() != "image/svg+xml"
    return True


def negotiation(data: bytes) -> bool:
    coding, accept = split(data, 2)
    found = page_negotiation.weights(coding) | page_negotiation.weights(accept)
    for name, weight in found.items():
        assert 0.0 <= weight <= 1.0
        assert name in coding.lower() or name in accept.lower()
    gzip, html = page_negotiation.accepts_gzip(coding), page_negotiation.prefers_html(accept)
    assert not gzip or b"gzip" in coding.lower() or b"*" in coding
    assert not html or b"text/html" in accept.lower()
    return gzip or html


def pages(data: bytes) -> bool:
    """Links, public addresses and codes of pages."""
    raw, proto, host, prefix = split(data, 4)
    try:
        request = _request(x_forwarded_proto=proto, x_forwarded_host=host, x_forwarded_prefix=prefix, host=b"t")
    except ValueError:
        return False
    request.query = raw
    ticket = page_form.ticket_of(request)
    assert ticket is None or re.fullmatch(r"[A-Za-z0-9._-]+", ticket)
    url = page_form.public_url(request, "/upload/x", https=False)
    assert url is not None
    assert re.fullmatch(r"https?://[^\s\"<>\\]+", url), url
    address = page_code.address_of(raw)
    assert address is None or re.fullmatch(rb"(?i)https?://[!-~]+", address)
    return ticket is not None or address is not None


def logged(data: bytes) -> bool:
    """Of an id in a path only its beginning is logged."""
    text = data.decode("latin-1")
    shown = logged_path("/tus/" + text)
    if is_id(text):
        assert len(text) < 26 or text not in shown
        assert logged_path(f"/files/tus/{text}/").count(text) == shown.count(text)
        return True
    return shown != "/tus/" + text


_ID = b"17000000_0123456789abcdefghijkl"
TARGETS = (
    Target("structured", structured, (b"?1", b"?0;a=1", b"5", b"999999999999999", b"-5", b"1.5", b'sha-256=:YQ==:, a="b", c=(1 2)', b"a;b=?0", b":YQ==:", b"@1", b'%"f%c3%bc"'),
           (b"?1", b":", b"=", b";", b",", b"(", b")", b'"', b"@", b"%", b"*", b"\\")),
    Target("dialects", dialects, (joined(b"8", b"?1", b"", b"5"), joined(b"3", b"", b"?0"), joined(b"", b"", b"", b"", b"sha-256=:" + base64.b64encode(bytes(32)) + b":", b"sha-256=5, sha-512=9")),
           (b"?1", b"?0", b"sha-256=", b"sha-512=", b":", b"\x1f", b"10")),
    Target("digests", digests, (b"sha-256=:" + base64.b64encode(bytes(32)) + b":", joined(b"", b"SHA-256=" + base64.b64encode(bytes(32))), b"sha-512=:" + base64.b64encode(bytes(64)) + b":;a=b, md5=:AA==:", b"a=:YQ:"),
           (b"sha-256=:", b"sha-512=:", b":", b", ", b"=", b"\x1f", b";")),
    Target("upload-checksum", checksums, (b"sha1 " + base64.b64encode(bytes(20)), b"md5 " + base64.b64encode(bytes(16)), joined(b"", b"X, Upload-Checksum", b"sha256 " + base64.b64encode(bytes(32))), b"crc32 AAAA"),
           (b"sha1 ", b"sha256 ", b"blake3 ", b"=", b" ", b"\x1f", b"Upload-Checksum")),
    Target("tus-metadata", metadata, (b"filename d29ybGQ=,is_confidential", b"a YQ==, b YQ==", b"a YQ==,a YQ==", b" filename  YQ==", b"a YQ", b"\xc3\xa9 YQ=="), (b",", b" ", b"=", b"filename", b"YQ==", b"\t")),
    Target("upload-concat", concat, (b"partial", b"final;/tus/" + _ID, b"final;http://t/tus/" + _ID + b" /files/tus/" + _ID + b"/", b"final; ", b"final;/tus/../" + _ID, b"final;//[x"), (b"final;", b"/tus/", b" ", b"//", b"[", b"]", b"%2f", b"?", b"#", _ID)),
    Target("content-range", content_ranges, (b"bytes 0-9/20", b"bytes */20", b"bytes 0-9/*", b"BYTES\t1-2/3", b"bytes 0-9/20 "), (b"bytes ", b"*", b"/", b"-", b"9" * 18)),
    Target("range", ranges, (b"bytes=0-9", b"bytes=-5", b"bytes=5-", b"bytes= 1-2 ", b"bytes=9999999999999999999-", b"bytes=1-2,3-4", b"bytes=-0"), (b"bytes=", b"-", b",", b" ", b"9" * 19)),
    Target("conditions", conditions, (joined(b'"tag"'), joined(b"*", b'W/"tag", "x"', b"Fri, 01 Jan 2100 00:00:00 GMT"), joined(b"", b"", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994", b'"tag"'),
                                      joined(b"", b"", b"Mon, 01 Jan 0001 00:00:00 +9999", b"Tue, 14 Nov 2023 22:13:20 GMT")), (b'"', b"W/", b" GMT", b"+9999", b"Jan", b"9999", b"0000", b",", b":", b"\x1f", b"-0000")),
    Target("disposition", disposition, (b"a.txt", "f\u00fcr.txt".encode(), b'a"b\\c', b"CON", b"nul.txt", "na\u202emg.exe".encode(), b"\xed\xa0\x80", b"%41", b"a\r\nb", b"com\xc2\xb9"), (b'"', b"\\", b"%", b"\r\n", "\u2028".encode(), b";", b"*=")),
    Target("file-names", names, (b"a.txt", b"a%2fb", b"%ff", b"..", b" . ", b"\xff\xfe", "e\u0301".encode() * 150, b"x" * 300 + b".tar.gz", "\u200b.\u200b".encode()), (b"%", b"%2f", b".", b" ", "\u0301".encode(), "\u1e9b\u0323".encode(), b"/", "\ufdfa".encode())),
    Target("media-type", media_types, (b"text/html; charset=utf-8", b'a/b;c="d\\"e"', b"image/svg+xml", b"text/plain;", b"a/b ;c=d; e=f", b"a/b;" * 30, b"image/png\t; x=y"), (b"/", b";", b"=", b'"', b"\\", b" ", b"\t")),
    Target("negotiation", negotiation, (joined(b"gzip;q=0.5, *;q=0", b"text/html, application/json;q=0.9"), b"x-gzip", b"*", b"gzip;q=1.0001", b'a;b="q=1";q=0', joined(b"", b"text/*;q=1;level=1")), (b";q=", b",", b"*", b"gzip", b"text/html", b"0.", b"\x1f")),
    Target("pages", pages, (b"ticket=a.b.c", joined(b"url=https%3a%2f%2ft%2fx", b"https, http", b"a:80", b"/files/"), joined(b"url=http://t/?a=b", b"javascript", b"<x>", b"//x"), b"ticket=%3c"), (b"ticket=", b"url=", b"%", b"http://", b"\x1f", b"&", b"<", b"/")),
    Target("logged-path", logged, (_ID, b"x", _ID + b"/", b"1_a"), (b"_", b"/", b"0")),
)  # fmt: skip
