"""What a fuzzer is given: a name, a function of bytes, and where to begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hmac_file_server.http.errors import HttpError

SEPARATOR = b"\x1f"
"""Stands between the parts of an input that has several."""


@dataclass(frozen=True, slots=True)
class Target:
    """One parser with its oracle.

    `run` takes any bytes. It returns whether the parser took them, and raises AssertionError where the parser did not do
    what it says; whatever else it raises is a finding as well: errors that are documented are caught in it.
    """

    name: str
    run: Callable[[bytes], bool]
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...] = ()
    """Words of the grammar, for mutations."""


def split(data: bytes, count: int) -> list[bytes]:
    """The parts of an input, `count` of them: empty where there are fewer."""
    parts = data.split(SEPARATOR, count - 1)
    return parts + [b""] * (count - len(parts))


def refused(error: HttpError, *codes: str) -> bool:
    """False, where it is the refusal that is documented."""
    assert error.status == 400
    assert error.code in codes, error.code
    return False


def joined(*parts: bytes) -> bytes:
    return SEPARATOR.join(parts)
