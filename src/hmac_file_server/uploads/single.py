"""An upload in one piece: admitted, spooled or compared, published once.

A path is written once. Bytes for a path that exists are held against it and nothing is stored: the same
bytes earn the same answer as the first time, so that a client whose answer was lost may simply repeat its
request (fault N-11); other bytes are a conflict.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from hmac_file_server.files.contract import (
    Comparison,
    Entry,
    FileStore,
    Metadata,
    Outcome,
    PathRefused,
    Placed,
    Published,
    Reservation,
    Spool,
    StorageError,
    StoragePath,
)
from hmac_file_server.uploads.errors import UploadRefused


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What is to be stored where.

    `size` is the exact size in bytes when it is known; `limit` bounds it otherwise, and `expected` is then
    how many bytes to find room for beforehand. `ticket` is (id, most files, epoch seconds when it may be
    forgotten) when a ticket's uses are counted.
    """

    path: StoragePath
    size: int | None
    limit: int
    metadata: Metadata
    ticket: tuple[str, int, float] | None = None
    expected: int = 0


class Stored(msgspec.Struct, frozen=True, gc=False):
    """The receipt. `created` is False when the same bytes were there before."""

    entry: Entry
    created: bool


Result: TypeAlias = Stored | UploadRefused | StorageError | PathRefused
Done: TypeAlias = Callable[[Result], None]

EXISTS = "Other content is stored under this path."
# A body of unknown length is admitted in steps of this many bytes.
_STEP = 16 * 1024 * 1024


class SingleUpload:
    """A body on its way to one path; is the sink of its bytes. Used by one thread at a time.

    Raises on construction, before any byte is taken: UploadRefused (exists, too_large, ticket_used_up) and
    StorageError (no space). Ends with `finish` or `abandon`, whichever comes first.
    """

    __slots__ = (
        "_admitted",
        "_comparison",
        "_over",
        "_plan",
        "_reservation",
        "_spool",
        "_step",
        "_store",
        "_ticket_taken",
        "received",
    )

    def __init__(self, store: FileStore, plan: Plan, *, look_first: bool) -> None:
        """`look_first`: ask for an existing file now; otherwise publishing finds it (short bodies)."""
        self._store = store
        self._plan = plan
        self._comparison: Comparison | None = None
        self._spool: Spool | None = None
        self._reservation: Reservation | None = None
        self._step: Reservation | None = None
        self._admitted = 0
        self._ticket_taken = False
        self._over = False
        self.received = 0
        size = plan.size
        if (size or 0) > plan.limit:
            raise UploadRefused("too_large", f"The file may have at most {plan.limit} bytes.")
        # A ticket is not asked to pay for a file that is there: the answer to its last one may have been lost.
        look_first = look_first or plan.ticket is not None
        if look_first and self._is_there():
            return
        self._admitted = plan.expected if size is None else size
        try:
            reservation = store.admit(self._admitted)
        except StorageError:
            # What is there already needs no room.
            if not look_first and self._is_there():
                return
            raise
        try:
            if plan.ticket is not None:
                if not store.take_ticket(*plan.ticket):
                    raise UploadRefused("ticket_used_up", "The ticket's files have all been uploaded.")
                self._ticket_taken = True
            self._spool = store.spool(size, reservation)
        except BaseException:
            self._give_back_ticket()
            reservation.release()
            raise
        self._reservation = reservation

    def _is_there(self) -> bool:
        """Whether the body is to be held against a file of its path. Raises UploadRefused (exists)."""
        plan = self._plan
        entry = self._store.head(plan.path)
        if entry is None:
            return False
        if plan.size is not None and plan.size != entry.size:
            raise UploadRefused("exists", EXISTS)
        self._comparison = self._store.compare(plan.path)
        return self._comparison is not None

    def write(self, view: memoryview) -> None:
        """Take the next bytes. Raises UploadRefused (too_large) and StorageError."""
        received = self.received + len(view)
        plan = self._plan
        if received > (plan.limit if plan.size is None else plan.size):
            raise UploadRefused("too_large", f"The file may have at most {plan.limit} bytes.")
        if self._spool is not None:
            if received > self._admitted:
                self._admit_more(received)
            self._spool.write(view)
        elif self._comparison is not None:
            self._comparison.write(view)
        self.received = received

    def _admit_more(self, received: int) -> None:
        step = self._store.admit(received - self._admitted + _STEP)
        self._admitted = received + _STEP
        # What the last step promised is on the medium by now.
        if self._step is not None:
            self._step.release()
        self._step = step

    def finish(self, done: Done, *, inline: bool = False, placed: Placed | None = None) -> None:
        """The body is whole: publish, then call `done` with the result, on any thread, exactly once.

        `inline` publishes in the calling thread and calls `done` before it returns: for short bodies where
        no sync is due. `placed` gets the entry of a new file that is on its way to be durable, unless `inline`.
        """
        if self._over:
            return
        self._over = True
        plan = self._plan
        comparison = self._comparison
        if plan.size is not None and self.received != plan.size:
            self._discard()
            done(UploadRefused("incomplete", "The body is shorter than announced."))
        elif comparison is not None:
            try:
                same = comparison.same()
            except StorageError as error:
                done(error)
            else:
                done(Stored(comparison.entry, created=False) if same else UploadRefused("exists", EXISTS))
            finally:
                comparison.close()
        elif self._spool is None:
            raise RuntimeError("an upload without a spool cannot be finished")
        elif inline:
            try:
                published: Published | StorageError | PathRefused = self._store.publish(
                    self._spool, plan.path, plan.metadata
                )
            except (StorageError, PathRefused) as error:
                published = error
            done(self._settle(published))
        else:
            self._store.publish_soon(
                self._spool, plan.path, plan.metadata, lambda published: done(self._settle(published)), placed=placed
            )

    def abandon(self) -> None:
        """Drop everything. Idempotent; nothing that was stored before is touched."""
        if self._over:
            return
        self._over = True
        self._discard()

    def _settle(self, published: Published | StorageError | PathRefused) -> Result:
        self._release()
        if isinstance(published, Published):
            if published.outcome is Outcome.CREATED and published.entry is not None:
                return Stored(published.entry, created=True)
            # Nothing new was stored, so no use of the ticket was spent.
            self._give_back_ticket()
            if published.outcome is Outcome.SAME and published.entry is not None:
                return Stored(published.entry, created=False)
            return UploadRefused("exists", EXISTS)
        self._give_back_ticket()
        return published

    def _discard(self) -> None:
        if self._comparison is not None:
            self._comparison.close()
        if self._spool is not None:
            self._spool.discard()
        self._release()
        self._give_back_ticket()

    def _release(self) -> None:
        if self._reservation is not None:
            self._reservation.release()
        if self._step is not None:
            self._step.release()

    def _give_back_ticket(self) -> None:
        if self._ticket_taken and self._plan.ticket is not None:
            self._ticket_taken = False
            self._store.give_back_ticket(self._plan.ticket[0])
