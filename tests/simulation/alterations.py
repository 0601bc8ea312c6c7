"""Servers with one safety taken out: what the simulation must find, or it finds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final
from unittest import mock

from msgspec import structs
from tests.simulation.medium import ProcessDisk

from hmac_file_server.files.committer import Committer, Job
from hmac_file_server.files.contract import Done, Draft, Metadata, Outcome, Published, StoragePath
from hmac_file_server.files.drafts import LocalDraft
from hmac_file_server.files.local import LocalFileStore, entry_of
from hmac_file_server.files.metadata import Row
from hmac_file_server.stores import sqlite, tables
from hmac_file_server.stores.contract import Change, Checkpoint, Claim, Finish
from hmac_file_server.uploads import Engine, Lease
from hmac_file_server.uploads.ledger import Ledger


def no_file_sync() -> AbstractContextManager[Any]:
    """What files are written is never synced."""
    sync = ProcessDisk.fsync

    def fsync(self: ProcessDisk, fd: int) -> None:
        if self._handle(fd).node.folder:
            sync(self, fd)

    return mock.patch.multiple(ProcessDisk, fsync=fsync, fdatasync=lambda _self, _fd: None)


def no_folder_sync() -> AbstractContextManager[Any]:
    """No folder is ever synced."""
    sync = ProcessDisk.fsync

    def fsync(self: ProcessDisk, fd: int) -> None:
        if not self._handle(fd).node.folder:
            sync(self, fd)

    return mock.patch.object(ProcessDisk, "fsync", fsync)


def no_fence() -> AbstractContextManager[Any]:
    """A newcomer does not wait for ever, and whoever had the lane goes on writing to it."""

    def fence(self: Engine, lease: Lease) -> None:
        with lease.upload.lock:
            if lease.ready is None:
                return
            lease.waiting_for.clear()
        self._begin(lease)

    return mock.patch.object(Engine, "_fence", fence)


@contextmanager
def no_epoch() -> Iterator[None]:
    """Two servers have charge of an upload at once: neither the lock on its file nor its epoch is asked."""
    apply = tables.apply

    def unchecked(connection: Any, change: Change) -> Any:
        if isinstance(change, Claim | Checkpoint | Finish):
            row = connection.execute("SELECT epoch FROM uploads WHERE id = ?", (change.id,)).fetchone()
            if row is not None:
                change = structs.replace(change, epoch=row[0])
        return apply(connection, change)

    with (
        mock.patch.object(sqlite, "apply", unchecked),
        mock.patch.object(ProcessDisk, "flock", mock.Mock(return_value=None)),
    ):
        yield


def checkpoint_before_sync() -> AbstractContextManager[Any]:
    """The store is told first, the disk is synced some time later."""
    sync = LocalDraft.sync
    waiting: list[LocalDraft] = []

    def later(self: LocalDraft) -> None:
        # The sync of the one before.
        for draft in waiting:
            if draft._open:
                sync(draft)
        waiting[:] = [self]

    return mock.patch.object(LocalDraft, "sync", later)


def receipt_before_publish() -> AbstractContextManager[Any]:
    """An upload is told to be complete while its file is still to be published."""
    publish = LocalFileStore.publish_draft_soon

    def early(
        self: LocalFileStore, draft: Draft, path: StoragePath, meta: Metadata, size: int, digest: str | None, done: Done
    ) -> None:
        publish(self, draft, path, meta, size, digest, lambda _result: None)
        row = Row(path, "text/plain", meta.filename, meta.owner, size, digest, self._time(), meta.expires, meta.ticket)
        done(Published(Outcome.CREATED, entry_of(row)))

    return mock.patch.object(LocalFileStore, "publish_draft_soon", early)


def answer_before_commit() -> AbstractContextManager[Any]:
    """A file is acknowledged once it is linked: neither its folder nor its row is durable."""
    publish = Committer._publish

    def early(self: Committer, batch: list[Job]) -> None:
        with mock.patch.object(self, "_sync", lambda placed: placed):
            publish(self, batch)

    return mock.patch.object(Committer, "_publish", early)


def last_byte_counts() -> AbstractContextManager[Any]:
    """A body that was cut completes an upload when all its bytes came."""
    checkpoint = Engine._checkpoint

    def whole(self: Engine, lease: Lease, then: Any, *, whole: bool) -> None:
        checkpoint(self, lease, then, whole=True)

    return mock.patch.object(Engine, "_checkpoint", whole)


def space_is_kept() -> AbstractContextManager[Any]:
    """What was promised to an upload is not given back when it ends."""
    return mock.patch.object(Ledger, "end", mock.Mock(return_value=None))


def no_comparison() -> AbstractContextManager[Any]:
    """Bytes that are durable are written over by whoever sends others."""

    def hold(_self: Lease, _held: Any) -> None:
        """Nothing is held."""

    return mock.patch.object(Lease, "hold", hold)


ALTERATIONS: Final[dict[str, Callable[[], AbstractContextManager[Any]]]] = {
    "no-file-sync": no_file_sync,
    "no-folder-sync": no_folder_sync,
    "no-fence": no_fence,
    "no-epoch": no_epoch,
    "checkpoint-before-sync": checkpoint_before_sync,
    "receipt-before-publish": receipt_before_publish,
    "answer-before-commit": answer_before_commit,
    "last-byte-counts": last_byte_counts,
    "space-is-kept": space_is_kept,
    "no-comparison": no_comparison,
}


def altered(name: str | None) -> AbstractContextManager[Any]:
    """A server with that safety taken out; None: the server as it is."""
    return nullcontext() if name is None else ALTERATIONS[name]()
