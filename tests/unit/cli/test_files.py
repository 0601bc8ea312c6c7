"""`files` and `fsck`, on a store that the server's own store wrote."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fixtures.command_line import Run

from hmac_file_server.clock import SystemClock
from hmac_file_server.files.contract import Metadata, Outcome
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import parse

Store = Callable[[str, bytes], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def _store(path: str, content: bytes) -> None:
        local = LocalFileStore(tmp_path / "data", durability="relaxed", clock=SystemClock(), submit=lambda job: job())
        try:
            spool = local.spool()
            spool.write(content)
            meta = Metadata(media_type="text/plain", owner="alice@example.org")
            assert local.publish(spool, parse(path), meta).outcome is Outcome.CREATED
        finally:
            local.close()

    return _store


def test_list_tells_time_size_and_path(run: Run, store: Store, tmp_path: Path) -> None:
    store("u2/b.txt", b"12345")
    store("u1/a.txt", b"x" * 2048)
    (tmp_path / "data" / "old").mkdir()
    (tmp_path / "data" / "old" / "x\n.bin").write_bytes(b"")
    result = run("files", "list")
    assert result.code == 0
    assert [line.split()[2:] for line in result.lines] == [
        ["0B", "old/x\\x0a.bin"],
        ["2KB", "u1/a.txt"],
        ["5B", "u2/b.txt"],
    ]
    assert [line.split()[3] for line in run("files", "list", "u1/").lines] == ["u1/a.txt"]
    assert run("files", "list", "u3/").out == ""


def test_list_as_json(run: Run, store: Store) -> None:
    store("u1/a.txt", b"12345")
    (line,) = run("files", "list", "--json").lines
    fields = json.loads(line)
    assert (fields["path"], fields["size"], fields["type"]) == ("u1/a.txt", 5, "text/plain")
    assert fields["owner"] == "alice@example.org"
    assert fields["created"].endswith("Z")
    assert fields["expires"] is None


def test_show(run: Run, store: Store) -> None:
    store("u1/a.txt", b"12345")
    result = run("files", "show", "u1/a.txt")
    shown = dict(line.split(maxsplit=1) for line in result.lines)
    assert shown["path:"] == "u1/a.txt"
    assert shown["size:"] == "5"
    assert shown["owner:"] == "alice@example.org"
    assert json.loads(run("files", "show", "u1/a.txt", "--json").out)["size"] == 5


@pytest.mark.parametrize(
    ("path", "said"), [("u1/none", "no such stored file"), ("../etc/passwd", ""), (".hmac-file-server/secret", "")]
)
def test_show_what_is_not_there(run: Run, store: Store, path: str, said: str) -> None:
    store("u1/a.txt", b"12345")
    result = run("files", "show", path)
    assert (result.code, result.out) == (1, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_delete(run: Run, store: Store, tmp_path: Path) -> None:
    for name in "abc":
        store(f"u1/{name}", name.encode())
    result = run("files", "delete", "u1/a", "u1/none", "u1/b")
    assert result.code == 1
    assert result.lines == ["deleted u1/a", "deleted u1/b"]
    assert result.err == "u1/none: no such stored file\n"
    assert os.listdir(tmp_path / "data" / "u1") == ["c"]
    assert run("files", "delete", "u1/c").code == 0


def test_nothing_is_deleted_when_a_path_is_none(run: Run, store: Store, tmp_path: Path) -> None:
    store("u1/a", b"a")
    assert run("files", "delete", "u1/a", "../x").code == 1
    assert (tmp_path / "data" / "u1" / "a").exists()


@pytest.mark.parametrize("arguments", [["files", "list"], ["files", "show", "a"], ["files", "delete", "a"], ["fsck"]])
def test_without_a_store_nothing_is_made(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 1
    assert result.err == f"hmac-file-server: {tmp_path / 'data'}: no such folder\n"
    assert os.listdir(tmp_path) == []


def test_fsck_of_a_good_store(run: Run, store: Store) -> None:
    store("u1/a.txt", b"12345")
    result = run("fsck")
    assert (result.code, result.err) == (0, "")
    assert result.out == "1 files, 5B: no problems\n"


def test_fsck_tells_problems_and_repairs_them(run: Run, store: Store, tmp_path: Path) -> None:
    store("u1/a.txt", b"12345")
    store("u1/b.txt", b"12345")
    (tmp_path / "data" / "u1" / "a.txt").unlink()
    found = run("fsck")
    assert found.code == 1
    assert found.lines[0].startswith("row_without_file: u1/a.txt: ")
    assert found.lines[-1] == "1 files, 5B: 1 problems, 0 repaired"
    mended = run("fsck", "--repair")
    assert mended.code == 0
    assert mended.lines[0].endswith(", repaired")
    assert mended.lines[-1] == "1 files, 5B: 1 problems, 1 repaired"
    assert run("fsck").out == "1 files, 5B: no problems\n"


def test_fsck_leaves_damaged_files(run: Run, store: Store, tmp_path: Path) -> None:
    store("u1/a.txt", b"12345")
    path = tmp_path / "data" / "u1" / "a.txt"
    os.truncate(path, 3)
    result = run("fsck", "--repair")
    assert result.code == 1
    assert result.lines[0].startswith("size_mismatch: u1/a.txt: ")
    assert path.read_bytes() == b"123"
