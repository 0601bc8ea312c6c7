"""Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload), interop versions 3 to 9 and the form without one.

    PUT <path>, POST /upload, POST /tus/   Upload-Complete: ?0|?1   begins an upload
    HEAD   /tus/<id>   how far it is
    PATCH  /tus/<id>   Upload-Offset, Upload-Complete: appends
    DELETE /tus/<id>   ends it

What differs between the versions is in `interop`. Whoever comes last is served: a newcomer ends the request that
is still under way for the same upload (section 4.6), is told the offset after what that brought is durable, and
may rely on it.
"""

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from hmac_file_server.auth import Grant, Operation, SignedRequest
from hmac_file_server.files.contract import PathRefused, StoragePath
from hmac_file_server.http import BodyCut, Exchange, Request, Response
from hmac_file_server.http.response import json_response
from hmac_file_server.protocols.answers import body_failure, failure, problem, refuse
from hmac_file_server.protocols.digests import body_digest
from hmac_file_server.protocols.interop import PARTIAL_UPLOAD, Dialect, completes, dialect_of, speaks
from hmac_file_server.protocols.media import OCTET_STREAM, media_type
from hmac_file_server.protocols.resources import (
    RESOURCES,
    Append,
    Appended,
    Appending,
    Cut,
    Ended,
    Mismatch,
    Outcome,
    at_home,
    order_for,
)
from hmac_file_server.protocols.structured import natural
from hmac_file_server.uploads import EXISTS, Failure, Plan, Progress, State, StoreError, Upload, UploadRefused

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

PROTOCOL: Final = "resumable"
_TYPES: Final = "https://iana.org/assignments/http-problem-types#"
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_KEY_BYTES: Final = 255
_FILENAME: Final = re.compile(r"""filename=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))""", re.IGNORECASE)
_EXTENDED: Final = re.compile(r"filename\*=UTF-8'[^']*'([^;\s]+)", re.IGNORECASE)


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """What this protocol keeps with an upload.

    limit    bytes that it may have
    status   of the answer to its last request
    bare     that answer has no body, as clients of slots expect it
    """

    limit: int
    status: int = 201
    bare: bool = False


_extra: Final = msgspec.msgpack.Decoder(Extra)
_encode: Final = msgspec.msgpack.Encoder().encode


def wants(request: Request) -> bool:
    """Whether a request has any field of the drafts."""
    return speaks(request)


# ---- creation


class Creation(msgspec.Struct, frozen=True):
    """What a request that begins an upload says of it.

    complete   its body is all there is
    length     bytes of the whole, None when it does not say
    conflict   it says so twice, and differently
    """

    dialect: Dialect
    complete: bool
    length: int | None
    conflict: bool


class _Whole:
    """A request as if it brought the whole upload: what a signature over a size is about."""

    __slots__ = ("_request", "content_length")

    def __init__(self, request: Request, length: int | None) -> None:
        self._request = request
        self.content_length = length

    @property
    def method(self) -> str:
        return self._request.method

    @property
    def path(self) -> str:
        return self._request.path

    @property
    def query(self) -> bytes:
        return self._request.query

    def header(self, name: bytes) -> bytes | None:
        value = self._request.header(name)
        if value is not None and name == b"upload-length":
            # As it was understood, or not at all.
            return None if self.content_length is None else b"%d" % self.content_length
        return value


def creation_of(app: "Application", request: Request) -> Creation | None:
    """What a request says of an upload that it begins; None for one that does not begin any."""
    if not app.settings.uploads.resumable_uploads_enabled:
        return None
    complete = completes(request)
    if complete is None:
        return None
    length = natural(request.fields.get(b"upload-length"))
    body = request.content_length
    if body is None and not request.chunked:
        body = 0
    conflict = False
    if length is not None and body is not None:
        conflict = body != length if complete else body > length
    elif complete:
        length = body
    return Creation(dialect_of(request), complete, length, conflict)


def signed(request: Request, creation: Creation) -> SignedRequest:
    """The request as the gate is to judge it: its size is that of the whole upload."""
    return _Whole(request, creation.length)


