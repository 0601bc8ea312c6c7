"""Bounds that hold under load: memory while much streams through, a fast client among many slow ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer, StartServer
from tests.server import signatures
from tests.server.wire import Wire, memory

MIB = 1 << 20
GIB = 1 << 30
GROWTH = 8 * MIB
PIECE = bytes(range(256)) * 4096 * 4  # 4 MiB


def stream_up(server: FileServer, path: str, size: int) -> int:
    with Wire(server, timeout=60) as wire:
        wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
        sent = 0
        while sent < size:
            piece = PIECE[: min(len(PIECE), size - sent)]
            wire.send(piece)
            sent += len(piece)
        return wire.answer().status


def stream_down(server: FileServer, path: str, size: int) -> str:
    """SHA-256 of what a GET brings."""
    digest = hashlib.sha256()
    buffer = bytearray(MIB)
    with Wire(server, timeout=60) as wire:
        wire.head("GET", f"/upload/{path}")
        first = wire.sock.recv(1 << 16)
        head, _, body = first.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        digest.update(body)
        received = len(body)
        while received < size:
            count = wire.sock.recv_into(buffer)
            assert count
            digest.update(memoryview(buffer)[:count])
            received += count
    return digest.hexdigest()


def remove_files(server: FileServer) -> None:
    """Give the disk back now: test folders are kept for a while."""
    for file in server.storage.rglob("*"):
        if file.is_file() and file.stat().st_size >= MIB:
            file.unlink()


@pytest.mark.parametrize("dedup", [False, True], ids=["plain", "hashed"])
def test_memory_stays_flat_while_gigabytes_go_through(start_server: StartServer, dedup: bool) -> None:
    """Up in one piece, and down again: at most 8 MiB more than after a warm-up of 64 MiB (G-12)."""
    server = start_server({"deduplication": {"enabled": dedup}, "uploads": {"durability": "relaxed"}})
    assert stream_up(server, "flat/warm", 64 * MIB) == 201
    expected = hashlib.sha256(PIECE * 16).hexdigest()
    assert stream_down(server, "flat/warm", 64 * MIB) == expected
    found = os.statvfs(server.folder)
    # Two gigabytes, or as much as a small machine has room for.
    size = min(2 * GIB, found.f_bavail * found.f_frsize // 4 // len(PIECE) * len(PIECE))
    assert size >= 128 * MIB, "no room for this test"
    before = memory(server.pid)
    assert stream_up(server, "flat/large", size) == 201
    after = memory(server.pid)
    assert after - before < GROWTH, f"{(after - before) / MIB:.1f} MiB"
    assert (server.storage / "flat" / "large").stat().st_size == size
    with Wire(server, timeout=60) as wire:
        wire.head("GET", "/upload/flat/large", {"Range": f"bytes={size - 3 * MIB - 5}-"})
        assert wire.answer().body == (PIECE + PIECE)[-(3 * MIB + 5) :]
    assert memory(server.pid) - before < GROWTH
    remove_files(server)


def test_memory_stays_flat_while_a_form_goes_through(server: FileServer) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    tail = b"\r\n--b--\r\n"

    def post(size: int) -> int:
        length = len(head) + size + len(tail)
        with Wire(server, timeout=60) as wire:
            wire.head(
                "POST",
                "/upload",
                {
                    "Content-Type": "multipart/form-data; boundary=b",
                    "Content-Length": str(length),
                    "X-Signature": signatures.mac("/upload"),
                },
            )
            wire.send(head)
            for _ in range(size // len(PIECE)):
                wire.send(PIECE)
            wire.send(tail)
            return wire.answer().status

    assert post(64 * MIB) == 200
    before = memory(server.pid)
    assert post(512 * MIB) == 200
    assert memory(server.pid) - before < GROWTH
    remove_files(server)


def test_memory_stays_flat_over_many_requests(start_server: StartServer) -> None:
    """Nothing is kept of a request: not of 3,000 refused ones, not of 3,000 for files that are not there."""
    server = start_server({"logging": {"level": "error"}})

    def turn() -> None:
        with Wire(server) as wire:
            for number in range(1500):
                wire.head("GET", f"/upload/missing/{number}")
                assert wire.answer().status == 404
                wire.head("PUT", f"/upload/refused/{number}?v={number:064x}", {"Content-Length": "0"})
                assert wire.answer().status == 403

    turn()
    before = memory(server.pid)
    for _ in range(2):
        turn()
    assert memory(server.pid) - before < 2 * MIB


def test_unauthorised_bodies_cost_nothing(server: FileServer) -> None:
    """Refused before a byte is read; what is sent all the same is dropped within a bound (S-08, N-31)."""
    assert server.request("PUT", "/upload/x?v=" + "0" * 64, b"x").status == 403
    before = memory(server.pid)
    wires = []
    for _ in range(50):
        wire = Wire(server)
        wire.head("PUT", "/upload/x?v=" + "0" * 64, {"Content-Length": str(GIB)})
        assert wire.next_answer().status == 403
        wires.append(wire)
    for wire in wires:
        with contextlib.suppress(OSError):
            wire.send(bytes(MIB))
        wire.sock.close()
    assert not server.spooled()
    assert memory(server.pid) - before < GROWTH


SLOW = 300


@pytest.mark.parametrize("size", [40_000, 400_000], ids=["collected", "offloaded"])
def test_a_fast_client_among_slow_ones(server: FileServer, size: int) -> None:
    """300 uploads stand still half-way while another client stores and reads at once; then all of them finish."""
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    wires = []
    for number in range(SLOW):
        path = f"slow/{number}"
        wire = Wire(server, timeout=60)
        wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
        wire.send(body[: size // 2])
        wires.append(wire)
    wait_until(lambda: len(server.spooled()) == SLOW, "all are running")
    threads = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
    count = next(int(line.split()[1]) for line in threads.splitlines() if line.startswith("Threads:"))
    assert count < 40, "slow clients must not hold threads"
    fast = bytes(2_000_000)
    for number in range(20):
        path = f"fast/{number}"
        target = slots.target(path, slots.v1(path, len(fast)))
        assert server.request("PUT", target, fast).status == 201
        assert len(server.request("GET", f"/upload/{path}").body) == len(fast)
    # A few bytes each, all at the same time: every one is alive.
    for wire in wires:
        wire.send(body[size // 2 : size // 2 + 10])
    with ThreadPoolExecutor(8) as pool:

        def finish(wire: Wire) -> int:
            wire.send(body[size // 2 + 10 :])
            return wire.answer().status

        assert set(pool.map(finish, wires)) == {201}
    for wire in wires:
        wire.sock.close()
    for number in (0, SLOW // 2, SLOW - 1):
        assert server.request("GET", f"/upload/slow/{number}").body == body
    assert not server.spooled()


def test_many_readers_of_one_file(server: FileServer) -> None:
    """Slow readers hold no thread and no memory either: 100 of them stop reading in the middle."""
    path, size = "read/f.bin", 8 * MIB
    target = slots.target(path, slots.v1(path, size))
    assert server.request("PUT", target, bytes(size)).status == 201
    before = memory(server.pid)
    wires = []
    for _ in range(100):
        wire = Wire(server, timeout=60)
        wire.head("GET", f"/upload/{path}")
        assert wire.sock.recv(1000)
        wires.append(wire)
    assert server.request("GET", "/health").status == 200
    assert memory(server.pid) - before < GROWTH
    stopped = threading.Event()

    def drain(wire: Wire) -> int:
        received = 1000
        while received < size and not stopped.is_set():
            piece = wire.sock.recv(MIB)
            if not piece:
                break
            received += len(piece)
        wire.sock.close()
        return received

    with ThreadPoolExecutor(8) as pool:
        assert all(received >= size for received in pool.map(drain, wires))
