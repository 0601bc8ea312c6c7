"""Servers of upload protocols in memory, as `Exchanges`, whose network fails where a test says; and a simple engine."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from hmac_file_server.client.errors import ConnectionLost, UploadFailed
from hmac_file_server.client.protocol import Answer, Facts, Piece, Received, Remote, Request, Result, Session
from hmac_file_server.client.source import Portion, Source

KEY = "0123456789abcdef"


@dataclass
class Cut:
    """Where the network fails: of request number `at`, `keep` bytes arrive, and the answer is lost."""

    at: int
    keep: int


@dataclass
class World:
    """What both kinds of server share. Requests are kept in `requests`; `cuts` are by number, from 0."""

    cuts: Mapping[int, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    special: Callable[[Request], Answer | None] = lambda _: None
    received: int = 0
    """Bytes of all bodies that arrived."""
    ids: itertools.count[int] = field(default_factory=itertools.count)

    async def exchange(self, request: Request) -> Answer:
        number = len(self.requests)
        self.requests.append(request)
        body = b""
        if request.body is not None:
            portion = request.body
            assert isinstance(portion, Portion)
            body = portion.source.read(portion.start, portion.length)
        keep = self.cuts.get(number)
        arrived = body if keep is None else body[:keep]
        self.received += len(arrived)
        answer = self.special(request)
        if answer is None:
            answer = self.serve(request, {k.lower(): v for k, v in request.headers.items()}, arrived, len(body))
        if keep is not None:
            raise ConnectionLost("cut")
        return answer

    def serve(self, request: Request, fields: Mapping[str, str], body: bytes, announced: int) -> Answer:
        raise NotImplementedError

    def sent(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]


def answer(status: int, told: Mapping[str, object] | None = None, **fields: str) -> Answer:
    """`upload_offset="5"` is the field Upload-Offset; `told` goes as JSON."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    if told is None:
        return Answer(status, headers, b"")
    return Answer(status, {**headers, "content-type": "application/problem+json"}, json.dumps(told).encode())


@dataclass
class Stored:
    length: int | None
    content: bytes = b""
    partial: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass
class TusServer(World):
    """tus 1.0.0 with creation, termination, and the `extensions`; keeps what came of a body that was cut."""

    extensions: str = "creation,termination,concatenation,checksum"
    location: str = "{path}"
    keyed: bool = False
    """Whether Idempotency-Key is heeded."""
    uploads: dict[str, Stored] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def serve(self, request: Request, fields: Mapping[str, str], body: bytes, announced: int) -> Answer:
        if request.method == "OPTIONS":
            return answer(
                204, tus_extension=self.extensions, tus_checksum_algorithm="sha1,sha256", tus_max_size="99999999"
            )
        assert fields["tus-resumable"] == "1.0.0"
        if request.method == "POST":
            return self._create(request, fields)
        upload = self.uploads.get(request.target)
        if upload is None:
            return answer(404)
        if request.method == "DELETE":
            del self.uploads[request.target]
            return answer(204)
        if request.method == "HEAD":
            return answer(200, upload_offset=str(len(upload.content)), upload_length=str(upload.length))
        assert request.method == "PATCH"
        assert fields["content-type"] == "application/offset+octet-stream"
        if int(fields["upload-offset"]) != len(upload.content):
            return answer(409)
        if "upload-checksum" in fields:
            algorithm, value = fields["upload-checksum"].split(" ")
            if hashlib.new(algorithm, body).digest() != base64.b64decode(value):
                return answer(460)
        upload.content += body
        assert upload.length is not None
        assert len(upload.content) <= upload.length
        return answer(204, upload_offset=str(len(upload.content)))

    def _create(self, request: Request, fields: Mapping[str, str]) -> Answer:
        key = fields["idempotency-key"]
        if self.keyed and key in self.keys:
            path = self.keys[key]
            done = self.uploads[path]
            return answer(201, location=self.location.format(path=path), upload_offset=str(len(done.content)))
        concat = fields.get("upload-concat", "")
        assert not concat or "concatenation" in self.extensions
        path = f"/files/{next(self.ids)}"
        if concat.startswith("final;"):
            parts = [self.uploads.get(part) for part in concat.removeprefix("final;").split(" ")]
            if None in parts:
                return answer(404, {"code": "part_missing", "detail": "gone"})
            assert "upload-length" not in fields
            content = b""
            for part in parts:
                assert part is not None
                assert part.partial
                assert len(part.content) == part.length
                content += part.content
            self.uploads[path] = Stored(len(content), content, fields=fields)
        else:
            self.uploads[path] = Stored(int(fields["upload-length"]), partial=concat == "partial", fields=fields)
        self.keys[key] = path
        return answer(201, location=self.location.format(path=path), upload_expires="Mon, 01 Jan 2035 00:00:00 GMT")

    def whole(self) -> list[bytes]:
        """The contents of complete uploads that are no parts."""
        return [one.content for one in self.uploads.values() if not one.partial and len(one.content) == one.length]


