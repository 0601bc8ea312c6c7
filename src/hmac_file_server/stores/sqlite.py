"""Session state in SQLite: one database file for all processes of the machine, one writing thread a process.

Changes queue up for the writer, and those that wait together share one transaction and its sync (group
commit); each is answered after its commit. In full durability that is WAL with synchronous=FULL. Reads go to
connections of their own, as many as ever read at once, and see what was committed.

After a failed sync of the log nothing is added to it before all of it is in the database and its file is empty: what
is written once more into room whose sync failed may never reach the medium, although the next sync says so.

Open the store after the fork: neither its thread nor SQLite's locks survive one.
"""

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from random import SystemRandom
from typing import Any, Final, TypeAlias

from hmac_file_server.stores.contract import Change, Done, Log, Result, Session, StoreError, StoreFull
from hmac_file_server.stores.tables import (
    BY_ID,
    BY_KEY,
    DUE,
    SessionDatabaseError,
    apply,
    load,
    prepare,
    recognise,
    session_of,
)

Connect: TypeAlias = Callable[..., sqlite3.Connection]
_Item: TypeAlias = tuple[Change, Done]

# Its own, so that threads of ours never touch the generator that all of Python shares.
_jitter: Final = SystemRandom()
_BATCH: Final = 256
_PATIENCE: Final = 10.0
_PAGE: Final = 1000
_TOGETHER: Final = 500
_OPEN_IDS: Final = "SELECT id FROM uploads WHERE state = 'open' AND id > ? ORDER BY id LIMIT ?"
_OUTSTANDING: Final = "SELECT id, length, received FROM uploads WHERE state = 'open' AND id > ? ORDER BY id LIMIT ?"
_COUNT: Final = "SELECT coalesce(sum(open), 0) FROM owners"
_DAMAGE: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
# The medium or the other processes, not the change, are what is wrong: the rest of a batch fares no better.
_COMMON: Final = ("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL", *_DAMAGE)


