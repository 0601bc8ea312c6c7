"""The audit of a disk after a cut, without a server: files, drafts and both databases, read as a start reads them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.crash.witnesses import Fact, body_of
from tests.faults.chunks import covers
from tests.fixtures.uploaders import union

from hmac_file_server.files import fsck
from hmac_file_server.files.contract import StorageError
from hmac_file_server.files.paths import PRIVATE
from hmac_file_server.sessions import DATABASE
from hmac_file_server.stores.contract import COMPLETE, OPEN, Session
from hmac_file_server.stores.tables import BY_ID, load

UNFINISHED: Final = frozenset({"file_without_row", "orphan_blob", "orphan_spool"})
"""What a cut may leave behind of a publish of which nobody was told; a repair, or the sweep, sees to it."""


def audit(root: Path, facts: Sequence[Fact], told: int) -> list[str]:
    """What is wrong with a store that witnesses alone have used: with their files and sessions, told or not, and
    with the store itself.

    Facts with a mark up to `told` were told. Later ones only tell whose bytes are whose.
    """
    lost = audit_of(root, facts, told)
    try:
        report = fsck.check(root, repair=False)
        lost += [f"fsck: {each}" for each in report.problems if each.code not in UNFINISHED]
    except StorageError as error:
        lost.append(f"fsck: {error!r}")
    return lost


def audit_of(root: Path, facts: Sequence[Fact], told: int, *, prefix: str = "") -> list[str]:
    """What is wrong with what witnesses have whose names have a prefix; others may use the store, too."""
    names = {fact.session: fact.name for fact in facts if fact.session}
    lost = []
    try:
        with contextlib.closing(sqlite3.connect(root / PRIVATE / DATABASE, isolation_level=None)) as database:
            for each in _told(fact for fact in facts if fact.mark <= told):
                lost += _check(root, database, each)
            for session in _sessions(database, prefix):
                lost += _bytes(root, session, names.get(session.id, session.filename))
    except sqlite3.Error as error:
        lost.append(f"the sessions cannot be read: {error!r}")
    return lost + _half(root, prefix)


def _told(facts: Iterable[Fact]) -> list[Fact]:
    """What is known of each upload, all answers together."""
    found: dict[str, Fact] = {}
    for fact in facts:
        one = found.get(fact.name, fact)
        found[fact.name] = Fact(
            fact.mark,
            fact.protocol,
            fact.name,
            fact.session,
            tuple(union([*one.spans, *fact.spans])),
            one.complete or fact.complete,
            one.path or fact.path,
        )
    return list(found.values())


def _check(root: Path, database: sqlite3.Connection, fact: Fact) -> list[str]:
    """Whether an upload is as its client was told."""
    path = fact.path
    if fact.session:
        session = load(database, BY_ID, fact.session)
        if session is None:
            return [f"{fact.name}: the session is lost"]
        if fact.complete and session.state != COMPLETE:
            return [f"{fact.name}: is {session.state}, not complete any more"]
        if session.state not in {OPEN, COMPLETE}:
            return [f"{fact.name}: is {session.state}"]
        if session.state == OPEN and not covers(session.ranges, fact.spans):
            return [f"{fact.name}: {session.ranges} is there, {fact.spans} was told"]
        path = path or session.path
    if fact.complete and not _equal(root / path, fact.name):
        return [f"{fact.name}: the file is not what was uploaded, or not there"]
    return []


def _sessions(database: sqlite3.Connection, prefix: str) -> Iterator[Session]:
    for one, name in database.execute("SELECT id, filename FROM uploads").fetchall():
        if not name.startswith(prefix):
            continue
        session = load(database, BY_ID, one)
        if session is not None:
            yield session


def _bytes(root: Path, session: Session, name: str) -> list[str]:
    """Whether a session's ranges, told or not, have the right bytes: nobody could tell them from wrong ones."""
    if session.state == COMPLETE:
        file = root / session.path
        # An upload that came whole with its creation is recorded, without ranges, while its file is being published:
        # whichever is durable first, nobody has its id before both are.
        unheard = not session.ranges and not file.exists()
        return [] if unheard or _equal(file, name) else [f"{name}: is complete without its file"]
    body = body_of(name)
    try:
        with (root / PRIVATE / "uploads" / session.id).open("rb") as draft:
            for start, stop in session.ranges:
                draft.seek(start)
                if draft.read(stop - start) != body[start:stop]:
                    return [f"{name}: wrong bytes in {(start, stop)}"]
    except FileNotFoundError:
        return [f"{name}: the draft with {session.ranges} is lost"] if session.ranges else []
    return []


def _equal(file: Path, name: str) -> bool:
    try:
        return file.read_bytes() == body_of(name)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _half(root: Path, prefix: str) -> list[str]:
    """Files that people can read and that are not whole."""
    found = []
    for folder, folders, files in os.walk(root):
        if PRIVATE in folders:
            folders.remove(PRIVATE)
        found += [
            f"{name}: visible, and not whole"
            for name in files
            if name.startswith(prefix) and Path(folder, name).read_bytes() != body_of(name)
        ]
    return found