def create(app: "Application", exchange: Exchange) -> None:
    """POST to a place that is no file's: the server chooses the path."""
    request = exchange.request
    creation = creation_of(app, request)
    if creation is None:
        refuse(exchange, "bad_field", "Upload-Complete must be ?0 or ?1.")
        return
    grant = app.permit(exchange, Operation.CREATE, signed(request, creation))
    if grant is None or not app.admits(exchange):
        return
    announce_limit(app, exchange, creation, grant)
    filename = app.clean_name(grant.filename or file_name(request) or "file")
    declared = media_type(request.header(b"content-type"))
    if declared in (OCTET_STREAM, PARTIAL_UPLOAD) and grant.media_type is None:
        # What clients send who were not told the type; the name's extension says more.
        declared = None
    if grant.media_type is not None and declared is not None and declared != grant.media_type:
        refuse(exchange, "type_mismatch", "The file has another type than the permission says.")
        return
    try:
        path = app.new_path(filename, grant)
    except PathRefused as error:
        exchange.respond(failure(exchange, error))
        return
    length = creation.length if grant.exact_size is None else grant.exact_size
    plan = app.plan_of(exchange, grant, path, length, declared, filename)
    if plan is not None:
        begin(app, exchange, grant, plan, creation, 200 if request.path == "/upload" else 201, bare=False)


def put(
    app: "Application",
    exchange: Exchange,
    grant: Grant,
    path: StoragePath,
    creation: Creation,
    declared: str | None,
    *,
    bare: bool,
) -> None:
    """PUT to a file's path, permitted by `grant`."""
    announce_limit(app, exchange, creation, grant)
    length = creation.length if grant.exact_size is None else grant.exact_size
    if length is not None:
        entry = app.store.head(path)
        if entry is not None and entry.size != length:
            refuse(exchange, "exists", EXISTS)
            return
    plan = app.plan_of(exchange, grant, path, length, declared, None)
    if plan is not None:
        begin(app, exchange, grant, plan, creation, 201, bare=bare)


def file_name(request: Request) -> str | None:
    """The name in Content-Disposition (RFC 6266), or in X-Filename."""
    value = request.header(b"content-disposition")
    if value is not None:
        text = value.decode("utf-8", "replace")
        extended = _EXTENDED.search(text)
        if extended is not None:
            from urllib.parse import unquote

            return unquote(extended[1], errors="replace")
        plain = _FILENAME.search(text)
        if plain is not None:
            return re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
    name = request.header(b"x-filename")
    return None if name is None else name.decode("utf-8", "replace")


def announce_limit(app: "Application", exchange: Exchange, creation: Creation, grant: Grant) -> None:
    """Put the limits beside whatever refusal comes: with 413 they have to be told (section 4.1.4)."""
    dialect = creation.dialect
    exchange.fields = dialect.echo + dialect.limits(app.file_limit(grant), app.settings.uploads.max_resumable_age)


def begin(
    app: "Application",
    exchange: Exchange,
    grant: Grant,
    plan: Plan,
    creation: Creation,
    status: int,
    *,
    bare: bool,
) -> None:
    """Begin an upload that was permitted, with the body as its first part. `status`, `bare`: see `Extra`."""
    if creation.conflict or (creation.length is not None and plan.size != creation.length):
        exchange.respond(_inconsistent(exchange))
        return
    body = exchange.request.content_length or 0
    if body > plan.limit:
        refuse(exchange, "too_large", f"The file may have at most {plan.limit} bytes.")
        return
    check = body_digest(exchange.request)
    key = exchange.request.header(b"idempotency-key")
    if key is not None and not 0 < len(key) <= _KEY_BYTES:
        refuse(exchange, "bad_field", f"Idempotency-Key must have 1 to {_KEY_BYTES} bytes.")
        return
    extra = Extra(plan.limit, status, bare)
    order = order_for(
        app,
        grant,
        PROTOCOL,
        plan.path,
        plan.size,
        plan,
        key=key,
        explicit=True,
        extra=_encode(extra),
    )
    exchange.owner = grant.owner

    def created(result: Progress | Failure) -> None:
        if not isinstance(result, Progress):
            exchange.respond(failure(exchange, result))
            return
        transfer = _Transfer(app, exchange, creation.dialect, result.id, last=creation.complete, creating=True)
        transfer.announce(result)
        transfer.begin(Append(offset=0, limit=plan.limit, last=creation.complete, check=check, steal=True))

    app.engine.create(order, app.on_loop(exchange, created))


# ---- upload resources


