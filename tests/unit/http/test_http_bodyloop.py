"""Body loops with socket pairs: bodies in, files out, and every way in which they end."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.fixtures.child import wait_until
from tests.unit.http.site import Body, Span

from hmac_file_server.http import BodyCut, BodyEnd, Limits, bodyloop
from hmac_file_server.http.bodyloop import BUFFER_BYTES, BodyLoop, ReceiveJob, SendJob
from hmac_file_server.http.chunked import ChunkedDecoder
from hmac_file_server.http.errors import HttpError

Start = Callable[..., BodyLoop]


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
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    with ours, theirs:
        yield ours, theirs


class Ended:
    """Waits for the end of one job."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.end: BodyEnd | None = None
        self.rest = b""
        self.sent = -1
        self.whole = False
        self.calls = 0

    def body(self, end: BodyEnd, rest: bytes) -> None:
        self.calls += 1
        self.end, self.rest = end, rest
        self.event.set()

    def file(self, sent: int, whole: bool) -> None:
        self.calls += 1
        self.sent, self.whole = sent, whole
        self.event.set()

    def wait(self) -> BodyEnd:
        assert self.event.wait(20), "the job has not ended"
        assert self.calls == 1
        return self.end or BodyEnd(0)


def job(sock: socket.socket | None, sink: Body, ended: Ended, **more: object) -> ReceiveJob:
    options: dict[str, object] = {"length": None, "decoder": None, "limit": None, "prefix": b"", **more}
    return ReceiveJob(None if sock is None else os.dup(sock.fileno()), sink, done=ended.body, **options)  # type: ignore[arg-type]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [1, 4096, BUFFER_BYTES, BUFFER_BYTES + 1, 9_000_000])
