"""The claims of the two kinds of token. Both are strict: a claim of another type is a malformed token."""

import math
from typing import Annotated, Final

import msgspec

from hmac_file_server.auth.operation import Operation

PROSODY_KIND: Final = "JWT"
TICKET_KIND: Final = "ticket+jwt"
"""Our `typ`. RFC 8725 section 3.11: explicit typing keeps one kind of token from being used as another."""
TICKET_AUDIENCE: Final = "hmac-file-server"

_LARGEST: Final = 2**63 - 1

Count = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
Identity = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9._~:-]+\Z")]
# Bare JIDs have up to 2,047 bytes (RFC 7622); no control characters, because owners reach logs and headers.
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=2047, pattern=r"\A[^\x00-\x1f\x7f-\x9f]+\Z")]
Path = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=4096, pattern=r"\A[^/\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*\Z"),
]
Prefix = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"\A([^/\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*)?\Z")]
MediaType = Annotated[str, msgspec.Meta(min_length=3, max_length=255, pattern=r"\A[\x20-\x7e]+\Z")]


class ProsodyClaims(msgspec.Struct, frozen=True):
    """Prosody mod_http_file_share. Numbers are whole, though Lua may write them as `5.0`."""

    slot: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    filename: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    filesize: int | float
    exp: int | float
    filetype: str | None = None
    expires: int | float | None = None
    sub: Subject | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that are no count of bytes or seconds."""
        for number in (self.filesize, self.exp, self.expires):
            if number is not None and not (_whole(number) and 0 <= number <= _LARGEST):
                raise ValueError("a number is negative, fractional or too large")


class TicketClaims(msgspec.Struct, frozen=True, omit_defaults=True):
    """Our own ticket; exactly one of `path` and `prefix` says where, `ops` says what."""

    exp: Count
    aud: str = ""
    path: Path | None = None
    prefix: Prefix | None = None
    max_size: Count | None = None
    type: MediaType | None = None
    files: Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)] | None = None
    ops: Annotated[list[str], msgspec.Meta(min_length=1, max_length=16)] | None = None
    sub: Subject | None = None
    jti: Identity | None = None
    nbf: Count | None = None
    iat: Count | None = None
    file_expires: Count | None = None

    def __post_init__(self) -> None:
        """Refuse tickets that leave open where they count, or whose uses cannot be counted."""
        if self.aud != TICKET_AUDIENCE:
            raise ValueError(f"aud must be {TICKET_AUDIENCE!r}")
        if (self.path is None) == (self.prefix is None):
            raise ValueError("exactly one of path and prefix is needed")
        if self.files is not None and self.jti is None:
            raise ValueError("files needs jti")
        for name in self.ops or ():
            Operation(name)


def _whole(number: float) -> bool:
    return isinstance(number, int) or (math.isfinite(number) and number.is_integer())
