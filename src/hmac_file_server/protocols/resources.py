"""Upload resources: what every protocol for uploads that outlive a connection shares.

An upload resource is `/tus/<id>`, whatever protocol began it; the id is the session's, as the chunk API has it.
Here: which process serves it, what an upload in the making is ordered with, and how the body of an append comes
to the upload, from the claim of its lane to the checkpoint.
"""

import functools
import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from hmac_file_server.auth import Grant
from hmac_file_server.files.contract import StoragePath
from hmac_file_server.http import BodyCut, BodyEnd, Exchange
from hmac_file_server.protocols.answers import refuse
from hmac_file_server.uploads import Check, Failure, Lease, Order, Plan, Progress, Upload, UploadRefused, label

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

RESOURCES: Final = "/tus/"
"""Uploads are created here, and lie below it."""

_ID: Final = re.compile(r"[0-9]{1,12}_[0-9a-z]{1,64}")
_ID_IN_PATH: Final = re.compile(r"(?<=/tus/)[0-9]{1,12}_[0-9a-z]+")
# Whoever shares one secret without names shares these places, too.
_ANONYMOUS_PLACES: Final = 100
# How long nothing must have come of a transfer before all that the kernel held is taken to have been read, and
# how often that is looked at: whoever asks for the offset waits no longer.
_QUIET: Final = 0.003
_QUIET_LOOKS: Final = 8
# When everybody comes back at once, a process may have more to take over than its inbox holds for a moment. Seconds
# after which it is tried again: two in all.
_FULL_INBOX: Final = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.9)


def is_id(text: str) -> bool:
    """Whether a text has the form of an upload's id."""
    return _ID.fullmatch(text) is not None


def logged_path(path: str) -> str:
    """A request's path as the log may have it: the id of an upload is what permits to continue it.

    Also where a slash too many stands behind it, or a prefix before it that a proxy should have taken off.
    """
    return _ID_IN_PATH.sub(lambda found: label(found[0]), path) if RESOURCES in path else path


def at_home(app: "Application", exchange: Exchange, upload_id: str) -> bool:
    """Whether this process serves the upload; the connection was given to the one that does, if not."""
    if not is_id(upload_id):
        # No id of ours, so no home.
        refuse(exchange, "upload_not_found", "There is no such upload.")
        return False
    home = app.engine.home(upload_id)
    if home == app.engine.here:
        return True
    _hand_over(app, exchange, home, _FULL_INBOX)
    return False


def _hand_over(app: "Application", exchange: Exchange, home: int, delays: tuple[float, ...]) -> None:
    if exchange.answered or exchange.hand_over(functools.partial(app.give, home)):
        return
    if delays:
        app.call_later(delays[0], functools.partial(_hand_over, app, exchange, home, delays[1:]))
    else:
        refuse(exchange, "server_busy", "The server is busy; try again soon.", b"Retry-After: 1\r\n")


def order_for(
    app: "Application",
    grant: Grant,
    protocol: str,
    path: StoragePath,
    length: int | None,
    plan: Plan,
    *,
    key: bytes | None = None,
    chunk_size: int | None = None,
    explicit: bool = False,
    partial: bool = False,
    parts: tuple[str, ...] = (),
    extra: bytes = b"",
) -> Order:
    """The order of an upload under a grant. `key`: the client's idempotency key; see `Details` for the rest."""
    places = app.settings.uploads.max_sessions_per_owner
    if grant.ticket_id is not None:
        account = f"ticket:{grant.ticket_id}"
    elif grant.owner is not None:
        account = f"owner:{grant.owner}"
    else:
        account, places = f"key:{grant.key_id}", places * _ANONYMOUS_PLACES
    return Order(
        protocol=protocol,
        path=path,
        length=length,
        chunk_size=app.settings.uploads.chunk_size if chunk_size is None else chunk_size,
        metadata=plan.metadata,
        filename=plan.metadata.filename or path.rpartition("/")[2],
        account=account,
        places=places,
        key=None if key is None else hashlib.sha256(account.encode() + b"\0" + key).hexdigest(),
        ticket=None if partial else plan.ticket,
        explicit=explicit,
        partial=partial,
        parts=parts,
        extra=extra,
    )


