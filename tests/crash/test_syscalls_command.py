"""`python -m bench.syscalls`: its figures, of an upload as short as can be, and what it says when something is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench import syscalls
from tests.crash import crash_points
from tests.crash.one_upload import OneUpload, Slot


@pytest.mark.server
def test_one_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "PROTOCOLS", (Slot,))
    words = ["--size", "1000", "--recoveries", "0", "--no-cuts", "--work", str(tmp_path)]
    assert syscalls.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("slot: ")
    assert " kills at " in printed
    assert printed.endswith("nothing was lost\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.server
def test_a_loss_is_said_with_the_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost is lost by the hand of the test."""

    def lossy(uploads: list[OneUpload]) -> list[str]:
        return ["a byte"]

    monkeypatch.setattr(syscalls, "PROTOCOLS", (Slot,))
    monkeypatch.setattr(crash_points, "losses", lossy)
    assert syscalls.main(["--size", "1000", "--no-cuts", "--work", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "seed syscalls, a loss: after a crash before" in printed.out + printed.err
    assert "a byte" in printed.out + printed.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", [["--size", "0"], ["--recoveries", "-1"], ["--size", "all"]])
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        syscalls.main(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
