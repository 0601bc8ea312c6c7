"""What a scheme is: a name, what it can permit with which methods, and a judgement."""

from collections.abc import Mapping
from typing import Protocol

from hmac_file_server.auth.grant import Grant, Refusal
from hmac_file_server.auth.operation import METHODS, Operation
from hmac_file_server.auth.signed_request import SignedRequest

Permits = Mapping[str, tuple[Operation, ...]]
"""Method to the operations that may be asked for with it."""


class Scheme(Protocol):
    """One way to sign. `given` is the value of its parameter or header as sent."""

    @property
    def name(self) -> str:
        """One of `grant.SCHEMES`."""
        ...

    @property
    def permits(self) -> Permits:
        """Whatever is not in here is refused before `authorise` is asked."""
        ...

    def authorise(self, request: SignedRequest, operation: Operation, given: bytes) -> Grant | Refusal:
        """Judge one request. Raises `refusals.Malformed`."""
        ...


def permits(operations: tuple[Operation, ...], only: frozenset[str] | None = None) -> Permits:
    """The table for these operations, each with its own methods, or with those of them that are in `only`."""
    table: dict[str, tuple[Operation, ...]] = {}
    for operation in operations:
        for method in METHODS[operation]:
            if only is None or method in only:
                table[method] = (*table.get(method, ()), operation)
    return table
