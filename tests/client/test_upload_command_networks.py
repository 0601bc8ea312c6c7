"""`upload` on a phone that loses its networks: it waits, says so, goes on by itself, and sends little twice."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client.upload_run import command, variables
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.link_uploads import KIB, MIB, Phone, phone
from tests.fixtures.links import LINKS, Quality
from tests.server import signatures

USUAL = Quality(rate=40e6, delay=0.015)
TWICE = 64 * KIB
PROTOCOLS = ["chunked", "tus", "put"]

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with phone(tmp_path_factory.mktemp("phone"), quality=USUAL) as made:
        yield made


@pytest.fixture
def made(shared: Phone) -> Iterator[Phone]:
    """The phone and its server, both links up with new addresses."""
    shared.reset(USUAL)
    yield shared
    shared.stop()


class Upload:
    """One run of the command on the phone, with `--json`."""

    _numbers = itertools.count()

    def __init__(self, made: Phone, folder: Path, size: int, *options: str) -> None:
        self.phone = made
        self.data = content(size, f"command {next(self._numbers)}")
        (folder / "film.bin").write_bytes(self.data)
        self.before = made.bed.bodies()
        self.output = folder / "output"
        ticket = signatures.ticket(prefix="", ops=["upload", "create", "chunk"])
        arguments = ["upload", "film.bin", "--json", "--to", f"{made.server.url}/#ticket={ticket}", *options]
        with self.output.open("wb") as output:
            self.process = made.bed.client.popen(
                [*command(), *arguments], cwd=folder, env=variables(folder / "state"),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def events(self) -> list[dict[str, Any]]:
        lines = self.output.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def reached(self, payload: int) -> None:
        """Wait until so many bytes of the file are at the server."""
        self._until(lambda: self.phone.bed.bodies() - self.before >= payload, f"{payload} bytes at the server")

    def says(self, words: str) -> None:
        """Wait until it says what it waits for."""
        self._until(lambda: any(words in str(event.get("waits_for")) for event in self.events()), f"it says {words!r}")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(lambda: condition() or self.process.poll() is not None, what, seconds=30)
        assert condition(), self.output.read_text()[-3000:]

    def finish(self, switches: int) -> dict[str, Any]:
        """Its last event. The file is there, and little came twice."""
        assert self.process.wait(60) == 0, self.output.read_text()[-3000:]
        done = self.events()[-1]
        assert done["event"] == "done"
        answer = self.phone.server.request("GET", str(done["url"]).removeprefix(self.phone.server.url))
        assert answer.body == self.data
        twice = self.phone.bed.bodies() - self.before - len(self.data)
        assert twice <= switches * TWICE
        return done


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_networks_are_lost_and_others_come(made: Phone, tmp_path: Path, protocol: str) -> None:
    upload = Upload(made, tmp_path, 3 * MIB, "--protocol", protocol)
    upload.reached(MIB)
    for link in LINKS:
        made.bed.down(link)
    upload.says("no network, waits")
    made.bed.up("mobile", "new")
    upload.finish(1)


def test_from_one_network_to_the_other(made: Phone, tmp_path: Path) -> None:
    upload = Upload(made, tmp_path, 4 * MIB, "--protocol", "put")
    upload.reached(MIB)
    made.bed.down("wifi")
    upload.reached(2 * MIB)
    made.bed.up("wifi", "new")
    made.bed.down("mobile")
    upload.finish(2)


def test_a_link_dies_and_nobody_is_told(made: Phone, tmp_path: Path) -> None:
    made.bed.down("mobile")
    upload = Upload(made, tmp_path, 2 * MIB, "--protocol", "tus")
    upload.reached(MIB)
    made.bed.cut("wifi")
    upload.says("server does not answer")
    made.bed.up("wifi", "new")
    upload.finish(1)


def test_begun_without_any_network(made: Phone, tmp_path: Path) -> None:
    for link in LINKS:
        made.bed.down(link)
    upload = Upload(made, tmp_path, 100 * KIB)
    upload.says("no network, waits")
    made.bed.up("wifi", "new")
    done = upload.finish(0)
    assert done["size"] == 100 * KIB
