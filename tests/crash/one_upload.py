"""One upload by each protocol, request by request, as a client that remembers what it was told; and the audit."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Final

from blake3 import blake3
from tests.faults.chunks import PATH, Span, covers, creation, number, spans, target, text
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer
from tests.fixtures.uploaders import union
from tests.server import signatures

from hmac_file_server.clock import SystemClock
from hmac_file_server.files import fsck
from hmac_file_server.files.paths import PRIVATE

GONE: Final = (OSError, http.client.HTTPException)
"""What a client meets when the server dies under its request."""
SIZE: Final = 150_000
CHUNK_SIZE: Final = "64KB"
_PIECE: Final = 50_000
_BOUNDARY: Final = "boundary-boundary"
_MENDED: Final = frozenset({"file_without_row", "row_without_file", "orphan_blob"})
"""What a crash may leave for `fsck`: no row of a file is written before its name, and nobody was told of either."""
_KEPT: Final = re.compile(
    r"lock|secret|deleting|(uploads|state)\.db(-wal|-shm)?|spool/?|blobs/?|uploads/?|blobs/[0-9a-f]{2}/?"
)
_LATER: Final = 7200.0


class RefusedError(AssertionError):
    """The server is there, and did not do as it was asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.body[:300]!r}")
        self.answer = answer


class OneUpload(ABC):
    """See the module. `complete`: an answer said that the file is stored; `url` is where it is then."""

    protocol = ""

    def __init__(self, server: FileServer, seed: str, *, size: int = SIZE) -> None:
        self.server = server
        self.seed = f"{self.protocol} {seed}"
        self.body = content(size, self.seed)
        self.url = ""
        self.digest = blake3(self.body).hexdigest()
        self.complete = False
        self.requests = 0

    @abstractmethod
    def step(self) -> None:
        """Make the next request and remember its answer. Raises RefusedError, or one of `GONE`."""

    def look(self) -> None:
        """Ask how far the upload is, as a client does that lost its connection; nobody tells that of this one."""
        assert self.url or not self.complete

    @abstractmethod
    def lost(self) -> list[str]:
        """What was told, and is not so."""

    def go(self) -> None:
        """Go on from wherever it is, to the end."""
        self.look()
        while not self.complete:
            self.step()

    def run_until_gone(self) -> bool:
        """As `go`, for a server that may die; whether it lived."""
        try:
            self.go()
        except GONE:
            return False
        return True

    def stored(self) -> bool:
        """Whether the file at its URL has its bytes."""
        answer = self.server.request("GET", target(self.url))
        return (answer.status, answer.body) == (200, self.body)

    def repeat(self) -> None:
        """The last request once more, whose answer may have been lost; the answer must be as good."""
        assert self.stored()

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        fine: Iterable[int] = (200, 201, 204),
    ) -> Answer:
        self.requests += 1
        answer = self.server.request(method, path, body, headers)
        if answer.status not in fine:
            raise RefusedError(answer)
        return answer

    def _is_lost(self) -> list[str]:
        return [f"{self.seed}: {self.url} is not what was uploaded"] if self.complete and not self.stored() else []


