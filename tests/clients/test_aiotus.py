"""aiotus: the client of Python's asyncio, which knows how to concatenate."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import aiotus
import pytest
import yarl
from tests.clients.arrivals import SIGNED, check_arrival, endpoint
from tests.clients.conftest import StartRelay
from tests.fixtures.content import content
from tests.fixtures.server import FileServer

# Of aiohttp, about the pieces that aiotus gives it.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")

MIB = 1 << 20
SIZE = 3 * MIB + 12_345
LARGE = 12 * MIB + 345
HELD = 6 * MIB
QUICKLY = aiotus.RetryConfiguration(retry_attempts=20, max_retry_period_seconds=0.05)
METADATA: Mapping[str, bytes | None] = {"filename": "Żółw.bin".encode(), "mime_type": b"image/png", "empty": None}


def send(where: str, body: bytes, chunk_size: int = 4 * MIB) -> str:
    """Upload; the URL of the upload."""
    url = asyncio.run(
        aiotus.upload(where, io.BytesIO(body), METADATA, config=QUICKLY, headers=SIGNED, chunksize=chunk_size)
    )
    assert url is not None, "it gave up; its log says why"
    return str(url)


@pytest.mark.parametrize("chunk_size", [333_333, MIB, 4 * MIB])
def test_a_file_arrives(shared_server: FileServer, chunk_size: int) -> None:
    body = content(SIZE, f"aiotus {chunk_size}")
    url = send(endpoint(shared_server), body, chunk_size)
    check_arrival(shared_server, url, body, "Żółw.bin")
    assert asyncio.run(aiotus.metadata(url, config=QUICKLY)) == METADATA


@pytest.mark.parametrize("size", [0, 1])
def test_hardly_a_file(shared_server: FileServer, size: int) -> None:
    body = content(size, "aiotus")
    check_arrival(shared_server, send(endpoint(shared_server), body), body)


def test_several_files_become_one(shared_server: FileServer) -> None:
    """Partial uploads in parallel and a final one; only that is a file."""
    bodies = [content(size, f"aiotus part {size}") for size in (MIB, 1, 2 * MIB + 345, 700_000)]
    before = shared_server.files()
    where = endpoint(shared_server)
    parts = [io.BytesIO(body) for body in bodies]
    url = asyncio.run(aiotus.upload_multiple(where, parts, METADATA, config=QUICKLY, headers=SIGNED, chunksize=500_000))
    assert url is not None, "it gave up; its log says why"
    final = str(yarl.URL(where).join(url))
    check_arrival(shared_server, final, b"".join(bodies), "Żółw.bin")
    assert len(shared_server.files() - before) == 1
    assert asyncio.run(aiotus.metadata(final, config=QUICKLY)) == METADATA


@pytest.mark.parametrize("side", ["both", "client"])
def test_the_connection_is_lost(shared_server: FileServer, start_relay: StartRelay, side: str) -> None:
    body = content(LARGE, f"aiotus lost {side}")
    relay = start_relay(shared_server, HELD)
    with ThreadPoolExecutor(1) as pool:
        url = pool.submit(send, endpoint(shared_server, relay.url), body)
        assert relay.held.wait(60)
        if side == "both":
            relay.reset()
        else:
            relay.reset_clients()
        check_arrival(shared_server, url.result(60), body)


def test_a_creation_without_a_signature(shared_server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    once = aiotus.RetryConfiguration(retry_attempts=1)
    with caplog.at_level(logging.ERROR, "aiotus"):
        assert asyncio.run(aiotus.upload(endpoint(shared_server), io.BytesIO(b"x"), config=once)) is None
    assert "40" in caplog.text
