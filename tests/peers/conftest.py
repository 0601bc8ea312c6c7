"""Real software of others, started once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.nginx import Nginx, documented_block
from tests.fixtures.server import FileServer
from tests.fixtures.xmpp import Ejabberd, Prosody, XmppHost, documented_components, documented_modules


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives a peer."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.peer)


@pytest.fixture(scope="session")
def prosody(shared_server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    peer = Prosody(tmp_path_factory.mktemp("prosody"), documented_components(f"{shared_server.url}/upload"))
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture(scope="session")
def ejabberd(shared_server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ejabberd]:
    peer = Ejabberd(tmp_path_factory.mktemp("ejabberd"), documented_modules(f"{shared_server.url}/upload"))
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture(scope="session")
def nginx(shared_server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    peer = Nginx(tmp_path_factory.mktemp("nginx"), shared_server.port, documented_block(shared_server.port))
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture(
    params=["v1.test", "v2.test", "jwt.test", "ejabberd"], ids=["prosody-v1", "prosody-v2", "prosody-jwt", "ejabberd"]
)
def xmpp_host(request: pytest.FixtureRequest) -> XmppHost:
    """Each of the four ways in which an XMPP server hands out our slots; started when first wanted."""
    if request.param == "ejabberd":
        peer = request.getfixturevalue("ejabberd")
        assert isinstance(peer, Ejabberd)
        return peer.host
    peer = request.getfixturevalue("prosody")
    assert isinstance(peer, Prosody)
    return peer.hosts[request.param]
