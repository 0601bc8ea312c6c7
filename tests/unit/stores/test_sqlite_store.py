"""The session store over SQLite: opening, failing media, poison, several processes, and SIGKILL."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.server import environment
from tests.fixtures.sessions import WAIT, Answer, Events, checkpoint, create, made, session, submit

from hmac_file_server.stores.contract import (
    COMPLETE,
    EXPIRED,
    Change,
    Claim,
    Finish,
    Remove,
    Session,
    StoreError,
    StoreFull,
)
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.stores.tables import APPLICATION, SCHEMA, VERSION


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "sessions.db")


@pytest.fixture
def store(database: str) -> Iterator[SqliteStore]:
    store = SqliteStore(database, full=True)
    yield store
    store.close()


class Faults:
    """Makes statements of all connections fail that begin with some words, and counts statements."""

    def __init__(self) -> None:
        self.rules: list[tuple[str, int, str]] = []
        self.statements: list[str] = []
        self.pause = threading.Event()
        self.pause.set()

    def fail(self, beginning: str, code: int, name: str) -> None:
        self.rules.append((beginning, code, name))

    def heal(self) -> None:
        self.rules.clear()

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                faults.statements.append(sql)
                if sql.startswith("BEGIN IMMEDIATE"):
                    assert faults.pause.wait(WAIT)
                for beginning, code, name in faults.rules:
                    if sql.startswith(beginning):
                        error = sqlite3.OperationalError("of the test: /a/secret/path")
                        error.sqlite_errorcode, error.sqlite_errorname = code, name
                        raise error
                return super().execute(sql, *parameters)

        return sqlite3.connect(*arguments, factory=Connection, **options)


# -- opening


def test_a_new_database_is_wal_and_fully_synchronous(database: str) -> None:
    faults = Faults()
    store = SqliteStore(database, full=True, connect=faults.connect)
    assert "PRAGMA synchronous=FULL" in faults.statements
    made(store, create())
    with sqlite3.connect(database) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
    other.close()
    store.close()
    relaxed = Faults()
    SqliteStore(database, full=False, connect=relaxed.connect).close()
    assert "PRAGMA synchronous=NORMAL" in relaxed.statements


def test_a_database_of_a_newer_version_is_left_alone(database: str, store: SqliteStore) -> None:
    store.close()
    with sqlite3.connect(database) as other:
        other.execute(f"PRAGMA user_version={VERSION + 1}")
    other.close()
    with pytest.raises(StoreError, match="newer version"):
        SqliteStore(database, full=True)
    with sqlite3.connect(database) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    other.close()


@pytest.mark.parametrize("version", [0, VERSION])
def test_a_database_of_something_else_is_left_alone(database: str, version: int) -> None:
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE files (path TEXT)")
        other.execute(f"PRAGMA user_version={version}")
    other.close()
    before = Path(database).read_bytes()
    with pytest.raises(StoreError, match="something else"):
        SqliteStore(database, full=True)
    assert Path(database).read_bytes() == before


def test_a_file_that_is_no_database_is_damaged(database: str) -> None:
    Path(database).write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError, match="damaged") as caught:
        SqliteStore(database, full=True)
    assert database not in str(caught.value)
    assert Path(database).read_bytes() == b"no database at all" * 1000


def test_damage_inside_is_found_when_it_is_read(database: str, store: SqliteStore) -> None:
    for answer in [submit(store, create(f"{number:04}", limit=1000, details=b"x" * 500)) for number in range(500)]:
        answer.get()
    store.close()
    content = bytearray(Path(database).read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 100] = b"\xaa" * 100
    Path(database).write_bytes(content)
    store = SqliteStore(database, full=True)
    with pytest.raises(StoreError, match="damaged"):
        store.get("0001")
    result = made(store, create("new"))
    assert isinstance(result, StoreError)
    assert "damaged" in str(result)
    store.close()


def test_a_folder_that_is_missing_is_an_error_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        SqliteStore(str(tmp_path / "missing" / "sessions.db"), full=True)
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.code == "sessions_unavailable"


@pytest.mark.parametrize("again", [False, True], ids=["new", "opened-again"])
def test_its_names_are_durable_before_anything_is_answered(
    database: str, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """SQLite takes no notice when its own sync of the folder fails, so it must not be the one that counts."""
    if again:
        SqliteStore(database, full=True).close()
    synced: list[tuple[str, list[str]]] = []

    def fsync(fd: int) -> None:
        folder = os.readlink(f"/proc/self/fd/{fd}")
        synced.append((folder, sorted(os.listdir(folder))))

    monkeypatch.setattr(os, "fsync", fsync)
    SqliteStore(database, full=True).close()
    (folder, names) = synced[-1]
    assert folder == os.path.dirname(database)
    assert {"sessions.db", "sessions.db-wal"} <= set(names)
    synced.clear()
    SqliteStore(database, full=False).close()
    assert synced == []


def test_a_folder_that_cannot_be_synced_is_an_error(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_fd: int) -> None:
        raise OSError(errno.EIO, "no")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match="the session database failed"):
        SqliteStore(database, full=True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_several_threads_may_make_the_database_at_once(database: str) -> None:
    barrier = threading.Barrier(4)
    stores: list[SqliteStore] = []

    def work() -> None:
        barrier.wait(WAIT)
        stores.append(SqliteStore(database, full=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    for number, each in enumerate(stores):
        made(each, create(f"{number}"))
    assert all(each.open_sessions() == 4 for each in stores)
    for each in stores:
        each.close()


def test_every_index_serves_the_question_that_it_is_there_for(database: str, store: SqliteStore) -> None:
    made(store, create())
    with sqlite3.connect(database) as other:
        plans = {
            question: " ".join(row[3] for row in other.execute("EXPLAIN QUERY PLAN " + question))
            for question in (
                "SELECT * FROM uploads WHERE deadline <= 5 ORDER BY deadline LIMIT 3",
                "SELECT id, length, received FROM uploads WHERE state = 'open' AND id > 'a' ORDER BY id LIMIT 9",
                "SELECT * FROM uploads WHERE key = 'k'",
                (
                    "SELECT start, stop FROM ranges WHERE upload = 'a' AND start <= 5 AND start >= coalesce("
                    "(SELECT max(start) FROM ranges WHERE upload = 'a' AND start <= 3), 3) ORDER BY start"
                ),
            )
        }
    other.close()
    assert not any("TEMP B-TREE" in plan or "SCAN" in plan for plan in plans.values()), plans
    assert [name for name in ("uploads_deadline", "uploads_open", "uploads_key") if name not in str(plans)] == []


# -- group commit


def test_changes_that_wait_together_share_one_transaction(database: str) -> None:
    faults = Faults()
    store = SqliteStore(database, full=True, connect=faults.connect)
    faults.pause.clear()
    first = submit(store, create("first"))
    answers = [submit(store, create(f"{number}")) for number in range(50)]
    faults.statements.clear()
    faults.pause.set()
    assert all(isinstance(answer.get(), Session) for answer in [first, *answers])
    assert faults.statements.count("COMMIT") <= 2
    store.close()


def test_nothing_is_answered_before_its_commit(database: str) -> None:
    faults = Faults()
    store = SqliteStore(database, full=True, connect=faults.connect)
    commits: list[int] = []
    answer = Answer(lambda _result: commits.append(faults.statements.count("COMMIT")))
    faults.statements.clear()
    store.submit(create(), answer)
    assert answer.get() == session()
    assert commits == [1]
    store.close()


# -- failures


FAILURES = [
    (sqlite3.SQLITE_FULL, "SQLITE_FULL", "no space"),
    (sqlite3.SQLITE_IOERR, "SQLITE_IOERR_FSYNC", "failed"),
    (sqlite3.SQLITE_READONLY, "SQLITE_READONLY", "read-only"),
    (sqlite3.SQLITE_BUSY, "SQLITE_BUSY", "busy"),
    (sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT", "damaged"),
]


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO uploads", "COMMIT"])
@pytest.mark.parametrize(("code", "name", "text"), FAILURES)
def test_a_failing_medium_fails_every_change_and_passes(
    database: str, statement: str, code: int, name: str, text: str
) -> None:
    faults, events = Faults(), Events()
    store = SqliteStore(database, full=True, connect=faults.connect, log=events, patience=0.01)
    made(store, create("before", key="key"))
    faults.pause.clear()
    faults.fail(statement, code, name)
    answers = [submit(store, create(f"{number}")) for number in range(5)]
    faults.pause.set()
    for answer in answers:
        result = answer.get()
        assert type(result) is (StoreFull if name == "SQLITE_FULL" else StoreError)
        assert text in str(result)
        assert "secret" not in str(result)
    assert store.open_sessions() == 1
    assert store.get("0") is None
    faults.heal()
    assert made(store, create("0", limit=2)) == session("0")
    assert store.open_sessions() == 2
    assert events.names == ["sessions_not_written", "sessions_written_again"]
    store.close()


def test_after_a_failure_of_the_medium_the_log_is_emptied_before_it_takes_more(database: str) -> None:
    """Room whose sync failed is not used again: what is written into it may not arrive, whatever the next sync says."""
    faults = Faults()
    store = SqliteStore(database, full=True, connect=faults.connect, patience=0.01)
    made(store, create("a"))
    faults.fail("COMMIT", sqlite3.SQLITE_IOERR, "SQLITE_IOERR_FSYNC")
    assert type(submit(store, create("b")).get()) is StoreError
    faults.heal()
    faults.fail("PRAGMA wal_checkpoint(TRUNCATE)", sqlite3.SQLITE_IOERR, "SQLITE_IOERR_WRITE")
    assert type(submit(store, create("b")).get()) is StoreError
    faults.heal()
    with sqlite3.connect(database) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM uploads").fetchone() == (1,)
        # As long as somebody reads out of it, nothing is added to it.
        assert "busy" in str(submit(store, create("b")).get())
    reader.close()
    faults.statements.clear()
    assert made(store, create("b")) == session("b")
    assert faults.statements.index("PRAGMA wal_checkpoint(TRUNCATE)") < faults.statements.index("BEGIN IMMEDIATE")
    faults.statements.clear()
    assert made(store, create("c")) == session("c")
    assert "PRAGMA wal_checkpoint(TRUNCATE)" not in faults.statements
    store.close()


def test_a_log_that_was_left_behind_is_emptied(database: str) -> None:
    """By one that was killed, perhaps after its disk had failed."""
    store = SqliteStore(database, full=True)
    made(store, create("a"))
    log = Path(database + "-wal")
    assert log.stat().st_size > 0
    other = SqliteStore(database, full=True)
    assert log.stat().st_size == 0
    assert other.get("a") == session("a")
    other.close()
    store.close()


def test_a_rollback_that_fails_is_made_up_for(database: str) -> None:
    faults = Faults()
    store = SqliteStore(database, full=True, connect=faults.connect)
    faults.fail("COMMIT", sqlite3.SQLITE_FULL, "SQLITE_FULL")
    faults.fail("ROLLBACK", sqlite3.SQLITE_IOERR, "SQLITE_IOERR")
    assert isinstance(made(store, create("lost")), StoreError)
    assert isinstance(made(store, create("lost too")), StoreError)
    faults.heal()
    assert made(store, create()) == session()
    assert store.known(["lost", "lost too", "one"]) == {"one"}
    store.close()


def test_one_change_that_cannot_be_kept_does_not_hurt_its_batch(database: str) -> None:
    faults, events = Faults(), Events()
    store = SqliteStore(database, full=True, connect=faults.connect, log=events)
    faults.pause.clear()
    head = submit(store, create("head"))
    changes: list[Change] = [
        create("a"),
        create("b", length=2**70),
        checkpoint("a", (0, 3)),
        create("a"),
        create("c", limit=3),
    ]
    answers = [submit(store, change) for change in changes]
    late = submit(store, create("d", limit=3))
    faults.pause.set()
    assert head.get() == session("head")
    results = [answer.get() for answer in answers]
    assert [type(result) for result in results] == [Session, StoreError, bool, StoreError, Session]
    assert late.get() != session("d")  # the limit counted what was made, and only that
    assert store.open_sessions() == 3
    found = store.get("a")
    assert found is not None
    assert found.ranges == ((0, 3),)
    assert events.names == ["session_change_failed"] * 2
    store.close()


@pytest.mark.parametrize(("code", "name", "text"), FAILURES)
def test_a_failing_read_is_an_error_and_passes(database: str, code: int, name: str, text: str) -> None:
    faults = Faults()
    store = SqliteStore(database, full=True, connect=faults.connect)
    made(store, create())
    calls: list[Callable[[], object]] = [
        lambda: store.get("one"),
        lambda: store.by_key("one"),
        lambda: store.due(0.0, 1),
        lambda: list(store.outstanding()),
        store.open_sessions,
        lambda: store.known(["one"]),
    ]
    for call in calls:
        faults.fail("SELECT", code, name)
        with pytest.raises(StoreError, match=text) as caught:
            call()
        assert "secret" not in str(caught.value)
        faults.heal()
        call()
    store.close()


def test_a_disk_that_is_really_full_loses_nothing_and_recovers(tmp_path: Path, database: str) -> None:
    """A limit on the size of files stands for the disk: SQLite meets EFBIG in the middle of a commit."""
    code = f"""
