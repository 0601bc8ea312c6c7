"""Uploads that do not go well: slow, cut, repeated, racing, killed. Nothing half is ever seen, nothing whole lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, StartServer
from tests.server import signatures
from tests.server.wire import EarlyEndError, Wire

MIB = 1 << 20


def begin(server: FileServer, path: str, size: int, body: bytes = b"", **headers: str) -> Wire:
    """A v1 PUT whose head, and the beginning of whose body, were sent."""
    wire = Wire(server)
    wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size), **headers})
    if body:
        wire.send(body)
    return wire


def is_spooling(server: FileServer, count: int = 1) -> Callable[[], bool]:
    return lambda: len(server.spooled()) >= count


@pytest.mark.parametrize("size", [50_000, 3 * MIB], ids=["collected", "offloaded"])
@pytest.mark.parametrize("whole", [False, True], ids=["relative", "whole"])
def test_nothing_is_seen_before_the_last_byte(server: FileServer, size: int, whole: bool) -> None:
    path = "slow/f.bin"
    body = content(size, path)
    query = slots.v1(f"upload/{path}" if whole else path, size)
    with Wire(server) as wire:
        wire.head("PUT", slots.target(path, query), {"Content-Length": str(size)})
        for start in range(0, size - 1, size // 8):
            wire.send(body[start : min(start + size // 8, size - 1)])
            for target in (f"/upload/{path}", f"/{path}", f"/download/{path}", "/upload/slow", "/upload/slow/"):
                assert server.request("GET", target).status == 404
            assert server.request("HEAD", f"/upload/{path}").status == 404
            assert server.files() == set()
        wire.send(body[-1:])
        assert wire.answer().status == 201
    assert server.request("GET", f"/upload/{path}").body == body


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize("size", [10_240, 2 * MIB])
def test_racing_puts_store_one_of_them(start_server: StartServer, size: int, durability: str) -> None:
    """Eight contents for one path at the same moment: one is stored and acknowledged, seven are 409."""
    server = start_server({"uploads": {"durability": durability}})
    for turn in range(4):
        path = f"race/{turn}/f.bin"
        bodies = [content(size, f"{path} {number}") for number in range(8)]
        seen: list[bytes] = []
        stop = threading.Event()
        barrier = threading.Barrier(len(bodies))

        def put(body: bytes, path: str = path, barrier: threading.Barrier = barrier) -> int:
            with begin(server, path, size, body[:-1]) as wire:
                barrier.wait(20)
                wire.send(body[-1:])
                return wire.answer().status

        def poll(path: str = path, stop: threading.Event = stop, seen: list[bytes] = seen) -> None:
            while not stop.is_set():
                answer = server.request("GET", f"/upload/{path}")
                if answer.status == 200:
                    seen.append(answer.body)

        with ThreadPoolExecutor(len(bodies) + 1) as pool:
            polling = pool.submit(poll)
            statuses = list(pool.map(put, bodies))
            stop.set()
            polling.result()
        assert sorted(statuses) == [201] + [409] * 7
        winner = bodies[statuses.index(201)]
        assert server.request("GET", f"/upload/{path}").body == winner
        assert set(seen) <= {winner}
    wait_until(lambda: not server.spooled(), "no spool is left")


@pytest.mark.parametrize("size", [0, 10_240, 2 * MIB])
def test_racing_puts_of_one_content_are_all_201(server: FileServer, size: int) -> None:
    path = "race/f.bin"
    body = content(size, path)
    barrier = threading.Barrier(8)

    def put(_: int) -> int:
        with begin(server, path, size, body[:-1]) as wire:
            barrier.wait(20)
            wire.send(body[-1:])
            return wire.answer().status

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(put, range(8))) == [201] * 8
    assert server.request("GET", f"/upload/{path}").body == body
    wait_until(lambda: not server.spooled(), "no spool is left")


@pytest.mark.parametrize("same", [True, False])
def test_the_slower_of_two_uploads_finds_the_path_taken(server: FileServer, same: bool) -> None:
    path, size = "two/f.bin", 2 * MIB
    first = content(size, "first")
    second = first if same else content(size, "second")
    with begin(server, path, size, second[: size // 2]) as slow:
        wait_until(is_spooling(server), "the slow body is being spooled")
        with begin(server, path, size, first) as fast:
            assert fast.answer().status == 201
        slow.send(second[size // 2 :])
        assert slow.answer().status == (201 if same else 409)
    assert server.request("GET", f"/upload/{path}").body == first


def test_a_conflict_is_told_before_the_body(server: FileServer) -> None:
    path = "early/f.bin"
    assert server.request("PUT", slots.target(path, slots.v1(path, 3)), b"abc").status == 201
    with begin(server, path, 9 * MIB, Expect="100-continue") as wire:
        answer = wire.next_answer()
        assert (answer.status, answer.json()["code"]) == (409, "exists")


def test_a_repeat_of_the_same_size_is_compared_and_stores_nothing(server: FileServer) -> None:
    path, size = "compare/f.bin", 3 * MIB
    body = content(size, path)
    with begin(server, path, size, body) as wire:
        assert wire.answer().status == 201
    with begin(server, path, size, Expect="100-continue") as wire:
        assert wire.next_answer().status == 100
        wire.send(body[:-1])
        assert not server.spooled()
        wire.send(body[-1:])
        assert wire.answer().status == 201
    # A difference in the last byte only.
    with begin(server, path, size, body[:-1] + bytes([body[-1] ^ 1])) as wire:
        assert wire.answer().status == 409
    assert server.request("GET", f"/upload/{path}").body == body


@pytest.mark.parametrize("ending", ["close", "reset", "half-close"])
@pytest.mark.parametrize("size", [50_000, 8 * MIB], ids=["collected", "offloaded"])
def test_a_cut_upload_leaves_nothing(server: FileServer, ending: str, size: int) -> None:
    """No file, no spool, no descriptor; and the same slot is good for the next attempt (N-12, N-13)."""
    path = "cut/f.bin"
    body = content(size, path)
    descriptors = f"/proc/{server.pid}/fd"
    assert server.request("GET", "/health").status == 200
    # The first upload opens what stays open: the folder, the database of this thread.
    assert server.request("PUT", slots.target("cut/first", slots.v1("cut/first", 1)), b"x").status == 201
    wait_until(lambda: not server.spooled(), "nothing is being spooled")
    before = len(os.listdir(descriptors))
    for _ in range(3):
        wires = [begin(server, path, size, body[: size // 2]) for _ in range(5)]
        wait_until(is_spooling(server, 5), "the bodies are being spooled")
        for wire in wires:
            if ending == "reset":
                wire.reset()
                continue
            if ending == "half-close":
                wire.sock.shutdown(1)
                answer = wire.answer()
                assert (answer.status, answer.json()["code"]) == (400, "incomplete")
            wire.sock.close()
        wait_until(lambda: not server.spooled(), "the spools of the cut uploads are gone")
        assert server.request("GET", f"/upload/{path}").status == 404
        assert server.files() == {"cut/first"}
    wait_until(lambda: len(os.listdir(descriptors)) <= before, "the descriptors are given back")
    with begin(server, path, size, body) as wire:
        assert wire.answer().status == 201
    assert server.request("GET", f"/upload/{path}").body == body


def test_the_space_of_cut_uploads_is_given_back(start_server: StartServer) -> None:
    """Each of these announces more than half of what is free: were one forgotten, the next would be 507."""
    server = start_server({"server": {"max_upload_size": "100TB"}})
    found = os.statvfs(server.folder)
    announced = found.f_bavail * found.f_frsize * 6 // 10
    for turn in range(4):
        with begin(server, f"space/{turn}", announced, Expect="100-continue") as wire:
            assert wire.next_answer().status == 100, turn
            wire.send(bytes(MIB))
            wait_until(is_spooling(server), "the body is being spooled")
            with begin(server, "space/second", announced, Expect="100-continue") as second:
                answer = second.next_answer()
                assert (answer.status, answer.json()["code"]) == (507, "storage_full")
            if turn % 2:
                wire.reset()
        wait_until(lambda: not server.spooled(), "the spool is gone")
    assert server.request("GET", "/ready").status == 200


def test_a_stalled_body_is_cut(start_server: StartServer) -> None:
    server = start_server({"timeouts": {"stall_timeout": "0.5s"}})
    size = 2 * MIB
    for sent in (1, MIB):
        with begin(server, "stalled/f.bin", size, bytes(sent)) as wire:
            answer = wire.answer()
            assert (answer.status, answer.json()["code"]) == (408, "body_stalled")
            assert wire.is_closed()
    with begin(server, "stalled/small.bin", 20_000, bytes(10)) as wire:
        answer = wire.answer()
        assert (answer.status, answer.json()["code"]) == (408, "body_stalled")
    wait_until(lambda: not server.spooled(), "the spools are gone")
    assert server.files() == set()


def kill(server: FileServer) -> None:
    """SIGKILL, and the server started again on the same store."""
    assert server.child is not None
    server.child.process.send_signal(signal.SIGKILL)
    server.child.process.wait(20)
    server.start()


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_sigkill_loses_nothing_that_was_acknowledged(start_server: StartServer, durability: str) -> None:
    """Uploads of many sizes run while the server is killed: what got its 201 is there and whole, all else is not."""
    server = start_server({"uploads": {"durability": durability}})
    acknowledged: dict[str, bytes] = {}
    attempted: dict[str, bytes] = {}
    lock = threading.Lock()
    enough = threading.Event()
    stop = threading.Event()

    def upload(worker: int) -> None:
        number = 0
        while not stop.is_set():
            path = f"kill/{worker}/{number}.txt"
            body = content((10, 5_000, 70_000, 1_500_000)[(worker + number) % 4], path)
            number += 1
            with lock:
                attempted[path] = body
            try:
                answer = server.request(
                    "PUT", slots.target(path, slots.v1(path, len(body))), body, {"Content-Type": "text/x-note"}
                )
            except OSError:
                return
            assert answer.status == 201
            with lock:
                acknowledged[path] = body
                if len(acknowledged) >= 60:
                    enough.set()

    for _ in range(2):
        enough.clear()
        stop.clear()
        with ThreadPoolExecutor(6) as pool:
            workers = [pool.submit(upload, worker) for worker in range(6)]
            with begin(server, "kill/half.bin", 4 * MIB, bytes(2 * MIB)) as half:
                assert enough.wait(30)
                wait_until(is_spooling(server), "half a file is spooled")
                assert server.child is not None
                server.child.process.send_signal(signal.SIGKILL)
                server.child.process.wait(20)
                stop.set()
                for worker in workers:
                    worker.result()
                with pytest.raises(EarlyEndError):
                    half.answer()
        server.start()
        assert not server.spooled()
        present = server.files()
        assert set(acknowledged) <= present <= set(attempted)
        for path in present:
            got = server.request("GET", f"/upload/{path}")
            assert got.body == attempted[path], path
            if path in acknowledged and durability == "full":
                assert got.headers["content-type"] == "text/x-note"
        # What was in doubt is settled by asking again.
        for path, body in list(attempted.items()):
            assert (
                server.request(
                    "PUT", slots.target(path, slots.v1(path, len(body))), body, {"Content-Type": "text/x-note"}
                ).status
                == 201
            )
        acknowledged.clear()
        attempted = {}
        for path in server.files():
            (server.storage / path).unlink()


def test_sigkill_in_the_middle_of_a_form(server: FileServer) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    with Wire(server) as wire:
        wire.head(
            "POST",
            "/upload",
            {
                "Content-Type": "multipart/form-data; boundary=b",
                "Content-Length": str(4 * MIB),
                "X-Signature": signatures.mac("/upload"),
            },
        )
        wire.send(head + bytes(2 * MIB))
        wait_until(is_spooling(server), "the form's file is being spooled")
        kill(server)
        with pytest.raises((EarlyEndError, OSError)):
            wire.answer()
    assert server.files() == set()
    assert not server.spooled()


def test_sigterm_lets_a_running_upload_finish(server: FileServer) -> None:
    """The drain: no new connections, the running upload gets its 201, exit code 0 (N-23)."""
    path, size = "drain/f.bin", 4 * MIB
    body = content(size, path)
    child = server.child
    assert child is not None
    with begin(server, path, size, body[: size // 2]) as wire:
        wait_until(is_spooling(server), "the body is being spooled")
        child.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(server), "no new connections are taken")
        assert child.process.poll() is None
        wire.send(body[size // 2 :])
        answer = wire.answer()
        assert answer.status == 201
        assert answer.headers["connection"] == "close"
    assert child.process.wait(20) == 0
    assert (server.storage / path).read_bytes() == body
    log = server.log.read_text()
    assert "Stopping on SIGTERM" in log
    assert f"PUT /upload/{path} 201" in log


def test_sigterm_lets_a_running_download_finish(server: FileServer) -> None:
    path, size = "drain/f.bin", 24 * MIB
    body = content(size, path)
    child = server.child
    assert child is not None
    with begin(server, path, size, body) as wire:
        assert wire.answer().status == 201
    with Wire(server) as wire:
        wire.head("GET", f"/upload/{path}")
        received = wire.sock.recv(1 << 16)
        child.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(server), "no new connections are taken")
        while piece := wire.sock.recv(1 << 20):
            received += piece
    head, _, got = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert got == body
    assert child.process.wait(20) == 0


def refuses(server: FileServer) -> bool:
    try:
        Wire(server).sock.close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_upload_that_outlasts_the_drain_is_cut(server: FileServer) -> None:
    """Eight seconds are given; then the client is told, nothing is stored, and the exit code is 0 all the same."""
    child = server.child
    assert child is not None
    with begin(server, "drain/never.bin", 4 * MIB, bytes(MIB)) as wire:
        wait_until(is_spooling(server), "the body is being spooled")
        child.process.send_signal(signal.SIGTERM)
        answer = wire.answer()
        assert (answer.status, answer.json()["code"]) == (503, "shutting_down")
    assert child.process.wait(20) == 0
    assert not (server.storage / "drain").exists() or not any((server.storage / "drain").iterdir())