class Chunked(OneUpload):
    """The chunk API, with a key, chunks out of order."""

    protocol = "chunked"

    def __init__(self, server: FileServer, seed: str, *, size: int = SIZE) -> None:
        super().__init__(server, seed, size=size)
        self.id = ""
        self.told: list[Span] = []
        self._chunk_size = 0

    def step(self) -> None:
        if not self.id:
            headers = {**creation(len(self.body)), "Idempotency-Key": self.seed}
            told = self._ask("POST", PATH, None, headers).json()
            self.id, self.url = text(told["session_id"]), text(told["url"])
            self._chunk_size = number(told["chunk_size"])
            return
        index = self._next()
        span = self._span(index)
        headers = {"X-Upload-Session-ID": self.id, "X-Chunk-Number": str(index)}
        told = self._ask("PUT", PATH, self.body[slice(*span)], headers).json()
        assert covers(spans(told["received"]), [span, *self.told]), told
        self._hear(told)

    def look(self) -> None:
        if self.id:
            told = self._ask("GET", f"/upload/status?session_id={self.id}", None, {}).json()
            assert covers(spans(told["received"]), self.told), f"{self.told} was told before {told}"
            self._hear(told)

    def lost(self) -> list[str]:
        if not self.id:
            return []
        answer = self.server.request("GET", f"/upload/status?session_id={self.id}")
        if answer.status != 200 or not covers(spans(answer.json()["received"]), self.told):
            return [f"{self.seed}: {self.told} was told before {answer.status} {answer.body!r}"]
        if self.complete and answer.json()["completed"] is not True:
            return [f"{self.seed}: not complete any more"]
        # A status is answered from the store; whoever sends the next chunk hears of bytes that are gone.
        found = self._is_lost()
        for index in [] if self.complete else self._indices():
            span = self._span(index)
            if covers(self.told, [span]):
                headers = {"X-Upload-Session-ID": self.id, "X-Chunk-Number": str(index)}
                again = self.server.request("PUT", PATH, self.body[slice(*span)], headers)
                if again.status != 200:
                    found.append(f"{self.seed}: chunk {index} was told, and is {again.status} {again.body!r}")
        return found

    def repeat(self) -> None:
        headers = {"X-Upload-Session-ID": self.id, "X-Chunk-Number": "1"}
        told = self._ask("PUT", PATH, self.body[slice(*self._span(1))], headers).json()
        assert (told["completed"], told["url"]) == (True, self.url), told

    def _hear(self, told: dict[str, object]) -> None:
        self.told = union([*self.told, *spans(told["received"])])
        if told["completed"] is True:
            assert (told["url"], told["size"]) == (self.url, len(self.body)), told
            self.complete = True

    def _indices(self) -> list[int]:
        """The first, the last, and those between in their order."""
        count = -(-len(self.body) // self._chunk_size)
        return [0, count - 1, *range(1, count - 1)]

    def _span(self, index: int) -> Span:
        return index * self._chunk_size, min((index + 1) * self._chunk_size, len(self.body))

    def _next(self) -> int:
        """The first chunk that is not there as far as is known; if all are, any, for its answer."""
        return next((index for index in self._indices() if not covers(self.told, [self._span(index)])), 1)


class Tus(OneUpload):
    """tus 1.0.0, patch by patch."""

    protocol = "tus"
    _VERSION: Final = {"Tus-Resumable": "1.0.0"}
    _STREAM: Final = {**_VERSION, "Content-Type": "application/offset+octet-stream"}

    def __init__(self, server: FileServer, seed: str, *, size: int = SIZE) -> None:
        super().__init__(server, seed, size=size)
        self.offset = 0

    def step(self) -> None:
        if not self.url:
            name = base64.b64encode(b"f.bin").decode()
            headers = {
                **self._VERSION,
                "X-Signature": slots.x_signature("/tus/"),
                "Upload-Length": str(len(self.body)),
                "Upload-Metadata": f"filename {name}",
            }
            self.url = f"/tus/{self._ask('POST', '/tus/', None, headers).headers['location']}"
            return
        self._patch(self.body[self.offset : self.offset + _PIECE])

    def look(self) -> None:
        if self.url:
            self._hear(self._ask("HEAD", self.url, None, self._VERSION), 0)

    def lost(self) -> list[str]:
        if not self.url:
            return []
        answer = self.server.request("HEAD", self.url, None, self._VERSION)
        if answer.status != 200 or int(answer.headers["upload-offset"]) < self.offset:
            return [f"{self.seed}: {self.offset} was told before {answer.status} {answer.headers}"]
        return self._is_lost()

    def stored(self) -> bool:
        answer = self.server.request("GET", self.url, None, self._VERSION)
        return (answer.status, answer.body) == (200, self.body)

    def repeat(self) -> None:
        self._patch(b"")

    def _patch(self, piece: bytes) -> None:
        headers = {**self._STREAM, "Upload-Offset": str(self.offset)}
        self._hear(self._ask("PATCH", self.url, piece, headers), len(piece))

    def _hear(self, answer: Answer, sent: int) -> None:
        offset = int(answer.headers["upload-offset"])
        assert offset >= self.offset + sent, f"{offset} is told after {self.offset} and {sent} more"
        self.offset = offset
        self.complete = offset == len(self.body) and "upload-expires" not in answer.headers


class Slot(OneUpload):
    """XEP-0363: a PUT of the whole."""

    protocol = "slot"

    def __init__(self, server: FileServer, seed: str, *, size: int = SIZE) -> None:
        super().__init__(server, seed, size=size)
        self.path = f"{blake3(self.seed.encode()).hexdigest(8)}/f.bin"
        self.url = f"/upload/{self.path}"

    def step(self) -> None:
        query = slots.v2(self.path, len(self.body))
        self._ask("PUT", slots.target(self.path, query), self.body, {"Content-Type": "application/octet-stream"})
        self.complete = True

    def lost(self) -> list[str]:
        answer = self.server.request("GET", self.url)
        if answer.status == 404 and not self.complete:
            return []
        return [] if self.stored() else [f"{self.seed}: {answer.status} with {len(answer.body)} bytes"]

    def repeat(self) -> None:
        self.step()


class Form(OneUpload):
    """`POST /upload` with a form."""

    protocol = "form"

    def step(self) -> None:
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n'
        form = head.encode() + self.body + f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
            "X-Signature": signatures.mac("/upload"),
        }
        told = self._ask("POST", "/upload", form, headers).json()
        assert told["size"] == len(self.body)
        self.url = text(told["url"])
        self.complete = True

    def lost(self) -> list[str]:
        return self._is_lost()


