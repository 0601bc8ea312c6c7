"""uploader.js in Node on a machine whose networks come and go, and over TLS."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.child import Child, accepts, wait_until
from tests.fixtures.links import Bed, Quality, bed
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer, environment, request
from tests.uploader.conftest import MakeFile
from tests.uploader.uploading import MIB, NodeUploader

PORT = 8080
RATE = 40e6


@pytest.fixture
def road() -> Iterator[Bed]:
    """Two links of 40 Mbit/s and 20 ms there and back."""
    quality = Quality(rate=RATE, delay=0.010)
    with bed(wifi=quality, mobile=quality) as made:
        yield made


@pytest.fixture
def far_server(road: Bed, tmp_path: Path) -> Iterator[FileServer]:
    """A server at the other end of the links."""
    server = FileServer(
        tmp_path / "server", {"server": {"listen_address": f"0.0.0.0:{PORT}"}}, port=PORT, host=road.address
    )
    server.folder.mkdir()
    server.write_config(server.settings or {})
    command = [sys.executable, "-m", "hmac_file_server", "serve", "--config", str(server.config)]
    server.child = Child(
        "hmac-file-server", road.server.command(command), log=server.log, env=environment(), cwd=server.folder
    )

    def ready() -> bool:
        try:
            return bool(road.server.call(request, road.address, PORT, "GET", "/ready").status == 200)
        except OSError:
            return False

    server.child.wait_ready(ready)
    try:
        yield server
    finally:
        # It would wait for those whose network is gone.
        server.child.process.kill()
        server.child.process.wait()
        assert "Traceback" not in server.log_text()


def content_of(server: FileServer) -> bytes:
    (name,) = server.files()
    return (server.storage / name).read_bytes()


@pytest.mark.parametrize("new_address", [True, False], ids=["new-address", "other-link"])
def test_switch_of_networks(
    road: Bed, far_server: FileServer, uploader: NodeUploader, make_file: MakeFile, new_address: bool
) -> None:
    """The link dies without a word; a second later there is another: at once, next to nothing is sent twice."""
    path = make_file(12 * MIB)
    run = uploader.start(path, f"http://{road.address}:{PORT}", {"digest": False}, within=road.client.command)
    road.wait_delivered(5 * MIB)
    before = road.delivered()
    road.switch("wifi")
    if new_address:
        road.down("mobile")
        run.wait_for_event("offline")
        road.up("wifi", address="new")
    begun = time.monotonic()
    wait_until(lambda: road.delivered() > before + 100_000, "it goes on")
    # The watchdog would have needed five seconds.
    assert time.monotonic() - begun < 2
    result = run.result()
    assert content_of(far_server) == path.read_bytes()
    assert result["size"] == path.stat().st_size
    assert road.bodies() - path.stat().st_size < 64 * 1024
    if new_address:
        assert [each["event"] for each in run.events("offline", "online")] == ["offline", "online"]
    assert not run.events("stall")


def test_another_address_does_not_end_a_connection_that_works(
    road: Bed, far_server: FileServer, uploader: NodeUploader, make_file: MakeFile
) -> None:
    path = make_file(12 * MIB)
    road.down("mobile")
    run = uploader.start(path, f"http://{road.address}:{PORT}", {"digest": False}, within=road.client.command)
    road.wait_delivered(4 * MIB)
    road.up("mobile")
    run.result()
    assert content_of(far_server) == path.read_bytes()
    assert not run.events("retry", "stall", "offline")


# ---- TLS


class TlsServer(FileServer):
    """The fixture's server, ready when its port accepts: its questions are asked in plain HTTP."""

    def _ready(self) -> bool:
        return accepts(self.port)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of a server at 127.0.0.1, and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def secure_server(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[FileServer]:
    """A server with that certificate."""
    paths = {"tls_certificate": str(certificate[0]), "tls_key": str(certificate[1])}
    server = TlsServer(tmp_path / "server", {"server": paths})
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("how", ["pause", "cut"])
def test_connections_in_tls_are_dropped_and_made_anew(
    secure_server: FileServer, certificate: tuple[Path, Path], uploader: NodeUploader, make_file: MakeFile, how: str
) -> None:
    path = make_file(12 * MIB)
    relay = Relay(secure_server.port, 4 * MIB)
    try:
        trusted = {"NODE_EXTRA_CA_CERTS": str(certificate[0])}
        run = uploader.start(path, f"https://127.0.0.1:{relay.port}", surroundings=trusted)
        assert relay.held.wait(30)
        if how == "pause":
            run.order("pause")
            run.wait_for_event("pause")
            relay.release()
            run.order("resume")
        else:
            relay.reset()
        result = run.result()
        assert str(result["url"]).startswith(f"https://127.0.0.1:{relay.port}/")
    finally:
        relay.close()
    assert content_of(secure_server) == path.read_bytes()
    assert [each["error"]["code"] for each in run.events("retry")] == (["network"] if how == "cut" else [])


def test_certificate_that_is_not_trusted(
    secure_server: FileServer, uploader: NodeUploader, make_file: MakeFile
) -> None:
    run = uploader.start(make_file(1000), f"https://127.0.0.1:{secure_server.port}", {"maxRetries": 1})
    assert run.failure()["code"] == "network"
    assert not secure_server.files()
    trusting = uploader.start(
        make_file(1000), f"https://127.0.0.1:{secure_server.port}", {"tls": {"rejectUnauthorized": False}}
    )
    trusting.result()
    assert len(secure_server.files()) == 1
