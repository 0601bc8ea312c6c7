"""The benchmark of changing networks, run for real but briefly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from bench import switch
from bench.switching.outcome import DONE, NEVER, Outcome, Outcomes
from bench.switching.scenario import Scenario
from bench.switching.servers import DRIVERS
from tests.fixtures import node
from tests.fixtures.child import Child, accepts, free_port
from tests.fixtures.namespaces import why_not

pytestmark = pytest.mark.server

SHORT = Scenario(size=3 << 19, rate=10e6, rtt=0.01, every=0.8, outage=0.2)
QUIET = dataclasses.replace(SHORT, every=60)


@pytest.fixture(autouse=True)
def namespaces() -> None:
    if reason := why_not():
        pytest.skip(reason)


def measured(folder: Path, client: str, server: str = "ours", what: Scenario = SHORT) -> Outcome:
    """The outcome of one run."""
    file = folder / "switch.json"
    wanted = ("--size", f"{what.size}", "--rate", f"{what.rate:.0f}bit", "--rtt", f"{what.rtt}s")
    times = ("--every", f"{what.every}s", "--outage", f"{what.outage}s")
    kept = ("--json", str(file), "--work", str(folder))
    switch.main(["--client", client, "--server", server, *wanted, *times, *kept])
    [outcome] = Outcomes(file).of(what)
    assert json.loads(file.read_text(encoding="utf-8"))["format"] == 1
    return outcome


def test_our_client_goes_on_over_the_other_link(tmp_path: Path) -> None:
    found = measured(tmp_path, "python")
    assert (found.ended, found.equal, found.words) == (DONE, True, "")
    assert found.switches >= 1
    assert found.reconnects >= 1
    assert found.connections > found.reconnects
    assert SHORT.size <= found.fresh <= found.arrived <= found.sent
    assert found.seconds >= SHORT.ideal
    # The second link was used: what came before the first died is not all.
    assert any(when > SHORT.every + SHORT.outage for when, _ in found.progress)
    times = [when for when, _ in found.progress]
    assert times == sorted(times)
    assert SHORT.outage <= found.stall < found.seconds
    # Nothing is left of the run but what is kept.
    assert {path.name for path in tmp_path.iterdir()} == {"switch.json"}


def test_a_client_that_waits_for_ever_is_stopped(tmp_path: Path) -> None:
    found = measured(tmp_path, "tuspy")
    assert (found.ended, found.equal) == (NEVER, None)
    assert found.seconds >= SHORT.limit
    assert found.fresh < SHORT.size
    # It has hung since its link died, or soon after.
    assert found.progress[-1][0] < SHORT.limit / 2
    assert found.stall > SHORT.limit / 2


def test_any_other_server_can_be_named(tmp_path: Path) -> None:
    """One that runs already, outside of the namespaces; its content is fetched back, as its folder is not known."""
    node.package("@tus/server")
    files, port = tmp_path / "files", free_port()
    files.mkdir()
    command = [node.node(), str(DRIVERS / "tus_server.mjs"), str(node.PACKAGES), str(files), "127.0.0.1", str(port)]
    other = Child("tus-server", command, log=tmp_path / "log", env=node.environment(), cwd=tmp_path)
    try:
        other.wait_ready(lambda: accepts(port))
        (tmp_path / "bench").mkdir()
        found = measured(tmp_path / "bench", "python-tus", f"other=http://127.0.0.1:{port}/tus/", QUIET)
    finally:
        other.stop()
    assert (found.server, found.ended, found.equal, found.switches) == ("other", DONE, True, 0)
