"""What the upload engine asks of a store of session state. One contract, one test suite over every store.

Sizes and offsets are bytes, times are seconds since the epoch as the engine's steady clock has them; spans
are half-open, `(start, stop)`. A change that was answered is durable (in full durability); several changes
share one commit. A store never invents state: what it cannot read it says with `StoreError`.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar, Final, Protocol, TypeAlias

import msgspec

Span: TypeAlias = tuple[int, int]

OPEN: Final = "open"
COMPLETE: Final = "complete"
FAILED: Final = "failed"
EXPIRED: Final = "expired"


class StoreError(Exception):
    """The state could not be read or written. Nothing was acknowledged; trying again later may help."""

    code: ClassVar[str] = "sessions_unavailable"


class StoreFull(StoreError):  # noqa: N818 - says what happened
    """The medium has no space left for the state."""

    code = "storage_full"


class TooManySessions(StoreError):  # noqa: N818 - says what happened
    """The owner has as many open sessions as are allowed."""

    code = "too_many_sessions"


class Session(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One upload as it stands in the store.

    id          unguessable, made by the engine
    state       open, complete, failed or expired; it only ever leaves "open", once
    protocol    wire protocol that began it
    path        storage path at which it will be published
    length      bytes of the whole, None while not known
    chunk_size  bytes of a chunk, None where the protocol has none
    filename    name for people
    media_type  as declared, None when it was not
    owner       whose session quota it counts against
    key         idempotency key, unique among all sessions of the store; None for none
    created     time of creation
    active      time of the last change that carried bytes
    deadline    time at which the sweep looks at it: to expire it while open, to forget it afterwards
    epoch       counts the servers that took charge of it; a change with another epoch is refused
    details     the engine's own, opaque to the store
    receipt     how it ended, the engine's own; empty while open
    ranges      durable bytes: sorted, disjoint, not touching
    """

    id: str
    state: str = OPEN
    protocol: str
    path: str
    length: int | None
    chunk_size: int | None = None
    filename: str
    media_type: str | None = None
    owner: str
    key: str | None = None
    created: float
    active: float
    deadline: float
    epoch: int = 0
    details: bytes = b""
    receipt: bytes = b""
    ranges: tuple[Span, ...] = ()

    @property
    def received(self) -> int:
        """Durable bytes."""
        return sum(stop - start for start, stop in self.ranges)


class Create(msgspec.Struct, frozen=True, gc=False):
    """Record a new session. Result: it, or the one that has its key already; TooManySessions beyond `limit`."""

    session: Session
    limit: int


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Take charge of a session. Result: the session with its new epoch; None when its epoch is not `epoch`."""

    id: str
    epoch: int


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """These spans are durable now; they are merged with those before. None leaves a field as it is.

    Result: True; False when the session is not open or its epoch is another.
    """

    id: str
    epoch: int
    spans: tuple[Span, ...]
    active: float
    deadline: float
    length: int | None = None
    chunk_size: int | None = None


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The session leaves "open" for `state`, with its receipt; expired and failed ones forget their ranges.

    Result: True; False when it is not open or its epoch is another.
    """

    id: str
    epoch: int
    state: str
    receipt: bytes
    deadline: float


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Forget the session, whatever its state. Result: True; False when there was none of this id and epoch."""

    id: str
    epoch: int


Change: TypeAlias = Create | Claim | Checkpoint | Finish | Remove
Result: TypeAlias = Session | bool | StoreError | None
Done: TypeAlias = Callable[[Result], None]
"""Takes the result of a change, on any thread, exactly once. Must not block and must not raise."""


class Log(Protocol):
    """Takes one event with plain fields."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Record it; must not raise."""


class SessionStore(Protocol):
    """The store. Any thread may call. Reads are short and blocking; they see every change that was answered."""

    def submit(self, change: Change, done: Done, /) -> None:
        """Make the change durable, then call `done` with its result. Never blocks for the medium, never raises.

        Changes of one session take effect in the order in which they were submitted.
        """

    def get(self, session_id: str, /) -> Session | None:
        """The session, None when there is none. Raises StoreError."""
        ...

    def by_key(self, key: str, /) -> Session | None:
        """The session that was created with this idempotency key. Raises StoreError."""
        ...

    def due(self, now: float, limit: int, /) -> list[Session]:
        """Sessions whose deadline is not after `now`, the earliest first, `limit` at most, without their ranges.

        Raises StoreError.
        """
        ...

    def outstanding(self) -> Iterable[tuple[str, int, int]]:
        """(id, length, durable bytes) of every open session, as long as it is where the length is not known.

        Raises StoreError.
        """
        ...

    def open_sessions(self) -> int:
        """Number of open sessions. Raises StoreError."""
        ...

    def known(self, session_ids: Iterable[str], /) -> set[str]:
        """Which of these ids the store has a session for, in any state. Raises StoreError."""
        ...

    def close(self) -> None:
        """Write what was submitted, then let go. Idempotent."""


class Coordinator(Protocol):
    """How servers that share one storage folder ask each other to let go of an upload.

    The lock on the upload's file decides who has it; this only spares the newcomer the wait.
    """

    def start(self, on_release: Callable[[str, Callable[[], None]], None], on_progress: Callable[[str], None]) -> None:
        """Begin to listen, on a thread of its own.

        `on_release(upload id, released)`: another server wants the upload; `released()` is to be called when
        it was let go, or was not held. `on_progress(upload id)`: another server made progress with it.
        """

    def ask(self, upload_id: str, done: Callable[[bool], None], /) -> None:
        """Ask the others to let go: `done(True)` as soon as all that listen did, `done(False)` within a second.

        Only all of them: one that never held it has nothing to say about another that does. `done` is called
        exactly once, on any thread; at once with False when nobody can be asked. Never blocks.
        """

    def tell(self, upload_id: str, /) -> None:
        """Tell the others that an upload made progress. Best effort, never blocks."""

    def close(self) -> None:
        """Stop listening. Idempotent."""
