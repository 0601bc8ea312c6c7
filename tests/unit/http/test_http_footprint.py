"""What one connection and one body under way hold, for there are ten thousand of them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable

from hmac_file_server.http import Limits, Listener
from hmac_file_server.http.bodyloop import ReceiveJob
from hmac_file_server.http.connection import Connection

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
