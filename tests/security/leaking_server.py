"""The server with leaks in it, which the statistics must find: `python -m tests.security.leaking_server LEAK WORD...`.

`LEAK` is "compare" (secrets are compared byte by byte, up to the first difference) or "dedup" (bytes that are known
already are not synced). The words are those of the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from hmac_file_server.auth.schemes import signature, v1, v3
from hmac_file_server.cli import main
from hmac_file_server.files.committer import Committer, Job


def early_exit(given: bytes, right: bytes) -> bool:
    """What must not be used on secrets."""
    if len(given) != len(right):
        return False
    at = 0
    while at < len(given):
        if given[at : at + 1] != right[at : at + 1]:
            return False
        at += 1
    return True


def leak_comparisons() -> None:
    """Every scheme compares with an early exit."""
    for scheme in (signature, v1, v3):
        scheme.compare_digest = early_exit  # type: ignore[attr-defined]


def leak_contents() -> None:
    """A content that was published before is not synced: what is known already is on the disk, somebody thought."""
    known: set[str] = set()
    waved_through: set[str | None] = set()
    sync = Committer.sync

    def altered(self: Committer, job: Job) -> None:
        digest = job.spool.digest
        if digest is not None and digest in known:
            waved_through.add(digest)
            self._queue.put(job)
            return
        if digest is not None:
            known.add(digest)
        sync(self, job)

    publish = Committer._publish

    def hasty(self: Committer, batch: list[Job]) -> None:
        full = self._full
        self._full = full and not all(job.spool.digest in waved_through for job in batch)
        try:
            publish(self, batch)
        finally:
            self._full = full

    Committer.sync = altered  # type: ignore[method-assign]
    Committer._publish = hasty  # type: ignore[method-assign]


LEAKS: Final[dict[str, Callable[[], None]]] = {"compare": leak_comparisons, "dedup": leak_contents}


if __name__ == "__main__":
    LEAKS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
