"""One request and the answer it is owed."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hmac_file_server.http.body import BodyCut, BodyEnd, BodySink
from hmac_file_server.http.request import Request
from hmac_file_server.http.response import Response

if TYPE_CHECKING:
    from hmac_file_server.http.connection import Connection

BodyDone = Callable[[BodyEnd], None]
Give = Callable[[int, bytes, str], bool]
"""Takes (descriptor, unread bytes, peer) away to where they will be served; False when it cannot.

The descriptor is closed when it returns: it has to be duplicated, as passing it to another process does.
"""

# What became of a request's body: nobody asked for it; all of it was read; some of it may still come.
UNTOUCHED, WHOLE, CUT = range(3)

# Whether a final response was given, or none can be given any more.
_OPEN, _ANSWERED, _DROPPED = range(3)


_NO_TRAILERS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Exchange:
    """What a handler holds: the request, and the ways to take its body and to answer it.

    Exactly one final response must be given. All methods but `respond_soon` belong to the event loop's
    thread.
    """

    __slots__ = (
        "_answered",
        "_connection",
        "_id",
        "body",
        "fields",
        "head",
        "owner",
        "received",
        "render",
        "request",
        "started",
        "trailers",
    )

    def __init__(self, connection: "Connection", request: Request, head: bytes) -> None:
        self._connection = connection
        self.request = request
        # As it came.
        self.head = head
        self.started = time.monotonic()
        self.owner: str | None = None
        # What became of the body; kept by the connection.
        self.body = UNTOUCHED
        # Body bytes that came, whether they were wanted or not.
        self.received = 0
        # Field lines that the final answer has besides its own, whatever it is.
        self.fields = b""
        # What makes another of the final answer, whoever gives it: a page for people, say.
        self.render: Callable[[Response], Response] | None = None
        # Trailers of a chunked body that came whole: lower-case names, values.
        self.trailers: Mapping[bytes, bytes] = _NO_TRAILERS
        self._answered = _OPEN
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
        """True once a final response was given, or the connection was dropped or given away."""
        return self._answered != _OPEN

    @property
    def body_arrived(self) -> bool:
        """True when the whole body (of a known length) came with the head, so taking it will not wait."""
        return self._connection.body_arrived(self.request)

    @property
    def body_lost(self) -> bool:
        """True when the client has sent its last byte, or is gone, and the body will never be whole."""
        return self._connection.body_lost(self.request)

    def take_body(self) -> bytes:
        """The whole body, which must have arrived (`body_arrived`). Raises RuntimeError when it has not."""
        return self._connection.take_body(self)

    def respond(self, response: Response) -> None:
        """Give the final response. A second one is a defect and raises RuntimeError.

        After `abort` and `hand_over`, which take the connection away, it is dropped.
        """
        if self._answered:
            if self._answered == _ANSWERED:
                raise RuntimeError("this exchange has been answered")
            if response.source is not None:
                response.source.close()
            return
        render, self.render = self.render, None
        if render is not None:
            response = render(response)
        self._answered = _ANSWERED
        if self.fields:
            response.head += self.fields
        self._connection.answer(self, response)

    def respond_soon(self, response: Response) -> None:
        """`respond`, from any thread."""
        self._connection.listener.call_soon(self._respond_unless_gone, response)

    def _respond_unless_gone(self, response: Response) -> None:
        if self._answered != _ANSWERED:
            self.respond(response)

    def receive(self, sink: BodySink, done: BodyDone, *, limit: int | None = None) -> None:
        """Take the body: answer 100-continue if asked, feed `sink`, then call `done` on the event loop.

        `limit` bounds a chunked body's decoded size (cut TOO_LARGE). With a body that is already here,
        `done` is called before `receive` returns.
        """
        self._connection.receive(self, sink, done, limit)

    def cut(self, cut: BodyCut) -> None:
        """End the body early. A no-op when none is under way.

        What has arrived is given to the sink first; then `done` is called as usual, never before this
        returns, with `cut`, unless the body was whole by then or ended in another way.
        """
        self._connection.cut(self, cut)

    def abort(self) -> None:
        """Drop the connection at once, without an answer; counts as 499. A no-op once answered.

        A body under way is cut; its `done` is still called.
        """
        if not self._answered:
            self._answered = _DROPPED
            self._connection.abort_exchange(self)

    def hand_over(self, give: Give) -> bool:
        """Give the connection away before its body was touched: another process reads the request anew.

        Answers to earlier requests leave first; then `give` is called, perhaps after this has returned,
        and this process forgets the connection without a word to the client. Nothing is logged here for
        the request. False, and nothing has changed, when the body was touched, the client has left, or
        `give` refused at once; if it refuses later, the client gets 503 `server_busy`.
        """
        if self._answered or not self._connection.hand_over(self, give):
            return False
        self._answered = _DROPPED
        return True

    def reopen(self) -> None:
        """For the connection: it could not be given away after all, and the answer is owed again."""
        self._answered = _OPEN

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call once when the connection is lost before the answer was given; one callback at a time.

        A client that has only closed its sending side still waits for its answer.
        """
        self._connection.on_gone(self, callback)

    def interim(self, status: int, head: bytes = b"") -> None:
        """Send an interim (1xx) response at once. HTTP/1.0 clients never get one (RFC 9110 section 15.2)."""
        self._connection.send_interim(self, status, head)
