"""The C client against small servers that behave, answer early, lie about lengths or hang up."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.client import Client, Load, Measured, body_slice, parse_report, write_targets
from bench.errors import BenchError, MismatchError, UnavailableError

needs_compiler = pytest.mark.skipif(
    shutil.which("gcc") is None and shutil.which("cc") is None, reason="needs a C compiler"
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"

Request = tuple[str, str, bytes]
Answer = Callable[[int, Request, socket.socket], bool]
"""Given the request's number, the request and the connection: answers; False hangs up."""


class SmallServer:
    """Reads whole requests one after another on each connection and lets `answer` reply."""

    def __init__(self, answer: Answer, *, early: bool = False) -> None:
        self.requests: list[Request] = []
        self._answer = answer
        self._early = early
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in self._threads)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while (request := self._read(stream)) is not None:
                    with self._lock:
                        number = len(self.requests)
                        self.requests.append(request)
                    if not self._answer(number, request, connection):
                        return
            except OSError:
                return

    def _read(self, stream: object) -> Request | None:
        readline, read = stream.readline, stream.read  # type: ignore[attr-defined]
        first = readline().decode()
        if not first:
            return None
        method, target, _ = first.split(" ")
        length = 0
        while line := readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return method, target, b"" if self._early else read(length)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client.build(tmp_path_factory.mktemp("client"), os.sched_getaffinity(0))


@pytest.fixture
def run(client: Client, tmp_path: Path) -> Iterator[Callable[..., tuple[Measured, list[Request]]]]:
    servers: list[SmallServer] = []

    def runner(
        answer: Answer, *, early: bool = False, count: int = 4, **changes: object
    ) -> tuple[Measured, list[Request]]:
        server = SmallServer(answer, early=early)
        servers.append(server)
        fields: dict[str, object] = {
            "mode": "get", "host": "127.0.0.1", "port": server.port, "host_header": "h", "connections": 1,
            "requests": count, "size": 10, "targets": write_targets(tmp_path / "targets", [f"/f{i}" for i in range(count)]),
        }  # fmt: skip
        measured = client.run(Load(**(fields | changes)))  # type: ignore[arg-type]
        return measured, server.requests

    yield runner
    for server in servers:
        server.close()


def reply(answer: bytes) -> Answer:
    def send(_number: int, _request: Request, connection: socket.socket) -> bool:
        connection.sendall(answer)
        return True

    return send


Run = Callable[..., tuple[Measured, list[Request]]]


@needs_compiler
def test_downloads_are_counted_and_their_targets_taken_in_turn(run: Run) -> None:
    measured, requests = run(reply(OK), count=3, requests=7)
    measured.require_all_ok(7)
    assert [target for _, target, _ in requests] == ["/f0", "/f1", "/f2", "/f0", "/f1", "/f2", "/f0"]
    assert (measured.body_bytes, measured.statuses, measured.reconnects) == (70, {"200": 7}, 0)
    assert 0 < measured.p50_us <= measured.p99_us <= measured.max_us


@needs_compiler
@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 10_240, 262_144, 700_001])
def test_uploads_carry_exactly_the_body_they_should(run: Run, client: Client, size: int) -> None:
    measured, requests = run(reply(CREATED), mode="put", size=size, seed=9)
    measured.require_all_ok(4)
    pattern = client.pattern()
    assert len(pattern) == 262_144
    for number, (method, target, body) in enumerate(requests):
        assert (method, target) == ("PUT", f"/f{number}")
        assert body == body_slice(pattern, 9, number, 0, size)
    if size >= 32:
        assert len({body for _, _, body in requests}) == 4


@needs_compiler
def test_many_connections_send_every_request_once(run: Run) -> None:
    measured, requests = run(reply(CREATED), mode="put", count=200, connections=16, size=100)
    measured.require_all_ok(200)
    assert sorted(target for _, target, _ in requests) == sorted(f"/f{i}" for i in range(200))


@needs_compiler
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "refused (status 403)"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\n0123456789", "refused (status 206)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n012345678", "wrong body length (status 200)"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
            "wrong body length (status 200)",
        ),
        (OK + b"more", "more bytes than announced (status 200)"),
    ],
)
def test_wrong_downloads_are_failures(run: Run, answer: bytes, reason: str) -> None:
    measured, _ = run(reply(answer), count=2)
    assert (measured.ok, measured.failed) == (0, 2)
    assert measured.first_failure.startswith(reason)
    with pytest.raises(MismatchError, match="0 of 2"):
        measured.require_all_ok(2)


