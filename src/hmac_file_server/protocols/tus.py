"""tus 1.0.0 with every extension (the protocol's own page, "Protocol" and "Protocol Extensions").

    OPTIONS /tus/       what there is
    POST    /tus/       Upload-Length | Upload-Defer-Length | Upload-Concat: begins an upload
    HEAD    /tus/<id>   how far it is
    PATCH   /tus/<id>   Upload-Offset: appends
    DELETE  /tus/<id>   ends it; a finished one is removed with its file
    GET     /tus/<id>   the file once it is complete, until then how far it is, in JSON

Neither a lock nor a rival is ever answered with a 4xx on HEAD: clients take that for the end of the upload.
"""

import base64
import binascii
import functools
import re
import threading
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from hmac_file_server.auth import Grant, Operation
from hmac_file_server.files.contract import DraftHeld, Entry, PathRefused, StorageError
from hmac_file_server.http import BodyEnd, Exchange, Response
from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols import download, transfer
from hmac_file_server.protocols.answers import PREFLIGHT, body_failure, failure, problem, refuse
from hmac_file_server.protocols.checksums import ALGORITHMS, Checksum, TrailingChecksum, body_checksum
from hmac_file_server.protocols.chunked import describe, ended_badly
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
    exact_of,
    limit_of,
    order_for,
    settle,
)
from hmac_file_server.uploads import (
    Failure,
    Order,
    Plan,
    Progress,
    Result,
    SingleUpload,
    State,
    Stored,
    StoreError,
    Upload,
    UploadRefused,
)

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

PROTOCOL: Final = "tus"
VERSION: Final = b"1.0.0"
EXTENSIONS: Final = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "checksum-trailer",
    "termination",
    "concatenation",
    "concatenation-unfinished",
)
_RESUMABLE: Final = b"Tus-Resumable: " + VERSION + b"\r\n"
_VERSIONS: Final = b"Tus-Version: " + VERSION + b"\r\n"
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_STREAM: Final = b"application/offset+octet-stream"
_NUMBER: Final = re.compile(rb"[0-9]{1,40}")
_KEY: Final = re.compile(r"[!-+\--~]+")
_KEY_BYTES: Final = 255
_PART: Final = re.compile(r"(?:(?:[^,]*/)?tus/)?([0-9]{1,12}_[0-9a-z]{1,64})/?")
# Files of so many bytes are stored at once when they come whole with the request that begins their upload.
_AT_ONCE: Final = 64 * 1024
_ENDED: Final = frozenset({State.FAILED, State.EXPIRED})
# A repeat of the same creation has the upload by now.
_REPEATED: Final = frozenset({"upload_taken_over", "incomplete"})

Check = Checksum | TrailingChecksum


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """What this protocol keeps with an upload. Begins as `resources.Bounds`.

    limit      bytes that it may have
    exact      bytes that it must have, where the permission binds them and the request left them open
    metadata   Upload-Metadata as it came
    concat     Upload-Concat as it came
    until      epoch seconds when the permission ended under which it was begun; None: it did not say
    """

    limit: int
    exact: int | None = None
    metadata: str = ""
    concat: str = ""
    until: float | None = None


_extra: Final = msgspec.msgpack.Decoder(Extra)
_encode: Final = msgspec.msgpack.Encoder().encode


def extra_of(app: "Application", progress: Progress) -> Extra:
    """What is kept with an upload; of one that another protocol began, its bounds."""
    if progress.protocol == PROTOCOL:
        return _extra.decode(progress.details.extra)
    return Extra(limit_of(app, progress), exact_of(progress), until=transfer.extra_of(app, progress).until)


def _outlived(app: "Application", extra: Extra) -> UploadRefused | None:
    """Why an upload may not go on, however often it is continued: no permission lives for ever."""
    if extra.until is None or app.clock.time() < extra.until + app.settings.uploads.max_resumable_age:
        return None
    return UploadRefused("upload_expired", "The permission for this upload has ended; begin it anew.")


# ---- which request goes where


