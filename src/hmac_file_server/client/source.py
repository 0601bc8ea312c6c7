"""What is uploaded: a file, or a binary file object that can seek. Whoever changes it meanwhile ends the upload."""

import asyncio
import hashlib
import io
import os
import stat
import threading
from typing import BinaryIO, Final

from hmac_file_server.client.errors import SourceChanged

READ: Final = 256 * 1024
"""Bytes that are read at a time where the kernel cannot send from the file by itself."""
_HASHED: Final = 4 * 1024 * 1024


class Source:
    """The bytes of one upload. To be closed.

    name    the name of the file, without folders; "" when it has none
    size    bytes
    fileno  a descriptor of a regular file with exactly these bytes from its beginning; None when there is none
    path    of the file; None for a file object
    """

    def __init__(self, what: str | os.PathLike[str] | BinaryIO) -> None:
        """A path, or an object that can `read` and `seek`. Raises SourceChanged when it cannot be read."""
        self.path: str | None = None
        self.name = ""
        self.fileno: int | None = None
        self._object: BinaryIO | None = None
        self._lock = threading.Lock()
        self._owned = False
        try:
            if isinstance(what, str | os.PathLike):
                self._open(os.fspath(what))
            else:
                self._adopt(what)
        except (OSError, ValueError) as error:
            self.close()
            raise SourceChanged(f"cannot read: {_why(error)}", code="source_unreadable") from error
        self._status = self._stat()

    def _open(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.fileno = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._owned = True
        status = os.fstat(self.fileno)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file")
        self.size = status.st_size

    def _adopt(self, what: BinaryIO) -> None:
        given = getattr(what, "name", "")
        self.name = os.path.basename(given) if isinstance(given, str) else ""
        # Others that have a descriptor may give other bytes than it does (gzip.GzipFile).
        raw = what.raw if isinstance(what, io.BufferedReader | io.BufferedRandom) else what
        if isinstance(raw, io.FileIO):
            what.flush()
            if stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
                self.fileno = raw.fileno()
        self._object = what
        self.size = what.seek(0, os.SEEK_END)

    @property
    def status(self) -> os.stat_result | None:
        """That of the file when the upload began; None for objects that are no files."""
        return self._status

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes; blocks. Raises SourceChanged."""
        pieces: list[bytes] = []
        with self._lock:
            while length:
                piece = self._read(offset, length)
                if not piece:
                    raise SourceChanged("the file became shorter while it was uploaded")
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_soon(self, offset: int, length: int) -> bytes:
        """The same without blocking the loop for long: a file's bytes come from the page cache, as with sendfile."""
        if self.fileno is not None:
            return self.read(offset, length)
        return await asyncio.to_thread(self.read, offset, length)

    def check(self) -> None:
        """Raise SourceChanged when it is not the file that it was."""
        now, before = self._stat(), self._status
        if now is None or before is None:
            return
        if now.st_size != before.st_size:
            raise SourceChanged(
                f"the file was changed while it was uploaded: it had {before.st_size} bytes, now {now.st_size}"
            )
        if now.st_mtime_ns != before.st_mtime_ns:
            raise SourceChanged("the file was written to while it was uploaded")

    def close(self) -> None:
        """Close what was opened here. A file object stays open."""
        fileno, self.fileno = self.fileno, None
        if self._owned and fileno is not None:
            self._owned = False
            os.close(fileno)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            if self.fileno is not None:
                return os.pread(self.fileno, length, offset)
            if self._object is None:
                raise ValueError("the source is closed")
            self._object.seek(offset)
            return self._object.read(length)
        except (OSError, ValueError) as error:
            raise SourceChanged(f"cannot read: {_why(error)}", code="source_unreadable") from error

    def _stat(self) -> os.stat_result | None:
        return None if self.fileno is None else os.fstat(self.fileno)


class Portion:
    """A part of the source as the body of one request. `written` counts what the connection's kernel has of it."""

    def __init__(self, source: Source, start: int, length: int) -> None:
        self.source = source
        self.start = start
        self.length = length
        self.written = 0

    async def digest(self, algorithm: str) -> bytes:
        """The digest of these bytes, by `hashlib`'s name of the algorithm. Raises SourceChanged."""
        return await asyncio.to_thread(self._digest, algorithm)

    def _digest(self, algorithm: str) -> bytes:
        found = hashlib.new(algorithm, usedforsecurity=False)
        for offset in range(self.start, self.start + self.length, _HASHED):
            found.update(self.source.read(offset, min(_HASHED, self.start + self.length - offset)))
        return found.digest()


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if isinstance(error.filename, str) else error.strerror
    return str(error)
