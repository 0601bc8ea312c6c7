"""The servers that uploads go to, each on the port of a namespace of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit
from urllib.request import ProxyHandler, build_opener

from tests.fixtures import node
from tests.fixtures.child import Child
from tests.fixtures.namespaces import Namespace
from tests.fixtures.server import SECRET, environment, toml

from bench.errors import BenchError, UnavailableError
from hmac_file_server.auth import signing

PROJECT: Final = Path(__file__).resolve().parents[2]
DRIVERS: Final = Path(__file__).parent / "drivers"
PORT: Final = 8080
KEY: Final = SECRET.encode()
CHUNKED: Final = "/upload/chunked"
TUS: Final = "/tus/"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a client sends its file.

    base    scheme and authority
    tus     URL where uploads by tus are begun, with what has to be sent along
    chunked the same of the chunk API; empty where there is none
    secret  what its signatures are made with; empty where there are none
    folder  where the server keeps what it got; None when that is not known
    machine where it runs
    """

    base: str
    tus: str
    tus_fields: Mapping[str, str] = field(default_factory=dict)
    chunked: str = ""
    chunked_fields: Mapping[str, str] = field(default_factory=dict)
    secret: str = ""
    folder: Path | None = None
    machine: Namespace | None = None

    def has(self, size: int, digest: str, url: str) -> bool | None:
        """Whether a file of that size and SHA-256 (hexadecimal) is there; None when nobody knows.

        Where the folder is not known, what is downloaded from the upload's own URL is looked at.
        """
        if self.folder is None:
            found = self.machine.call(download, url) if self.machine is not None and url else None
            return None if found is None else found == digest
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_size == size and digest_of(path) == digest:
                    return True
        return False


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str) -> str | None:
    """SHA-256 of what is at a URL, in hexadecimal; None when there is nothing."""
    digest = hashlib.sha256()
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=60) as answer:
            while piece := answer.read(1 << 16):
                digest.update(piece)
    except (OSError, HTTPException):
        return None
    return digest.hexdigest()


class Kind(Protocol):
    """A server that can be started."""

    @property
    def name(self) -> str:
        """The name in tables."""

    @property
    def chunked(self) -> bool:
        """Whether it has the chunk API."""

    def missing(self) -> str:
        """What it needs and is not here, in words; empty when it can be started."""

    def running(self, machine: Namespace, address: str, folder: Path) -> AbstractContextManager[Site]:
        """Run it in a namespace at an address, with its files in a folder that is there; AssertionError if it fails."""


def answering(machine: Namespace, address: str) -> bool:
    """Whether something accepts connections."""

    def look() -> bool:
        try:
            socket.create_connection((address, PORT), 1).close()
        except OSError:
            return False
        return True

    return machine.call(look)


@contextmanager
def child(
    name: str, command: Sequence[str], machine: Namespace, address: str, folder: Path, env: Mapping[str, str]
) -> Iterator[Child]:
    """A server process that accepts connections."""
    started = Child(name, machine.command(command), log=folder / "output.log", env=env, cwd=folder)
    try:
        started.wait_ready(lambda: answering(machine, address))
        yield started
    finally:
        # Some wait for clients that are never heard of again.
        started.stop(seconds=3)


class Ours:
    """This server with its defaults."""

    name = "ours"
    chunked = True

    def missing(self) -> str:
        """Nothing."""
        return ""

    @contextmanager
    def running(self, machine: Namespace, address: str, folder: Path) -> Iterator[Site]:
        """See `Kind`."""
        storage, config = folder / "files", folder / "config.toml"
        config.touch(0o600)
        config.write_text(
            toml(
                {
                    "server": {
                        "listen_address": f"{address}:{PORT}",
                        "storage_path": str(storage),
                        "processes": 1,
                        "min_free_bytes": "1MB",
                    },
                    "security": {"secret": SECRET},
                    "logging": {"level": "warning"},
                }
            ),
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "hmac_file_server", "serve", "--config", str(config)]
        with child(self.name, command, machine, address, folder, environment()):
            base = f"http://{address}:{PORT}"
            yield Site(
                base,
                base + TUS,
                {"X-Signature": signing.x_signature(KEY, TUS)},
                base + CHUNKED,
                {"X-Signature": signing.x_signature(KEY, CHUNKED)},
                SECRET,
                storage,
            )


