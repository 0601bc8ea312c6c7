"""Content-addressed blobs: one inode for many published files of the same bytes.

`blobs/<first two digits>/<digest>` is one more hard link to a published file. A later upload of the same
bytes, which was received and synced in full all the same, is published as a link to that inode and its own
spool is dropped. Nobody can tell from the answer: metadata comes from the file's own row, and a hit does no
fewer syncs than a miss.

No reference count is kept anywhere but in the inode. A collection that races with a new link is harmless
in both orders: either the link comes first and only the blob's name goes, or the inode is gone and the
link fails with ENOENT, and the upload is published from its own spool.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from hmac_file_server.files.directories import Directories, Directory, is_regular
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.spool import Source, Spools

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIGITS = frozenset("0123456789abcdef")


class Blobs:
    """The blob folder."""

    def __init__(self, disk: Disk, directories: Directories, spools: Spools, *, max_size: int) -> None:
        """`directories` has the blob folder as its root. Files of 1 to `max_size` bytes take part."""
        self._disk = disk
        self._directories = directories
        self._spools = spools
        self.max_size = max_size

    def name(self, spool: Source) -> str | None:
        """Name of the blob that the spool's bytes would have; None when it takes no part."""
        if 0 < spool.size <= self.max_size:
            digest = spool.digest
            return None if digest is None else digest.partition(":")[2]
        return None

    def link(self, name: str, size: int, final: str, directory: Directory) -> bool:
        """Publish the blob as `final`; False when there is none to be used.

        A blob that has as many links as its file system allows is retired: the caller's spool takes its
        place. Raises OSError (EEXIST among them).
        """
        shard = self._directories.find(name[:2])
        if shard is None:
            return False
        try:
            fd = self._disk.open(name, _OPEN, dir_fd=shard.fd)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP}:
                return False
            raise
        try:
            found = self._disk.fstat(fd)
            if not is_regular(found.st_mode) or found.st_size != size:
                self._retire(name, shard)
                return False
            try:
                self._spools.link_fd(fd, final, directory.fd)
            except FileNotFoundError:
                if self._disk.fstat(fd).st_nlink == 0:
                    return False  # collected between open and link
                raise
            except OSError as error:
                if error.errno == errno.EMLINK:
                    self._retire(name, shard)
                    return False
                raise
            return True
        finally:
            self._disk.close(fd)

    def keep(self, name: str, spool: Source) -> None:
        """Make the published spool the blob. Best effort: without it nothing but space is lost."""
        with contextlib.suppress(OSError):
            self._spools.link(spool, name, self._directories.make(name[:2]).fd)

    def collect(self, name: str) -> bool:
        """Remove the blob if no published file uses it any more."""
        shard = self._directories.find(name[:2])
        if shard is None:
            return False
        try:
            found = self._disk.stat(name, dir_fd=shard.fd, follow_symlinks=False)
            if found.st_nlink > 1:
                return False
            self._disk.unlink(name, dir_fd=shard.fd)
        except OSError:
            return False
        return True

    def collect_all(self) -> list[str]:
        """Remove every blob that no published file uses."""
        return [name for name in self.names() if self.collect(name)]

    def names(self) -> Iterator[str]:
        """Names of all blobs. Raises OSError."""
        for prefix in self._disk.listdir(self._directories.root.fd):
            shard = self._directories.find(prefix)
            if shard is None:
                continue
            for name in self._disk.listdir(shard.fd):
                if name.startswith(prefix) and _DIGITS.issuperset(name):
                    yield name

    def close(self) -> None:
        """Let go of the folder."""
        self._directories.close()

    def _retire(self, name: str, shard: Directory) -> None:
        with contextlib.suppress(OSError):
            self._disk.unlink(name, dir_fd=shard.fd)
