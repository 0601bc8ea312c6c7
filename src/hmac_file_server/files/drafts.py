"""Drafts: the files that uploads grow in, piece by piece, over many connections and restarts.

`uploads/<name>` is sparse; its bytes are written at their final offsets, by several threads at once. Whoever
has it open holds a lock on it (flock), so that of all processes of all servers that share the folder only
one writes; the kernel frees the lock with its holder.

A sync counts for everybody whose bytes were written before it began, and for nobody when it failed: the
kernel reports an error to one of those who ask at the same time, and calls the lost pages clean afterwards.
So the syncs of one draft go one after the other, and the first that fails is the last.

Bytes whose sync failed are taken out of the file, with the room that they had. Written again in that same room they
may never reach the medium, although their next sync says so: ext4 lays new bytes into room marked as unwritten, takes
the mark away when they have arrived, and after a failure never again (seen with Linux 6.18).
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterable
from typing import Final

from hmac_file_server.files.contract import Buffer, DraftHeld, StorageBusy, StorageError, StorageFailed
from hmac_file_server.files.directories import is_regular
from hmac_file_server.files.disk import Disk, storage_error
from hmac_file_server.files.spool import FILE_MODE

_NAME: Final = re.compile(r"[0-9a-z_-]{1,80}")
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_COPY: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})
_PIECE: Final = 1 << 20
_HELD: Final = frozenset({errno.EAGAIN, errno.EACCES})
_ATTEMPTS: Final = 32


def is_draft_name(name: str) -> bool:
    """Whether a draft may have that name."""
    return _NAME.fullmatch(name) is not None


class LocalDraft:
    """One draft, open and held. See `contract.Draft`."""

    __slots__ = (
        "_changes",
        "_fd",
        "_frozen",
        "_lock",
        "_open",
        "_owner",
        "_poisoned",
        "_synced",
        "_syncing",
        "_ticket",
        "_unsynced",
        "_users",
        "name",
    )

    def __init__(self, owner: "Drafts", fd: int, name: str, ticket: int) -> None:
        self._owner = owner
        self._fd = fd
        self._ticket = ticket
        self._lock = threading.Lock()
        self._open = True
        self._users = 1
        """Calls and publishes under way, and the draft itself until it is closed: the last closes the file."""
        self._syncing = threading.Lock()
        self._changes = 1
        """Writes that have ended, and one for what an earlier process may have left unsynced."""
        self._synced = 0
        self._poisoned = False
        self._unsynced: dict[int, int] = {}
        """Spans, start by stop, that no sync has covered which began after they were written; in full durability."""
        self._frozen = False
        """Given to be published: from here on its bytes may be those of a file that people read."""
        self.name = name

    def write_at(self, view: Buffer, offset: int) -> None:
        """Write all of `view` at `offset`. Raises StorageFull, StorageFailed, StorageBusy."""
        fd = self._take()
        stop = offset
        try:
            if self._poisoned:
                raise StorageFailed("an earlier sync of the upload failed")
            if self._frozen:
                raise StorageFailed("the upload is being published, or was")
            stop = offset + len(view)
            written = self._owner.pwrite(fd, view, offset)
            if written != len(view):
                self._rest(fd, memoryview(view), offset, written)
        except OSError as error:
            raise storage_error(error) from error
        finally:
            self._written(fd, offset, stop)

    def _rest(self, fd: int, view: memoryview, offset: int, written: int) -> None:
        """A short write is no error: go on until all is written or the disk says why not."""
        while True:
            if written <= 0:
                raise OSError(errno.EIO, "the disk takes no bytes")
            view = view[written:]
            offset += written
            if not view:
                return
            written = self._owner.pwrite(fd, view, offset)

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end. Raises StorageFailed."""
        fd = self._take()
        try:
            piece = self._owner.pread(fd, length, offset)
            if len(piece) == length:
                return piece
            pieces = [piece]
            while piece and length > len(piece):
                offset += len(piece)
                length -= len(piece)
                piece = self._owner.pread(fd, length, offset)
                pieces.append(piece)
            return b"".join(pieces)
        except OSError as error:
            raise storage_error(error) from error
        finally:
            self._give_back()

    def copy_from(self, source: int, offset: int, length: int) -> None:
        """Put the first `length` bytes of the descriptor `source` at `offset`: shared where the file system can.

        Raises StorageFull, StorageFailed, StorageBusy.
        """
        fd = self._take()
        owner = self._owner
        position = 0
        stop = offset
        try:
            if self._poisoned or self._frozen:
                raise StorageFailed("the upload takes no more bytes")
            stop = offset + length
            while position < length:
                left = length - position
                try:
                    moved = owner.copy_file_range(source, fd, left, position, offset + position)
                except OSError as error:
                    if error.errno not in _NO_COPY:
                        raise
                    piece = owner.pread(source, min(left, _PIECE), position)
                    moved = owner.pwrite(fd, piece, offset + position) if piece else 0
                if moved <= 0:
                    raise StorageFailed("a part is shorter than its upload")
                position += moved
        except OSError as error:
            raise storage_error(error) from error
        finally:
            self._written(fd, offset, stop)

    def _written(self, fd: int, start: int, stop: int) -> None:
        """A write has ended, well or not, and its use of `fd`; of nothing if it was refused."""
        if self._owner.full and stop > start:
            with self._lock:
                begin = self._unsynced.pop(start, start)
                self._unsynced[stop] = min(begin, self._unsynced.get(stop, begin))
                late = self._poisoned
            if late:
                self._take_out(fd)
        self._give_back(changes=1)

    def _take_out(self, fd: int) -> None:
        """Take the bytes out of the file that no sync has covered: the last one failed. Never raises."""
        with self._lock:
            spans, self._unsynced = self._unsynced, {}
        for start, stop in merged((start, stop) for stop, start in spans.items()):
            self._owner.take_out(fd, self.name, start, stop)

    def sync(self) -> None:
        """Make what was written before the call durable, and the name. Blocks. Raises StorageError."""
        fd = self._take()
        try:
            if self._owner.full:
                self.sync_data(fd)
                self._sync_name()
        finally:
            self._give_back()

    def sync_data(self, fd: int) -> None:
        """Sync the bytes, unless another's sync has covered them meanwhile; the caller has a use of `fd`."""
        wanted = self._changes
        with self._syncing:
            if self._poisoned:
                raise StorageFailed("an earlier sync of the upload failed")
            if self._synced >= wanted:
                return
            with self._lock:
                begun = self._changes
                covered, self._unsynced = self._unsynced, {}
            try:
                self._owner.fdatasync(fd)
            except BaseException as error:
                with self._lock:
                    self._poisoned = True
                    for stop, begin in covered.items():
                        self._unsynced[stop] = min(begin, self._unsynced.get(stop, begin))
                self._take_out(fd)
                raise self._owner.failed("data", error) from error
            self._synced = begun

    def _sync_name(self) -> None:
        try:
            self._owner.sync_name(self._ticket)
        except StorageError:
            self._poisoned = True
            raise

    def shorten(self, fd: int, size: int) -> None:
        """Drop what lies behind `size`; the caller has a use of `fd`. Raises StorageError."""
        try:
            self._owner.ftruncate(fd, size)
        except OSError as error:
            raise storage_error(error) from error
        with self._lock:
            self._changes += 1

    def source(self, size: int, digest: str | None) -> "DraftSource":
        """The draft for the committer. Raises StorageFailed when it is closed."""
        source = DraftSource(self, self._take(), size, digest)
        self._frozen = True
        return source

    def close(self) -> None:
        """Let go; the file stays. Idempotent."""
        if self._end():
            self._give_back()

    def discard(self) -> None:
        """Remove the file and let go. Idempotent; nothing once it is closed, as another may hold it by then."""
        if self._end():
            try:
                self._owner.remove(self.name)  # under the lock still, which the last user gives up
            finally:
                self._give_back()

    def _end(self) -> bool:
        """Take no more calls; False when that was so already."""
        with self._lock:
            was_open, self._open = self._open, False
        return was_open

    def _take(self) -> int:
        """The descriptor, good until `_give_back`."""
        with self._lock:
            if not self._open:
                raise StorageFailed("the draft is closed")
            self._users += 1
        return self._fd

    def _give_back(self, changes: int = 0) -> None:
        with self._lock:
            self._changes += changes
            self._users -= 1
            last = self._users == 0
        if last:
            fd, self._fd = self._fd, -1
            self._owner.let_go(fd, self._ticket)

    def __del__(self) -> None:
        if self._open:
            self.close()


