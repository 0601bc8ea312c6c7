"""XMPP servers hand out slots, XMPP clients upload through them, and the files come back whole.

Every test runs once for Prosody v1, Prosody v2, Prosody http_file_share (JWT) and ejabberd.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from tests.fixtures.child import program, wait_until
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, Answer, FileServer
from tests.fixtures.xmpp import PASSWORD, Prosody, Slot, XmppHost, documented_components, logged_in, request_slot

ODD_NAMES = [
    "bar.jpg",
    "très cool.jpg",
    "a+b&c%20 (1).txt",
    "50% off#?;=@~!$'*.tar.gz",
    "日本.png",
    "...",
    ".hidden",
    "%2e%2e",
    "%00.txt",
    "%2f.txt",
    "a:b|c<d>\"e'.txt",
    "семья 👨‍👩‍👧.webp",
    "x" * 200 + ".bin",
]


def target(url: str) -> str:
    """The request target exactly as the URL spells it."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def put(
    server: FileServer, slot: Slot, body: bytes, media_type: str | None, *, headers: dict[str, str] | None = None
) -> Answer:
    """PUT the way a C or Go client does: the URL byte for byte as it came in the slot."""
    sent = dict(slot.headers if headers is None else headers)
    if media_type is not None:
        sent["Content-Type"] = media_type
    return server.request("PUT", target(slot.put), body, sent)


def grant(host: XmppHost, name: str, size: int, media_type: str | None = "application/octet-stream") -> Slot:
    async def ask() -> Slot:
        async with logged_in(host) as client:
            return await request_slot(client, host, name, size, media_type)

    return asyncio.run(ask())


def is_jwt(host: XmppHost) -> bool:
    return host.domain == "jwt.test"


def test_slot_put_and_everything_a_client_asks_afterwards(shared_server: FileServer, xmpp_host: XmppHost) -> None:
    body = content(1_000_003, xmpp_host.domain)
    slot = grant(xmpp_host, "bar.jpg", len(body), "image/jpeg")
    where = target(slot.get)

    assert shared_server.request("GET", where).status == 404
    created = put(shared_server, slot, body, "image/jpeg")
    assert (created.status, created.body) == (201, b"")

    head = shared_server.request("HEAD", where)
    assert head.status == 200
    assert head.headers["content-length"] == str(len(body))
    assert head.headers["content-type"] == "image/jpeg"
    assert head.headers["accept-ranges"] == "bytes"
    assert head.headers["x-content-type-options"] == "nosniff"

    whole = shared_server.request("GET", where)
    assert (whole.status, whole.body == body) == (200, True)
    assert whole.headers["etag"] == head.headers["etag"]

    part = shared_server.request("GET", where, headers={"Range": "bytes=500000-500099"})
    assert (part.status, part.body) == (206, body[500_000:500_100])
    assert part.headers["content-range"] == f"bytes 500000-500099/{len(body)}"
    tail = shared_server.request("GET", where, headers={"Range": "bytes=-7"})
    assert (tail.status, tail.body) == (206, body[-7:])
    beyond = shared_server.request("GET", where, headers={"Range": f"bytes={len(body)}-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(body)}")
    cached = shared_server.request("GET", where, headers={"If-None-Match": whole.headers["etag"]})
    assert (cached.status, cached.body) == (304, b"")

    assert put(shared_server, slot, body, "image/jpeg").status == 201
    other = bytes([body[0] ^ 1]) + body[1:]
    assert put(shared_server, slot, other, "image/jpeg").status == 409
    wrong_size = put(shared_server, slot, body + b"x", "image/jpeg")
    assert wrong_size.status == (413 if is_jwt(xmpp_host) else 403)
    assert shared_server.request("GET", where).body == body


def test_a_slot_is_good_for_its_own_size_and_signature_only(shared_server: FileServer, xmpp_host: XmppHost) -> None:
    body = content(1234, "size")
    slot = grant(xmpp_host, "sized.bin", len(body))
    assert put(shared_server, slot, body[:-1], None).status in {403, 413}
    assert put(shared_server, slot, body + b"x", None).status in {403, 413}

    bare = Slot(slot.put.split("?")[0], slot.get, {})
    unsigned = put(shared_server, bare, body, None)
    assert unsigned.status == 403
    if is_jwt(xmpp_host):
        forged = slot.headers["Authorization"][:-1] + ("A" if slot.headers["Authorization"][-1] != "A" else "B")
        refused = put(shared_server, slot, body, None, headers={"Authorization": forged})
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
    else:
        last = slot.put[-1]
        refused = put(shared_server, Slot(slot.put[:-1] + ("0" if last != "0" else "1"), slot.get, {}), body, None)
        assert refused.status == 403
    assert shared_server.request("GET", target(slot.get)).status == 404
    assert put(shared_server, slot, body, None).status == 201


def test_v2_binds_the_type_and_the_others_keep_what_was_sent(shared_server: FileServer, xmpp_host: XmppHost) -> None:
    body = content(77, "type")
    slot = grant(xmpp_host, "typed", len(body), "video/mp4")
    if xmpp_host.domain == "v2.test":
        assert put(shared_server, slot, body, "video/webm").status == 403
        assert put(shared_server, slot, body, None).status == 403
    assert put(shared_server, slot, body, "video/mp4").status == 201
    assert shared_server.request("HEAD", target(slot.get)).headers["content-type"] == "video/mp4"


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_names_arrive_and_come_back(shared_server: FileServer, xmpp_host: XmppHost, name: str) -> None:
    """Once with slixmpp's own uploader (aiohttp re-escapes the URL), once with the URL as it came."""
    by_library = content(3000, "library" + name + xmpp_host.domain)
    as_spelled = content(2999, "spelled" + name + xmpp_host.domain)

    async def upload() -> tuple[str, Slot]:
        async with logged_in(xmpp_host) as client:
            url = await client.plugin["xep_0363"].upload_file(
                name,
                size=len(by_library),
                content_type="application/x-odd",
                input_file=io.BytesIO(by_library),
                domain=None,
                timeout=10,
            )
            slot = await request_slot(client, xmpp_host, name, len(as_spelled), "text/plain; charset=utf-8")
            return url, slot

    url, slot = asyncio.run(upload())
    got = shared_server.request("GET", target(url))
    assert (got.status, got.body == by_library) == (200, True)
    assert got.headers["content-type"] == "application/x-odd"
    assert got.headers["content-disposition"].startswith("attachment")

    assert put(shared_server, slot, as_spelled, "text/plain; charset=utf-8").status == 201
    again = shared_server.request("GET", target(slot.get))
    assert (again.status, again.body == as_spelled) == (200, True)
    assert again.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["..", "."])