def collection(app: "Application", exchange: Exchange) -> None:
    """A request on `/tus` or `/tus/`."""
    exchange.fields = _RESUMABLE
    method = _method(exchange)
    if method == "OPTIONS":
        options(app, exchange)
    elif method != "POST" or exchange.request.method != "POST":
        # An override is for what a client cannot send, which is never a POST; slots are permissions to PUT.
        refuse(exchange, "method_not_allowed", "Uploads are begun here, with POST.", b"Allow: POST, OPTIONS\r\n")
    elif _version(exchange):
        _create(app, exchange)


def resource(app: "Application", exchange: Exchange, upload_id: str) -> None:
    """A request on `/tus/<id>`."""
    exchange.fields = _RESUMABLE
    method = _method(exchange)
    if method == "OPTIONS":
        options(app, exchange)
        return
    answer = _METHODS.get(method)
    if answer is None:
        allow = b"Allow: GET, HEAD, PATCH, DELETE, OPTIONS\r\n"
        refuse(exchange, "method_not_allowed", "Uploads take no such request.", allow)
    elif _version(exchange):
        answer(app, exchange, upload_id)


def options(app: "Application", exchange: Exchange) -> None:
    """What this server speaks, beside what every preflight is told."""
    head = (
        f"Tus-Extension: {','.join(EXTENSIONS)}\r\n"
        f"Tus-Max-Size: {app.settings.server.max_upload_size}\r\n"
        f"Tus-Checksum-Algorithm: {','.join(ALGORITHMS)}\r\n"
    )
    exchange.fields = _RESUMABLE
    exchange.respond(Response(204, PREFLIGHT + app.discovery + _VERSIONS + head.encode("ascii")))


def _method(exchange: Exchange) -> str:
    """The method that is meant: X-HTTP-Method-Override is for clients that can only POST."""
    override = exchange.request.header(b"x-http-method-override")
    return exchange.request.method if override is None else override.decode("ascii", "replace").upper()


def _version(exchange: Exchange) -> bool:
    """Whether the request is of our version; False after having refused it."""
    if exchange.request.header(b"tus-resumable") == VERSION:
        return True
    refuse(exchange, "tus_version", "This server speaks tus 1.0.0; Tus-Resumable says which is spoken.", _VERSIONS)
    return False


def _permitted(app: "Application", exchange: Exchange) -> bool:
    """The id is 128 random bits that only its client was told; strict mode wants a signature all the same."""
    if not app.settings.security.strict_signatures:
        return True
    return app.permit(exchange, Operation.CHUNK) is not None


def _progress(app: "Application", exchange: Exchange, upload_id: str) -> Progress | None:
    """How far an upload is; None after having answered why that cannot be said."""
    try:
        progress = app.engine.progress(upload_id)
    except (UploadRefused, StoreError) as error:
        exchange.respond(failure(exchange, error))
        return None
    exchange.owner = progress.details.owner
    return progress


# ---- creation


class _Creation(msgspec.Struct, frozen=True):
    """What a request to create says: `length` None is not known yet, `parts` are ids."""

    length: int | None
    metadata: dict[str, bytes]
    verbatim: str
    concat: str
    parts: tuple[str, ...]
    key: bytes | None

    @property
    def partial(self) -> bool:
        return bool(self.concat) and not self.parts

    def text(self, *keys: str) -> str | None:
        """The first of these metadata that is there and not empty."""
        value = next((value for key in keys if (value := self.metadata.get(key))), None)
        if value is None:
            return None
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")


