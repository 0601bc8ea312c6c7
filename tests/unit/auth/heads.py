"""Request heads for the gate, without a connection."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hmac_file_server.auth import SCHEMES, Gate, Grant, KeyRing, Operation, Refusal
from hmac_file_server.config.base_paths import BasePaths

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_700_000_000.0


@dataclass
class Head:
    """Has the shape of `SignedRequest`."""

    method: str
    path: str
    query: bytes = b""
    content_length: int | None = None
    fields: Mapping[bytes, bytes] = field(default_factory=dict)

    def header(self, name: bytes, /) -> bytes | None:
        return self.fields.get(name)


class StoppedClock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def gate(
    *secrets: bytes,
    schemes: tuple[str, ...] = SCHEMES,
    base_paths: tuple[str, ...] = ("/", "/upload/", "/share/"),
    strict: bool = False,
    now: float = NOW,
    jwt_secrets: tuple[bytes, ...] = (),
    delete_secret: bytes | None = None,
    clock: StoppedClock | None = None,
) -> Gate:
    """A gate as the server builds it, except that short published secrets are let in."""
    return Gate(
        KeyRing(secrets or (SECRET,), shortest=1),
        schemes=schemes,
        strict_signatures=strict,
        base_paths=BasePaths(base_paths),
        clock=clock or StoppedClock(now),
        jwt_keys=KeyRing(jwt_secrets, shortest=1) if jwt_secrets else None,
        delete_secret=delete_secret,
    )


def granted(answer: Grant | Refusal) -> Grant:
    """The grant, or a failed test that says why it was none."""
    assert isinstance(answer, Grant), answer
    return answer


def refused(answer: Grant | Refusal, code: str | None = None, reason: str | None = None) -> Refusal:
    """The refusal, with this code and reason."""
    assert isinstance(answer, Refusal), answer
    assert code is None or answer.code == code, answer
    assert reason is None or answer.reason == reason, answer
    return answer


def put(
    path: str, query: bytes | str = b"", size: int | None = 5, media_type: bytes | str | None = None, **more: str
) -> Head:
    """A PUT; `more` are header fields, "_" for "-"."""
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
    if media_type is not None:
        fields[b"content-type"] = media_type.encode() if isinstance(media_type, str) else media_type
    return Head("PUT", path, query.encode() if isinstance(query, str) else query, size, fields)


__all__ = ["NOW", "SECRET", "Head", "Operation", "StoppedClock", "gate", "granted", "put", "refused"]