import resource, signal, sys
from tests.fixtures.sessions import *
from hmac_file_server.stores.sqlite import SqliteStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SqliteStore({database!r}, full=True)
made(store, create("first", ranges=((0, 5),)))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
results = [made(store, create(f"{{n}}", limit=1000, details=bytes(5000))) for n in range(200)]
failed = sum(isinstance(result, Exception) for result in results)
assert 0 < failed < 200, failed
assert store.open_sessions() == 201 - failed
assert len(list(store.outstanding())) == 201 - failed
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert made(store, create("last", limit=1000)) == session("last")
assert made(store, checkpoint("first", (5, 9))) is True
store.close()
store = SqliteStore({database!r}, full=True)
assert store.open_sessions() == 202 - failed
assert store.get("first").ranges == ((0, 9),)
store.close()
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment(), check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


# -- several at one file


def test_another_writer_is_waited_for(database: str, store: SqliteStore) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = submit(store, create())
    assert store.get("one") is None  # reads wait for nobody
    assert answer.results == []
    other.execute("COMMIT")
    other.close()
    assert answer.get() == session()


def test_another_writer_that_never_ends_is_an_error(database: str) -> None:
    store = SqliteStore(database, full=True, patience=0.05)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    result = made(store, create())
    assert isinstance(result, StoreError)
    assert "busy" in str(result)
    other.execute("COMMIT")
    other.close()
    assert made(store, create()) == session()
    store.close()


