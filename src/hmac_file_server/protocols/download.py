"""GET and HEAD of stored files (RFC 9110 sections 8.8, 13, 14)."""

import re
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from hmac_file_server.files.contract import Entry, PathRefused, Reader, StorageError, StoragePath
from hmac_file_server.http import Exchange, Response
from hmac_file_server.protocols.answers import failure, path_refused, problem, refuse
from hmac_file_server.protocols.media import is_inline

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

_INLINE_BYTES: Final = 64 * 1024
_RANGE: Final = re.compile(rb"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)
_ETAGS: Final = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
# What an HTML or SVG file could do if a browser did open it here is: nothing.
_POLICY: Final = (
    b"Content-Security-Policy: default-src 'none'; img-src 'self'; media-src 'self'; "
    b"frame-ancestors 'none'; sandbox\r\n"
    b"Cross-Origin-Resource-Policy: cross-origin\r\n"
    b"Referrer-Policy: no-referrer\r\n"
    b"Accept-Ranges: bytes\r\n"
    b"Cache-Control: max-age=31556952, immutable\r\n"
)
_UNSAFE_IN_QUOTES: Final = re.compile(r"[^ !#-\[\]-~]")
# Controls, line separators, and the marks that make "exe.gpj" look like "jpg.exe".
_UNFIT_IN_NAMES: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Windows opens a device where a file of such a name is to be saved, whatever folder and extension it has.
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]|conin\$|conout\$|clock\$) *(?:[.:]|\Z)",
    re.IGNORECASE,
)

# Heads already made, by path; one is good as long as the store hands out the same entry.
_HEADS_MAX: Final = 8192


class Heads:
    """The header fields of files, remembered for as long as their entries stay the same objects."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[tuple[str, bool], tuple[Entry, bytes]] = {}

    def of(self, entry: Entry, *, attachment: bool) -> bytes:
        """Type, validators, disposition and policy of one file."""
        key = (entry.path, attachment)
        known = self._heads.get(key)
        if known is not None and known[0] is entry:
            return known[1]
        head = make_head(entry, attachment=attachment)
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        self._heads[key] = (entry, head)
        return head


def make_head(entry: Entry, *, attachment: bool) -> bytes:
    """The field lines of one file. See `Heads.of`."""
    kind = "inline" if not attachment and is_inline(entry.media_type) else "attachment"
    return b"".join(
        (
            b"Content-Type: ",
            entry.media_type.encode("latin-1", "replace"),
            b"\r\nETag: ",
            entry.etag.encode("ascii"),
            b"\r\nLast-Modified: ",
            formatdate(entry.modified, usegmt=True).encode("ascii"),
            b"\r\nContent-Disposition: ",
            disposition(kind, entry.filename),
            b"\r\n",
            _POLICY,
        )
    )


def disposition(kind: str, filename: str) -> bytes:
    """Content-Disposition with an ASCII fallback and the true name (RFC 6266, RFC 8187)."""
    filename = _UNFIT_IN_NAMES.sub("_", filename)
    if _DEVICE.match(filename) is not None:
        filename = "_" + filename
    fallback = _UNSAFE_IN_QUOTES.sub("_", filename)
    value = f'{kind}; filename="{fallback}"'
    if fallback != filename:
        value += "; filename*=UTF-8''" + quote(filename, safe="!#$&+^`|~")
    return value.encode("ascii")


def get(app: "Application", exchange: Exchange) -> None:
    """Serve the file of the request's path."""
    request = exchange.request
    path = request.path
    attachment = False
    try:
        found = _find(app, path)
        if found is None and path.startswith("/download/"):
            attachment = True
            found = _find(app, path[len("/download") :])
    except PathRefused as error:
        exchange.respond(path_refused(exchange, error))
        return
    except StorageError as error:
        exchange.respond(failure(exchange, error))
        return
    if found is None:
        refuse(exchange, "not_found", "There is no such file.")
        return
    _serve(app, exchange, found, attachment=attachment)


def get_stored(app: "Application", exchange: Exchange, path: StoragePath) -> None:
    """Serve the file of a storage path, whatever the request's path is."""
    try:
        found = app.store.load(path, _INLINE_BYTES)
    except StorageError as error:
        exchange.respond(failure(exchange, error))
        return
    if found is None:
        refuse(exchange, "not_found", "There is no such file.")
    else:
        _serve(app, exchange, found, attachment=False)


