"""`python -m bench.kills`: a few kills, its figures, and what it says when something is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench import kills
from tests.fixtures.uploaders import Crew


@pytest.mark.server
@pytest.mark.parametrize(("victim", "processes"), [("server", "1"), ("process", "2")])
def test_a_few_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str], victim: str, processes: str) -> None:
    words = ["--kills", "2", "--victim", victim, "--processes", processes, "--seed", "few", "--work", str(tmp_path)]
    assert kills.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"2 kills of a {victim} in ")
    assert printed.endswith("nothing was lost\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.server
def test_a_loss_is_said_with_the_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost is lost after the kill, by the hand of the test."""
    audit = Crew.audit

    def lossy(self: Crew, *, everything: bool = False) -> list[str]:
        return [*audit(self, everything=everything), "a byte"]

    monkeypatch.setattr(Crew, "audit", lossy)
    assert kills.main(["--kills", "2", "--processes", "1", "--seed", "lossy", "--work", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "seed lossy, after 0 kills: after kill 1:\na byte" in printed.out + printed.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [["--kills", "0"], ["--processes", "0"], ["--victim", "process", "--processes", "1"], ["--victim", "nobody"]],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        kills.main(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
