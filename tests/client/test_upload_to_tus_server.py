"""`upload --protocol tus` to a server of others: @tus/server in Node, over connections that break."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.client.upload_run import CalmRelay, running, upload
from tests.fixtures import node
from tests.fixtures.child import Child, accepts, free_port
from tests.fixtures.content import content
from tests.fixtures.relay import Relay

MIB = 1 << 20
DATA = content(24 * MIB + 3, "to a server of others")
HALF = 12 * MIB
NEVER = 1 << 40
SERVER = """
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const [packages, directory, port] = process.argv.slice(2);
const require = createRequire(`${packages}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { Server } = await load('@tus/server');
const { FileStore } = await load('@tus/file-store');
new Server({ path: '/files', datastore: new FileStore({ directory }) }).listen({ host: '127.0.0.1', port: Number(port) });
"""

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def rival(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Its port."""
    node.package("@tus/server")
    folder = tmp_path_factory.mktemp("rival")
    (folder / "server.mjs").write_text(SERVER)
    port = free_port()
    child = Child(
        "tus-server", [node.node(), str(folder / "server.mjs"), str(node.PACKAGES), str(stored), str(port)],
        log=folder / "log", env=node.environment(), cwd=folder,
    )  # fmt: skip
    try:
        child.wait_ready(lambda: accepts(port))
        yield port
    finally:
        child.stop()


@pytest.fixture
def relay(rival: int) -> Iterator[Relay]:
    made = CalmRelay(rival, HALF)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "film.bin").write_bytes(DATA)
    (made / "empty").write_bytes(b"")
    return made


def content_of(stored: Path, url: str) -> bytes:
    name = url.rpartition("/")[2]
    assert json.loads((stored / f"{name}.json").read_text())["metadata"]["filename"]
    return (stored / name).read_bytes()


@pytest.mark.parametrize(("path", "options"), [("/files", []), ("/files/", ["--parallel", "3"])])
def test_whole_files(rival: int, stored: Path, folder: Path, tmp_path: Path, path: str, options: list[str]) -> None:
    to = f"http://127.0.0.1:{rival}{path}"
    done = upload("film.bin", "empty", "--to", to, "--protocol", "tus", *options, state=tmp_path / "s", folder=folder)
    assert done.code == 0, done.err
    film, empty = done.urls
    assert film.startswith(f"http://127.0.0.1:{rival}/files/")
    assert content_of(stored, film) == DATA
    assert content_of(stored, empty) == b""


def test_a_connection_breaks(relay: Relay, stored: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ("film.bin", "--json", "--to", f"{relay.url}/files/", "--protocol", "tus")
    with running(*arguments, state=tmp_path / "s", folder=folder) as run:
        assert relay.held.wait(30)
        before = relay.connections
        relay.reset()
        done = run.wait()
    assert done.code == 0, done.err
    assert relay.connections > before
    assert content_of(stored, done.event("done")["url"]) == DATA


def test_another_run_goes_on(relay: Relay, stored: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ("film.bin", "--json", "--to", f"{relay.url}/files/", "--protocol", "tus")
    with running(*arguments, state=tmp_path / "s", folder=folder) as run:
        assert relay.held.wait(30)
        run.kill()
    relay.reset()
    relay.hold_again(NEVER)
    done = upload(*arguments, state=tmp_path / "s", folder=folder)
    assert done.code == 0, done.err
    begun = done.event("start")
    assert begun["resumed"]
    assert NEVER - relay._left <= len(DATA) - begun["acknowledged"] + 64 * 1024
    assert content_of(stored, done.event("done")["url"]) == DATA


def test_an_upload_that_is_gone_is_begun_anew(relay: Relay, stored: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ("film.bin", "--json", "--to", f"{relay.url}/files/", "--protocol", "tus")
    with running(*arguments, state=tmp_path / "s", folder=folder) as run:
        assert relay.held.wait(30)
        run.kill()
    relay.reset()
    relay.hold_again(NEVER)
    (state,) = (tmp_path / "s").rglob("*.json")
    name = json.loads(state.read_text())["session"]["session"]["url"].rpartition("/")[2]
    (stored / name).unlink()
    (stored / f"{name}.json").unlink()
    done = upload(*arguments, state=tmp_path / "s", folder=folder)
    assert done.code == 0, done.err
    assert not done.event("start")["resumed"]
    assert content_of(stored, done.event("done")["url"]) == DATA
