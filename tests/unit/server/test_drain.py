"""G-27: a server that is told to end has ended within ten seconds, whatever its clients do."""

from __future__ import annotations

from hmac_file_server import server
from hmac_file_server.http import listener


def test_the_waits_of_a_drain_leave_time_to_store_what_came() -> None:
    assert server._DRAIN_SECONDS + listener.CUT_SECONDS <= 9.5
