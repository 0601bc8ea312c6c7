"""Media types as clients send them: kept as sent when they are well-formed (RFC 9110 section 8.3.1)."""

import re
from typing import Final

from hmac_file_server.http.errors import HttpError

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Every space has one place in it, before a semicolon or before a parameter: were there two, a type made of
# both would be tried in all ways of sharing them out.
_MEDIA_TYPE: Final = re.compile(
    rf'{_WORD}/{_WORD}(?:[ \t]*;(?:[ \t]*{_WORD}=(?:{_WORD}|"(?:[\t !#-\[\]-~]|\\[\t -~])*"))?)*'
)
_LONGEST: Final = 255
OCTET_STREAM: Final = "application/octet-stream"

_known: dict[bytes, str] = {}
_KNOWN_MAX: Final = 512


def media_type(value: bytes | None) -> str | None:
    """The type a request declares, None when it declares none. Raises HttpError 400 `bad_media_type`."""
    if value is None:
        return None
    known = _known.get(value)
    if known is not None:
        return known
    if len(value) <= _LONGEST and value.isascii():
        text = value.decode("ascii")
        if _MEDIA_TYPE.fullmatch(text) is not None:
            if len(_known) < _KNOWN_MAX:
                _known[value] = text
            return text
    raise HttpError(400, "bad_media_type", "Content-Type is not a media type.")


def well_formed(bound: str) -> str:
    """A type that a permission binds, as it may be sent to readers: octet-stream when it is none."""
    try:
        return media_type(bound.encode("utf-8")) or OCTET_STREAM
    except HttpError:
        return OCTET_STREAM


INLINE: Final = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/bmp",
        "image/webp",
        "image/avif",
        "audio/aac",
        "audio/flac",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/opus",
        "audio/wav",
        "audio/webm",
        "video/mp4",
        "video/ogg",
        "video/quicktime",
        "video/webm",
        "text/plain",
    }
)
"""Types a browser may show in place. All others are attachments: scripts in them would run as this site."""


def is_inline(value: str) -> bool:
    """Whether a stored type is on the safe list; parameters do not matter."""
    return value.partition(";")[0].strip().lower() in INLINE
