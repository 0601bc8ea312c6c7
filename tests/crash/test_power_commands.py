"""`python -m bench.power_cuts` and `python -m bench.block_log`: a few cuts, and what they say of a loss."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from bench import block_log, power_cuts
from tests.crash import block_log as recording
from tests.crash import volumes
from tests.fixtures.uploaders import Crew


@pytest.fixture
def root() -> None:
    reason = volumes.obstacle() or recording.hindrance()
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.server
@pytest.mark.usefixtures("root")
def test_a_few_power_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not as many as asked for, as the time is over."""
    assert power_cuts.main(["--cuts", "50", "--seconds", "0.1", "--seed", "few", "--work", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1 power cuts on ext4 in ")
    assert printed.endswith("nothing was lost\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.server
@pytest.mark.usefixtures("root")
def test_what_a_power_cut_loses_is_said_with_the_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Crew, "audit", lambda _self, **_: ["a byte"])
    assert power_cuts.main(["--cuts", "2", "--seed", "lossy", "--work", str(tmp_path)]) == 1
    assert "seed lossy, after 0 cuts: after cut 1:\na byte" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.server
@pytest.mark.usefixtures("root")
def test_a_few_cuts_of_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert block_log.main(["--cuts", "3", "--answers", "20", "--seed", "few"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 cuts of 1 recordings in ")
    assert printed.endswith("a server started after 1; nothing was lost\n")


def test_what_a_cut_of_a_record_loses_is_said_with_the_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Empty:
        begin = end = 0

    monkeypatch.setattr(block_log, "record", lambda *_, **__: Empty)
    monkeypatch.setattr(block_log, "replay", lambda *_, **__: ["a byte"])
    assert block_log.main(["--cuts", "3", "--seed", "lossy"]) == 1
    assert "seed lossy-0, 1 losses:\na byte" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (power_cuts.main, ["--cuts", "0"]),
        (power_cuts.main, ["--fs", "btrfs"]),
        (block_log.main, ["--cuts", "0"]),
        (block_log.main, ["--answers", "0"]),
    ],
)
def test_wrong_words(command: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
