"""The files of the upload page: what is served under which name, with which fields, and what never is."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocols.conftest import SECRET, Site
from tests.unit.protocols.exchanges import FakeExchange, request

from hmac_file_server.auth import signing
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import StoragePath
from hmac_file_server.http import Exchange, Response
from hmac_file_server.protocols.pages import CODE, PATHS, POLICY, Pages
from hmac_file_server.protocols.put import RESERVED, reserved

FILES = sorted(PATHS - {CODE})
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every file, and one that has no name to be served under."""
    for path in FILES:
        (tmp_path / (path[1:] or "index.html")).write_text(f"{path}: " + "twelve words " * 100)
    (tmp_path / "upload-form.html").write_text("$title")
    (tmp_path / "__init__.py").write_text("")
    return tmp_path


def ask(pages: Pages, path: str, **fields: Any) -> Response:
    exchange = FakeExchange(request("GET", path, **fields))
    pages.respond(cast("Exchange", exchange))
    return exchange.answer


def fields_of(response: Response) -> dict[str, str]:
    lines = response.head.decode("ascii").split("\r\n")
    assert lines.pop() == ""
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines), "a field stands twice"
    return {name.lower(): value for name, value in fields.items()}


@pytest.mark.parametrize("path", FILES)
def test_a_file(folder: Path, path: str) -> None:
    pages = Pages(folder)
    content = (folder / (path[1:] or "index.html")).read_bytes()
    answer = ask(pages, path)
    assert (answer.status, answer.body) == (200, content)
    fields = fields_of(answer)
    assert fields["content-type"] == TYPES.get(Path(path).suffix, "text/html; charset=utf-8")
    assert (fields["cache-control"], fields["vary"]) == ("no-cache", "Accept-Encoding")
    assert "content-encoding" not in fields
    assert fields["referrer-policy"] == "no-referrer"
    packed = ask(pages, path, accept_encoding=b"gzip, deflate, br")
    assert gzip.decompress(packed.body) == content
    assert len(packed.body) < len(content)
    others = fields_of(packed)
    assert others.pop("content-encoding") == "gzip"
    # Two representations have two strong validators, and nothing else differs.
    assert others.pop("etag") != fields.pop("etag")
    assert others == fields


def test_the_policy_of_the_page(folder: Path) -> None:
    fields = fields_of(ask(Pages(folder), "/"))
    assert fields["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    assert fields["cross-origin-opener-policy"] == "same-origin"
    assert b"unsafe" not in POLICY
    for path in FILES[1:]:
        assert fields_of(ask(Pages(folder), path))["content-security-policy"] == "default-src 'none'"


@pytest.mark.parametrize("coding", [b"", b"gzip"])
def test_not_modified(folder: Path, coding: bytes) -> None:
    pages = Pages(folder)
    full = ask(pages, "/uploader.js", accept_encoding=coding)
    tag = fields_of(full)["etag"].encode()
    for field in (tag, b"W/" + tag, b'"other" , ' + tag, b"*"):
        answer = ask(pages, "/uploader.js", accept_encoding=coding, if_none_match=field)
        assert (answer.status, answer.body) == (304, b""), field
        assert answer.head == full.head
    for field in (b'"other"', b"", tag[:-1], tag.strip(b'"'), b"**"):
        assert ask(pages, "/uploader.js", accept_encoding=coding, if_none_match=field).status == 200, field
    # What is kept of one representation is not the other.
    other = b"gzip" if not coding else b""
    assert ask(pages, "/uploader.js", accept_encoding=other, if_none_match=tag).status == 200


def test_the_tag_is_that_of_the_content(folder: Path) -> None:
    """The same in all processes and after a restart, another for other bytes."""
    one, two = Pages(folder), Pages(folder)
    for coding in (b"", b"gzip"):
        first, second = (ask(pages, "/", accept_encoding=coding) for pages in (one, two))
        assert (first.head, first.body) == (second.head, second.body)
    before = fields_of(ask(one, "/"))["etag"]
    (folder / "index.html").write_text("another")
    # Read once: a server that runs goes on with what belongs together.
    assert fields_of(ask(one, "/"))["etag"] == before
    assert fields_of(ask(Pages(folder), "/"))["etag"] != before


def test_what_does_not_shrink_is_not_packed(folder: Path) -> None:
    (folder / "upload-icon.svg").write_bytes(b"<svg/>")
    answer = ask(Pages(folder), "/upload-icon.svg", accept_encoding=b"gzip")
    assert answer.body == b"<svg/>"
    fields = fields_of(answer)
    assert "content-encoding" not in fields
    assert fields["vary"] == "Accept-Encoding"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "uploader.js").mkdir()
    pages = Pages(tmp_path)
    for path in FILES:
        assert not pages.has(path)
        assert ask(pages, path).status == 404


