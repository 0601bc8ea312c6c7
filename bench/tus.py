"""tus against our own PUT: `python -m bench.tus`.

One server, alternating rounds, the same bytes: a PATCH of 1 GiB against a PUT of it, and short files created with
their upload (creation-with-upload) against PUTs of them, over several connections of one lean client process.
Prints the medians and their ratio for each durability.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

from tests.fixtures.server import SECRET, FileServer

from bench.chunked import content, forget, put, send
from hmac_file_server.auth import signing

MIB = 1 << 20
KEY = SECRET.encode()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.tus", description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file (1024)")
    parser.add_argument("--files", type=int, default=4000, help="short files a round (4000)")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the server stores (a temporary folder)")
    options = parser.parse_args()
    print(f"{'durability':<12}{'what':<34}{'PUT':>12}{'tus':>12}{'ratio':>8}")
    for durability in ("relaxed", "full"):
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-tus-") as folder:
            server = FileServer(
                Path(folder),
                {
                    "server": {"max_upload_size": "64GB"},
                    "uploads": {"durability": durability},
                    "deduplication": {"enabled": False},
                    "logging": {"level": "warning"},
                },
            )
            server.start()
            try:
                large(server, options, durability)
                short(server, options, durability)
            finally:
                server.stop()


def large(server: FileServer, options: argparse.Namespace, durability: str) -> None:
    """PUT and PATCH of one large file."""
    puts, patches = [], []
    size = options.size * MIB
    with content(size) as source:
        for number in range(options.rounds + 1):
            os.pwrite(source, os.urandom(16), 0)
            began = time.perf_counter()
            put(server, f"r{number}/put.bin", source, size)
            puts.append(options.size / (time.perf_counter() - began))
            forget(server)
            os.pwrite(source, os.urandom(16), 0)
            began = time.perf_counter()
            patch(server, source, size)
            patches.append(options.size / (time.perf_counter() - began))
            forget(server)
    show(durability, f"{options.size} MiB, MiB/s", puts[1:], patches[1:])


def patch(server: FileServer, source: int, size: int) -> None:
    """Creation, and one PATCH of the whole."""
    head = {"Tus-Resumable": "1.0.0", "Upload-Length": str(size), "X-Signature": signing.x_signature(KEY, "/tus/")}
    upload = urljoin("/tus/", server.request("POST", "/tus/", headers=head).headers["location"])
    with socket.create_connection((server.host, server.port)) as sock:
        send(
            sock,
            f"PATCH {upload} HTTP/1.1\r\nHost: bench\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {size}\r\n\r\n",
            source,
            0,
            size,
        )


def short(server: FileServer, options: argparse.Namespace, durability: str) -> None:
    """Short files by PUT, and created with their upload."""
    body = os.urandom(10 * 1024)
    signature = signing.x_signature(KEY, "/tus/")

    def put_of(number: int, index: int) -> bytes:
        path = f"s{number}/{index // 500}/{index}.bin"
        query = signing.v1(KEY, path, len(body))
        return f"PUT /{path}?v={query} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def slot_of(number: int, index: int) -> bytes:
        path = f"slot-{number}-{index}/file.bin"
        query = signing.v1(KEY, path, len(body))
        return f"PUT /{path}?v={query} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def post_of(_number: int, _index: int) -> bytes:
        return (
            f"POST /tus/ HTTP/1.1\r\nHost: bench\r\nTus-Resumable: 1.0.0\r\nUpload-Length: {len(body)}\r\n"
            f"X-Signature: {signature}\r\nContent-Type: application/offset+octet-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    puts, slots, posts = [], [], []
    for number in range(options.rounds + 1):
        puts.append(rate(server, options, number, put_of))
        slots.append(rate(server, options, number, slot_of))
        posts.append(rate(server, options, number, post_of))
    show(durability, f"10 KiB, {options.connections} connections, files/s", puts[1:], posts[1:])
    show(durability, "to PUTs into folders of their own", slots[1:], posts[1:])


def rate(server: FileServer, options: argparse.Namespace, number: int, request: Callable[[int, int], bytes]) -> float:
    """Files a second: every connection sends its next request when the last was answered."""
    requests: Iterator[bytes] = iter([request(number, index) for index in range(options.files)])
    selector = selectors.DefaultSelector()
    began = time.perf_counter()
    open_ones = 0
    for _ in range(options.connections):
        first = next(requests, None)
        if first is not None:
            sock = socket.create_connection((server.host, server.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(first)
            selector.register(sock, selectors.EVENT_READ)
            open_ones += 1
    while open_ones:
        for key, _ in selector.select():
            sock = key.fileobj  # type: ignore[assignment]
            answer = sock.recv(65536)
            if not answer.startswith((b"HTTP/1.1 201 ", b"HTTP/1.1 200 ")):
                raise SystemExit(answer.decode("latin-1"))
            following = next(requests, None)
            if following is None:
                selector.unregister(sock)
                sock.close()
                open_ones -= 1
            else:
                sock.sendall(following)
    return float(options.files / (time.perf_counter() - began))


def show(durability: str, what: str, puts: list[float], ours: list[float]) -> None:
    """One line."""
    ratio = statistics.median(o / p for p, o in zip(puts, ours, strict=True))
    line = f"{durability:<12}{what:<34}{statistics.median(puts):>12.0f}{statistics.median(ours):>12.0f}{ratio:>8.2f}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
