"""Slot v3, `?v3=&expires=`: hmac-file-server's own. Binds method, path and expiry; neither size nor type.

The Go server goes on accepting for hours after `expires`, depending on headers that the client
chooses, and also takes a text without the expiry. Here the second is exact and nothing widens it.
"""

from hmac import compare_digest

from hmac_file_server.auth import diagnosis, fields, messages
from hmac_file_server.auth.grant import Form, Grant, Refusal
from hmac_file_server.auth.keys import KeyRing
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.query import EXPIRES, parse
from hmac_file_server.auth.refusals import Malformed, expired, refuse
from hmac_file_server.auth.schemes.scheme import permits
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.clock import Clock
from hmac_file_server.config.base_paths import BasePaths


class SlotV3:
    """`METHOD LF expires LF /path`."""

    name = "v3"
    permits = permits(
        (Operation.PUT, Operation.CREATE, Operation.DELETE, Operation.DOWNLOAD),
        frozenset({"PUT", "DELETE", "GET", "HEAD"}),
    )

    def __init__(self, keys: KeyRing, base_paths: BasePaths, clock: Clock) -> None:
        self._keys = keys
        self._base_paths = base_paths
        self._clock = clock

    def authorise(self, request: SignedRequest, operation: Operation, given: bytes) -> Grant | Refusal:
        """The whole path first, as the Go server signs it, then the path below its base path."""
        del operation
        mac = fields.mac(given)
        text = parse(request.query).get(EXPIRES)
        if text is None:
            raise Malformed("v3 without expires")
        expires = fields.number(text, "expires")
        path = request.path
        relative = self._base_paths.relative(path)
        if not relative:
            return refuse("bad_signature", "path", "the path is below no base path, or names no file")
        spellings: list[tuple[Form, str]] = [("whole", path), ("relative", "/" + relative)]
        for form, spelling in spellings:
            for method in fields.signed_methods(request.method):
                message = messages.v3(method.encode(), spelling.encode(), expires)
                for key in self._keys:
                    if compare_digest(key.mac(message), mac):
                        now = self._clock.time()
                        if now >= expires:
                            return expired("signature_expired", self.name, expires, now)
                        return Grant(scheme=self.name, key_id=key.id, form=form, until=float(expires))
        variants = diagnosis.v3_variants(request.method, path, request.query, expires, self._base_paths)
        return diagnosis.explain(self.name, self._keys, mac, variants)
