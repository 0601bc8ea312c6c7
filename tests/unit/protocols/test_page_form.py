"""The plain form and the pages that answer it: what they say, and that nothing gets out of its place in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.protocols.conftest import NOW, SECRET, Site
from tests.unit.protocols.exchanges import FakeExchange, request

from hmac_file_server.auth import signing
from hmac_file_server.auth.refusals import STATUS
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import StorageBusy, StorageFull
from hmac_file_server.http import BodyCut, Exchange, Response
from hmac_file_server.protocols import page_form
from hmac_file_server.protocols.answers import PROBLEMS
from hmac_file_server.protocols.page_form import is_link, moment, public_url, size, ticket_of

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
VOID = {"meta", "link", "img", "input"}


@dataclass
class Document(HTMLParser):
    """A page as a browser reads it: elements in order with their attributes, and the text."""

    source: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    area: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.source)
        self.close()
        assert self.open == [], "every element ends"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), "an attribute stands twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open[-1:] == ["textarea"]:
            self.area += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Which elements have which attributes: what no text of others may change."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def one(self, tag: str, **wanted: str) -> dict[str, str | None]:
        found = [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]
        assert len(found) == 1, (tag, wanted, self.elements)
        return found[0]

    def has(self, tag: str) -> bool:
        return any(t == tag for t, _ in self.elements)


def page(answer: Response) -> Document:
    """What every page of ours has, and the page."""
    head = answer.head.decode("ascii")
    assert head.startswith("Content-Type: text/html; charset=utf-8\r\n")
    assert head.count("Content-Type:") == 1
    assert "Cache-Control: no-store\r\n" in head
    assert "Referrer-Policy: no-referrer\r\n" in head
    assert "script-src 'self'; style-src 'self'" in head
    document = Document(answer.body.decode("utf-8"))
    assert answer.body.startswith(b"<!doctype html>")
    for tag, attributes in document.elements:
        assert "style" not in attributes, "no inline style"
        assert tag != "style"
        assert tag != "script" or attributes.keys() == {"type", "src"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "action"):
            # Relative, so that it works below the prefix of a proxy.
            value = attributes.get(name)
            assert value is None or (not value.startswith("/") and ":" not in value.partition("?")[0]), value
    return document


def ticket(**claims: Any) -> str:
    complete = {"prefix": "", "exp": int(NOW) + 3600, "jti": "a", "ops": ["upload", "create", "chunk"], **claims}
    return signing.ticket(SECRET, {name: value for name, value in complete.items() if value is not None})


def visit(site: Site, query: bytes | str, path: str = "/", **fields: bytes) -> Response:
    raw = query if isinstance(query, bytes) else query.encode()
    parsed = request("GET", path, raw)
    parsed.fields.update({name.replace("_", "-").encode(): value for name, value in fields.items()})
    exchange = FakeExchange(parsed)
    site.application.handle(cast("Exchange", exchange))
    return exchange.answer


BOUNDARY = b"xyz"


def form(body: bytes, filename: str = "a.txt", media_type: str = "text/plain") -> bytes:
    head = f'--xyz\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
    return head.encode() + f"Content-Type: {media_type}\r\n\r\n".encode() + body + b"\r\n--xyz--\r\n"


def post(
    site: Site, token: str, body: bytes, cut: BodyCut | None = None, accept: bytes = BROWSER, **fields: bytes
) -> Response:
    parsed = request("POST", "/upload", b"ticket=" + token.encode(), len(body))
    given_fields = {"accept": accept, "content_type": b"multipart/form-data; boundary=xyz", "host": b"h", **fields}
    parsed.fields.update({name.replace("_", "-").encode(): value for name, value in given_fields.items()})
    exchange = FakeExchange(parsed, [body], cut)
    site.application.handle(cast("Exchange", exchange))
    site.store.run_later()
    return exchange.answer


# --- the form --------------------------------------------------------------------------------------------


def test_the_form(site: Site) -> None:
    token = ticket(max_size=5 << 20, files=3, file_expires=int(NOW) + 86400)
    answer = visit(site, f"ticket={token}")
    assert answer.status == 200
    document = page(answer)
    fields = document.one("form")
    assert (fields["method"], fields["enctype"], fields["action"]) == (
        "post",
        "multipart/form-data",
        f"upload?ticket={token}",
    )
    chosen = document.one("input")
    assert (chosen["type"], chosen["name"]) == ("file", "file")
    assert {"required"} <= chosen.keys()
    assert "accept" not in chosen
    assert document.one("label")["for"] == chosen["id"]
    document.one("main", id="form-upload")
    for words in (
        "Up to 5 MB",
        "3 files in all",
        "The link works until 14 November 2023, 23:13 UTC",
        "Files are kept until 15 November 2023, 22:13 UTC",
    ):
        assert words in document.text
    assert site.refusals == []


@pytest.mark.parametrize(
    ("claims", "expected"),
    [({"files": 1}, "One file in all"), ({}, None), ({"type": "image/png"}, "Only image/png")],
)
def test_what_it_permits(site: Site, claims: dict[str, object], expected: str | None) -> None:
    document = page(visit(site, f"ticket={ticket(**claims)}"))
    assert "Up to 10 GB" in document.text
    assert ("in all" in document.text or "Only" in document.text) is (expected is not None)
    assert expected is None or expected in document.text
    assert document.one("input").get("accept") == claims.get("type")


def test_extensions_that_are_taken() -> None:
    defaults = Settings()
    uploads = replace(defaults.uploads, allowed_extensions=(".jpg", ".png"))
    document = page(visit(Site(replace(defaults, uploads=uploads)), f"ticket={ticket()}"))
    assert document.one("input")["accept"] == ".jpg,.png"
    assert "Only .jpg, .png" in document.text


def test_a_ticket_without_end(site: Site) -> None:
    """As far as years have four digits."""
    assert "31 December 9999, 23:59 UTC" in page(visit(site, f"ticket={ticket(exp=2**63 - 1)}")).text


def test_the_address_of_the_answer_opened_again(site: Site) -> None:
    assert page(visit(site, f"ticket={ticket()}", "/upload")).has("form")
    assert visit(site, "", "/upload").status == 404


def with_uploads(**changes: Any) -> Site:
    defaults = Settings()
    return Site(replace(defaults, uploads=replace(defaults.uploads, **changes)))


def test_where_javascript_leads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the upload page, if that is there and the ticket is good for it."""
    there = {"/upload-page.js"}
    for each in (site, other := with_uploads(chunked_uploads_enabled=False)):
        monkeypatch.setattr(each.application, "pages", type("Pages", (), {"has": lambda _, path: path in there})())
    script = {"type": "module", "src": "upload-form.js"}
    assert page(visit(site, f"ticket={ticket()}")).one("script") == script
    assert not page(visit(site, f"ticket={ticket(ops=['upload'])}")).has("script")
    assert not page(visit(other, f"ticket={ticket()}")).has("script")
    assert not page(visit(site, f"ticket={ticket(exp=1)}")).has("script")
    there.clear()
    assert not page(visit(site, f"ticket={ticket()}")).has("script")


