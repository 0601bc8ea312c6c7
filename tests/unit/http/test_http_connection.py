"""The connection over real sockets, on both event loops, with an application that records what it sees."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from tests.fixtures.child import wait_until
from tests.unit.http.site import LOOPS, Site, ask, put, read_all, read_until, site

from hmac_file_server.http import BodyCut, Limits
from hmac_file_server.http.connection import Connection

CLOSE = ask("GET /hello", "Connection: close")

Open = Callable[..., Site]


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Starts a site with the given limits, on each kind of event loop."""
    started: list[Site] = []

    def start(**limits: object) -> Site:
        served = Site(limits=Limits(**limits), loop=request.param)  # type: ignore[arg-type]
        started.append(served)
        served.start()
        return served

    yield start
    for served in started:
        if served.running:
            served.stop()


def talk(served: Site, data: bytes) -> bytes:
    with served.connect() as sock:
        sock.sendall(data)
        return read_all(sock)


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


# ---- requests and answers in order


def test_keep_alive_then_close(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        for _ in range(3):
            sock.sendall(ask("GET /hello"))
            assert read_until(sock, b"hello").startswith(b"HTTP/1.1 200 OK\r\n")
        sock.sendall(CLOSE)
        assert b"Connection: close\r\n" in read_all(sock)
    assert [status for _, status, _ in served.done] == [200] * 4


@pytest.mark.parametrize("count", [2, 64, 65, 500])
def test_pipelined_requests_are_answered_in_order(serve: Open, count: int) -> None:
    served = serve()
    data = b"".join(ask(f"GET /bytes/{number}") for number in range(count)) + CLOSE
    received = talk(served, data)
    lengths = [int(part.split(b"\r\n", 1)[0]) for part in received.split(b"Content-Length: ")[1:]]
    assert lengths == [*range(count), 5]


def test_pipelined_answers_from_threads_files_and_memory_keep_their_order(serve: Open) -> None:
    served = serve()
    served.gate.set()
    data = (
        ask("GET /slow") + ask("GET /file/300000") + ask("GET /hello") + put("/later/a", b"x" * 100_000)
        + ask("GET /pieces/200000") + ask("GET /slow") + put("/put/b", b"y") + CLOSE
    )  # fmt: skip
    received = talk(served, data)
    lengths = [int(part.split(b"\r\n", 1)[0]) for part in received.split(b"Content-Length: ")[1:]]
    assert lengths == [4, 300000, 5, 6, 200000, 4, 1, 5]
    assert [path for _, path in served.seen] == [
        "/slow", "/file/300000", "/hello", "/later/a", "/pieces/200000", "/slow", "/put/b", "/hello"
    ]  # fmt: skip
    assert all(span.closed == 1 for span in served.spans)


def test_pipelined_large_files(serve: Open) -> None:
    served = serve()
    received = talk(served, ask("GET /file/3000000") * 6 + CLOSE)
    assert statuses(received) == [200] * 7
    assert len(received) > 18_000_000


def test_request_in_single_bytes(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        for byte in b"\r\n" + put("/put/x", b"abc") + CLOSE:
            sock.sendall(bytes([byte]))
        assert statuses(read_all(sock)) == [201, 200]
    assert served.bodies["/put/x"].data == b"abc"


def test_lone_cr_of_a_connection_is_not_judged_by_bytes_of_another(serve: Open) -> None:
    """All connections read into one buffer, in which older bytes stand behind the newest."""
    served = serve()
    with served.connect() as other, served.connect() as sock:
        other.sendall(ask("GET /hello"))
        read_until(other, b"hello")
        sock.sendall(b"\r")
        other.sendall(ask("GET /hello"))
        read_until(other, b"hello")
        sock.sendall(b"\n" + CLOSE)
        assert statuses(read_all(sock)) == [200]


def test_head_requests_get_no_body(serve: Open) -> None:
    served = serve()
    received = talk(served, ask("HEAD /bytes/100") + ask("HEAD /file/70000") + CLOSE)
    assert received.count(b"\r\n\r\n") == 3
    assert b"Content-Length: 100\r\n" in received
    assert b"Content-Length: 70000\r\n" in received
    assert served.spans[0].closed == 1


def test_interim_answers(serve: Open) -> None:
    served = serve()
    received = talk(served, ask("GET /interim", "Connection: close"))
    assert received.startswith(b"HTTP/1.1 104 ")
    assert b"\r\nUpload-Offset: 7\r\n\r\nHTTP/1.1 200 OK\r\n" in received
    old = talk(served, b"GET /interim HTTP/1.0\r\nHost: t\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200 OK\r\n")


def test_empty_file_and_no_content(serve: Open) -> None:
    received = talk(serve(), ask("GET /file/0") + ask("GET /none") + CLOSE)
    assert statuses(received) == [200, 204, 200]
    assert b"Content-Length" not in received.split(b"HTTP/1.1 204")[1].split(b"\r\n\r\n")[0]


# ---- bodies


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 300_000, 5_000_000])
@pytest.mark.parametrize("action", ["put", "later", "receive-later"])
def test_bodies_of_every_size_arrive_whole(serve: Open, size: int, action: str) -> None:
    served = serve()
    body = (b"%d " % size) * (size // 2 + 1)
    received = talk(served, put(f"/{action}/x", body[:size]) + put(f"/{action}/y", b"next") + CLOSE)
    assert statuses(received) == [201, 201, 200]
    assert served.bodies[f"/{action}/x"].data == body[:size]
    assert served.bodies[f"/{action}/y"].data == b"next"
    assert served.call(lambda: served.listener.collecting) == 0


@pytest.mark.parametrize("gap", [1, 1000, 65_536, 100_000])
def test_bodies_with_a_pause_in_them(serve: Open, gap: int) -> None:
    served = serve()
    data = put("/put/x", b"p" * 120_000) + CLOSE
    with served.connect() as sock, served.connect() as other:
        for start in range(0, len(data), gap if gap > 1 else 40_000):
            sock.sendall(data[start : start + (gap if gap > 1 else 40_000)])
            other.sendall(ask("GET /hello"))
            read_until(other, b"hello")
        assert statuses(read_all(sock)) == [201, 200]
    assert served.bodies["/put/x"].data == b"p" * 120_000


def test_chunked_bodies(serve: Open) -> None:
    served = serve()
    coded = b"".join(b"%x\r\n%b\r\n" % (n, b"c" * n) for n in range(1, 600)) + b"0\r\nX: y\r\n\r\n"
    received = talk(served, ask("PUT /put/x", "Transfer-Encoding: chunked", body=coded) + put("/put/y", b"z") + CLOSE)
    assert statuses(received) == [201, 201, 200]
    assert served.bodies["/put/x"].data == b"c" * (599 * 300)
    assert served.bodies["/put/y"].data == b"z"


def test_one_byte_chunks_are_joined_before_they_are_written(serve: Open) -> None:
    """A million chunks must not become a million writes."""
    served = serve()
    count = 300_000
    coded = b"1\r\nx\r\n" * count + b"0\r\n\r\n"
    assert statuses(talk(served, ask("PUT /put/x", "Transfer-Encoding: chunked", body=coded) + CLOSE)) == [201, 200]
    body = served.bodies["/put/x"]
    assert body.data == b"x" * count
    assert body.writes < count / 20


@pytest.mark.parametrize("size", [100, 200_000])
def test_chunked_limit(serve: Open, size: int) -> None:
    served = serve()
    data = ask("PUT /limit/99", "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
    with served.connect() as sock:
        sock.sendall(data)
        received = read_all(sock)
    assert statuses(received) == [400]
    assert served.ends[0].cut is BodyCut.TOO_LARGE
    assert served.ends[0].received <= 99


@pytest.mark.parametrize("size", [1000, 100_000, 3_000_000])
def test_a_sink_that_refuses_ends_the_body(serve: Open, size: int) -> None:
    served = serve()
    received = talk(served, put("/full/500", b"x" * size) + CLOSE)
    assert statuses(received)[0] == 400
    assert served.ends[0].cut is BodyCut.REFUSED
    assert isinstance(served.ends[0].error, ValueError)


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("sent", [0, 50])
def test_a_cut_body_is_told_and_nothing_of_it_is_a_request(serve: Open, size: int, sent: int) -> None:
    served = serve()
    with served.connect() as sock:
        body = (ask("GET /hello") * 9)[:sent]
        sock.sendall(ask("PUT /put/x", f"Content-Length: {size}", body=body))
        sock.shutdown(socket.SHUT_WR)
        assert statuses(read_all(sock)) == [400]
    assert [end.cut for end in served.ends] == [BodyCut.DISCONNECTED]
    assert served.seen == [("PUT", "/put/x")]


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_reset_in_a_body(serve: Open, size: int) -> None:
    served = serve()
    sock = served.connect()
    sock.sendall(ask("PUT /put/x", f"Content-Length: {size}", body=b"half"))
    wait_until(lambda: bool(served.seen), "the request is seen")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    wait_until(lambda: bool(served.ends), "the body has ended")
    assert served.ends[0].cut is BodyCut.DISCONNECTED
    wait_until(lambda: served.connections() == 0, "the connection is forgotten")
    wait_until(lambda: bool(served.done), "the exchange has ended")


def test_half_closed_clients_are_answered(serve: Open) -> None:
    served = serve()
    for data, expected in (
        (ask("GET /hello"), [200]),
        (ask("GET /slow") + ask("GET /hello"), [200, 200]),
        (put("/later/x", b"abc"), [201]),
        (put("/later/y", b"abc" * 100_000), [201]),
        (ask("GET /file/2000000"), [200]),
        (ask("GET /hello") * 200, [200] * 200),
    ):
        with served.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            served.gate.set()
            assert statuses(read_all(sock)) == expected


def test_expect_continue(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        for size in (3, 100_000):
            sock.sendall(ask("PUT /put/x", f"Content-Length: {size}", "Expect: 100-continue"))
            assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"x" * size)
            assert b" 201 " in read_until(sock, b"%d" % size)
        sock.sendall(ask("PUT /put/x", "Transfer-Encoding: chunked", "Expect: 100-continue"))
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"1\r\nx\r\n0\r\n\r\n")
        assert b" 201 " in read_until(sock, b"\r\n1")
        sock.sendall(ask("PUT /refuse", "Content-Length: 3", "Expect: 100-continue"))
        assert read_all(sock).startswith(b"HTTP/1.1 403 ")


# ---- errors


def test_nothing_is_read_as_a_request_after_an_error(serve: Open) -> None:
    served = serve()
    assert statuses(talk(served, ask("GET /hello") + b"BAD\r\n\r\n" + ask("GET /evil"))) == [200, 400]
    assert served.seen == [("GET", "/hello")]
    assert served.refused == [(400, "bad_request_line")]


def test_a_failing_handler_is_a_500_and_the_log_has_its_id(serve: Open, caplog: pytest.LogCaptureFixture) -> None:
    served = serve()
    with caplog.at_level(logging.ERROR):
        received = talk(served, ask("GET /boom") + ask("GET /hello"))
    assert statuses(received) == [500]
    failed = caplog.records[0].getMessage()
    assert failed.rpartition(" ")[2].encode() in received
    assert b"boom" not in received


def test_an_http_error_of_a_handler_keeps_the_connection(serve: Open) -> None:
    assert statuses(talk(serve(), ask("GET /teapot") + CLOSE)) == [418, 200]


def test_an_unwanted_body_that_is_here_is_skipped(serve: Open) -> None:
    served = serve()
    assert statuses(talk(served, put("/refuse", ask("GET /evil")) + CLOSE)) == [403, 200]
    assert ("GET", "/evil") not in served.seen


@pytest.mark.parametrize("after", [0, 30_000, 8_000_000])
def test_an_early_answer_can_be_read_by_a_client_that_keeps_sending(serve: Open, after: int) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("PUT /refuse", "Content-Length: 1000000000") + b"x" * after)
        assert statuses(read_all(sock)) == [403]
    assert served.seen == [("PUT", "/refuse")]


