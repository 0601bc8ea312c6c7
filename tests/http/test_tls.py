"""The whole server over TLS: uploads, downloads, cuts and reuse with a self-signed certificate."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.http.cases import get, lines, put, put_framed
from tests.http.conftest import judge
from tests.http.wire import answers
from tests.unit.http.site import certificate, client_context


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("keys"))


class SecuredServer(FileServer):
    """Is ready when it takes a TLS connection; `FileServer` would ask in plain HTTP."""

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            plain = socket.create_connection((self.host, self.port), timeout=5)
            with client_context(self.folder / "certificate.pem").wrap_socket(
                plain, server_hostname="127.0.0.1"
            ) as sock:
                return sock.version() is not None
        return False


@pytest.fixture(scope="module", params=["relaxed", "full"])
def secured(
    request: pytest.FixtureRequest, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FileServer]:
    server = SecuredServer(
        tmp_path_factory.mktemp("tls") / "server",
        {
            "server": {"tls_certificate": str(keys[0]), "tls_key": str(keys[1])},
            "uploads": {"durability": request.param},
            "timeouts": {"stall_timeout": "2s", "header_timeout": "2s"},
        },
    )
    server.folder.mkdir()
    shutil.copy(keys[0], server.folder / "certificate.pem")
    server.start()
    try:
        yield server
        judge(server)
    finally:
        server.stop()


def connect(server: FileServer, keys: tuple[Path, Path]) -> ssl.SSLSocket:
    plain = socket.create_connection((server.host, server.port), timeout=30)
    return client_context(keys[0]).wrap_socket(plain, server_hostname="127.0.0.1")


def rest(sock: ssl.SSLSocket) -> bytes:
    received = bytearray()
    while data := sock.recv(262144):
        received += data
    return bytes(received)


@pytest.mark.parametrize("size", [0, 1, 16_384, 70_000, 1_000_003, 20_000_000])
def test_uploads_and_downloads_on_one_connection(secured: FileServer, keys: tuple[Path, Path], size: int) -> None:
    context = client_context(keys[0])
    client = http.client.HTTPSConnection(secured.host, secured.port, timeout=60, context=context)
    path = f"tls/{size}.bin"
    body = content(size, path)
    try:
        client.connect()
        sock = client.sock
        for _ in range(2):
            client.request("PUT", slots.target(path, slots.v1(path, size)), body)
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (201, b"")
            client.request("GET", "/upload/" + path)
            answer = client.getresponse()
            assert answer.status == 200
            assert answer.read() == body
        assert client.sock is sock
    finally:
        client.close()
    assert (secured.storage / path).read_bytes() == body


def test_pipelined_requests(secured: FileServer, keys: tuple[Path, Path]) -> None:
    large = content(900_000, "tls pipelined")
    data = put("tls-large", large) + get(target="/upload/cases/tls-large.bin") + put("tls-small", b"abc") + get() * 70
    with connect(secured, keys) as sock:
        sock.sendall(data + get("Connection: close"))
        found = answers(rest(sock))
    assert [answer.status for answer in found] == [201, 200, 201, *[200] * 71]
    assert found[1].body == large


def test_ranges_and_chunks(secured: FileServer, keys: tuple[Path, Path]) -> None:
    body = content(500_000, "tls chunked")
    coded = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 7777]), body[at : at + 7777]) for at in range(0, len(body), 7777)
    )
    request = put_framed("tls-chunked", "Transfer-Encoding: chunked", body=coded + b"0\r\n\r\n")
    with connect(secured, keys) as sock:
        sock.sendall(
            request + get("Range: bytes=100-400099", "Connection: close", target="/upload/cases/tls-chunked.bin")
        )
        found = answers(rest(sock))
    assert [answer.status for answer in found] == [201, 206]
    assert found[1].body == body[100:400_100]


@pytest.mark.parametrize("size", [1000, 1_000_000])
@pytest.mark.parametrize("polite", [True, False])
def test_cut_bodies_leave_nothing(secured: FileServer, keys: tuple[Path, Path], size: int, polite: bool) -> None:
    name = f"tls-cut-{size}-{polite}"
    sock = connect(secured, keys)
    sock.sendall(put(name, put("tls-inner", b"abc"), size=size))
    with contextlib.suppress(OSError):
        if polite:
            sock.unwrap()
    sock.close()
    wait_until(lambda: f"/upload/cases/{name}.bin" in secured.log.read_text(encoding="utf-8"), "the request is over")
    wait_until(lambda: secured.spooled() == [], "the spool is empty")
    assert not (secured.storage / f"cases/{name}.bin").exists()
    assert not (secured.storage / "cases/tls-inner.bin").exists()


def test_refusals_can_be_read(secured: FileServer, keys: tuple[Path, Path]) -> None:
    with connect(secured, keys) as sock:
        sock.sendall(lines("PUT /upload/tls/x HTTP/1.1", "Host: t", "Content-Length: 1000000000") + bytes(2_000_000))
        received = b""
        while not received.endswith(b"}\n"):
            received += sock.recv(65536)
        assert answers(received)[0].status == 403


def test_stalled_bodies(secured: FileServer, keys: tuple[Path, Path]) -> None:
    for size in (1000, 500_000):
        with connect(secured, keys) as sock:
            sock.sendall(put(f"tls-stalled-{size}", b"half", size=size))
            received = b""
            while not received.endswith(b"}\n"):
                received += sock.recv(65536)
            assert answers(received)[0].status == 408


def test_malformed_requests(secured: FileServer, keys: tuple[Path, Path]) -> None:
    for data in (b"BAD\r\n\r\n", get(host="X: y"), get(target="/../x")):
        with connect(secured, keys) as sock:
            sock.sendall(data + get())
            received = b""
            while not received.endswith(b"}\n"):
                received += sock.recv(65536)
            assert [answer.status for answer in answers(received)] == [400]


def test_plain_http_and_old_versions_are_turned_away(secured: FileServer, keys: tuple[Path, Path]) -> None:
    with socket.create_connection((secured.host, secured.port), timeout=20) as plain:
        plain.sendall(get())
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/1.1 200" not in plain.recv(4096)
    context = client_context(keys[0])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.maximum_version = version
        with (
            socket.create_connection((secured.host, secured.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
        ):
            assert sock.version() in {"TLSv1.2", "TLSv1.3"}
