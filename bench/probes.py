"""What a changing network does to a tus upload: `python -m bench.probes`.

A file of 8 MiB, by raw sockets, against this server or, with --url, any other:

A  half of a PATCH is sent, then silence; a new connection asks for the offset, then goes on: seconds until the
   PATCH may be sent, and bytes kept
B  as A, and the old connection sends late bytes while the new one works: is the content right?
C  half of a PATCH, then a reset; HEAD: seconds, and bytes kept
D  two PATCHes at offset 0 at once: the statuses
E  SIGKILL in the middle of a PATCH, restart, HEAD, go on: is the content right? (this server only)
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from tests.faults.chunks import kill
from tests.fixtures.server import SECRET, FileServer

from hmac_file_server.auth import signing

SIZE = 8 << 20
HALF = SIZE // 2


@dataclass(slots=True)
class Reply:
    """One answer's head."""

    status: int
    fields: dict[str, str]
    body: bytes


class Site:
    """Where uploads are created."""

    def __init__(self, url: str, fields: dict[str, str]) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.path = parts.path
        self._fields = fields

    def connect(self) -> socket.socket:
        """A new connection."""
        sock = socket.create_connection((self.host, self.port), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def head(self, method: str, target: str, fields: dict[str, str]) -> bytes:
        """A request's head."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", "Tus-Resumable: 1.0.0"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def request(self, method: str, target: str, fields: dict[str, str], body: bytes = b"") -> Reply:
        """One request on a connection of its own."""
        with self.connect() as sock:
            sock.sendall(self.head(method, target, {**fields, "Content-Length": str(len(body))}) + body)
            return reply(sock, bodiless=method == "HEAD")

    def create(self) -> str:
        """Begin an upload; its path."""
        answer = self.request("POST", self.path, {"Upload-Length": str(SIZE), **self._fields})
        if answer.status != 201:
            raise SystemExit(f"no upload could be begun: {answer.status}")
        return urlsplit(urljoin(self.path, answer.fields["location"])).path

    def offset(self, upload: str) -> int:
        """HEAD."""
        return int(self.request("HEAD", upload, {}).fields["upload-offset"])

    def begin_patch(
        self, upload: str, offset: int, body: bytes, sent: int, more: dict[str, str] | None = None
    ) -> socket.socket:
        """Send a PATCH's head and the first bytes of its body."""
        sock = self.connect()
        fields = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(offset),
            "Content-Length": str(len(body)),
            **(more or {}),
        }
        sock.sendall(self.head("PATCH", upload, fields) + body[:sent])
        return sock

    def patch(self, upload: str, offset: int, body: bytes) -> int:
        """A whole PATCH; its status."""
        with self.begin_patch(upload, offset, body, len(body)) as sock:
            return reply(sock).status

    def content(self, upload: str) -> bytes:
        """GET."""
        return self.request("GET", upload, {}).body


def reply(sock: socket.socket, *, bodiless: bool = False) -> Reply:
    """Read one answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(1 << 20)
        if not piece:
            return Reply(0, {}, b"")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = 0 if bodiless else int(fields.get("content-length", "0"))
    pieces = [body]
    have = len(body)
    while have < length:
        piece = sock.recv(1 << 20)
        if not piece:
            break
        pieces.append(piece)
        have += len(piece)
    return Reply(int(lines[0].split()[1]), fields, b"".join(pieces))


def probe_a(site: Site, body: bytes, late: bytes = b"") -> tuple[float, int, bool]:
    """Seconds to go on, bytes kept, and whether the content is right. With `late`, B."""
    upload = site.create()
    with site.begin_patch(upload, 0, body, HALF) as old:
        time.sleep(0.5)  # the silence itself is what is probed
        began = time.perf_counter()
        offset = site.offset(upload)
        took = time.perf_counter() - began
        with site.begin_patch(upload, offset, body[offset:], 0, {"Expect": "100-continue"}) as new:
            # Invited: from here on the new one has the upload.
            new.recv(1 << 16)
            new.sendall(body[offset : offset + (1 << 20)])
            if late:
                with contextlib.suppress(OSError):  # it was ended: better still
                    old.sendall(late)
            new.sendall(body[offset + (1 << 20) :])
            reply(new)
    right = site.offset(upload) == SIZE and site.content(upload) == body
    return took, offset, right


def probe_c(site: Site, body: bytes) -> tuple[float, int]:
    """Seconds until HEAD is answered, and bytes kept, after a reset."""
    upload = site.create()
    sock = site.begin_patch(upload, 0, body, HALF)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    began = time.perf_counter()
    offset = site.offset(upload)
    return time.perf_counter() - began, offset


def probe_d(site: Site, body: bytes) -> tuple[int, ...]:
    """The statuses of two PATCHes at 0 at once, in order; 0 is none."""
    upload = site.create()
    statuses: list[int] = []
    start = threading.Barrier(2)

    def one() -> None:
        start.wait()
        try:
            statuses.append(site.patch(upload, 0, body))
        except OSError:
            statuses.append(0)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tuple(sorted(statuses))


def probe_e(site: Site, body: bytes, restart: Callable[[], None]) -> bool:
    """Whether the content is right after a kill in the middle."""
    upload = site.create()
    with site.begin_patch(upload, 0, body, HALF):
        restart()
    offset = site.offset(upload)
    return site.patch(upload, offset, body[offset:]) == 204 and site.content(upload) == body


def show(site: Site, rounds: int, restart: Callable[[], None] | None) -> None:
    """Run all and print."""
    body = os.urandom(SIZE)
    a = [probe_a(site, body) for _ in range(rounds)]
    print(f"A  median {statistics.median(t for t, _, _ in a) * 1e3:.1f} ms, most {max(t for t, _, _ in a) * 1e3:.1f} ms; "
          f"kept {min(kept for _, kept, _ in a)} of {HALF}; content right: {all(right for _, _, right in a)}")  # fmt: skip
    b = [probe_a(site, body, os.urandom(1 << 20)) for _ in range(rounds)]
    print(f"B  content right: {all(right for _, _, right in b)}")
    c = [probe_c(site, body) for _ in range(rounds)]
    print(f"C  median {statistics.median(t for t, _ in c) * 1e3:.1f} ms; kept median {statistics.median(k for _, k in c):.0f}, "
          f"least {min(k for _, k in c)} of {HALF}")  # fmt: skip
    d = [probe_d(site, body) for _ in range(rounds)]
    print(f"D  statuses: {sorted(set(d))}")
    if restart is not None:
        print(f"E  content right: {all(probe_e(site, body, restart) for _ in range(rounds))}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.probes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--url", help="another server's creation URL")
    options = parser.parse_args()
    if options.url:
        show(Site(options.url, {}), options.rounds, None)
        return
    with tempfile.TemporaryDirectory(prefix="bench-probes-") as folder:
        server = FileServer(
            Path(folder),
            {"server": {"processes": options.processes}, "logging": {"level": "warning"}},
        )
        server.start()

        def restart() -> None:
            kill(server)
            server.start()

        try:
            signature = signing.x_signature(SECRET.encode(), "/tus/")
            show(Site(f"{server.url}/tus/", {"X-Signature": signature}), options.rounds, restart)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
