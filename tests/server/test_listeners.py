"""Where the server listens: IPv4, IPv6, Unix sockets, several at once, ports of the kernel's choosing."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import free_port, wait_until
from tests.fixtures.server import FileServer, Settings, environment, request

Start = Callable[[list[str]], FileServer]


@pytest.fixture
def listening(tmp_path: Path, start: Callable[[Settings], FileServer]) -> Start:
    """A server on its usual address and the given ones."""

    def run(addresses: list[str]) -> FileServer:
        server = start({})
        server.stop()
        server.settings = {"server": {"listen_address": [f"127.0.0.1:{server.port}", *addresses]}}
        server.start()
        return server

    return run


@pytest.fixture
def start(start_server: Callable[[Settings], FileServer]) -> Callable[[Settings], FileServer]:
    return start_server


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


def over_unix(path: Path, data: bytes) -> bytes:
    """Send and half-close; everything that comes back."""
    received = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(data)
        while not received.endswith(b"--end--") and (piece := sock.recv(1 << 16)):
            received += piece
    return received


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6(listening: Start, host: str) -> None:
    port = free_port()
    server = listening([f"[{host}]:{port}"])
    body = b"over six"
    target = slots.target("six/a.txt", slots.v1("six/a.txt", len(body)))
    assert request("::1", port, "PUT", target, body).status == 201
    assert request("::1", port, "GET", "/upload/six/a.txt").body == body
    assert server.request("GET", "/upload/six/a.txt").body == body
    if host == "::":
        # Operators who write [::] mean everything.
        assert request("127.0.0.1", port, "GET", "/upload/six/a.txt").body == body
    log = server.log.read_text()
    assert f"Listening on [{host}]:{port}" in log
    wait_until(lambda: "from [::1]:" in server.log.read_text(), "the client's address is logged")


@needs_ipv6
def test_both_wildcards_with_one_port(listening: Start) -> None:
    port = free_port()
    server = listening([f"0.0.0.0:{port}", f"[::]:{port}"])
    for host in ("127.0.0.1", "::1"):
        assert request(host, port, "GET", "/health").status == 200
    assert server.log.read_text().count("Listening on") >= 3


def test_a_unix_socket(listening: Start, tmp_path: Path) -> None:
    path = tmp_path / "upload.sock"
    server = listening([f"unix:{path}"])
    assert stat.S_ISSOCK(path.stat().st_mode)
    body = bytes(300_000)
    target = slots.target("unix/a.bin", slots.v1("unix/a.bin", len(body)))
    head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert over_unix(path, head + body).startswith(b"HTTP/1.1 201 ")
    got = over_unix(path, b"GET /upload/unix/a.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, received = got.partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200 "), received == body) == (True, True)
    assert server.request("HEAD", "/upload/unix/a.bin").headers["content-length"] == str(len(body))
    wait_until(lambda: " from unix " in server.log.read_text(), "the peer is logged")
    server.stop()
    assert not path.exists()


def test_a_unix_socket_that_a_crash_left(listening: Start, tmp_path: Path) -> None:
    path = tmp_path / "upload.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    server = listening([f"unix:{path}"])
    assert over_unix(path, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    server.stop()


def test_port_zero(listening: Start) -> None:
    server = listening(["127.0.0.1:0"])
    ports = [int(port) for port in re.findall(r"Listening on 127\.0\.0\.1:(\d+)", server.log.read_text())]
    chosen = ports[-1]
    assert chosen not in {0, server.port}
    assert request("127.0.0.1", chosen, "GET", "/health").status == 200


def start_fails(server: FileServer, settings: Settings) -> str:
    """Run a server that cannot start: it ends with 1 and says why in one line, which is returned."""
    server.folder.mkdir(parents=True, exist_ok=True)
    server.write_config(settings)
    done = subprocess.run(
        [sys.executable, "-m", "hmac_file_server", "serve", "--config", str(server.config)],
        env=environment(),
        cwd=server.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if " ERROR " in line]
    assert len(errors) == 1, done.stderr
    return errors[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_address_in_use(server: FileServer, tmp_path: Path, processes: int) -> None:
    """And what was listened on before it is given up again: no socket file is left behind."""
    path = tmp_path / "left.sock"
    addresses = [f"unix:{path}", f"127.0.0.1:{server.port}"]
    second = FileServer(tmp_path / "second")
    line = start_fails(second, {"server": {"listen_address": addresses, "processes": processes}})
    assert f"cannot listen on 127.0.0.1:{server.port}: Address already in use" in line
    assert not path.exists()
    assert server.request("GET", "/ready").status == 200


def test_a_unix_socket_in_use(tmp_path: Path) -> None:
    path = tmp_path / "used.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        line = start_fails(FileServer(tmp_path / "server"), {"server": {"listen_address": f"unix:{path}"}})
        assert "Address already in use" in line
        assert path.exists()


def test_a_file_where_the_socket_should_be(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("not a socket")
    line = start_fails(FileServer(tmp_path / "server"), {"server": {"listen_address": f"unix:{path}"}})
    assert "Address already in use" in line
    assert path.read_text() == "not a socket"


def test_a_storage_path_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    assert "Cannot run: " in start_fails(FileServer(tmp_path / "server"), {"server": {"storage_path": str(path)}})
