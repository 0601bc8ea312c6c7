"""POST /upload: a multipart form with one file, streamed (RFC 7578; the guide's traditional upload)."""

import re
from typing import TYPE_CHECKING, Final

import multipart
from msgspec.structs import replace

from hmac_file_server.auth import Grant, Operation
from hmac_file_server.files.contract import PathRefused, StorageError
from hmac_file_server.http import BodyEnd, Exchange, Response
from hmac_file_server.protocols import page_form, resumable
from hmac_file_server.protocols.answers import (
    body_failure,
    failure,
    problem,
    receipt,
    refuse,
)
from hmac_file_server.protocols.media import media_type
from hmac_file_server.uploads import SingleUpload, Stored, UploadRefused

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

_BOUNDARY: Final = re.compile(rb"""[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]""")
_FIELD: Final = "file"
_SEGMENTS_MAX: Final = 8
_FIELD_BYTES_MAX: Final = 64 * 1024
# Boundaries, heads of parts, and what may follow the last boundary.
_FRAMING_MAX: Final = 64 * 1024
_AROUND_FILE_MAX: Final = _FIELD_BYTES_MAX + _FRAMING_MAX


class FormRefused(Exception):  # noqa: N818 - a refusal, not a fault
    """A form that cannot be taken: the code of its problem and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def post_form(app: "Application", exchange: Exchange) -> None:
    """Store the file of the form under a path of the server's choosing."""
    request = exchange.request
    if _boundary(request.header(b"content-type") or b"") is None and resumable.creation_of(app, request) is not None:
        resumable.create(app, exchange)
        return
    if page_form.wants_page(request):
        exchange.render = page_form.presentation(app, exchange)
    grant = app.permit(exchange, Operation.UPLOAD)
    if grant is None or not app.admits(exchange):
        return
    boundary = _boundary(request.header(b"content-type") or b"")
    if boundary is None:
        refuse(exchange, "not_multipart", "The body must be multipart/form-data with a boundary.")
        return
    length = request.content_length
    limit = app.file_limit(grant)
    if length is not None and length > limit + _AROUND_FILE_MAX:
        refuse(exchange, "too_large", f"The file may have at most {limit} bytes.")
        return
    try:
        # Before the body, and before 100-continue: the file will hardly be shorter than the form.
        app.store.admit(max(0, (length or 0) - _AROUND_FILE_MAX)).release()
    except StorageError as error:
        exchange.respond(failure(exchange, error))
        return
    form = _Form(app, exchange, grant, boundary, length)

    def ended(end: BodyEnd) -> None:
        if isinstance(end.error, FormRefused | multipart.MultipartError):
            form.abandon()
            exchange.respond(form.refusal(end.error))
        elif end.cut is not None:
            form.abandon()
            exchange.respond(body_failure(exchange, end))
        else:
            form.finish()

    exchange.receive(form, ended, limit=limit + _AROUND_FILE_MAX)


def _boundary(content_type: bytes) -> bytes | None:
    kind, options = multipart.parse_options_header(content_type.decode("latin-1"))
    boundary = str(options.get("boundary", "")).encode("latin-1")
    if kind.lower() != "multipart/form-data" or _BOUNDARY.fullmatch(boundary) is None:
        return None
    return boundary


class _Parser(multipart.PushMultipartParser):  # type: ignore[misc]
    """The parser, as strict with a header line that came at once as with one that came in pieces.

    Its own search for line ends takes a bare LF for a part of the line when the CRLF behind it is there already.
    """

    def _on_segment_headerline(self, line: bytes) -> None:
        if b"\n" in line:
            raise multipart.ParserError("Invalid line break in segment header")
        super()._on_segment_headerline(line)


