"""Permission: one gate, deny by default, before any body is read. Only this room compares signatures."""

from hmac_file_server.auth.gate import Gate
from hmac_file_server.auth.grant import SCHEMES, Grant, Refusal
from hmac_file_server.auth.keys import Key, KeyRefused, KeyRing
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.signed_request import SignedRequest

__all__ = ["SCHEMES", "Gate", "Grant", "Key", "KeyRefused", "KeyRing", "Operation", "Refusal", "SignedRequest"]
