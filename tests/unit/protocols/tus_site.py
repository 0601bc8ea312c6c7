"""tus over an engine whose time, disk and store are played by hand: requests whose bodies come when the test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from tests.fixtures.engine_world import World
from tests.unit.protocols.conftest import SECRET, Site
from tests.unit.protocols.exchanges import request
from tests.unit.uploads.memory_store import MemoryReader, MemoryStore

from hmac_file_server.auth import signing
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import Entry, FileStore, StoragePath
from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Request, Response
from hmac_file_server.http.body import BodySink
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.response import problem_response

STREAM = b"application/offset+octet-stream"


class TusExchange:
    """What a handler sees of `http.Exchange`. The body comes by `send`, and ends by `end`."""

    def __init__(self, parsed: Request) -> None:
        self.request = parsed
        self.request_id = "test-1"
        self.peer = "192.0.2.7:5000"
        self.owner: str | None = None
        self.fields = b""
        self.trailers: dict[bytes, bytes] = {}
        self.body_lost = False
        self.body_arrived = False
        self.answers: list[Response] = []
        self._sink: BodySink | None = None
        self._done: Callable[[BodyEnd], None] | None = None
        self._received = 0
        self._limit: int | None = None

    @property
    def answered(self) -> bool:
        return bool(self.answers)

    def respond(self, response: Response) -> None:
        assert not self.answers, "answered twice"
        response.head += self.fields
        self.answers.append(response)

    respond_soon = respond

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Nobody leaves."""

    def receive(self, sink: BodySink, done: Callable[[BodyEnd], None], *, limit: int | None = None) -> None:
        assert self._done is None, "taken twice"
        self._sink, self._done, self._limit = sink, done, limit

    @property
    def taken(self) -> bool:
        """Whether the body was asked for."""
        return self._done is not None

    @property
    def over(self) -> bool:
        """Whether the handler was told of the body's end."""
        return self.taken and self._sink is None

    def send(self, piece: bytes) -> None:
        """More of the body arrives."""
        assert self._sink is not None
        if self.request.chunked and self._limit is not None and self._received + len(piece) > self._limit:
            self.end(BodyCut.TOO_LARGE)
            return
        try:
            self._sink.write(memoryview(piece))
        except Exception as error:
            self.end(BodyCut.REFUSED, error)
            return
        self._received += len(piece)

    def end(self, cut: BodyCut | None = None, error: Exception | None = None) -> None:
        """The body ends."""
        assert self._done is not None
        if self._sink is not None:
            self._sink = None
            self._done(BodyEnd(self._received, cut, error))

    def cut(self, cut: BodyCut) -> None:
        if self._done is not None:
            self.end(cut)

    # ---- the answer, as the client reads it

    @property
    def answer(self) -> Response:
        assert len(self.answers) == 1, "not answered"
        return self.answers[0]

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def json(self) -> dict[str, Any]:
        document = json.loads(self.answer.body)
        assert isinstance(document, dict)
        return document

    @property
    def code(self) -> tuple[int, object]:
        return self.status, self.json.get("code")

    def header(self, name: str) -> str | None:
        for line in self.answer.head.decode("latin-1").split("\r\n"):
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None

    @property
    def offset(self) -> int | None:
        value = self.header("upload-offset")
        return None if value is None else int(value)


