"""The engine: every resumable upload of this process, whatever protocol its bytes come by.

Rules that live here:

- Only durable bytes are told to anybody: a checkpoint is a sync of the draft, then a commit in the store.
- One holder a lane. A newcomer wins: the old holder's body is drained, checkpointed and ended; if that takes
  too long it is fenced, and nothing of it counts any more.
- Publishing happens once: under the upload's lock the state leaves "open" when the last byte is durable.
- The receipt is durable before the draft goes, and is repeated to whoever asks until the retention is over.
- Space, tickets and session places are given back by whoever takes the upload out of "open", once.

Methods may be called from any thread and never block for the medium, unless they say so. Callbacks come on
any thread. Order of locks: the engine's, then an upload's; a lease's own is never held with either.
"""

import base64
import contextlib
import functools
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final, TypeAlias

import msgspec
from msgspec import structs

from hmac_file_server.clock import Clock
from hmac_file_server.files.contract import (
    Draft,
    DraftHeld,
    Entry,
    FileStore,
    Hasher,
    Log,
    Metadata,
    Outcome,
    PathRefused,
    Published,
    StorageBusy,
    StorageError,
    StorageFailed,
    StoragePath,
    Submit,
)
from hmac_file_server.stores.contract import (
    OPEN,
    Checkpoint,
    Claim,
    Coordinator,
    Create,
    Finish,
    Remove,
    Result,
    Session,
    SessionStore,
    Span,
    StoreError,
    TooManySessions,
)
from hmac_file_server.uploads.errors import UploadRefused
from hmac_file_server.uploads.lease import TAKEN_OVER, Check, Lease
from hmac_file_server.uploads.ledger import Ledger
from hmac_file_server.uploads.receipt import Details, Progress, Receipt, details_of, encode, progress_of
from hmac_file_server.uploads.single import EXISTS
from hmac_file_server.uploads.states import Event, State
from hmac_file_server.uploads.upload import Ended, Failure, Upload

Opened: TypeAlias = Callable[[Upload | Progress | Failure], None]
Claimed: TypeAlias = Callable[[Lease | Progress | Failure], None]
CallLater: TypeAlias = Callable[[float, Callable[[], None]], object]

CHECKPOINT_BYTES: Final = 64 << 20
CHECKPOINT_SECONDS: Final = 5.0
FENCE_SECONDS: Final = 0.25
"""How long a newcomer waits for the old holder's last checkpoint."""
_FLUSH_SECONDS: Final = 0.2
_IDLE_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 5.0
_REST_SECONDS: Final = 1.0
_CROWD: Final = 16
_ORPHAN_SECONDS: Final = 3600.0
_RECONCILE_SECONDS: Final = 60.0
_TRIES: Final = 5
_TRY_SECONDS: Final = 0.1
_DRIFT_SECONDS: Final = 60.0
_DUE: Final = 1000
_RECENT: Final = 4096
# How long in relaxed durability sessions that have ended already wait for more of them, as rows of files do.
_NOTE_SECONDS: Final = 0.05
_READ: Final = 1 << 20
_EVERYTHING: Final = (0, 1 << 63)
# An upload of unknown length is promised space in steps of so many bytes.
_STEP: Final = 16 << 20


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say. Times are seconds; `full`: what is acknowledged survives a power cut.

    `held`: uploads at rest that keep their draft open, for their next chunk; each is one descriptor.
    """

    max_age: float = 86400.0
    sessions_per_owner: int = 1000
    full: bool = True
    held: int = 1000


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An upload that is to be: `length` bytes, None while not known, to be published at `path`.

    `account` is whose session places it takes; `key` makes a repeat of the order find the same upload;
    `ticket` is (id, most files, epoch seconds when it may be forgotten) when a ticket's uses are counted.
    `explicit`, `partial`, `parts` and `extra` are those of `Details`.
    """

    protocol: str
    path: StoragePath
    length: int | None
    chunk_size: int | None
    metadata: Metadata
    filename: str
    account: str
    places: int | None = None
    key: str | None = None
    ticket: tuple[str, int, float] | None = None
    explicit: bool = False
    partial: bool = False
    parts: tuple[str, ...] = ()
    extra: bytes = b""


