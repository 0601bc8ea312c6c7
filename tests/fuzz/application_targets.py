"""Everything behind a head at once: the routes with every protocol, over stores, a disk and an engine in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

from tests.fixtures import slots
from tests.fixtures.server import SECRET
from tests.fuzz.target import SEPARATOR, Target, joined
from tests.unit.protocols.chunk_site import ChunkSite
from tests.unit.protocols.conftest import SECRET as SITE_SECRET

from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Request, Response
from hmac_file_server.http.body import BodySink
from hmac_file_server.http.chunked import ChunkedDecoder, pieces
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.request import HeadParser
from hmac_file_server.http.response import problem_response

assert SITE_SECRET.decode() == SECRET
_ALLOWED = frozenset({501, 503, 505, 507})
_REQUESTS = 4


class _Exchange:
    """What a handler sees of `http.Exchange`, with a body that is here already."""

    def __init__(self, parsed: Request, body: bytes, *, whole: bool, cut_at: int) -> None:
        self.request = parsed
        self.request_id = "fuzz-1"
        self.peer = "192.0.2.7:5000"
        self.owner: str | None = None
        self.fields = b""
        self.trailers: dict[bytes, bytes] = {}
        self.body_lost = False
        self.body_arrived = whole and len(body) <= 65536
        self.answers: list[Response] = []
        self.render: Callable[[Response], Response] | None = None
        self._body = body
        self._whole = whole
        self._cut_at = cut_at
        self._taken = False

    @property
    def answered(self) -> bool:
        return bool(self.answers)

    def take_body(self) -> bytes:
        assert not self._taken
        self._taken = True
        return self._body

    def respond(self, response: Response) -> None:
        assert not self.answers, "answered twice"
        response.head += self.fields
        self.answers.append(response if self.render is None else self.render(response))

    respond_soon = respond

    def interim(self, status: int, head: bytes) -> None:
        assert not self.answers
        assert status == 104
        assert head.endswith(b"\r\n")

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Nobody leaves."""

    def cut(self, cut: BodyCut) -> None:
        """The body is here already."""

    def receive(self, sink: BodySink, done: Callable[[BodyEnd], None], *, limit: int | None = None) -> None:
        assert not self._taken, "the body is taken twice"
        self._taken = True
        received = 0
        at = self._cut_at % (len(self._body) + 1)
        for piece in (self._body[:at], self._body[at:]):
            if not piece:
                continue
            if self.request.chunked and limit is not None and received + len(piece) > limit:
                done(BodyEnd(received, BodyCut.TOO_LARGE))
                return
            try:
                sink.write(memoryview(bytearray(piece)))
            except Exception as error:
                done(BodyEnd(received, BodyCut.REFUSED, error))
                return
            received += len(piece)
        done(BodyEnd(received, None if self._whole else BodyCut.DISCONNECTED))


def application(data: bytes) -> bool:
    """A few requests on one server: no fault is the server's, and nothing is published that nobody signed for."""
    site = ChunkSite()
    known = ""
    taken = False
    for raw in data.split(SEPARATOR)[:_REQUESTS]:
        found = _ask(site, raw.replace(b"@ID@", known.encode()))
        if found is None:
            continue
        response = found
        assert response.status < 500 or response.status in _ALLOWED, response.status
        _check_fields(response)
        if response.status < 400:
            taken = True
            known = _session(response) or known
    published = len(site.contents()) + len(site.files.files)
    assert published == 0 or any(word in data.replace(b"@ID@", b"").lower() for word in _CREDENTIALS), data
    return taken


def _ask(site: ChunkSite, raw: bytes) -> Response | None:
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return None
    try:
        parsed = HeadParser({}).parse(head + b"\r\n\r\n", 100, 8192)
    except HttpError:
        return None
    whole = True
    if parsed.chunked:
        decoder = ChunkedDecoder()
        view = memoryview(body)
        try:
            spans, _ = decoder.feed(view)
        except HttpError:
            return None
        body, whole = b"".join(bytes(piece) for piece in pieces(view, spans)), decoder.done
    else:
        length = parsed.content_length or 0
        body, whole = body[:length], len(body) >= length
    exchange = _Exchange(parsed, body, whole=whole, cut_at=len(head))
    try:
        site.site.application.handle(cast("Exchange", exchange))
    except HttpError as error:
        exchange.respond(problem_response(error.status, error.code, "", error.detail, exchange.request_id))
    site.world.run()
    site.files.run_later()
    site.site.store.run_later()
    site.world.run()
    if not exchange.answers:
        # A long poll is answered when its time is over.
        assert b"wait=" in parsed.query, "not answered"
        return None
    return exchange.answers[0]


def _check_fields(response: Response) -> None:
    head = response.head
    if head:
        assert head.endswith(b"\r\n")
    for line in head.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b": ")
        assert colon, line
        assert name.replace(b"-", b"").isalnum(), line
        assert not set(value) & set(b"\r\n\0"), line
    if b"json" in head and response.body:
        json.loads(response.body)