# --- tickets that permit nothing -------------------------------------------------------------------------

GARBAGE = "Zm9v.YmFy.YmF6"


@pytest.mark.parametrize(
    ("query", "status", "code", "words"),
    [
        (f"ticket={ticket(exp=int(NOW))}", 401, "token_expired", "This link has expired"),
        (f"ticket={ticket(nbf=int(NOW) + 5)}", 401, "bad_token", "This link does not work"),
        (f"ticket={GARBAGE}", 401, "bad_token", "This link does not work"),
        (f"ticket={ticket()[:-1]}", 401, "bad_token", "This link does not work"),
        ("ticket=%3Cscript%3E", 401, "bad_token", "This link does not work"),
        ("ticket=", 403, "malformed_credentials", "This link does not work"),
        ("ticket", 403, "malformed_credentials", "This link does not work"),
        ("Ticket=a", 403, "malformed_credentials", "This link does not work"),
        (f"ticket={ticket()}&ticket={ticket()}", 403, "malformed_credentials", "This link does not work"),
        (f"ticket={ticket()}&v={'0' * 64}", 403, "multiple_credentials", "This link does not work"),
        (f"ticket={ticket(ops=['put'])}", 403, "not_covered", "This link is for something else"),
    ],
)
def test_a_link_that_does_not_work(site: Site, query: str, status: int, code: str, words: str) -> None:
    answer = visit(site, query)
    assert answer.status == status
    assert (b"\r\nWWW-Authenticate: Bearer" in answer.head) is (status == 401)
    document = page(answer)
    assert words in document.text
    assert f"Error {code}, request test-1" in document.text
    assert not document.has("form")
    assert not document.has("a")
    assert [refusal.code for refusal in site.refusals] == [code]
    # What was sent is not shown, and no log has it.
    token = query.rpartition("=")[2]
    assert len(token) < 10 or token.encode() not in answer.body
    assert len(token) < 10 or token not in str(site.refusals)


