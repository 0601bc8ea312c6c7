"""The connections of one upload: opened when needed, kept, dropped when the network changes. No proxies, no cookies."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Final

from hmac_file_server.client import sockets
from hmac_file_server.client.connection import Connection
from hmac_file_server.client.errors import BadAnswer, ConnectionLost
from hmac_file_server.client.protocol import Answer, Request
from hmac_file_server.client.source import Portion
from hmac_file_server.client.target import Target

IDLE: Final = 10.0
"""Seconds after which a connection that was not used is not trusted any more."""
_LOOK: Final = 0.25
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


class Http:
    """Exchanges with the target's server (protocol.py: Exchanges). To be closed on its loop.

    Requests without a body are bounded by `answer_timeout` (and what they wait for on purpose), and end sooner when the
    peer acknowledges nothing of them for `stall_timeout`. Those with a body are bounded by whoever watches `Portion`s:
    `carriers` tells which connection carries which.
    """

    def __init__(
        self,
        target: Target,
        *,
        context: ssl.SSLContext | None = None,
        connect_timeout: float = 5.0,
        stall_timeout: float = 5.0,
        answer_timeout: float = 20.0,
        mptcp: bool = True,
    ) -> None:
        """Times in seconds. `context`: for https; by default one that trusts what the system trusts."""
        self._target = target
        self._context = context
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout
        self._answer_timeout = answer_timeout
        self._mptcp = mptcp
        self._idle: list[Connection] = []
        self._active: dict[Connection, Portion | None] = {}
        self._addresses: list[sockets.Address] = []
        self._connecting: set[asyncio.Task[Connection]] = set()
        self._spares: set[asyncio.Task[None]] = set()
        self.carriers: dict[Portion, Connection] = {}
        self._generation = 0
        self.opened = 0
        """Connections that were made."""

    async def exchange(self, request: Request) -> Answer:
        """As protocol.py says."""
        body = request.body
        if body is not None and not isinstance(body, Portion):
            raise TypeError("a body is what the engine made")
        try:
            return await self._exchange(request, body, fresh=False)
        except _StaleError:
            return await self._exchange(request, body, fresh=True)

    async def _exchange(self, request: Request, body: Portion | None, *, fresh: bool) -> Answer:
        head = self._head(request, body)
        connection = await self._connection(fresh=fresh)
        reused = connection.used > 0
        self._active[connection] = body
        if body is not None:
            self.carriers[body] = connection
        try:
            if body is not None:
                return await connection.exchange(request.method, head, body, request.interim)
            return await self._bounded(connection, request, head)
        except ConnectionLost as lost:
            if reused and body is None and lost.code == "connection_lost":
                # The server had closed it in between; every request without a body may be repeated.
                raise _StaleError from lost
            raise
        finally:
            del self._active[connection]
            if body is not None:
                self.carriers.pop(body, None)
            if connection.usable:
                connection.idle_since = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                connection.close()

    async def _bounded(self, connection: Connection, request: Request, head: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        exchange = asyncio.create_task(connection.exchange(request.method, head, None, request.interim))
        end = loop.time() + self._answer_timeout + request.wait
        silent = loop.time()
        try:
            while True:
                done, _ = await asyncio.wait({exchange}, timeout=_LOOK)
                if done:
                    return exchange.result()
                now = loop.time()
                if connection.unacknowledged == 0:
                    silent = now
                if now - silent >= self._stall_timeout:
                    raise ConnectionLost("the server does not react", code="stalled")
                if now >= end:
                    raise ConnectionLost(
                        f"no answer within {self._answer_timeout + request.wait:g} s", code="timed_out"
                    )
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait({exchange})
            if not exchange.cancelled():
                exchange.exception()

    # ---- connections

    def network_changed(self, vanished: frozenset[str], *, reachable: bool) -> None:
        """Drop what cannot go on, or can be had anew for nothing.

        Connections from addresses that have vanished are dead. If something else is reachable now, idle connections,
        requests without a body and attempts to connect may be on the wrong way: to begin them again costs less than to
        find out. Bodies that are under way stay; so do connections over Multipath TCP, which have or will get other
        paths. Should they not, their silence ends them.
        """
        why = ConnectionLost("the network changed", code="network_changed")
        if reachable:
            self._generation += 1
            doubtful = [connection for connection in self._idle if not connection.multipath]
            self._idle = [connection for connection in self._idle if connection not in doubtful]
            for connection in doubtful:
                connection.close()
            for attempt in tuple(self._connecting):
                attempt.cancel()
        for connection, body in tuple(self._active.items()):
            if connection.multipath:
                continue
            if connection.local in vanished or (reachable and body is None):
                connection.abort(why)

    def prepare(self, count: int) -> None:
        """Open so many connections beside what goes on, to be used soon. One that fails is not missed."""
        for _ in range(count):
            task = asyncio.create_task(self._spare())
            self._spares.add(task)
            task.add_done_callback(self._spares.discard)

    async def _spare(self) -> None:
        generation = self._generation
        try:
            connection = await self._open()
        except (ConnectionLost, BadAnswer):
            return
        if generation != self._generation:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def drop_idle(self) -> None:
        """Trust no connection that is not in use."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    async def aclose(self) -> None:
        """End everything; what was written goes on its way."""
        spares = set(self._spares)
        for spare in spares:
            spare.cancel()
        if spares:
            await asyncio.wait(spares)
        self.close()

    def close(self) -> None:
        """The same where nothing was prepared."""
        self.drop_idle()
        for connection in tuple(self._active):
            connection.close()

    async def _connection(self, *, fresh: bool) -> Connection:
        now = asyncio.get_running_loop().time()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < IDLE:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(2 * self._connect_timeout):
                while True:
                    generation = self._generation
                    attempt = asyncio.create_task(self._open())
                    self._connecting.add(attempt)
                    try:
                        connection = await _result(attempt)
                        if generation == self._generation:
                            return connection
                        connection.close()
                    except _InterruptedError:
                        continue  # the network changed: another attempt, at once
                    finally:
                        self._connecting.discard(attempt)
        except TimeoutError:
            raise ConnectionLost("no connection to the server in time", code="timed_out") from None

    async def _open(self) -> Connection:
        sock: socket.socket | None = None
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                sock = await sockets.connected(await self._resolved(), mptcp=self._mptcp)
                connection = Connection(sock, self._tls(), self._target.host)
                await connection.start()
        except TimeoutError:
            _drop(sock, connection)
            raise ConnectionLost(f"no connection within {self._connect_timeout:g} s", code="timed_out") from None
        except BaseException:
            _drop(sock, connection)
            raise
        self.opened += 1
        return connection

    async def _resolved(self) -> list[sockets.Address]:
        """Addresses of the server; those of the last time while the name cannot be resolved."""
        try:
            async with asyncio.timeout(self._connect_timeout / 2 if self._addresses else None):
                self._addresses = await sockets.resolved(self._target.host, self._target.port)
        except (OSError, TimeoutError, UnicodeError) as error:
            if not self._addresses:
                raise ConnectionLost(f"{self._target.host} cannot be resolved: {_why(error)}") from error
        return self._addresses

    def _tls(self) -> ssl.SSLContext | None:
        if not self._target.tls:
            return None
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context

    def _head(self, request: Request, body: Portion | None) -> bytes:
        length = body.length if body is not None else (0 if request.method in _BODY_METHODS else None)
        lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {self._target.authority}"]
        headers = _combined(self._target.headers, request.headers)
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        for line in lines:
            if "\r" in line or "\n" in line or "\0" in line:
                raise ValueError("a header field with a line break")
        return "\r\n".join((*lines, "", "")).encode("latin-1")


class _StaleError(Exception):
    """A kept connection had ended before it was used again."""


class _InterruptedError(Exception):
    """An attempt to connect was given up because there may be a better way now."""


async def _result(attempt: asyncio.Task[Connection]) -> Connection:
    """The attempt's connection. Raises _InterruptedError when others cancelled it."""
    try:
        await asyncio.wait({attempt})
    except asyncio.CancelledError:
        attempt.cancel()
        await asyncio.wait({attempt})
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().close()
        raise
    if attempt.cancelled():
        raise _InterruptedError
    return attempt.result()


def _drop(sock: socket.socket | None, connection: Connection | None) -> None:
    if connection is not None:
        connection.close()
    elif sock is not None:
        sock.close()


def _combined(always: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    taken = {name.lower() for name in own} | {"host", "content-length", "transfer-encoding", "connection"}
    return {**{name: value for name, value in always.items() if name.lower() not in taken}, **own}


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "no answer in time"
