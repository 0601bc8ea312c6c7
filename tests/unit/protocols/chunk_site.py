"""The chunk API over an engine whose time, disk and store are played by hand: one request after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from tests.fixtures.engine_world import World, digest_of
from tests.unit.protocols.conftest import SECRET, Site
from tests.unit.protocols.exchanges import request
from tests.unit.uploads.memory_store import MemoryReader, MemoryStore

from hmac_file_server.auth import signing
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import FileStore, StoragePath
from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Request, Response
from hmac_file_server.http.body import BodySink
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.response import problem_response

PATH = "/upload/chunked"
KIB = 1 << 10


class Told:
    """An answer, as its client reads it."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.head = response.head
        self.body = response.body
        self.json: dict[str, Any] = json.loads(response.body) if b"json" in response.head else {}

    @property
    def code(self) -> tuple[int, object]:
        return self.status, self.json.get("code")


class ChunkExchange:
    """What a handler sees of `http.Exchange`: a body in pieces, which ends as the test says."""

    def __init__(self, parsed: Request, pieces: Sequence[bytes], end: BodyCut | None) -> None:
        self.request = parsed
        self.request_id = "test-1"
        self.peer = "192.0.2.7:5000"
        self.owner: str | None = None
        self.body_lost = False
        self.answers: list[Response] = []
        self.gone: Callable[[], None] | None = None
        self.taken = False
        self._pieces = pieces
        self._end = end

    @property
    def answered(self) -> bool:
        return bool(self.answers)

    def respond(self, response: Response) -> None:
        assert not self.answers, "answered twice"
        self.answers.append(response)

    respond_soon = respond

    def on_gone(self, callback: Callable[[], None]) -> None:
        assert self.gone is None
        self.gone = callback

    def cut(self, cut: BodyCut) -> None:
        assert self.taken, f"{cut} before the body was asked for"

    def receive(self, sink: BodySink, done: Callable[[BodyEnd], None], *, limit: int | None = None) -> None:
        assert not self.taken
        self.taken = True
        received = 0
        for piece in self._pieces:
            if self.request.chunked and limit is not None and received + len(piece) > limit:
                if limit > received:
                    sink.write(memoryview(piece[: limit - received]))
                done(BodyEnd(limit, BodyCut.TOO_LARGE))
                return
            try:
                sink.write(memoryview(piece))
            except Exception as error:
                done(BodyEnd(received, BodyCut.REFUSED, error))
                return
            received += len(piece)
        done(BodyEnd(received, self._end))


class Published(MemoryStore):
    """The published files of a world; `errors` as in a MemoryStore."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def open(self, path: StoragePath, /) -> MemoryReader | None:
        self.fail("open")
        link = self._world.disk.links.get(path)
        return None if link is None else MemoryReader(self, link.entry, bytes(link.file.live))


class ChunkSite:
    """A site that takes chunks."""

    def __init__(self, **uploads: Any) -> None:
        """`uploads` are settings of that section."""
        settings = Settings()
        self.settings = replace(settings, uploads=replace(settings.uploads, **{"chunk_size": KIB, **uploads}))
        self.world = World()
        self.site = Site(self.settings)
        self.files = Published(self.world)
        process = self.world.processes[0]
        app = self.site.application
        app.engine = self.world.engine
        app.store = cast("FileStore", self.files)
        app.random = self.world.chance.randbytes
        app.call_later = process.call_later

    def exchange(
        self,
        method: str,
        fields: Mapping[str, bytes],
        body: bytes | None = None,
        *,
        path: str = PATH,
        query: str = "",
        pieces: Sequence[bytes] | None = None,
        end: BodyCut | None = None,
    ) -> ChunkExchange:
        """Ask; nothing has happened yet but the call of the handler. `pieces`: a body in the chunked coding."""
        named = {name.replace("-", "_"): value for name, value in fields.items()}
        if pieces is not None:
            named["transfer_encoding"] = b"chunked"
        length = None if pieces is not None or body is None else len(body)
        parsed = request(method, path, query.encode(), length, **named)
        exchange = ChunkExchange(parsed, pieces if pieces is not None else [body] if body else [], end)
        try:
            self.site.application.handle(cast("Exchange", exchange))
        except HttpError as error:
            # As a connection does.
            exchange.respond(problem_response(error.status, error.code, "", error.detail, exchange.request_id))
        return exchange

    def ask(self, method: str, fields: Mapping[str, bytes], body: bytes | None = None, **options: Any) -> Told:
        """Ask, and let everything happen until there is an answer."""
        exchange = self.exchange(method, fields, body, **options)
        self.world.run()
        assert len(exchange.answers) == 1, "not answered"
        return Told(exchange.answers[0])

    def create(self, size: int = 2500, name: bytes = b"f.bin", **fields: bytes) -> Told:
        """Begin an upload; `fields` are more header fields, with underscores, or others instead."""
        given = {
            "x_filename": name,
            "x_total_size": b"%d" % size,
            "x_signature": signing.x_signature(SECRET, PATH).encode(),
            **fields,
        }
        return self.ask("POST", {key: value for key, value in given.items() if value != b"-"})

    def begin(self, size: int = 2500, **fields: bytes) -> str:
        """Begin an upload that is taken; its id."""
        told = self.create(size, **fields)
        assert told.status == 201, told.body
        found = told.json["session_id"]
        assert isinstance(found, str)
        return found

    def chunk(self, session: str, number: int | bytes, body: bytes = b"", **options: Any) -> Told:
        """Send a chunk; `fields` in the options are more header fields."""
        fields = {
            "x-upload-session-id": session.encode(),
            "x-chunk-number": b"%d" % number if isinstance(number, int) else number,
            **options.pop("fields", {}),
        }
        return self.ask("PUT", fields, None if "pieces" in options else body, **options)

    def look(self, session: str, more: str = "", **options: Any) -> Told:
        """The status."""
        return self.ask("GET", {}, path="/upload/status", query=f"session_id={session}{more}", **options)

    def delete(self, session: str) -> Told:
        return self.ask("DELETE", {"x-upload-session-id": session.encode()})

    @property
    def sessions(self) -> int:
        """Sessions that anybody remembers, in any state."""
        return len(self.world.sessions.sessions)

    @property
    def promised(self) -> tuple[int, int]:
        """Bytes and uploads that space is promised to."""
        pool = self.world.processes[0].pool
        return pool.bytes, pool.uploads

    def contents(self) -> list[bytes]:
        """What was published."""
        return [bytes(link.file.live) for link in self.world.disk.links.values()]


def digest(body: bytes) -> str:
    """The digest of a published file, as an answer tells it."""
    return digest_of(body).partition(":")[2]
