"""New files that nobody sees: unnamed where the file system can (O_TMPFILE), else under a private name.

A named spool is locked (flock) as long as it is in use, so that the sweep of orphans, which runs in any
process at any time, can tell one that is being written from one that a crash left.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from typing import Final, Protocol

from blake3 import blake3

from hmac_file_server.files.contract import Buffer, Hasher, Reservation, StorageFailed
from hmac_file_server.files.disk import Disk, storage_error

FILE_MODE: Final = 0o640
_UNNAMED: Final = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
_NAMED: Final = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
_CONSUME: Final = 4 << 20
"""Bytes after which the reservation is told what has been written."""


class Source(Protocol):
    """An open file with all its bytes, to be published: a spool, or a draft seen as one."""

    fd: int
    name: str | None
    """Where it is to be linked from in the folder `folder_fd`; None: from its descriptor."""
    size: int

    @property
    def folder_fd(self) -> int:
        """The folder that `name` is in."""
        ...

    @property
    def digest(self) -> str | None:
        """Digest of the bytes, where they were hashed."""
        ...

    def end(self) -> None:
        """The publish is over. Idempotent."""


def hasher(name: str) -> Callable[[], Hasher]:
    """Maker of hashers for "blake3" or "sha256"."""
    if name == "blake3":
        return blake3
    import hashlib

    return hashlib.sha256


class LocalSpool:
    """One new file. `name` is None while it has no name; `fd` is -1 once it has ended."""

    __slots__ = ("_hasher", "_limit", "_owner", "_pending", "_reservation", "fd", "name", "size")

    def __init__(
        self, owner: "Spools", fd: int, name: str | None, hashing: Hasher | None, reservation: Reservation | None
    ) -> None:
        self._owner = owner
        self._hasher = hashing
        self._limit = owner.hash_limit
        self._reservation = reservation
        self._pending = 0
        self.fd = fd
        self.name = name
        self.size = 0

    @property
    def folder_fd(self) -> int:
        """The folder that `name` is in."""
        return self._owner.folder_fd

    @property
    def digest(self) -> str | None:
        """Digest of what was written ("blake3:<hex>"), None where hashing was not asked for."""
        return None if self._hasher is None else f"{self._owner.hash_name}:{self._hasher.hexdigest()}"

    def write(self, view: Buffer) -> None:
        """Append all of `view`. Raises StorageFull, StorageFailed, StorageBusy."""
        length = len(view)
        fd = self.fd
        if fd < 0:
            raise StorageFailed("the spool has ended")
        try:
            written = self._owner.write(fd, view)
            if written != length:
                self._rest(memoryview(view)[written:])
        except OSError as error:
            raise storage_error(error) from error
        self.size += length
        if self._hasher is not None:
            if self.size > self._limit:
                self._hasher = None
            else:
                self._hasher.update(view)
        if self._reservation is not None:
            self._pending += length
            if self._pending >= _CONSUME:
                self._reservation.consume(self._pending)
                self._pending = 0

    def _rest(self, view: memoryview) -> None:
        """A short write is no error: go on until all is written or the disk says why not."""
        while view:
            written = self._owner.write(self.fd, view)
            if written <= 0:
                raise OSError(errno.EIO, "the disk takes no bytes")
            view = view[written:]

    def discard(self) -> None:
        """Drop the file; idempotent."""
        if self.fd >= 0:
            self.end()

    def end(self) -> None:
        """Close it: what has no other name is gone. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        if self.name is not None:
            self._owner.drop(self.name)
        self._owner.close(fd)
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.release()

    def __del__(self) -> None:
        if self.fd >= 0:
            self.end()


class Spools:
    """Makes spools in the spool folder."""

    def __init__(
        self,
        disk: Disk,
        folder_fd: int,
        *,
        random: Callable[[int], bytes],
        hash_name: str,
        hash_limit: int,
        hashing: bool,
    ) -> None:
        """Take over `folder_fd`. Files up to `hash_limit` bytes are hashed when `hashing` is set."""
        self._disk = disk
        self.folder_fd = folder_fd
        self._random = random
        self.hash_name = hash_name
        self.hash_limit = hash_limit
        self.hashing = hashing
        self.new_hasher = hasher(hash_name)
        self.write = disk.write
        self.close = disk.close
        try:
            # Opened by this very process: /proc/self is resolved here, and once.
            self.self_fds = disk.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self.self_fds = -1
        self.unnamed = self.self_fds >= 0
        """Whether new files have no name; cleared when the file system cannot."""

    def new(self, size: int | None, reservation: Reservation | None) -> LocalSpool:
        """Begin a file of `size` bytes, None: unknown. Raises StorageError."""
        wanted = self.hashing and (size is None or size <= self.hash_limit)
        hashing = self.new_hasher() if wanted else None
        if self.unnamed:
            try:
                fd = self._disk.open(".", _UNNAMED, FILE_MODE, dir_fd=self.folder_fd)
                return LocalSpool(self, fd, None, hashing, reservation)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise storage_error(error) from error
                self.unnamed = False
        name = self._random(16).hex()
        try:
            fd = self._disk.open(name, _NAMED, FILE_MODE, dir_fd=self.folder_fd)
            try:
                self._disk.flock(fd, fcntl.LOCK_SH)
            except OSError:
                self._disk.close(fd)
                self.drop(name)
                raise
        except OSError as error:
            raise storage_error(error) from error
        return LocalSpool(self, fd, name, hashing, reservation)

    def link(self, spool: Source, name: str, dir_fd: int) -> None:
        """Give the file one more name; raises OSError (EEXIST among them)."""
        if spool.name is None:
            self._disk.link(b"%d" % spool.fd, name, src_dir_fd=self.self_fds, dst_dir_fd=dir_fd, follow_symlinks=True)
        else:
            self._disk.link(spool.name, name, src_dir_fd=spool.folder_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def link_fd(self, fd: int, name: str, dir_fd: int) -> None:
        """Give the open file `fd` one more name; raises OSError, ENOENT when its last name is gone."""
        self._disk.link(b"%d" % fd, name, src_dir_fd=self.self_fds, dst_dir_fd=dir_fd, follow_symlinks=True)

    def drop(self, name: str) -> None:
        """Remove the private name of a spool."""
        with contextlib.suppress(OSError):  # swept already, or the disk is failing: the next sweep has it
            self._disk.unlink(name, dir_fd=self.folder_fd)

    def orphans(self, older_than: float) -> list[str]:
        """Names of what a crash left: last changed before `older_than` (epoch seconds) and open nowhere."""
        found = []
        for name in self._disk.listdir(self.folder_fd):
            try:
                fd = self._disk.open(name, _LOOK, dir_fd=self.folder_fd)
            except OSError:
                continue
            try:
                if self._disk.fstat(fd).st_mtime >= older_than:
                    continue
                self._disk.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(name)
            except OSError:
                continue
            finally:
                self._disk.close(fd)
        return found

    def sweep(self, older_than: float) -> list[str]:
        """Remove the orphans; their names."""
        names = self.orphans(older_than)
        for name in names:
            self.drop(name)
        return names

    def shut(self) -> None:
        """Close the folder's descriptors; spools that still exist stay writable."""
        for fd in (self.folder_fd, self.self_fds):
            if fd >= 0:
                self._disk.close(fd)
        self.folder_fd = self.self_fds = -1