class _Form:
    """The sink of a form's body: finds the file's part and hands its bytes to an upload."""

    def __init__(
        self, app: "Application", exchange: Exchange, grant: Grant, boundary: bytes, length: int | None
    ) -> None:
        self._app = app
        self._exchange = exchange
        self._grant = grant
        # Not in its strict mode, which refuses the line end after the last boundary when that comes in a
        # read of its own. What strict mode would refuse besides is refused here.
        self._parser = _Parser(
            boundary,
            content_length=-1 if length is None else length,
            max_segment_count=_SEGMENTS_MAX,
        )
        self._opening = b"--" + boundary
        self._head: bytes | None = b""
        self._length = length
        self._upload: SingleUpload | None = None
        self._in_file = False
        self._unnamed = False
        self._received = 0
        self._field_bytes = 0
        self._file_bytes = 0

    def write(self, view: memoryview) -> None:
        """See `BodySink`. Raises FormRefused, multipart.MultipartError, UploadRefused, StorageError."""
        self._received += len(view)
        data = bytes(view)
        if self._head is not None:
            data = self._head = self._head + data
            if len(data) < len(self._opening) + 2:
                return
            self._head = None
            if not data.startswith((self._opening, b"\r\n" + self._opening)):
                raise FormRefused("bad_multipart", "The form does not begin with its boundary.")
        for event in self._parser.parse(data):
            if event is None:
                self._in_file = False
            elif isinstance(event, multipart.MultipartSegment):
                self._segment(event)
            elif self._in_file and self._upload is not None:
                self._file_bytes += len(event)
                self._upload.write(memoryview(event))
            else:
                self._field_bytes += len(event)
                if self._field_bytes > _FIELD_BYTES_MAX:
                    raise FormRefused("bad_multipart", "The form's other fields are too long.")
        if self._received - self._file_bytes > _AROUND_FILE_MAX:
            raise FormRefused("bad_multipart", "There is too much around the form's file.")

    def _segment(self, segment: multipart.MultipartSegment) -> None:
        if segment.filename is None and segment.name != _FIELD:
            return
        if segment.name != _FIELD:
            raise FormRefused("bad_multipart", "The file's field must be called file.")
        if self._upload is not None:
            raise FormRefused("bad_multipart", "The form may have one file.")
        app, grant = self._app, self._grant
        # A name that the permission binds counts, whatever the form says.
        filename = grant.filename or segment.filename or "file"
        self._unnamed = segment.filename == ""
        # As sent, with its parameters; what the parser offers has lost them.
        sent = segment.header("Content-Type")
        declared = media_type(sent.strip(" \t").encode("utf-8") if sent else None)
        if grant.media_type is not None and declared is not None and declared != grant.media_type:
            raise FormRefused("type_mismatch", "The file has another type than the permission says.")
        path = app.new_path(filename, grant)
        if not app.extension_allowed(path):
            raise FormRefused("extension_refused", "Files with this extension are not taken.")
        plan = app.plan_for(grant, path, None, declared, app.clean_name(filename))
        if self._length is not None:
            plan = replace(plan, expected=min(plan.limit, self._length))
        self._upload = SingleUpload(app.store, plan, look_first=False)
        self._in_file = True

    def finish(self) -> None:
        """The body is whole."""
        exchange = self._exchange
        upload = self._upload
        try:
            self._parser.close()
        except multipart.MultipartError as error:
            self.abandon()
            exchange.respond(self.refusal(error))
            return
        if upload is None:
            refuse(exchange, "bad_multipart", "The form has no field called file.")
            return
        if exchange.render is not None and self._unnamed and not upload.received:
            # So browsers send a field in which nothing was chosen (HTML, "constructing the entry list").
            upload.abandon()
            refuse(exchange, "bad_multipart", "No file was chosen.")
            return
        if self._grant.exact_size is not None and upload.received != self._grant.exact_size:
            upload.abandon()
            refuse(exchange, "size_mismatch", "The file has another size than the permission says.")
            return
        exchange.owner = self._grant.owner
        upload.finish(lambda result: exchange.respond_soon(self._answer(result)))

    def abandon(self) -> None:
        """Drop what was stored of it."""
        if self._upload is not None:
            self._upload.abandon()

    def refusal(self, error: Exception) -> Response:
        """The answer to a form that was refused."""
        if isinstance(error, FormRefused):
            return problem(self._exchange, error.code, error.detail)
        return problem(self._exchange, "bad_multipart", "The form is malformed.")

    def _answer(self, result: Stored | UploadRefused | StorageError | PathRefused) -> Response:
        if isinstance(result, Stored):
            return receipt(result.entry, self._app.url_of(result.entry.path), 200)
        return failure(self._exchange, result)
