"""Responses: status, fields, and a body that is bytes or a span of an open file."""

import http
import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, Final, Protocol

REASONS: Final[dict[int, bytes]] = {s.value: s.phrase.encode("ascii") for s in http.HTTPStatus}
REASONS[104] = b"Upload Resumption Supported"
REASONS[413] = b"Content Too Large"
REASONS[416] = b"Range Not Satisfiable"
REASONS[422] = b"Unprocessable Content"
REASONS[460] = b"Checksum Mismatch"
_BODILESS: Final = frozenset({204, 304})


class FileSource(Protocol):
    """An open file to send from; closed by the connection when the answer has ended."""

    def fileno(self) -> int | None:
        """A descriptor sendfile can read, or None when there is none."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; empty past the end."""
        ...

    def close(self) -> None:
        """Give the file back. Called once."""
        ...


class Response:
    """One final answer.

    `head` holds whole field lines, each ending in CRLF, without Date, Content-Length and Connection.
    With `source`, the body is `length` bytes of it from `offset`; otherwise it is `body`.
    `declared` overrides Content-Length for HEAD and 304.
    """

    __slots__ = ("body", "close", "declared", "head", "length", "offset", "source", "status")

    def __init__(
        self,
        status: int,
        head: bytes = b"",
        body: bytes = b"",
        *,
        source: FileSource | None = None,
        offset: int = 0,
        length: int = 0,
        declared: int | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.head = head
        self.body = body
        self.source = source
        self.offset = offset
        self.length = length
        self.declared = declared
        self.close = close

    def render_head(self, common: bytes, *, keep_alive: bool, http10: bool) -> bytes:
        """The head as it goes on the wire. `common` holds the field lines that every answer has."""
        status = self.status
        parts = [_status_line(status), common, self.head]
        if status not in _BODILESS:
            size = self.declared if self.declared is not None else (self.length if self.source else len(self.body))
            parts.append(b"Content-Length: %d\r\n" % size)
        if not keep_alive:
            parts.append(b"Connection: close\r\n\r\n")
        elif http10:
            parts.append(b"Connection: keep-alive\r\n\r\n")
        else:
            parts.append(b"\r\n")
        return b"".join(parts)

    def whole(self, common: bytes) -> bytes:
        """Head and body for an HTTP/1.1 client whose connection is kept: the case that must be quick."""
        status = self.status
        line = _STATUS_LINES.get(status) or _status_line(status)
        if status in _BODILESS or self.declared is not None:
            return self.render_head(common, keep_alive=True, http10=False) + self.body
        body = self.body
        return b"".join((line, common, self.head, b"Content-Length: %d\r\n\r\n" % len(body), body))


def _status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


_STATUS_LINES: Final = {s: b"HTTP/1.1 %d %s\r\n" % (s, reason) for s, reason in REASONS.items()}


class CommonFields:
    """The field lines of every answer: Date (made once a second), and what the application adds."""

    __slots__ = ("_extra", "_lines", "_second")

    def __init__(self, extra: bytes) -> None:
        """`extra`: whole field lines, each ending in CRLF."""
        self._extra = extra
        self._second = 0
        self._lines = b""

    def now(self) -> bytes:
        """The lines for the current second (Date: RFC 9110 section 6.6.1)."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._lines = b"Date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n" + self._extra
        return self._lines


def json_response(status: int, document: Mapping[str, Any], head: bytes = b"") -> Response:
    """A response with a JSON body."""
    body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    return Response(status, b"Content-Type: application/json\r\n" + head, body)


def problem_response(  # the fields of RFC 9457 section 3.1, and two of ours
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    head: bytes = b"",
    **members: object,
) -> Response:
    """An error answer: `application/problem+json` (RFC 9457) with `code`, `request_id` and further `members`."""
    document: dict[str, object] = {
        "type": f"urn:hmac-file-server:error:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **members,
    }
    body = json.dumps(document, ensure_ascii=False).encode("utf-8") + b"\n"
    fields = b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n" + head
    return Response(status, fields, body)
