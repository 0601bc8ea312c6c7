"""One upload that this process has charge of."""

import threading
from collections.abc import Callable
from typing import TypeAlias

from hmac_file_server.files.contract import Draft, Hasher, StorageError
from hmac_file_server.stores.contract import Session, StoreError
from hmac_file_server.uploads.errors import UploadRefused
from hmac_file_server.uploads.lease import Lease
from hmac_file_server.uploads.ranges import RangeSet
from hmac_file_server.uploads.receipt import Details, Progress, Receipt, details_of
from hmac_file_server.uploads.states import Event, State, after

Failure: TypeAlias = UploadRefused | StorageError | StoreError
"""What can become of a request besides success."""

Ended: TypeAlias = Callable[[Progress | Failure], None]
"""Takes the state after a request, or why it failed; on any thread, exactly once."""


class Upload:
    """An open upload in memory: its durable ranges, its leases, its draft. All but `draft` under `lock`."""

    __slots__ = (
        "active",
        "chunk_size",
        "closed",
        "created",
        "details",
        "draft",
        "durable",
        "ending",
        "epoch",
        "expires",
        "filename",
        "hashed",
        "hasher",
        "hashing",
        "id",
        "leases",
        "length",
        "lock",
        "media_type",
        "next_epoch",
        "path",
        "promised",
        "protocol",
        "receipt",
        "state",
        "used_at",
        "version",
        "waiters",
    )

    def __init__(self, session: Session, draft: Draft, hasher: Hasher | None) -> None:
        """Take over a session that is open, with its draft held by this process."""
        self.lock = threading.Lock()
        self.id = session.id
        self.protocol = session.protocol
        self.path = session.path
        self.filename = session.filename
        self.media_type = session.media_type
        self.length = session.length
        self.chunk_size = session.chunk_size
        self.created = session.created
        self.active = session.active
        self.expires = session.deadline
        self.epoch = session.epoch
        self.details: Details = details_of(session)
        self.draft = draft
        self.durable = RangeSet(session.ranges)
        # Bytes up to which space was promised, where the length is not known.
        self.promised = self.durable.total
        self.state = State(session.state)
        self.receipt: Receipt | None = None
        self.leases: list[Lease] = []
        self.next_epoch = 1
        self.waiters: list[Ended] = []
        # The hash of the first `hashed` bytes, all of them durable.
        self.hasher = hasher
        self.hashed = 0
        self.hashing = False
        self.version = 0
        self.used_at = 0.0
        # Not in charge of it any more: it was let go, or has ended.
        self.closed = False
        # The store is asked to end it without a file: it is not to be published meanwhile.
        self.ending = False

    def happen(self, event: Event) -> None:
        """Follow the table. Raises RuntimeError for an event that cannot be: a defect."""
        following = after(self.state, event)
        if following is None:
            raise RuntimeError(f"{event} in state {self.state}")
        self.state = following
        self.version += 1

    def whole(self) -> bool:
        """Whether every byte is durable."""
        return self.length is not None and self.durable.covers(0, self.length)

    def ready(self) -> bool:
        """Whether every byte is durable and that is enough to publish it."""
        details = self.details
        return self.whole() and not (details.explicit or details.partial or (details.parts and self.length))

    def left(self) -> int:
        """Bytes that were promised and are still to come."""
        return (self.promised if self.length is None else self.length) - self.durable.total

    def look(self) -> Progress:
        """A snapshot, for who does not hold the lock."""
        with self.lock:
            return self.progress()

    def progress(self) -> Progress:
        """A snapshot; the caller holds the lock."""
        return Progress(
            id=self.id,
            state=self.state,
            protocol=self.protocol,
            path=self.path,
            filename=self.filename,
            length=self.length,
            chunk_size=self.chunk_size,
            ranges=self.durable.spans(),
            active=self.active,
            expires=self.expires,
            details=self.details,
            receipt=self.receipt,
            version=self.version,
        )
