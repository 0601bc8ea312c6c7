"""The server with a probe on each event loop: `python -m tests.load.probed_server WORD...`.

Every ten milliseconds the loop is asked to call back, and how late it does is noted. That
is kept by process in the file `lag.PID` of the working directory, one number a line, in seconds. Imports
nothing but the server, so that it holds what the server holds.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from typing import Any, Final

from hmac_file_server.cli import main
from hmac_file_server.http.listener import Listener

PERIOD: Final = 0.010


def probe(loop: asyncio.AbstractEventLoop) -> None:
    """Note how late the loop is, for ever."""
    notes = os.open(f"lag.{os.getpid()}", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    noted: list[float] = []

    def look(due: float) -> None:
        now = loop.time()
        noted.append(now - due)
        if len(noted) >= 25:
            os.write(notes, "".join(f"{lag:.6f}\n" for lag in noted).encode())
            noted.clear()
        loop.call_at(now + PERIOD, look, now + PERIOD)

    look(loop.time())


def alter() -> None:
    """Put the probe beside every listener."""
    start = Listener.start

    async def altered(self: Listener, sockets: list[Any], ssl_context: ssl.SSLContext | None = None) -> None:
        await start(self, sockets, ssl_context)
        probe(asyncio.get_running_loop())

    Listener.start = altered  # type: ignore[method-assign]


if __name__ == "__main__":
    alter()
    sys.exit(main(sys.argv[1:]))
