"""Body loops that pause: nothing is read, nobody's patience is used up, and nothing is lost."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.child import wait_until
from tests.unit.http.site import (
    LOOPS,
    Body,
    Site,
    Span,
    ask,
    certificate,
    client_context,
    put,
    read_all,
    read_until,
    server_context,
)

from hmac_file_server.http import BodyCut, BodyEnd, Limits
from hmac_file_server.http.bodyloop import BodyLoop, ReceiveJob, SendJob
from hmac_file_server.http.chunked import ChunkedDecoder

Start = Callable[..., BodyLoop]
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def start() -> Iterator[Start]:
    loops: list[BodyLoop] = []

    def begin(**limits: object) -> BodyLoop:
        loop = BodyLoop(Limits(**limits), "test")  # type: ignore[arg-type]
        loop.start()
        loops.append(loop)
        return loop

    yield begin
    for loop in loops:
        loop.stop()


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    with ours, theirs:
        yield ours, theirs


class Job:
    """A body on its way, and how it ended."""

    def __init__(
        self,
        sock: socket.socket | None,
        *,
        length: int | None = None,
        decoder: ChunkedDecoder | None = None,
        limit: int | None = None,
        prefix: bytes = b"",
        on_consumed: Callable[[], None] | None = None,
        most: int | None = None,
    ) -> None:
        self.sink = Body(most)
        self.ended = threading.Event()
        self.ends: list[tuple[BodyEnd, bytes]] = []
        self.job = ReceiveJob(
            None if sock is None else os.dup(sock.fileno()),
            self.sink,
            length=length,
            decoder=decoder,
            limit=limit,
            prefix=prefix,
            done=self._done,
            on_consumed=on_consumed,
        )

    def _done(self, end: BodyEnd, rest: bytes) -> None:
        self.ends.append((end, rest))
        self.ended.set()

    def end(self) -> BodyEnd:
        assert self.ended.wait(20), "the body has not ended"
        ((end, _),) = self.ends
        return end


def settle(loop: BodyLoop) -> None:
    """Until the loop has done all that it was told before this, and has polled once more since."""
    for _ in range(2):
        reached = threading.Event()
        loop._post(reached.set)
        assert reached.wait(20)


# ---- nothing is read


def test_a_paused_body_is_not_read_and_goes_on(start: Start, pair: Pair) -> None:
    loop, (ours, theirs) = start(), pair
    body = Job(ours, length=300_000)
    loop.receive(body.job)
    theirs.sendall(b"a" * 1000)
    wait_until(lambda: len(body.sink.data) == 1000, "the body has begun")
    loop.pause("test")
    settle(loop)
    theirs.sendall(b"b" * 100_000)
    settle(loop)
    assert len(body.sink.data) == 1000
    loop.resume("test")
    wait_until(lambda: len(body.sink.data) == 101_000, "the body goes on")
    theirs.sendall(b"c" * 199_000)
    assert body.end() == BodyEnd(300_000)
    assert body.sink.data == b"a" * 1000 + b"b" * 100_000 + b"c" * 199_000


def test_a_body_that_begins_in_a_pause(start: Start, pair: Pair) -> None:
    """Not even what came with its head is written."""
    loop, (ours, theirs) = start(), pair
    loop.pause("test")
    body = Job(ours, length=10, prefix=b"12345")
    loop.receive(body.job)
    theirs.sendall(b"67890next")
    settle(loop)
    assert body.sink.data == b""
    loop.resume("test")
    assert body.end() == BodyEnd(10)
    assert body.sink.data == b"1234567890"
    ours.settimeout(20)
    assert ours.recv(10) == b"next"


def test_every_reason_has_to_go(start: Start, pair: Pair) -> None:
    loop, (ours, theirs) = start(), pair
    body = Job(ours, length=5)
    loop.receive(body.job)
    for reason in ("one", "two", "one"):
        loop.pause(reason)
    settle(loop)
    theirs.sendall(b"12345")
    for reason in ("one", "three", "one"):
        loop.resume(reason)
        settle(loop)
        assert body.sink.data == b""
    loop.resume("two")
    assert body.end() == BodyEnd(5)
    loop.resume("two")
    loop.pause("again")
    again = Job(ours, length=5)
    loop.receive(again.job)
    theirs.sendall(b"12345")
    settle(loop)
    assert again.sink.data == b""
    loop.resume("again")
    assert again.end() == BodyEnd(5)


def test_a_client_that_leaves_in_a_pause(start: Start, pair: Pair) -> None:
    loop, (ours, theirs) = start(), pair
    body = Job(ours, length=100)
    loop.receive(body.job)
    loop.pause("test")
    settle(loop)
    theirs.sendall(b"12345")
    theirs.close()
    settle(loop)
    assert body.ends == []
    loop.resume("test")
    assert body.end() == BodyEnd(5, BodyCut.DISCONNECTED)


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_fed_in_a_pause_is_held(start: Start, chunked: bool) -> None:
    loop = start()
    consumed: list[int] = []
    body = Job(
        None,
        length=None if chunked else 7,
        decoder=ChunkedDecoder() if chunked else None,
        on_consumed=lambda: consumed.append(1),
    )
    loop.receive(body.job)
    loop.pause("test")
    pieces = [b"3\r\nabc", b"\r\n4\r\nde", b"fg\r\n0\r\n\r\nrest"] if chunked else [b"abc", b"de", b"fgrest"]
    for piece in pieces:
        loop.feed(body.job, piece)
    settle(loop)
    assert not body.sink.data
    assert not consumed
    loop.resume("test")
    assert body.end() == BodyEnd(7)
    assert body.sink.data == b"abcdefg"
    assert body.ends[0][1] == b"rest"
    settle(loop)
    assert len(consumed) == 3
    assert loop.load == 0


def test_the_end_of_what_is_fed_is_held_too(start: Start) -> None:
    loop = start()
    body = Job(None, length=7)
    loop.receive(body.job)
    loop.pause("test")
    loop.feed(body.job, b"abc")
    loop.feed(body.job, b"")
    settle(loop)
    assert body.ends == []
    loop.resume("test")
    assert body.end() == BodyEnd(3, BodyCut.DISCONNECTED)


def test_downloads_go_on(start: Start, pair: Pair) -> None:
    loop, (ours, theirs) = start(), pair
    loop.pause("test")
    span = Span(1_000_000)
    sent: list[tuple[int, bool]] = []
    send = SendJob(
        os.dup(ours.fileno()), span.fd, 0, span.size, b"head", corkable=False, done=lambda *end: sent.append(end)
    )
    loop.send(send)
    received = 0
    while received < 1_000_004:
        received += len(theirs.recv(262_144))
    wait_until(lambda: sent == [(1_000_000, True)], "the file is sent")
    span.close()


# ---- clocks


def sweep(loop: BodyLoop, later: float) -> None:
    """Look at the clocks as if `later` seconds had passed."""
    swept = threading.Event()

    def look() -> None:
        loop._sweep(time.monotonic() + later)
        swept.set()

    loop._post(look)
    assert swept.wait(20)


def test_clocks_stand_still(start: Start, pair: Pair) -> None:
    loop, (ours, _theirs) = start(stall_timeout=30.0, read_timeout=100.0, min_rate=64.0, min_rate_grace=30.0), pair
    body = Job(ours, length=100)
    fed = Job(None, length=100)
    loop.receive(body.job)
    loop.receive(fed.job)
    loop.pause("test")
    settle(loop)
    for later in (31.0, 101.0, 5000.0):
        sweep(loop, later)
    assert body.ends == fed.ends == []

    def ago() -> None:
        # As if the pause had begun a minute ago, ten seconds after the last byte.
        for job in (body.job, fed.job):
            job.held_at -= 60.0
            for clock in ("progress_at", "window_at", "deadline"):
                setattr(job, clock, getattr(job, clock) - 70.0)

    loop._post(ago)
    loop.resume("test")
    settle(loop)
    sweep(loop, 15.0)
    assert body.ends == fed.ends == []
    sweep(loop, 25.0)
    assert body.end() == fed.end() == BodyEnd(0, BodyCut.STALLED)


def test_a_pause_longer_than_every_limit(start: Start, pair: Pair) -> None:
    """The real clock: the body outlives a pause that is longer than its limits."""
    loop, (ours, theirs) = start(stall_timeout=0.3, read_timeout=0.4, min_rate=1e9, min_rate_grace=0.3), pair
    loop.pause("test")
    body, other = Job(ours, length=5), Job(None, length=5)
    loop.receive(body.job)
    loop.receive(other.job)
    begun = time.monotonic()
    while time.monotonic() - begun < 1.2:
        settle(loop)
    theirs.sendall(b"12345")
    loop.feed(other.job, b"12345")
    loop.resume("test")
    assert body.end() == other.end() == BodyEnd(5)


# ---- ends


@pytest.mark.parametrize("size", [0, 1, 150_000])
@pytest.mark.parametrize("prefix", [b"", b"prefix"])
def test_a_body_cancelled_in_a_pause_is_read_to_the_end_of_what_came(
    start: Start, pair: Pair, size: int, prefix: bytes
) -> None:
    loop, (ours, theirs) = start(), pair
    loop.pause("test")
    body = Job(ours, length=1_000_000, prefix=prefix)
    loop.receive(body.job)
    theirs.sendall(b"x" * size)
    loop.cancel(body.job, BodyCut.TAKEN_OVER)
    assert body.end() == BodyEnd(size + len(prefix), BodyCut.TAKEN_OVER)
    assert body.sink.data == prefix + b"x" * size
    # The others still wait.
    theirs.sendall(b"12345")
    waiting = Job(ours, length=5)
    loop.receive(waiting.job)
    settle(loop)
    assert waiting.sink.data == b""
    loop.resume("test")
    assert waiting.end() == BodyEnd(5)


def test_a_cancelled_body_that_is_whole_already(start: Start, pair: Pair) -> None:
    loop, (ours, theirs) = start(), pair
    loop.pause("test")
    body, fed, full = Job(ours, length=10, prefix=b"12345"), Job(None, length=5), Job(None, length=5, most=3)
    for job in (body, fed, full):
        loop.receive(job.job)
    theirs.sendall(b"67890")
    loop.feed(fed.job, b"123")
    loop.feed(fed.job, b"45")
    loop.feed(full.job, b"1234")
    for job in (body, fed, full):
        loop.cancel(job.job, BodyCut.TAKEN_OVER)
        loop.cancel(job.job, BodyCut.NETWORK_GONE)
    assert body.end() == BodyEnd(10)
    assert fed.end() == BodyEnd(5)
    assert full.end().cut is BodyCut.REFUSED


def test_a_loop_that_ends_in_a_pause(start: Start, pair: Pair) -> None:
    loop = BodyLoop(Limits(), "test")
    loop.start()
    loop.pause("test")
    body = Job(pair[0], length=10)
    loop.receive(body.job)
    loop.stop()
    assert body.end() == BodyEnd(0, BodyCut.ABORTED)
    loop.pause("late")
    loop.resume("late")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 40_000)),
        st.tuples(st.just("pause"), st.sampled_from("abc")),
        st.tuples(st.just("resume"), st.sampled_from("abc")),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, fed=st.booleans(), cancelled=st.booleans())
def test_whatever_the_pauses_no_byte_is_lost(steps: list[tuple[str, object]], fed: bool, cancelled: bool) -> None:
    loop = BodyLoop(Limits(), "test")
    loop.start()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_000_000)
    try:
        body = Job(None if fed else ours, length=1_000_000)
        loop.receive(body.job)
        settle(loop)
        sent = bytearray()
        reasons: set[object] = set()
        for step, value in steps:
            if step == "pause":
                loop.pause(str(value))
                reasons.add(value)
            elif step == "resume":
                loop.resume(str(value))
                reasons.discard(value)
            else:
                assert isinstance(value, int)
                data = bytes([len(sent) % 251]) * min(value, 150_000 - len(sent))
                settle(loop)
                before = len(body.sink.data)
                if not data:
                    continue
                sent += data
                if fed:
                    loop.feed(body.job, data)
                else:
                    theirs.sendall(data)
                settle(loop)
                if reasons:
                    assert len(body.sink.data) == before
        if cancelled:
            loop.cancel(body.job, BodyCut.TAKEN_OVER)
            assert body.end() == BodyEnd(len(sent), BodyCut.TAKEN_OVER)
        else:
            for reason in "abc":
                loop.resume(reason)
            wait_until(lambda: len(body.sink.data) == len(sent), "all has arrived")
        assert body.sink.data == sent
    finally:
        loop.stop()
        ours.close()
        theirs.close()


# ---- the listener's


Open = Callable[..., Site]


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest) -> Iterator[Open]:
    started: list[Site] = []

    def begin(tls: ssl.SSLContext | None = None, **limits: object) -> Site:
        served = Site(limits=Limits(**limits), loop=request.param, tls=tls)  # type: ignore[arg-type]
        started.append(served)
        served.start()
        return served

    yield begin
    for served in started:
        if served.running:
            served.stop()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


def settle_all(served: Site) -> None:
    served.call(lambda: None)
    for loop in served.listener._body_loops:
        settle(loop)
    served.call(lambda: None)


@pytest.mark.parametrize("tls", [False, True])
def test_a_paused_listener(serve: Open, keys: tuple[Path, Path], tls: bool) -> None:
    """Large bodies stop, all else goes on: short requests, downloads, the connections that wait."""
    served = serve(server_context(*keys) if tls else None)
    context = client_context(keys[0])

    def connect() -> socket.socket:
        return context.wrap_socket(served.connect(), server_hostname="127.0.0.1") if tls else served.connect()

    with connect() as sock, connect() as other:
        sock.sendall(ask("PUT /put/a", "Content-Length: 8000000", body=b"x" * 100_000))
        wait_until(lambda: "/put/a" in served.sinks and bool(served.sinks["/put/a"].data), "the body has begun")
        for reason in ("network", "workers"):
            served.call(lambda reason=reason: served.listener.pause_bodies(reason))  # type: ignore[misc]
        settle_all(served)
        before = len(served.sinks["/put/a"].data)
        writer = threading.Thread(target=sock.sendall, args=(b"x" * 7_900_000,))
        writer.start()
        for _ in range(20):
            other.sendall(put("/put/small", b"abc") + ask("GET /file/300000"))
            received = b""
            while received.count(b"\0") < 300_000:
                received += other.recv(262_144)
            settle_all(served)
        assert len(served.sinks["/put/a"].data) == before
        served.call(lambda: served.listener.resume_bodies("network"))
        settle_all(served)
        assert len(served.sinks["/put/a"].data) == before
        served.call(lambda: served.listener.resume_bodies("workers"))
        # Python's TLS sockets want one thread at a time.
        writer.join(20)
        assert read_until(sock, b"8000000").startswith(b"HTTP/1.1 201 ")
    assert served.ends[-1] == BodyEnd(8_000_000)


def test_what_waits_over_tls_is_bounded(serve: Open, keys: tuple[Path, Path]) -> None:
    served = serve(server_context(*keys))
    served.call(lambda: served.listener.pause_bodies("test"))
    with client_context(keys[0]).wrap_socket(served.connect(), server_hostname="127.0.0.1") as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 30000000"))
        writer = threading.Thread(target=sock.sendall, args=(b"x" * 30_000_000,))
        writer.start()
        wait_until(lambda: "/put/a" in served.sinks, "the body has begun")
        for _ in range(50):
            settle_all(served)
        (connection,) = served.listener.connections
        assert connection._fed_outstanding <= 1_000_000
        served.call(lambda: served.listener.resume_bodies("test"))
        writer.join(20)
        read_until(sock, b"30000000")
    assert served.ends == [BodyEnd(30_000_000)]


@pytest.mark.parametrize("tls", [False, True])
def test_a_cut_in_a_pause(serve: Open, keys: tuple[Path, Path], tls: bool) -> None:
    served = serve(server_context(*keys) if tls else None)
    served.call(lambda: served.listener.pause_bodies("test"))
    context = client_context(keys[0])
    plain = served.connect()
    with context.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 8000000", body=b"x" * 200_000))
        wait_until(lambda: "/put/a" in served.exchanges, "the body has begun")
        served.call(lambda: served.exchanges["/put/a"].cut(BodyCut.TAKEN_OVER))
        read_until(sock, b"taken_over")
    assert served.ends == [BodyEnd(200_000, BodyCut.TAKEN_OVER)]
    assert len(served.sinks["/put/a"].data) == 200_000


def test_the_end_of_the_server_in_a_pause(serve: Open) -> None:
    served = serve()
    served.call(lambda: served.listener.pause_bodies("test"))
    with served.connect() as sock:
        sock.sendall(ask("PUT /put/a", "Content-Length: 8000000", body=b"x" * 200_000))
        wait_until(lambda: "/put/a" in served.exchanges, "the body has begun")
        served.stop()
        assert read_all(sock).endswith(b"aborted")
    assert served.ends == [BodyEnd(200_000, BodyCut.ABORTED)]
