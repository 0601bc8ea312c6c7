"""A client program that sends at a steady pace and continues after every failure, to be stopped from outside.

    python -m tests.faults.steady_client HOST PORT SESSION CHUNK_SIZE SIZE SEED

The file is `content(SIZE, SEED)`. It prints "connected" for every connection that carries a chunk and
"completed" at the end, and ends with code 0.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.faults.chunks import KIB, Upload, spans
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.server.wire import EarlyEndError, Wire

PIECE = 16 * KIB
PAUSE = 0.02


def send(upload: Upload, index: int) -> bool:
    """Send the rest of a chunk piece by piece; whether the upload is complete with it. Raises what the network does."""
    begin = upload.prefix(index)
    data = upload.chunk(index)
    with Wire(upload.server) as wire:
        print("connected", flush=True)
        upload.announce(wire, index, offset=begin)
        for place in range(begin, len(data), PIECE):
            wire.send(data[place : place + PIECE])
            time.sleep(PAUSE)
        answer = wire.answer()
        return answer.status == 200 and answer.json()["completed"] is True


def main() -> int:
    host, port, session, chunk_size, size, seed = sys.argv[1:]
    server = FileServer(Path(), port=int(port), host=host)
    upload = Upload(server, session, content(int(size), seed), int(chunk_size))
    while True:
        try:
            missing = spans(upload.status()["missing"])
            if not missing or send(upload, missing[0][0]):
                print("completed", flush=True)
                return 0
        except (OSError, EarlyEndError):
            time.sleep(PAUSE)


if __name__ == "__main__":
    sys.exit(main())
