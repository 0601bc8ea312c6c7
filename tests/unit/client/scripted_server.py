"""A server on loopback that answers what a script says, byte for byte, one connection after the other."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hmac_file_server.client.exchanges import Http
from hmac_file_server.client.source import Source
from hmac_file_server.client.target import Target

PATIENCE = 20.0


class Peer:
    """One accepted connection, with what scripts do."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.buffer = b""

    def head(self) -> bytes:
        """Read a head; empty at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            piece = self.sock.recv(65536)
            if not piece:
                return b""
            self.buffer += piece
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def body(self, length: int) -> bytes:
        """Read so many bytes, or what comes before the end."""
        while len(self.buffer) < length:
            piece = self.sock.recv(1 << 20)
            if not piece:
                break
            self.buffer += piece
        found, self.buffer = self.buffer[:length], self.buffer[length:]
        return found

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def endless(self, data: bytes) -> int:
        """Send the same over and over until nobody takes it; how many bytes were taken."""
        taken = 0
        with contextlib.suppress(OSError):
            while True:
                self.sock.sendall(data)
                taken += len(data)
        return taken

    def until_closed(self) -> None:
        """Read until the other end closes."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass


Script = Callable[[Peer], Any]


class ScriptedServer:
    """Each connection gets the next script; the last one serves all that follow. `done` holds what scripts returned."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.done: list[Any] = []
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._peers: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End everything; raises what a script raised."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        for peer in self._peers:
            peer.close()
        if self.errors:
            raise self.errors[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._peers.append(sock)
            thread = threading.Thread(target=self._serve, args=(script, sock))
            self._threads.append(thread)
            thread.start()

    def _serve(self, script: Script, sock: socket.socket) -> None:
        try:
            self.done.append(script(Peer(sock)))
        except ConnectionError:
            pass
        except BaseException as error:  # told by close()
            self.errors.append(error)
        finally:
            sock.close()


@contextmanager
def serving(*scripts: Script) -> Iterator[ScriptedServer]:
    server = ScriptedServer(*scripts)
    try:
        yield server
    finally:
        server.close()


def answering(answer: bytes, *, times: int = 1, close: bool = True) -> Script:
    """Read a request without a body, answer it; after that close, or wait for the end."""

    def script(peer: Peer) -> bytes:
        head = b""
        for _ in range(times):
            head = peer.head() or head
            peer.send(answer)
        if not close:
            peer.until_closed()
        return head

    return script


@contextmanager
def http(server: ScriptedServer, **options: Any) -> Iterator[Http]:
    """Exchanges with the server; to be used on a running loop."""
    exchanges = Http(
        Target.parse(server.url), **{"answer_timeout": PATIENCE, "stall_timeout": 5.0, "mptcp": False, **options}
    )
    try:
        yield exchanges
    finally:
        exchanges.close()


@contextmanager
def source_of(folder: Path, data: bytes) -> Iterator[Source]:
    path = folder / "source.bin"
    path.write_bytes(data)
    source = Source(path)
    try:
        yield source
    finally:
        source.close()
