"""What can end or interrupt an upload: every error is an `UploadFailed`; programs decide by its class and `code`."""

import json
from typing import Any, Final

from hmac_file_server.client.protocol import Answer

_RETRIABLE_STATUSES: Final = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 507})
# Another request was faster; after a look at what is there this one can go on.
_RETRIABLE_CODES: Final = frozenset({"upload_taken_over", "offset_mismatch", "digest_mismatch", "checksum_mismatch"})
_GONE_CODES: Final = frozenset({"upload_not_found", "upload_expired", "upload_lost", "upload_overrun"})
_LONGEST_TEXT: Final = 500


class UploadFailed(Exception):  # noqa: N818 - the name of the interface
    """An upload, or one attempt of it, failed.

    code         the stable word of docs/errors.md, or one of this client's own: connection_lost, stalled, timed_out,
                 bad_answer, redirected, source_changed, source_unreadable, content_differs, gave_up, http_<status>
    status       of the HTTP answer; 0 when there was none
    detail       for people
    retriable    whether the same request may succeed later
    request_id   of the server's log; "" when it told none
    retry_after  the value of Retry-After as it came; None when there was none
    date         the value of Date of that answer, which is the clock a date in Retry-After is meant by
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int = 0,
        retriable: bool = False,
        request_id: str = "",
        retry_after: str | None = None,
        date: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.retriable = retriable
        self.request_id = request_id
        self.retry_after = retry_after
        self.date = date

    def __str__(self) -> str:
        where = f" ({self.code}" + (f", HTTP {self.status}" if self.status else "")
        return self.detail + where + (f", request {self.request_id})" if self.request_id else ")")


class Refused(UploadFailed):
    """The server answered with an error. `retriable` says whether it may answer otherwise later."""


class SessionGone(Refused):
    """The server does not know the session (any more): the upload can only be begun anew."""


class ConnectionLost(UploadFailed):
    """No answer: not connected, cut off (`connection_lost`), silent (`stalled`), or too slow (`timed_out`)."""

    def __init__(self, detail: str, *, code: str = "connection_lost") -> None:
        super().__init__(detail, code=code, retriable=True)


class BadAnswer(UploadFailed):
    """What answered is not HTTP/1.1, or not this interface."""

    def __init__(self, detail: str, *, status: int = 0, retriable: bool = True) -> None:
        super().__init__(detail, code="bad_answer", status=status, retriable=retriable)


class Redirected(UploadFailed):
    """The server sent us elsewhere. Uploads do not follow: a permission is for the server it was given for."""

    def __init__(self, status: int, location: str) -> None:
        where = f" to {_shown(location)}" if location else ""
        super().__init__(f"the server redirects{where}; use that address itself", code="redirected", status=status)
        self.location = location


class SourceChanged(UploadFailed):
    """The file was written to, cut or could not be read on while it was uploaded."""

    def __init__(self, detail: str, *, code: str = "source_changed") -> None:
        super().__init__(detail, code=code)


class ContentDiffers(UploadFailed):
    """The server stored other bytes than the file has; `url` is where."""

    def __init__(self, detail: str, *, url: str = "") -> None:
        super().__init__(detail, code="content_differs")
        self.url = url


class GaveUp(UploadFailed):
    """Nothing moved for `patience` seconds; `__cause__` is the last error. The session can still be continued."""

    def __init__(self, patience: float, last: UploadFailed | None) -> None:
        why = f": {last.detail}" if last is not None else ""
        super().__init__(
            f"no progress for {patience:g} s{why}",
            code="gave_up",
            status=last.status if last is not None else 0,
            request_id=last.request_id if last is not None else "",
        )


def refusal(answer: Answer) -> UploadFailed:
    """The error that an answer other than 2xx means (RFC 9457, docs/errors.md)."""
    status, headers = answer.status, answer.headers
    if 300 <= status < 400:
        return Redirected(status, headers.get("location", ""))
    problem = {name: value for name, value in json_of(answer).items() if isinstance(value, str)}
    code = problem.get("code") or f"http_{status}"
    detail = problem.get("detail") or problem.get("title") or f"the server answered {status}"
    gone = code in _GONE_CODES or (status in {404, 410} and "code" not in problem)
    kind = SessionGone if gone else Refused
    return kind(
        _shown(detail),
        code=_shown(code),
        status=status,
        retriable=status in _RETRIABLE_STATUSES or code in _RETRIABLE_CODES,
        request_id=_shown(problem.get("request_id", "")),
        retry_after=headers.get("retry-after"),
        date=headers.get("date"),
    )


def json_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; empty when it has none."""
    if not answer.headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json"):
        return {}
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _shown(text: str) -> str:
    """What came from outside, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST_TEXT])
