"""Servers that must be caught: each lacks one thing that protects uploads, and the rigs of this folder see it.

A rig that passes such a server proves nothing about the real one. `test_power_cut*` has the server that never syncs
its files, `test_block_log` those that leave out other syncs; here is the one that does not check leases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.crash.altered import AlteredServer
from tests.crash.altered_server import DEAF, UNCHECKED
from tests.faults.chunks import MIB, TAKEN_OVER, outcome, send_if_open, start
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.server.wire import Wire

pytestmark = pytest.mark.server

HALF = MIB // 2

Make = Callable[[str], FileServer]


@pytest.fixture
def altered(tmp_path: Path) -> Iterator[Make]:
    """Start servers with an alteration; they are stopped and judged in the end."""
    made: list[FileServer] = []

    def make(alteration: str) -> FileServer:
        server = AlteredServer(tmp_path / "server", {"uploads": {"chunk_size": "1MB"}}, alteration)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.stop()


def late_bytes(server: FileServer) -> tuple[tuple[int, object], bool]:
    """N-02: an old connection sends on after its chunk was taken over and stored; how it ended, and whether the
    file is what the newcomer sent."""
    upload = start(server, content(2 * MIB, "control n-02"))
    with upload.begin(0, HALF) as old:
        upload.await_received((0, HALF))
        assert upload.put(0, offset=HALF).status == 200
        # Other bytes, so that every single one would show in the file.
        send_if_open(old, bytes(HALF))
        ended = outcome(old)
    upload.finish()
    return ended, upload.stored() == upload.body


def two_writers(server: FileServer) -> tuple[tuple[int, object], tuple[int, object], bytes, bytes, bytes]:
    """N-03: other bytes for one chunk at once; both ends, both bodies, what is stored.

    Neither is durable when the other begins: what is would be compared, and refused by that.
    """
    ours, theirs = content(MIB, "control n-03 a"), content(MIB, "control n-03 b")
    upload = start(server, ours + b"end")
    with upload.begin(0, 0, body=ours, claimed=True) as first, Wire(server) as second:
        upload.announce(second, 0, headers={"Expect": "100-continue"})
        assert second.next_answer().status == 100
        send_if_open(first, ours[:HALF])
        second.send(theirs)
        ends = outcome(second)
        send_if_open(first, ours[HALF:])
        late = outcome(first)
    assert upload.put(1, b"end").json()["completed"] is True
    return late, ends, ours, theirs, upload.stored()[:MIB]


def test_n_02_without_the_lease_check_late_bytes_count(altered: Make) -> None:
    """The control: the old connection is told that its bytes are there, and they are, over the newcomer's."""
    ended, intact = late_bytes(altered(f"{DEAF}+{UNCHECKED}"))
    assert ended[0] == 200
    assert not intact


def test_n_02_the_lease_check_alone_is_enough(altered: Make) -> None:
    """The same server with the check, and with nothing else to stop the old connection."""
    ended, intact = late_bytes(altered(DEAF))
    assert ended in TAKEN_OVER
    assert intact


def test_n_03_without_the_lease_check_two_writers_win(altered: Make) -> None:
    """The control: both are told that theirs is stored, and what is stored is not what the second was told."""
    late, ends, ours, theirs, stored = two_writers(altered(f"{DEAF}+{UNCHECKED}"))
    assert (late[0], ends[0]) == (200, 200)
    assert stored != theirs
    assert stored[HALF:] == ours[HALF:]


def test_n_03_the_lease_check_alone_lets_one_win(altered: Make) -> None:
    """The same server with the check: the newcomer's bytes are stored, whole, and the other is told."""
    late, ends, _, theirs, stored = two_writers(altered(DEAF))
    assert ends[0] == 200
    assert late in TAKEN_OVER
    assert stored == theirs
