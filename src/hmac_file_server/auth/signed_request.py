"""The shape of a request as far as permission is concerned; the HTTP room's request has it."""

from typing import Protocol


class SignedRequest(Protocol):
    """A parsed request head.

    `path` is absolute and percent-decoded once; empty and dot segments, NUL, control characters and
    backslashes were refused before. `query` is raw, without "?". `content_length` is None when the
    head has none (a chunked body, or no body).
    """

    @property
    def method(self) -> str:
        """The method, case as sent."""
        ...

    @property
    def path(self) -> str:
        """The decoded path."""
        ...

    @property
    def query(self) -> bytes:
        """The raw query."""
        ...

    @property
    def content_length(self) -> int | None:
        """Bytes of the body as announced."""
        ...

    def header(self, name: bytes, /) -> bytes | None:
        """The value of the field of this lower-case name, or None."""
        ...
