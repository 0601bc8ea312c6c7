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
from typing import TYPE_CHECKING, Final

import msgspec

from hmac_file_server.auth import Grant, Operation, SignedRequest
from hmac_file_server.files.contract import PathRefused, StoragePath
from hmac_file_server.http import Exchange, Request, Response
from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols import content_range, representation
from hmac_file_server.protocols.answers import failure, refuse
from hmac_file_server.protocols.chunked import describe
from hmac_file_server.protocols.digests import BodyDigest, body_digest
from hmac_file_server.protocols.interop import PARTIAL_UPLOAD, Dialect, completes, dialect_of, speaks
from hmac_file_server.protocols.media import OCTET_STREAM, media_type
from hmac_file_server.protocols.resources import Append, at_home, order_for
from hmac_file_server.protocols.structured import natural
from hmac_file_server.protocols.transfer import (
    NO_STORE,
    PROTOCOL,
    Extra,
    Transfer,
    encode,
    ended_badly,
    extra_of,
    figures,
    inconsistent,
)
from hmac_file_server.protocols.tus import parse_metadata
from hmac_file_server.uploads import (
    EXISTS,
    Failure,
    Plan,
    Progress,
    State,
    StoreError,
    Upload,
    UploadRefused,
)

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

_KEY_BYTES: Final = 255
_OLDEST: Final = 3
_FILENAME: Final = re.compile(r"""filename=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))""", re.IGNORECASE)
_EXTENDED: Final = re.compile(r"filename\*=UTF-8'[^']*'([^;\s]+)", re.IGNORECASE)
_ALLOW: Final = b"Allow: HEAD, GET, PATCH, PUT, DELETE, OPTIONS\r\n"
_ACCEPT: Final = f"Accept-Patch: {PARTIAL_UPLOAD}\r\n".encode("ascii")
_BAD_ENDS: Final = frozenset({State.FAILED, State.EXPIRED})


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
    if name is not None:
        return name.decode("utf-8", "replace")
    metadata = request.header(b"upload-metadata")
    try:
        # tus-js-client goes on sending it when it speaks this protocol.
        known = {} if metadata is None else parse_metadata(metadata)
    except HttpError:
        return None
    name = known.get("filename") or known.get("name")
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
    request = exchange.request
    if creation.conflict or (creation.length is not None and plan.size != creation.length):
        exchange.respond(inconsistent(exchange))
        return
    body = request.content_length or 0
    if body > plan.limit:
        refuse(exchange, "too_large", f"The file may have at most {plan.limit} bytes.")
        return
    key = request.header(b"idempotency-key")
    if key is not None and not 0 < len(key) <= _KEY_BYTES:
        refuse(exchange, "bad_field", f"Idempotency-Key must have 1 to {_KEY_BYTES} bytes.")
        return
    check = _check(request)
    extra = Extra(
        limit=plan.limit,
        status=status,
        bare=bare,
        digest=representation.announced(request),
        wanted=representation.wanted(request),
        until=grant.until,
    )
    order = order_for(app, grant, PROTOCOL, plan.path, plan.size, plan, key=key, explicit=True, extra=encode(extra))
    exchange.owner = grant.owner

    def created(result: Progress | Failure) -> None:
        exchange.fields = b""
        if not isinstance(result, Progress):
            answer = failure(exchange, result)
            answer.head += creation.dialect.echo
            exchange.respond(answer)
            return
        transfer = Transfer(app, exchange, creation.dialect, result.id, last=creation.complete, creating=True)
        transfer.announce(result)
        transfer.begin(result, Append(offset=0, limit=plan.limit, check=check))

    app.engine.create(order, app.on_loop(exchange, created))


def _check(request: Request) -> BodyDigest | None:
    """Content-Digest. The older Digest is that of the whole file (RFC 3230), not of one body."""
    return None if request.header(b"content-digest") is None else body_digest(request)


# ---- upload resources


def resource(app: "Application", exchange: Exchange, upload_id: str) -> None:
    """A request for an upload resource that is not of tus."""
    request = exchange.request
    method = request.method
    ranged = method == "PUT" and request.header(b"content-range") is not None
    if not ranged and method not in {"HEAD", "GET", "PATCH", "DELETE"}:
        refuse(exchange, "method_not_allowed", "This method is not allowed here.", _ALLOW)
        return
    if app.settings.security.strict_signatures and app.permit(exchange, Operation.CHUNK) is None:
        return
    if not at_home(app, exchange, upload_id):
        return
    dialect = dialect_of(request)
    told = request.header(b"upload-offset") is not None or completes(request) is not None
    if ranged:
        content_range.put(app, exchange, upload_id)
    elif method == "PATCH":
        _append(app, exchange, dialect, upload_id)
    elif told and (method != "DELETE" or dialect.cancels_plainly):
        # Who sends them means another method.
        refuse(exchange, "bad_field", "Upload-Offset and Upload-Complete have no place in this request.")
    elif method == "DELETE":
        _cancel(app, exchange, dialect, upload_id)
    elif method == "GET" and not speaks(request):
        app.engine.settle(upload_id, app.on_loop(exchange, functools.partial(_look, app, exchange, upload_id)))
    else:
        _ask(app, exchange, dialect, upload_id)


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
    if progress.state in _BAD_ENDS:
        return ended_badly(exchange, dialect, progress)
    head = figures(app, dialect, progress) + NO_STORE
    algorithm = representation.wanted(exchange.request)
    digest = None if algorithm is None else app.digests.known(progress.id, algorithm)
    return Response(204, head if digest is None else head + digest.field)


def _look(app: "Application", exchange: Exchange, upload_id: str) -> None:
    """Its state for people and programs that only watch: nobody is disturbed."""
    try:
        progress = app.engine.progress(upload_id)
    except (UploadRefused, StoreError) as error:
        exchange.respond(failure(exchange, error))
        return
    answer = describe(app, exchange, progress)
    if progress.state not in _BAD_ENDS:
        answer.head += figures(app, dialect_of(exchange.request), progress)
    exchange.respond(answer)


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
            refuse(exchange, "not_partial_upload", f"What is appended must be of type {PARTIAL_UPLOAD}.", _ACCEPT)
            return
    offset = natural(request.header(b"upload-offset"))
    last = completes(request)
    if last is None and dialect.version == _OLDEST:
        # That version only knew how to say that something is still to come.
        last = True
    if offset is None or last is None:
        refuse(exchange, "bad_field", "Upload-Offset must be a number of bytes, and Upload-Complete ?0 or ?1.")
        return
    check, digest = _check(request), representation.announced(request)
    try:
        progress = app.engine.progress(upload_id)
    except (UploadRefused, StoreError) as error:
        exchange.respond(failure(exchange, error))
        return
    exchange.owner = progress.details.owner
    append = Append(
        offset=offset,
        length=natural(request.header(b"upload-length")),
        limit=extra_of(app, progress).limit,
        check=check,
    )
    Transfer(app, exchange, dialect, upload_id, last=last, digest=digest).begin(progress, append)