def resource(app: "Application", exchange: Exchange, upload_id: str) -> None:
    """A request for an upload resource that is not of tus."""
    request = exchange.request
    method = request.method
    if method not in {"HEAD", "GET", "PATCH", "DELETE"}:
        refuse(exchange, "method_not_allowed", "This method is not allowed here.", _ALLOW)
        return
    if app.settings.security.strict_signatures and app.permit(exchange, Operation.CHUNK) is None:
        return
    if not at_home(app, exchange, upload_id):
        return
    dialect = dialect_of(request)
    if method == "PATCH":
        _append(app, exchange, dialect, upload_id)
    elif method == "DELETE":
        _cancel(app, exchange, dialect, upload_id)
    elif method == "GET" and not speaks(request):
        app.engine.settle(upload_id, app.on_loop(exchange, functools.partial(_look, app, exchange, upload_id)))
    elif request.header(b"upload-offset") is not None or completes(request) is not None:
        # Section 4.3: they have no meaning here; who sends them means another method.
        refuse(exchange, "bad_field", "Upload-Offset and Upload-Complete have no place in this request.")
    else:
        _ask(app, exchange, dialect, upload_id)


_ALLOW: Final = b"Allow: HEAD, GET, PATCH, PUT, DELETE, OPTIONS\r\n"


def _ask(app: "Application", exchange: Exchange, dialect: Dialect, upload_id: str) -> None:
    """The offset, after whoever still sends was ended: the client can rely on it."""

    def told(result: Progress | Failure) -> None:
        if isinstance(result, Progress):
            exchange.owner = result.details.owner
            exchange.respond(_state(app, exchange, dialect, result))
        else:
            exchange.respond(failure(exchange, result))

    tell = app.on_loop(exchange, told)

    def opened(found: Upload | Progress | Failure) -> None:
        if isinstance(found, Upload):
            app.engine.interrupt(found, tell)
        else:
            tell(found)

    app.engine.open(upload_id, opened)


def _state(app: "Application", exchange: Exchange, dialect: Dialect, progress: Progress) -> Response:
    if progress.state in {State.FAILED, State.EXPIRED}:
        return _ended_badly(exchange, dialect, progress)
    return Response(204, _figures(app, dialect, progress) + _NO_STORE)


def _look(app: "Application", exchange: Exchange, upload_id: str) -> None:
    """Its state for people and programs that only watch: nobody is disturbed."""
    try:
        progress = app.engine.progress(upload_id)
    except (UploadRefused, StoreError) as error:
        exchange.respond(failure(exchange, error))
        return
    dialect = dialect_of(exchange.request)
    if progress.state in {State.FAILED, State.EXPIRED}:
        exchange.respond(_ended_badly(exchange, dialect, progress))
        return
    document: dict[str, object] = {
        "id": progress.id,
        "protocol": progress.protocol,
        "filename": progress.filename,
        "offset": _offset(progress),
        "length": progress.length,
        "complete": progress.complete,
        "received": progress.ranges,
    }
    if progress.complete:
        document |= _file(app, progress)
    exchange.respond(json_response(200, document, _figures(app, dialect, progress) + _NO_STORE))


def _cancel(app: "Application", exchange: Exchange, dialect: Dialect, upload_id: str) -> None:
    def gone(result: Progress | Failure) -> None:
        if isinstance(result, Progress):
            exchange.respond(Response(204, dialect.echo))
        else:
            exchange.respond(failure(exchange, result))

    app.engine.cancel(upload_id, app.on_loop(exchange, gone))


def _append(app: "Application", exchange: Exchange, dialect: Dialect, upload_id: str) -> None:
    request = exchange.request
    if dialect.typed:
        sent = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        if sent != PARTIAL_UPLOAD.encode():
            refuse(
                exchange,
                "not_partial_upload",
                f"What is appended must be of type {PARTIAL_UPLOAD}.",
                f"Accept-Patch: {PARTIAL_UPLOAD}\r\n".encode(),
            )
            return
    offset = natural(request.header(b"upload-offset"))
    if offset is None:
        refuse(exchange, "bad_field", "Upload-Offset must be a number of bytes.")
        return
    last = completes(request)
    if last is None:
        if request.header(b"upload-draft-interop-version") is None or dialect.rules > 3:
            refuse(exchange, "bad_field", "Upload-Complete must be ?0 or ?1.")
            return
        # The oldest version only knew how to say that something is still to come.
        last = True
    check = body_digest(request)
    try:
        progress = app.engine.progress(upload_id)
    except (UploadRefused, StoreError) as error:
        exchange.respond(failure(exchange, error))
        return
    exchange.owner = progress.details.owner
    transfer = _Transfer(app, exchange, dialect, upload_id, last=last, creating=False)
    transfer.begin(
        Append(
            offset=offset,
            length=natural(request.header(b"upload-length")),
            limit=extra_of(app, progress).limit,
            last=last,
            check=check,
            steal=True,
        )
    )