class Files(MemoryStore):
    """What is published: by the world, and what was stored at once."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.clock = world.clock.time()

    def head(self, path: StoragePath, /) -> Entry | None:
        link = self._world.disk.links.get(path)
        return super().head(path) if link is None else link.entry

    def open(self, path: StoragePath, /) -> MemoryReader | None:
        link = self._world.disk.links.get(path)
        if link is None:
            return super().open(path)
        self.fail("open")
        return MemoryReader(self, link.entry, bytes(link.file.live))

    def delete(self, path: StoragePath, reason: str, /) -> bool:
        removed = super().delete(path, reason)
        return self._world.disk.links.pop(path, None) is not None or removed


class TusSite:
    """A site that speaks tus."""

    def __init__(self, **uploads: Any) -> None:
        """`uploads` are settings of that section."""
        settings = Settings()
        self.settings = replace(settings, uploads=replace(settings.uploads, **uploads))
        self.world = World()
        self.site = Site(self.settings)
        self.files = Files(self.world)
        process = self.world.processes[0]
        app = self.site.application
        app.engine = self.world.engine
        app.store = cast("FileStore", self.files)
        app.random = self.world.chance.randbytes
        app.call_later = process.call_later
        app.submit = process.submit

    def begin(self, method: str, path: str, length: int | None = None, **fields: bytes | None) -> TusExchange:
        """Send a head; nothing has happened yet but the call of the handler. A field that is None is left out."""
        named = {"tus_resumable": b"1.0.0", **fields}
        present = {name: value for name, value in named.items() if value is not None}
        exchange = TusExchange(request(method, path, b"", length, **present))
        try:
            self.site.application.handle(cast("Exchange", exchange))
        except HttpError as error:
            # As a connection does.
            exchange.respond(problem_response(error.status, error.code, "", error.detail, exchange.request_id))
        return exchange

    def run(self) -> None:
        """Let everything happen."""
        while self.world.choices() or self.files.later:
            self.world.run()
            self.files.run_later()

    def ask(self, method: str, path: str, body: bytes | None = None, **fields: bytes | None) -> TusExchange:
        """A request that is played to its end."""
        exchange = self.begin(method, path, None if body is None else len(body), **fields)
        self.run()
        # Whoever looks whether bytes still come waits a few milliseconds.
        for _ in range(20):
            if exchange.answered or exchange.taken:
                break
            self.world.advance(0.003)
        if exchange.taken and not exchange.answered:
            if body:
                exchange.send(body)
            exchange.end()
        self.run()
        return exchange

    def post(self, body: bytes | None = None, **fields: bytes | None) -> TusExchange:
        """POST to the collection, signed."""
        signature = signing.x_signature(SECRET, "/tus/").encode()
        return self.ask("POST", "/tus/", body, **{"x_signature": signature, **fields})

    def create(self, length: int | None, **fields: bytes) -> str:
        """Begin an upload; its path."""
        size = {"upload_defer_length": b"1"} if length is None else {"upload_length": b"%d" % length}
        return self.path_of(self.post(None, **{**size, **fields}))

    def final(self, *parts: str, **fields: bytes) -> TusExchange:
        """Make an upload of others."""
        return self.post(None, upload_concat=f"final;{' '.join(parts)}".encode(), **fields)

    def path_of(self, created: TusExchange) -> str:
        assert created.status == 201, created.answer.body
        return f"/tus/{created.header('location')}"

    def part(self, body: bytes) -> str:
        """A part that is whole."""
        path = self.create(len(body), upload_concat=b"partial")
        assert self.patch(path, 0, body).status == 204
        return path

    def head(self, path: str) -> TusExchange:
        return self.ask("HEAD", path)

    def patch(self, path: str, offset: int, body: bytes, **fields: bytes | None) -> TusExchange:
        given = {"content_type": STREAM, "upload_offset": b"%d" % offset, **fields}
        return self.ask("PATCH", path, body, **given)

    def begin_patch(self, path: str, offset: int, length: int, **fields: bytes) -> TusExchange:
        """A PATCH whose body comes later."""
        given = {"content_type": STREAM, "upload_offset": b"%d" % offset, **fields}
        return self.begin("PATCH", path, length, **given)

    def contents(self) -> list[bytes]:
        """What is published."""
        linked = [bytes(link.file.live) for link in self.world.disk.links.values()]
        return linked + [content for _entry, content in self.files.files.values()]

    @property
    def promised(self) -> tuple[int, int]:
        """Bytes and uploads that space is promised to."""
        pool = self.world.processes[0].pool
        return pool.bytes, pool.uploads
