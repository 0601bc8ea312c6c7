"""Request targets, heads and the chunked coding, against readers that forgive nothing."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from tests.fuzz.target import Target, refused

from hmac_file_server.files import paths
from hmac_file_server.files.contract import PathRefused
from hmac_file_server.http.chunked import ChunkedDecoder, pieces
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.request import HeadParser, Request
from hmac_file_server.http.target import split_target

_TARGET = re.compile(rb"[!-~]+")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/1\.([01])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_GOOD = b"PUT /upload/a%20b?v=1 HTTP/1.1\r\nHost: t\r\nX: y\r\nContent-Length: 3\r\n\r\n"

SPELLINGS = (
    b"/upload/a/b.txt", b"/upload/%41%20b", b"/upload/%c3%a9?v=0%2f", b"*", b"http://t:80/upload/x?y", b"/", b"/a/./b",
    b"/a/%2e%2e/b", b"/a//b", b"/%2f", b"/%5c", b"/%00", b"/a\\b", b"/a#b", b"/%C2%85", b"/%ed%a0%80", b"/%", b"/.hmac-file-server/x",
    b"https://[::1]:8080/a", b"http://a@b/", b"/a/b/", b"/...", b"/.a", b"/a.", b"//", b"/%zz",
)  # fmt: skip


def request_target(data: bytes) -> bool:
    if _TARGET.fullmatch(data) is None:
        return False  # the request line holds no other
    try:
        path, query = split_target(data, "OPTIONS" if data == b"*" else "GET")
    except HttpError as error:
        return refused(error, "bad_target")
    if path == "*":
        assert data == b"*"
        return True
    assert path.startswith("/"), path
    assert _CONTROLS.search(path) is None, path
    assert "\\" not in path, path
    assert not {"", ".", ".."} & set(path.split("/")[1:-1]), path
    assert path.rpartition("/")[2] not in {".", ".."}, path
    # Decoded once: what was sent means the path, and one more decoding is the business of nobody.
    raw = data.partition(b"?")[0]
    if not raw.startswith(b"/"):
        raw = b"/" + raw.partition(b"://")[2].partition(b"/")[2]
    assert unquote_to_bytes(raw) == path.encode(), path
    assert query == data.partition(b"?")[2]
    # The canonical spelling means the same.
    assert split_target(quote(path).encode(), "GET") == (path, b"")
    for text in (path[1:], path.removeprefix("/upload/")):
        try:
            stored = paths.parse(text)
        except PathRefused:
            continue
        assert stored == text
        assert stored.partition("/")[0] != paths.PRIVATE, stored
    return True


def storage_path(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")
    try:
        path = paths.parse(text)
    except PathRefused:
        return False
    encoded = path.encode("utf-8")
    assert path == text
    assert 0 < len(encoded) <= paths.MAX_PATH
    for segment in path.split("/"):
        assert segment not in {"", ".", ".."}, path
        assert len(segment.encode()) <= paths.MAX_SEGMENT
    assert not set(path) & set("\\\0\r\n"), path
    first = path.partition("/")[0]
    assert first.casefold().rstrip(" .") != paths.PRIVATE, path
    return True


def _head(data: bytes) -> bytes:
    return (data + b"\r\n\r\n").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _parse(parser: HeadParser, head: bytes) -> Request:
    return parser.parse(head, 100, 8192)


def _picture(request: Request) -> tuple[object, ...]:
    return (request.method, request.path, request.query, request.fields, request.http10, request.content_length,
            request.chunked, request.keep_alive, request.expects_continue)  # fmt: skip


def request_head(data: bytes) -> bool:
    head = _head(data)
    parser = HeadParser({})
    try:
        request = _parse(parser, head)
    except HttpError as error:
        return not _known(error)
    _strictly(head, request)
    assert _picture(_parse(HeadParser({}), head)) == _picture(request)
    if not request.keep_alive:
        return True  # nothing follows on this connection
    # The next head of the connection is understood: parsers are kept.
    if not request.has_body:
        assert _picture(_parse(parser, head)) == _picture(request)
    after = _parse(parser, _GOOD)
    assert (after.method, after.path, after.query, after.content_length) == ("PUT", "/upload/a b", b"v=1", 3)
    assert after.fields == {b"host": b"t", b"x": b"y", b"content-length": b"3"}
    return True


def _known(error: HttpError) -> bool:
    assert error.status in {400, 414, 417, 431, 501, 505}, error.status
    return True


def _strictly(head: bytes, request: Request) -> None:
    """Read it once more, with nothing forgiven."""
    line = _LINE.match(head)
    assert line is not None, head
    assert line[1].decode() == request.method
    assert (line[3] == b"0") is request.http10
    target = re.sub(rb"[\x80-\xff]", lambda m: b"%%%02X" % m[0][0], line[2])
    assert split_target(target, request.method) == (request.path, request.query)
    fields: dict[bytes, bytes] = {}
    rest = head[line.end() : -4]
    for each in rest.split(b"\r\n") if rest else ():
        pair = _FIELD.fullmatch(each)
        assert pair is not None, each
        name, value = pair[1].lower(), pair[2].rstrip(b" \t")
        fields[name] = (
            f"{fields[name].decode('latin-1')}, {value.decode('latin-1')}".encode("latin-1")
            if name in fields
            else value
        )
    assert fields == request.fields
    lengths = re.findall(rb"\ncontent-length[ \t]*:", head, re.IGNORECASE)
    codings = re.findall(rb"\ntransfer-encoding[ \t]*:", head, re.IGNORECASE)
    assert len(lengths) + len(codings) <= 1
    assert request.chunked is bool(codings)
    if codings:
        assert not request.http10
        assert fields[b"transfer-encoding"].lower() == b"chunked"
    if lengths:
        assert re.fullmatch(rb"[0-9]{1,19}", fields[b"content-length"])
        assert request.content_length == int(fields[b"content-length"])
    assert request.http10 or b"host" in fields


def _decoded(cuts: list[bytes]) -> tuple[bytes, dict[bytes, bytes] | None, bytes]:
    """(data, trailers when it ended, what was left); HttpError as "bad"."""
    decoder = ChunkedDecoder()
    body = b""
    for number, cut in enumerate(cuts):
        view = memoryview(cut)
        spans, used = decoder.feed(view)
        body += b"".join(bytes(piece) for piece in pieces(view, spans))
        assert len(body) == decoder.received
        if decoder.done:
            return body, decoder.trailers, cut[used:] + b"".join(cuts[number + 1 :])
        assert used == len(cut)
    return body, None, b""


def chunked_coding(data: bytes) -> bool:
    data = data[:4000]
    half = len(data) // 2
    ways = ([data], [data[p : p + 1] for p in range(len(data))], [data[:half], data[half:]])
    results: list[object] = []
    for way in ways:
        try:
            results.append(_decoded(way))
        except HttpError as error:
            results.append("bad" if not refused(error, "bad_chunk") else "")
    assert results[0] == results[1] == results[2], results
    if not isinstance(results[0], tuple) or results[0][1] is None:
        return False
    body, trailers, rest = results[0]
    # Read once more by a pattern, chunk by chunk.
    position, again = 0, b""
    while True:
        line = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\x00-\x08\x0a-\x1f\x7f]*)?\r\n").match(data, position)
        assert line is not None
        position = line.end()
        size = int(line[1], 16)
        if not size:
            break
        again += data[position : position + size]
        position += size + 2
        assert data[position - 2 : position] == b"\r\n"
    assert again == body
    end = len(data) - len(rest)
    assert data[position:end].endswith(b"\r\n")
    section = data[position : end - 2]
    for each in section.split(b"\r\n")[:-1]:
        assert _FIELD.fullmatch(each) is not None, each
    assert len(trailers) <= section.count(b"\r\n")
    return True


TARGETS = (
    Target("request-target", request_target, SPELLINGS, (b"/", b"%2e", b"%2F", b"..", b"?", b"%c3%a9", b"http://", b"[::1]", b"@")),
    Target(
        "storage-path",
        storage_path,
        (b"a/b.txt", b".hmac-file-server/x", b"..", "e\u0301/\u00e9".encode(), b"a" * 255, b" .hmac-FILE-server. /x", b"\xed\xa0\x80"),
        (b"/", b"..", b".hmac-file-server", "\u200b".encode(), "\uff0e".encode(), "\u017f".encode(), b"\\", b"\0"),
    ),
    Target(
        "request-head",
        request_head,
        (
            _GOOD,
            b"GET / HTTP/1.0\r\n\r\n",
            b"POST /upload HTTP/1.1\r\nHost: t:80\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, close\r\nProxy-Connection: close\r\n\r\n",
            b"PUT /\xc3\xa9 HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nhost: a\r\nX:\r\nX: \tb \t\r\n\r\n",
        ),
        (b"\r\n", b"\n", b"\r", b": ", b" :", b"\0", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: t", b"HTTP/1.1",
         b"Connection: close", b"\t", b"\x0b", b"\x85", b"gzip, ", b", "),
    ),
    Target(
        "chunked-coding",
        chunked_coding,
        (
            b"3\r\nabc\r\n0\r\n\r\n",
            b"a;x=y\r\n0123456789\r\n0\r\nX: y\r\nUpload-Checksum: sha1 x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"1\r\na\r\n1 ;\r\nb\r\n000\r\n\r\n",
            b"3\nabc\n0\n\n",
            b"ffffffffffffffff\r\n",
        ),
        (b"\r\n", b"0\r\n\r\n", b";", b"1\r\n", b"\n", b"\r", b": ", b"f"),
    ),
)  # fmt: skip
