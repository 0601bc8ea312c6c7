"""nginx and haproxy in front: whatever they make of an ambiguous request, we understand what they forward as they do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.http.agreement import (
    FRONTS,
    Logged,
    Run,
    ambiguous,
    backend,
    directly,
    faults,
    report,
    stored_wrongly,
    through,
    verdict,
)
from tests.http.cases import CASES
from tests.http.conftest import judge
from tests.http.tap import Passed, messages

NGINX = [name for name in FRONTS if name.startswith("nginx")]
HAPROXY = [name for name in FRONTS if name.startswith("haproxy")]


@dataclass(frozen=True, slots=True)
class Runs:
    direct: Run
    fronts: dict[str, Run]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Every case of the table, sent directly and through each proxy; each way has a server of its own."""
    place = tmp_path_factory.mktemp("fronts")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(backend(place / name)) for name in ("direct", *FRONTS)}
        with ThreadPoolExecutor(len(FRONTS)) as pool:
            fronts = {name: pool.submit(through, name, place / f"front-{name}", servers[name]) for name in FRONTS}
            made = Runs(directly(servers["direct"]), {name: future.result() for name, future in fronts.items()})
        yield made
        for server in servers.values():
            judge(server)


def agree(run: Run) -> None:
    """Each request that is seen is one that the proxy meant, with the body that it meant."""
    assert not run.faults, run.faults[0]
    assert run.forwarded > len(CASES), "nothing went through"
    # The proxies forgive much: what the server refuses of it is its target, its host, its fields.
    assert run.forwarded - run.refused > 400


def nothing_smuggled(run: Run) -> None:
    """Bodies arrive as the proxy took them: no byte of one is a request, no byte of a request in one."""
    assert stored_wrongly(run) == []
    assert run.server.request("GET", "/health").status == 200


@pytest.mark.parametrize("name", NGINX)
def test_nginx_and_we_agree_on_every_case(runs: Runs, name: str) -> None:
    agree(runs.fronts[name])


@pytest.mark.parametrize("name", HAPROXY)
def test_haproxy_and_we_agree_on_every_case(runs: Runs, name: str) -> None:
    agree(runs.fronts[name])


@pytest.mark.parametrize("name", NGINX)
def test_nothing_is_smuggled_through_nginx(runs: Runs, name: str) -> None:
    nothing_smuggled(runs.fronts[name])


@pytest.mark.parametrize("name", HAPROXY)
def test_nothing_is_smuggled_through_haproxy(runs: Runs, name: str) -> None:
    nothing_smuggled(runs.fronts[name])


@pytest.mark.parametrize("name", FRONTS)
def test_what_a_proxy_refuses_and_we_take_has_one_reading(runs: Runs, name: str) -> None:
    """Taken without the proxy, it is canonical to a reader that forgives nothing, or the server refuses it as well."""
    for case in CASES:
        direct = runs.direct.outcomes[case.name]
        if verdict(direct, runs.fronts[name].outcomes[case.name]) != "proxy refuses":
            continue
        found, rest = messages(case.data)
        canonical = rest == b"" and all(message.complete for message in found)
        # An upgrade, a method or a size is a matter of taste; framing is not.
        assert canonical or case.seen == 1, case.name
        if not canonical:
            assert 201 not in direct.statuses, case.name


def test_the_matrix_tells_of_every_disagreement(runs: Runs) -> None:
    text = report([runs.direct, *runs.fronts.values()], every=False)
    for name, run in runs.fronts.items():
        assert f"{run.refused} refused, 0 understood otherwise" in text
        different = [
            case.name for case in CASES if verdict(runs.direct.outcomes[case.name], run.outcomes[case.name]) != "same"
        ]
        assert 20 < len(different) < 100, name
        for case in different:
            assert case[:44] in text
    assert len([case for case in CASES if ambiguous(case)]) > 250


FIRST = b"PUT /a HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nX-Front: 127.0.0.1\r\n\r\nabc"
HIDDEN = b"GET /b HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize(
    ("forwarded", "seen", "what"),
    [
        (FIRST + HIDDEN, [Logged("PUT", "/a", 201, 3), Logged("GET", "/b", 200, 0)], "not one that the proxy meant"),
        (FIRST, [Logged("PUT", "/a", 201, 3), Logged("GET", "/b", 200, 0)], "2 requests were seen of 1"),
        (FIRST, [Logged("PUT", "/a", 201, 2)], "a body of 3 bytes was taken for one of 2"),
        (FIRST[:-1], [Logged("PUT", "/a", 201, 2)], "a body of 2 bytes"),
        (FIRST, [Logged("POST", "/a", 200, 3)], "PUT was seen as POST"),
        (FIRST, [Logged("PUT", "/b", 201, 3)], "was seen as /b"),
        (FIRST + FIRST, [Logged("", "", 0, 0), Logged("PUT", "/a", 201, 3)], "went on after a malformed request"),
        (b"PUT /a HTTP/1.1\r\nHost: t\r\n folded\r\n\r\n", [Logged("PUT", "/a", 201, 0)], "has no canonical reading"),
    ],
)
def test_a_server_that_understands_otherwise_is_caught(forwarded: bytes, seen: list[Logged], what: str) -> None:
    found = list(faults(Passed("127.2.0.1:1", bytearray(forwarded)), *messages(forwarded), seen))
    assert any(what in fault for fault in found), found


def test_a_server_that_understands_as_meant_is_not_accused() -> None:
    forwarded = FIRST + FIRST
    seen = [Logged("PUT", "/a", 201, 3), Logged("PUT", "/a", 409, 0)]
    assert list(faults(Passed("127.2.0.1:1", bytearray(forwarded)), *messages(forwarded), seen)) == []
    assert list(faults(Passed("127.2.0.1:1", bytearray(FIRST)), *messages(FIRST), [Logged("", "", 0, 0)])) == []
