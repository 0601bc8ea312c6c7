"""`upload`, with an uploader that does what a test says: what is asked of it, and how its answers end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from tests.fixtures.command_line import Result, Run

from hmac_file_server.cli import upload as module
from hmac_file_server.cli.commands import program
from hmac_file_server.cli.upload_report import BarReport, Item, JsonReport, LineReport, Report
from hmac_file_server.client import protocol, state, uploader
from hmac_file_server.client.errors import ConnectionLost, GaveUp, Refused, UploadFailed
from hmac_file_server.client.progress import Progress
from hmac_file_server.client.target import Target

TICKET = "aGVhZA.eyJtYXhfc2l6ZSI6MTB9.c2lnbmVk"
LINK = f"https://h/#ticket={TICKET}"
SECRET = "0123456789abcdef0123456789abcdef"


@dataclass
class Uploads:
    """What the command asked for: the options of each uploader, and what it was to upload."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    act: Callable[[dict[str, Any]], Awaitable[protocol.Result | None]] | None = None
    discarded: list[tuple[Any, str | None]] = field(default_factory=list)
    refuses: UploadFailed | None = None


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """No network: what is uploaded is written down."""
    done = Uploads()

    class FakeUploader:
        def __init__(self, target: Target, **options: Any) -> None:
            self.asked: dict[str, Any] = {"target": target, **options}

        async def upload(self, source: Any, *, name: str, media_type: str | None) -> protocol.Result:
            asked = {**self.asked, "source": source, "name": name, "media_type": media_type}
            done.asked.append(asked)
            if isinstance(source, str):
                content = Path(source).read_bytes()
            else:
                source.seek(0)
                content = source.read()
            done.contents.append(content)
            result = None if done.act is None else await done.act(asked)
            return result or protocol.Result(f"https://h/1/{name}", len(content), name, "blake3:00")

        async def discard(self, source: Any = None, *, name: str | None = None) -> bool:
            done.discarded.append((source, name))
            if done.refuses is not None:
                raise done.refuses
            return True

    monkeypatch.setattr(uploader, "AsyncUploader", FakeUploader)
    return done


@pytest.fixture
def up(run: Run, uploads: Uploads, tmp_path: Path) -> Run:
    """`upload` in an empty folder, with its state there; `a` and `b` are files."""
    (tmp_path / "a").write_bytes(b"of a")
    (tmp_path / "b").write_bytes(b"of b, longer")

    def _up(*arguments: str) -> Result:
        return run("upload", "--state-dir", str(tmp_path / "state"), *arguments)

    return _up


def moment(acknowledged: int, total: int, what: str = "uploading", attempt: int = 0, resumed: int = 0) -> Progress:
    return Progress(acknowledged, acknowledged, total, 2.0, 3.0, what, attempt, resumed)  # type: ignore[arg-type]


# ---- where to


def test_a_link(up: Run, uploads: Uploads) -> None:
    done = up("a", "--to", LINK)
    assert (done.code, done.out) == (0, "https://h/1/a\n")
    (asked,) = uploads.asked
    assert asked["target"].kind == "ticket"
    assert (asked["protocol"], asked["parallel"], asked["name"], asked["media_type"]) == ("chunked", 4, "a", None)
    assert asked["patience"] == 3600
    assert uploads.contents == [b"of a"]


