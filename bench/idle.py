"""Idle sessions: `python -m bench.idle`: how long a server with many of them takes to start, and what they cost.

Begins sessions through the chunk API, stores one chunk of every tenth, stops the server, starts it again and
times it from the exec to the first answer of `/ready`. Prints that beside an empty server's start.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from tests.fixtures.server import SECRET, FileServer

from hmac_file_server.auth import signing

_LENGTH = 3 << 20
_CHUNK = 1 << 20


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--starts", type=int, default=3, help="starts that are timed (3)")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder:
        server = FileServer(
            Path(folder),
            {
                "server": {"processes": options.processes},
                "uploads": {"chunk_size": _CHUNK},
                "logging": {"level": "warning"},
            },
        )
        empty = [started(server) for _ in range(options.starts)]
        server.start()
        began = time.perf_counter()
        begin_sessions(server, options.sessions)
        rate = options.sessions / (time.perf_counter() - began)
        server.stop()
        full = []
        memory = 0
        for _ in range(options.starts):
            memory_of: list[int] = []
            full.append(started(server, memory_of))
            memory = memory_of[0]
        print(f"{options.sessions} sessions begun at {rate:.0f} a second over 8 connections")
        print(
            f"start with none: {statistics.median(empty) * 1e3:.0f} ms; with all: {statistics.median(full) * 1e3:.0f} ms"
        )
        print(f"memory of the server after such a start: {memory // 1024} MiB")


def started(server: FileServer, memory: list[int] | None = None) -> float:
    """Start, stop, and return the seconds until it was ready."""
    began = time.perf_counter()
    server.start()
    took = time.perf_counter() - began
    if memory is not None:
        status = Path(f"/proc/{server.pid}/status").read_text()
        memory.append(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")))
    server.stop()
    return took


def begin_sessions(server: FileServer, count: int) -> None:
    """Begin sessions over eight connections."""
    signature = signing.x_signature(SECRET.encode(), "/upload/chunked")
    numbers = iter(range(count))
    lock = threading.Lock()
    chunk = bytes(_CHUNK)

    def work() -> None:
        connection = HTTPConnection(server.host, server.port, timeout=60)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return
            head = {"X-Filename": f"f{number}", "X-Total-Size": str(_LENGTH), "X-Signature": signature}
            connection.request("POST", "/upload/chunked", headers=head)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 201:
                raise SystemExit(body.decode())
            if number % 10 == 0:
                session = json.loads(body)["session_id"]
                connection.request(
                    "PUT",
                    "/upload/chunked",
                    chunk,
                    {"X-Upload-Session-ID": session, "X-Chunk-Number": "0"},
                )
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    raise SystemExit(body.decode())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
