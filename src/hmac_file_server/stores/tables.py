"""Tables of the session database, and what each change does to them.

`uploads` has one row a session. Its durable bytes are rows of `ranges`, so that a checkpoint touches the
neighbours of what it adds and nothing else, however many ranges there are; their sum is kept in `received`.
`owners` counts open sessions, in the transaction that opens or ends one: the limit is exact, and costs one
look-up. Every function here runs inside a transaction of its caller.
"""

import sqlite3
from typing import Final

from hmac_file_server.stores.contract import (
    COMPLETE,
    EXPIRED,
    FAILED,
    OPEN,
    Change,
    Checkpoint,
    Claim,
    Create,
    Finish,
    Remove,
    Result,
    Session,
    Span,
    StoreError,
    TooManySessions,
)

VERSION: Final = 1
APPLICATION: Final = 0x484D5553
"""`PRAGMA application_id` of the file: any other database is refused before a byte of it changes."""
SCHEMA: Final = (
    """CREATE TABLE uploads (
      id TEXT PRIMARY KEY NOT NULL,
      state TEXT NOT NULL CHECK (state IN ('open', 'complete', 'failed', 'expired')),
      protocol TEXT NOT NULL,
      path TEXT NOT NULL,
      length INTEGER,
      chunk_size INTEGER,
      filename TEXT NOT NULL,
      media_type TEXT,
      owner TEXT NOT NULL,
      key TEXT,
      created REAL NOT NULL,
      active REAL NOT NULL,
      deadline REAL NOT NULL,
      epoch INTEGER NOT NULL,
      details BLOB NOT NULL,
      receipt BLOB NOT NULL,
      received INTEGER NOT NULL
    ) WITHOUT ROWID, STRICT""",
    "CREATE UNIQUE INDEX uploads_key ON uploads (key) WHERE key IS NOT NULL",
    "CREATE INDEX uploads_deadline ON uploads (deadline)",
    "CREATE INDEX uploads_open ON uploads (id) WHERE state = 'open'",
    """CREATE TABLE ranges (
      upload TEXT NOT NULL,
      start INTEGER NOT NULL CHECK (start >= 0),
      stop INTEGER NOT NULL CHECK (stop > start),
      PRIMARY KEY (upload, start)
    ) WITHOUT ROWID, STRICT""",
    """CREATE TABLE owners (
      owner TEXT PRIMARY KEY NOT NULL,
      open INTEGER NOT NULL CHECK (open > 0)
    ) WITHOUT ROWID, STRICT""",
)
COLUMNS: Final = (
    "id, state, protocol, path, length, chunk_size, filename, media_type, owner, key, created, active, deadline,"
    " epoch, details, receipt"
)
BY_ID: Final = f"SELECT {COLUMNS} FROM uploads WHERE id = ?"  # noqa: S608 - names are constants
BY_KEY: Final = f"SELECT {COLUMNS} FROM uploads WHERE key = ?"  # noqa: S608
DUE: Final = f"SELECT {COLUMNS} FROM uploads WHERE deadline <= ? ORDER BY deadline LIMIT ?"  # noqa: S608
_INSERT: Final = f"INSERT INTO uploads ({COLUMNS}, received) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,0)"  # noqa: S608
_RANGES: Final = "SELECT start, stop FROM ranges WHERE upload = ? ORDER BY start"
# From the last range that starts at or before the span up to the last one that it touches.
_NEIGHBOURS: Final = (
    "SELECT start, stop FROM ranges WHERE upload = :id AND start <= :stop AND start >= coalesce("
    "(SELECT max(start) FROM ranges WHERE upload = :id AND start <= :start), :start) ORDER BY start"
)
_ENDS: Final = frozenset({COMPLETE, FAILED, EXPIRED})


