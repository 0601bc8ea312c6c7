"""Upload clients of others, as their users call them, against one server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clients.tus_js_client import TusJsClient
from tests.fixtures.relay import Relay
from tests.fixtures.server import FileServer

StartRelay = Callable[[FileServer, int], Relay]

pytest.register_assert_rewrite("tests.clients.arrivals", "tests.clients.uppy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives a peer."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.peer)


@pytest.fixture
def start_relay() -> Iterator[StartRelay]:
    """A factory of relays in front of a server: `start_relay(server, hold_after)`."""
    with contextlib.ExitStack() as started:

        def start(server: FileServer, hold_after: int) -> Relay:
            relay = Relay(server.port, hold_after)
            started.callback(relay.close)
            return relay

        yield start


@pytest.fixture
def tus_js_client(tmp_path: Path) -> Iterator[TusJsClient]:
    """tus-js-client; what it still does at the end of the test is ended."""
    client = TusJsClient(tmp_path / "tus-js-client")
    try:
        yield client
    finally:
        client.stop()
