"""Body loops: threads that move large bodies between sockets and files, off the event loop.

Each loop has one epoll and one hot buffer. Sockets stay non-blocking, so a slow or silent peer holds no
thread; recv, the sink's pwrite and hash, and sendfile all release the GIL. A job owns a duplicate of the
connection's descriptor, so that the transport closing its own can never make the job touch a stranger's.
"""

import contextlib
import fcntl
import logging
import os
import select
import socket
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from hmac_file_server.http.body import BodyCut, BodyEnd, BodySink
from hmac_file_server.http.chunked import ChunkedDecoder, pieces
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.limits import Limits

_log = logging.getLogger(__name__)

BUFFER_BYTES: Final = 512 * 1024
# One job may move this much before the others get their turn.
_QUANTUM: Final = 4 * 1024 * 1024
_SEND_STEP: Final = 2 * 1024 * 1024
_SWEEP_SECONDS: Final = 1.0
# A deque that holds nothing takes as much memory as one of sixty pieces, and most jobs need none.
_NOTHING_FED: Final[deque[bytes]] = deque(maxlen=0)

ReceiveDone = Callable[[BodyEnd, bytes], None]
SendDone = Callable[[int, bool], None]


class ReceiveJob:
    """One request body on its way into a sink.

    `length` is its Content-Length, or None with `decoder` for the chunked coding. `limit` bounds the
    decoded bytes. `done(end, rest)` is called once from the loop's thread; `rest` is what was read past
    the end of a chunked body. With `fd` None the bytes come through `BodyLoop.feed` (TLS).
    """

    __slots__ = (
        "cancelled",
        "deadline",
        "decoder",
        "done",
        "fd",
        "fed",
        "held_at",
        "left",
        "limit",
        "on_consumed",
        "prefix",
        "progress_at",
        "received",
        "sink",
        "started",
        "window_at",
        "window_bytes",
    )

    def __init__(
        self,
        fd: int | None,
        sink: BodySink,
        *,
        length: int | None,
        decoder: ChunkedDecoder | None,
        limit: int | None,
        prefix: bytes,
        done: ReceiveDone,
        on_consumed: Callable[[], None] | None = None,
    ) -> None:
        self.fd = fd
        self.sink = sink
        self.left = length if length is not None else -1
        self.decoder = decoder
        self.limit = limit
        self.prefix = prefix
        self.done = done
        self.on_consumed = on_consumed
        self.received = decoder.received if decoder is not None else 0
        # What was fed and not taken yet: behind the body's end, or while the loop is paused.
        self.fed: deque[bytes] = deque() if fd is None else _NOTHING_FED
        # Since when its clocks stand still.
        self.held_at = 0.0
        self.cancelled: BodyCut | None = None
        self.started = self.progress_at = self.window_at = time.monotonic()
        self.window_bytes = 0
        self.deadline = 0.0


class SendJob:
    """A span of a file on its way to a socket. `done(sent, whole)` is called once from the loop's thread."""

    __slots__ = ("corkable", "count", "deadline", "done", "fd", "file_fd", "head", "offset", "progress_at", "sent")

    def __init__(
        self, fd: int, file_fd: int, offset: int, count: int, head: bytes, *, corkable: bool, done: SendDone
    ) -> None:
        self.fd = fd
        self.file_fd = file_fd
        self.offset = offset
        self.count = count
        self.head = head
        self.corkable = corkable
        self.done = done
        self.sent = 0
        self.progress_at = time.monotonic()
        self.deadline = 0.0