@pytest.mark.parametrize("query", ["", "a=b", "v=1", "x;y", "tickets=1", "my_ticket=1", "a=ticket", "utm_source=mail"])
def test_other_queries_get_the_page(site: Site, query: str) -> None:
    answer = visit(site, query)
    assert answer.status == 200
    assert answer.body == visit(site, "").body
    assert site.refusals == []


def test_other_credentials_of_the_request_do_not_count(site: Site) -> None:
    """A proxy's password in front of the page is the proxy's business, and a form could not send a signature."""
    answer = visit(site, f"ticket={ticket()}", authorization=b"Bearer x", x_signature=b"y")
    assert answer.status == 200


# --- what answers the form -------------------------------------------------------------------------------


def test_a_file_has_arrived(site: Site) -> None:
    token = ticket()
    answer = post(site, token, form(b"hello", "My photo.txt"), x_forwarded_proto=b"https")
    assert answer.status == 200
    assert b"ETag" not in answer.head
    document = page(answer)
    path = f"/{bytes(range(16)).hex()}/My%20photo.txt"
    assert document.one("a", href="." + path)
    address = document.one("textarea")
    assert (document.area, "readonly" in address) == (f"https://h{path}", True)
    assert document.one("label")["for"] == address["id"]
    code = document.one("img", **{"class": "qr"})
    assert code["alt"]
    source = urlsplit(code["src"] or "")
    assert (source.path, parse_qs(source.query)) == ("upload-qr.svg", {"url": [f"https://h{path}"]})
    assert document.one("a", href=f"./?ticket={token}")
    assert "My photo.txt, 5 bytes" in document.text
    assert unquote(path)[1:] in site.store.files


def test_a_long_address_has_no_code(site: Site) -> None:
    document = page(post(site, ticket(), form(b"x", "\u00fc" * 100 + ".txt")))
    assert len(document.area) > 512
    assert not any(attributes.get("class") == "qr" for _, attributes in document.elements)


def test_without_a_name_of_the_server_there_is_the_link(site: Site) -> None:
    document = page(post(site, ticket(), form(b"x"), host=b""))
    assert not document.has("textarea")
    assert any((a.get("href") or "").startswith("./") for t, a in document.elements if t == "a")


@pytest.mark.parametrize("accept", [b"*/*", b"application/json", b"", b"text/html, application/json"])
def test_programs_get_json_as_ever(site: Site, accept: bytes) -> None:
    answer = post(site, ticket(), form(b"x"), accept=accept)
    assert (answer.status, json.loads(answer.body)["size"]) == (200, 1)
    assert b"ETag: " in answer.head
    answer = post(site, ticket(exp=1), form(b"x"), accept=accept)
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "token_expired")


def test_without_a_link_there_are_no_pages(site: Site) -> None:
    parsed = request("POST", "/upload", b"", 5, accept=BROWSER, x_signature=b"0" * 64)
    exchange = FakeExchange(parsed, [b"12345"])
    site.application.handle(cast("Exchange", exchange))
    assert json.loads(exchange.answer.body)["code"] == "bad_signature"


