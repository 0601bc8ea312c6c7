"""Work of a worker that the event loop waits for."""

import asyncio
import contextlib
from collections.abc import Callable


async def done_by(submit: Callable[[Callable[[], None]], object], work: Callable[[], None]) -> None:
    """Have `submit` run `work` on a worker, and wait for its end.

    What it raises is the worker's business, which logs it. When the waiting task is cancelled, the work goes on
    to its end by itself.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody waits any more
                loop.call_soon_threadsafe(ended.set)

    submit(run)
    await ended.wait()