class BodyLoop:
    """One thread, one epoll, one buffer. `start` it, hand it jobs from any thread, `stop` it."""

    def __init__(self, limits: Limits, name: str) -> None:
        self.limits = limits
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._jobs: dict[int, ReceiveJob | SendJob] = {}
        self._fed_jobs: set[ReceiveJob] = set()
        self._paused: set[str] = set()
        self._commands: deque[Callable[[], None]] = deque()
        self._woken = False
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._running = True
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.load = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Cut every job and end the thread."""

        def halt() -> None:
            self._running = False

        self._post(halt)
        self._thread.join()
        # Only now: a wake-up after the loop's end would write into whatever has the number by then.
        self._stopped = True
        os.close(self._wake_read)
        os.close(self._wake_write)

    def receive(self, job: ReceiveJob) -> None:
        """Take over a body. Thread-safe."""
        self.load += 1
        self._post(lambda: self._begin_receive(job))

    def send(self, job: SendJob) -> None:
        """Take over a download. Thread-safe."""
        self.load += 1
        self._post(lambda: self._begin_send(job))

    def feed(self, job: ReceiveJob, data: bytes) -> None:
        """Give bytes to a job that has no descriptor; b"" is the end of the stream. Thread-safe."""
        self._post(lambda: self._fed(job, data))

    def cancel(self, job: ReceiveJob, cut: BodyCut = BodyCut.ABORTED) -> None:
        """End a body early: bytes that the kernel already holds are still read first. Thread-safe."""
        self._post(lambda: self._cancelled(job, cut))

    def pause(self, reason: str) -> None:
        """Read nothing from clients until `resume` was called with every reason given. Thread-safe.

        Downloads go on, and bodies that are cancelled are read to the end of what has arrived, and end.
        The clocks of all others stand still.
        """
        self._post(lambda: self._pause(reason))

    def resume(self, reason: str) -> None:
        """Take a reason to pause back. Thread-safe."""
        self._post(lambda: self._resume(reason))

    # ---- the thread

    def _post(self, command: Callable[[], None]) -> None:
        if self._stopped:
            return
        self._commands.append(command)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"x")

    def _run(self) -> None:
        next_sweep = time.monotonic() + _SWEEP_SECONDS
        poll = self._epoll.poll
        jobs = self._jobs
        while self._running:
            events = poll(_SWEEP_SECONDS)
            for fd, _mask in events:
                if fd == self._wake_read:
                    continue
                job = jobs.get(fd)
                if job is None:
                    continue
                try:
                    if type(job) is ReceiveJob:
                        self._pump(job)
                    else:
                        self._push(job)  # type: ignore[arg-type]
                except Exception:
                    _log.exception("body loop job failed")
                    self._drop(job)
            if self._woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._woken = False
            while self._commands:
                command = self._commands.popleft()
                try:
                    command()
                except Exception:
                    _log.exception("body loop command failed")
            now = time.monotonic()
            if now >= next_sweep:
                if now - next_sweep > _SWEEP_SECONDS:
                    self._forgive(now, now - next_sweep + _SWEEP_SECONDS)
                next_sweep = now + _SWEEP_SECONDS
                self._sweep(now)
        for job in [*jobs.values(), *self._fed_jobs]:
            self._drop(job)
        self._epoll.close()

    def _drop(self, job: ReceiveJob | SendJob) -> None:
        if isinstance(job, ReceiveJob):
            self._end(job, BodyEnd(job.received, BodyCut.ABORTED))
        else:
            self._sent(job, whole=False)

    def _begin_receive(self, job: ReceiveJob) -> None:
        job.started = job.progress_at = job.window_at = time.monotonic()
        job.deadline = job.started + self.limits.read_timeout
        if job.fd is None:
            self._fed_jobs.add(job)
        else:
            self._jobs[job.fd] = job
        if self._paused:
            job.held_at = job.started
        else:
            self._go_on(job)

    def _go_on(self, job: ReceiveJob) -> None:
        """Take what waits in user space, and read on."""
        if self._take_waiting(job) or job.fd is None:
            return
        # More is often there already, and registering costs a system call that a short body can save.
        self._pump(job)
        if self._jobs.get(job.fd) is job:
            self._epoll.register(job.fd, select.EPOLLIN)

    def _take_waiting(self, job: ReceiveJob) -> bool:
        """Give the sink what was read before the body came here or while it was held. True when it has ended."""
        if job.prefix:
            prefix = memoryview(job.prefix)
            job.prefix = b""
            if self._take(job, prefix):
                return True
        if job.fd is None:
            waiting, job.fed = job.fed, deque()
            while waiting:
                self._take_fed(job, waiting.popleft())
                if job not in self._fed_jobs:
                    return True
        return False

    def _pause(self, reason: str) -> None:
        if not self._paused:
            now = time.monotonic()
            for job in self._receive_jobs():
                job.held_at = now
                if job.fd is not None:
                    with contextlib.suppress(FileNotFoundError):
                        self._epoll.unregister(job.fd)
        self._paused.add(reason)

    def _resume(self, reason: str) -> None:
        if not self._paused:
            return
        self._paused.discard(reason)
        if self._paused:
            return
        now = time.monotonic()
        for job in self._receive_jobs():
            held = now - job.held_at
            job.progress_at += held
            job.window_at += held
            job.deadline += held
            try:
                self._go_on(job)
            except Exception:
                _log.exception("body loop job failed")
                self._drop(job)

    def _receive_jobs(self) -> list[ReceiveJob]:
        jobs = [job for job in self._jobs.values() if isinstance(job, ReceiveJob)]
        return [*jobs, *self._fed_jobs]

    def _pump(self, job: ReceiveJob, quantum: int = _QUANTUM) -> None:
        """Read until the socket is empty, the body whole, or the quantum spent."""
        fd = job.fd
        if fd is None:
            return
        buffer = self._buffer
        moved = 0
        readv = os.readv
        while moved < quantum:
            left = job.left
            target = buffer[:left] if 0 <= left < BUFFER_BYTES else buffer
            try:
                count = readv(fd, [target])
            except BlockingIOError:
                if job.cancelled is not None:
                    self._end(job, BodyEnd(job.received, job.cancelled))
                return
            except OSError:
                self._end(job, BodyEnd(job.received, BodyCut.DISCONNECTED))
                return
            if count == 0:
                self._end(job, BodyEnd(job.received, BodyCut.DISCONNECTED))
                return
            moved += count
            if self._take(job, target[:count]):
                return
        if job.cancelled is not None:
            # A cancelled body that keeps coming is cut at the quantum.
            self._end(job, BodyEnd(job.received, job.cancelled))

    def _take(self, job: ReceiveJob, data: memoryview) -> bool:
        """Give data to the sink. True when the body has ended."""
        job.progress_at = time.monotonic()
        job.window_bytes += len(data)
        try:
            if job.decoder is None:
                job.sink.write(data)
                job.received += len(data)
                job.left -= len(data)
                if job.left == 0:
                    self._end(job, BodyEnd(job.received))
                    return True
                return False
            spans, used = job.decoder.feed(data)
            for piece in pieces(data, spans):
                size = len(piece)
                if job.limit is not None and job.received + size > job.limit:
                    self._end(job, BodyEnd(job.received, BodyCut.TOO_LARGE))
                    return True
                job.sink.write(piece)
                job.received += size
            if job.decoder.done:
                self._end(job, BodyEnd(job.received), bytes(data[used:]))
                return True
        except HttpError as error:
            self._end(job, BodyEnd(job.received, BodyCut.MALFORMED, error))
            return True
        except Exception as error:
            self._end(job, BodyEnd(job.received, BodyCut.REFUSED, error))
            return True
        return False

    def _end(self, job: ReceiveJob, end: BodyEnd, rest: bytes = b"") -> None:
        if job.fd is None:
            if job not in self._fed_jobs:
                return
            self._fed_jobs.discard(job)
            rest += b"".join(job.fed)
        else:
            if self._jobs.get(job.fd) is not job:
                return
            del self._jobs[job.fd]
            # Never registered when the body ended with its first reads.
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(job.fd)
            os.close(job.fd)
        self.load -= 1
        try:
            job.done(end, rest)
        except Exception:
            _log.exception("body completion failed")

    def _fed(self, job: ReceiveJob, data: bytes) -> None:
        if job not in self._fed_jobs:
            return
        if self._paused:
            job.fed.append(data)
        else:
            self._take_fed(job, data)

    def _take_fed(self, job: ReceiveJob, data: bytes) -> None:
        if not data:
            self._end(job, BodyEnd(job.received, BodyCut.DISCONNECTED))
            return
        view = memoryview(data)
        if job.left >= 0 and len(view) > job.left:
            rest = bytes(view[job.left :])
            view = view[: job.left]
            job.fed.append(rest)
        self._take(job, view)
        if job.on_consumed is not None:
            job.on_consumed()

    def _cancelled(self, job: ReceiveJob, cut: BodyCut) -> None:
        if job.fd is None:
            if job in self._fed_jobs and not self._take_waiting(job):
                self._end(job, BodyEnd(job.received, cut))
        elif self._jobs.get(job.fd) is job:
            job.cancelled = cut
            if not self._take_waiting(job):
                self._pump(job, max(_QUANTUM, _waiting(job.fd)))

    def _begin_send(self, job: SendJob) -> None:
        job.progress_at = time.monotonic()
        job.deadline = job.progress_at + self.limits.write_timeout
        self._jobs[job.fd] = job
        if job.corkable:
            # Head and file leave in full segments: a third less CPU than without (tcp_nopush).
            _cork(job.fd, on=True)
        self._push(job)
        if job.fd in self._jobs:
            self._epoll.register(job.fd, select.EPOLLOUT)

    def _push(self, job: SendJob) -> None:
        moved = 0
        try:
            while job.head:
                count = os.write(job.fd, job.head)
                job.head = job.head[count:]
                job.progress_at = time.monotonic()
            while job.sent < job.count and moved < _QUANTUM:
                count = os.sendfile(job.fd, job.file_fd, job.offset + job.sent, min(job.count - job.sent, _SEND_STEP))
                if count == 0:
                    # The file is shorter than it was: the answer cannot be finished honestly.
                    self._sent(job, whole=False)
                    return
                job.sent += count
                moved += count
                job.progress_at = time.monotonic()
        except BlockingIOError:
            return
        except OSError:
            self._sent(job, whole=False)
            return
        if job.sent == job.count:
            self._sent(job, whole=True)

    def _sent(self, job: SendJob, *, whole: bool) -> None:
        if self._jobs.pop(job.fd, None) is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._epoll.unregister(job.fd)
        if job.corkable:
            _cork(job.fd, on=False)
        os.close(job.fd)
        self.load -= 1
        try:
            job.done(job.sent, whole)
        except Exception:
            _log.exception("download completion failed")

    def _forgive(self, now: float, unseen: float) -> None:
        """Charge nobody for the time in which this thread did not run: what came or could go meanwhile was not seen.

        The process was stopped, or the disk stood still. The wait for events tells of none of them when it was stopped
        itself (CPython takes its time for over), so peers would be cut whose bytes are there.
        """
        for job in [*self._jobs.values(), *self._fed_jobs]:
            job.progress_at = min(now, job.progress_at + unseen)
            if isinstance(job, ReceiveJob):
                job.window_at = min(now, job.window_at + unseen)

    def _sweep(self, now: float) -> None:
        limits = self.limits
        for job in [*self._jobs.values(), *self._fed_jobs]:
            if isinstance(job, SendJob):
                if now - job.progress_at > limits.send_stall_timeout or now > job.deadline:
                    self._sent(job, whole=False)
                continue
            if self._paused:
                continue
            cut: BodyCut | None = None
            if now - job.progress_at > limits.stall_timeout:
                cut = BodyCut.STALLED
            elif now > job.deadline:
                cut = BodyCut.TIMED_OUT
            elif now - job.window_at > limits.min_rate_grace:
                if job.window_bytes < limits.min_rate * (now - job.window_at):
                    cut = BodyCut.TOO_SLOW
                job.window_at = now
                job.window_bytes = 0
            if cut is not None:
                self._end(job, BodyEnd(job.received, cut))


def _waiting(fd: int) -> int:
    """How many bytes the kernel holds for a descriptor."""
    count = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def _cork(fd: int, *, on: bool) -> None:
    # A borrowed socket object: only setsockopt is wanted, the descriptor stays the job's.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
    try:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))
    finally:
        sock.detach()
