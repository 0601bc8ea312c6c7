"""The versions of "Resumable Uploads for HTTP" and what differs between them on the wire.

    interop  draft-ietf-httpbis-resumable-upload   what changed
    3        -01                                   Upload-Incomplete, the opposite of what came later
    4        -02                                   Upload-Complete
    5        -03                                   104 tells the progress
    6        -04, -05                              application/partial-upload, Upload-Limit, digests, problem types
    7        -06 to -08                            max-age instead of expires
    8        -09 to -11                            limits bind clients
    9        -12 and later                         Upload-Complete: ?1 marks the target resource's own answer

A request says its version in Upload-Draft-Interop-Version. Without one, or with one that is not known, it gets
the rules of the newest and never a 104: nobody but a client of these drafts takes that for an interim answer.
"""

from typing import Final

import msgspec

from hmac_file_server.http import Request
from hmac_file_server.protocols.structured import boolean, natural

OLDEST: Final = 3
NEWEST: Final = 9
_WITHOUT_LAST: Final = 6

PARTIAL_UPLOAD: Final = "application/partial-upload"


class Dialect(msgspec.Struct, frozen=True):
    """How one client speaks. `version` as it said, None when it did not; `rules` is the version to follow."""

    version: int | None
    rules: int

    @property
    def echo(self) -> bytes:
        """The field that tells the client which version it is answered in."""
        return b"" if self.version is None else b"Upload-Draft-Interop-Version: %d\r\n" % self.version

    @property
    def interim(self) -> bool:
        """Whether the client knows what a 104 is."""
        return self.version is not None

    @property
    def progress(self) -> bool:
        """Whether a 104 may tell the offset (from -03)."""
        return self.version is not None and self.rules >= 5

    @property
    def acknowledges_by_creating(self) -> bool:
        """Whether what is appended is acknowledged by 201 as what is created is (up to -02)."""
        return self.rules <= 4

    @property
    def cancels_plainly(self) -> bool:
        """Whether a cancellation must not say anything of offset or completeness (up to -02)."""
        return self.rules <= 4

    @property
    def typed(self) -> bool:
        """Whether what is appended must be of type application/partial-upload (from -04)."""
        return self.rules >= 6

    @property
    def age(self) -> bytes | None:
        """The key of Upload-Limit that tells the time that is left; None before there was that field."""
        if self.rules < 6:
            return None
        return b"expires" if self.rules == 6 else b"max-age"

    @property
    def ends_by_length(self) -> bool:
        """Whether an upload ends when its announced length is reached, whatever Upload-Complete says.

        tus-js-client, whose newest version is 6, says ?0 with the last bytes of a stream.
        """
        return self.version is not None and self.rules <= _WITHOUT_LAST

    @property
    def locates_result(self) -> bool:
        """Whether the final answer to a creation names the upload resource, too (optional from -12)."""
        return self.version is not None and self.rules < NEWEST

    def completeness(self, *, complete: bool) -> bytes:
        """The field that says whether the upload is complete."""
        if self.rules == OLDEST:
            return b"Upload-Incomplete: ?0\r\n" if complete else b"Upload-Incomplete: ?1\r\n"
        return b"Upload-Complete: ?1\r\n" if complete else b"Upload-Complete: ?0\r\n"

    def limits(self, size: int, seconds: float) -> bytes:
        """Upload-Limit: bytes that an upload may have, and how long it lives."""
        age = self.age
        if age is None:
            return b""
        return b"Upload-Limit: max-size=%d, min-size=0, %b=%d\r\n" % (size, age, max(0, int(seconds)))


LATEST: Final = Dialect(None, NEWEST)


def discovery(size: int, seconds: float) -> bytes:
    """What OPTIONS tells of this protocol (section 4.1.4): bytes that a file may have, how long an upload lives."""
    return f"Accept-Patch: {PARTIAL_UPLOAD}\r\n".encode("ascii") + LATEST.limits(size, seconds)


def dialect_of(request: Request) -> Dialect:
    """How the client of a request speaks."""
    fields = request.fields
    version = natural(fields.get(b"upload-draft-interop-version"))
    if version is not None and version >= OLDEST:
        return Dialect(version, min(version, NEWEST))
    if b"upload-incomplete" in fields and b"upload-complete" not in fields:
        return Dialect(None, OLDEST)
    return LATEST


def completes(request: Request) -> bool | None:
    """Whether the body is the last of the upload; None when the request does not say."""
    complete = boolean(request.fields.get(b"upload-complete"))
    if complete is not None:
        return complete
    incomplete = boolean(request.fields.get(b"upload-incomplete"))
    return None if incomplete is None else not incomplete


def speaks(request: Request) -> bool:
    """Whether a request has any field of the drafts."""
    fields = request.fields
    return b"upload-complete" in fields or b"upload-incomplete" in fields or b"upload-draft-interop-version" in fields
