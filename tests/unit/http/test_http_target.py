"""Request targets: decoded once, strictly, or refused."""

from __future__ import annotations

from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.target import AUTHORITY, split_target

_SEGMENT = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["Cc", "Cs"]), min_size=1
).filter(lambda text: text not in {".", ".."})


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", b""),
        (b"/a/b", "/a/b", b""),
        (b"/a/b/", "/a/b/", b""),
        (b"/a?b=c?d/../e%2f", "/a", b"b=c?d/../e%2f"),
        (b"/a?", "/a", b""),
        (b"/%61%2E%62", "/a.b", b""),
        (b"/a%20b%2b%3f%23", "/a b+?#", b""),
        (b"/a+b", "/a+b", b""),
        (b"/%25%32%65", "/%2e", b""),
        (b"/%e4%b8%ad", "/\u4e2d", b""),
        (b"/...", "/...", b""),
        (b"/.a/..b/c..", "/.a/..b/c..", b""),
        (b"/a;b=c/d", "/a;b=c/d", b""),
        (b"http://host/a?b", "/a", b"b"),
        (b"http://host", "/", b""),
        (b"http://host?b", "/", b"b"),
        (b"HtTpS://[::1]:443/a", "/a", b""),
    ],
)
def test_accepted(target: bytes, path: str, query: bytes) -> None:
    assert split_target(target, "GET") == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        b"", b"a", b"*", b"?", b"#", b"/#", b"/a#b", b"//", b"/a//b", b"/a//", b"/.", b"/..", b"/a/.", b"/a/..", b"/./a", b"/../a",
        b"/%2e", b"/%2e%2e/a", b"/.%2E", b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a\\b", b"/%00", b"/%1f", b"/%7f", b"/%c2%80", b"/%", b"/%2",
        b"/%zz", b"/%+1", b"/%ff", b"/%c0%ae", b"/%ed%a0%80", b"/%f4%90%80%80", b"host:80", b"ftp://h/", b"http:/h", b"http:///a",
        b"http://u@h/", b"http://h\\x/", b"http://h//a", b"http://h/a/../b", b"http://h#a",
    ],
)  # fmt: skip
def test_refused(target: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        split_target(target, "GET")
    assert (refused.value.status, refused.value.code) == (400, "bad_target")


def test_asterisk_is_for_options() -> None:
    assert split_target(b"*", "OPTIONS") == ("*", b"")


def split_or_refused(target: bytes) -> tuple[str, bytes] | HttpError:
    try:
        return split_target(target, "GET")
    except HttpError as error:
        return error


@given(st.lists(_SEGMENT, min_size=1, max_size=6), st.booleans())
def test_a_quoted_path_comes_back(segments: list[str], absolute: bool) -> None:
    path = "/" + "/".join(segments)
    target = quote(path).encode()
    assert split_target(b"http://h:1" + target if absolute else target, "GET") == (path, b"")


@given(st.binary(max_size=60))
def test_any_escaped_bytes_are_decoded_once_or_refused(raw: bytes) -> None:
    target = b"/" + quote_from_bytes(raw, safe="").encode()
    split = split_or_refused(target)
    if isinstance(split, HttpError):
        assert (split.status, split.code) == (400, "bad_target")
        return
    path, query = split
    assert query == b""
    assert path.encode() == unquote_to_bytes(target)
    assert not {"", ".", ".."} & set(path[1:].split("/")[:-1])
    assert not set(path) & set("\\\0\r\n")
    assert b"/" not in raw


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_any_printable_target_is_decided(text: str) -> None:
    split = split_or_refused(text.encode())
    if isinstance(split, HttpError):
        assert (split.status, split.code) == (400, "bad_target")
        return
    path, _ = split
    assert path.startswith("/")
    assert "//" not in path
    assert "/../" not in path + "/"
    assert "/./" not in path + "/"


@pytest.mark.parametrize(
    "good", [b"h", b"h:", b"h:80", b"1.2.3.4:65535", b"[::1]", b"[::1]:8", b"a_b.c", b"%41", b"x.", b"a:00000"]
)
def test_authorities(good: bytes) -> None:
    assert AUTHORITY.fullmatch(good)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b":80",
        b"h:x",
        b"h:123456",
        b"a b",
        b"a@b",
        b"a/b",
        b"[",
        b"[]",
        b"[::1",
        b"h\r",
        b"\xc3\xa9",
        b"a,b ",
        b"%4",
    ],
)
def test_not_authorities(bad: bytes) -> None:
    assert AUTHORITY.fullmatch(bad) is None
