"""How soon a server takes its first byte, how soon it has ended under load, what it holds after much (G-12, G-27)."""

from __future__ import annotations

import signal
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fixtures import slots
from tests.fixtures.child import Child
from tests.fixtures.server import FileServer, Settings, environment
from tests.load import gauges
from tests.load.asking import answer
from tests.load.crowd import CrowdProcess
from tests.load.slow_uploads import KIB, put_requests

_PIECE: Final = bytes(range(256)) * 16384


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the exec to the 201 of a first upload of one byte, of several starts."""

    times: tuple[float, ...]

    def line(self) -> str:
        """One line of all."""
        ordered = sorted(self.times)
        return (
            f"{len(ordered)} cold starts to the first accepted byte: median {statistics.median(ordered) * 1e3:.0f} ms,"
            f" fastest {ordered[0] * 1e3:.0f} ms, slowest {ordered[-1] * 1e3:.0f} ms"
        )


def cold_starts(folder: Path, count: int, processes: int) -> Start:
    """Start a server with an empty folder, so many times."""
    times = []
    for number in range(count):
        server = FileServer(folder / f"start-{number}", {"server": {"processes": processes}})
        server.folder.mkdir(parents=True)
        server.write_config(server.settings or {})
        began = time.monotonic()
        server.child = Child(
            "hmac-file-server",
            [sys.executable, "-m", *server.program, "serve", "--config", str(server.config)],
            log=server.log,
            env=environment(),
            cwd=server.folder,
        )
        try:
            server.child.wait_ready(lambda server=server: _takes_a_byte(server))  # type: ignore[misc]
            times.append(time.monotonic() - began)
        finally:
            server.stop()
    return Start(tuple(times))


def _takes_a_byte(server: FileServer) -> bool:
    try:
        target = slots.target("first", slots.v1("first", 1))
        return server.request("PUT", target, b"x", timeout=5).status == 201
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class End:
    """What SIGTERM led to while uploads were under way."""

    uploads: int
    seconds: float
    code: int
    finished: bool

    def line(self) -> str:
        """One line of all."""
        return (
            f"SIGTERM with {self.uploads} slow uploads under way: ended after {self.seconds:.1f} s with code {self.code},"
            f" an upload that went on was {'finished' if self.finished else 'LOST'}"
        )


def drain(folder: Path, count: int, processes: int) -> End:
    """Tell a server to end in the middle of so many slow uploads, and of one that has nearly all its bytes."""
    settings: Settings = {"server": {"processes": processes}, "logging": {"level": "warning"}}
    server = FileServer(folder / "server", settings)
    server.start()
    crowd = CrowdProcess(server.host, server.port)
    try:
        crowd.join(put_requests(count, 1 << 20))
        crowd.drip(KIB)
        size = 200_000
        target = slots.target("last", slots.v1("last", size))
        with socket.create_connection((server.host, server.port), timeout=60) as sock:
            head = f"PUT {target} HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
            sock.sendall(head.encode())
            # What was never accepted is not under way.
            assert sock.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(bytes(size - 1))
            assert server.child is not None
            process = server.child.process
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            sock.sendall(b"\0")
            finished = answer(sock).status == 201
        code = process.wait(60)
        seconds = time.monotonic() - began
        assert "Traceback" not in server.log_text()
        server.child = None
        return End(count, seconds, code, finished and (server.storage / "last").stat().st_size == size)
    finally:
        crowd.close()
        server.stop()


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory before, at its peak, and after so many bytes, in bytes."""

    sent: int
    before: int
    peak: int
    after: int

    def line(self) -> str:
        """One line of all."""
        mib = gauges.MIB
        return (
            f"{self.sent / 2**30:.1f} GiB from one client: memory {self.before / mib:.1f} MiB before,"
            f" {self.peak / mib:.1f} at the most, {self.after / mib:.1f} after: growth"
            f" {(self.peak - self.before) / mib:.1f} MiB"
        )


def growth(folder: Path, total: int, step: int = 1 << 30) -> Growth:
    """Let one client send `total` bytes, hashed and synced, in files of `step` bytes that are removed again."""
    server = FileServer(folder / "server", {"deduplication": {"maxsize": "1TB"}})
    server.start()
    try:
        with socket.create_connection((server.host, server.port), timeout=120) as sock:
            _send(server, sock, "warm", 64 << 20)
            before = peak = gauges.resident(server)
            sent = 0
            while sent < total:
                _send(server, sock, f"{sent}", step)
                sent += step
                peak = max(peak, gauges.resident(server))
        return Growth(sent, before, peak, gauges.resident(server))
    finally:
        server.stop()


def _send(server: FileServer, sock: socket.socket, name: str, size: int) -> None:
    path = f"growth/{name}"
    target = slots.target(path, slots.v1(path, size))
    sock.sendall(f"PUT {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n".encode())
    sent = 0
    while sent < size:
        sock.sendall(_PIECE[: min(len(_PIECE), size - sent)])
        sent += len(_PIECE)
    assert answer(sock).status == 201
    for file in server.storage.rglob("*"):
        if file.is_file() and file.stat().st_size == size:
            file.unlink()
