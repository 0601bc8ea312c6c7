"""One running server, whatever it is made of, and how to start, find and stop it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from bench import signing
from bench.client import on_cores
from bench.errors import UnavailableError

PREFIX = "/upload/"
START_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how wide a server runs."""

    cores: frozenset[int]
    processes: int


@dataclass(slots=True)
class Server:
    """A server that answers on host:port.

    `root_pid` None: its CPU and memory are unknown. `files` None: what it stored cannot be looked at.
    `scratch` are folders with second names of large files, which have to go with them.
    """

    name: str
    host: str
    port: int
    host_header: str
    prefix: str = PREFIX
    secret: bytes | None = None
    root_pid: int | None = None
    files: Path | None = None
    scratch: tuple[Path, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None

    def put_target(self, path: str, size: int) -> str:
        """Return the signed request target of an upload to `path`."""
        return signing.put_target(self.prefix, path, size, self.secret)

    def get_target(self, path: str) -> str:
        """Return the request target of a download of `path`."""
        return signing.get_target(self.prefix, path)

    def stored(self, path: str) -> Path | None:
        """Return where `path` lies on this disk, or None when that is not known."""
        return None if self.files is None else self.files / path

    def alive(self) -> bool:
        """Tell whether the process we started still runs; always true for one started by others."""
        return self.process is None or self.process.poll() is None

    def stop(self) -> None:
        """End the server if we started it: SIGTERM, then SIGKILL after ten seconds."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def last_words(self) -> str:
        """Return the end of what the server printed, in one line."""
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])[-500:]


class Peer(Protocol):
    """A kind of server that can be started."""

    @property
    def name(self) -> str:
        """The name in tables."""

    def start(self, work: Path, placement: Placement) -> Server:
        """Start it with its files under `work` and wait until it answers; raises UnavailableError."""


def free_port() -> int:
    """Return a TCP port on the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def spawn(
    command: Sequence[str], log: IO[bytes], cores: frozenset[int], env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command on `cores`, its output in `log`."""
    return subprocess.Popen(
        on_cores(cores, command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        env=None if env is None else {**os.environ, **env},
    )  # fmt: skip


def answers(host: str, port: int) -> bool:
    """Tell whether an HTTP server answers there (any status)."""
    try:
        with socket.create_connection((host, port), 1.0) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(7) == b"HTTP/1."
    except OSError:
        return False


def wait_until_ready(server: Server) -> Server:
    """Wait until `server` answers; stops it and raises UnavailableError when it ended or took too long."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if not server.alive():
            raise UnavailableError(f"{server.name} ended at start: {server.last_words() or 'it printed nothing'}")
        if answers(server.host, server.port):
            return server
        time.sleep(0.02)
    server.stop()
    raise UnavailableError(
        f"{server.name} did not answer within {START_LIMIT_S:.0f} s: {server.last_words() or 'it printed nothing'}"
    )
