"""`config check`, `config show`."""

from pathlib import Path

import pytest
from tests.fixtures.command_line import Run

from hmac_file_server.config import load
from hmac_file_server.config.model import KEYS

SECRET = "0123456789abcdef0123456789abcdef"


def test_the_embedded_defaults_are_usable(run: Run) -> None:
    result = run("config", "check")
    assert (result.code, result.out, result.err) == (0, "embedded defaults: usable\n", "")


def test_check_tells_warnings_and_goes_on(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[uploads]\nchunk_siz = 1\n[clamav]\nenabled = true\n")
    for arguments in (["config", "check", str(path)], ["config", "check", "--config", str(path)]):
        result = run(*arguments)
        assert result.code == 0
        assert result.out == f"{path}: usable, 2 warnings\n"
        assert result.err.splitlines() == [
            f"warning: {path}:2: unknown key uploads.chunk_siz, ignored; did you mean uploads.chunk_size?",
            f"warning: {path}:4: [clamav] has no effect here: uploads are NOT scanned for malware",
        ]


def test_check_tells_every_error_and_exits_1(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[workers]\nnumworkers = 0\n[logging]\nlevel = 'loud'\n")
    result = run("config", "check", str(path))
    assert (result.code, result.out) == (1, "")
    first, second = result.err.splitlines()
    assert first.startswith(f"{path}:2: workers.numworkers: 0 is not allowed (out of range); allowed: a whole number")
    assert second.startswith(f'{path}:4: logging.level: "loud" is not allowed')


def test_check_of_a_file_that_is_not_there(run: Run) -> None:
    result = run("config", "check", "none.toml")
    assert (result.code, result.err) == (1, "none.toml: cannot be read: No such file or directory\n")


def test_check_with_the_environment_and_overrides(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMAC_FILE_SERVER_UPLOADS__CHUNK_SIZE", "x")
    assert "environment HMAC_FILE_SERVER_UPLOADS__CHUNK_SIZE: uploads.chunk_size" in run("config", "check").err
    assert run("config", "check", "--set", "uploads.chunk_size=1MB").code == 1  # each layer has to be right
    monkeypatch.delenv("HMAC_FILE_SERVER_UPLOADS__CHUNK_SIZE")
    assert run("config", "check", "--set", "uploads.chunk_size=1MB").code == 0


def test_show_is_toml_that_says_the_same(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[server]\nstorage_path = "here"\nfile_ttl = "30d"\n[redis]\nurl = "redis://:marker-pw@h:1/2"\n')
    result = run("config", "show", str(path), "--set", "uploads.chunk_size=7MB")
    assert result.code == 0
    assert "marker-pw" not in result.out
    shown = tmp_path / "shown.toml"
    shown.write_text(result.out.replace("***", "x"))
    before = load(path, environ={}, overrides=["uploads.chunk_size=7MB"]).settings
    after = load(shown, environ={}, overrides=()).settings
    assert after.server == before.server
    assert after.uploads == before.uploads
    assert after.timeouts == before.timeouts


def test_show_says_where_values_come_from(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[server]\nmptcp = false\n")
    monkeypatch.setenv("HMAC_FILE_SERVER_CONFIG", str(path))
    monkeypatch.setenv("HMAC_FILE_SERVER_LOGGING__LEVEL", "debug")
    lines = run("config", "show", "--set", "timeouts.min_rate=1").lines
    comments = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in lines if " = " in line}
    assert comments["mptcp"] == "c.toml:2"
    assert comments["level"] == "environment HMAC_FILE_SERVER_LOGGING__LEVEL"
    assert comments["min_rate"] == "--set timeouts.min_rate"
    assert comments["chunk_size"] == "default"
    plain = run("config", "show", "--no-origin").out
    assert "# " not in plain
    assert all(f"{key.name} = " in plain for key in KEYS.values())


def test_secrets_are_masked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[security]\nsecret = ["{SECRET}", "x{SECRET}"]\n[admin]\ntoken = "{SECRET}"\n')
    result = run("config", "show", str(path))
    assert SECRET not in result.out + result.err
    assert 'secret = ["***", "***"]' in result.out
    assert 'token = "***"' in result.out
