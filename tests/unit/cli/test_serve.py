"""`serve` up to where the server takes over."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.command_line import Run

from hmac_file_server import server
from hmac_file_server.config import Loaded, Secret, Settings

Announce = Callable[[Settings, tuple[str, ...]], None]


class Taken:
    """Stands where the server would run: keeps what it is given."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.reload: Callable[[], Loaded] | None = None
        self.announce: Announce | None = None
        self.status = 0

    def run(self, loaded: Loaded, reload: Callable[[], Loaded] | None = None, announce: Announce | None = None) -> int:
        self.loaded, self.reload, self.announce = loaded, reload, announce
        return self.status

    @property
    def given(self) -> Loaded:
        assert self.loaded is not None
        return self.loaded


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Taken]:
    root, own = logging.getLogger(), logging.getLogger("hmac_file_server")
    before = (root.handlers[:], root.level, own.level)
    stand_in = Taken()
    monkeypatch.setattr(server, "run", stand_in.run)
    yield stand_in
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


def test_embedded_defaults_get_a_secret_of_their_own(run: Run, taken: Taken, tmp_path: Path) -> None:
    first = run("serve")
    path = tmp_path / "data" / ".hmac-file-server" / "secret"
    assert first.code == 0
    assert f"INFO New secret written to {path}" in first.err
    assert taken.given.settings.security.secret == (Secret(path.read_bytes().strip()),)
    assert path.read_text().strip() not in first.err
    assert "secret" not in run("serve").err


def test_the_status_of_the_server_is_the_commands(run: Run, taken: Taken) -> None:
    taken.status = 1
    assert run("serve").code == 1


def test_warnings_are_logged(run: Run, taken: Taken, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[uploads]\nchunk_siz = 1\n")
    result = run("serve", "--config", "c.toml")
    assert "WARNING Configuration: c.toml:2: unknown key uploads.chunk_siz, ignored; did you mean" in result.err
    assert taken.given.settings.uploads.chunk_size == 5 * 1024**2


def test_an_error_is_a_line_and_exit_1(run: Run, taken: Taken, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[uploads]\nchunk_size = 'x'\n")
    result = run("serve", "--config", "c.toml")
    assert result.code == 1
    assert result.err.startswith("c.toml:2: uploads.chunk_size: ")
    assert taken.loaded is None


def test_a_log_file_that_cannot_be_written(run: Run, taken: Taken) -> None:
    result = run("serve", "--set", "logging.file=none/x.log")
    assert result.code == 1
    assert "logging.file: cannot be written: No such file or directory" in result.err
    assert taken.loaded is None


def test_a_storage_folder_that_cannot_be_made(run: Run, taken: Taken, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    result = run("serve")
    assert result.code == 1
    assert "no secret is set, and none can be kept there" in result.err
    assert taken.loaded is None


def test_somebody_who_tries_it_out_gets_a_link(
    run: Run, taken: Taken, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run("serve")
    assert taken.announce is not None
    taken.announce(taken.given.settings, ("unix:/run/x.sock", "[::1]:8081"))
    printed = capfd.readouterr().out
    assert "http://[::1]:8081/#ticket=" in printed
    assert "curl -H " in printed
    taken.announce(taken.given.settings, ("unix:/run/x.sock",))
    assert capfd.readouterr().out == ""


def test_a_service_with_a_configuration_prints_no_link(run: Run, taken: Taken, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("")
    result = run("serve", "--config", "c.toml")
    assert taken.announce is None
    assert result.out == ""


def test_a_reload_reads_file_environment_and_overrides_again(
    run: Run, taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[uploads]\nchunk_size = '1MB'\n[timeouts]\nmin_rate = 1\n")
    monkeypatch.setenv("HMAC_FILE_SERVER_TIMEOUTS__MIN_RATE", "2")
    run("serve", "--config", str(path), "--set", "logging.level=error")
    path.write_text("[uploads]\nchunk_size = '2MB'\n[timeouts]\nmin_rate = 1\n[logging]\nlevel = 'debug'\n")
    monkeypatch.setenv("HMAC_FILE_SERVER_TIMEOUTS__MIN_RATE", "3")
    assert taken.reload is not None
    settings = taken.reload().settings
    assert settings.uploads.chunk_size == 2 * 1024**2
    assert settings.timeouts.min_rate == 2
    assert settings.logging.level == "error"
