"""Uploads in chunks against one PUT of the same bytes: `python -m bench.chunked`.

One server, one file in memory, alternating rounds: a PUT by a signed slot on one connection, then a session of the
chunk API with chunks of 8 MiB over four connections. Both clients send by sendfile. Prints the median rates and
their ratio for each durability, with and without deduplication (which hashes).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fixtures.server import SECRET, FileServer

from hmac_file_server.auth import signing

MIB = 1 << 20


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.chunked", description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file (1024)")
    parser.add_argument("--chunk", type=int, default=8, help="MiB of a chunk (8)")
    parser.add_argument("--parallel", type=int, default=4, help="connections of the chunked upload (4)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a variant (5)")
    parser.add_argument("--processes", type=int, default=1, help="processes of the server (1)")
    parser.add_argument("--folder", type=Path, default=None, help="where the server stores (a temporary folder)")
    options = parser.parse_args()
    print(
        f"{options.size} MiB, chunks of {options.chunk} MiB over {options.parallel} connections; median of {options.rounds}"
    )
    print(f"{'durability':<12}{'dedup':<8}{'PUT MiB/s':>12}{'chunked MiB/s':>16}{'ratio':>8}")
    with content(options.size * MIB) as source:
        for durability in ("relaxed", "full"):
            for dedup in (False, True):
                puts, chunks = measure(options, source, durability, dedup=dedup)
                put, chunked = statistics.median(puts), statistics.median(chunks)
                ratio = statistics.median(c / p for p, c in zip(puts, chunks, strict=True))
                print(
                    f"{durability:<12}{'yes' if dedup else 'no':<8}{put:>12.0f}{chunked:>16.0f}{ratio:>8.2f}",
                    flush=True,
                )


@contextmanager
def content(size: int) -> Iterator[int]:
    """Yield the descriptor of a file in memory with random bytes."""
    fd = os.memfd_create("bench-chunked")
    block = os.urandom(4 * MIB)
    for offset in range(0, size, len(block)):
        os.pwrite(fd, block, offset)
    os.ftruncate(fd, size)
    try:
        yield fd
    finally:
        os.close(fd)


def measure(
    options: argparse.Namespace, source: int, durability: str, *, dedup: bool
) -> tuple[list[float], list[float]]:
    """Rates in MiB/s of each round: the PUTs, and the chunked uploads."""
    size = options.size * MIB
    puts, chunks = [], []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-chunked-") as folder:
        server = FileServer(
            Path(folder),
            {
                "server": {"processes": options.processes, "max_upload_size": "64GB"},
                "uploads": {"durability": durability, "chunk_size": options.chunk * MIB},
                "deduplication": {"enabled": dedup, "maxsize": "64GB"},
                "logging": {"level": "warning"},
            },
        )
        server.start()
        try:
            for number in range(options.rounds + 1):
                # A byte that differs keeps every file apart from the others.
                os.pwrite(source, os.urandom(16), 0)
                began = time.perf_counter()
                put(server, f"r{number}/put.bin", source, size)
                middle = time.perf_counter()
                forget(server)
                os.pwrite(source, os.urandom(16), 0)
                start = time.perf_counter()
                chunked(server, source, size, options.chunk * MIB, options.parallel)
                end = time.perf_counter()
                forget(server)
                if number:  # the first round warms up
                    puts.append(options.size / (middle - began))
                    chunks.append(options.size / (end - start))
        finally:
            server.stop()
    return puts, chunks


def forget(server: FileServer) -> None:
    """Remove what was stored, so that the disk does not fill."""
    for name in server.files():
        (server.storage / name).unlink()
    blobs = server.storage / ".hmac-file-server" / "blobs"
    for blob in blobs.rglob("*"):
        if blob.is_file():
            blob.unlink()
    os.sync()


def send(sock: socket.socket, head: str, source: int, offset: int, count: int) -> bytes:
    """Send a request whose body is a span of the source; return the whole answer."""
    sock.sendall(head.encode("ascii"))
    end = offset + count
    while offset < end:
        offset += os.sendfile(sock.fileno(), source, offset, end - offset)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(65536)
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head_bytes.split(b"\r\n") if line.lower().startswith(b"content-length")),
        0,
    )
    while len(body) < length:
        body += sock.recv(65536)
    if head_bytes.split(b" ", 2)[1] not in {b"200", b"201", b"204"}:
        raise SystemExit(head_bytes.decode() + body.decode())
    return body


def put(server: FileServer, path: str, source: int, size: int) -> None:
    """One PUT of the whole."""
    signature = signing.v1(SECRET.encode(), path, size)
    with socket.create_connection((server.host, server.port)) as sock:
        send(
            sock,
            f"PUT /{path}?v={signature} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n",
            source,
            0,
            size,
        )


def chunked(server: FileServer, source: int, size: int, chunk: int, parallel: int) -> None:
    """One session, its chunks shared out over connections."""
    signature = signing.x_signature(SECRET.encode(), "/upload/chunked")
    answer = server.request(
        "POST",
        "/upload/chunked",
        headers={"X-Filename": "bench.bin", "X-Total-Size": str(size), "X-Signature": signature},
    )
    session = json.loads(answer.body)["session_id"]
    count = -(-size // chunk)
    numbers = iter(range(count))
    lock = threading.Lock()
    completed: list[bool] = []

    def work() -> None:
        with socket.create_connection((server.host, server.port)) as sock:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                length = min(chunk, size - number * chunk)
                head = (
                    f"PUT /upload/chunked HTTP/1.1\r\nHost: bench\r\nX-Upload-Session-ID: {session}\r\n"
                    f"X-Chunk-Number: {number}\r\nContent-Length: {length}\r\n\r\n"
                )
                completed.append(json.loads(send(sock, head, source, number * chunk, length))["completed"])

    threads = [threading.Thread(target=work) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sum(completed) != 1:
        raise SystemExit("the upload was not completed exactly once")


if __name__ == "__main__":
    main()
