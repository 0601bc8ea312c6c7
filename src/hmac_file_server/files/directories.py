"""Directories of the tree by descriptor, so that no name is ever resolved through a link.

Every component is opened below its parent's descriptor with O_DIRECTORY | O_NOFOLLOW. Descriptors are kept
in a bounded cache, least recently used out first. A descriptor is closed when the last user of its
`Directory` lets go, so eviction never pulls it away under a thread that works with it.
"""

import contextlib
import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from hmac_file_server.files.disk import Disk

DIRECTORY_MODE: Final = 0o750
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS: Final = 32
_RECHECK: Final = 1.0
"""Seconds after which a kept descriptor is compared with the name again: people move directories by hand."""


class Directory:
    """One open directory below the root. `path` is relative, "" for the root itself."""

    __slots__ = ("_close", "checked", "durable", "fd", "parent", "path")

    def __init__(
        self, fd: int, path: str, parent: "Directory | None", checked: float, close: Callable[[int], None]
    ) -> None:
        self.fd = fd
        self.path = path
        self.parent = parent
        self.checked = checked
        self.durable = parent is None
        """Whether the entry in the parent is known to be on the medium."""
        self._close = close

    def __del__(self) -> None:
        if self.fd >= 0:
            self._close(self.fd)

    def lineage(self) -> "Iterator[Directory]":
        """This directory and those above it, the root last."""
        directory: Directory | None = self
        while directory is not None:
            yield directory
            directory = directory.parent


class Directories:
    """Finds and makes directories below one root."""

    def __init__(
        self,
        disk: Disk,
        root_fd: int,
        *,
        monotonic: Callable[[], float],
        capacity: int = 512,
    ) -> None:
        """Take over `root_fd`."""
        self._disk = disk
        self._monotonic = monotonic
        self._capacity = capacity
        self._hidden: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, Directory] = OrderedDict()
        self.root = Directory(root_fd, "", None, 0.0, disk.close)

    def hide(self, device: int, inode: int) -> None:
        """Never enter that directory from the root, under whatever name."""
        self._hidden = (device, inode)

    def find(self, path: str) -> Directory | None:
        """The directory at `path`; None when it is missing or a link or a file is in the way.

        Raises OSError for what is none of these.
        """
        directory = self._kept(path)
        if directory is not None:
            return directory
        try:
            return self._walk(path, make=False)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES}:
                return None
            raise

    def make(self, path: str) -> Directory:
        """The directory at `path`, made with all above it when missing (mode 0750).

        Raises NotADirectoryError when a link or a file is in the way, other OSErrors as they come.
        """
        directory = self._kept(path)
        return directory if directory is not None else self._walk(path, make=True)

    def forget(self, directory: Directory) -> None:
        """Look the directory and those above it up again next time."""
        with self._lock:
            for each in directory.lineage():
                if self._cache.get(each.path) is each:
                    del self._cache[each.path]

    def is_gone(self, directory: Directory) -> bool:
        """Whether the directory was removed since it was opened."""
        return directory.parent is not None and self._disk.fstat(directory.fd).st_nlink == 0

    def __len__(self) -> int:
        return len(self._cache)

    def close(self) -> None:
        """Let go of all of them; nothing is found any more."""
        with self._lock:
            self._cache.clear()
            self.root = Directory(-1, "", None, 0.0, self._disk.close)

    def _kept(self, path: str) -> Directory | None:
        if not path:
            return self.root
        directory = self._cache.get(path)
        if directory is None or self._monotonic() - directory.checked > _RECHECK:
            return None
        try:  # noqa: SIM105 - contextlib.suppress would cost as much as all the rest
            self._cache.move_to_end(path)
        except KeyError:
            pass  # evicted by another thread this moment; still good for us
        return directory

    def _walk(self, path: str, *, make: bool) -> Directory:
        names = path.split("/")
        for _ in range(_ATTEMPTS):
            directory = self.root
            depth = 0
            for depth in range(len(names) - 1, 0, -1):
                kept = self._kept("/".join(names[:depth]))
                if kept is not None:
                    directory = kept
                    break
            else:
                depth = 0
            try:
                for name in names[depth:]:
                    directory = self._enter(directory, name, make=make)
                return directory
            except FileNotFoundError:
                # Missing, or removed by expiry (ours or another process's) between two steps.
                if self.is_gone(directory):
                    self.forget(directory)
                elif not make:
                    raise
        raise FileNotFoundError(errno.ENOENT, "the directory keeps vanishing")

    def _enter(self, parent: Directory, name: str, *, make: bool) -> Directory:
        disk = self._disk
        path = f"{parent.path}/{name}" if parent.path else name
        try:
            fd = disk.open(name, _FLAGS, dir_fd=parent.fd)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                disk.mkdir(name, DIRECTORY_MODE, dir_fd=parent.fd)
            fd = disk.open(name, _FLAGS, dir_fd=parent.fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotADirectoryError(errno.ENOTDIR, "a link is in the way") from error
            raise
        directory = Directory(fd, path, parent, self._monotonic(), disk.close)
        if parent.parent is None and self._hidden is not None:
            found = disk.fstat(fd)
            if (found.st_dev, found.st_ino) == self._hidden:
                raise NotADirectoryError(errno.ENOTDIR, "the private folder is in the way")
        self._keep(directory)
        return directory

    def _keep(self, directory: Directory) -> None:
        disk = self._disk
        with self._lock:
            before = self._cache.pop(directory.path, None)
            if before is not None and before.durable:
                directory.durable = os.path.samestat(disk.fstat(before.fd), disk.fstat(directory.fd))
            self._cache[directory.path] = directory
            while len(self._cache) > self._capacity:
                self._cache.popitem(last=False)


def is_directory(mode: int) -> bool:
    """Whether `st_mode` is that of a directory."""
    return stat.S_IFMT(mode) == stat.S_IFDIR


def is_link(mode: int) -> bool:
    """Whether `st_mode` is that of a symbolic link."""
    return stat.S_IFMT(mode) == stat.S_IFLNK


def is_regular(mode: int) -> bool:
    """Whether `st_mode` is that of a plain file."""
    return stat.S_IFMT(mode) == stat.S_IFREG