def _create(app: "Application", exchange: Exchange) -> None:
    request = exchange.request
    grant = app.permit(exchange, Operation.CREATE)
    if grant is None or not app.admits(exchange):
        return
    wanted = _wanted(exchange)
    check = None
    stream = _is_stream(exchange) and not wanted.parts
    if stream:
        check = body_checksum(request, lambda: exchange.trailers)
    limit = app.file_limit(grant)
    known = _parts_length(app, wanted.parts) if wanted.parts else wanted.length
    if isinstance(known, UploadRefused | StoreError):
        exchange.respond(failure(exchange, known))
        return
    if known is not None:
        if grant.exact_size is not None and known != grant.exact_size:
            refuse(exchange, "size_mismatch", "The file has another size than the permission says.")
            return
        if known > limit:
            refuse(exchange, "too_large", f"The file may have at most {limit} bytes.")
            return
    if stream and (request.content_length or 0) > (limit if known is None else known):
        refuse(exchange, "too_large", "The body is longer than the upload.")
        return
    filename = app.clean_name(grant.filename or wanted.text("filename", "name") or "")
    declared = _media_type(wanted)
    if not wanted.partial and None not in {grant.media_type, declared} and declared != grant.media_type:
        refuse(exchange, "type_mismatch", "The file has another type than the permission says.")
        return
    try:
        path = app.new_path(filename, grant)
    except PathRefused as error:
        exchange.respond(failure(exchange, error))
        return
    if not wanted.partial and not app.extension_allowed(path):
        refuse(exchange, "extension_refused", "Files with this extension are not taken.")
        return
    plan = app.plan_for(grant, path, wanted.length, declared, filename)
    order = order_for(
        app,
        grant,
        PROTOCOL,
        path,
        wanted.length,
        plan,
        key=wanted.key,
        partial=wanted.partial,
        parts=wanted.parts,
        extra=_encode(Extra(limit, _left_open(grant, known), wanted.verbatim, wanted.concat, grant.until)),
    )
    exchange.owner = grant.owner
    whole = stream and not wanted.partial and wanted.key is None and wanted.length == request.content_length
    if whole and 0 < (wanted.length or 0) <= _AT_ONCE:
        _store(app, exchange, order, plan, check)
        return
    app.engine.create(order, app.on_loop(exchange, functools.partial(_created, app, exchange, check, stream=stream)))


def _left_open(grant: Grant, known: int | None) -> int | None:
    return grant.exact_size if known is None else None


def _wanted(exchange: Exchange) -> _Creation:
    """The fields of a creation. Raises HttpError 400 `bad_field`."""
    request = exchange.request
    concat, parts = parse_concat(request.header(b"upload-concat"))
    length = _number(request.header(b"upload-length"), "Upload-Length")
    defer = request.header(b"upload-defer-length")
    if defer is not None and defer != b"1":
        raise _bad("Upload-Defer-Length can only be 1.")
    if parts:
        if length is not None or defer is not None:
            raise _bad("The length of an upload made of parts is that of its parts.")
    elif (length is None) is (defer is None):
        raise _bad("One of Upload-Length and Upload-Defer-Length is needed.")
    verbatim = request.header(b"upload-metadata") or b""
    key = request.header(b"idempotency-key")
    if key is not None and not 0 < len(key) <= _KEY_BYTES:
        raise _bad(f"Idempotency-Key must have 1 to {_KEY_BYTES} bytes.")
    return _Creation(length, parse_metadata(verbatim), verbatim.decode("ascii"), concat, parts, key)


def _number(value: bytes | None, name: str) -> int | None:
    if value is None:
        return None
    if _NUMBER.fullmatch(value) is None:
        raise _bad(f"{name} must be a number of bytes.")
    return int(value)


def parse_metadata(value: bytes) -> dict[str, bytes]:
    """Upload-Metadata: `key base64[,key base64]`, where an empty value may be left out with its space.

    Raises HttpError 400 `bad_field`.
    """
    metadata: dict[str, bytes] = {}
    if not value:
        return metadata
    if not value.isascii():
        raise _bad("Upload-Metadata must be ASCII.")
    for pair in value.decode("ascii").split(","):
        key, _, encoded = pair.strip(" \t").partition(" ")
        if _KEY.fullmatch(key) is None or key in metadata:
            raise _bad("The keys of Upload-Metadata must be there, once each.")
        try:
            metadata[key] = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise _bad("The values of Upload-Metadata must be Base64.") from None
    return metadata


