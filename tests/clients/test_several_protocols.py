"""Uploads that are begun in one protocol and finished in another."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from msgspec.structs import replace
from tests.clients.arrivals import SIGNED, check_arrival, endpoint, status, upload_id, write
from tests.clients.tus_js_client import Job, TusJsClient
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tusclient.client import TusClient

MIB = 1 << 20
CHUNK = 5 * MIB
SIZE = 2 * CHUNK + MIB + 345
CHUNKED = "/upload/chunked"

Begin = Callable[[FileServer, bytes], str]
Finish = Callable[[FileServer, str, bytes], None]


# ---- beginnings: the URL of an upload that has some of its bytes


def begin_tus(server: FileServer, body: bytes) -> str:
    """By tuspy."""
    uploader = TusClient(endpoint(server), headers=dict(SIGNED)).uploader(
        file_stream=io.BytesIO(body), metadata={"filename": "begun.bin"}
    )
    uploader.upload(stop_at=CHUNK + 77)
    assert uploader.url is not None
    return uploader.url


def begin_chunked(server: FileServer, body: bytes, numbers: Sequence[int] = (0,)) -> str:
    """By the chunk API, with some of the chunks."""
    created = server.request(
        "POST",
        CHUNKED,
        b"",
        {"X-Signature": slots.x_signature(CHUNKED), "X-Filename": "begun.bin", "X-Total-Size": str(len(body))},
    )
    assert created.status == 201
    session = str(created.json()["session_id"])
    for number in numbers:
        part = body[number * CHUNK : (number + 1) * CHUNK]
        sent = server.request("PUT", CHUNKED, part, {"X-Upload-Session-ID": session, "X-Chunk-Number": str(number)})
        assert sent.status == 200
    return f"{endpoint(server)}{session}"


def begin_draft(server: FileServer, body: bytes) -> str:
    """By the draft in its final form."""
    created = server.request(
        "POST",
        urlsplit(endpoint(server)).path,
        body[: CHUNK + 77],
        {
            **SIGNED,
            "Upload-Complete": "?0",
            "Upload-Length": str(len(body)),
            "Content-Disposition": 'attachment; filename="begun.bin"',
        },
    )
    assert created.status == 201
    return urljoin(endpoint(server), created.headers["location"])


# ---- ends


def finish_tus(server: FileServer, url: str, body: bytes) -> None:
    """By tuspy."""
    TusClient(endpoint(server)).uploader(file_stream=io.BytesIO(body), url=url).upload()


def finish_tus_in_pieces(server: FileServer, url: str, body: bytes) -> None:
    """By tuspy, in pieces that are no chunks."""
    TusClient(endpoint(server)).uploader(file_stream=io.BytesIO(body), url=url, chunk_size=MIB + 1).upload()


def finish_chunked(server: FileServer, url: str, body: bytes) -> None:
    """By the chunk API, from where each chunk ends."""
    session = upload_id(url)
    while not (told := status(server, url))["completed"]:
        size, missing, received = told["chunk_size"], told["missing"], told["received"]
        assert isinstance(size, int)
        assert isinstance(missing, list)
        assert isinstance(received, list)
        number = missing[0][0]
        start, stop = number * size, min((number + 1) * size, len(body))
        begin = max((end for first, end in received if first <= start < end), default=start)
        headers = {
            "X-Upload-Session-ID": session,
            "X-Chunk-Number": str(number),
            "X-Chunk-Offset": str(begin - start),
        }
        sent = server.request("PUT", CHUNKED, body[begin:stop], headers)
        assert sent.status == 200, sent.body


def finish_draft(server: FileServer, url: str, body: bytes) -> None:
    """By the draft in its final form."""
    path = urlsplit(url).path
    asked = server.request("HEAD", path)
    assert asked.headers["upload-complete"] == "?0"
    offset = int(asked.headers["upload-offset"])
    headers = {
        "Upload-Complete": "?1",
        "Upload-Offset": str(offset),
        "Content-Type": "application/partial-upload",
    }
    sent = server.request("PATCH", path, body[offset:], headers)
    assert sent.status in {200, 201, 204}, sent.body
    assert sent.headers["upload-complete"] == "?1"


def finish_content_range(server: FileServer, url: str, body: bytes) -> None:
    """By ranges."""
    path = urlsplit(url).path
    asked = server.request("PUT", path, b"", {"Content-Range": f"bytes */{len(body)}"})
    assert asked.status == 308
    offset = int(asked.headers["range"].removeprefix("bytes=0-")) + 1
    sent = server.request("PUT", path, body[offset:], {"Content-Range": f"bytes {offset}-{len(body) - 1}/{len(body)}"})
    assert sent.status in {200, 201}, sent.body


@pytest.mark.parametrize(
    "finish", [finish_tus, finish_tus_in_pieces, finish_chunked, finish_draft, finish_content_range]
)
@pytest.mark.parametrize("begin", [begin_tus, begin_chunked, begin_draft])
def test_begun_and_finished(shared_server: FileServer, begin: Begin, finish: Finish) -> None:
    body = content(SIZE, f"{begin.__name__} {finish.__name__}")
    before = shared_server.files()
    url = begin(shared_server, body)
    told = status(shared_server, url)
    assert (told["completed"], told["total_size"]) == (False, SIZE)
    finish(shared_server, url, body)
    stored = check_arrival(shared_server, url, body, "begun.bin")
    assert shared_server.files() - before == {stored}


@pytest.mark.parametrize("finish", [finish_tus, finish_tus_in_pieces, finish_draft, finish_content_range])
def test_a_hole_is_filled(shared_server: FileServer, finish: Finish) -> None:
    """The chunk API takes chunks in any order, the others know one offset."""
    body = content(SIZE, f"hole {finish.__name__}")
    url = begin_chunked(shared_server, body, (0, 2))
    finish(shared_server, url, body)
    check_arrival(shared_server, url, body, "begun.bin")


def test_every_protocol_adds_to_one_upload(
    shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path
) -> None:
    """The chunk API, tus, the draft as tus-js-client speaks it, tus again."""
    body = content(SIZE, "everyone")
    file = write(tmp_path, "everyone.bin", body)
    url = begin_chunked(shared_server, body)
    TusClient(endpoint(shared_server)).uploader(file_stream=io.BytesIO(body), url=url).upload(stop_at=6 * MIB)
    job = Job(str(file), {"uploadUrl": url, "protocol": "ietf-draft-05", "chunkSize": MIB})
    assert tus_js_client.start(replace(job, stopAt=8 * MIB)).stopped() == (url, 8 * MIB)
    assert tus_js_client.start(replace(job, options={"uploadUrl": url})).finish() == url
    check_arrival(shared_server, url, body, "begun.bin")
