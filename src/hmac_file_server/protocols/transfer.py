"""One body on its way into an upload resource by the IETF's protocol, and all that is answered to it."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from hmac_file_server.files.contract import StorageError
from hmac_file_server.http import BodyCut, Exchange, Response
from hmac_file_server.http.response import json_response
from hmac_file_server.protocols import representation
from hmac_file_server.protocols.answers import body_failure, failure, problem, refuse
from hmac_file_server.protocols.interop import Dialect
from hmac_file_server.protocols.representation import Digest
from hmac_file_server.protocols.resources import (
    RESOURCES,
    Append,
    Appended,
    Appending,
    Cut,
    Ended,
    Mismatch,
    Outcome,
    exact_of,
    limit_of,
)
from hmac_file_server.uploads import Failure, Progress, State, StoreError, Upload, UploadRefused, mismatch

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

PROTOCOL: Final = "resumable"
# How often a client that understands 104 is told how far it is; each time costs a sync.
_PROGRESS_SECONDS: Final = 1.0
_TYPES: Final = "https://iana.org/assignments/http-problem-types#"
NO_STORE: Final = b"Cache-Control: no-store\r\n"
_BAD_ENDS: Final = frozenset({State.FAILED, State.EXPIRED})


_SPOILT: Final = frozenset({"upload_expired", "upload_lost", "upload_overrun"})


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """What this protocol keeps with an upload. Begins as `resources.Bounds`.

    limit    bytes that it may have
    exact    bytes that it must have; None when the permission does not bind them
    status   of the answer to its last request
    bare     that answer has no body, as clients of slots expect it
    digest   what the whole has to be
    wanted   the algorithm of the digest that the last answer is to tell
    until    epoch seconds when the permission ended under which it was begun; None: it did not say
    """

    limit: int
    exact: int | None = None
    status: int = 201
    bare: bool = False
    digest: Digest | None = None
    wanted: str | None = None
    until: float | None = None


_extra: Final = msgspec.msgpack.Decoder(Extra)
_encode: Final = msgspec.msgpack.Encoder().encode


def encode(extra: Extra) -> bytes:
    """As it is kept."""
    return _encode(extra)


def extra_of(app: "Application", progress: Progress) -> Extra:
    """What was kept with an upload; what fits when another protocol began it."""
    if progress.protocol == PROTOCOL and progress.details.extra:
        return _extra.decode(progress.details.extra)
    return Extra(limit_of(app, progress))


class Transfer:
    """See the module. `last`: the body ends the upload; `creating`: the upload was begun by this request."""

    def __init__(
        self,
        app: "Application",
        exchange: Exchange,
        dialect: Dialect,
        upload_id: str,
        *,
        last: bool,
        creating: bool = False,
        digest: Digest | None = None,
    ) -> None:
        """`digest`: what the whole has to be, if this request says so."""
        self._app = app
        self._exchange = exchange
        self._dialect = dialect
        self._id = upload_id
        self._last = last
        self._creating = creating
        self._digest = digest
        self._append: Append | None = None
        self._told = 0
        self._unwatch: Callable[[], None] | None = None

    # ---- 104

    def announce(self, progress: Progress) -> None:
        """The upload can be resumed, and where (section 5)."""
        if self._interim:
            self._exchange.interim(104, self._dialect.echo + self._location + self._limits(progress))

    @property
    def _interim(self) -> bool:
        return self._dialect.interim and self._app.settings.uploads.interim_responses

    @property
    def _location(self) -> bytes:
        return f"Location: {RESOURCES}{self._id}\r\n".encode("ascii")

    def _limits(self, progress: Progress) -> bytes:
        return limits(self._app, self._dialect, progress)

    def _progressed(self) -> None:
        """Something became durable: the client may forget it."""
        if self._unwatch is None or self._exchange.answered:
            return
        try:
            progress = self._app.engine.progress(self._id)
        except (UploadRefused, StoreError):
            return
        offset = offset_of(progress)
        if offset > self._told and progress.state is State.OPEN:
            self._told = offset
            self._exchange.interim(104, self._dialect.echo + b"Upload-Offset: %d\r\n" % offset)

    def _settle(self) -> None:
        """Have what came made durable, so that there is something to tell."""
        if self._unwatch is not None and not self._exchange.answered:
            self._app.engine.settle(self._id, _nothing)
            self._app.call_later(_PROGRESS_SECONDS, self._settle)

    # ---- the body

    def begin(self, progress: Progress, append: Append) -> None:
        """Take the body into the upload of this progress. `append.last` is the transfer's own business."""
        app = self._app
        if progress.details.partial or progress.details.parts:
            refuse(self._exchange, "made_of_parts", "This upload is a part of another, or is made of parts.")
            return
        extra = extra_of(app, progress)
        if extra.until is not None and app.clock.time() >= extra.until + app.settings.uploads.max_resumable_age:
            # However often it is continued: the permission for it does not live for ever.
            reason = UploadRefused("upload_expired", "The permission for this upload has ended; begin it anew.")
            self._reject(reason, failure(self._exchange, reason))
            return
        if self._digest is None:
            self._digest = extra.digest
        # What has to be held against a digest first is published when that is known.
        if append.length is None and progress.length is None:
            append = msgspec.structs.replace(append, length=exact_of(progress))
        append = msgspec.structs.replace(append, last=self._last and self._digest is None, rest=self._last, steal=True)
        self._append = append
        if self._interim and self._dialect.progress:
            self._told = append.offset or 0
            self._unwatch = app.engine.watch(self._id, lambda: app.call_soon(self._progressed))
            app.call_later(_PROGRESS_SECONDS, self._settle)
        Appending(app, self._exchange, append, self._done).begin(self._id)

    def _done(self, outcome: Outcome) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()
        if isinstance(outcome, Appended):
            self._appended(outcome.progress)
        elif isinstance(outcome, Mismatch):
            self._respond(self._mismatch(outcome.progress))
        elif isinstance(outcome, Ended):
            self._ended(outcome.progress)
        elif isinstance(outcome, Cut):
            self._cut(outcome)
        else:
            self._failed(outcome)

    def _appended(self, progress: Progress) -> None:
        whole = progress.offset == progress.length
        if progress.complete:
            self._final(progress)
        elif progress.state in _BAD_ENDS:
            self._respond(ended_badly(self._exchange, self._dialect, progress))
        elif self._last and not whole and progress.length is not None:
            answer = inconsistent(self._exchange)
            answer.head += self._position(progress)
            self._respond(answer)
        elif self._last or (whole and self._dialect.ends_by_length):
            self._complete()
        else:
            self._respond(self._more(progress))

    def _cut(self, outcome: Cut) -> None:
        if outcome.end.cut is BodyCut.TOO_LARGE or _overrun(outcome.end.error):
            self._overran(outcome.progress)
            return
        answer = body_failure(self._exchange, outcome.end)
        answer.head += self._position(outcome.progress)
        self._respond(answer)

    def _failed(self, error: Failure) -> None:
        if isinstance(error, UploadRefused) and error.code == "length_conflict":
            self._respond(inconsistent(self._exchange))
            return
        try:
            progress = self._app.engine.progress(self._id)
        except (UploadRefused, StoreError):
            self._respond(failure(self._exchange, error))
            return
        if _overrun(error):
            self._overran(progress)
            return
        answer = failure(self._exchange, error)
        if progress.state is State.OPEN:
            answer.head += self._position(progress)
        self._respond(answer)

    def _overran(self, progress: Progress) -> None:
        """More came than there may be: nobody knows which of it was meant, so that is the end (section 4.4.2)."""
        if progress.length is None:
            answer = problem(
                self._exchange,
                "too_large",
                f"The file may have at most {extra_of(self._app, progress).limit} bytes.",
                self._limits(progress),
            )
        else:
            answer = inconsistent(self._exchange)
        reason = UploadRefused("upload_overrun", "More bytes came than the upload was to have; begin it anew.")
        self._reject(reason, answer)

    def _reject(self, reason: UploadRefused, answer: Response) -> None:
        """End the upload for good, then answer."""

        def rejected(_result: Progress | Failure) -> None:
            self._respond(answer)

        self._app.engine.reject(self._id, reason, self._app.on_loop(self._exchange, rejected))

    # ---- the end of the upload

    def _complete(self) -> None:
        """All bytes that come are there: hold them against their digest if there is one, then publish."""
        app = self._app

        def completed(result: Progress | Failure) -> None:
            if not isinstance(result, Progress):
                self._respond(failure(self._exchange, result))
            elif result.complete:
                self._final(result)
            elif result.state in _BAD_ENDS:
                self._respond(ended_badly(self._exchange, self._dialect, result))
            else:
                self._respond(self._more(result))

        answer = app.on_loop(self._exchange, completed)

        def compared(upload: Upload, digest: Digest, result: bytes | StorageError) -> None:
            if isinstance(result, StorageError):
                # Somebody else has completed it meanwhile, perhaps.
                app.engine.open(self._id, lambda found: answer(found if isinstance(found, Progress) else result))
            elif result == digest.value:
                app.digests.remember(self._id, digest)
                app.engine.complete(upload, answer)
            else:
                app.engine.reject(self._id, mismatch(), answer)

        def declared(upload: Upload, result: Progress | Failure) -> None:
            digest = self._digest
            if not isinstance(result, Progress):
                answer(result)
            elif digest is None or result.state is not State.OPEN:
                app.engine.complete(upload, answer)
            else:
                source = representation.Source(functools.partial(self._read, upload), result.offset, _nothing)
                app.digests.compute(digest.algorithm, lambda: source, functools.partial(compared, upload, digest))

        def opened(found: Upload | Progress | Failure) -> None:
            if isinstance(found, Upload):
                app.engine.declare(found, found.look().offset, functools.partial(declared, found))
            else:
                answer(found)

        app.engine.open(self._id, opened)

    def _read(self, upload: Upload, offset: int, length: int) -> bytes:
        """Bytes of an upload that is at rest, but not forgotten."""
        upload.used_at = self._app.clock.monotonic()
        return upload.draft.read_at(offset, length)

    def _final(self, progress: Progress) -> None:
        """What the target answers, as it would have to one plain request; with the digest that is asked for."""
        app, exchange = self._app, self._exchange
        algorithm = representation.wanted(exchange.request) or extra_of(app, progress).wanted
        if algorithm is None:
            self._receipt(progress, None)
            return
        known = app.digests.known(self._id, algorithm)
        if known is not None:
            self._receipt(progress, known)
            return

        def computed(result: bytes | StorageError) -> None:
            if isinstance(result, StorageError):
                # Nobody is owed a digest (RFC 9530 section 4).
                self._receipt(progress, None)
                return
            digest = Digest(algorithm, result)
            app.digests.remember(self._id, digest)
            self._receipt(progress, digest)

        path = app.stored_path(progress.path)
        app.digests.compute(algorithm, lambda: representation.stored(app.store, path), app.on_loop(exchange, computed))

    def _receipt(self, progress: Progress, digest: Digest | None) -> None:
        head = figures(self._app, self._dialect, progress)
        if digest is not None:
            head += digest.field
        if self._creating and self._dialect.locates_result:
            head += self._location
        extra = extra_of(self._app, progress)
        if extra.bare:
            response = Response(extra.status, head)
        else:
            if progress.receipt is not None and progress.receipt.etag:
                head += f"ETag: {progress.receipt.etag}\r\n".encode("ascii")
            response = json_response(extra.status, {"success": True, **file_of(self._app, progress)}, head)
        if not self._exchange.answered:
            self._exchange.respond(response)

    def _ended(self, progress: Progress) -> None:
        """The upload had ended before: whoever completes it once more gets its answer once more."""
        request = self._exchange.request
        length = progress.length or 0
        offset = length if self._append is None or self._append.offset is None else self._append.offset
        if progress.state is not State.COMPLETE:
            self._respond(ended_badly(self._exchange, self._dialect, progress))
        elif offset != length:
            self._respond(self._mismatch(progress))
        elif request.chunked or request.content_length:
            # Section 4.4.2: nothing can be appended to it any more.
            answer = inconsistent(self._exchange)
            answer.head += figures(self._app, self._dialect, progress)
            self._respond(answer)
        else:
            self._final(progress)

    # ---- answers

    def _respond(self, response: Response) -> None:
        if self._exchange.answered:
            return
        if self._creating and b"Location: " not in response.head:
            response.head += self._location
        if self._dialect.echo not in response.head:
            response.head += self._dialect.echo
        self._exchange.respond(response)

    def _position(self, progress: Progress) -> bytes:
        return b"Upload-Offset: %d\r\n" % offset_of(progress) + self._dialect.completeness(complete=progress.complete)

    def _more(self, progress: Progress) -> Response:
        """The body is there, and more may come."""
        head = self._position(progress) + self._limits(progress) + NO_STORE
        return Response(201 if self._creating or self._dialect.acknowledges_by_creating else 204, head)

    def _mismatch(self, progress: Progress) -> Response:
        """The body does not begin where the upload ends."""
        append = self._append
        offset = offset_of(progress)
        return problem(
            self._exchange,
            "offset_mismatch",
            f"The upload is at byte {offset}.",
            self._position(progress),
            type=_TYPES + "mismatching-upload-offset",
            **{"expected-offset": offset, "provided-offset": 0 if append is None else append.offset},
        )


