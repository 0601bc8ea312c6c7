"""What this server says of uploads in JSON: receipts, and the status that disturbs no transfer (docs/api.md).

Uploads that were begun by tus or by the IETF protocol have it as well, on this server; others do not know it.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from hmac_file_server.client.errors import BadAnswer, json_of, refusal
from hmac_file_server.client.protocol import Exchanges, Ranges, Received, Request, Result
from hmac_file_server.client.target import Target, TargetError

LONGEST_WAIT: Final = 60.0
"""Seconds that a status may be waited for."""

_SESSION: Final = re.compile("[0-9]{1,12}_[0-9a-z]{16,64}")
_DIGESTS: Final = ("blake3", "sha256")


def session_of(path: str) -> str | None:
    """The session's id when a path is one of this server's upload resources, `<prefix>/tus/<id>`; else None."""
    before, found, last = path.rpartition("/")
    return last if found and before.endswith("/tus") and _SESSION.fullmatch(last) else None


async def status(
    exchanges: Exchanges, target: Target, path: str, session: str, size: int, *, wait: float = 0.0
) -> Received | None:
    """How far the upload at `path` is; None when it is not known here by this session id.

    `wait`: seconds to wait for a change. Raises what `exchange` raises, and the refusal of an upload that has failed.
    """
    question = target.path(f"/upload/status?session_id={session}")
    wait = min(wait, LONGEST_WAIT)
    if wait > 0:
        question += f"&wait={wait:g}"
    permission = target.permission("GET", question)
    answer = await exchanges.exchange(Request("GET", question, permission, wait=wait))
    told = json_of(answer)
    if answer.status == 200 and "received" in told:
        if told.get("total_size") not in {size, None}:
            raise BadAnswer("the server has an upload of another size under this id")
        result = result_of(told, target, path, "", size) if told.get("completed") is True else None
        return Received(ranges_of(told["received"], size), result, expires=time_of(told.get("expires_at")))
    if answer.status in {404, 405} and "code" not in told:
        return None
    raise refusal(answer)


def result_of(told: Mapping[str, Any], target: Target, path: str, filename: str, size: int) -> Result:
    """What a receipt says; what it leaves out is as it was asked for, and the URL that of `path`."""
    url, name, digest = told.get("url"), told.get("filename"), None
    for algorithm in _DIGESTS:
        value = told.get(algorithm)
        if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
            digest = f"{algorithm}:{value}"
    if isinstance(url, str) and url.startswith("/") and not url.startswith((f"{target.prefix}/", "//")):
        # The server knows nothing of the path that a proxy takes off.
        url = target.prefix + url
    try:
        where = target.resolve(path, url) if isinstance(url, str) else ""
    except TargetError:
        where = ""
    return Result(
        url=where or target.origin + path.partition("?")[0],
        size=size,
        filename=name if isinstance(name, str) and name else filename or _last_segment(path),
        digest=digest,
        session_id=session_of(path) or "",
    )


def own_path(target: Target, base: str, location: str) -> str:
    """The request target of a Location at the target's own server. Raises BadAnswer when it leads elsewhere.

    A server behind a proxy often gives its Location the wrong scheme or port: only the host must be the right one, and
    the request goes where the others went.
    """
    try:
        parts = urlsplit(target.resolve(base, location))
    except TargetError as error:
        raise BadAnswer(str(error), retriable=False) from None
    if parts.hostname != target.host:
        raise BadAnswer("the server sends this upload to another host", retriable=False)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def time_of(text: object) -> float | None:
    """Epoch seconds of an RFC 3339 date; None when it is none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


def ranges_of(told: object, size: int) -> Ranges:
    """`received`: spans in order, apart from each other, within the size. Raises BadAnswer."""
    found: list[tuple[int, int]] = []
    at = 0
    for span in told if isinstance(told, list) else [None]:
        if not (isinstance(span, list) and len(span) == 2 and all(type(edge) is int for edge in span)):
            raise BadAnswer("the server's account of what it has cannot be read")
        start, stop = span
        if not at <= start < stop <= size:
            raise BadAnswer("the server's account of what it has cannot be right")
        found.append((start, stop))
        at = stop
    return tuple(found)


def _last_segment(path: str) -> str:
    return unquote(path.partition("?")[0].rpartition("/")[2])