@pytest.mark.parametrize("prefix", [b"", b"p"])
def test_a_body_of_known_length(
    start: Start, pair: tuple[socket.socket, socket.socket], size: int, prefix: bytes
) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()
    loop.receive(job(ours, sink, ended, length=size + len(prefix), prefix=prefix))
    body = (b"%d " % size) * (size // 2 + 1)
    theirs.sendall(body[:size] + b"next request")
    assert ended.wait() == BodyEnd(size + len(prefix))
    assert sink.data == prefix + body[:size]
    ours.settimeout(20)
    # Not one byte behind the body was taken.
    assert ours.recv(100) == b"next request"
    wait_until(lambda: loop.load == 0, "the loop is free")


def test_a_chunked_body_and_what_was_read_behind_it(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()
    decoder = ChunkedDecoder()
    decoder.feed(memoryview(b"3\r\na"))
    sink.write(memoryview(b"a"))
    loop.receive(job(ours, sink, ended, decoder=decoder))
    theirs.sendall(b"bc\r\n2\r\nde\r\n0\r\n\r\nnext")
    assert ended.wait() == BodyEnd(5)
    assert (bytes(sink.data), ended.rest) == (b"abcde", b"next")


def test_a_chunked_body_above_its_limit(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()
    loop.receive(job(ours, sink, ended, decoder=ChunkedDecoder(), limit=10))
    theirs.sendall(b"8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n")
    end = ended.wait()
    assert end.cut is BodyCut.TOO_LARGE
    assert len(sink.data) <= 10


def test_malformed_chunks(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()
    loop.receive(job(ours, sink, ended, decoder=ChunkedDecoder()))
    theirs.sendall(b"zz\r\n")
    end = ended.wait()
    assert end.cut is BodyCut.MALFORMED
    assert isinstance(end.error, HttpError)


@pytest.mark.parametrize("sent", [0, 1, 70_000])
def test_the_end_of_the_stream(start: Start, pair: tuple[socket.socket, socket.socket], sent: int) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()
    loop.receive(job(ours, sink, ended, length=100_000))
    theirs.sendall(bytes(sent))
    theirs.shutdown(socket.SHUT_WR)
    assert ended.wait() == BodyEnd(sent, BodyCut.DISCONNECTED)
    assert len(sink.data) == sent


def test_a_sink_that_refuses(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(most=10), Ended()
    loop.receive(job(ours, sink, ended, length=100))
    theirs.sendall(bytes(50))
    end = ended.wait()
    assert end.cut is BodyCut.REFUSED
    assert isinstance(end.error, ValueError)


def test_a_cancelled_body_keeps_what_the_kernel_has(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    """A newcomer takes over: what has arrived by then is not lost."""
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()
    receiving = job(ours, sink, ended, length=1_000_000)
    loop.receive(receiving)
    theirs.sendall(b"c" * 60_000)
    loop.cancel(receiving)
    assert ended.wait() == BodyEnd(60_000, BodyCut.ABORTED)
    assert sink.data == b"c" * 60_000


def test_a_cancelled_body_that_is_whole_is_whole(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()
    receiving = job(ours, sink, ended, length=5)
    theirs.sendall(b"whole")
    loop.receive(receiving)
    loop.cancel(receiving)
    assert ended.wait() == BodyEnd(5)


@pytest.mark.parametrize(
    ("limits", "cut"),
    [
        ({"stall_timeout": 0.3}, BodyCut.STALLED),
        ({"read_timeout": 0.3}, BodyCut.TIMED_OUT),
        ({"min_rate": 1e6, "min_rate_grace": 0.3}, BodyCut.TOO_SLOW),
    ],
)
def test_slow_bodies(
    start: Start, pair: tuple[socket.socket, socket.socket], limits: dict[str, float], cut: BodyCut
) -> None:
    ours, theirs = pair
    loop, sink, ended = start(**limits), Body(), Ended()
    loop.receive(job(ours, sink, ended, length=100))
    theirs.sendall(b"slow")
    assert ended.wait() == BodyEnd(4, cut)


class Jumping:
    """The clock of the machine, which may jump, and how often it was looked at since."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return time.monotonic() + self.ahead

    def jump(self, seconds: float) -> None:
        self.looks = 0
        self.ahead += seconds


def test_a_loop_that_stood_still_cuts_nobody(
    start: Start, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a body nor a file: what came meanwhile it sees later."""
    clock = Jumping()
    monkeypatch.setattr(bodyloop, "time", clock)
    ours, theirs = pair
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    with reader, writer:
        loop, sink, ended, span, sent = start(min_rate_grace=20.0), Body(), Ended(), Span(10_000_000), Ended()
        loop.receive(job(ours, sink, ended, length=10))
        fd = os.dup(writer.fileno())
        loop.send(SendJob(fd, span.fileno() or 0, 0, span.size, b"", corkable=False, done=sent.file))
        theirs.sendall(b"12345")
        wait_until(lambda: len(sink.data) == 5, "the first half is there")
        clock.jump(1000)
        wait_until(lambda: clock.looks >= 2, "the loop has seen that it is late")
        assert not ended.event.is_set()
        assert not sent.event.is_set()
        theirs.sendall(b"67890")
        assert ended.wait() == BodyEnd(10)


def test_fed_bodies(start: Start) -> None:
    """Over TLS the event loop reads; the rest of the last piece is given back."""
    loop, sink, ended = start(), Body(), Ended()
    consumed: list[int] = []
    feeding = job(None, sink, ended, length=10, on_consumed=lambda: consumed.append(1))
    loop.receive(feeding)
    for piece in (b"abcd", b"efgh", b"ijKL", b"late"):
        loop.feed(feeding, piece)
    assert ended.wait() == BodyEnd(10)
    assert (bytes(sink.data), ended.rest) == (b"abcdefghij", b"KL")
    wait_until(lambda: len(consumed) == 3, "three pieces are consumed")


def test_a_fed_body_that_ends_early(start: Start) -> None:
    loop, sink, ended = start(), Body(), Ended()
    feeding = job(None, sink, ended, length=10)
    loop.receive(feeding)
    loop.feed(feeding, b"abcd")
    loop.feed(feeding, b"")
    loop.feed(feeding, b"more")
    assert ended.wait() == BodyEnd(4, BodyCut.DISCONNECTED)


@pytest.mark.parametrize("size", [0, 1, 100_000, 20_000_000])
def test_files(start: Start, pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = pair
    loop, ended, span = start(), Ended(), Span(size + 10)
    os.pwrite(span.fd, b"end", size + 2)
    loop.send(SendJob(os.dup(ours.fileno()), span.fd, 5, size, b"head", corkable=False, done=ended.file))
    received = bytearray()
    while len(received) < size + 4:
        received += theirs.recv(1 << 20)
    ended.wait()
    assert (ended.sent, ended.whole) == (size, True)
    assert received.startswith(b"head")
    if size >= 100:
        assert received.endswith(b"\0end")
    span.close()


def test_a_file_that_became_shorter(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop, ended, span = start(), Ended(), Span(1000)
    loop.send(SendJob(os.dup(ours.fileno()), span.fd, 0, 2000, b"", corkable=False, done=ended.file))
    ended.wait()
    assert (ended.sent, ended.whole) == (1000, False)
    assert len(theirs.recv(5000)) == 1000
    span.close()


@pytest.mark.parametrize("limits", [{"send_stall_timeout": 0.3}, {"write_timeout": 0.3}])
def test_a_file_that_nobody_reads(
    start: Start, pair: tuple[socket.socket, socket.socket], limits: dict[str, float]
) -> None:
    ours, theirs = pair
    loop, ended, span = start(**limits), Ended(), Span(50_000_000)
    loop.send(SendJob(os.dup(ours.fileno()), span.fd, 0, span.size, b"head", corkable=False, done=ended.file))
    ended.wait()
    assert not ended.whole
    assert ended.sent < span.size
    assert theirs.recv(4) == b"head"
    span.close()


def test_a_reader_that_leaves(start: Start, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop, ended, span = start(), Ended(), Span(50_000_000)
    loop.send(SendJob(os.dup(ours.fileno()), span.fd, 0, span.size, b"", corkable=False, done=ended.file))
    theirs.recv(10)
    theirs.close()
    ended.wait()
    assert not ended.whole
    span.close()


def test_many_at_once_in_one_thread_and_no_descriptor_left(start: Start) -> None:
    loop = start()
    base = descriptors()
    pairs = [socket.socketpair() for _ in range(100)]
    sinks, ends = [Body() for _ in pairs], [Ended() for _ in pairs]
    for number, (ours, _) in enumerate(pairs):
        ours.setblocking(False)
        loop.receive(job(ours, sinks[number], ends[number], length=3000))
    for round_number in range(3):
        for number, (_, theirs) in enumerate(pairs):
            theirs.sendall(b"%d" % round_number * 1000)
            if round_number == 2 and number % 10 == 0:
                theirs.close()
    for number, ended in enumerate(ends):
        assert ended.wait() == BodyEnd(3000)
        assert sinks[number].data == b"0" * 1000 + b"1" * 1000 + b"2" * 1000
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    wait_until(lambda: descriptors() <= base, "all descriptors are closed")
    assert loop.load == 0


def test_a_failing_callback_does_not_stop_the_loop(
    start: Start, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = pair
    loop, sink, ended = start(), Body(), Ended()

    def fail(end: BodyEnd, rest: bytes) -> None:
        raise RuntimeError("of the callback")

    failing = ReceiveJob(os.dup(ours.fileno()), sink, length=1, decoder=None, limit=None, prefix=b"", done=fail)
    loop.receive(failing)
    theirs.sendall(b"x")
    wait_until(lambda: "body completion failed" in caplog.text, "the failure is logged")
    loop.receive(job(ours, sink, ended, length=1))
    theirs.sendall(b"y")
    assert ended.wait() == BodyEnd(1)


def test_stopping_cuts_what_is_left(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    loop, sink, body, file, span = BodyLoop(Limits(), "test"), Body(), Ended(), Ended(), Span(50_000_000)
    loop.start()
    other, reader = socket.socketpair()
    other.setblocking(False)
    receiving = job(ours, sink, body, length=10)
    loop.receive(receiving)
    loop.send(SendJob(os.dup(other.fileno()), span.fd, 0, span.size, b"", corkable=False, done=file.file))
    reader.recv(1)
    loop.stop()
    assert body.wait().cut is BodyCut.ABORTED
    file.wait()
    assert not file.whole
    # Late words from the event loop are harmless: they must not reach a descriptor that is another's by now.
    spare = os.pipe()
    for _ in range(3):
        loop.cancel(receiving)
        loop.feed(receiving, b"late")
    os.set_blocking(spare[0], False)
    with pytest.raises(BlockingIOError):
        os.read(spare[0], 1)
    for fd in spare:
        os.close(fd)
    other.close()
    reader.close()
    span.close()
