"""How an upload ended, and how far it has come: what protocols render into their answers."""

import msgspec

from hmac_file_server.stores.contract import Session, Span
from hmac_file_server.uploads.states import State


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The end of an upload, kept and repeated until the retention time is over.

    `code` is empty for a published file; else the stable word of why there is none, with its sentence.
    """

    path: str
    filename: str
    size: int
    digest: str | None = None
    etag: str = ""
    code: str = ""
    detail: str = ""


class Details(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the engine keeps with a session beside what every store understands.

    `owner` is who the file will belong to; `ticket` is (id, most files, epoch seconds when its count may be
    forgotten) when a use of it was taken for this upload. `explicit`: all bytes are not enough, the client has
    to say that these are all. `partial`: never published, but a part of others. `parts`: ids of the uploads that
    this one is made of, in order, until it is. `extra` is the protocol's own.
    """

    owner: str | None = None
    file_expires: float | None = None
    ticket: tuple[str, int, float] | None = None
    ticket_id: str | None = None
    explicit: bool = False
    partial: bool = False
    parts: tuple[str, ...] = ()
    extra: bytes = b""


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An upload at one moment. `ranges` are durable bytes, `expires` is in epoch seconds, `version` grows."""

    id: str
    state: State
    protocol: str
    path: str
    filename: str
    length: int | None
    chunk_size: int | None
    ranges: tuple[Span, ...]
    active: float
    expires: float
    details: Details
    receipt: Receipt | None = None
    version: int = 0

    @property
    def received(self) -> int:
        """Durable bytes."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def offset(self) -> int:
        """Where the unbroken run of durable bytes from the beginning ends: where a sequential client goes on."""
        return self.ranges[0][1] if self.ranges and self.ranges[0][0] == 0 else 0

    @property
    def complete(self) -> bool:
        """Whether the file is published."""
        return self.state is State.COMPLETE


_receipts = msgspec.msgpack.Decoder(Receipt)
_details = msgspec.msgpack.Decoder(Details)
_encoder = msgspec.msgpack.Encoder()


def encode(value: Receipt | Details) -> bytes:
    """As a store keeps it."""
    return _encoder.encode(value)


def details_of(session: Session) -> Details:
    """The engine's own part of a session."""
    return _details.decode(session.details) if session.details else Details()


def progress_of(session: Session) -> Progress:
    """A stored session as protocols see it."""
    ranges = session.ranges
    if session.state == State.COMPLETE and session.length:
        ranges = ((0, session.length),)
    return Progress(
        id=session.id,
        state=State(session.state),
        protocol=session.protocol,
        path=session.path,
        filename=session.filename,
        length=session.length,
        chunk_size=session.chunk_size,
        ranges=ranges,
        active=session.active,
        expires=session.deadline,
        details=details_of(session),
        receipt=_receipts.decode(session.receipt) if session.receipt else None,
    )
