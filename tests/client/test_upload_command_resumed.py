"""`upload` again: what an earlier run brought is not sent twice, however that run ended."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client.upload_run import CalmRelay, Ended, Running, fetched, running, upload
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer
from tests.fixtures.server import running as server_in
from tests.server import signatures

MIB = 1 << 20
DATA = content(40 * MIB + 7, "resumed command")
HALF = 20 * MIB
NEVER = 1 << 40
# Heads, questions, and what TCP had on its way.
SLACK = 64 * 1024
PROTOCOLS: dict[str, list[str]] = {
    "chunked": [],
    "one connection": ["--parallel", "1"],
    "tus": ["--protocol", "tus"],
    "tus in parts": ["--protocol", "tus", "--parallel", "3"],
    "put": ["--protocol", "put"],
}

pytestmark = pytest.mark.server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "film.bin").write_bytes(DATA)
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    yield from server_in(tmp_path_factory.mktemp("server"))


@pytest.fixture
def relay(server: FileServer) -> Iterator[Relay]:
    """Stops in the middle of the file."""
    made = CalmRelay(server.port, HALF)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def link(relay: Relay) -> str:
    return f"{relay.url}/#ticket={signatures.ticket(prefix='', ops=['upload', 'create', 'chunk'])}"


def passed(relay: Relay, limit: int) -> int:
    """Bytes that went to the server since it was to hold after `limit` of them."""
    return limit - relay._left


def entry(state: Path) -> dict[str, Any]:
    """What is remembered."""
    (path,) = state.rglob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    told = json.loads(path.read_text())
    assert isinstance(told, dict)
    return told


def halfway(run: Running, relay: Relay) -> None:
    """Wait until half of the file is on its way."""
    assert relay.held.wait(30)
    wait_until(lambda: any(event["event"] == "start" for event in run.events()), "the upload has begun")


def go_on(server: FileServer, relay: Relay, done: Ended) -> None:
    """A run that continued: nothing that the server had told of was sent again."""
    assert done.code == 0, done.err
    begun = done.event("start")
    assert begun["resumed"]
    assert begun["acknowledged"] > HALF / 2
    assert passed(relay, NEVER) <= len(DATA) - begun["acknowledged"] + SLACK
    end = done.event("done")
    assert end["resumed"] == begun["acknowledged"]
    assert end["sent"] == len(DATA) - begun["acknowledged"]
    assert fetched(server, end["url"]) == DATA


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_killed_run_is_continued(
    server: FileServer, relay: Relay, link: str, folder: Path, state: Path, name: str
) -> None:
    arguments = ("film.bin", "--json", "--to", link, *PROTOCOLS[name])
    before = server.files()
    with running(*arguments, state=state, folder=folder) as run:
        halfway(run, relay)
        run.kill()
    text = json.dumps(entry(state))
    assert link.partition("=")[2] not in text
    relay.reset()
    relay.hold_again(NEVER)
    go_on(server, relay, upload(*arguments, state=state, folder=folder))
    assert not list(state.rglob("*.json"))
    assert len(server.files() - before) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on(
    server: FileServer, relay: Relay, link: str, folder: Path, state: Path, number: signal.Signals, code: int
) -> None:
    arguments = ("film.bin", "--json", "--to", link)
    with running(*arguments, state=state, folder=folder) as run:
        halfway(run, relay)
        run.signal(number)
        done = run.wait()
    assert done.code == code
    assert done.err.startswith("hmac-file-server: interrupted; ")
    assert done.err.endswith("of film.bin are safe, the same command again continues\n")
    assert len(done.err.splitlines()) == 1
    assert done.event("interrupted")["resumable"]
    relay.reset()
    relay.hold_again(NEVER)
    go_on(server, relay, upload(*arguments, state=state, folder=folder))


def test_a_run_outlives_the_server_and_its_connections(
    server: FileServer, relay: Relay, link: str, folder: Path, state: Path
) -> None:
    with running("film.bin", "--json", "--to", link, state=state, folder=folder) as run:
        halfway(run, relay)
        assert server.child is not None
        server.child.process.kill()
        server.child.process.wait()
        relay.refusing = True
        relay.reset()
        wait_until(lambda: any(event["event"] == "retry" for event in run.events()), "the client has noticed")
        relay.hold_again(NEVER)
        server.start()
        relay.refusing = False
        done = run.wait()
    assert done.code == 0, done.err
    assert done.err == ""
    assert fetched(server, done.event("done")["url"]) == DATA
    # What the kernel of the killed server had is lost with it.
    assert passed(relay, NEVER) <= len(DATA) + SLACK


def test_a_file_that_was_changed_is_uploaded_anew(
    server: FileServer, relay: Relay, link: str, folder: Path, state: Path
) -> None:
    with running("film.bin", "--json", "--to", link, state=state, folder=folder) as run:
        halfway(run, relay)
        run.kill()
    relay.reset()
    relay.hold_again(NEVER)
    changed = b"another beginning" + DATA[17:]
    (folder / "film.bin").write_bytes(changed)
    done = upload("film.bin", "--json", "--to", link, state=state, folder=folder)
    assert done.code == 0
    assert done.event("start")["acknowledged"] == 0
    assert fetched(server, done.event("done")["url"]) == changed


def test_a_file_that_is_changed_while_it_is_uploaded(relay: Relay, link: str, folder: Path, state: Path) -> None:
    with running("film.bin", "--json", "--to", link, state=state, folder=folder) as run:
        halfway(run, relay)
        with (folder / "film.bin").open("r+b") as file:
            file.write(b"changed")
        os.utime(folder / "film.bin", ns=(1, 1))
        relay.release()
        relay.hold_again(NEVER)
        done = run.wait()
    assert done.code == 1
    assert done.event("error")["code"] == "source_changed"
    assert len(done.err.splitlines()) == 1


def test_anew_where_it_is_asked_for(server: FileServer, relay: Relay, link: str, folder: Path, state: Path) -> None:
    with running("film.bin", "--json", "--to", link, state=state, folder=folder) as run:
        halfway(run, relay)
        run.kill()
    relay.reset()
    relay.hold_again(NEVER)
    done = upload("film.bin", "--json", "--fresh", "--to", link, state=state, folder=folder)
    assert done.event("start")["acknowledged"] == 0
    assert fetched(server, done.event("done")["url"]) == DATA


def test_a_session_that_the_server_has_forgotten(
    server: FileServer, relay: Relay, link: str, folder: Path, state: Path
) -> None:
    with running("film.bin", "--json", "--to", link, state=state, folder=folder) as run:
        halfway(run, relay)
        run.kill()
    relay.reset()
    relay.hold_again(NEVER)
    session = entry(state)["session"]["session"]
    id_ = next(value for value in session.values() if isinstance(value, str) and "_" in value)
    ended = server.request("DELETE", "/upload/chunked", headers={"X-Upload-Session-ID": id_})
    assert ended.status == 204
    done = upload("film.bin", "--json", "--to", link, state=state, folder=folder)
    assert done.code == 0, done.err
    assert done.event("start")["acknowledged"] == 0
    assert fetched(server, done.event("done")["url"]) == DATA


def test_two_runs_of_one_upload(server: FileServer, relay: Relay, link: str, folder: Path, state: Path) -> None:
    with running("film.bin", "--json", "--to", link, state=state, folder=folder) as run:
        halfway(run, relay)
        second = upload("film.bin", "--json", "--to", link, state=state, folder=folder)
        assert second.code == 1
        assert second.event("error")["code"] == "already_running"
        assert f"process {run.process.pid}" in second.err
        relay.release()
        relay.hold_again(NEVER)
        done = run.wait()
    assert done.code == 0
    assert fetched(server, done.event("done")["url"]) == DATA


def test_two_uploads_of_which_the_second_is_killed(
    server: FileServer, relay: Relay, link: str, folder: Path, state: Path
) -> None:
    (folder / "first.txt").write_bytes(b"first")
    arguments = ("first.txt", "film.bin", "--json", "--to", link)
    with running(*arguments, state=state, folder=folder) as run:
        assert relay.held.wait(30)
        run.kill()
    relay.reset()
    relay.hold_again(NEVER)
    done = upload(*arguments, state=state, folder=folder)
    assert done.code == 0
    first, film = [event for event in done.events if event["event"] == "done"]
    assert fetched(server, first["url"]) == b"first"
    assert film["resumed"] > HALF / 2
    assert fetched(server, film["url"]) == DATA
