"""X-Signature: the guide's form, over the path alone, and a strong one that binds what is uploaded, and when.

Path-only: HMAC of the absolute URL path. It is valid for every body, method and time, so it never
deletes, what was made for `/download/` never uploads, and `strict_signatures` refuses it altogether.
Strong: chosen by the presence of X-Signature-Expires.
"""

from hmac import compare_digest
from typing import Final

from hmac_file_server.auth import diagnosis, fields, messages
from hmac_file_server.auth.grant import SIGNATURE, Grant, Refusal
from hmac_file_server.auth.keys import KeyRing
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.refusals import Malformed, expired, length_required, refuse
from hmac_file_server.auth.schemes.scheme import permits
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.clock import Clock
from hmac_file_server.config.base_paths import BasePaths

DOWNLOADS: Final = "/download/"
"""The route whose reads need permission."""
_READS_ONLY: Final = "a path-only X-Signature reads only below /download/, and only reads there"


class HeaderSignature:
    """The value of X-Signature."""

    name = SIGNATURE
    permits = permits(tuple(Operation))

    def __init__(self, keys: KeyRing, base_paths: BasePaths, clock: Clock, *, strict: bool) -> None:
        self._keys = keys
        self._base_paths = base_paths
        self._clock = clock
        self._strict = strict

    def authorise(self, request: SignedRequest, operation: Operation, given: bytes) -> Grant | Refusal:
        """Whichever form the request asks for; the one is never tried in place of the other."""
        mac = fields.mac(given)
        expires = request.header(b"x-signature-expires")
        if expires is not None:
            return self._strong(request, operation, mac, fields.number(expires, "x-signature-expires"))
        if self._strict:
            return refuse("signature_too_weak", "strict", "strict_signatures refuses a path-only X-Signature")
        return self._path_only(request, operation, mac)

    def _path_only(self, request: SignedRequest, operation: Operation, mac: bytes) -> Grant | Refusal:
        path = request.path
        if operation is Operation.DELETE:
            return refuse("signature_too_weak", "operation", "a path-only X-Signature deletes nothing")
        if path.startswith(DOWNLOADS) is not (operation is Operation.DOWNLOAD):
            return refuse(
                "signature_too_weak",
                "operation",
                _READS_ONLY,
            )
        message = messages.x_signature(path.encode())
        for key in self._keys:
            if compare_digest(key.mac(message), mac):
                return Grant(scheme=self.name, key_id=key.id, form="whole")
        variants = diagnosis.signature_variants(request.method, path, self._base_paths)
        return diagnosis.explain(self.name, self._keys, mac, variants)

    def _strong(self, request: SignedRequest, operation: Operation, mac: bytes, expires: int) -> Grant | Refusal:
        size = fields.announced_size(request, operation)
        if size is None:
            return length_required("the strong X-Signature")
        path = request.path
        name = request.header(b"x-filename") or b""
        if b"\0" in name:
            raise Malformed("x-filename holds NUL")
        for method in fields.signed_methods(request.method):
            message = messages.x_signature_strong(method.encode(), path.encode(), name, size, expires)
            for key in self._keys:
                if not compare_digest(key.mac(message), mac):
                    continue
                now = self._clock.time()
                if now >= expires:
                    return expired("signature_expired", "the strong X-Signature", expires, now)
                uploads = operation in {Operation.PUT, Operation.UPLOAD, Operation.CREATE}
                return Grant(
                    scheme=self.name,
                    key_id=key.id,
                    form="whole",
                    exact_size=size if uploads else None,
                    filename=_text(name) if uploads and name else None,
                    until=float(expires),
                )
        variants = diagnosis.strong_variants(request.method, path, name, size, expires, self._base_paths)
        return diagnosis.explain(self.name, self._keys, mac, variants)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Malformed("x-filename is not UTF-8") from None