@pytest.mark.parametrize(
    ("arguments", "variables", "kind"),
    [
        ([], {"LINK": LINK}, "ticket"),
        (["--to", "https://h", "--ticket", TICKET], {}, "ticket"),
        (["--to", "https://h"], {"TICKET": TICKET}, "ticket"),
        (["--to", "https://h"], {"SECRET": SECRET}, "secret"),
        (["--to", "https://h"], {"SECRET": SECRET, "TICKET": TICKET}, "ticket"),
        (["--to", "https://h", "--secret-file", "secret"], {"TICKET": TICKET}, "secret"),
        (["--to", "https://h", "--ticket", TICKET], {"SECRET": SECRET}, "ticket"),
        (["--to", LINK], {"SECRET": SECRET, "LINK": "https://other"}, "ticket"),
        (["--to", "https://h/x?v2=1"], {"SECRET": SECRET}, "slot"),
        (["--to", "https://h", "--protocol", "tus"], {}, "none"),
        (["--to", "https://h/", "--protocol", "put"], {}, "none"),
    ],
)
def test_what_permits_the_upload(
    up: Run, uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], variables: dict[str, str], kind: str,
) -> None:  # fmt: skip
    (tmp_path / "secret").write_text(SECRET + "\n")
    for name, value in variables.items():
        monkeypatch.setenv(f"HMAC_FILE_SERVER_{name}", value)
    assert up("a", *arguments).code == 0
    target = uploads.asked[0]["target"]
    assert target.kind == kind
    assert target.host == "h"
    if kind == "secret":
        # As the server reads it: without the line's end.
        assert target._secret == SECRET.encode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a"], "give --to"),
        ([], "FILE"),
        (["a", "--to", "https://h"], "nothing permits the upload"),
        (["a", "--to", "https://h", "--protocol", "chunked"], "nothing permits the upload"),
        (["a", "--to", "h"], "begins with http"),
        (["a", "--to", LINK + "="], "ticket"),
        (["a", "--to", LINK, "--ticket", "x.y.z"], "two tickets"),
        (["a", "--to", LINK, "--secret-file", "secret"], "a ticket and a secret"),
        (["a", "--to", "https://h", "--secret-file", "secret", "--ticket", TICKET], "not both"),
        (["a", "--to", LINK, "--protocol", "ftp"], "--protocol"),
        (["a", "--to", LINK, "--parallel", "0"], "--parallel"),
        (["a", "--to", LINK, "--give-up-after", "5"], "unit"),
        (["a", "b", "--to", LINK, "--name", "x"], "--name is for one file"),
        (["a", "--to", LINK, "--json", "--quiet"], "not both"),
        (["-", "-", "--to", LINK], "once"),
        (["a", "b", "--to", "https://h/x?v2=1"], "one file"),
        (["a", "--to", "https://h/x?v2=1", "--protocol", "tus"], "one PUT"),
        (["a", "--to", "https://h", "--secret", SECRET], "--secret"),
    ],
)
def test_usage(up: Run, uploads: Uploads, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    done = up(*arguments)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert words in done.err
    assert TICKET not in done.err
    assert uploads.asked == []


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"", "secret is empty"), (b"x" * 70000, "64 KiB")]
)
def test_a_secret_file_that_cannot_be_used(up: Run, tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    done = up("a", "--to", "https://h", "--secret-file", str(tmp_path / "secret"))
    assert done.code in {1, 2}
    assert words in done.err
    assert len(done.err.splitlines()) == 1


def test_no_option_takes_a_secret() -> None:
    command = program.get_command(click.Context(program), "upload")
    assert command is not None
    options = {name for parameter in command.params for name in parameter.opts}
    assert "--secret" not in options
    assert "--secret-file" in options


# ---- what is asked for


@pytest.mark.parametrize(
    ("arguments", "protocol_name", "parallel"),
    [
        ([], "chunked", 4), (["--parallel", "2"], "chunked", 2), (["--protocol", "tus"], "tus", 1),
        (["--protocol", "tus", "--parallel", "3"], "tus", 3), (["--protocol", "put"], "put", 1),
    ],
)  # fmt: skip
def test_protocols(up: Run, uploads: Uploads, arguments: list[str], protocol_name: str, parallel: int) -> None:
    assert up("a", "--to", LINK, *arguments).code == 0
    assert (uploads.asked[0]["protocol"], uploads.asked[0]["parallel"]) == (protocol_name, parallel)


def test_options_go_to_the_uploader(up: Run, uploads: Uploads, tmp_path: Path) -> None:
    up("a", "--to", LINK, "--name", "n\u00e4me", "--type", "text/x", "--give-up-after", "90s")
    asked = uploads.asked[0]
    assert (asked["name"], asked["media_type"], asked["patience"]) == ("n\u00e4me", "text/x", 90)
    assert asked["state"].folder == tmp_path / "state"
    assert asked["network"] is not None


def test_a_name_that_is_no_text_becomes_one(up: Run, uploads: Uploads, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.bin")
    (tmp_path / name).write_bytes(b"x")
    assert up(name, "--to", LINK).code == 0
    assert uploads.asked[0]["name"] == "\ufffd.bin"


def test_standard_input(up: Run, uploads: Uploads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"x" * 3_000_000)
    with (tmp_path / "given").open() as given:
        monkeypatch.setattr(sys, "stdin", given)
        assert up("-", "--to", LINK).code == 0
    assert uploads.contents == [b"x" * 3_000_000]
    assert uploads.asked[0]["name"] == "stdin"
    assert not isinstance(uploads.asked[0]["source"], str)
    # What was copied is gone.
    assert uploads.asked[0]["source"].closed


def test_a_pipe(up: Run, uploads: Uploads, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"through a pipe",))
    writer.start()
    assert up("pipe", "--to", LINK, "--name", "n").code == 0
    writer.join()
    assert uploads.contents == [b"through a pipe"]


def test_several_files_of_which_some_fail(up: Run, uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    async def act(asked: dict[str, Any]) -> None:
        if asked["name"] == "b":
            raise Refused("The file may have at most 5 bytes.", code="too_large", status=413, request_id="9f")

    uploads.act = act
    (tmp_path / "c").write_bytes(b"of c")
    done = up("a", "missing", "b", "folder", "c", "--to", LINK)
    assert done.code == 1
    assert done.lines == ["https://h/1/a", "https://h/1/c"]
    assert [line for line in done.err.splitlines() if line.startswith("hmac-file-server")] == [
        "hmac-file-server: missing: cannot be read: No such file or directory",
        "hmac-file-server: b: The file may have at most 5 bytes. (too_large)",
        "hmac-file-server: folder: this is a folder; files are uploaded one by one",
    ]
    assert done.err.splitlines()[-1].startswith("2 files uploaded, 8 B in ")
    assert done.err.splitlines()[-1].endswith("; 3 failed")


def test_an_upload_that_gave_up_says_how_to_go_on(up: Run, uploads: Uploads) -> None:
    async def act(asked: dict[str, Any]) -> None:
        raise GaveUp(3600, ConnectionLost("connection refused"))

    uploads.act = act
    done = up("a", "--to", LINK)
    assert done.code == 1
    assert done.err == (
        "hmac-file-server: a: no progress for 3600 s: connection refused; the same command again continues\n"
    )


def test_a_second_run_of_the_same(up: Run, uploads: Uploads) -> None:
    async def act(asked: dict[str, Any]) -> None:
        raise UploadFailed(str(state.UploadHeld(42)), code="already_running")

    uploads.act = act
    done = up("a", "--to", LINK, "--json")
    assert done.code == 1
    assert done.err == "hmac-file-server: a: this upload is already running (process 42)\n"
    assert json.loads(done.lines[-1])["code"] == "already_running"


def test_nothing_can_be_remembered_is_said_once(run: Run, uploads: Uploads, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"x")

    async def act(asked: dict[str, Any]) -> None:
        fingerprint = state.Fingerprint(asked["source"], 1, 1, 1, "t", "p")
        with asked["state"].hold(fingerprint) as held:
            assert not held.remembered

    uploads.act = act
    (tmp_path / "no-folder").write_bytes(b"")
    done = run("upload", "a", "b", "--to", LINK, "--state-dir", str(tmp_path / "no-folder" / "x"))
    assert done.code == 0
    assert done.err.count("will not be continued by the next run") == 1


@pytest.mark.parametrize("refuses", [None, ConnectionLost("no connection")])
def test_fresh_forgets(up: Run, uploads: Uploads, refuses: UploadFailed | None) -> None:
    uploads.refuses = refuses
    fingerprint = state.Fingerprint("/x", 1, 1, 1, "t", "p")
    seen: list[state.Entry | None] = []

    async def act(asked: dict[str, Any]) -> None:
        with asked["state"].hold(fingerprint) as held:
            seen.append(held.load())
            held.save(state.Entry({"id": len(seen)}))

    uploads.act = act
    for arguments in ([], [], ["--fresh"], []):
        assert up("a", "--to", LINK, *arguments).code == 0
    assert [None if entry is None else entry.session["id"] for entry in seen] == [None, 1, None, 3]
    # The server has it no more, if it could be told.
    assert uploads.discarded == [("a", "a")]


# ---- what is said meanwhile


def test_json(up: Run, uploads: Uploads) -> None:
    async def act(asked: dict[str, Any]) -> None:
        tell = asked["on_progress"]
        tell(moment(0, 4, "starting"))
        tell(moment(2, 4, resumed=2))
        tell(moment(2, 4, "waiting", attempt=1, resumed=2))
        tell(moment(4, 4, "done", resumed=2))

    uploads.act = act
    done = up("a", "--to", LINK, "--json")
    told = [json.loads(line) for line in done.lines]
    assert [one["event"] for one in told] == ["start", "progress", "retry", "done"]
    assert told[0] == {
        "event": "start", "file": "a", "name": "a", "size": 4, "acknowledged": 2, "resumed": True,
    }  # fmt: skip
    assert told[2]["attempt"] == 1
    assert (told[-1]["url"], told[-1]["size"], told[-1]["digest"]) == ("https://h/1/a", 4, "blake3:00")
    assert told[-1]["resumed"] == 2
    assert done.err == ""


def test_the_bar_does_not_jump_back_before_the_server_was_asked() -> None:
    told = module.Telling(Item("a", "a", 100), Report(), lambda: True)
    moved: list[int] = []
    for sent, what, attempt in (
        (30, "uploading", 0), (60, "uploading", 0), (10, "waiting", 1), (10, "stalled", 1), (10, "uploading", 1),
        (55, "uploading", 0), (70, "uploading", 0), (100, "done", 0),
    ):  # fmt: skip
        told.progress(moment(sent, 100, what, attempt))
        assert told.figures is not None
        moved.append(told.figures.moved)
    assert moved == [30, 60, 60, 60, 60, 55, 70, 100]


@pytest.mark.parametrize(
    ("progress", "online", "words"),
    [
        (moment(1, 4), True, ""),
        (moment(1, 4), False, ""),
        (moment(1, 4, "offline", 1), False, "no network, waits"),
        (moment(1, 4, "waiting", 1), False, "no network, waits"),
        (moment(0, 4, "starting", 1), False, "no network, waits"),
        (moment(0, 4, "starting"), False, ""),
        # To a server on this machine.
        (moment(1, 4, "offline", 1), True, "server does not answer, tries again"),
        (moment(1, 4, "stalled"), True, "server does not answer, asks it how far it is"),
        (moment(4, 4, "finishing"), True, "all is sent, waits for the server"),
        (moment(1, 4, "waiting", 1), True, "server does not answer, tries again"),
        (moment(0, 4, "starting"), True, ""),
        (moment(0, 4, "starting", 2), True, "server does not answer, tries again"),
    ],
)
def test_plain_words(progress: Progress, online: bool, words: str) -> None:
    assert module._said(progress, online=online) == words


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("a.localhost", True),
        ("192.0.2.1", False), ("files.example.org", False), ("localhost.example.org", False), ("", False),
    ],
)  # fmt: skip
def test_what_needs_no_network(host: str, local: bool) -> None:
    assert module._local(host) == local


