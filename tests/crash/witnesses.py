"""Clients of a server whose power is cut, now or later: what each was told, and when it heard of it.

They upload in chunks, by tus and by PUT, cut some of their bodies and go on afterwards. Every upload's bytes follow
from its name, so that whatever is found on a disk can be judged.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from tests.faults.chunks import KIB, Span, Upload, number, spans, start, target
from tests.fixtures import slots
from tests.fixtures.server import Answer, FileServer
from tests.server.wire import EarlyEndError, Wire

CHUNK: Final = 64 * KIB
_SIZES: Final = (1, 5 * CHUNK)
_PIECES: Final = 3
_TUS: Final = {"Tus-Resumable": "1.0.0"}
_STREAM: Final = {**_TUS, "Content-Type": "application/offset+octet-stream"}

CHUNKED: Final = "chunked"
TUS: Final = "tus"
PUT: Final = "put"


def body_of(name: str) -> bytes:
    """The bytes of an upload or a file by its name, which ends in its size."""
    return blake3(name.encode()).digest(int(name.rpartition(".")[2]))


@dataclass(frozen=True, slots=True)
class Fact:
    """What somebody was told.

    mark      what the clock showed when the answer was there: the length of a record, for instance
    name      of the upload, from which its bytes follow
    session   id of the upload, empty where there is none
    spans     durable ranges
    complete  the file is published: at `path` of the storage where that is known, else where the session says
    """

    mark: int
    protocol: str
    name: str
    session: str = ""
    spans: tuple[Span, ...] = ()
    complete: bool = False
    path: str = ""


class Witnesses:
    """Threads that upload until they are told to stop."""

    def __init__(
        self,
        server: FileServer,
        clock: Callable[[], int],
        *,
        seed: str,
        each: int = 2,
        excused: Callable[[], bool] = lambda: False,
    ) -> None:
        """`each`: so many threads a protocol. `excused`: whether the server may be gone by now."""
        self.server = server
        self.seed = seed
        """What the names of their uploads begin with."""
        self.faults: list[str] = []
        self._mark = clock
        self._excused = excused
        self._facts: list[Fact] = []
        self._turn = threading.Condition()
        self._stopping = threading.Event()
        ways = ((CHUNKED, self._chunked), (TUS, self._tus), (PUT, self._put))
        self._threads = [
            threading.Thread(target=self._run, args=(f"{seed}-{protocol}-{index}", way), name="witness")
            for index in range(each)
            for protocol, way in ways
        ]

    @property
    def facts(self) -> list[Fact]:
        """All until now."""
        with self._turn:
            return list(self._facts)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """They work meanwhile."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def wait(self, facts: int, *, seconds: float = 60.0) -> None:
        """Until so many were told; AssertionError when that does not come."""
        with self._turn:
            came = self._turn.wait_for(lambda: len(self._facts) >= facts or bool(self.faults), seconds)
        assert came, f"{len(self._facts)} facts of {facts} in {seconds:g} s"
        assert not self.faults, self.faults

    def _tell(self, fact: Fact) -> None:
        with self._turn:
            self._facts.append(fact)
            self._turn.notify_all()

    def _run(self, seed: str, way: Callable[[str, random.Random], None]) -> None:
        chance = random.Random(seed)
        made = 0
        try:
            while not self._stopping.is_set():
                made += 1
                size = round(_SIZES[0] * (_SIZES[1] / _SIZES[0]) ** chance.random())
                way(f"{seed}-{made}.{size}", chance)
        except BaseException as error:
            if self._excused():
                return
            with self._turn:
                self.faults.append(f"{seed}, upload {made}: {error!r}")
                self._turn.notify_all()

    # ---- PUT

    def _put(self, name: str, chance: random.Random) -> None:
        path = f"{chance.randrange(3)}/{name}" if chance.random() < 0.5 else f"{name}-folder/{name}"
        body = body_of(name)
        where = slots.target(path, slots.v1(path, len(body)))
        if chance.random() < 0.2:
            with Wire(self.server) as wire:
                wire.head("PUT", where, {"Content-Length": str(len(body))})
                wire.send(body[: chance.randrange(len(body))])
                wire.reset()
        answer = self.server.request("PUT", where, body)
        mark = self._mark()
        expect(answer, 201)
        self._tell(Fact(mark, PUT, name, complete=True, path=path))

    # ---- chunks

    def _chunked(self, name: str, chance: random.Random) -> None:
        upload = start(self.server, body_of(name), name=name)
        self._tell(Fact(self._mark(), CHUNKED, name, upload.id))
        for index in chance.sample(range(upload.total), upload.total):
            if self._stopping.is_set():
                return  # it stays open
            if chance.random() < 0.2:
                with upload.begin(index, chance.randrange(len(upload.chunk(index)))) as wire:
                    wire.reset() if chance.random() < 0.5 else None
                self._heard(name, upload, upload.look())
            self._heard(name, upload, upload.put(index))

    def _heard(self, name: str, upload: Upload, answer: Answer) -> None:
        mark = self._mark()
        expect(answer, 200)
        told = answer.json()
        complete = told["completed"] is True
        path = target(told["url"]).lstrip("/") if complete else ""
        self._tell(Fact(mark, CHUNKED, name, upload.id, tuple(spans(told["received"])), complete, path))

    # ---- tus

    def _tus(self, name: str, chance: random.Random) -> None:
        body = body_of(name)
        filename = base64.b64encode(name.encode()).decode()
        with_upload = chance.random() < 0.5
        headers = {
            **(_STREAM if with_upload else _TUS),
            "X-Signature": slots.x_signature("/tus/"),
            "Upload-Length": str(len(body)),
            "Upload-Metadata": f"filename {filename}",
        }
        piece = body[: chance.randrange(len(body) + 1)] if with_upload else b""
        answer = self.server.request("POST", "/tus/", piece, headers)
        mark = self._mark()
        expect(answer, 201)
        session = answer.headers["location"]
        offset = int(answer.headers.get("upload-offset", "0"))
        self._at(mark, name, session, offset)
        while offset < len(body):
            if self._stopping.is_set():
                return
            piece = body[offset : offset + chance.randint(1, max(1, len(body) // _PIECES))]
            if chance.random() < 0.2:
                head = self._tus_patch(offset, len(piece))
                with contextlib.suppress(OSError), Wire(self.server) as wire:
                    wire.head("PATCH", f"/tus/{session}", head)
                    wire.send(piece[: len(piece) // 2])
                    wire.reset()
                answer = self.server.request("HEAD", f"/tus/{session}", None, _TUS)
                mark = self._mark()
                expect(answer, 200)
            else:
                answer = self.server.request("PATCH", f"/tus/{session}", piece, self._tus_patch(offset, len(piece)))
                mark = self._mark()
                if answer.status == 409:
                    # Bytes of the body that was cut arrived since the last question.
                    answer = self.server.request("HEAD", f"/tus/{session}", None, _TUS)
                    mark = self._mark()
                    expect(answer, 200)
                else:
                    expect(answer, 204)
            offset = int(answer.headers["upload-offset"])
            self._at(mark, name, session, offset)

    @staticmethod
    def _tus_patch(offset: int, length: int) -> dict[str, str]:
        return {**_STREAM, "Upload-Offset": str(offset), "Content-Length": str(length)}

    def _at(self, mark: int, name: str, session: str, offset: int) -> None:
        complete = offset == len(body_of(name))
        self._tell(Fact(mark, TUS, name, session, ((0, offset),) if offset else (), complete))


def expect(answer: Answer, status: int) -> None:
    """Raise AssertionError for another answer."""
    assert answer.status == status, (answer.status, answer.body[:300])


def resume(server: FileServer, facts: Sequence[Fact]) -> list[str]:
    """Bring every upload of the facts to its end at a server that runs, as its client would; what went wrong."""
    lost = []
    for fact in {fact.session: fact for fact in facts if fact.session}.values():
        try:
            _resume(server, fact)
        except (AssertionError, OSError, EarlyEndError, http.client.HTTPException) as error:
            lost.append(f"{fact.name}: {error!r} when it was continued")
    for fact in facts:
        if fact.protocol == PUT:
            answer = server.request("GET", f"/upload/{fact.path}")
            if answer.status != 200 or answer.body != body_of(fact.name):
                lost.append(f"{fact.name}: {answer.status} with {len(answer.body)} bytes at {fact.path}")
    return lost


def _resume(server: FileServer, fact: Fact) -> None:
    body = body_of(fact.name)
    if fact.protocol == CHUNKED:
        answer = server.request("GET", f"/upload/status?session_id={fact.session}")
        expect(answer, 200)
        upload = Upload(server, fact.session, body, number(answer.json()["chunk_size"]))
        upload.finish()
        assert upload.stored() == body
        return
    answer = server.request("HEAD", f"/tus/{fact.session}", None, _TUS)
    expect(answer, 200)
    offset = int(answer.headers["upload-offset"])
    if offset < len(body):
        answer = server.request(
            "PATCH", f"/tus/{fact.session}", body[offset:], {**_STREAM, "Upload-Offset": str(offset)}
        )
        expect(answer, 204)
        assert int(answer.headers["upload-offset"]) == len(body)