class Engine:
    """See the module."""

    def __init__(
        self,
        files: FileStore,
        store: SessionStore,
        *,
        clock: Clock,
        random: Callable[[int], bytes],
        submit: Submit,
        call_later: CallLater,
        coordinator: Coordinator,
        log: Log,
        rules: Rules,
        slot: int = 0,
        slots: int = 1,
    ) -> None:
        """`submit` runs what blocks on a worker; this process serves the ids whose `home` is `slot` of `slots`."""
        self._files = files
        self._store = store
        self._clock = clock
        self._random = random
        self._submit = submit
        self._call_later = call_later
        self._coordinator = coordinator
        self._log = log
        self._slot = slot
        self._slots = slots
        self.rules = rules
        self._ledger = Ledger(files.pool())
        # Session times follow the steady clock: a jump of the wall clock expires nothing.
        self._wall = clock.time() - clock.monotonic()
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        self._opening: dict[str, list[Opened]] = {}
        self._creating: set[str] = set()
        self._closed = False
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._recent: OrderedDict[str, Progress] = OrderedDict()
        self._noted: dict[str, Session] = {}
        self._unwritten: list[tuple[Create, Callable[[Result], None]]] = []
        self._swept_orphans = self._reconciled = float("-inf")
        self._transfers = 0

    # ---- asked by protocols

    def now(self) -> float:
        """Epoch seconds that never jump."""
        return self._wall + self._clock.monotonic()

    def home(self, upload_id: str) -> int:
        """The process of this server that serves the upload."""
        return zlib.crc32(upload_id.encode("utf-8", "replace")) % self._slots

    @property
    def here(self) -> int:
        """This process."""
        return self._slot

    @property
    def transfers(self) -> int:
        """Bodies under way."""
        return self._transfers

    def open_sessions(self) -> int:
        """Open uploads in the store, of all processes. Raises StoreError."""
        return self._store.open_sessions()

    def create(self, order: Order, done: Ended) -> None:
        """Begin an upload; `done` gets its first progress, or that of the one that has the order's key already."""
        try:
            if order.key is not None:
                earlier = self._store.by_key(order.key)
                if earlier is not None:
                    done(self._repeated(order, earlier))
                    return
            now = self.now()
            upload_id = self._new_id(now)
            self._ledger.admit(upload_id, order.length or 0)
        except (StoreError, StorageError) as error:
            done(error)
            return
        try:
            if order.ticket is not None and not self._files.take_ticket(*order.ticket):
                raise UploadRefused("ticket_used_up", "The ticket's files have all been uploaded.")
        except (UploadRefused, StorageError) as error:
            self._ledger.end(upload_id)
            done(error)
            return
        session = self._session(order, upload_id, now)
        places = self.rules.sessions_per_owner if order.places is None else order.places
        with self._lock:
            self._creating.add(upload_id)
        self._store.submit(Create(session, places), functools.partial(self._created, order, session, done))

    def record(self, order: Order, entry: Entry, done: Ended) -> None:
        """Remember an upload that came whole with its order, and is or is being published: one commit, not many.

        Its space and its ticket are their business who stored it. `done` gets its progress once that is durable;
        in relaxed durability at once, as the row of its file may be lost in a crash as well. The order has no
        key: a repeat would find a session whose file may be lost yet.
        """
        now = self.now()
        receipt = Receipt(
            path=entry.path, filename=entry.filename, size=entry.size, digest=entry.digest, etag=entry.etag
        )
        session = structs.replace(
            self._session(order, self._new_id(now), now), state=State.COMPLETE, receipt=encode(receipt)
        )

        # It has ended, and takes no place.
        places = self.rules.sessions_per_owner if order.places is None else order.places
        at_once = not self.rules.full

        def recorded(result: Result) -> None:
            progress = progress_of(result) if isinstance(result, Session) else None
            if progress is not None:
                self._remember(progress)
            if at_once:
                with self._lock:
                    self._noted.pop(session.id, None)
            elif progress is not None:
                done(progress)
            else:
                done(result if isinstance(result, StoreError) else StoreError("the session was not recorded"))

        if not at_once:
            self._store.submit(Create(session, places), recorded)
            return
        with self._lock:
            self._noted[session.id] = session
            self._unwritten.append((Create(session, places), recorded))
            first = len(self._unwritten) == 1
        if first:
            self._call_later(_NOTE_SECONDS, self._write_noted)
        done(progress_of(session))

    def _write_noted(self) -> None:
        """Hand what waits to the store: many at once, else its thread would wake up for each."""
        with self._lock:
            waiting, self._unwritten = self._unwritten, []
        for change, recorded in waiting:
            self._store.submit(change, recorded)

    def unrecord(self, progress: Progress) -> None:
        """Forget what `record` remembered, as there is no file after all; nobody was told of it."""
        self._write_noted()
        with self._lock:
            self._recent.pop(progress.id, None)
            self._noted.pop(progress.id, None)
        self._store.submit(Remove(progress.id, 0), _ignore)

    def _session(self, order: Order, upload_id: str, now: float) -> Session:
        meta = order.metadata
        return Session(
            id=upload_id,
            protocol=order.protocol,
            path=order.path,
            length=order.length,
            chunk_size=order.chunk_size,
            filename=order.filename,
            media_type=meta.media_type,
            owner=order.account,
            key=order.key,
            created=now,
            active=now,
            deadline=now + self.rules.max_age,
            details=encode(
                Details(
                    owner=meta.owner,
                    file_expires=meta.expires,
                    ticket=order.ticket,
                    ticket_id=meta.ticket,
                    explicit=order.explicit,
                    partial=order.partial,
                    parts=order.parts,
                    extra=order.extra,
                )
            ),
        )

    def _created(self, order: Order, session: Session, done: Ended, result: Result) -> None:
        with self._lock:
            self._creating.discard(session.id)
        if isinstance(result, StoreError) and not isinstance(result, TooManySessions):
            # It may have been recorded all the same: it has to go before its ticket is free again.
            self._store.submit(
                Remove(session.id, session.epoch),
                functools.partial(self._uncreated, order, session, done, result),
            )
            return
        if not isinstance(result, Session) or result.id != session.id:
            self._ledger.end(session.id)
            outcome: Progress | Failure
            if isinstance(result, Session):
                outcome = self._repeated(order, result)
            else:
                outcome = result if isinstance(result, StoreError) else StoreError("the session was not recorded")
            self._give_back_ticket(order.ticket, functools.partial(done, outcome))
            return
        try:
            draft = self._files.draft(session.id, create=True)
        except StorageError:
            draft = None
        if draft is None:
            # The session is there; its first request will try again.
            done(progress_of(session))
            return
        now = self._found(session)
        if now.epoch != session.epoch or now.state != OPEN:
            # While the answer was on its way, a repeat of the creation was taken up by another server.
            draft.close()
            done(progress_of(now))
            return
        upload = Upload(session, draft, self._new_hasher(session))
        upload.used_at = self._clock.monotonic()
        # Before others can find it: whoever sees it whole and open publishes it.
        publish = upload.ready()
        if publish:
            upload.happen(Event.ALL_THERE)
            upload.waiters.append(done)
        progress = upload.progress()
        if not self._enlist(upload):
            # The session is there, for the next start.
            draft.close()
            done(progress)
        elif publish:
            self._publish(upload)
        else:
            done(progress)

    def _found(self, session: Session) -> Session:
        """A session as the store has it now; as it was if that cannot be told."""
        try:
            return self._store.get(session.id) or session
        except StoreError:
            return session

    def _repeated(self, order: Order, session: Session) -> Progress | UploadRefused:
        """The upload that a key stands for, if it is the one that is ordered now."""
        # A length that was left open may have been told since.
        other = order.length is not None and session.length != order.length
        if other or session.filename != order.filename or session.protocol != order.protocol:
            return UploadRefused("key_reused", "This idempotency key stands for another upload.")
        return self._latest(session)

    def _latest(self, session: Session) -> Progress:
        """How far an upload is, never ahead of what is told of it later: the store knows before its answer is here."""
        upload = self._uploads.get(session.id)
        if upload is not None:
            with upload.lock:
                if not upload.closed:
                    return upload.progress()
        return progress_of(session)

    def _uncreated(self, order: Order, session: Session, done: Ended, failure: StoreError, result: Result) -> None:
        survivor: Session | None = None
        if result is not True:
            with contextlib.suppress(StoreError):
                survivor = self._store.get(session.id)
        if survivor is not None:
            # A repeat of the order found it by its key, and somebody is at work on it.
            done(self._latest(survivor))
            return
        self._ledger.end(session.id)
        self._give_back_ticket(order.ticket, functools.partial(done, failure))

    def _new_hasher(self, session: Session) -> Hasher | None:
        """A hasher for a file that will be hashed, as far as that is known; none for what is never published."""
        return None if details_of(session).partial else self._files.new_hasher(session.length or 0)

    def _new_id(self, now: float) -> str:
        """`<unix>_<random>` as in the guide, with 128 random bits, served by this process."""
        while True:
            token = base64.b32encode(self._random(16)).decode("ascii").rstrip("=").lower()
            upload_id = f"{int(now)}_{token}"
            if self.home(upload_id) == self._slot:
                return upload_id

    def progress(self, upload_id: str) -> Progress:
        """How far an upload is, or how it ended, as far as it is durable. Raises UploadRefused, StoreError."""
        upload = self._uploads.get(upload_id)
        if upload is not None:
            with upload.lock:
                if not upload.closed:
                    return upload.progress()
        recent = self._recent.get(upload_id)
        if recent is not None and recent.expires > self.now():
            return recent
        session = self._find(upload_id)
        if session is None:
            raise _unknown()
        return progress_of(session)

    def _find(self, upload_id: str) -> Session | None:
        """The session as it was told, be it on its way to the store. Raises StoreError."""
        return self._noted.get(upload_id) or self._store.get(upload_id)

    def settle(self, upload_id: str, done: Callable[[], None]) -> None:
        """Make durable what was received, without disturbing the transfers; within about half a second.

        However many ask: the bytes of a transfer are flushed for them five times a second at the most.
        """
        upload = self._uploads.get(upload_id)
        if upload is None:
            done()
            return
        now = self._clock.monotonic()
        due: list[tuple[Lease, float]] = []
        with upload.lock:
            leases = [
                lease
                for lease in upload.leases
                if lease.position > lease.durable_to and lease.check is None and lease.live
            ]
            once = _Once(len(leases), done)
            for lease in leases:
                settling = lease.settling
                if settling.under_way is not None and settling.position == lease.position:
                    settling.under_way.append(once.count)
                elif settling.waiting is not None:
                    settling.waiting.append(once.count)
                else:
                    settling.waiting = [once.count]
                    due.append((lease, max(0.0, settling.began + _FLUSH_SECONDS - now)))
        if not leases:
            done()
            return
        self._call_later(FENCE_SECONDS + _FLUSH_SECONDS, once.give_up)
        for lease, delay in due:
            if delay:
                self._call_later(delay, functools.partial(self._settle, lease))
            else:
                self._settle(lease)

    def _settle(self, lease: Lease) -> None:
        settling = lease.settling
        with lease.upload.lock:
            waiting = settling.waiting or []
            settling.waiting, settling.under_way = None, waiting
            settling.began = self._clock.monotonic()
            settling.position = lease.position

        def flushed() -> None:
            with lease.upload.lock:
                if settling.under_way is waiting:
                    settling.under_way = None
            for count in waiting:
                count()

        self._flush(lease, flushed)

    def watch(self, upload_id: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever the upload's progress changes, until the function that is returned is called."""
        with self._lock:
            self._watchers.setdefault(upload_id, []).append(callback)

        def unwatch() -> None:
            with self._lock:
                callbacks = self._watchers.get(upload_id)
                if callbacks is not None and callback in callbacks:
                    callbacks.remove(callback)
                    if not callbacks:
                        del self._watchers[upload_id]

        return unwatch

    # ---- taking charge

    def open(self, upload_id: str, done: Opened, *, ask: bool = True) -> None:
        """Take charge of an upload; `done` gets it, or its end if it has ended, or why not.

        `ask`: have another server that holds it let go of it.
        """
        with self._lock:
            upload = self._uploads.get(upload_id)
            if upload is None or upload.closed:
                waiting = self._opening.get(upload_id)
                if waiting is not None:
                    waiting.append(done)
                    return
                self._opening[upload_id] = [done]
                upload = None
        if upload is not None:
            upload.used_at = self._clock.monotonic()
            done(upload)
        else:
            self._load(upload_id, _TRIES if ask else 0, asked=not ask)

    def _load(self, upload_id: str, tries: int, *, asked: bool) -> None:
        draft: Draft | None = None
        try:
            session = self._find(upload_id)
            if session is None:
                raise _unknown()
            if session.state != OPEN:
                self._opened(upload_id, progress_of(session))
                return
            try:
                draft = self._files.draft(upload_id, create=not session.ranges)
            except DraftHeld:
                self._held(upload_id, tries, asked=asked)
                return
            if draft is None or not _holds(draft, session):
                self._lose(session, draft, tries)
                return
        except (UploadRefused, StorageError, StoreError) as error:
            if draft is not None:
                draft.close()
            self._opened(upload_id, error)
            return
        self._store.submit(
            Claim(upload_id, session.epoch), functools.partial(self._taken_charge, upload_id, draft, tries)
        )

    def _held(self, upload_id: str, tries: int, *, asked: bool) -> None:
        """Somebody has the draft: this process by now, or another server, or one that is just letting go."""
        with self._lock:
            upload = self._uploads.get(upload_id)
        if upload is not None and not upload.closed:
            self._opened(upload_id, upload)
        elif not asked:
            self._coordinator.ask(upload_id, lambda _: self._load(upload_id, tries, asked=True))
        elif tries:
            again = functools.partial(self._load, upload_id, tries - 1, asked=True)

            def later() -> None:
                self._submit(again)

            self._call_later(_TRY_SECONDS, later)
        else:
            self._opened(upload_id, DraftHeld("another server is at work on the upload"))

    def _lose(self, session: Session, draft: Draft | None, tries: int) -> None:
        """Acknowledged bytes are not there any more: somebody else touched the storage. Say so, once and for all."""
        self._log("upload_lost", upload=label(session.id), received=session.received)
        refusal = UploadRefused("upload_lost", "Bytes of this upload were removed from the storage; begin it anew.")
        receipt = Receipt(
            path=session.path, filename=session.filename, size=0, code=refusal.code, detail=refusal.detail
        )
        change = Finish(session.id, session.epoch, State.FAILED, encode(receipt), self.now() + self.rules.max_age)

        def finished(result: Result) -> None:
            if draft is not None and result is not True:
                draft.close()
            elif draft is not None:
                draft.discard()
            if result is False and tries:
                # It has changed hands, or has ended, since it was looked at.
                self._load(session.id, tries - 1, asked=True)
                return
            outcome = result if isinstance(result, StoreError) else refusal
            opened = functools.partial(self._opened, session.id, outcome)
            if result is True:
                self._ledger.end(session.id)
                self._give_back_ticket(details_of(session).ticket, opened)
            else:
                opened()

        self._store.submit(change, finished)

    def _taken_charge(self, upload_id: str, draft: Draft, tries: int, result: Result) -> None:
        if not isinstance(result, Session):
            draft.close()
            if isinstance(result, StoreError):
                self._opened(upload_id, result)
            elif tries:
                self._load(upload_id, tries - 1, asked=True)
            else:
                self._opened(upload_id, DraftHeld("another server took the upload"))
            return
        if result.state != OPEN:
            draft.close()
            self._opened(upload_id, progress_of(result))
            return
        upload = Upload(result, draft, self._new_hasher(result))
        self._ledger.count(upload_id, upload.left())
        upload.used_at = self._clock.monotonic()
        # The server stopped between the last checkpoint and the publish.
        publish = upload.ready()
        if publish:
            upload.happen(Event.ALL_THERE)
        if not self._enlist(upload):
            draft.close()
            self._opened(upload_id, StorageBusy("the server is stopping"))
            return
        if publish:
            self._publish(upload)
        self._opened(upload_id, upload)

    def _opened(self, upload_id: str, result: Upload | Progress | Failure) -> None:
        with self._lock:
            waiting = self._opening.pop(upload_id, [])
        for done in waiting:
            done(result)

    # ---- leases

    def adopt(self, upload: Upload, chunk_size: int) -> bool:
        """Take another chunk size than was announced, as long as nothing of the upload is there or under way."""
        with upload.lock:
            free = upload.state is State.OPEN and not upload.durable.total and not upload.leases
            if free:
                upload.chunk_size = chunk_size
            return free

    def declare(self, upload: Upload, length: int, done: Ended) -> None:
        """Say how long an upload is whose length was not known; the same again is fine.

        `done` gets the progress once that is durable, or UploadRefused `length_conflict`, or why not.
        """
        with upload.lock:
            known = upload.length
            spans = upload.durable.spans()
            more = length - max(upload.promised, upload.durable.total)
            epoch, active, expires = upload.epoch, upload.active, upload.expires
            chunk_size = upload.chunk_size
            usable = upload.state is State.OPEN and not upload.closed
        if known == length:
            done(upload.look())
            return
        if known is not None or (spans and spans[-1][1] > length):
            done(UploadRefused("length_conflict", "The upload has another length."))
            return
        if not usable:
            done(UploadRefused("upload_taken_over", TAKEN_OVER))
            return
        try:
            if more > 0:
                self._ledger.grow(upload.id, more)
        except StorageError as error:
            done(error)
            return

        def declared(result: Result) -> None:
            if result is True:
                with upload.lock:
                    upload.length = length
                    upload.version += 1
                    if upload.hasher is None and not upload.details.partial:
                        upload.hasher, upload.hashed = self._files.new_hasher(length), 0
                    left = upload.left()
                    progress = upload.progress()
                self._ledger.shrink(upload.id, left)
                self._tell(upload.id)
                done(progress)
            elif isinstance(result, StoreError):
                done(result)
            else:
                done(UploadRefused("upload_taken_over", TAKEN_OVER))

        self._store.submit(Checkpoint(upload.id, epoch, (), active, expires, length, chunk_size), declared)

    def promise(self, upload: Upload, end: int) -> None:
        """Promise space for bytes up to `end` of an upload of unknown length, in steps. Raises StorageError."""
        with upload.lock:
            more = 0 if upload.length is not None else end - upload.promised
            if more > 0:
                more = max(more, _STEP)
        if more > 0:
            self._ledger.grow(upload.id, more)
            with upload.lock:
                upload.promised += more

    def contested(self, upload: Upload, lane: Span) -> bool:
        """Whether somebody holds, or waits for, a part of a lane."""
        with upload.lock:
            return any(lease.overlaps(lane) for lease in upload.leases)

    def arrived(self, upload_id: str) -> int | None:
        """Where the transfers of an upload stand together, durable or not; None when none is under way."""
        upload = self._uploads.get(upload_id)
        if upload is None:
            return None
        with upload.lock:
            positions = [lease.position for lease in upload.leases if lease.begun]
        return sum(positions) if positions else None

    def interrupt(self, upload: Upload, done: Ended) -> None:
        """End every transfer of an upload, make durable what they brought; `done` gets the progress."""

        def alone(result: Lease | Progress | Failure) -> None:
            if isinstance(result, Lease):
                with upload.lock:
                    progress = upload.progress()
                self._release(result)
                done(progress)
            else:
                done(result)

        self.claim(upload, _EVERYTHING, 0, on_taken=_nothing, done=alone)

    def complete(self, upload: Upload, done: Ended) -> None:
        """The client says that all bytes are there: publish. `done` gets the progress, complete or not."""
        publish = False
        with upload.lock:
            progress = upload.progress()
            wait = upload.state is State.PUBLISHING
            ending = upload.ending and not upload.closed
            whole = upload.state is State.OPEN and upload.whole() and not upload.details.partial
            if whole and not upload.closed and not ending:
                upload.happen(Event.ALL_THERE)
                publish = wait = True
            if wait:
                upload.waiters.append(done)
        if publish:
            self._publish(upload)
        elif ending:
            self._complete_unless_ended(upload, done)
        elif not wait:
            done(progress)

    def _complete_unless_ended(self, upload: Upload, done: Ended) -> None:
        """As `complete`, once it is known whether the end under way has come about."""

        def alone(result: Lease | Progress | Failure) -> None:
            if isinstance(result, Lease):
                self._release(result)
                self.complete(result.upload, done)
            else:
                done(result)

        self.claim(upload, _EVERYTHING, 0, on_taken=_nothing, done=alone)

    def assemble(self, upload: Upload, done: Ended) -> None:
        """Make an upload of its parts and publish it, as soon as all of them are whole; `done` gets its progress.

        An upload whose parts are not whole yet is told as it is.
        """

        def alone(result: Lease | Progress | Failure) -> None:
            if isinstance(result, Lease):
                self._submit(functools.partial(self._assemble, result, done))
            else:
                done(result)

        with upload.lock:
            made = upload.whole()
        if made:
            # Its publish was put off; its bytes are not to be touched any more.
            self.complete(upload, done)
        else:
            self.claim(upload, _EVERYTHING, 0, on_taken=_nothing, done=alone)

    def _assemble(self, lease: Lease, done: Ended) -> None:
        """On a worker: the parts' bytes into the draft, shared or copied by the file system."""
        upload = lease.upload
        failure: Failure | None = None
        offset = 0
        whole = False
        try:
            parts = [self._store.get(part) for part in upload.details.parts]
            if any(part is None or part.state != OPEN for part in parts):
                raise UploadRefused("part_missing", "A part of this upload is not there any more.")
            sizes = [part.length for part in parts if part is not None]
            whole = all(part is not None and part.length is not None and part.received == part.length for part in parts)
            if whole:
                for part, size in zip(upload.details.parts, sizes, strict=True):
                    self._files.copy_draft(part, upload.draft, offset, size or 0)
                    offset += size or 0
                with lease.mutex:
                    lease.position = offset
                    # What was copied was not hashed on its way.
                    lease.hot = None
        except (UploadRefused, StorageError, StoreError) as error:
            failure = error
        if failure is not None or not whole:
            with upload.lock:
                progress = upload.progress()
            self._release(lease)
            done(failure or progress)
            return

        def declared(result: Progress | Failure) -> None:
            if isinstance(result, Progress):
                self._checkpoint(lease, functools.partial(self._assembled, lease, done), whole=True)
            else:
                self._release(lease)
                done(result)

        self.declare(upload, offset, declared)

    def _assembled(self, lease: Lease, done: Ended, failure: Failure | None) -> None:
        self._release(lease)
        if failure is None:
            self.complete(lease.upload, done)
        else:
            done(failure)

    def claim(
        self,
        upload: Upload,
        lane: Span,
        begin: int,
        *,
        on_taken: Callable[[], None],
        done: Claimed,
        check: Check | None = None,
    ) -> None:
        """Claim a lane for a body that begins at `begin`; whoever holds a part of it is asked to end.

        `on_taken` is called, once, when a newcomer wants the lane: the body is to be ended with `cut`. `done`
        gets the lease, or the upload's progress when it has ended, or why there is no lease.
        """
        lease: Lease | None = None
        rivals: list[Lease] = []
        with upload.lock:
            closed = upload.closed
            if not closed and upload.state is State.PUBLISHING:
                upload.waiters.append(done)
                return
            progress = upload.progress()
            if not closed and upload.state is State.OPEN:
                lease = Lease(self, upload, lane, begin, upload.next_epoch, on_taken, check)
                lease.ready = done
                upload.next_epoch += 1
                overlapping = [rival for rival in upload.leases if rival.overlaps(lane)]
                rivals = [rival for rival in overlapping if rival.live or rival.committing]
                lease.waiting_for = set(rivals)
                lease.predecessors.extend(rival for rival in overlapping if rival not in rivals)
                upload.leases.append(lease)
        if closed:
            self._claim_anew(upload.id, lane, begin, on_taken, done, check)
        elif lease is None:
            done(progress)
        elif not rivals:
            self._begin(lease)
        else:
            self._call_later(FENCE_SECONDS, functools.partial(self._fence, lease))
            for rival in rivals:
                self._take(rival)

    def _claim_anew(
        self,
        upload_id: str,
        lane: Span,
        begin: int,
        on_taken: Callable[[], None],
        done: Claimed,
        check: Check | None,
    ) -> None:
        """The upload was let go, or has ended, since it was opened."""

        def opened(found: Upload | Progress | Failure) -> None:
            if isinstance(found, Upload):
                self.claim(found, lane, begin, on_taken=on_taken, done=done, check=check)
            else:
                done(found)

        self.open(upload_id, opened)

    def _take(self, lease: Lease) -> None:
        """Ask a holder to end; one that has not begun is refused."""
        with lease.upload.lock:
            if lease.taken:
                return
            lease.taken = True
            ready, lease.ready = lease.ready, None
            given = lease.given
        if ready is None:
            # Else whoever is about to give it says so, too.
            if given:
                lease.on_taken()
        else:
            self._release(lease)
            ready(UploadRefused("upload_taken_over", TAKEN_OVER))

    def _fence(self, lease: Lease) -> None:
        """The old holders took too long: whatever they still do counts no more, unless it is being committed."""
        begin = False
        with lease.upload.lock:
            if lease.ready is None:
                return
            for rival in list(lease.waiting_for):
                if rival.committing == 0:
                    rival.live = False
                    lease.predecessors.append(rival)
                    lease.waiting_for.discard(rival)
            begin = not lease.waiting_for
            # Those that are being committed are fenced when that is done.
            lease.overdue = True
        if begin:
            self._begin(lease)

    def _begin(self, lease: Lease) -> None:
        upload = lease.upload
        now = self._clock.monotonic()
        with upload.lock:
            ready, lease.ready = lease.ready, None
            if ready is None:
                return
            usable = upload.state is State.OPEN and not upload.closed
            if usable:
                lease.hold(upload.durable.within(max(lease.begin, lease.lane[0]), lease.lane[1]))
                hasher = upload.hasher
                if hasher is not None and upload.hashed == lease.begin:
                    lease.hot = hasher.copy()
                lease.moved_at = lease.synced_at = upload.used_at = now
                lease.begun = True
        if usable:
            with self._lock:
                self._transfers += 1
            ready(lease)
            with upload.lock:
                lease.given = True
                taken = lease.taken
            if taken:
                lease.on_taken()
            return
        with upload.lock:
            # It claims anew, as another.
            lease.taken = True
        self._release(lease)
        if upload.closed:
            self._claim_anew(upload.id, lease.lane, lease.begin, lease.on_taken, ready, lease.check)
        else:
            self.claim(upload, lease.lane, lease.begin, on_taken=lease.on_taken, done=ready, check=lease.check)

    def moved(self, lease: Lease) -> None:
        """Bytes were written: a long body is checkpointed while it runs."""
        now = self._clock.monotonic()
        lease.moved_at = now
        if lease.check is not None or lease.flushing:
            return
        since = lease.position - lease.durable_to
        if since >= CHECKPOINT_BYTES or now - lease.synced_at >= CHECKPOINT_SECONDS:
            self._flush(lease, None)

    def flush_all(self) -> None:
        """Checkpoint every transfer under way, soon."""
        with self._lock:
            uploads = list(self._uploads.values())
        for upload in uploads:
            with upload.lock:
                leases = [lease for lease in upload.leases if lease.check is None and lease.begun]
            for lease in leases:
                self._flush(lease, None)

    def _flush(self, lease: Lease, then: Callable[[], None] | None) -> None:
        lease.flushing = True
        lease.synced_at = self._clock.monotonic()

        def flushed(_failure: Failure | None) -> None:
            # A failure comes up again, and counts, when the body ends.
            lease.flushing = False
            if then is not None:
                then()

        self._checkpoint(lease, flushed, whole=False)

    def finish(self, lease: Lease, done: Ended, *, last: bool = False) -> None:
        """The body of a lease is whole: checkpoint it; publish the upload if it was the last that was missing.

        `last`: the client says that the upload ends here, which is its length if that was not known, and what an
        `explicit` upload needs to be published. `done` gets the progress: when the upload is complete by this,
        once it is published.
        """
        if lease.check is not None and not lease.check.matches():
            self._release(lease)
            done(mismatch())
            return
        if not last or lease.upload.length is not None:
            self._checkpoint(lease, functools.partial(self._finished, lease, done, last), whole=True)
            return

        def declared(result: Progress | Failure) -> None:
            if isinstance(result, Progress):
                self._checkpoint(lease, functools.partial(self._finished, lease, done, last), whole=True)
            else:
                # The bytes are kept; where they end is to be said again.
                self._checkpoint(lease, functools.partial(self._finished_badly, lease, done, result), whole=True)

        self.declare(lease.upload, lease.position, declared)

    def _finished_badly(self, lease: Lease, done: Ended, reason: Failure, failure: Failure | None) -> None:
        self._finished(lease, lambda _: done(failure or reason), last=False, failure=failure)

    def _finished(self, lease: Lease, done: Ended, last: bool, failure: Failure | None) -> None:
        upload = lease.upload
        publish = wait = False
        with upload.lock:
            if failure is None:
                explicit = upload.details.explicit and last and upload.whole()
                if upload.state is State.OPEN and (upload.closed or upload.ending):
                    # It was let go: its bytes are safe, and whoever opens it anew goes on with it. Or somebody
                    # is ending it, who fenced this body.
                    failure = UploadRefused("upload_taken_over", TAKEN_OVER)
                elif upload.state is State.OPEN and (explicit or upload.ready()):
                    upload.happen(Event.ALL_THERE)
                    publish = True
                wait = upload.state is State.PUBLISHING
                if wait:
                    upload.waiters.append(done)
            progress = upload.progress()
        self._release(lease)
        if publish:
            self._publish(upload)
        if not wait:
            done(progress if failure is None else failure)

    def cut(self, lease: Lease, done: Callable[[], None] | None = None) -> None:
        """The body of a lease ended early: keep what came of it; `done` when it is durable, or never will be.

        Nothing is kept of a body with a digest: it was to be trusted only if that matched.
        """

        def kept(_failure: Failure | None) -> None:
            self._release(lease)
            if done is not None:
                done()

        if lease.check is None:
            self._checkpoint(lease, kept, whole=False)
        else:
            kept(None)

    def _release(self, lease: Lease) -> None:
        """The lease is over; those who waited for it may begin."""
        upload = lease.upload
        ready = []
        with upload.lock:
            if lease.committing:
                # A commit of it is under way: its end is the lease's.
                lease.leaving = True
                return
            lease.live = False
            begun, lease.begun = lease.begun, False
            if lease in upload.leases:
                upload.leases.remove(lease)
            for other in upload.leases:
                if lease in other.waiting_for:
                    other.waiting_for.discard(lease)
                    if not other.waiting_for:
                        ready.append(other)
            upload.used_at = self._clock.monotonic()
        if begun:
            with self._lock:
                self._transfers -= 1
        for other in ready:
            self._begin(other)

    # ---- checkpoints

    def _checkpoint(self, lease: Lease, then: Callable[[Failure | None], None], *, whole: bool) -> None:
        """Make durable what the lease has written; `whole`: its body has ended as it should.

        Before that the last byte of the lane is held back, so that no upload is ever complete by a body whose
        end nobody saw.
        """

        def work() -> None:
            with lease.mutex:
                upto = lease.position
                hot = None if lease.hot is None else lease.hot.copy()
            if not whole and upto == lease.lane[1]:
                upto -= 1
                hot = None
            with lease.upload.lock:
                known = lease.upload.durable.covers(lease.begin, upto)
            if known:
                then(None)
                return
            try:
                lease.upload.draft.sync()
            except StorageError as error:
                with lease.upload.lock:
                    let_go = lease.upload.closed
                self._broken(lease.upload)
                # A draft that was let go meanwhile takes no sync; nothing is wrong with the disk.
                then(UploadRefused("upload_taken_over", TAKEN_OVER) if let_go else error)
                return
            self._commit(lease, upto, hot, then)

        if lease.position > lease.begin and (self.rules.full or not whole):
            self._submit(work)
        else:
            work()

    def _commit(self, lease: Lease, upto: int, hot: Hasher | None, then: Callable[[Failure | None], None]) -> None:
        upload = lease.upload
        now = self.now()
        with upload.lock:
            usable = lease.live and upload.state is State.OPEN and not upload.closed
            if usable:
                lease.committing += 1
                change = Checkpoint(
                    upload.id,
                    upload.epoch,
                    ((lease.begin, upto),),
                    now,
                    now + self.rules.max_age,
                    upload.length,
                    upload.chunk_size,
                )
        if usable:
            self._store.submit(change, functools.partial(self._committed, lease, upto, hot, now, then))
        else:
            then(UploadRefused("upload_taken_over", TAKEN_OVER))

    def _committed(
        self,
        lease: Lease,
        upto: int,
        hot: Hasher | None,
        now: float,
        then: Callable[[Failure | None], None],
        result: Result,
    ) -> None:
        upload = lease.upload
        failure: Failure | None = None
        with upload.lock:
            if result is True:
                upload.durable.add(lease.begin, upto)
                if upload.state is State.OPEN:
                    # Else a later checkpoint of the same bytes was answered first, and was the last one needed.
                    upload.happen(Event.CHECKPOINT)
                upload.active = max(upload.active, now)
                upload.expires = max(upload.expires, now + self.rules.max_age)
                lease.durable_to = max(lease.durable_to, upto)
                if hot is not None and upto > upload.hashed:
                    upload.hasher, upload.hashed = hot, upto
            elif isinstance(result, StoreError):
                failure = result
            else:
                failure = UploadRefused("upload_taken_over", TAKEN_OVER)
            behind = self._behind(upload)
            left = upload.left()
            lease.committing -= 1
            leaving = lease.leaving and not lease.committing
            overdue = [other for other in upload.leases if other.overdue and lease in other.waiting_for]
        self._ledger.shrink(upload.id, left)
        if result is not True:
            # The store knows another epoch, so some other server has charge of it; or it may have recorded
            # these bytes, and they must not be written over.
            self._drop(upload)
        if behind:
            self._submit(functools.partial(self._catch_up, upload))
        self._tell(upload.id)
        then(failure)
        if leaving:
            self._release(lease)
        for other in overdue:
            self._fence(other)

    def _broken(self, upload: Upload) -> None:
        """A sync failed: this draft's descriptor is not to be trusted again; what was durable is read anew."""
        self._drop(upload)

    def _drop(self, upload: Upload) -> None:
        """Let go of an upload at once; its transfers end, its file stays."""
        with upload.lock:
            if upload.closed:
                return
            upload.closed = True
            upload.draft.close()
            leases = list(upload.leases)
            for lease in leases:
                lease.live = False
        self._unlist(upload)
        for lease in leases:
            self._take(lease)

    def _enlist(self, upload: Upload) -> bool:
        """Take an upload into memory; when there are many, those that have rested longest are let go.

        False: the engine is closed, nothing is taken any more.
        """
        crowd: list[Upload] = []
        with self._lock:
            if self._closed:
                return False
            self._uploads[upload.id] = upload
            if len(self._uploads) > self.rules.held:
                crowd = list(islice(self._uploads.values(), _CROWD))
        rested = self._clock.monotonic() - _REST_SECONDS
        for other in crowd:
            self._let_rest(other, rested)
        return True

    def _unlist(self, upload: Upload) -> None:
        with self._lock:
            if self._uploads.get(upload.id) is upload:
                del self._uploads[upload.id]

    # ---- hashing

    def _behind(self, upload: Upload) -> bool:
        """Whether to hash what became durable out of order; the caller holds the upload's lock."""
        if upload.hasher is None or upload.hashing or upload.state is not State.OPEN:
            return False
        if any(lease.hot is not None and lease.begun for lease in upload.leases):
            return False
        if upload.durable.reach(upload.hashed) - upload.hashed < _READ:
            return False
        upload.hashing = True
        return True

    def _catch_up(self, upload: Upload) -> None:
        """Hash the unbroken run of durable bytes, on a worker."""
        try:
            self._hash(upload)
        except StorageError as error:
            self._log("upload_hash_failed", upload=label(upload.id), error=repr(error))
        finally:
            with upload.lock:
                upload.hashing = False

    def _hash(self, upload: Upload) -> None:
        """Bring the hash to the end of the unbroken run. Blocks. Raises StorageError."""
        with upload.lock:
            hasher = None if upload.hasher is None else upload.hasher.copy()
            position = upload.hashed
            end = upload.durable.reach(position)
        if hasher is None:
            return
        while position < end:
            piece = upload.draft.read_at(position, min(_READ, end - position))
            if not piece:
                raise StorageError("the draft is shorter than its ranges")
            hasher.update(piece)
            position += len(piece)
        with upload.lock:
            if position > upload.hashed:
                upload.hasher, upload.hashed = hasher, position

    # ---- publishing

    def _publish(self, upload: Upload) -> None:
        """All bytes are durable and the state is "publishing": hash the rest and publish, on a worker."""

        def work() -> None:
            try:
                self._hash(upload)
                hasher = upload.hasher
                digest = None if hasher is None else self._files.digest_text(hasher)
                details = upload.details
                metadata = Metadata(
                    upload.media_type, upload.filename, details.owner, details.file_expires, details.ticket_id
                )
                self._files.publish_draft_soon(
                    upload.draft,
                    StoragePath(upload.path),
                    metadata,
                    upload.length or 0,
                    digest,
                    functools.partial(self._published, upload),
                )
            except StorageError as error:
                self._published(upload, error)

        self._submit(work)

    def _published(self, upload: Upload, result: Published | StorageError | PathRefused) -> None:
        entry: Entry | None = None
        if isinstance(result, StorageError):
            self._put_off(upload, result)
            return
        code, detail = "", ""
        if isinstance(result, PathRefused):
            code, detail = result.code, result.reason
        elif result.outcome is Outcome.CONFLICT or result.entry is None:
            code, detail = "exists", EXISTS
        else:
            entry = result.entry
        receipt = Receipt(
            path=upload.path,
            filename=upload.filename if entry is None else entry.filename,
            size=upload.length or 0,
            digest=None if entry is None else entry.digest,
            etag="" if entry is None else entry.etag,
            code=code,
            detail=detail,
        )
        # A file that is there since the upload began is its own: an earlier receipt was lost. Files have the
        # wall clock's time, which drifts away from ours.
        own = isinstance(result, Published) and (
            result.outcome is Outcome.CREATED
            or (entry is not None and entry.created >= upload.created - _DRIFT_SECONDS)
        )
        expires = self.now() + self.rules.max_age
        change = Finish(
            upload.id,
            upload.epoch,
            State.FAILED if code else State.COMPLETE,
            encode(receipt),
            expires,
        )
        self._store.submit(change, functools.partial(self._receipted, upload, receipt, expires, own))

    def _receipted(self, upload: Upload, receipt: Receipt, expires: float, own: bool, result: Result) -> None:
        if isinstance(result, StoreError) and self._ended(upload):
            # It was recorded all the same, and whoever asks the store is told so.
            result = True
        if result is not True:
            # The file is there; the finishing request may be repeated until the receipt is, too.
            failure = result if isinstance(result, StoreError) else UploadRefused("upload_taken_over", TAKEN_OVER)
            self._put_off(upload, failure)
            if result is False:
                self._drop(upload)
            return
        with upload.lock:
            upload.happen(Event.REFUSED if receipt.code else Event.PUBLISHED)
            upload.receipt = receipt
            upload.expires = expires
            upload.closed = True
            waiters, upload.waiters = upload.waiters, []
            progress = upload.progress()
        self._remember(progress)
        self._unlist(upload)
        self._ledger.end(upload.id)
        self._submit(upload.draft.discard)
        self._tell(upload.id)

        def told() -> None:
            for done in waiters:
                done(progress)

        if receipt.code or not own:
            self._give_back_ticket(upload.details.ticket, told)
        else:
            told()

    def _ended(self, upload: Upload) -> bool:
        """Whether the store knows the end of an upload that is ours."""
        try:
            session = self._store.get(upload.id)
        except StoreError:
            return False
        return session is not None and session.state != OPEN and session.epoch == upload.epoch

    def _put_off(self, upload: Upload, failure: Failure) -> None:
        with upload.lock:
            upload.happen(Event.PUT_OFF)
            waiters, upload.waiters = upload.waiters, []
        self._log("publish_put_off", upload=label(upload.id), reason=failure.code)
        if isinstance(failure, StorageFailed):
            # A draft whose sync failed is of no more use to anybody; the next request opens it anew.
            self._broken(upload)
        self._tell(upload.id)
        for done in waiters:
            done(failure)

    def _remember(self, progress: Progress) -> None:
        with self._lock:
            self._recent[progress.id] = progress
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)

    # ---- the end without a file

    def cancel(self, upload_id: str, done: Ended) -> None:
        """End an upload on request: transfers first, then its bytes, space and place; an ended one is forgotten."""

        def opened(found: Upload | Progress | Failure) -> None:
            if isinstance(found, Upload):
                self._end(found, Event.CANCEL, done)
            elif isinstance(found, Progress):
                self._forget(found, done)
            else:
                done(found)

        self.open(upload_id, opened)

    def reject(self, upload_id: str, reason: UploadRefused, done: Ended) -> None:
        """End an open upload for good because of what its client said or sent; the reason is kept and repeated.

        `done` gets its progress, "failed"; that of one which has ended already, as it is; or why not.
        """

        def opened(found: Upload | Progress | Failure) -> None:
            if isinstance(found, Upload):
                self._end(found, Event.REFUSED, done, reason)
            else:
                done(found)

        self.open(upload_id, opened)

    def _forget(self, progress: Progress, done: Ended) -> None:
        try:
            session = self._find(progress.id)
        except StoreError as error:
            done(error)
            return
        if session is None:
            done(_unknown())
            return

        def removed(result: Result) -> None:
            with self._lock:
                self._recent.pop(progress.id, None)
                self._noted.pop(progress.id, None)
            self._tell(progress.id)
            done(result if isinstance(result, StoreError) else progress)

        self._write_noted()
        self._store.submit(Remove(session.id, session.epoch), removed)

    def _end(self, upload: Upload, event: Event, done: Ended, reason: UploadRefused | None = None) -> None:
        """Take an open upload out of "open" by `event`, after its transfers were ended."""

        def alone(result: Lease | Progress | Failure) -> None:
            if not isinstance(result, Lease):
                if isinstance(result, Progress) and event is Event.CANCEL:
                    # It was published, or ended otherwise, meanwhile.
                    self._forget(result, done)
                else:
                    done(result)
                return
            lease, held, now = result, result.upload, self.now()
            with held.lock:
                # What was continued meanwhile lives on.
                alive = event is Event.EXPIRE and held.expires > now
                if not alive:
                    lease.committing += 1
                    held.ending = True
                epoch = held.epoch
                progress = held.progress()
            if alive:
                self._release(lease)
                done(progress)
                return
            receipt: Receipt | None = None
            if event is Event.CANCEL:
                change: Remove | Finish = Remove(held.id, epoch)
            elif reason is not None:
                receipt = Receipt(
                    path=held.path, filename=held.filename, size=0, code=reason.code, detail=reason.detail
                )
                change = Finish(held.id, epoch, State.FAILED, encode(receipt), now + self.rules.max_age)
            else:
                change = Finish(held.id, epoch, State.EXPIRED, b"", now + self.rules.max_age)
            self._store.submit(change, functools.partial(self._gone, lease, event, done, receipt))

        self.claim(upload, _EVERYTHING, 0, on_taken=_nothing, done=alone)

    def _gone(self, lease: Lease, event: Event, done: Ended, receipt: Receipt | None, result: Result) -> None:
        upload = lease.upload
        if result is True:
            with upload.lock:
                upload.happen(event)
                upload.receipt = receipt
                upload.closed = True
                progress = upload.progress()
            self._unlist(upload)
            self._ledger.end(upload.id)
            self._submit(upload.draft.discard)
            self._tell(upload.id)
        with upload.lock:
            lease.committing -= 1
            upload.ending = False
        if result is False:
            # Some other server has charge of it, or has ended it.
            self._drop(upload)
        self._release(lease)
        if result is True:
            self._give_back_ticket(upload.details.ticket, functools.partial(done, progress))
        else:
            done(result if isinstance(result, StoreError) else _unknown())

    def _give_back_ticket(self, ticket: tuple[str, int, float] | None, then: Callable[[], None]) -> None:
        """Take back one use of a ticket; `then` whoever ended the upload may be told, who may begin another at once."""
        if ticket is None:
            then()
            return

        def work() -> None:
            try:
                self._files.give_back_ticket(ticket[0])
            except StorageError as error:
                self._log("ticket_not_given_back", error=repr(error))
            then()

        self._submit(work)

    # ---- other servers

    def release(self, upload_id: str, released: Callable[[], None]) -> None:
        """Another server wants the upload: end its transfers, checkpoint them, let go; then call `released`."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.closed:
            released()
        else:
            self._let_go(upload, released)

    def progressed(self, upload_id: str) -> None:
        """Another server made progress with an upload: whoever waits for news of it here is told."""
        with self._lock:
            self._recent.pop(upload_id, None)
            callbacks = list(self._watchers.get(upload_id, ()))
        for callback in callbacks:
            callback()

    def _let_go(self, upload: Upload, released: Callable[[], None]) -> None:
        def alone(result: Lease | Progress | Failure) -> None:
            if isinstance(result, Lease):
                # It was let go and opened anew meanwhile, perhaps.
                held = result.upload
                with held.lock:
                    held.closed = True
                    held.draft.close()
                self._unlist(held)
                self._release(result)
            elif isinstance(result, StorageError | StoreError):
                # It was to be published and was not.
                self._drop(upload)
            released()

        self.claim(upload, _EVERYTHING, 0, on_taken=_nothing, done=alone)

    def _let_rest(self, upload: Upload, since: float) -> None:
        """Let go of an upload that was not used since then, if it is so."""
        with upload.lock:
            resting = not upload.leases and upload.state is State.OPEN and upload.used_at < since and not upload.closed
            if resting:
                upload.closed = True
                upload.draft.close()
        if resting:
            self._unlist(upload)

    def _tell(self, upload_id: str) -> None:
        with self._lock:
            callbacks = list(self._watchers.get(upload_id, ()))
        for callback in callbacks:
            callback()
        self._coordinator.tell(upload_id)

    # ---- time

    def recover(self) -> None:
        """After a start, before anything is served: promise the space of open uploads anew; blocks.

        Uploads whose last byte was durable, but which were not published yet, are published. Raises StoreError.
        """
        whole = []
        for upload_id, length, received in self._store.outstanding():
            if self.home(upload_id) == self._slot:
                self._ledger.count(upload_id, length - received)
                if received >= length:
                    # Whole, as far as its length is known; opening it publishes it if that is enough.
                    whole.append(upload_id)
        for upload_id in whole:
            self.open(upload_id, _nobody)

    def sweep(self) -> None:
        """Expire, forget and let go what is due; blocks, so run it on a worker. Raises StoreError, StorageError."""
        now = self.now()
        for session in self._store.due(now, _DUE):
            if self.home(session.id) != self._slot:
                continue
            if session.state == OPEN:
                self._expire(session, now)
            else:
                with self._lock:
                    self._recent.pop(session.id, None)
                self._store.submit(Remove(session.id, session.epoch), _ignore)
        steady = self._clock.monotonic()
        if steady - self._reconciled >= _RECONCILE_SECONDS:
            self._reconciled = steady
            self._reconcile()
        idle = steady - _IDLE_SECONDS
        with self._lock:
            uploads = list(self._uploads.values())
        for upload in uploads:
            self._let_rest(upload, idle)
        if self._slot == 0 and self._clock.monotonic() - self._swept_orphans >= _ORPHAN_SECONDS:
            self._swept_orphans = self._clock.monotonic()
            self._sweep_orphans()

    def _reconcile(self) -> None:
        """Promise what the store says is still to come: other servers share it, and some answers get lost.

        What changes meanwhile may be counted wrong, until the next time.
        """
        promised = set(self._ledger.ids())
        with self._lock:
            elsewhere = promised - self._creating
        left = {
            upload_id: length - received
            for upload_id, length, received in self._store.outstanding()
            if self.home(upload_id) == self._slot
        }
        with self._lock:
            elsewhere -= self._uploads.keys()
            unknown = left.keys() - promised - self._uploads.keys()
        for upload_id in elsewhere:
            if upload_id in left:
                self._ledger.shrink(upload_id, left[upload_id])
            else:
                self._ledger.end(upload_id)
        for upload_id in unknown:
            self._ledger.count(upload_id, left[upload_id])

    def _expire(self, session: Session, now: float) -> None:
        upload = self._uploads.get(session.id)
        if upload is not None:
            with upload.lock:
                busy = self._busy(upload)
                epoch = upload.epoch
                active, expires = upload.active, upload.expires
                if busy and upload.leases:
                    # A transfer under way never expires under its client.
                    active, expires = now, now + self.rules.max_age
                    upload.active, upload.expires = active, expires
            if busy or expires > now:
                self._store.submit(Checkpoint(session.id, epoch, (), active, max(expires, now + 1.0)), _ignore)
                return

        def opened(found: Upload | Progress | Failure) -> None:
            # What another server has in its hands, it looks after.
            if isinstance(found, Upload):
                with found.lock:
                    resting = not self._busy(found) and found.expires <= self.now()
                if resting:
                    self._log("upload_expired", upload=label(session.id))
                    self._end(found, Event.EXPIRE, _nobody)

        self.open(session.id, opened, ask=False)

    def _busy(self, upload: Upload) -> bool:
        """Whether somebody is at work on an upload; the caller holds its lock."""
        steady = self._clock.monotonic()
        return upload.state is not State.OPEN or any(
            not lease.begun or steady - lease.moved_at < self.rules.max_age for lease in upload.leases
        )

    def _sweep_orphans(self) -> None:
        """Remove drafts that belong to no open session: a crash came between the two. Never by age alone.

        One whose session has ended goes at once; one without a session may be that of a session to come.
        """
        now = self._clock.time()
        old = set(self._files.drafts(now - _ORPHAN_SECONDS))
        for name in self._files.drafts(now):
            session = self._store.get(name)
            over = name in old if session is None else session.state != OPEN
            if over and self._files.drop_draft(name):
                self._log("draft_swept", upload=label(name))

    def close(self) -> None:
        """Let go of every upload; transfers must have been ended. Blocks for what is under way. Idempotent."""
        with self._lock:
            self._closed = True
            uploads = list(self._uploads.values())
        self._write_noted()
        ended = [threading.Event() for _ in uploads]
        for upload, event in zip(uploads, ended, strict=True):
            self.release(upload.id, event.set)
        until = self._clock.monotonic() + _CLOSE_SECONDS
        for event in ended:
            event.wait(max(0.0, until - self._clock.monotonic()))


class _Once:
    """Calls a function once: when all have reported, or when the time is over."""

    def __init__(self, count: int, done: Callable[[], None]) -> None:
        self._left = count
        self._done: Callable[[], None] | None = done
        self._lock = threading.Lock()

    def count(self) -> None:
        with self._lock:
            self._left -= 1
            done = self._done if self._left == 0 else None
            if done is not None:
                self._done = None
        if done is not None:
            done()

    def give_up(self) -> None:
        with self._lock:
            done, self._done = self._done, None
        if done is not None:
            done()


def _holds(draft: Draft, session: Session) -> bool:
    """Whether the draft is at least as long as what was acknowledged of it."""
    if not session.ranges:
        return True
    end = session.ranges[-1][1]
    return len(draft.read_at(end - 1, 1)) == 1


def label(upload_id: str) -> str:
    """An upload's id as the log may have it: the whole is a credential, its beginning tells uploads apart."""
    stamp, _, token = upload_id.partition("_")
    return f"{stamp}_{token[:6]}"


def mismatch() -> UploadRefused:
    """A body that is not what its digest says."""
    return UploadRefused("digest_mismatch", "The bytes that came are not those of the digest; none were kept.")


def _unknown() -> UploadRefused:
    return UploadRefused("upload_not_found", "There is no such upload.")


def _nothing() -> None:
    pass


def _nobody(_result: object) -> None:
    pass


_ignore = _nobody
