"""HTTPS without a proxy: bodies that come through the event loop, files that leave through it, new certificates."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import Child, accepts, program, wait_until
from tests.fixtures.content import content
from tests.fixtures.curl import Transfers, curl
from tests.fixtures.server import FileServer


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *(program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return certificate, key


class TlsServer(FileServer):
    """The fixture's server, ready when its port accepts: its questions are asked in plain HTTP."""

    def _ready(self) -> bool:
        return accepts(self.port)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: certify(folder, name) for name in ("first", "second")}


@pytest.fixture
def tls(tmp_path: Path, certificates: dict[str, tuple[Path, Path]]) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path / "server", configured(*certificates["first"]))
    server.start()
    yield server
    server.stop()


def configured(certificate: Path, key: Path) -> dict[str, dict[str, object]]:
    return {"server": {"tls_certificate": str(certificate), "tls_key": str(key)}}


def ask(server: FileServer, *arguments: str | Path) -> Transfers:
    return curl("-k", *arguments)


def url(server: FileServer, path: str) -> str:
    return f"https://127.0.0.1:{server.port}{path}"


# curl 7.88 sends no last chunk for an empty file.
@pytest.mark.parametrize(
    ("size", "chunked"),
    [(0, False), (1, False), (60_000, False), (8_000_000, False), (1, True), (60_000, True), (8_000_000, True)],
)
def test_up_and_down(tls: TlsServer, tmp_path: Path, size: int, chunked: bool) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(content(size, f"tls {size}"))
    if chunked:
        signature = slots.x_signature("/upload/tls/a.bin")
        options = ("-H", "Transfer-Encoding: chunked", "-H", f"X-Signature: {signature}")
        sent = ask(tls, "-T", file, *options, url(tls, "/upload/tls/a.bin"))
    else:
        sent = ask(tls, "-T", file, url(tls, slots.target("tls/a.bin", slots.v1("tls/a.bin", size))))
    assert (sent.exit_code, sent.status) == (0, 201), sent.trace[-2000:]
    got = ask(tls, url(tls, "/upload/tls/a.bin"), url(tls, "/upload/tls/a.bin"))
    assert got.body == file.read_bytes() * 2
    if size:
        part = ask(tls, "-r", f"{size // 2}-", url(tls, "/upload/tls/a.bin"))
        assert (part.status, part.body) == (206, file.read_bytes()[size // 2 :])
    assert not tls.spooled()


def test_a_form(tls: TlsServer, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(content(3_000_000, "tls form"))
    signature = slots.x_signature("/upload")
    sent = ask(tls, "-F", f"file=@{file}", "-H", f"X-Signature: {signature}", url(tls, "/upload"))
    assert sent.status == 200, sent.trace[-2000:]
    stored = [path for path in tls.storage.glob("*/a.bin") if not path.is_symlink()]
    assert [hashlib.sha256(path.read_bytes()).digest() for path in stored] == [
        hashlib.sha256(file.read_bytes()).digest()
    ]


def test_a_refusal_is_read(tls: TlsServer, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(4_000_000))
    sent = ask(tls, "-T", file, "-H", "Expect:", url(tls, "/upload/a?v=" + "0" * 64))
    assert sent.status == 403, sent.trace[-2000:]


def test_a_cut_upload_leaves_nothing(tls: TlsServer) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    size = 2_000_000
    target = slots.target("tls/cut", slots.v1("tls/cut", size))
    head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", tls.port), timeout=20) as raw:
        secured = context.wrap_socket(raw)
        secured.sendall(head + bytes(size // 2))
        wait_until(lambda: bool(tls.spooled()), "the body is being spooled")
        secured.close()
    wait_until(lambda: not tls.spooled(), "the spool is gone")
    assert tls.files() == set()


def test_only_current_versions(tls: TlsServer) -> None:
    with socket.create_connection(("127.0.0.1", tls.port), timeout=20) as raw:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(raw) as secured:
            assert secured.version() in {"TLSv1.2", "TLSv1.3"}
    # Plain HTTP is not answered, and harms nobody.
    assert curl(f"http://127.0.0.1:{tls.port}/health").exit_code != 0
    assert ask(tls, url(tls, "/health")).status == 200


def subject(server: FileServer) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw,
        context.wrap_socket(raw) as secured,
    ):
        found = secured.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_a_renewed_certificate(tls: TlsServer, certificates: dict[str, tuple[Path, Path]]) -> None:
    """New connections get the new one; a pair that does not fit is refused and the old one stays whole."""
    first = subject(tls)
    (one, one_key), (two, two_key) = certificates["first"], certificates["second"]
    tls.write_config(configured(two, one_key))
    os.kill(tls.pid, signal.SIGHUP)
    wait_until(lambda: "Configuration not reloaded" in tls.log.read_text(), "the refusal")
    assert subject(tls) == first
    tls.write_config(configured(two, two_key))
    os.kill(tls.pid, signal.SIGHUP)
    wait_until(lambda: "Configuration reloaded" in tls.log.read_text(), "the reload")
    assert subject(tls) != first
    assert one != two
    assert ask(tls, url(tls, "/health")).status == 200
    assert isinstance(tls.child, Child)
