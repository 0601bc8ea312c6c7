"""The upload page over real sockets: its files, the plain form with curl, QR codes; and what the log has of it."""

from __future__ import annotations

import gzip
import json
import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.curl import curl
from tests.fixtures.server import Answer, FileServer, StartServer
from tests.server import signatures
from tests.server.signatures import bearer, in_future, ticket
from tests.server.wire import Wire

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
FILES = {
    "/": "text/html; charset=utf-8",
    "/uploader.js": "text/javascript; charset=utf-8",
    "/upload-page.js": "text/javascript; charset=utf-8",
    "/upload-texts.js": "text/javascript; charset=utf-8",
    "/upload-form.js": "text/javascript; charset=utf-8",
    "/upload-page.css": "text/css; charset=utf-8",
    "/upload-icon.svg": "image/svg+xml",
}
NAMES = [*FILES, "/upload-qr.svg"]
UPLOADS = ["upload", "create", "chunk"]


def link(**claims: object) -> str:
    return ticket(**{"prefix": "", "ops": UPLOADS, **claims})


def form(body: bytes, filename: str = "a.txt", boundary: str = "xyz") -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    return head.encode() + body + f"\r\n--{boundary}--\r\n".encode()


def post(server: FileServer, token: str, body: bytes, **headers: str) -> Answer:
    fields = {"Content-Type": "multipart/form-data; boundary=xyz", **BROWSER, **headers}
    return server.request("POST", f"/upload?ticket={token}", form(body), fields)


def logged(server: FileServer, word: str) -> None:
    """Wait until it stands in the log."""
    wait_until(lambda: word in server.log_text(), f"{word} is logged")