def extra_of(app: "Application", progress: Progress) -> Extra:
    """What was kept with an upload; what fits when another protocol began it."""
    if progress.protocol == PROTOCOL and progress.details.extra:
        try:
            return _extra.decode(progress.details.extra)
        except msgspec.DecodeError:
            pass
    return Extra(app.settings.server.max_upload_size)


class _Transfer:
    """One body on its way into an upload, and all that is answered to it."""

    def __init__(
        self, app: "Application", exchange: Exchange, dialect: Dialect, upload_id: str, *, last: bool, creating: bool
    ) -> None:
        self._app = app
        self._exchange = exchange
        self._dialect = dialect
        self._id = upload_id
        self._last = last
        self._creating = creating
        self._append: Append | None = None
        self._told = 0
        self._unwatch: Callable[[], None] | None = None

    @property
    def _location(self) -> bytes:
        return f"Location: {RESOURCES}{self._id}\r\n".encode("ascii")

    def announce(self, progress: Progress) -> None:
        """104: the upload can be resumed, and where."""
        self._exchange.fields = b""
        if self._interim:
            self._exchange.interim(104, self._dialect.echo + self._location + self._limits(progress))

    @property
    def _interim(self) -> bool:
        return self._dialect.interim and self._app.settings.uploads.interim_responses

    def _limits(self, progress: Progress) -> bytes:
        app = self._app
        return self._dialect.limits(extra_of(app, progress).limit, progress.expires - app.engine.now())

    def begin(self, append: Append) -> None:
        """Take the body."""
        app = self._app
        self._append = append
        if self._interim and self._dialect.progress:
            self._told = append.offset or 0
            self._unwatch = app.engine.watch(self._id, lambda: app.call_soon(self._progressed))
        Appending(app, self._exchange, append, self._done).begin(self._id)

    def _progressed(self) -> None:
        """Something became durable: the client may forget it."""
        if self._unwatch is None or self._exchange.answered:
            return
        try:
            progress = self._app.engine.progress(self._id)
        except (UploadRefused, StoreError):
            return
        offset = _offset(progress)
        if offset > self._told and progress.state is State.OPEN:
            self._told = offset
            self._exchange.interim(104, self._dialect.echo + b"Upload-Offset: %d\r\n" % offset)

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
            end = outcome.end
            if end.cut is BodyCut.TOO_LARGE or _overrun(end.error):
                self._overran()
            else:
                answer = body_failure(self._exchange, end)
                answer.head += self._position(outcome.progress)
                self._respond(answer)
        elif _overrun(outcome):
            self._overran()
        elif isinstance(outcome, UploadRefused) and outcome.code == "length_conflict":
            self._respond(_inconsistent(self._exchange))
        else:
            self._respond(failure(self._exchange, outcome))

    def _respond(self, response: Response) -> None:
        if not self._exchange.answered:
            if self._creating and b"Location:" not in response.head:
                response.head += self._location
            response.head += self._dialect.echo
            self._exchange.respond(response)

    def _position(self, progress: Progress) -> bytes:
        return b"Upload-Offset: %d\r\n" % _offset(progress) + self._dialect.completeness(complete=False)

    def _appended(self, progress: Progress) -> None:
        if progress.complete:
            self._final(progress)
        elif progress.state is State.FAILED:
            self._exchange.respond(_ended_badly(self._exchange, self._dialect, progress))
        elif self._last or (self._dialect.ends_by_length and progress.offset == progress.length):
            self._complete(progress)
        else:
            head = self._position(progress) + self._limits(progress) + _NO_STORE
            self._respond(Response(201 if self._creating else 204, head))

    def _complete(self, progress: Progress) -> None:
        """All bytes that come are there: publish, if they are as many as were announced."""
        if progress.offset != progress.length:
            answer = _inconsistent(self._exchange)
            answer.head += self._position(progress)
            self._respond(answer)
            return

        def completed(result: Progress | Failure) -> None:
            if isinstance(result, Progress) and result.complete:
                self._final(result)
            elif isinstance(result, Progress):
                self._exchange.respond(_ended_badly(self._exchange, self._dialect, result))
            else:
                self._respond(failure(self._exchange, result))

        answer_later = self._app.on_loop(self._exchange, completed)

        def opened(found: Upload | Progress | Failure) -> None:
            if isinstance(found, Upload):
                self._app.engine.complete(found, answer_later)
            else:
                answer_later(found)

        self._app.engine.open(self._id, opened)

    def _final(self, progress: Progress) -> None:
        """What the target answers, as it would have to one plain request."""
        head = _figures(self._app, self._dialect, progress)
        extra = extra_of(self._app, progress)
        if self._creating and self._dialect.locates_result:
            head += self._location
        if extra.bare:
            self._exchange.respond(Response(extra.status, head))
            return
        if progress.receipt is not None and progress.receipt.etag:
            head += f"ETag: {progress.receipt.etag}\r\n".encode("ascii")
        self._exchange.respond(json_response(extra.status, {"success": True, **_file(self._app, progress)}, head))

    def _mismatch(self, progress: Progress) -> Response:
        append = self._append
        offset = _offset(progress)
        provided = 0 if append is None or append.offset is None else append.offset
        return problem(
            self._exchange,
            "offset_mismatch",
            f"The upload is at byte {offset}.",
            self._position(progress),
            type=_TYPES + "mismatching-upload-offset",
            **{"expected-offset": offset, "provided-offset": provided},
        )

    def _ended(self, progress: Progress) -> None:
        """The upload had ended before: an empty last append asks for the answer once more."""
        if progress.state is not State.COMPLETE:
            self._exchange.respond(_ended_badly(self._exchange, self._dialect, progress))
            return
        append = self._append
        length = progress.length or 0
        body = self._exchange.request.content_length
        empty = not body and not self._exchange.request.chunked
        if append is not None and append.offset == length and empty:
            self._final(progress)
        elif append is not None and append.offset != length:
            self._respond(self._mismatch(progress))
        else:
            answer = _inconsistent(self._exchange)
            answer.head += _figures(self._app, self._dialect, progress)
            self._exchange.respond(answer)

    def _overran(self) -> None:
        """More came than was announced: nobody knows which of it was meant (section 4.4.2)."""
        answer = _inconsistent(self._exchange)

        def gone(_result: Progress | Failure) -> None:
            if not self._exchange.answered:
                self._exchange.respond(answer)

        self._app.engine.cancel(self._id, self._app.on_loop(self._exchange, gone))


