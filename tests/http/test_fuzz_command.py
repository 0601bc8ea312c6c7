"""`python -m bench.fuzz` and `python -m tests.fuzz`: they run, and they do not pass over what they are to find."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.errors import MismatchError
from bench.fuzz import CONTENT, EXISTING, around, judge, main
from tests.fixtures.server import FileServer
from tests.fuzz.__main__ import main as fuzz_parsers


def test_a_few_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--requests", "400", "--processes", "1", "--seed", "short", "--work", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "from seed short" in told
    assert "nothing outside the folder" in told
    assert int(told.split(" ", 1)[0]) >= 400
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stopped(tmp_path: Path) -> FileServer:
    """What a server has left behind: one file, and a log without faults."""
    server = FileServer(tmp_path)
    (server.storage / EXISTING).parent.mkdir(parents=True)
    (server.storage / EXISTING).write_bytes(CONTENT)
    server.log.write_text("all is well\n", encoding="utf-8")
    return server


def test_a_server_without_faults_is_not_accused(stopped: FileServer) -> None:
    before = around(stopped)
    assert judge(stopped, before, set(), chosen=False) == 1
    (stopped.storage / ("0" * 32)).mkdir()
    (stopped.storage / ("0" * 32) / "a.txt").write_bytes(b"x")
    assert judge(stopped, before, set(), chosen=True) == 2


def test_what_nobody_signed_for_is_found(stopped: FileServer) -> None:
    before = around(stopped)
    (stopped.storage / "fuzz").mkdir()
    (stopped.storage / "fuzz" / "1.bin").write_bytes(b"x")
    assert judge(stopped, before, {"fuzz/1.bin"}, chosen=False) == 2
    with pytest.raises(MismatchError, match="nobody signed"):
        judge(stopped, before, {"fuzz/2.bin"}, chosen=True)


def test_what_happens_outside_is_found(stopped: FileServer) -> None:
    before = around(stopped)
    (stopped.folder / "escaped").write_bytes(b"x")
    with pytest.raises(MismatchError, match="outside"):
        judge(stopped, before, set(), chosen=True)


def test_a_changed_file_and_a_fault_in_the_log_are_found(stopped: FileServer) -> None:
    before = around(stopped)
    stopped.log.write_text("2026 ERROR a fault\n", encoding="utf-8")
    with pytest.raises(MismatchError, match="a fault"):
        judge(stopped, before, set(), chosen=True)
    (stopped.storage / EXISTING).write_bytes(b"other")
    with pytest.raises(MismatchError, match="changed"):
        judge(stopped, before, set(), chosen=True)


def test_parsers_are_fuzzed_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_parsers(["--list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"request-head", "form", "application", "client-answers"} <= set(names)
    assert fuzz_parsers(["--blind", "--seconds", "0", "--target", "numbers", "--target", "query"]) == 0
    assert "on 2 targets" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        fuzz_parsers(["--target", "no-such-target"])
