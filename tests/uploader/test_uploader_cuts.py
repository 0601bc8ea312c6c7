"""uploader.js and connections that end: in front of it, behind it, without a word, with the server."""

from __future__ import annotations

import time

from tests.fixtures.server import FileServer
from tests.uploader.conftest import MakeFile, StartTap
from tests.uploader.uploading import MIB, NodeUploader, stored


def test_reset_on_both_sides_goes_on_where_the_bytes_end(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(12 * MIB)
    tap = start_tap(shared_server, hold_after=5 * MIB + 100_000)
    run = uploader.start(path, tap.url, {"digest": False})
    assert tap.held.wait(30)
    tap.reset()
    result = run.result()
    assert stored(shared_server, result) == path.read_bytes()
    assert not tap.known_sent_again
    # A reset loses what the relay's and the server's kernel had not handed over.
    assert tap.sent_twice() < 4 * MIB
    assert [each["error"]["code"] for each in run.events("retry")] == ["network"]


def test_reset_that_the_server_does_not_notice_costs_nothing(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(12 * MIB)
    tap = start_tap(shared_server, hold_after=5 * MIB + 100_000)
    run = uploader.start(path, tap.url, {"digest": False})
    assert tap.held.wait(30)
    tap.reset_clients()
    result = run.result()
    assert stored(shared_server, result) == path.read_bytes()
    assert tap.sent_twice() == 0
    assert not tap.known_sent_again
    assert any("x-chunk-offset" in each.headers for each in tap.chunks()), "no chunk was gone on with"


def test_black_hole_is_left_by_the_watchdog(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(12 * MIB)
    tap = start_tap(shared_server, hold_after=5 * MIB + 100_000)
    run = uploader.start(path, tap.url, {"digest": False})
    assert tap.held.wait(30)
    begun = time.monotonic()
    tap.darken_links()
    result = run.result()
    assert time.monotonic() - begun < 10
    assert stored(shared_server, result) == path.read_bytes()
    assert tap.sent_twice() == 0
    assert not tap.known_sent_again
    assert run.events("stall")


def test_total_darkness_ends(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(12 * MIB)
    tap = start_tap(shared_server, hold_after=5 * MIB + 100_000)
    run = uploader.start(path, tap.url, {"digest": False})
    assert tap.held.wait(30)
    tap.go_dark()
    run.wait_for_event("stall")
    tap.light_up()
    result = run.result()
    assert stored(shared_server, result) == path.read_bytes()
    assert tap.sent_twice() == 0


def test_nobody_who_answers_is_an_error_in_the_end(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    tap = start_tap(shared_server)
    tap.go_dark()
    run = uploader.start(make_file(1000), tap.url, {"maxRetries": 0})
    failure = run.failure()
    assert (failure["name"], failure["code"], failure["retriable"]) == ("UploadError", "timeout", True)


def test_server_killed_five_times(
    server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(24 * MIB)
    tap = start_tap(server, hold_after=3 * MIB)
    run = uploader.start(path, tap.url, {"maxRetries": 100})
    for _ in range(5):
        assert tap.held.wait(30)
        assert server.child is not None
        server.child.process.kill()
        server.child.process.wait()
        server.start()
        tap.reset()
        tap.hold_again(3 * MIB)
    tap.release()
    result = run.result()
    assert stored(server, result) == path.read_bytes()
    assert not tap.known_sent_again, "what the server had acknowledged was sent again"
    assert len([each for each in tap.exchanges if each.method == "POST"]) == 1


def test_slow_link_is_left_alone(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    # Long after the last byte has left the client, the relay still brings what it has.
    path = make_file(800 * 1024)
    tap = start_tap(shared_server, rate=80 * 1024)
    run = uploader.start(path, tap.url, {"digest": False, "parallel": 2})
    result = run.result()
    assert stored(shared_server, result) == path.read_bytes()
    assert tap.sent_twice() == 0
    assert not run.events("retry")


def test_both_ends_of_a_long_pause(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(12 * MIB)
    tap = start_tap(shared_server, hold_after=5 * MIB + 100_000)
    run = uploader.start(path, tap.url, {"digest": False})
    assert tap.held.wait(30)
    run.order("pause")
    run.wait_for_event("pause")
    tap.release()
    run.order("resume")
    result = run.result()
    assert stored(shared_server, result) == path.read_bytes()
    assert not tap.known_sent_again
    assert [each["event"] for each in run.events("pause", "resume", "done", "error")] == ["pause", "resume", "done"]
    assert not run.events("retry")
