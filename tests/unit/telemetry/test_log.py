import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from hmac_file_server.config import Logging, Secret
from hmac_file_server.telemetry import events, log
from hmac_file_server.telemetry.events import Event

SOURCE = Path(log.__file__).parent.parent
DOCS = Path(__file__).parents[3] / "docs"

Read = Callable[[], list[str]]
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) .+")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("hmac_file_server")
    before = (root.handlers[:], root.level, own.level)
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


class Lines:
    """A log file and what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def configure(
        self,
        level: Literal["debug", "info", "warning", "error"] = "info",
        style: Literal["text", "json"] = "text",
    ) -> log.Sink:
        return log.configure(Logging(level=level, format=style, file=self.path))

    def read(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(tmp_path / "server.log")


def test_the_guides_lines_come_out_as_printed(lines: Lines) -> None:
    lines.configure()
    log.event(events.NETWORK_CHANGED)
    log.event(events.UPLOADS_PAUSED)
    log.event(events.UPLOADS_RESUMED)
    log.event(events.SESSIONS_ACTIVE, count=3)
    log.event(events.RESILIENT_UPLOADS, count=5)
    read = lines.read()
    assert all(LINE.fullmatch(line) for line in read)
    assert [line[20:] for line in read] == [
        "INFO Network change detected",
        "INFO Pausing all active uploads due to network change",
        "INFO Resuming all paused uploads",
        "INFO Active upload sessions: 3",
        "INFO Network resilience: 5 uploads active",
    ]


def test_text_escapes_and_cuts_what_users_write(lines: Lines) -> None:
    lines.configure()
    log.event(events.UPLOAD_CONFLICT, path="a\n2025-01-01 00:00:00 INFO forged\u202e" + "x" * 500)
    (line,) = lines.read()
    assert LINE.fullmatch(line)
    assert "a\\x0a2025-01-01 00:00:00 INFO forged\\u202e" in line
    assert len(line) < 350


def test_json_has_every_field(lines: Lines) -> None:
    lines.configure(style="json")
    log.event(events.UPLOAD_CONFLICT, path="a\nb", extra=[1, "x"], size=5)
    (line,) = lines.read()
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {
        "level": "INFO",
        "event": "upload_conflict",
        "message": "Upload refused, a\\x0ab exists with other bytes",
        "path": "a\nb",
        "extra": [1, "x"],
        "size": 5,
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_secrets_are_never_logged(lines: Lines, style: Literal["text", "json"]) -> None:
    lines.configure(style=style)
    kind = Event("test", events.INFO, "{token} {signature} {authorization} {secret} {query} {other}")
    marker = "marker-8d1c"
    log.event(
        kind, token=marker, signature=marker, authorization=marker, secret=marker, query=marker, other=Secret(marker)
    )
    (line,) = lines.read()
    assert marker not in line
    assert "***" in line


def test_the_level_hides_what_is_below(lines: Lines) -> None:
    lines.configure("warning")
    log.event(events.NETWORK_CHANGED)
    log.event(events.STORAGE_FULL, size=1, reason="x")
    assert [line.split()[2] for line in lines.read()] == ["WARNING"]
    assert (log.shows(events.NETWORK_CHANGED), log.shows(events.STORAGE_FULL)) == (False, True)
    lines.configure("debug")
    assert log.shows(events.UPLOAD_STORED)


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_exception_stays_on_one_line(lines: Lines, style: Literal["text", "json"]) -> None:
    lines.configure(style=style)
    try:
        raise ValueError("bad\nvalue")
    except ValueError as error:
        log.event(events.REQUEST_FAILED, request_id="r1", reason="internal", exc=error)
    (line,) = lines.read()
    if style == "text":
        assert "Request r1 failed: internal [ValueError: bad\\x0avalue at test_log.py:" in line
    else:
        assert 'raise ValueError("bad\\nvalue")' in json.loads(line)["exception"]


def test_a_field_that_was_not_passed_is_a_dash(lines: Lines) -> None:
    lines.configure()
    log.event(events.SESSIONS_ACTIVE)
    assert lines.read()[0].endswith("Active upload sessions: -")


def test_events_by_name(lines: Lines) -> None:
    lines.configure()
    log.named("sessions_active", count=4)
    log.named("never_declared", path="a\nb", token="marker")
    read = lines.read()
    assert read[0].endswith("INFO Active upload sessions: 4")
    assert read[1].endswith("WARNING never_declared path=a\\x0ab token=***")


@pytest.mark.parametrize("style", ["text", "json"])
def test_records_of_libraries_come_out_alike(lines: Lines, style: Literal["text", "json"]) -> None:
    lines.configure(style=style)
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, log._Handler)]
    logging.getLogger("asyncio").warning("slow %s\nnext", "callback")
    logging.getLogger("asyncio").debug("hidden")
    logging.getLogger("asyncio").warning("bad %d", "format")
    read = lines.read()
    assert len(read) == 2
    if style == "text":
        assert read[0].endswith("WARNING slow callback\\x0anext")
        assert "Log line lost: TypeError" in read[1]
    else:
        assert json.loads(read[0])["message"] == "slow callback\nnext"
        assert json.loads(read[0])["logger"] == "asyncio"


def test_without_a_file_lines_go_to_the_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure(Logging())
    log.event(events.NETWORK_CHANGED)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith("INFO Network change detected\n")


def test_a_moved_file_is_opened_anew(lines: Lines, tmp_path: Path) -> None:
    lines.configure()
    log.event(events.SESSIONS_ACTIVE, count=1)
    lines.path.rename(tmp_path / "old.log")
    log.event(events.SESSIONS_ACTIVE, count=2)
    log.reopen()
    log.event(events.SESSIONS_ACTIVE, count=3)
    assert (tmp_path / "old.log").read_text().count("\n") == 2
    assert lines.read()[0].endswith(": 3")


def test_a_file_that_cannot_be_opened_leaves_the_log_as_it_was(lines: Lines, tmp_path: Path) -> None:
    sink = lines.configure()
    with pytest.raises(FileNotFoundError):
        log.configure(Logging(file=tmp_path / "none" / "x.log"))
    sink.path = str(tmp_path / "none" / "x.log")
    with pytest.raises(FileNotFoundError):
        log.reopen()
    log.event(events.NETWORK_CHANGED)
    assert len(lines.read()) == 1


def test_configuring_again_changes_the_format_and_writes_nothing_twice(lines: Lines) -> None:
    lines.configure()
    log.event(events.NETWORK_CHANGED)
    lines.configure(style="json")
    log.event(events.NETWORK_CHANGED)
    read = lines.read()
    assert [line[0] for line in read] == ["2", "{"]


def test_a_log_file_is_not_for_everybody(lines: Lines) -> None:
    lines.configure()
    assert lines.path.stat().st_mode & 0o007 == 0


def test_what_cannot_be_written_is_counted_and_does_no_harm() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        sink = log.Sink(fd=fd)
        sink.write(b"one\ntwo\n")
        assert sink.dropped == 2
        sink.reopen()  # no file, nothing to do
    finally:
        os.close(fd)


def test_a_slow_reader_gets_whole_lines() -> None:
    code = (
        "from hmac_file_server.telemetry.log import Sink\n"
        "sink = Sink(fd=1)\n"
        "for n in range(400): sink.write(b'%05d ' % n + b'x' * 1000 + b'\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    read = done.stdout.splitlines()
    assert [int(line[:5]) for line in read] == list(range(400))


# The catalogue


def documented() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `([a-z_]+)` \| ([A-Z]+) \| `(.*)` \|", (DOCS / "logging.md").read_text(), re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: (level, text) for name, level, text in rows}


def test_every_event_is_documented_as_it_is() -> None:
    declared = {kind.name: (logging.getLevelName(kind.level), kind.text) for kind in events.EVENTS.values()}
    assert documented() == declared


def test_event_names_and_texts_are_well_formed() -> None:
    for name, kind in events.EVENTS.items():
        assert name == kind.name
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert "|" not in kind.text
        assert not kind.text.endswith(".")
        fields = set(re.findall(r"{(.*?)}", kind.text))
        assert all(re.fullmatch(r"[a-z_]+", field) for field in fields)
        assert kind.text.format_map(dict.fromkeys(fields, "x"))


def test_an_event_cannot_be_declared_twice() -> None:
    with pytest.raises(ValueError, match="there already"):
        events._declare("request", events.INFO, "x")


def test_events_logged_by_name_are_in_the_catalogue() -> None:
    named = {
        (path.name, name)
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r"(?:self\._log|\blog)\(\s*\"([a-z_]+)\"", path.read_text())
    }
    assert named
    assert {(file, name) for file, name in named if name not in events.EVENTS} == set()
