"""The life of an upload as a table: from which state which event leads where, and nothing else is possible.

    open        bytes may come
    publishing  all bytes are durable, the file is being published; kept in memory only, a restart finds "open"
    complete    published; the receipt is kept for the retention time
    failed      can never be published; the reason is kept for the retention time
    expired     nobody came back in time; remembered for the retention time, so that a late client is told so
    gone        forgotten, or removed on request

The diagram in docs/architecture.md is drawn from this table, and a test compares.
"""

import enum
from types import MappingProxyType
from typing import Final


class State(enum.StrEnum):
    """Where an upload stands. The first value of each is how a store spells it."""

    OPEN = "open"
    PUBLISHING = "publishing"
    COMPLETE = "complete"
    FAILED = "failed"
    EXPIRED = "expired"
    GONE = "gone"


class Event(enum.StrEnum):
    """What happens to an upload."""

    CHECKPOINT = "checkpoint"
    """Some bytes became durable."""
    ALL_THERE = "all there"
    """The last byte became durable, or a finishing request was repeated."""
    PUBLISHED = "published"
    """The file is at its path and the receipt is durable."""
    REFUSED = "refused"
    """The path holds other bytes, or can never take a file; or the client went past what it had announced."""
    PUT_OFF = "put off"
    """Publishing failed for now (no space, a busy disk): the finishing request may be repeated."""
    LOST = "lost"
    """The bytes that were acknowledged are not there: somebody removed them."""
    EXPIRE = "expire"
    """Its time is over and no transfer is under way."""
    CANCEL = "cancel"
    """Its client wants no more of it."""
    FORGET = "forget"
    """The retention time is over."""


TABLE: Final = MappingProxyType(
    {
        (State.OPEN, Event.CHECKPOINT): State.OPEN,
        (State.OPEN, Event.ALL_THERE): State.PUBLISHING,
        (State.OPEN, Event.LOST): State.FAILED,
        (State.OPEN, Event.REFUSED): State.FAILED,
        (State.OPEN, Event.EXPIRE): State.EXPIRED,
        (State.OPEN, Event.CANCEL): State.GONE,
        (State.PUBLISHING, Event.PUBLISHED): State.COMPLETE,
        (State.PUBLISHING, Event.REFUSED): State.FAILED,
        (State.PUBLISHING, Event.PUT_OFF): State.OPEN,
        (State.COMPLETE, Event.CANCEL): State.GONE,
        (State.COMPLETE, Event.FORGET): State.GONE,
        (State.FAILED, Event.CANCEL): State.GONE,
        (State.FAILED, Event.FORGET): State.GONE,
        (State.EXPIRED, Event.CANCEL): State.GONE,
        (State.EXPIRED, Event.FORGET): State.GONE,
    }
)
"""(state, event) to the next state."""


def after(state: State, event: Event) -> State | None:
    """The state that follows, None when the event cannot happen in this one."""
    return TABLE.get((state, event))
