"""Uppy in Chromium, on a page of another origin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.clients.arrivals import check_arrival, endpoint, write
from tests.clients.conftest import StartRelay
from tests.clients.uppy import Uppy, bundle, website
from tests.fixtures.chromium import running_chromium
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, StartServer
from tests.guide.servers import crash

MIB = 1 << 20
SIZE = 3 * MIB + 12_345
LARGE = 9 * MIB + 345
"""Golden Retriever keeps files of 10 MiB at most."""
HELD = 5 * MIB


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with website(bundle(tmp_path_factory.mktemp("page"))) as site:
        yield site


@pytest.fixture
def uppy(browser: Browser, site: str) -> Iterator[Uppy]:
    uppy = Uppy(browser, site)
    try:
        yield uppy
    finally:
        uppy.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"chunkSize": 500_000}, {"uploadDataDuringCreation": True}, {"parallelUploads": 3}],
    ids=["default", "chunks", "with-creation", "parallel"],
)
def test_files_arrive(
    shared_server: FileServer, uppy: Uppy, tmp_path: Path, request: pytest.FixtureRequest, options: dict[str, object]
) -> None:
    bodies = {f"Bild {n} ü.png": content(size, f"{request.node.name} {n}") for n, size in enumerate((SIZE, 1, 0))}
    if "parallelUploads" in options:
        bodies.popitem()  # nothing cannot be cut into three
    files = [write(tmp_path, name, body) for name, body in bodies.items()]
    before = shared_server.files()
    upload = uppy.open(endpoint(shared_server), options=options)
    upload.choose(*files)
    urls = upload.finish()
    assert len(urls) == len(bodies)
    stored = [check_arrival(shared_server, url, bodies[name], name) for url, name in zip(urls, bodies, strict=True)]
    assert shared_server.files() - before == set(stored)
    got = shared_server.request("HEAD", "/" + stored[0].replace("Bild 0 ü", "Bild%200%20%C3%BC"))
    assert got.headers["content-type"] == "image/png"


@pytest.mark.parametrize("side", ["both", "client"])
def test_the_browser_is_offline_for_a_while(
    shared_server: FileServer, uppy: Uppy, start_relay: StartRelay, tmp_path: Path, side: str
) -> None:
    """The network takes the connection with it; the server hears of that, or nothing at all."""
    body = content(LARGE, f"offline {side}")
    relay = start_relay(shared_server, HELD)
    upload = uppy.open(endpoint(shared_server, relay.url))
    upload.choose(write(tmp_path, "offline.bin", body))
    assert relay.held.wait(60)
    upload.page.context.set_offline(True)
    relay.refusing = True  # Chromium sends a request again by itself when its connection was not new
    if side == "both":
        relay.reset()
    else:
        relay.reset_clients()
    upload.wait_for("window.isPaused()")
    relay.refusing = False
    upload.page.context.set_offline(False)
    [url] = upload.finish()
    check_arrival(shared_server, url, body, "offline.bin")


def test_the_page_is_loaded_again(
    shared_server: FileServer, uppy: Uppy, start_relay: StartRelay, tmp_path: Path
) -> None:
    """Golden Retriever has the file, and the upload goes on where it was."""
    body = content(LARGE, "reloaded")
    before = shared_server.files()
    relay = start_relay(shared_server, HELD)
    upload = uppy.open(endpoint(shared_server, relay.url), retrieve=True)
    upload.choose(write(tmp_path, "reloaded.bin", body))
    assert relay.held.wait(60)
    upload.wait_for("window.isKept()")
    with upload.page.expect_request(lambda request: request.method == "HEAD") as asked:
        upload.page.reload()
        relay.release()
    [url] = upload.finish()
    assert url == asked.value.url
    stored = check_arrival(shared_server, url, body, "reloaded.bin")
    assert shared_server.files() - before == {stored}


def test_the_server_is_killed(start_server: StartServer, uppy: Uppy, start_relay: StartRelay, tmp_path: Path) -> None:
    body = content(LARGE, "killed under uppy")
    server = start_server({})
    relay = start_relay(server, HELD)
    upload = uppy.open(endpoint(server, relay.url), options={"retryDelays": [100] * 100})
    upload.choose(write(tmp_path, "killed.bin", body))
    assert relay.held.wait(60)
    crash(server)
    server.start()
    relay.release()
    [url] = upload.finish()
    stored = check_arrival(server, url, body, "killed.bin")
    assert server.files() == {stored}
