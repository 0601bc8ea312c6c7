"""Running commands in this process, with what they print."""

import os
from pathlib import Path

import pytest
from tests.fixtures.command_line import Result, Run

from hmac_file_server import cli


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder, without variables of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("HMAC_FILE_SERVER_"):
            monkeypatch.delenv(name)

    def _run(*arguments: str) -> Result:
        capfd.readouterr()
        code = cli.main(arguments)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return _run