def is_page(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    return answer.body.decode()


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", list(FILES))
def test_the_files(module_server: FileServer, path: str) -> None:
    plain = module_server.request("GET", path)
    assert plain.status == 200, f"the package has no file for {path}"
    assert plain.headers["content-type"] == FILES[path]
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert (plain.headers["cache-control"], plain.headers["vary"]) == ("no-cache", "Accept-Encoding")
    packed = module_server.request("GET", path, headers={"Accept-Encoding": "gzip, br"})
    if packed.headers.get("content-encoding") == "gzip":
        assert gzip.decompress(packed.body) == plain.body
        assert packed.headers["etag"] != plain.headers["etag"]
    else:
        assert packed.body == plain.body
    for answer, encoding in ((plain, ""), (packed, "gzip, br")):
        fields = {"Accept-Encoding": encoding} if encoding else {}
        head = module_server.request("HEAD", path, headers=fields)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.body))
        assert head.headers["etag"] == answer.headers["etag"]
        again = module_server.request("GET", path, headers={**fields, "If-None-Match": answer.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]


def test_the_pages_own_names_are_served(module_server: FileServer) -> None:
    """Whatever the page and its scripts load is there, by relative addresses and from here."""
    seen: set[str] = set()
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        text = module_server.request("GET", path).body.decode()
        found = re.findall(r"""(?:src|href)="([^"]+)"|\bfrom\s+["']([^"']+)["']|import\(["']([^"']+)["']\)""", text)
        for target in filter(None, (word for words in found for word in words)):
            if target.startswith(("#", "data:", "node:", "https://", "http://")):
                assert not target.startswith("http") or path != "/", target
                continue
            assert not target.startswith("/"), f"{path}: {target} is not relative"
            name = "/" + target.removeprefix("./").partition("?")[0]
            if path == "/":
                assert module_server.request("GET", name).status == 200, target
            if name not in seen and name in FILES:
                waiting.append(name)
    assert {"/", "/upload-page.js", "/upload-page.css"} <= seen


@pytest.mark.parametrize("path", NAMES)
def test_nothing_is_uploaded_in_their_place(module_server: FileServer, path: str) -> None:
    before = module_server.files()
    signed = {"X-Signature": slots.x_signature(path)}
    answer = module_server.request("PUT", path, b"x", signed)
    assert (answer.status, answer.json()["code"]) == (405, "method_not_allowed")
    answer = module_server.request("PUT", path, b"x", bearer(ticket(prefix="", ops=["put"])))
    # No ticket covers the root itself.
    assert answer.status == (405 if path != "/" else 403)
    assert module_server.request("PUT", path, b"x").status == 403
    assert module_server.request("POST", path, b"x").status == 404
    for method in ("PATCH", "PROPFIND"):
        assert module_server.request(method, path, b"x", signed).status in {405, 501}
    # A slot for this name of another base path is a slot like any other, but a resumable one is none either.
    answer = module_server.request("PUT", path, b"x", {**signed, "Upload-Complete": "?1"})
    assert answer.status == 405
    assert module_server.files() == before


def test_a_tree_with_a_file_of_that_name(start_server: StartServer) -> None:
    """It keeps its place in the tree and its other addresses; the page keeps its script."""
    server = start_server({})
    (server.storage / "uploader.js").write_bytes(b"alert(1)")
    (server.storage / "upload").mkdir()
    (server.storage / "upload" / "upload-page.css").write_bytes(b"* { display: none }")
    assert b"alert(1)" not in server.request("GET", "/uploader.js").body
    for url in ("/upload/uploader.js", "/download/uploader.js"):
        assert server.request("GET", url).body == b"alert(1)"
    assert server.request("GET", "/upload/upload-page.css").body == b"* { display: none }"
    token = ticket(path="upload-icon.svg", ops=["upload"])
    receipt = server.request(
        "POST", "/upload", form(b"<svg/>"), {**bearer(token), "Content-Type": "multipart/form-data; boundary=xyz"}
    ).json()
    assert receipt["url"] == "/upload/upload-icon.svg"
    assert server.request("GET", str(receipt["url"])).body == b"<svg/>"


def test_without_the_root_as_a_base_path(start_server: StartServer) -> None:
    server = start_server({"server": {"base_path": ["/files/"]}})
    assert server.request("GET", "/").status == 200
    assert server.request("GET", "/upload-form.js").status == 200
    assert server.request("GET", "/files/upload-form.js").status == 404
    answer = is_page(post(server, link(), b"x"), 200)
    url = re.search(r'href="\.(/files/[0-9a-f]{32}/a\.txt)"', answer)
    assert url is not None
    assert server.request("GET", url[1]).body == b"x"


# --- the form --------------------------------------------------------------------------------------------


def action_of(page: str) -> str:
    match = re.search(r'<form method="post" enctype="multipart/form-data" action="([^"]+)">', page)
    assert match is not None
    return unescape(match[1])


@pytest.mark.parametrize("size", [1, 100_000, 5_000_000])
def test_a_browser_without_javascript(module_server: FileServer, tmp_path: Path, size: int) -> None:
    """What it does, step by step, with curl: open the link, send the form, follow the link of the answer."""
    body = content(size, f"plain form {size}")
    file = tmp_path / "My photo <1>.bin"
    file.write_bytes(body)
    opened = module_server.request("GET", f"/?ticket={link(max_size=5_000_000)}", headers=BROWSER)
    target = action_of(is_page(opened, 200))
    assert target.startswith("upload?ticket=")
    sent = curl(
        *("-F", f"file=@{file}", "-H", f"Accept: {BROWSER['Accept']}"),
        f"{module_server.url}/{target}",
    )
    assert (sent.exit_code, sent.status) == (0, 200), sent.trace[-2000:]
    page = is_page(Answer(sent.status, sent.headers(), sent.body), 200)
    url = re.search(r'<a href="\.(/[0-9a-f]{32}/My%20photo%20_1_\.bin)">My photo _1_\.bin</a>', page)
    assert url is not None, page
    assert module_server.request("GET", url[1]).body == body
    address = re.search(r" readonly>([^<]+)</textarea>", page)
    assert address is not None
    assert unescape(address[1]) == module_server.url + url[1]
    code = re.search(r'<img class="qr" src="([^"]+)"', page)
    assert code is not None
    picture = module_server.request("GET", "/" + unescape(code[1]))
    assert (picture.status, picture.headers["content-type"]) == (200, "image/svg+xml")


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ({"exp": in_future(-1)}, 401, "This link has expired"),
        ({"nbf": in_future(7200)}, 401, "This link does not work"),
        ({"ops": ["put"]}, 403, "This link is for something else"),
    ],
)
def test_links_that_do_not_work(module_server: FileServer, claims: dict[str, object], status: int, words: str) -> None:
    token = link(**claims)
    for answer in (module_server.request("GET", f"/?ticket={token}"), post(module_server, token, b"x")):
        page = is_page(answer, status)
        assert words in page
        assert ("www-authenticate" in answer.headers) is (status == 401)
        request_id = re.search(r"request ([0-9a-f-]+)</p>", page)
        assert request_id is not None
        # It stands in the log as well.
        logged(module_server, request_id[1])
    head = module_server.request("HEAD", f"/?ticket={token}")
    assert (head.status, head.body) == (status, b"")


def test_a_used_up_link_and_a_file_that_is_too_large(module_server: FileServer) -> None:
    token = link(files=1, max_size=10)
    assert "The file is too large" in is_page(post(module_server, token, b"x" * 11), 413)
    # Told by its length, before the body.
    large = post(module_server, token, b"x" * 300_000)
    assert "The file is too large" in is_page(large, 413)
    is_page(post(module_server, token, b"x" * 10), 200)
    assert "This link is used up" in is_page(post(module_server, token, b"y" * 10), 403)


