"""Mutated requests on kept-alive connections. `FUZZ_REQUESTS` says how many, `FUZZ_SEED` from which seed.

`python -m bench.fuzz` sends a million of them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer
from tests.http.conftest import judge
from tests.http.fuzzing import Crowd, statuses
from tests.http.mutations import Generator, filled

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "30000"))
SEED = int(os.environ.get("FUZZ_SEED", "20261122"))
EXISTING = "existing/file.txt"
CONTENT = b"abcdefghijklmnopqrstuvwxyz"
SERVER_CHOSEN = re.compile(r"[0-9a-f]{32}/[^/]+")


@pytest.fixture(scope="module", params=["relaxed", "full"])
def fuzzed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Limits are small, so that what claims to be large is over soon."""
    settings = {
        "uploads": {"durability": request.param, "max_sessions_per_owner": 1_000_000},
        "server": {"max_upload_size": "1MB"},
        "timeouts": {"header_timeout": "5s", "stall_timeout": "5s"},
        "logging": {"level": "debug"},
    }
    server = FileServer(tmp_path_factory.mktemp("fuzz") / "server", settings)
    server.start()
    try:
        target = slots.target(EXISTING, slots.v1(EXISTING, len(CONTENT)))
        assert server.request("PUT", target, CONTENT).status == 201
        yield server
        judge(server)
    finally:
        server.stop()


def around(server: FileServer) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in server.folder.rglob("*")
        if not path.is_relative_to(server.storage) and path != server.log
    }


def sockets(server: FileServer) -> int:
    """Open sockets of the server; its folders stay open in a bounded cache and are not counted."""
    found = 0
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(entry).startswith("socket:")
    return found


def test_requests_of_somebody_without_the_key(fuzzed: FileServer) -> None:
    """Every scheme and protocol, signed with another secret: nothing is stored, begun or removed."""
    generator = Generator(f"{SEED} foreign", EXISTING, foreign=True)
    before, stored = around(fuzzed), fuzzed.files()
    crowd = Crowd(fuzzed.port, generator)
    try:
        crowd.run(REQUESTS // 6)
    finally:
        crowd.close()
    assert around(fuzzed) == before
    assert fuzzed.files() == stored
    assert 201 not in crowd.counted
    assert (fuzzed.storage / EXISTING).read_bytes() == CONTENT
    assert {200, 400, 401, 403, 404, 405} <= set(crowd.counted), crowd.counted


def test_mutated_requests(fuzzed: FileServer) -> None:
    generator = Generator(SEED, EXISTING)
    before, base = around(fuzzed), sockets(fuzzed)
    crowd = Crowd(fuzzed.port, generator)
    try:
        crowd.run(REQUESTS // 3)
    finally:
        crowd.close()
    counted = crowd.counted
    assert around(fuzzed) == before
    published = {name for name in fuzzed.files() if not SERVER_CHOSEN.fullmatch(name)}
    assert published <= generator.signed | {EXISTING}
    assert (fuzzed.storage / EXISTING).read_bytes() == CONTENT
    assert {200, 201, 204, 206, 304, 308, 400, 401, 403, 404, 405, 409, 412, 413, 416, 417, 431, 501, 505} <= set(
        counted
    ), counted
    assert fuzzed.request("GET", "/health").status == 200
    wait_until(lambda: sockets(fuzzed) <= base, "the server has given back its descriptors", seconds=30)
    # Drafts of uploads that are not complete are kept; bodies of requests are not.
    wait_until(lambda: fuzzed.spooled() == [], "the server has given up the bodies that were cut", seconds=30)


def test_a_seed_gives_the_same_requests_again() -> None:
    one, other = Generator(5, EXISTING), Generator(5, EXISTING)
    assert [one.connection() for _ in range(50)] == [other.connection() for _ in range(50)]
    assert one.connection() != Generator(6, EXISTING).connection()
    assert one.signed


def test_ids_stand_where_the_generator_left_room() -> None:
    assert filled(b"PATCH /tus/{upload:5} HTTP/1.1", [b"1_a", b"1_b", b"1_c"]) == b"PATCH /tus/1_c HTTP/1.1"
    assert b"{" not in filled(b"{upload:5}", [])


def test_answers_are_told_apart() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
    assert statuses(ok * 2 + b"HTTP/1.1 304 Not Modified\r\n\r\n") == [200, 200, 304]
    with pytest.raises(AssertionError):
        statuses(ok + b"x")
    with pytest.raises(AssertionError):
        statuses(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nab")
