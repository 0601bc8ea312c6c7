"""Admission: an upload is let in only when its bytes will fit, counted over all processes of the server.

What counts is `free - reserve - (what admitted uploads may still write)`. The outstanding bytes of each
process stand in its own slot of a small shared map made before the fork; a process claims first and checks
then, so two that race for the last space may both be refused but never both be admitted.
"""

import mmap
import threading
from collections.abc import Callable
from typing import Final

from hmac_file_server.files.contract import StorageFull
from hmac_file_server.files.disk import Disk, storage_error

_MAX_AGE: Final = 1.0
_NEAR: Final = 4 << 30
"""Below this much slack the file system is asked each time: it can fill as fast within a second."""
_SPARE_INODES: Final = 16
_INODES_PER_UPLOAD: Final = 2
_PLENTY_OF_INODES: Final = 100_000


class SharedCounters:
    """One row of outstanding bytes and uploads for each process; made before the fork, in anonymous memory."""

    __slots__ = ("_map", "_view", "slots")

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self._map = mmap.mmap(-1, max(mmap.PAGESIZE, slots * 16))
        self._view = memoryview(self._map).cast("q")

    def bytes_view(self) -> "memoryview[int]":
        """Outstanding bytes, one signed 64-bit number a slot."""
        return self._view[: self.slots]

    def uploads_view(self) -> "memoryview[int]":
        """Admitted uploads, one number a slot."""
        return self._view[self.slots : 2 * self.slots]


class Admitted:
    """A promise of space. See `contract.Reservation`."""

    __slots__ = ("_left", "_space")

    def __init__(self, space: "Space", size: int) -> None:
        self._space: Space | None = space
        self._left = size

    def consume(self, count: int) -> None:
        """`count` bytes are written: they are in the file system's own figures now."""
        space = self._space
        if space is not None:
            with space.lock:
                count = min(count, self._left)
                self._left -= count
                space.add(-count, 0)

    def release(self) -> None:
        """Give back the rest; idempotent, thread-safe."""
        space = self._space
        if space is not None:
            with space.lock:
                if self._space is not None:
                    self._space = None
                    space.add(-self._left, -1)

    def leave_standing(self) -> None:
        """Let the promise outlive this object: somebody else counts it from here on."""
        self._space = None

    def __del__(self) -> None:
        if self._space is not None:
            self.release()


class Space:
    """The free space of one file system as one process sees it."""

    def __init__(
        self,
        disk: Disk,
        root_fd: int,
        *,
        reserve: int,
        counters: SharedCounters,
        slot: int,
        monotonic: Callable[[], float],
    ) -> None:
        """`reserve` bytes stay free. The slot is cleared: its last process is gone."""
        self._disk = disk
        self._root = root_fd
        self.reserve = reserve
        self._monotonic = monotonic
        self._all_bytes = counters.bytes_view()
        self._all_uploads = counters.uploads_view()
        self._slot = slot
        self._bytes = self._uploads = 0
        self._all_bytes[slot] = self._all_uploads[slot] = 0
        self._alone = counters.slots == 1
        self._asked = float("-inf")
        self._free = 0
        self._inodes = 0
        # Reentrant: a reservation that is garbage may be released by the collector inside the lock.
        self.lock = threading.RLock()

    def add(self, size: int, uploads: int) -> None:
        """Change what this process has outstanding; the caller holds the lock."""
        self._bytes += size
        self._uploads += uploads
        self._all_bytes[self._slot] = self._bytes
        self._all_uploads[self._slot] = self._uploads

    def outstanding(self) -> int:
        """Bytes that admitted uploads of all processes may still write."""
        return self._bytes if self._alone else sum(self._all_bytes)

    def available(self) -> int:
        """Bytes that one more upload could be promised now. Raises StorageError."""
        with self.lock:
            self._ask()
            return max(0, self._free - self.reserve - self.outstanding())

    def admit(self, size: int) -> Admitted:
        """Promise `size` bytes and the inodes for one file. Raises StorageFull, StorageFailed."""
        if size < 0:
            raise ValueError("a size is not negative")
        with self.lock:
            self.add(size, 1)
            try:
                if self._monotonic() - self._asked > _MAX_AGE:
                    self._ask()
                outstanding = self._bytes if self._alone else sum(self._all_bytes)
                slack = self._free - self.reserve - outstanding
                if slack < _NEAR or self._inodes < _PLENTY_OF_INODES:
                    self._ask()
                    self._check(self._free - self.reserve - outstanding)
            except BaseException:
                self.add(-size, -1)
                raise
        return Admitted(self, size)

    def check(self, size: int) -> None:
        """Raise as `admit` does, promising nothing: for bytes that are written in the same breath."""
        if self._monotonic() - self._asked > _MAX_AGE or self._inodes < _PLENTY_OF_INODES:
            with self.lock:
                self._ask()
        slack = self._free - self.reserve - self.outstanding() - size
        if slack < _NEAR or self._inodes < _PLENTY_OF_INODES:
            with self.lock:
                self._ask()
                self._check(self._free - self.reserve - self.outstanding() - size)

    def _check(self, slack: int) -> None:
        if slack < 0:
            raise StorageFull("not enough free space for the upload")
        uploads = sum(self._all_uploads)
        if self._inodes - _SPARE_INODES < max(0, uploads - 1) * _INODES_PER_UPLOAD + 1:
            raise StorageFull("not enough free inodes for the upload")

    def _ask(self) -> None:
        try:
            found = self._disk.statvfs(self._root)
        except OSError as error:
            raise storage_error(error) from error
        self._asked = self._monotonic()
        self._free = found.f_bavail * found.f_frsize
        # File systems without a fixed number of inodes (btrfs) say 0 of 0.
        self._inodes = found.f_favail if found.f_files else _PLENTY_OF_INODES * 100


class LocalSpacePool:
    """What all unfinished uploads of the process may still write. See `contract.SpacePool`."""

    __slots__ = ("_admit", "_bytes", "_space", "_uploads")

    def __init__(self, space: Space, admit: Callable[[int], Admitted]) -> None:
        """`admit` promises space out of `space`, or raises."""
        self._space = space
        self._admit = admit
        self._bytes = self._uploads = 0

    def add(self, size: int) -> None:
        """Promise `size` bytes to one more upload. Raises StorageFull, StorageReadOnly, StorageFailed."""
        with self._space.lock:
            self._admit(size).leave_standing()
            self._bytes += size
            self._uploads += 1

    def charge(self, size: int) -> None:
        """Count an upload of which `size` bytes are missing, whether there is space or not."""
        if size < 0:
            raise ValueError("a size is not negative")
        with self._space.lock:
            self._space.add(size, 1)
            self._bytes += size
            self._uploads += 1

    def subtract(self, size: int) -> None:
        """Count `size` bytes less; never fewer than none."""
        if size < 0:
            raise ValueError("a size is not negative")
        with self._space.lock:
            size = min(size, self._bytes)
            self._bytes -= size
            self._space.add(-size, 0)

    def leave(self) -> None:
        """Count one upload less; never fewer than none."""
        with self._space.lock:
            if self._uploads:
                self._uploads -= 1
                self._space.add(0, -1)

    @property
    def outstanding(self) -> tuple[int, int]:
        """Bytes and uploads that are counted now."""
        with self._space.lock:
            return self._bytes, self._uploads
