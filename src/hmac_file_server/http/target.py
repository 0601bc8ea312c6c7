"""Request targets: one strict decode, before anybody looks at a path (RFC 9112 section 3.2, RFC 3986)."""

import re
from urllib.parse import unquote_to_bytes

from hmac_file_server.http.errors import HttpError

_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Encoded separators, NUL and backslash could mean another file to the next reader of the path.
_FORBIDDEN_ESCAPE = re.compile(rb"%(?:2[Ff]|5[Cc]|0[0-9A-Fa-f]|1[0-9A-Fa-f]|7[Ff])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
AUTHORITY = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?"
    rb"|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?",
)


def split_target(target: bytes, method: str) -> tuple[str, bytes]:
    """Split a request target into (decoded path, raw query).

    The path is percent-decoded exactly once, is UTF-8, absolute, and has no empty, "." or ".." segment
    (only its last segment may be empty). The query is returned as sent, without "?".
    Raises HttpError 400 `bad_target` for anything else.
    """
    if not target.startswith(b"/"):
        if target == b"*" and method == "OPTIONS":
            return "*", b""
        match = _ABSOLUTE.match(target)
        if match is None or AUTHORITY.fullmatch(match.group(1)) is None:
            raise HttpError(400, "bad_target", "The request target must be a path.")
        target = target[match.end() :] or b"/"
        if target.startswith(b"?"):
            target = b"/" + target
    if b"#" in target:
        raise HttpError(400, "bad_target", "A request target has no fragment.")
    raw, _, query = target.partition(b"?")
    if b"//" in raw or b"\\" in raw:
        raise HttpError(400, "bad_target", "The path has an empty segment or a backslash.")
    if b"%" not in raw:
        path = raw.decode("ascii")
        if "/." in path:
            _refuse_dots(path)
        return path, query
    if _ESCAPE.search(raw) is not None or _FORBIDDEN_ESCAPE.search(raw) is not None:
        raise HttpError(400, "bad_target", "The path has an escape that is malformed or not allowed.")
    try:
        path = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise HttpError(400, "bad_target", "The path is not UTF-8.") from None
    if _CONTROL.search(path) is not None:
        raise HttpError(400, "bad_target", "The path has a control character.")
    _refuse_dots(path)
    return path, query


def _refuse_dots(path: str) -> None:
    for segment in path.split("/"):
        if segment in {".", ".."}:
            raise HttpError(400, "bad_target", "The path has a dot segment.")
