"""The store on a POSIX file system: files under the root by their path, everything else in a private folder.

`<root>/<path>` are the published files, `<root>/.hmac-file-server/` (0700) holds spool/, uploads/, blobs/ and state.db.
Several processes use one tree at once; each opens its own store after the fork.
"""

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import structs

from hmac_file_server.clock import Clock
from hmac_file_server.files import media_types
from hmac_file_server.files.committer import Committer, Job, Steps, sync_all, to_sync
from hmac_file_server.files.contract import (
    Buffer,
    Deletion,
    Done,
    Draft,
    Entry,
    Hasher,
    Log,
    Metadata,
    Outcome,
    PathRefused,
    Placed,
    Published,
    Reservation,
    Spool,
    StorageBusy,
    StorageError,
    StorageFailed,
    StoragePath,
    StorageReadOnly,
    Submit,
)
from hmac_file_server.files.dedup import Blobs
from hmac_file_server.files.directories import Directories, Directory, is_regular
from hmac_file_server.files.disk import Disk, storage_error
from hmac_file_server.files.drafts import Drafts, DraftSource, LocalDraft
from hmac_file_server.files.expiry import Expiry, Removal
from hmac_file_server.files.locking import Exclusion
from hmac_file_server.files.metadata import MetadataTable, Row
from hmac_file_server.files.paths import PRIVATE
from hmac_file_server.files.space import Admitted, LocalSpacePool, SharedCounters, Space
from hmac_file_server.files.spool import LocalSpool, Source, Spools

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ABSENT: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO, errno.ENAMETOOLONG, errno.ENODEV}
)
_ATTEMPTS: Final = 32
_FRESH: Final = 5.0
"""Seconds for which the absence of a row may only mean that another process has yet to write it."""
_CACHED_ENTRIES: Final = 8192
_COMPARE: Final = 1 << 20
_ORPHAN_AGE: Final = 3600.0
_BAD_SYNCS: Final = 2
_BAD_SYNC_WINDOW: Final = 600.0


def _no_log(_event: str, /, **_fields: object) -> None:
    """Where nobody listens."""