def test_reading_threads_share_few_connections(database: str) -> None:
    faults = Faults()
    opened: list[sqlite3.Connection] = []

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(faults.connect(*arguments, **options))
        return opened[-1]

    store = SqliteStore(database, full=True, connect=connect)
    made(store, create())
    for _ in range(20):
        thread = threading.Thread(target=store.get, args=("one",))
        thread.start()
        thread.join()
    assert len(opened) == 2  # the writer's, and one
    store.close()
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.total_changes  # noqa: B018 - raises when it is closed


WRITER = """
import sys
from tests.fixtures.sessions import *
from hmac_file_server.stores.contract import *
from hmac_file_server.stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1], full=True)
name = sys.argv[2]
def say(text):
    def done(result):
        assert not isinstance(result, Exception) and result, result
        print(text, flush=True)  # one write: whole or not at all
    return done
for number in range(100000):
    upload = f"{name}-{number}"
    store.submit(create(upload, limit=10**6, key=upload), say(f"create {upload}"))
    for offset in range(0, 40, 10):
        store.submit(checkpoint(upload, (offset, offset + 5)), say(f"checkpoint {upload} {offset}"))
    if number % 3 == 0:
        store.submit(Finish(upload, 0, COMPLETE, b"r", 1.0), say(f"finish {upload}"))
    if number % 20 == 0:
        last = Answer()
        store.submit(Claim(upload, 0), last)
        last.get()
"""


