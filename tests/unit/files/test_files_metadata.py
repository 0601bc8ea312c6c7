"""The metadata database: look-ups, batches that wait, transactions, versions, several processes' connections."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.files.stores import opened, put

from hmac_file_server.files.contract import StorageError
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.metadata import MetadataTable, Row


def row(path: str, created: float = 1.0, **fields: object) -> Row:
    values: dict[str, object] = {
        "media_type": "text/plain",
        "filename": None,
        "owner": None,
        "size": 1,
        "digest": None,
        "expires": None,
        "ticket": None,
    }
    return Row(path=path, created=created, **(values | fields))  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["full", "relaxed"])
def table(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MetadataTable]:
    table = MetadataTable(Disk(), str(tmp_path / "state.db"), full=request.param)
    yield table
    table.close()


def test_rows_come_back_as_they_went(table: MetadataTable) -> None:
    full = row("ä/😀", 1.5, filename="n", owner="o", size=2**40, digest="blake3:00", expires=2.5, ticket="t")
    table.put([full, row("b")])
    assert table.get("ä/😀") == full
    assert table.get("b") == row("b")
    assert table.get("c") is None


@settings(deadline=None)  # the disk may have other work
@given(
    st.lists(
        st.builds(
            Row,
            path=st.text(st.characters(codec="utf-8"), min_size=1),
            media_type=st.text(st.characters(codec="utf-8")),
            filename=st.none() | st.text(st.characters(codec="utf-8")),
            owner=st.none() | st.text(st.characters(codec="utf-8")),
            size=st.integers(0, 2**63 - 1),
            digest=st.none() | st.text(st.characters(codec="utf-8")),
            created=st.floats(0, 1e11),
            expires=st.none() | st.floats(0, 1e11),
            ticket=st.none() | st.text(st.characters(codec="utf-8")),
        ),
        unique_by=lambda r: r.path,
    )
)
def test_any_row_round_trips(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    table = MetadataTable(Disk(), str(tmp_path_factory.mktemp("db") / "state.db"), full=False)
    table.put(rows)
    assert [table.committed(r.path) for r in rows] == rows
    table.close()


def test_rows_that_wait_are_seen_by_look_ups_and_written_once(table: MetadataTable) -> None:
    assert table.put_later(row("a")) == 1
    assert table.put_later(row("b")) == 2
    assert table.get("a") == row("a")
    assert table.committed("a") is None
    assert table.flush() == 2
    assert table.committed("a") == row("a")
    assert table.pending == {}
    assert table.flush() == 0


def test_a_batch_larger_than_one_transaction(table: MetadataTable) -> None:
    for i in range(1500):
        table.put_later(row(f"{i}"))
    assert table.flush() == 1500
    assert len(table.select("1")) == 1500


def test_a_row_replaced_while_it_waits_is_not_lost(table: MetadataTable) -> None:
    table.put_later(row("a", 1.0))
    real = table.put

    def put(rows: list[Row]) -> None:
        real(rows)
        table.put_later(row("a", 2.0))

    table.put = put  # type: ignore[method-assign, assignment]
    table.flush()
    assert table.get("a") == row("a", 2.0)
    table.put = real  # type: ignore[method-assign]
    table.flush()
    assert table.committed("a") == row("a", 2.0)


def test_rows_that_come_while_others_are_written_are_written_next(tmp_path: Path) -> None:
    with opened(tmp_path, durability="relaxed") as store:
        real = store.metadata.put
        rounds: list[set[str]] = []
        written = threading.Event()

        def write(rows: Iterable[Row], *, heal: bool = False) -> None:
            rows = list(rows)
            rounds.append({r.path for r in rows})
            if len(rounds) == 1:
                put(store, "second", b"x")
            real(rows, heal=heal)
            if len(rounds) == 2:
                written.set()

        store.metadata.put = write  # type: ignore[method-assign]
        put(store, "first", b"x")
        assert written.wait(30)
        assert rounds == [{"first"}, {"second"}]
        store.metadata.put = real  # type: ignore[method-assign]


def test_a_row_removed_while_it_is_being_written_stays_removed(table: MetadataTable) -> None:
    table.put_later(row("a"))
    real = table.put
    remover = threading.Thread(target=lambda: table.remove([row("a")]))

    def write(rows: Iterable[Row], *, heal: bool = False) -> None:
        remover.start()
        real(rows, heal=heal)

    table.put = write  # type: ignore[method-assign]
    table.flush()
    remover.join()
    assert table.get("a") is None
    table.put = real  # type: ignore[method-assign]


def test_removing_takes_only_the_very_row(table: MetadataTable) -> None:
    table.put([row("a", 2.0), row("b", 1.0)])
    table.put_later(row("c", 1.0))
    table.put_later(row("d", 2.0))
    table.remove([row("a", 1.0), row("b", 1.0), row("c", 1.0), row("d", 1.0)])
    table.flush()
    assert [r.path for r in table.select("1 ORDER BY path")] == ["a", "d"]


def test_healing_does_not_replace(table: MetadataTable) -> None:
    table.put([row("a", 1.0)])
    table.put([row("a", 2.0), row("b", 2.0)], heal=True)
    assert table.get("a") == row("a", 1.0)
    assert table.get("b") == row("b", 2.0)
    table.put([row("a", 3.0)])
    assert table.get("a") == row("a", 3.0)


def test_a_failed_transaction_leaves_nothing(table: MetadataTable) -> None:
    with pytest.raises(StorageError):
        table.put([row("a"), row("b", size="no number")])
    assert table.get("a") is None
    table.put([row("a")])
    assert table.get("a") == row("a")


class FailingCommits(Disk):
    """Commits of its databases fail as long as `failing` is set; `statements` is what they were asked."""

    def __init__(self) -> None:
        self.failing = False
        self.statements: list[str] = []
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                disk.statements.append(sql)
                if sql == "COMMIT" and disk.failing:
                    error = sqlite3.OperationalError("disk I/O error")
                    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR_FSYNC"
                    raise error
                return super().execute(sql, *parameters)

        def connect(file: str, **options: Any) -> sqlite3.Connection:
            return sqlite3.connect(file, factory=Connection, **options)

        self.connect = connect  # type: ignore[assignment]


def test_after_a_failure_of_the_medium_the_log_is_emptied_before_it_takes_more(tmp_path: Path) -> None:
    """Room whose sync failed is not used again: what is written into it may not arrive, whatever the next sync says."""
    disk = FailingCommits()
    table = MetadataTable(disk, str(tmp_path / "state.db"), full=True)
    table.put([row("a")])
    disk.failing = True
    with pytest.raises(StorageError):
        table.put([row("b")])
    disk.failing = False
    disk.statements.clear()
    table.put([row("b")])
    table.put([row("c")])
    emptied = [index for index, sql in enumerate(disk.statements) if sql == "PRAGMA wal_checkpoint(TRUNCATE)"]
    assert emptied == [0]
    assert [table.get(path) for path in "abc"] == [row("a"), row("b"), row("c")]
    table.close()


def test_a_log_that_was_left_behind_is_emptied(tmp_path: Path) -> None:
    """By a server that was killed, perhaps after its disk had failed."""
    log = tmp_path / "state.db-wal"
    table = MetadataTable(Disk(), str(tmp_path / "state.db"), full=True)
    table.put([row("a")])
    assert log.stat().st_size > 0
    again = MetadataTable(Disk(), str(tmp_path / "state.db"), full=True)
    assert log.stat().st_size == 0
    assert again.get("a") == row("a")
    again.close()
    table.close()


def test_every_thread_reads_on_its_own_connection(table: MetadataTable) -> None:
    table.put([row(f"{i}") for i in range(100)])
    wrong: list[int] = []

    def look() -> None:
        wrong.extend(i for i in range(100) if table.get(f"{i}") is None)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(table._open) == 9


def test_two_tables_on_one_file_write_in_turns(tmp_path: Path) -> None:
    tables = [MetadataTable(Disk(), str(tmp_path / "state.db"), full=False) for _ in range(2)]
    faults: list[BaseException] = []

    def write(table: MetadataTable, name: str) -> None:
        try:
            for i in range(100):
                table.put([row(f"{name}{i}")])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(table, name)) for table, name in zip(tables, "ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(tables[0].select("1")) == 200
    for table in tables:
        table.close()


def test_closing_writes_what_waits_and_closes_every_connection(table: MetadataTable, tmp_path: Path) -> None:
    table.put_later(row("a"))
    table.get("x")
    table.close()
    table.close()
    with pytest.raises(StorageError):
        table.get("a")
    connection = sqlite3.connect(tmp_path / "state.db")
    assert connection.execute("SELECT path FROM files").fetchall() == [("a",)]
    connection.close()


def test_the_database_is_set_up_as_promised(table: MetadataTable, request: pytest.FixtureRequest) -> None:
    full = "full" in request.node.callspec.id
    for connection in (table._writer, table._reader()):
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2 if full else 1,)
    plans = [
        table._writer.execute(f"EXPLAIN QUERY PLAN SELECT path FROM files WHERE {where}").fetchone()[3]
        for where in ("path = 'x'", "expires <= 5", "owner = 'x'")
    ]
    assert "PRIMARY KEY" in plans[0]
    assert "files_expires" in plans[1]
    assert "files_owner" in plans[2]


def test_tickets_are_forgotten_after_their_time(table: MetadataTable) -> None:
    assert table.take_ticket("old", 1, 100.0)
    assert table.take_ticket("new", 1, 200.0)
    table.drop_tickets(150.0)
    assert table.take_ticket("old", 1, 100.0)
    assert not table.take_ticket("new", 1, 200.0)


def test_facts(table: MetadataTable) -> None:
    assert table.fact("x") is None
    table.set_fact("x", "1")
    table.set_fact("x", "2")
    assert table.fact("x") == "2"


def test_damage_is_found(tmp_path: Path) -> None:
    table = MetadataTable(Disk(), str(tmp_path / "state.db"), full=False)
    table.put([row(f"{i:05}") for i in range(3000)])
    assert table.damage() == []
    table.close()
    file = tmp_path / "state.db"
    data = bytearray(file.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = bytes(4096)
    file.write_bytes(data)
    table = MetadataTable(Disk(), str(file), full=False)
    assert table.damage() != []
    table.close()
