"""Keys: the shared secrets, in the order in which they sign."""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Final

SHORTEST_KEY: Final = 16
"""Bytes below which a secret is refused: a guessable key signs for everybody (CVE-2023-49105: empty)."""

_BLOCK: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_ID_LABEL: Final = b"hmac-file-server key id"


class KeyRefused(ValueError):  # noqa: N818 - the word says what happened; every error here reads so
    """A secret that cannot be used. `code` is `key_missing`, `key_empty`, `key_short` or `key_repeated`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Key:
    """One secret, with its HMAC-SHA256 (RFC 2104) already keyed: a MAC then costs two state copies."""

    __slots__ = ("_inner", "_outer", "id", "secret")

    def __init__(self, secret: bytes) -> None:
        block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))
        self.secret = secret
        self.id = key_id(secret)

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256 of the message, 32 bytes."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def __repr__(self) -> str:
        """Never the secret."""
        return f"Key({self.id})"


class KeyRing:
    """The keys in force: the first signs, all verify. Rotation: new one first, old one dropped later."""

    __slots__ = ("keys",)

    def __init__(self, keys: Sequence[bytes], *, shortest: int = SHORTEST_KEY) -> None:
        """Raises KeyRefused: no key at all, an empty one, one below `shortest` bytes, one listed twice."""
        if not keys:
            raise KeyRefused("key_missing", "at least one secret is needed")
        for secret in keys:
            if not secret:
                raise KeyRefused("key_empty", "a secret must not be empty")
            if len(secret) < shortest:
                raise KeyRefused("key_short", f"a secret must have at least {shortest} bytes")
        if len(set(keys)) != len(keys):
            raise KeyRefused("key_repeated", "the same secret is listed twice")
        self.keys = tuple(Key(secret) for secret in keys)

    @property
    def signing(self) -> Key:
        """The key that signs."""
        return self.keys[0]

    def find(self, identity: str) -> Key | None:
        """The key with this id, or None."""
        for key in self.keys:
            if key.id == identity:
                return key
        return None

    def __iter__(self) -> Iterator[Key]:
        """In the order of the list."""
        return iter(self.keys)

    def __len__(self) -> int:
        """How many keys verify."""
        return len(self.keys)

    def __repr__(self) -> str:
        """Never a secret."""
        return f"KeyRing({', '.join(key.id for key in self.keys)})"


def key_id(secret: bytes) -> str:
    """The public name of a secret: 8 hex digits of an HMAC under it; tells no more than a signature does."""
    return hmac.digest(secret, _ID_LABEL, "sha256").hex()[:8]
