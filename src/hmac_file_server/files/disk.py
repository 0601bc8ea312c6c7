"""The disk seam: every call that reaches the file system goes through one object.

Tests put another object in its place, to record the order of calls, to fail the n-th of them, to write short
or to cut the power after any of them. The default costs one attribute look-up a call.
"""

import errno
import fcntl
import os
import sqlite3
import struct
from typing import Final

from hmac_file_server.files.contract import (
    StorageBusy,
    StorageError,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)

_UNRESERVE: Final = 0x4030582B


def _listdir(fd: int) -> list[str]:
    """Names in an open directory; those that are no UTF-8 come with surrogates."""
    # The descriptor given is read through a duplicate, whose position is shared: start at the beginning.
    os.lseek(fd, 0, os.SEEK_SET)
    return os.listdir(fd)


def _punch(fd: int, offset: int, length: int) -> None:
    """Make a hole in a file, whose size stays: its bytes are zeros, its blocks are free.

    By FS_IOC_UNRESVSP64 (linux/falloc.h, every file system that has fallocate), since Python has no fallocate with
    FALLOC_FL_PUNCH_HOLE.
    """
    # struct space_resv: from where (SEEK_SET), start, length; the rest is not looked at.
    fcntl.ioctl(fd, _UNRESERVE, struct.pack("hhqqiI4i", 0, os.SEEK_SET, offset, length, 0, 0, 0, 0, 0, 0))


class Disk:
    """The machine's own calls."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    write = staticmethod(os.write)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    fstat = staticmethod(os.fstat)
    stat = staticmethod(os.stat)
    ftruncate = staticmethod(os.ftruncate)
    punch = staticmethod(_punch)
    copy_file_range = staticmethod(os.copy_file_range)
    statvfs = staticmethod(os.statvfs)
    listdir = staticmethod(_listdir)
    mkdir = staticmethod(os.mkdir)
    link = staticmethod(os.link)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    rmdir = staticmethod(os.rmdir)
    fchmod = staticmethod(os.fchmod)
    fsync = staticmethod(os.fsync)
    fdatasync = staticmethod(os.fdatasync)
    sync = staticmethod(os.sync)
    flock = staticmethod(fcntl.flock)
    connect = staticmethod(sqlite3.connect)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUSY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def storage_error(error: OSError | sqlite3.Error) -> StorageError:
    """Error of the contract for an error of the system; its text names no path."""
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        if name.startswith("SQLITE_FULL"):
            return StorageFull("the metadata database has no space left")
        if name.startswith("SQLITE_READONLY"):
            return StorageReadOnly("the metadata database is read-only")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_NOMEM", "SQLITE_CANTOPEN")):
            return StorageBusy(f"the metadata database is busy ({name})")
        return StorageFailed(f"the metadata database failed ({name})")
    number = error.errno or 0
    word = errno.errorcode.get(number, str(number))
    if number in _FULL:
        return StorageFull(f"no space left on the storage ({word})")
    if number == errno.EROFS:
        return StorageReadOnly("the storage is read-only (EROFS)")
    if number in _BUSY:
        return StorageBusy(f"out of descriptors or memory ({word})")
    return StorageFailed(f"the storage failed ({word})")
