"""Clients and servers that stand still, are told to end, are killed; sessions that run out of time."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    Span,
    Upload,
    code,
    covers,
    drafts,
    kill,
    outcome,
    send_if_open,
    sockets,
    spans,
    start,
    target,
)
from tests.fixtures.child import Child, stand_still, wait_until
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer, StartServer, environment
from tests.server.wire import Wire

ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def steady_client(upload: Upload, seed: str, log: Path) -> Iterator[Child]:
    """The client program at work; at the end it runs no more, even if it was stopped."""
    server = upload.server
    words = [server.host, str(server.port), upload.id, str(upload.chunk_size), str(len(upload.body)), seed]
    command = [sys.executable, "-m", "tests.faults.steady_client", *words]
    child = Child("client", command, log=log, env=environment(), cwd=ROOT)
    try:
        yield child
    finally:
        if child.process.poll() is None:
            child.process.kill()
        child.process.wait(20)


def test_n_21_a_client_stands_still_for_a_while(chunk_server: FileServer, tmp_path: Path) -> None:
    """Shorter than the stall bound: it goes on with the same connection."""
    upload = start(chunk_server, content(MIB, "n-21"))
    with steady_client(upload, "n-21", tmp_path / "client.log") as client:
        wait_until(lambda: upload.prefix(0) > 0, "the beginning is durable")
        stand_still(client.process.pid)
        # Everything that was sent is durable when nothing has come for a while.
        wait_until(
            lambda: upload.look(wait=1).json()["received"] == upload.look().json()["received"], "it stands still"
        )
        assert upload.prefix(0) < MIB
        client.process.send_signal(signal.SIGCONT)
        assert client.process.wait(60) == 0
        assert client.log_text().count("connected") == 1
    assert upload.stored() == upload.body


def test_n_21_a_client_stands_still_for_long(start_server: StartServer, tmp_path: Path) -> None:
    """Longer than the stall bound: the server has ended the connection, the client comes back on another one."""
    server = start_server({"timeouts": {"stall_timeout": "1s"}, "uploads": {"chunk_size": "1MB"}})
    upload = start(server, content(2 * MIB, "n-21 long"))
    with steady_client(upload, "n-21 long", tmp_path / "client.log") as client:
        wait_until(lambda: upload.prefix(0) > 0, "the client is sending")
        stand_still(client.process.pid)
        wait_until(lambda: sockets(server) == 0, "the server has ended the connection")
        kept = upload.received()
        client.process.send_signal(signal.SIGCONT)
        assert client.process.wait(60) == 0
        assert client.log_text().count("connected") >= 3
    assert covers([(0, len(upload.body))], kept)
    assert upload.stored() == upload.body


def test_n_22_a_stopped_server_expires_nothing_that_is_under_way(start_server: StartServer) -> None:
    """Everything stood still for longer than a session may rest; the bytes that waited meanwhile count."""
    server = start_server({"uploads": {"max_resumable_age": "1s", "chunk_size": "1MB"}})
    uploads = [start(server, content(2 * MIB, f"n-22 {number}"), name=f"{number}.bin") for number in range(4)]
    with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        wires = []
        for upload in uploads:
            wires += [stack.enter_context(upload.begin(index, MIB // 2)) for index in (0, 1)]
        for upload in uploads:
            # Both bodies are being read.
            upload.await_received((0, MIB // 2), (MIB, MIB + MIB // 2))
        stand_still(server.pid)
        try:

            def rest(numbered: tuple[int, Wire]) -> dict[str, object]:
                place, wire = numbered
                wire.send(uploads[place // 2].chunk(place % 2)[MIB // 2 :])
                answer = wire.answer()
                assert answer.status == 200, answer.body
                return answer.json()

            answering = [pool.submit(rest, numbered) for numbered in enumerate(wires)]
            time.sleep(1.5)  # the length of the standstill is what is tested
        finally:
            os.kill(server.pid, signal.SIGCONT)
        told = [future.result() for future in answering]
    for number, upload in enumerate(uploads):
        pair = told[2 * number : 2 * number + 2]
        assert any(answer["completed"] for answer in pair)
        assert upload.stored() == upload.body
    assert len(server.files()) == len(uploads)


def test_n_22_a_stopped_server_cuts_no_body_for_its_own_standstill(start_server: StartServer) -> None:
    """What a client sent in time and the server did not read is no stall of the client."""
    server = start_server({"timeouts": {"stall_timeout": "1s"}, "uploads": {"chunk_size": "1MB"}})
    upload = start(server, content(MIB, "n-22 stall"))
    with upload.begin(0, MIB // 2) as wire:
        stand_still(server.pid)
        try:
            wire.send(upload.body[MIB // 2 : MIB - 1])
            time.sleep(2.5)  # the length of the standstill is what is tested
        finally:
            os.kill(server.pid, signal.SIGCONT)
        wire.send(upload.body[-1:])
        assert wire.answer().json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_23_sigterm_in_the_middle_of_a_chunk(chunk_server: FileServer) -> None:
    """Whoever does not come to an end within the drain is cut, and has lost nothing; exit code 0."""
    upload = start(chunk_server, content(3 * MIB, "n-23"))
    assert upload.put(2).status == 200
    child = chunk_server.child
    assert child is not None
    with upload.begin(0, MIB // 2) as silent:
        upload.await_received((0, MIB // 2), (2 * MIB, 3 * MIB))
        silent.send(upload.chunk(0)[MIB // 2 : MIB // 2 + 1000])
        began = time.monotonic()
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(20) == 0
        assert time.monotonic() - began < 15
        assert outcome(silent)[0] != 200
    chunk_server.start()
    assert upload.received() == [(0, MIB // 2 + 1000), (2 * MIB, 3 * MIB)]
    assert upload.put(0, offset=MIB // 2 + 1000).status == 200
    assert upload.put(1).json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_23_a_chunk_that_ends_within_the_drain(chunk_server: FileServer) -> None:
    """It gets its answer, or it is cut with its beginning kept; either way the upload goes on after the restart."""
    upload = start(chunk_server, content(2 * MIB, "n-23 drain"))
    child = chunk_server.child
    assert child is not None
    with upload.begin(1, MIB // 2) as wire:
        upload.await_received((MIB, MIB + MIB // 2))
        child.process.send_signal(signal.SIGTERM)
        send_if_open(wire, upload.chunk(1)[MIB // 2 :])
        status, _ = outcome(wire)
    assert child.process.wait(20) == 0
    chunk_server.start()
    told = upload.received()
    if status == 200:
        assert told == [(MIB, 2 * MIB)]
    else:
        assert covers(told, [(MIB, MIB + MIB // 2)])
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body
    assert len(chunk_server.files()) == 1


ROUNDS = 8


@pytest.mark.parametrize("processes", [1, 2])
def test_n_24_killed_at_any_moment(start_server: StartServer, processes: int) -> None:
    """Four clients upload while the server is killed again and again: what they were told is there each time."""
    server = start_server({"server": {"processes": processes}, "uploads": {"chunk_size": "64KB"}})
    chance = random.Random("n-24")
    chunk = 64 * KIB
    told: dict[str, list[Span]] = {}
    lock = threading.Lock()
    ready = threading.Event()
    stop = threading.Event()
    acknowledged = 0
    enough = 0

    def work(upload: Upload) -> None:
        nonlocal acknowledged
        while not stop.is_set():
            try:
                missing = spans(upload.status()["missing"])
                if not missing:
                    return
                index = missing[0][0]
                place = upload.prefix(index)
                answer = upload.put(index, offset=place)
            except (OSError, http.client.HTTPException):
                return
            assert answer.status == 200, answer.body
            with lock:
                told[upload.id] = spans(answer.json()["received"])
                acknowledged += 1
                if acknowledged >= enough:
                    ready.set()

    uploads = [start(server, content(60 * chunk + 7, f"n-24 {number}"), name=f"{number}.bin") for number in range(4)]
    for _ in range(ROUNDS):
        acknowledged, enough = 0, chance.randrange(1, 30)
        ready.clear()
        stop.clear()
        with ThreadPoolExecutor(len(uploads)) as pool:
            working = [pool.submit(work, upload) for upload in uploads]
            wait_until(
                lambda working=working: ready.is_set() or all(one.done() for one in working),  # type: ignore[misc]
                "some chunks are acknowledged",
            )
            kill(server)
            stop.set()
            for one in working:
                one.result()
        server.start()
        for upload in uploads:
            assert covers(upload.received(), told.get(upload.id, [])), upload.id
    for upload in uploads:
        assert upload.finish().json()["completed"] is True
        assert upload.stored() == upload.body
    assert len(server.files()) == len(uploads)


@pytest.mark.parametrize("processes", [1, 2])
def test_n_35_a_session_does_not_expire_under_its_stream(start_server: StartServer, processes: int) -> None:
    """A chunk that takes three times as long as a session may rest."""
    server = start_server(
        {"server": {"processes": processes}, "uploads": {"max_resumable_age": "1s", "chunk_size": "1MB"}}
    )
    upload = start(server, content(2 * MIB, "n-35"))
    with upload.begin(0, 1) as wire:
        for begin in range(1, MIB, MIB // 30):
            wire.send(upload.chunk(0)[begin : begin + MIB // 30])
            time.sleep(0.1)  # the client's pace is what is tested
        answer = wire.answer()
        assert answer.status == 200, answer.body
    assert upload.put(1).json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_35_a_session_that_is_at_rest_expires_cleanly(start_server: StartServer) -> None:
    """Its bytes go, its connection ends, and everybody who asks is told the same."""
    server = start_server(
        {"uploads": {"max_resumable_age": "1s", "chunk_size": "1MB"}, "timeouts": {"stall_timeout": "2s"}}
    )
    upload = start(server, content(2 * MIB, "n-35 rest"))
    assert upload.put(1).status == 200
    with upload.begin(0, MIB // 2) as wire:
        assert outcome(wire)[0] != 200
    # Nobody asks while it rests: to be asked is no progress, but that is not the matter here.
    wait_until(lambda: drafts(server) == [], "its bytes are gone")
    # That it has expired is forgotten after as long again.
    gone = {(410, "upload_expired"), (404, "upload_not_found")}
    assert code(upload.put(0)) in gone
    assert code(upload.look()) in gone
    assert upload.delete().status in {204, 404, 410}
    assert server.files() == set()


def test_n_35_expiry_and_completion_at_the_same_time(start_server: StartServer) -> None:
    """The last chunk comes as the session's time is up: complete for ever, or refused with nothing left."""
    server = start_server({"uploads": {"max_resumable_age": "1s", "chunk_size": "64KB"}})

    def once(number: int) -> Answer:
        upload = start(server, content(128 * KIB, f"n-35 {number}"), name=f"{number}.bin")
        assert upload.put(0).status == 200
        time.sleep(0.9 + number * 0.05)  # the moment is what is tested
        answer = upload.put(1)
        if answer.status == 200:
            assert server.request("GET", target(answer.json()["url"])).body == upload.body
        else:
            assert code(answer) == (410, "upload_expired")
            assert upload.look().status in {404, 410}
        return answer

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(once, range(16)))
    complete = [answer for answer in ended if answer.status == 200]
    for answer in complete:
        assert server.request("GET", target(answer.json()["url"])).status == 200
    assert len(server.files()) == len(complete)
    wait_until(lambda: drafts(server) == [], "nothing is left of the others")
