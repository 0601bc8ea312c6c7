"""One request and the answer it is owed."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hmac_file_server.http.body import BodyEnd, BodySink
from hmac_file_server.http.request import Request
from hmac_file_server.http.response import Response

if TYPE_CHECKING:
    from hmac_file_server.http.connection import Connection

BodyDone = Callable[[BodyEnd], None]

# What became of a request's body: nobody asked for it; all of it was read; some of it may still come.
UNTOUCHED, WHOLE, CUT = range(3)


class Exchange:
    """What a handler holds: the request, and the ways to take its body and to answer it.

    Exactly one final response must be given. All methods but `respond_soon` belong to the event loop's
    thread.
    """

    __slots__ = ("_answered", "_connection", "_id", "body", "owner", "received", "request", "started")

    def __init__(self, connection: "Connection", request: Request) -> None:
        self._connection = connection
        self.request = request
        self.started = time.monotonic()
        self.owner: str | None = None
        # What became of the body; kept by the connection.
        self.body = UNTOUCHED
        # Body bytes that came, whether they were wanted or not.
        self.received = 0
        self._answered = False
        self._id: str | None = None

    @property
    def request_id(self) -> str:
        """A short unique word that stands in the answer's problem document and in the log."""
        if self._id is None:
            self._id = self._connection.listener.next_request_id()
        return self._id

    @property
    def peer(self) -> str:
        """The client's address as seen by the listener, "ip:port", or "unix"."""
        return self._connection.peer

    @property
    def answered(self) -> bool:
        """True once a final response was given."""
        return self._answered

    @property
    def body_arrived(self) -> bool:
        """True when the whole body (of a known length) came with the head, so taking it will not wait."""
        return self._connection.body_arrived(self.request)

    def take_body(self) -> bytes:
        """The whole body, which must have arrived (`body_arrived`). Raises RuntimeError when it has not."""
        return self._connection.take_body(self)

    def respond(self, response: Response) -> None:
        """Give the final response. A second one is a defect and raises RuntimeError."""
        if self._answered:
            raise RuntimeError("this exchange has been answered")
        self._answered = True
        self._connection.answer(self, response)

    def respond_soon(self, response: Response) -> None:
        """`respond`, from any thread."""
        self._connection.listener.call_soon(self._respond_unless_gone, response)

    def _respond_unless_gone(self, response: Response) -> None:
        if not self._answered:
            self.respond(response)

    def receive(self, sink: BodySink, done: BodyDone, *, limit: int | None = None) -> None:
        """Take the body: answer 100-continue if asked, feed `sink`, then call `done` on the event loop.

        `limit` bounds a chunked body's decoded size (cut TOO_LARGE). With a body that is already here,
        `done` is called before `receive` returns.
        """
        self._connection.receive(self, sink, done, limit)

    def interim(self, status: int, head: bytes = b"") -> None:
        """Send an interim (1xx) response at once. HTTP/1.0 clients never get one (RFC 9110 section 15.2)."""
        self._connection.send_interim(self, status, head)
