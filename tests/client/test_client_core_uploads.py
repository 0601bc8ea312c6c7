"""The Python client against the real server where nothing fails: sources, protocols, permissions, TLS, and refusals."""

from __future__ import annotations

import asyncio
import io
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.client.client_core_run import CHUNK, SETTINGS, Notes, Upload, assert_stored, file_of, uploader
from tests.fixtures.child import free_port
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, FileServer, StartServer
from tests.server.signatures import ticket
from tests.server.test_tls import TlsServer, certify, configured

from hmac_file_server.client import (
    AsyncUploader,
    BadAnswer,
    GaveUp,
    NetworkWatch,
    Progress,
    Refused,
    Result,
    StateStore,
    Target,
    TargetError,
    Uploader,
    UploadFailed,
)

pytestmark = pytest.mark.server


def signed(server: FileServer, **options: Any) -> Uploader:
    return Uploader(Target.parse(server.url, secret=SECRET), **{"watch_network": False, **options})


def fetched(server: FileServer, result: Result) -> bytes:
    answer = server.request("GET", "/" + result.url.split("/", 3)[3])
    assert answer.status == 200
    return answer.body


# ---- sources


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
@pytest.mark.parametrize("protocol", ["chunked", "tus", "put"])
def test_files_of_any_size(shared_server: FileServer, tmp_path: Path, size: int, protocol: str) -> None:
    path = file_of(tmp_path, size, f"any-{protocol}-{size}")
    result = signed(shared_server, protocol=protocol).upload(path)
    assert_stored(shared_server, result, path)
    assert result.filename == path.name
    assert result.verified
    assert result.digest is not None
    assert result.digest.startswith("blake3:")


