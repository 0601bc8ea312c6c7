"""A relay in front of the server that reads along, and that can do to connections what networks do.

It knows which bytes of the file every body brought to the server, and what the server had told by the time that a
body was begun; so it can say what was sent twice, and what was sent although it was known to be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

_PIECE = 16 * 1024
_RESET = struct.pack("ii", 1, 0)
_HEAD = b"\r\n\r\n"

T = TypeVar("T")


@dataclass(slots=True)
class Exchange:
    """One request that went by; `forwarded` are the bytes of its body that were taken to the server."""

    method: str
    target: str
    headers: dict[str, str]
    begin: int = 0
    length: int = 0
    forwarded: int = 0
    status: int = 0

    @property
    def is_chunk(self) -> bool:
        return "x-chunk-number" in self.headers


LOSE = b"lose"
"""An intervention: the request goes to the server, and its answer is lost with the connection."""

Intervention = Callable[[Exchange], "bytes | None"]


def answer(status: int, body: Mapping[str, object] | None = None, fields: str = "") -> bytes:
    """A whole answer in HTTP/1.1, of a problem unless `body` says otherwise."""
    content = json.dumps(body or {}).encode()
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{fields}"
    return head.encode() + b"\r\n" + content


@dataclass(eq=False, slots=True)
class _Link:
    """The two ends of one connection."""

    client: StreamWriter
    server: StreamWriter
    open_exchanges: list[Exchange] = field(default_factory=list)
    client_lost: bool = False
    client_gone: bool = False
    black: bool = False


class Tap:
    """Takes bytes on `port` to the server and back, in a thread of its own.

    `intervene` is asked about every request; what it returns is answered instead of asking the server, or is `LOSE`.
    After `hold_after` bytes of bodies, nothing more is taken from clients, `held` is set, and it is the test's turn.
    `rate` bounds what is taken from all clients together, in bytes per second.
    """

    def __init__(
        self,
        server_port: int,
        *,
        hold_after: int = 1 << 62,
        rate: float = 0,
        intervene: Intervention = lambda _: None,
    ) -> None:
        self.held = threading.Event()
        self.port = 0
        self.exchanges: list[Exchange] = []
        self.known_sent_again: list[Exchange] = []
        self.chunk_size = 0
        self.server_port = server_port
        self.intervene = intervene
        self._rate = rate
        self._due = 0.0
        self._left = hold_after
        self._links: set[_Link] = set()
        self._known: list[tuple[int, int]] = []
        self._black = False
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._let_go = asyncio.Event()
        self._lit = asyncio.Event()
        self._lit.set()
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._listening.wait(10)

    @property
    def url(self) -> str:
        """Scheme and authority, no trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    # ---- what a test looks at

    def chunks(self) -> list[Exchange]:
        """Bodies, in the order in which they were begun."""
        return [each for each in self.exchanges if each.is_chunk]

    def body_bytes(self) -> int:
        """Bytes of bodies that were taken to the server, however often."""
        return sum(each.forwarded for each in self.chunks())

    def sent_twice(self) -> int:
        """Bytes of bodies that were taken to the server more than once."""
        spans = sorted((each.begin, each.begin + each.forwarded) for each in self.chunks())
        unique, end = 0, 0
        for start, stop in spans:
            unique += max(0, stop - max(start, end))
            end = max(end, stop)
        return self.body_bytes() - unique

    # ---- what a test does

    def release(self) -> None:
        """Go on with what was held."""
        self._call(self._let_go.set)

    def hold_again(self, hold_after: int) -> None:
        """Stop once more, after so many more bytes of bodies."""

        def again() -> None:
            self._left = hold_after
            self.held.clear()
            self._let_go.clear()

        self._call(again)

    def reset(self) -> None:
        """End all connections of now with RST on both sides, and go on."""

        def end() -> None:
            for link in self._links:
                _abort(link.client)
                _abort(link.server)
            self._let_go.set()

        self._call(end)

    def reset_clients(self) -> None:
        """End all connections of now with RST towards the clients, without a word to the server."""

        def end() -> None:
            for link in self._links:
                link.client_lost = True
                _abort(link.client)
            self._let_go.set()

        self._call(end)

    def go_dark(self) -> None:
        """Nothing comes through any more, new connections neither, and nobody is told."""

        def dark() -> None:
            self._black = True
            self._lit.clear()
            for link in self._links:
                link.black = True
            self._let_go.set()

        self._call(dark)

    def darken_links(self) -> None:
        """Nothing comes through the connections of now any more, and nobody is told; new ones work."""

        def dark() -> None:
            for link in self._links:
                link.black = True
            self._let_go.set()

        self._call(dark)

    def light_up(self) -> None:
        """New connections work again; the old ones stay as they are."""

        def light() -> None:
            self._black = False
            self._lit.set()

        self._call(light)

    def close(self) -> None:
        """End everything; returns when the thread is gone."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    # ---- the relay

    def _call(self, action: Callable[[], T]) -> T:
        done = threading.Event()
        results: list[T] = []

        def act() -> None:
            results.append(action())
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(10)
        return results[0]

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        listener = await asyncio.start_server(self._relay, "127.0.0.1", 0, limit=_PIECE)
        self.port = listener.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for link in self._links:
            _abort(link.client)
            _abort(link.server)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # Transports end in the rounds of the loop after that in which they were told to.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _relay(self, from_client: StreamReader, to_client: StreamWriter) -> None:
        if self._black:
            # The handshake was the kernel's; nothing else happens until the end.
            try:
                await self._stop.wait()
            finally:
                to_client.close()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port, limit=_PIECE)
        except OSError:
            to_client.close()
            return
        link = _Link(to_client, to_server)
        self._links.add(link)
        downwards = asyncio.create_task(self._downwards(link, from_server))
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ConnectionError):
                await self._upwards(link, from_client)
            link.client_gone = True
            if not link.client_lost and not link.black:
                with contextlib.suppress(OSError):
                    to_server.write_eof()
            await downwards
        finally:
            downwards.cancel()
            self._links.discard(link)
            to_client.close()
            to_server.close()

    async def _upwards(self, link: _Link, from_client: StreamReader) -> None:
        while True:
            head = await from_client.readuntil(_HEAD)
            exchange = self._begun(head)
            scripted = self.intervene(exchange)
            if scripted is not None and scripted is not LOSE:
                await self._answer_instead(link, from_client, exchange, scripted)
                continue
            if scripted is LOSE:
                exchange.status = -1
            await self._dark(link)
            link.open_exchanges.append(exchange)
            link.server.write(head)
            left = exchange.length
            while left:
                # Small reads, so that what this holds back is next to nothing.
                part = await from_client.read(min(_PIECE, left))
                if not part:
                    return
                left -= len(part)
                await self._limit(len(part))
                now = min(len(part), self._left) if exchange.is_chunk else len(part)
                await self._forward(link, exchange, part[:now])
                if now < len(part):
                    if not self._let_go.is_set():
                        self.held.set()
                        await self._let_go.wait()
                    await self._dark(link)
                    if link.client_lost:
                        return
                    self._left = 1 << 62
                    await self._forward(link, exchange, part[now:])

    async def _forward(self, link: _Link, exchange: Exchange, part: bytes) -> None:
        await self._dark(link)
        if exchange.is_chunk:
            self._left -= len(part)
        exchange.forwarded += len(part)
        link.server.write(part)
        await link.server.drain()

    async def _dark(self, link: _Link) -> None:
        if link.black:
            await self._stop.wait()
            raise ConnectionError

    async def _limit(self, count: int) -> None:
        if self._rate:
            self._due = max(self._due, self._loop.time()) + count / self._rate
            await asyncio.sleep(self._due - self._loop.time())

    async def _answer_instead(self, link: _Link, from_client: StreamReader, exchange: Exchange, text: bytes) -> None:
        left = exchange.length
        while left:
            part = await from_client.read(min(_PIECE, left))
            if not part:
                return
            left -= len(part)
        exchange.status = int(text.split(b" ", 2)[1])
        link.client.write(text)
        await link.client.drain()

    def _begun(self, head: bytes) -> Exchange:
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        exchange = Exchange(method, target, headers, length=int(headers.get("content-length", "0")))
        if exchange.is_chunk:
            number, offset = int(headers["x-chunk-number"]), int(headers.get("x-chunk-offset", "0"))
            if number == 0 and not self._known:
                # What the first chunk of a session has is how long chunks are.
                self.chunk_size = offset + exchange.length
            exchange.begin = number * self.chunk_size + offset
            span = (exchange.begin, exchange.begin + exchange.length)
            again = sum(max(0, min(stop, span[1]) - max(start, span[0])) for start, stop in self._known)
            # The server tells of the last byte of a chunk when the chunk is done, which may be on its way to the client.
            if again > 1:
                self.known_sent_again.append(exchange)
        self.exchanges.append(exchange)
        return exchange

    async def _downwards(self, link: _Link, from_server: StreamReader) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await from_server.readuntil(_HEAD)
                status = int(head.split(b" ", 2)[1])
                length = 0
                for line in head.split(b"\r\n"):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                body = await from_server.readexactly(length)
                if status >= 200:
                    exchange = link.open_exchanges.pop(0)
                    lost, exchange.status = exchange.status == -1, status
                    if lost:
                        link.client_lost = True
                        _abort(link.client)
                await self._dark(link)
                if link.client_lost:
                    continue
                if not link.client_gone:
                    # Else it is told to nobody: what was on its way came to the server after its client had left.
                    self._heard(body)
                link.client.write(head + body)
                await link.client.drain()
        if not link.black:
            # A server that ends a connection, or dies, ends it for both directions.
            link.client.close()

    def _heard(self, body: bytes) -> None:
        try:
            document = json.loads(body)
        except ValueError:
            return
        if not isinstance(document, dict):
            return
        if document.get("received"):
            self._known = [(start, stop) for start, stop in document["received"]]
            if "chunk_size" in document:
                self.chunk_size = document["chunk_size"]


def _abort(writer: StreamWriter) -> None:
    end: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