def _serve(app: "Application", exchange: Exchange, found: "tuple[Entry, bytes] | Reader", *, attachment: bool) -> None:
    request = exchange.request
    if type(found) is tuple:
        entry, content = found
        if _CONDITIONS.isdisjoint(request.fields) and request.method == "GET":
            exchange.respond(Response(200, app.heads.of(entry, attachment=attachment), content))
            return
        reader: Reader = ShortReader(entry, content)
    else:
        reader = cast("Reader", found)
    try:
        response = _answer(app, exchange, reader, attachment=attachment)
    except StorageError as error:
        response = failure(exchange, error)
    except BaseException:
        reader.close()
        raise
    if response.source is None:
        reader.close()
    exchange.respond(response)


class ShortReader:
    """A file that was read whole already, as a `Reader`."""

    __slots__ = ("_content", "entry")

    def __init__(self, entry: Entry, content: bytes) -> None:
        self.entry = entry
        self._content = content

    def fileno(self) -> int | None:
        """None: there is no descriptor any more."""
        return None

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`."""
        return self._content[offset : offset + length]

    def close(self) -> None:
        """Nothing is open."""


def _find(app: "Application", path: str) -> "tuple[Entry, bytes] | Reader | None":
    """The file under the path below its base path, or under the whole path as the Go server stores it."""
    for form in app.forms(path):
        found = app.store.load(form, _INLINE_BYTES)
        if found is not None:
            return found
    return None


def _answer(app: "Application", exchange: Exchange, reader: Reader, *, attachment: bool) -> Response:
    request = exchange.request
    fields = request.fields
    entry = reader.entry
    head = app.heads.of(entry, attachment=attachment)
    size = entry.size
    offset, length, status = 0, size, 200
    if not _CONDITIONS.isdisjoint(fields):
        verdict = _conditions(exchange, entry)
        if verdict == 304:
            return Response(304, head)
        if verdict == 412:
            return problem(exchange, "precondition_failed", "The file is not the one that was meant.")
        span = _range(fields.get(b"range"), size) if _range_applies(exchange, entry) else None
        if span is not None:
            first, last = span
            if first >= size:
                unsatisfied = b"Content-Range: bytes */%d\r\n" % size
                return problem(exchange, "range_not_satisfiable", "The file is shorter.", unsatisfied)
            offset, length, status = first, last - first + 1, 206
            head += b"Content-Range: bytes %d-%d/%d\r\n" % (first, last, size)
    if request.method == "HEAD":
        return Response(status, head, declared=length)
    if length <= _INLINE_BYTES:
        body = reader.read(offset, length) if length else b""
        if len(body) != length:
            raise StorageError("the file is shorter than its metadata")
        return Response(status, head, body)
    return Response(status, head, source=reader, offset=offset, length=length)


_CONDITIONS: Final = frozenset(
    {b"range", b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"}
)


def _conditions(exchange: Exchange, entry: Entry) -> int:
    """200, 304 or 412, in the order of RFC 9110 section 13.2.2."""
    fields = exchange.request.fields
    etag = entry.etag.encode("ascii")
    if_match = fields.get(b"if-match")
    if if_match is not None:
        if if_match != b"*" and etag not in _ETAGS.findall(if_match):
            return 412
    else:
        since = _date(fields.get(b"if-unmodified-since"))
        if since is not None and entry.modified > since:
            return 412
    none_match = fields.get(b"if-none-match")
    if none_match is not None:
        tags = [tag.removeprefix(b"W/") for tag in _ETAGS.findall(none_match)]
        return 304 if none_match == b"*" or etag in tags else 200
    since = _date(fields.get(b"if-modified-since"))
    return 304 if since is not None and entry.modified <= since else 200


def _range_applies(exchange: Exchange, entry: Entry) -> bool:
    """Whether If-Range allows the range: strong comparison of tags, exact comparison of dates."""
    if exchange.request.method != "GET":
        return False
    value = exchange.request.header(b"if-range")
    if value is None:
        return True
    if value.startswith(b'"'):
        return value == entry.etag.encode("ascii")
    return _date(value) == entry.modified


def _date(value: bytes | None) -> int | None:
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
        # asctime's form names no zone; HTTP dates are in UTC whatever they name (RFC 9110 section 5.6.7).
        return int((date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _range(value: bytes | None, size: int) -> tuple[int, int] | None:
    """(first, last) of a single byte range; None when there is none that is understood.

    Several ranges get the whole file: joining them is where others spent quadratic time. `first` may lie
    past the end: then nothing satisfies it.
    """
    if value is None:
        return None
    match = _RANGE.fullmatch(value)
    if match is None:
        return None
    start, stop = match.groups()
    if not start:
        if not stop:
            return None
        count = int(stop)
        if count and not size:
            # Satisfiable (RFC 9110 section 14.1.2), yet no Content-Range could say so.
            return None
        return (size, size) if not count else (max(0, size - count), size - 1)
    first = int(start)
    last = int(stop) if stop else size - 1
    if stop and last < first:
        return None
    return first, min(last, size - 1)
