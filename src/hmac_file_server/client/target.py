"""Where an upload goes and what permits it: a link, a base URL with a ticket or a secret, or a signed URL.

A secret or a ticket is never printed: neither by `repr` nor in the message of an error, nor by `pickle`.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urljoin, urlsplit

SIGNATURE_LIFETIME: Final = 3600
"""Seconds for which a signature made here counts; each request gets a fresh one."""

_LABEL: Final = b"hmac-file-server X-Signature 2"
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_TICKET: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LONGEST_TICKET: Final = 8192
_SLOT_PARAMETERS: Final = frozenset({"v", "v2", "v3", "token"})
_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = re.compile(r"[!-~]*")


class TargetError(ValueError):
    """A link, URL, ticket or secret that cannot be used; the message may be shown, it holds none of them."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a ticket says of itself. It is not verified, only shown: the server decides.

    max_size   bytes that a file may have
    files      how many files it takes in all
    expires    epoch seconds from which it is void
    prefix     below which storage path files go
    path       the one storage path that it is for
    operations what it permits
    """

    max_size: int | None = None
    files: int | None = None
    expires: float | None = None
    prefix: str | None = None
    path: str | None = None
    operations: frozenset[str] = frozenset()


class Target:
    """A server's base URL with the permission to upload there. Immutable.

    tls       whether the scheme is https
    host      name or address, without brackets; internationalised names in their ASCII form
    port      TCP port
    prefix    path before the server's endpoints, percent-encoded, without a slash at its end: "" or "/files"
    given_path  the path as it was given, percent-encoded: "/" or "/files/"
    slot      the request target (path and query) of a signed URL, good for one PUT; else None
    headers   sent with every request to this origin
    """

    __slots__ = (
        "_clock",
        "_secret",
        "_ticket",
        "claims",
        "given_path",
        "headers",
        "host",
        "port",
        "prefix",
        "slot",
        "tls",
    )

    tls: bool
    host: str
    port: int
    prefix: str
    given_path: str
    slot: str | None
    headers: Mapping[str, str]
    claims: Claims | None
    _ticket: str | None
    _secret: bytes | None
    _clock: Callable[[], float]

    def __init__(
        self,
        base: SplitResult,
        *,
        ticket: str | None = None,
        secret: bytes | None = None,
        slot: str | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Use `parse`."""
        put = object.__setattr__
        put(self, "tls", base.scheme == "https")
        put(self, "host", _host(base))
        put(self, "port", _port(base))
        put(self, "prefix", base.path.rstrip("/"))
        put(self, "given_path", base.path or "/")
        put(self, "slot", slot)
        put(self, "headers", MappingProxyType(dict(headers or {})))
        put(self, "claims", None if ticket is None else _claims(ticket))
        put(self, "_ticket", ticket)
        put(self, "_secret", secret)
        put(self, "_clock", clock)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        ticket: str | None = None,
        secret: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A link (`https://host/#ticket=...`, `https://host/?ticket=...`), a base URL, or a signed URL for a PUT.

        `ticket` and `secret` (its UTF-8 bytes are the key) are for a base URL; a link brings its own ticket.
        `clock` tells epoch seconds. Raises TargetError.
        """
        parts = _split(text)
        found = [value for value in (_fragment_ticket(parts), _query_ticket(parts)) if value is not None]
        if ticket is not None:
            found.append(ticket.strip())
        if len(set(found)) > 1:
            raise TargetError("there are two tickets; give the link alone, or the base URL and one ticket")
        if found and secret is not None:
            raise TargetError("a ticket and a secret: give one of them")
        base = parts._replace(query="", fragment="")
        if found:
            _check_ticket(found[0])
            return cls(base, ticket=found[0], headers=headers, clock=clock)
        if secret is not None:
            if parts.query:
                raise TargetError("a URL with a query is no base URL of a server; give it without a secret")
            key = secret.encode() if isinstance(secret, str) else bytes(secret)
            if not key:
                raise TargetError("the secret is empty")
            return cls(base, secret=key, headers=headers, clock=clock)
        if parts.query:
            if not parts.path.strip("/"):
                raise TargetError("this link has no ticket in it")
            return cls(base._replace(path=""), slot=f"{parts.path}?{parts.query}", headers=headers, clock=clock)
        return cls(base, headers=headers, clock=clock)

    # ---- where

    @property
    def origin(self) -> str:
        """Scheme and authority, e.g. "https://files.example.org:8443"; the default port is left out."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        """The value of Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What people may see of it: origin and prefix, of a signed URL without what signs it."""
        return self.origin + (self.prefix if self.slot is None else self.slot.partition("?")[0])

    def path(self, endpoint: str) -> str:
        """The request path of an endpoint ("/upload/chunked") below the prefix."""
        return self.prefix + endpoint

    def resolve(self, base: str, reference: str) -> str:
        """The absolute URL that a Location means in an answer to a request on the path `base` (RFC 3986, 5).

        Raises TargetError when it is no http or https URL.
        """
        try:
            url = urljoin(self.origin + base, reference)
            parts = urlsplit(url)
            usable = parts.scheme in _PORTS and bool(_host(parts)) and 0 < _port(parts) < 65536
        except ValueError:
            usable = False
        if not usable or _SAFE.fullmatch(reference) is None:
            raise TargetError("the server's Location is no URL")
        return url

    # ---- permission

    @property
    def kind(self) -> str:
        """What permits: "ticket", "secret", "slot" (a signed URL) or "none"."""
        if self._ticket is not None:
            return "ticket"
        if self._secret is not None:
            return "secret"
        return "none" if self.slot is None else "slot"

    def permission(
        self, method: str, url: str, *, size: int = 0, filename: str = "", lifetime: float = SIGNATURE_LIFETIME
    ) -> dict[str, str]:
        """The header fields that permit one request, fresh for it; empty where none are needed or fit.

        `url` is absolute, or a request target of this origin; at another origin nothing of ours is told. `size` is
        the bytes of the whole upload for a request that begins one, else the request's Content-Length. `filename`
        is X-Filename as it is sent, "" when it is not. The signature is the strong X-Signature, which binds method,
        path, filename, size and an expiry `lifetime` seconds from now (docs/authentication.md).
        """
        path = self._own_path(url)
        if path is None:
            return {}
        if self._ticket is not None:
            return {"Authorization": f"Bearer {self._ticket}"}
        if self._secret is None:
            return {}
        expires = int(self._clock() + lifetime)
        return {
            "X-Signature": sign(self._secret, method, unquote(path, errors="strict"), filename, size, expires),
            "X-Signature-Expires": str(expires),
        }

    def _own_path(self, url: str) -> str | None:
        if url.startswith("/") and not url.startswith("//"):
            return url.partition("?")[0]
        try:
            parts = urlsplit(url)
            own = (parts.scheme == "https", _host(parts), _port(parts)) == (self.tls, self.host, self.port)
        except ValueError:
            return None
        return (parts.path or "/") if own else None

    # ---- keeping it to ourselves

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Target cannot be changed ({name})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Target cannot be changed ({name})")

    def __repr__(self) -> str:
        return f"Target({self.base_url!r}, {self.kind})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Target is not written anywhere: it may hold a secret")


def sign(secret: bytes, method: str, path: str, filename: str, size: int, expires: int) -> str:
    """The strong X-Signature: hex HMAC-SHA256 over label, method, decoded path, filename, size, expiry.

    Raises ValueError for a field that could not be verified unambiguously: a control character, a path without a
    slash in front, a number out of range.
    """
    if not path.startswith("/") or _CONTROL.search(path) or _CONTROL.search(filename) or not method.isalpha():
        raise ValueError("a path, a name or a method that cannot be signed")
    if not (0 <= size < 10**19 and 0 <= expires < 10**19):
        raise ValueError("sizes and expiries have 1 to 19 digits")
    fields = (method, path, filename, str(size), str(expires))
    message = b"\0".join((_LABEL, *(field.encode() for field in fields)))
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _split(text: str) -> SplitResult:
    url = text.strip()
    try:
        parts = urlsplit(url)
        host, port = _host(parts), _port(parts)
    except ValueError:
        raise TargetError("this is no URL; write https://host or https://host/path") from None
    if parts.scheme not in _PORTS or not host:
        raise TargetError("a link or base URL begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise TargetError("a user name or password in the URL is not used; take it out")
    if not 0 < port < 65536:
        raise TargetError("the URL's port is no port")
    path = parts.path
    if not path.isascii():
        # As browsers do when such a link is pasted.
        try:
            path = re.sub("[^\x00-\x7f]+", lambda match: _escaped(match[0]), path)
        except UnicodeEncodeError:
            # A command line that is not UTF-8 comes with surrogates.
            raise TargetError("the URL's path is not UTF-8") from None
    if _SAFE.fullmatch(path) is None or _SAFE.fullmatch(parts.query) is None:
        raise TargetError("the URL has a space or another character that must be escaped")
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise TargetError("the URL's path is not UTF-8") from None
    if _CONTROL.search(decoded):
        raise TargetError("the URL's path has a control character")
    return parts._replace(path=path)


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("no host name") from None
    if re.fullmatch(r"[!-~]*", host) is None:
        raise ValueError("no host name")
    return host


def _port(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else _PORTS.get(parts.scheme, 0)


def _fragment_ticket(parts: SplitResult) -> str | None:
    return _single(parts.fragment, "ticket")


def _query_ticket(parts: SplitResult) -> str | None:
    found = _single(parts.query, "ticket")
    if found is not None and _SLOT_PARAMETERS & {name for name, _ in parse_qsl(parts.query)}:
        raise TargetError("the URL has a ticket and a signature; a link has one of them")
    return found


def _single(text: str, name: str) -> str | None:
    try:
        values = [value for key, value in parse_qsl(text, keep_blank_values=True) if key == name]
    except ValueError:
        raise TargetError("the link has too many parameters") from None
    if not values:
        return None
    if len(values) > 1:
        raise TargetError("the link has two tickets")
    return values[0]


def _check_ticket(ticket: str) -> None:
    if len(ticket) > _LONGEST_TICKET or _TICKET.fullmatch(ticket) is None:
        raise TargetError("the ticket is no ticket: it was cut, or something was added to it")


def _claims(ticket: str) -> Claims | None:
    payload = ticket.split(".")[1]
    try:
        told = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    operations = told.get("ops")
    prefix, path = told.get("prefix"), told.get("path")
    return Claims(
        max_size=_whole(told.get("max_size")),
        files=_whole(told.get("files")),
        expires=_whole(told.get("exp")),
        prefix=prefix if isinstance(prefix, str) else None,
        path=path if isinstance(path, str) else None,
        operations=frozenset(
            word for word in (operations if isinstance(operations, list) else ()) if isinstance(word, str)
        ),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
