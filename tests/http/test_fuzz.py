"""Mutated requests on kept-alive connections. `FUZZ_REQUESTS` says how many, `FUZZ_SEED` from which seed."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer
from tests.http.conftest import judge
from tests.http.mutations import Generator
from tests.http.wire import Talk, converse

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "20261122"))
EXISTING = "existing/file.txt"
_BATCH = 200

_HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")


@pytest.fixture(scope="module", params=["relaxed", "full"])
def fuzzed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Limits are small, so that what claims to be large is over soon."""
    settings = {
        "uploads": {"durability": request.param},
        "server": {"max_upload_size": "1MB"},
        "timeouts": {"header_timeout": "5s", "stall_timeout": "5s"},
        "logging": {"level": "debug"},
    }
    server = FileServer(tmp_path_factory.mktemp("fuzz") / "server", settings)
    server.start()
    try:
        target = slots.target(EXISTING, slots.v1(EXISTING, 26))
        assert server.request("PUT", target, b"abcdefghijklmnopqrstuvwxyz").status == 201
        yield server
        judge(server)
    finally:
        server.stop()


def statuses(received: bytes) -> list[int]:
    """The status of every answer; AssertionError when something else stands in between."""
    found = []
    position = 0
    while position < len(received):
        head = _HEAD.match(received, position)
        assert head is not None, received[position : position + 200]
        status = int(head.group(1))
        found.append(status)
        position = head.end()
        length = _LENGTH.search(received, head.start(), head.end())
        if length is not None and not received.startswith(b"HTTP/1.1 ", position):
            position += int(length.group(1))
    assert position == len(received) or found[-1] == 200, "the last answer is cut"
    return found


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


def test_mutated_requests(fuzzed: FileServer) -> None:
    generator = Generator(SEED, EXISTING)
    before, base = around(fuzzed), sockets(fuzzed)
    counted: Counter[int] = Counter()
    answered = 0
    batch = 0
    while answered < REQUESTS // 2:
        batch += 1
        talks = [Talk(generator.connection(), half_close=True) for _ in range(_BATCH)]
        converse(fuzzed.port, talks)
        for talk in talks:
            try:
                found = statuses(bytes(talk.received))
            except AssertionError as failure:
                pytest.fail(f"seed {SEED}, batch {batch}: {failure}\nsent {talk.pieces!r:.3000}")
            wrong = [status for status in found if status >= 500 and status not in {501, 505}]
            assert not wrong, f"seed {SEED}, batch {batch}: {found}\nsent {talk.pieces!r:.3000}"
            counted.update(found)
            answered += len([status for status in found if status >= 200])
    assert around(fuzzed) == before
    published = {name for name in fuzzed.files() if not re.fullmatch(r"[0-9a-f]{32}/[^/]+", name)}
    assert published <= generator.signed | {EXISTING}
    assert (fuzzed.storage / EXISTING).read_bytes() == b"abcdefghijklmnopqrstuvwxyz"
    assert {200, 201, 204, 206, 304, 400, 403, 404, 405, 409, 413, 416, 417, 431, 501, 505} <= set(counted), counted
    assert fuzzed.request("GET", "/health").status == 200
    wait_until(lambda: sockets(fuzzed) <= base, "the server has given back its descriptors", seconds=30)
    assert fuzzed.spooled() == []
