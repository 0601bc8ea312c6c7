"""The gate: deny by default. Every request that changes something, or reads what is not public, comes through here.

Order: find the credentials; exactly one source; the scheme is enabled; it can permit the operation
with this method; its own judgement. No body byte has been read by then.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from hmac_file_server.auth import jws
from hmac_file_server.auth import query as query_parameters
from hmac_file_server.auth.claims import PROSODY_KIND, TICKET_KIND, ProsodyClaims, TicketClaims
from hmac_file_server.auth.grant import PROSODY, SCHEMES, SIGNATURE, TICKET, Grant, Refusal
from hmac_file_server.auth.keys import KeyRing
from hmac_file_server.auth.operation import METHODS, Operation
from hmac_file_server.auth.refusals import Malformed, refuse
from hmac_file_server.auth.schemes.prosody import ProsodyToken
from hmac_file_server.auth.schemes.scheme import Scheme
from hmac_file_server.auth.schemes.signature import HeaderSignature
from hmac_file_server.auth.schemes.ticket import Ticket
from hmac_file_server.auth.schemes.token import SlotToken
from hmac_file_server.auth.schemes.v1 import SlotV1
from hmac_file_server.auth.schemes.v2 import SlotV2
from hmac_file_server.auth.schemes.v3 import SlotV3
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.clock import Clock
from hmac_file_server.config.base_paths import BasePaths

_HOT_LENGTH: Final = len(b"v=") + 64


class Gate:
    """Turns a request head into a Grant or a Refusal. Stateless, so safe to share between threads."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        base_paths: BasePaths,
        clock: Clock,
        schemes: Iterable[str] = SCHEMES,
        strict_signatures: bool = False,
        jwt_keys: KeyRing | None = None,
        delete_secret: bytes | None = None,
    ) -> None:
        """`jwt_keys` default to `keys`. Raises ValueError for a scheme that does not exist."""
        enabled = frozenset(schemes)
        if unknown := enabled - set(SCHEMES):
            raise ValueError(f"unknown schemes: {', '.join(sorted(unknown))}")
        slots: tuple[Scheme, ...] = (
            SlotV1(keys, base_paths),
            SlotV2(keys, base_paths),
            SlotToken(keys, base_paths, delete_secret),
            SlotV3(keys, base_paths, clock),
        )
        self._slots = {scheme.name: scheme for scheme in slots if scheme.name in enabled}
        self._v1 = self._slots.get("v1")
        signature = HeaderSignature(keys, base_paths, clock, strict=strict_signatures)
        self._signature = signature if SIGNATURE in enabled else None
        self._prosody = ProsodyToken(base_paths, clock) if PROSODY in enabled else None
        self._ticket = Ticket(base_paths, clock) if TICKET in enabled else None
        self._jwt_keys = keys if jwt_keys is None else jwt_keys

    def authorise(self, request: SignedRequest, operation: Operation) -> Grant | Refusal:
        """Judge one request for one operation. Never raises for anything a client can send."""
        try:
            signature = request.header(b"x-signature")
            authorization = request.header(b"authorization")
            query = request.query
            if (
                len(query) == _HOT_LENGTH
                and query.startswith(b"v=")
                and b"&" not in query
                and signature is None
                and authorization is None
                and self._v1 is not None
            ):
                return _apply(self._v1, request, operation, query[2:])
            return self._find(request, operation, signature, authorization)
        except Malformed as malformed:
            return refuse("malformed_credentials", "malformed", str(malformed))
        except UnicodeEncodeError:
            return refuse("malformed_credentials", "malformed", "the path is no Unicode text")

    def _find(
        self, request: SignedRequest, operation: Operation, signature: bytes | None, authorization: bytes | None
    ) -> Grant | Refusal:
        parameters = query_parameters.parse(request.query)
        slots = [(name, scheme) for name, scheme in query_parameters.SLOTS if name in parameters]
        ticket = parameters.get(query_parameters.TICKET)
        bearer = _bearer(authorization)
        sources = sum((bool(slots), ticket is not None, signature is not None, bearer is not None))
        if sources > 1:
            return refuse("multiple_credentials", "multiple", "more than one source of credentials")
        if signature is not None:
            if self._signature is None:
                return _disabled(SIGNATURE)
            return _apply(self._signature, request, operation, signature)
        if slots:
            for name, scheme in slots:
                if scheme in self._slots:
                    return _apply(self._slots[scheme], request, operation, parameters[name])
            return _disabled(slots[0][1])
        if ticket is not None:
            return self._token(request, operation, ticket, in_query=True)
        if bearer is not None:
            return self._token(request, operation, bearer, in_query=False)
        if query_parameters.EXPIRES in parameters:
            return refuse("missing_credentials", "missing", "expires without v3")
        return refuse("missing_credentials", "missing", "no credentials")

    def _token(self, request: SignedRequest, operation: Operation, token: bytes, *, in_query: bool) -> Grant | Refusal:
        if self._ticket is None and (in_query or self._prosody is None):
            return _disabled(TICKET if in_query else "bearer")
        verified = jws.verify(token, self._jwt_keys)
        if isinstance(verified, jws.Faulty):
            reason = "malformed" if verified.fault == "malformed" else "unknown_key"
            return refuse("bad_token", reason, verified.detail)
        try:
            if verified.kind == TICKET_KIND:
                if self._ticket is None:
                    return _disabled(TICKET)
                if operation not in self._ticket.permits.get(request.method, ()):
                    return _not_permitted(TICKET, request, operation)
                claims = msgspec.json.decode(verified.payload, type=TicketClaims)
                return self._ticket.authorise(request, operation, claims, verified)
            if verified.kind == PROSODY_KIND and not in_query:
                if self._prosody is None:
                    return _disabled(PROSODY)
                if operation not in self._prosody.permits.get(request.method, ()):
                    return _not_permitted(PROSODY, request, operation)
                slot = msgspec.json.decode(verified.payload, type=ProsodyClaims)
                return self._prosody.authorise(request, slot, verified)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return refuse("bad_token", "malformed", "the token is signed, but its claims are not as they must be")
        return refuse("bad_token", "malformed", "the token is signed, but of a type that has no place here")


def _apply(scheme: Scheme, request: SignedRequest, operation: Operation, given: bytes) -> Grant | Refusal:
    if operation in scheme.permits.get(request.method, ()):
        return scheme.authorise(request, operation, given)
    return _not_permitted(scheme.name, request, operation)


def _not_permitted(scheme: str, request: SignedRequest, operation: Operation) -> Refusal:
    fault = "method" if request.method not in METHODS[operation] else "operation"
    detail = f"{scheme} does not permit {operation.value} with method {request.method[:20]!a}"
    return refuse("operation_not_allowed", fault, detail)


def _bearer(authorization: bytes | None) -> bytes | None:
    """The token of `Authorization: Bearer`; None for other authentication schemes, which are a proxy's business."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    return token.strip(b" ")


def _disabled(scheme: str) -> Refusal:
    return refuse("scheme_disabled", "scheme_disabled", f"{scheme} is not among security.schemes")
