"""Metronome's `?token=` (mod_http_upload_external): PUT signs the text of v2, DELETE path and a second secret."""

from hmac import compare_digest

from hmac_file_server.auth import diagnosis, fields, messages
from hmac_file_server.auth.grant import Form, Grant, Refusal
from hmac_file_server.auth.keys import KeyRing
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.refusals import refuse
from hmac_file_server.auth.schemes.scheme import permits
from hmac_file_server.auth.schemes.v2 import SlotV2
from hmac_file_server.auth.signed_request import SignedRequest
from hmac_file_server.config.base_paths import BasePaths


class SlotToken(SlotV2):
    """As v2 for PUT; `path NUL delete-secret` for DELETE."""

    name = "token"
    permits = permits((Operation.PUT, Operation.CREATE, Operation.DELETE), frozenset({"PUT", "DELETE"}))

    def __init__(self, keys: KeyRing, base_paths: BasePaths, delete_secret: bytes | None) -> None:
        super().__init__(keys, base_paths)
        self._delete_secret = delete_secret

    def authorise(self, request: SignedRequest, operation: Operation, given: bytes) -> Grant | Refusal:
        """Deletion needs a configured, non-empty delete secret: without it the text would be guessable from PUTs."""
        if operation is not Operation.DELETE:
            return super().authorise(request, operation, given)
        if not self._delete_secret:
            return refuse("scheme_disabled", "scheme_disabled", "no delete secret is configured")
        mac = fields.mac(given)
        path = request.path
        if not self._base_paths.relative(path):
            return refuse("bad_signature", "path", "the path is below no base path, or names no file")
        form: Form = "relative"
        for text in self._base_paths.forms(path):
            message = messages.delete_token(text.encode(), self._delete_secret)
            for key in self._keys:
                if compare_digest(key.mac(message), mac):
                    return Grant(scheme=self.name, key_id=key.id, form=form)
            form = "whole"
        variants = diagnosis.delete_variants(path, self._delete_secret, self._base_paths)
        return diagnosis.explain(self.name, self._keys, mac, variants)
