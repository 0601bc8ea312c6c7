"""The server with something altered: `python -m tests.crash.altered_server ALTERATION WORD...`.

`ALTERATION` is one of `FAULTS` (negative controls: a server that must be caught), one of `HARMLESS` (which make a
fault easier to see and are none), a moment of `MOMENTS` at which the process kills itself, once, when the file
`armed` is in its working directory, or several of these joined by "+". The words are those of the command line.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from hmac_file_server.cli import main
from hmac_file_server.files.contract import Draft, Metadata, PathRefused, Published, StorageError, StoragePath
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.drafts import LocalDraft
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.metadata import MetadataTable
from hmac_file_server.stores.contract import Change, Checkpoint, Done, Finish, Result
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.uploads.lease import Lease

UNSYNCED: Final = "unsynced"
UNDIRECTED: Final = "undirected"
HASTY: Final = "hasty"
FORGETFUL: Final = "forgetful"
UNCHECKED: Final = "unchecked"
DEAF: Final = "deaf"
SHORT_LOG: Final = "short_log"
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


def unsynced() -> None:
    """What files are written is never synced."""
    Disk.fdatasync = staticmethod(os.fstat)  # type: ignore[arg-type]


def undirected() -> None:
    """No folder is ever synced."""
    Disk.fsync = staticmethod(os.fstat)  # type: ignore[arg-type]


_LATE_S: Final = 0.5


def hasty() -> None:
    """A checkpoint is recorded and told before the bytes are synced; they are synced a moment later."""
    sync = LocalDraft.sync

    def late(draft: LocalDraft) -> None:
        with contextlib.suppress(StorageError):  # published or given up meanwhile
            sync(draft)

    def altered(self: LocalDraft) -> None:
        timer = threading.Timer(_LATE_S, late, (self,))
        timer.daemon = True
        timer.start()

    LocalDraft.sync = altered  # type: ignore[method-assign]


def setting(pragma: str) -> Callable[[], None]:
    """Both databases are used with another setting of SQLite."""

    def alter() -> None:
        set_up, connect = SqliteStore._set_up, MetadataTable._connect

        def of_sessions(self: SqliteStore, connection: sqlite3.Connection) -> None:
            set_up(self, connection)
            connection.execute(pragma)

        def of_files(self: MetadataTable) -> sqlite3.Connection:
            connection = connect(self)
            connection.execute(pragma)
            return connection

        SqliteStore._set_up = of_sessions  # type: ignore[method-assign]
        MetadataTable._connect = of_files  # type: ignore[method-assign]

    return alter


def unchecked() -> None:
    """A lease that was taken over is as good as a live one: for its writes, its checkpoints and its end."""
    Lease.live = property(lambda _: True, lambda _self, _value: None)  # type: ignore[assignment,misc]


def deaf() -> None:
    """A body that is to end, as a newcomer wants its lane, does not hear of it: only its lease stands in its way."""
    init = Lease.__init__

    def altered(self: Lease, *words: object) -> None:
        init(self, *words)  # type: ignore[arg-type]
        self.on_taken = lambda: None

    Lease.__init__ = altered  # type: ignore[method-assign,assignment]


FAULTS: Final[dict[str, Callable[[], None]]] = {
    UNSYNCED: unsynced,
    UNDIRECTED: undirected,
    HASTY: hasty,
    FORGETFUL: setting("PRAGMA synchronous=OFF"),
    UNCHECKED: unchecked,
}

HARMLESS: Final[dict[str, Callable[[], None]]] = {
    DEAF: deaf,
    # A write-ahead log that is soon written over in place: its sync does not make folders durable by the way, as
    # that of a file that grows does.
    SHORT_LOG: setting("PRAGMA wal_autocheckpoint=32"),
}


def alter(names: str) -> None:
    """Alter this process by the names of alterations."""
    for name in names.split("+"):
        {**FAULTS, **HARMLESS, **MOMENTS}[name]()


if __name__ == "__main__":
    alter(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
