"""Prosody mod_http_file_share in external mode: `Authorization: Bearer <JWT>` from the slot's header.

The token names the slot (first path segment below the base path), the file, its size and type, who
asked, until when the upload may begin and when the stored file may go. The size is in the token, so
a chunked body is bounded too.
"""

from hmac_file_server.auth import fields
from hmac_file_server.auth.claims import ProsodyClaims
from hmac_file_server.auth.grant import PROSODY, Grant, Refusal
from hmac_file_server.auth.jws import Verified
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.refusals import expired, refuse
from hmac_file_server.auth.schemes.scheme import permits
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.clock import Clock
from hmac_file_server.config.base_paths import BasePaths


class ProsodyToken:
    """A verified token of type `JWT`."""

    name = PROSODY
    permits = permits((Operation.PUT, Operation.CREATE), frozenset({"PUT"}))

    def __init__(self, base_paths: BasePaths, clock: Clock) -> None:
        self._base_paths = base_paths
        self._clock = clock

    def authorise(self, request: SignedRequest, claims: ProsodyClaims, token: Verified) -> Grant | Refusal:
        """Judge the claims against the request; the signature is right already."""
        now = self._clock.time()
        if now >= claims.exp:
            return expired("slot_expired", self.name, int(claims.exp), now)
        slot, _, filename = (self._base_paths.relative(request.path) or "").partition("/")
        if slot != claims.slot:
            return refuse("not_covered", "path", "the token's slot is not the path's first segment")
        if filename != claims.filename:
            return refuse("not_covered", "path", "the token's file name is not the rest of the path")
        return Grant(
            scheme=self.name,
            key_id=token.key_id,
            owner=claims.sub,
            exact_size=int(claims.filesize),
            media_type=None if claims.filetype is None else fields.safe_media_type(claims.filetype),
            filename=claims.filename,
            file_expires=None if claims.expires is None else float(claims.expires),
            until=float(claims.exp),
        )