def test_an_endless_sender_is_cut_after_an_early_answer(serve: Open) -> None:
    served = serve(linger_bytes=1_000_000)
    with served.connect() as sock:
        sock.sendall(ask("PUT /refuse", "Content-Length: 1000000000"))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            sock.sendall(bytes(100_000_000))
    wait_until(lambda: served.connections() == 0, "the connection is gone")


def test_bytes_after_connection_close_do_not_destroy_the_answer(serve: Open) -> None:
    """Closing a socket with unread bytes resets it, and the reset can overtake the answer."""
    served = serve()
    for path in ("/bytes/60000", "/file/2000000"):
        with served.connect(receive_buffer=4096) as sock:
            sock.sendall(ask(f"GET {path}", "Connection: close") + b"x" * 2000)
            wait_until(lambda path=path: ("GET", path) in served.seen, "the request is seen")  # type: ignore[misc]
            sock.sendall(b"y" * 20_000)
            received = read_all(sock)
        assert len(received.split(b"\r\n\r\n", 1)[1]) == int(path.rpartition("/")[2])


# ---- time


def test_silence_is_closed_without_a_word(serve: Open) -> None:
    served = serve(header_timeout=0.3)
    with served.connect() as sock:
        assert read_all(sock) == b""


@pytest.mark.parametrize("start", [b"GET /hello HTTP/1.1\r\nHost", b"G", b"\r\n"])
def test_a_head_that_takes_too_long_is_a_408(serve: Open, start: bytes) -> None:
    served = serve(header_timeout=0.3)
    with served.connect() as sock:
        sock.sendall(start)
        assert statuses(read_all(sock)) == [408]


