"""Work of a worker that the event loop waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from hmac_file_server.workers import PoolSize, WorkerPool, done_by


def test_it_is_waited_for_and_done_elsewhere() -> None:
    threads: list[threading.Thread] = []
    pool = WorkerPool(PoolSize(1, 1))
    try:
        asyncio.run(done_by(pool.submit, lambda: threads.append(threading.current_thread())))
    finally:
        pool.close()
    assert threads
    assert threads[0] is not threading.main_thread()


def test_what_it_raises_is_the_workers_business(caplog: pytest.LogCaptureFixture) -> None:
    pool = WorkerPool(PoolSize(1, 1))
    try:
        asyncio.run(done_by(pool.submit, lambda: 1 // 0))  # type: ignore[arg-type]
    finally:
        pool.close()
    assert "ZeroDivisionError" in caplog.text


def test_the_work_goes_on_when_nobody_waits_any_more() -> None:
    given: list[Callable[[], None]] = []
    ran: list[bool] = []

    async def leave() -> None:
        waiting = asyncio.create_task(done_by(given.append, lambda: ran.append(True)))
        while not given:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    given[0]()  # its loop is closed
    assert ran == [True]
