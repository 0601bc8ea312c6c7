"""uploader.js that is stopped and goes on: by its user, by a crash, in another process; or that must not go on."""

from __future__ import annotations

import json
import os

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer
from tests.uploader.conftest import MakeFile, StartTap
from tests.uploader.uploading import MIB, NodeUploader, stored


def sessions_begun(exchanges: list[object]) -> int:
    return len([each for each in exchanges if getattr(each, "method", "") == "POST"])


def test_second_process_goes_on_where_the_first_was_killed(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(12 * MIB)
    tap = start_tap(shared_server, hold_after=5 * MIB + 100_000)
    first = uploader.start(path, tap.url, remember=True)
    assert tap.held.wait(30)
    first.kill()
    tap.release()
    second = uploader.start(path, tap.url, remember=True)
    result = second.result()
    assert stored(shared_server, result) == path.read_bytes()
    (start,) = second.events("start")
    assert start["resumed"] is True
    assert start["acknowledged"] > 0
    assert sessions_begun([*tap.exchanges]) == 1
    assert not tap.known_sent_again
    # What the kernels had of the first process still came while the second asked, or is there.
    assert not list(uploader.store.iterdir()), "a finished upload is remembered"


def test_killed_before_the_session_is_known(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    """The answer to the creation never came; the key is remembered, and so there is no second session."""
    path = make_file(2 * MIB)
    tap = start_tap(shared_server)
    tap.go_dark()
    first = uploader.start(path, tap.url, remember=True)
    wait_until(lambda: uploader.store.is_dir() and any(uploader.store.glob("*.json")), "the key is remembered")
    first.kill()
    tap.light_up()
    remembered = json.loads(next(uploader.store.glob("*.json")).read_text(encoding="utf-8"))
    assert remembered["sessionId"] is None
    assert stored(shared_server, uploader.start(path, tap.url, remember=True).result()) == path.read_bytes()
    (creation,) = [each for each in tap.exchanges if each.method == "POST"]
    assert creation.headers["idempotency-key"] == remembered["key"]


def test_nothing_secret_is_remembered(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    tap = start_tap(shared_server, hold_after=MIB)
    run = uploader.start(
        make_file(4 * MIB), tap.url, {"ticket": "the-ticket", "signature": "the-signature"}, remember=True
    )
    failure = run.failure()
    assert failure["code"] == "multiple_credentials"
    run = uploader.start(make_file(4 * MIB), tap.url, remember=True)
    assert tap.held.wait(30)
    (file,) = [each for each in uploader.store.iterdir() if json.loads(each.read_text())["sessionId"]]
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(file.read_text())) == {
        "fingerprint", "key", "sessionId", "endpoint", "name", "size", "created", "expiresAt",
    }  # fmt: skip
    tap.release()
    run.result()


def test_file_that_was_changed_between_runs_is_begun_anew(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(4 * MIB)
    tap = start_tap(shared_server, hold_after=2 * MIB)
    first = uploader.start(path, tap.url, remember=True)
    assert tap.held.wait(30)
    first.kill()
    tap.release()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    second = uploader.start(path, tap.url, remember=True)
    assert stored(shared_server, second.result()) == bytes(content)
    (start,) = second.events("start")
    assert start["resumed"] is False
    assert sessions_begun([*tap.exchanges]) == 2


@pytest.mark.parametrize("how", ["shorter", "touched"])
def test_file_that_changes_while_it_is_sent_is_a_final_error(
    server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, how: str
) -> None:
    path = make_file(12 * MIB)
    tap = start_tap(server, hold_after=2 * MIB)
    run = uploader.start(path, tap.url)
    assert tap.held.wait(30)
    if how == "shorter":
        os.truncate(path, MIB)
    else:
        os.utime(path, ns=(1, 1))
    tap.release()
    failure = run.failure()
    assert (failure["code"], failure["retriable"]) == ("file_changed", False)
    assert not server.files()


def test_session_that_has_gone_meanwhile_is_begun_anew(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(4 * MIB)
    tap = start_tap(shared_server, hold_after=2 * MIB)
    first = uploader.start(path, tap.url, remember=True)
    first.wait_for_event("start")
    session = first.events("start")[0]["sessionId"]
    assert tap.held.wait(30)
    first.kill()
    tap.release()
    assert shared_server.request("DELETE", "/upload/chunked", headers={"X-Upload-Session-ID": session}).status == 204
    second = uploader.start(path, tap.url, remember=True)
    result = second.result()
    assert stored(shared_server, result) == path.read_bytes()
    assert result["sessionId"] != session


def test_memory_of_a_session_ends_with_it(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(4 * MIB)
    tap = start_tap(shared_server, hold_after=2 * MIB)
    first = uploader.start(path, tap.url, remember=True)
    assert tap.held.wait(30)
    first.kill()
    tap.release()
    (file,) = uploader.store.glob("*.json")
    remembered = json.loads(file.read_text())
    assert remembered["expiresAt"] > remembered["created"] + 23 * 3600 * 1000
    file.write_text(json.dumps({**remembered, "expiresAt": 1}))
    second = uploader.start(path, tap.url, remember=True)
    result = second.result()
    assert stored(shared_server, result) == path.read_bytes()
    assert result["sessionId"] != remembered["sessionId"]
    statuses = [each.target for each in tap.exchanges if each.method == "GET"]
    assert not any(remembered["sessionId"] in each for each in statuses), "asked about what has expired"


@pytest.mark.parametrize("word", ["abort", "signal"])
def test_aborted_upload_can_be_gone_on_with(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, word: str
) -> None:
    path = make_file(4 * MIB)
    tap = start_tap(shared_server, hold_after=2 * MIB)
    first = uploader.start(path, tap.url, remember=True, abortable=True)
    assert tap.held.wait(30)
    first.order(word)
    assert first.failure()["code"] == "aborted"
    assert first.events("state")[-1]["state"] == "aborted"
    assert not first.events("error")
    tap.release()
    second = uploader.start(path, tap.url, remember=True)
    assert stored(shared_server, second.result()) == path.read_bytes()
    assert second.events("start")[0]["resumed"] is True


def test_discarded_upload_is_gone(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(4 * MIB)
    tap = start_tap(shared_server, hold_after=2 * MIB)
    run = uploader.start(path, tap.url, remember=True)
    run.wait_for_event("start")
    session = run.events("start")[0]["sessionId"]
    assert tap.held.wait(30)
    run.order("discard")
    run.wait_for(lambda line: "discarded" in line, "the session is discarded")
    assert run.failure()["code"] == "aborted"
    assert shared_server.request("GET", f"/upload/status?session_id={session}").status == 404
    assert not list(uploader.store.iterdir())


def test_pause_sends_nothing(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(8 * MIB)
    tap = start_tap(shared_server, hold_after=2 * MIB)
    run = uploader.start(path, tap.url)
    assert tap.held.wait(30)
    run.order("pause")
    run.wait_for_event("pause")
    tap.reset_clients()
    requests = len(tap.exchanges)
    # A pause outlives failures: these connections have ended meanwhile.
    run.order("pause")
    run.order("resume")
    run.order("pause")
    run.wait_for(lambda _: len(run.events("pause")) == 2, "paused again")
    run.order("resume")
    assert stored(shared_server, run.result()) == path.read_bytes()
    assert not tap.known_sent_again
    assert len(tap.exchanges) > requests
    assert not run.events("retry")


def test_empty_file_and_short_ones(shared_server: FileServer, uploader: NodeUploader, make_file: MakeFile) -> None:
    for size in (0, 1, 65_537):
        path = make_file(size)
        result = uploader.start(path, shared_server.url).result()
        assert (result["size"], result["filename"]) == (size, path.name)
        assert stored(shared_server, result) == path.read_bytes()


def test_chunks_in_parallel_and_out_of_order(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(24 * MIB)
    tap = start_tap(shared_server)
    run = uploader.start(path, tap.url, {"parallel": 6, "chunkSize": 700_001})
    assert stored(shared_server, run.result()) == path.read_bytes()
    assert tap.sent_twice() == 0
    numbers = [each["number"] for each in run.events("chunk")]
    assert sorted(numbers) == list(range(36))
    sizes = {each.length for each in tap.chunks()}
    assert sizes == {700_001, 24 * MIB - 35 * 700_001}


def test_digest_of_every_body(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(2 * MIB)
    tap = start_tap(shared_server)
    result = uploader.start(path, tap.url, {"digest": "sha-256"}).result()
    assert stored(shared_server, result) == path.read_bytes()
    assert all(each.headers["content-digest"].startswith("sha-256=:") for each in tap.chunks())
    assert max(each.length for each in tap.chunks()) <= 256 * 1024


def test_memory_stays_bounded(shared_server: FileServer, uploader: NodeUploader, make_file: MakeFile) -> None:
    small = uploader.start(make_file(1), shared_server.url)
    small.result()
    path = make_file(128 * MIB)
    large = uploader.start(path, shared_server.url)
    large.result()
    assert large.memory() - small.memory() < 32 * MIB


def test_strict_signatures(
    start_server: object, uploader: NodeUploader, make_file: MakeFile, start_tap: StartTap
) -> None:
    """Everything is signed then, each request anew."""
    server = start_server({"security": {"strict_signatures": True}})  # type: ignore[operator]
    path = make_file(3 * MIB)
    tap = start_tap(server)
    run = uploader.start(path, tap.url, {"signature": "", "signChunks": True}, strict=True)
    assert stored(server, run.result()) == path.read_bytes()
    assert all("x-signature-expires" in each.headers for each in tap.exchanges)
