"""More signatures computed from their texts and not with the code under test: v3, strong X-Signature, tickets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Mapping

from tests.fixtures.server import SECRET

_ticket_ids = itertools.count()


def mac(text: str, secret: str = SECRET) -> str:
    """HMAC-SHA256 in hex."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def in_future(seconds: float = 3600) -> int:
    """An expiry, epoch seconds; far enough for one that is made when the tests are collected."""
    return int(time.time() + seconds)


def v3(method: str, path: str, expires: int) -> str:
    """Query of a v3 slot: text `METHOD LF expires LF /path`."""
    signature = mac(f"{method}\n{expires}\n{path}")
    return f"v3={signature}&expires={expires}"


def strong(method: str, path: str, size: int, filename: str = "", expires: int | None = None) -> dict[str, str]:
    """Headers of the strong X-Signature; X-Filename is among them when there is a file name."""
    until = in_future() if expires is None else expires
    text = "\0".join(("hmac-file-server X-Signature 2", method, path, filename, str(size), str(until)))
    headers = {"X-Signature": mac(text), "X-Signature-Expires": str(until)}
    if filename:
        headers["X-Filename"] = filename
    return headers


def token(claims: Mapping[str, object], header: Mapping[str, object], secret: str = SECRET) -> str:
    """A compact JWT with any header, signed with HS256."""

    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    signed = part(json.dumps(dict(header)).encode()) + "." + part(json.dumps(dict(claims)).encode())
    return signed + "." + part(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())


def ticket(**claims: object) -> str:
    """A ticket of this server; `aud`, `exp` and `jti` are added."""
    complete = {
        "aud": "hmac-file-server",
        "exp": in_future(),
        "jti": f"ticket-{time.time_ns()}-{next(_ticket_ids)}",
        **claims,
    }
    return token(complete, {"alg": "HS256", "typ": "ticket+jwt"})


def bearer(value: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {value}"}
