"""Request heads: llhttp's parse, and on top every check it leaves out (RFC 9112, RFC 9110)."""

import re
from typing import Final

import httptools

from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.target import AUTHORITY, split_target

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])\r\n")
# The same, and the target in one pass: a path without escapes, dot segments or empty segments, and a query.
_PLAIN_LINE: Final = re.compile(
    rb"(GET|PUT|HEAD|POST|PATCH|DELETE) (/(?:[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*/)*"
    rb"(?:[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)?)(?:\?([!\"$-~]*))? HTTP/1\.([01])\r\n"
)
_LINE_END: Final = len(b" HTTP/1.1\r\n")
_METHODS: Final = {m.encode(): m for m in ("GET", "PUT", "HEAD", "POST", "PATCH", "DELETE")}
# "x:" and its line end: fewer bytes than this times the limit cannot hold too many fields.
_SHORTEST_FIELD: Final = 4
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ ")
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_DIGITS: Final = re.compile(rb"[0-9]{1,19}")

# Fields that mean one thing or nothing: a second one is refused, never joined or overridden.
_SINGLE: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-range",
        b"authorization",
        b"expect",
        b"range",
        b"if-range",
        b"if-modified-since",
        b"if-unmodified-since",
        b"user-agent",
        b"referer",
        b"max-forwards",
        b"x-signature",
        b"x-signature-expires",
        b"x-filename",
        b"x-total-size",
        b"x-upload-session-id",
        b"x-chunk-number",
        b"x-chunk-offset",
        b"x-http-method-override",
        b"tus-resumable",
        b"upload-offset",
        b"upload-length",
        b"upload-defer-length",
        b"upload-complete",
        b"upload-incomplete",
        b"upload-draft-interop-version",
        b"upload-checksum",
        b"upload-metadata",
        b"upload-concat",
    },
)
_KNOWN_HOSTS_MAX: Final = 256


class Request:
    """One parsed head.

    `path` is percent-decoded once and absolute; `query` is raw; field names are lower-case bytes;
    `content_length` is None when the head has none.
    """

    __slots__ = (
        "chunked",
        "content_length",
        "expects_continue",
        "fields",
        "http10",
        "keep_alive",
        "method",
        "path",
        "query",
    )

    def __init__(self, method: str, path: str, query: bytes, fields: dict[bytes, bytes], *, http10: bool) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.fields = fields
        self.http10 = http10
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = not http10
        self.expects_continue = False

    def header(self, name: bytes) -> bytes | None:
        """The value of a field by its lower-case name, outer whitespace removed; None when absent."""
        return self.fields.get(name)

    @property
    def has_body(self) -> bool:
        """True when body bytes follow the head."""
        return self.chunked or bool(self.content_length)


_NO_FIELDS: Final[dict[bytes, bytes]] = {}


