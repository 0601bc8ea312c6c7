"""Two connections want one chunk, or one wants the upload gone: the newcomer wins, and nothing of the old one leaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    PATH,
    TAKEN_OVER,
    Upload,
    arrived,
    code,
    content_digest,
    covers,
    created,
    creation,
    drafts,
    number,
    outcome,
    send_if_open,
    start,
    target,
    text,
)
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer, StartServer
from tests.server import signatures
from tests.server.wire import Wire

HALF = MIB // 2


def is_chunk(answer: tuple[int, object]) -> bool:
    return answer[0] == 200


def test_n_01_a_silent_connection_is_taken_over(chunk_server: FileServer) -> None:
    """Nobody told the server that the old connection is dead: the client goes on where it was, at once."""
    upload = start(chunk_server, content(2 * MIB, "n-01"))
    with upload.begin(0, HALF) as old:
        upload.await_received((0, HALF))
        with Wire(chunk_server) as new:
            upload.announce(new, 0, offset=HALF, headers={"Expect": "100-continue"})
            assert new.next_answer().status == 100
            assert upload.received() == [(0, HALF)]
            new.send(upload.chunk(0)[HALF:])
            answer = new.answer()
            assert (answer.status, answer.json()["received"]) == (200, [[0, MIB]])
        assert outcome(old) in TAKEN_OVER
        assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_01_what_the_old_connection_brought_is_kept_by_the_takeover_itself(chunk_server: FileServer) -> None:
    """No status request in between: the bytes that lie in the server's socket are taken before it is closed."""
    upload = start(chunk_server, content(2 * MIB, "n-01 eager"))
    with upload.begin(0, HALF, claimed=True) as old:
        wait_until(arrived(old), "the beginning has arrived")
        with Wire(chunk_server) as new:
            upload.announce(new, 0, headers={"Expect": "100-continue"})
            assert new.next_answer().status == 100
            assert outcome(old) in TAKEN_OVER
            upload.await_received((0, HALF))
            new.send(upload.chunk(0))
            assert new.answer().status == 200
        upload.finish()
    assert upload.stored() == upload.body


