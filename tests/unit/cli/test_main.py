"""Exit codes, messages, help: what holds for every command."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.fixtures.command_line import Run

from hmac_file_server import __version__
from hmac_file_server.cli import commands as tree
from hmac_file_server.cli import main
from hmac_file_server.config import ConfigError

DOCS = Path(__file__).parents[3] / "docs"


def every_command() -> dict[str, click.Command]:
    """Full name to command, groups included."""
    found: dict[str, click.Command] = {}

    def add(command: click.Command, name: str) -> None:
        found[name] = command
        if isinstance(command, click.Group):
            for below in command.list_commands(click.Context(command)):
                one = command.get_command(click.Context(command), below)
                assert one is not None
                add(one, f"{name} {below}".strip())

    add(tree.program, "")
    return found


def test_the_commands_are_those_of_the_interface() -> None:
    assert set(every_command()) == {
        "",
        "serve",
        "init",
        "config",
        "config check",
        "config show",
        "sign",
        "link",
        "upload",
        "files",
        "files list",
        "files show",
        "files delete",
        "sessions",
        "sessions list",
        "sessions show",
        "sessions delete",
        "fsck",
    }


@pytest.mark.parametrize("name", every_command())
def test_every_command_has_a_help(run: Run, name: str) -> None:
    for option in ("--help", "-h"):
        result = run(*name.split(), option)
        assert result.code == 0
        assert result.out.startswith("Usage: hmac-file-server")
        assert result.err == ""


def test_the_version(run: Run) -> None:
    assert run("--version").out == f"hmac-file-server, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serv"], "did you mean serve?"),
        (["zzz"], "there are serve, init"),
        (["sign"], "Missing argument 'METHOD'"),
        (["sign", "PUT"], "Missing argument 'PATH'"),
        (["sign", "FETCH", "/a"], "'FETCH' is not one of"),
        (["sign", "PUT", "/a", "--scheme", "v9"], "'v9' is not one of"),
        (["sign", "PUT", "/a", "--size", "big"], "not a size"),
        (["sign", "PUT", "/a", "--expires", "soon"], "not a duration"),
        (["sign", "PUT", "/a", "--expires", "10"], "needs a unit"),
        (["sign", "PUT", "/a", "--expires", "1ms"], "at least 1s"),
        (["link", "--files", "0"], "0 is not in the range"),
        (["serve", "extra"], "unexpected extra argument"),
        (["serve", "--nothing"], "No such option"),
        (["init", "--listen", "nowhere"], "no port from 0 to 65535"),
        (["init", "--url", "upload.example.org"], "write https://host/"),
        (["config", "zzz"], "No such command"),
        (["files", "delete"], "Missing argument 'PATH...'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert said in result.err
    assert result.err.count("\n") == 1
    assert result.err.startswith("hmac-file-server")
    assert "--help" in result.err


@pytest.mark.parametrize("arguments", [[], ["config"], ["files"], ["sessions"]])
def test_a_group_alone_shows_its_help_and_exit_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage: hmac-file-server" in result.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "hmac-file-server: interrupted\n"),
        (click.Abort(), 130, "hmac-file-server: interrupted\n"),
        (OSError(errno.EACCES, "Permission denied", "/x"), 1, "hmac-file-server: /x: Permission denied\n"),
        (OSError("odd"), 1, "hmac-file-server: odd\n"),
        (ConfigError("bad", "f", 1, "k", others=(ConfigError("worse", "f", 2),)), 1, "f:1: k: bad\nf:2: worse\n"),
        (click.ClickException("no"), 1, "hmac-file-server: no\n"),
    ],
)
def test_what_a_command_raises(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(tree.program, "main", fail)
    result = run("serve")
    assert (result.code, result.err) == (code, said)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(tree.program, "main", fail)
    with pytest.raises(ZeroDivisionError):
        main(["serve"])


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hmac_file_server", "config", "show"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_commands_are_imported_only_when_they_are_run() -> None:
    code = (
        "import sys, hmac_file_server.cli\n"
        "print([m for m in sys.modules if m.startswith(('hmac_file_server.cli.sign', 'hmac_file_server.auth', "
        "'hmac_file_server.server', 'asyncio', 'sqlite3', 'uvloop'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# The documentation


def documented(name: str) -> str:
    """The section of a command in docs/commands.md."""
    _, found, rest = (DOCS / "commands.md").read_text(encoding="utf-8").partition(f"\n## `{name}`\n")
    assert found, f"docs/commands.md has no section for {name}"
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("name", [name for name, command in every_command().items() if name])
def test_every_command_and_option_is_documented(name: str) -> None:
    command = every_command()[name]
    section = documented(name)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert f"`{option}" in section, f"docs/commands.md: {name} lacks {option}"
            if isinstance(parameter.default, str):
                assert parameter.default in section
            if isinstance(parameter.type, click.Choice):
                assert all(str(choice) in section for choice in parameter.type.choices)
        else:
            assert (parameter.human_readable_name.strip("[]")) in section


def test_no_option_is_documented_that_does_not_exist() -> None:
    import re

    for name, command in every_command().items():
        if name:
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
            assert set(re.findall(r"^\| `(--[a-z-]+)", documented(name), re.MULTILINE)) <= options


def test_no_command_is_documented_that_does_not_exist() -> None:
    import re

    headings = re.findall(r"^## `(.*)`$", (DOCS / "commands.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(headings) == {name for name in every_command() if name}
