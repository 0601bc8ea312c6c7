"""A disk in memory that remembers what a sync covers, and forgets any part of the rest when the power is cut.

It promises what POSIX promises and nothing more: bytes of a file are safe once the file was synced after they were
written, an entry of a folder once the folder was. Everything else may be there after a cut or not, write by write,
halves of writes too. A process that is killed loses its descriptors and locks only.

`Medium` is what all processes share, `ProcessDisk` is the disk seam (`files.disk.Disk`) of one of them.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import sqlite3
import stat
from collections.abc import Callable, Iterator
from typing import Any

from hmac_file_server.files.paths import PRIVATE

ROOT = "/"
_BLOCK = 8
_PROC = "/proc/self/fd"


class Crash(BaseException):
    """The process is gone: none of its calls returns any more."""


class Write:
    """Bytes on their way to the medium; `piece` None: the file was made `offset` bytes long."""

    __slots__ = ("doubtful", "offset", "piece")

    def __init__(self, offset: int, piece: bytes | None) -> None:
        self.offset = offset
        self.piece = piece
        # A sync that should have covered it failed: no later one does.
        self.doubtful = False

    def torn(self, chance: random.Random) -> Write:
        """One half of it."""
        piece = self.piece or b""
        half = len(piece) // 2
        return Write(self.offset, piece[:half]) if chance.random() < 0.5 else Write(self.offset + half, piece[half:])

    def outside(self, other: Write) -> Iterator[Write]:
        """What a later write leaves of it."""
        if self.piece is None or other.piece is None:
            yield self
            return
        start, stop = self.offset, self.offset + len(self.piece)
        for first, last in ((start, min(stop, other.offset)), (max(start, other.offset + len(other.piece)), stop)):
            if first < last:
                rest = Write(first, self.piece[first - start : last - start])
                rest.doubtful = True
                yield rest


class Node:
    """One inode: a file with its bytes, or a folder with its entries."""

    __slots__ = (
        "base",
        "changed",
        "changes",
        "entries",
        "folder",
        "holders",
        "links",
        "live",
        "log",
        "number",
        "path",
        "safe_entries",
        "unnamed",
        "version",
        "written",
    )

    def __init__(self, number: int, *, folder: bool, path: str = "", unnamed: bool = False, now: float = 0.0) -> None:
        self.number = number
        self.folder = folder
        self.path = path
        self.unnamed = unnamed
        self.live = bytearray()
        self.base = bytearray()
        self.log: list[Write] = []
        self.entries: dict[str, Node] = {}
        self.safe_entries: dict[str, Node] = {}
        self.changes: list[tuple[str, Node | None]] = []
        self.links = 0
        self.holders: dict[Handle, bool] = {}
        self.written = self.changed = now
        # Grows with everything that may change what a cut leaves.
        self.version = 0

    def write(self, piece: bytes, offset: int) -> None:
        place(self.live, piece, offset)
        self.log.append(Write(offset, piece))
        self.version += 1

    def truncate(self, size: int) -> None:
        resize(self.live, size)
        self.log.append(Write(size, None))
        self.version += 1

    def sync(self) -> None:
        """Everything before is safe, but for what an earlier sync failed on."""
        self.version += 1
        if self.folder:
            self.safe_entries = dict(self.entries)
            self.changes.clear()
            return
        left: list[Write] = []
        for write in self.log:
            if write.doubtful:
                left.append(write)
            else:
                apply(self.base, write)
                # What lay there before and never arrived, or did, is no more.
                left = [rest for doubtful in left for rest in doubtful.outside(write)]
        self.log = left

    def doubt(self) -> None:
        """A sync failed: the pages are clean now, and nobody knows what of them arrived."""
        self.version += 1
        for write in self.log:
            write.doubtful = True

    def settled(self, start: int, stop: int) -> bytes | None:
        """The bytes of a span that are found after a cut whatever it loses; None when that is not certain."""
        if len(self.base) < stop:
            return None
        for write in self.log:
            if write.piece is None:
                if write.offset < stop:
                    return None
                continue
            first, last = max(start, write.offset), min(stop, write.offset + len(write.piece))
            if first < last and self.base[first:last] != write.piece[first - write.offset : last - write.offset]:
                return None
        return bytes(self.base[start:stop])

    def change(self, name: str, node: Node | None) -> None:
        before = self.entries.pop(name, None)
        if before is not None:
            before.links -= 1
        if node is not None:
            self.entries[name] = node
            node.links += 1
        self.changes.append((name, node))
        self.version += 1

    def safe(self, name: str) -> Node | None:
        """What has that name after a cut whatever it loses."""
        found = self.safe_entries.get(name)
        return None if any(changed == name and node is not found for changed, node in self.changes) else found


def place(there: bytearray, piece: bytes, offset: int) -> None:
    """What pwrite does: zeros up to `offset` where there is nothing."""
    if len(there) < offset:
        there += bytes(offset - len(there))
    there[offset : offset + len(piece)] = piece


def resize(there: bytearray, size: int) -> None:
    """What ftruncate does."""
    del there[size:]
    there += bytes(size - len(there))


def apply(there: bytearray, write: Write) -> None:
    """Let a write arrive."""
    if write.piece is None:
        resize(there, write.offset)
    else:
        place(there, write.piece, write.offset)


class Handle:
    """An open file description."""

    __slots__ = ("node", "position")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.position = 0


class Medium:
    """What survives processes, and partly power cuts. `published` is called with each new name in the public tree."""

    def __init__(self, now: Callable[[], float], name: str, capacity: int = 1 << 40) -> None:
        """`name` tells its databases from those of other media in this process."""
        self.now = now
        self.name = name
        self.capacity = capacity
        # A database in memory lives as long as somebody has it open.
        self._databases: dict[str, sqlite3.Connection] = {}
        self._numbers = itertools.count(1)
        self.root = self.node(folder=True)
        self.root.links = 1
        self.published: Callable[[str, Node], None] = lambda _path, _node: None

    def node(self, *, folder: bool, path: str = "", unnamed: bool = False) -> Node:
        return Node(next(self._numbers), folder=folder, path=path, unnamed=unnamed, now=self.now())

    def database(self, file: str) -> str:
        """Where the database of that name is."""
        address = f"file:/{self.name}-{os.path.basename(file)}?vfs=memdb"
        if address not in self._databases:
            self._databases[address] = sqlite3.connect(address, uri=True)
        return address

    def close(self) -> None:
        """Let go of the databases."""
        for connection in self._databases.values():
            connection.close()

    def find(self, path: str) -> Node | None:
        """What is at a path now."""
        node: Node | None = self.root
        for name in path.split("/"):
            node = None if node is None else node.entries.get(name)
        return node

    def safe(self, path: str) -> Node | None:
        """What is at a path after a cut whatever it loses."""
        node: Node | None = self.root
        for name in path.split("/"):
            node = None if node is None else node.safe(name)
        return node

    def draft(self, name: str) -> Node | None:
        return self.find(f"{PRIVATE}/uploads/{name}")

    def drafts(self) -> list[str]:
        folder = self.find(f"{PRIVATE}/uploads")
        return [] if folder is None else list(folder.entries)

    def files(self) -> Iterator[tuple[str, Node]]:
        """The public tree."""
        yield from self._below(self.root)

    def _below(self, folder: Node) -> Iterator[tuple[str, Node]]:
        for name, node in folder.entries.items():
            if node.folder and node.path != PRIVATE:
                yield from self._below(node)
            elif not node.folder:
                yield f"{folder.path}/{name}" if folder.path else name, node

    def used(self) -> int:
        seen = {node.number: len(node.live) for _, node in self.files()}
        return sum(seen.values())

    def power_cut(self, chance: random.Random) -> None:
        """Lose any part of what no sync covers."""
        seen: dict[int, Node] = {}
        self._cut(self.root, chance, seen)
        for node in seen.values():
            node.links = 0
        self.root.links = 1
        for node in seen.values():
            for entry in node.entries.values():
                entry.links += 1

    def _cut(self, node: Node, chance: random.Random, seen: dict[int, Node]) -> None:
        if node.number in seen:
            return
        seen[node.number] = node
        node.holders.clear()
        node.version += 1
        for write in node.log:
            if chance.random() < 0.5:
                apply(node.base, write.torn(chance) if write.piece and chance.random() < 0.2 else write)
        node.log.clear()
        node.live = bytearray(node.base)
        if node.folder:
            entries = dict(node.safe_entries)
            for name, changed in node.changes:
                if chance.random() < 0.5:
                    entries.pop(name, None)
                    if changed is not None:
                        entries[name] = changed
            node.changes.clear()
            node.entries, node.safe_entries = entries, dict(entries)
            for entry in entries.values():
                self._cut(entry, chance, seen)


class Found:
    """What stat tells."""

    __slots__ = (
        "st_blksize",
        "st_ctime",
        "st_ctime_ns",
        "st_dev",
        "st_ino",
        "st_mode",
        "st_mtime",
        "st_mtime_ns",
        "st_nlink",
        "st_size",
    )

    def __init__(self, node: Node) -> None:
        self.st_ino = node.number
        self.st_dev = 1
        self.st_blksize = _BLOCK
        self.st_mode = (stat.S_IFDIR | 0o750) if node.folder else (stat.S_IFREG | 0o640)
        self.st_nlink = node.links + (1 if node.folder and node.links else 0)
        self.st_size = len(node.live)
        self.st_mtime = node.written
        self.st_ctime = node.changed
        self.st_mtime_ns = int(node.written * 1e9)
        self.st_ctime_ns = int(node.changed * 1e9)


class Volume:
    """What statvfs tells."""

    __slots__ = ("f_bavail", "f_favail", "f_files", "f_frsize")

    def __init__(self, free: int) -> None:
        self.f_frsize = 1
        self.f_bavail = free
        self.f_files = self.f_favail = 1 << 30


def io_error() -> sqlite3.OperationalError:
    """What SQLite says when the disk fails."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR"
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class ProcessDisk:
    """The disk as one process has it: its descriptors, its locks, and its death.

    `before` is called before each call that changes anything, and may raise: Crash, or OSError for a fault.
    """

    def __init__(self, medium: Medium, before: Callable[[str], None]) -> None:
        self.medium = medium
        self._before = before
        self._numbers = itertools.count(10)
        self._handles: dict[int, Handle] = {}
        self.dead = False
        self.connections: list[sqlite3.Connection] = []

    def die(self) -> None:
        """The kernel takes back what the process had."""
        self.dead = True
        for handle in self._handles.values():
            handle.node.holders.pop(handle, None)
        self._handles.clear()
        for connection in self.connections:
            connection.close()

    def _changing(self, name: str) -> None:
        if self.dead:
            raise Crash
        self._before(name)

    def _handle(self, fd: int | None) -> Handle:
        if self.dead:
            raise Crash
        if fd is None or fd not in self._handles:
            raise _error(errno.EBADF)
        return self._handles[fd]

    def _folder(self, fd: int | None) -> Node:
        node = self._handle(fd).node
        if not node.folder:
            raise _error(errno.ENOTDIR)
        return node

    def _give(self, node: Node) -> int:
        fd = next(self._numbers)
        self._handles[fd] = Handle(node)
        return fd

    # ---- names

    def open(self, name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if self.dead:
            raise Crash
        if name == ROOT:
            return self._give(self.medium.root)
        if name == _PROC:
            return self._give(self.medium.node(folder=True))
        folder = self._folder(dir_fd)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            self._changing("open")
            return self._give(self.medium.node(folder=False, unnamed=True))
        if len(name.encode()) > 255:
            raise _error(errno.ENAMETOOLONG)
        node = folder if name == "." else folder.entries.get(name)
        if node is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT)
            self._changing("open")
            node = self.medium.node(folder=False)
            folder.change(name, node)
        elif flags & os.O_EXCL and flags & os.O_CREAT:
            raise _error(errno.EEXIST)
        if flags & os.O_DIRECTORY and not node.folder:
            raise _error(errno.ENOTDIR)
        return self._give(node)

    def close(self, fd: int) -> None:
        handle = self._handles.pop(fd, None)
        if handle is not None:
            handle.node.holders.pop(handle, None)

    def mkdir(self, name: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        folder = self._folder(dir_fd)
        if name in folder.entries:
            raise _error(errno.EEXIST)
        if len(name.encode()) > 255:
            raise _error(errno.ENAMETOOLONG)
        self._changing("mkdir")
        path = f"{folder.path}/{name}" if folder.path else name
        folder.change(name, self.medium.node(folder=True, path=path))

    def link(
        self,
        source: str | bytes,
        name: str,
        *,
        src_dir_fd: int,
        dst_dir_fd: int,
        follow_symlinks: bool = True,
    ) -> None:
        folder = self._folder(dst_dir_fd)
        if isinstance(source, bytes):
            node = self._handle(int(source)).node
        else:
            found = self._folder(src_dir_fd).entries.get(source)
            if found is None:
                raise _error(errno.ENOENT)
            node = found
        if name in folder.entries:
            raise _error(errno.EEXIST)
        if len(name.encode()) > 255:
            raise _error(errno.ENAMETOOLONG)
        if (not node.links and not node.unnamed) or not folder.links:
            raise _error(errno.ENOENT)
        self._changing("link")
        folder.change(name, node)
        node.changed = self.medium.now()
        if not folder.path.startswith(PRIVATE):
            self.medium.published(f"{folder.path}/{name}" if folder.path else name, node)

    def unlink(self, name: str, *, dir_fd: int | None = None) -> None:
        folder = self._folder(dir_fd)
        node = folder.entries.get(name)
        if node is None:
            raise _error(errno.ENOENT)
        if node.folder:
            raise _error(errno.EISDIR)
        self._changing("unlink")
        folder.change(name, None)
        node.unnamed = False
        node.changed = self.medium.now()

    def rmdir(self, name: str, *, dir_fd: int | None = None) -> None:
        folder = self._folder(dir_fd)
        node = folder.entries.get(name)
        if node is None:
            raise _error(errno.ENOENT)
        if node.entries:
            raise _error(errno.ENOTEMPTY)
        self._changing("rmdir")
        folder.change(name, None)

    def listdir(self, fd: int) -> list[str]:
        return list(self._folder(fd).entries)

    def stat(self, name: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Found:
        node = self._folder(dir_fd).entries.get(name)
        if node is None:
            raise _error(errno.ENOENT)
        return Found(node)

    # ---- files

    def fstat(self, fd: int) -> Found:
        return Found(self._handle(fd).node)

    def write(self, fd: int, piece: Any) -> int:
        handle = self._handle(fd)
        written = self.pwrite(fd, piece, handle.position)
        handle.position += written
        return written

    def pwrite(self, fd: int, piece: Any, offset: int) -> int:
        handle = self._handle(fd)
        self._changing("pwrite")
        node = handle.node
        node.write(bytes(piece), offset)
        node.written = node.changed = self.medium.now()
        return len(piece)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return bytes(self._handle(fd).node.live[offset : offset + length])

    def ftruncate(self, fd: int, size: int) -> None:
        node = self._handle(fd).node
        self._changing("ftruncate")
        node.truncate(size)
        node.written = node.changed = self.medium.now()

    def punch(self, fd: int, offset: int, length: int) -> None:
        node = self._handle(fd).node
        self._changing("punch")
        stop = min(offset + length, len(node.live))
        if offset < stop:
            node.write(bytes(stop - offset), offset)

    def copy_file_range(self, source: int, target: int, count: int, offset_source: int, offset_target: int) -> int:
        return self.pwrite(target, self.pread(source, count, offset_source), offset_target)

    def fchmod(self, fd: int, mode: int) -> None:
        """Modes are no business of a simulation."""

    def fsync(self, fd: int) -> None:
        node = self._handle(fd).node
        try:
            self._changing("fsync" if node.folder else "fdatasync")
        except OSError:
            node.doubt()
            raise
        node.sync()

    fdatasync = fsync

    def sync(self) -> None:
        raise AssertionError("nothing is ever stored without syncs here")

    def flock(self, fd: int, operation: int) -> None:
        handle = self._handles.get(fd)
        if handle is None:
            return
        holders = handle.node.holders
        if operation & fcntl.LOCK_UN:
            holders.pop(handle, None)
            return
        alone = bool(operation & fcntl.LOCK_EX)
        if any(other is not handle and (alone or exclusive) for other, exclusive in holders.items()):
            assert operation & fcntl.LOCK_NB, "it would wait for ever"
            raise BlockingIOError(errno.EAGAIN, "held")
        holders[handle] = alone

    def statvfs(self, fd: int) -> Volume:
        return Volume(self.medium.capacity - self.medium.used())

    def rename(self, *_arguments: object, **_options: object) -> None:
        raise AssertionError("nothing is ever renamed")

    # ---- databases

    def connect(self, file: str, **options: Any) -> sqlite3.Connection:
        """A connection to the database of that name, whose commits are durable when they return."""
        changing = self._changing

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    try:
                        changing("commit")
                    except OSError as error:
                        raise io_error() from error
                return super().execute(sql, *rest)

        connection = sqlite3.connect(self.medium.database(file), uri=True, factory=Connection, **options)
        self.connections.append(connection)
        return connection
