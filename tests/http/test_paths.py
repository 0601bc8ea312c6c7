"""Every spelling of a path in every field that can carry one: the same file, or a refusal, and nothing outside."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from tests.fixtures.server import DELETE_SECRET, SECRET, FileServer
from tests.http.conftest import judge
from tests.http.spellings import CANARY, ESCAPE, PRIVATE, VICTIM, spellings
from tests.http.wire import Answer, Line

SPELLINGS = spellings()
VICTIM_BYTES = b"the victim's photo"
CANARY_BYTES = b"CANARY: nobody may read this"
_FORM_FOLDER = re.compile(r"[0-9a-f]{32}")


def mac(message: bytes) -> str:
    return hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()


class Site:
    """A server, what is stored on it by path, and a picture of everything around its root."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.line = Line(server.port)
        self.stored: dict[bytes, bytes] = {}
        self.before: dict[str, tuple[int, str]] = {}

    def around(self) -> dict[str, tuple[int, str]]:
        """Size and digest of every file beside the root, by path."""
        found = {}
        for path in self.server.folder.rglob("*"):
            inside = path.is_relative_to(self.server.storage)
            if inside or path == self.server.log or not path.is_file():
                continue
            found[str(path)] = (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        return found

    def ask(self, method: bytes, target: bytes, *fields: bytes, body: bytes = b"") -> Answer:
        length = [b"Content-Length: %d" % len(body)] if body or method in {b"PUT", b"POST"} else []
        head = b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: t", *fields, *length])
        answer = self.line.ask(head + b"\r\n\r\n" + body, head=method == b"HEAD")
        assert answer.status < 500 or answer.status in {501, 505}, (target, answer)
        assert CANARY_BYTES not in answer.body, target
        assert b"root:" not in answer.body, target
        assert SECRET.encode() not in answer.body, target
        assert str(self.server.folder).encode() not in answer.body, target
        return answer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("paths")
    server = FileServer(folder / "server", {"uploads": {"durability": "relaxed"}, "logging": {"level": "warn"}})
    server.start()
    made = Site(server)
    try:
        target = b"/upload/" + VICTIM.encode()
        signature = mac(b"%b %d" % (VICTIM.encode(), len(VICTIM_BYTES)))
        assert made.ask(b"PUT", target + b"?v=" + signature.encode(), body=VICTIM_BYTES).status == 201
        made.stored[VICTIM.encode()] = VICTIM_BYTES
        (server.storage / PRIVATE / CANARY).write_bytes(CANARY_BYTES)
        (server.folder / CANARY).write_bytes(CANARY_BYTES)
        (server.folder / "files-beside").mkdir()
        (server.folder / "files-beside" / CANARY).write_bytes(CANARY_BYTES)
        made.before = made.around()
        yield made
        judge(server)
    finally:
        made.line.close()
        server.stop()


@pytest.fixture(autouse=True)
def nothing_outside(site: Site) -> Iterator[None]:
    """After each test: nothing outside the root has changed, and in it is what was acknowledged."""
    yield
    assert site.around() == site.before
    assert (site.server.storage / PRIVATE / CANARY).read_bytes() == CANARY_BYTES
    place = site.server.storage
    while place != place.parent:
        place = place.parent
        assert not (place / ESCAPE).exists()
        assert not (place / "tmp" / ESCAPE).exists()
    for name in site.server.files():
        raw = name.encode("utf-8", "surrogateescape")
        if raw in site.stored:
            assert (site.server.storage / name).read_bytes() == site.stored[raw], name
        else:
            folder, _, leaf = name.partition("/")
            assert _FORM_FOLDER.fullmatch(folder), name
            assert "/" not in leaf, name
    for raw in site.stored:
        assert (site.server.storage / raw.decode()).is_file()


def decoded(spelling: bytes) -> bytes:
    """What the path of a target means: the part before the query, its escapes taken once."""
    return unquote_to_bytes(spelling.partition(b"?")[0])


def signed(spelling: bytes, message: bytes, name: bytes) -> bytes:
    """The target with a query that signs it; a query that the spelling has already comes first."""
    return spelling + (b"&" if b"?" in spelling else b"?") + name + b"=" + mac(message).encode()


def test_there_are_as_many_as_promised() -> None:
    assert len(SPELLINGS) >= 2000


def test_put_stores_under_the_signed_path_or_nowhere(site: Site) -> None:
    """Signed for what the target means, so that nothing but the path itself can be refused."""
    statuses: dict[int, int] = {}
    for number, spelling in enumerate(SPELLINGS):
        body = b"corpus %d" % number
        path = decoded(spelling)
        answer = site.ask(b"PUT", signed(b"/upload/" + spelling, b"%b %d" % (path, len(body)), b"v"), body=body)
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status == 201 or 400 <= answer.status < 500, (spelling, answer)
        if answer.status == 201:
            text = path.decode("utf-8")
            assert not {"", ".", ".."} & set(text.split("/")), spelling
            assert "\\" not in text, spelling
            assert path not in site.stored, spelling
            site.stored[path] = body
            assert (site.server.storage / text).read_bytes() == body, spelling
    assert statuses[201] > 100
    assert statuses[400] > 1000


def test_put_of_the_whole_path_form(site: Site) -> None:
    """The Go server signs the path with its base; what is stored is the same."""
    for number, spelling in enumerate(SPELLINGS):
        body = b"whole %d" % number
        path = b"upload/" + decoded(spelling)
        answer = site.ask(b"PUT", signed(b"/upload/" + spelling, b"%b %d" % (path, len(body)), b"v"), body=body)
        assert 400 <= answer.status < 500 or answer.status == 201, (spelling, answer)
        if answer.status == 201:
            assert decoded(spelling) not in site.stored, spelling
            site.stored[decoded(spelling)] = body


@pytest.mark.parametrize(
    "base", [b"/upload/", b"/", b"/download/", b"/download/upload/", b"http://t/upload/", b"HTTPS://u:1/"]
)
def test_get_and_head_give_the_file_that_is_named_or_none(site: Site, base: bytes) -> None:
    """Also where the base is part of the path."""
    hits = 0
    for spelling in SPELLINGS:
        answer = site.ask(b"GET", base + spelling)
        head = site.ask(b"HEAD", base + spelling)
        assert head.status == answer.status, spelling
        assert answer.status == 200 or 400 <= answer.status < 500, (spelling, answer)
        if answer.status == 200:
            path = decoded(spelling)
            if path in {b"", b"/"} and base not in {b"/upload/", b"/download/upload/"}:
                assert answer.headers[b"content-type"].startswith(b"text/html")
                continue
            assert answer.body == site.stored[path], spelling
            assert head.headers[b"content-length"] == b"%d" % len(answer.body)
            hits += 1
    assert hits > 10


def test_delete_removes_the_file_that_is_named_or_none(site: Site) -> None:
    for spelling in SPELLINGS:
        path = decoded(spelling)
        if path == VICTIM.encode():
            continue
        message = path + b"\0" + DELETE_SECRET.encode()
        answer = site.ask(b"DELETE", signed(b"/upload/" + spelling, message, b"token"))
        assert answer.status == 204 or 400 <= answer.status < 500, (spelling, answer)
        if answer.status == 204:
            assert b"\\" not in path
            if site.stored.pop(path, None) is not None:
                assert not (site.server.storage / path.decode()).exists()
    assert (site.server.storage / VICTIM).read_bytes() == VICTIM_BYTES


def form(disposition: bytes, body: bytes) -> bytes:
    return b"--limit\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + body + b"\r\n--limit--\r\n"


def test_forms_store_under_a_path_of_the_server(site: Site) -> None:
    """File names in every syntax a form has for them."""
    signature = b"X-Signature: " + mac(b"/upload").encode()
    kind = b"Content-Type: multipart/form-data; boundary=limit"
    taken = 0
    for number, spelling in enumerate(SPELLINGS):
        raw = unquote_to_bytes(spelling)
        quoted = spelling.replace(b"\\", b"\\\\").replace(b'"', b"%22")
        dispositions = [
            b'name="file"; filename="' + quoted + b'"',
            b'name="file"; filename="' + raw + b'"',
            b'name="file"; filename="x"; filename*=UTF-8\'\'' + spelling,
            b"name=file; filename=" + spelling,
            b'name="' + quoted + b'"; filename="x"',
        ]
        disposition = dispositions[number % 5]
        body = b"form %d" % number
        answer = site.ask(b"POST", b"/upload", signature, kind, body=form(disposition, body))
        assert answer.status == 200 or 400 <= answer.status < 500, (disposition, answer)
        if answer.status == 200:
            document = json.loads(answer.body)
            assert document["size"] == len(body)
            url = document["url"].encode()
            got = site.ask(b"GET", url)
            assert (got.status, got.body) == (200, body), disposition
            shown = document["filename"]
            assert not set(shown) & set('/\\\0\r\n"<>|:*?'), shown
            assert shown.strip(" .") == shown, shown
            taken += 1
    assert taken > 300


def test_form_names_in_every_spelling_of_one_syntax(site: Site) -> None:
    """All spellings once more in the syntax that browsers use."""
    signature = b"X-Signature: " + mac(b"/upload").encode()
    kind = b"Content-Type: multipart/form-data; boundary=limit"
    for number, spelling in enumerate(SPELLINGS):
        disposition = b'name="file"; filename="' + spelling.replace(b'"', b"%22") + b'"'
        answer = site.ask(b"POST", b"/upload", signature, kind, body=form(disposition, b"again %d" % number))
        assert answer.status in {200, 400}, (spelling, answer)


def test_file_name_fields_of_a_put_decide_nothing(site: Site) -> None:
    """X-Filename and Content-Disposition of a PUT name the file for people, never its place."""
    for number, spelling in enumerate(SPELLINGS):
        if any(byte < 0x20 for byte in spelling):
            continue
        path = b"named/%d.bin" % number
        target = b"/upload/" + path
        answer = site.ask(
            b"PUT",
            target,
            b"X-Signature: " + mac(target).encode(),
            b"X-Filename: " + spelling,
            b'Content-Disposition: attachment; filename="' + spelling.replace(b'"', b"") + b'"',
            b"Slug: " + spelling,
            b"Destination: /upload/" + spelling,
            body=b"named",
        )
        assert answer.status == 201, (spelling, answer)
        site.stored[path] = b"named"


def test_paths_in_the_query_decide_nothing(site: Site) -> None:
    for spelling in SPELLINGS:
        value = spelling.replace(b"#", b"%23").replace(b"\\", b"%5c").replace(b" ", b"%20")
        answer = site.ask(b"GET", b"/upload/" + VICTIM.encode() + b"?path=" + value + b"&file=" + value)
        assert answer.status in {200, 414}, (spelling, answer)
        if answer.status == 200:
            assert answer.body == VICTIM_BYTES


def test_folders_are_never_shown(site: Site) -> None:
    for target in (
        b"/upload/victim",
        b"/upload/victim/",
        b"/upload/",
        b"/upload",
        b"/victim",
        b"/named",
        b"/download/",
        b"/download",
    ):
        for method in (b"GET", b"HEAD"):
            assert site.ask(method, target).status in {404, 400}, target


def test_links_planted_in_the_root_are_not_followed(site: Site, tmp_path: Path) -> None:
    """A local user may plant them; they lead outside and to the private folder."""
    storage = site.server.storage
    secret = tmp_path / "secret"
    secret.write_bytes(CANARY_BYTES)
    links = {
        "link-file": secret,
        "link-folder": tmp_path,
        "link-private": storage / PRIVATE,
        "link-private-file": storage / PRIVATE / CANARY,
        "link-inside": storage / VICTIM,
        "link-up": storage.parent,
        "link-proc": Path("/proc/self"),
    }
    try:
        for name, place in links.items():
            (storage / name).symlink_to(place)
        for name in ("link-file", "link-private-file", "link-inside", "link-folder/secret", f"link-private/{CANARY}",
                     f"link-up/{CANARY}", "link-up/config.toml", "link-proc/environ", "link-proc/root/etc/passwd"):  # fmt: skip
            assert site.ask(b"GET", b"/upload/" + name.encode()).status in {403, 404}, name
        for name in (
            "link-file",
            "link-folder/new",
            f"link-private/{ESCAPE}",
            f"link-up/{ESCAPE}",
            "link-private/state.db",
        ):
            path = name.encode()
            answer = site.ask(b"PUT", signed(b"/upload/" + path, b"%b 3" % path, b"v"), body=b"abc")
            assert 400 <= answer.status < 500, (name, answer)
            deletion = path + b"\0" + DELETE_SECRET.encode()
            answer = site.ask(b"DELETE", signed(b"/upload/" + path, deletion, b"token"))
            assert answer.status == 204 or 400 <= answer.status < 500, (name, answer)
        assert secret.read_bytes() == CANARY_BYTES
        assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    finally:
        for name in links:
            (storage / name).unlink(missing_ok=True)