def _media_type(wanted: _Creation) -> str | None:
    """The type that the metadata name; none if that is none, or says nothing that the name would not say better."""
    try:
        declared = media_type((wanted.text("filetype", "type") or "").encode("utf-8") or None)
    except HttpError:
        return None
    return None if declared == OCTET_STREAM else declared


def parse_concat(value: bytes | None) -> tuple[str, tuple[str, ...]]:
    """Upload-Concat as it came, and the ids of the parts it names. Raises HttpError 400 `bad_field`."""
    if value is None:
        return "", ()
    text = value.decode("ascii", "replace")
    if text == "partial":
        return text, ()
    kind, _, urls = text.partition(";")
    if kind != "final" or not value.isascii():
        raise _bad("Upload-Concat must be partial or final;URLS.")
    parts = []
    for url in urls.split():
        try:
            match = _PART.fullmatch(urlsplit(url).path)
        except ValueError:
            match = None
        if match is None:
            raise _bad("Upload-Concat names something that is no upload of this server.")
        parts.append(match[1])
    if not parts:
        raise _bad("Upload-Concat names no parts.")
    return text, tuple(parts)


def _bad(detail: str) -> HttpError:
    return HttpError(400, "bad_field", detail)


def _is_stream(exchange: Exchange) -> bool:
    kind = exchange.request.header(b"content-type") or b""
    return kind.partition(b";")[0].rstrip(b" \t").lower() == _STREAM


def _created(
    app: "Application", exchange: Exchange, check: Check | None, result: Progress | Failure, *, stream: bool
) -> None:
    if not isinstance(result, Progress):
        exchange.respond(failure(exchange, result))
    elif result.state in _ENDED:
        exchange.respond(ended_badly(exchange, result))
    elif result.details.parts:
        _assemble(app, exchange, result, functools.partial(_made, app, exchange, result.id))
    elif not stream:
        exchange.respond(_begun(exchange, result, with_offset=False))
    elif _is_whole(result):
        # A repeat by its key, as below; to its client that offset means that the file is there.
        _publish(app, exchange, result, functools.partial(_found_whole, exchange))
    elif result.offset or result.complete:
        # A repeat by its key: bytes of it are there already, the client sees how many.
        exchange.respond(_begun(exchange, result, with_offset=True))
    else:
        append = Append(
            offset=0,
            limit=_extra.decode(result.details.extra).limit,
            last=result.length is not None,
            check=check,
        )
        done = functools.partial(_first_bytes, app, exchange, result, append)
        Appending(app, exchange, append, done).begin(result.id)


def _found_whole(exchange: Exchange, result: Progress | Failure) -> None:
    """A repeated creation found an upload with all its bytes, which is published by now, or why not."""
    if not isinstance(result, Progress):
        exchange.respond(failure(exchange, result))
    elif result.state in _ENDED:
        exchange.respond(ended_badly(exchange, result))
    else:
        exchange.respond(_begun(exchange, result, with_offset=result.complete))


def _begun(exchange: Exchange, progress: Progress, *, with_offset: bool) -> Response:
    # Relative, so that it is right behind a proxy that serves this under another path; and the last segment
    # alone, as one client joins it to the URL instead of resolving it.
    folder = "" if exchange.request.path == RESOURCES else "tus/"
    head = _NO_STORE + f"Location: {folder}{progress.id}\r\n".encode("ascii") + _expiry(progress)
    if with_offset:
        head += _offset(progress)
    return Response(201, head)


def _first_bytes(app: "Application", exchange: Exchange, created: Progress, append: Append, outcome: Outcome) -> None:
    """The body of the creating request has ended."""
    if isinstance(outcome, Appended) and outcome.progress.state not in _ENDED:
        exchange.respond(_begun(exchange, outcome.progress, with_offset=True))
        return
    answer = _answer(exchange, append, outcome)
    if answer is None:
        return
    if isinstance(outcome, UploadRefused) and outcome.code not in _REPEATED:
        # Its client does not know of it, and begins anew. Whoever else has it came by its key, and goes on with it.
        app.engine.cancel(created.id, lambda _: exchange.respond_soon(answer))
    else:
        exchange.respond(answer)