class SqliteStore:
    """The store over one database file. Any thread may call."""

    def __init__(
        self,
        file: str,
        *,
        full: bool,
        connect: Connect = sqlite3.connect,
        log: Log | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        """Open or make the database `file`; the folder is there. Raises StoreError.

        `connect` stands for sqlite3.connect. `patience`: seconds to wait while another process writes.
        """
        self._file = file
        self._full = full
        self._connect_to = connect
        self._log: Log = log or _no_log
        self._patience = patience
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[sqlite3.Connection] = []
        self._failing = ""
        self._spoiled = False
        """The medium failed: the log has to be emptied before it takes anything more."""
        self._writer = self._open()
        self._writer.execute("PRAGMA busy_timeout=0")  # waits in a way of its own
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hmac-file-server-sessions", daemon=True)
        self._thread.start()

    # -- the contract

    def submit(self, change: Change, done: Done, /) -> None:
        """See the contract."""
        with self._lock:  # nothing is queued behind the end
            closed = self._closed
            if not closed:
                self._queue.put((change, done))
        if closed:
            self._answer(done, StoreError("the session store is closed"))

    def get(self, session_id: str, /) -> Session | None:
        """See the contract."""
        return self._load(BY_ID, session_id)

    def by_key(self, key: str, /) -> Session | None:
        """See the contract."""
        return self._load(BY_KEY, key)

    def due(self, now: float, limit: int, /) -> list[Session]:
        """See the contract."""
        with self._reader() as connection:
            return [session_of(row) for row in connection.execute(DUE, (now, limit))]

    def outstanding(self) -> Iterator[tuple[str, int, int]]:
        """See the contract. Pages through: no transaction stays open while the caller takes its time."""
        for row in self._pages(_OUTSTANDING):
            yield row[0], row[2] if row[1] is None else row[1], row[2]

    def open_ids(self) -> Iterator[str]:
        """Ids of every open session, in pages. Raises StoreError."""
        for row in self._pages(_OPEN_IDS):
            yield row[0]

    def open_sessions(self) -> int:
        """See the contract."""
        with self._reader() as connection:
            count: int = connection.execute(_COUNT).fetchone()[0]
        return count

    def known(self, session_ids: Iterable[str], /) -> set[str]:
        """See the contract."""
        found: set[str] = set()
        remaining = iter(session_ids)
        while some := list(islice(remaining, _TOGETHER)):
            marks = ",".join("?" * len(some))
            with self._reader() as connection:
                rows = connection.execute(f"SELECT id FROM uploads WHERE id IN ({marks})", some)  # noqa: S608
                found.update(row[0] for row in rows)
        return found

    def close(self) -> None:
        """See the contract. Reads that are under way end well, later ones raise StoreError."""
        with self._lock:
            first = not self._closed
            self._closed = True
        if first:
            self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- connections

    def _open(self) -> sqlite3.Connection:
        # A process that was killed may have left a log that its disk had failed to take.
        left = self._full and _is_there(f"{self._file}-wal")
        try:
            connection = self._connection()
        except (SessionDatabaseError, sqlite3.Error) as error:
            raise _store_error(error) from error
        try:
            new = not recognise(connection)
            self._use_wal(connection)
            self._set_up(connection)
            if new:
                prepare(connection)
            if left:
                connection.execute("PRAGMA busy_timeout=0")  # others may be at work; they know of their failures
                with suppress(sqlite3.Error):
                    _empty_log(connection)
            if self._full:
                _sync_names(self._file)
        except BaseException as error:
            connection.close()
            if isinstance(error, SessionDatabaseError | sqlite3.Error | OSError):
                raise _store_error(error) from error
            raise
        return connection

    def _connection(self) -> sqlite3.Connection:
        return self._connect_to(
            self._file,
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        connection.execute(f"PRAGMA synchronous={'FULL' if self._full else 'NORMAL'}")

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log; SQLite does not wait for another process that is at it, so we do."""
        until = time.monotonic() + self._patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, given back afterwards. Raises StoreError, also for what the body raises."""
        if self._closed:
            raise StoreError("the session store is closed")
        connection: sqlite3.Connection | None = None
        try:
            try:
                connection = self._idle.pop()  # the one used last is the one whose cache is warm
            except IndexError:
                connection = self._connection()
            yield connection
            if connection.in_transaction:
                connection.execute("ROLLBACK")  # nothing was written
        except (sqlite3.Error, ValueError, OverflowError) as error:
            if connection is not None:
                connection.close()  # in doubt; the next one starts afresh
                connection = None
            raise _store_error(error) from error
        finally:
            if connection is not None:
                self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and not connection.in_transaction:
                self._idle.append(connection)
                return
        connection.close()

    def _load(self, statement: str, value: str) -> Session | None:
        with self._reader() as connection:
            connection.execute("BEGIN")  # the row and its ranges of the same moment
            return load(connection, statement, value)

    def _pages(self, statement: str) -> Iterator[tuple[Any, ...]]:
        last = ""
        while True:
            with self._reader() as connection:
                rows = connection.execute(statement, (last, _PAGE)).fetchall()
            yield from rows
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    # -- the writer

    def _run(self) -> None:
        take = self._queue.get
        running = True
        while running:
            item = take()
            batch: list[_Item] = []
            while True:
                if item is None:
                    running = False  # nothing is queued behind it
                    break
                batch.append(item)
                if len(batch) >= _BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._commit(batch)
        self._writer.close()

    def _commit(self, batch: list[_Item]) -> None:
        try:
            results = self._transact([change for change, _done in batch])
        except Exception as error:
            if len(batch) > 1 and not _common(error):
                for item in batch:  # one of them is to blame, the others are not to suffer for it
                    self._commit([item])
                return
            failure = _store_error(error)
            self._note(error, failure, len(batch))
            for _change, done in batch:
                self._answer(done, failure)
            return
        if self._failing:
            self._failing = ""
            self._log("sessions_written_again")
        for (_change, done), result in zip(batch, results, strict=True):
            self._answer(done, result)

    def _transact(self, changes: list[Change]) -> list[Result]:
        """Make the changes in one transaction. Raises whatever went wrong; then none was made."""
        writer = self._writer
        self._roll_back()
        if self._spoiled:
            self._renew_log()
        self._begin()
        try:
            results = [apply(writer, change) for change in changes]
            writer.execute("COMMIT")
        except BaseException as error:
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR"):
                self._spoiled = True
            with suppress(sqlite3.Error):  # then it is tried again before the next one
                self._roll_back()
            raise
        return results

    def _renew_log(self) -> None:
        """Empty the log, once nobody reads out of it. Raises StoreError, sqlite3.Error; then nothing can be written."""
        until = time.monotonic() + self._patience
        while not _empty_log(self._writer):
            if time.monotonic() >= until:
                raise StoreError("the session database is busy")
            time.sleep(_jitter.uniform(0.0001, 0.001))
        self._spoiled = False

    def _begin(self) -> None:
        """Begin to write, once no other process does.

        SQLite would ask at ever longer intervals, and with processes that commit all the time one of them
        then waits for half a second. Asking costs a few microseconds.
        """
        until = 0.0
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                now = time.monotonic()
                until = until or now + self._patience
                if now >= until:
                    raise
            time.sleep(_jitter.uniform(0.0001, 0.001))

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _note(self, error: Exception, failure: StoreError, count: int) -> None:
        """Log a failure; one of the medium not again while it stays the same."""
        if not _medium(error):
            self._log("session_change_failed", error=repr(error))
            return
        name = getattr(error, "sqlite_errorname", "")
        if name != self._failing:
            self._failing = name
            self._log("sessions_not_written", changes=count, error=str(failure))

    def _answer(self, done: Done, result: Result) -> None:
        try:
            done(result)
        except Exception as error:
            self._log("session_callback_failed", error=repr(error))


def _is_there(file: str) -> bool:
    try:
        return os.stat(file).st_size > 0
    except OSError:
        return False


def _empty_log(connection: sqlite3.Connection) -> bool:
    """Put all that is in the log into the database and make its file empty; False while others are at it."""
    busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy


def _sync_names(file: str) -> None:
    """Have the names of the database and of its log on the medium. Raises OSError.

    SQLite syncs the folder after its first write, and takes no notice when that fails: whatever was answered
    since would be lost with the log's name.
    """
    fd = os.open(os.path.dirname(file) or os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _common(error: Exception) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(_COMMON)


def _medium(error: Exception) -> bool:
    return _common(error) or getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL")


def _store_error(error: Exception) -> StoreError:
    """The error to answer with; its text names no path."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, SessionDatabaseError):
        return StoreError(str(error))
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if name.startswith("SQLITE_FULL"):
        return StoreFull("the session database has no space left")
    if name.startswith("SQLITE_READONLY"):
        return StoreError("the session database is read-only")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(f"the session database is busy ({name})")
    if name.startswith(_DAMAGE):
        return StoreError(f"the session database is damaged ({name})")
    return StoreError(f"the session database failed ({name})")


def _no_log(event: str, /, **fields: object) -> None:
    pass
