"""What may stand in a log line: user strings escaped and cut, times, and values in JSON."""

import json
import time
from typing import Any

LONGEST = 200
"""Characters of a user's string that are logged."""

HIDDEN = frozenset(
    {
        "authorization",
        "cookie",
        "headers",
        "jwt",
        "password",
        "query",
        "secret",
        "signature",
        "ticket",
        "token",
        "x_signature",
    }
)
"""Names of fields whose values are never logged, whoever passes them."""


def escaped(text: str, limit: int = LONGEST) -> str:
    r"""The text on one line, cut to `limit` characters, with everything unprintable as an escape.

    Control characters, line and paragraph separators, bidi marks, lone surrogates: all that
    `str.isprintable` refuses becomes \xNN, \uNNNN or \UNNNNNNNN, and a backslash is doubled, so that a line
    says what it says and never more than one thing.
    """
    cut = len(text) > limit
    if cut:
        text = text[:limit]
    if not text.isprintable() or "\\" in text:
        text = "".join(_escape(char) for char in text)
    return text + "…" if cut else text


def word(text: str) -> str:
    """The text escaped, and in double quotes when it is no plain word: one column of a line."""
    shown = escaped(text)
    if not shown or " " in shown or '"' in shown:
        return '"' + shown.replace('"', '\\"') + '"'
    return shown


def path_only(target: str | bytes) -> str:
    """A request target without its query, which may hold a signature."""
    text = target.decode("ascii", "backslashreplace") if isinstance(target, bytes) else target
    return text.partition("?")[0]


def shown(value: Any) -> str:
    """A field's value in a text line."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple | set | frozenset):
        return escaped(", ".join(str(item) for item in value))
    return escaped(str(value))


def plain(value: Any) -> Any:
    """A field's value for JSON; anything but numbers, truth values and null becomes cut text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - NaN
    if isinstance(value, list | tuple):
        return [plain(item) for item in value[:100]]
    text = str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def object_line(fields: dict[str, Any]) -> str:
    """One JSON object on one line, ASCII only."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True)


def local_time(epoch: float) -> str:
    """2025-07-17 12:34:56, in the machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))


def utc_time(epoch: float) -> str:
    """2025-07-17T10:34:56.123Z (RFC 3339)."""
    seconds, millis = divmod(int(epoch * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{millis:03d}Z"


def _escape(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
