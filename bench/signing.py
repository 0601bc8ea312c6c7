"""Signed targets in the slot v1 form: the HMAC-SHA256 of "<path> <size>" in hex as `v`."""

from __future__ import annotations

import hmac
from urllib.parse import quote


def slot_v1(secret: bytes, path: str, size: int) -> str:
    """Return the hex signature of an upload of `size` bytes to `path` (relative, not escaped)."""
    return hmac.digest(secret, f"{path} {size}".encode(), "sha256").hex()


def put_target(prefix: str, path: str, size: int, secret: bytes | None) -> str:
    """Return the request target of an upload; without a secret it carries no signature."""
    target = prefix + quote(path)
    return target if secret is None else f"{target}?v={slot_v1(secret, path, size)}"


def get_target(prefix: str, path: str) -> str:
    """Return the request target of a download; downloads are not signed."""
    return prefix + quote(path)
