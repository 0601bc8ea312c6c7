"""This server, tried by the conformance suite: nothing may fail, and nothing may be skipped without a reason."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import pytest
from tests.conformance.catalogue import Trial
from tests.conformance.suite import FAIL, PASS, SKIP, Suite, chosen
from tests.conformance.target import Target
from tests.fixtures.server import SECRET, FileServer, Settings, StartServer, running

pytestmark = pytest.mark.server

SKIPPED = {
    "tus-concat-12": "the server offers concatenation-unfinished",
    # Tried below, by a server whose uploads expire soon.
    "tus-expiration-03": "that would be",
}


def suite_for(server: FileServer, patience: float = 5) -> Suite:
    """The suite, with the permission to create uploads on this server."""
    signature = hmac.new(SECRET.encode(), b"/tus/", hashlib.sha256).hexdigest()
    return Suite(Target(f"{server.url}/tus/", {"X-Signature": signature}, patience))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """One server and one client for all cases."""
    settings: Settings = {"server": {"max_upload_size": "1GB"}}
    for server in running(tmp_path_factory.mktemp("conformance"), settings):
        yield suite_for(server)


@pytest.mark.parametrize("trial", [pytest.param(trial, id=trial.id) for trial in chosen()])
def test_case(suite: Suite, trial: Trial) -> None:
    """Every case of every protocol and version."""
    result = suite.attempt(trial)
    assert result.verdict != FAIL, f"{trial.case.title} - {result.reason}"
    if result.verdict == SKIP:
        assert trial.id in SKIPPED, result.reason
        assert result.reason.startswith(SKIPPED[trial.id])


def test_uploads_expire_when_they_said(start_server: StartServer) -> None:
    """The one case that has to wait for the date that the server told."""
    server = start_server({"uploads": {"max_resumable_age": "3s"}})
    (trial,) = chosen(case_ids=("tus-expiration-03",))
    result = suite_for(server).attempt(trial)
    assert (result.verdict, result.reason) == (PASS, "")


def test_several_processes_are_one_server(start_server: StartServer) -> None:
    """The cases in which requests meet, on a server whose requests reach different processes."""
    server = start_server({"server": {"processes": 3}})
    suite = suite_for(server)
    wanted = ("tus-probe", "draft-rival", "tus-concat", "crossing", "range-13", "tus-core-12", "tus-termination")
    failed = {
        result.trial.id: result.reason
        for trial in chosen()
        if trial.id.startswith(wanted) and trial.version in {None, 3, 9}
        if (result := suite.attempt(trial)).verdict == FAIL
    }
    assert failed == {}
