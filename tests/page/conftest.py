"""The upload page in Chromium, against the real server; whatever it says on the console is a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from tests.fixtures.chromium import running_chromium
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer
from tests.page.driver import MILLISECONDS, OpenPage, StartRelay, Visits


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the browser and a server."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


# Of one module: Playwright's event loop is that of the thread as long as it runs, and others want one of their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=MILLISECONDS)
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens the page, each time as if in a browser of its own; what went wrong in any of them is told at the end."""
    visits = Visits(chromium)
    try:
        yield visits.open
        visits.judge()
    finally:
        visits.close()


@pytest.fixture
def start_relay() -> Iterator[StartRelay]:
    """A factory of relays in front of a server: `start_relay(server, hold_after)`."""
    with contextlib.ExitStack() as started:

        def start(server: FileServer, hold_after: int) -> Relay:
            relay = Relay(server.port, hold_after)
            started.callback(relay.close)
            return relay

        yield start
