"""What the rooms above may ask of a store of files. Nothing here assumes a local path.

Sizes and offsets are bytes, times are seconds since the epoch unless said otherwise. Every error that a
store raises on purpose is a `StorageError` or a `PathRefused` and carries a stable word in `code`.
"""

import enum
from collections.abc import Callable, Sequence
from typing import ClassVar, NewType, Protocol, TypeAlias

import msgspec

StoragePath = NewType("StoragePath", str)
"""A relative path "a/b/c" that `paths.parse` has accepted."""

Buffer: TypeAlias = bytes | bytearray | memoryview


class PathRefused(ValueError):  # noqa: N818 - a refusal, not a fault
    """The text is no path that a store keeps files under.

    `code` is one of the words listed in `paths`; `reason` is a sentence for people without the text itself.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StorageError(Exception):
    """The store could not do what was asked. Nothing was acknowledged."""

    code: ClassVar[str] = "storage_failed"


class StorageFull(StorageError):  # noqa: N818
    """No space, no inodes or no quota left (ENOSPC, EDQUOT, admission). HTTP: 507."""

    code = "storage_full"


class StorageFailed(StorageError):  # noqa: N818
    """The medium failed (EIO and the like, a failed sync). HTTP: 500."""

    code = "storage_failed"


class StorageBusy(StorageError):  # noqa: N818
    """Out of file descriptors or memory for the moment (EMFILE, ENFILE, ENOMEM). HTTP: 503."""

    code = "storage_busy"


class StorageReadOnly(StorageError):  # noqa: N818
    """Syncs failed repeatedly, or the file system went read-only: reads go on, writes do not. HTTP: 503."""

    code = "storage_read_only"


class StoreInUse(StorageError):  # noqa: N818
    """Another server holds the lock of this store."""

    code = "store_in_use"


class DraftHeld(StorageError):  # noqa: N818
    """Another process, or another part of this one, holds the draft."""

    code = "upload_busy"


class Outcome(enum.Enum):
    """How a publish ended."""

    CREATED = "created"
    SAME = "same"
    """The path held the same bytes already."""
    CONFLICT = "conflict"
    """The path holds other bytes, or something that is no file."""


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """What an upload says about its file. `media_type` None: by the extension; `filename` None: last segment."""

    media_type: str | None = None
    filename: str | None = None
    owner: str | None = None
    expires: float | None = None
    ticket: str | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One published file.

    `etag` is a strong entity tag with its quotes (RFC 9110, 8.8.3), `modified` whole seconds for
    Last-Modified, `digest` "blake3:<hex>" or "sha256:<hex>" of the content where it is known.
    """

    path: StoragePath
    size: int
    media_type: str
    filename: str
    etag: str
    created: float
    modified: int
    digest: str | None = None
    owner: str | None = None
    expires: float | None = None


class Published(msgspec.Struct, frozen=True, gc=False):
    """Answer to a publish. `entry` is None only when something that is no readable file is in the way."""

    outcome: Outcome
    entry: Entry | None


class Deletion(msgspec.Struct, frozen=True, gc=False):
    """One file that expiry removed, and why ("expires" or "file_ttl")."""

    path: str
    size: int
    reason: str


Done: TypeAlias = Callable[[Published | StorageError | PathRefused], None]
"""Takes the result of `publish_soon`, on any thread, exactly once."""
Placed: TypeAlias = Callable[[Entry], None]
"""Is told of a file that is being published, on any thread, at most once."""

Submit: TypeAlias = Callable[[Callable[[], None]], object]
"""Runs a blocking function on a worker thread, soon."""


class Log(Protocol):
    """Takes one event with plain fields."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Record it; must not raise."""


class Reservation(Protocol):
    """Space promised to one upload until it is released."""

    def consume(self, count: int, /) -> None:
        """`count` bytes of it are on the medium now and no longer outstanding."""

    def release(self) -> None:
        """Give back what is left. Idempotent, thread-safe."""


