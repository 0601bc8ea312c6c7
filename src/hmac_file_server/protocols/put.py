"""PUT of one file: XEP-0363 slots of every scheme, and `PUT <path>` with a signature or a ticket."""

from typing import TYPE_CHECKING, Final

from hmac_file_server.auth import Grant, Operation
from hmac_file_server.files.contract import Entry, Outcome, PathRefused, StorageError, StorageFull, StoragePath
from hmac_file_server.http import BodyEnd, Exchange, Response
from hmac_file_server.protocols import resumable
from hmac_file_server.protocols.answers import (
    body_failure,
    failure,
    path_refused,
    quote_path,
    receipt,
    refuse,
)
from hmac_file_server.protocols.media import media_type, well_formed
from hmac_file_server.protocols.pages import PATHS
from hmac_file_server.protocols.resources import RESOURCES
from hmac_file_server.uploads import EXISTS, Plan, Result, SingleUpload, Stored, UploadRefused

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

# Schemes of XMPP servers: their clients expect 201 and nothing else (XEP-0363 section 6).
_SLOT_SCHEMES: Final = frozenset({"v1", "v2", "token", "v3", "prosody-jwt"})

RESERVED: Final = frozenset(
    {
        *PATHS,
        "/health",
        "/ready",
        "/upload",
        "/upload/chunked",
        "/chunked-upload",
        "/upload/status",
        "/upload-status",
        "/tus",
    }
)
"""Paths of endpoints, where no file is stored. Nothing is stored below `/tus/` either."""


def reserved(path: str) -> bool:
    """Whether a URL path is that of an endpoint, where a stored file is neither put nor found."""
    return path in RESERVED or path.startswith(RESOURCES)


def put(app: "Application", exchange: Exchange) -> None:
    """Store the body under the request's path."""
    request = exchange.request
    fields = request.fields
    creation = None
    if b"upload-complete" in fields or b"upload-incomplete" in fields:
        creation = resumable.creation_of(app, request)
    signed = None if creation is None else resumable.signed(request, creation)
    grant = app.permit(exchange, Operation.PUT, signed)
    if grant is None:
        return
    if reserved(request.path):
        # A file stored here could never be read, or would stand in the way of an endpoint.
        refuse(exchange, "method_not_allowed", "No file can be put here.", b"Allow: GET, HEAD, POST, OPTIONS\r\n")
        return
    path = app.path_below(exchange, request.path)
    if path is None or not app.admits(exchange):
        return
    try:
        if grant.form == "whole":
            path = _stored(app, request.path) or path
    except PathRefused as error:
        exchange.respond(path_refused(exchange, error))
        return
    except StorageError as error:
        exchange.respond(failure(exchange, error))
        return
    declared = _declared(exchange) if grant.media_type is None else well_formed(grant.media_type)
    if creation is not None:
        resumable.put(app, exchange, grant, path, creation, declared, bare=grant.scheme in _SLOT_SCHEMES)
        return
    plan = app.plan(exchange, grant, path, request.content_length, declared)
    if plan is not None:
        receive(app, exchange, grant, plan)


def _stored(app: "Application", path: str) -> StoragePath | None:
    """Where the file of a URL lies already.

    Trees of the Go server have it under the whole path, and its signatures have no expiry: an old one may
    not put other content in front of the file that it was made for.
    """
    return next((form for form in app.forms(path) if app.store.head(form) is not None), None)


def _declared(exchange: Exchange) -> str | None:
    return media_type(exchange.request.header(b"content-type"))


def receive(app: "Application", exchange: Exchange, grant: Grant, plan: Plan) -> None:
    """Take the body that a plan allows and answer with its receipt."""
    # A short body that is here already costs least when publishing itself finds a file in the way.
    short = exchange.body_arrived
    if short and app.inline and plan.ticket is None:
        exchange.owner = plan.metadata.owner
        _put_short(app, exchange, grant, plan)
        return
    try:
        upload = SingleUpload(app.store, plan, look_first=not short)
    except (UploadRefused, StorageError) as error:
        exchange.respond(failure(exchange, error))
        return
    exchange.owner = plan.metadata.owner

    def ended(end: BodyEnd) -> None:
        if end.cut is not None:
            upload.abandon()
            exchange.respond(body_failure(exchange, end))
        else:
            upload.finish(answer, inline=short and app.inline)

    def answer(result: Result) -> None:
        exchange.respond_soon(_answer(exchange, grant, result))

    exchange.receive(upload, ended, limit=plan.limit)


def _put_short(app: "Application", exchange: Exchange, grant: Grant, plan: Plan) -> None:
    """Store a body that is here, without a sync, in this turn of the event loop."""
    body = exchange.take_body()
    try:
        published = app.store.put(plan.path, body, plan.metadata)
    except StorageFull:
        _compare_short(app, exchange, grant, plan, body)
        return
    except (StorageError, PathRefused) as error:
        exchange.respond(failure(exchange, error))
        return
    if published.outcome is Outcome.CONFLICT or published.entry is None:
        refuse(exchange, "exists", EXISTS)
    else:
        exchange.respond(_receipt(exchange, grant, published.entry))


def _compare_short(app: "Application", exchange: Exchange, grant: Grant, plan: Plan, body: bytes) -> None:
    """There is no room; what is there already needs none."""
    try:
        upload = SingleUpload(app.store, plan, look_first=True)
    except (UploadRefused, StorageError) as error:
        exchange.respond(failure(exchange, error))
        return
    try:
        upload.write(memoryview(body))
    except (UploadRefused, StorageError) as error:
        upload.abandon()
        exchange.respond(failure(exchange, error))
        return
    upload.finish(lambda result: exchange.respond(_answer(exchange, grant, result)), inline=True)


def _answer(exchange: Exchange, grant: Grant, result: Result) -> Response:
    if isinstance(result, Stored):
        return _receipt(exchange, grant, result.entry)
    return failure(exchange, result)


def _receipt(exchange: Exchange, grant: Grant, entry: Entry) -> Response:
    if grant.scheme in _SLOT_SCHEMES:
        return Response(201)
    return receipt(entry, quote_path(exchange.request.path), 201)