PROTOCOLS: Final[tuple[type[OneUpload], ...]] = (Chunked, Tus, Slot, Form)


def losses(uploads: Iterable[OneUpload]) -> list[str]:
    """What was told to one of the uploads and is not so."""
    return [loss for upload in uploads for loss in upload.lost()]


def strangers(root: Path, digests: Container[str]) -> list[str]:
    """Files of a store that are nobody's, or have none of the contents with these BLAKE3 digests."""
    found = []
    open_ids = open_sessions(root)
    for folder, folders, names in os.walk(root):
        place = Path(folder).relative_to(root)
        for name in [*names, *(f"{name}/" for name in folders)]:
            inner = os.path.join(place, name)
            private = inner.removeprefix(f"{PRIVATE}/") if inner.startswith(f"{PRIVATE}/") else None
            if inner.endswith("/") and private is None:
                continue  # a folder of people
            if private and (_KEPT.fullmatch(private) or private.removeprefix("uploads/") in open_ids):
                continue
            with contextlib.suppress(FileNotFoundError):
                digest = blake3((root / inner).read_bytes()).hexdigest()
                if digest not in digests:
                    found.append(f"{inner}: not whole")
                elif private is not None and not re.fullmatch(rf"blobs/{digest[:2]}/{digest}", private):
                    found.append(f"{inner}: nobody knows it")
    return found


def open_sessions(root: Path) -> set[str]:
    """Ids of the open uploads, out of the database."""
    file = root / PRIVATE / "uploads.db"
    if not file.exists():
        return set()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        return {row[0] for row in database.execute("SELECT id FROM uploads WHERE state = 'open'")}


def check(root: Path) -> list[str]:
    """What `fsck` finds and should not, long after the crash: what it can mend once, and nothing after that."""

    class Later(SystemClock):
        """So that nothing is young enough to be work in progress."""

        @staticmethod
        def time() -> float:
            return SystemClock.time() + _LATER

    first = fsck.check(root, repair=True, clock=Later())
    found = [str(problem) for problem in first.problems if problem.code not in _MENDED]
    return found + [str(problem) for problem in fsck.check(root, repair=False, clock=Later()).problems]
