"""One HTTP/1.1 connection: heads in, answers out, in order.

The event loop reads into one buffer shared by all connections and only leftovers are kept per connection.
Requests whose body is already here are finished inline; larger bodies and files go to a body loop while the
transport's reading is paused. Rules that live here: one exchange at a time; nothing is parsed after an
error; a client that is told no gets time to read it; a half-closed client still gets its answer.
"""

import array
import asyncio
import contextlib
import fcntl
import functools
import logging
import os
import select
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from hmac_file_server.http.body import BodyCut, BodyEnd, BodySink
from hmac_file_server.http.bodyloop import BodyLoop, ReceiveJob, SendJob
from hmac_file_server.http.chunked import ChunkedDecoder, pieces
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.exchange import CUT, UNTOUCHED, WHOLE, BodyDone, Exchange, Give
from hmac_file_server.http.presence import Presence
from hmac_file_server.http.relay import Relay
from hmac_file_server.http.request import HeadParser, Request
from hmac_file_server.http.response import REASONS, FileSource, Response, problem_response

if TYPE_CHECKING:
    from hmac_file_server.http.listener import Listener

_log = logging.getLogger(__name__)

_FED_BYTES_MAX: Final = 1024 * 1024
_READ_STEP: Final = 128 * 1024
_CR: Final = 13
_LF: Final = 10
_NO_SPAN: Final = bytearray()
# An empty deque of its own would take more memory than the rest of the connection.
_NO_PIECES: Final[deque[bytes]] = deque(maxlen=0)
# Turns of the event loop in which a body that is being cut must bring nothing to count as read: decrypting
# may take a turn of its own.
_QUIET_TURNS: Final = 4
# What a body that is being cut may still bring through the event loop.
_CUT_BYTES_MAX: Final = 4 * 1024 * 1024
# How long a client must have sent nothing before a connection is closed that others have served.
_QUIET_SECONDS: Final = 0.2
# struct linger: on, no second.
_AT_ONCE: Final = struct.pack("ii", 1, 0)
# Each KiB of an answer counts like a request in the burst of a pipeline: some 64 KiB of answers wait, and one more.
_BURST_SHIFT: Final = 10


class State(IntEnum):
    """Where a connection stands."""

    IDLE = 0  # between requests, or a head is incomplete
    HANDLING = 1  # a handler has the exchange and has not answered
    COLLECTING = 2  # a small body is being gathered in memory
    OFFLOADED = 3  # a body loop reads the body
    SENDING = 4  # a file is on its way out
    LINGERING = 5  # answered early; what the client still sends is read and dropped
    LEAVING = 6  # to be given away as soon as earlier answers have left
    RELAYING = 7  # another process serves it; only its bytes go through here (TLS)
    CLOSED = 8


# An enum's member costs ten times a global's look-up, and these are looked up ten times a request.
_IDLE: Final = State.IDLE
_HANDLING: Final = State.HANDLING
_COLLECTING: Final = State.COLLECTING
_OFFLOADED: Final = State.OFFLOADED
_SENDING: Final = State.SENDING
_LINGERING: Final = State.LINGERING
_LEAVING: Final = State.LEAVING
_RELAYING: Final = State.RELAYING
_CLOSED: Final = State.CLOSED