class SessionDatabaseError(Exception):
    """The file is none of ours, or of a newer version. Its text is for people."""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where there are none. Raises SessionDatabaseError, sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _present(connection):  # else another process was first
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def recognise(connection: sqlite3.Connection) -> bool:
    """Whether the tables are there already; False for a new file. Changes nothing.

    Raises SessionDatabaseError when the file is not for us, sqlite3.Error.
    """
    connection.execute("BEGIN")  # one view of it, another process may be making the tables
    try:
        return _present(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _present(connection: sqlite3.Connection) -> bool:
    application, version, entries = (
        connection.execute(question).fetchone()[0]
        for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema")
    )
    if application == version == entries == 0:
        return False
    if application != APPLICATION:
        raise SessionDatabaseError("the session database is a database of something else")
    if version != VERSION:
        raise SessionDatabaseError("the session database was written by a newer version of the server")
    return True


def load(connection: sqlite3.Connection, statement: str, value: str) -> Session | None:
    """The session that the statement (BY_ID, BY_KEY) finds, with its ranges."""
    row = connection.execute(statement, (value,)).fetchone()
    return None if row is None else session_of(row, tuple(connection.execute(_RANGES, (row[0],))))


def session_of(row: tuple[object, ...], ranges: tuple[Span, ...] = ()) -> Session:
    """The session of a row with COLUMNS."""
    (
        session_id,
        state,
        protocol,
        path,
        length,
        chunk_size,
        filename,
        media_type,
        owner,
        key,
        created,
        active,
        deadline,
        epoch,
        details,
        receipt,
    ) = row
    return Session(  # STRICT tables: the columns have these types
        id=session_id,  # type: ignore[arg-type]
        state=state,  # type: ignore[arg-type]
        protocol=protocol,  # type: ignore[arg-type]
        path=path,  # type: ignore[arg-type]
        length=length,  # type: ignore[arg-type]
        chunk_size=chunk_size,  # type: ignore[arg-type]
        filename=filename,  # type: ignore[arg-type]
        media_type=media_type,  # type: ignore[arg-type]
        owner=owner,  # type: ignore[arg-type]
        key=key,  # type: ignore[arg-type]
        created=created,  # type: ignore[arg-type]
        active=active,  # type: ignore[arg-type]
        deadline=deadline,  # type: ignore[arg-type]
        epoch=epoch,  # type: ignore[arg-type]
        details=details,  # type: ignore[arg-type]
        receipt=receipt,  # type: ignore[arg-type]
        ranges=ranges,
    )


def apply(connection: sqlite3.Connection, change: Change) -> Result:
    """Make the change; its result as the contract has it. Raises what SQLite does on values it cannot keep."""
    match change:
        case Create():
            return _create(connection, change.session, change.limit)
        case Claim():
            return _claim(connection, change)
        case Checkpoint():
            return _checkpoint(connection, change)
        case Finish():
            return _finish(connection, change)
        case Remove():
            return _remove(connection, change)


def _create(connection: sqlite3.Connection, session: Session, limit: int) -> Session | StoreError:
    if session.key is not None:
        present = load(connection, BY_KEY, session.key)
        if present is not None:
            return present  # before the limit: a repeat opens nothing
    if session.state == OPEN:
        found = connection.execute("SELECT open FROM owners WHERE owner = ?", (session.owner,)).fetchone()
        count = found[0] if found else 0
        if count >= limit:
            return TooManySessions(f"{count} uploads are open, {limit} are allowed")
        connection.execute(
            "INSERT INTO owners (owner, open) VALUES (?, 1) ON CONFLICT (owner) DO UPDATE SET open = open + 1",
            (session.owner,),
        )
    connection.execute(
        _INSERT,
        (
            session.id,
            session.state,
            session.protocol,
            session.path,
            session.length,
            session.chunk_size,
            session.filename,
            session.media_type,
            session.owner,
            session.key,
            session.created,
            session.active,
            session.deadline,
            session.epoch,
            session.details,
            session.receipt,
        ),
    )
    if session.ranges:
        gained = sum(_merge(connection, session.id, start, stop) for start, stop in session.ranges)
        connection.execute("UPDATE uploads SET received = ? WHERE id = ?", (gained, session.id))
    return session


def _claim(connection: sqlite3.Connection, change: Claim) -> Session | None:
    changed = connection.execute(
        "UPDATE uploads SET epoch = epoch + 1 WHERE id = ? AND epoch = ?", (change.id, change.epoch)
    ).rowcount
    return load(connection, BY_ID, change.id) if changed else None


def _checkpoint(connection: sqlite3.Connection, change: Checkpoint) -> bool:
    # The row first: its check comes before any range is touched, and `received` is corrected only if it grew.
    changed = connection.execute(
        "UPDATE uploads SET active = ?, deadline = ?, length = coalesce(?, length),"
        " chunk_size = coalesce(?, chunk_size) WHERE id = ? AND epoch = ? AND state = 'open'",
        (change.active, change.deadline, change.length, change.chunk_size, change.id, change.epoch),
    ).rowcount
    if not changed:
        return False
    gained = sum(_merge(connection, change.id, start, stop) for start, stop in change.spans)
    if gained:
        connection.execute("UPDATE uploads SET received = received + ? WHERE id = ?", (gained, change.id))
    return True


def _merge(connection: sqlite3.Connection, upload: str, start: int, stop: int) -> int:
    """Add a span to the ranges; the number of bytes that were not in them before."""
    if not 0 <= start <= stop:
        raise ValueError("a span does not end before it starts, or start before the file")
    if start == stop:
        return 0
    touched: list[Span] = connection.execute(_NEIGHBOURS, {"id": upload, "start": start, "stop": stop}).fetchall()
    if touched and touched[0][1] < start:
        del touched[0]  # ends before the span begins
    if not touched:
        connection.execute("INSERT INTO ranges (upload, start, stop) VALUES (?, ?, ?)", (upload, start, stop))
        return stop - start
    first, last = min(touched[0][0], start), max(touched[-1][1], stop)
    if touched == [(first, last)]:
        return 0
    before = sum(end - begin for begin, end in touched)
    # The first row is kept where it starts right: growing at the end, the common case, is one update.
    gone = touched[1:] if touched[0][0] == first else touched
    connection.executemany(
        "DELETE FROM ranges WHERE upload = ? AND start = ?", [(upload, begin) for begin, _end in gone]
    )
    connection.execute(
        "INSERT INTO ranges (upload, start, stop) VALUES (?, ?, ?)"
        " ON CONFLICT (upload, start) DO UPDATE SET stop = excluded.stop",
        (upload, first, last),
    )
    return last - first - before


def _finish(connection: sqlite3.Connection, change: Finish) -> bool:
    if change.state not in _ENDS:
        raise ValueError("a session does not end like this")
    found = connection.execute(
        "UPDATE uploads SET state = ?, receipt = ?, deadline = ? WHERE id = ? AND epoch = ? AND state = 'open'"
        " RETURNING owner",
        (change.state, change.receipt, change.deadline, change.id, change.epoch),
    ).fetchall()
    if not found:
        return False
    _discount(connection, found[0][0])
    if change.state != COMPLETE:
        connection.execute("DELETE FROM ranges WHERE upload = ?", (change.id,))
        connection.execute("UPDATE uploads SET received = 0 WHERE id = ?", (change.id,))
    return True


def _remove(connection: sqlite3.Connection, change: Remove) -> bool:
    found = connection.execute(
        "DELETE FROM uploads WHERE id = ? AND epoch = ? RETURNING state, owner", (change.id, change.epoch)
    ).fetchall()
    if not found:
        return False
    state, owner = found[0]
    if state == OPEN:
        _discount(connection, owner)
    connection.execute("DELETE FROM ranges WHERE upload = ?", (change.id,))
    return True


def _discount(connection: sqlite3.Connection, owner: str) -> None:
    """One open session less."""
    if not connection.execute("UPDATE owners SET open = open - 1 WHERE owner = ? AND open > 1", (owner,)).rowcount:
        connection.execute("DELETE FROM owners WHERE owner = ?", (owner,))
