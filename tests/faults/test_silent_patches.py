"""Five hundred PATCHes that fall silent in the middle: nobody else notices, and the server ends them all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urljoin

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.server import SECRET, FileServer

from hmac_file_server.auth import signing

pytestmark = pytest.mark.server

COUNT = 500
LENGTH = 1 << 20
SENT = 100_000
STALL = 6.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    server = FileServer(
        tmp_path, {"timeouts": {"stall_timeout": f"{STALL:g}s"}, "uploads": {"max_sessions_per_owner": COUNT}}
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


def create(server: FileServer) -> str:
    signature = signing.x_signature(SECRET.encode(), "/tus/")
    head = {"Tus-Resumable": "1.0.0", "Upload-Length": str(LENGTH), "X-Signature": signature}
    answer = server.request("POST", "/tus/", headers=head)
    assert answer.status == 201
    return urljoin("/tus/", answer.headers["location"])


def offset(server: FileServer, upload: str) -> int:
    answer = server.request("HEAD", upload, headers={"Tus-Resumable": "1.0.0"})
    return int(answer.headers["upload-offset"])


def resident(server: FileServer) -> int:
    """Bytes of memory that the server holds."""
    status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def slowest_options(server: FileServer) -> float:
    """The ninth of ten: one may have met the test's own machine."""
    took = []
    for _ in range(10):
        began = time.perf_counter()
        assert server.request("OPTIONS", "/tus/").status == 204
        took.append(time.perf_counter() - began)
    return sorted(took)[-2]


def test_five_hundred_silent_patches(server: FileServer) -> None:
    uploads = [create(server) for _ in range(COUNT)]
    body = bytes(SENT)
    before = resident(server)
    with ExitStack() as silent:
        sockets = []
        for upload in uploads:
            sock = silent.enter_context(socket.create_connection((server.host, server.port)))
            sock.sendall(
                f"PATCH {upload} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {LENGTH}\r\n\r\n".encode()
            )
            sock.sendall(body)
            sockets.append(sock)
        # Python's tus servers let everybody wait for half a minute here.
        assert slowest_options(server) < 0.5
        assert resident(server) - before < COUNT * 64 * 1024
        for sock in sockets:
            sock.settimeout(STALL * 10)
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408 "), answer[:100]
    for upload in (uploads[0], uploads[COUNT // 2], uploads[-1]):
        wait_until(lambda upload=upload: offset(server, upload) == SENT, "what came of a silent PATCH is there")  # type: ignore[misc]
    assert server.request("OPTIONS", "/tus/").status == 204
