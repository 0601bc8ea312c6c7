"""Group commit: one thread publishes what is ready, and shares the syncs of directories and of metadata.

In full durability a job's data is on the medium before it gets here. For a batch the thread links every
file, syncs every directory that got an entry (once each, with the parents of new directories), writes all
rows in one transaction, and only then tells anybody. In relaxed durability there is nothing to sync, and the
thread also writes the rows that wait in memory.

A sync that failed is never tried again: what depended on it is answered with StorageFailed. The names
stay: another upload of the same bytes may have been told by now that they are there.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from hmac_file_server.files.contract import (
    Done,
    Log,
    Metadata,
    PathRefused,
    Placed,
    Published,
    StorageBusy,
    StorageError,
    StorageFailed,
    StoragePath,
    Submit,
)
from hmac_file_server.files.directories import Directory
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.metadata import MetadataTable, Row
from hmac_file_server.files.spool import Source

_BATCH: Final = 256
_FLUSH_AFTER: Final = 0.05
_RETRY_AFTER: Final = 1.0
_MANY_ROWS: Final = 4096
_SYNCERS: Final = 7
_PATIENCE: Final = 30.0


class Job:
    """One publish under way."""

    __slots__ = ("directory", "done", "meta", "path", "placed", "prepare", "row", "spool")

    def __init__(
        self,
        spool: Source,
        path: StoragePath,
        meta: Metadata,
        done: Done,
        prepare: Callable[[], None] | None = None,
        placed: Placed | None = None,
    ) -> None:
        self.spool = spool
        self.placed = placed
        self.prepare = prepare
        """What has to be done first, on a worker, instead of a sync of the data; raises StorageError."""
        self.path = path
        self.meta = meta
        self.done: Done | None = done
        """None once it was answered."""
        self.directory: Directory | None = None
        self.row: Row | None = None


class Steps:
    """What the committer asks of the store, so that it knows none of its details."""

    __slots__ = ("entry", "failed", "place", "row", "settle")

    def __init__(
        self,
        *,
        place: Callable[[Source, StoragePath], Directory | None],
        row: Callable[[Source, StoragePath, Metadata], Row],
        settle: Callable[[Source, StoragePath, Metadata], Published],
        entry: Callable[[Row], Published],
        failed: Callable[[str, BaseException], StorageError],
    ) -> None:
        self.place = place
        """Link the spool; None when the path is taken."""
        self.row = row
        self.settle = settle
        """Compare with what is at the path; may block for long."""
        self.entry = entry
        self.failed = failed
        """Note a failed sync; the error to answer with."""


class Committer:
    """The thread and its queue."""

    def __init__(
        self, disk: Disk, metadata: MetadataTable, steps: Steps, *, full: bool, submit: Submit, log: Log
    ) -> None:
        self._disk = disk
        self._metadata = metadata
        self._steps = steps
        self._full = full
        self._submit = submit
        self._log = log
        self._flush_failed = False
        self._under_way = 0
        self._idle = threading.Condition()
        self._queue: queue.SimpleQueue[Job | bool] = queue.SimpleQueue()
        # Its threads start when a batch first has directories enough.
        self._syncers = ThreadPoolExecutor(_SYNCERS, "hmac-file-server-sync")
        self._thread = threading.Thread(target=self._run, name="hmac-file-server-commit", daemon=True)
        self._thread.start()

    def begin(self, job: Job) -> None:
        """Take the job: its data is synced first where that is asked for, on a worker."""
        with self._idle:
            self._under_way += 1
        if not self._full and job.prepare is None:
            self._queue.put(job)
            return
        try:
            self._submit(lambda: self.sync(job))
        except RuntimeError:  # the workers are shut down
            self._answer(job, StorageBusy("the server is stopping"))

    def begin_here(self, job: Job) -> None:
        """As `begin`, with the sync of the data in the calling thread."""
        with self._idle:
            self._under_way += 1
        self.sync(job)

    def sync(self, job: Job) -> None:
        """Sync the data of the job and queue it."""
        try:
            if job.prepare is None:
                self._disk.fdatasync(job.spool.fd)
            else:
                job.prepare()
        except StorageError as error:
            self._answer(job, error)
        except BaseException as error:
            self._answer(job, self._steps.failed("data", error))
        else:
            self._queue.put(job)

    def flush_soon(self) -> None:
        """Rows wait: write them within 50 ms."""
        self._queue.put(True)

    def close(self) -> None:
        """Finish what was begun, for half a minute at most, and end the thread."""
        with self._idle:
            if not self._idle.wait_for(lambda: self._under_way == 0, _PATIENCE):
                self._log("publishes_abandoned", count=self._under_way)
        if self._thread.is_alive():
            self._queue.put(False)
            self._thread.join()
        self._syncers.shutdown()

    def _run(self) -> None:
        take = self._queue.get
        running = True
        while running:
            first = take()
            batch: list[Job] = []
            flush = False
            while True:
                if isinstance(first, Job):
                    batch.append(first)
                elif first:
                    flush = True  # several such at once are one
                else:
                    running = False
                if len(batch) >= _BATCH:
                    break
                try:
                    first = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._commit(batch)
            if flush and running:
                self._gather()

    def _gather(self) -> None:
        """Let rows come together for a moment, serving jobs meanwhile, and write them."""
        until = time.monotonic() + (_RETRY_AFTER if self._flush_failed else _FLUSH_AFTER)
        while (left := until - time.monotonic()) > 0 and len(self._metadata.pending) < _MANY_ROWS:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(item, Job):
                self._commit([item])
            elif not item:
                self._queue.put(False)
                break
        try:
            self._metadata.flush()
            self._flush_failed = False
        except StorageError as error:
            self._flush_failed = True
            self._log("metadata_flush_failed", code=error.code, error=str(error), rows=len(self._metadata.pending))
        if self._metadata.pending:
            self._queue.put(True)  # whoever adds to rows that wait already does not say so

    def _commit(self, batch: list[Job]) -> None:
        try:
            self._publish(batch)
        except BaseException as error:  # a fault of ours must not leave callers waiting for ever
            self._log("commit_failed", error=repr(error))
            for job in batch:
                self._answer(job, StorageFailed("the publish failed"))

    def _publish(self, batch: list[Job]) -> None:
        steps = self._steps
        placed: list[Job] = []
        for job in batch:
            try:
                job.directory = steps.place(job.spool, job.path)
            except (StorageError, PathRefused) as error:
                self._answer(job, error)
                continue
            if job.directory is None:
                self._settle(job)
            else:
                job.row = steps.row(job.spool, job.path, job.meta)
                self._tell(job, job.row)
                placed.append(job)
        if self._full and placed:
            placed = self._sync(placed)
        if not placed:
            return
        rows = [job.row for job in placed if job.row is not None]
        if not self._full:
            for row in rows:
                self._metadata.put_later(row)
            self.flush_soon()
        else:
            try:
                self._metadata.put(rows)
            except StorageError as error:
                for job in placed:
                    self._answer(job, error)
                return
        for job in placed:
            if job.row is not None:
                self._answer(job, steps.entry(job.row))

    def _tell(self, job: Job, row: Row) -> None:
        """Its entry is settled, and not durable yet."""
        entry = None if job.placed is None else self._steps.entry(row).entry
        if job.placed is not None and entry is not None:
            try:
                job.placed(entry)
            except Exception as error:
                self._log("publish_callback_failed", error=repr(error))

    def _sync(self, placed: list[Job]) -> list[Job]:
        """Sync the directories of the jobs; those whose directory is on the medium now."""
        wanted: dict[Directory, list[Directory]] = {}
        for job in placed:
            if job.directory is not None and job.directory not in wanted:
                wanted[job.directory] = list(to_sync(job.directory))
        failures = self._sync_directories({each: None for chain in wanted.values() for each in chain})
        fine = []
        for job in placed:
            broken = next((failures[d] for d in wanted.get(job.directory, ()) if d in failures), None)  # type: ignore[arg-type]
            if broken is None:
                fine.append(job)
            else:
                self._answer(job, self._steps.failed("directory", broken))
        for directory, chain in wanted.items():
            if not any(each in failures for each in chain):
                for each in directory.lineage():
                    each.durable = True
        return fine

    def _sync_directories(self, directories: Iterable[Directory]) -> dict[Directory, OSError]:
        """As `sync_all`, several at a time: the block layer makes one flush of those that come together.

        The threads are the committer's own. The workers might all be waiting for this very commit.
        """
        shares = [share for share in _shares(list(directories)) if share]
        if len(shares) == 1:
            return sync_all(self._disk, shares[0])
        others = [self._syncers.submit(sync_all, self._disk, share) for share in shares[1:]]
        failures = sync_all(self._disk, shares[0])
        for other in others:
            failures |= other.result()
        return failures

    def _settle(self, job: Job) -> None:
        def work() -> None:
            try:
                result: Published | StorageError | PathRefused = self._steps.settle(job.spool, job.path, job.meta)
            except (StorageError, PathRefused) as error:
                result = error
            except BaseException as error:
                self._log("commit_failed", error=repr(error))
                result = StorageFailed("the publish failed")
            self._answer(job, result)

        try:
            self._submit(work)
        except RuntimeError:  # the workers are shut down
            work()

    def _answer(self, job: Job, result: Published | StorageError | PathRefused) -> None:
        done = job.done
        if done is None:
            return
        job.done = None
        job.spool.end()
        try:
            done(result)
        except Exception as error:
            self._log("publish_callback_failed", error=repr(error))
        finally:
            with self._idle:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.notify_all()


def to_sync(directory: Directory) -> list[Directory]:
    """The directory itself, and the parent of every one above whose entry may not be on the medium."""
    wanted = [directory]
    wanted += [each.parent for each in directory.lineage() if each.parent is not None and not each.durable]
    return list(dict.fromkeys(wanted))


def _shares(directories: list[Directory]) -> Iterator[list[Directory]]:
    count = min(_SYNCERS + 1, (len(directories) + 1) // 2)
    for first in range(max(count, 1)):
        yield directories[first :: max(count, 1)]


def sync_all(disk: Disk, directories: Iterable[Directory]) -> dict[Directory, OSError]:
    """Sync each once; the errors of those that failed."""
    failures: dict[Directory, OSError] = {}
    for directory in directories:
        try:
            disk.fsync(directory.fd)
        except OSError as error:
            failures[directory] = error.with_traceback(None)  # else it would keep this frame, and all descriptors
    return failures
