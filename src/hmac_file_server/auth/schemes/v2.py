"""Slot v2, `?v2=`: Prosody mod_http_upload_external with protocol v2. Binds path, size and Content-Type.

The type is the header's whole value as sent, as Prosody signs it. The Go server and prosody-filer
guess it from the extension instead, and also take texts without it; those are refused.
"""

from hmac import compare_digest

from hmac_file_server.auth import diagnosis, fields, messages
from hmac_file_server.auth.grant import Form, Grant, Refusal
from hmac_file_server.auth.keys import KeyRing
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.refusals import length_required, refuse
from hmac_file_server.auth.schemes.scheme import Permits, permits
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.config.base_paths import BasePaths


class SlotV2:
    """`path NUL size NUL type`."""

    name = "v2"
    permits: Permits = permits((Operation.PUT, Operation.CREATE), frozenset({"PUT"}))

    def __init__(self, keys: KeyRing, base_paths: BasePaths) -> None:
        self._keys = keys
        self._base_paths = base_paths

    def authorise(self, request: SignedRequest, operation: Operation, given: bytes) -> Grant | Refusal:
        """Relative path first, then the whole one."""
        mac = fields.mac(given)
        size = fields.announced_size(request, operation)
        if size is None:
            return length_required(self.name)
        path = request.path
        if not self._base_paths.relative(path):
            return refuse("bad_signature", "path", "the path is below no base path, or names no file")
        media_type = fields.media_type(request)
        form: Form = "relative"
        for text in self._base_paths.forms(path):
            message = messages.v2(text.encode(), size, media_type)
            for key in self._keys:
                if compare_digest(key.mac(message), mac):
                    return Grant(
                        scheme=self.name,
                        key_id=key.id,
                        form=form,
                        exact_size=size,
                        media_type=fields.safe_media_type(media_type.decode("latin-1")),
                    )
            form = "whole"
        variants = diagnosis.v2_variants(path, size, media_type, self._base_paths)
        return diagnosis.explain(self.name, self._keys, mac, variants)