def test_a_refused_form(site: Site) -> None:
    answer = post(site, ticket(max_size=4), form(b"12345"))
    document = page(answer)
    assert answer.status == 413
    assert "The file is too large" in document.text
    assert "at most 4 bytes" in document.text
    assert "Error too_large, request test-1" in document.text
    assert document.has("a"), "there is a way back"
    assert answer.head.lower().count(b"cache-control:") == 1
    assert site.store.files == {}
    assert site.store.idle


def test_nothing_was_chosen(site: Site) -> None:
    """So browsers send a form in which nothing was chosen; a program that sends that means an empty file."""
    token = ticket(files=1)
    answer = post(site, token, form(b"", "", "application/octet-stream"))
    assert answer.status == 400
    document = page(answer)
    assert "No file arrived Choose a file" in document.text
    assert site.store.files == {}
    assert site.store.idle
    # It cost nothing; and an empty file that has a name is a file.
    assert post(site, token, form(b"", "empty.txt")).status == 200
    assert post(site, ticket(jti="b"), form(b"", ""), accept=b"*/*").status == 200


@pytest.mark.parametrize(
    ("body", "fields", "status", "code"),
    [
        (b"", {"content_type": b"application/x-www-form-urlencoded"}, 415, "not_multipart"),
        (b"--xyz--\r\n", {}, 400, "bad_multipart"),
        (b"nonsense", {}, 400, "bad_multipart"),
        (form(b"x", "a.txt", "text/html"), {}, 415, "type_mismatch"),
    ],
)
def test_forms_that_are_none(site: Site, body: bytes, fields: dict[str, bytes], status: int, code: str) -> None:
    answer = post(site, ticket(type="text/plain"), body, None, **fields)
    assert answer.status == status
    assert f"Error {code}," in page(answer).text


# These two come with what was wrong.
CUTS = [cut for cut in BodyCut if cut not in {BodyCut.REFUSED, BodyCut.MALFORMED}]


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.name)
def test_a_body_that_is_cut(site: Site, cut: BodyCut) -> None:
    answer = post(site, ticket(), form(b"x"), cut)
    assert answer.status >= 400
    assert page(answer).has("h1")
    assert site.store.files == {}


def test_a_store_without_room_and_a_busy_server(site: Site) -> None:
    site.store.errors["admit"] = StorageFull("x")
    answer = post(site, ticket(), form(b"x"))
    assert (answer.status, "no room" in page(answer).text) == (507, True)
    site.store.errors["admit"] = StorageBusy("x")
    answer = post(site, ticket(), form(b"x"))
    assert (answer.status, b"Retry-After: 5\r\n" in answer.head) == (503, True)
    site.busy = True
    answer = post(site, ticket(), form(b"x"))
    assert (answer.status, b"Retry-After: 2\r\n" in answer.head) == (503, True)
    assert "The server is busy" in page(answer).text


def test_a_ticket_that_is_used_up(site: Site) -> None:
    token = ticket(files=1)
    assert post(site, token, form(b"x")).status == 200
    site.application.random = bytes
    answer = post(site, token, form(b"y"))
    assert answer.status == 403
    assert "This link is used up" in page(answer).text


def test_the_words_are_of_codes_that_exist() -> None:
    assert page_form._WORDS.keys() <= PROBLEMS.keys() | STATUS.keys()


@pytest.mark.parametrize("code", sorted(PROBLEMS.keys() | STATUS.keys()))
def test_every_problem_becomes_a_page(site: Site, code: str) -> None:
    document = {"code": code, "title": "A title", "detail": "A detail.", "request_id": "r-1", "status": 400}
    document |= {"type": "urn:x"}
    answer = rendered(site, document, 400, b"Content-Type: application/problem+json\r\nRetry-After: 1\r\n")
    shown = page(answer)
    assert (answer.status, f"Error {code}, request r-1" in shown.text) == (400, True)
    assert b"Retry-After: 1\r\n" in answer.head
    assert shown.text.count("<") == 0


# --- nothing gets out of its place -----------------------------------------------------------------------


