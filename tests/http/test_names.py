"""Hostile file names on their way through the server: each comes back in Content-Disposition as it was, and as nothing else.

Read by a reader of its own (RFC 6266, RFC 8187) and by the standard library's.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from email.message import Message
from itertools import product
from urllib.parse import quote, unquote

import pytest
from tests.fixtures import slots
from tests.fixtures.server import FileServer
from tests.http.conftest import judge
from tests.http.wire import Answer, Line

_WHOLE = re.compile(
    rb"(inline|attachment); filename=\"([ !#-\[\]-~]*)\"(?:; filename\*=UTF-8''([A-Za-z0-9!#$&+^_`|~.%-]+))?"
)
_UNFIT = {
    *range(0x20),
    *range(0x7F, 0xA0),
    0x61C,
    0x200E,
    0x200F,
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
}
_DEVICES = ("con", "prn", "aux", "nul", "conin$", "conout$", "clock$", *(f"{kind}{n}" for kind in ("com", "lpt") for n in "0123456789\u00b9\u00b2\u00b3"))  # fmt: skip


def names() -> list[str]:
    """Names that have broken headers, parsers, file systems, terminals and the eyes of people."""
    found = [
        'a"b', "a'b", "a;b", "a,b", "a=b", "a%b", "a%41b", "a%22b", "a%0d%0ab", "a b", " a", "a ", "a  b", "a\u00a0b", "*", "a*b",
        "filename", 'x"; filename="y', "x'; filename*=UTF-8''y", "x; filename=y", 'x".html', "=?utf-8?q?a=22?=", "=?utf-8?b?YQ==?=", "UTF-8''a", "a\u2028b",
        "a\u202egpj.exe", "\u202ea", "a\u200bb", "a\ufeffb", "\ufeffa", "a\u0301", "\u00e1", "\u1e9b\u0323", "\ufb03", "\u2126", "\u212b", "\uff0e\uff0e", "\u2024\u2024",
        "..a", "a..", "...", ".a", "-rf", "--help", "~", "~root", "$(id)", "`id`", "|id", "a&b", "a<b>", "<script>alert(1)<svg>.svg", "{}", "[]", "a?b", "a#b", "a:b",
        "\U0001f600", "\U0001f468\u200d\U0001f469", "\U000e0041", "\U0010ffff", "\ud7ff", "\ue000", "\uffff", "x" * 200, "\u00fc" * 100, "\U0001f600" * 50, "a" * 196 + ".jpg",
    ]  # fmt: skip
    found += [device + tail for device, tail in product(_DEVICES, ("", ".txt", " ", ".tar.gz", ":x"))]
    found += [f"dev-{device}" for device in _DEVICES]
    found += [f"p{chr(code)}q" for code in range(0x20, 0x7F) if chr(code) not in "/\\"]
    found += [f"e{chr(code)}.txt" for code in range(0xA0, 0x100)]
    found += [
        f"m{chr(code)}n.bin"
        for code in (
            *range(0x200B, 0x2010),
            *range(0x2028, 0x202F),
            *range(0x2060, 0x206A),
            0x61C,
            0x180E,
            0x115F,
            0x3164,
            0xFE0F,
            0xFFFD,
        )
    ]
    found += [
        f"{script}.pdf"
        for script in (
            "\u043f\u0440\u0438\u0432\u0435\u0442",
            "\u4f60\u597d",
            "\u05e9\u05dc\u05d5\u05dd",
            "\u0645\u0631\u062d\u0628\u0627",
            "\u0928\u092e\u0938\u094d\u0924\u0947",
        )
    ]
    found += [f"{one}{two}" for one, two in product(('"', "'", ";", "%", "*", "=", ","), repeat=2)]
    return list(dict.fromkeys(found))


NAMES = names()


def shown(name: str) -> str:
    """What people are shown of it."""
    text = "".join("_" if ord(letter) in _UNFIT else letter for letter in name)
    stem = re.split(r"[.:]", text, maxsplit=1)[0].rstrip(" ")
    return "_" + text if stem.lower() in _DEVICES else text


def told(answer: Answer) -> str:
    """The name in Content-Disposition; AssertionError when it could be read in two ways."""
    field = answer.headers[b"content-disposition"]
    whole = _WHOLE.fullmatch(field)
    assert whole is not None, field
    fallback = whole[2].decode("ascii")
    if whole[3] is None:
        name = fallback
    else:
        name = unquote(whole[3].decode("ascii"), errors="strict")
        # The fallback is the same name, with a mark where ASCII has no letter for it.
        assert len(fallback) == len(name), field
        assert all(one in {other, "_"} for one, other in zip(fallback, name, strict=True)), field
    message = Message()
    message["Content-Disposition"] = field.decode("ascii")
    assert message.get_content_disposition() == whole[1].decode()
    if whole[3] is None:
        # It takes spaces off, quoted or not.
        assert (message.get_filename() or "").strip() == name.strip(), field
    return name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    found = FileServer(tmp_path_factory.mktemp("names") / "server", {"uploads": {"durability": "relaxed"}})
    found.start()
    try:
        yield found
        judge(found)
    finally:
        found.stop()


def ask(line: Line, method: str, target: str, *fields: str, body: bytes = b"") -> Answer:
    length = [f"Content-Length: {len(body)}"] if method != "GET" else []
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: t", *fields, *length])
    return line.ask(head.encode("latin-1") + b"\r\n\r\n" + body)


def test_there_are_as_many_as_promised() -> None:
    assert len(NAMES) >= 500
    assert any(unicodedata.normalize("NFC", name) != name for name in NAMES)


def test_names_in_paths_come_back(server: FileServer) -> None:
    """A path keeps its last segment byte for byte; in the field is what may be shown of it."""
    line = Line(server.port)
    taken = 0
    for number, name in enumerate(NAMES):
        path = f"n{number}/{name}"
        put = ask(line, "PUT", slots.target(path, slots.v1(path, 1)), body=b"x")
        if name in {"...", "a.."} or put.status == 201:
            assert put.status == 201, (name, put)
            got = ask(line, "GET", "/upload/" + quote(path))
            assert (got.status, got.body) == (200, b"x"), name
            assert told(got) == shown(name), name
            assert (server.storage / f"n{number}" / name).read_bytes() == b"x"
            taken += 1
        else:
            # Names with controls, which no path may have, and two that are too long.
            assert put.status == 400, (name, put)
            assert set(map(ord, name)) & _UNFIT or len(name.encode()) > 255, name
    line.close()
    assert taken > 480


def test_names_in_forms_come_back(server: FileServer) -> None:
    """As browsers send them; what no file system takes became a mark, and the receipt says so."""
    line = Line(server.port)
    signature = "X-Signature: " + slots.x_signature("/upload")
    kind = "Content-Type: multipart/form-data; boundary=limit"
    for name in NAMES:
        sent = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22").encode()
        body = (
            b'--limit\r\nContent-Disposition: form-data; name="file"; filename="'
            + sent
            + b'"\r\n\r\nx\r\n--limit--\r\n'
        )
        posted = ask(line, "POST", "/upload", signature, kind, body=body)
        assert posted.status == 200, (name, posted)
        document = json.loads(posted.body)
        got = ask(line, "GET", document["url"])
        assert (got.status, got.body) == (200, b"x"), name
        receipt = document["filename"]
        assert told(got) == shown(receipt), (name, receipt)
        assert not set(receipt) & set('/\\"<>|:*?'), receipt
        assert receipt.strip(" .") == receipt, receipt
        assert len(receipt.encode()) <= 200
        plain = re.fullmatch(r"[A-Za-z0-9._-]+", name)
        if plain and name.strip(" .") == name:
            assert receipt == name
    line.close()


def test_names_of_sessions_come_back(server: FileServer) -> None:
    """X-Filename, escaped as a browser must: the receipt, the status and the download have one name."""
    line = Line(server.port)
    signature = "X-Signature: " + slots.x_signature("/upload/chunked")
    for name in NAMES[::2]:
        made = ask(line, "POST", "/upload/chunked", signature, "X-Filename: " + quote(name, safe=""), "X-Total-Size: 0")
        assert made.status == 201, (name, made)
        document = json.loads(made.body)
        status = json.loads(ask(line, "GET", "/upload/status?session_id=" + document["session_id"]).body)
        assert status["filename"] == document["filename"], name
        got = ask(line, "GET", document["url"])
        assert (got.status, got.body) == (200, b""), name
        assert told(got) == shown(document["filename"]), name
    line.close()