@dataclass
class PutServer(World):
    """Takes PUTs; with `resumable` also the IETF protocol (newest form). Files by path."""

    resumable: bool = True
    receipts: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, Stored] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)

    def serve(self, request: Request, fields: Mapping[str, str], body: bytes, announced: int) -> Answer:
        if request.method == "OPTIONS":
            return (
                answer(204, accept_patch="text/x-diff, application/partial-upload") if self.resumable else answer(200)
            )
        if request.method in {"PUT", "POST"} and "upload-complete" in fields and self.resumable:
            return self._create(request, fields)
        if request.method == "PUT":
            if len(body) != announced:
                return answer(400)
            self.files[request.target.partition("?")[0]] = body
            return answer(201)
        upload = self.uploads.get(request.target)
        if upload is None:
            return answer(404)
        if request.method == "DELETE":
            del self.uploads[request.target]
            return answer(204)
        told = {"upload_offset": str(len(upload.content))}
        if request.method == "HEAD":
            return answer(204, None, upload_complete="?0", **told)
        assert request.method == "PATCH"
        assert fields["content-type"] == "application/partial-upload"
        if int(fields["upload-offset"]) != len(upload.content):
            return answer(409, None, **told)
        upload.content += body
        if fields["upload-complete"] == "?1" and len(body) == announced:
            assert len(upload.content) == upload.length
            return self._published(self.targets[request.target], upload.content)
        return answer(204, upload_complete="?0", upload_offset=str(len(upload.content)))

    def _create(self, request: Request, fields: Mapping[str, str]) -> Answer:
        path = request.target.partition("?")[0] if request.method == "PUT" else f"/{next(self.ids)}/file"
        if fields["upload-complete"] == "?1":
            return self._published(path, b"")
        resource = f"/resources/{next(self.ids)}"
        self.uploads[resource] = Stored(int(fields["upload-length"]), fields=fields)
        self.targets[resource] = path
        return answer(201, location=resource, upload_complete="?0", upload_offset="0")

    def _published(self, path: str, content: bytes) -> Answer:
        self.files[path] = content
        if not self.receipts:
            return answer(201, upload_complete="?1")
        return answer(200, {"url": path, "filename": "as understood", "size": len(content), "sha256": "0" * 64})


async def drive(
    remote: Remote,
    data: bytes,
    *,
    name: str = "a file.bin",
    media_type: str | None = None,
    session: Session | None = None,
    key: str = KEY,
) -> Result:
    """Upload by a protocol, one piece after the other, as the engine does. Gives up at what is not retriable."""
    facts = Facts(name, len(data), media_type, key)
    source = Source(io.BytesIO(data))
    known: Received | None = None
    try:
        for _ in range(1000):
            try:
                if session is None:
                    asked, facts = facts, replace(facts, repeated=True)
                    session, known = await remote.begin(asked)
                elif known is None:
                    known = await remote.ask(session)
                if known.result is not None:
                    return known.result
                piece = missing(session, known)
                known = await remote.send(session, piece, Portion(source, piece.start, piece.length))
            except UploadFailed as error:
                if not error.retriable:
                    raise
                known = None
                if session is not None and not remote.resumable:
                    session = None
        raise AssertionError("this never ends")
    finally:
        source.close()


def missing(session: Session, known: Received) -> Piece:
    """The first piece that is not there."""
    at = 0
    for start, stop in known.ranges:
        if start > at:
            break
        at = stop
    size = session.chunk_size or session.size
    chunk = at // size
    return Piece(at, min(session.size, (chunk + 1) * size), chunk, chunk * size)
