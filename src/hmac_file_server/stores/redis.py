"""Session state mirrored to Redis, for those who look at it from other machines.

The store underneath is the truth, and every read and every answer comes from it. What it answered is mirrored
afterwards by a thread of its own, one JSON document a session. The thread writes what the disk says at that
moment, so that it does not matter how many changes came together, were lost or came twice. Redis may be missing,
slow, emptied or rolled back to an older dump: no change waits for it, and the documents are written anew.

A marker that is counted up with every write tells a Redis that lost something from one that did not.
"""

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from hmac_file_server.stores.contract import (
    Change,
    Create,
    Done,
    Log,
    Result,
    Session,
    SessionStore,
    StoreError,
)
from hmac_file_server.stores.redis_client import PREFIX, Backoff, in_words, redis_client
from hmac_file_server.stores.redis_coordinator import RedisCoordinator

__all__ = ["MirroredStore", "RedisCoordinator", "RedisMirror"]

_TTL: Final = 7 * 86400
_PATIENCE: Final = 1.0
_PROBE: Final = 5.0
_BATCH: Final = 64
_WAITING: Final = 1 << 16
_FAREWELL: Final = 1.0


class MirroredStore(SessionStore, Protocol):
    """What the mirror asks of the store underneath."""

    def open_ids(self) -> Iterable[str]:
        """Ids of every open session. Raises StoreError."""
        ...


