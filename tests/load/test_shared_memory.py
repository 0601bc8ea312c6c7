"""What the processes of a server share stays shared."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fixtures.server import StartServer
from tests.load.gauges import MIB, pids


def private(pid: int) -> int:
    """Bytes that a process has written and shares with nobody."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Private_Dirty: +(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_a_process_more_costs_less_than_a_server_more(start_server: StartServer) -> None:
    """What was imported before the fork is written to by nobody, the collector of garbage included."""
    parent, *serving = pids(start_server({"server": {"processes": 2}}))
    assert len(serving) == 2
    for pid in serving:
        assert private(pid) < 14.5 * MIB
    assert private(parent) < 12.5 * MIB
