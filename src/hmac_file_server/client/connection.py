"""One connection that speaks HTTP/1.1 (RFC 9112), one request at a time. Plain or TLS, over a socket of ours.

The answer is read while the body is sent, so that a server that refuses is heard before everything was sent for
nothing. Everything that comes from the server is bounded.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import httptools

from hmac_file_server.client import multipath, sockets
from hmac_file_server.client.errors import BadAnswer, ConnectionLost, SourceChanged, UploadFailed
from hmac_file_server.client.protocol import Answer
from hmac_file_server.client.source import READ, Portion

LONGEST_HEAD: Final = 64 * 1024
LONGEST_BODY: Final = 8 * 1024 * 1024
_LONGEST_MESSAGE: Final = 4 * LONGEST_BODY  # with the framing of chunks
_RECEIVED: Final = 64 * 1024
_SENDFILE: Final = 1 << 20
_RECORDS: Final = 64 * 1024

Interim = Callable[[int, Mapping[str, str]], None]


class _Reader:
    """Parses the answer to one request."""

    def __init__(self, method: str, interim: Interim | None) -> None:
        self._headless = method == "HEAD"
        self._interim = interim
        self._parser = httptools.HttpResponseParser(self)
        self._fields: dict[str, str] = {}
        self._body = bytearray()
        self._taken = 0
        self._status = 0
        self._head_done = False
        self.answer: Answer | None = None
        self.begun = False
        """Whether any of the final answer has come."""
        self.keeps = False
        """Whether the connection can be used once more."""

    def feed(self, data: bytes) -> None:
        """Raises BadAnswer."""
        if self.answer is not None:
            self.keeps = False  # nobody asked for this
            return
        self._taken += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadAnswer("the server wants to speak another protocol") from None
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, UploadFailed):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            if self.answer is not None:
                # Whatever follows an answer to HEAD, or an answer that was whole.
                self.keeps = False
                return
            raise BadAnswer(f"the server's answer is no HTTP: {error}") from None
        if self.answer is None and not self._head_done and self._taken > LONGEST_HEAD:
            raise BadAnswer("the head of the server's answer is too long", status=self._status)
        if self.answer is None and self._taken > _LONGEST_MESSAGE:
            raise BadAnswer("the server's answer is too long", status=self._status)

    def ended(self) -> bool:
        """The connection ended. Whether that completes the answer: one whose length nothing tells ends so."""
        if self.answer is None and self._head_done and not self._framed():
            self._finish()
        return self.answer is not None

    # ---- called by the parser

    def on_message_begin(self) -> None:
        if self.answer is not None:
            self.keeps = False
        self._fields, self._head_done = {}, False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done or self.answer is not None:
            return  # trailers
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self._fields[key] = f"{self._fields[key]}, {text}" if key in self._fields else text

    def on_headers_complete(self) -> None:
        if self.answer is not None:
            return
        self._status = self._parser.get_status_code()
        if not 100 <= self._status < 600:
            raise BadAnswer(f"the server answered with the status {self._status}")
        self._head_done = True
        if self._status < 200:
            return
        self.begun = True
        if self._headless:
            self._finish()

    def on_body(self, data: bytes) -> None:
        if self.answer is not None:
            return
        self._body += data
        if len(self._body) > LONGEST_BODY:
            raise BadAnswer("the server's answer is too long", status=self._status)

    def on_message_complete(self) -> None:
        if self.answer is not None:
            return
        if self._status < 200:
            self._taken, self._head_done = 0, False
            if self._interim is not None:
                self._interim(self._status, self._fields)
            return
        self._finish()

    def _framed(self) -> bool:
        chunked = "chunked" in self._fields.get("transfer-encoding", "").lower()
        return chunked or "content-length" in self._fields or self._status in {204, 304} or self._headless

    def _finish(self) -> None:
        said = self._fields.get("connection", "").lower()
        self.keeps = self._framed() and self._parser.get_http_version() == "1.1" and "close" not in said
        self.answer = Answer(self._status, self._fields, bytes(self._body))


class Connection:
    """A connection to the server. `exchange` sends a request and returns its answer; `usable` says whether again.

    local   our address, as the kernel tells it
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None = None, host: str | None = None) -> None:
        """`sock` is connected and does not block. With `tls`, `start` makes the handshake for `host`."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = None if tls is None else tls.wrap_bio(self._in, self._out, server_hostname=host)
        self._pending = b""
        self._reader: _Reader | None = None
        self._writable: asyncio.Future[None] | None = None
        self._done: asyncio.Future[None] | None = None
        self._failure: UploadFailed | None = None
        self._ended = False
        self.closed = False
        self.used = 0
        """Requests that were answered."""
        self.idle_since = 0.0
        try:
            name = sock.getsockname()
            self.local = str(name[0]).partition("%")[0].removeprefix("::ffff:") if isinstance(name, tuple) else ""
        except OSError:
            self.local = ""

    # ---- its life

    async def start(self) -> None:
        """Make the TLS handshake, if there is to be one. Raises ConnectionLost, BadAnswer for a certificate."""
        if self._tls is not None:
            await self._handshake(self._tls)
        self._loop.add_reader(self._fd, self._on_readable)

    @property
    def multipath(self) -> bool:
        """Whether it speaks Multipath TCP, and so may lose its address without being lost."""
        return not self.closed and multipath.paths(self._sock) > 0

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return not self.closed and not self._ended and self._failure is None and self._reader is None

    def close(self) -> None:
        """Close; what was written goes on its way. Idempotent."""
        self._forget(ConnectionLost("the connection was closed"))
        if not self.closed:
            self.closed = True
            self._sock.close()

    def abort(self, why: UploadFailed) -> None:
        """Close with a reset, and let the exchange that is under way fail. What the kernel holds is not sent."""
        self._forget(why)
        if not self.closed:
            self.closed = True
            sockets.abort(self._sock)

    def _forget(self, why: UploadFailed) -> None:
        if not self.closed:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
        self._fail(why)

    # ---- what the kernel knows

    @property
    def unacknowledged(self) -> int:
        """Bytes that were given to this connection and that the peer's kernel has not acknowledged."""
        return 0 if self.closed else len(self._pending) + sockets.unacknowledged(self._sock)

    @property
    def silence(self) -> float | None:
        """Seconds since the peer acknowledged anything; None where nobody tells."""
        return None if self.closed else sockets.silence(self._sock)

    # ---- one exchange

    async def exchange(self, method: str, head: bytes, body: Portion | None, interim: Interim | None = None) -> Answer:
        """Send a head and a body, return the final answer, which may come before the body was sent.

        Takes as long as it takes: whoever calls bounds it, by cancelling or by `abort`. Raises ConnectionLost,
        BadAnswer, SourceChanged.
        """
        reader = self._reader = _Reader(method, interim)
        self._done = self._loop.create_future()
        keeps = False
        try:
            self._raise()
            if self._ended:
                raise ConnectionLost("the server closed the connection")
            whole = await self._send(reader, head, body)
            if reader.answer is None:
                await self._done
            self._raise()
            if reader.answer is None:
                raise ConnectionLost("the connection ended before its answer")
            keeps = whole and reader.keeps
            self.used += 1
            return reader.answer
        except OSError as error:
            raise ConnectionLost(sockets.lost(error)) from error
        finally:
            self._reader = self._done = None
            if not keeps:
                self.close()

    async def _send(self, reader: _Reader, head: bytes, body: Portion | None) -> bool:
        """Whether everything was sent; not if the answer came before that."""
        try:
            await self._write(head, reader, more=body is not None)
            if body is not None:
                if self._tls is None and body.source.fileno is not None:
                    await self._send_file(reader, body, body.source.fileno)
                else:
                    await self._send_read(reader, body)
                return body.written == body.length
        except OSError:
            # A server that answers early and closes: its answer is here, or it never will be.
            self._drain()
            if reader.answer is None:
                raise
            return False
        return True

    async def _send_file(self, reader: _Reader, body: Portion, source: int) -> None:
        while body.written < body.length and reader.answer is None:
            try:
                sent = os.sendfile(
                    self._fd, source, body.start + body.written, min(body.length - body.written, _SENDFILE)
                )
            except BlockingIOError:
                await self._wait_writable()
                continue
            if not sent:
                raise SourceChanged("the file became shorter while it was uploaded")
            body.written += sent
            # Others have their turn also where the socket always takes more.
            await asyncio.sleep(0)
            self._raise()

    async def _send_read(self, reader: _Reader, body: Portion) -> None:
        while body.written < body.length and reader.answer is None:
            piece = await body.source.read_soon(body.start + body.written, min(body.length - body.written, READ))
            view = memoryview(piece)
            while view and reader.answer is None:
                part = view[:_RECORDS] if self._tls is not None else view
                taken = await self._write(part, reader)
                body.written += taken
                view = view[taken:]

    async def _write(self, data: bytes | memoryview, reader: _Reader, *, more: bool = False) -> int:
        """Write all of it, unless the answer comes first. Returns how much of it the connection has."""
        if self._tls is not None:
            self._raise()
            self._tls.write(data)
            self._pending += self._out.read()
            while self._pending and reader.answer is None:
                await self._flush(more=False)
            return len(data)
        written = 0
        while written < len(data) and reader.answer is None:
            try:
                written += self._sock.send(
                    data[written:], socket.MSG_MORE if more and hasattr(socket, "MSG_MORE") else 0
                )
            except BlockingIOError:
                await self._wait_writable()
        return written

    async def _flush(self, *, more: bool) -> None:
        try:
            sent = self._sock.send(self._pending, socket.MSG_MORE if more else 0)
        except BlockingIOError:
            await self._wait_writable()
        else:
            self._pending = self._pending[sent:]

    async def _wait_writable(self) -> None:
        self._raise()
        self._writable = self._loop.create_future()
        self._loop.add_writer(self._fd, self._on_writable)
        try:
            await self._writable
        finally:
            if not self.closed:
                self._loop.remove_writer(self._fd)
            self._writable = None
        self._raise()

    def _on_writable(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # ---- what comes

    def _on_readable(self) -> None:
        try:
            data = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except ssl.SSLError as error:
            self._fail(ConnectionLost(f"TLS failed: {error.reason or error}"))
            self._mute()
            return
        except OSError as error:
            self._fail(ConnectionLost(sockets.lost(error)))
            self._mute()
            return
        reader = self._reader
        if data is None:
            self._ended = True
            self._mute()
            if reader is not None and not reader.ended():
                self._fail(
                    ConnectionLost("the server closed the connection" + (" in its answer" if reader.begun else ""))
                )
        elif data and reader is None:
            self._ended = True  # nobody asked for anything
            self._mute()
        elif data and reader is not None:
            try:
                reader.feed(data)
            except UploadFailed as failure:
                self._fail(failure)
                self._mute()
        if reader is not None and reader.answer is not None:
            self._wake()

    def _receive(self) -> bytes | None:
        """Bytes of the answer, none for TLS that made none, None at the end. Raises OSError."""
        data = self._sock.recv(_RECEIVED)
        if self._tls is None:
            return data or None
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._tls.read(_RECEIVED)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b"".join(pieces) or None
            if not piece:
                return b"".join(pieces) or None
            pieces.append(piece)
        return b"".join(pieces)

    def _drain(self) -> None:
        """Read what is here already."""
        while not self.closed and not self._ended and self._failure is None:
            reader = self._reader
            if reader is None or reader.answer is not None:
                return
            taken = reader._taken
            self._on_readable()
            if reader._taken == taken:
                return

    def _mute(self) -> None:
        if not self.closed:
            self._loop.remove_reader(self._fd)

    def _fail(self, failure: UploadFailed) -> None:
        if self._failure is None:
            self._failure = failure
        self._wake()

    def _wake(self) -> None:
        for future in (self._writable, self._done):
            if future is not None and not future.done():
                future.set_result(None)

    def _raise(self) -> None:
        """Raise what has failed, unless the answer is whole: then it does not matter."""
        if self._failure is not None and (self._reader is None or self._reader.answer is None):
            raise self._failure

    # ---- TLS

    async def _handshake(self, tls: ssl.SSLObject) -> None:
        try:
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._send_handshake()
                    data = await self._loop.sock_recv(self._sock, _RECEIVED)
                    if not data:
                        raise ConnectionLost("the server closed the connection in the TLS handshake") from None
                    self._in.write(data)
                else:
                    await self._send_handshake()
                    return
        except ssl.SSLCertVerificationError as error:
            # Another attempt would be answered the same, and this one has told nothing.
            raise BadAnswer(
                f"the server's certificate is not trusted: {error.verify_message}", retriable=False
            ) from error
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                await self._send_handshake()  # the alert
            raise ConnectionLost(f"TLS failed: {error.reason or error}") from error
        except OSError as error:
            raise ConnectionLost(sockets.lost(error)) from error

    async def _send_handshake(self) -> None:
        if data := self._out.read():
            await self._loop.sock_sendall(self._sock, data)
