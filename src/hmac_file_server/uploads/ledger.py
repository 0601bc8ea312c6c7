"""What this process has promised to its uploads: how many bytes each of them may still write.

The pool of the file store knows sums; here stands for whom. So nothing is given back twice, whoever ends an
upload and however often, and what other servers did to the uploads of a shared store can be made good.
"""

import threading

from hmac_file_server.files.contract import SpacePool


class Ledger:
    """Bytes outstanding by upload id. Any thread may call."""

    __slots__ = ("_left", "_lock", "_pool")

    def __init__(self, pool: SpacePool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._left: dict[str, int] = {}

    def admit(self, upload_id: str, size: int) -> None:
        """Promise `size` bytes to a new upload. Raises StorageError."""
        self._pool.add(size)
        with self._lock:
            self._left[upload_id] = size

    def count(self, upload_id: str, left: int) -> None:
        """So many bytes are missing of an upload that was admitted before, here or by another process."""
        with self._lock:
            before = self._left.get(upload_id)
            if before is None:
                self._pool.charge(left)
            elif left <= before:
                self._pool.subtract(before - left)
            else:
                # As one more upload, and that less: a pool knows no other way to grow without being asked.
                self._pool.charge(left - before)
                self._pool.leave()
            self._left[upload_id] = left

    def grow(self, upload_id: str, more: int) -> None:
        """Promise `more` bytes to an upload whose length was not known. Raises StorageError."""
        self._pool.add(more)
        self._pool.leave()
        with self._lock:
            if upload_id in self._left:
                self._left[upload_id] += more
                return
        self._pool.subtract(more)

    def shrink(self, upload_id: str, left: int) -> None:
        """No more than so many bytes are missing; nothing for an upload that has ended."""
        with self._lock:
            before = self._left.get(upload_id)
            if before is not None and left < before:
                self._left[upload_id] = left
                self._pool.subtract(before - left)

    def end(self, upload_id: str) -> None:
        """The upload needs nothing any more. Idempotent."""
        with self._lock:
            left = self._left.pop(upload_id, None)
            if left is not None:
                self._pool.subtract(left)
                self._pool.leave()

    def ids(self) -> list[str]:
        """Every upload that something is promised to."""
        with self._lock:
            return list(self._left)
