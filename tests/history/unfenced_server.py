"""The server without fencing: `python -m tests.history.unfenced_server WORD...`; the words are the command line's.

Nobody ever takes an upload over, and nobody is ever refused because somebody else has it: of two who append at once
both write.
"""

from __future__ import annotations

import sys

from hmac_file_server.cli import main
from hmac_file_server.stores.contract import Span
from hmac_file_server.uploads import Lease


def alter() -> None:
    """Take the fences down, in this process and those that come of it."""

    def overlaps(self: Lease, lane: Span) -> bool:
        return False

    Lease.overlaps = overlaps  # type: ignore[method-assign]


if __name__ == "__main__":
    alter()
    sys.exit(main(sys.argv[1:]))
