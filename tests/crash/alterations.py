"""Servers that break one promise each: what the audits must find, else they would prove nothing."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.fixtures.child import wait_until

from hmac_file_server.files.disk import Disk
from hmac_file_server.stores.contract import Change, Checkpoint, Done
from hmac_file_server.stores.sqlite import SqliteStore

FAILED: Final = "failed"
HEALED: Final = "healed"
"""Files in the server's working directory: it has met a failure; it may go on."""


def _nothing(*_: object, **__: object) -> None:
    """In the place of a call."""


def without_file_sync() -> None:
    """What is written is never synced."""
    Disk.fdatasync = staticmethod(_nothing)


def without_directory_sync() -> None:
    """Names are never synced."""
    Disk.fsync = staticmethod(_nothing)


def deaf() -> None:
    """A sync that fails is taken for one that did not."""

    def altered(sync: Callable[[int], None]) -> Any:
        def try_it(fd: int) -> None:
            with contextlib.suppress(OSError):
                sync(fd)

        return staticmethod(try_it)

    Disk.fdatasync = altered(os.fdatasync)
    Disk.fsync = altered(os.fsync)


def stubborn() -> None:
    """A sync that fails is made again, once the disk works again (see `FAILED` and `HEALED`), and believed."""

    def altered(sync: Callable[[int], None]) -> Any:
        def again(fd: int) -> None:
            try:
                sync(fd)
            except OSError:
                Path(FAILED).touch()
                wait_until(Path(HEALED).exists, "the disk works again")
                sync(fd)

        return staticmethod(again)

    Disk.fdatasync = altered(os.fdatasync)
    Disk.fsync = altered(os.fsync)


def hasty() -> None:
    """A checkpoint is told before the store has it."""
    submit = SqliteStore.submit

    def altered(self: SqliteStore, change: Change, done: Done, /) -> None:
        if isinstance(change, Checkpoint):
            submit(self, change, _nothing)
            done(True)
        else:
            submit(self, change, done)

    SqliteStore.submit = altered  # type: ignore[method-assign]


def piecewise() -> None:
    """A file is copied to its path, where everybody sees it grow, and not linked."""

    def altered(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int, **_: object) -> None:
        old = os.open(source, os.O_RDONLY, dir_fd=src_dir_fd)
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=dst_dir_fd)
        place = 0
        while piece := os.pread(old, 40_000, place):
            place += os.write(new, piece)
        os.fdatasync(new)
        os.close(new)
        os.close(old)

    Disk.link = staticmethod(altered)  # type: ignore[arg-type]


ALTERATIONS: Final[dict[str, Callable[[], None]]] = {
    "": functools.partial(_nothing),
    "without-file-sync": without_file_sync,
    "without-directory-sync": without_directory_sync,
    "deaf": deaf,
    "stubborn": stubborn,
    "hasty": hasty,
    "piecewise": piecewise,
}


def alter(name: str) -> None:
    """Alter this process; "" leaves it as it is."""
    ALTERATIONS[name]()