class DraftSource:
    """A draft as the committer sees it, in the place of a spool. Ending it leaves the draft as it is."""

    __slots__ = ("_draft", "digest", "fd", "folder_fd", "name", "size")

    def __init__(self, draft: LocalDraft, fd: int, size: int, digest: str | None) -> None:
        self._draft: LocalDraft | None = draft
        self.fd = fd
        self.name = draft.name if draft._owner.link_by_name else None
        self.folder_fd = draft._owner.folder_fd
        self.size = size
        self.digest = digest

    def prepare(self) -> None:
        """Have the bytes on the medium, all of them. Raises StorageError."""
        draft = self._draft
        if draft is None:
            raise StorageFailed("the publish has ended")
        try:
            size = draft._owner.fstat(self.fd).st_size
        except OSError as error:
            raise storage_error(error) from error
        if size > self.size:
            # Bytes that were never acknowledged, of an upload that turned out to be shorter.
            draft.shorten(self.fd, self.size)
        elif size < self.size:
            raise StorageFailed("the draft has not the size of the upload")
        if draft._owner.full:
            draft.sync_data(self.fd)

    def end(self) -> None:
        """The publish is over. Idempotent."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft._give_back()


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes as sorted spans that do not touch each other."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


class Drafts:
    """Opens and finds drafts in the folder of uploads."""

    def __init__(
        self,
        disk: Disk,
        folder_fd: int,
        *,
        full: bool,
        link_by_name: bool,
        failed: Callable[[str, BaseException], StorageError],
    ) -> None:
        """Take over `folder_fd`. `failed` notes a failed sync and says what to raise."""
        self._disk = disk
        self.folder_fd = folder_fd
        self.full = full
        self.link_by_name = link_by_name
        """Whether a link is made from the draft's name, for want of one to its descriptor."""
        self.failed = failed
        self.pwrite = disk.pwrite
        self.pread = disk.pread
        self.ftruncate = disk.ftruncate
        self.copy_file_range = disk.copy_file_range
        self.fdatasync = disk.fdatasync
        self.fstat = disk.fstat
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._tickets = itertools.count()
        self._unsettled: dict[int, str] = {}
        """Names that no sync of the folder has covered since they were opened: an earlier holder may have
        died before its own."""
        self._lost: set[str] = set()
        """Names whose sync failed. The next one would say that all is well."""
        self._spoiled: set[str] = set()
        """Names of drafts out of which bytes could not be taken whose sync failed."""

    def open(self, name: str, *, create: bool) -> LocalDraft | None:
        """Open and hold a draft; None when it is missing. Raises DraftHeld, StorageError, ValueError."""
        if not is_draft_name(name):
            raise ValueError("that is no name of a draft")
        if name in self._spoiled:
            raise StorageFailed("an earlier sync of the upload failed")
        try:
            fd = self._hold(name, _OPEN | os.O_CREAT if create else _OPEN)
        except FileNotFoundError as error:
            if create:
                raise storage_error(error) from error
            return None
        except OSError as error:
            raise storage_error(error) from error
        with self._lock:
            ticket = next(self._tickets)
            if self.full:
                self._unsettled[ticket] = name
        return LocalDraft(self, fd, name, ticket)

    def take_out(self, fd: int, name: str, start: int, stop: int) -> None:
        """Take bytes out of a draft, with all blocks that hold nothing else. Never raises; see `open` if it fails."""
        disk = self._disk
        try:
            block = disk.fstat(fd).st_blksize
            low = start - start % block
            high = stop + -stop % block
            # What there is of the outer blocks is not ours, unless there is nothing.
            if any(disk.pread(fd, start - low, low)):
                low = start
            if any(disk.pread(fd, high - stop, stop)):
                high = stop
            disk.punch(fd, low, high - low)
        except OSError:
            self._spoiled.add(name)

    def idle(self, older_than: float) -> list[str]:
        """Names of drafts last written before `older_than` (epoch seconds) that nobody holds. Raises StorageError."""
        found = []
        try:
            names = self._disk.listdir(self.folder_fd)
        except OSError as error:
            raise storage_error(error) from error
        for name in filter(is_draft_name, names):
            try:
                there = self._disk.stat(name, dir_fd=self.folder_fd, follow_symlinks=False)
                if is_regular(there.st_mode) and there.st_mtime < older_than:
                    self._disk.close(self._hold(name, _LOOK))
                    found.append(name)
            except (OSError, StorageError):
                continue  # held, or gone by now
        return found

    def copy(self, name: str, into: LocalDraft, offset: int, length: int) -> None:
        """Put the first `length` bytes of a draft, held or not, into another. Raises StorageError, ValueError."""
        if not is_draft_name(name):
            raise ValueError("that is no name of a draft")
        try:
            source = self._disk.open(name, _LOOK, dir_fd=self.folder_fd)
        except OSError as error:
            raise storage_error(error) from error
        try:
            into.copy_from(source, offset, length)
        finally:
            self._disk.close(source)

    def drop(self, name: str) -> bool:
        """Remove a draft that nobody holds; False when it is held or missing. Raises StorageError, ValueError."""
        if not is_draft_name(name):
            raise ValueError("that is no name of a draft")
        try:
            fd = self._hold(name, _LOOK)
            try:
                self._disk.unlink(name, dir_fd=self.folder_fd)
            finally:
                self._disk.close(fd)
        except (FileNotFoundError, DraftHeld):
            return False
        except OSError as error:
            raise storage_error(error) from error
        return True

    def _hold(self, name: str, flags: int) -> int:
        """Open and lock the file that has that name. Raises OSError, DraftHeld, StorageError."""
        disk = self._disk
        for _ in range(_ATTEMPTS):
            fd = disk.open(name, flags, FILE_MODE, dir_fd=self.folder_fd)
            try:
                found = disk.fstat(fd)
                if not is_regular(found.st_mode):
                    raise StorageFailed("something that is no file has the name of a draft")
                try:
                    disk.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in _HELD:
                        raise DraftHeld("another connection or server is at work on the upload") from error
                    raise
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(disk.stat(name, dir_fd=self.folder_fd, follow_symlinks=False), found):
                        return fd
            except BaseException:
                disk.close(fd)
                raise
            disk.close(fd)  # its last holder removed it between our open and our lock
        raise StorageBusy("the draft keeps changing")

    def sync_name(self, ticket: int) -> None:
        """Make the name of an open draft durable, with those of all others. Raises StorageError."""
        if ticket not in self._unsettled:
            return
        with self._settling:
            with self._lock:
                covered = dict(self._unsettled)
            if ticket not in covered:
                return
            if covered[ticket] in self._lost:
                raise StorageFailed("an earlier sync of the folder failed")
            try:
                self._disk.fsync(self.folder_fd)
            except BaseException as error:
                self._lost.update(covered.values())
                raise self.failed("directory", error) from error
            with self._lock:
                for each, name in covered.items():
                    if name not in self._lost:
                        self._unsettled.pop(each, None)

    def remove(self, name: str) -> None:
        """Remove a draft whose holder asks for it."""
        with contextlib.suppress(OSError):  # gone already, or the disk is failing: the next sweep has it
            self._disk.unlink(name, dir_fd=self.folder_fd)

    def let_go(self, fd: int, ticket: int) -> None:
        """Close an open draft and unlock it, also where a child of this process has the descriptor as well."""
        with self._lock:
            self._unsettled.pop(ticket, None)
        try:
            with contextlib.suppress(OSError):
                self._disk.flock(fd, fcntl.LOCK_UN)
        finally:
            self._disk.close(fd)

    def shut(self) -> None:
        """Close the folder; drafts that are open can be written and closed, no more."""
        fd, self.folder_fd = self.folder_fd, -1
        if fd >= 0:
            self._disk.close(fd)
