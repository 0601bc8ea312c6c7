"""The chunk API of the network resilience guide: sessions, chunks in any order, status, end.

    POST|PUT /upload/chunked   X-Filename, X-Total-Size          begins a session
    PUT|POST /upload/chunked   X-Upload-Session-ID, X-Chunk-Number   stores a chunk, or the rest of one
    DELETE   /upload/chunked   X-Upload-Session-ID               ends a session
    GET      /upload/status    ?session_id=                      how far it is

A chunk is a lane of the upload. Its bytes are kept as they come, so that what a dead connection brought is
never sent again by a client that looks at `received` and goes on with X-Chunk-Offset.
"""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from hmac_file_server.auth import Operation, Refusal
from hmac_file_server.auth.grant import SIGNATURE, TICKET
from hmac_file_server.files.contract import PathRefused, StorageError
from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Response
from hmac_file_server.http.response import json_response
from hmac_file_server.protocols.answers import body_failure, deny, failure, problem, refuse
from hmac_file_server.protocols.digests import BodyDigest, body_digest
from hmac_file_server.protocols.media import OCTET_STREAM, media_type
from hmac_file_server.protocols.repeat import RepeatedBody
from hmac_file_server.protocols.resources import at_home, order_for
from hmac_file_server.uploads import (
    Failure,
    Lease,
    Progress,
    State,
    StoreError,
    Upload,
    UploadRefused,
    mismatch,
)

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

UPLOADS: Final = frozenset({"/upload/chunked", "/chunked-upload"})
CHUNKS_MAX: Final = 100_000
WAIT_MAX: Final = 60.0
_KIB: Final = 1024
# Whose permission does not name the file's path: the server chooses it.
_SCHEMES: Final = frozenset({SIGNATURE, TICKET})
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_SECONDS: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_KEY_BYTES: Final = 255
_BAD_ENDS: Final = frozenset({State.FAILED, State.EXPIRED})
_UNENDED: Final = frozenset({State.OPEN, State.PUBLISHING})
_NO_STORE: Final = b"Cache-Control: no-store\r\n"


def chunked(app: "Application", exchange: Exchange) -> None:
    """POST, PUT or DELETE of `/upload/chunked`."""
    request = exchange.request
    if request.method == "DELETE":
        _delete(app, exchange)
    elif request.header(b"x-upload-session-id") is None:
        _create(app, exchange)
    else:
        _chunk(app, exchange)


def status(app: "Application", exchange: Exchange) -> None:
    """GET or HEAD of `/upload/status`."""
    parameters = dict(
        pair.partition("=")[::2] for pair in exchange.request.query.decode("ascii", "replace").split("&") if pair
    )
    upload_id = parameters.get("session_id", "")
    if not upload_id:
        refuse(exchange, "bad_field", "The parameter session_id is missing.")
        return
    wait = parameters.get("wait", "0")
    if _SECONDS.fullmatch(wait) is None:
        refuse(exchange, "bad_field", "The parameter wait must be a number of seconds.")
        return
    if _permitted(app, exchange) and at_home(app, exchange, upload_id):
        _Poll(app, exchange, upload_id, min(float(wait), WAIT_MAX)).begin()


# ---- beginning a session


