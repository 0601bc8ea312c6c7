"""Every refusal that a client can see: a stable code and its status. The reasons stay in the log."""

from types import MappingProxyType
from typing import Final

from hmac_file_server.auth.grant import Refusal

STATUS: Final = MappingProxyType(
    {
        "missing_credentials": 403,
        "malformed_credentials": 403,
        "multiple_credentials": 403,
        "scheme_disabled": 403,
        "operation_not_allowed": 403,
        "signature_too_weak": 403,
        "bad_signature": 403,
        "signature_expired": 403,
        "not_covered": 403,
        "bad_token": 401,
        "token_expired": 401,
        "slot_expired": 410,
        "length_required": 411,
    }
)
"""Code to status. docs/authentication.md explains each."""

CHALLENGE: Final = 'Bearer realm="hmac-file-server"'
"""WWW-Authenticate of every 401. RFC 6750 would let it say why; ours does not."""


class Malformed(Exception):  # noqa: N818 - never leaves this room
    """Credentials that do not parse; the gate turns it into `malformed_credentials`. The text is for the log."""


def refuse(code: str, reason: str, detail: str) -> Refusal:
    """A refusal with the status that belongs to the code."""
    status = STATUS[code]
    challenge = CHALLENGE if status == 401 else None
    return Refusal(status=status, code=code, reason=reason, detail_log=detail, challenge=challenge)


def length_required(scheme: str) -> Refusal:
    """A scheme that binds the size was given a body whose size nobody announced."""
    return refuse("length_required", "length", f"{scheme} binds the size, and the request announces none")


def expired(code: str, scheme: str, expires: int, now: float) -> Refusal:
    """The permission was right once."""
    return refuse(code, "expired", f"{scheme} expired {now - expires:.0f} s ago")
