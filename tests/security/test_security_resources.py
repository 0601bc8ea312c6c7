"""What an attacker may use up: memory before permission, numbers that promise too much, a slow disk, planted links."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer
from tests.http.wire import Barrier
from tests.security import slow_disk
from tests.security.site import CANARY_BYTES, PRIVATE
from tests.server.signatures import bearer, mac, ticket
from tests.server.wire import Wire, memory

KIB = 1024


def test_s_08_heads_that_never_end_hold_little(quick: FileServer) -> None:
    """Prosody CVE-2021-32918: memory before permission. What is held is what was sent, up to one head a connection."""
    count, sent = 1000, 30 * KIB
    barrier = Barrier(quick.port)
    barrier.wait()
    before = memory(quick.pid)
    with contextlib.ExitStack() as stack:
        half = b"PUT /upload/a/b HTTP/1.1\r\nHost: t\r\nX-Filler: " + b"f" * sent
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", quick.port), timeout=20))
            sock.sendall(half)
        barrier.wait()
        held = memory(quick.pid) - before
        assert held < count * 3 * sent, f"{held >> 20} MiB for {count * sent >> 20} MiB"
        # Nor does one of them hold more by sending more: it is over with 32 KiB.
        sock.sendall(b"f" * 64 * KIB)
        assert b" 431 " in sock.recv(4096)
    barrier.close()


def test_s_08_bodies_without_permission_are_not_read(quick: FileServer) -> None:
    """The refusal comes before the body, whatever length it has, and what comes all the same is not kept."""
    barrier = Barrier(quick.port)
    barrier.wait()
    before = memory(quick.pid)
    with contextlib.ExitStack() as stack:
        for number in range(50):
            wire = stack.enter_context(Wire(quick))
            target = ("/upload/a/b", "/upload", "/upload/chunked", "/tus/")[number % 4]
            head = {"Content-Length": str(1 << 40), "X-Signature": "0" * 64, "X-Filename": "f", "X-Total-Size": "5"}
            wire.head("POST" if number % 4 else "PUT", target, {**head, "Tus-Resumable": "1.0.0", "Upload-Length": "5"})
            assert wire.answer().status == 403
            with contextlib.suppress(OSError):
                wire.send(b"b" * (256 * KIB))
        barrier.wait()
        assert memory(quick.pid) - before < 50 * 100 * KIB
    barrier.close()
    assert quick.spooled() == []


def begin(server: FileServer, size: object, **extra: str) -> tuple[int, dict[str, object]]:
    headers = {
        "X-Filename": "f.bin",
        "X-Total-Size": str(size),
        "X-Signature": mac("/upload/chunked"),
        "Content-Length": "0",
    }
    answer = server.request("POST", "/upload/chunked", None, {**headers, **extra})
    return answer.status, answer.json()


def blocks(server: FileServer) -> int:
    """Bytes on the disk for drafts."""
    folder = server.storage / PRIVATE / "uploads"
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_s_50_a_size_that_is_only_said_costs_nothing(quick: FileServer) -> None:
    """No allocation from a number, no list that grows with it, and chunks that can be counted."""
    barrier = Barrier(quick.port)
    barrier.wait()
    before, on_disk = memory(quick.pid), blocks(quick)
    limit = 10 << 30
    status, told = begin(quick, 500 << 20)
    assert status == 201, told
    upload = str(told["session_id"])
    assert blocks(quick) - on_disk <= 64 * KIB
    named = {"X-Upload-Session-ID": upload, "X-Chunk-Number": "0"}
    # A first chunk of one byte would make five hundred million of them.
    answer = quick.request("PUT", "/upload/chunked", b"x", named)
    assert (answer.status, answer.json()["code"]) == (400, "bad_chunk_length")
    for wrong in (0, -1, limit + 1, 1 << 62, 1 << 63, 1 << 64, 10**40, "NaN", "1e9", ""):
        status, told = begin(quick, wrong)
        assert status in ({201} if wrong == 0 else {400, 413}), (wrong, told)
        fields = {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(wrong),
            "X-Signature": mac("/tus/"),
            "Content-Length": "0",
        }
        assert quick.request("POST", "/tus/", None, fields).status in ({201} if wrong == 0 else {400, 413}), wrong
    for far in (10**17, 10**18 - 1, 10**18, 10**40):
        answer = quick.request("PUT", "/upload/chunked", b"x", {**named, "X-Chunk-Number": str(far)})
        assert answer.status == 400
        answer = quick.request("PUT", "/upload/chunked", b"x", {**named, "X-Chunk-Offset": str(far)})
        assert answer.status == 400
    status_of = quick.request("GET", f"/upload/status?session_id={upload}")
    assert len(status_of.body) < 1000
    assert quick.request("DELETE", "/upload/chunked", None, {"X-Upload-Session-ID": upload}).status == 204
    assert memory(quick.pid) - before < 8 << 20
    barrier.close()


def test_s_50_many_holes_are_bounded(quick: FileServer) -> None:
    """Every second chunk: what is remembered is a list of spans, of at most half of a hundred thousand chunks."""
    _, told = begin(quick, 400 * KIB)
    named = {"X-Upload-Session-ID": str(told["session_id"])}
    first = quick.request("PUT", "/upload/chunked", b"x" * 8, {**named, "X-Chunk-Number": "0"})
    assert first.status == 200, first.body
    for number in range(2, 200, 2):
        assert quick.request("PUT", "/upload/chunked", b"x" * 8, {**named, "X-Chunk-Number": str(number)}).status == 200
    status = quick.request("GET", f"/upload/status?session_id={told['session_id']}").json()
    received = status["received"]
    assert isinstance(received, list)
    assert len(received) == 100
    assert quick.request("DELETE", "/upload/chunked", None, named).status == 204


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[FileServer]:
    """A server whose disk does not answer while there is a file `stuck` in its folder. See `slow_disk`."""
    settings = {"workers": {"numworkers": 4, "max_workers": 8}}
    server = FileServer(tmp_path / "server", settings, program=(slow_disk.__name__,))
    server.start()
    try:
        yield server
    finally:
        (server.folder / slow_disk.STUCK).unlink(missing_ok=True)
        server.stop()


def test_s_59_a_disk_that_stands_still_stops_nobody_who_needs_none(slow: FileServer) -> None:
    """While every sync hangs, what does not wait for one is answered: no disk is waited for on the event loop."""
    permission = bearer(ticket(prefix="", ops=["put", "create"]))
    assert slow.request("PUT", "/upload/there/short", b"short", permission).status == 201
    assert slow.request("PUT", "/upload/there/long", b"l" * 300_000, permission).status == 201
    stuck = slow.folder / slow_disk.STUCK
    stuck.touch()
    waiting = slow.folder / slow_disk.WAITING

    def put(number: int) -> int:
        return slow.request("PUT", f"/upload/stuck/{number}", b"x" * 1000 * number, permission, timeout=60).status

    def chunked() -> int:
        fields = {"X-Filename": "f.bin", "X-Total-Size": "1000", "Content-Length": "0"}
        return slow.request("POST", "/upload/chunked", None, {**permission, **fields}, timeout=60).status

    with ThreadPoolExecutor(20) as threads:
        try:
            uploads = [threads.submit(put, number) for number in range(1, 13)]
            begun = [threads.submit(chunked) for _ in range(4)]
            wait_until(waiting.exists, "a sync hangs")
            for _ in range(20):
                assert slow.request("GET", "/health", timeout=5).body == b"OK\n"
                assert slow.request("GET", "/upload/there/short", timeout=5).body == b"short"
                assert len(slow.request("GET", "/upload/there/long", timeout=5).body) == 300_000
                assert slow.request("HEAD", "/upload/there/none", timeout=5).status == 404
                assert slow.request("PUT", "/upload/stuck/x", b"x", {"X-Signature": "0" * 64}, timeout=5).status == 403
                assert slow.request("OPTIONS", "/upload", timeout=5).status == 204
            assert not any(upload.done() for upload in uploads), "nothing was acknowledged that is not on the disk"
        finally:
            stuck.unlink()
        assert {upload.result() for upload in uploads + begun} == {201}


def test_s_40_folders_of_ours_that_somebody_swaps(tmp_path: Path) -> None:
    """Whoever may write in the private folder puts links there; what is open goes on where it was, nothing follows them."""
    server = FileServer(tmp_path / "server", {"uploads": {"chunk_size": "1KB"}})
    server.start()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(CANARY_BYTES)
    try:
        status, told = begin(server, 3000)
        assert status == 201
        named = {"X-Upload-Session-ID": str(told["session_id"])}
        assert server.request("PUT", "/upload/chunked", b"a" * 1024, {**named, "X-Chunk-Number": "0"}).status == 200
        private = server.storage / PRIVATE
        for folder in ("uploads", "spool", "blobs"):
            (private / folder).rename(private / f"{folder}.away")
            (private / folder).symlink_to(outside)
        for number, body in ((1, b"b" * 1024), (2, b"c" * 952)):
            server.request("PUT", "/upload/chunked", body, {**named, "X-Chunk-Number": str(number)})
        permission = bearer(ticket(prefix="swap", ops=["put", "create"]))
        for number in range(3):
            server.request("PUT", f"/upload/swap/{number}", b"d" * 100_000 * number, permission)
        begin(server, 3000)
        assert sorted(path.name for path in outside.iterdir()) == ["victim"]
        assert (outside / "victim").read_bytes() == CANARY_BYTES
        for folder in ("uploads", "spool", "blobs"):
            (private / folder).unlink()
            (private / f"{folder}.away").rename(private / folder)
        # A published folder that becomes a link while the server runs.
        assert (
            server.request("PUT", "/upload/tree/a", b"tree", permission | bearer(ticket(prefix="tree"))).status == 201
        )
        shutil.rmtree(server.storage / "tree")
        (server.storage / "tree").symlink_to(outside)
        assert server.request("GET", "/upload/tree/victim").status in {403, 404}
        answer = server.request("PUT", "/upload/tree/new", b"new", bearer(ticket(prefix="tree")))
        assert answer.status in {400, 409, 500}, answer.body
        deleted = server.request("DELETE", "/upload/tree/victim", None, bearer(ticket(prefix="tree", ops=["delete"])))
        assert deleted.status < 500
        assert sorted(path.name for path in outside.iterdir()) == ["victim"]
        assert (outside / "victim").read_bytes() == CANARY_BYTES
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_s_40_something_else_in_the_place_of_a_draft(tmp_path: Path, kind: str) -> None:
    """What a session brings goes nowhere else, nothing of another file comes out, and nobody waits for a pipe."""
    server = FileServer(tmp_path / "server", {"uploads": {"chunk_size": "1KB"}})
    server.start()
    victim = server.folder / "victim"
    victim.write_bytes(CANARY_BYTES)
    try:
        _, told = begin(server, 3000)
        server.stop()
        (draft,) = (server.storage / PRIVATE / "uploads").glob(f"{told['session_id']}*")
        draft.unlink()
        if kind == "link":
            draft.symlink_to(victim)
        else:
            os.mkfifo(draft)
        server.start()
        named = {"X-Upload-Session-ID": str(told["session_id"]), "X-Chunk-Number": "0"}
        assert server.request("PUT", "/upload/chunked", b"a" * 1024, named).status == 500
        got = server.request("GET", f"/upload/status?session_id={told['session_id']}")
        assert CANARY_BYTES not in got.body
        assert got.json().get("completed", False) is False
        server.request("DELETE", "/upload/chunked", None, named)
        assert victim.read_bytes() == CANARY_BYTES
    finally:
        server.stop()