class HeadParser:
    """Parses the heads of one connection. Not thread-safe."""

    __slots__ = ("_fields", "_hosts", "_parser", "_repeated")

    def __init__(self, known_hosts: dict[bytes, None]) -> None:
        """`known_hosts` is shared by all connections: host values already found well-formed."""
        self._hosts = known_hosts
        self._fields = _NO_FIELDS
        self._repeated: bytes | None = None
        self._parser: httptools.HttpRequestParser | None = None

    def close(self) -> None:
        """Let go of what refers back to this: nobody is to wait for the collector of garbage."""
        self._parser = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Httptools callback."""
        key = name.lower()
        # llhttp leaves white space at the end (RFC 9112 section 5).
        value = value.rstrip(b" \t")
        fields = self._fields
        if key in fields:
            if key in _SINGLE:
                self._repeated = key
            else:
                fields[key] = fields[key] + b", " + value
        else:
            fields[key] = value

    def parse(self, head: bytes, max_fields: int, max_target: int) -> Request:
        """Parse one whole head, up to and with its empty line. Raises HttpError."""
        plain = _PLAIN_LINE.match(head)
        if len(head) > max_fields * _SHORTEST_FIELD and head.count(b"\r\n") > max_fields + 2:
            raise HttpError(431, "too_many_fields", "The request has too many header fields.")
        target = b""
        if plain is None:
            line = _REQUEST_LINE.match(head)
            if line is None:
                raise self._bad_request_line(head)
            method_bytes, target, major, minor = line.groups()
            if major != b"1" or minor not in b"01":
                raise HttpError(505, "version_not_supported", "This server speaks HTTP/1.1.")
            if len(target) > max_target:
                raise HttpError(414, "target_too_long", "The request target is too long.")
            if not target.isascii():
                # Raw UTF-8 in paths is what recent ejabberd hands out; llhttp wants it escaped.
                target = _HIGH.sub(lambda m: b"%%%02X" % m.group()[0], target)
                head = method_bytes + b" " + target + head[line.end(2) :]
        elif plain.end() - plain.start(2) > max_target + _LINE_END:
            raise HttpError(414, "target_too_long", "The request target is too long.")
        fields: dict[bytes, bytes] = {}
        self._fields = fields
        self._repeated = None
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # An upgrade offer is free to be ignored (RFC 9110 section 7.8); CONNECT is refused below.
            self._parser = None
        except httptools.HttpParserInvalidMethodError:
            self._parser = None
            raise HttpError(501, "method_not_implemented", "This method is not implemented.") from None
        except httptools.HttpParserError:
            self._parser = None
            raise HttpError(400, "bad_request", "The request head is malformed.") from None
        # They belong to the request; a connection that waits for the next one shall not keep them.
        self._fields = _NO_FIELDS
        if self._repeated is not None:
            self._parser = None
            raise HttpError(400, "repeated_field", "A header field that may stand once stands twice.")
        if plain is None:
            method = method_bytes.decode("ascii")
            path, query = split_target(target, method)
        else:
            method_bytes, raw_path, raw_query, minor = plain.groups()
            method = _METHODS[method_bytes]
            path = raw_path.decode("ascii")
            query = raw_query or b""
        request = Request(method, path, query, fields, http10=minor == b"0")
        self._frame(request)
        return request

    def _frame(self, request: Request) -> None:
        """Decide where the body ends and whether the connection lives on (RFC 9112 sections 6 and 9)."""
        fields = request.fields
        host = fields.get(b"host")
        if host is None:
            if not request.http10:
                raise HttpError(400, "bad_host", "The Host field is missing.")
        elif host not in self._hosts:
            if AUTHORITY.fullmatch(host) is None:
                raise HttpError(400, "bad_host", "The Host field is malformed.")
            if len(self._hosts) < _KNOWN_HOSTS_MAX:
                self._hosts[host] = None
        length = fields.get(b"content-length")
        if length is not None:
            if _DIGITS.fullmatch(length) is None:
                raise HttpError(400, "bad_content_length", "Content-Length must be decimal digits.")
            request.content_length = int(length)
            if request.content_length:
                self._parser = None
        coding = fields.get(b"transfer-encoding")
        if coding is not None:
            self._parser = None
            if request.http10 or length is not None:
                raise HttpError(400, "bad_framing", "Transfer-Encoding is not allowed here.")
            if coding.lower() != b"chunked":
                raise HttpError(501, "coding_not_implemented", "The only transfer coding is chunked.")
            request.chunked = True
        connection = fields.get(b"connection")
        if connection is not None:
            options = {option.strip() for option in connection.lower().split(b",")}
            if b"close" in options:
                request.keep_alive = False
            elif request.http10 and b"keep-alive" in options:
                request.keep_alive = True
        if b"proxy-connection" in fields:
            # To llhttp it means what Connection means, to HTTP nothing.
            self._parser = None
        expect = fields.get(b"expect")
        if expect is not None and not request.http10:
            if expect.lower() != b"100-continue":
                raise HttpError(417, "expectation_failed", "The only expectation met is 100-continue.")
            request.expects_continue = True

    @staticmethod
    def _bad_request_line(head: bytes) -> HttpError:
        end = head.find(b"\n")
        line = head if end < 0 else head[: end + 1]
        match = re.fullmatch(rb"[^ ]+ [^ ]+ HTTP/([0-9]+)\.([0-9]+)\r\n", line)
        if match is not None and _METHOD.match(line) is not None:
            version = match.groups()
            if version not in {(b"1", b"0"), (b"1", b"1")} and len(version[0]) == len(version[1]) == 1:
                return HttpError(505, "version_not_supported", "This server speaks HTTP/1.1.")
        return HttpError(400, "bad_request_line", "The request line is malformed.")
