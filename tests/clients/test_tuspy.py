"""tuspy: the client that Python programs use, in both of its forms."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.clients.arrivals import SIGNED, check_arrival, endpoint, status, write
from tests.clients.conftest import StartRelay
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.storage.filestorage import FileStorage

# aiohttp warns of bodies that tuspy gives it in one piece; of files that it opens by their path, none is closed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

MIB = 1 << 20
SIZE = 3 * MIB + 12_345
LARGE = 12 * MIB + 345
HELD = 6 * MIB

Send = Callable[[FileServer, str, bytes, Mapping[str, Any]], str]
"""Uploads bytes to an endpoint with options of the client; the URL of the upload."""


def send(server: FileServer, where: str, body: bytes, options: Mapping[str, Any]) -> str:
    uploader = TusClient(where, headers=dict(SIGNED)).uploader(file_stream=io.BytesIO(body), **options)
    uploader.upload()
    assert uploader.url is not None
    return uploader.url


def send_async(server: FileServer, where: str, body: bytes, options: Mapping[str, Any]) -> str:
    async def upload() -> str:
        uploader = TusClient(where, headers=dict(SIGNED)).async_uploader(file_stream=io.BytesIO(body), **options)
        await uploader.upload()
        assert uploader.url is not None
        return uploader.url

    return asyncio.run(upload())


both = pytest.mark.parametrize("form", [send, send_async], ids=["sync", "async"])


@both
@pytest.mark.parametrize("checksum", [False, True], ids=["plain", "checksum"])
@pytest.mark.parametrize("chunk_size", [None, 333_333, MIB], ids=["whole", "odd", "mib"])
def test_a_file_arrives(shared_server: FileServer, form: Send, checksum: bool, chunk_size: int | None) -> None:
    body = content(SIZE, f"tuspy {form.__name__} {checksum} {chunk_size}")
    options: dict[str, Any] = {"upload_checksum": checksum, "metadata": {"filename": "naïve.txt"}}
    if chunk_size is not None:
        options["chunk_size"] = chunk_size
    check_arrival(shared_server, form(shared_server, endpoint(shared_server), body, options), body, "naïve.txt")


@both
@pytest.mark.parametrize("size", [0, 1])
def test_hardly_a_file(shared_server: FileServer, form: Send, size: int) -> None:
    body = content(size, f"tuspy {form.__name__}")
    check_arrival(shared_server, form(shared_server, endpoint(shared_server), body, {}), body)


@both
@pytest.mark.parametrize("checksum", [False, True], ids=["plain", "checksum"])
@pytest.mark.parametrize("side", ["both", "client"])
def test_the_connection_is_lost(
    shared_server: FileServer, start_relay: StartRelay, form: Send, checksum: bool, side: str
) -> None:
    """With a checksum, what came of the chunk is dropped, and the whole of it comes again."""
    body = content(LARGE, f"tuspy lost {form.__name__} {checksum} {side}")
    relay = start_relay(shared_server, HELD)
    options = {"retries": 20, "retry_delay": 0, "upload_checksum": checksum, "chunk_size": 10 * MIB}
    with ThreadPoolExecutor(1) as pool:
        url = pool.submit(form, shared_server, endpoint(shared_server, relay.url), body, options)
        assert relay.held.wait(60)
        if side == "both":
            relay.reset()
        else:
            relay.reset_clients()
        check_arrival(shared_server, url.result(60), body)


def test_the_client_ends_and_goes_on_later(shared_server: FileServer, tmp_path: Path) -> None:
    """Another client finds the URL that the first one has left in a file."""
    body = content(SIZE, "tuspy later")
    file = str(write(tmp_path, "later.bin", body))
    client = TusClient(endpoint(shared_server), headers=dict(SIGNED))
    with closing(FileStorage(tmp_path / "urls.json")) as storage:  # type: ignore[no-untyped-call]
        first = client.uploader(file, chunk_size=MIB, store_url=True, url_storage=storage)
        first.upload(stop_at=MIB + 5)
        second = client.uploader(file, chunk_size=MIB, store_url=True, url_storage=storage)
        assert (second.url, second.offset) == (first.url, MIB + 5)
        second.upload()
        assert second.url is not None
        check_arrival(shared_server, second.url, body)


def test_the_last_answer_was_lost(shared_server: FileServer) -> None:
    """Then it asks, is told that everything is there, and sends the nothing that is left."""
    body = content(SIZE, "tuspy answer")
    url = send(shared_server, endpoint(shared_server), body, {})
    again = TusClient(endpoint(shared_server)).uploader(file_stream=io.BytesIO(body), url=url)
    assert again.offset == SIZE
    again.upload_chunk()  # type: ignore[no-untyped-call]
    assert again.offset == SIZE
    check_arrival(shared_server, url, body)


def test_the_url_of_an_upload_needs_no_signature(shared_server: FileServer) -> None:
    body = content(SIZE, "tuspy unsigned")
    client = TusClient(endpoint(shared_server), headers=dict(SIGNED))
    first = client.uploader(file_stream=io.BytesIO(body))
    first.upload(stop_at=MIB)
    assert first.url is not None
    assert status(shared_server, first.url)["completed"] is False
    TusClient(endpoint(shared_server)).uploader(file_stream=io.BytesIO(body), url=first.url).upload()
    check_arrival(shared_server, first.url, body)


def test_a_creation_without_a_signature(shared_server: FileServer) -> None:
    uploader = TusClient(endpoint(shared_server)).uploader(file_stream=io.BytesIO(b"x"))
    with pytest.raises(TusCommunicationError) as refused:
        uploader.upload()
    assert refused.value.status_code in {401, 403}
