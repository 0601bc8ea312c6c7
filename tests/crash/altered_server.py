"""The server with one thing altered: `python -m tests.crash.altered_server ALTERATION WORD...`.

`ALTERATION` is "unsynced" (what files are written is never synced: the negative control of power cuts) or a moment
of `MOMENTS` at which the process kills itself, once, when the file `armed` is in its working directory. The words
are those of the command line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Final, TypeAlias

from hmac_file_server.cli import main
from hmac_file_server.files.contract import Draft, Metadata, PathRefused, Published, StorageError, StoragePath
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.drafts import LocalDraft
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.stores.contract import Change, Checkpoint, Done, Finish, Result
from hmac_file_server.stores.sqlite import SqliteStore

UNSYNCED: Final = "unsynced"
ARMED: Final = "armed"

Told: TypeAlias = Callable[[Published | StorageError | PathRefused], None]


def die() -> None:
    """SIGKILL, if it is armed."""
    try:
        os.unlink(ARMED)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def after_a_sync() -> None:
    """Bytes are synced, the store has not been told."""
    sync = LocalDraft.sync

    def altered(self: LocalDraft) -> None:
        sync(self)
        die()

    LocalDraft.sync = altered  # type: ignore[method-assign]


def after(kind: type[Checkpoint | Finish]) -> Callable[[], None]:
    """The store has made such a change durable, nobody has heard of it."""

    def alter() -> None:
        submit = SqliteStore.submit

        def altered(self: SqliteStore, change: Change, done: Done, /) -> None:
            def told(result: Result) -> None:
                if isinstance(change, kind) and result is True:
                    die()
                done(result)

            submit(self, change, told)

        SqliteStore.submit = altered  # type: ignore[method-assign]

    return alter


def before_a_publish() -> None:
    """The last byte is in the store, the file is not begun."""
    publish = LocalFileStore.publish_draft_soon

    def altered(
        self: LocalFileStore, draft: Draft, path: StoragePath, meta: Metadata, size: int, digest: str | None, done: Told
    ) -> None:
        die()
        publish(self, draft, path, meta, size, digest, done)

    LocalFileStore.publish_draft_soon = altered  # type: ignore[method-assign]


def after_a_publish() -> None:
    """The file is there, with its row; the upload's receipt is not."""
    publish = LocalFileStore.publish_draft_soon

    def altered(
        self: LocalFileStore, draft: Draft, path: StoragePath, meta: Metadata, size: int, digest: str | None, done: Told
    ) -> None:
        def told(result: Published | StorageError | PathRefused) -> None:
            die()
            done(result)

        publish(self, draft, path, meta, size, digest, told)

    LocalFileStore.publish_draft_soon = altered  # type: ignore[method-assign]


MOMENTS: Final[dict[str, Callable[[], None]]] = {
    "synced": after_a_sync,
    "checkpointed": after(Checkpoint),
    "gathered": before_a_publish,
    "published": after_a_publish,
    "receipted": after(Finish),
}


def alter(name: str) -> None:
    """Alter this process by the name of an alteration."""
    if name == UNSYNCED:
        Disk.fdatasync = staticmethod(os.fstat)  # type: ignore[arg-type]
    else:
        MOMENTS[name]()


if __name__ == "__main__":
    alter(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