def rendered(
    site: Site, document: Mapping[str, Any], status: int, head: bytes = b"", query: bytes = b"", host: bytes = b"h"
) -> Response:
    exchange = FakeExchange(request("POST", "/upload", query, host=host))
    present = page_form.presentation(site.application, cast("Exchange", exchange))
    return present(Response(status, head, json.dumps(document).encode()))


EVIL = st.text(max_size=40) | st.sampled_from(
    [
        '"><script>alert(1)</script>',
        "</title><script>",
        "' onmouseover='x",
        '" autofocus onfocus="x',
        "&quot;&#34;&lt;b&gt;",
        "<!-- ",
        "]]><![CDATA[",
        "$title $content ${script} $$",
        "\u202egnp.exe",
        "\x00\x1f\ud800",
        "javascript:alert(1)",
        "\\\"'`",
    ]
)
PLAIN = {"success": True, "filename": "a", "size": 1, "url": "/a/a"}


def fits_in(shown: Document, full: Document) -> None:
    """Nothing that is not in the full page as well; without the paragraphs that may be missing they are equal."""
    assert set(shown.shape) <= set(full.shape)
    assert len(shown.shape) <= len(full.shape)
    optional = {"p", "img", "a"}
    assert [e for e in shown.shape if e[0] not in optional] == [e for e in full.shape if e[0] not in optional]


@given(EVIL, EVIL, st.integers(0, 2**63))
def test_a_receipt_keeps_its_shape(filename: str, url: str, count: int) -> None:
    site = Site(Settings())
    document = {"success": True, "filename": filename, "size": count, "url": f"/{url}"}
    shown = Document(rendered(site, document, 200).body.decode("utf-8"))
    fits_in(shown, page(rendered(site, PLAIN, 200)))
    links = [a["href"] for t, a in shown.elements if t == "a"]
    assert links == [meant("./" + url)]
    assert shown.area == meant(f"http://h/{url}")


