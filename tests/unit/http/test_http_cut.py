"""Bodies that are cut from outside at every stage, and connections that are dropped without an answer."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.child import wait_until
from tests.unit.http.site import (
    LOOPS,
    Body,
    Site,
    ask,
    certificate,
    client_context,
    put,
    read_all,
    read_until,
    server_context,
)

from hmac_file_server.http import BodyCut, BodyEnd, Limits, Response

Open = Callable[..., Site]


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest) -> Iterator[Open]:
    started: list[Site] = []

    def start(tls: ssl.SSLContext | None = None, **limits: object) -> Site:
        served = Site(limits=Limits(**limits), loop=request.param, tls=tls)  # type: ignore[arg-type]
        started.append(served)
        served.start()
        return served

    yield start
    for served in started:
        if served.running:
            served.stop()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


def arrived(served: Site, path: str) -> None:
    wait_until(lambda: path in served.exchanges, f"{path} is being handled")


def cut(served: Site, path: str, why: BodyCut = BodyCut.TAKEN_OVER) -> None:
    served.call(lambda: served.exchanges[path].cut(why))


# ---- every stage of a body


@pytest.mark.parametrize("size", [0, 1, 1000, 65_535])
def test_a_small_body_that_is_being_collected(serve: Open, size: int) -> None:
    """What was collected is given to the sink, also what the event loop had not read yet."""
    served = serve()
    body = bytes(range(256)) * 256
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 65536"))
        arrived(served, "/put/a")
        sock.sendall(body[:size])
        cut(served, "/put/a")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"taken_over")
    assert served.ends == [BodyEnd(size, BodyCut.TAKEN_OVER)]
    assert served.sinks["/put/a"].data == body[:size]
    assert served.listener.collecting == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_with_bytes_in_the_kernel(serve: Open, chunked: bool) -> None:
    """Every byte that the client has sent is in the sink before the body is said to be cut."""
    served = serve()
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000000"
    start = b"%x\r\n" % 100_000_000 if chunked else b""
    with served.connect() as sock:
        sock.sendall(ask("PUT /hold/6", framing, body=start + b"first"))
        arrived(served, "/hold/6")
        sock.sendall(b"!")
        wait_until(lambda: len(served.sinks["/hold/6"].data) == 6, "the body loop is busy")
        sock.setblocking(False)
        sent = 6
        try:
            while sent < 3_000_000:
                sent += sock.send(b"%d " % sent * 1000)
        except BlockingIOError:
            pass
        sock.settimeout(20)
        cut(served, "/hold/6")
        assert served.ends == []
        served.gate.set()
        assert read_all(sock).endswith(b"taken_over")
    assert served.ends == [BodyEnd(sent, BodyCut.TAKEN_OVER)]
    assert len(served.sinks["/hold/6"].data) == sent


@pytest.mark.parametrize("size", [3, 100_000])
def test_a_chunked_body_between_its_chunks(serve: Open, size: int) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", "Transfer-Encoding: chunked", body=b"%x\r\n" % size + b"x" * size + b"\r\n4"))
        arrived(served, "/put/a")
        cut(served, "/put/a")
        assert read_all(sock).endswith(b"taken_over")
    assert served.ends == [BodyEnd(size, BodyCut.TAKEN_OVER)]
    assert len(served.sinks["/put/a"].data) == size


@pytest.mark.parametrize("size", [5, 60_000, 900_000, 2_500_000])
@pytest.mark.parametrize("length", [65_000, 100_000_000])
def test_a_body_over_tls(serve: Open, keys: tuple[Path, Path], size: int, length: int) -> None:
    served = serve(server_context(*keys))
    size = min(size, length - 1)
    with client_context(keys[0]).wrap_socket(served.connect(), server_hostname="127.0.0.1") as sock:
        sock.sendall(ask("PUT /put/a", f"Content-Length: {length}", body=b"t" * size))
        arrived(served, "/put/a")
        cut(served, "/put/a")
        read_until(sock, b"taken_over")
    (end,) = served.ends
    assert end.cut is BodyCut.TAKEN_OVER
    assert end.received == len(served.sinks["/put/a"].data)
    # Of more than fits into the server's receive buffer, the client's kernel may hold the rest.
    assert end.received == size or size > 60_000


def test_bytes_over_tls_that_wait_for_a_slow_sink(serve: Open, keys: tuple[Path, Path]) -> None:
    """More than what may wait for the body loop: reading has stopped when the cut comes."""
    served = serve(server_context(*keys))
    with client_context(keys[0]).wrap_socket(served.connect(), server_hostname="127.0.0.1") as sock:
        sock.sendall(ask("PUT /hold/1", "Content-Length: 100000000", body=b"t" * 2_000_000))
        wait_until(lambda: served.held is not None and bool(served.held.data), "the sink is busy")
        cut(served, "/hold/1")
        served.gate.set()
        read_until(sock, b"taken_over")
    (end,) = served.ends
    assert end.cut is BodyCut.TAKEN_OVER
    assert 1_400_000 < end.received == len(served.sinks["/hold/1"].data)


def test_a_sink_that_refuses_what_was_collected(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("PUT /full/10", "Content-Length: 1000", body=b"x" * 20))
        arrived(served, "/full/10")
        cut(served, "/full/10")
        assert read_all(sock).endswith(b"refused")
    (end,) = served.ends
    assert (end.received, end.cut) == (0, BodyCut.REFUSED)
    assert isinstance(end.error, ValueError)


# ---- where there is nothing to cut


def test_what_has_no_body_under_way(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /slow"))
        arrived(served, "/slow")
        cut(served, "/slow")
        served.gate.set()
        assert read_until(sock, b"slow").startswith(b"HTTP/1.1 200 ")
        sock.sendall(put("/put/a", b"abc"))
        assert read_until(sock, b"3").startswith(b"HTTP/1.1 201 ")
        # Both are over; the connection serves another request by now.
        cut(served, "/put/a")
        cut(served, "/slow")
        sock.sendall(ask("PUT /put/b", "Content-Length: 10", body=b"12345"))
        arrived(served, "/put/b")
        cut(served, "/put/a")
        sock.sendall(b"67890")
        assert read_until(sock, b"10").startswith(b"HTTP/1.1 201 ")
    assert served.ends == [BodyEnd(3), BodyEnd(10)]


def test_a_body_that_becomes_whole_with_the_last_bytes_is_whole(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 4"))
        arrived(served, "/put/a")
        sock.sendall(b"abcd")
        cut(served, "/put/a")
        assert read_until(sock, b"4").startswith(b"HTTP/1.1 201 ")
        sock.sendall(ask("PUT /hold/1", "Content-Length: 100000", body=b"x"))
        arrived(served, "/hold/1")
        wait_until(lambda: served.held is not None and bool(served.held.data), "the sink is busy")
        sock.sendall(b"y" * 99_999)
        cut(served, "/hold/1")
        served.gate.set()
        assert read_until(sock, b"100000").startswith(b"HTTP/1.1 201 ")
    assert served.ends == [BodyEnd(4), BodyEnd(100_000)]


def test_a_second_cut_changes_nothing(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 1000000", body=b"x"))
        arrived(served, "/put/a")

        def twice() -> None:
            served.exchanges["/put/a"].cut(BodyCut.TAKEN_OVER)
            served.exchanges["/put/a"].cut(BodyCut.NETWORK_GONE)

        served.call(twice)
        assert read_all(sock).endswith(b"taken_over")
    assert served.ends == [BodyEnd(1, BodyCut.TAKEN_OVER)]


# ---- other ends of a small body keep what came, too


def test_the_prefix_of_a_client_that_left(serve: Open) -> None:
    served = serve()
    for half_close in (True, False):
        path = f"/put/{half_close}"
        with served.connect() as sock:
            sock.sendall(ask(f"PUT {path}", "Content-Length: 1000", body=b"prefix"))
            arrived(served, path)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock).endswith(b"disconnected")
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda path=path: len(served.ends) == 1 + (path == "/put/False"), "the body has ended")  # type: ignore[misc]
        assert served.sinks[path].data == b"prefix"
    assert served.ends == [BodyEnd(6, BodyCut.DISCONNECTED)] * 2


def test_the_prefix_of_a_client_that_stalls(serve: Open) -> None:
    served = serve(stall_timeout=0.1)
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 1000", body=b"prefix"))
        assert read_all(sock).endswith(b"stalled")
    assert served.ends == [BodyEnd(6, BodyCut.STALLED)]
    assert served.sinks["/put/a"].data == b"prefix"


def test_the_prefix_at_the_end_of_the_server(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 1000", body=b"prefix"))
        arrived(served, "/put/a")
        served.stop()
        assert read_all(sock).endswith(b"aborted")
    assert served.ends == [BodyEnd(6, BodyCut.ABORTED)]


def test_a_sink_whose_handler_answers_early_learns_of_its_end(serve: Open) -> None:
    served = serve()
    ends: list[BodyEnd] = []

    def handle(exchange: object) -> None:
        served.listener.handler = served._handle
        exchange.receive(Body(), ends.append)  # type: ignore[attr-defined]
        exchange.respond(Response(409, b"", b"early"))  # type: ignore[attr-defined]

    for length in (1000, 1_000_000):
        served.listener.handler = handle
        with served.connect() as sock:
            sock.sendall(ask("PUT /x", f"Content-Length: {length}", body=b"12345"))
            assert read_all(sock).endswith(b"early")
    wait_until(lambda: len(ends) == 2, "both sinks have been told")
    assert ends[0].cut is BodyCut.ABORTED
    # The client may have closed by the time the body loop hears of it.
    assert ends[1].cut in {BodyCut.ABORTED, BodyCut.DISCONNECTED}
    assert served.listener.collecting == 0


# ---- dropped without an answer


def test_an_exchange_that_is_dropped(serve: Open, caplog: pytest.LogCaptureFixture) -> None:
    served = serve()
    with served.connect() as sock, caplog.at_level(logging.WARNING):
        sock.sendall(ask("GET /slow"))
        arrived(served, "/slow")
        exchange = served.exchanges["/slow"]
        served.call(exchange.abort)
        assert read_all(sock) == b""
        assert exchange.answered
        # Its handler may come late, and finds nobody.
        served.call(lambda: exchange.respond(Response(200)))
        served.call(exchange.abort)
        served.gate.set()
    wait_until(lambda: served.connections() == 0, "the connection is gone")
    assert served.done == [("/slow", 499, 0)]
    assert caplog.records == []


@pytest.mark.parametrize("length", [1000, 1_000_000])
def test_a_body_whose_exchange_is_dropped_is_told_to_its_sink(serve: Open, length: int) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", f"Content-Length: {length}", body=b"12345"))
        arrived(served, "/put/a")
        served.call(served.exchanges["/put/a"].abort)
        assert read_all(sock) == b""
    wait_until(lambda: len(served.ends) == 1, "the sink has been told")
    (end,) = served.ends
    assert end.received == len(served.sinks["/put/a"].data) == 5
    assert end.cut in {BodyCut.ABORTED, BodyCut.DISCONNECTED}
    assert served.done == [("/put/a", 499, 0)]


def test_an_exchange_dropped_by_its_own_handler(serve: Open) -> None:
    served = serve()
    served.listener.handler = lambda exchange: exchange.abort()
    with served.connect() as sock:
        sock.sendall(ask("GET /a") + ask("GET /b"))
        assert read_all(sock) == b""
    wait_until(lambda: served.connections() == 0, "the connection is gone")
    assert served.done == [("/a", 499, 0)]


def test_an_answered_exchange_is_not_dropped(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
        served.call(served.exchanges["/hello"].abort)
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
    assert [status for _, status, _ in served.done] == [200, 200]


# ---- clients that leave while they wait


def test_a_client_that_leaves_is_told_to_the_handler(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /poll/a"))
        arrived(served, "/poll/a")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: served.gone == ["/poll/a"], "the handler knows")
    served.call(lambda: served.exchanges["/poll/a"].respond(Response(200)))
    assert served.done == [("/poll/a", 499, 0)]
    # A callback that comes after the client has gone is called all the same.
    served.call(lambda: served.exchanges["/poll/a"].on_gone(lambda: served.gone.append("late")))
    served.call(lambda: None)
    assert served.gone == ["/poll/a"]


def test_a_callback_that_comes_late(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /slow"))
        arrived(served, "/slow")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: served.connections() == 0, "the connection is gone")
    served.call(lambda: served.exchanges["/slow"].on_gone(lambda: served.gone.append("late")))
    wait_until(lambda: served.gone == ["late"], "the handler knows")
    served.gate.set()


def test_a_half_closed_client_has_not_left(serve: Open) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /poll/a"))
        sock.shutdown(socket.SHUT_WR)
        arrived(served, "/poll/a")
        served.call(lambda: served.exchanges["/poll/a"].respond(Response(200, b"", b"here")))
        assert read_all(sock).endswith(b"here")
    wait_until(lambda: served.connections() == 0, "the connection is gone")
    assert served.gone == []


def test_a_client_that_leaves_after_its_body(serve: Open) -> None:
    """Reading has stopped for the body; it goes on for whoever wants to know when the client leaves."""
    served = serve()
    with served.connect() as sock:
        sock.sendall(put("/later/a", b"x" * 200_000))
        assert b" 201 " in read_until(sock, b"200000")

        def poll_after(end: BodyEnd) -> None:
            exchange.on_gone(lambda: served.gone.append("after"))
            told.set()

        told = threading.Event()
        sock.sendall(ask("PUT /poll/b", "Content-Length: 200000"))
        arrived(served, "/poll/b")
        exchange = served.exchanges["/poll/b"]
        served.call(lambda: exchange.receive(Body(), poll_after))
        sock.sendall(b"x" * 200_000)
        assert told.wait(20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: served.gone == ["after"], "the handler knows")


def test_a_failing_callback_is_logged(serve: Open, caplog: pytest.LogCaptureFixture) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(ask("GET /poll/a"))
        arrived(served, "/poll/a")

        def fail() -> None:
            raise ValueError("no")

        served.call(lambda: served.exchanges["/poll/a"].on_gone(fail))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: served.connections() == 0, "the connection is gone")
    assert [record.message for record in caplog.records if "was not dealt with" in record.message]
    with served.connect() as sock:
        sock.sendall(ask("GET /hello"))
        read_until(sock, b"hello")
