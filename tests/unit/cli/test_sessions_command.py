"""`sessions list`, `show` and `delete` on a store made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.fixtures.command_line import Run
from tests.fixtures.sessions import checkpoint, made

from hmac_file_server.clock import SystemClock
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import PRIVATE
from hmac_file_server.sessions import DATABASE
from hmac_file_server.stores.contract import Create, Finish, Session
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.uploads.receipt import Details, encode

Begin: TypeAlias = Callable[..., Session]


@pytest.fixture
def files(tmp_path: Path) -> LocalFileStore:
    store = LocalFileStore(tmp_path / "data", durability="relaxed", clock=SystemClock(), submit=lambda job: job())
    store.close()
    return store


@pytest.fixture
def begin(tmp_path: Path, files: LocalFileStore) -> Begin:
    def _begin(name: str, *, length: int | None = 10, received: int = 0, ended: str = "", ticket: str = "") -> Session:
        store = SqliteStore(str(tmp_path / "data" / PRIVATE / DATABASE), full=False)
        details = Details(ticket=(ticket, 5, 1e12)) if ticket else Details()
        session = Session(
            id=name,
            protocol="chunked",
            path=f"x/{name}.bin",
            length=length,
            filename=f"{name}.bin",
            owner="owner:alice",
            created=1_700_000_000.0,
            active=1_700_000_000.0,
            deadline=1_700_086_400.0,
            details=encode(details),
        )
        made(store, Create(session, 10))
        if received:
            made(store, checkpoint(name, (0, received)))
        if ended:
            made(store, Finish(name, 0, ended, b"", 1_700_086_400.0))
        store.close()
        return session

    return _begin


def test_list_tells_state_progress_id_and_name(run: Run, begin: Begin) -> None:
    begin("1_one", received=4)
    begin("1_two", length=None)
    begin("1_three", ended="expired")
    listed = run("sessions", "list")
    assert (listed.code, listed.err) == (0, "")
    out = listed.out
    lines = out.splitlines()
    assert len(lines) == 2
    assert "open" in lines[0]
    assert "4B/10B" in out
    assert "0B/?" in out
    assert "1_one  1_one.bin" in out
    assert "1_three" not in out
    assert "1_three" in run("sessions", "list", "--all").out


def test_list_as_json(run: Run, begin: Begin) -> None:
    begin("1_one", received=4)
    (line,) = run("sessions", "list", "--json").out.splitlines()
    found = json.loads(line)
    assert found["id"] == "1_one"
    assert found["received"] == 4
    assert found["ranges"] == [[0, 4]]
    assert found["owner"] == "owner:alice"
    assert found["created"] == "2023-11-14T22:13:20Z"


def test_show(run: Run, begin: Begin) -> None:
    begin("1_one", received=4)
    shown = run("sessions", "show", "1_one")
    assert shown.code == 0
    assert "length:      10" in shown.out
    assert json.loads(run("sessions", "show", "--json", "1_one").out)["path"] == "x/1_one.bin"


def test_show_what_is_not_there(run: Run, begin: Begin) -> None:
    begin("1_one")
    shown = run("sessions", "show", "1_two")
    assert (shown.code, shown.out) == (1, "")
    assert "1_two: no such session" in shown.err


def test_delete_gives_back_bytes_and_ticket(run: Run, begin: Begin, tmp_path: Path) -> None:
    begin("1_one", received=4, ticket="t")
    begin("1_two")
    store = LocalFileStore(tmp_path / "data", durability="relaxed", clock=SystemClock(), submit=lambda job: job())
    assert store.take_ticket("t", 1, 1e12)
    draft = store.draft("1_one", create=True)
    assert draft is not None
    draft.write_at(b"abcd", 0)
    draft.close()
    store.close()
    deleted = run("sessions", "delete", "1_one", "1_three")
    assert (deleted.code, deleted.out, deleted.err) == (1, "deleted 1_one\n", "1_three: no such session\n")
    assert "1_one" not in run("sessions", "list", "--all").out
    assert "1_two" in run("sessions", "list").out
    store = LocalFileStore(tmp_path / "data", durability="relaxed", clock=SystemClock(), submit=lambda job: job())
    try:
        assert store.draft("1_one", create=False) is None
        assert store.take_ticket("t", 1, 1e12)
    finally:
        store.close()


@pytest.mark.parametrize("arguments", [("list",), ("show", "1_one"), ("delete", "1_one")])
def test_without_a_store_nothing_is_made(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run("sessions", *arguments)
    assert (result.code, result.out) == (1, "")
    assert "no such file" in result.err
    assert not (tmp_path / "data").exists()
