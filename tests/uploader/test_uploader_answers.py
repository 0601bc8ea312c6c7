"""What uploader.js makes of the answers that a server, or somebody between, may give."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from email.utils import format_datetime

import pytest
from tests.fixtures.server import FileServer
from tests.uploader.conftest import MakeFile, StartTap
from tests.uploader.tap import LOSE, Exchange, answer
from tests.uploader.uploading import MIB, NodeUploader, stored

Chooses = Callable[[Exchange], bool]


def is_creation(exchange: Exchange) -> bool:
    return exchange.method == "POST"


def is_chunk(exchange: Exchange) -> bool:
    return exchange.is_chunk


def is_status(exchange: Exchange) -> bool:
    return exchange.method == "GET"


class Once:
    """Answers the first requests that are chosen with what is given, and leaves the others alone."""

    def __init__(self, chooses: Chooses, text: bytes, *, times: int = 1) -> None:
        self.left = times
        self._chooses = chooses
        self._text = text
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> bytes | None:
        with self._lock:
            if not self.left or not self._chooses(exchange):
                return None
            self.left -= 1
            return self._text


FINAL = [
    (400, "bad_field"), (401, "bad_token"), (401, "token_expired"), (403, "bad_signature"), (403, "ticket_used_up"),
    (405, "method_not_allowed"), (409, "exists"), (411, "length_required"), (413, "too_large"),
    (413, "size_mismatch"), (415, "extension_refused"), (415, "type_mismatch"), (404, "not_found"), (410, "slot_expired"),
    (501, "method_not_implemented"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code"), FINAL)
def test_creation_that_is_refused_for_good(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, status: int, code: str
) -> None:
    refusal = answer(status, {"code": code, "detail": "In words.", "request_id": "r-1"})
    tap = start_tap(shared_server, intervene=Once(is_creation, refusal, times=99))
    run = uploader.start(make_file(1000), tap.url)
    failure = run.failure()
    assert (failure["name"], failure["code"], failure["status"]) == ("UploadError", code, status)
    assert failure["retriable"] is False
    assert failure["detail"] == "In words."
    assert len(tap.exchanges) == 1, "asked again what is answered for good"
    assert [each["error"]["code"] for each in run.events("error")] == [code]


RETRIED = [
    (408, "body_stalled"), (409, "upload_taken_over"), (425, "http_425"), (429, "too_many_sessions"),
    (400, "incomplete"), (400, "digest_mismatch"), (500, "internal_error"), (502, "http_502"), (503, "server_busy"),
    (504, "http_504"), (507, "storage_full"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code"), RETRIED)
def test_chunk_that_is_put_off(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, status: int, code: str
) -> None:
    path = make_file(100_000)
    problem = {} if code.startswith("http_") else {"code": code}
    tap = start_tap(shared_server, intervene=Once(is_chunk, answer(status, problem)))
    run = uploader.start(path, tap.url)
    assert stored(shared_server, run.result()) == path.read_bytes()
    assert [each["error"]["code"] for each in run.events("retry")] == [code]
    assert [each.method for each in tap.exchanges] == ["POST", "PUT", "GET", "PUT"], (
        "the status was not asked for first"
    )


@pytest.mark.parametrize(("status", "code"), [(400, "bad_digest"), (403, "bad_signature"), (413, "http_413")])
def test_chunk_that_is_refused_for_good(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, status: int, code: str
) -> None:
    problem = {} if code.startswith("http_") else {"code": code}
    tap = start_tap(shared_server, intervene=Once(is_chunk, answer(status, problem), times=99))
    failure = uploader.start(make_file(1000), tap.url).failure()
    assert (failure["code"], failure["status"]) == (code, status)
    assert len(tap.chunks()) == 1


@pytest.mark.parametrize("code", ["chunk_differs", "offset_mismatch"])
def test_chunk_that_does_not_fit_is_sent_whole_once(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, code: str
) -> None:
    path = make_file(100_000)
    tap = start_tap(shared_server, intervene=Once(is_chunk, answer(409, {"code": code})))
    assert stored(shared_server, uploader.start(path, tap.url).result()) == path.read_bytes()
    assert [each.method for each in tap.exchanges] == ["POST", "PUT", "GET", "PUT"]

    stubborn = start_tap(shared_server, intervene=Once(is_chunk, answer(409, {"code": code}), times=99))
    failure = uploader.start(path, stubborn.url).failure()
    assert failure["code"] == code
    assert len(stubborn.chunks()) == 2


def test_failures_without_progress_end_the_upload(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    tap = start_tap(shared_server, intervene=Once(is_chunk, answer(503, {"code": "server_busy"}), times=99))
    run = uploader.start(make_file(1000), tap.url, {"maxRetries": 3})
    failure = run.failure()
    assert (failure["code"], failure["retriable"]) == ("server_busy", True)
    assert [each["attempt"] for each in run.events("retry")] == [1, 2, 3]
    assert len(tap.chunks()) == 4


def test_creation_is_retried_too(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(1000)
    tap = start_tap(shared_server, intervene=Once(is_creation, answer(503), times=3))
    assert stored(shared_server, uploader.start(path, tap.url).result()) == path.read_bytes()
    keys = {each.headers["idempotency-key"] for each in tap.exchanges if each.method == "POST"}
    assert len(keys) == 1


@pytest.mark.parametrize("spelled", ["seconds", "date"])
def test_retry_after_is_kept_to(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, spelled: str
) -> None:
    # Of a date only the whole seconds are told, so that it is up to one second nearer.
    moment = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=3), usegmt=True)
    fields = f"Retry-After: {'2' if spelled == 'seconds' else moment}\r\n"
    path = make_file(1000)
    tap = start_tap(shared_server, intervene=Once(is_chunk, answer(503, {"code": "server_busy"}, fields)))
    run = uploader.start(path, tap.url)
    assert stored(shared_server, run.result()) == path.read_bytes()
    (retry,) = run.events("retry")
    assert 1000 <= retry["delay"] <= 3000
    (resumed,) = [each for each in run.events("state") if each["state"] == "waiting"]
    after = [each for each in run.events("state", "chunk") if each["at"] > resumed["at"]]
    assert after[0]["at"] - resumed["at"] >= retry["delay"] - 5


def test_lost_answer_to_the_creation_makes_no_second_session(
    server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(1000)
    tap = start_tap(server, intervene=Once(is_creation, LOSE))
    result = uploader.start(path, tap.url).result()
    assert stored(server, result) == path.read_bytes()
    assert len([each for each in tap.exchanges if each.method == "POST"]) == 2
    assert len(server.files()) == 1
    assert server.log_text().count("Active upload sessions: 2") == 0


def test_lost_answer_to_the_last_chunk_is_asked_for(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(100_000)
    tap = start_tap(shared_server, intervene=Once(is_chunk, LOSE))
    result = uploader.start(path, tap.url).result()
    assert stored(shared_server, result) == path.read_bytes()
    assert len(tap.chunks()) == 1, "a body was sent again that had arrived"
    assert str(result["url"]).startswith(tap.url + "/")
    assert result["digest"].startswith("blake3:")


@pytest.mark.parametrize("status", [404, 410])
def test_session_that_is_gone_is_begun_anew_once(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, status: int
) -> None:
    path = make_file(100_000)
    gone = answer(status, {"code": "upload_not_found" if status == 404 else "upload_expired"})
    tap = start_tap(shared_server, intervene=Once(is_chunk, gone))
    run = uploader.start(path, tap.url)
    result = run.result()
    assert stored(shared_server, result) == path.read_bytes()
    first, second = run.events("start")
    assert first["sessionId"] != second["sessionId"] == result["sessionId"]
    posts = [each for each in tap.exchanges if each.method == "POST"]
    assert len({each.headers["idempotency-key"] for each in posts}) == 2

    always = start_tap(shared_server, intervene=Once(is_chunk, gone, times=99))
    failure = uploader.start(path, always.url).failure()
    assert failure["status"] == status
    assert len([each for each in always.exchanges if each.method == "POST"]) == 2


@pytest.mark.parametrize(
    "text",
    [
        answer(200, {"success": False}),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<html></html>\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://portal.invalid/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_answer_of_somebody_else_is_not_believed(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile, text: bytes
) -> None:
    path = make_file(1000)
    tap = start_tap(shared_server, intervene=Once(is_chunk, text, times=2))
    run = uploader.start(path, tap.url)
    assert stored(shared_server, run.result()) == path.read_bytes()
    assert {each["error"]["code"] for each in run.events("retry")} == {"bad_answer"}


def test_status_that_fails_is_asked_again(
    shared_server: FileServer, uploader: NodeUploader, start_tap: StartTap, make_file: MakeFile
) -> None:
    path = make_file(3 * MIB)
    chunks = Once(is_chunk, answer(503))
    statuses = Once(is_status, answer(500), times=3)
    tap = start_tap(shared_server, intervene=lambda each: chunks(each) or statuses(each))
    assert stored(shared_server, uploader.start(path, tap.url).result()) == path.read_bytes()
    assert statuses.left == 0


@pytest.mark.parametrize("endpoint", ["/upload/chunked", "ftp://files.example.org/upload/chunked"])
def test_endpoint_that_is_none(uploader: NodeUploader, make_file: MakeFile, endpoint: str) -> None:
    failure = uploader.start(make_file(10), "", endpoint=endpoint).failure()
    assert (failure["code"], failure["retriable"]) == ("bad_endpoint", False)


def test_other_names_of_the_endpoint(shared_server: FileServer, uploader: NodeUploader, make_file: MakeFile) -> None:
    path = make_file(3 * MIB)
    result = uploader.start(path, shared_server.url, endpoint="/chunked-upload").result()
    assert stored(shared_server, result) == path.read_bytes()