class Spool(Protocol):
    """A new file that nobody sees until it is published. Used by one thread at a time."""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    @property
    def digest(self) -> str | None:
        """Digest of what was written, when the store hashes it."""
        ...

    def write(self, view: Buffer, /) -> None:
        """Append all of it. Raises StorageFull, StorageFailed, StorageBusy; then only discard is of use."""

    def discard(self) -> None:
        """Drop it and its bytes. Idempotent; harmless after a publish."""


class Hasher(Protocol):
    """A digest in the making."""

    def update(self, data: Buffer, /) -> object:
        """The next bytes."""

    def copy(self) -> "Hasher":
        """One that goes on from here on its own."""
        ...

    def hexdigest(self) -> str:
        """The digest so far."""
        ...


class Draft(Protocol):
    """A file that an upload grows in, at any offsets and over many connections and restarts.

    It belongs to one process at a time. Any thread may call, several at once.
    """

    @property
    def name(self) -> str:
        """What `FileStore.draft` was asked for."""
        ...

    def write_at(self, view: Buffer, offset: int, /) -> None:
        """Write all of it at `offset`. Raises StorageFull, StorageFailed, StorageBusy.

        What was written of a view that failed is not known. After `close` or a failed sync: StorageFailed.
        """

    def read_at(self, offset: int, length: int, /) -> bytes:
        """Up to `length` bytes from `offset`, zeros where nothing was written; fewer only at the end.

        Raises StorageFailed.
        """
        ...

    def sync(self) -> None:
        """Put everything that was written before the call on the medium, and the draft's name; blocks.

        Relaxed durability: nothing. Raises StorageError. After one failure every later sync and write of
        this draft raises StorageFailed: what a sync says that follows a failed one is not worth anything.
        """

    def close(self) -> None:
        """Let go of it; the file stays. Idempotent.

        Does not wait: calls and publishes under way run to their end, and only then others may hold the draft.
        """

    def discard(self) -> None:
        """Remove it and let go. Idempotent; harmless after a publish. After `close`: nothing."""


class SpacePool(Protocol):
    """The space that all unfinished uploads of this process may still need. Any thread may call."""

    def add(self, size: int, /) -> None:
        """Promise `size` bytes to one more upload. Raises as `FileStore.admit` does."""

    def charge(self, size: int, /) -> None:
        """Count an upload that was admitted before a restart: as `add`, without asking."""

    def subtract(self, size: int, /) -> None:
        """`size` bytes were written or given up: they are outstanding no more."""

    def leave(self) -> None:
        """One upload less; its outstanding bytes were subtracted."""


class Comparison(Protocol):
    """A body held against a published file; nothing is stored."""

    @property
    def entry(self) -> Entry:
        """The file it is compared with."""
        ...

    def write(self, view: Buffer, /) -> None:
        """The next bytes of the body."""

    def same(self) -> bool:
        """Whether the whole body was the file's content. In full durability the file is durable then."""
        ...

    def close(self) -> None:
        """Idempotent."""


