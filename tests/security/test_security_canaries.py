"""S-72: no secret, no credential and no path of the machine comes out, whatever is asked and whatever goes wrong."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.child import free_port, wait_until
from tests.fixtures.command_line import Result, Run
from tests.fixtures.server import FileServer
from tests.security import canaries, faulty_server
from tests.security.canaries import SECRETS, Told
from tests.security.faulty_server import PLACES
from tests.server.wire import children

from hmac_file_server import cli


class FaultyServer(FileServer):
    """See `faulty_server`. Its log has tracebacks."""

    def stop(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            assert child.stop() == 0


@pytest.fixture(params=["text", "json"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Told]:
    """A server with faults in it at its most talkative; as text with two processes, as JSON to a file, and strict."""
    settings = canaries.settings(free_port(), level="debug", format=request.param)
    settings["uploads"] = {"chunk_size": "1KB"}
    if request.param == "json":
        settings["logging"]["file"] = str(tmp_path / "log.json")
        settings["security"]["strict_signatures"] = True
    else:
        settings["server"] = {"processes": 2}
    server = FaultyServer(tmp_path / "server", settings, program=(faulty_server.__name__,))
    server.start()
    try:
        yield Told(server)
    finally:
        server.stop()


def logs(told: Told) -> str:
    """All that was logged, and all that was printed."""
    other = told.server.folder.parent / "log.json"
    return told.server.log_text() + (other.read_text(encoding="utf-8") if other.exists() else "")


def reload(told: Told, configuration: str, count: int) -> None:
    """SIGHUP with another configuration, which is taken or not: the answer number `count` of the log."""
    told.server.config.write_text(configuration, encoding="utf-8")
    os.kill(told.server.pid, signal.SIGHUP)
    said = ("Configuration not reloaded", "Configuration reloaded")

    def answered() -> bool:
        log = logs(told)
        return sum(log.count(words) for words in said) >= count

    wait_until(answered, "the configuration was looked at")


def found(text: str, marks: set[str]) -> list[str]:
    return sorted(mark for mark in marks if mark in text)


def test_s_72_requests_and_faults(told: Told, tmp_path: Path) -> None:
    """Text, JSON and debug; every kind of request, refusal and fault; SIGHUP with broken files; processes and answers."""
    secrets = {spelling for secret in SECRETS for spelling in canaries.spellings(secret)}
    server = told.server
    canaries.puts(told, PLACES)
    canaries.sessions(told)
    canaries.downloads(told)
    good = server.config.read_text(encoding="utf-8")
    for count, text in enumerate(canaries.broken_configurations(tmp_path), start=1):
        reload(told, text, count)
    reload(told, good, count + 1)
    told.ask("GET", "/upload/last-request")
    wait_until(lambda: "/upload/last-request" in logs(told), "the log is written")
    lines = [
        Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        for pid in (server.pid, *children(server.pid))
    ]
    server.stop()

    log = logs(told)
    assert log.count("InjectedFaultError") >= len(PLACES)
    assert "last-request" in log
    assert "Redis is not there" in log
    statuses = {answer.status for _, answer in told.answers}
    assert statuses >= {200, 201, 400, 401, 403, 404, 405, 409, 413, 500}, statuses
    assert found(log, secrets | told.credentials | told.expected) == []
    assert found("\n".join(lines), secrets | told.credentials) == []
    folder = str(server.folder)
    for question, answer in told.answers:
        said = f"{dict(answer.headers)} {answer.body.decode('utf-8', 'replace')}"
        assert found(said, secrets | told.expected) == [], question
        assert folder not in said, question
        assert "Traceback" not in said, question
        assert "InjectedFault" not in said, question


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("HMAC_FILE_SERVER_"):
            monkeypatch.delenv(name)

    def _run(*arguments: str) -> Result:
        capfd.readouterr()
        code = cli.main(arguments)
        return Result(code, *capfd.readouterr())

    return _run


def test_s_72_commands_with_a_configuration(run: Run, tmp_path: Path) -> None:
    """`config show` and `config check`, and a start that fails, of usable and of broken configurations."""
    # A password that is not escaped comes out in pieces, if at all.
    parts = {part for part in re.split("[/?#@:]", canaries.REDIS) if len(part) > 3}
    # Of the short ones the beginning is looked for.
    marks = parts | {secret[:9] for secret in SECRETS if not secret.startswith("canary-redis")}
    path = tmp_path / "config.toml"
    codes = set()
    usable = list(canaries.usable_configurations())
    for text in [*usable, *canaries.broken_configurations(tmp_path)]:
        path.write_text(text, encoding="utf-8")
        commands = [("config", "check", str(path)), ("config", "show", str(path))]
        if text not in usable and "jwt_secret" in text:
            commands.append(("serve", "--config", str(path)))
        for command in commands:
            result = run(*command)
            codes.add(result.code)
            said = (result.out + result.err).replace(str(tmp_path), "")
            assert "Traceback" not in said
            assert found(said, marks) == [], text
    assert codes == {0, 1}


@pytest.mark.parametrize(
    "word",
    [
        f"security.secret={canaries.HMAC}",
        f"security.jwt_secret={canaries.JWT}",
        f"security.delete_secret={canaries.DELETE}",
        f"auth.sharedsecret={canaries.HMAC}",
        f"admin.token={canaries.ADMIN}",
        f"redis.url=redis://:{canaries.REDIS}@127.0.0.1:1/0",
        f"redis.password={canaries.REDIS}",
    ],
)
def test_s_72_secrets_on_a_command_line_are_refused(run: Run, word: str) -> None:
    """Everybody on the machine can read it, so nobody shall get used to it; and the refusal does not repeat it."""
    for command in (["config", "check"], ["config", "show"], ["serve"]):
        result = run(*command, "--set", word)
        assert result.code == 1
        assert "command line" in result.err
        assert "canary" not in result.out + result.err


def test_s_72_secrets_in_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also there in places where they are not allowed."""
    monkeypatch.setenv("HMAC_FILE_SERVER_SECURITY__SECRET", canaries.HMAC)
    monkeypatch.setenv("HMAC_FILE_SERVER_REDIS__URL", f"http://:{canaries.REDIS}@h")
    monkeypatch.setenv("HMAC_FILE_SERVER_ADMIN__LISTEN_ADDRESS", "0.0.0.0:1")
    monkeypatch.setenv("HMAC_FILE_SERVER_ADMIN__TOKEN", canaries.ADMIN)
    monkeypatch.setenv("HMAC_FILE_SERVER_SECURITY__SECRETT", canaries.OLD_HMAC)
    for command in (["config", "check"], ["config", "show"]):
        result = run(*command)
        assert result.code == 1
        assert "canary" not in result.out + result.err
    monkeypatch.setenv("HMAC_FILE_SERVER_REDIS__URL", f"redis://:{canaries.REDIS}@h")
    result = run("config", "show")
    assert result.code == 0
    assert "canary" not in result.out + result.err
