"""Our own tickets: a JWT that says where (path or prefix), what (operations, size, type, number) and until when.

Sent as `Authorization: Bearer` or, where a person opens a link, as `?ticket=`.
"""

from typing import Final

from hmac_file_server.auth import fields
from hmac_file_server.auth.claims import TicketClaims
from hmac_file_server.auth.grant import TICKET, Grant, Refusal
from hmac_file_server.auth.jws import Verified
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.refusals import expired, refuse
from hmac_file_server.auth.schemes.scheme import permits
from hmac_file_server.auth.schemes.signature import DOWNLOADS
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.clock import Clock
from hmac_file_server.config.base_paths import BasePaths

DEFAULT_OPERATIONS: Final = ("put", "upload", "create", "chunk")
"""What a ticket without `ops` permits: to upload. Reading and deleting have to be named."""


class Ticket:
    """A verified token of type `ticket+jwt`."""

    name = TICKET
    permits = permits(tuple(Operation))

    def __init__(self, base_paths: BasePaths, clock: Clock) -> None:
        self._base_paths = base_paths
        self._clock = clock

    def authorise(
        self, request: SignedRequest, operation: Operation, claims: TicketClaims, token: Verified
    ) -> Grant | Refusal:
        """Judge the claims against the request; the signature is right already."""
        now = self._clock.time()
        if now >= claims.exp:
            return expired("token_expired", self.name, claims.exp, now)
        if claims.nbf is not None and now < claims.nbf:
            return refuse("bad_token", "not_yet", f"the ticket counts from {claims.nbf - now:.0f} s from now")
        if operation.value not in (claims.ops or DEFAULT_OPERATIONS):
            return refuse("not_covered", "operation", f"the ticket does not permit {operation.value}")
        grant = Grant(
            scheme=self.name,
            key_id=token.key_id,
            owner=claims.sub,
            max_size=claims.max_size,
            media_type=claims.type,
            path=claims.path,
            prefix=_segment_prefix(claims.prefix),
            file_expires=None if claims.file_expires is None else float(claims.file_expires),
            ticket_id=claims.jti,
            max_files=claims.files,
            until=float(claims.exp),
        )
        if operation in _AT_THE_PATH:
            path = self._storage_path(request.path, operation)
            if not path or not grant.covers(path):
                return refuse("not_covered", "path", "the ticket is for another path")
        if operation is Operation.PUT and claims.type is not None:
            sent = fields.media_type(request)
            if sent != claims.type.encode():
                return refuse("not_covered", "type", f"the ticket is for type {claims.type!a}, not {sent[:80]!a}")
        return grant

    def _storage_path(self, path: str, operation: Operation) -> str | None:
        if operation is Operation.DOWNLOAD:
            return path.removeprefix(DOWNLOADS) if path.startswith(DOWNLOADS) else None
        return self._base_paths.relative(path)


_AT_THE_PATH: Final = frozenset({Operation.PUT, Operation.DELETE, Operation.DOWNLOAD})


def _segment_prefix(prefix: str | None) -> str | None:
    """`alice` covers `alice/x`, never `alice2/x`."""
    return prefix + "/" if prefix and not prefix.endswith("/") else prefix