class Reader(Protocol):
    """One file opened for reading; its bytes stay readable although the path may be deleted meanwhile."""

    @property
    def entry(self) -> Entry:
        """What is read."""
        ...

    def fileno(self) -> int | None:
        """A descriptor for sendfile, owned by the reader; None where the store has none."""
        ...

    def read(self, offset: int, length: int, /) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end. Raises StorageFailed."""
        ...

    def close(self) -> None:
        """Idempotent."""


class FileStore(Protocol):
    """The store. Methods may be called from any thread; those that may block for long say so."""

    def head(self, path: StoragePath, /) -> Entry | None:
        """The file at `path`, None when there is none."""
        ...

    def open(self, path: StoragePath, /) -> Reader | None:
        """The file at `path` for reading, None when there is none. Raises StorageBusy, StorageFailed."""
        ...

    def load(self, path: StoragePath, limit: int, /) -> "tuple[Entry, bytes] | Reader | None":
        """A file of up to `limit` bytes with its whole content, a larger one as `open` does."""
        ...

    def admit(self, size: int, /) -> Reservation:
        """Promise space for `size` bytes. Raises StorageFull, StorageReadOnly."""
        ...

    def spool(self, size: int | None = None, reservation: Reservation | None = None) -> Spool:
        """Begin a file.

        `size` is the expected size when it is known (saves hashing what is too large to be deduplicated);
        `reservation` is consumed as bytes are written, and released when the spool ends.
        """
        ...

    def compare(self, path: StoragePath, /) -> Comparison | None:
        """Begin to hold a body against the file at `path`; None when there is none."""
        ...

    def publish(self, spool: Spool, path: StoragePath, meta: Metadata, /) -> Published:
        """Make the spool visible at `path`, never over another file; the spool has ended then.

        Blocks for the syncs in full durability, does none in relaxed. Raises StorageError, PathRefused.
        """
        ...

    def put(self, path: StoragePath, body: Buffer, meta: Metadata, /) -> Published:
        """Admit, spool and publish a short body in one call.

        Blocks as `publish` does. Raises StorageError, PathRefused.
        """
        ...

    def publish_soon(
        self, spool: Spool, path: StoragePath, meta: Metadata, done: Done, /, placed: Placed | None = None
    ) -> None:
        """As `publish`, without blocking: what blocks runs on worker threads and `done` gets the result.

        `placed` gets the entry of a new file as soon as it is settled, before it is durable: what is to be
        recorded of it may be made durable at the same time. `done` follows, perhaps with a failure.
        """

    def draft(self, name: str, *, create: bool) -> Draft | None:
        """Open the draft `name` ([0-9a-z_-]{1,80}, else ValueError) and hold it, made when missing and `create`.

        None: missing. Raises DraftHeld, StorageError.
        """
        ...

    def drafts(self, older_than: float, /) -> list[str]:
        """Names of drafts last written before `older_than` (epoch s) that nobody holds. Raises StorageError."""
        ...

    def copy_draft(self, name: str, into: Draft, offset: int, length: int, /) -> None:
        """Put the first `length` bytes of a draft, held by whom ever, into another at `offset`.

        Blocks. Shares or moves them inside the file system where that can. Raises StorageError, ValueError.
        """

    def drop_draft(self, name: str, /) -> bool:
        """Remove a draft that nobody holds; False when it is held or missing. Raises StorageError, ValueError."""
        ...

    def publish_draft_soon(
        self, draft: Draft, path: StoragePath, meta: Metadata, size: int, digest: str | None, done: Done, /
    ) -> None:
        """As `publish_soon`; the draft keeps its name and stays open until its owner lets go of it.

        So a publish whose receipt was lost in a crash can be repeated: Outcome.SAME. `size` is the draft's
        whole size (else StorageFailed); `digest`, from `digest_text`, lets it take part in deduplication.
        From here on writing to the draft raises StorageFailed.
        """

    def new_hasher(self, size: int, /) -> Hasher | None:
        """A fresh hasher when files of `size` bytes are hashed, else None."""
        ...

    def digest_text(self, hasher: Hasher, /) -> str:
        """Digest as `Entry.digest` has it, "blake3:<hex>"."""
        ...

    def pool(self) -> SpacePool:
        """The one pool of this process."""
        ...

    def delete(self, path: StoragePath, reason: str, /) -> bool:
        """Remove the file durably (may block) and log the reason; False when there was none."""
        ...

    def expire(self, now: float, /) -> Sequence[Deletion]:
        """Remove what has outlived its time (blocks)."""
        ...

    def take_ticket(self, ticket_id: str, max_files: int, expires: float, /) -> bool:
        """Count one more use of a ticket; False when `max_files` were taken before."""
        ...

    def give_back_ticket(self, ticket_id: str, /) -> None:
        """Undo one `take_ticket` of an upload that failed."""

    def close(self) -> None:
        """Finish what was begun. Idempotent."""
