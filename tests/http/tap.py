"""Between a proxy and the server: takes bytes both ways, and keeps what each upstream connection carried."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field

_PIECE = 64 * 1024
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^ \r\n]+) HTTP/1\.[01]")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\r\n]*)?\r\n")


@dataclass(slots=True)
class Passed:
    """What went over one connection to the server."""

    peer: str
    """The client's side of it, as the server's log names it."""
    forwarded: bytearray = field(default_factory=bytearray)
    returned: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Message:
    """One request as a proxy wrote it."""

    method: str
    target: bytes
    marks: tuple[bytes, ...]
    """Values of X-Front: the proxy puts one into each request that it means to be one."""
    body: bytes
    complete: bool


def messages(data: bytes) -> tuple[list[Message], bytes]:
    """Requests in canonical framing, as proxies write them, and what is left that is not in it.

    An oracle of its own: it knows nothing of the parser under test and forgives nothing.
    """
    found: list[Message] = []
    position = 0
    while position < len(data):
        end = data.find(b"\r\n\r\n", position)
        if end < 0:
            break
        first, *rest = data[position:end].split(b"\r\n")
        line = _LINE.fullmatch(first)
        pairs = [_FIELD.fullmatch(each) for each in rest]
        if line is None or None in pairs:
            break
        fields = [(pair[1].lower(), pair[2].rstrip(b" \t")) for pair in pairs if pair is not None]
        lengths = [value for name, value in fields if name == b"content-length"]
        codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
        if len(lengths) + len(codings) > 1 or (codings and codings != [b"chunked"]):
            break
        start = end + 4
        if codings:
            body, after, complete = _chunks(data, start)
        else:
            length = int(lengths[0]) if lengths else 0
            body = data[start : start + length]
            after, complete = start + len(body), len(body) == length
        marks = tuple(value for name, value in fields if name == b"x-front")
        found.append(Message(line[1].decode(), line[2], marks, body, complete))
        position = after
        if not complete:
            break
    return found, data[position:]


def _chunks(data: bytes, position: int) -> tuple[bytes, int, bool]:
    """(body, where it ends, whether it is whole)."""
    body = b""
    while True:
        size_line = _SIZE.match(data, position)
        if size_line is None:
            return body, position, False
        position = size_line.end()
        size = int(size_line[1], 16)
        if size == 0:
            end = data.find(b"\r\n\r\n", position - 2)
            return body, end + 4 if end >= 0 else position, end >= 0
        body += data[position : position + size]
        position += size
        if data[position : position + 2] != b"\r\n":
            return body, position, False
        position += 2


class Tap:
    """Listens on `port` of the loopback interface, in a thread of its own."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.passed: list[Passed] = []
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._listening.wait(10)

    def close(self) -> None:
        """End every connection and the thread. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        await server.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._between(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _between(self, reader: StreamReader, writer: StreamWriter) -> None:
        # An address of its own for each: a port alone may come twice.
        number = len(self.passed)
        passed = Passed("")
        self.passed.append(passed)
        to_reader, to_writer = await asyncio.open_connection(
            "127.0.0.1", self._server_port, local_addr=(f"127.2.{number // 250}.{number % 250 + 1}", 0)
        )
        to_writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        passed.peer = "{}:{}".format(*to_writer.get_extra_info("sockname"))
        try:
            there = asyncio.ensure_future(_pump(reader, to_writer, passed.forwarded))
            back = asyncio.ensure_future(_pump(to_reader, writer, passed.returned))
            try:
                await back
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
        finally:
            to_writer.close()


async def _pump(reader: StreamReader, writer: StreamWriter, kept: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_PIECE):
            kept += data
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