def _overrun(error: object) -> bool:
    return isinstance(error, UploadRefused) and error.code == "too_large"


def _offset(progress: Progress) -> int:
    return (progress.length or 0) if progress.complete else progress.offset


def _figures(app: "Application", dialect: Dialect, progress: Progress) -> bytes:
    """The fields that tell how far an upload is."""
    head = dialect.echo + b"Upload-Offset: %d\r\n" % _offset(progress)
    head += dialect.completeness(complete=progress.complete)
    if progress.length is not None:
        head += b"Upload-Length: %d\r\n" % progress.length
    return head + dialect.limits(extra_of(app, progress).limit, progress.expires - app.engine.now())


def _file(app: "Application", progress: Progress) -> dict[str, object]:
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


def _ended_badly(exchange: Exchange, dialect: Dialect, progress: Progress) -> Response:
    receipt = progress.receipt
    if progress.state is State.EXPIRED or receipt is None:
        return problem(exchange, "upload_expired", "The upload was not continued in time; begin it anew.", dialect.echo)
    answer = failure(exchange, UploadRefused(receipt.code, receipt.detail))
    # All bytes came, and what they were for has refused them: nothing to resume.
    answer.head += dialect.echo + dialect.completeness(complete=True)
    return answer


def _inconsistent(exchange: Exchange) -> Response:
    return problem(
        exchange,
        "length_conflict",
        "The upload has another length than this request says.",
        type=_TYPES + "inconsistent-upload-length",
    )