def test_a_head_request_that_takes_too_long_gets_no_body(serve: Open) -> None:
    served = serve(header_timeout=0.3)
    with served.connect() as sock:
        sock.sendall(b"HEAD /hello HTTP/1.1\r\n")
        received = read_all(sock)
    assert statuses(received) == [408]
    assert received.endswith(b"\r\n\r\n")


def test_a_trickle_of_header_bytes_earns_no_more_time(serve: Open) -> None:
    served = serve(header_timeout=0.5, idle_timeout=60.0)
    with served.connect() as sock:
        sock.settimeout(0.05)
        started = time.monotonic()
        received = b""
        for byte in ask("GET /hello", "X: " + "y" * 1000):
            try:
                sock.sendall(bytes([byte]))
                received += sock.recv(1000)
                break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - started < 20
    assert statuses(received) == [408]
    assert served.seen == []


def test_idle_keep_alive_is_closed(serve: Open) -> None:
    served = serve(idle_timeout=0.3)
    with served.connect() as sock:
        sock.sendall(ask("GET /hello"))
        assert statuses(read_all(sock)) == [200]


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_body_that_stalls_is_cut(serve: Open, size: int) -> None:
    served = serve(stall_timeout=0.3)
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/x", f"Content-Length: {size}", body=b"half"))
        received = read_all(sock)
    assert statuses(received) == [400]
    assert received.endswith(b"stalled")


