# ruff: noqa: D102 - shapes of members that their classes document
"""The seams of the client: what an upload protocol is to the engine, and what the engine is to a protocol.

The engine (uploader.py) decides which bytes go when, over which connection, and what happens after a failure. A
protocol (chunked.py, tus.py, put.py) turns that into requests and understands the answers. The HTTP below it
(exchanges.py) knows nothing of uploads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hmac_file_server.client.target import Target

Span = tuple[int, int]
"""Bytes [start, stop) of the whole file."""
Ranges = tuple[Span, ...]
"""Spans in order, apart from each other."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be uploaded.

    name        for people
    size        bytes
    media_type  None: the server decides by the name
    key         a random word that stays the same when the creation is repeated (Idempotency-Key)
    repeated    whether a creation with this key was sent before: there may be a session, with bytes
    """

    name: str
    size: int
    media_type: str | None
    key: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """A complete upload.

    url         absolute, where the file is served; "" when the server did not say
    size        bytes
    filename    as the server understood it
    digest      of the content, "blake3:<hex>" or "sha256:<hex>", when the server told one or it was computed here
    verified    whether the server's digest was compared with the file's
    session_id  what continued the upload
    """

    url: str
    size: int
    filename: str
    digest: str | None = None
    session_id: str = ""
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """An upload that the server knows.

    id          of the session, or its URL; whoever knows it may continue it
    size        bytes of the whole file
    chunk_size  pieces end at multiples of it and at the end of the file; 0: only at the end
    expires     epoch seconds from which the server will not know it any more; None: it did not say
    extra       JSON values by name that the protocol needs beside these
    """

    id: str
    size: int
    chunk_size: int
    expires: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """What the server told: `ranges` are durable, all that it has. `result` is there once the upload is complete.

    `chunk_size` and `expires` when they were told and may have changed.
    """

    ranges: Ranges
    result: Result | None = None
    chunk_size: int | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, stop) of the file, to go in one request. They lie in one chunk and reach to its end."""

    start: int
    stop: int
    chunk: int
    chunk_start: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Body(Protocol):
    """The bytes of one request, taken from the source while they are sent."""

    @property
    def length(self) -> int: ...

    async def digest(self, algorithm: str) -> bytes:
        """The digest of these bytes by `hashlib`'s name of the algorithm. Reads them all."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    target   path and query, as they are sent
    headers  without Host and Content-Length, which are added
    body     None: there is none; Content-Length is then sent only for methods that have a body
    wait     seconds for which the server may hold the answer back on purpose (a long poll)
    interim  is called with status and headers of every 1xx answer, on the loop
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: Body | None = None
    wait: float = 0.0
    interim: Callable[[int, Mapping[str, str]], None] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One final HTTP answer, whole. Names of fields are lower case; repeated ones are joined by ", "."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchanges(Protocol):
    """Sends requests of one upload to the target's origin, over connections that it keeps."""

    async def exchange(self, request: Request) -> Answer:
        """The final answer, whatever its status. Raises ConnectionLost, BadAnswer, SourceChanged.

        Every request is bounded: without a body in time, with one by the engine's watchdog. An answer that comes while
        the body is being sent ends the sending.
        """
        ...


class Remote(Protocol):
    """An upload protocol. Errors are those of errors.py; `errors.refusal(answer)` makes one of an answer.

    name        "chunked", "tus", "put"
    parallel    pieces may be sent in any order and at the same time; else one at a time, in order
    resumable   `ask` tells what arrived of a piece that failed; else the upload begins anew after a failure
    """

    @property
    def name(self) -> str: ...
    @property
    def parallel(self) -> bool: ...
    @property
    def resumable(self) -> bool: ...

    async def begin(self, facts: Facts) -> tuple[Session, Received]:
        """Begin an upload; a repeat with the same `facts.key` must not make a second one where that can be avoided."""
        ...

    async def ask(self, session: Session, *, wait: float = 0.0) -> Received:
        """What is durable by now; what had arrived is made so first. `wait`: seconds to wait for a change, if it can.

        Must disturb no transfer that is under way where the protocol allows that. Raises SessionGone when it is gone.
        """
        ...

    async def send(self, session: Session, piece: Piece, body: Body) -> Received:
        """Send one piece. Called only after `ask` (or `begin`) told that its bytes are missing.

        The body is the piece's, and goes into `Request.body` as it is. Once it is complete `Received.result` is there.
        """
        ...

    async def discard(self, session: Session) -> None:
        """End the upload; its bytes are dropped. One that is gone already is no error."""
        ...

    def saved(self, session: Session) -> Mapping[str, Any]:
        """JSON values from which `restored` makes the session again, in another run. No secret."""
        ...

    def restored(self, saved: Mapping[str, Any], facts: Facts) -> Session | None:
        """The session that was saved, to be asked about; None when it is of another protocol or file."""
        ...


# ---- what the constructor of an uploader takes


class NetworkShape(Protocol):
    """Tells of changes (network.py: NetworkWatch)."""

    @property
    def online(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def subscribe(self, listener: Callable[[Any], None]) -> Callable[[], None]: ...


RemoteMaker = Callable[[Exchanges, Target], Remote]
"""Makes the `Remote` of one upload."""
