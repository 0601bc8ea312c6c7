"""Uploads of the Python client in a thread of their own, held against what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fixtures.content import content
from tests.fixtures.relay import Relay
from tests.fixtures.server import SECRET, FileServer

from hmac_file_server.client import AsyncUploader, Progress, Result, Target
from hmac_file_server.client.chunked import Chunked
from hmac_file_server.client.errors import ConnectionLost
from hmac_file_server.client.plan import merged
from hmac_file_server.client.protocol import Body, Exchanges, Facts, Piece, Ranges, Received, Session
from hmac_file_server.client.source import Portion

PATIENCE = 60.0
CHUNK = 256 * 1024
SETTINGS = {"uploads": {"chunk_size": CHUNK, "durability": "relaxed"}}


class Notes:
    """What went over the chunk API, of all runs of one upload.

    `twice`: spans that were sent although an answer had told before that they are durable. `sent`: bytes of bodies
    that connections took, `begun`: the sessions that creations told. `lose_creation` and `lose_end` throw away the
    answer to one creation, and to the piece that completed the upload.
    """

    def __init__(self) -> None:
        self.told: Ranges = ()
        self.twice: list[tuple[int, int]] = []
        self.sent = 0
        self.pieces: list[Piece] = []
        self.begun: list[str] = []
        self.keys: list[str] = []
        self.asked = 0
        self.lose_creation = False
        self.lose_end = False

    def __call__(self, exchanges: Exchanges, target: Target) -> Noted:
        return Noted(exchanges, target, self)


class Noted(Chunked):
    """The chunk API with notes."""

    def __init__(self, exchanges: Exchanges, target: Target, notes: Notes) -> None:
        super().__init__(exchanges, target)
        self._notes = notes

    async def begin(self, facts: Facts) -> tuple[Session, Received]:
        self._notes.keys.append(facts.key)
        session, told = await super().begin(facts)
        self._notes.begun.append(session.id)
        self._note(told)
        if self._notes.lose_creation:
            self._notes.lose_creation = False
            raise ConnectionLost("the answer to the creation was lost")
        return session, told

    async def ask(self, session: Session, *, wait: float = 0.0) -> Received:
        self._notes.asked += 1
        told = await super().ask(session, wait=wait)
        self._note(told)
        return told

    async def send(self, session: Session, piece: Piece, body: Body) -> Received:
        assert isinstance(body, Portion)
        self._notes.pieces.append(piece)
        before = self._notes.told
        try:
            told = await super().send(session, piece, body)
        finally:
            span = (body.start, body.start + body.written)
            self._notes.sent += body.written
            self._notes.twice += [
                (max(span[0], start), min(span[1], stop))
                for start, stop in before
                if start < span[1] and span[0] < stop
            ]
        self._note(told)
        if told.result is not None and self._notes.lose_end:
            self._notes.lose_end = False
            raise ConnectionLost("the last answer was lost")
        return told

    def _note(self, told: Received) -> None:
        self._notes.told = merged((*self._notes.told, *told.ranges))


class SilentRelay(Relay):
    """A relay that can also let the connections of now fall silent for ever, without a word to either end."""

    def abandon(self) -> None:
        """Nothing passes any more on the connections of now; later ones get through."""
        self._loop.call_soon_threadsafe(self._abandon)

    def _abandon(self) -> None:
        self._lost |= self._clients
        self._let_go.set()

    def _reset(self) -> None:
        _abort(self._writers)
        self._let_go.set()

    def _reset_clients(self) -> None:
        self._lost |= self._clients
        _abort(self._clients)
        self._let_go.set()


def _abort(writers: set[asyncio.StreamWriter]) -> None:
    """End with RST, unless an end has closed by itself in between."""
    for writer in writers:
        end: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@contextmanager
def relay(server: FileServer, hold_after: int) -> Iterator[SilentRelay]:
    """A relay, ended at the end."""
    started = SilentRelay(server.port, hold_after)
    try:
        yield started
    finally:
        started.close()


class Upload:
    """A coroutine on a loop in a thread of its own. `states` are those that were reported, `moments` all reports."""

    def __init__(self) -> None:
        self.moments: list[Progress] = []
        self._turn = threading.Condition()
        self._result: Any = None
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._thread: threading.Thread | None = None

    def progress(self, progress: Progress) -> None:
        """To be called with every report."""
        with self._turn:
            self.moments.append(progress)
            self._turn.notify_all()

    def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Upload:
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()
        return self

    def wait_for(self, condition: Callable[[Progress], bool]) -> Progress:
        """The first report from now on, or the latest one, for which it holds."""
        with self._turn:
            at = max(0, len(self.moments) - 1)
            found: list[Progress] = []

            def reported() -> bool:
                found[:] = [moment for moment in self.moments[at:] if condition(moment)][:1]
                return bool(found) or (self._error is not None)

            assert self._turn.wait_for(reported, PATIENCE), self.moments[-3:]
            assert found, self._error
            return found[0]

    def call(self, function: Callable[[], None]) -> None:
        """Call it on the upload's loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def cancel(self) -> None:
        """Cancel it and await its end."""
        assert self._loop is not None
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._join()
        assert isinstance(self._error, asyncio.CancelledError)

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        self._join()
        if self._error is not None:
            raise self._error
        return self._result

    def _join(self) -> None:
        assert self._thread is not None
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), self.moments[-3:]

    def _run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        async def main() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            self._result = await work()

        try:
            asyncio.run(main())
        except BaseException as error:
            with self._turn:
                self._error = error
                self._turn.notify_all()


def uploader(url: str, notes: Notes | None = None, upload: Upload | None = None, **options: Any) -> AsyncUploader:
    """An uploader that is fast in finding out, and notes."""
    settings: dict[str, Any] = {
        "protocol": notes if notes is not None else "chunked",
        "on_progress": upload.progress if upload is not None else None,
        "stall_timeout": 1.0,
        "connect_timeout": 2.0,
        "answer_timeout": 5.0,
        "patience": PATIENCE,
        "retry_delay": (0.02, 0.2),
        "watch_network": False,
    }
    return AsyncUploader(Target.parse(url, secret=SECRET), **{**settings, **options})


def started(url: str, path: Path, notes: Notes, **options: Any) -> Upload:
    """An upload of the file that is under way."""
    upload = Upload()
    return upload.start(lambda: uploader(url, notes, upload, **options).upload(path))


def file_of(folder: Path, size: int, seed: str) -> Path:
    """A file with content of its own."""
    path = folder / f"{seed}.bin"
    path.write_bytes(content(size, seed))
    return path


def assert_stored(server: FileServer, result: Result, path: Path) -> None:
    """What the server gives at the result's URL is the file."""
    assert result.size == path.stat().st_size
    target = "/" + result.url.split("/", 3)[3]
    answer = server.request("GET", target)
    assert answer.status == 200
    assert answer.body == path.read_bytes()


def descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))