@pytest.mark.parametrize("size", [5000, 100_000])
def test_a_body_below_the_minimum_rate_is_cut(serve: Open, size: int) -> None:
    served = serve(min_rate=10_000.0, min_rate_grace=0.5, stall_timeout=30.0)
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/x", f"Content-Length: {size}"))
        sock.settimeout(0.1)
        received = b""
        for _ in range(200):
            try:
                sock.sendall(b"x")
                received += sock.recv(1000)
                break
            except TimeoutError:
                continue
    assert statuses(received) == [400]
    assert received.endswith(b"too_slow")


@pytest.mark.parametrize("size", [5000, 100_000])
def test_a_body_is_bounded_in_time_at_any_rate(serve: Open, size: int) -> None:
    served = serve(read_timeout=0.5, min_rate=0.0)
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/x", f"Content-Length: {size}"))
        sock.settimeout(0.1)
        received = b""
        for _ in range(200):
            try:
                sock.sendall(b"x")
                received += sock.recv(1000)
                break
            except TimeoutError:
                continue
    assert statuses(received) == [400]
    assert received.endswith(b"timed_out")


@pytest.mark.parametrize("path", ["/file/50000000", "/pieces/50000000"])
def test_a_reader_that_stops_is_cut_and_others_are_served(serve: Open, path: str) -> None:
    served = serve(send_stall_timeout=0.5)
    with served.connect(receive_buffer=4096) as sock:
        sock.sendall(ask(f"GET {path}"))
        wait_until(lambda: bool(served.seen), "the request is seen")
        assert statuses(talk(served, CLOSE)) == [200]
        wait_until(lambda: bool(served.spans[0].closed), "the file is given back")
        wait_until(lambda: served.connections() == 0, "the connection is gone")
        assert len(read_all(sock)) < 50_000_000