class Connection(asyncio.BufferedProtocol):
    """The protocol object of one accepted socket."""

    __slots__ = (
        "_burst",
        "_close_after",
        "_collect_done",
        "_collect_need",
        "_collect_sink",
        "_collect_until",
        "_drained",
        "_end",
        "_eof",
        "_exchange",
        "_fed_job",
        "_fed_outstanding",
        "_fed_pieces",
        "_fed_total",
        "_given",
        "_gone",
        "_job",
        "_leaving",
        "_linger_left",
        "_loop",
        "_out",
        "_own",
        "_parser",
        "_position",
        "_processing",
        "_relay",
        "_source",
        "_tls",
        "_transport",
        "_vanished",
        "_write_paused",
        "_yielded",
        "deadline",
        "listener",
        "peer",
        "state",
    )

    def __init__(self, listener: "Listener", data: bytes | None = None, peer: str = "") -> None:
        """`data` and `peer` come with a connection that another process has begun to read."""
        self.listener = listener
        self.state = _IDLE
        self.deadline = 0.0
        self.peer = peer
        self._given = data
        self._leaving: _Leaving | None = None
        self._relay: Relay | None = None
        self._vanished = False
        self._transport: Any = None
        self._parser = HeadParser(listener.known_hosts)
        self._own = _NO_SPAN
        self._source = _NO_SPAN
        self._position = 0
        self._end = 0
        self._out: list[bytes] = []
        self._processing = False
        self._exchange: Exchange | None = None
        self._loop: BodyLoop | None = None
        self._job: ReceiveJob | None = None
        self._fed_job: ReceiveJob | None = None
        self._fed_outstanding = 0
        self._fed_pieces = _NO_PIECES
        self._fed_total = 0
        self._gone: tuple[Exchange, Callable[[], None]] | None = None
        self._close_after = False
        self._eof = False
        self._write_paused = False
        self._yielded = False
        self._drained: Any = None
        self._linger_left = 0
        self._burst = 0
        self._tls = False
        self._collect_need = 0
        self._collect_until = 0.0
        self._collect_sink: BodySink | None = None
        self._collect_done: BodyDone | None = None

    # ---- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted."""
        self._transport = transport
        address = transport.get_extra_info("peername")
        if self._given is not None:
            # Requests that were kept: whatever comes before they are resumed is appended to them.
            self._own, self._given = bytearray(self._given), None
            self._yielded = True
            self.listener.call_later_turn(self._resume)
        elif isinstance(address, tuple):
            self.peer = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        elif transport.get_extra_info("socket").family == socket.AF_UNIX:
            self.peer = "unix"
        else:
            # It left before it was accepted. Whoever it was, it is none of the proxies that are believed.
            self.peer = "gone"
        self._tls = transport.get_extra_info("sslcontext") is not None
        listener = self.listener
        if listener.on_connect is not None:
            listener.on_connect(transport.get_extra_info("socket"))
        self.deadline = listener.now() + listener.limits.header_timeout
        if not listener.adopt(self):
            self._refuse(HttpError(503, "too_many_connections", "The server has too many connections."))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """The one hot buffer of this event loop: filled and used up before the loop turns."""
        return self.listener.view

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived in the shared buffer."""
        state = self.state
        if state == _OFFLOADED:
            self._feed(bytes(self.listener.view[:nbytes]))
            return
        if state >= _LINGERING:
            self._late(state, nbytes)
            return
        if self._own:
            self._own += self.listener.view[:nbytes]
            self._turn(self._own, len(self._own), fresh=False)
        else:
            self._turn(self.listener.buffer, nbytes, fresh=True)

    def _late(self, state: State, nbytes: int) -> None:
        """Bytes arrived that no request of this connection will be made of."""
        if state == _LINGERING:
            self._linger_left -= nbytes
            if self._linger_left <= 0:
                self.abort()
        elif state == _LEAVING and self._leaving is not None:
            self._leaving.data += self.listener.view[:nbytes]
        elif state == _RELAYING and self._relay is not None:
            self._fed_total += nbytes
            self._relay.feed(bytes(self.listener.view[:nbytes]))

    def eof_received(self) -> bool:
        """The client will send no more. What it asked for before is still answered (half-close)."""
        self._eof = True
        # Answers of this very loop turn: what is written after this returns False is lost.
        self.flush()
        state = self.state
        if state == _OFFLOADED:
            self._feed(b"")
        elif state == _COLLECTING:
            self._cut_collecting(BodyCut.DISCONNECTED)
        elif state in {_LINGERING, _CLOSED} or (state == _IDLE and not self._yielded):
            self._wait_for_output()
            return False
        return not self._tls

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The socket is gone."""
        state, self.state = self.state, _CLOSED
        if state == _OFFLOADED:
            if self._fed_job is not None:
                self._feed(b"")
            else:
                self.abort_body()
        elif state == _COLLECTING:
            self._end_collecting(BodyCut.DISCONNECTED)
        self._own = _NO_SPAN
        self._parser.close()
        if self._relay is not None:
            self._relay.client_gone()
        self.listener.forget(self)
        self._call_drained()
        if self._gone is not None:
            self._call_gone()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._write_paused = True
        if self._relay is not None:
            self._relay.pause_writing()
        elif self.state == _IDLE:
            self.deadline = self.listener.now() + self.listener.limits.send_stall_timeout

    def resume_writing(self) -> None:
        """What was written has left user space, or nearly."""
        self._write_paused = False
        if self._drained is not None:
            self._call_drained()
        elif self._relay is not None:
            self._relay.resume_writing()
        elif self._yielded:
            self._resume()
        elif self.state == _IDLE and not self._own:
            self.deadline = self.listener.now() + self.listener.limits.idle_timeout

    def on_gone(self, exchange: Exchange, callback: Callable[[], None]) -> None:
        """See `Exchange.on_gone`."""
        self._gone = (exchange, callback)
        if self.state == _CLOSED or exchange is not self._exchange:
            self.listener.call_later_turn(self._call_gone)
        elif self.state == _HANDLING and len(self._own) <= self.listener.limits.pending_bytes:
            # Who does not read is not told that the client has gone.
            self._resume_reading()

    def _call_gone(self) -> None:
        gone, self._gone = self._gone, None
        if gone is None:
            return
        exchange, callback = gone
        if exchange.answered:
            return
        try:
            callback()
        except Exception:
            _log.exception("the end of request %s was not dealt with", exchange.request_id)

    def _call_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained()

    # ---- requests in

    def _turn(self, source: bytearray, end: int, *, fresh: bool) -> None:
        """Work through a buffer, then keep what is left of it and send what was answered.

        `fresh`: nothing of an earlier read is in it.
        """
        self._source = source
        self._position = 0
        self._end = end
        self._burst = 0
        self._yielded = False
        self._processing = True
        try:
            if self.state == _COLLECTING:
                self._collected()
            self._requests()
        except HttpError as error:
            self._refuse(error)
        except Exception:
            _log.exception("request handling failed")
            self._exchange = None
            self._out.clear()
            self.abort()
        finally:
            self._processing = False
        self._keep_rest(fresh=fresh)
        if self._out:
            if self._yielded:
                self.flush()
            else:
                self.listener.flush_soon(self)

    def _requests(self) -> None:
        limits = self.listener.limits
        while self.state == _IDLE and self._position < self._end:
            if self._write_paused or self._burst >= limits.pipeline_burst:
                self._yield()
                return
            source = self._source
            position = self._position
            if source[position] == _CR:
                here = self._end - position
                if here > 1 and source[position + 1] != _LF:
                    raise HttpError(400, "bad_request_line", "The request line is malformed.")
                if here < 3:
                    return
                # One empty line before a request line is forgiven (RFC 9112 section 2.2).
                position += 2
                if source[position] == _CR:
                    raise HttpError(400, "bad_request_line", "The request line is malformed.")
            stop = source.find(b"\r\n\r\n", position, self._end) + 4
            if stop < 4:
                self._check_partial(source, position)
                return
            if stop - position > limits.head_bytes:
                raise self._too_long(source, position)
            head = bytes(memoryview(source)[position:stop])
            request = self._parser.parse(head, limits.head_fields, limits.target_bytes)
            self._position = stop
            self._burst += 1
            self._dispatch(request, head)

    def _check_partial(self, source: bytearray, position: int) -> None:
        """Refuse early what can no longer become a good head."""
        size = self._end - position
        limits = self.listener.limits
        if size > limits.head_bytes:
            raise self._too_long(source, position)
        line_end = source.find(b"\n", position, self._end)
        if line_end >= position and source[line_end - 1 : line_end] != b"\r":
            raise HttpError(400, "bad_request_line", "Lines end in CRLF.")
        if line_end < 0 and size > limits.target_bytes + 64:
            raise HttpError(414, "target_too_long", "The request target is too long.")
        if source.find(b"\n\n", position, self._end) >= 0:
            raise HttpError(400, "bad_request", "Lines end in CRLF.")

    def _too_long(self, source: bytearray, position: int) -> HttpError:
        line_end = source.find(b"\r\n", position, self._end)
        if line_end < 0 or line_end - position > self.listener.limits.target_bytes + 64:
            return HttpError(414, "target_too_long", "The request target is too long.")
        return HttpError(431, "head_too_long", "The request head is too long.")

    def _dispatch(self, request: Request, head: bytes) -> None:
        self._exchange = exchange = Exchange(self, request, head)
        self.state = _HANDLING
        self.deadline = 0.0
        if not request.keep_alive or self.listener.draining:
            self._close_after = True
        try:
            self.listener.handler(exchange)
        except HttpError as error:
            if exchange.answered:
                raise
            exchange.respond(self._problem(error, exchange))
        except Exception:
            self._handler_failed(exchange)

    def _handler_failed(self, exchange: Exchange) -> None:
        _log.exception("handler failed in request %s", exchange.request_id)
        if not exchange.answered:
            self._close_after = True
            exchange.respond(
                self._problem(HttpError(500, "internal_error", "The server failed; the log says why."), exchange)
            )

    def _problem(self, error: HttpError, exchange: Exchange) -> Response:
        title = REASONS.get(error.status, b"Error").decode("ascii")
        return problem_response(error.status, error.code, title, error.detail, exchange.request_id)

    def _refuse(self, error: HttpError) -> None:
        """Answer what could not even be parsed, and close."""
        listener = self.listener
        title = REASONS.get(error.status, b"Error").decode("ascii")
        response = problem_response(error.status, error.code, title, error.detail, listener.next_request_id())
        head = response.render_head(listener.common.now(), keep_alive=False, http10=False)
        self._out.append(head if self._asks_for_head() else head + response.body)
        listener.on_refused(self, error.status, error.code)
        self._exchange = None
        self._linger()

    def _asks_for_head(self) -> bool:
        """Whether what could not be parsed begins like a HEAD request, whose answer has no body."""
        if self._processing:
            return self._source.startswith((b"HEAD ", b"\r\nHEAD "), self._position, self._end)
        return self._own.startswith((b"HEAD ", b"\r\nHEAD "))

    def _yield(self) -> None:
        """Let others run; go on when the output has drained, or in the next loop turn."""
        self._yielded = True
        self._pause_reading()
        if not self._write_paused:
            self.listener.call_later_turn(self._resume)

    def _resume(self) -> None:
        """Go on with requests that were kept."""
        if self.state != _IDLE or self._processing:
            return
        self._resume_reading()
        if self._own:
            self._turn(self._own, len(self._own), fresh=True)
        else:
            self._yielded = False
            if self._eof:
                self._close()

    def _keep_rest(self, *, fresh: bool) -> None:
        state = self.state
        rest = self._end - self._position
        if rest and state < _LINGERING:
            if self._position or self._source is not self._own:
                self._own = bytearray(memoryview(self._source)[self._position : self._end])
        else:
            self._own = _NO_SPAN
        self._source = _NO_SPAN
        self._position = self._end = 0
        listener = self.listener
        if state == _IDLE:
            if self._yielded:
                return
            if self._eof:
                self._close()
            elif not rest:
                self.deadline = listener.now() + listener.limits.idle_timeout
            elif fresh or self._burst:
                # From the first byte of a head, not from its latest one.
                self.deadline = listener.now() + listener.limits.header_timeout
        elif rest > listener.limits.pending_bytes and state in {_HANDLING, _SENDING}:
            self._pause_reading()

    # ---- bodies

    def body_arrived(self, request: Request) -> bool:
        """True when the body has a known length and all of it lies in the source."""
        length = request.content_length
        return not request.chunked and (length is None or length <= self._end - self._position)

    def body_lost(self, request: Request) -> bool:
        """Whether the peer has closed its side before all of a body of known length was sent."""
        length = request.content_length
        if length is None or self._tls or self.state == _CLOSED:
            return self.state == _CLOSED
        here = self._end - self._position if self._processing else len(self._own)
        if here >= length:
            return False
        fd = self._transport.get_extra_info("socket").fileno()
        poll = select.poll()
        poll.register(fd, select.POLLRDHUP)
        if not poll.poll(0):
            return False
        waiting = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
        return here + waiting[0] < length

    def take_body(self, exchange: Exchange) -> bytes:
        """See `Exchange.take_body`."""
        length = exchange.request.content_length or 0
        start = self._position
        if exchange.body != UNTOUCHED or exchange is not self._exchange or not self.body_arrived(exchange.request):
            raise RuntimeError("the body of this request is not here")
        exchange.body = WHOLE
        exchange.received = length
        self._position = start + length
        return bytes(memoryview(self._source)[start : start + length])

    def receive(self, exchange: Exchange, sink: BodySink, done: BodyDone, limit: int | None) -> None:
        """See `Exchange.receive`."""
        if exchange.body != UNTOUCHED:
            raise RuntimeError("the body of this request was taken before")
        if self.state != _HANDLING or exchange is not self._exchange:
            exchange.body = CUT
            done(BodyEnd(0, BodyCut.DISCONNECTED))
            return
        if self._processing:
            self._receive(exchange, sink, done, limit)
            return
        self._source = self._own
        self._end = len(self._own)
        self._processing = True
        try:
            self._receive(exchange, sink, done, limit)
        finally:
            self._processing = False
        self._keep_rest(fresh=True)
        self.flush()
        self._resume()

    def _receive(self, exchange: Exchange, sink: BodySink, done: BodyDone, limit: int | None) -> None:
        request = exchange.request
        if request.chunked:
            self._receive_chunked(exchange, sink, done, limit)
            return
        length = request.content_length or 0
        available = self._end - self._position
        if length <= available:
            exchange.body = WHOLE
            start = self._position
            self._position += length
            end = BodyEnd(length)
            if length:
                with memoryview(self._source) as whole, whole[start : start + length] as view:
                    end = _write(sink, view)
            exchange.received = length
            done(end)
            return
        self._continue(request, available)
        listener = self.listener
        limits = listener.limits
        if length <= limits.collect_bytes and listener.collecting + length <= limits.collect_total:
            listener.collecting += length
            self.state = _COLLECTING
            self._collect_need = length
            self._collect_sink = sink
            self._collect_done = done
            now = listener.now()
            self._collect_until = now + limits.read_timeout
            if limits.min_rate > 0:
                in_time = now + limits.min_rate_grace + length / limits.min_rate
                self._collect_until = min(self._collect_until, in_time)
            self.deadline = min(now + limits.stall_timeout, self._collect_until)
            return
        prefix = bytes(memoryview(self._source)[self._position : self._end])
        self._position = self._end
        self._offload(sink, done, length=length, decoder=None, limit=None, prefix=prefix)

    def _receive_chunked(self, exchange: Exchange, sink: BodySink, done: BodyDone, limit: int | None) -> None:
        decoder = ChunkedDecoder()
        available = self._end - self._position
        received = 0
        end: BodyEnd | None = None
        with memoryview(self._source) as whole, whole[self._position : self._end] as view:
            try:
                spans, used = decoder.feed(view)
                self._position += used
                for piece in pieces(view, spans):
                    size = len(piece)
                    if limit is not None and received + size > limit:
                        end = BodyEnd(received, BodyCut.TOO_LARGE)
                        break
                    with piece:
                        sink.write(piece)
                    received += size
            except HttpError as error:
                end = BodyEnd(received, BodyCut.MALFORMED, error)
            except Exception as error:
                end = BodyEnd(received, BodyCut.REFUSED, error)
        exchange.received = received
        if end is None and decoder.done:
            exchange.body = WHOLE
            exchange.trailers = decoder.trailers
            done(BodyEnd(received))
        elif end is not None:
            exchange.body = CUT
            done(end)
        else:
            self._continue(exchange.request, available)
            self._offload(sink, done, length=None, decoder=decoder, limit=limit, prefix=b"")

    def _continue(self, request: Request, available: int) -> None:
        if request.expects_continue and not available:
            # A client that began its body without waiting needs no invitation (RFC 9110 section 10.1.1).
            self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_interim(self, exchange: Exchange, status: int, head: bytes) -> None:
        """See `Exchange.interim`."""
        if exchange.request.http10 or exchange is not self._exchange or self.state == _CLOSED:
            return
        self._out.append(b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, REASONS.get(status, b"Interim"), head))
        if not self._processing:
            self.flush()

    def _collected(self) -> None:
        """More of a small body arrived."""
        need = self._collect_need
        if self._end - self._position < need:
            self.deadline = min(self.listener.now() + self.listener.limits.stall_timeout, self._collect_until)
            return
        sink, done, exchange = self._collect_sink, self._collect_done, self._exchange
        self._stop_collecting()
        self.state = _HANDLING
        self.deadline = 0.0
        if sink is None or done is None or exchange is None:
            return
        exchange.body = WHOLE
        exchange.received = need
        start = self._position
        self._position += need
        with memoryview(self._source) as whole, whole[start : start + need] as view:
            end = _write(sink, view)
        self._call_done(done, end)

    def _stop_collecting(self) -> None:
        self.listener.collecting -= self._collect_need
        self._collect_need = 0
        self._collect_sink = None
        self._collect_done = None

    def _cut_collecting(self, cut: BodyCut) -> None:
        self.state = _HANDLING
        self.deadline = 0.0
        self._end_collecting(cut)

    def _end_collecting(self, cut: BodyCut) -> None:
        """Give what was collected to the sink, and tell its owner that no more comes."""
        sink, done, exchange = self._collect_sink, self._collect_done, self._exchange
        self._stop_collecting()
        data, self._own = self._own, _NO_SPAN
        if sink is None or done is None:
            return
        end = BodyEnd(len(data), cut)
        if data:
            with memoryview(data) as view:
                written = _write(sink, view)
            if written.cut is not None:
                end = written
        if exchange is not None:
            exchange.body = CUT
            exchange.received = end.received
        self._call_done(done, end)

    def _offload(
        self,
        sink: BodySink,
        done: BodyDone,
        *,
        length: int | None,
        decoder: ChunkedDecoder | None,
        limit: int | None,
        prefix: bytes,
    ) -> None:
        listener = self.listener
        self.state = _OFFLOADED
        self.deadline = 0.0
        self.flush()

        def ended(end: BodyEnd, rest: bytes) -> None:
            listener.call_soon(self._body_ended, done, end, rest)

        fd: int | None = None
        fed: deque[bytes] = deque() if self._tls else _NO_PIECES
        if not self._tls:
            self._pause_reading()
            try:
                fd = os.dup(self._socket().fileno())
            except OSError:
                ended(BodyEnd(0, BodyCut.ABORTED), b"")
                return
        job = ReceiveJob(
            fd,
            sink,
            length=length,
            decoder=decoder,
            limit=limit,
            prefix=prefix,
            done=ended,
            on_consumed=(lambda: listener.call_soon(self._fed_consumed, fed)) if fd is None else None,
        )
        self._job = job
        self._loop = loop = listener.pick_body_loop()
        if fd is None:
            self._fed_job = job
            self._fed_pieces = fed
            self._fed_outstanding = 0
        loop.receive(job)

    def _feed(self, data: bytes) -> None:
        """Bytes of an offloaded body that have to come through the event loop (TLS)."""
        job, loop = self._fed_job, self._loop
        if job is None or loop is None:
            return
        if data:
            self._fed_pieces.append(data)
            self._fed_outstanding += len(data)
            self._fed_total += len(data)
        if self._fed_outstanding > _FED_BYTES_MAX or (self.listener.paused and data):
            # Goes on when the body loop has taken enough of it.
            self._pause_reading()
        loop.feed(job, data)

    def _fed_consumed(self, fed: deque[bytes]) -> None:
        """The body loop has taken the oldest of the pieces that were fed to it."""
        if self._fed_job is None or fed is not self._fed_pieces:
            return
        self._fed_outstanding -= len(fed.popleft())
        if self._fed_outstanding <= _FED_BYTES_MAX // 2:
            self._resume_reading()

    def _body_ended(self, done: BodyDone, end: BodyEnd, rest: bytes) -> None:
        if self._fed_job is not None and end.cut is None:
            # The body ended in the oldest piece; what was fed behind it belongs to the next requests.
            self._fed_pieces.popleft()
            rest += b"".join(self._fed_pieces)
        self._fed_pieces.clear()
        job = self._job
        self._job = self._fed_job = self._loop = None
        if self.state == _OFFLOADED:
            self.state = _HANDLING
        if rest:
            self._own = bytearray(rest)
        if end.cut == BodyCut.DISCONNECTED:
            self._eof = True
        if self._exchange is not None:
            self._exchange.body = WHOLE if end.cut is None else CUT
            if job is not None and job.decoder is not None:
                self._exchange.trailers = job.decoder.trailers
            self._exchange.received = end.received
        self._call_done(done, end)

    def _call_done(self, done: BodyDone, end: BodyEnd) -> None:
        exchange = self._exchange
        try:
            done(end)
        except HttpError as error:
            if exchange is not None and not exchange.answered:
                exchange.respond(self._problem(error, exchange))
        except Exception:
            if exchange is not None:
                self._handler_failed(exchange)
            else:
                _log.exception("body handling failed")
        if self._vanished and self.state != _CLOSED:
            self._drop()

    def cut(self, exchange: Exchange, cut: BodyCut) -> None:
        """See `Exchange.cut`."""
        if exchange is not self._exchange:
            return
        if self.state == _OFFLOADED and self._fed_job is None:
            self.abort_body(cut)
        elif self.state in {_OFFLOADED, _COLLECTING}:
            # What the kernel holds has to come through the event loop.
            self._when_quiet(functools.partial(self._cut_now, exchange, cut), self._arrived(), -1, 0)

    def _cut_now(self, exchange: Exchange, cut: BodyCut) -> None:
        if exchange is not self._exchange:
            return
        if self.state == _COLLECTING:
            self._cut_collecting(cut)
        elif self.state == _OFFLOADED:
            self.abort_body(cut)

    def _arrived(self) -> int:
        return self._fed_total + len(self._own)

    def _when_quiet(self, then: Callable[[], None], first: int, seen: int, turns: int) -> None:
        """Call when the loop has turned a few times and brought nothing of what goes through it, or enough."""
        arrived = self._arrived()
        if (
            self.state in {_OFFLOADED, _COLLECTING, _RELAYING}
            and arrived - first < _CUT_BYTES_MAX
            and (arrived != seen or turns < _QUIET_TURNS)
        ):
            turns = turns + 1 if arrived == seen else 0
            # Also when more waits for its taker than may wait otherwise.
            self._resume_reading()
            self.listener.call_later_turn(self._when_quiet, then, first, arrived, turns)
        else:
            then()

    def abort_body(self, cut: BodyCut = BodyCut.ABORTED) -> None:
        """End an offloaded body early; its handler is told as soon as the kernel's bytes are read."""
        job, loop = self._job, self._loop
        if job is not None and loop is not None:
            loop.cancel(job, cut)

    # ---- answers out

    def answer(self, exchange: Exchange, response: Response) -> None:
        """See `Exchange.respond`."""
        listener = self.listener
        if self.state == _CLOSED or exchange is not self._exchange:
            if response.source is not None:
                response.source.close()
            listener.on_done(exchange, 499, 0)
            return
        request = exchange.request
        unread = (exchange.body != WHOLE and request.has_body) and self._unread_body(exchange)
        if unread or response.close:
            self._close_after = True
        if response.source is None and not (self._close_after or request.http10) and request.method != "HEAD":
            self._out.append(response.whole(listener.common.now()))
            sent = len(response.body)
            # Large answers end a burst early: what waits for a slow reader stays small.
            self._burst += sent >> _BURST_SHIFT
            self._finish(exchange, response.status, sent)
            return
        head = response.render_head(listener.common.now(), keep_alive=not self._close_after, http10=request.http10)
        source = response.source
        if source is not None and (request.method == "HEAD" or not response.length):
            source.close()
            source = None
        if source is None:
            body = b"" if request.method == "HEAD" else response.body
            self._out.append(head + body if body else head)
            self._burst += len(body) >> _BURST_SHIFT
            self._finish(exchange, response.status, len(body), unread=unread)
            return
        if unread:
            # A file in answer to a request whose body nobody wanted: send it, then close.
            self._own = _NO_SPAN
        self.state = _SENDING
        self._send_file(exchange, response, source, head)

    def _unread_body(self, exchange: Exchange) -> bool:
        """Skip an unwanted body if it is here already; True when some of it is still to come."""
        state = self.state
        if state == _OFFLOADED:
            self.abort_body()
            return True
        if state == _COLLECTING:
            # The rest is not waited for; the sink still has to learn of its end.
            sink, done = self._collect_sink, self._collect_done
            self._stop_collecting()
            exchange.body = CUT
            if sink is not None and done is not None:
                self.listener.call_later_turn(self._call_done, done, BodyEnd(0, BodyCut.ABORTED))
            return True
        if exchange.body == CUT:
            return True
        length = exchange.request.content_length
        if self._processing and length is not None and length <= self._end - self._position:
            self._position += length
            exchange.received = length
            return False
        return True

    def _finish(self, exchange: Exchange, status: int, sent: int, *, unread: bool = False) -> None:
        """An answer is complete: go on with the next request, or close."""
        self._exchange = None
        self.listener.on_done(exchange, status, sent)
        if self.state == _CLOSED:
            return
        if unread or (self._close_after and not self._tls):
            self._linger()
            return
        if self._close_after:
            self.state = _LINGERING
            if self._processing:
                self.listener.call_later_turn(self._close)
            else:
                self._close()
            return
        self.state = _IDLE
        if self._processing:
            return
        self.flush()
        self.deadline = self.listener.now() + self.listener.limits.idle_timeout
        self._resume()

    def _send_file(self, exchange: Exchange, response: Response, source: FileSource, head: bytes) -> None:
        self.flush()
        transport = self._transport
        listener = self.listener
        if self.state == _CLOSED:
            source.close()
            self._exchange = None
            listener.on_done(exchange, response.status, 0)
            return
        if transport.get_write_buffer_size():
            # Earlier answers still wait in user space; the file may not overtake them.
            self._pause_reading()
            self._drained = lambda: self._send_file(exchange, response, source, head)
            self.deadline = listener.now() + listener.limits.send_stall_timeout
            transport.set_write_buffer_limits(high=0)
            return
        transport.set_write_buffer_limits()
        file_fd = source.fileno()
        if file_fd is None or self._tls:
            transport.write(head)
            self._send_pieces(exchange, response, source, 0)
            return
        sock = transport.get_extra_info("socket")
        self._pause_reading()
        self.deadline = 0.0

        def sent(count: int, whole: bool) -> None:
            source.close()
            listener.call_soon(self._file_sent, exchange, response.status, count, whole)

        try:
            fd = os.dup(sock.fileno())
        except OSError:
            source.close()
            self._file_sent(exchange, response.status, 0, whole=False)
            return
        corkable = sock.family in {socket.AF_INET, socket.AF_INET6}
        job = SendJob(fd, file_fd, response.offset, response.length, head, corkable=corkable, done=sent)
        listener.pick_body_loop().send(job)

    def _send_pieces(self, exchange: Exchange, response: Response, source: FileSource, sent: int) -> None:
        """Send a file through the transport, piece by piece (TLS, or a store without descriptors)."""
        while sent < response.length and self.state != _CLOSED:
            piece = source.read(response.offset + sent, min(_READ_STEP, response.length - sent))
            if not piece:
                break
            self._transport.write(piece)
            sent += len(piece)
            if self._write_paused:
                self.deadline = self.listener.now() + self.listener.limits.send_stall_timeout
                self._drained = functools.partial(self._send_pieces, exchange, response, source, sent)
                return
        source.close()
        self._file_sent(exchange, response.status, sent, whole=sent >= response.length)

    def _file_sent(self, exchange: Exchange, status: int, count: int, whole: bool) -> None:
        if whole:
            self._finish(exchange, status, count)
            return
        self._exchange = None
        self.listener.on_done(exchange, status, count)
        self.abort()

    # ---- giving the connection away

    def hand_over(self, exchange: Exchange, give: Give) -> bool:
        """See `Exchange.hand_over`."""
        if (
            exchange is not self._exchange
            or self.state != _HANDLING
            or exchange.body != UNTOUCHED
            or self._transport.is_closing()
        ):
            return False
        self._pause_reading()
        self.flush()
        unread = self._source[self._position : self._end] if self._processing else self._own
        leaving = _Leaving(exchange, give, exchange.head + unread)
        if self._tls:
            given = self._give_pair(leaving)
            # What the other process writes comes after whatever waits here.
            self._resume_reading()
            return given
        if not self._transport.get_write_buffer_size():
            if not self._give(leaving):
                self._resume_reading()
                return False
            return True
        # Earlier answers still wait in user space, and would be lost.
        self.state = _LEAVING
        self._leaving = leaving
        self._drained = self._leave
        self.deadline = self.listener.now() + self.listener.limits.send_stall_timeout
        self._transport.set_write_buffer_limits(high=0)
        return True

    def _leave(self) -> None:
        """Earlier answers have left; or the client has."""
        leaving, self._leaving = self._leaving, None
        if leaving is None:
            return
        exchange = leaving.exchange
        if self.state == _CLOSED:
            self._exchange = None
            self.listener.on_done(exchange, 499, 0)
        elif not self._give(leaving):
            self._transport.set_write_buffer_limits()
            self.state = _HANDLING
            self.deadline = 0.0
            self._own = bytearray(leaving.data[len(exchange.head) :])
            exchange.reopen()
            exchange.respond(self._problem(HttpError(503, "server_busy", "The server is busy."), exchange))

    def _give(self, leaving: "_Leaving") -> bool:
        """Give a duplicate of the socket away and forget our own. False when it was not taken."""
        try:
            fd = os.dup(self._socket().fileno())
        except OSError:
            return False
        try:
            given = leaving.give_away(fd, self.peer)
        finally:
            os.close(fd)
        if given:
            self.state = _LEAVING
            self.deadline = 0.0
            self._exchange = None
            # Closes a descriptor, and says nothing to the client while another is open.
            self.abort()
        return given

    def _give_pair(self, leaving: "_Leaving") -> bool:
        """Give one end of a socket pair away and go on as a relay to the other. False when it was not taken."""
        try:
            near, far = socket.socketpair()
        except OSError:
            return False
        with far:
            given = leaving.give_away(far.fileno(), self.peer)
        if not given:
            near.close()
            return False
        self.state = _RELAYING
        self.deadline = 0.0
        self._exchange = None
        self._own = _NO_SPAN
        self._relay = Relay(self._transport, near, self._relayed)
        self.listener.relays.add(self._relay)
        if not self._write_paused:
            self._relay.start()
        return True

    def _relayed(self, whole: bool) -> None:
        """The other process has closed its end."""
        if self.state != _RELAYING:
            return
        self._relay = None
        if not whole:
            self.abort()
            return
        # Closing at once could reset the connection while a refused body still comes.
        self.state = _LINGERING
        self._linger_left = self.listener.limits.linger_bytes
        self.deadline = self.listener.now() + self.listener.limits.linger_timeout
        self._resume_reading()
        self.listener.call_later(_QUIET_SECONDS, self._close_when_quiet, self._linger_left)

    def _close_when_quiet(self, left: int) -> None:
        """Close when the client has sent nothing for a moment."""
        if self.state != _LINGERING or self._transport.is_closing():
            return
        if self._linger_left == left:
            self._close()
        else:
            self.listener.call_later(_QUIET_SECONDS, self._close_when_quiet, self._linger_left)

    # ---- closing

    def _linger(self) -> None:
        """Say the last word, then read and drop for a while, so that the client can read it first.

        Closing a socket with unread data resets it, and a reset can overtake the answer.
        """
        limits = self.listener.limits
        self.state = _LINGERING
        self._own = _NO_SPAN
        self._linger_left = limits.linger_bytes
        self.deadline = self.listener.now() + limits.linger_timeout
        if not self._processing:
            self.flush()
        self.listener.call_later_turn(self._half_close)

    def _half_close(self) -> None:
        if self.state != _LINGERING:
            return
        self.flush()
        if self._eof:
            self._close()
            return
        self._wait_for_output()
        self._resume_reading()
        if self._tls:
            # TLS has no half-close; the client is given its time to read and to close.
            return
        with contextlib.suppress(OSError, RuntimeError, NotImplementedError):
            self._transport.write_eof()

    def _close(self) -> None:
        """Close once what was written has left."""
        if self.state == _CLOSED:
            return
        self.flush()
        self.state = _LINGERING
        self.deadline = self.listener.now() + self.listener.limits.linger_timeout
        self._wait_for_output()
        self._transport.close()

    def _wait_for_output(self) -> None:
        """What the kernel has not taken yet gets as long as any other answer that is read slowly."""
        if self._transport.get_write_buffer_size():
            self.deadline = self.listener.now() + self.listener.limits.send_stall_timeout

    def abort_exchange(self, exchange: Exchange) -> None:
        """See `Exchange.abort`."""
        self.listener.on_done(exchange, 499, 0)
        if self.state == _CLOSED or exchange is not self._exchange:
            return
        self._drop()

    def vanish(self, presence: Presence) -> bool:
        """Drop the connection if its own address is gone: a body under way is cut first, with all that came.

        False when the address is there, or the connection was dropped for this before.
        """
        state = self.state
        if self._vanished or state == _CLOSED or not presence.lacks(self._transport):
            return False
        self._vanished = True
        # Nothing that the kernel still sends would arrive; it need not try.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._socket().fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            if state == _SENDING:
                # A body loop that sends a file has the socket too.
                sock.shutdown(socket.SHUT_RDWR)
        if state in {_OFFLOADED, _COLLECTING} and self._exchange is not None:
            self.cut(self._exchange, BodyCut.NETWORK_GONE)
        elif state == _RELAYING:
            self._when_quiet(self._drop, self._arrived(), -1, 0)
        else:
            self._drop()
        return True

    def _drop(self) -> None:
        """End the connection now; what its handler says from now on is not heard."""
        self._exchange = None
        self._out.clear()
        if self.state == _HANDLING:
            self.state = _LINGERING
        self.abort()

    def abort(self) -> None:
        """Drop the connection without another word."""
        if self._transport is not None:
            self._transport.abort()

    def close_idle(self) -> None:
        """Close now if no request is under way, else after the present answer."""
        self._close_after = True
        if self.state == _IDLE and not self._yielded:
            self._close()

    def shut_down(self) -> None:
        """End now: a body is cut with what the kernel holds of it, an answer under way is dropped."""
        if self.state in {_OFFLOADED, _COLLECTING} and self._exchange is not None:
            self.cut(self._exchange, BodyCut.ABORTED)
        else:
            self.abort()

    def expire(self, now: float) -> None:
        """Called about once a second: enforce the deadline of the present state."""
        if not self.deadline or now < self.deadline:
            return
        self.deadline = 0.0
        state = self.state
        if state == _IDLE and self._own and not self._write_paused:
            self._refuse(HttpError(408, "head_timeout", "The request head took too long."))
        elif state == _IDLE and not self._write_paused:
            self._close()
        elif state == _COLLECTING:
            self._cut_collecting(self._why_slow(now))
        elif state == _LINGERING and self._tls and not self._transport.is_closing():
            self._close()
        else:
            self.abort()

    def _why_slow(self, now: float) -> BodyCut:
        """Which of its bounds a small body has passed."""
        if now < self._collect_until:
            return BodyCut.STALLED
        exchange, limits = self._exchange, self.listener.limits
        age = 0.0 if exchange is None else time.monotonic() - exchange.started
        return BodyCut.TOO_SLOW if age < limits.read_timeout else BodyCut.TIMED_OUT

    # ---- the transport

    def flush(self) -> None:
        """Send what was answered."""
        out = self._out
        if out:
            if self.state != _CLOSED:
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def _socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    def _pause_reading(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()


class _Leaving:
    """A request on its way to another process."""

    __slots__ = ("data", "exchange", "give")

    def __init__(self, exchange: Exchange, give: Give, data: bytes) -> None:
        self.exchange = exchange
        self.give = give
        self.data = data

    def give_away(self, fd: int, peer: str) -> bool:
        """Whether it was taken."""
        try:
            return self.give(fd, self.data, peer)
        except Exception:
            _log.exception("request %s could not be handed over", self.exchange.request_id)
            return False


def _write(sink: BodySink, view: memoryview) -> BodyEnd:
    try:
        sink.write(view)
    except Exception as error:
        return BodyEnd(0, BodyCut.REFUSED, error)
    return BodyEnd(len(view))
