"""What the store knows about its files: one SQLite database in the private folder.

Two tables: `files`, one row a published file, and `tickets`, how often an upload link was used. In full
durability rows are written inside the committer's transaction (WAL, synchronous=FULL). In relaxed
durability they are kept in a dictionary that every look-up asks first, and written in batches.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import msgspec
from msgspec import structs

from hmac_file_server.files.contract import StorageBusy
from hmac_file_server.files.disk import Disk, storage_error

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE files (
  path TEXT PRIMARY KEY NOT NULL,
  media_type TEXT NOT NULL,
  filename TEXT,
  owner TEXT,
  size INTEGER NOT NULL,
  digest TEXT,
  created REAL NOT NULL,
  expires REAL,
  ticket TEXT
) WITHOUT ROWID, STRICT;
CREATE INDEX files_expires ON files (expires) WHERE expires IS NOT NULL;
CREATE INDEX files_owner ON files (owner) WHERE owner IS NOT NULL;
CREATE TABLE tickets (
  id TEXT PRIMARY KEY NOT NULL,
  used INTEGER NOT NULL,
  expires REAL NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE facts (
  name TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
) WITHOUT ROWID, STRICT;
"""
_COLUMNS: Final = "path, media_type, filename, owner, size, digest, created, expires, ticket"
_SELECT: Final = f"SELECT {_COLUMNS} FROM files WHERE path = ?"  # noqa: S608 - names are constants
_REPLACE: Final = f"INSERT OR REPLACE INTO files ({_COLUMNS}) VALUES "  # noqa: S608
_IGNORE: Final = f"INSERT OR IGNORE INTO files ({_COLUMNS}) VALUES "  # noqa: S608
_VALUES: Final = "(?,?,?,?,?,?,?,?,?)"
_BUSY_MS: Final = 10_000
_BATCH: Final = 2048
_TOGETHER: Final = (64, 8, 1)
"""Rows a statement. sqlite3 drops and takes the GIL once a step: a step a row would make the thread that
publishes wait for it at every turn."""
_PATIENCE: Final = 10.0
_PENDING_LIMIT: Final = 1 << 17


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of `files`, in the order of its columns; `filename` None when it is the last segment of the path."""

    path: str
    media_type: str
    filename: str | None
    owner: str | None
    size: int
    digest: str | None
    created: float
    expires: float | None
    ticket: str | None


class MetadataTable:
    """The database. Any thread may call; each has its own reading connection."""

    def __init__(self, disk: Disk, file: str, *, full: bool) -> None:
        """Open or make the database `file`. Raises StorageError, also when it is of a newer version."""
        self._disk = disk
        self._file = file
        self._full = full
        self._local = threading.local()
        self._lock = threading.Lock()
        self._pending_lock = threading.Lock()
        # Held over a whole flush: a row must not be written after it was removed.
        self._flushing = threading.Lock()
        self._open: list[sqlite3.Connection] = []
        self._closed = False
        self._spoiled = False
        """The medium failed. What is written once more into room whose sync failed may never reach it, although the
        next sync says so: the log has to be emptied before it takes anything more."""
        self.pending: dict[str, Row] = {}
        """Rows of files already visible that wait to be written; relaxed durability only."""
        try:
            # A process that was killed may have left a log that its disk had failed to take.
            left = full and self._log_is_there()
            self._writer = self._connect()
            self._migrate()
            if left:
                self._writer.execute("PRAGMA busy_timeout=0")
                with contextlib.suppress(sqlite3.Error):
                    self._empty_log()
                self._writer.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise storage_error(error) from error
            raise

    # -- reading

    def get(self, path: str) -> Row | None:
        """The row of a path. Raises StorageError."""
        row = self.pending.get(path)
        return row if row is not None else self.committed(path)

    def committed(self, path: str) -> Row | None:
        """The row of a path as it stands in the database. Raises StorageError."""
        try:
            found = self._reader().execute(_SELECT, (path,)).fetchone()
        except sqlite3.Error as error:
            raise storage_error(error) from error
        return None if found is None else Row(*found)

    def select(self, where: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Rows by a condition of ours (never text of a user). Raises StorageError."""
        try:
            found = self._reader().execute(f"SELECT {_COLUMNS} FROM files WHERE {where}", parameters)  # noqa: S608
            return [Row(*row) for row in found]
        except sqlite3.Error as error:
            raise storage_error(error) from error

    # -- writing

    def put_later(self, row: Row) -> int:
        """Keep the row in memory until `flush`; the number of rows that wait now."""
        pending = self.pending
        with self._pending_lock:
            pending[row.path] = row
        return len(pending)

    @property
    def stuck(self) -> bool:
        """Whether so many rows wait that the database must have been failing for long."""
        return len(self.pending) > _PENDING_LIMIT

    def flush(self) -> int:
        """Write what waits; the number of rows written. Raises StorageError and keeps the rows."""
        with self._flushing:
            with self._pending_lock:
                rows = list(self.pending.values())
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                self.put(batch)
                with self._pending_lock:
                    for row in batch:
                        if self.pending.get(row.path) is row:
                            del self.pending[row.path]
        return len(rows)

    def put(self, rows: Iterable[Row], *, heal: bool = False) -> None:
        """Write rows in one transaction, durable in full durability. `heal`: only where none stands yet."""
        insert = _IGNORE if heal else _REPLACE
        values = [structs.astuple(row) for row in rows]
        statements = []
        start = 0
        for count in _TOGETHER:
            steps = []
            while len(values) - start >= count:
                steps.append(tuple(chain.from_iterable(values[start : start + count])))
                start += count
            if steps:
                statements.append((insert + ",".join([_VALUES] * count), steps))
        self._transact(statements)

    def remove(self, rows: Iterable[Row]) -> None:
        """Remove exactly these rows: one that was replaced meanwhile (another `created`) stays."""
        rows = list(rows)
        with self._flushing:
            with self._pending_lock:
                for row in rows:
                    if self.pending.get(row.path) == row:
                        del self.pending[row.path]
            keys = [(row.path, row.created) for row in rows]
            self._transact([("DELETE FROM files WHERE path = ? AND created = ?", keys)])

    # -- tickets

    def take_ticket(self, ticket_id: str, max_files: int, expires: float) -> bool:
        """One more use; False when there were `max_files` before. Raises StorageError."""
        statement = (
            "INSERT INTO tickets (id, used, expires) SELECT :id, 1, :expires WHERE :most >= 1 "
            "ON CONFLICT (id) DO UPDATE SET used = used + 1 WHERE used < :most"
        )
        return self._transact([(statement, [{"id": ticket_id, "most": max_files, "expires": expires}])]) > 0

    def give_back_ticket(self, ticket_id: str) -> None:
        """One use less, never below none. Raises StorageError."""
        self._transact([("UPDATE tickets SET used = used - 1 WHERE id = ? AND used > 0", [(ticket_id,)])])

    def drop_tickets(self, before: float) -> None:
        """Forget tickets that expired before. Raises StorageError."""
        self._transact([("DELETE FROM tickets WHERE expires < ?", [(before,)])])

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file; nothing when it is sound. Raises StorageError."""
        try:
            found = [str(line[0]) for line in self._reader().execute("PRAGMA integrity_check(100)")]
        except sqlite3.Error as error:
            if type(error) is sqlite3.DatabaseError:  # so malformed that the check itself gave up
                return [str(error)]
            raise storage_error(error) from error
        return [] if found == ["ok"] else found

    # -- facts

    def fact(self, name: str) -> str | None:
        """A remembered word about the store. Raises StorageError."""
        try:
            found = self._reader().execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            raise storage_error(error) from error
        return None if found is None else str(found[0])

    def set_fact(self, name: str, value: str) -> None:
        """Remember a word about the store. Raises StorageError."""
        self._transact([("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", [(name, value)])])

    # -- the connections

    def close(self) -> None:
        """Write what waits and close every connection. Idempotent. Raises StorageError when rows were lost."""
        with self._lock:
            if self._closed:
                return
        try:
            if self.pending:
                self.flush()
        finally:
            with self._lock:
                self._closed = True
                for connection in self._open:
                    connection.close()
                self._open.clear()

    def _transact(self, statements: Sequence[tuple[str, Sequence[Sequence[object] | dict[str, object]]]]) -> int:
        """Run the statements in one transaction; the number of rows changed. Raises StorageError."""
        with self._lock:
            writer = self._writer
            before = writer.total_changes
            try:
                if self._spoiled:
                    if not self._empty_log():
                        raise StorageBusy("the metadata database is busy")
                    self._spoiled = False
                writer.execute("BEGIN IMMEDIATE")
                try:
                    for statement, rows in statements:
                        writer.executemany(statement, rows)
                    writer.execute("COMMIT")
                except BaseException:
                    if writer.in_transaction:
                        writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR"):
                    self._spoiled = True
                raise storage_error(error) from error
            return writer.total_changes - before

    def _log_is_there(self) -> bool:
        try:
            return self._disk.stat(f"{self._file}-wal").st_size > 0
        except OSError:
            return False

    def _empty_log(self) -> bool:
        """Put all that is in the log into the database and make its file empty; False while others are at it."""
        busy: int = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return not busy

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._lock:
                connection = self._connect()
            self._local.connection = connection
        return connection

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("the store is closed")
        connection = self._disk.connect(
            self._file, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        self._open.append(connection)
        self._use_wal(connection)
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        connection.execute(f"PRAGMA synchronous={'FULL' if self._full else 'NORMAL'}")
        return connection

    @staticmethod
    def _use_wal(connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log; SQLite does not wait for another process that is at it, so we do."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _migrate(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version == _VERSION:
            return
        self._writer.execute("BEGIN IMMEDIATE")
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]  # another process may have been first
        if version > _VERSION:
            self._writer.execute("ROLLBACK")
            raise sqlite3.NotSupportedError("the database was written by a newer version of the server")
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    self._writer.execute(statement)
        self._writer.execute(f"PRAGMA user_version={_VERSION}")
        self._writer.execute("COMMIT")