def test_every_answered_change_survives_sigkill(tmp_path: Path) -> None:
    database = str(tmp_path / "sessions.db")
    rng = random.Random(3)
    for round_number in range(6):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, database, f"{round_number}-{child}"],
                env=environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            for child in range(2)
        ]
        lines: list[str] = []
        for child in children:
            assert child.stdout is not None
            # Both write now; the moment of the end is somewhere in the next lines.
            lines += [child.stdout.readline() for _ in range(rng.randrange(1, 400))]
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
            rest, _nothing = child.communicate()
            lines += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        store = SqliteStore(database, full=True)
        for line in lines:
            word, upload, *numbers = line.split()
            found = store.get(upload)
            assert found is not None, line
            assert store.by_key(upload) == found
            if word == "checkpoint":
                start = int(numbers[0])
                assert any(first <= start and start + 5 <= stop for first, stop in found.ranges), line
            if word == "finish":
                assert found.state == COMPLETE
        assert store.open_sessions() == sum(1 for _ in store.open_ids())
        store.close()
        assert len(lines) > 2
    with sqlite3.connect(database) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert other.execute(
            "SELECT count(*) FROM uploads WHERE received != "
            "(SELECT coalesce(sum(stop - start), 0) FROM ranges WHERE upload = id)"
        ).fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM ranges WHERE upload NOT IN (SELECT id FROM uploads)").fetchone() == (
            0,
        )
    other.close()


