"""Devices: clients that follow their protocol, lose answers, ask where they stand, and go on.

A device is a generator. It yields a request (`Ask`) and gets its answer, or None where none came, or it yields a
number of seconds and gets None after that time. Any device can go on with an upload in any protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tests.simulation.network import Answer, Ask
from tests.simulation.server import SECRET

from hmac_file_server.auth import signing

Life: TypeAlias = Generator[Ask | float, Answer | None, None]
Turn: TypeAlias = Generator[Ask | float, Answer | None, Answer | None]

CHUNK: Final = 8
PROTOCOLS: Final = ("chunked", "tus", "draft", "range")
_CHUNKED: Final = "/upload/chunked"
_CHUNKED_SIGNED: Final = signing.x_signature(SECRET, _CHUNKED).encode()
_TUS_SIGNED: Final = signing.x_signature(SECRET, "/tus/").encode()
_STREAM: Final = b"application/offset+octet-stream"
_PARTIAL: Final = b"application/partial-upload"
_ENDS: Final = frozenset(
    {"upload_not_found", "upload_expired", "exists", "upload_overrun", "too_many_sessions", "ticket_used_up"}
)


def content(number: int, length: int, variant: int = 0) -> bytes:
    """The bytes of a file: no two files begin alike, and two variants differ in every byte."""
    return bytes((7 * index + 31 * number + 1) % 251 ^ (0xA5 if variant else 0) for index in range(length))


@dataclass(eq=False)
class Goal:
    """A file that is to be uploaded, by one device or by several.

    `dialect`: interop version of the draft, None for the newest without a version.
    """

    number: int
    protocol: str
    length: int
    key: bytes | None
    dialect: int | None
    deferred: bool = False
    ticket: bytes | None = None
    id: str = ""
    complete: bool = False
    over: str = ""
    """Why it ended without a file."""
    lost: str = ""
    """The upload that ended so."""
    received: tuple[tuple[int, int], ...] = ()
    """What a device was told last."""
    last: str = ""
    """What was answered last, for people."""
    begun: bool = False

    @property
    def ended(self) -> bool:
        return self.complete or bool(self.over)

    @property
    def bytes(self) -> bytes:
        return content(self.number, self.length)


@dataclass(eq=False)
class Device:
    """What uploads: `variant` 1 sends other bytes than the goal's; `cross` changes protocols on the way."""

    goal: Goal
    pick: Callable[[int], int]
    variant: int = 0
    cross: bool = False
    patience: int = 1 << 30
    alive: bool = True
    about: str = ""
    """The upload of its last requests."""
    body: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.body = content(self.goal.number, self.goal.length, self.variant)

    # ---- the life

    def live(self) -> Life:
        """Upload, whatever it takes."""
        goal = self.goal
        while not goal.ended and self.patience > 0:
            self.patience -= 1
            self.about = goal.id
            if goal.protocol == "put":
                yield from self._put()
            elif not goal.id:
                yield from self._begin()
            else:
                protocol = PROTOCOLS[self.pick(len(PROTOCOLS))] if self.cross else goal.protocol
                yield from _TURNS[protocol](self)
            if not self.alive:
                return
            yield 0.01 + 0.05 * self.pick(10)

    def _take(self, answer: Answer | None) -> dict[str, Any]:
        """Learn from an answer; its document."""
        goal = self.goal
        if answer is None:
            goal.last = "nothing"
            return {}
        document: dict[str, Any] = json.loads(answer.body) if answer.body.startswith(b"{") else {}
        code = document.get("code", "")
        goal.last = f"{answer.status} {code}"
        # Another device may have begun another upload for the goal meanwhile.
        if (code in _ENDS or (answer.status == 410 and not code)) and goal.id == self.about:
            goal.over, goal.lost = code or "gone", self.about
        elif code == "chunk_differs" and self.variant:
            self.alive = False
        if "received" in document:
            goal.received = tuple((start, stop) for start, stop in document["received"])
        elif "upload-offset" in answer.head:
            offset = int(answer.head["upload-offset"])
            goal.received = ((0, offset),) if offset else ()
        if document.get("completed") is True:
            goal.complete = True
        return document

    @property
    def offset(self) -> int:
        received = self.goal.received
        return received[0][1] if received and received[0][0] == 0 else 0

    # ---- beginning

    def _begin(self) -> Life:
        protocol = "draft" if self.goal.protocol == "range" else self.goal.protocol
        answer = yield from _BEGINNINGS[protocol](self)
        if answer is None:
            if self.goal.key is None:
                # It knows of none, and begins another.
                self.goal.begun = False
            return
        self._take(answer)

    def _permission(self, signature: bytes) -> dict[str, bytes]:
        if self.goal.ticket is not None:
            return {"authorization": b"Bearer " + self.goal.ticket}
        return {"x-signature": signature}

    def _key(self) -> dict[str, bytes]:
        return {} if self.goal.key is None else {"idempotency-key": self.goal.key}

    def _begin_chunked(self) -> Turn:
        fields = {
            **self._permission(_CHUNKED_SIGNED),
            **self._key(),
            "x-filename": b"f%d.bin" % self.goal.number,
            "x-total-size": b"%d" % self.goal.length,
        }
        answer = yield Ask("POST", _CHUNKED, fields, what="create")
        if answer is not None and answer.status == 201:
            document = json.loads(answer.body)
            self.goal.id = document["session_id"]
            self.goal.complete = document["completed"]
        return answer

    def _begin_tus(self) -> Turn:
        goal = self.goal
        fields = {
            **self._permission(_TUS_SIGNED),
            **self._key(),
            "tus-resumable": b"1.0.0",
            "upload-metadata": b"filename ZjE=",
        }
        if goal.deferred:
            fields["upload-defer-length"] = b"1"
        else:
            fields["upload-length"] = b"%d" % goal.length
        body = None
        if self.pick(3) == 0 and goal.length:
            body = self.body[: self.pick(goal.length + 1)]
            fields["content-type"] = _STREAM
        answer = yield Ask("POST", "/tus/", fields, body=body, what="create")
        if answer is not None and answer.status == 201:
            goal.id = answer.head["location"].rpartition("/")[2]
            self._take(answer)
            if not goal.deferred and goal.length and self.offset == goal.length:
                goal.complete = True
        return answer

    def _draft_fields(self, *, last: bool) -> dict[str, bytes]:
        version = self.goal.dialect
        fields = {} if version is None else {"upload-draft-interop-version": b"%d" % version}
        if version == 3:
            fields["upload-incomplete"] = b"?0" if last else b"?1"
        else:
            fields["upload-complete"] = b"?1" if last else b"?0"
        return fields

    def _begin_draft(self) -> Turn:
        goal = self.goal
        whole = self.pick(3) == 0 and goal.protocol == "draft"
        body = self.body if whole else self.body[: self.pick(goal.length + 1)] if self.pick(2) else b""
        fields = {**self._permission(_TUS_SIGNED), **self._key(), **self._draft_fields(last=whole)}
        if not goal.deferred:
            fields["upload-length"] = b"%d" % goal.length
        answer = yield Ask("POST", "/tus/", fields, body=body, what="create")
        if answer is not None and "location" in answer.head:
            goal.id = answer.head["location"].rpartition("/")[2]
        self._draft_told(answer)
        return answer

    # ---- going on

    def _turn_chunked(self) -> Life:
        goal = self.goal
        upload = goal.id
        if self.pick(3):
            yield from self._status(upload)
            if goal.ended:
                return
        size = CHUNK
        # The chunk that has the first missing byte, or any other.
        number = self.offset // size if self.pick(3) else self.pick(max(1, -(-goal.length // size)))
        number = min(number, max(0, -(-goal.length // size) - 1))
        start, stop = number * size, min(number * size + size, goal.length)
        skip = 0
        for first, last in goal.received:
            if first <= start < last and self.pick(4):
                skip = min(last, stop) - start
        fields = {
            "x-upload-session-id": upload.encode(),
            "x-chunk-number": b"%d" % number,
            "x-chunk-offset": b"%d" % skip,
        }
        body = self.body[start + skip : stop]
        answer = yield Ask(
            "PUT", _CHUNKED, fields, body=body, upload=upload, what=f"chunk {start + skip}-{stop}", until=stop
        )
        self._take(answer)

    def _status(self, upload: str) -> Life:
        query = f"session_id={upload}" + ("&wait=2" if self.pick(8) == 0 else "")
        answer = yield Ask("GET", "/upload/status", {}, query, upload=upload, what="status")
        self._take(answer)

    def _turn_tus(self) -> Life:
        goal = self.goal
        upload = goal.id
        base = {"tus-resumable": b"1.0.0"}
        path = f"/tus/{upload}"
        if self.pick(4):
            answer = yield Ask("HEAD", path, base, upload=upload, what="head")
            self._take(answer)
            known = answer is not None and "upload-length" in answer.head
            explicit = goal.protocol in {"draft", "range"}
            if answer is not None and answer.status == 200 and known and self.offset == goal.length and not explicit:
                goal.complete = True
            if answer is None or goal.ended:
                return
        offset = self.offset
        stop = min(goal.length, offset + 1 + self.pick(2 * CHUNK)) if self.pick(2) else goal.length
        fields = {**base, "content-type": _STREAM, "upload-offset": b"%d" % offset}
        if goal.deferred and (stop == goal.length or self.pick(2)):
            fields["upload-length"] = b"%d" % goal.length
        answer = yield Ask(
            "PATCH",
            path,
            fields,
            body=self.body[offset:stop],
            upload=upload,
            what=f"patch {offset}-{stop}",
            until=stop,
        )
        self._take(answer)
        if answer is not None and answer.status == 204 and stop == goal.length:
            goal.complete = True

    def _turn_draft(self) -> Life:
        goal = self.goal
        upload = goal.id
        path = f"/tus/{upload}"
        version = self._draft_fields(last=True)
        del version["upload-incomplete" if goal.dialect == 3 else "upload-complete"]
        if self.pick(4):
            # Only the draft's own fields tell it from others.
            fields = version or {"upload-draft-interop-version": b"9"}
            answer = yield Ask("HEAD", path, fields, upload=upload, what="offset")
            self._take(answer)
            self._draft_told(answer)
            if answer is None or goal.ended:
                return
        offset = self.offset
        stop = goal.length if self.pick(2) else min(goal.length, offset + 1 + self.pick(2 * CHUNK))
        fields = {
            **self._draft_fields(last=stop == goal.length),
            "upload-offset": b"%d" % offset,
            "content-type": _PARTIAL,
        }
        answer = yield Ask(
            "PATCH",
            path,
            fields,
            body=self.body[offset:stop],
            upload=upload,
            what=f"append {offset}-{stop}",
            until=stop,
        )
        self._take(answer)
        self._draft_told(answer)

    def _draft_told(self, answer: Answer | None) -> None:
        if answer is None or answer.status >= 400:
            return
        done = answer.head.get("upload-complete") == "?1" or answer.head.get("upload-incomplete") == "?0"
        self.goal.complete = self.goal.complete or done

    def _turn_range(self) -> Life:
        goal = self.goal
        upload = goal.id
        path = f"/tus/{upload}"
        if self.pick(4) or not goal.length:
            ask = Ask(
                "PUT",
                path,
                {"content-range": b"bytes */%d" % goal.length},
                body=b"",
                upload=upload,
                what="range",
                until=goal.length,
            )
            answer = yield ask
            self._ranged(answer)
            if answer is None or goal.ended or answer.status != 308:
                return
        offset = self.offset
        stop = goal.length if self.pick(2) else min(goal.length, offset + 1 + self.pick(2 * CHUNK))
        if stop <= offset:
            return
        fields = {"content-range": b"bytes %d-%d/%d" % (offset, stop - 1, goal.length)}
        answer = yield Ask(
            "PUT",
            path,
            fields,
            body=self.body[offset:stop],
            upload=upload,
            what=f"range {offset}-{stop}",
            until=stop,
        )
        self._ranged(answer)

    def _ranged(self, answer: Answer | None) -> None:
        self._take(answer)
        if answer is None:
            return
        if answer.status == 308:
            _, _, last = answer.head.get("range", "").partition("-")
            self.goal.received = ((0, int(last) + 1),) if last else ()
        elif answer.status in {200, 201}:
            self.goal.complete = True

    def _put(self) -> Life:
        goal = self.goal
        path = f"put/file-{goal.number}.bin"
        signature = signing.v1(SECRET, path, goal.length)
        answer = yield Ask("PUT", f"/upload/{path}", {}, f"v={signature}", self.body, what="put", until=goal.length)
        self._take(answer)
        if answer is not None and answer.status == 201:
            goal.complete = True


def remover(goal: Goal, pick: Callable[[int], int], seconds: float) -> Life:
    """Somebody who ends an upload after a while."""
    yield seconds
    while goal.protocol != "put" and not goal.id and not goal.ended:
        yield 1.0
    if not goal.id:
        return
    upload = goal.id
    for _ in range(5):
        way = pick(3)
        if way == 0:
            answer = yield Ask("DELETE", _CHUNKED, {"x-upload-session-id": upload.encode()}, upload=upload)
        elif way == 1:
            answer = yield Ask("DELETE", f"/tus/{upload}", {"tus-resumable": b"1.0.0"}, upload=upload)
        else:
            fields = {"upload-draft-interop-version": b"9"}
            answer = yield Ask("DELETE", f"/tus/{upload}", fields, upload=upload)
        if answer is not None and answer.status in {204, 404}:
            if goal.id == upload:
                goal.over = "removed"
            return
        yield 0.5


_TURNS: Final[dict[str, Callable[[Device], Life]]] = {
    "chunked": Device._turn_chunked,
    "tus": Device._turn_tus,
    "draft": Device._turn_draft,
    "range": Device._turn_range,
}
_BEGINNINGS: Final[dict[str, Callable[[Device], Turn]]] = {
    "chunked": Device._begin_chunked,
    "tus": Device._begin_tus,
    "draft": Device._begin_draft,
}