# ---- short uploads, whole in the request that begins them


class _Compared:
    """The sink of a body that has a checksum."""

    def __init__(self, upload: SingleUpload, check: Check) -> None:
        self._upload = upload
        self._check = check

    def write(self, view: memoryview) -> None:
        """See `BodySink`."""
        self._upload.write(view)
        self._check.update(view)


def _store(app: "Application", exchange: Exchange, order: Order, plan: Plan, check: Check | None) -> None:
    """Store a short file as a PUT does, and record that it was an upload: who gets no answer knows of none."""
    short = exchange.body_arrived
    try:
        upload = SingleUpload(app.store, plan, look_first=not short)
    except (UploadRefused, StorageError) as error:
        exchange.respond(failure(exchange, error))
        return

    halves = _Halves(app, exchange, order, plan)

    def ended(end: BodyEnd) -> None:
        if end.cut is not None:
            upload.abandon()
            exchange.respond(body_failure(exchange, end))
        elif check is not None and not check.matches():
            upload.abandon()
            exchange.respond(_checksum_failed(exchange, check))
        else:
            upload.finish(halves.stored, inline=short and app.inline, placed=halves.placed)

    exchange.receive(upload if check is None else _Compared(upload, check), ended, limit=plan.limit)


class _Halves:
    """The file and the session of a short upload, made durable at the same time; it is answered when both are.

    Should the server die between the two, there is a session that nobody knows, or a file as after any lost answer.
    """

    def __init__(self, app: "Application", exchange: Exchange, order: Order, plan: Plan) -> None:
        self._app = app
        self._exchange = exchange
        self._order = order
        self._plan = plan
        self._lock = threading.Lock()
        self._recording = False
        self._file: Result | None = None
        self._session: Progress | Failure | None = None

    def placed(self, entry: Entry) -> None:
        """The file is on its way."""
        self._recording = True
        self._app.engine.record(self._order, entry, self._recorded)

    def stored(self, result: Result) -> None:
        """The file is there, or is not."""
        record = isinstance(result, Stored) and not self._recording
        with self._lock:
            self._file = result
            ready = not self._recording or self._session is not None
        if isinstance(result, Stored) and record:
            self._app.engine.record(self._order, result.entry, self._recorded)
        elif ready:
            self._answer(result)

    def _recorded(self, result: Progress | Failure) -> None:
        with self._lock:
            self._session = result
            file = self._file
        if file is not None:
            self._answer(file)

    def _answer(self, file: Result) -> None:
        app, exchange, session = self._app, self._exchange, self._session
        if not isinstance(file, Stored):
            if isinstance(session, Progress):
                app.engine.unrecord(session)
            exchange.respond_soon(failure(exchange, file))
        elif isinstance(session, Progress):
            exchange.respond_soon(_begun(exchange, session, with_offset=True))
        elif session is not None:
            app.submit(functools.partial(_unstore, app, exchange, self._plan, file, session))


def _unstore(app: "Application", exchange: Exchange, plan: Plan, kept: Stored, reason: Failure) -> None:
    """Take a file back whose upload could not be recorded: its client sends it again. On a worker."""
    try:
        if kept.created:
            app.store.delete(plan.path, "its upload could not be recorded")
            if plan.ticket is not None:
                app.store.give_back_ticket(plan.ticket[0])
    except StorageError as error:
        exchange.respond_soon(failure(exchange, error))
    else:
        exchange.respond_soon(failure(exchange, reason))


# ---- uploads made of others


def _parts_length(app: "Application", parts: tuple[str, ...]) -> int | UploadRefused | StoreError | None:
    """Bytes of all parts together; None while one of them is not known."""
    lengths: list[int | None] = []
    try:
        for part in parts:
            progress = app.engine.progress(part)
            if progress.state is not State.OPEN or not progress.details.partial:
                return _no_part()
            lengths.append(progress.length)
    except UploadRefused:
        return _no_part()
    except StoreError as error:
        return error
    return None if None in lengths else sum(length or 0 for length in lengths)


