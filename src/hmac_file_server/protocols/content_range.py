"""PUT with Content-Range to an upload resource: how Google Cloud Storage and YouTube go on with an upload.

    Content-Range: bytes 0-999/5000   these bytes of so many; `*` for a total that is not known yet
    Content-Range: bytes */5000       no body: how far is it?

308 tells what is there, `Range: bytes=0-999`, or nothing when it has no Range; the answer to the last bytes is
that of the upload's target. Whoever comes with the wrong bytes is told the right ones by another 308.
"""

import re
from typing import TYPE_CHECKING, Final

from hmac_file_server.files.contract import StorageError
from hmac_file_server.http import BodyEnd, Exchange, Response
from hmac_file_server.protocols.answers import body_failure, failure, refuse
from hmac_file_server.protocols.digests import body_digest
from hmac_file_server.protocols.interop import LATEST
from hmac_file_server.protocols.repeat import RepeatedBody
from hmac_file_server.protocols.resources import Append
from hmac_file_server.protocols.transfer import NO_STORE, Transfer, ended_badly, extra_of, offset_of
from hmac_file_server.uploads import Failure, Progress, State, StoreError, Upload, UploadRefused

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

_RANGE: Final = re.compile(rb"bytes[ \t]+(?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)", re.IGNORECASE)


class RangeTransfer(Transfer):
    """A body that says where it lies by Content-Range."""

    def _more(self, progress: Progress) -> Response:
        return told(progress)

    def _mismatch(self, progress: Progress) -> Response:
        return told(progress)

    def _ended(self, progress: Progress) -> None:
        """The last bytes once more get the last answer once more, if they are the same."""
        body = self._exchange.request.content_length
        offset = 0 if self._append is None else self._append.offset or 0
        if not progress.complete or not body or offset + body != progress.length:
            super()._ended(progress)
            return
        try:
            sink = RepeatedBody(self._app.store, self._app.stored_path(progress.path), offset, None)
        except StorageError as error:
            self._exchange.respond(failure(self._exchange, error))
            return

        def ended(end: BodyEnd) -> None:
            sink.close()
            if end.cut is None:
                self._final(progress)
            else:
                self._exchange.respond(body_failure(self._exchange, end))

        self._exchange.receive(sink, ended, limit=body)


def told(progress: Progress) -> Response:
    """How far an upload is, in the words of this dialect."""
    offset = offset_of(progress)
    return Response(308, NO_STORE + (b"Range: bytes=0-%d\r\n" % (offset - 1) if offset else b""))


def put(app: "Application", exchange: Exchange, upload_id: str) -> None:
    """PUT of a span, or the question how far the upload is; this process serves it."""
    request = exchange.request
    match = _RANGE.fullmatch(request.header(b"content-range") or b"")
    if match is None:
        refuse(exchange, "bad_field", "Content-Range must be bytes FIRST-LAST/TOTAL or bytes */TOTAL.")
        return
    first, final, total = match.groups()
    length = None if total == b"*" else int(total)
    body = request.content_length
    if body is None and not request.chunked:
        body = 0
    if first is None:
        if body != 0:
            refuse(exchange, "bad_field", "A question how far an upload is has no body.")
        else:
            _ask(app, exchange, upload_id, length)
        return
    start, stop = int(first), int(final) + 1
    if stop <= start or (length is not None and stop > length) or (body is not None and body != stop - start):
        refuse(exchange, "bad_field", "Content-Range and the length of the body do not fit each other.")
        return
    check = None if request.header(b"content-digest") is None else body_digest(request)
    try:
        progress = app.engine.progress(upload_id)
    except (UploadRefused, StoreError) as error:
        exchange.respond(failure(exchange, error))
        return
    exchange.owner = progress.details.owner
    append = Append(offset=start, length=length, limit=min(stop, extra_of(app, progress).limit), check=check)
    RangeTransfer(app, exchange, LATEST, upload_id, last=stop == length).begin(progress, append)


def _ask(app: "Application", exchange: Exchange, upload_id: str, length: int | None) -> None:
    """How far it is; an upload that has just been said to have no more bytes than are there is complete."""

    def answer(result: Progress | Failure) -> None:
        if not isinstance(result, Progress):
            exchange.respond(failure(exchange, result))
        elif result.state in {State.FAILED, State.EXPIRED}:
            exchange.respond(ended_badly(exchange, LATEST, result))
        elif result.complete or offset_of(result) == length:
            transfer = RangeTransfer(app, exchange, LATEST, upload_id, last=True)
            transfer.begin(result, Append(offset=offset_of(result), length=length))
        else:
            exchange.respond(told(result))

    later = app.on_loop(exchange, answer)

    def opened(found: Upload | Progress | Failure) -> None:
        if isinstance(found, Upload):
            app.engine.interrupt(found, later)
        else:
            later(found)

    app.engine.open(upload_id, opened)
