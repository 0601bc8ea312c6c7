"""Digests of whole files: Repr-Digest and Want-Repr-Digest (RFC 9530).

A client may say what the whole upload has to be, and may ask what it has become. Only sha-256 and sha-512 are
registered as fit for that, so the digest that deduplication keeps is of no use here: the bytes are read once
more, on a worker, one file at a time in a process, and what came of it is remembered for those who ask again.
"""

import base64
import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from hmac_file_server.files.contract import FileStore, StorageError, StorageFailed, StoragePath
from hmac_file_server.http import Request
from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols.structured import dictionary

ALGORITHMS: Final[dict[str, Callable[[], Any]]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
_SIZES: Final = {"sha-256": 32, "sha-512": 64}
_STEP: Final = 1 << 20
_REMEMBERED: Final = 1024
_WEIGHTS: Final = 10


class Source(msgspec.Struct, frozen=True):
    """Bytes to be hashed: `read(offset, length)` gives fewer only at the end, and raises StorageError."""

    read: Callable[[int, int], bytes]
    length: int
    close: Callable[[], None]


Computed: TypeAlias = Callable[[bytes | StorageError], None]


class Digest(msgspec.Struct, frozen=True, array_like=True):
    """What a file is, or has to be: one of `ALGORITHMS`, and the hash."""

    algorithm: str
    value: bytes

    @property
    def field(self) -> bytes:
        """The field line that tells it."""
        encoded = base64.b64encode(self.value).decode("ascii")
        return f"Repr-Digest: {self.algorithm}=:{encoded}:\r\n".encode("ascii")


def announced(request: Request) -> Digest | None:
    """Repr-Digest of a request, by an algorithm that is known here.

    Raises HttpError 400 `bad_digest` for a field that is malformed: one that was meant to protect a file is
    better refused than ignored.
    """
    value = request.header(b"repr-digest")
    if value is None:
        return None
    members = dictionary(value)
    if members is None:
        raise _bad()
    for algorithm, size in _SIZES.items():
        if algorithm in members:
            given = members[algorithm][0]
            if not isinstance(given, bytes) or len(given) != size:
                raise _bad()
            return Digest(algorithm, given)
    return None


def wanted(request: Request) -> str | None:
    """The algorithm that Want-Repr-Digest likes best of those that are known here; a malformed field wants none."""
    members = dictionary(request.header(b"want-repr-digest")) or {}
    best, liking = None, 0
    for algorithm in ALGORITHMS:
        weight = members.get(algorithm, (0, {}))[0]
        if isinstance(weight, int) and not isinstance(weight, bool) and liking < weight <= _WEIGHTS:
            best, liking = algorithm, weight
    return best


def _bad() -> HttpError:
    return HttpError(400, "bad_digest", "Repr-Digest is malformed.")


class Digests:
    """Computes digests on a worker, one at a time, in the order in which they were asked for."""

    def __init__(self, submit: Callable[[Callable[[], None]], object]) -> None:
        self._submit = submit
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False
        self._known: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def known(self, upload_id: str, algorithm: str) -> Digest | None:
        """The digest of an upload that was computed before."""
        with self._lock:
            value = self._known.get((upload_id, algorithm))
        return None if value is None else Digest(algorithm, value)

    def remember(self, upload_id: str, digest: Digest) -> None:
        """Keep the digest of a complete upload for those who ask again."""
        with self._lock:
            self._known[upload_id, digest.algorithm] = digest.value
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def compute(self, algorithm: str, source: Callable[[], Source], done: Computed) -> None:
        """The hash of a source, which is opened when its turn has come; `done` gets it on a worker."""

        def work() -> None:
            try:
                result: bytes | StorageError = _hash(algorithm, source())
            except StorageError as error:
                result = error
            try:
                done(result)
            finally:
                self._next()

        with self._lock:
            if self._busy:
                self._waiting.append(work)
                return
            self._busy = True
        self._submit(work)

    def _next(self) -> None:
        with self._lock:
            work = self._waiting.popleft() if self._waiting else None
            self._busy = work is not None
        if work is not None:
            self._submit(work)


def stored(files: FileStore, path: StoragePath) -> Source:
    """A published file. Raises StorageError; StorageFailed when there is none."""
    reader = files.open(path)
    if reader is None:
        raise StorageFailed("the file is gone")
    return Source(reader.read, reader.entry.size, reader.close)


def _hash(algorithm: str, source: Source) -> bytes:
    state = ALGORITHMS[algorithm]()
    offset = 0
    try:
        while offset < source.length:
            piece = source.read(offset, min(_STEP, source.length - offset))
            if not piece:
                raise StorageFailed("the file is shorter than it should be")
            state.update(piece)
            offset += len(piece)
    finally:
        source.close()
    return bytes(state.digest())
