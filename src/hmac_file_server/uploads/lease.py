"""The right to write one lane of an upload: the sink of a body, fenced by its epoch.

A lane is a span of the upload that one body at a time may fill: a whole upload for a sequential protocol, a
chunk for the chunk API. Every write happens in one critical section with the check that the lease is still
live, so that a writer whose lane was taken over cannot touch the file, however late its bytes come.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from hmac_file_server.files.contract import Hasher
from hmac_file_server.stores.contract import Span
from hmac_file_server.uploads.errors import UploadRefused

if TYPE_CHECKING:
    from hmac_file_server.uploads.engine import Claimed, Engine
    from hmac_file_server.uploads.upload import Upload

TAKEN_OVER = "Another request continues this upload."


class Check(Protocol):
    """A digest that the client announced for a body."""

    def update(self, data: memoryview, /) -> None:
        """The next bytes."""

    def matches(self) -> bool:
        """Whether the bytes so far are the announced ones."""
        ...


class Settling:
    """Who waits until what a lease has received is durable. Guarded by the upload's lock."""

    __slots__ = ("began", "position", "under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] | None = None
        """For a flush that is still to begin; None when none is due."""
        self.under_way: list[Callable[[], None]] | None = None
        """For the one that began last; None once it has ended."""
        self.position = -1
        """Up to where that one goes at least."""
        self.began = float("-inf")


class Lease:
    """One holder of one lane; the sink of its body. Ends with `Engine.finish` or `Engine.cut`, once.

    `epoch` numbers the holders of an upload's lanes in this process; a later one of the same lane fences
    the earlier.
    """

    __slots__ = (
        "_engine",
        "_held",
        "begin",
        "begun",
        "check",
        "committing",
        "durable_to",
        "epoch",
        "flushing",
        "given",
        "hot",
        "lane",
        "leaving",
        "live",
        "moved_at",
        "mutex",
        "on_taken",
        "overdue",
        "position",
        "predecessors",
        "ready",
        "settling",
        "synced_at",
        "taken",
        "upload",
        "waiting_for",
    )

    def __init__(
        self,
        engine: "Engine",
        upload: "Upload",
        lane: Span,
        begin: int,
        epoch: int,
        on_taken: Callable[[], None],
        check: Check | None,
    ) -> None:
        self._engine = engine
        self.upload = upload
        self.lane = lane
        self.begin = begin
        self.position = begin
        self.epoch = epoch
        self.on_taken = on_taken
        self.check = check
        self.live = True
        self.taken = False
        # Whether its holder has been told of it.
        self.given = False
        self.begun = False
        self.leaving = False
        self.overdue = False
        self.ready: Claimed | None = None
        self.mutex = threading.Lock()
        # Holders that were fenced without having ended: one of their writes may still be under way.
        self.predecessors: list[Lease] = []
        # Holders whose end is awaited before this lease may begin.
        self.waiting_for: set[Lease] = set()
        self._held: list[Span] = []
        self.hot: Hasher | None = None
        self.durable_to = begin
        self.committing = 0
        self.flushing = False
        self.moved_at = self.synced_at = 0.0
        self.settling = Settling()

    def overlaps(self, lane: Span) -> bool:
        """Whether the two lanes share a byte; an empty lane at a place is that place."""
        start, stop = self.lane
        return start < max(lane[1], lane[0] + 1) and lane[0] < max(stop, start + 1)

    def hold(self, held: list[Span]) -> None:
        """Spans of the lane that are durable already: bytes for them are compared, never written."""
        self._held = held

    def write(self, view: memoryview) -> None:
        """Take the next bytes of the body. Raises UploadRefused and StorageError."""
        with self.mutex:
            for predecessor in self.predecessors:
                with predecessor.mutex:
                    pass
            self.predecessors.clear()
            # An upload that another has completed meanwhile has no draft any more.
            if not self.live or self.upload.closed:
                raise UploadRefused("upload_taken_over", TAKEN_OVER)
            position = self.position
            end = position + len(view)
            if end > self.lane[1]:
                raise UploadRefused("too_large", "The body is longer than what is left of the upload.")
            if end > self.upload.promised and self.upload.length is None:
                self._engine.promise(self.upload, end)
            if self._held and position < self._held[-1][1]:
                self._write_around(view, position)
            else:
                self.upload.draft.write_at(view, position)
            if self.hot is not None:
                self.hot.update(view)
            if self.check is not None:
                self.check.update(view)
            self.position = end
        self._engine.moved(self)

    def _write_around(self, view: memoryview, position: int) -> None:
        """Write what is new, hold what is not against the stored bytes."""
        draft = self.upload.draft
        end = position + len(view)
        base = position
        for start, stop in self._held:
            if stop <= position or start >= end:
                continue
            if start > position:
                draft.write_at(view[position - base : start - base], position)
                position = start
            until = min(stop, end)
            while position < until:
                there = draft.read_at(position, min(until - position, 1 << 20))
                # startswith compares by memcmp; == on memoryviews goes element by element before 3.14.
                if not there or not there.startswith(view[position - base : position - base + len(there)]):
                    raise UploadRefused("chunk_differs", "Other bytes are stored at this place of the upload.")
                position += len(there)
        if position < end:
            draft.write_at(view[position - base :], position)