def test_many_chunks_in_parallel(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server({"uploads": {"chunk_size": 1024, "durability": "relaxed"}})
    path, notes = file_of(tmp_path, 200 * 1024 + 1, "tiny"), Notes()
    result = signed(server, protocol=notes, parallel=16).upload(path)
    assert_stored(server, result, path)
    assert notes.sent == 200 * 1024 + 1
    assert len(notes.pieces) == 201


def test_objects_names_and_types(shared_server: FileServer) -> None:
    data = content(700_000, "object")
    result = signed(shared_server).upload(io.BytesIO(data), name="100 % très/c😀l.jpg", media_type="image/jpeg")
    assert fetched(shared_server, result) == data
    assert result.filename == "100 % très_c😀l.jpg"
    answer = shared_server.request("HEAD", "/" + result.url.split("/", 3)[3])
    assert answer.headers["content-type"] == "image/jpeg"
    unnamed = signed(shared_server).upload(io.BytesIO(b"x"))
    assert unnamed.filename == "upload.bin"


def test_an_open_file(shared_server: FileServer, tmp_path: Path) -> None:
    path = file_of(tmp_path, 400_000, "open")
    with path.open("rb") as file:
        result = signed(shared_server).upload(file)
        assert not file.closed
    assert_stored(shared_server, result, path)


def test_pieces_with_digests(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(SETTINGS)
    path = file_of(tmp_path, 3 * CHUNK + 5, "digests")
    for protocol in ("chunked", "tus"):
        assert_stored(server, signed(server, piece_digests=True, protocol=protocol).upload(path), path)


@pytest.mark.parametrize("algorithm", ["sha256", "none"])
def test_other_digests_of_the_server(start_server: StartServer, tmp_path: Path, algorithm: str) -> None:
    server = start_server({"deduplication": {"hash": "sha256"} if algorithm == "sha256" else {"enabled": False}})
    path = file_of(tmp_path, 400_000, f"digest-{algorithm}")
    result = signed(server).upload(path)
    assert result.digest is not None
    assert result.digest.partition(":")[0] == ("sha256" if algorithm == "sha256" else "blake3")
    assert result.verified == (algorithm == "sha256")
    unhashed = signed(server, digest=False).upload(path)
    assert not unhashed.verified
    assert unhashed.digest == (result.digest if algorithm == "sha256" else None)


# ---- permissions


def test_links_and_tickets(shared_server: FileServer, tmp_path: Path) -> None:
    path = file_of(tmp_path, 300_000, "link")
    token = ticket(prefix="from/a/link")
    result = Uploader(f"{shared_server.url}/#ticket={token}", watch_network=False).upload(path)
    assert "/from/a/link/" in result.url
    assert_stored(shared_server, result, path)


@pytest.mark.parametrize("permission", ["secret", "ticket"])
def test_a_strict_server_gets_every_request_signed(start_server: StartServer, tmp_path: Path, permission: str) -> None:
    server = start_server({**SETTINGS, "security": {"strict_signatures": True}})
    path, notes = file_of(tmp_path, 3 * CHUNK, f"strict-{permission}"), Notes()
    given = {"secret": SECRET} if permission == "secret" else {"ticket": ticket(prefix="")}
    result = Uploader(Target.parse(server.url, **given), protocol=notes, watch_network=False).upload(path)  # type: ignore[arg-type]
    assert_stored(server, result, path)
    assert notes.twice == []


@pytest.mark.parametrize(
    ("options", "code", "status"),
    [
        ({"secret": "another secret, another secret"}, "bad_signature", 403),
        ({}, "missing_credentials", 403),
        ({"ticket": "eyJ.eyJ.eyJ"}, "bad_token", 401),
    ],
)
def test_refusals_are_told_at_once(
    shared_server: FileServer, tmp_path: Path, options: dict[str, str], code: str, status: int
) -> None:
    path, upload = file_of(tmp_path, 100, f"refused-{code}"), Upload()
    sender = AsyncUploader(
        Target.parse(shared_server.url, secret=options.get("secret"), ticket=options.get("ticket")),
        on_progress=upload.progress,
        watch_network=False,
    )
    with pytest.raises(Refused) as failed:
        upload.start(lambda: sender.upload(path)).result()
    assert (failed.value.code, failed.value.status, failed.value.retriable) == (code, status, False)
    assert failed.value.request_id
    assert upload.moments[-1].attempt == 0
    assert sender.session is None


def test_what_is_too_large_is_refused_before_it_is_sent(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server({"server": {"max_upload_size": "1KB"}})
    with pytest.raises(Refused) as failed:
        signed(server, state=StateStore(tmp_path / "state")).upload(file_of(tmp_path, 2000, "large"))
    assert failed.value.code == "too_large"


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("client-certificates")
    return {name: certify(folder, name) for name in ("own", "other")}


def test_tls(tmp_path: Path, certificates: dict[str, tuple[Path, Path]]) -> None:
    certificate, key = certificates["own"]
    server = TlsServer(tmp_path / "server", {**configured(certificate, key), **SETTINGS})
    server.start()
    try:
        path, notes = file_of(tmp_path, 6 * CHUNK + 7, "tls"), Notes()
        url = server.url.replace("http:", "https:")
        target = Target.parse(url, secret=SECRET)
        context = ssl.create_default_context(cafile=str(certificate))
        result = Uploader(target, protocol=notes, ssl_context=context, watch_network=False).upload(path)
        assert result.verified
        assert result.url.startswith(url)
        assert notes.sent == path.stat().st_size
        (stored,) = server.files()
        assert (server.storage / stored).read_bytes() == path.read_bytes()
        # A certificate that is not trusted is no reason to try again.
        for wrong in (ssl.create_default_context(cafile=str(certificates["other"][0])), None):
            with pytest.raises(BadAnswer, match="not trusted") as failed:
                Uploader(target, ssl_context=wrong, watch_network=False).upload(path)
            assert not failed.value.retriable
    finally:
        server.stop()


def test_tls_where_there_is_none(shared_server: FileServer, tmp_path: Path) -> None:
    target = Target.parse(shared_server.url.replace("http:", "https:"), secret=SECRET)
    with pytest.raises(GaveUp) as failed:
        Uploader(target, patience=0.5, retry_delay=(0.01, 0.1), watch_network=False).upload(
            file_of(tmp_path, 10, "no-tls")
        )
    assert isinstance(failed.value.__cause__, UploadFailed)


# ---- many at once


def test_several_files_at_once(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(SETTINGS)
    paths = [file_of(tmp_path, 3 * CHUNK + number, f"several-{number}") for number in range(6)]

    async def work() -> list[Result]:
        async with NetworkWatch() as watch:
            target = Target.parse(server.url, secret=SECRET)
            return await asyncio.gather(*(AsyncUploader(target, network=watch).upload(path) for path in paths))

    for result, path in zip(asyncio.run(work()), paths, strict=True):
        assert_stored(server, result, path)


def test_one_uploader_uploads_one_file_at_a_time(shared_server: FileServer, tmp_path: Path) -> None:
    path = file_of(tmp_path, 100_000, "one-at-a-time")

    async def work() -> None:
        sender = uploader(shared_server.url)
        first = asyncio.create_task(sender.upload(path))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="at work"):
            await sender.upload(path)
        await first
        await sender.upload(path)

    asyncio.run(work())


# ---- without a server, and misuse


def test_patience_ends(tmp_path: Path) -> None:
    path = file_of(tmp_path, 100, "nobody")
    moments: list[Progress] = []
    sender = Uploader(
        Target.parse(f"http://127.0.0.1:{free_port()}", secret=SECRET),
        patience=0.3,
        retry_delay=(0.01, 0.05),
        on_progress=moments.append,
        watch_network=False,
    )
    with pytest.raises(GaveUp, match="no connection") as failed:
        sender.upload(path)
    assert failed.value.code == "gave_up"
    assert moments[-1].state in {"starting", "waiting"}
    assert sender.session is None


def test_a_callback_that_fails_ends_the_upload(shared_server: FileServer, tmp_path: Path) -> None:
    def fail(_: Progress) -> None:
        raise LookupError("a fault of the program")

    with pytest.raises(LookupError):
        signed(shared_server, on_progress=fail).upload(file_of(tmp_path, 100, "callback"))


def test_inside_a_loop_the_blocking_one_is_refused(shared_server: FileServer, tmp_path: Path) -> None:
    path = file_of(tmp_path, 100, "inside")

    async def work() -> None:
        with pytest.raises(RuntimeError, match="AsyncUploader"):
            signed(shared_server).upload(path)
        with pytest.raises(RuntimeError, match="AsyncUploader"):
            signed(shared_server).discard(path)

    asyncio.run(work())


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": "ftp"},
        {"parallel": 0},
        {"parallel": 65},
        {"chunk_size": 0},
        {"stall_timeout": 0},
        {"patience": 0.0},
        {"connect_timeout": -1.0},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r" is | are "):
        AsyncUploader("https://files.example.org/", **options)
    with pytest.raises(TargetError):
        AsyncUploader("files.example.org")


def test_a_file_that_is_not_there(shared_server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(UploadFailed) as failed:
        signed(shared_server).upload(tmp_path / "missing")
    assert failed.value.code == "source_unreadable"
