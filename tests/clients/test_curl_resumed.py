"""Uploads with curl alone that go on where they were cut off: the lines of the documentation."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from tests.clients.arrivals import SIGNED, check_arrival, endpoint, write
from tests.clients.conftest import StartRelay
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.curl import Transfers, curl
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer

MIB = 1 << 20
LARGE = 12 * MIB + 345
HELD = 6 * MIB
TUS = ("-H", "Tus-Resumable: 1.0.0")
DATA = ("-H", "Content-Type: application/offset+octet-stream")
PARTIAL = ("-H", "Content-Type: application/partial-upload")
SIGNATURE = ("-H", f"X-Signature: {SIGNED['X-Signature']}")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """For a curl that runs beside the test."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def cut(relay: Relay, sent: Future[Transfers]) -> None:
    """Take the connection away in the middle of the upload; curl does not try again by itself."""
    assert relay.held.wait(60)
    relay.reset()
    assert sent.result(60).exit_code in {52, 55, 56}


def rest(file: Path, offset: int) -> bytes:
    return file.read_bytes()[offset:]


def test_tus(shared_server: FileServer, start_relay: StartRelay, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    """Creation, a PATCH that is cut off, HEAD, and a PATCH with the rest."""
    body = content(LARGE, "curl tus")
    file = write(tmp_path, "curl.bin", body)
    name = base64.b64encode(b"curl.bin").decode()
    relay = start_relay(shared_server, HELD)
    where = endpoint(shared_server, relay.url)
    length = f"Upload-Length: {LARGE}"
    created = curl("-X", "POST", *TUS, *SIGNATURE, "-H", length, "-H", f"Upload-Metadata: filename {name}", where)
    assert created.status == 201
    url = urljoin(where, created.headers()["location"])
    cut(relay, pool.submit(curl, "-X", "PATCH", *TUS, *DATA, "-H", "Upload-Offset: 0", "-T", file, url))

    asked = curl("-I", *TUS, url)
    assert asked.status in {200, 204}
    offset = int(asked.headers()["upload-offset"])
    assert 0 <= offset <= HELD
    appended = curl(
        "-X", "PATCH", *TUS, *DATA, "-H", f"Upload-Offset: {offset}", "-T", "-", url, stdin=rest(file, offset)
    )
    assert (appended.status, appended.headers()["upload-offset"]) == (204, str(LARGE))
    check_arrival(shared_server, url, body, "curl.bin")


def test_tus_in_one_request(shared_server: FileServer, tmp_path: Path) -> None:
    """Without the slash: below one, curl would put the name of the file."""
    body = content(LARGE, "curl tus at once")
    file = write(tmp_path, "once.bin", body)
    where = endpoint(shared_server).removesuffix("/")
    signature = f"X-Signature: {slots.x_signature('/tus')}"
    created = curl("-X", "POST", *TUS, *DATA, "-H", signature, "-H", f"Upload-Length: {LARGE}", "-T", file, where)
    assert (created.status, created.headers()["upload-offset"]) == (201, str(LARGE))
    check_arrival(shared_server, urljoin(where, created.headers()["location"]), body)


@pytest.mark.parametrize("version", [3, 4, 5, 6, 7, 8, 9])
def test_the_draft_on_a_slot(
    shared_server: FileServer,
    start_relay: StartRelay,
    pool: ThreadPoolExecutor,
    tmp_path: Path,
    version: int,
) -> None:
    """One PUT to a slot of an XMPP server; the interim answer, which curl notes and passes over, says how to go on."""
    body = content(LARGE, f"curl draft {version}")
    file = write(tmp_path, "slot.bin", body)
    path = f"curl/draft-{version}/slot.bin"
    relay = start_relay(shared_server, HELD)
    heads = tmp_path / "heads"
    complete, more = ("Upload-Incomplete: ?0", "?1") if version == 3 else ("Upload-Complete: ?1", "?0")
    interop = ("-H", f"Upload-Draft-Interop-Version: {version}")
    slot = slots.url(relay.url, path, LARGE)
    cut(relay, pool.submit(curl, *interop, "-H", complete, "-D", heads, "-T", file, slot))

    interim, *_ = heads.read_text().split("\n\n")
    assert interim.startswith("HTTP/1.1 104 ")
    found = re.search(r"^location: *(\S+)", interim, re.IGNORECASE | re.MULTILINE)
    assert found is not None, interim
    url = urljoin(slot, found[1])
    asked = curl("-I", *interop, url)
    assert asked.status in {200, 204}
    assert asked.headers()[complete.partition(":")[0].lower()] == more
    offset = int(asked.headers()["upload-offset"])
    assert 0 <= offset <= HELD
    appended = curl(
        *("-X", "PATCH", *interop, *(PARTIAL if version >= 6 else ())),
        *("-H", complete, "-H", f"Upload-Offset: {offset}", "-T", "-", url),
        stdin=rest(file, offset),
    )
    assert appended.status == 201
    stored = check_arrival(shared_server, url, body)
    assert stored == path


def test_the_draft_in_one_request(shared_server: FileServer, tmp_path: Path) -> None:
    """As a newcomer to it would try it: one field more than a plain upload."""
    body = content(LARGE, "curl draft at once")
    file = write(tmp_path, "once.bin", body)
    path = "curl/draft/once.bin"
    slot = slots.url(shared_server.url, path, LARGE)
    sent = curl("-H", "Upload-Complete: ?1", "-T", file, slot)
    assert sent.status == 201
    assert "HTTP/1.1 104" not in sent.trace
    assert shared_server.request("GET", f"/upload/{path}").body == body


def test_a_range_goes_on_with_content_range(
    shared_server: FileServer, start_relay: StartRelay, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """The dialect of Google's servers: ask with `*`, send what is missing."""
    body = content(LARGE, "curl ranges")
    file = write(tmp_path, "ranges.bin", body)
    relay = start_relay(shared_server, HELD)
    created = curl("-X", "POST", *TUS, *SIGNATURE, "-H", f"Upload-Length: {LARGE}", endpoint(shared_server))
    url = urljoin(endpoint(shared_server), created.headers()["location"])
    through = urljoin(relay.url, urlsplit(url).path)
    whole = f"Content-Range: bytes 0-{LARGE - 1}/{LARGE}"
    cut(relay, pool.submit(curl, "-H", whole, "-T", file, through))

    ask = ("-X", "PUT", "-H", f"Content-Range: bytes */{LARGE}", "-H", "Content-Length: 0", url)
    wait_until(lambda: "range" in curl(*ask).headers(), "something of it is there")
    asked = curl(*ask)
    assert asked.status == 308
    last = int(asked.headers()["range"].removeprefix("bytes=0-"))
    left = f"Content-Range: bytes {last + 1}-{LARGE - 1}/{LARGE}"
    sent = curl("-H", left, "-H", "Transfer-Encoding:", "-T", write(tmp_path, "rest.bin", rest(file, last + 1)), url)
    assert sent.status in {200, 201}
    check_arrival(shared_server, url, body)