class LocalReader:
    """One open file. See `contract.Reader`."""

    __slots__ = ("_disk", "_fd", "entry")

    def __init__(self, disk: Disk, fd: int, entry: Entry) -> None:
        self._disk = disk
        self._fd = fd
        self.entry = entry

    def fileno(self) -> int | None:
        """The descriptor, owned by the reader; None once it is closed."""
        return self._fd if self._fd >= 0 else None

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`. Raises StorageFailed."""
        try:
            return self._disk.pread(self._fd, length, offset)
        except OSError as error:
            raise storage_error(error) from error

    def close(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            self.close()


class LocalComparison:
    """A body held against an open file. See `contract.Comparison`."""

    __slots__ = ("_equal", "_offset", "_reader", "_settle")

    def __init__(self, reader: LocalReader, settle: Callable[[LocalReader], None]) -> None:
        self._reader = reader
        self._settle = settle
        self._offset = 0
        self._equal = True

    @property
    def entry(self) -> Entry:
        """The file it is compared with."""
        return self._reader.entry

    def write(self, view: Buffer) -> None:
        """The next bytes of the body. Raises StorageFailed."""
        if not self._equal:
            return
        offset, end = self._offset, self._offset + len(view)
        whole = memoryview(view)
        while offset < end:
            there = self._reader.read(offset, min(end - offset, _COMPARE))
            begin = offset - self._offset
            # startswith compares by memcmp; == on memoryviews goes element by element before 3.14.
            if not there or not there.startswith(whole[begin : begin + len(there)]):
                self._equal = False
                return
            offset += len(there)
        self._offset = end

    def same(self) -> bool:
        """Whether the whole body was the file's content. Raises StorageFailed."""
        if not self._equal or self._offset != self._reader.entry.size:
            return False
        self._settle(self._reader)
        return True

    def close(self) -> None:
        """Idempotent."""
        self._reader.close()


class LocalFileStore:
    """See `contract.FileStore`. Open it after the fork; `SharedCounters` are what goes before."""

    def __init__(
        self,
        root: Path,
        *,
        durability: str = "full",
        dedup: bool = False,
        dedup_max_size: int = 1 << 30,
        dedup_hash: str = "blake3",
        min_free_bytes: int = 0,
        file_ttl: float | None = None,
        clock: Clock,
        random: Callable[[int], bytes] = os.urandom,
        disk: Disk | None = None,
        submit: Submit,
        log: Log = _no_log,
        counters: SharedCounters | None = None,
        slot: int = 0,
    ) -> None:
        """Open the store at `root`, made when missing.

        `durability` is "full" or "relaxed"; sizes are bytes, `file_ttl` seconds; `submit` runs what blocks;
        `slot` is this process's place in `counters`. Raises StorageError.
        """
        disk = self._disk = Disk() if disk is None else disk
        self._full = durability == "full"
        self._clock = clock
        self._time = clock.time
        self._log = log
        self._closed = False
        self._bad_syncs: list[float] = []
        self._read_only = False
        self._entries: OrderedDict[str, tuple[int, int, Entry]] = OrderedDict()
        self._dedup = dedup
        with contextlib.ExitStack() as undo:  # a store that does not open leaves no descriptor behind
            try:
                self._directories = Directories(disk, self._open_root(root), monotonic=clock.monotonic)
                undo.callback(self._directories.close)
                root_fd = self._directories.root.fd
                private = self._folder(PRIVATE, root_fd)
                undo.callback(disk.close, private)
                hidden = disk.fstat(private)
                self._directories.hide(hidden.st_dev, hidden.st_ino)
                self._spools = Spools(
                    disk,
                    self._folder("spool", private),
                    random=random,
                    hash_name=dedup_hash,
                    hash_limit=dedup_max_size,
                    hashing=dedup,
                )
                undo.callback(self._spools.shut)
                self._spools.sweep(clock.time() - _ORPHAN_AGE)
                self._drafts = Drafts(
                    disk,
                    self._folder("uploads", private),
                    full=self._full,
                    link_by_name=self._spools.self_fds < 0,
                    failed=self._sync_failed,
                )
                undo.callback(self._drafts.shut)
                shards = Directories(disk, self._folder("blobs", private), monotonic=clock.monotonic, capacity=256)
                self._blobs = Blobs(disk, shards, self._spools, max_size=dedup_max_size)
                undo.callback(self._blobs.close)
                self._deleting = Exclusion(disk, "deleting", private)
                undo.callback(self._deleting.close)
                self.metadata = MetadataTable(disk, os.fspath(root / PRIVATE / "state.db"), full=self._full)
                undo.callback(self.metadata.close)
                if self._full:
                    disk.fsync(private)
                    disk.fsync(root_fd)
                self._remember_durability()
                disk.close(private)
                undo.pop_all()
            except OSError as error:
                raise storage_error(error) from error
        self._space = Space(
            disk,
            root_fd,
            reserve=min_free_bytes,
            counters=SharedCounters() if counters is None else counters,
            slot=slot,
            monotonic=clock.monotonic,
        )
        self._pool = LocalSpacePool(self._space, self.admit)
        self._removal = Removal(
            disk,
            self._directories,
            self.metadata,
            self._blobs,
            self._deleting,
            sync=self._sync_directory if self._full else None,
            forget=lambda path: self._entries.pop(path, None) and None,
            log=log,
        )
        self._expiry = Expiry(
            disk,
            self._directories,
            self.metadata,
            self._blobs,
            self._removal,
            file_ttl=file_ttl,
            monotonic=clock.monotonic,
            log=log,
        )
        self._committer = Committer(
            disk,
            self.metadata,
            Steps(
                place=self._place_or_none,
                row=self._row,
                settle=self._settle,
                entry=_created,
                failed=self._sync_failed,
            ),
            full=self._full,
            submit=submit,
            log=log,
        )

    def configure(self, *, min_free_bytes: int, file_ttl: float | None, dedup: bool, dedup_max_size: int) -> None:
        """Take new settings (a reload); uploads under way keep what they began with."""
        self._space.reserve = min_free_bytes
        self._expiry.ttl = file_ttl
        self._spools.hash_limit = self._blobs.max_size = dedup_max_size
        self._spools.hashing = self._dedup = dedup

    def _open_root(self, root: Path) -> int:
        """Open the root, made with what is above it when missing; new entries are on the medium then."""
        disk = self._disk
        missing = []
        place = root.absolute()
        while not place.exists():
            missing.append(place)
            place = place.parent
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                disk.mkdir(os.fspath(folder), 0o750)
            above = disk.open(os.fspath(folder.parent), _FOLDER)
            try:
                disk.fsync(above)
            finally:
                disk.close(above)
        return disk.open(os.fspath(root), _FOLDER)

    def _remember_durability(self) -> None:
        """After a time of relaxed durability, sync everything once: from now on a row means durable."""
        if not self._full:
            if self.metadata.fact("unsynced") != "yes":
                self.metadata.set_fact("unsynced", "yes")
        elif self.metadata.fact("unsynced") == "yes":
            self._disk.sync()
            self.metadata.set_fact("unsynced", "no")

    def _folder(self, name: str, dir_fd: int) -> int:
        with contextlib.suppress(FileExistsError):
            self._disk.mkdir(name, 0o700, dir_fd=dir_fd)
        return self._disk.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)

    # -- reading

    def open(self, path: StoragePath) -> LocalReader | None:
        """The file at `path`, None when there is none. Raises StorageBusy, StorageFailed."""
        opened = self._open(path)
        return None if opened is None else LocalReader(self._disk, *opened)

    def load(self, path: StoragePath, limit: int) -> tuple[Entry, bytes] | LocalReader | None:
        """A file of up to `limit` bytes with its content, a larger one opened. Raises as `open` does."""
        opened = self._open(path)
        if opened is None:
            return None
        fd, entry = opened
        disk = self._disk
        if entry.size > limit:
            return LocalReader(disk, fd, entry)
        try:
            content = disk.pread(fd, entry.size, 0)
        except OSError as error:
            raise storage_error(error) from error
        finally:
            disk.close(fd)
        if len(content) != entry.size:
            raise StorageFailed("the file is shorter than its metadata says")
        return entry, content

    def _open(self, path: StoragePath) -> tuple[int, Entry] | None:
        head, _, name = path.rpartition("/")
        disk = self._disk
        try:
            while True:
                directory = self._directories.find(head)
                if directory is None:
                    return None
                try:
                    fd = disk.open(name, _READ, dir_fd=directory.fd)
                    break
                except FileNotFoundError:
                    if not self._directories.is_gone(directory):
                        raise
                    self._directories.forget(directory)
        except OSError as error:
            self._entries.pop(path, None)
            if error.errno in _ABSENT:
                return None
            raise storage_error(error) from error
        try:
            found = disk.fstat(fd)
            known = self._entries.get(path)
            if known is not None and known[1] == found.st_ctime_ns and known[0] == found.st_ino:
                try:  # noqa: SIM105 - contextlib.suppress would cost as much as the look-up
                    self._entries.move_to_end(path)
                except KeyError:
                    pass
                return fd, known[2]
            if not is_regular(found.st_mode):
                disk.close(fd)
                return None
            return fd, self._entry(path, found)
        except BaseException as error:
            disk.close(fd)
            if isinstance(error, OSError):
                raise storage_error(error) from error
            raise

    def head(self, path: StoragePath) -> Entry | None:
        """The entry of the file at `path`, None when there is none. Raises StorageBusy, StorageFailed."""
        reader = self.open(path)
        if reader is None:
            return None
        reader.close()
        return reader.entry

    def _entry(self, path: StoragePath, found: os.stat_result) -> Entry:
        row = self.metadata.get(path)
        known = row is not None and row.size == found.st_size
        entry = entry_of(row) if row is not None and known else found_entry(path, found)
        now = self._time()
        if row is not None or now - found.st_ctime > _FRESH:
            self._entries[path] = (found.st_ino, found.st_ctime_ns, entry)
            if len(self._entries) > _CACHED_ENTRIES:
                with contextlib.suppress(KeyError):
                    self._entries.popitem(last=False)
        return entry

    # -- writing

    def admit(self, size: int) -> Admitted:
        """Promise space for `size` bytes. Raises StorageFull, StorageReadOnly, StorageFailed."""
        if self._read_only:
            raise StorageReadOnly("the storage failed to sync more than once; it is read only until a restart")
        return self._space.admit(size)

    def spool(self, size: int | None = None, reservation: Reservation | None = None) -> LocalSpool:
        """Begin a file. Raises StorageError."""
        return self._spools.new(size, reservation)

    def compare(self, path: StoragePath) -> LocalComparison | None:
        """Begin to hold a body against the file at `path`; None when there is none. Raises StorageError."""
        reader = self.open(path)
        return None if reader is None else LocalComparison(reader, self._ensure_durable)

    def publish(self, spool: Spool, path: StoragePath, meta: Metadata) -> Published:
        """Publish and wait for it. Raises StorageError, PathRefused."""
        if not isinstance(spool, LocalSpool):
            raise TypeError("the spool is of another store")
        if self._full:
            return self._publish_and_wait(spool, path, meta)
        try:
            if self.metadata.stuck:
                raise StorageFailed("the metadata database has not taken rows for long")
            directory = self._place_or_none(spool, path)
            if directory is None:
                return self._settle(spool, path, meta)
            row = self._row(spool, path, meta)
        finally:
            spool.end()
        if self.metadata.put_later(row) == 1:
            self._committer.flush_soon()
        return _created(row)

    def put(self, path: StoragePath, body: Buffer, meta: Metadata) -> Published:
        """Admit, spool and publish a short body in one call. Raises StorageError, PathRefused."""
        if self._read_only:
            raise StorageReadOnly("the storage failed to sync more than once; it is read only until a restart")
        self._space.check(len(body))
        spool = self._spools.new(len(body), None)
        try:
            spool.write(body)
        except BaseException:
            spool.discard()
            raise
        return self.publish(spool, path, meta)

    def _publish_and_wait(self, spool: LocalSpool, path: StoragePath, meta: Metadata) -> Published:
        results: list[Published | StorageError | PathRefused] = []
        ready = threading.Event()

        def done(result: Published | StorageError | PathRefused) -> None:
            results.append(result)
            ready.set()

        self._committer.begin_here(Job(spool, path, meta, done))
        ready.wait()
        result = results.pop()
        if isinstance(result, Published):
            return result
        try:
            raise result
        finally:
            del result  # no cycle of error and frame, which would keep descriptors for the collector

    def publish_soon(
        self, spool: Spool, path: StoragePath, meta: Metadata, done: Done, placed: Placed | None = None
    ) -> None:
        """Publish; `done` gets the result on another thread. See the contract."""
        if not isinstance(spool, LocalSpool):
            raise TypeError("the spool is of another store")
        self._committer.begin(Job(spool, path, meta, done, placed=placed))

    def _place_or_none(self, spool: Source, path: StoragePath) -> Directory | None:
        """Link the spool at `path`: its directory then, None when the path is taken."""
        try:
            if not self._dedup:  # the common case without a detour
                head, _, name = path.rpartition("/")
                directory = self._directories.make(head)
                try:
                    self._spools.link(spool, name, directory.fd)
                    return directory
                except FileNotFoundError:
                    pass  # the directory was pruned this moment
            return self._place(spool, path)
        except (FileExistsError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise PathRefused("path_segment_too_long", "a segment is too long for the file system") from error
            raise storage_error(error) from error

    def _place(self, spool: Source, path: StoragePath) -> Directory:
        head, _, name = path.rpartition("/")
        directories = self._directories
        blob = self._blobs.name(spool) if self._dedup else None
        for _ in range(_ATTEMPTS):
            directory = directories.make(head)
            try:
                if blob is not None and self._blobs.link(blob, spool.size, name, directory):
                    return directory
                self._spools.link(spool, name, directory.fd)
            except FileNotFoundError:
                if not directories.is_gone(directory):
                    raise
                directories.forget(directory)
                continue
            if blob is not None:
                self._blobs.keep(blob, spool)
            return directory
        raise FileNotFoundError(errno.ENOENT, "the directory keeps vanishing")

    def _row(self, spool: Source, path: StoragePath, meta: Metadata) -> Row:
        media_type = meta.media_type
        return Row(
            path,
            media_types.by_name(path) if media_type is None else media_type,
            meta.filename,
            meta.owner,
            spool.size,
            spool.digest,
            self._time(),
            meta.expires,
            meta.ticket,
        )

    def _settle(self, spool: Source, path: StoragePath, meta: Metadata) -> Published:
        """The path is taken: say whether by the same bytes. Raises StorageError, PathRefused."""
        for _ in range(_ATTEMPTS):
            reader = self.open(path)
            if reader is None:
                # Something that is no file, or a file that has gone since.
                directory = self._place_or_none(spool, path)
                if directory is None:
                    if self._obstructed(path):
                        return Published(Outcome.CONFLICT, None)
                    continue
                row = self._row(spool, path, meta)
                if self._full:
                    self._sync_directory(directory)
                    self.metadata.put([row])
                else:
                    self.metadata.put_later(row)
                    self._committer.flush_soon()
                return _created(row)
            try:
                if not self._same(spool, reader):
                    return Published(Outcome.CONFLICT, reader.entry)
                row = self._row(spool, path, meta)
                # The row that was lost, or never written: the file is as old as it is.
                self._ensure_durable(reader, structs.replace(row, created=reader.entry.created))
                return Published(Outcome.SAME, self.head(path) or reader.entry)
            finally:
                reader.close()
        raise StorageBusy("the path keeps changing")

    def _obstructed(self, path: StoragePath) -> bool:
        """Whether something that is no readable file stands at `path` or above."""
        head, _, name = path.rpartition("/")
        directory = self._directories.find(head)
        if directory is None:
            return True
        try:
            found = self._disk.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except OSError:
            return False
        return not is_regular(found.st_mode) or self.open(StoragePath(path)) is None

    def _same(self, spool: Source, reader: LocalReader) -> bool:
        entry = reader.entry
        if entry.size != spool.size:
            return False
        if entry.digest is not None and entry.digest == spool.digest:
            return True
        if isinstance(spool, DraftSource) and self._same_file(spool, reader):
            return True
        disk = self._disk
        offset = 0
        try:
            while offset < entry.size:
                ours = disk.pread(spool.fd, _COMPARE, offset)
                if not ours or ours != reader.read(offset, len(ours)):
                    return False
                offset += len(ours)
        except OSError as error:
            raise storage_error(error) from error
        return True

    def _same_file(self, spool: DraftSource, reader: LocalReader) -> bool:
        """Whether the draft itself is what was published: a publish repeated after a crash."""
        fd = reader.fileno()
        try:
            return fd is not None and os.path.samestat(self._disk.fstat(spool.fd), self._disk.fstat(fd))
        except OSError as error:
            raise storage_error(error) from error

    def _ensure_durable(self, reader: LocalReader, row: Row | None = None) -> None:
        """In full durability: see to it that a file about to be acknowledged again is on the medium.

        A row in the database was written after all syncs. Without one the file is from before us, or was
        published a moment ago by someone whose syncs are under way, or who died before the row.
        """
        path = reader.entry.path
        fd = reader.fileno()
        if not self._full:
            if row is not None and self.metadata.get(path) is None:
                self.metadata.put_later(row)
                self._committer.flush_soon()
                self._entries.pop(path, None)
            return
        if fd is None or self.metadata.committed(path) is not None:
            return
        try:
            self._disk.fsync(fd)
            directory = self._directories.find(path.rpartition("/")[0])
        except OSError as error:
            raise self._sync_failed("data", error) from error
        if directory is None:
            raise StorageFailed("the file has gone")
        self._sync_directory(directory)
        if row is not None:
            self.metadata.put([row], heal=True)
            self._entries.pop(path, None)

    def _sync_directory(self, directory: Directory) -> None:
        failures = sync_all(self._disk, to_sync(directory))
        for failure in failures.values():
            raise self._sync_failed("directory", failure)
        for each in directory.lineage():
            each.durable = True

    def _sync_failed(self, what: str, error: BaseException) -> StorageError:
        """Note a failed sync: after the second within ten minutes nothing more is admitted."""
        now = self._clock.monotonic()
        self._bad_syncs = [t for t in self._bad_syncs if now - t < _BAD_SYNC_WINDOW] + [now]
        if len(self._bad_syncs) >= _BAD_SYNCS and not self._read_only:
            self._read_only = True
            self._log("storage_read_only", syncs_failed=len(self._bad_syncs))
        self._log("sync_failed", what=what, error=repr(error))
        return storage_error(error) if isinstance(error, OSError) else StorageFailed("a sync failed")

    @property
    def read_only(self) -> bool:
        """Whether syncs failed so often that uploads are refused until a restart."""
        return self._read_only

    # -- uploads in pieces

    def draft(self, name: str, *, create: bool) -> LocalDraft | None:
        """Open and hold a draft; None when it is missing. Raises DraftHeld, StorageError, ValueError."""
        return self._drafts.open(name, create=create)

    def drafts(self, older_than: float) -> list[str]:
        """Names of drafts last written before `older_than` (epoch s) that nobody holds. Raises StorageError."""
        return self._drafts.idle(older_than)

    def drop_draft(self, name: str) -> bool:
        """Remove a draft that nobody holds; False when it is held or missing. Raises StorageError, ValueError."""
        return self._drafts.drop(name)

    def copy_draft(self, name: str, into: Draft, offset: int, length: int) -> None:
        """Put the first `length` bytes of a draft into another at `offset`. Blocks. Raises StorageError, ValueError."""
        if not isinstance(into, LocalDraft):
            raise TypeError("the draft is of another store")
        self._drafts.copy(name, into, offset, length)

    def publish_draft_soon(
        self, draft: Draft, path: StoragePath, meta: Metadata, size: int, digest: str | None, done: Done
    ) -> None:
        """Publish a draft that stays open; `done` gets the result on another thread, or here when it is closed."""
        if not isinstance(draft, LocalDraft):
            raise TypeError("the draft is of another store")
        try:
            source = draft.source(size, digest)
        except StorageFailed as error:
            done(error)
            return
        self._committer.begin(Job(source, path, meta, done, source.prepare))

    def new_hasher(self, size: int) -> Hasher | None:
        """A fresh hasher when files of `size` bytes are hashed, else None."""
        spools = self._spools
        return spools.new_hasher() if spools.hashing and size <= spools.hash_limit else None

    def digest_text(self, hasher: Hasher) -> str:
        """The digest so far, "blake3:<hex>" or "sha256:<hex>"."""
        return f"{self._spools.hash_name}:{hasher.hexdigest()}"

    def pool(self) -> LocalSpacePool:
        """The one pool of this process."""
        return self._pool

    # -- deleting

    def delete(self, path: StoragePath, reason: str) -> bool:
        """Remove the file durably and log why; False when there was none. Raises StorageError."""
        return bool(self._removal.remove([path], lambda _row, _found: reason, "file_deleted"))

    def expire(self, now: float) -> list[Deletion]:
        """Remove files that have outlived their time; blocks. `now` is in epoch seconds."""
        return self._expiry.run(now)

    # -- tickets

    def take_ticket(self, ticket_id: str, max_files: int, expires: float) -> bool:
        """Count one more use; False when `max_files` were taken before. Raises StorageError."""
        return self.metadata.take_ticket(ticket_id, max_files, expires)

    def give_back_ticket(self, ticket_id: str) -> None:
        """Undo one `take_ticket` of an upload that failed. Raises StorageError."""
        self.metadata.give_back_ticket(ticket_id)

    def close(self) -> None:
        """Finish what is queued, write what waits, close everything. Idempotent. Raises StorageError for lost rows."""
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as rest:  # all of them, whatever fails
            rest.callback(self._blobs.close)
            rest.callback(self._directories.close)
            rest.callback(self._deleting.close)
            rest.callback(self._drafts.shut)
            rest.callback(self._spools.shut)
            rest.callback(self.metadata.close)
            self._committer.close()


def entry_of(row: Row) -> Entry:
    """The entry of a file that has a row. Nothing in it comes from the inode, which twins share."""
    created = row.created
    return Entry(
        StoragePath(row.path),
        row.size,
        row.media_type,
        row.filename if row.filename is not None else row.path.rpartition("/")[2],
        f'"{int(created * 1e6):x}-{row.size:x}"',
        created,
        int(created),
        row.digest,
        row.owner,
        row.expires,
    )


def found_entry(path: StoragePath, found: os.stat_result) -> Entry:
    """The entry of a file that was there before us."""
    return Entry(
        path,
        found.st_size,
        media_types.by_name(path),
        path.rpartition("/")[2],
        f'"{found.st_mtime_ns:x}-{found.st_size:x}"',
        found.st_mtime_ns / 1e9,
        found.st_mtime_ns // 1_000_000_000,
    )


def _created(row: Row) -> Published:
    return Published(Outcome.CREATED, entry_of(row))
