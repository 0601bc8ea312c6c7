"""tus-js-client: the client of browsers and of Node, in every way of working that it has."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from tests.clients.arrivals import SIGNED, check_arrival, endpoint, upload_id, write
from tests.clients.conftest import StartRelay
from tests.clients.tus_js_client import Job, TusJsClient
from tests.fixtures.content import content
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer, StartServer
from tests.guide.servers import crash

MIB = 1 << 20
SIZE = 3 * MIB + 12_345
LARGE = 12 * MIB + 345
HELD = 6 * MIB
"""Bytes on the wire at which something happens: the middle of LARGE."""
HEADS = 16 * 1024
"""More than all heads of an upload's first requests."""
KEEP_TRYING = [0, *[100] * 300]
VERSIONS = ["tus-v1", "ietf-draft-03", "ietf-draft-05"]


def job(server: FileServer, file: Path, through: Relay | None = None, **options: object) -> Job:
    """An upload of the file, signed; `options` are the client's."""
    url = endpoint(server, None if through is None else through.url)
    return Job(str(file), {"endpoint": url, "headers": SIGNED, "retryDelays": None, **options})


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("creation", [False, True], ids=["apart", "with-creation"])
@pytest.mark.parametrize("chunk_size", [None, 333_333, MIB], ids=["whole", "odd", "mib"])
def test_a_file_arrives(
    shared_server: FileServer,
    tus_js_client: TusJsClient,
    tmp_path: Path,
    protocol: str,
    creation: bool,
    chunk_size: int | None,
) -> None:
    body = content(SIZE, f"{protocol} {creation} {chunk_size}")
    options: dict[str, Any] = {"protocol": protocol, "uploadDataDuringCreation": creation}
    if chunk_size is not None:
        options["chunkSize"] = chunk_size
    before = shared_server.files()
    run = tus_js_client.start(job(shared_server, write(tmp_path, "a file.bin", body), **options))
    check_arrival(shared_server, run.finish(), body)
    assert len(shared_server.files() - before) == 1
    bodies = 1 if chunk_size is None else -(-SIZE // chunk_size)
    assert [exchange.method for exchange in run.exchanges()] == ["POST"] + ["PATCH"] * (bodies - creation)


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("size", [0, 1])
def test_hardly_a_file(
    shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path, protocol: str, size: int
) -> None:
    body = content(size, f"hardly {protocol}")
    run = tus_js_client.start(job(shared_server, write(tmp_path, "small.bin", body), protocol=protocol))
    check_arrival(shared_server, run.finish(), body)


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
def test_a_stream(
    shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path, protocol: str, deferred: bool
) -> None:
    """Whose end the client sees only when it is there; in the draft it then never says that this was all."""
    body = content(SIZE, f"stream {protocol} {deferred}")
    length: dict[str, Any] = {"uploadLengthDeferred": True} if deferred else {"uploadSize": SIZE}
    work = job(shared_server, write(tmp_path, "stream.bin", body), protocol=protocol, chunkSize=500_000, **length)
    run = tus_js_client.start(replace(work, input="stream"))
    check_arrival(shared_server, run.finish(), body)


def test_parts_in_parallel(shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path) -> None:
    """Three partial uploads and a final one; only that is a file."""
    body = content(SIZE, "parallel")
    before = shared_server.files()
    metadata = {"filename": "of three parts.bin"}
    run = tus_js_client.start(
        job(shared_server, write(tmp_path, "parts.bin", body), parallelUploads=3, chunkSize=400_000, metadata=metadata)
    )
    check_arrival(shared_server, run.finish(), body, "of three parts.bin")
    assert len(shared_server.files() - before) == 1
    assert [exchange.method for exchange in run.exchanges()].count("POST") == 4


def test_patches_that_are_posted(shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path) -> None:
    """For networks that let no PATCH through."""
    body = content(SIZE, "override")
    run = tus_js_client.start(
        job(shared_server, write(tmp_path, "override.bin", body), overridePatchMethod=True, chunkSize=MIB)
    )
    check_arrival(shared_server, run.finish(), body)
    assert {exchange.method for exchange in run.exchanges()} == {"POST"}


def test_metadata_come_back(shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path) -> None:
    body = content(1000, "metadata")
    metadata = {"filename": "Grüße из 東京.png", "filetype": "image/png", "comment": "", "relativePath": "null"}
    run = tus_js_client.start(job(shared_server, write(tmp_path, "x.bin", body), metadata=metadata))
    url = run.finish()
    stored = check_arrival(shared_server, url, body, metadata["filename"])
    assert Path(stored).name == metadata["filename"]
    asked = shared_server.request("HEAD", f"/tus/{upload_id(url)}", headers={"Tus-Resumable": "1.0.0"})
    pairs = [pair.partition(" ") for pair in asked.headers["upload-metadata"].split(",")]
    assert {key: base64.b64decode(value).decode() for key, _, value in pairs} == metadata
    got = shared_server.request("GET", "/" + quote(stored))
    assert got.headers["content-type"] == "image/png"


def test_an_upload_that_is_given_up(shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path) -> None:
    body = content(SIZE, "terminated")
    before = shared_server.files()
    work = job(shared_server, write(tmp_path, "terminated.bin", body), chunkSize=MIB)
    url, _ = tus_js_client.start(replace(work, stopAt=2 * MIB, terminate=True)).stopped()
    assert shared_server.request("HEAD", f"/tus/{upload_id(url)}", headers={"Tus-Resumable": "1.0.0"}).status in {
        404,
        410,
    }
    assert shared_server.files() == before


def test_the_client_ends_and_goes_on_later(
    shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path
) -> None:
    """Another process finds the URL that the first one has left in a file."""
    body = content(SIZE, "later")
    storage = write(tmp_path, "urls.json", b"")
    work = job(shared_server, write(tmp_path, "later.bin", body), chunkSize=MIB)
    url, offset = tus_js_client.start(replace(work, input="file", stopAt=2 * MIB, storage=str(storage))).stopped()
    assert json.loads(storage.read_bytes())
    run = tus_js_client.start(replace(work, input="file", storage=str(storage)))
    assert run.finish() == url
    check_arrival(shared_server, url, body)
    first = run.exchanges()[0]
    assert (first.method, first.headers["upload-offset"]) == ("HEAD", str(offset))


def test_a_creation_without_a_signature(shared_server: FileServer, tus_js_client: TusJsClient, tmp_path: Path) -> None:
    """It is told so, and does not try again."""
    run = tus_js_client.start(job(shared_server, write(tmp_path, "refused.bin", b"x"), headers={}, retryDelays=[0, 0]))
    assert run.child.process.wait(60) == 1
    assert [exchange.status for exchange in run.exchanges()] in ([401], [403])


# ---- in the middle of an upload


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("side", ["both", "client"])
def test_the_connection_is_lost(
    shared_server: FileServer,
    tus_js_client: TusJsClient,
    start_relay: StartRelay,
    tmp_path: Path,
    protocol: str,
    side: str,
) -> None:
    """On the server's side, too, or only on the client's: then the server still waits for the rest."""
    body = content(LARGE, f"lost {protocol} {side}")
    relay = start_relay(shared_server, HELD)
    file = write(tmp_path, "lost.bin", body)
    run = tus_js_client.start(job(shared_server, file, relay, protocol=protocol, retryDelays=KEEP_TRYING))
    assert relay.held.wait(60)
    if side == "both":
        relay.reset()
    else:
        relay.reset_clients()
    check_arrival(shared_server, run.finish(), body)
    exchanges = run.exchanges()
    assert [exchange.method for exchange in exchanges].count("POST") == 1
    offsets = [int(exchange.headers["upload-offset"]) for exchange in exchanges if exchange.method == "HEAD"]
    assert offsets == sorted(offsets)
    assert offsets[-1] <= HELD
    if side == "client":
        assert offsets[-1] > HELD - HEADS, "bytes that the server had were lost"


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("chunk_size", [None, MIB], ids=["whole", "mib"])
def test_the_server_is_killed(
    start_server: StartServer,
    tus_js_client: TusJsClient,
    start_relay: StartRelay,
    tmp_path: Path,
    protocol: str,
    chunk_size: int | None,
) -> None:
    """And comes back with everything that it has said it had."""
    body = content(LARGE, f"killed {protocol} {chunk_size}")
    server = start_server({})
    relay = start_relay(server, HELD)
    options: dict[str, Any] = {"protocol": protocol, "retryDelays": KEEP_TRYING}
    if chunk_size is not None:
        options["chunkSize"] = chunk_size
    run = tus_js_client.start(job(server, write(tmp_path, "killed.bin", body), relay, **options))
    assert relay.held.wait(60)
    crash(server)
    server.start()
    relay.release()
    check_arrival(server, run.finish(), body)
    assert len(server.files()) == 1
    exchanges = run.exchanges()
    assert [exchange.method for exchange in exchanges].count("POST") == 1
    asked = next(number for number, exchange in enumerate(exchanges) if exchange.method == "HEAD")
    told = max((int(exchange.headers.get("upload-offset", "0")) for exchange in exchanges[:asked]), default=0)
    assert told <= int(exchanges[asked].headers["upload-offset"]) <= HELD
    if chunk_size is not None:
        assert told > 0


def test_the_connection_is_lost_by_parts_in_parallel(
    shared_server: FileServer, tus_js_client: TusJsClient, start_relay: StartRelay, tmp_path: Path
) -> None:
    body = content(LARGE, "lost in parallel")
    relay = start_relay(shared_server, HELD)
    file = write(tmp_path, "lost.bin", body)
    run = tus_js_client.start(job(shared_server, file, relay, parallelUploads=3, retryDelays=KEEP_TRYING))
    assert relay.held.wait(60)
    relay.reset()
    check_arrival(shared_server, run.finish(), body)


@pytest.mark.parametrize("protocol", VERSIONS)
def test_the_connection_is_lost_again_and_again(
    shared_server: FileServer, tus_js_client: TusJsClient, start_relay: StartRelay, tmp_path: Path, protocol: str
) -> None:
    """Every two mebibytes, on the server's side every other time: what is kept of each try adds up to the whole."""
    body = content(24 * MIB + 1, f"again {protocol}")
    relay = start_relay(shared_server, 2 * MIB)
    file = write(tmp_path, "again.bin", body)
    run = tus_js_client.start(job(shared_server, file, relay, protocol=protocol, retryDelays=KEEP_TRYING))
    cuts = 0
    while run.child.process.poll() is None:
        if relay.held.wait(0.05):
            (relay.reset_clients if cuts % 2 else relay.reset)()
            relay.hold_again(2 * MIB)
            cuts += 1
    check_arrival(shared_server, run.finish(), body)
    assert cuts >= 10
    exchanges = run.exchanges()
    assert [exchange.method for exchange in exchanges].count("POST") == 1
    offsets = [int(exchange.headers["upload-offset"]) for exchange in exchanges if exchange.method == "HEAD"]
    assert offsets == sorted(offsets)


# ---- a server of several processes


@pytest.mark.parametrize("protocol", VERSIONS)
def test_two_processes_serve(
    start_server: StartServer, tus_js_client: TusJsClient, start_relay: StartRelay, tmp_path: Path, protocol: str
) -> None:
    """Of which one has the upload, whichever the connections come to; one is lost on the client's side."""
    server = start_server({"server": {"processes": 2}})
    runs = []
    for number in range(4):
        body = content(LARGE, f"two {protocol} {number}")
        relay = start_relay(server, HELD)
        file = write(tmp_path, f"two-{number}.bin", body)
        run = tus_js_client.start(job(server, file, relay, protocol=protocol, retryDelays=KEEP_TRYING))
        runs.append((relay, run, body))
    for relay, _, _ in runs:
        assert relay.held.wait(60)
        relay.reset_clients()
    for _, run, body in runs:
        check_arrival(server, run.finish(), body)
        assert [exchange.method for exchange in run.exchanges()].count("POST") == 1


def test_two_processes_serve_parts_in_parallel(
    start_server: StartServer, tus_js_client: TusJsClient, tmp_path: Path
) -> None:
    """Parts of one file that different processes have."""
    server = start_server({"server": {"processes": 2}})
    body = content(LARGE, "two parallel")
    run = tus_js_client.start(job(server, write(tmp_path, "parts.bin", body), parallelUploads=6, chunkSize=MIB))
    stored = check_arrival(server, run.finish(), body)
    assert server.files() == {stored}