def meant(text: str) -> str:
    """What a reader of HTML makes of a text that was escaped: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode("utf-8")


@given(EVIL, EVIL, EVIL)
def test_a_refusal_keeps_its_shape(code: str, title: str, detail: str) -> None:
    site = Site(Settings())
    document = {"code": code, "title": title, "detail": detail, "request_id": title, "status": 400}
    harmless = {"code": "a", "title": "b", "detail": "c", "request_id": "d", "status": 400}
    shown = Document(rendered(site, document, 400).body.decode("utf-8"))
    assert shown.shape == Document(rendered(site, harmless, 400).body.decode("utf-8")).shape
    assert meant(detail) in "".join(shown.texts)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=3, max_size=60))
def test_a_type_keeps_its_place(media_type: str) -> None:
    """The only words of a ticket that whoever made it chose freely."""
    site = Site(Settings())
    answer = visit(site, f"ticket={ticket(type=media_type)}")
    document = page(answer)
    assert document.shape == page(visit(site, f"ticket={ticket(type='a/b')}")).shape
    assert document.one("input")["accept"] == media_type.replace(", ", ",")


@settings(max_examples=200)
@given(st.binary(max_size=60) | EVIL.map(lambda text: text.encode("utf-8", "replace")))
def test_no_query_gets_into_a_page(raw: bytes) -> None:
    query = b"ticket=" + raw
    site = Site(Settings())
    answer = visit(site, query)
    assert answer.status in {401, 403}
    reference = visit(Site(Settings()), f"ticket={GARBAGE}")
    assert page(answer).shape == page(reference).shape
    answer = post(site, "x", form(b"x"))
    assert answer.status == 401
    full = page(rendered(site, PLAIN, 200, query=f"ticket={GARBAGE}".encode()))
    fits_in(page(rendered(site, PLAIN, 200, query=query)), full)


@given(st.text(max_size=60).filter(lambda name: not set(name) & set('\r\n"\\')))
def test_no_file_name_gets_out(name: str) -> None:
    """From a form to the page that answers it, with all that happens to a name on its way."""
    site = Site(Settings())
    answer = post(site, ticket(), form(b"x", name.encode("utf-8", "replace").decode()))
    if answer.status == 200:
        expected = page(rendered(site, PLAIN, 200, query=f"ticket={ticket()}".encode()))
    else:
        expected = page(post(site, ticket(), b"nonsense"))
    fits_in(page(answer), expected)


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_what_a_proxy_says_keeps_its_place(proto: bytes, host: bytes, prefix: bytes) -> None:
    fields = {"x_forwarded_proto": proto, "x_forwarded_host": host, "x_forwarded_prefix": prefix}
    parsed = request("POST", "/upload", b"", None, host=b"h.example", **fields)
    address = public_url(parsed, "/a/b.txt", https=False)
    assert address is not None
    parts = urlsplit(address)
    assert parts.scheme in {"http", "https"}
    assert parts.path.endswith("/a/b.txt")
    assert not set(address) & set("<>\"' \r\n\\") or "'" in host.decode("latin-1")


# --- parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "https", "expected"),
    [
        ({"host": b"h"}, False, "http://h/a"),
        ({"host": b"h:8443"}, True, "https://h:8443/a"),
        ({"host": b"[::1]:80"}, False, "http://[::1]:80/a"),
        ({"host": b"h", "x_forwarded_proto": b"HTTPS"}, False, "https://h/a"),
        ({"host": b"h", "x_forwarded_proto": b"http, https"}, True, "http://h/a"),
        ({"host": b"h", "x_forwarded_proto": b"gopher"}, True, "https://h/a"),
        ({"host": b"inner", "x_forwarded_host": b"outer.example, inner"}, False, "http://outer.example/a"),
        ({"host": b"inner", "x_forwarded_host": b"a b"}, False, "http://inner/a"),
        ({"host": b"h", "x_forwarded_prefix": b"/files/"}, False, "http://h/files/a"),
        ({"host": b"h", "x_forwarded_prefix": b"/x/y"}, False, "http://h/x/y/a"),
        ({"host": b"h", "x_forwarded_prefix": b"/"}, False, "http://h/a"),
        ({"host": b"h", "x_forwarded_prefix": b"//evil"}, False, "http://h/a"),
        ({"host": b"h", "x_forwarded_prefix": b"/../x<"}, False, "http://h/a"),
        ({"host": b""}, False, None),
        ({}, False, None),
    ],
)
def test_public_addresses(fields: dict[str, bytes], https: bool, expected: str | None) -> None:
    parsed = request("POST", "/upload", b"", None, **fields)
    assert public_url(parsed, "/a", https=https) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KB"),
        (1500, "1.4 KB"),
        ((1 << 20) - 1, "1023 KB"),
        (5 << 20, "5 MB"),
        (10 << 30, "10 GB"),
        (2**63 - 1, "8388607 TB"),
    ],
)
def test_sizes(count: int, expected: str) -> None:
    assert size(count) == expected


@given(st.integers(0, 2**63))
def test_a_size_never_promises_more(count: int) -> None:
    number, unit = size(count).split(" ")
    scale = {"byte": 1, "bytes": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}[unit]
    tenths = int(number.replace(".", "")) if "." in number else int(number) * 10
    assert tenths * scale <= count * 10 < (tenths + 10) * scale


@given(st.floats(allow_nan=False))
def test_any_moment_can_be_told(seconds: float) -> None:
    assert moment(seconds).endswith(" UTC")


def test_links() -> None:
    for query in (b"ticket=a", b"x=1&ticket=a", b"TICKET=a", b"ticket", b"ticket&x"):
        assert is_link(request("GET", "/", query))
    for query in (b"", b"x=ticket", b"tickets=a", b"aticket=a"):
        assert not is_link(request("GET", "/", query))


@pytest.mark.parametrize("query", [b"", b"ticket=", b"ticket=a&ticket=b", b"ticket=a%41", b"ticket=<b>", b"a;b"])
def test_no_ticket(query: bytes) -> None:
    assert ticket_of(request("GET", "/", query)) is None
    assert ticket_of(request("GET", "/", b"ticket=" + b"a" * 8193)) is None
    assert ticket_of(request("GET", "/", b"x=1&ticket=a.b-c_d")) == "a.b-c_d"