class Bounds(msgspec.Struct, frozen=True, array_like=True):
    """What the permission of an upload says of its size, for as long as the size is not known.

    The beginning of what every protocol keeps in `Details.extra`: so one protocol may finish what another began.

    limit   bytes that it may have
    exact   bytes that it must have, where the permission binds them and the client has not said them
    """

    limit: int
    exact: int | None = None


_bounds: Final = msgspec.msgpack.Decoder(Bounds)


def limit_of(app: "Application", progress: Progress) -> int:
    """Bytes that an upload may have, whatever protocol began it."""
    limit = app.settings.server.max_upload_size
    return min(limit, _bounds.decode(progress.details.extra).limit) if progress.details.extra else limit


def exact_of(progress: Progress) -> int | None:
    """Bytes that an upload must have, whatever protocol began it; None when its client may say that."""
    return _bounds.decode(progress.details.extra).exact if progress.details.extra else None


def settle(app: "Application", exchange: Exchange, upload_id: str, done: Callable[[], None]) -> None:
    """Make durable what has arrived for an upload, also what the kernel holds, without disturbing its transfers.

    `done` is called on the event loop. A client that is back at once asks on a new connection before anybody has
    read to the end of its old one.
    """
    engine = app.engine

    def look(before: int, looks: int) -> None:
        arrived = engine.arrived(upload_id)
        if arrived is None or arrived == before or not looks:
            engine.settle(upload_id, app.on_loop(exchange, done))
        else:
            app.call_later(_QUIET, app.on_loop(exchange, functools.partial(look, arrived, looks - 1)))

    look(-1, _QUIET_LOOKS)


# ---- appending


class Appended(msgspec.Struct, frozen=True):
    """The body came whole and is durable; the upload is complete if that was the last of it."""

    progress: Progress


class Mismatch(msgspec.Struct, frozen=True):
    """The body does not begin where the upload ends; nothing of it was taken. `progress.offset` is where it does."""

    progress: Progress


class Cut(msgspec.Struct, frozen=True):
    """The body ended early. What came is durable, unless it had a digest."""

    end: BodyEnd
    progress: Progress


class Ended(msgspec.Struct, frozen=True):
    """The upload had ended before: it is complete, failed or expired; the body was not taken."""

    progress: Progress


Outcome: TypeAlias = Appended | Mismatch | Cut | Ended | Failure


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """What a request to append says.

    offset   where its body begins; None: wherever the upload ends
    length   bytes of the whole, None when it does not say
    limit    bytes that the whole may have while its length is not known
    last     the upload ends with this body
    check    its digest; `check.matches` is asked once the body is whole
    rest     its body is all that is left: where it has a length, it tells that of the upload
    steal    end a live transfer whatever the offset is; otherwise only a newcomer that begins where the upload
             ends gets its lane, what still comes of the old transfer is then held against its body
    """

    offset: int | None
    length: int | None = None
    limit: int = 1 << 62
    last: bool = False
    check: Check | None = None
    rest: bool = False
    steal: bool = False


