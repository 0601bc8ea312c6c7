"""One upload from its beginning to its end: who sends which bytes when, and what happens when something fails.

    worker ── takes a piece ── sends it over a connection ── learns what the server has ── takes the next one
       │ failure
       └─ gives it back as unknown ── pause (shared backoff) ── takes another one
                  └─ inquirer ── asks the server ── what is missing can be taken

The rules: nothing is sent of a chunk after a failure before the server was asked what it has of it (meanwhile others of
which nothing was sent yet are); a transfer that does not move any more is ended only after that question was answered
over another connection; whatever an answer tells is true and stays true. All share one backoff and one question at a
time.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from hmac_file_server.client.connection import Connection
from hmac_file_server.client.digest import SourceDigest, known
from hmac_file_server.client.errors import (
    BadAnswer,
    ConnectionLost,
    ContentDiffers,
    GaveUp,
    SessionGone,
    SourceChanged,
    UploadFailed,
)
from hmac_file_server.client.exchanges import Http
from hmac_file_server.client.plan import Plan
from hmac_file_server.client.progress import INTERVAL, Meter, OnProgress, Progress, State
from hmac_file_server.client.protocol import Facts, NetworkShape, Piece, Received, Remote, Result, Session
from hmac_file_server.client.retrying import Backoff, retry_after
from hmac_file_server.client.source import Portion, Source
from hmac_file_server.client.state import Entry, HeldEntry
from hmac_file_server.client.watchdog import Watchdog

_FINISH_WAIT: Final = 10.0
_DISK_FULL_PAUSE: Final = 5.0
_STATE_AGE: Final = 600.0
# Bytes from which the other connections are opened while the session is being made.
_WORTH_MORE: Final = 1024 * 1024
# Of TLS records and of what lies between the kernel and the server's account of it.
_SLACK: Final = 128 * 1024
# The server and this client disagree about the chunks themselves.
_OTHER_CHUNKS: Final = frozenset({"bad_chunk_length", "bad_chunk_number"})

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Transfer:
    """A piece on its way."""

    piece: Piece
    portion: Portion
    watchdog: Watchdog
    acknowledged: int = 0
    told: int = -1
    settled: bool = False
    probe: "asyncio.Task[None] | None" = None


class _BeginAnew(Exception):  # noqa: N818 - an order, no error
    """The protocol cannot resume: from the beginning."""


class _OtherChunks(Exception):  # noqa: N818 - an order, no error
    """The session has chunks of another size."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the caller wants; times in seconds.

    parallel       pieces at a time, where the protocol can
    patience       without progress, until the upload gives up; None: never
    stall_timeout  without a byte that the peer's kernel acknowledged, until the server is asked
    digest         whether the source is hashed and held against the server's digest
    """

    parallel: int = 4
    patience: float | None = 600.0
    stall_timeout: float = 5.0
    digest: bool = True


class Engine:
    """Runs one upload; `run` once."""

    def __init__(
        self,
        source: Source,
        remote: Remote,
        http: Http,
        facts: Facts,
        terms: Terms,
        *,
        backoff: Backoff,
        wall: Callable[[], float],
        held: HeldEntry | None = None,
        network: NetworkShape | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """`wall` tells epoch seconds; `network` is watching already."""
        self._source = source
        self._remote = remote
        self._http = http
        self._facts = facts
        self._terms = terms
        self._backoff = backoff
        self._wall = wall
        self._held = held
        self._network = network
        self._on_progress = on_progress
        self._now = asyncio.get_running_loop().time
        self.session: Session | None = None
        self._plan = Plan(source.size, 0)
        self._result: Result | None = None
        self._transfers: set[_Transfer] = set()
        self._changed = asyncio.Event()
        self._woken = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._asks = self._answered = 0
        self._chunk_size: int | None = None
        self._pausing = 0
        self._best = 0
        self._moved = self._now()
        self._meter = Meter()
        self._reported: tuple[State, float] = ("starting", float("-inf"))
        self._resumed = 0
        self._transmitted = 0
        self._last: UploadFailed | None = None
        self._expires_saved = 0.0

    async def run(self) -> Result:
        """Upload. Raises UploadFailed; cancelling leaves a session that can be continued."""
        unsubscribe = self._network.subscribe(self._network_changed) if self._network is not None else None
        digest = SourceDigest(self._source) if self._terms.digest else None
        beside = {asyncio.create_task(self._watch())}
        if digest is not None:
            beside.add(asyncio.create_task(self._follow(digest)))
        main = asyncio.create_task(self._main(digest))
        try:
            pending: set[asyncio.Task[Any]] = {main, *beside}
            while not main.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # what runs beside ends by failing, or when it has nothing more to do
            result = main.result()
        finally:
            if unsubscribe is not None:
                unsubscribe()
            await _ended({main, *beside, *([self._asking] if self._asking is not None else [])})
        self._report("done", force=True)
        return result

    # ---- the whole

    async def _main(self, digest: SourceDigest | None) -> Result:
        self._report("starting", force=True)
        try:
            session, told = await self._resume() or await self._begin()
            result = await self._transfer(session, told)
        except SourceChanged:
            await self._drop()
            raise
        except UploadFailed as failure:
            if isinstance(failure, SessionGone) or failure.status in {400, 409, 422}:
                self._forget()  # the next run would be answered the same
            raise
        if digest is not None:
            result = await self._verified(result, digest)
        self._forget()
        return result

    async def _transfer(self, session: Session, told: Received) -> Result:
        anew = replanned = False
        while True:
            self.session = session
            try:
                return told.result or await self._send_all(session, told)
            except SessionGone:
                if anew:
                    raise
                anew = True
                self._forget()
                session, told = await self._begin()
            except _BeginAnew:
                session, told = await self._begin()
            except _OtherChunks as other:
                if replanned:
                    raise other.__cause__ or other from None
                replanned = True
                await self._learn(session)
                session = replace(session, chunk_size=self._chunk_size or session.chunk_size)
                told = Received(self._plan.received, self._result)

    async def _resume(self) -> tuple[Session, Received] | None:
        """The session of an earlier run, if the server still knows it."""
        entry = self._held.load() if self._held is not None else None
        if entry is None:
            return None
        key, saved = entry.session.get("key"), entry.session.get("session")
        if isinstance(key, str) and 0 < len(key) < 200 and key.isascii() and key.isprintable():
            self._facts = replace(self._facts, key=key, repeated=True)
        session = self._remote.restored(saved, self._facts) if isinstance(saved, Mapping) else None
        if session is None:
            return None
        try:
            told = await self._persist(partial(self._remote.ask, session))
        except SessionGone:
            self._forget()
            return None
        self._resumed = sum(stop - start for start, stop in told.ranges)
        session = replace(session, chunk_size=told.chunk_size or session.chunk_size)
        return session, told

    async def _begin(self) -> tuple[Session, Received]:
        self._result = None

        if self._source.size > _WORTH_MORE:
            self._http.prepare(self._terms.parallel - 1)

        async def attempt() -> tuple[Session, Received]:
            # Before it is sent: whoever crashes in between repeats the same creation.
            facts, self._facts = self._facts, replace(self._facts, repeated=True)
            if not facts.repeated:
                self._save({"key": facts.key}, None)
            try:
                return await self._remote.begin(facts)
            except UploadFailed as failure:
                if failure.code == "key_reused" and facts.repeated:
                    self._new_key()
                    return await attempt()
                raise

        session, told = await self._persist(attempt)
        self._save({"key": self._facts.key, "session": dict(self._remote.saved(session))}, session.expires)
        return session, told

    def _new_key(self) -> None:
        self._facts = replace(self._facts, key=secrets.token_urlsafe(18), repeated=False)

    def _forget(self) -> None:
        """There is nothing to continue any more."""
        self._new_key()
        if self._held is not None:
            self._held.delete()

    def _save(self, session: Mapping[str, Any], expires: float | None) -> None:
        self._expires_saved = expires or 0.0
        if self._held is not None:
            self._held.save(Entry(session, expires))

    async def _drop(self) -> None:
        """End a session that nobody can complete, if the server can be told shortly."""
        self._forget()
        if self.session is not None:
            try:
                async with asyncio.timeout(self._terms.stall_timeout):
                    await self._remote.discard(self.session)
            except (UploadFailed, TimeoutError):
                pass

    # ---- pieces

    async def _send_all(self, session: Session, told: Received) -> Result:
        self._plan = Plan(session.size, session.chunk_size, told.ranges)
        while True:
            many = self._terms.parallel if self._remote.parallel else 1
            workers = {asyncio.create_task(self._work(session)) for _ in range(min(many, max(1, self._plan.chunks)))}
            inquirer = asyncio.create_task(self._inquire(session))
            everyone = {*workers, inquirer}
            try:
                while workers and self._result is None:
                    done, _ = await asyncio.wait({*workers, inquirer}, return_when=asyncio.FIRST_COMPLETED)
                    workers -= done
                    for task in done:
                        task.result()
            finally:
                await _ended(everyone)
            if self._result is not None:
                return self._result
            # Every byte is there, and the answer that said so was lost, or is still being made.
            told = await self._persist(lambda: self._remote.ask(session, wait=_FINISH_WAIT))
            self._learned(told)
            if self._result is not None:
                return self._result
            self._plan.correct(told.ranges)
            self._patient()

    async def _work(self, session: Session) -> None:
        while self._result is None:
            if self._plan.unknown and not self._remote.parallel:
                await self._learn(session)
                continue
            if self._backoff.remaining(self._now()):
                await self._hold()
                continue
            piece = self._plan.take()
            if piece is None:
                if not self._plan.under_way and not self._plan.unknown:
                    return
                self._changed.clear()
                await self._changed.wait()
                continue
            began = self._now()
            portion = Portion(self._source, piece.start, piece.length)
            try:
                told = await self._carry(session, piece, portion)
            except UploadFailed as failure:
                # Of what never had a connection nothing can have arrived.
                self._plan.give_back(piece, unknown=self._asks + 1 if portion.written else None)
                self._changed.set()
                await self._recover(session, piece, failure, began)
            except BaseException:
                self._plan.give_back(piece)
                raise
            else:
                self._plan.give_back(piece)
                self._learned(told)

    async def _inquire(self, session: Session) -> None:
        """Ask whenever there is something to ask."""
        while True:
            if self._plan.unknown:
                await self._learn(session)
            else:
                self._changed.clear()
                await self._changed.wait()

    async def _carry(self, session: Session, piece: Piece, portion: Portion) -> Received:
        self._source.check()
        transfer = _Transfer(piece, portion, Watchdog(self._terms.stall_timeout, self._now()))
        self._transfers.add(transfer)
        try:
            told = await self._remote.send(session, piece, portion)
        except ConnectionLost:
            if not transfer.settled:
                raise
            told = Received(self._plan.received, self._result)
        finally:
            self._transfers.discard(transfer)
            self._transmitted += transfer.portion.written
            if transfer.probe is not None:
                transfer.probe.cancel()
        self._source.check()
        return told

    async def _recover(self, session: Session, piece: Piece, failure: UploadFailed, began: float) -> None:
        """After a failure: raise it if it is final."""
        if failure.code in _OTHER_CHUNKS:
            raise _OtherChunks from failure
        if failure.code == "chunk_differs":
            await self._learn(session)
            if self._plan.missing(piece) < piece.stop:
                raise failure
            return
        if failure.code == "signature_wanted":
            return
        if not self._retriable(failure):
            raise failure
        self._failed(failure, began)
        if not self._remote.resumable:
            raise _BeginAnew

    def _learned(self, told: Received) -> None:
        """Take in what an answer says."""
        self._plan.learn(told.ranges)
        self._chunk_size = told.chunk_size or self._chunk_size
        if told.result is not None:
            self._result = told.result
        if told.expires is not None and told.expires - self._expires_saved > _STATE_AGE and self.session is not None:
            session = dict(self._remote.saved(self.session))
            self._save({"key": self._facts.key, "session": session}, told.expires)
        self._changed.set()

    # ---- questions

    async def _learn(self, session: Session) -> None:
        """Ask what the server has. Returns after an answer to a question that was asked after this call."""
        wanted = self._asks + 1
        while self._answered < wanted:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask(session))
                self._asking.add_done_callback(self._asked)
            await asyncio.shield(self._asking)

    def _asked(self, task: "asyncio.Task[None]") -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()

    async def _ask(self, session: Session) -> None:
        async def attempt() -> tuple[int, Received]:
            self._asks += 1
            number = self._asks
            return number, await self._remote.ask(session)

        number, told = await self._persist(attempt)
        self._answered = number
        self._plan.learn(told.ranges)
        self._plan.answered(number)
        self._learned(told)

    # ---- failures

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that succeeds. Raises what is final."""
        while True:
            await self._hold()
            began = self._now()
            try:
                return await attempt()
            except UploadFailed as failure:
                if not self._retriable(failure):
                    raise
                self._failed(failure, began)

    def _retriable(self, failure: UploadFailed) -> bool:
        # Who answers nonsense once there is a session is somebody in between: the page of a hotel, say.
        return failure.retriable or (isinstance(failure, BadAnswer) and self.session is not None)

    def _failed(self, failure: UploadFailed, began: float) -> None:
        """Note a failure that is not final. Raises GaveUp."""
        self._last = failure
        asked = retry_after(failure.retry_after, failure.date, self._wall())
        if failure.status == 507:
            asked = max(asked, _DISK_FULL_PAUSE)
        self._backoff.failed(began, self._now(), asked)
        self._patient()

    async def _hold(self) -> None:
        """Wait until it is time for the next attempt. A change of the network makes it so. Raises GaveUp."""
        while (delay := self._backoff.remaining(self._now())) > 0:
            left = self._patient()
            self._pausing += 1
            try:
                async with asyncio.timeout(delay if left is None else min(delay, left)):
                    await self._woken.wait()
            except TimeoutError:
                pass
            finally:
                self._pausing -= 1

    def _patient(self) -> float | None:
        """Seconds of patience that are left. Raises GaveUp."""
        if self._terms.patience is None:
            return None
        left = self._moved + self._terms.patience - self._now()
        if left <= 0:
            raise GaveUp(self._terms.patience, self._last) from self._last
        return left

    # ---- what is watched

    def _network_changed(self, change: Any) -> None:
        self._http.network_changed(change.vanished, reachable=change.reachable)
        if change.reachable:
            now = self._now()
            self._backoff.hurry(now)
            woken, self._woken = self._woken, asyncio.Event()
            woken.set()
            for transfer in self._transfers:
                carrier = self._http.carriers.get(transfer.portion)
                # The kernel may take longer to go on over another path than a connection that is dead is borne.
                if carrier is None or not carrier.multipath:
                    transfer.watchdog.suspect(now)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            now = self._now()
            for transfer in self._transfers:
                self._look(transfer, now)
            sent = self._sent()
            if sent > self._best:
                self._best = sent
                self._moved = now
                self._backoff.progressed()
            self._meter.add(now, sent)
            self._report(self._state())

    def _look(self, transfer: _Transfer, now: float) -> None:
        carrier = self._http.carriers.get(transfer.portion)
        if carrier is None:
            transfer.watchdog.moved(now)  # being connected, or answered: that is bounded elsewhere
            return
        acknowledged = max(0, transfer.portion.written - carrier.unacknowledged)
        if acknowledged > transfer.acknowledged:
            transfer.acknowledged = acknowledged
            if transfer.probe is not None:
                transfer.probe.cancel()
                transfer.probe = None
        if transfer.watchdog.sample(now, acknowledged, carrier.silence) and transfer.probe is None:
            transfer.probe = asyncio.create_task(self._probe(transfer, carrier))

    async def _probe(self, transfer: _Transfer, carrier: Connection) -> None:
        """Nothing moves: ask over another connection. Only then, and if nothing has moved since, end the transfer."""
        session = self.session
        if session is None:
            return
        self._http.drop_idle()
        try:
            await self._learn(session)
        except UploadFailed as failure:
            carrier.abort(failure)
            return
        have = self._plan.missing(transfer.piece)
        if have >= transfer.piece.stop:
            transfer.settled = True
        elif have + _SLACK < transfer.piece.start + transfer.acknowledged and have > transfer.told:
            # Somebody in between had taken it and is still handing it on.
            transfer.told = have
            transfer.watchdog.moved(self._now())
            transfer.probe = None
            return
        carrier.abort(ConnectionLost("nothing moved any more", code="stalled"))

    # ---- the digest

    async def _follow(self, digest: SourceDigest) -> None:
        """Hash what the server has, as far as it goes."""
        while digest.done < self._source.size:
            ranges = self._plan.received
            if ranges and ranges[0][0] == 0 and ranges[0][1] > digest.done:
                await digest.advance(min(ranges[0][1], self._source.size))
            else:
                await asyncio.sleep(INTERVAL)

    async def _verified(self, result: Result, digest: SourceDigest) -> Result:
        self._report("finishing")
        told = result.digest
        algorithm = told.partition(":")[0] if told else digest.algorithm
        if algorithm != digest.algorithm and known(algorithm):
            digest = SourceDigest(self._source, algorithm)
        ours = await digest.whole()
        self._source.check()
        if told is None or algorithm != digest.algorithm:
            return replace(result, digest=told or ours)
        if told != ours:
            self._forget()
            raise ContentDiffers(f"the server stored other bytes than the file has: {told}, not {ours}", url=result.url)
        return replace(result, verified=True)

    # ---- what is told

    def _sent(self) -> int:
        """Bytes that the server has, and those beyond that the network took."""
        sent = self._plan.acknowledged
        for transfer in self._transfers:
            sent += max(0, transfer.piece.start + transfer.acknowledged - self._plan.missing(transfer.piece))
        return min(sent, self._source.size)

    def _state(self) -> State:
        if self.session is None:
            return "waiting" if self._pausing else "starting"
        if self._plan.whole:
            return "finishing"
        moving = [transfer for transfer in self._transfers if transfer.probe is None]
        if moving:
            return "uploading"
        if self._network is not None and not self._network.online and self._backoff.attempt:
            return "offline"
        if self._transfers:
            return "stalled"
        return "waiting" if self._pausing else "uploading"

    def _report(self, state: State, *, force: bool = False) -> None:
        before, at = self._reported
        now = self._now()
        if self._on_progress is None or (not force and state == before and now - at < INTERVAL):
            return
        self._reported = (state, now)
        total = self._source.size
        done = state == "done"
        sent = total if done else self._sent()
        rate = self._meter.rate
        left = 0.0 if done else (total - sent) / rate if rate > 0 else None
        acknowledged = total if done else self._plan.acknowledged
        attempt = self._backoff.attempt
        self._on_progress(
            Progress(
                sent=sent,
                acknowledged=acknowledged,
                total=total,
                rate=rate,
                seconds_left=left,
                state=state,
                attempt=attempt,
                resumed=self._resumed,
                transmitted=self._transmitted + sum(transfer.portion.written for transfer in self._transfers),
                error=self._last if attempt else None,
                retry_in=self._backoff.remaining(now),
            )
        )


async def _ended(tasks: "set[asyncio.Task[Any]]") -> None:
    """Cancel what still runs, and wait for its end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
