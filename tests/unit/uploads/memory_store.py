"""A store in memory that keeps the contract of files, counts what is given out, and fails when it is told to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from hmac_file_server.files.contract import (
    Buffer,
    Deletion,
    Done,
    Draft,
    Entry,
    Hasher,
    Metadata,
    Outcome,
    Placed,
    Published,
    SpacePool,
    Spool,
    StorageError,
    StorageFull,
    StoragePath,
)
from hmac_file_server.files.contract import Reservation as ReservationContract


class Reservation:
    """A promise of space."""

    def __init__(self, store: MemoryStore, size: int) -> None:
        self._store: MemoryStore | None = store
        self._left = size

    def consume(self, count: int, /) -> None:
        if self._store is not None:
            count = min(count, self._left)
            self._left -= count
            self._store.promised -= count

    def release(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.promised -= self._left
            store.reservations -= 1


class MemorySpool:
    """A body that nobody sees yet."""

    def __init__(self, store: MemoryStore, reservation: ReservationContract | None) -> None:
        self._store = store
        self._reservation = reservation
        self._ended = False
        self.content = bytearray()
        store.spools += 1

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def digest(self) -> str | None:
        return "sha256:" + hashlib.sha256(self.content).hexdigest()

    def write(self, view: Buffer, /) -> None:
        self._store.fail("write")
        assert not self._ended
        self.content += view

    def discard(self) -> None:
        if not self._ended:
            self._ended = True
            self._store.spools -= 1
            if self._reservation is not None:
                self._reservation.release()


class MemoryReader:
    """A published file."""

    def __init__(self, store: MemoryStore, entry: Entry, content: bytes) -> None:
        self._store = store
        self._content = content
        self._closed = False
        self.entry = entry
        store.readers += 1

    def fileno(self) -> int | None:
        return None

    def read(self, offset: int, length: int, /) -> bytes:
        self._store.fail("read")
        return self._content[offset : offset + length]

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._store.readers -= 1


class MemoryComparison:
    """A body held against a published file."""

    def __init__(self, reader: MemoryReader, store: MemoryStore) -> None:
        self._reader = reader
        self._store = store
        self._body = bytearray()

    @property
    def entry(self) -> Entry:
        return self._reader.entry

    def write(self, view: Buffer, /) -> None:
        self._store.fail("compare")
        self._body += view

    def same(self) -> bool:
        self._store.fail("same")
        return bytes(self._body) == self._reader.read(0, self.entry.size + 1)

    def close(self) -> None:
        self._reader.close()


class _NoDrafts:
    """What a single upload has no use for."""

    def draft(self, name: str, *, create: bool) -> Draft | None:
        raise NotImplementedError

    def drafts(self, older_than: float, /) -> list[str]:
        raise NotImplementedError

    def drop_draft(self, name: str, /) -> bool:
        raise NotImplementedError

    def copy_draft(self, name: str, into: Draft, offset: int, length: int, /) -> None:
        raise NotImplementedError

    def publish_draft_soon(
        self, draft: Draft, path: StoragePath, meta: Metadata, size: int, digest: str | None, done: Done, /
    ) -> None:
        raise NotImplementedError

    def new_hasher(self, size: int, /) -> Hasher | None:
        raise NotImplementedError

    def digest_text(self, hasher: Hasher, /) -> str:
        raise NotImplementedError

    def pool(self) -> SpacePool:
        raise NotImplementedError


class MemoryStore(_NoDrafts):
    """The store. `errors` maps the name of a step to the error it raises, until it is removed."""

    def __init__(self, free: int = 1 << 40) -> None:
        self.files: dict[str, tuple[Entry, bytes]] = {}
        self.tickets: dict[str, int] = {}
        self.errors: dict[str, StorageError] = {}
        self.free = free
        self.promised = 0
        self.reservations = 0
        self.spools = 0
        self.readers = 0
        self.admitted: list[int] = []
        self.deleted: list[tuple[str, str]] = []
        self.later: list[Callable[[], None]] = []
        """Publishes under way; a test runs them when it wants."""
        self.clock = 1_700_000_000.0

    def fail(self, step: str) -> None:
        if step in self.errors:
            raise self.errors[step]

    @property
    def idle(self) -> bool:
        """Whether everything that was given out has been given back."""
        return not (self.promised or self.reservations or self.spools or self.readers)

    def add(self, path: str, content: bytes, **fields: object) -> Entry:
        """A file that is there already."""
        values: dict[str, object] = {
            "media_type": "image/png",
            "filename": path.rpartition("/")[2],
            "etag": f'"{len(self.files):x}-{len(content):x}"',
            "created": self.clock,
            "modified": int(self.clock),
            **fields,
        }
        entry = Entry(StoragePath(path), len(content), **values)  # type: ignore[arg-type]
        self.files[path] = (entry, content)
        return entry

    def head(self, path: StoragePath, /) -> Entry | None:
        self.fail("head")
        found = self.files.get(path)
        return None if found is None else found[0]

    def open(self, path: StoragePath, /) -> MemoryReader | None:
        self.fail("open")
        found = self.files.get(path)
        return None if found is None else MemoryReader(self, *found)

    def load(self, path: StoragePath, limit: int, /) -> tuple[Entry, bytes] | MemoryReader | None:
        reader = self.open(path)
        if reader is None or reader.entry.size > limit:
            return reader
        try:
            return reader.entry, reader.read(0, limit)
        finally:
            reader.close()

    def admit(self, size: int, /) -> Reservation:
        self.fail("admit")
        if self.promised + size > self.free:
            raise StorageFull("no room")
        self.admitted.append(size)
        self.promised += size
        self.reservations += 1
        return Reservation(self, size)

    def spool(self, size: int | None = None, reservation: ReservationContract | None = None) -> MemorySpool:
        self.fail("spool")
        return MemorySpool(self, reservation)

    def compare(self, path: StoragePath, /) -> MemoryComparison | None:
        reader = self.open(path)
        return None if reader is None else MemoryComparison(reader, self)

    def publish(self, spool: Spool, path: StoragePath, meta: Metadata, /) -> Published:
        assert isinstance(spool, MemorySpool)
        content = bytes(spool.content)
        digest = spool.digest
        spool.discard()
        self.fail("publish")
        found = self.files.get(path)
        if found is not None:
            outcome = Outcome.SAME if found[1] == content else Outcome.CONFLICT
            return Published(outcome, found[0])
        entry = self.add(
            path,
            content,
            media_type=meta.media_type or "application/octet-stream",
            filename=meta.filename or path.rpartition("/")[2],
            digest=digest,
            owner=meta.owner,
            expires=meta.expires,
        )
        return Published(Outcome.CREATED, entry)

    def put(self, path: StoragePath, body: Buffer, meta: Metadata, /) -> Published:
        spool = self.spool(len(body), self.admit(len(body)))
        spool.write(body)
        return self.publish(spool, path, meta)

    def publish_soon(
        self, spool: Spool, path: StoragePath, meta: Metadata, done: Done, /, placed: Placed | None = None
    ) -> None:
        def work() -> None:
            try:
                published = self.publish(spool, path, meta)
            except StorageError as error:
                done(error)
                return
            if placed is None or published.outcome is not Outcome.CREATED or published.entry is None:
                done(published)
                return
            placed(published.entry)
            self.later.append(lambda: sync(published))

        def sync(published: Published) -> None:
            result: Published | StorageError = published
            try:
                self.fail("sync")
            except StorageError as error:
                result = error
            done(result)

        self.later.append(work)

    def run_later(self) -> None:
        """Let every publish under way happen."""
        while self.later:
            self.later.pop(0)()

    def delete(self, path: StoragePath, reason: str, /) -> bool:
        self.fail("delete")
        self.deleted.append((path, reason))
        return self.files.pop(path, None) is not None

    def expire(self, now: float, /) -> Sequence[Deletion]:
        return []

    def take_ticket(self, ticket_id: str, max_files: int, expires: float, /) -> bool:
        self.fail("ticket")
        if self.tickets.get(ticket_id, 0) >= max_files:
            return False
        self.tickets[ticket_id] = self.tickets.get(ticket_id, 0) + 1
        return True

    def give_back_ticket(self, ticket_id: str, /) -> None:
        self.tickets[ticket_id] -= 1

    def close(self) -> None:
        """Nothing is held."""
