"""The gate's two answers: a permission with its bounds, or a refusal."""

from typing import Final, Literal

import msgspec

Form = Literal["relative", "whole"]

PROSODY: Final = "prosody-jwt"
TICKET: Final = "ticket"
SIGNATURE: Final = "signature"
SCHEMES: Final = ("v1", "v2", "token", "v3", SIGNATURE, PROSODY, TICKET)
"""The names of all schemes, as `security.schemes` spells them."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A permission, and the bounds within which the upload flow must keep.

    scheme       one of `SCHEMES`
    key_id       which key verified (8 hex digits)
    form         "relative": the path below its base path was signed; "whole": the whole path was
    owner        who was given the permission (a bare JID, say); None when the scheme does not tell
    exact_size   bytes the file must have; None when the scheme does not bind the size
    max_size     bytes the file may have at most; None when only the server's own limit counts
    media_type   the type that the permission names, safe as a header value; None when it names none
    filename     the file name that the permission names; None when it names none
    path         storage path that the file must be published at; None when not restricted
    prefix       storage path prefix ("" or ending in "/") that it must be below; None when not restricted
    file_expires epoch seconds after which the stored file may go
    ticket_id    identity of a ticket whose uses are counted
    max_files    how many files the ticket may publish in all; None when not limited
    until        epoch seconds when the permission ends; None when the scheme does not say
    """

    scheme: str
    key_id: str
    form: Form = "relative"
    owner: str | None = None
    exact_size: int | None = None
    max_size: int | None = None
    media_type: str | None = None
    filename: str | None = None
    path: str | None = None
    prefix: str | None = None
    file_expires: float | None = None
    ticket_id: str | None = None
    max_files: int | None = None
    until: float | None = None

    def covers(self, path: str) -> bool:
        """True when a file may be published at this storage path (relative, no leading slash).

        PUT, DELETE and DOWNLOAD were checked by the gate; where the server or a header chooses the
        path (UPLOAD, CREATE) the upload flow asks here.
        """
        if self.path is not None:
            return path == self.path
        return self.prefix is None or path.startswith(self.prefix)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal: `status`, `code` and `challenge` are for the client, the rest is for the log only.

    status      403; 401 for tokens; 410 for an expired Prosody token; 411 when the size must be known
    code        a stable word, listed in docs/authentication.md
    reason      what differed: missing, malformed, multiple, scheme_disabled, operation, method, strict, path,
                size, type, filename, expired, not_yet, unknown_key, layout, length
    detail_log  a sentence for the log; holds no secret and no signature, neither given nor expected
    challenge   value for WWW-Authenticate, or None
    """

    status: int
    code: str
    reason: str
    detail_log: str
    challenge: str | None = None
