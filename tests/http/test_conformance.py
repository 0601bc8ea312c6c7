"""The conformance table over real sockets: whole, byte by byte, and split at every position."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer
from tests.http.cases import CASES, Case
from tests.http.wire import PROBE, Answer, Talk, answers, converse, single_bytes, splits

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_the_table_is_as_large_as_promised() -> None:
    assert len(CASES) >= 280
    assert not [name for name, count in Counter(case.name for case in CASES).items() if count > 1]


def talk_of(case: Case, pieces: list[bytes]) -> Talk:
    if case.end in {"alive", "either"}:
        pieces = [*pieces[:-1], pieces[-1] + PROBE]
    return Talk(pieces, half_close=case.end == "half")


def check(case: Case, talk: Talk) -> None:
    found = answers(bytes(talk.received), bodiless=case.bodiless)
    if case.invited:
        found = [answer for answer in found if answer.status != 100]
    assert found or not case.statuses, "no answer at all"
    end = case.end
    statuses = case.statuses
    if end == "either":
        end = "alive" if len(found) > len(statuses) or len(talk.pieces) == 1 else "closed"
        if end == "closed":
            statuses = statuses[:1]
    if end == "alive":
        last = found.pop()
        assert (last.status, last.body) == (200, b"OK\n"), last
    assert len(found) == len(statuses), [answer.status for answer in found]
    for answer, expected in zip(found, statuses, strict=True):
        assert answer.status in (expected if isinstance(expected, tuple) else (expected,)), found
        well_formed(answer)
    if end == "closed":
        assert found[-1].headers.get(b"connection") == b"close"
    if end == "alive":
        assert all(b"connection" not in a.headers or a.headers[b"connection"] == b"keep-alive" for a in found)


def well_formed(answer: Answer) -> None:
    assert b"date" in answer.headers
    assert b"server" not in answer.headers
    if answer.status >= 400 and answer.body:
        assert answer.headers[b"content-type"] == b"application/problem+json"
        assert b"/home" not in answer.body
        assert b"Traceback" not in answer.body


def check_store(case: Case, server: FileServer) -> None:
    for path, body in case.stored:
        assert (server.storage / path).read_bytes() == body
    for path in case.absent:
        assert not (server.storage / path).exists()


@by_name
def test_in_every_cut(case: Case, quick_server: FileServer) -> None:
    """Whole, byte by byte, and in two pieces with the server reading in between."""
    talks = [talk_of(case, [case.data]), talk_of(case, single_bytes(case.data))]
    talks += [talk_of(case, pieces) for pieces in splits(case.data)]
    converse(quick_server.port, talks)
    for talk in talks:
        try:
            check(case, talk)
        except (AssertionError, KeyError) as failure:
            cut = [len(piece) for piece in talk.pieces[:4]]
            pytest.fail(f"sent in pieces of {cut} of {len(case.data)}: {failure!r}\ngot {bytes(talk.received[:600])!r}")
    check_store(case, quick_server)


@by_name
def test_with_answers_from_another_thread(case: Case, durable_server: FileServer) -> None:
    """Whole and in halves, where a stored file is answered after its syncs."""
    half = len(case.data) // 2
    talks = [talk_of(case, [case.data]), talk_of(case, [case.data[:half], case.data[half:]])]
    converse(durable_server.port, talks)
    for talk in talks:
        check(case, talk)
    check_store(case, durable_server)


_LOGGED = re.compile(r" [0-9]{3} in=[0-9]+ out=[0-9]+ [0-9.]+s from 127\.0\.0\.1:([0-9]+) id=")


def test_as_many_requests_reach_the_application_as_the_model_says(durable_server: FileServer) -> None:
    """The access log has a line for each request that was understood, whatever became of it."""
    start = durable_server.log.stat().st_size
    talks = [talk_of(case, [case.data]) for case in CASES]
    converse(durable_server.port, talks)
    # A port that the kernel gave out twice tells nothing.
    ports = Counter(talk.local_port for talk in talks)
    expected = {
        talk.local_port: case.seen + (case.end in {"alive", "either"})
        for case, talk in zip(CASES, talks, strict=True)
        if ports[talk.local_port] == 1
    }
    assert len(expected) > 400

    def seen() -> Counter[int]:
        with durable_server.log.open("rb") as log:
            log.seek(start)
            return Counter(int(port) for port in _LOGGED.findall(log.read().decode("utf-8", "replace")))

    def wrong() -> dict[str, tuple[int, int]]:
        counted = seen()
        return {
            case.name: (counted[talk.local_port], expected[talk.local_port])
            for case, talk in zip(CASES, talks, strict=True)
            if talk.local_port in expected and counted[talk.local_port] != expected[talk.local_port]
        }

    # The log is gathered for a moment before it is written.
    assert durable_server.request("GET", "/upload/the-last-one").status == 404
    wait_until(lambda: b"/upload/the-last-one" in durable_server.log.read_bytes()[start:], "the access log is written")
    assert not wrong(), "seen, expected"