class RedisMirror:
    """The store with its mirror. Any thread may call."""

    def __init__(
        self,
        store: MirroredStore,
        url: str,
        *,
        prefix: str = PREFIX,
        ttl: int = _TTL,
        log: Log | None = None,
        probe: float = _PROBE,
    ) -> None:
        """Mirror `store`, which is closed with this. Redis need not be there yet.

        `ttl`: seconds after which Redis forgets a document that was not written again; a safety net only.
        `probe`: seconds between looks at a Redis that has nothing to do. Raises StoreError for a URL that is
        none; the store is open still.
        """
        self._client = redis_client(url, patience=_PATIENCE)
        self._store = store
        self._url = url
        self._documents = prefix + "session:"
        self._marker = prefix + "mirror:" + secrets.token_hex(8)
        self._count = 0
        self._ttl = ttl
        self._log = log
        self._probe = probe
        self._lost = False
        # All below is guarded by it.
        self._turn = threading.Condition()
        self._waiting: dict[str, None] = {}
        self._under_way = 0
        self._leave_by: float | None = None
        self._thread = threading.Thread(target=self._run, name="hmac-file-server-redis", daemon=True)
        self._thread.start()

    # -- the contract

    def submit(self, change: Change, done: Done, /) -> None:
        """See the contract."""
        with self._turn:
            self._under_way += 1

        def answered(result: Result) -> None:
            try:
                done(result)
            finally:
                self._answered(change, result)

        try:
            self._store.submit(change, answered)
        except BaseException:
            # It will never be answered, and must not be waited for at the end.
            with self._turn:
                self._under_way -= 1
                self._turn.notify_all()
            raise

    def get(self, session_id: str, /) -> Session | None:
        """See the contract."""
        return self._store.get(session_id)

    def by_key(self, key: str, /) -> Session | None:
        """See the contract."""
        return self._store.by_key(key)

    def due(self, now: float, limit: int, /) -> list[Session]:
        """See the contract."""
        return self._store.due(now, limit)

    def outstanding(self) -> Iterable[tuple[str, int, int]]:
        """See the contract."""
        return self._store.outstanding()

    def open_ids(self) -> Iterable[str]:
        """See MirroredStore."""
        return self._store.open_ids()

    def open_sessions(self) -> int:
        """See the contract."""
        return self._store.open_sessions()

    def known(self, session_ids: Iterable[str], /) -> set[str]:
        """See the contract."""
        return self._store.known(session_ids)

    def close(self) -> None:
        """See the contract. What Redis does not take within a second stays unmirrored."""
        with self._turn:
            # The thread reads from the store what it writes, so the store is the last to go.
            self._turn.wait_for(lambda: not self._under_way)
            if self._leave_by is None:
                self._leave_by = time.monotonic() + _FAREWELL
            self._turn.notify_all()
        self._thread.join()
        self._store.close()

    # -- the thread

    def _answered(self, change: Change, result: Result) -> None:
        if isinstance(result, Session):
            touched = result.id
        elif result is True and not isinstance(change, Create):
            touched = change.id
        else:
            touched = ""
        with self._turn:
            self._under_way -= 1
            if touched:
                self._enqueue([touched])
            self._turn.notify_all()

    def _enqueue(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            self._waiting[session_id] = None
        while len(self._waiting) > _WAITING:  # without Redis for long; open ones are found again on the disk
            del self._waiting[next(iter(self._waiting))]

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self._mirror(backoff.reset)
                return
            except Exception as error:  # whatever redis-py raises on whatever a server answers
                self._lose(error)
            finally:
                self._client.close()
            pause = backoff.next()
            with self._turn:
                if self._turn.wait_for(lambda: self._leave_by is not None, pause):
                    return

    def _mirror(self, worked: Callable[[], None]) -> None:
        """Write what waits, and at the beginning everything, until the end. Raises what redis-py does."""
        sweep: Iterator[str] | None = None
        stale = first = True
        swept = 0.0
        while True:
            with self._turn:
                if sweep is None and not first:
                    self._turn.wait_for(lambda: self._waiting or self._leave_by is not None, self._probe)
                changed = list(itertools.islice(self._waiting, _BATCH))
                for session_id in changed:
                    del self._waiting[session_id]
                leave_by = self._leave_by
            now = time.monotonic()
            if leave_by is not None and (not changed or now > leave_by):
                self._client.delete(self._marker)
                return
            try:
                found = list(itertools.islice(sweep, _BATCH)) if sweep is not None and leave_by is None else []
                expected = str(self._count).encode()
                before = self._write(changed, found)
            except BaseException:
                with self._turn:
                    self._enqueue(changed)
                raise
            worked()
            if len(found) < _BATCH:
                sweep = None
            if first:
                self._return()
            elif before != expected:
                stale = True  # it was emptied or rolled back
            if stale and (
                first or now - swept > self._probe
            ):  # one that throws out what it likes must not keep us busy
                sweep, swept, stale = self._everything(), now, False
            first = False

    def _write(self, changed: list[str], found: list[str]) -> bytes | None:
        """Write documents and marker; what the marker was before."""
        pipeline = self._client.pipeline(transaction=False)
        for session_id in dict.fromkeys(itertools.chain(changed, found)):
            try:
                session = self._store.get(session_id)
            except StoreError:
                continue  # the next change of it, or the next sweep, tries again
            if session is not None:
                pipeline.set(self._documents + session_id, msgspec.json.encode(session), ex=self._ttl)
            elif session_id in changed:  # one merely found may be of a server with a store of its own
                pipeline.delete(self._documents + session_id)
        self._count += 1
        pipeline.set(self._marker, self._count, ex=self._ttl, get=True)
        before: bytes | None = pipeline.execute()[-1]
        return before

    def _everything(self) -> Iterator[str]:
        """Every session that is open, then every one that Redis has a document for."""
        try:
            yield from self._store.open_ids()
        except StoreError as error:
            self._say("redis_sweep_failed", str(error))
        start = len(self._documents)
        for key in self._client.scan_iter(match=_literally(self._documents) + "*", count=1000):
            yield key[start:].decode("utf-8", "replace")

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            self._say("redis_lost", in_words(error, self._url))

    def _return(self) -> None:
        if self._lost:
            self._lost = False
            self._say("redis_back")

    def _say(self, event: str, error: str | None = None) -> None:
        if self._log is not None:
            fields: dict[str, Any] = {} if error is None else {"error": error}
            self._log(event, **fields)


def _literally(text: str) -> str:
    """The text as a glob pattern of Redis that matches it and nothing else."""
    return "".join("\\" + letter if letter in "*?[]^-\\" else letter for letter in text)
