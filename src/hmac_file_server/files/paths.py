"""Text of a user becomes a storage path, or is refused.

A storage path is relative, 1 to 1,024 bytes of UTF-8, with segments of 1 to 255 bytes, no "." or "..", no
control characters and no backslash, and never leads into the store's private folder, however that is
spelled. Everything else is kept as it is: NFC and NFD spellings are two files, and names keep their spaces,
"%", "+", "#" and emoji. The text is decoded already; nothing is decoded here.

Codes: path_empty, path_absolute, path_segment, path_control, path_backslash, path_encoding, path_too_long,
path_segment_too_long, path_private.
"""

import re
import unicodedata
from typing import Final

from hmac_file_server.files.contract import PathRefused, StoragePath

PRIVATE: Final = ".hmac-file-server"
"""Name of the folder in the root that holds what is never served."""

MAX_PATH: Final = 1024
MAX_SEGMENT: Final = 255

# One pass finds whatever is wrong at the level of characters; the reason is looked up only then.
_SUSPECT = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]|(?:\A|/)\.{0,2}(?:/|\Z)").search
# Code points that a case-folding directory of ext4 ignores when it compares names, beyond category Cf.
_IGNORED = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")


def parse(text: str) -> StoragePath:
    """Return `text` as a storage path. Raises PathRefused."""
    suspect = _SUSPECT(text)
    if suspect is not None:
        raise _refusal(text, suspect)
    length = len(text)
    ascii_only = text.isascii()
    if not ascii_only:
        length = len(text.encode())
    if length > MAX_PATH:
        raise PathRefused("path_too_long", f"the path has more than {MAX_PATH} bytes")
    if length > MAX_SEGMENT and any(len(segment.encode()) > MAX_SEGMENT for segment in text.split("/")):
        raise PathRefused("path_segment_too_long", f"a segment of the path has more than {MAX_SEGMENT} bytes")
    if (text[0] == "." or not ascii_only) and is_private(text.partition("/")[0]):
        raise PathRefused("path_private", "the path leads into the private folder of the store")
    return StoragePath(text)


def is_private(segment: str) -> bool:
    """Whether a file system, however it compares names, could take the segment for the private folder."""
    if segment.isascii():
        folded = segment.lower()
    else:
        shown = "".join(
            c
            for c in unicodedata.normalize("NFKC", segment)
            if unicodedata.category(c) != "Cf" and c not in _IGNORED and not "\ufe00" <= c <= "\ufe0f"
        )
        folded = unicodedata.normalize("NFKC", shown.casefold())
    return folded.strip().rstrip(". ") == PRIVATE


def _refusal(text: str, suspect: re.Match[str]) -> PathRefused:
    found = suspect.group()
    if not text:
        return PathRefused("path_empty", "the path is empty")
    if found == "\\":
        return PathRefused("path_backslash", "the path has a backslash")
    if found.startswith("/") and suspect.start() == 0 and text.startswith("/"):
        return PathRefused("path_absolute", "the path is absolute")
    if "/" in found or "." in found:
        return PathRefused("path_segment", 'a segment of the path is empty, "." or ".."')
    if "\ud800" <= found <= "\udfff":
        return PathRefused("path_encoding", "the path is not UTF-8")
    return PathRefused("path_control", "the path has a control character")
