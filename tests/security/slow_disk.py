"""The server on a disk that stands still: `python -m tests.security.slow_disk WORD...`.

While the file `stuck` is in its working directory every sync waits; the file `waiting` says that one does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hmac_file_server.cli import main
from hmac_file_server.files.disk import Disk

STUCK: Final = "stuck"
WAITING: Final = "waiting"


def _slow(plain: Callable[..., Any]) -> Callable[..., Any]:
    def altered(*arguments: Any) -> Any:
        while os.path.exists(STUCK):
            Path(WAITING).touch()
            time.sleep(0.02)
        return plain(*arguments)

    return altered


if __name__ == "__main__":
    Disk.fsync = staticmethod(_slow(Disk.fsync))
    Disk.fdatasync = staticmethod(_slow(Disk.fdatasync))
    sys.exit(main(sys.argv[1:]))