def _nothing() -> None:
    pass


def _overrun(error: object) -> bool:
    return isinstance(error, UploadRefused) and error.code == "too_large"


def offset_of(progress: Progress) -> int:
    """Where a client goes on."""
    return (progress.length or 0) if progress.complete else progress.offset


def limits(app: "Application", dialect: Dialect, progress: Progress) -> bytes:
    """Upload-Limit of an upload."""
    return dialect.limits(extra_of(app, progress).limit, progress.expires - app.engine.now())


def figures(app: "Application", dialect: Dialect, progress: Progress) -> bytes:
    """The fields that tell how far an upload is."""
    head = dialect.echo + b"Upload-Offset: %d\r\n" % offset_of(progress)
    head += dialect.completeness(complete=progress.complete)
    if progress.length is not None:
        head += b"Upload-Length: %d\r\n" % progress.length
    return head + limits(app, dialect, progress)


def file_of(app: "Application", progress: Progress) -> dict[str, object]:
    """The file of a complete upload, as every receipt of this server tells it."""
    document: dict[str, object] = {
        "filename": progress.filename if progress.receipt is None else progress.receipt.filename,
        "size": progress.length or 0,
        "url": app.url_of(app.stored_path(progress.path)),
    }
    if progress.receipt is not None and progress.receipt.digest is not None:
        algorithm, _, value = progress.receipt.digest.partition(":")
        document[algorithm] = value
    return document


def ended_badly(exchange: Exchange, dialect: Dialect, progress: Progress) -> Response:
    """Why there is no file; all bytes may have come, so there is nothing to resume."""
    receipt = progress.receipt
    if progress.state is State.EXPIRED or receipt is None:
        return problem(exchange, "upload_expired", "The upload was not continued in time; begin it anew.", dialect.echo)
    answer = failure(exchange, UploadRefused(receipt.code, receipt.detail))
    # Whether it was the target that refused what had come whole.
    answer.head += dialect.echo + dialect.completeness(complete=receipt.code not in _SPOILT)
    return answer


def inconsistent(exchange: Exchange) -> Response:
    """Two lengths were said, or more came than was announced."""
    return problem(
        exchange,
        "length_conflict",
        "The upload has another length than this request says.",
        type=_TYPES + "inconsistent-upload-length",
    )
