"""A disk that remembers in what order it was written to: a plugin for nbdkit's Python.

    nbdkit python block_recorder.py image=FILE log=FILE

What is written is not put into the image but kept in memory; every write and every flush is appended to the log
before it is answered, as a record of `HEADER` (kind, offset, length) and the bytes. So whoever looks at the length of
the log after an answer knows of all writes and flushes that came before that answer.

Runs in the interpreter that nbdkit was built with, and so knows nothing of this package; the package reads `HEADER`.
"""

from __future__ import annotations

import mmap
import os
import struct

API_VERSION = 2
HEADER = struct.Struct("<cQQ")
WRITE = b"w"
FLUSH = b"f"

_files: dict[str, str] = {}
_disk: mmap.mmap
_log: int


def config(key: str, value: str) -> None:
    """One of the two settings."""
    _files[key] = value


def get_ready() -> None:
    """Before the first connection."""
    global _disk, _log  # noqa: PLW0603 - nbdkit knows modules, not objects
    image = os.open(_files["image"], os.O_RDONLY)
    _disk = mmap.mmap(image, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(image)
    _log = os.open(_files["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def open(readonly: bool) -> int:  # noqa: A001 - nbdkit's names and ways
    """A connection; there is one disk for all."""
    return 1


def get_size(handle: int) -> int:
    """Bytes of the disk."""
    return len(_disk)


def pread(handle: int, buffer: bytearray, offset: int, flags: int) -> None:
    """Read into the buffer."""
    memoryview(buffer)[:] = _disk[offset : offset + len(buffer)]


def pwrite(handle: int, buffer: bytearray, offset: int, flags: int) -> None:
    """Write, and write that down."""
    os.writev(_log, [HEADER.pack(WRITE, offset, len(buffer)), buffer])
    _disk[offset : offset + len(buffer)] = buffer


def flush(handle: int, flags: int) -> None:
    """All that was written before is on the medium now."""
    os.write(_log, HEADER.pack(FLUSH, 0, 0))
