"""The engine with real threads, a real disk and a real session store."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from blake3 import blake3
from tests.fixtures.engine_world import order

from hmac_file_server.clock import SystemClock
from hmac_file_server.files.contract import StorageError, StoragePath
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.stores.alone import NoCoordinator
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.uploads import Engine, Lease, Progress, Rules, Upload, UploadRefused
from hmac_file_server.uploads import engine as engine_module
from hmac_file_server.uploads.states import State

T = TypeVar("T")
PATIENCE = 30.0
CHUNK = 4096
STRESS_SECONDS = 1.5
SOAK = int(os.environ.get("HMAC_FILE_SERVER_SOAK", "0"))
_TRUE_FAILURES = frozenset({"upload_taken_over", "upload_busy"})


class Gate(Disk):
    """A disk with one write that gets stuck."""

    def __init__(self) -> None:
        self.stuck: int | None = None
        """Offset of the write that does not return until `opened`."""
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.pwrite = self._pwrite

    def _pwrite(self, fd: int, data: Any, offset: int) -> int:
        if offset == self.stuck:
            self.stuck = None
            self.reached.set()
            assert self.opened.wait(PATIENCE)
        return os.pwrite(fd, data, offset)


class Timers:
    """What an event loop does for the engine: calls later, on a thread of its own."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), call))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._over:
                    return
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                call = heapq.heappop(self._due)[2]
            call()

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()


class Server:
    """An engine on a folder."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.failures: list[BaseException] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self._workers = ThreadPoolExecutor(4)
        self._timers = Timers()
        clock = SystemClock()
        self.files = LocalFileStore(root, clock=clock, submit=self.submit, dedup=True, disk=disk, log=self._log)
        self.store = SqliteStore(os.fspath(root / "uploads.db"), full=True, log=self._log)
        self.engine = Engine(
            self.files,
            self.store,
            clock=clock,
            random=os.urandom,
            submit=self.submit,
            call_later=self._timers.call_later,
            coordinator=NoCoordinator(),
            log=self._log,
            rules=Rules(),
        )
        self.engine.recover()

    def submit(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.failures.append(error)
                raise

        self._workers.submit(run)

    def _log(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    def close(self) -> None:
        self.engine.close()
        self._workers.shutdown()
        self.files.close()
        self.store.close()
        self._timers.close()
        assert not self.failures
        assert not [event for event in self.events if event[0].endswith("_failed")], self.events

    # -- requests

    def ask(self, begin: Callable[..., None], *arguments: Any) -> Any:
        return self.ask_soon(begin, *arguments)()

    def ask_soon(self, begin: Callable[..., None], *arguments: Any) -> Callable[[], Any]:
        """Begin; what is returned waits for the answer, and sees that there is one only."""
        answers: list[Any] = []
        ready = threading.Event()

        def done(result: Any = None) -> None:
            answers.append(result)
            ready.set()

        begin(*arguments, done)

        def wait() -> Any:
            assert ready.wait(PATIENCE), f"no answer to {begin}"
            assert len(answers) == 1
            return answers[0]

        return wait

    def create(self, length: int, path: str) -> str:
        created = self.ask(self.engine.create, order(length, path=StoragePath(path), filename=path))
        assert isinstance(created, Progress), created
        return created.id

    def claim(self, upload_id: str, lane: tuple[int, int], begin: int, taken: Callable[[], None]) -> Any:
        found = self.ask(self.engine.open, upload_id)
        if not isinstance(found, Upload):
            return found
        return self.ask(
            lambda done: self.engine.claim(found, lane, begin, on_taken=taken, done=done),
        )

    def lease(self, upload_id: str, lane: tuple[int, int], begin: int, taken: Callable[[], None]) -> Lease:
        lease = self.claim(upload_id, lane, begin, taken)
        assert isinstance(lease, Lease), lease
        return lease

    def content(self, path: str) -> bytes:
        reader = self.files.open(StoragePath(path))
        assert reader is not None
        try:
            return reader.read(0, reader.entry.size + 1)
        finally:
            reader.close()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(tmp_path: Path, gate: Gate) -> Iterator[Server]:
    server = Server(tmp_path / "storage", gate)
    yield server
    server.close()


def never() -> None:
    raise AssertionError("nobody should take it")


def together(*calls: Callable[[], T]) -> list[T]:
    """Run all at the same instant."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(PATIENCE)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, call) for call in calls]]


def test_n_07_the_last_two_chunks_at_the_same_instant(server: Server) -> None:
    for number in range(40):
        path = f"{number}.bin"
        body = random.Random(number).randbytes(2 * CHUNK)
        upload = server.create(len(body), path)
        leases = []
        for start in (0, CHUNK):
            lease = server.lease(upload, (start, start + CHUNK), start, never)
            lease.write(memoryview(body)[start : start + CHUNK])
            leases.append(lease)
        answers = together(*(lambda lease=lease: server.ask(server.engine.finish, lease) for lease in leases))
        assert all(isinstance(answer, Progress) for answer in answers)
        assert any(answer.complete for answer in answers)
        final = server.engine.progress(upload)
        assert final.complete
        assert final.receipt is not None
        assert final.receipt.digest == f"blake3:{blake3(body).hexdigest()}"
        assert server.content(path) == body
    assert server.engine.transfers == 0