def test_dot_names_are_refused(shared_server: FileServer, xmpp_host: XmppHost, name: str) -> None:
    """Prosody's modules and ejabberd grant a slot for "..": it is ours to refuse it."""
    slot = grant(xmpp_host, name, 3)
    before = shared_server.files()
    assert slot.put.split("?")[0].endswith("/" + name)
    assert put(shared_server, slot, b"abc", "application/octet-stream").status == 400
    assert shared_server.files() == before


def test_aiohttp_streams_a_body_of_known_length(shared_server: FileServer, xmpp_host: XmppHost) -> None:
    pieces = [content(size, f"piece {size}") for size in (1, 65_537, 300_000, 16)]
    body = b"".join(pieces)

    async def upload() -> tuple[int, str]:
        async with logged_in(xmpp_host) as client:
            slot = await request_slot(client, xmpp_host, "piecewise.ogg", len(body), "audio/ogg")

        async def piecewise() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        headers = {**slot.headers, "Content-Type": "audio/ogg", "Content-Length": str(len(body))}
        async with (
            aiohttp.ClientSession() as session,
            session.put(slot.put, data=piecewise(), headers=headers) as answer,
        ):
            return answer.status, slot.get

    status, url = asyncio.run(upload())
    assert status == 201
    got = shared_server.request("GET", target(url))
    assert (got.status, got.body == body, got.headers["content-type"]) == (200, True, "audio/ogg")


