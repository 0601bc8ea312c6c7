"""POST /upload: forms of curl and browsers, and the hostile ones that parsers have fallen for (S-20)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.curl import curl
from tests.fixtures.server import Answer, FileServer, StartServer
from tests.server import signatures
from tests.server.wire import Wire

SIGNED = {"X-Signature": signatures.mac("/upload")}
BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
KIB = 1024


def part(disposition: str, body: bytes, *fields: str) -> bytes:
    """One part with its boundary before it."""
    head = "\r\n".join((f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *fields))
    return head.encode() + b"\r\n\r\n" + body + b"\r\n"


def file_part(body: bytes, filename: str = "a.bin", *fields: str) -> bytes:
    return part(f'form-data; name="file"; filename="{filename}"', body, *fields)


END = f"--{BOUNDARY}--\r\n".encode()


def post(server: FileServer, form: bytes, boundary: str = BOUNDARY, **headers: str) -> Answer:
    fields = {"Content-Type": f"multipart/form-data; boundary={boundary}", **SIGNED, **headers}
    return server.request("POST", "/upload", form, fields)


def stored(server: FileServer, answer: Answer, body: bytes) -> dict[str, object]:
    """The receipt of a form whose file is served under the URL it names."""
    assert answer.status == 200, answer.body
    receipt = answer.json()
    assert receipt["success"] is True
    assert receipt["size"] == len(body)
    assert re.fullmatch(r"/[0-9a-f]{32}/[^/]+", str(receipt["url"])), receipt
    got = server.request("GET", str(receipt["url"]))
    assert (got.status, got.body == body) == (200, True)
    return receipt


def refused(answer: Answer, status: int = 400, code: str = "bad_multipart") -> None:
    assert (answer.status, answer.json()["code"]) == (status, code), answer.body


@pytest.fixture
def untouched(module_server: FileServer) -> Iterator[None]:
    """A test after which there are as many files as before, and nothing is being spooled."""
    before = module_server.files()
    yield
    assert module_server.files() == before
    wait_until(lambda: not module_server.spooled(), "nothing is being spooled")


# --- good forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_the_guides_curl_call(module_server: FileServer, tmp_path: Path, size: int) -> None:
    """`curl -X POST -F 'file=@large_file.zip' -H "X-Signature: ..."`, as the guide prints it."""
    file = tmp_path / "large_file.zip"
    file.write_bytes(content(size, f"guide {size}"))
    sent = curl(
        *("-X", "POST", "-F", f"file=@{file}", "-H", f"X-Signature: {SIGNED['X-Signature']}"),
        f"{module_server.url}/upload",
    )
    assert (sent.exit_code, sent.status) == (0, 200), sent.trace[-2000:]
    answer = Answer(sent.status, sent.headers(), sent.body)
    receipt = stored(module_server, answer, file.read_bytes())
    assert receipt["filename"] == "large_file.zip"
    assert str(receipt["url"]).endswith("/large_file.zip")


def test_fields_around_the_file(module_server: FileServer) -> None:
    body = content(70_000, "fields")
    form = part('form-data; name="title"', b"A title") + file_part(body) + part('form-data; name="note"', b"") + END
    stored(module_server, post(module_server, form), body)


def test_a_file_field_without_a_file_name(module_server: FileServer) -> None:
    receipt = stored(module_server, post(module_server, part('form-data; name="file"', b"text") + END), b"text")
    assert receipt["filename"] == "file"


def test_two_people_may_upload_one_name(module_server: FileServer) -> None:
    first = stored(module_server, post(module_server, file_part(b"one", "photo.jpg") + END), b"one")
    second = stored(module_server, post(module_server, file_part(b"two", "photo.jpg") + END), b"two")
    assert first["url"] != second["url"]


def test_the_type_of_the_part_is_kept(module_server: FileServer) -> None:
    for fields, media_type in (
        (("Content-Type: text/plain; charset=iso-8859-1",), "text/plain; charset=iso-8859-1"),
        (("Content-Type: image/png",), "image/png"),
        ((), "application/octet-stream"),
    ):
        receipt = stored(module_server, post(module_server, file_part(b"x", "a.bin", *fields) + END), b"x")
        assert module_server.request("HEAD", str(receipt["url"])).headers["content-type"] == media_type


TRICKY = (
    b"",
    b"\r\n",
    b"--",
    f"--{BOUNDARY}".encode(),
    f"\r\n--{BOUNDARY}".encode()[:-1],
    f"\r\n-{BOUNDARY}\r\n".encode(),
    f"--{BOUNDARY}--\r\n".encode(),
    b"\r" * 1000,
    b"\r\n--" * 1000,
    b"\x00\xff" * 500,
)


@pytest.mark.parametrize("number", range(len(TRICKY)))
@pytest.mark.parametrize("step", [1, 7])
def test_any_cut_of_the_bytes_gives_the_same_file(module_server: FileServer, number: int, step: int) -> None:
    """Bytes that look like the boundary, sent in pieces: also the line end after the last boundary comes alone."""
    body = TRICKY[number]
    form = file_part(body) + END
    with Wire(module_server) as wire:
        wire.head(
            "POST",
            "/upload",
            {
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                "Transfer-Encoding": "chunked",
                **SIGNED,
            },
        )
        for start in range(0, len(form), step):
            piece = form[start : start + step]
            wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        wire.send(b"0\r\n\r\n")
        stored(module_server, wire.answer(), body)


def test_the_last_line_end_in_a_packet_of_its_own(module_server: FileServer) -> None:
    body = content(300_000, "tail")
    form = file_part(body) + END
    with Wire(module_server) as wire:
        wire.head(
            "POST",
            "/upload",
            {
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                "Content-Length": str(len(form)),
                **SIGNED,
            },
        )
        wire.send(form[:-2])
        wait_until(lambda: bool(module_server.spooled()), "the form was read")
        wire.send(form[-2:])
        stored(module_server, wire.answer(), body)


@pytest.mark.parametrize("boundary", ["b", "a b", "'()+_,-./:=?", "0" * 70])
def test_boundaries_of_every_kind(module_server: FileServer, boundary: str) -> None:
    form = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--{boundary}--'
    stored(module_server, post(module_server, form.encode(), f'"{boundary}"'), b"x")


# --- names -----------------------------------------------------------------------------------------------

NAMES = {
    "../../../../etc/passwd": "_.._.._.._etc_passwd",
    "..\\..\\windows\\system32": "_.._windows_system32",
    "C:\\Users\\me\\photo.jpg": "photo.jpg",
    "/etc/passwd": "_etc_passwd",
    "..": "file",
    ".": "file",
    "": "file",
    "   ": "file",
    ".hmac-file-server": "hmac-file-server",
    "a%0D%0ASet-Cookie: x=1": "a__Set-Cookie_ x=1",
    "a%22b.txt": "a_b.txt",
    "a%00b%2fc": "a%00b%2fc",
    "a\x00b.txt": "a_b.txt",
    "a\x1b[31mb": "a_[31mb",
    "photo\u202egpj.exe": "photo_gpj.exe",
    "zero\u200bwidth": "zero_width",
    "naïve café.txt": "naïve café.txt",
    "日本語.txt": "日本語.txt",
    "emoji 👍.png": "emoji 👍.png",
    "cafe\u0301.txt": "café.txt",
    "con<>|?*.txt": "con_____.txt",
    "trailing. . .": "trailing",
    "x" * 300 + ".jpeg": "x" * 195 + ".jpeg",
    "ü" * 300: "ü" * 100,
}


@pytest.mark.parametrize("given", list(NAMES), ids=range(len(NAMES)))
def test_names_never_decide_where_bytes_go(module_server: FileServer, given: str) -> None:
    wanted = NAMES[given]
    receipt = stored(module_server, post(module_server, file_part(b"x", given) + END), b"x")
    assert receipt["filename"] == wanted
    folder, _, name = unquote(str(receipt["url"])).removeprefix("/").partition("/")
    assert name == wanted
    assert (module_server.storage / folder / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ("form-data; name=\"file\"; filename*=UTF-8''na%C3%AFve.txt", "file"),
        ('form-data; name="file"; filename="a.txt"; filename*=UTF-8\'\'..%2F..%2Fb.txt', "a.txt"),
        ('form-data; name="file"; filename*=UTF-8\'\'a; filename="a.txt"', "a.txt"),
        ("form-data; name=file; filename=a.txt", "a.txt"),
        ('form-data; filename="a.txt"; name="file"', "a.txt"),
        ('form-data; name="file"; filename="a \\"b\\".txt"', "a _b_.txt"),
        ('form-data; name="file"; filename="a;b=c.txt"', "a;b=c.txt"),
        ('FORM-DATA; Name="file"; FileName="a.txt"', "a.txt"),
        ('form-data;name="file";filename="a.txt"', "a.txt"),
    ],
)
def test_spellings_of_the_disposition(module_server: FileServer, disposition: str, filename: str) -> None:
    """`filename*` has no place in forms (RFC 7578 section 4.2) and never wins."""
    receipt = stored(module_server, post(module_server, part(disposition, b"x") + END), b"x")
    assert receipt["filename"] == filename


# --- hostile forms ---------------------------------------------------------------------------------------

NAMED = 'form-data; name="file"; filename="a"'
HOSTILE = {
    "two files": file_part(b"one") + file_part(b"two") + END,
    "two files, one name": part('form-data; name="file"', b"one") + part('form-data; name="file"', b"two") + END,
    "no file": part('form-data; name="title"', b"x") + END,
    "no part": END,
    "empty": b"",
    "file under another field": part('form-data; name="upload"; filename="a"', b"x") + END,
    "no closing boundary": file_part(b"x"),
    "no boundary at all": b"x" * 5000,
    "cut in the head": f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"'.encode(),
    "cut in the boundary": (file_part(b"x") + END)[:-10],
    "preamble": b"This is a multi-part message in MIME format.\r\n" + file_part(b"x") + END,
    "preamble of line ends": b"\r\n" * 4 + file_part(b"x") + END,
    "giant preamble": b"x" * 1_000_000 + b"\r\n" + file_part(b"x") + END,
    "giant epilogue": file_part(b"x") + END + b"x" * 1_000_000,
    "giant epilogue of line ends": file_part(b"x") + END + b"\r\n" * 500_000,
    "giant part header": part(NAMED, b"x", "X-Junk: " + "y" * 100_000) + END,
    "endless part header": f"--{BOUNDARY}\r\nX-Junk: ".encode() + b"y" * 1_000_000,
    "many part headers": part(NAMED, b"x", *(f"X-{number}: y" for number in range(100))) + END,
    "giant name": part(f'form-data; name="{"n" * 100_000}"; filename="a"', b"x") + END,
    "many parameters": part("form-data" + '; a="b"' * 5_000, b"x") + END,
    "10,000 parts": part('form-data; name="a"', b"") * 10_000 + END,
    "9 parts": part('form-data; name="a"', b"") * 8 + file_part(b"x") + END,
    "long fields": part('form-data; name="a"', b"y" * 70_000) + file_part(b"x") + END,
    "long fields after the file": file_part(b"x") + part('form-data; name="a"', b"y" * 70_000) + END,
    "no disposition": f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n".encode() + END,
    "another disposition": part('attachment; name="file"; filename="a"', b"x") + END,
    "no name": part('form-data; filename="a"', b"x") + END,
    "bare line feeds": file_part(b"x").replace(b"\r\n", b"\n") + END,
    "space before the colon": f"--{BOUNDARY}\r\nContent-Disposition : {NAMED}\r\n\r\nx\r\n".encode() + END,
    "no colon": f"--{BOUNDARY}\r\nContent-Disposition\r\n\r\nx\r\n".encode() + END,
    "not UTF-8": part(NAMED, b"x").replace(b'"a"', b'"\xff\xfe"') + END,
    "part length too small": part(NAMED, b"xxxx", "Content-Length: 1") + END,
    "part length too large": part(NAMED, b"x", "Content-Length: 1000") + END,
    "part length malformed": part(NAMED, b"x", "Content-Length: +1") + END,
    "junk after the boundary": file_part(b"x").replace(BOUNDARY.encode(), BOUNDARY.encode() + b"junk", 1) + END,
}
# Forms that a lenient receiver may take; what matters is that the file is then whole.
EITHER = {"space before the colon"}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_forms(module_server: FileServer, name: str) -> None:
    before = module_server.files()
    answer = post(module_server, HOSTILE[name])
    if name in EITHER and answer.status == 200:
        stored(module_server, answer, b"x")
        return
    refused(answer)
    assert module_server.files() == before
    wait_until(lambda: not module_server.spooled(), "nothing is being spooled")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=b",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "b" * 71,
        'multipart/form-data; boundary="b "',
        'multipart/form-data; boundary="b\tb"',
        "multipart/form-data; boundary=b\x7fb",
        "multipart/form-data; charset=b",
        "multipart/form-data, boundary=b",
    ],
)
def test_what_is_no_form(module_server: FileServer, content_type: str) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    headers = {"Content-Type": content_type} if content_type else {}
    answer = module_server.request("POST", "/upload", form, {**SIGNED, **headers})
    if answer.status != 400:
        refused(answer, 415, "not_multipart")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("media_type", ["nonsense", "text/html\x0b", "x/" + "y" * 300, "text/plain; charset=ü"])
def test_a_part_type_that_is_none(module_server: FileServer, media_type: str) -> None:
    form = file_part(b"x", "a.bin", f"Content-Type: {media_type}") + END
    refused(post(module_server, form), 400, "bad_media_type")


@pytest.mark.usefixtures("untouched")
def test_a_form_that_is_cut(module_server: FileServer) -> None:
    form = file_part(content(400_000, "cut")) + END
    for stop in (10, 100, 300_000, len(form) - 3):
        with Wire(module_server) as wire:
            wire.head(
                "POST",
                "/upload",
                {
                    "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                    "Content-Length": str(len(form)),
                    **SIGNED,
                },
            )
            wire.send(form[:stop])
            wire.sock.shutdown(1)
            refused(wire.answer(), 400, "incomplete")


# --- bounds ----------------------------------------------------------------------------------------------


def test_the_file_of_a_form_has_a_limit(start_server: StartServer) -> None:
    limit = 256 * KIB
    server = start_server({"server": {"max_upload_size": limit}})
    stored(server, post(server, file_part(bytes(limit)) + END), bytes(limit))
    before = server.files()
    refused(post(server, file_part(bytes(limit + 1)) + END), 413, "too_large")
    refused(post(server, file_part(bytes(4 * limit)) + END), 413, "too_large")
    with Wire(server) as wire:
        wire.head(
            "POST",
            "/upload",
            {
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                "Transfer-Encoding": "chunked",
                **SIGNED,
            },
        )
        wire.send(b"%x\r\n%b\r\n" % (len(file_part(b"")) - 2, file_part(b"")[:-2]))
        for _ in range(5):
            wire.send(b"10000\r\n" + bytes(65536) + b"\r\n")
        refused(wire.answer(), 413, "too_large")
    assert server.files() == before
    wait_until(lambda: not server.spooled(), "nothing is being spooled")


def test_a_large_form_asks_before_it_sends(start_server: StartServer) -> None:
    """Too large, or no room: told before 100-continue."""
    server = start_server({"server": {"max_upload_size": "1000TB"}})
    for length, status, code in ((10**16, 413, "too_large"), (10**15, 507, "storage_full")):
        with Wire(server) as wire:
            wire.head(
                "POST",
                "/upload",
                {
                    "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                    "Content-Length": str(length),
                    "Expect": "100-continue",
                    **SIGNED,
                },
            )
            refused(wire.next_answer(), status, code)


def test_allowed_extensions_hold_for_forms(start_server: StartServer) -> None:
    server = start_server({"uploads": {"allowed_extensions": ["jpg"]}})
    refused(post(server, file_part(b"x", "a.exe") + END), 415, "extension_refused")
    refused(post(server, part('form-data; name="file"', b"x") + END), 415, "extension_refused")
    stored(server, post(server, file_part(b"x", "a.JPG") + END), b"x")


def test_a_strong_signature_binds_the_files_size_and_name(module_server: FileServer) -> None:
    headers = signatures.strong("POST", "/upload", 4, "signed.txt")
    body = file_part(b"four", "unsigned.html") + END

    def send(form: bytes, **fields: str) -> Answer:
        content_type = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return module_server.request("POST", "/upload", form, {**content_type, **headers, **fields})

    refused(send(body), 411, "length_required")
    refused(send(body, **{"X-Total-Size": "5"}), 403, "bad_signature")
    before = module_server.files()
    refused(send(file_part(b"three") + END, **{"X-Total-Size": "4"}), 413, "too_large")
    refused(send(file_part(b"two") + END, **{"X-Total-Size": "4"}), 413, "size_mismatch")
    assert module_server.files() == before
    receipt = stored(module_server, send(body, **{"X-Total-Size": "4"}), b"four")
    assert receipt["filename"] == "signed.txt"


def by_ticket(server: FileServer, form: bytes, **claims: object) -> Answer:
    headers = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        **signatures.bearer(signatures.ticket(**claims)),
    }
    return server.request("POST", "/upload", form, headers)


def test_a_tickets_prefix_holds_for_forms(module_server: FileServer) -> None:
    answer = by_ticket(module_server, file_part(b"x", "a.txt") + END, prefix="alice/inbox")
    assert answer.status == 200
    url = str(answer.json()["url"])
    assert re.fullmatch(r"/alice/inbox/[0-9a-f]{32}/a\.txt", url)
    assert module_server.request("GET", url).body == b"x"


def test_a_tickets_path_holds_for_forms(module_server: FileServer) -> None:
    form = file_part(b"x", "whatever.exe") + END
    answer = by_ticket(module_server, form, path="bob/photo.jpg")
    assert (answer.status, answer.json()["url"]) == (200, "/bob/photo.jpg")
    assert by_ticket(module_server, form, path="bob/photo.jpg").status == 200
    refused(by_ticket(module_server, file_part(b"y") + END, path="bob/photo.jpg"), 409, "exists")
    refused(by_ticket(module_server, form, path="bob/../carol"), 400, "path_segment")
    refused(by_ticket(module_server, form, path=".hmac-file-server/lock"), 400, "path_private")


def test_a_tickets_size_and_type_hold_for_forms(module_server: FileServer) -> None:
    png = file_part(b"12345", "a.png", "Content-Type: image/png") + END
    assert by_ticket(module_server, png, prefix="", max_size=5, type="image/png").status == 200
    refused(by_ticket(module_server, png, prefix="", max_size=4), 413, "too_large")
    refused(by_ticket(module_server, png, prefix="", type="image/jpeg"), 415, "type_mismatch")
    refused(by_ticket(module_server, png, prefix="", ops=["put"]), 403, "not_covered")
