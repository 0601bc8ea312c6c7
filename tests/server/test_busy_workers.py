"""A disk that stands still: jobs queue for the workers, sockets are held, then new uploads are put off."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.server import SECRET, Answer, FileServer
from tests.server import gated_server

from hmac_file_server.auth import signing

pytestmark = pytest.mark.server

KEY = SECRET.encode()
PUTS = 4


class GatedServer(FileServer):
    """See `gated_server`."""

    @contextmanager
    def disk_stands_still(self) -> Iterator[None]:
        gate = os.open(self.folder / gated_server.GATE, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(gate, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(gate)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GatedServer]:
    server = GatedServer(
        tmp_path,
        {
            "server": {"enable_dynamic_workers": False},
            "workers": {"numworkers": 1, "max_workers": 1, "uploadqueuesize": 2},
            "deduplication": {"enabled": False},
        },
        program=(gated_server.__name__,),
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


def put(server: FileServer, number: int) -> Answer:
    body = b"%d" % number
    return server.request("PUT", f"/u/{number}?v={signing.v1(KEY, f'u/{number}', len(body))}", body, timeout=60)


def begin(server: FileServer) -> Answer:
    signature = signing.x_signature(KEY, "/upload/chunked")
    head = {"X-Filename": "a", "X-Total-Size": "5", "X-Signature": signature}
    return server.request("POST", "/upload/chunked", headers=head)


def sent_until_held(sock: socket.socket, size: int) -> int:
    """Send until nothing is taken for a second, or `size` bytes were."""
    sock.settimeout(1.0)
    sent = 0
    try:
        while sent < size:
            sent += sock.send(bytes(1 << 20))
    except TimeoutError:
        pass
    return sent


def test_a_full_queue_holds_sockets_then_puts_new_uploads_off_and_loses_nothing(server: GatedServer) -> None:
    size = 64 << 20
    with (
        ThreadPoolExecutor(PUTS) as threads,
        socket.create_connection((server.host, server.port)) as large,
    ):
        with server.disk_stands_still():
            puts = [threads.submit(put, server, number) for number in range(PUTS)]
            wait_until(lambda: "jobs wait for workers, uploads are held" in server.log_text(), "the queue is full")

            # The socket of a large body is not read from: the kernel's buffers fill, and that is all.
            signature = signing.v1(KEY, "u/large", size)
            large.sendall(f"PUT /u/large?v={signature} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
            sent = sent_until_held(large, size)
            assert sent < size

            # What needs no upload goes on all the while.
            assert server.request("GET", "/health").status == 200
            answers = [begin(server)]

            def put_off() -> bool:
                answers.append(begin(server))
                return answers[-1].status == 503

            wait_until(put_off, "new uploads are put off", seconds=30)
            assert {answer.status for answer in answers[:-1]} == {201}
            assert answers[-1].json()["code"] == "server_busy"
            assert int(answers[-1].headers["retry-after"]) > 0
            assert server.request("PUT", f"/u/x?v={signing.v1(KEY, 'u/x', 1)}", b"x").status == 503

        assert [future.result().status for future in puts] == [201] * PUTS
        wait_until(lambda: begin(server).status == 201, "uploads are taken again")
        assert "Workers have caught up, uploads go on" in server.log_text()
        large.settimeout(60)
        while sent < size:
            sent += large.send(bytes(min(1 << 20, size - sent)))
        assert large.recv(100).startswith(b"HTTP/1.1 201 ")
    for number in range(PUTS):
        assert server.request("GET", f"/u/{number}").body == b"%d" % number
    assert server.request("HEAD", "/u/large").headers["content-length"] == str(size)