def _create(app: "Application", exchange: Exchange) -> None:
    grant = app.permit(exchange, Operation.CREATE)
    if grant is None:
        return
    if grant.scheme not in _SCHEMES:
        detail = f"{grant.scheme} is for the file at one path, and begins none elsewhere"
        refusal = Refusal(status=403, code="operation_not_allowed", reason="operation", detail_log=detail)
        app.log_refusal(exchange, refusal)
        deny(exchange, refusal)
        return
    if not app.admits(exchange):
        return
    request = exchange.request
    name = request.header(b"x-filename")
    total = request.header(b"x-total-size")
    if not name or total is None:
        refuse(exchange, "bad_field", "X-Filename and X-Total-Size are needed to begin an upload.")
        return
    if _NUMBER.fullmatch(total) is None:
        refuse(exchange, "bad_field", "X-Total-Size must be a number of bytes.")
        return
    length = int(total)
    key = request.header(b"idempotency-key")
    if key is not None and not 0 < len(key) <= _KEY_BYTES:
        refuse(exchange, "bad_field", f"Idempotency-Key must have 1 to {_KEY_BYTES} bytes.")
        return
    if grant.exact_size is not None and length != grant.exact_size:
        refuse(exchange, "size_mismatch", "The file has another size than the permission says.")
        return
    limit = app.file_limit(grant)
    if length > limit:
        refuse(exchange, "too_large", f"The file may have at most {limit} bytes.")
        return
    filename = app.clean_name(file_name(name))
    declared = media_type(request.header(b"content-type"))
    if declared == OCTET_STREAM and grant.media_type is None:
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
    if not app.extension_allowed(path):
        refuse(exchange, "extension_refused", "Files with this extension are not taken.")
        return
    order = order_for(
        app,
        grant,
        "chunked",
        path,
        length,
        app.plan_for(grant, path, length, declared, filename),
        key=key,
        chunk_size=max(app.settings.uploads.chunk_size, -(-length // CHUNKS_MAX // _KIB) * _KIB),
    )
    exchange.owner = grant.owner
    app.engine.create(order, lambda result: exchange.respond_soon(_created(app, exchange, result)))


def file_name(value: bytes) -> str:
    """The name in X-Filename: UTF-8, or percent-encoded UTF-8 as browsers must send it (a ByteString)."""
    if b"%" in value and value.isascii():
        decoded = unquote_to_bytes(value)
        try:
            return decoded.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("ascii")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        # fetch() sends what fits into a ByteString as it is (WebIDL), one byte a character.
        return value.decode("latin-1")


def _created(app: "Application", exchange: Exchange, result: Progress | Failure) -> Response:
    if not isinstance(result, Progress):
        return failure(exchange, result)
    if result.state in _BAD_ENDS:
        return ended_badly(exchange, result)
    size = result.chunk_size or 1
    length = result.length or 0
    status_path = "/upload-status" if exchange.request.path == "/chunked-upload" else "/upload/status"
    document: dict[str, object] = {
        "session_id": result.id,
        "chunk_size": size,
        "total_chunks": -(-length // size),
        "filename": result.filename,
        "total_size": length,
        "expires_at": _moment(result.expires),
        "completed": result.complete,
        "url": app.url_of(app.stored_path(result.path)),
    }
    head = _NO_STORE + f"Location: {status_path}?session_id={result.id}\r\n".encode("ascii")
    return json_response(201, document, head)


# ---- chunks


def _chunk(app: "Application", exchange: Exchange) -> None:
    request = exchange.request
    upload_id = _upload_id(exchange)
    number = request.header(b"x-chunk-number")
    offset = request.header(b"x-chunk-offset")
    if upload_id is None:
        return
    if number is None or _NUMBER.fullmatch(number) is None:
        refuse(exchange, "bad_chunk_number", "X-Chunk-Number must be the number of a chunk, from 0.")
        return
    if offset is None:
        offset = b"0"
    elif _NUMBER.fullmatch(offset) is None:
        refuse(exchange, "bad_field", "X-Chunk-Offset must be a number of bytes into the chunk.")
        return
    digest = body_digest(request)
    if _permitted(app, exchange) and at_home(app, exchange, upload_id):
        app.engine.open(
            upload_id,
            app.on_loop(exchange, functools.partial(_opened, app, exchange, int(number), int(offset), digest)),
        )


def _opened(
    app: "Application",
    exchange: Exchange,
    number: int,
    offset: int,
    digest: BodyDigest | None,
    found: Upload | Progress | Failure,
) -> None:
    if not isinstance(found, Upload | Progress):
        exchange.respond(failure(exchange, found))
        return
    exchange.owner = found.details.owner
    if isinstance(found, Progress) and found.state is not State.COMPLETE:
        # No chunk can be right or wrong any more.
        exchange.respond(ended_badly(exchange, found))
        return
    length, size = found.length or 0, found.chunk_size or 1
    body = exchange.request.content_length
    if body is None and not exchange.request.chunked:
        body = 0
    start = number * size
    if body is not None and number == 0 and not offset and body != min(size, length) and _adopt(app, found, body):
        # The guide's own client cuts 5 MiB whatever it was told.
        size = body
    if number == 0 and not length and not offset and not body:
        # An empty file is complete from the beginning; who sends its bytes all the same has done so.
        _nothing_to_add(app, exchange, number, (0, 0), found)
        return
    if not 0 <= start < length:
        refuse(exchange, "bad_chunk_number", f"The upload has chunks 0 to {max(0, -(-length // size) - 1)}.")
        return
    lane = (start, min(start + size, length))
    begin = start + offset
    left = lane[1] - begin
    if left == 0 and not body:
        _nothing_to_add(app, exchange, number, lane, found)
        return
    if left <= 0 or (body is not None and body != left):
        expected = max(0, left)
        detail = f"Chunk {number} has {lane[1] - start} bytes, {expected} of them from this offset."
        exchange.respond(_wrong_length(exchange, detail, expected))
        return
    if isinstance(found, Progress):
        _repeat(app, exchange, number, begin, left, digest, found)
        return
    if app.engine.contested(found, lane) and exchange.body_lost:
        # It came late, by way of another process, and can never be whole: it takes no lane from one that can.
        refuse(exchange, "incomplete", "The body ended early.")
        return
    app.engine.claim(
        found,
        lane,
        begin,
        on_taken=lambda: app.call_soon(exchange.cut, BodyCut.TAKEN_OVER),
        done=app.on_loop(exchange, functools.partial(_claimed, app, exchange, number, begin, left, digest)),
        check=digest,
    )


def _nothing_to_add(
    app: "Application", exchange: Exchange, number: int, lane: tuple[int, int], found: Upload | Progress
) -> None:
    """No byte at the end of a chunk: fine if the rest of it is there (fault N-16)."""
    progress = found.look() if isinstance(found, Upload) else found
    missing = (
        [] if progress.complete else missing_chunks(progress.ranges, progress.chunk_size or 1, progress.length or 0)
    )
    if any(first <= number <= last for first, last in missing):
        exchange.respond(_wrong_length(exchange, f"Chunk {number} is not there yet.", lane[1] - lane[0]))
        return

    def ended(end: BodyEnd) -> None:
        if end.cut is not None:
            exchange.respond(_cut(exchange, end, 0))
        elif isinstance(found, Upload):
            # Whole, perhaps, and only its publishing was put off.
            app.engine.complete(found, answer)
        else:
            answer(found)

    def answer(result: Progress | Failure) -> None:
        exchange.respond_soon(_receipt(app, exchange, number, result))

    # A body that does not say how long it is may have some all the same.
    exchange.receive(_NoBytes(), ended, limit=0)


class _NoBytes:
    """The sink of a body that has none."""

    def write(self, view: memoryview) -> None:
        """See `BodySink`. Raises UploadRefused."""
        raise UploadRefused("bad_chunk_length", f"There are {len(view)} bytes too many.")


def _wrong_length(exchange: Exchange, detail: str, expected: int) -> Response:
    return problem(exchange, "bad_chunk_length", detail, expected=expected)


def _adopt(app: "Application", found: Upload | Progress, body: int) -> bool:
    """Whether the body's length is the session's chunk size from now on."""
    length = found.length or 0
    if not isinstance(found, Upload) or not 0 < body <= length or -(-length // body) > CHUNKS_MAX:
        return False
    return app.engine.adopt(found, body)


def _claimed(
    app: "Application",
    exchange: Exchange,
    number: int,
    begin: int,
    left: int,
    digest: BodyDigest | None,
    result: Lease | Progress | Failure,
) -> None:
    if isinstance(result, Progress):
        _repeat(app, exchange, number, begin, left, digest, result)
        return
    if not isinstance(result, Lease):
        exchange.respond(failure(exchange, result))
        return
    lease = result

    def ended(end: BodyEnd) -> None:
        if end.cut is not None:
            # The answer is for a client that is still there; what came is kept whatever becomes of it.
            app.engine.cut(lease)
            exchange.respond(_cut(exchange, end, left))
        elif lease.position != lease.lane[1]:
            app.engine.cut(lease)
            exchange.respond(_wrong_length(exchange, f"The body must have {left} bytes.", left))
        else:
            # All bytes are all that this protocol needs, whichever began the upload.
            app.engine.finish(lease, answer, last=lease.upload.length is not None)

    def answer(result: Progress | Failure) -> None:
        exchange.respond_soon(_receipt(app, exchange, number, result))

    exchange.receive(lease, ended, limit=left)


def _cut(exchange: Exchange, end: BodyEnd, expected: int) -> Response:
    """The answer to a body of a chunk that did not come whole, or was longer than it had said."""
    if end.cut is BodyCut.TOO_LARGE:
        return _wrong_length(exchange, f"The body must have {expected} bytes.", expected)
    return body_failure(exchange, end)


def _repeat(
    app: "Application",
    exchange: Exchange,
    number: int,
    begin: int,
    length: int,
    digest: BodyDigest | None,
    progress: Progress,
) -> None:
    """A chunk of an upload that has ended: the same bytes get the same answer, others are told so."""
    if progress.state is not State.COMPLETE:
        # It ended while the claim waited.
        exchange.respond(ended_badly(exchange, progress))
        return
    try:
        body = RepeatedBody(app.store, app.stored_path(progress.path), begin, digest)
    except StorageError as error:
        exchange.respond(failure(exchange, error))
        return

    def ended(end: BodyEnd) -> None:
        body.close()
        if end.cut is not None:
            exchange.respond(_cut(exchange, end, length))
        elif end.received != length:
            exchange.respond(_wrong_length(exchange, f"The body must have {length} bytes.", length))
        elif digest is not None and not digest.matches():
            exchange.respond(failure(exchange, mismatch()))
        else:
            exchange.respond(_receipt(app, exchange, number, progress))

    exchange.receive(body, ended, limit=length)


def _receipt(app: "Application", exchange: Exchange, number: int, result: Progress | Failure) -> Response:
    if not isinstance(result, Progress):
        return failure(exchange, result)
    if result.state in _BAD_ENDS:
        return ended_badly(exchange, result)
    document: dict[str, object] = {"success": True, "chunk": number, **_figures(result)}
    document["received"] = result.ranges
    if result.complete:
        document |= _file(app, result)
    return json_response(200, document, _NO_STORE)


# ---- status


class _Poll:
    """One request for a status: what came is made durable first; with `wait`, the next change is waited for."""

    __slots__ = ("_app", "_exchange", "_id", "_unwatch", "_version", "_wait")

    def __init__(self, app: "Application", exchange: Exchange, upload_id: str, wait: float) -> None:
        self._app = app
        self._exchange = exchange
        self._id = upload_id
        self._wait = wait
        self._version: tuple[int, int] | None = None
        self._unwatch: Callable[[], None] | None = None

    def begin(self) -> None:
        self._app.engine.settle(self._id, self._app.on_loop(self._exchange, self._settled))

    def _settled(self) -> None:
        progress = self._progress()
        if progress is None:
            return
        if not self._wait or progress.state not in _UNENDED:
            self._answer(progress)
            return
        self._version = _mark(progress)
        self._unwatch = self._app.engine.watch(self._id, self._app.on_loop(self._exchange, self._changed))
        self._exchange.on_gone(self._stop)
        self._app.call_later(self._wait, self._over)
        # A change between the look and the watch.
        self._changed()

    def _changed(self) -> None:
        if self._unwatch is None:
            return
        progress = self._progress()
        if progress is None:
            self._stop()
        elif progress.state not in _UNENDED or _mark(progress) != self._version:
            self._answer(progress)

    def _over(self) -> None:
        if self._unwatch is not None:
            progress = self._progress()
            if progress is None:
                self._stop()
            else:
                self._answer(progress)

    def _progress(self) -> Progress | None:
        """The progress; None after having answered why there is none."""
        try:
            return self._app.engine.progress(self._id)
        except (UploadRefused, StoreError) as error:
            self._stop()
            self._exchange.respond(failure(self._exchange, error))
            return None

    def _answer(self, progress: Progress) -> None:
        self._stop()
        self._exchange.respond(describe(self._app, self._exchange, progress))

    def _stop(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()


def _mark(progress: Progress) -> tuple[int, int]:
    return progress.received, len(progress.ranges)


def describe(app: "Application", exchange: Exchange, progress: Progress) -> Response:
    """How far an upload is, in JSON, whatever protocol began it; or why it ended badly."""
    if progress.state in _BAD_ENDS:
        return ended_badly(exchange, progress)
    size = progress.chunk_size or 1
    total = -(-(progress.length or 0) // size)
    missing = missing_chunks(progress.ranges, size, progress.length or 0)
    document: dict[str, object] = {
        "session_id": progress.id,
        "filename": progress.filename,
        **_figures(progress),
        "chunks": total - sum(last - first + 1 for first, last in missing),
        "chunk_size": size,
        "total_chunks": total,
        "missing": missing,
        "received": progress.ranges,
        "last_activity": _moment(progress.active),
        "expires_at": _moment(progress.expires),
    }
    if progress.complete:
        document |= _file(app, progress)
    return json_response(200, document, _NO_STORE)


def missing_chunks(ranges: tuple[tuple[int, int], ...], size: int, length: int) -> list[tuple[int, int]]:
    """Runs `(first, last)` of chunk numbers that are not wholly there."""
    missing: list[tuple[int, int]] = []
    offset = 0
    for start, stop in (*ranges, (length, length)):
        if start > offset:
            first, last = offset // size, (start - 1) // size
            if missing and missing[-1][1] >= first - 1:
                missing[-1] = (missing[-1][0], last)
            else:
                missing.append((first, last))
        offset = max(offset, stop)
    return missing


def _figures(progress: Progress) -> dict[str, object]:
    length = progress.length or 0
    received = progress.received
    return {
        "uploaded_bytes": received,
        "total_size": progress.length,
        "progress": received / length if length else 1.0 if progress.complete else 0.0,
        "completed": progress.complete,
    }


def _file(app: "Application", progress: Progress) -> dict[str, object]:
    receipt = progress.receipt
    document: dict[str, object] = {
        "filename": progress.filename,
        "size": progress.length or 0,
        "url": app.url_of(app.stored_path(progress.path)),
    }
    if receipt is not None and receipt.digest is not None:
        algorithm, _, value = receipt.digest.partition(":")
        document[algorithm] = value
    return document


def ended_badly(exchange: Exchange, progress: Progress) -> Response:
    """What an upload that failed or expired is answered, whatever was asked of it."""
    receipt = progress.receipt
    if progress.state is State.EXPIRED or receipt is None:
        return problem(exchange, "upload_expired", "The upload was not continued in time; begin it anew.")
    return failure(exchange, UploadRefused(receipt.code, receipt.detail))


def _moment(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- the end on request


def _delete(app: "Application", exchange: Exchange) -> None:
    upload_id = _upload_id(exchange)
    if upload_id is None or not _permitted(app, exchange) or not at_home(app, exchange, upload_id):
        return

    def answer(result: Progress | Failure) -> None:
        gone = Response(204) if isinstance(result, Progress) else failure(exchange, result)
        exchange.respond_soon(gone)

    app.engine.cancel(upload_id, answer)


# ---- what they share


def _upload_id(exchange: Exchange) -> str | None:
    """The session's id; None after having refused the request."""
    value = (exchange.request.header(b"x-upload-session-id") or b"").decode("ascii", "replace")
    if not value:
        refuse(exchange, "bad_field", "X-Upload-Session-ID is missing.")
        return None
    return value


def _permitted(app: "Application", exchange: Exchange) -> bool:
    """The id is 128 random bits that only its client was told; strict mode wants a signature all the same."""
    if not app.settings.security.strict_signatures:
        return True
    return app.permit(exchange, Operation.CHUNK) is not None