def test_a_receipt_outlives_the_server(tmp_path: Path) -> None:
    root = tmp_path / "storage"
    server = Server(root)
    body = os.urandom(3 * CHUNK)
    upload = server.create(len(body), "a.bin")
    half = server.create(len(body), "b.bin")
    for which, sent in ((upload, len(body)), (half, CHUNK)):
        lease = server.lease(which, (0, sent), 0, never)
        lease.write(memoryview(body)[:sent])
        assert isinstance(server.ask(server.engine.finish, lease), Progress)
    receipt = server.engine.progress(upload).receipt
    server.close()

    server = Server(root)
    try:
        assert server.engine.progress(upload).receipt == receipt
        assert server.files.pool().outstanding == (2 * CHUNK, 1)
        assert server.engine.progress(half).ranges == ((0, CHUNK),)
        lease = server.lease(half, (CHUNK, len(body)), CHUNK, never)
        lease.write(memoryview(body)[CHUNK:])
        assert server.ask(server.engine.finish, lease).complete
        assert server.content("b.bin") == body
        assert server.files.pool().outstanding == (0, 0)
    finally:
        server.close()


def test_n_02_a_write_that_is_stuck_in_the_kernel_comes_before_those_of_the_newcomer(
    server: Server, gate: Gate
) -> None:
    """Fencing cannot end a system call; so who comes after waits for it with the first byte."""
    body, stale = b"n" * CHUNK, b"o" * CHUNK
    upload = server.create(CHUNK, "a.bin")
    taken = threading.Event()
    old = server.lease(upload, (0, CHUNK), 0, taken.set)
    gate.stuck = 0
    with ThreadPoolExecutor(2) as clients:
        stuck = clients.submit(old.write, memoryview(stale))
        assert gate.reached.wait(PATIENCE)
        new = server.lease(upload, (0, CHUNK), 0, never)
        assert taken.is_set()
        written = clients.submit(new.write, memoryview(body))
        assert not written.done()
        gate.opened.set()
        stuck.result(PATIENCE)
        written.result(PATIENCE)
    with pytest.raises(UploadRefused) as refused:
        old.write(memoryview(stale))
    assert refused.value.code == "upload_taken_over"
    server.ask(server.engine.cut, old)
    assert server.ask(server.engine.finish, new).complete
    assert server.content("a.bin") == body


class Clients:
    """Many clients of few uploads, each doing as it likes."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.bodies = [self.chance.randbytes(6 * CHUNK - 100) for _ in range(3)]
        self.paths = [f"{number}.bin" for number in range(len(self.bodies))]
        self.uploads = [server.create(len(body), path) for body, path in zip(self.bodies, self.paths, strict=True)]
        self.over = time.monotonic() + STRESS_SECONDS

    def run(self, seed: int) -> int:
        """One client until the time is over; how many bodies it sent. The last byte is left for the end."""
        chance = random.Random(seed)
        count = 0
        while time.monotonic() < self.over:
            number = chance.randrange(len(self.uploads))
            upload, body = self.uploads[number], self.bodies[number]
            match chance.randrange(12):
                case 0:
                    self.server.ask(self.server.engine.release, upload)
                case 1:
                    self.server.ask(self.server.engine.settle, upload)
                case 2:
                    self.server.engine.flush_all()
                case 3:
                    self.server.engine.progress(upload)
                case _:
                    self.send(chance, upload, body)
                    count += 1
        return count

    def send(self, chance: random.Random, upload: str, body: bytes) -> None:
        start = chance.randrange(0, len(body) - 1, CHUNK)
        lane = (start, min(start + CHUNK, len(body) - 1)) if chance.random() < 0.8 else (0, len(body) - 1)
        taken = threading.Event()
        lease = self.server.claim(upload, lane, lane[0], taken.set)
        if not isinstance(lease, Lease):
            assert isinstance(lease, UploadRefused | StorageError), lease
            assert lease.code in _TRUE_FAILURES
            return
        obeys = chance.random() < 0.8
        upto = chance.choice([lane[1], chance.randint(*lane)])
        position = lane[0]
        try:
            while position < upto and not (obeys and taken.is_set()):
                size = min(chance.randint(1, CHUNK), upto - position)
                lease.write(memoryview(body)[position : position + size])
                position += size
        except (UploadRefused, StorageError) as error:
            self.server.ask(self.server.engine.cut, lease)
            if not isinstance(error, StorageError) and error.code not in _TRUE_FAILURES:
                raise
            return
        if position < lane[1]:
            self.server.ask(self.server.engine.cut, lease)
            return
        answer = self.server.ask(self.server.engine.finish, lease)
        if isinstance(answer, Progress):
            assert any(first <= lane[0] and lane[1] <= last for first, last in answer.ranges)
        else:
            assert answer.code in _TRUE_FAILURES


@pytest.mark.parametrize("seed", range(1 + SOAK // 100))
def test_many_clients_of_few_uploads(server: Server, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(engine_module, "CHECKPOINT_BYTES", CHUNK)
    monkeypatch.setattr(engine_module, "FENCE_SECONDS", 0.02)
    clients = Clients(server, seed)
    with ThreadPoolExecutor(6) as pool:
        counts = [future.result(PATIENCE) for future in [pool.submit(clients.run, n) for n in range(6)]]
    assert all(counts)
    assert server.engine.transfers == 0
    for upload, body, path in zip(clients.uploads, clients.bodies, clients.paths, strict=True):
        progress = server.engine.progress(upload)
        assert progress.state is State.OPEN
        lease = server.lease(upload, (0, len(body)), 0, never)
        lease.write(memoryview(body))
        answer = server.ask(server.engine.finish, lease)
        assert answer.complete
        assert answer.receipt.digest == f"blake3:{blake3(body).hexdigest()}"
        assert server.content(path) == body
    assert server.files.pool().outstanding == (0, 0)
    assert server.store.open_sessions() == 0
