"""A TCP relay in front of the server that stops in the middle of an upload, so that something can happen there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter

_PIECE = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """Takes bytes on `port` to the server and back, in a thread of its own.

    After `hold_after` bytes from clients (heads and all, over every connection) nothing more is taken to the
    server, `held` is set, and it is the test's turn: `release()` lets everything go on, `reset()` ends every
    connection of that moment with RST on both sides and lets later ones through.
    """

    def __init__(self, server_port: int, hold_after: int) -> None:
        self.held = threading.Event()
        self.port = 0
        self.connections = 0
        self._server_port = server_port
        self._left = hold_after
        self._writers: set[StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._let_go = asyncio.Event()
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._listening.wait(10)

    @property
    def url(self) -> str:
        """Scheme and authority, no trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def release(self) -> None:
        """Go on with what was held."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def reset(self) -> None:
        """End all connections of now with RST, and go on."""
        self._loop.call_soon_threadsafe(self._reset)

    def close(self) -> None:
        """End everything; returns when the thread is gone."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        listener = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        listener.close()
        self._reset()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    def _reset(self) -> None:
        for writer in self._writers:
            end: socket.socket = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._let_go.set()

    async def _relay(self, from_client: StreamReader, to_client: StreamWriter) -> None:
        self.connections += 1
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            to_client.close()  # the server is down: the client sees a connection that ends at once
            return
        ends = {to_client, to_server}
        self._writers |= ends
        try:
            upwards = asyncio.create_task(self._upwards(from_client, to_server))
            # A server that ends a connection, or dies, ends it for both directions.
            with contextlib.suppress(OSError):
                while piece := await from_server.read(_PIECE):
                    to_client.write(piece)
                    await to_client.drain()
        finally:
            self._writers -= ends
            for end in ends:
                end.close()
            await upwards

    async def _upwards(self, from_client: StreamReader, to_server: StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await from_client.read(_PIECE):
                now = min(len(piece), self._left)
                self._left -= now
                to_server.write(piece[:now])
                if now < len(piece) and not self._let_go.is_set():
                    self.held.set()
                    await self._let_go.wait()
                to_server.write(piece[now:])
                await to_server.drain()
            to_server.write_eof()
