"""Whether a body can still be whole: what `Exchange.body_lost` says of real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from hmac_file_server.http import Exchange, Limits, Listener, Response

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
HEAD = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


async def asked(sent: bytes, *, close: bool) -> bool:
    """What the first request's handler is told, asked once the client's bytes and its end have arrived."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bool] = loop.create_future()
    came: asyncio.Future[Exchange] = loop.create_future()
    listener = Listener(came.set_result, Limits(), body_loops=1)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    await listener.start([listening])
    with socket.create_connection(listening.getsockname()) as client:
        # The head alone first: the rest waits in the kernel, as the handler has not asked for it.
        client.sendall(HEAD)
        exchange = await came
        client.sendall(sent)
        if close:
            client.shutdown(socket.SHUT_WR)
        told.set_result(exchange.body_lost)
        exchange.respond(Response(400, close=True))
        while await loop.run_in_executor(None, client.recv, 65536):
            pass
    await listener.stop(1.0)
    return await told


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize(
    ("sent", "close", "lost"),
    [
        (b"", False, False),
        (b"x" * 1000, False, False),
        (b"", True, True),
        (b"x" * 1000, True, True),
        (b"x" * 99_999, True, True),
        (b"x" * 100_000, True, False),
    ],
)
def test_a_body_is_lost_when_its_client_has_ended_early(
    new_loop: Callable[[], asyncio.AbstractEventLoop], sent: bytes, close: bool, lost: bool
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(asked(sent, close=close)) is lost
