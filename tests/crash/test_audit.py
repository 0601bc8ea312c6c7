"""The audit after a crash finds what is lost: else kills and power cuts would prove nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.crash.killing import SETTINGS
from tests.faults.chunks import KIB, MIB, drafts, kill, target
from tests.fixtures.server import FileServer
from tests.fixtures.uploaders import Crew, Job, Ledger, amount, union

PRIVATE = ".hmac-file-server"

Damage = Callable[[FileServer, Crew], None]


@pytest.fixture
def worked(tmp_path: Path) -> Iterator[tuple[FileServer, Crew]]:
    """A server that was killed in the middle of uploads, some of which are complete."""
    server = FileServer(tmp_path / "server", SETTINGS)
    crew = Crew(server, seed="audit", sizes=(MIB, 4 * MIB))
    server.start()
    with crew.working():
        while not (drafts(server) and crew.ledger.totals.completed):
            crew.ledger.wait(crew.ledger.totals.answers + 1)
        kill(server)
    assert drafts(server)
    yield server, crew
    server.stop()


def draft_truncated(server: FileServer, crew: Crew) -> None:
    for name in drafts(server):
        with (server.storage / PRIVATE / "uploads" / name).open("r+b") as file:
            file.truncate(0)


def draft_removed(server: FileServer, crew: Crew) -> None:
    for name in drafts(server):
        (server.storage / PRIVATE / "uploads" / name).unlink()


def sessions_forgotten(server: FileServer, crew: Crew) -> None:
    with contextlib.closing(sqlite3.connect(server.storage / PRIVATE / "uploads.db", isolation_level=None)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            database.execute(f'DELETE FROM "{table}"')


def file_damaged(server: FileServer, crew: Crew) -> None:
    for name in server.files():
        with (server.storage / name).open("r+b") as file:
            byte = file.read(1)[0]
            file.seek(0)
            file.write(bytes([byte ^ 1]))


def file_removed(server: FileServer, crew: Crew) -> None:
    for name in server.files():
        (server.storage / name).unlink()


@pytest.mark.server
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (draft_truncated, "upload_lost"),
        (draft_removed, "upload_lost"),
        (sessions_forgotten, "404"),
        (file_damaged, "not what was uploaded"),
        (file_removed, "not what was uploaded"),
    ],
)
def test_damage_is_found(worked: tuple[FileServer, Crew], damage: Damage, words: str) -> None:
    server, crew = worked
    damage(server, crew)
    server.start()
    lost = crew.audit()
    if words == "upload_lost":
        # A status is answered from the store; whoever sends the next chunk hears that the bytes are gone.
        crew.finish()
        lost += crew.audit(everything=True)
    assert any(words in loss for loss in lost), lost


@pytest.mark.server
def test_without_damage_nothing_is_found(worked: tuple[FileServer, Crew]) -> None:
    server, crew = worked
    server.start()
    assert crew.audit(everything=True) == []
    crew.finish()
    assert crew.audit(everything=True) == []


def job(**fields: object) -> Job:
    made = Job("seed", 1000, "key")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def told(*received: list[int], **members: object) -> dict[str, object]:
    return {"received": list(received), "completed": False, **members}


def test_ranges_are_united() -> None:
    assert union([(5, 7), (0, 2), (2, 3), (6, 9), (6, 8)]) == [(0, 3), (5, 9)]
    assert union([]) == []
    assert amount([(0, 3), (5, 9)]) == 7


def test_what_is_told_only_grows() -> None:
    ledger = Ledger()
    one = job(id="a", url="/a")
    ledger.progress(one, told([0, 10]), [], [(0, 10)])
    ledger.progress(one, told([0, 10], [20, 30]), [(0, 10)])
    assert (one.told, ledger.totals.acknowledged, ledger.faults) == ([(0, 10), (20, 30)], 20, [])
    ledger.progress(one, told([20, 30]), list(one.told))
    assert len(ledger.faults) == 1
    assert one.told == [(0, 10), (20, 30)]


def test_a_chunk_must_be_in_its_own_answer() -> None:
    ledger = Ledger()
    ledger.progress(job(id="a", url="/a"), told([0, 10]), [], [(10, 20)])
    assert len(ledger.faults) == 1


def test_an_older_answer_that_is_read_later_is_no_fault() -> None:
    """Of two answers on two connections the older may be read last; each is held against what was known before."""
    ledger = Ledger()
    one = job(id="a", url="/a")
    ledger.progress(one, told([0, 20]), [], [(10, 20)])
    ledger.progress(one, told([0, 10]), [], [(0, 10)])
    assert (one.told, ledger.faults) == ([(0, 20)], [])


@pytest.mark.parametrize("wrong", [{"url": "/b"}, {"size": 999}])
def test_a_completion_must_be_as_promised(wrong: dict[str, object]) -> None:
    right = {"completed": True, "url": "/a", "size": 1000}
    ledger = Ledger()
    one = job(id="a", url="/a")
    ledger.progress(one, told([0, 1000], **right), [])
    assert (one.complete, ledger.totals.completed, ledger.faults) == (True, 1, [])
    ledger.progress(one, told([0, 1000], **{**right, **wrong}), [])
    assert ledger.totals.completed == 1
    assert len(ledger.faults) == 1


def test_a_key_has_one_session() -> None:
    ledger = Ledger()
    one = job()
    ledger.begun(one, {"session_id": "a", "url": "/a"})
    ledger.begun(one, {"session_id": "a", "url": "/a"})
    assert (one.id, one.url, ledger.totals.begun, ledger.faults) == ("a", "/a", 1, [])
    ledger.begun(one, {"session_id": "b", "url": "/a"})
    assert one.id == "a"
    assert len(ledger.faults) == 1


def test_what_comes_while_the_power_goes_was_told_to_nobody() -> None:
    ledger = Ledger()
    one = job()
    ledger.close()
    ledger.begun(one, {"session_id": "a", "url": "/a"})
    ledger.progress(one, told([0, 10]), [(500, 600)])
    ledger.cancelled(one)
    ledger.fault("some")
    ledger.count("cut")
    assert (one.id, one.told, one.gone, ledger.faults, ledger.totals.answers) == ("", [], False, [], 0)
    assert ledger.totals.cut == 0
    ledger.open()
    ledger.begun(one, {"session_id": "a", "url": "/a"})
    assert (one.id, ledger.totals.begun) == ("a", 1)


def test_waiting_ends_with_a_fault() -> None:
    ledger = Ledger()
    with pytest.raises(AssertionError, match="0 answers of 1"):
        ledger.wait(1, seconds=0.01)
    ledger.fault("some")
    ledger.wait(1, seconds=60)


def test_a_job_has_bytes_of_its_own() -> None:
    one, other = Job("1", 100 * KIB, None), Job("2", 100 * KIB, None)
    assert len(one.body()) == 100 * KIB
    assert one.body() == Job("1", 100 * KIB, None).body() != other.body()
    assert target("http://host/a/b?c") == "/a/b"