def test_programs_with_the_same_link_get_json(module_server: FileServer) -> None:
    token = link()
    receipt = post(module_server, token, b"x", Accept="*/*").json()
    assert receipt["success"] is True
    problem = post(module_server, "a.b.c", b"x", Accept="application/json").json()
    assert problem["code"] == "bad_token"
    # Nor does a signature make a page of it.
    signed = {"X-Signature": signatures.mac("/upload"), "Content-Type": "multipart/form-data; boundary=xyz"}
    answer = module_server.request("POST", "/upload", form(b"x"), {**signed, **BROWSER})
    assert answer.json()["success"] is True


def test_a_body_that_stalls_is_answered_with_a_page(start_server: StartServer) -> None:
    server = start_server({"timeouts": {"stall_timeout": "1s"}})
    with Wire(server) as wire:
        wire.head(
            "POST",
            f"/upload?ticket={link()}",
            {"Content-Type": "multipart/form-data; boundary=xyz", "Content-Length": "200000", **BROWSER},
        )
        wire.send(form(b"x" * 1000)[:500])
        assert "The upload broke off" in is_page(wire.answer(), 408)


def test_behind_a_proxy_that_takes_a_prefix_off(module_server: FileServer) -> None:
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/send", "Host": "files.example.org"}
    page = is_page(post(module_server, link(), b"x", **said), 200)
    address = re.search(r" readonly>([^<]+)</textarea>", page)
    assert address is not None
    assert address[1].startswith("https://files.example.org/send/")
    assert not re.search(r'(?:href|src|action)="/', page), "relative addresses know no prefix"


# --- QR codes --------------------------------------------------------------------------------------------


def code(server: FileServer, address: str) -> Answer:
    return server.request("GET", f"/upload-qr.svg?url={quote(address, safe='')}")


def test_a_code(module_server: FileServer) -> None:
    answer = code(module_server, "https://files.example.org/a/b.txt")
    assert answer.status == 200
    assert answer.body.startswith(b"<svg ")
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert answer.headers["cache-control"] == "private, max-age=86400"
    head = module_server.request("HEAD", "/upload-qr.svg?url=https%3A%2F%2Ffiles.example.org%2Fa%2Fb.txt")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))


@pytest.mark.parametrize("address", ["", "/a", "javascript:alert(1)", "https://a@b/", "https://h/" + "a" * 503])
def test_no_code(module_server: FileServer, address: str) -> None:
    answer = code(module_server, address)
    assert (answer.status, answer.json()["code"]) == (400, "bad_url")


def test_many_codes_at_once(module_server: FileServer) -> None:
    """Some are told to come later; none disturbs what the server is for."""
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda n: code(module_server, f"https://h/{n}/" + "a" * 480), range(200)))
    assert {answer.status for answer in answers} <= {200, 503}
    drawn = [answer for answer in answers if answer.status == 200]
    assert drawn
    assert len({answer.body for answer in drawn}) == len(drawn)
    for answer in answers:
        if answer.status == 503:
            assert (answer.json()["code"], answer.headers["retry-after"]) == ("server_busy", "2")
    assert code(module_server, "https://h/0/" + "a" * 480).status == 200


# --- the log ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_ticket_is_ever_logged(start_server: StartServer, log_format: str) -> None:
    server = start_server({"logging": {"level": "debug", "format": log_format}})
    good, late, other = link(), link(exp=in_future(-5)), link(ops=["put"])
    garbage = "c2VjcmV0.c2VjcmV0LXdvcmRz." + "A" * 43
    for token in (good, late, other, garbage):
        for path in ("/", "/upload", "/uploader.js", "/upload-qr.svg", "/upload/status", "/a/b.txt"):
            server.request("GET", f"{path}?ticket={token}", headers=BROWSER)
        post(server, token, b"x")
        server.request("PUT", f"/upload/a/b.txt?ticket={token}", b"x")
        server.request("GET", f"/?ticket={token}&ticket={token}")
        # Heads that do not even parse.
        for target in (f"/?ticket={token} x", f"/%zz?ticket={token}", f"/..?ticket={token}"):
            with Wire(server) as wire:
                wire.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                assert wire.answer().status == 400
    server.request("GET", "/the-last-one")
    logged(server, "/the-last-one")
    log = server.log_text()
    assert log_format != "json" or all(json.loads(line) for line in log.splitlines())
    for token in (good, late, other, garbage):
        for part in (*token.split("."), token[:24]):
            assert len(part) < 24 or part not in log
        payload_and_mac = token.partition(".")[2]
        assert payload_and_mac[:24] not in log
    assert "ticket=" not in log


def test_a_link_is_one_address(module_server: FileServer) -> None:
    """From the command to the page: what `link --form` prints is what the server takes."""
    from tests.server.test_command_line import command

    (line,) = command(module_server.folder, "link", "--form", "--config", str(module_server.config))
    url = urlsplit(line)
    assert f"{url.scheme}://{url.netloc}" == module_server.url
    page = is_page(module_server.request("GET", f"{url.path}?{url.query}"), 200)
    assert unquote(action_of(page)) == f"upload?{url.query}"
    assert "Up to 5 GB" in page
