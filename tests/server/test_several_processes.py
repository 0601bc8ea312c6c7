"""Several server processes on one port: one store, one limit, one life."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, FileServer
from tests.server import signatures
from tests.server.wire import EarlyEndError, Wire, children

PROCESSES = 3


def serving(server: FileServer) -> set[int]:
    """Processes that accept connections: those whose event loop handles SIGTERM."""
    ready = set()
    for pid in children(server.pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt:"))
        if caught & 1 << (signal.SIGTERM - 1):
            ready.add(pid)
    return ready


@pytest.fixture
def several(tmp_path: Path) -> Iterator[FileServer]:
    server = FileServer(tmp_path / "server", {"server": {"processes": PROCESSES}})
    server.start()
    wait_until(lambda: len(serving(server)) == PROCESSES, "all processes run")
    yield server
    server.stop()


def put(server: FileServer, path: str, body: bytes, secret: str = SECRET) -> int:
    return server.request("PUT", slots.target(path, slots.v1(path, len(body), secret)), body).status


def test_what_one_stores_all_serve(several: FileServer) -> None:
    """Every connection may land on another process: each sees each file at once, with its type."""
    for number in range(40):
        path = f"all/{number}.txt"
        body = content(1000, path)
        target = slots.target(path, slots.v1(path, len(body)))
        assert several.request("PUT", target, body, {"Content-Type": "text/x-note"}).status == 201
        for _ in range(4):
            got = several.request("GET", f"/upload/{path}")
            assert (got.status, got.body, got.headers["content-type"]) == (200, body, "text/x-note")
    for number in range(40):
        path = f"all/{number}.txt"
        assert several.request("DELETE", slots.target(path, slots.delete_token(path))).status == 204
        for _ in range(4):
            assert several.request("GET", f"/upload/{path}").status == 404


def test_racing_puts_over_several_processes(several: FileServer) -> None:
    for turn in range(5):
        path = f"race/{turn}"
        bodies = [content(10_000, f"{path} {number}") for number in range(12)]
        barrier = threading.Barrier(len(bodies))

        def upload(body: bytes, path: str = path, barrier: threading.Barrier = barrier) -> int:
            barrier.wait(20)
            return put(several, path, body)

        with ThreadPoolExecutor(len(bodies)) as pool:
            statuses = list(pool.map(upload, bodies))
        assert sorted(statuses) == [201] + [409] * 11
        assert several.request("GET", f"/upload/{path}").body == bodies[statuses.index(201)]


def test_a_ticket_is_counted_over_all(several: FileServer) -> None:
    headers = signatures.bearer(signatures.ticket(prefix="count", files=5))
    barrier = threading.Barrier(16)

    def upload(number: int) -> int:
        barrier.wait(20)
        return several.request("PUT", f"/upload/count/{number}", bytes(100), headers).status

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(upload, range(16))) == [201] * 5 + [403] * 11


def test_a_killed_process_is_replaced(several: FileServer) -> None:
    """Its uploads are lost, everybody else's go on, and soon there are as many processes as before."""
    path, size = "killed/f.bin", 1_000_000
    body = content(size, path)
    wires = []
    for _ in range(8):
        wire = Wire(several)
        wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
        wire.send(body[: size // 2])
        wires.append(wire)
    before = serving(several)
    assert len(before) == PROCESSES
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    outcomes = []
    for wire in wires:
        try:
            wire.send(body[size // 2 :])
            outcomes.append(wire.answer().status)
        except (EarlyEndError, OSError):
            outcomes.append(0)
        wire.sock.close()
    assert set(outcomes) <= {0, 201}
    wait_until(lambda: len(serving(several)) == PROCESSES, "there are as many processes as before")
    assert victim not in serving(several)
    # Connections that waited for the dead one are served by its successor.
    for _ in range(20):
        assert several.request("GET", "/ready").status == 200
    assert put(several, path, body) == 201
    assert several.request("GET", f"/upload/{path}").body == body
    assert several.log.read_text().count("ended with 9, starting it again") == 1
    assert not [name for name in several.files() if name != path]


def test_the_space_of_a_killed_process_is_given_back(several: FileServer) -> None:
    """What its uploads had been promised is not outstanding any more."""
    several.stop()
    several.settings = {"server": {"processes": PROCESSES, "max_upload_size": "1000TB"}}
    several.start()
    wait_until(lambda: len(serving(several)) == PROCESSES, "all processes run")
    found = os.statvfs(several.folder)
    size = found.f_bavail * found.f_frsize * 6 // 10

    def ask(name: str) -> tuple[Wire, int]:
        wire = Wire(several)
        head = {"Content-Length": str(size), "Expect": "100-continue"}
        wire.head("PUT", slots.target(name, slots.v1(name, size)), head)
        return wire, wire.next_answer().status

    holder, status = ask("space/first")
    assert status == 100
    second, status = ask("space/second")
    assert status == 507
    second.sock.close()
    for pid in serving(several):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: several.log.read_text().count("starting it again") == PROCESSES, "all are replaced")
    wait_until(lambda: len(serving(several)) == PROCESSES, "all processes run")
    third, status = ask("space/third")
    assert status == 100
    for wire in (holder, third):
        wire.sock.close()


def test_all_reload(several: FileServer) -> None:
    new = "a-new-secret-a-new-secret-a-new"
    before = serving(several)
    several.write_config({"server": {"processes": PROCESSES}, "security": {"secret": new}})
    os.kill(several.pid, signal.SIGHUP)
    wait_until(lambda: "Configuration reloaded" in several.log.read_text(), "the reload is over")

    def all_new() -> bool:
        return all(put(several, f"reload/{number}", b"x", new) == 201 for number in range(30))

    wait_until(all_new, "every process has the new key")
    assert {put(several, "reload/old", b"x") for _ in range(30)} == {403}
    # Told of once, not once a process.
    assert several.log.read_text().count("Configuration reloaded") == 1
    several.config.write_text("[server\n")
    os.kill(several.pid, signal.SIGHUP)
    wait_until(lambda: "Configuration not reloaded" in several.log.read_text(), "the bad one is refused")
    assert several.log.read_text().count("Configuration not reloaded") == 1
    assert put(several, "reload/still", b"x", new) == 201
    assert serving(several) == before
    several.write_config({"server": {"processes": PROCESSES}})


def test_the_end_of_all(several: FileServer) -> None:
    """SIGTERM to the parent: nobody is connected any more, running uploads finish, exit code 0."""
    child = several.child
    assert child is not None
    pids = children(several.pid)
    path, size = "drain/f.bin", 1_000_000
    with Wire(several) as wire:
        wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
        wire.send(bytes(size // 2))
        child.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                Wire(several).sock.close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused, "no new connections are taken")
        wire.send(bytes(size // 2))
        assert wire.answer().status == 201
    assert child.process.wait(20) == 0
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")]
    assert several.log.read_text().splitlines()[-1].endswith("Stopped")


def test_the_children_end_with_their_parent(several: FileServer) -> None:
    """However it went: a parent killed with SIGKILL leaves no process behind."""
    child = several.child
    assert child is not None
    pids = children(several.pid)
    child.process.kill()
    child.process.wait(20)
    wait_until(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")], "the children are gone")
    several.start()
    wait_until(lambda: len(serving(several)) == PROCESSES, "all processes run")
    assert put(several, "after/a", b"x") == 201


@pytest.mark.parametrize("processes", [1, 2])
def test_a_store_of_a_newer_version_ends_the_start(tmp_path: Path, processes: int) -> None:
    """However many processes there are: exit code 1 and the reason, no loop of restarts."""
    server = FileServer(tmp_path / "server", {"server": {"processes": processes}})
    server.start()
    server.stop()
    with contextlib.closing(sqlite3.connect(server.storage / ".hmac-file-server" / "state.db")) as database:
        database.execute("PRAGMA user_version = 1000")
    with pytest.raises(AssertionError, match="ended with 1 at start"):
        server.start()
    server.child = None
    log = server.log.read_text()
    assert "Cannot run: " in log
    assert log.count("starting it again") == 0
    assert "Traceback" not in log