def test_the_package_has_what_its_page_names() -> None:
    pages = Pages()
    for path in ("/", "/upload-form.js"):
        assert pages.has(path)


@pytest.mark.parametrize("path", ["/upload-form.html", "/index.html", "/__init__.py", "/uploader.js/", "/Uploader.js"])
def test_nothing_else_of_the_folder(site: Site, path: str) -> None:
    exchange = FakeExchange(request("GET", path))
    site.application.handle(cast("Exchange", exchange))
    assert exchange.answer.status in {400, 404}


# --- names that are taken --------------------------------------------------------------------------------


def test_all_names_are_reserved() -> None:
    assert PATHS <= RESERVED
    assert all(reserved(path) for path in (*PATHS, "/tus/a", "/upload/chunked"))
    assert not any(
        reserved(path) for path in ("/upload/uploader.js", "/uploader.js.map", "/a", "/download/uploader.js")
    )


def put(site: Site, path: str, body: bytes) -> int:
    signature = signing.x_signature(SECRET, path).encode()
    exchange = FakeExchange(request("PUT", path, length=len(body), x_signature=signature), [body])
    site.application.handle(cast("Exchange", exchange))
    site.store.run_later()
    return exchange.answer.status


def get(site: Site, path: str) -> Response:
    exchange = FakeExchange(request("GET", path))
    site.application.handle(cast("Exchange", exchange))
    return exchange.answer


@pytest.mark.parametrize("path", sorted({*PATHS, "/health"} - {"/", CODE}))
def test_a_stored_file_does_not_stand_in_front(site: Site, path: str) -> None:
    """Or who may store a file at one base path replaced the page's script at another."""
    body = b"alert(document.domain)"
    before = get(site, path)
    assert put(site, path, body) == 405
    assert put(site, "/upload" + path, body) == 201
    after = get(site, path)
    assert (after.status, after.body) == (before.status, before.body)
    assert body not in after.body
    for elsewhere in ("/upload" + path, "/download" + path):
        found = get(site, elsewhere)
        assert (found.status, found.body) == (200, body)


def test_a_receipt_names_where_the_file_is_found() -> None:
    settings = Settings()
    table = {
        ("/", "/upload/"): {
            "uploader.js": "/upload/uploader.js",
            "upload/chunked": "/upload/upload/chunked",
            "chunked": "/chunked",
            "a b.js": "/a%20b.js",
            "tus/a": "/upload/tus/a",
        },
        ("/",): {"uploader.js": "/download/uploader.js", "health": "/download/health", "a": "/a"},
        ("/upload/",): {"uploader.js": "/upload/uploader.js", "chunked": "/download/upload/chunked"},
    }
    for base_path, paths in table.items():
        site = Site(replace(settings, server=replace(settings.server, base_path=base_path)))
        for path, url in paths.items():
            assert site.application.url_of(StoragePath(path)) == url
            site.store.add(path, path.encode())
            assert get(site, url.replace("%20", " ")).body == path.encode(), url


@given(st.text(st.sampled_from("/uploaderpg-.jscvhtmq"), max_size=20))
def test_other_names_are_free(name: str) -> None:
    path = "/" + name
    assert reserved(path) is (path in RESERVED or path.startswith("/tus/"))
