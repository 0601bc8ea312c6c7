"""Removing files: on request, and because their time is over. Nothing else is ever touched.

Every removal on the machine runs under one lock, so that what was looked at is what is unlinked: a path that
exists cannot be published again, and nobody else can free it. The order is unlink, sync of the directory,
row, blob: a crash in between leaves a row without a file, which nothing shows and the next removal cleans.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from hmac_file_server.files.contract import Deletion, Log, PathRefused, StorageError
from hmac_file_server.files.dedup import Blobs
from hmac_file_server.files.directories import Directories, Directory, is_directory, is_regular
from hmac_file_server.files.disk import Disk, storage_error
from hmac_file_server.files.locking import Exclusion
from hmac_file_server.files.metadata import MetadataTable, Row
from hmac_file_server.files.paths import is_private, parse

_CHUNK: Final = 64
_SETTLED: Final = 60.0
"""Seconds since a file got its last name after which its row, if it ever had one, has been written."""
_TICKET_MEMORY: Final = 7 * 86400.0
_JUMP: Final = 3600.0
"""Seconds by which the wall clock may run ahead of the steady one between two rounds."""
_BLOB_ROUND: Final = 6 * 3600.0
_GONE: Final = (FileNotFoundError, NotADirectoryError, PermissionError)

Verdict = Callable[[Row | None, os.stat_result], str | None]
"""Why a file has to go, None when it stays."""


class Removal:
    """Takes files out of the tree."""

    def __init__(
        self,
        disk: Disk,
        directories: Directories,
        metadata: MetadataTable,
        blobs: Blobs,
        exclusion: Exclusion,
        *,
        sync: Callable[[Directory], None] | None,
        forget: Callable[[str], None],
        log: Log,
    ) -> None:
        """`sync` makes a directory durable, None in relaxed durability; `forget` drops a cached entry."""
        self._disk = disk
        self._directories = directories
        self._metadata = metadata
        self._blobs = blobs
        self._exclusion = exclusion
        self._sync = sync
        self._forget = forget
        self._log = log

    def remove(self, paths: Iterable[str], verdict: Verdict, event: str) -> list[Deletion]:
        """Remove those of `paths` that `verdict` condemns, durably, and log each as `event`. Raises StorageError."""
        deletions: list[Deletion] = []
        directories: dict[Directory, None] = {}
        rows: list[Row] = []
        with self._exclusion:
            try:
                for path in paths:
                    row = self._metadata.get(path)
                    removed = self._unlink(path, row, verdict)
                    if removed is None:
                        continue
                    if row is not None:
                        rows.append(row)
                    deletion, directory = removed
                    if directory is not None:
                        directories[directory] = None
                        deletions.append(deletion)
                        self._log(event, path=path, size=deletion.size, reason=deletion.reason)
            except OSError as error:
                raise storage_error(error) from error
            finally:
                # Also when one of them failed: what was unlinked is seen through to the end.
                if self._sync is not None:
                    for directory in directories:
                        self._sync(directory)
                if rows:
                    self._metadata.remove(rows)
                for row in rows:
                    if row.digest is not None:
                        self._blobs.collect(row.digest.partition(":")[2])
                for directory in directories:
                    self._prune(directory)
        return deletions

    def _unlink(self, path: str, row: Row | None, verdict: Verdict) -> tuple[Deletion, Directory | None] | None:
        """What was removed and from where; no directory: the row alone is left of the file."""
        head, _, name = path.rpartition("/")
        directory = self._directories.find(head)
        try:
            if directory is None:
                raise FileNotFoundError
            found = self._disk.stat(name, dir_fd=directory.fd, follow_symlinks=False)
            if not is_regular(found.st_mode):
                return None
            reason = verdict(row, found)
            if reason is None:
                return None
            self._disk.unlink(name, dir_fd=directory.fd)
        except PermissionError:
            return None
        except (FileNotFoundError, NotADirectoryError):
            return None if row is None else (Deletion(path, row.size, "missing"), None)
        self._forget(path)
        return Deletion(path, found.st_size, reason), directory

    def _prune(self, directory: Directory) -> None:
        """Remove the directory and those above it as far as they are empty."""
        for each in list(directory.lineage()):
            if each.parent is None:
                return
            try:
                self._disk.rmdir(each.path.rpartition("/")[2], dir_fd=each.parent.fd)
            except OSError:
                return
            self._directories.forget(each)


class Expiry:
    """Finds what has outlived its time."""

    def __init__(
        self,
        disk: Disk,
        directories: Directories,
        metadata: MetadataTable,
        blobs: Blobs,
        removal: Removal,
        *,
        file_ttl: float | None,
        monotonic: Callable[[], float],
        log: Log,
    ) -> None:
        """`file_ttl` is the most seconds that any file is kept, None for no such limit."""
        self._disk = disk
        self._directories = directories
        self._metadata = metadata
        self._blobs = blobs
        self._removal = removal
        self.ttl = file_ttl
        self._monotonic = monotonic
        self._log = log
        self._last: tuple[float, float] | None = None
        self._hold_until: float | None = None
        self._walked = float("-inf")
        self._collected = float("-inf")

    def run(self, now: float) -> list[Deletion]:
        """One round at wall-clock time `now`, seconds since the epoch. Raises StorageError."""
        if self._clock_jumped(now):
            return []
        try:
            return self._round(now)
        except OSError as error:
            raise storage_error(error) from error

    def _round(self, now: float) -> list[Deletion]:
        deletions = self._remove(self._condemned_rows(now), now)
        if self.ttl is not None and not 0 <= now - self._walked < min(3600.0, self.ttl / 24):
            self._walked = now
            deletions += self._remove(self._old_files(now - self.ttl), now)
        if not 0 <= now - self._collected < _BLOB_ROUND:
            self._collected = now
            self._blobs.collect_all()
            self._metadata.drop_tickets(now - _TICKET_MEMORY)
        return deletions

    def _clock_jumped(self, now: float) -> bool:
        """Whether the wall clock ran ahead of the steady one: then nothing goes until it has been calm for long.

        A clock set forward by mistake must not cost every file its life; one set right at boot is believed
        after an hour.
        """
        steady = self._monotonic()
        last, self._last = self._last, (now, steady)
        if last is not None and (now - last[0]) - (steady - last[1]) > _JUMP:
            self._hold_until = steady + _JUMP
            self._log("expiry_held", reason="clock_jump", seconds=now - last[0])
        if self._hold_until is not None and steady >= self._hold_until:
            self._hold_until = None
        return self._hold_until is not None

    def _reason(self, row: Row | None, found: os.stat_result, now: float) -> str | None:
        ttl = self.ttl
        if row is not None and row.size == found.st_size:
            if row.expires is not None and row.expires <= now:
                return "expires"
            return "file_ttl" if ttl is not None and row.created + ttl <= now else None
        if ttl is None or now - found.st_ctime < _SETTLED:
            return None
        # The time of change of a shared inode may be that of a twin: the last link counts then.
        since = found.st_mtime if found.st_nlink == 1 else max(found.st_mtime, found.st_ctime)
        return "file_ttl" if since + ttl <= now else None

    def _condemned_rows(self, now: float) -> Iterator[str]:
        condemned = self._metadata.select("expires <= ?", (now,))
        if self.ttl is not None:
            condemned += self._metadata.select("created <= ?", (now - self.ttl,))
        return iter(dict.fromkeys(row.path for row in condemned))

    def _old_files(self, before: float) -> Iterator[str]:
        """Paths of files last written before `before` that have no row."""
        for path, found in walk(self._disk, self._directories):
            if is_regular(found.st_mode) and found.st_mtime <= before:
                try:
                    if self._metadata.get(parse(path)) is None:
                        yield path
                except PathRefused:
                    continue  # not ours: no request could ever have named it

    def _remove(self, paths: Iterator[str], now: float) -> list[Deletion]:
        deletions: list[Deletion] = []
        chunk: list[str] = []

        def verdict(row: Row | None, found: os.stat_result) -> str | None:
            return self._reason(row, found, now)

        def flush() -> None:
            try:
                deletions.extend(self._removal.remove(chunk, verdict, "file_expired"))
            except StorageError as error:
                self._log("expiry_failed", code=error.code, error=str(error))
            chunk.clear()

        for path in paths:
            chunk.append(path)
            if len(chunk) == _CHUNK:
                flush()
        if chunk:
            flush()
        return deletions


def walk(disk: Disk, directories: Directories) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in the tree but directories, with its path; the private folder is left out.

    What vanishes under the walk is skipped, and so is what may not be read.
    """
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            directory = directories.find(path)
            names = [] if directory is None else disk.listdir(directory.fd)
        except _GONE:
            continue
        if directory is None:
            continue
        for name in names:
            if not path and is_private(name):
                continue
            try:
                found = disk.stat(name, dir_fd=directory.fd, follow_symlinks=False)
            except _GONE:
                continue
            below = f"{path}/{name}" if path else name
            if is_directory(found.st_mode):
                waiting.append(below)
            else:
                yield below, found
