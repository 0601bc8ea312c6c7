"""Structured fields (RFC 9651), as far as upload protocols use them.

A field that is malformed, or of another type than asked for, is as good as absent: None. That is what RFC 9651
section 4.2 and the drafts of resumable uploads want. Nearly all values that are ever sent are taken without
a parser; the parser is loaded for the first that is not.
"""

import re
from decimal import Decimal
from typing import Final, TypeAlias, cast

BareItem: TypeAlias = bool | int | str | bytes | Decimal | object
Parsed: TypeAlias = dict[str, tuple[BareItem, dict[str, BareItem]]]

_SHORT: Final = re.compile(rb"0|[1-9][0-9]{0,14}")
_LONGEST: Final = 4096


def boolean(value: bytes | None) -> bool | None:
    """An item that is a boolean; its parameters mean nothing."""
    if value is None:
        return None
    if value in (b"?1", b"?0"):
        return value == b"?1"
    item = _item(value)
    return item if isinstance(item, bool) else None


def natural(value: bytes | None) -> int | None:
    """An item that is an integer and not negative; its parameters mean nothing."""
    if value is None:
        return None
    if _SHORT.fullmatch(value) is not None:
        return int(value)
    item = _item(value)
    if isinstance(item, bool) or not isinstance(item, int) or item < 0:
        return None
    return item


def dictionary(value: bytes | None) -> Parsed | None:
    """A dictionary: key to (value, parameters). Members that are inner lists are left out."""
    if value is None or len(value) > _LONGEST:
        return None
    import http_sf

    try:
        parsed = http_sf.parse(value, tltype="dictionary")
    except ValueError:
        return None
    members = cast("dict[str, tuple[object, dict[str, BareItem]]]", parsed)
    return {key: (item, parameters) for key, (item, parameters) in members.items() if not isinstance(item, list)}


def _item(value: bytes) -> BareItem | None:
    if len(value) > _LONGEST:
        return None
    import http_sf

    try:
        item, _parameters = cast("tuple[BareItem, object]", http_sf.parse(value, tltype="item"))
    except ValueError:
        return None
    return item