def test_ten_thousand_sessions_open_and_are_listed(database: str) -> None:
    store = SqliteStore(database, full=False)
    answers = [
        submit(store, create(f"{number}", limit=10**6, owner=f"{number % 7}", ranges=((0, 1), (3, 4))))
        for number in range(10_000)
    ]
    for answer in answers:
        answer.get()
    store.close()
    store = SqliteStore(database, full=False)
    assert sum(received for _id, _length, received in store.outstanding()) == 20_000
    assert store.open_sessions() == 10_000
    store.close()


def test_a_checkpoint_touches_only_neighbours(database: str) -> None:
    faults = Faults()
    store = SqliteStore(database, full=False, connect=faults.connect)
    count = 20_000
    made(store, create(length=10 * count, ranges=tuple((10 * n, 10 * n + 5) for n in range(count))))
    before = len(faults.statements)
    assert made(store, checkpoint("one", (100_005, 100_010))) is True
    assert len(faults.statements) - before < 12
    assert list(store.outstanding()) == [("one", 10 * count, 5 * count + 5)]
    found = store.get("one")
    assert found is not None
    assert len(found.ranges) == count - 1
    assert (100_000, 100_015) in found.ranges
    store.close()


def test_the_schema_has_no_table_without_strict_types() -> None:
    assert all("STRICT" in statement for statement in SCHEMA if statement.startswith("CREATE TABLE"))


def test_owners_are_forgotten_with_their_last_session(database: str, store: SqliteStore) -> None:
    made(store, create("a"))
    made(store, create("b"))
    made(store, Claim("b", 0))
    made(store, Finish("a", 0, EXPIRED, b"", 1.0))
    made(store, Remove("a", 0))
    made(store, Remove("b", 1))
    with sqlite3.connect(database) as other:
        for table in ("uploads", "ranges", "owners"):
            assert other.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    other.close()