def test_why_an_attempt_failed_in_plain_words() -> None:
    assert module._trouble(None) == "server does not answer"
    assert module._trouble(ConnectionLost("stalled", code="stalled")) == "server does not answer"
    lost = module._trouble(ConnectionLost("no connection to the server: Connection refused"))
    assert lost == "no connection to the server: Connection refused"
    busy = Refused("The disk is busy.", code="storage_busy", status=503, retriable=True)
    assert module._trouble(busy) == "server refuses for now (The disk is busy)"


@pytest.mark.parametrize(
    ("options", "terminal", "term", "kind"),
    [
        ({"as_json": True, "quiet": False}, True, "xterm", JsonReport),
        ({"as_json": False, "quiet": True}, True, "xterm", Report),
        ({"as_json": False, "quiet": False}, True, "xterm", BarReport),
        ({"as_json": False, "quiet": False}, True, "dumb", LineReport),
        ({"as_json": False, "quiet": False}, False, "xterm", LineReport),
    ],
)
def test_who_reports(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], terminal: bool, term: str, kind: type[Report]
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert type(module._report(**options)) is kind


# ---- the user stops it


@pytest.fixture
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(up: Run, uploads: Uploads, number: signal.Signals, code: int) -> None:
    ended: list[str] = []

    async def act(asked: dict[str, Any]) -> None:
        asked["on_progress"](moment(2, 4))
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(asked["name"])

    uploads.act = act
    done = up("a", "b", "--to", LINK)
    assert done.code == code
    assert done.out == ""
    assert done.err == "hmac-file-server: interrupted; 2 B of 4 B of a are safe, the same command again continues\n"
    # In order, and nothing else was begun, or ended at the server.
    assert ended == ["a"]
    assert uploads.discarded == []


@pytest.mark.usefixtures("signals")
def test_an_interrupted_pipe_cannot_be_continued(
    up: Run, uploads: Uploads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def act(asked: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    uploads.act = act
    with (tmp_path / "a").open() as given:
        monkeypatch.setattr(sys, "stdin", given)
        done = up("-", "--to", LINK, "--json")
    assert done.code == 130
    assert "must be sent from its beginning" in done.err
    assert uploads.discarded == [(None, None)]
    assert json.loads(done.lines[-1]) == {
        "event": "interrupted", "file": "-", "acknowledged": 0, "size": 4, "resumable": False,
    }  # fmt: skip
