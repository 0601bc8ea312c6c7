"""The server with a gate before its disk: `python -m tests.server.gated_server WORD...`.

Every sync of data waits while somebody else holds the lock on the file `gate` in the working directory.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Final

from hmac_file_server.cli import main
from hmac_file_server.files.disk import Disk

GATE: Final = "gate"


def gated(fd: int) -> None:
    gate = os.open(GATE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(gate, fcntl.LOCK_SH)
    finally:
        os.close(gate)
    os.fdatasync(fd)


if __name__ == "__main__":
    Disk.fdatasync = staticmethod(gated)  # type: ignore[arg-type]
    sys.exit(main(sys.argv[1:]))
