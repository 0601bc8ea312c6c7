"""One HTTP/1.1 connection against servers that answer well, badly, early, without end, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import io
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.content import content
from tests.unit.client.scripted_server import Peer, Script, answering, http, serving, source_of

from hmac_file_server.client.connection import LONGEST_BODY, LONGEST_HEAD
from hmac_file_server.client.errors import BadAnswer, ConnectionLost, SourceChanged, UploadFailed
from hmac_file_server.client.protocol import Answer, Request
from hmac_file_server.client.source import Portion, Source

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nx-a: 2\r\n\r\nok"
GET = Request("GET", "/path?q=1", {"X-Field": "value"})
BIG = 8 * 1024 * 1024


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(work())


def get(*scripts: Script, request: Request = GET, **options: Any) -> Any:
    """The answer to one request; raises what it raises."""
    with serving(*scripts) as server:

        async def work() -> Answer:
            with http(server, **options) as exchanges:
                return await exchanges.exchange(request)

        return run(work)


def put(folder: Path, data: bytes, *scripts: Script, **options: Any) -> tuple[Answer | UploadFailed, int]:
    """What a PUT of the data ends with, and how much of it the connection took."""
    with serving(*scripts) as server, source_of(folder, data) as source:
        portion = Portion(source, 0, len(data))

        async def work() -> Answer | UploadFailed:
            with http(server, **options) as exchanges:
                try:
                    return await exchanges.exchange(Request("PUT", "/", {}, portion))
                except UploadFailed as failure:
                    return failure

        return run(work), portion.written


# ---- requests


def test_a_request_goes_as_it_is_given() -> None:
    with serving(answering(OK)) as server:

        async def work() -> Answer:
            with http(server) as exchanges:
                return await exchanges.exchange(GET)

        answer = run(work)
        head = f"GET /path?q=1 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX-Field: value"
        assert answer == Answer(200, {"content-length": "2", "x-a": "1, 2"}, b"ok")
    assert server.done == [head.encode()]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_methods_with_a_body_tell_that_there_is_none(method: str) -> None:
    with serving(answering(OK)) as server:

        async def work() -> None:
            with http(server) as exchanges:
                await exchanges.exchange(Request(method, "/", {}))

        run(work)
    assert server.done[0].endswith(b"\r\nContent-Length: 0")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b"])
def test_fields_with_line_breaks_are_not_sent(value: str) -> None:
    with serving(Peer.until_closed) as server:

        async def work() -> None:
            with http(server) as exchanges:
                await exchanges.exchange(Request("GET", "/", {"X-Name": value}))

        with pytest.raises(ValueError, match="line break"):
            run(work)


def test_a_body_comes_as_the_source_has_it(tmp_path: Path) -> None:
    data = content(BIG, "body")
    received: list[bytes] = []

    def script(peer: Peer) -> None:
        assert b"Content-Length: %d" % BIG in peer.head()
        received.append(peer.body(BIG))
        peer.send(OK)

    answer, written = put(tmp_path, data, script)
    assert isinstance(answer, Answer)
    assert (answer.status, written) == (200, BIG)
    assert received == [data]


def test_a_part_of_a_file_object_comes_as_it_is() -> None:
    data = content(3_000_000, "object")
    received: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.head()
        received.append(peer.body(2_000_000))
        peer.send(OK)

    with serving(script) as server:

        async def work() -> Answer:
            source = Source(io.BytesIO(data))
            with http(server) as exchanges:
                return await exchanges.exchange(Request("PUT", "/", {}, Portion(source, 500_000, 2_000_000)))

        assert run(work).status == 200
    assert received == [data[500_000:2_500_000]]


# ---- answers


def test_connections_are_kept_and_used_again() -> None:
    with serving(answering(OK, times=3, close=False)) as server:

        async def work() -> None:
            with http(server) as exchanges:
                for _ in range(3):
                    assert (await exchanges.exchange(GET)).body == b"ok"
                assert exchanges.opened == 1

        run(work)
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokgarbage",
    ],
    ids=["close", "1.0", "until the end", "another one", "garbage behind it"],
)
def test_connections_that_cannot_be_kept_are_not(answer: bytes) -> None:
    with serving(answering(answer)) as server:

        async def work() -> None:
            with http(server) as exchanges:
                for _ in range(2):
                    assert (await exchanges.exchange(GET)).body == b"ok"
                assert exchanges.opened == 2

        run(work)
        assert server.connections == 2


def test_a_kept_connection_that_the_server_has_closed_is_replaced() -> None:
    with serving(answering(OK), answering(OK)) as server:

        async def work() -> None:
            with http(server) as exchanges:
                await exchanges.exchange(GET)
                assert (await exchanges.exchange(GET)).status == 200

        run(work)
        assert server.connections == 2


def test_a_kept_connection_that_is_closed_under_the_request_is_replaced() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.head()  # the second request: read, not answered

    with serving(script, answering(OK)) as server:

        async def work() -> None:
            with http(server) as exchanges:
                await exchanges.exchange(GET)
                assert (await exchanges.exchange(GET)).status == 200

        run(work)
        assert server.connections == 2


def test_chunked_answers_and_their_trailers() -> None:
    answer = (
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'3;a="b"\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX-Late: 1\r\n\r\n'
    )
    told = get(answering(answer))
    assert told.body == b"abc0123456789abcdef"
    assert "x-late" not in told.headers


def test_answers_in_single_bytes() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in OK:
            peer.send(bytes([byte]))

    assert get(script).body == b"ok"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_need_no_length(status: int) -> None:
    answer = f"HTTP/1.1 {status} X\r\n\r\n".encode()
    with serving(answering(answer, times=2, close=False)) as server:

        async def work() -> None:
            with http(server) as exchanges:
                for _ in range(2):
                    assert (await exchanges.exchange(GET)).status == status

        run(work)
        assert server.connections == 1


def test_the_answer_to_head_has_no_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nUpload-Offset: 5\r\n\r\n"
    with serving(answering(answer, times=2, close=False)) as server:

        async def work() -> None:
            with http(server) as exchanges:
                for _ in range(2):
                    told = await exchanges.exchange(Request("HEAD", "/", {}))
                    assert (told.body, told.headers["upload-offset"]) == (b"", "5")

        run(work)
        assert server.connections == 1


def test_interim_answers_are_told_and_passed_over() -> None:
    seen: list[tuple[int, str | None]] = []
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 104 Upload Resumption\r\nUpload-Offset: 7\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
    )
    request = Request("GET", "/", {}, interim=lambda status, fields: seen.append((status, fields.get("upload-offset"))))
    assert get(answering(answer), request=request).body == b"ok"
    assert seen == [(100, None), (104, "7"), (103, None)]


# ---- early answers


@pytest.mark.parametrize("closing", ["kept open", "closed", "reset"])
def test_an_answer_while_the_body_is_sent_ends_the_sending(tmp_path: Path, closing: str) -> None:
    answer_bytes = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"

    def script(peer: Peer) -> None:
        peer.head()
        peer.body(1000)
        peer.send(answer_bytes)
        if closing == "kept open":
            # Nothing more is read: whoever goes on sending gets stuck.
            peer.sock.shutdown(socket.SHUT_WR)
            gone.wait()
        elif closing == "reset":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    gone = threading.Event()
    data = content(64 * 1024 * 1024, "early") if closing == "kept open" else content(BIG, "early")
    with serving(script) as server, source_of(tmp_path, data) as source:
        portion = Portion(source, 0, len(data))

        async def work() -> Answer | UploadFailed:
            with http(server) as exchanges:
                try:
                    return await exchanges.exchange(Request("PUT", "/", {}, portion))
                except UploadFailed as failure:
                    return failure
                finally:
                    gone.set()

        ended = run(work)
    if closing == "reset":
        # A reset may throw away the answer with everything else.
        assert isinstance(ended, Answer | ConnectionLost)
    else:
        assert isinstance(ended, Answer)
    if isinstance(ended, Answer):
        assert (ended.status, ended.body) == (413, b"big")
    assert portion.written < len(data)


# ---- bad answers

GARBAGE = [
    b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 700 Odd\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_http_is_told(garbage: bytes) -> None:
    with pytest.raises(BadAnswer) as failed:
        get(answering(garbage))
    assert failed.value.code == "bad_answer"
    assert failed.value.retriable


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HT",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=["nothing", "a word", "half a head", "half a body", "half a chunk", "only an interim one"],
)
def test_half_an_answer_is_a_lost_connection(part: bytes) -> None:
    with pytest.raises(ConnectionLost) as failed:
        get(answering(part))
    assert failed.value.code == "connection_lost"


def test_a_server_that_closes_before_it_was_asked() -> None:
    def script(peer: Peer) -> None:
        peer.sock.shutdown(socket.SHUT_WR)
        peer.until_closed()

    with pytest.raises(ConnectionLost) as failed:
        get(script)
    assert failed.value.code == "connection_lost"


ENDLESS = {
    "head": (b"HTTP/1.1 200 OK\r\n", b"X-Field: " + b"a" * 1000 + b"\r\n", LONGEST_HEAD),
    "field": (b"HTTP/1.1 200 OK\r\nX-Field: ", b"a" * 1000, LONGEST_HEAD),
    "status line": (b"HTTP/1.1 200 ", b"a" * 1000, LONGEST_HEAD),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"a" * 65536, LONGEST_BODY),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 65536, LONGEST_BODY),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10\r\n0123456789abcdef\r\n" * 1000,
        2 * LONGEST_BODY,
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X-Field: " + b"a" * 65536 + b"\r\n",
        4 * LONGEST_BODY,
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_answers_are_cut_off_in_bounded_memory(kind: str) -> None:
    begin, rest, most = ENDLESS[kind]

    def script(peer: Peer) -> int:
        peer.head()
        peer.send(begin)
        return peer.endless(rest)

    with serving(script) as server:

        async def work() -> None:
            with http(server, answer_timeout=60) as exchanges:
                await exchanges.exchange(GET)

        tracemalloc.start()
        try:
            with pytest.raises(BadAnswer, match="too long"):
                run(work)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # Besides what was read there is only what lay in the kernel's buffers.
    assert server.done[0] < most + 16 * 1024 * 1024
    assert peak < 2 * most + 8 * 1024 * 1024


def test_endless_interim_answers_end_with_the_time() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.endless(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n")

    with pytest.raises(ConnectionLost) as failed:
        get(script, answer_timeout=0.5)
    assert failed.value.code == "timed_out"


# ---- no answers


def test_no_answer_ends_with_the_time() -> None:
    with pytest.raises(ConnectionLost, match=r"0\.3 s") as failed:
        get(Peer.until_closed, answer_timeout=0.3)
    assert (failed.value.code, failed.value.retriable) == ("timed_out", True)


def test_what_the_server_may_wait_is_added() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        assert not waited.wait(0.6)
        peer.send(OK)

    waited = threading.Event()
    assert get(script, request=Request("GET", "/", {}, wait=30), answer_timeout=0.2).status == 200


def test_a_reset_is_a_lost_connection(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.body(100_000)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    failure, written = put(tmp_path, content(BIG, "reset"), script)
    assert isinstance(failure, ConnectionLost)
    assert written < BIG


def test_nobody_listens() -> None:
    with serving(answering(OK)) as server:
        pass

    async def work() -> None:
        with http(server) as exchanges:
            await exchanges.exchange(GET)

    with pytest.raises(ConnectionLost, match="no connection"):
        run(work)


def test_an_aborted_connection_fails_its_exchange_with_the_reason(tmp_path: Path) -> None:
    reason = ConnectionLost("because", code="stalled")
    with serving(Peer.until_closed) as server, source_of(tmp_path, content(BIG, "aborted")) as source:
        portion = Portion(source, 0, BIG)

        async def work() -> None:
            with http(server) as exchanges:
                task = asyncio.create_task(exchanges.exchange(Request("PUT", "/", {}, portion)))
                while portion not in exchanges.carriers:
                    await asyncio.sleep(0)
                carrier = exchanges.carriers[portion]
                assert carrier.unacknowledged >= 0
                carrier.abort(reason)
                with pytest.raises(ConnectionLost) as failed:
                    await task
                assert failed.value is reason
                assert exchanges.carriers == {}
                assert carrier.closed

        run(work)


def test_a_cancelled_exchange_leaves_nothing_behind(tmp_path: Path) -> None:
    with serving(Peer.until_closed) as server, source_of(tmp_path, content(BIG, "cancelled")) as source:
        portion = Portion(source, 0, BIG)

        async def work() -> None:
            with http(server) as exchanges:
                task = asyncio.create_task(exchanges.exchange(Request("PUT", "/", {}, portion)))
                while portion not in exchanges.carriers:
                    await asyncio.sleep(0)
                carrier = exchanges.carriers[portion]
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert carrier.closed
                assert exchanges.carriers == {}

        run(work)


# ---- the source fails


def test_a_file_that_becomes_shorter_is_told(tmp_path: Path) -> None:
    data = content(BIG, "shorter")
    with serving(Peer.until_closed) as server, source_of(tmp_path, data) as source:
        portion = Portion(source, 0, BIG)
        (tmp_path / "source.bin").write_bytes(data[:1_000_000])

        async def work() -> None:
            with http(server) as exchanges:
                await exchanges.exchange(Request("PUT", "/", {}, portion))

        with pytest.raises(SourceChanged, match="shorter"):
            run(work)
    assert portion.written <= 1_000_000


# ---- the network changes


def test_a_change_ends_what_costs_nothing_to_begin_again(tmp_path: Path) -> None:
    heads: list[bytes] = []

    def script(peer: Peer) -> None:
        heads.append(peer.head())
        peer.until_closed()

    with serving(answering(OK, close=False), script) as server, source_of(tmp_path, b"x" * 100) as source:
        portion = Portion(source, 0, 100)

        async def work() -> None:
            with http(server) as exchanges:
                await exchanges.exchange(GET)
                exchanges.network_changed(frozenset(), reachable=True)
                question = asyncio.create_task(exchanges.exchange(GET))
                body = asyncio.create_task(exchanges.exchange(Request("PUT", "/", {}, portion)))
                while len(heads) < 2:
                    await asyncio.sleep(0)
                exchanges.network_changed(frozenset({"192.0.2.1"}), reachable=False)
                await asyncio.sleep(0)
                assert not question.done()
                exchanges.network_changed(frozenset(), reachable=True)
                with pytest.raises(ConnectionLost, match="network changed"):
                    await question
                assert not body.done()
                exchanges.network_changed(frozenset({"127.0.0.1"}), reachable=False)
                with pytest.raises(ConnectionLost, match="network changed"):
                    await body

        run(work)
        assert server.connections == 3


def test_the_digest_of_a_body() -> None:
    data = content(5_000_000, "digest")
    portion = Portion(Source(io.BytesIO(data)), 1000, 4_500_000)
    assert run(lambda: portion.digest("sha256")) == hashlib.sha256(data[1000:4_501_000]).digest()
