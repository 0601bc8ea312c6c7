"""The digest of the source, taken while it is uploaded: of what the server has, which the page cache still holds.

A digest with every request would cost that what came of a cut one is not kept. The digest of the whole, held against
the one in the server's receipt, finds as much and costs nothing on the way.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final, Protocol

from blake3 import blake3

from hmac_file_server.client.source import Source

DEFAULT: Final = "blake3"
_STEP: Final = 4 * 1024 * 1024


class _Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


_ALGORITHMS: Final[dict[str, Callable[[], _Hash]]] = {
    "blake3": blake3,
    "sha256": lambda: hashlib.sha256(usedforsecurity=False),
}


class SourceDigest:
    """The digest of a source from its beginning, in order, in a thread."""

    def __init__(self, source: Source, algorithm: str = DEFAULT) -> None:
        """`algorithm`: "blake3" or "sha256"."""
        self.algorithm = algorithm
        self._source = source
        self._hash = _ALGORITHMS[algorithm]()
        self.done = 0
        """Bytes that are in it."""
        self._turn = asyncio.Lock()

    async def advance(self, stop: int) -> None:
        """Take the bytes up to `stop`, some at a time. Raises SourceChanged."""
        while self.done < stop:
            async with self._turn:
                # A thread that was begun is awaited: no byte is taken twice, and none after the source is closed.
                step = asyncio.create_task(asyncio.to_thread(self._step, min(self.done + _STEP, stop)))
                try:
                    await asyncio.shield(step)
                except asyncio.CancelledError:
                    await asyncio.wait({step})
                    raise

    async def whole(self) -> str:
        """`<algorithm>:<hex>` of the whole source."""
        await self.advance(self._source.size)
        return f"{self.algorithm}:{self._hash.hexdigest()}"

    def _step(self, stop: int) -> None:
        if stop <= self.done:
            return
        self._hash.update(self._source.read(self.done, stop - self.done))
        self.done = stop


def known(algorithm: str) -> bool:
    """Whether digests of this algorithm can be made here."""
    return algorithm in _ALGORITHMS
