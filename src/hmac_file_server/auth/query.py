"""Credentials in the query. `urllib.parse` is too forgiving here: it takes duplicates, and skips what it dislikes."""

from typing import Final
from urllib.parse import unquote_to_bytes

from hmac_file_server.auth.refusals import Malformed

SLOTS: Final = ((b"v2", "v2"), (b"token", "token"), (b"v", "v1"), (b"v3", "v3"))
"""Parameter and scheme, in order of precedence."""
TICKET: Final = b"ticket"
EXPIRES: Final = b"expires"

_KNOWN: Final = frozenset({TICKET, EXPIRES, *(name for name, _ in SLOTS)})
_MOST: Final = 32


def parse(query: bytes) -> dict[bytes, bytes]:
    """The parameters that this room knows; others mean nothing to it and are passed over.

    Raises Malformed for ";", for an empty parameter, for too many, and where one of ours is repeated,
    empty, escaped, or spelled in another case.
    """
    found: dict[bytes, bytes] = {}
    if not query:
        return found
    if b";" in query:
        raise Malformed("the query has a semicolon")
    pairs = query.split(b"&")
    if len(pairs) > _MOST:
        raise Malformed("the query has too many parameters")
    for pair in pairs:
        if not pair:
            raise Malformed("the query has an empty parameter")
        name, _, value = pair.partition(b"=")
        if name not in _KNOWN:
            meant = unquote_to_bytes(name).lower().partition(b"=")[0]
            if meant in _KNOWN:
                raise Malformed(f"the parameter {meant.decode()} is escaped or in another case")
            continue
        if name in found:
            raise Malformed(f"the parameter {name.decode()} is repeated")
        if not value:
            raise Malformed(f"the parameter {name.decode()} is empty")
        found[name] = value
    return found
