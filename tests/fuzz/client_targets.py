"""The client: links it is given, and answers of servers that may say anything."""

from __future__ import annotations

import json

from tests.fuzz.target import Target, joined, split

from hmac_file_server.client.connection import _Reader
from hmac_file_server.client.errors import BadAnswer, UploadFailed, json_of, refusal
from hmac_file_server.client.protocol import Answer
from hmac_file_server.client.status import own_path, ranges_of, result_of, session_of, time_of
from hmac_file_server.client.target import Target as Link
from hmac_file_server.client.target import TargetError
from hmac_file_server.client.tus import _expiry


def _read(method: str, pieces: list[bytes], *, end: bool) -> tuple[object, ...]:
    interim: list[int] = []
    reader = _Reader(method, lambda status, _: interim.append(status))
    try:
        for piece in pieces:
            reader.feed(piece)
        if end:
            reader.ended()
    except BadAnswer:
        # How much of it was heard before depends on how it came.
        return ("bad", reader.answer is not None)
    assert all(100 <= status < 200 for status in interim)
    answer = reader.answer
    return (interim, answer, reader.keeps)


def answers(data: bytes) -> bool:
    """The same bytes in other pieces are the same answer."""
    data = data[:3000]
    taken = False
    for method in ("GET", "HEAD", "PUT"):
        whole = _read(method, [data], end=True)
        single = _read(method, [data[p : p + 1] for p in range(len(data))], end=True)
        # With an answer already there, what follows is not looked at any more.
        if whole[0] == "bad" or single[0] == "bad":
            assert (whole[0], single[0]) == ("bad", "bad") or whole[1] or single[1], (whole, single)
            continue
        assert whole[:2] == single[:2], (whole, single)
        assert not (whole[2] and not single[2]) or data, (whole, single)
        answer = whole[1]
        if isinstance(answer, Answer):
            taken = True
            assert 200 <= answer.status < 600
            assert isinstance(refusal(answer), UploadFailed)
            assert isinstance(json_of(answer), dict)
            _expiry(answer)
    return taken


_SECRET = "it-is-secret-it-is-secret"


def _harmless(error: TargetError) -> bool:
    assert "ticket=" not in str(error)
    return True


def links(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")
    try:
        link = Link.parse(text)
    except TargetError as error:
        return not _harmless(error)
    assert link.host
    assert 0 < link.port < 65536
    assert link.kind in {"ticket", "slot", "none"}
    assert not set(link.authority + link.path("/upload")) & set(" \r\n\0")
    assert (link.authority + link.prefix + (link.slot or "")).isascii()
    if link.prefix.startswith("//"):
        return True  # a path that this server refuses; nothing of ours is told to it
    if link.kind == "ticket":
        ticket = link.permission("PUT", link.path("/upload/chunked"))["Authorization"].removeprefix("Bearer ")
        assert len(ticket) < 20 or ticket not in repr(link)
        again = Link.parse(link.base_url, ticket=ticket)
        assert (again.origin, again.prefix) == (link.origin, link.prefix)
        assert link.permission("PUT", "http://elsewhere.example/x") == {} or link.host == "elsewhere.example"
    if link.kind == "none":
        again = Link.parse(link.base_url)
        assert (again.origin, again.prefix) == (link.origin, link.prefix)
        signed = Link.parse(text, secret=_SECRET)
        assert _SECRET not in repr(signed)
        assert len(signed.permission("PUT", signed.path("/upload"))["X-Signature"]) == 64
    return True


_LINK = Link.parse("https://files.example/base")


def documents(data: bytes) -> bool:
    """Receipts, accounts of ranges, dates and locations."""
    told, location = split(data, 2)
    taken = False
    try:
        document = json.loads(told)
    except (ValueError, RecursionError):
        document = told.decode("latin-1")
    if isinstance(document, dict):
        result = result_of(document, _LINK, "/base/upload/chunked", "f", 5)
        assert result.url.startswith(("http://", "https://"))
        assert result.digest is None or len(result.digest.partition(":")[2]) == 64
        taken = True
    for value in document.values() if isinstance(document, dict) else (document,):
        assert time_of(value) is None or isinstance(time_of(value), float)
        try:
            ranges = ranges_of(value, 100)
        except BadAnswer:
            continue
        flat = [edge for span in ranges for edge in span]
        assert flat == sorted(flat)
        assert not flat or 0 <= flat[0] < flat[-1] <= 100
        taken = True
    where = location.decode("utf-8", "surrogateescape")
    session_of(where)
    try:
        path = own_path(_LINK, "/base/tus", where)
    except BadAnswer:
        return taken
    assert path.startswith("/")
    assert not set(path) & set(" \r\n\0")
    return True


TARGETS = (
    Target("client-answers", answers, (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.0 200\r\n\r\nabc", b"HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 5\r\n\r\nHTTP/1.1 204 No Content\r\nUpload-Expires: Mon, 01 Jan 0001 00:00:00 +2359\r\n\r\n",
        b'HTTP/1.1 409 x\r\nContent-Type: application/problem+json\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{"code":"x\\n"}', b"HTTP/1.1 101 x\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0\r\n", b"HTTP/1.1 302 x\r\nLocation: //y\r\n\r\n"),
           (b"HTTP/1.1 ", b"200", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Connection: close\r\n", b"101", b"204", b"Content-Type: application/json\r\n")),
    Target("client-links", links, (
        b"https://files.example/#ticket=eyJh.eyJiIjoxfQ.c2ln", b"http://[::1]:8080/base/?ticket=a.b.c", b"https://h/upload/x%20y?v=00", "https://f\u00fcr.example/\u00e9".encode(), b"http://h:0/", b"http://a:b@h/",
        b"http://h/#ticket=a.b.c&ticket=a.b.d", b"https://h/?a", b"//h", b"http://h/%ff", b"http://xn--/"),
           (b"#ticket=", b"?ticket=", b"&", b"http://", b"https://", b"[", b"]", b"%", b":", b"@", b"\\", b"\t", "\u3002".encode(), "\u2488".encode())),
    Target("client-documents", documents, (
        joined(b'{"url":"/upload/x","filename":"a","blake3":"' + b"0" * 64 + b'","received":[[0,5],[7,9]],"expires_at":"2026-01-01T00:00:00Z"}', b"/base/tus/17_a"),
        joined(b"[[0,1],[1,2]]", b"//files.example:99999/x"), joined(b'["0001-01-01T00:00:00+23:59"]', b"https://files.example/t?x"), joined(b'{"url":"//evil/x","x":"9999-12-31T23:59:59-23:59"}', b"http://[x"), joined(b"{}", b"..\\x")),
           (b'"url":', b"[[0,", b"]]", b"null", b"true", b"1e9", b"/", b"//", b"https://", b"\x1f", b"0001-01-01T00:00", b"+23:59", b"[", b"\\u0000")),
)  # fmt: skip