@needs_compiler
def test_it_gives_up_after_many_failures(run: Run) -> None:
    measured, _ = run(reply(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"), count=500)
    assert measured.gave_up
    assert measured.failed < 100


@needs_compiler
def test_interim_answers_are_skipped(run: Run) -> None:
    measured, _ = run(reply(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 104 X\r\nUpload-Offset: 1\r\n\r\n" + OK))
    measured.require_all_ok(4)


@needs_compiler
def test_an_answer_in_single_bytes(run: Run) -> None:
    def dribble(_number: int, _request: Request, connection: socket.socket) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in OK:
            connection.sendall(bytes([byte]))
        return True

    run(dribble)[0].require_all_ok(4)


@needs_compiler
def test_chunked_answers_to_uploads_are_read_to_their_end(run: Run) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    run(reply(answer), mode="put")[0].require_all_ok(4)


@needs_compiler
def test_no_content_has_no_body(run: Run) -> None:
    run(reply(b"HTTP/1.1 204 No Content\r\n\r\n"), mode="put")[0].require_all_ok(4)


@needs_compiler
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\n0123456789", b"HTTP/1.0 " + OK[9:]],
)
def test_it_reconnects_when_the_server_will_close(run: Run, answer: bytes) -> None:
    def once(_number: int, _request: Request, connection: socket.socket) -> bool:
        connection.sendall(answer)
        return False

    measured, _ = run(once)
    measured.require_all_ok(4)
    assert measured.reconnects == 4


@needs_compiler
@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"]
)
def test_a_connection_lost_inside_an_answer_is_a_failure(run: Run, part: bytes) -> None:
    def hang_up(number: int, _request: Request, connection: socket.socket) -> bool:
        connection.sendall(part if number == 1 else OK)
        return number != 1

    measured, _ = run(hang_up)
    assert (measured.ok, measured.failed) == (3, 1)
    assert measured.first_failure.startswith("connection ended")


@needs_compiler
def test_success_before_the_whole_body_was_sent_is_a_failure(run: Run) -> None:
    def early(_number: int, _request: Request, connection: socket.socket) -> bool:
        connection.sendall(CREATED)
        return False

    measured, _ = run(early, early=True, mode="put", count=1, size=64 * 2**20)
    assert (measured.ok, measured.failed) == (0, 1)


@needs_compiler
def test_an_early_refusal_is_told_with_its_status(run: Run) -> None:
    def refuse(_number: int, _request: Request, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
        return False

    measured, _ = run(refuse, early=True, mode="put", count=1, size=64 * 2**20)
    assert measured.first_failure.startswith("refused (status 413)")


@needs_compiler
def test_paced_requests_count_latency_from_when_they_were_due(run: Run) -> None:
    released = threading.Event()

    def stall_once(number: int, _request: Request, connection: socket.socket) -> bool:
        if number == 0:
            released.wait(0.05)  # nobody sets it: the stall that later requests have to feel
        connection.sendall(OK)
        return True

    measured, _ = run(stall_once, count=20, interval_us=1000)
    measured.require_all_ok(20)
    assert measured.p50_us > 10_000  # one after another, only the first would have seen the stall


@needs_compiler
def test_downloads_beside_an_upload_end_with_it(client: Client, tmp_path: Path) -> None:
    def answer(_number: int, request: Request, connection: socket.socket) -> bool:
        connection.sendall(OK if request[0] == "GET" else CREATED)
        return True

    server = SmallServer(answer)
    try:
        get = Load("get", "127.0.0.1", server.port, "h", 1, 0, 10, write_targets(tmp_path / "g", ["/g"]))
        put = Load("put", "127.0.0.1", server.port, "h", 1, 3, 2**20, write_targets(tmp_path / "p", ["/1", "/2", "/3"]))
        beside, upload = client.run_beside(get, put)
    finally:
        server.close()
    upload.require_all_ok(3)
    assert beside.failed == 0
    assert beside.ok == sum(beside.statuses.values()) > 0
    assert sum(request[0] == "GET" for request in server.requests) >= beside.ok


@needs_compiler
def test_nothing_listens(client: Client, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    load = Load("get", "127.0.0.1", port, "h", 1, 1, 10, write_targets(tmp_path / "t", ["/"]))
    with pytest.raises(BenchError, match="Connection refused"):
        client.run(load)


@needs_compiler
def test_too_few_targets_for_the_uploads(client: Client, tmp_path: Path) -> None:
    load = Load("put", "127.0.0.1", 1, "h", 1, 3, 10, write_targets(tmp_path / "t", ["/1", "/2"]))
    with pytest.raises(BenchError, match="2 targets for 3 uploads"):
        client.run(load)


def test_no_compiler_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="package gcc"):
        Client.build(tmp_path, {0})


@pytest.mark.parametrize("text", ["", "nothing", "{}", '{"requests": 1}', "[]"])
def test_what_is_no_report(text: str) -> None:
    with pytest.raises(BenchError, match="no report"):
        parse_report(text)