def _no_part() -> UploadRefused:
    return UploadRefused("part_missing", "A part of this upload is not there, or is none.")


def _assemble(
    app: "Application", exchange: Exchange, progress: Progress, done: Callable[[Progress | Failure], None]
) -> None:
    """Make an upload of its parts, if all of them are whole; `done` gets its progress, on the event loop."""
    extra = extra_of(app, progress)
    refusal: UploadRefused | StoreError | None = _outlived(app, extra)
    # Once it has its bytes, its parts may go.
    if refusal is None and progress.length is None:
        length = _parts_length(app, progress.details.parts)
        if length is None:
            done(progress)
            return
        refusal = _refused_length(extra, length) if isinstance(length, int) else length
    if refusal is not None:
        done(refusal)
        return

    def opened(found: Upload | Progress | Failure) -> None:
        if isinstance(found, Upload):
            app.engine.assemble(found, app.on_loop(exchange, done))
        else:
            done(found)

    app.engine.open(progress.id, app.on_loop(exchange, opened))


def _made(app: "Application", exchange: Exchange, upload_id: str, result: Progress | Failure) -> None:
    """An upload was to be made of its parts when it was begun."""
    if isinstance(result, Progress):
        if result.state in _ENDED:
            exchange.respond(ended_badly(exchange, result))
        else:
            exchange.respond(_begun(exchange, result, with_offset=result.complete))
        return
    answer = failure(exchange, result)
    if isinstance(result, UploadRefused) and result.code == "upload_taken_over":
        # By a repeat of this request, which goes on with it.
        exchange.respond(answer)
        return
    # Its client does not know of it, and begins anew.
    app.engine.cancel(upload_id, lambda _: exchange.respond_soon(answer))


def _refused_length(extra: Extra, length: int) -> UploadRefused | None:
    """Why an upload may not have a length that was left open; None when it may."""
    if extra.exact is not None and length != extra.exact:
        return UploadRefused("size_mismatch", "The file has another size than the permission says.")
    if length > extra.limit:
        return UploadRefused("too_large", f"The file may have at most {extra.limit} bytes.")
    return None


# ---- how far it is


def _head(app: "Application", exchange: Exchange, upload_id: str) -> None:
    if not _permitted(app, exchange) or not at_home(app, exchange, upload_id):
        return

    def settled() -> None:
        progress = _progress(app, exchange, upload_id)
        if progress is None:
            return
        if progress.details.parts and progress.state is State.OPEN:
            _assemble(app, exchange, progress, functools.partial(_tell_made, app, exchange, progress))
        elif _is_whole(progress):
            _publish(app, exchange, progress, functools.partial(_tell_made, app, exchange, progress))
        else:
            _tell(app, exchange, progress)

    settle(app, exchange, upload_id, settled)


def _is_whole(progress: Progress) -> bool:
    """Whether every byte of an upload is there, and that is enough, but it is not published yet."""
    if progress.state is State.PUBLISHING:
        return True
    open_ended = progress.details.explicit or progress.details.partial
    return progress.state is State.OPEN and not open_ended and progress.offset == progress.length


def _publish(
    app: "Application", exchange: Exchange, progress: Progress, done: Callable[[Progress | Failure], None]
) -> None:
    """See an upload published whose bytes are all there: to its client that offset means that it is."""

    def opened(found: Upload | Progress | Failure) -> None:
        if isinstance(found, Upload):
            app.engine.complete(found, app.on_loop(exchange, done))
        else:
            done(found)

    app.engine.open(progress.id, app.on_loop(exchange, opened))


def _tell_made(app: "Application", exchange: Exchange, before: Progress, result: Progress | Failure) -> None:
    if isinstance(result, Progress):
        _tell(app, exchange, result)
    elif not isinstance(result, UploadRefused) or result.code != "upload_taken_over":
        exchange.respond(failure(exchange, result))
    elif before.details.parts:
        # Somebody else is making it.
        _tell(app, exchange, before)
    else:
        # Another server is publishing it. No 4xx: that would be the end of it to its client.
        exchange.respond(failure(exchange, DraftHeld()))


