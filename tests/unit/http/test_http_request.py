"""Heads: what becomes of a request, and that the quick way through the parser is the strict one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.request import HeadParser, Request

_TOKENS = st.sampled_from(
    [b"GET", b"PUT", b"/", b"/a", b"//", b".", b"..", b"%2e", b"%", b"?", b"#", b" ", b"  ", b"\t", b"\r", b"\n", b"\r\n", b"HTTP/1.1",
     b"HTTP/1.0", b"Host: t", b"Host:", b"X: y", b"X : y", b" y", b"Content-Length: 5", b"Content-Length: 0", b"Connection: close",
     b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"\0", b"\xff", b":", b"x"]
)  # fmt: skip


def parse(head: bytes, parser: HeadParser | None = None) -> Request:
    return (parser or HeadParser({})).parse(head, 100, 8192)


def head(*lines: str | bytes) -> bytes:
    return b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines) + b"\r\n"


def parsed_or_refused(data: bytes) -> Request | HttpError:
    try:
        return parse(data)
    except HttpError as error:
        return error


def refusal(data: bytes) -> tuple[int, str]:
    with pytest.raises(HttpError) as refused:
        parse(data)
    return refused.value.status, refused.value.code


def test_everything_of_a_request() -> None:
    request = parse(
        head(
            "PUT /upload/a%20b?v=1&w HTTP/1.1",
            "Host: t",
            "Content-Length: 007",
            "X-Y:\t a  b \t",
            "eXPECT: 100-Continue",
        )
    )
    assert (request.method, request.path, request.query) == ("PUT", "/upload/a b", b"v=1&w")
    assert request.content_length == 7
    assert request.has_body
    assert not request.chunked
    assert request.keep_alive
    assert request.expects_continue
    assert request.header(b"x-y") == b"a  b"
    assert request.header(b"absent") is None
    assert not request.http10


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        ("GET / HTTP/1.1", "/", b""),
        ("GET /a.b/c-d_e~!$&'()*+,;=:@ HTTP/1.1", "/a.b/c-d_e~!$&'()*+,;=:@", b""),
        ("GET /a/ HTTP/1.1", "/a/", b""),
        ("GET /a?b=/../%zz HTTP/1.1", "/a", b"b=/../%zz"),
        ("GET /a? HTTP/1.1", "/a", b""),
        ("GET /.a HTTP/1.1", "/.a", b""),
        ("GET http://h/a HTTP/1.1", "/a", b""),
        ("GET /\u00e9 HTTP/1.1", "/\u00e9", b""),
        ("GET /%C3%A9 HTTP/1.1", "/\u00e9", b""),
    ],
)
def test_targets(line: str, path: str, query: bytes) -> None:
    request = parse(head(line, "Host: t"))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    "line", ["GET /a/../b HTTP/1.1", "GET //a HTTP/1.1", "GET /a/. HTTP/1.1", "GET /a#b HTTP/1.1", "GET /?a#b HTTP/1.1"]
)
def test_the_quick_way_refuses_what_the_slow_one_does(line: str) -> None:
    assert refusal(head(line, "Host: t")) == (400, "bad_target")


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("GET / HTTP/2.0", 505, "version_not_supported"),
        ("GET / HTTP/1.2", 505, "version_not_supported"),
        ("GET / HTTP/1.10", 400, "bad_request_line"),
        ("GET /  HTTP/1.1", 400, "bad_request_line"),
        ("FOO / HTTP/1.1", 501, "method_not_implemented"),
        ("get / HTTP/1.1", 501, "method_not_implemented"),
        ("GET /" + "x" * 8192 + " HTTP/1.1", 414, "target_too_long"),
        ("GET /%20" + "x" * 8192 + " HTTP/1.1", 414, "target_too_long"),
    ],
)
def test_request_lines_that_are_refused(line: str, status: int, code: str) -> None:
    assert refusal(head(line, "Host: t")) == (status, code)


def test_the_target_limit_is_exact() -> None:
    for start in ("/", "/%20"):
        parse(head(f"GET {start}{'x' * (8192 - len(start))} HTTP/1.1", "Host: t"))
        assert refusal(head(f"GET {start}{'x' * (8193 - len(start))} HTTP/1.1", "Host: t")) == (414, "target_too_long")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        (["X: y"], 400, "bad_host"),
        (["Host:"], 400, "bad_host"),
        (["Host: a b"], 400, "bad_host"),
        (["Host: t", "Host: t"], 400, "repeated_field"),
        (["Host: t", "Content-Type: a/b", "content-type: a/b"], 400, "repeated_field"),
        (["Host: t", "X-Signature: a", "X-Signature: a"], 400, "repeated_field"),
        (["Host: t", "X : y"], 400, "bad_request"),
        (["Host: t", "X: y", " z"], 400, "bad_request"),
        (["Host: t", "Content-Length: 5", "Transfer-Encoding: chunked"], 400, "bad_request"),
        (["Host: t", "Transfer-Encoding: gzip, chunked"], 501, "coding_not_implemented"),
        (["Host: t", "Expect: tea"], 417, "expectation_failed"),
        (["Host: t", *["X: y"] * 100], 431, "too_many_fields"),
    ],
)
def test_fields_that_are_refused(fields: list[str], status: int, code: str) -> None:
    assert refusal(head("GET / HTTP/1.1", *fields)) == (status, code)


def test_content_length_of_20_digits_is_refused_here_too() -> None:
    """llhttp refuses what overflows 64 bits; 20 digits that do not overflow are refused all the same."""
    assert refusal(head("GET / HTTP/1.1", "Host: t", "Content-Length: 00000000000000000005")) == (
        400,
        "bad_content_length",
    )


@pytest.mark.parametrize(
    ("version", "connection", "alive"),
    [
        ("1.1", None, True), ("1.1", "close", False), ("1.1", "Close", False), ("1.1", "a, close", False), ("1.1", "closed", True),
        ("1.0", None, False), ("1.0", "keep-alive", True), ("1.0", "Keep-Alive, x", True), ("1.0", "keep-alive, close", False),
    ],
)  # fmt: skip
def test_keep_alive(version: str, connection: str | None, alive: bool) -> None:
    fields = [] if connection is None else [f"Connection: {connection}"]
    assert parse(head(f"GET / HTTP/{version}", "Host: t", *fields)).keep_alive is alive


def test_http10_expects_nothing_and_needs_no_host() -> None:
    request = parse(head("PUT / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1"))
    assert request.http10
    assert not request.expects_continue


def test_repeated_fields_that_are_lists_are_joined() -> None:
    assert parse(head("GET / HTTP/1.1", "Host: t", "X: a", "x: b")).header(b"x") == b"a, b"


def test_a_parser_goes_on_after_every_kind_of_request() -> None:
    """One parser serves a connection; no request may leave it in a state that spoils the next."""
    parser = HeadParser({})
    heads = [
        head("GET / HTTP/1.1", "Host: t"),
        head("PUT / HTTP/1.1", "Host: t", "Content-Length: 5"),
        head("PUT / HTTP/1.1", "Host: t", "Content-Length: 0"),
        head("PUT / HTTP/1.1", "Host: t", "Transfer-Encoding: chunked"),
        head("GET / HTTP/1.0", "Connection: keep-alive"),
        head("GET / HTTP/1.1", "Host: t", "Connection: Upgrade", "Upgrade: x"),
        head("GET / HTTP/1.1", "Host: t", "Proxy-Connection: close"),
        head("OPTIONS * HTTP/1.1", "Host: t"),
        head("HEAD / HTTP/1.1", "Host: t", "Content-Length: 5"),
    ]
    for first in heads:
        for second in heads:
            assert parse(first, parser).keep_alive
            assert parse(second, parser).keep_alive


def test_known_hosts_are_bounded() -> None:
    hosts: dict[bytes, None] = {}
    parser = HeadParser(hosts)
    for number in range(1000):
        parse(head("GET / HTTP/1.1", f"Host: h{number}"), parser)
    assert len(hosts) == 256


@given(st.lists(_TOKENS, max_size=14).map(b"".join))
@example(b"GET / HTTP/1.1\r\nHost: t\r\n\nGET /x HTTP/1.1\r\nHost: t")
def test_any_head_is_parsed_or_refused_with_4xx_or_505_or_501(data: bytes) -> None:
    """The bytes of a head end where the first empty line ends."""
    data = (b"GET / HTTP/1.1\r\nHost: t\r\n" + data if data[:3] not in {b"GET", b"PUT"} else data) + b"\r\n\r\n"
    data = data[: data.index(b"\r\n\r\n") + 4]
    request = parsed_or_refused(data)
    if isinstance(request, HttpError):
        assert 400 <= request.status < 500 or request.status in {501, 505}
        return
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    assert request.path.startswith("/")
    assert request.http10 or request.header(b"host")
    assert len(request.fields) <= data.count(b"\r\n") - 2
