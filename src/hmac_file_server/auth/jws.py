"""JSON Web Tokens (RFC 7519) signed with HS256: PyJWT does the JWS layer, this room judges the claims."""

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from hmac_file_server.auth.keys import Key, KeyRing

if TYPE_CHECKING:
    from jwt.api_jws import PyJWS

ALGORITHM: Final = "HS256"
LONGEST_TOKEN: Final = 8192
"""Characters; more is refused before anything is parsed."""

# The last character of 32 bytes in base64url carries four bits: other spellings decode alike and are refused.
_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]{2,1024}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")

Fault = Literal["malformed", "unknown_key", "signature"]


class Verified(msgspec.Struct, frozen=True):
    """A token whose signature is right: its `typ`, its payload (JSON, not judged), the id of its key."""

    kind: str
    payload: bytes
    key_id: str


class Faulty(msgspec.Struct, frozen=True):
    """A token that does not verify; `detail` is safe to log."""

    fault: Fault
    detail: str


@functools.cache
def _jws() -> "PyJWS":
    """PyJWT's signer, HS256 only. Imported on first use: servers that see no token do not pay for it."""
    from jwt.algorithms import HMACAlgorithm
    from jwt.api_jws import PyJWS

    class SharedSecret(HMACAlgorithm):
        """HS256 with the key as it is: `KeyRing` judged its length, and no key of ours is ever public."""

        def prepare_key(self, key: str | bytes) -> bytes:
            return key if isinstance(key, bytes) else key.encode()

        def check_key_length(self, key: Any) -> str | None:
            del key
            return None

    jws = PyJWS(algorithms=[ALGORITHM])
    jws.unregister_algorithm(ALGORITHM)
    jws.register_algorithm(ALGORITHM, SharedSecret(HMACAlgorithm.SHA256))
    return jws


def sign(key: Key, kind: str, claims: Mapping[str, Any], *, name_key: bool) -> str:
    """A compact JWS over the claims, in the order given; header `alg`, `typ` and, if asked for, `kid`."""
    headers: dict[str, Any] = {"typ": kind}
    if name_key:
        headers["kid"] = key.id
    return _jws().encode(msgspec.json.encode(dict(claims)), key.secret, algorithm=ALGORITHM, headers=headers)


def verify(token: bytes, keys: KeyRing) -> Verified | Faulty:
    """Check the signature of a compact JWS. HS256 only, whatever the header says; claims are not judged."""
    from jwt.exceptions import InvalidAlgorithmError, InvalidSignatureError, PyJWTError

    if len(token) > LONGEST_TOKEN or _COMPACT.fullmatch(token) is None:
        return Faulty("malformed", "not a compact HS256 token")
    signer = _jws()
    try:
        header = signer.get_unverified_header(token)
        named = header.get("kid")
        candidates: tuple[Key, ...] = keys.keys
        if named is not None:
            found = keys.find(named)
            if found is None:
                return Faulty("unknown_key", "the token names a key that is not in force")
            candidates = (found,)
        kind = header.get("typ")
        if not isinstance(kind, str) or "crit" in header or "b64" in header:
            return Faulty("malformed", "the token's header is not one of ours")
        for key in candidates:
            try:
                decoded = signer.decode_complete(token, key.secret, algorithms=[ALGORITHM])
            except InvalidSignatureError:
                continue
            return Verified(kind, decoded["payload"], key.id)
    except InvalidAlgorithmError:
        return Faulty("malformed", "the token's algorithm is not HS256")
    except (PyJWTError, ValueError, RecursionError):
        return Faulty("malformed", "the token does not parse")
    return Faulty("signature", "no key in force verifies the token")
