"""What one connection and one body under way hold, for there are ten thousand of them."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Callable

import pytest
from tests.fixtures.child import wait_until
from tests.unit.http.site import LOOPS, Site, ask, read_until

from hmac_file_server.http import Limits, Listener
from hmac_file_server.http.bodyloop import ReceiveJob
from hmac_file_server.http.connection import Connection
from hmac_file_server.http.request import HeadParser

_COUNT = 200


def bytes_each(make: Callable[[], object]) -> float:
    """Bytes that each of many objects takes, with all that it refers to and nobody else does."""
    kept = [make() for _ in range(20)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept += [make() for _ in range(_COUNT)]
        return (tracemalloc.get_traced_memory()[0] - before) / _COUNT
    finally:
        tracemalloc.stop()
        kept.clear()


def test_a_connection_is_small() -> None:
    async def measure() -> float:
        listener = Listener(lambda exchange: None, Limits(), body_loops=1)
        return bytes_each(lambda: Connection(listener))

    assert asyncio.run(measure()) < 1000


def test_a_body_under_way_is_small() -> None:
    def job() -> ReceiveJob:
        return ReceiveJob(
            0, None, length=1, decoder=None, limit=None, prefix=b"", done=lambda end, rest: None  # type: ignore[arg-type]
        )  # fmt: skip

    assert bytes_each(job) < 800


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_of_a_connection_waits_for_the_collector(loop: str) -> None:
    """What a client sent is gone with its connection; a collection comes after ten thousands of them only."""
    site = Site(loop=loop)
    site.start()
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(found, HeadParser) for found in gc.get_objects())
        for _ in range(20):
            with site.connect() as sock:
                sock.sendall(ask("GET /hello", "X-Long: " + "x" * 20_000))
                read_until(sock, b"hello")
        wait_until(lambda: not site.listener.connections, "all are gone")
        site.call(site.exchanges.clear)
        assert sum(isinstance(found, HeadParser) for found in gc.get_objects()) == before
    finally:
        gc.enable()
        site.stop()


def test_a_connection_that_waits_keeps_no_fields() -> None:
    parser = HeadParser({})
    request = parser.parse(b"GET / HTTP/1.1\r\nHost: t\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n", 100, 8192)
    assert len(request.fields) == 2
    assert sum(sys.getsizeof(found) for found in gc.get_referents(parser)) < 2000
    assert not any(found is request.fields for found in gc.get_referents(parser))