def test_a_reader_that_stops_in_pipelined_answers_is_cut(serve: Open) -> None:
    served = serve(send_stall_timeout=0.5)
    with served.connect(receive_buffer=4096) as sock:
        sock.settimeout(0.2)
        try:
            for _ in range(100):
                sock.sendall(ask("GET /bytes/65536") * 100)
        except (TimeoutError, ConnectionError):
            pass
        wait_until(lambda: served.connections() == 0, "the connection is gone")
    assert len(served.seen) < 2000


def test_a_slow_reader_keeps_its_connection_once_it_has_read(serve: Open) -> None:
    served = serve(send_stall_timeout=0.6, idle_timeout=60.0)
    with served.connect(receive_buffer=4096) as sock:
        sock.sendall(ask("GET /bytes/3000000"))
        received = 0
        while received < 3_000_000:
            received += len(sock.recv(1 << 20))
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 2.2, "two sweeps have passed")
        sock.sendall(CLOSE)
        assert read_all(sock).endswith(b"hello")


def test_what_waits_for_a_slow_reader_is_bounded(serve: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelined requests are answered as they are read, not gathered in memory."""
    bursts = []
    flush = Connection.flush

    def watched(self: Connection) -> None:
        bursts.append(sum(map(len, self._out)))
        flush(self)

    monkeypatch.setattr(Connection, "flush", watched)
    served = serve()
    with served.connect(receive_buffer=4096) as sock:
        sock.sendall(ask("GET /bytes/65536") * 60)
        wait_until(lambda: len(served.seen) >= 2, "some requests are seen")
        most = 0
        received = bytearray()
        for _ in range(300):
            # A little is read now and then, so that answers follow while the kernel is full.
            received += sock.recv(4096)
            waiting = served.call(
                lambda: sum(c._transport.get_write_buffer_size() for c in served.listener.connections)
            )
            most = max(most, waiting)
        assert most < 300_000
        while received.count(b"HTTP/1.1 200") < 60 or not received.endswith(b"b" * 65536):
            received += sock.recv(1 << 20)
        assert len(served.seen) == 60
    assert max(bursts) < 140_000


def test_a_slow_reader_of_a_last_answer_has_time(serve: Open) -> None:
    """What is still in user space when the connection is to close is bound by the send stall."""
    served = serve(linger_timeout=0.2, send_stall_timeout=20.0)
    with served.connect(receive_buffer=4096) as sock:
        sock.sendall(ask("GET /pieces/20000000", "Connection: close"))
        wait_until(lambda: bool(served.seen), "the request is seen")
        total = len(sock.recv(1000))
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            total += len(sock.recv(2000))
            served.call(lambda: None)
        total += len(read_all(sock))
    assert total > 20_000_000


# ---- ends


def test_too_many_connections(serve: Open) -> None:
    served = serve(max_connections=3)
    held = [served.connect() for _ in range(3)]
    for sock in held:
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
    with served.connect() as extra:
        extra.sendall(ask("GET /hello"))
        assert statuses(read_all(extra)) == [503]
    held.pop().close()
    wait_until(lambda: served.connections() <= 2, "one is gone")
    assert statuses(talk(served, CLOSE)) == [200]
    for sock in held:
        sock.close()


def test_stopping_lets_requests_finish(serve: Open) -> None:
    served = serve()
    with served.connect() as sock, served.connect() as idle, served.connect() as body:
        sock.sendall(ask("GET /slow") + ask("GET /hello"))
        body.sendall(ask("PUT /put/x", "Content-Length: 100000", body=b"half"))
        wait_until(lambda: len(served.seen) == 2, "both are seen")
        served.stop(grace=0.5)
        assert statuses(read_all(sock)) == [200]
        assert read_all(idle) == b""
        assert statuses(read_all(body)) in ([400], [])
    assert [end.cut for end in served.ends] == [BodyCut.ABORTED]
    assert ("GET", "/hello") not in served.seen


def test_connect_and_leave(serve: Open) -> None:
    served = serve()
    for number in range(300):
        sock = served.connect()
        if number % 3:
            sock.sendall(b"GET /he"[: number % 7])
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    wait_until(lambda: served.connections() == 0, "all are forgotten")
    assert statuses(talk(served, CLOSE)) == [200]


def test_site_is_closed_by_its_context() -> None:
    with site() as served:
        assert statuses(talk(served, CLOSE)) == [200]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", served.port), timeout=1)
