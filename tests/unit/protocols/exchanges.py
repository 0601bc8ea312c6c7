"""An exchange with no socket behind it: a request as parsed, a body in pieces, the answers that were given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hmac_file_server.http import BodyCut, BodyEnd, Request, Response
from hmac_file_server.http.body import BodySink


def request(method: str, path: str, query: bytes = b"", length: int | None = None, **fields: bytes) -> Request:
    """A parsed head; field names are spelled with underscores."""
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    parsed = Request(method, path, query, named, http10=False)
    if length is not None:
        named[b"content-length"] = b"%d" % length
        parsed.content_length = length
    parsed.chunked = named.get(b"transfer-encoding") == b"chunked"
    return parsed


class FakeExchange:
    """What a handler sees of `http.Exchange`. `pieces` are the body; `cut` ends it early."""

    def __init__(self, parsed: Request, pieces: Sequence[bytes] = (), cut: BodyCut | None = None) -> None:
        self.request = parsed
        self.pieces = list(pieces)
        self.cut = cut
        self.owner: str | None = None
        self.answers: list[Response] = []
        self.asked = False
        self.limit: int | None = None
        self.here = False
        self.request_id = "test-1"
        self.peer = "192.0.2.7:5000"
        self.render: Callable[[Response], Response] | None = None

    @property
    def body_arrived(self) -> bool:
        return self.here

    @property
    def answered(self) -> bool:
        return bool(self.answers)

    @property
    def answer(self) -> Response:
        assert len(self.answers) == 1, self.answers
        return self.answers[0]

    def take_body(self) -> bytes:
        self.asked = True
        return b"".join(self.pieces)

    def respond(self, response: Response) -> None:
        assert not self.answers
        self.answers.append(response if self.render is None else self.render(response))

    respond_soon = respond

    def receive(self, sink: BodySink, done: Callable[[BodyEnd], None], *, limit: int | None = None) -> None:
        self.asked = True
        self.limit = limit
        received = 0
        for piece in self.pieces:
            try:
                # Only valid during the call, as a body loop's buffer is.
                buffer = bytearray(piece)
                sink.write(memoryview(buffer))
                buffer[:] = bytes(len(buffer))
            except Exception as error:
                done(BodyEnd(received, BodyCut.REFUSED, error))
                return
            received += len(piece)
        done(BodyEnd(received, self.cut))