def _tell(app: "Application", exchange: Exchange, progress: Progress) -> None:
    if progress.state in _ENDED:
        # What it says is that no byte more is of use; the reason is told to whoever sends one.
        exchange.respond(Response(410, _NO_STORE))
        return
    extra = extra_of(app, progress)
    head = _NO_STORE
    length = progress.length
    if progress.details.parts and not progress.complete:
        parts = _parts_length(app, progress.details.parts)
        length = parts if isinstance(parts, int) else None
    else:
        head += _offset(progress)
        if length is None:
            head += b"Upload-Defer-Length: 1\r\n"
    if length is not None:
        head += b"Upload-Length: %d\r\n" % length
    if extra.metadata:
        head += b"Upload-Metadata: " + extra.metadata.encode("ascii") + b"\r\n"
    if extra.concat:
        head += b"Upload-Concat: " + extra.concat.encode("ascii") + b"\r\n"
    exchange.respond(Response(200, head + _expiry(progress)))


def _offset(progress: Progress) -> bytes:
    return b"Upload-Offset: %d\r\n" % progress.offset


def _expiry(progress: Progress) -> bytes:
    if progress.complete:
        return b""
    return b"Upload-Expires: " + formatdate(progress.expires, usegmt=True).encode("ascii") + b"\r\n"


def _get(app: "Application", exchange: Exchange, upload_id: str) -> None:
    """The file of an upload, or how far it is."""
    if not _permitted(app, exchange) or not at_home(app, exchange, upload_id):
        return

    def settled() -> None:
        progress = _progress(app, exchange, upload_id)
        if progress is None:
            return
        if progress.complete:
            download.get_stored(app, exchange, app.stored_path(progress.path))
        else:
            exchange.respond(describe(app, exchange, progress))

    settle(app, exchange, upload_id, settled)


# ---- appending


def _patch(app: "Application", exchange: Exchange, upload_id: str) -> None:
    request = exchange.request
    if not _is_stream(exchange):
        refuse(exchange, "content_type_refused", f"Content-Type must be {_STREAM.decode()}.")
        return
    offset = _number(request.header(b"upload-offset"), "Upload-Offset")
    if offset is None:
        refuse(exchange, "bad_field", "Upload-Offset is missing.")
        return
    length = _number(request.header(b"upload-length"), "Upload-Length")
    check = body_checksum(request, lambda: exchange.trailers)
    if not _permitted(app, exchange) or not at_home(app, exchange, upload_id):
        return
    progress = _progress(app, exchange, upload_id)
    if progress is None:
        return
    if progress.details.parts:
        refuse(exchange, "made_of_parts", "This upload is made of others, it takes no bytes of its own.")
        return
    extra = extra_of(app, progress)
    refusal = _outlived(app, extra) if progress.state is State.OPEN else None
    if refusal is not None:
        answer = failure(exchange, refusal)
        app.engine.reject(upload_id, refusal, lambda _: exchange.respond_soon(answer))
        return
    refusal = None if length is None or progress.length is not None else _refused_length(extra, length)
    if refusal is not None:
        exchange.respond(failure(exchange, refusal))
        return
    append = Append(
        offset=offset,
        length=length,
        limit=extra.limit,
        # Bytes that reach the end are all that this protocol needs, whichever began the upload; but not where
        # another is to hold the whole against its digest.
        last=(length is not None or progress.length is not None) and transfer.extra_of(app, progress).digest is None,
        check=check,
    )

    def done(outcome: Outcome) -> None:
        answer = _answer(exchange, append, outcome)
        if answer is not None:
            exchange.respond(answer)

    Appending(app, exchange, append, done).begin(upload_id)


def _answer(exchange: Exchange, append: Append, outcome: Outcome) -> Response | None:
    """The answer to bytes that were sent; None when it comes later."""
    if isinstance(outcome, Appended):
        return _appended(exchange, outcome.progress)
    if isinstance(outcome, Mismatch):
        return _mismatch(exchange, outcome.progress)
    if isinstance(outcome, Cut):
        return body_failure(exchange, outcome.end)
    if isinstance(outcome, Ended):
        return _ended(exchange, append, outcome.progress)
    if isinstance(outcome, UploadRefused) and outcome.code == "digest_mismatch":
        return _checksum_failed(exchange, append.check)
    return failure(exchange, outcome)