def _session(response: Response) -> str:
    for line in response.head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name.lower() == b"location":
            return value.rpartition(b"/")[2].decode("latin-1")
    return ""


_X = slots.x_signature
_MAC = _X("/upload").encode()
_CHUNKED = _X("/upload/chunked").encode()
_TUS = _X("/tus/").encode()
_SLOT = slots.v1("a/b.bin", 3).encode()
_WHOLE = _X("/upload/a/b.bin").encode()
_CREDENTIALS = (_MAC, _CHUNKED, _TUS, _WHOLE, _SLOT.partition(b"=")[2])
_FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nabc\r\n--b--\r\n'

SEEDS = (
    b"PUT /upload/a/b.bin?" + _SLOT + b" HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc",
    joined(
        b"POST /upload/chunked HTTP/1.1\r\nHost: t\r\nX-Signature: "
        + _CHUNKED
        + b"\r\nX-Filename: a%20b\r\nX-Total-Size: 5\r\n\r\n",
        b"PUT /upload/chunked HTTP/1.1\r\nHost: t\r\nX-Upload-Session-ID: @ID@\r\nX-Chunk-Number: 0\r\nContent-Length: 5\r\n\r\nabcde",
        b"GET /upload/status?session_id=@ID@&wait=0 HTTP/1.1\r\nHost: t\r\n\r\n",
        b"DELETE /upload/chunked HTTP/1.1\r\nHost: t\r\nX-Upload-Session-ID: @ID@\r\n\r\n",
    ),
    joined(
        b"POST /tus/ HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nX-Signature: "
        + _TUS
        + b"\r\nUpload-Length: 5\r\nUpload-Metadata: filename YQ==\r\n\r\n",
        b"PATCH /tus/@ID@ HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: 3\r\n\r\nabc",
        b"HEAD /tus/@ID@ HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\n\r\n",
        b"PATCH /tus/@ID@ HTTP/1.1\r\nHost: t\r\nUpload-Draft-Interop-Version: 6\r\nUpload-Complete: ?1\r\nUpload-Offset: 3\r\nContent-Type: application/partial-upload\r\nContent-Length: 2\r\n\r\nde",
    ),
    joined(
        b"POST /upload HTTP/1.1\r\nHost: t\r\nX-Signature: "
        + _MAC
        + b"\r\nUpload-Complete: ?0\r\nUpload-Draft-Interop-Version: 8\r\nContent-Length: 2\r\n\r\nab",
        b"PUT /tus/@ID@ HTTP/1.1\r\nHost: t\r\nContent-Range: bytes 2-2/3\r\nContent-Length: 1\r\n\r\nc",
        b"GET /tus/@ID@ HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nRange: bytes=0-1\r\n\r\n",
    ),
    b"POST /upload HTTP/1.1\r\nHost: t\r\nX-Signature: "
    + _MAC
    + b"\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: "
    + b"%d" % len(_FORM)
    + b"\r\n\r\n"
    + _FORM,
    b"PUT /upload/a/b.bin HTTP/1.1\r\nHost: t\r\nX-Signature: "
    + _WHOLE
    + b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"OPTIONS /tus/ HTTP/1.1\r\nHost: t\r\nOrigin: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\nAccept: text/html\r\n\r\n",
    b"GET /?ticket=a.b.c HTTP/1.1\r\nHost: t\r\nAccept: text/html\r\n\r\n",
    b"DELETE /upload/a/b.bin?" + slots.delete_token("a/b.bin").encode() + b" HTTP/1.1\r\nHost: t\r\n\r\n",
)
"""Whole conversations: `@ID@` stands for the upload that was begun last."""

TARGETS = (
    Target(
        "application",
        application,
        SEEDS,
        (
            b"GET", b"PUT", b"POST", b"PATCH", b"DELETE", b"HEAD", b"/tus/@ID@", b"/upload/chunked", b"/upload/status?session_id=@ID@", b"&wait=1", b"/upload",
            b"Upload-Offset: 3\r\n", b"Upload-Length: 3\r\n", b"Upload-Defer-Length: 1\r\n", b"Upload-Concat: partial\r\n", b"Upload-Concat: final;/tus/@ID@\r\n",
            b"Upload-Checksum: sha1 AAAA\r\n", b"Upload-Complete: ?1\r\n", b"Upload-Incomplete: ?1\r\n", b"Upload-Draft-Interop-Version: 3\r\n", b"Tus-Resumable: 1.0.0\r\n",
            b"X-HTTP-Method-Override: PATCH\r\n", b"Content-Range: bytes */5\r\n", b"X-Chunk-Number: 1\r\n", b"X-Chunk-Offset: 0\r\n", b"Idempotency-Key: k\r\n", b"Repr-Digest: sha-256=:AAAA:\r\n",
            b"Want-Repr-Digest: sha-256=1\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"\r\n\r\n", b"\x1f", b"@ID@", b"Content-Digest: sha-256=:AAAA:\r\n", b"Prefer: x\r\n",
        ),
    ),
)  # fmt: skip
