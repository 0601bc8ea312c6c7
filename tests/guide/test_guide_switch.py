"""The guide's JavaScript class on a phone that goes from one network to another in the middle of a chunk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.switching import PORT, Rig
from tests.fixtures.child import program, wait_until
from tests.fixtures.chromium import running_chromium
from tests.fixtures.content import content
from tests.fixtures.namespaces import network
from tests.guide import printed
from tests.guide.chromium import Chromium
from tests.guide.node import Node
from tests.guide.script import IN_SLICE_1, THREE_SLICES, Client, check_arrival, session_of
from tests.guide.servers import status


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A phone with two networks, and a server on the guide's configuration behind a router."""
    folder = tmp_path / "server"
    folder.mkdir()
    with network() as net:
        rig = Rig(net, folder, {})
        rig.server.settings = None
        rig.server.config.write_text(printed.CONFIGURATION, encoding="utf-8")
        monkeypatch.setenv("HMAC_FILE_SERVER_SERVER__LISTEN_ADDRESS", f"0.0.0.0:{PORT}")
        monkeypatch.setenv("HMAC_FILE_SERVER_SERVER__STORAGE_PATH", str(rig.server.storage))
        monkeypatch.setenv("HMAC_FILE_SERVER_SERVER__MIN_FREE_BYTES", "1MB")
        rig.server.start()
        try:
            yield rig
        finally:
            rig.server.stop()


@pytest.fixture(params=["node", "chromium"])
def client(request: pytest.FixtureRequest, rig: Rig, tmp_path: Path) -> Iterator[Client]:
    """The class on the phone."""
    if request.param == "node":
        node = Node(tmp_path / "node", rig.phone)
        try:
            yield node
        finally:
            node.stop()
    else:
        on_the_phone = tmp_path / "chromium"
        command = " ".join(rig.phone.command([program("chromium", "chromium")]))
        on_the_phone.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        on_the_phone.chmod(0o755)
        with running_chromium(on_the_phone) as browser:
            chromium = Chromium(browser, None)
            try:
                yield chromium
            finally:
                chromium.close()


def test_the_phone_changes_its_network_in_the_middle_of_a_chunk(rig: Rig, client: Client, tmp_path: Path) -> None:
    """The phone ends the connections of the lost network, as Android does; the server hears nothing of it.

    Chromium sees the change by itself and may be back before that.
    """
    file = tmp_path / "switched.bin"
    file.write_bytes(content(THREE_SLICES, "switched"))
    rig.links[1].rate("80mbit")  # so that there is a middle
    run = client.start(rig.server, file)
    wait_until(lambda: sent(rig, 1) > IN_SLICE_1, "slice 1 is under way")
    rig.cut(1)
    # What has an address of the lost network does not leave over the other one.
    lost = rig.links[1].second.address
    rig.phone.drop("output", f"ip saddr {lost}")
    session = session_of(run.console())
    assert status(rig.server, session)["completed"] is False
    rig.phone.run("ss", "--kill", "--tcp", "src", lost)
    check_arrival(rig.server, run.finish(), file)
    assert sent(rig, 2) > THREE_SLICES - 2 * printed.SLICE
    assert len(rig.server.files()) == 1
    taken_over = re.compile(rf" PUT /upload/chunked 409 .* from {re.escape(lost)}:")
    wait_until(lambda: taken_over.search(rig.server.log_text()) is not None, "the lost connection is taken over")
    # Back at home, where the server still waits to tell the lost connection that another one has taken over.
    rig.mend(1)
    rig.phone.drop_nothing()


def sent(rig: Rig, link: int) -> int:
    """Bytes that the phone has sent over a link, packet heads and all."""
    shown = json.loads(rig.phone.ip("-s", "-j", "link", "show", "dev", rig.device(link)))
    return int(shown[0]["stats64"]["tx"]["bytes"])