@pytest.mark.parametrize("size", [8 * KIB, 60 * KIB, 200 * KIB])
def test_n_01_small_chunks(start_server: StartServer, size: int) -> None:
    """Bodies so small that the server reads them whole before it writes: what came of them is kept all the same."""
    server = start_server({"server": {"processes": 2}, "uploads": {"chunk_size": f"{size // KIB}KB"}})
    upload = start(server, content(6 * size, f"n-01 {size}"))
    for index in range(upload.total):
        begin = index * size
        sent = (1, size // 2, size - 1)[index % 3]
        with upload.begin(index, sent, claimed=True) as old:
            wait_until(arrived(old), "the beginning has arrived")
            with Wire(server) as new:
                upload.announce(new, index, headers={"Expect": "100-continue"})
                assert new.next_answer().status == 100
                assert outcome(old) in TAKEN_OVER
                assert covers(upload.received(), [(begin, begin + sent)])
                new.send(upload.chunk(index))
                assert new.answer().status == 200
    assert upload.stored() == upload.body


def test_n_01_a_status_request_ends_nobody(chunk_server: FileServer) -> None:
    """A progress bar that asks all the time does not kill the upload it shows, slow as that may be."""
    upload = start(chunk_server, content(MIB, "n-01 poll"))
    with upload.begin(0, 0) as wire:
        for begin in range(0, MIB, 64 * KIB):
            wire.send(upload.body[begin : begin + 64 * KIB])
            for _ in range(3):
                upload.received()
        assert wire.answer().json()["completed"] is True
    assert upload.stored() == upload.body


@pytest.mark.parametrize("late", [1, 64 * KIB, HALF], ids=["a-byte", "some", "all"])
def test_n_02_late_bytes_of_the_old_connection_do_not_count(chunk_server: FileServer, late: int) -> None:
    """They are other bytes here, so that every single one would show in the file."""
    upload = start(chunk_server, content(2 * MIB, "n-02"))
    with upload.begin(0, HALF) as old:
        upload.await_received((0, HALF))
        with upload.begin(0, HALF // 2, offset=HALF) as new:
            upload.await_received((0, HALF + HALF // 2))
            send_if_open(old, bytes(late))
            assert outcome(old) in TAKEN_OVER
            send_if_open(old, bytes(late))
            new.send(upload.chunk(0)[HALF + HALF // 2 :])
            assert new.answer().status == 200
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_02_late_bytes_at_the_very_moment_of_the_takeover(chunk_server: FileServer) -> None:
    """The old connection sends on while it loses its chunk: what of it counts came before, in one piece."""
    upload = start(chunk_server, content(16 * MIB, "n-02 moment"))
    for index in range(upload.total):
        with upload.begin(index, HALF, claimed=True) as old:
            stop = threading.Event()

            def pour(old: Wire = old, index: int = index, stop: threading.Event = stop) -> None:
                for begin in range(HALF, MIB - 4 * KIB, 4 * KIB):
                    if stop.is_set():
                        return
                    send_if_open(old, upload.chunk(index)[begin : begin + 4 * KIB])

            with ThreadPoolExecutor(1) as pool:
                pouring = pool.submit(pour)
                answer = upload.put(index)
                stop.set()
                pouring.result()
            assert answer.status == 200
            assert outcome(old) in TAKEN_OVER
    assert upload.stored() == upload.body


def persist(upload: Upload, index: int, body: bytes, barrier: threading.Barrier) -> str:
    """A client that sends a chunk until it is told that it is there, or that another one is."""
    barrier.wait(20)
    for _ in range(200):
        with Wire(upload.server) as wire:
            upload.announce(wire, index)
            send_if_open(wire, body[: len(body) // 2])
            send_if_open(wire, body[len(body) // 2 :])
            ended = outcome(wire)
        if is_chunk(ended):
            return "stored"
        if ended == (409, "chunk_differs"):
            return "differs"
        assert ended in TAKEN_OVER, ended
    raise AssertionError("two clients take the chunk from each other for ever")


@pytest.mark.parametrize("size", [16 * KIB, MIB], ids=["collected", "offloaded"])
def test_n_03_of_two_writers_one_wins(start_server: StartServer, size: int) -> None:
    """Other bytes for one chunk at the same time: one is stored, the other is told, and nothing is mixed."""
    server = start_server({"server": {"processes": 2}, "uploads": {"chunk_size": f"{size // KIB}KB"}})
    for turn in range(6):
        bodies = [content(size, f"n-03 {turn} {name}") for name in "ab"]
        upload = start(server, bodies[0] + b"end", name=f"{turn}.bin")
        barrier = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            ends = list(pool.map(lambda body: persist(upload, 0, body, barrier), bodies))  # noqa: B023
        assert sorted(ends) == ["differs", "stored"]
        winner = bodies[ends.index("stored")]
        assert upload.received() == [(0, size)]
        assert upload.put(1, b"end").json()["completed"] is True
        assert upload.stored() == winner + b"end"


def test_n_03_equal_writers_all_win(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * MIB, "n-03 equal"))
    barrier = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(lambda _: persist(upload, 0, upload.chunk(0), barrier), range(6)))
    assert ends == ["stored"] * 6
    assert upload.received() == [(0, MIB)]
    upload.finish()
    assert upload.stored() == upload.body


def test_n_34_delete_while_a_chunk_streams(chunk_server: FileServer) -> None:
    """The stream ends first, then comes the 204; nothing of the upload is left."""
    upload = start(chunk_server, content(4 * MIB, "n-34"))
    assert upload.put(1).status == 200
    with upload.begin(0, HALF) as first, upload.begin(2, 10) as second:
        upload.await_received((0, HALF), (MIB, 2 * MIB + 10))
        assert upload.delete().status == 204
        for wire in (first, second):
            send_if_open(wire, bytes(1000))
            status, _ = outcome(wire)
            assert status == 0 or status >= 400
    assert code(upload.put(0)) == (404, "upload_not_found")
    assert code(upload.look()) == (404, "upload_not_found")
    assert upload.delete().status == 404
    wait_until(lambda: drafts(chunk_server) == [], "the bytes are gone")
    assert chunk_server.files() == set()


def test_n_34_delete_gives_space_and_quota_back(start_server: StartServer) -> None:
    """Each of these announces more than half of what is free, and its owner may have one session."""
    server = start_server({"server": {"max_upload_size": "100TB"}, "uploads": {"max_sessions_per_owner": 1}})
    found = os.statvfs(server.folder)
    size = found.f_bavail * found.f_frsize * 6 // 10
    owner = signatures.bearer(signatures.ticket(prefix="n-34"))

    def create(size: int) -> Answer:
        head = {name: value for name, value in creation(size).items() if name != "X-Signature"}
        return server.request("POST", PATH, None, {**head, **owner})

    for turn in range(4):
        answer = create(size)
        assert answer.status == 201, (turn, answer.body)
        told = answer.json()
        upload = Upload(server, text(told["session_id"]), b"", number(told["chunk_size"]))
        # No room for a second one of that size, no place for a second one of this owner.
        assert code(created(server, size)) == (507, "storage_full")
        assert create(10).json()["code"] == "too_many_sessions"
        with Wire(server) as wire:
            upload.announce(wire, 0, length=upload.chunk_size)
            wire.send(bytes(HALF))
            upload.await_received((0, HALF))
            assert upload.delete().status == 204
            assert outcome(wire)[0] != 200
    assert create(10).status == 201


def test_n_34_delete_of_a_finished_upload_leaves_its_file(chunk_server: FileServer) -> None:
    """What was published is a file like any other; the session is what is given up."""
    upload = start(chunk_server, content(1000, "n-34 finished"))
    url = upload.put(0).json()["url"]
    assert upload.delete().status in {204, 404, 409}
    assert chunk_server.request("GET", target(url)).body == upload.body


def begin_of_unknown(server: FileServer, upload: Upload, wire: Wire, smuggled: bytes) -> None:
    del upload
    head = {"X-Upload-Session-ID": "1700000000_" + "0" * 32, "X-Chunk-Number": "0", "Content-Length": str(4 * MIB)}
    wire.head("PUT", PATH, head)
    assert code(wire.answer()) == (404, "upload_not_found")


def begin_of_taken_over(server: FileServer, upload: Upload, wire: Wire, smuggled: bytes) -> None:
    upload.announce(wire, 0)
    wire.send(upload.chunk(0)[:HALF])
    upload.await_received((0, HALF))
    assert upload.put(0, offset=HALF).status == 200
    assert outcome(wire) in TAKEN_OVER


def begin_of_wrong_length(server: FileServer, upload: Upload, wire: Wire, smuggled: bytes) -> None:
    upload.announce(wire, 1, length=MIB + len(smuggled) + 5)
    assert code(wire.answer()) == (400, "bad_chunk_length")


def begin_of_mismatch(server: FileServer, upload: Upload, wire: Wire, smuggled: bytes) -> None:
    """The whole body is read here, so that the connection may well live on; the body is no request all the same."""
    body = (smuggled * (MIB // len(smuggled) + 1))[:MIB]
    upload.announce(wire, 0, headers={"Content-Digest": content_digest(b"")})
    wire.send(body)
    assert code(wire.answer()) == (400, "digest_mismatch")


@pytest.mark.parametrize("begin", [begin_of_unknown, begin_of_taken_over, begin_of_wrong_length, begin_of_mismatch])
def test_n_40_the_rest_of_an_aborted_body_is_no_request(
    chunk_server: FileServer, begin: Callable[[FileServer, Upload, Wire, bytes], None]
) -> None:
    """The body holds a request that would delete the upload: were it ever parsed as one, the upload would be gone."""
    upload = start(chunk_server, content(3 * MIB, "n-40"))
    smuggled = (
        f"DELETE {PATH} HTTP/1.1\r\nHost: {chunk_server.host}\r\nX-Upload-Session-ID: {upload.id}\r\n\r\n"
    ).encode()
    with Wire(chunk_server) as wire:
        begin(chunk_server, upload, wire, smuggled)
        if begin is not begin_of_mismatch:
            for _ in range(100):
                send_if_open(wire, smuggled)
            # Nothing more comes than, at last, the end.
            assert wire.is_closed()
    assert upload.look().status == 200
    upload.finish()
    assert upload.stored() == upload.body