class Appending:
    """One body on its way into an upload resource. `done` gets the outcome, once, on the event loop."""

    def __init__(self, app: "Application", exchange: Exchange, append: Append, done: Callable[[Outcome], None]) -> None:
        self._app = app
        self._exchange = exchange
        self._append = append
        self._done = done
        self._current = False
        self._taken = False

    def begin(self, upload_id: str) -> None:
        """Open the upload and go on; this process must serve it (`at_home`)."""
        self._app.engine.open(upload_id, self._on_loop(self._opened))

    def _on_loop(self, callback: Callable[..., None]) -> Callable[..., None]:
        return self._app.on_loop(self._exchange, callback)

    def _opened(self, found: Upload | Progress | Failure) -> None:
        if isinstance(found, Progress):
            self._done(Ended(found))
        elif not isinstance(found, Upload):
            self._done(found)
        elif self._append.length is None or self._append.length == found.length:
            self._claim(found)
        else:
            self._app.engine.declare(
                found, self._append.length, self._on_loop(functools.partial(self._declared, found))
            )

    def _declared(self, upload: Upload, result: Progress | Failure) -> None:
        if isinstance(result, Progress):
            self._claim(upload)
        else:
            self._done(result)

    def _claim(self, upload: Upload) -> None:
        append, engine = self._append, self._app.engine
        if append.steal or append.offset in {None, upload.look().offset}:
            self._take(upload)
        elif engine.arrived(upload.id) is None:
            self._done(Mismatch(upload.look()))
        else:
            settle(self._app, self._exchange, upload.id, functools.partial(self._settled, upload))

    def _settled(self, upload: Upload) -> None:
        progress = upload.look()
        if progress.offset == self._append.offset:
            self._take(upload)
        else:
            self._done(Mismatch(progress))

    def _take(self, upload: Upload) -> None:
        append, engine = self._append, self._app.engine
        progress = upload.look()
        offset = progress.offset if append.offset is None else append.offset
        self._current = not append.steal and progress.offset == offset
        end = append.limit if upload.length is None else upload.length
        if engine.contested(upload, (0, end)) and self._exchange.body_lost:
            # It came late, by way of another process, and can never be whole.
            self._done(UploadRefused("incomplete", "The body ended early."))
            return
        engine.claim(
            upload,
            (0, end),
            offset,
            on_taken=lambda: self._app.call_soon(self._lost),
            done=self._on_loop(self._claimed),
            check=append.check,
        )

    def _lost(self) -> None:
        """A newcomer has the lane; a body that was not begun yet is not begun any more."""
        self._taken = True
        self._exchange.cut(BodyCut.TAKEN_OVER)

    def _claimed(self, result: Lease | Progress | Failure) -> None:
        if isinstance(result, Progress):
            self._done(Ended(result))
            return
        if not isinstance(result, Lease):
            self._done(result)
            return
        lease, engine = result, self._app.engine
        progress = lease.upload.look()
        body = self._exchange.request.content_length
        left = lease.lane[1] - lease.begin
        if progress.offset != lease.begin and not (self._current and progress.offset > lease.begin):
            engine.cut(lease)
            self._done(Mismatch(progress))
        elif body is not None and body > left:
            engine.cut(lease)
            self._done(UploadRefused("too_large", "The body is longer than what is left of the upload."))
        elif self._append.rest and body is not None:
            # Told even if the body is cut: what comes later has to end in the same place.
            told = self._on_loop(functools.partial(self._told, lease))
            engine.declare(lease.upload, lease.begin + body, told)
        else:
            self._exchange.receive(lease, functools.partial(self._ended, lease), limit=left)

    def _told(self, lease: Lease, result: Progress | Failure) -> None:
        if isinstance(result, Progress) and self._taken:
            self._app.engine.cut(lease)
            self._done(UploadRefused("upload_taken_over", "Another request continues this upload."))
        elif isinstance(result, Progress):
            left = lease.lane[1] - lease.begin
            self._exchange.receive(lease, functools.partial(self._ended, lease), limit=left)
        else:
            self._app.engine.cut(lease)
            self._done(result)

    def _ended(self, lease: Lease, end: BodyEnd) -> None:
        engine = self._app.engine
        if end.cut is not None:
            engine.cut(lease, self._on_loop(lambda: self._done(Cut(end, lease.upload.look()))))
        else:
            engine.finish(lease, self._on_loop(self._finished), last=self._append.last)

    def _finished(self, result: Progress | Failure) -> None:
        self._done(Appended(result) if isinstance(result, Progress) else result)
