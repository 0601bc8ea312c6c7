"""The life of upload sessions: over restarts, reloads and their own end; and what the log says of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    PATH,
    Upload,
    code,
    created,
    creation,
    drafts,
    kill,
    number,
    start,
    target,
    text,
)
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, Answer, FileServer, StartServer
from tests.server.signatures import bearer, in_future, mac, strong, ticket
from tests.server.test_lifecycle import reload, requests
from tests.server.wire import Wire

CHUNK = 64 * KIB


def by_ticket(server: FileServer, body: bytes, token: str, **headers: str) -> Upload:
    """Begin an upload by a ticket."""
    given = {
        **creation(len(body)),
        **bearer(token),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    del given["X-Signature"]
    answer = server.request("POST", PATH, None, given)
    assert answer.status == 201, answer.body
    told = answer.json()
    return Upload(server, text(told["session_id"]), body, number(told["chunk_size"]))


# --- restarts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("end", [FileServer.stop, kill], ids=["stopped", "killed"])
def test_every_session_survives_a_restart(
    tmp_path: Path, end: Callable[[FileServer], None], before: int, after: int
) -> None:
    """Each as it was, by its id and by its key, whatever the number of processes is now."""

    def settings(processes: int) -> dict[str, dict[str, object]]:
        return {"server": {"processes": processes}, "uploads": {"chunk_size": "64KB"}}

    server = FileServer(tmp_path / "server", settings(before))
    server.start()
    try:
        body = content(5 * CHUNK + 7, "restart")
        key = {"Idempotency-Key": "a key"}
        token = ticket(path="restart/taken", files=9)
        new = start(server, body, headers=key)
        begun = start(server, body)
        assert begun.put(3).status == 200
        with begun.begin(0, 1000) as wire:
            wire.sock.shutdown(1)
            begun.await_received((0, 1000), (3 * CHUNK, 4 * CHUNK))
        adopted = start(server, body)
        assert adopted.put(0, body[: 7 * KIB]).status == 200
        complete = start(server, body, headers={"Idempotency-Key": "complete"})
        complete.finish()
        empty = start(server, b"")
        by_ticket(server, b"first", token).put(0)
        failed = by_ticket(server, b"other", token)
        assert code(failed.put(0)) == (409, "exists")
        ended = start(server, body)
        assert ended.delete().status == 204
        everything = (new, begun, adopted, complete, empty, failed, ended)
        told = [upload.look() for upload in everything]
        # What is killed before it has tidied up leaves that to the sweep of the day.
        wait_until(lambda: len(drafts(server)) == len((new, begun, adopted)), "only what is open has a draft")
        end(server)
        server.write_config(settings(after))
        server.settings = settings(after)
        server.start()
        for upload, earlier in zip(everything, told, strict=True):
            now = upload.look()
            assert now.status == earlier.status
            if now.status == 200:
                assert now.json() == earlier.json()
            else:
                assert code(now) == code(earlier)
        assert start(server, body, headers=key).id == new.id
        assert start(server, body, headers={"Idempotency-Key": "complete"}).id == complete.id
        assert code(created(server, 3, headers=key)) == (422, "key_reused")
        assert adopted.status()["chunk_size"] == 7 * KIB
        for index in range(1, -(-len(body) // (7 * KIB))):
            answer = adopted.put(index, body[index * 7 * KIB : (index + 1) * 7 * KIB])
            assert answer.status == 200
        assert begun.put(0, offset=1000).status == 200
        for upload in (new, begun, adopted, complete, empty):
            upload.finish()
            assert upload.stored() == upload.body
        assert complete.put(5).json()["completed"] is True
        assert code(failed.put(0)) == (409, "exists")
        wait_until(lambda: drafts(server) == [], "nothing unfinished is left")
    finally:
        server.stop()


def test_relaxed_sessions_survive_a_stop(start_server: StartServer) -> None:
    """What the kernel has is enough for that."""
    server = start_server({"uploads": {"chunk_size": "64KB", "durability": "relaxed"}})
    upload = start(server, content(3 * CHUNK, "relaxed"))
    assert upload.put(1).status == 200
    server.stop()
    server.start()
    assert upload.received() == [(CHUNK, 2 * CHUNK)]
    upload.finish()
    assert upload.stored() == upload.body


# --- reloads ---------------------------------------------------------------------------------------------


def test_new_settings_are_for_new_sessions(server: FileServer) -> None:
    """What was begun keeps its chunk size and its permission; its time counts anew with its next byte."""
    old = start(server, content(12 * MIB, "old"))
    before = old.status()
    log = reload(
        server,
        {
            "uploads": {"chunk_size": "64KB", "max_resumable_age": "1h", "max_sessions_per_owner": 1},
            "server": {"max_upload_size": "1MB"},
        },
    )
    for key in ("uploads.chunk_size", "uploads.max_resumable_age", "uploads.max_sessions_per_owner"):
        assert key in log
    new = start(server, content(3 * CHUNK, "new"))
    assert (new.chunk_size, new.total) == (CHUNK, 3)
    assert old.status() == before
    assert code(created(server, 12 * MIB)) == (413, "too_large")
    token = ticket(prefix="reload")
    by_ticket(server, b"abc", token)
    head = {name: value for name, value in creation(3).items() if name != "X-Signature"}
    assert code(server.request("POST", PATH, None, {**head, **bearer(token)})) == (429, "too_many_sessions")
    # An hour is less than the day that it had.
    assert str(new.status()["expires_at"]) < str(before["expires_at"])
    for upload in (old, new):
        upload.finish()
        assert upload.stored() == upload.body


def test_secrets_that_change_end_no_session(server: FileServer) -> None:
    upload = start(server, content(2 * MIB, "secret"))
    new = "a-new-secret-a-new-secret-a-new"
    reload(server, {"security": {"secret": new}})
    assert code(created(server, 3)) == (403, "bad_signature")
    assert created(server, 3, headers={"X-Signature": mac(PATH, new)}).status == 201
    assert upload.finish().json()["completed"] is True


# --- the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_expiry_is_told_then_forgotten(start_server: StartServer, processes: int) -> None:
    """410 to everybody who asks, and to who was waiting; 404 after as long again. Nothing is left."""
    server = start_server(
        {"server": {"processes": processes}, "uploads": {"max_resumable_age": "2s", "chunk_size": "64KB"}}
    )
    key = {"Idempotency-Key": "expires"}
    uploads = [
        start(server, content(2 * CHUNK, f"expiry {turn}"), headers=key if not turn else {}) for turn in range(4)
    ]
    assert uploads[1].put(1).status == 200
    complete = start(server, b"abc")
    url = complete.put(0).json()["url"]
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(server)) for _ in uploads]
        for upload, wire in zip(uploads, wires, strict=True):
            wire.head("GET", f"/upload/status?session_id={upload.id}&wait=60")
        for upload, wire in zip(uploads, wires, strict=True):
            assert code(wire.answer()) == (410, "upload_expired")
            told = upload.look(), upload.put(0), upload.put(9), upload.look(wait=60)
            assert {code(answer) for answer in told} == {(410, "upload_expired")}
    assert code(created(server, 2 * CHUNK, headers=key)) == (410, "upload_expired")
    wait_until(lambda: drafts(server) == [], "their bytes are gone")
    for upload in (*uploads, complete):
        wait_until(lambda upload=upload: upload.look().status == 404, "it is forgotten")  # type: ignore[misc]
        assert code(upload.put(0)) == (404, "upload_not_found")
        assert upload.delete().status == 404
    # The key may be used again; the file that was published stays.
    assert created(server, 2 * CHUNK, headers=key).status == 201
    assert server.request("GET", target(url)).body == b"abc"
    assert len(re.findall(r" INFO Upload \S+ expired$", server.log_text(), re.MULTILINE)) >= len(uploads)


def test_a_conflict_at_a_ticket_s_path_is_kept(start_server: StartServer) -> None:
    """Told to the last chunk and to every repeat; whoever brings the same bytes is no conflict."""
    server = start_server({"server": {"processes": 2}, "uploads": {"chunk_size": "64KB"}})
    token = ticket(path="conflict/f.bin")
    body = content(2 * CHUNK, "conflict")
    other = content(2 * CHUNK, "another")
    loser = by_ticket(server, other, token, Idempotency_Key="loser")
    same = by_ticket(server, body, token)
    winner = by_ticket(server, body, token)
    for upload in (loser, same, winner):
        assert upload.put(0).status == 200
    url = winner.put(1).json()["url"]
    for _ in range(2):
        assert code(loser.put(1)) == (409, "exists")
        assert code(loser.put(0)) == (409, "exists")
        assert code(loser.look()) == (409, "exists")
        assert same.put(1).json()["url"] == url
    server.stop()
    server.start()
    assert code(loser.look()) == (409, "exists")
    assert code(loser.put(1)) == (409, "exists")
    head = {**creation(len(other)), **bearer(token), "Idempotency-Key": "loser"}
    del head["X-Signature"]
    assert code(server.request("POST", PATH, None, head)) == (409, "exists")
    assert server.request("GET", target(url)).body == body
    wait_until(lambda: drafts(server) == [], "nothing is left of the others")
    assert loser.delete().status == 204
    assert loser.delete().status == 404
    assert server.files() == {"conflict/f.bin"}


# --- the log ---------------------------------------------------------------------------------------------


def test_sessions_and_transfers_are_counted(start_server: StartServer) -> None:
    """Both lines at once, of all processes together, whenever a number has changed; the zeros too."""
    server = start_server({"server": {"processes": 2}, "uploads": {"chunk_size": "64KB"}})

    def counted() -> list[tuple[int, int]]:
        found = re.findall(
            r"^.{19} INFO Active upload sessions: (\d+)\n.{19} INFO Network resilience: (\d+) uploads active$",
            server.log_text(),
            re.MULTILINE,
        )
        return [(int(sessions), int(transfers)) for sessions, transfers in found]

    uploads = [start(server, content(2 * CHUNK, f"count {turn}")) for turn in range(5)]
    with contextlib.ExitStack() as stack:
        for upload in uploads[:3]:
            stack.enter_context(upload.begin(0, 100, claimed=True))
        wait_until(lambda: (5, 3) in counted(), "five sessions, three of them moving")
    for upload in uploads[1:]:
        assert upload.delete().status == 204
    uploads[0].finish()
    wait_until(lambda: counted()[-1] == (0, 0), "nothing is going on")
    figures = counted()
    assert all(one != following for one, following in itertools.pairwise(figures))
    log = server.log_text()
    assert log.count("Active upload sessions") == log.count("Network resilience:") == len(figures)


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_holds_nothing_that_continues_an_upload(start_server: StartServer, form: str) -> None:
    """Whoever knows the id of a session has the upload; whoever has a signature begins one."""
    server = start_server(
        {"uploads": {"chunk_size": "64KB"}, "logging": {"format": form, "level": "debug"}, "server": {"processes": 2}}
    )
    marks = {SECRET, "a-key-of-the-client", mac(PATH), mac("/chunked-upload")}
    answers: list[Answer] = []
    body = content(2 * CHUNK, "canary")
    uploads = [start(server, body, headers={"Idempotency-Key": "a-key-of-the-client"})]
    token = ticket(path="canary/f.bin", sub="alice@example.org")
    marks.add(token)
    uploads += [by_ticket(server, body, token) for _ in range(2)]
    uploads.append(by_ticket(server, bytes(2 * CHUNK), token))
    signed = strong("POST", PATH, len(body), "f.bin", in_future())
    marks.add(signed["X-Signature"])
    answers.append(server.request("POST", PATH, None, {**creation(len(body)), **signed}))
    for upload in uploads:
        marks.add(upload.id)
        answers += [upload.put(index) for index in (0, 0, 1, 7)]
        answers += [upload.put(1, bytes(CHUNK)), upload.put(1, b"short"), upload.put(0, headers={"Digest": "?"})]
        answers += [upload.look(), upload.look(wait=1)]
        query = f"session_id={upload.id}"
        answers += [server.request(method, f"/upload/status?{query}") for method in ("HEAD", "POST", "PUT", "DELETE")]
        answers += [server.request("GET", f"/upload/chunked?{query}"), server.request("GET", f"/?{query}")]
        unsigned = {name: value for name, value in creation(3).items() if name != "X-Signature"}
        for headers in ({"X-Signature": "0" * 64}, {"Authorization": f"Bearer {token}x"}):
            answers.append(server.request("POST", f"{PATH}?{query}", None, {**unsigned, **headers}))
    last = start(server, body)
    marks.add(last.id)
    with last.begin(0, 1000, claimed=True) as wire:
        wire.reset()
    answers += [last.delete(), last.delete(), last.put(0)]
    assert {answer.status for answer in answers} >= {200, 201, 204, 400, 401, 403, 404, 409}
    server.stop()
    log = server.log_text()
    for mark in marks:
        assert mark not in log
    for answer in answers:
        assert str(server.folder).encode() not in answer.body
        assert SECRET.encode() not in answer.body
    if form == "json":
        lines = [json.loads(line) for line in log.splitlines()]
        chunks = [line for line in lines if line.get("path") == PATH and line["method"] == "PUT"]
        assert {line.get("user") for line in chunks if line["status"] == 200} == {None, "alice@example.org"}
    else:
        assert {line["path"] for line in requests(server)} == {PATH, "/upload/status", "/"}


def test_a_refusal_is_two_lines(start_server: StartServer) -> None:
    """One line for the request and one for the reason, nothing that grows with what a client sends."""
    server = start_server({"logging": {"level": "info"}})
    with Wire(server) as wire:
        for _ in range(200):
            wire.head("POST", PATH, {**creation(3, "n" * 4096), "X-Signature": "0" * 64})
            wire.answer()
    server.stop()
    lines = server.log_text().splitlines()
    assert sum("Signature refused" in line for line in lines) == 200
    assert len(requests(server)) == 200
    assert len(lines) < 410
    assert max(map(len, lines)) < 300


def test_a_session_that_nobody_has_costs_no_line_but_its_own(server: FileServer) -> None:
    headers: Mapping[str, str] = {"X-Upload-Session-ID": "1700000000_nobody", "X-Chunk-Number": "0"}
    for _ in range(20):
        assert server.request("PUT", PATH, b"abc", headers).status == 404
        assert server.request("GET", "/upload/status?session_id=1700000000_nobody").status == 404
    server.stop()
    assert len(requests(server)) == 40
    assert len([line for line in server.log_text().splitlines() if " /ready " not in line]) < 50
