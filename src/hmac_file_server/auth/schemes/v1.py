"""Slot v1, `?v=`: Prosody mod_http_upload_external, ejabberd mod_http_upload with external_secret.

Binds path and size. Binds neither type nor time nor user: what makes a URL single-use is that a
published file is never replaced.
"""

from hmac import compare_digest

from hmac_file_server.auth import diagnosis, fields, messages
from hmac_file_server.auth.grant import Grant, Refusal
from hmac_file_server.auth.keys import KeyRing
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.refusals import length_required, refuse
from hmac_file_server.auth.schemes.scheme import permits
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.config.base_paths import BasePaths


class SlotV1:
    """`path SP size`."""

    name = "v1"
    permits = permits((Operation.PUT, Operation.CREATE), frozenset({"PUT"}))

    def __init__(self, keys: KeyRing, base_paths: BasePaths) -> None:
        self._keys = keys
        self._ring = keys.keys
        self._base_paths = base_paths

    def authorise(self, request: SignedRequest, operation: Operation, given: bytes) -> Grant | Refusal:
        """The hot path of small uploads: the first key and the relative path are tried first."""
        mac = fields.mac(given)
        size = request.content_length if operation is Operation.PUT else fields.announced_size(request, operation)
        if size is None:
            return length_required(self.name)
        path = request.path
        relative = self._base_paths.relative(path)
        if not relative:
            return refuse("bad_signature", "path", "the path is below no base path, or names no file")
        message = messages.v1(relative.encode(), size)
        for key in self._ring:
            if compare_digest(key.mac(message), mac):
                return Grant(scheme="v1", key_id=key.id, exact_size=size)
        if len(relative) + 1 != len(path):
            message = messages.v1(path[1:].encode(), size)
            for key in self._ring:
                if compare_digest(key.mac(message), mac):
                    return Grant(scheme="v1", key_id=key.id, exact_size=size, form="whole")
        variants = diagnosis.v1_variants(path, size, fields.media_type(request), self._base_paths)
        return diagnosis.explain(self.name, self._keys, mac, variants)
