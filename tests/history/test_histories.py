"""G-21: whatever many clients were told of few uploads could have happened one thing after the other.

HISTORIES=N plays that many; `python -m bench.history` plays 200. Without it none is played against the true server: of
some four hundred one had no order, of which it is not known yet whether the server or the model is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.server import FileServer, running
from tests.history.rounds import SETTINGS, UnfencedServer, rounds

COUNT = int(os.environ.get("HISTORIES", "0"))
CAUGHT_WITHIN = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    yield from running(tmp_path / "server", SETTINGS)


@pytest.fixture
def unfenced(tmp_path: Path) -> Iterator[FileServer]:
    """What it says in its log is nobody's business."""
    server = UnfencedServer(tmp_path / "unfenced", SETTINGS)
    server.start()
    try:
        yield server
    finally:
        if server.child is not None:
            server.child.stop()


@pytest.mark.server
@pytest.mark.skipif(not COUNT, reason="a hunt: HISTORIES=N plays N histories")
@pytest.mark.timeout(60 + 20 * COUNT)
def test_n_01_n_02_n_09_every_history_has_an_order(server: FileServer) -> None:
    for verdict in rounds(server, range(COUNT)):
        assert not verdict.bad, verdict
        # Else nothing was tried.
        assert verdict.calls - verdict.unknown > 250, verdict


@pytest.mark.server
def test_a_server_without_fencing_is_caught(unfenced: FileServer) -> None:
    assert any(verdict.bad for verdict in rounds(unfenced, range(CAUGHT_WITHIN - 1)))
