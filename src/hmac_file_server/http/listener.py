"""What the connections of one process share: limits, the handler, the hot buffer, the body loops."""

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any, Final

from hmac_file_server.http.bodyloop import BodyLoop
from hmac_file_server.http.connection import Connection, State
from hmac_file_server.http.exchange import Exchange
from hmac_file_server.http.limits import Limits
from hmac_file_server.http.presence import Presence
from hmac_file_server.http.relay import Relay
from hmac_file_server.http.response import CommonFields

_log = logging.getLogger(__name__)

_BUFFER_BYTES: Final = 256 * 1024
_SWEEP_SECONDS: Final = 1.0
# asyncio listens once more, with 100 if not told otherwise; the kernel cuts it to its own limit.
_BACKLOG: Final = 4096
# How long those that were cut at the end of a drain have to read so; with the drain, less than ten seconds.
CUT_SECONDS: Final = 1.5

Handler = Callable[[Exchange], None]
OnDone = Callable[[Exchange, int, int], None]
OnRefused = Callable[[Connection, int, str], None]
OnConnect = Callable[[Any], object]
"""Takes the socket of a new connection, to set its options; it must not be kept."""


def ignore_done(exchange: Exchange, status: int, sent: int) -> None:
    """The `on_done` of a listener whose requests nobody logs."""


def _ignore_refused(connection: Connection, status: int, code: str) -> None:
    pass


class Listener:
    """The HTTP side of one process. Made and used on one event loop.

    `handler` gets every parsed request. `on_done(exchange, status, body bytes sent)` is called once per
    exchange (status 499: the client left before its answer); `on_refused(connection, status, code)` for
    requests that could not be parsed. `common_head`: field lines added to every answer.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        *,
        body_loops: int = 2,
        common_head: bytes = b"",
        on_done: OnDone = ignore_done,
        on_refused: OnRefused = _ignore_refused,
        on_connect: OnConnect | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.common = CommonFields(common_head)
        self.on_done = on_done
        self.on_refused = on_refused
        self.on_connect = on_connect
        self.buffer = bytearray(_BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.known_hosts: dict[bytes, None] = {}
        self.connections: set[Connection] = set()
        self.collecting = 0
        self.draining = False
        self.paused: set[str] = set()
        # Some outlive their connections, until what a client had sent before it left has been taken.
        self.relays: weakref.WeakSet[Relay] = weakref.WeakSet()
        self._event_loop = asyncio.get_running_loop()
        self.now = self._event_loop.time
        self.call_later_turn: Callable[..., Any] = self._event_loop.call_soon
        self.call_later: Callable[..., Any] = self._event_loop.call_later
        self._servers: list[asyncio.Server] = []
        self._unsent: list[Connection] = []
        self._body_loops = [BodyLoop(limits, f"body-{index}") for index in range(body_loops)]
        self._request_prefix = secrets.token_hex(4)
        self._request_count = 0
        self._adoptions: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event = asyncio.Event()

    async def start(self, sockets: list[Any], ssl_context: ssl.SSLContext | None = None) -> None:
        """Accept on sockets that already listen."""
        for body_loop in self._body_loops:
            body_loop.start()
        # A handshake counts as part of the first head; until it is done, no connection is counted.
        handshake = None if ssl_context is None else max(0.1, self.limits.header_timeout)
        for sock in sockets:
            server = await self._event_loop.create_server(
                lambda: Connection(self),
                sock=sock,
                ssl=ssl_context,
                ssl_handshake_timeout=handshake,
                backlog=_BACKLOG,
                start_serving=True,
            )
            self._servers.append(server)
        self._sweep()

    def configure(self, limits: Limits) -> None:
        """Take new limits; they count for what happens from now on."""
        self.limits = limits
        for body_loop in self._body_loops:
            body_loop.limits = limits

    def next_request_id(self) -> str:
        """A short word, unique in this machine's log."""
        self._request_count += 1
        return f"{self._request_prefix}-{self._request_count:x}"

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        """Run on the event loop, from any thread. After the loop has closed, does nothing."""
        with contextlib.suppress(RuntimeError):
            self._event_loop.call_soon_threadsafe(callback, *args)

    def flush_soon(self, connection: Connection) -> None:
        """Send the connection's answers when all that is readable now has been read.

        Answers of one loop turn leave together: a client process is woken once for many of them.
        """
        if not self._unsent:
            self._event_loop.call_soon(self._flush_all)
        self._unsent.append(connection)

    def _flush_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            try:
                connection.flush()
            except RuntimeError:
                # Its transport was closed in this very turn; the others' answers must leave all the same.
                connection.abort()

    def adopt(self, connection: Connection) -> bool:
        """Count a new connection; False when there are too many."""
        self.connections.add(connection)
        return len(self.connections) <= self.limits.max_connections

    def adopt_socket(self, sock: socket.socket, data: bytes, peer: str) -> None:
        """Serve a connection that another process has accepted: `data` was read from it, then it is read on.

        Takes the socket over. It counts like any other connection; `peer` is its client's address.
        """
        if self._stopped:
            sock.close()
            return
        task = self._event_loop.create_task(self._adopt_socket(sock, data, peer))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    async def _adopt_socket(self, sock: socket.socket, data: bytes, peer: str) -> None:
        sock.setblocking(False)
        try:
            await self._event_loop.connect_accepted_socket(lambda: Connection(self, data, peer), sock)
        except OSError:
            # Its client has gone.
            sock.close()

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._emptied.set()

    def pause_bodies(self, reason: str) -> None:
        """Read no more of large bodies until `resume_bodies` was called with every reason given.

        What happens to them meanwhile: see `BodyLoop.pause`. All else goes on.
        """
        self.paused.add(reason)
        for body_loop in self._body_loops:
            body_loop.pause(reason)

    def resume_bodies(self, reason: str) -> None:
        """Take a reason to pause back; one that was not given is no error."""
        self.paused.discard(reason)
        for body_loop in self._body_loops:
            body_loop.resume(reason)

    def close_vanished(self, addresses: frozenset[str]) -> int:
        """Drop the TCP connections whose own address is not among the machine's `addresses`; how many.

        Bodies under way end with BodyCut.NETWORK_GONE, after what has arrived was given to their sinks.
        """
        presence = Presence(addresses)
        return sum(connection.vanish(presence) for connection in list(self.connections))

    def pick_body_loop(self) -> BodyLoop:
        """The body loop with the fewest jobs."""
        return min(self._body_loops, key=lambda loop: loop.load)

    def _sweep(self) -> None:
        now = self.now()
        crowded = len(self.connections) > self.limits.max_connections * 9 // 10
        for connection in list(self.connections):
            connection.expire(now)
            if crowded and connection.state == State.IDLE and connection.deadline - now > self.limits.header_timeout:
                # Idle keep-alive is a courtesy that ends when places run out.
                connection.deadline = now + self.limits.header_timeout
        self._sweeper = self._event_loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def stop(self, grace: float) -> None:
        """Stop accepting, let requests under way finish for `grace` seconds, then cut what is left."""
        self.draining = True
        for server in self._servers:
            server.close()
        if self._adoptions:
            await asyncio.wait(self._adoptions)
        for connection in list(self.connections):
            connection.close_idle()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), grace)
        for connection in list(self.connections):
            connection.shut_down()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), CUT_SECONDS)
        for connection in list(self.connections):
            connection.abort()
        for relay in list(self.relays):
            relay.close()
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for body_loop in self._body_loops:
            body_loop.stop()