def test_empty_file_without_a_type(shared_server: FileServer, xmpp_host: XmppHost) -> None:
    if xmpp_host.domain == "localhost":
        # ejabberd follows the schema of XEP-0363 and grants no slot for an empty file.
        with pytest.raises(Exception, match=r"(?i)size|not-acceptable|bad-request"):
            grant(xmpp_host, "noext", 0, None)
        return
    slot = grant(xmpp_host, "noext", 0, None)
    assert put(shared_server, slot, b"", None).status == 201
    got = shared_server.request("GET", target(slot.get))
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "0")
    assert got.headers["content-type"] == "application/octet-stream"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_aiohttp_sees_the_refusal_of_a_large_body(shared_server: FileServer, xmpp_host: XmppHost) -> None:
    """The status of an early refusal reaches a client that is still sending, not a dead connection."""
    size = 8 << 20
    slot = grant(xmpp_host, "refused.bin", size - 1)

    async def upload() -> int:
        headers = {**slot.headers, "Content-Type": "application/octet-stream"}
        async with (
            aiohttp.ClientSession() as session,
            session.put(slot.put, data=io.BytesIO(bytes(size)), headers=headers) as answer,
        ):
            return answer.status

    assert asyncio.run(upload()) == (413 if is_jwt(xmpp_host) else 403)
    # aiohttp may leave its transport behind while that still closes; what is said of it belongs to this test.
    gc.collect()
    assert shared_server.request("GET", target(slot.get)).status == 404


def test_the_log_says_what_differed_and_keeps_the_secrets(server: FileServer, tmp_path: Path) -> None:
    """The most frequent fault of v2 set-ups: the client announces a type and sends none."""
    prosody = Prosody(tmp_path, documented_components(f"{server.url}/upload"))
    try:
        by_type = grant(prosody.hosts["v2.test"], "photo.jpg", 5, "image/jpeg")
        by_token = grant(prosody.hosts["jwt.test"], "photo.jpg", 5, "image/jpeg")
    finally:
        prosody.stop()
    assert put(server, by_type, b"photo", None).status == 403
    assert put(server, by_type, b"photo", "image/jpeg").status == 201
    assert put(server, by_token, b"photo", "image/jpeg").status == 201

    def line(word: str) -> str:
        found = [entry for entry in server.log_text().splitlines() if word in entry]
        return found[0] if found else ""

    # Log lines are written behind the answers.
    wait_until(lambda: f"PUT {urlsplit(by_token.put).path} 201" in server.log_text(), "the last upload is logged")
    refusal = line("refused")
    assert urlsplit(by_type.put).path in refusal
    assert ": type: v2" in refusal
    assert "user=alice@jwt.test" in line(f"PUT {urlsplit(by_token.put).path} 201")
    for secret in (SECRET, urlsplit(by_type.put).query, by_token.headers["Authorization"].split(".")[2]):
        assert secret not in server.log_text()


@pytest.mark.parametrize("name", ["photo 1.jpg", "notes.txt"])
def test_go_sendxmpp_uploads_and_bob_fetches(
    shared_server: FileServer, xmpp_host: XmppHost, tmp_path: Path, name: str
) -> None:
    # go-sendxmpp looks at the content for the type, which it then announces and sends.
    body = content(350_000, name + xmpp_host.domain)
    body = b"\xff\xd8\xff\xe0" + body if name.endswith(".jpg") else body.hex().encode()
    file = tmp_path / name
    file.write_bytes(body)
    command = [
        program("go-sendxmpp", "go-sendxmpp"),
        "-n",
        *("-u", f"alice@{xmpp_host.domain}"),
        *("-j", f"127.0.0.1:{xmpp_host.port}"),
        *("-p", PASSWORD),
        *("--http-upload", str(file)),
        f"bob@{xmpp_host.domain}",
    ]

    async def send_and_receive() -> str:
        async with logged_in(xmpp_host, "bob") as bob:
            links: asyncio.Queue[str] = asyncio.Queue()
            bob.add_event_handler("message", lambda message: links.put_nowait(message["body"]))
            bob.send_presence()
            sent = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
            )
            output, _ = await asyncio.wait_for(sent.communicate(), 30)
            assert sent.returncode == 0, output.decode(errors="replace")
            return await asyncio.wait_for(links.get(), 20)

    url = asyncio.run(send_and_receive())
    assert url.startswith(shared_server.url + "/upload/")
    got = shared_server.request("GET", target(url))
    assert (got.status, got.body == body) == (200, True)
    expected = "image/jpeg" if name.endswith(".jpg") else "text/plain; charset=utf-8"
    assert got.headers["content-type"] == expected