def _appended(exchange: Exchange, progress: Progress) -> Response:
    if progress.state in _ENDED:
        return ended_badly(exchange, progress)
    return Response(204, _offset(progress) + _expiry(progress))


def _mismatch(exchange: Exchange, progress: Progress) -> Response:
    detail = f"The upload goes on at {progress.offset}."
    return problem(exchange, "offset_mismatch", detail, _offset(progress), offset=progress.offset)


def _checksum_failed(exchange: Exchange, check: object) -> Response:
    fault = check.fault if isinstance(check, TrailingChecksum) else None
    if fault is not None:
        return problem(exchange, fault.code, fault.detail)
    return problem(exchange, "checksum_mismatch", "The bytes that came are not those of the checksum; none were kept.")


def _ended(exchange: Exchange, append: Append, progress: Progress) -> Response | None:
    """Bytes for an upload that has ended. None at all, at its end, is what a client sends whose answer was lost."""
    if progress.state is not State.COMPLETE:
        return ended_badly(exchange, progress)
    if append.offset != progress.offset:
        return _mismatch(exchange, progress)
    request = exchange.request
    if request.content_length:
        return problem(exchange, "too_large", "The upload is complete.")

    def received(end: BodyEnd) -> None:
        if end.cut is not None:
            exchange.respond(body_failure(exchange, end))
        elif append.check is not None and not append.check.matches():
            exchange.respond(_checksum_failed(exchange, append.check))
        else:
            exchange.respond(_appended(exchange, progress))

    exchange.receive(_Nothing(), received, limit=0)
    return None


class _Nothing:
    """The sink of a body that must be empty."""

    def write(self, view: memoryview) -> None:
        """Refuse any byte."""
        if view:
            raise UploadRefused("too_large", "The upload is complete.")


# ---- the end on request


def _delete(app: "Application", exchange: Exchange, upload_id: str) -> None:
    if not _permitted(app, exchange) or not at_home(app, exchange, upload_id):
        return
    progress = _progress(app, exchange, upload_id)
    if progress is not None and progress.complete:
        _remove(app, exchange, progress)
    elif progress is not None:
        app.engine.cancel(upload_id, app.on_loop(exchange, functools.partial(_cancelled, app, exchange)))


def _cancelled(app: "Application", exchange: Exchange, result: Progress | Failure) -> None:
    if not isinstance(result, Progress):
        exchange.respond(failure(exchange, result))
    elif result.complete:
        # It was published meanwhile.
        _remove(app, exchange, result)
    else:
        exchange.respond(Response(204))


def _remove(app: "Application", exchange: Exchange, progress: Progress) -> None:
    """Remove a finished upload and the file that it made; a file that was there before stays."""
    path = app.stored_path(progress.path)
    begun = int(progress.id.partition("_")[0])
    made = None if progress.receipt is None else progress.receipt.etag

    def forgotten(result: Progress | Failure) -> None:
        if isinstance(result, Progress) or (isinstance(result, UploadRefused) and result.code == "upload_not_found"):
            exchange.respond_soon(Response(204))
        else:
            exchange.respond_soon(failure(exchange, result))

    def remove() -> None:
        try:
            entry = app.store.head(path)
            # Another may have put a file there since this one's was deleted.
            if entry is not None and entry.etag == made and entry.created >= begun:
                app.store.delete(path, "termination")
        except StorageError as error:
            exchange.respond_soon(failure(exchange, error))
        except Exception:
            exchange.respond_soon(failure(exchange, StorageError()))
            raise
        else:
            app.engine.cancel(progress.id, forgotten)

    app.submit(remove)


_METHODS: Final = {"HEAD": _head, "GET": _get, "PATCH": _patch, "DELETE": _delete}
