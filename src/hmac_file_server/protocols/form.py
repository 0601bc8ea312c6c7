"""POST /upload: a multipart form with one file, streamed (RFC 7578; the guide's traditional upload)."""

import re
from typing import TYPE_CHECKING, Final

import multipart

from hmac_file_server.auth import Grant, Operation, Refusal
from hmac_file_server.files.contract import PathRefused, StorageError
from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Response
from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols.answers import (
    body_failure,
    deny,
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
# Part heads and boundaries around the file.
_FRAMING_MAX: Final = 64 * 1024


class FormRefused(Exception):  # noqa: N818 - a refusal, not a fault
    """A form that cannot be taken: the code of its problem and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def post_form(app: "Application", exchange: Exchange) -> None:
    """Store the file of the form under a path of the server's choosing."""
    request = exchange.request
    grant = app.gate.authorise(request, Operation.UPLOAD)
    if isinstance(grant, Refusal):
        app.log_refusal(exchange, grant)
        deny(exchange, grant)
        return
    boundary = _boundary(request.header(b"content-type") or b"")
    if boundary is None:
        refuse(exchange, "not_multipart", "The body must be multipart/form-data with a boundary.")
        return
    length = request.content_length
    limit = app.file_limit(grant)
    if length is not None and length > limit + _FRAMING_MAX:
        refuse(exchange, "too_large", f"The file may have at most {limit} bytes.")
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

    exchange.receive(form, ended, limit=limit + _FRAMING_MAX)


def _boundary(content_type: bytes) -> bytes | None:
    kind, options = multipart.parse_options_header(content_type.decode("latin-1"))
    boundary = str(options.get("boundary", "")).encode("latin-1")
    if kind.lower() != "multipart/form-data" or _BOUNDARY.fullmatch(boundary) is None:
        return None
    return boundary


class _Form:
    """The sink of a form's body: finds the file's part and hands its bytes to an upload."""

    def __init__(
        self, app: "Application", exchange: Exchange, grant: Grant, boundary: bytes, length: int | None
    ) -> None:
        self._app = app
        self._exchange = exchange
        self._grant = grant
        self._parser = multipart.PushMultipartParser(
            boundary,
            content_length=-1 if length is None else length,
            max_segment_count=_SEGMENTS_MAX,
            strict=True,
        )
        self._upload: SingleUpload | None = None
        self._in_file = False
        self._field_bytes = 0

    def write(self, view: memoryview) -> None:
        """See `BodySink`. Raises FormRefused, multipart.MultipartError, UploadRefused, StorageError."""
        for event in self._parser.parse(bytes(view)):
            if event is None:
                self._in_file = False
            elif isinstance(event, multipart.MultipartSegment):
                self._segment(event)
            elif self._in_file and self._upload is not None:
                self._upload.write(memoryview(event))
            else:
                self._field_bytes += len(event)
                if self._field_bytes > _FIELD_BYTES_MAX:
                    raise FormRefused("bad_multipart", "The form's other fields are too long.")

    def _segment(self, segment: multipart.MultipartSegment) -> None:
        if segment.filename is None and segment.name != _FIELD:
            return
        if segment.name != _FIELD:
            raise FormRefused("bad_multipart", "The file's field must be called file.")
        if self._upload is not None:
            raise FormRefused("bad_multipart", "The form may have one file.")
        filename = segment.filename or "file"
        declared = media_type(segment.content_type.encode("utf-8") if segment.content_type else None)
        path = self._app.new_path(filename)
        plan = self._app.plan_for(self._grant, path, None, declared, self._app.clean_name(filename))
        self._upload = SingleUpload(self._app.store, plan, look_first=False)
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


__all__ = ["BodyCut", "HttpError", "post_form"]
