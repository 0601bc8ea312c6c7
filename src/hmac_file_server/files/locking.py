"""Locks between processes, by flock on files in the private folder: the kernel frees them with their holder."""

import errno
import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hmac_file_server.files.contract import StoreInUse
from hmac_file_server.files.disk import Disk, storage_error
from hmac_file_server.files.paths import PRIVATE

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class StoreLock:
    """Held by the one server of a store; children made by fork share it."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock(root: Path, *, shared: bool = False) -> StoreLock:
    """Take the store at `root` (made when missing) for one server. Raises StoreInUse, StorageError.

    `shared`: for one of several servers that tell each other what they do; none of the other kind may run then.
    """
    try:
        # The names in it are half of every link: not for everybody on the machine.
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        private = root / PRIVATE
        private.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(private / "lock", _FLAGS, 0o600)
    except OSError as error:
        raise storage_error(error) from error
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise StoreInUse("another server uses this store") from error
        raise storage_error(error) from error
    return StoreLock(fd)


class Exclusion:
    """A section that one thread of one process on the machine is in at a time."""

    __slots__ = ("_disk", "_fd", "_threads")

    def __init__(self, disk: Disk, name: str, dir_fd: int) -> None:
        self._disk = disk
        self._threads = threading.Lock()
        self._fd = disk.open(name, _FLAGS, 0o600, dir_fd=dir_fd)

    def __enter__(self) -> Self:
        self._threads.acquire()
        try:
            self._disk.flock(self._fd, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._disk.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Idempotent; nobody may be inside."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)