class TusServer:
    """@tus/server with @tus/file-store, in Node."""

    name = "@tus/server"
    chunked = False

    def missing(self) -> str:
        """Its packages are those of the tests."""
        there = all((node.PACKAGES / "node_modules" / name).is_dir() for name in ("@tus/server", "@tus/file-store"))
        return "" if there else "@tus/server is not installed: run scripts/npm-packages"

    @contextmanager
    def running(self, machine: Namespace, address: str, folder: Path) -> Iterator[Site]:
        """See `Kind`."""
        files = folder / "files"
        files.mkdir()
        command = [node.node(), str(DRIVERS / "tus_server.mjs"), str(node.PACKAGES), str(files), address, str(PORT)]
        with child("tus-server", command, machine, address, folder, node.environment()):
            base = f"http://{address}:{PORT}"
            yield Site(base, base + TUS, folder=files)


class TuspyServer:
    """tuspyserver, in an environment of its own."""

    name = "tuspyserver"
    chunked = False
    python = PROJECT / ".venv-bench" / "bin" / "python"

    def missing(self) -> str:
        """Its environment."""
        return "" if self.python.exists() else "tuspyserver is not installed: run scripts/bench-packages"

    @contextmanager
    def running(self, machine: Namespace, address: str, folder: Path) -> Iterator[Site]:
        """See `Kind`."""
        files = folder / "files"
        files.mkdir()
        command = [str(self.python), str(DRIVERS / "tuspyserver_app.py"), str(files), address, str(PORT)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with child("tuspyserver", command, machine, address, folder, env):
            base = f"http://{address}:{PORT}"
            yield Site(base, base + TUS, folder=files)


class External:
    """A server that runs already, reached through a port of the namespace; it speaks tus at its URL.

    Bytes are passed on as they come, and connections end when either side ends them: of a client that has lost its
    network, the server is told as little as any other.
    """

    chunked = False

    def __init__(self, name: str, url: str) -> None:
        """Raises BenchError for what is no URL of a plain HTTP server."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise BenchError(f"--server {name}={url}: give it as NAME=http://HOST[:PORT]/PATH")
        self.name = name
        self._path = parts.path or "/"
        self._address = (parts.hostname, parts.port or 80)

    def missing(self) -> str:
        """An answer, perhaps."""
        try:
            socket.create_connection(self._address, 5).close()
        except OSError as error:
            return f"{self.name} does not answer at {self._address[0]}:{self._address[1]}: {error}"
        return ""

    @contextmanager
    def running(self, machine: Namespace, address: str, _folder: Path) -> Iterator[Site]:
        """See `Kind`."""
        listener = machine.call(socket.create_server, (address, PORT))
        passages: list[Passage] = []

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                try:
                    passages.append(Passage(client, socket.create_connection(self._address, 5)))
                except OSError:
                    client.close()

        thread = threading.Thread(target=accept, name="external", daemon=True)
        thread.start()
        try:
            base = f"http://{address}:{PORT}"
            yield Site(base, urljoin(base, self._path), machine=machine)
        finally:
            # Closing alone wakes nobody who waits in accept().
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            listener.close()
            for passage in passages:
                passage.close()


class Passage:
    """Two sockets, each of which gets what the other receives."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = (client, server)
        self._threads = [
            threading.Thread(target=self._pass, args=ends, name="passage", daemon=True)
            for ends in ((client, server), (server, client))
        ]
        for thread in self._threads:
            thread.start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End both."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()


KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (Ours(), TusServer(), TuspyServer())}


def chosen(names: Sequence[str]) -> list[Kind]:
    """Servers by name, or as NAME=URL; all that are known for none. Raises BenchError for an unknown one."""
    if not names:
        return list(KINDS.values())
    found: list[Kind] = []
    for text in names:
        name, equals, url = text.partition("=")
        if equals:
            found.append(External(name, url))
        elif name in KINDS:
            found.append(KINDS[name])
        else:
            raise BenchError(f"unknown server {name}; there are {', '.join(KINDS)}, and NAME=URL")
    return found


def require(kind: Kind) -> None:
    """Raise UnavailableError when a server cannot be started."""
    if reason := kind.missing():
        raise UnavailableError(reason)


def empty(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
