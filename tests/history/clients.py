"""Many clients at few uploads over real sockets, and what each of them was told and when.

Every client takes one upload after the other and asks where it is, appends, reads it, or ends it. Half of them send
one variant of the file and half the other. They stop in the middle of bodies, leave before the answer, and are cut off
by a relay; others take over meanwhile. What nobody heard of has perhaps happened, and is recorded as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fixtures.content import content
from tests.fixtures.server import SECRET
from tests.history.linearizability import Call, linearizable
from tests.history.upload_model import (
    Append,
    End,
    Look,
    Missing,
    Operation,
    Read,
    Runs,
    UploadModel,
    lengthened,
    offsets,
)

from hmac_file_server.auth import signing

CLIENTS = 16
SESSIONS = 8
OPERATIONS = 500
LENGTH = 48 * 1024
_PIECE = 5000
_PATIENCE = 8.0
_TUS = {"Tus-Resumable": "1.0.0"}
_SIGNATURE = signing.x_signature(SECRET.encode(), "/tus/")


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    head: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return (
            str(json.loads(self.body).get("code")) if b"problem" in self.head.get("content-type", "").encode() else ""
        )


@dataclass(eq=False)
class Upload:
    """One upload with what was recorded of it."""

    name: str
    id: str
    length: int
    calls: list[Call[Operation]] = field(default_factory=list)
    complete: bool = False
    over: int = 0
    """Calls since it was seen complete, or ended."""

    def body(self, variant: int, start: int, stop: int) -> bytes:
        plain = content(self.length, self.name)[start:stop]
        return bytes(byte ^ 0xFF for byte in plain) if variant else plain

    def runs(self, found: bytes) -> Runs:
        """Whose bytes these are; variant 2 is nobody's."""
        runs: Runs = ()
        for one, other in zip(found, content(self.length, self.name), strict=False):
            runs = lengthened(runs, {0: 0, 0xFF: 1}.get(one ^ other, 2), 1)
        return runs

    def linearizable(self) -> bool:
        """Whether there is an order in which all of it could have happened."""
        model = UploadModel(self.length, offsets([call.operation for call in self.calls]))
        return linearizable(self.calls, model)


class Crew:
    """The clients of one history."""

    def __init__(
        self, port: int, seed: int, *, operations: int = OPERATIONS, clients: int = CLIENTS, sessions: int = SESSIONS
    ) -> None:
        """`port`: of the server, or of a relay in front of it."""
        self.port = port
        self.left = operations
        self.paused = False
        """There is no server just now: begin nothing."""
        self.uploads: list[Upload] = []
        self._chance = random.Random(seed)
        self._seed = seed
        self._clients = clients
        self._slots: list[Upload | None] = [None] * sessions
        self._beginning: set[int] = set()

    def run(self) -> list[Upload]:
        """Let them work until all operations were made; every upload with its history."""
        asyncio.run(self._work())
        return self.uploads

    async def _work(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        chance = random.Random(self._chance.random())
        variant = number % 2
        # What this client was told last, of each upload.
        known: dict[str, int] = {}
        while self.left > 0:
            if self.paused:
                await asyncio.sleep(0.02)
                continue
            slot = chance.randrange(len(self._slots))
            upload = self._slots[slot]
            if upload is None or upload.over > 6:
                await self._begin(slot)
                continue
            self.left -= 1
            if upload.complete or upload.over:
                upload.over += 1
            roll = chance.random()
            if upload.complete and roll < 0.5:
                await self._read(upload)
            elif roll < 0.02:
                await self._end(upload)
            elif roll < 0.4 or upload.id not in known:
                known[upload.id] = await self._look(upload, chance) or 0
            else:
                known[upload.id] = await self._append(upload, variant, known[upload.id], chance)

    async def _begin(self, slot: int) -> None:
        """A new upload takes the place of one that is done."""
        if slot in self._beginning:
            await asyncio.sleep(0.005)
            return
        self._beginning.add(slot)
        try:
            head = {**_TUS, "Upload-Length": str(LENGTH), "X-Signature": _SIGNATURE, "Content-Length": "0"}
            told = await self._ask("POST", "/tus/", head)
        finally:
            self._beginning.discard(slot)
        if told is not None and told.status == 201:
            upload_id = told.head["location"].rpartition("/")[2]
            upload = Upload(f"{self._seed} {len(self.uploads)}", upload_id, LENGTH)
            self.uploads.append(upload)
            self._slots[slot] = upload

    # ---- what they do

    def _record(self, upload: Upload, began: float, operation: Operation, *, known: bool = True) -> None:
        upload.calls.append(Call(began, time.monotonic() if known else None, operation))

    async def _look(self, upload: Upload, chance: random.Random) -> int | None:
        began = time.monotonic()
        path = f"/tus/{upload.id}"
        if chance.random() < 0.3:
            # Another protocol's question, which disturbs nobody.
            told = await self._ask("GET", f"/upload/status?session_id={upload.id}", {})
            offset = None if told is None or told.status != 200 else json.loads(told.body)["uploaded_bytes"]
        else:
            told = await self._ask("HEAD", path, _TUS)
            offset = None if told is None or told.status != 200 else int(told.head["upload-offset"])
        if told is None:
            return None
        if told.status == 200 and offset is not None:
            upload.complete = upload.complete or offset == upload.length
            self._record(upload, began, Look(offset))
        elif told.status in {404, 410}:
            upload.over += 1
            self._record(upload, began, Look(None))
        return offset

    async def _read(self, upload: Upload) -> None:
        began = time.monotonic()
        told = await self._ask("GET", f"/tus/{upload.id}", _TUS)
        if told is not None and told.status == 200 and len(told.body) == upload.length:
            self._record(upload, began, Read(upload.runs(told.body)))
        elif told is not None and told.status in {404, 410}:
            self._record(upload, began, Missing())

    async def _end(self, upload: Upload) -> None:
        began = time.monotonic()
        told = await self._ask("DELETE", f"/tus/{upload.id}", _TUS)
        upload.over += 1
        if told is not None and told.status == 204:
            self._record(upload, began, End("ok"))
        elif told is not None and told.status in {404, 410}:
            self._record(upload, began, End("gone"))
        else:
            self._record(upload, began, End("unknown"), known=False)

    async def _append(self, upload: Upload, variant: int, start: int, chance: random.Random) -> int:
        """Send some bytes; where the client goes on."""
        if start >= upload.length:
            start = 0
        stop = min(upload.length, start + chance.randint(1, 3 * _PIECE))
        body = upload.body(variant, start, stop)
        head = {
            **_TUS,
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(start),
            "Content-Length": str(len(body)),
        }
        began = time.monotonic()
        told = await self._ask("PATCH", f"/tus/{upload.id}", head, body, chance)
        status, code = (0, "") if told is None else (told.status, told.code)
        if told is not None and status == 204:
            self._record(upload, began, Append(start, stop, variant, "ok"))
            upload.complete = upload.complete or stop == upload.length
            return stop
        if told is not None and code == "offset_mismatch":
            there = int(told.head["upload-offset"])
            self._record(upload, began, Append(start, stop, variant, "mismatch", there))
            return there
        if code == "chunk_differs":
            self._record(upload, began, Append(start, stop, variant, "differs"))
        elif status in {404, 410}:
            upload.over += 1
            self._record(upload, began, Append(start, stop, variant, "gone"))
        elif code in {"upload_taken_over", "incomplete"}:
            self._record(upload, began, Append(start, stop, variant, "cut"))
        else:
            self._record(upload, began, Append(start, stop, variant, "unknown"), known=False)
        return start

    # ---- over the wire

    async def _ask(
        self, method: str, target: str, head: Mapping[str, str], body: bytes = b"", chance: random.Random | None = None
    ) -> Told | None:
        """One request on a connection of its own; None: no answer came. `chance`: what may go wrong on purpose."""
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    return await self._talk(reader, writer, method, target, head, body, chance)
                finally:
                    writer.transport.abort()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        except (OSError, TimeoutError, EOFError):
            # Down, perhaps: not all of them at once, and not at once again.
            await asyncio.sleep(0.02)
            return None

    async def _talk(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        method: str,
        target: str,
        head: Mapping[str, str],
        body: bytes,
        chance: random.Random | None,
    ) -> Told | None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode())
        leaves = chance is not None and chance.random() < 0.12
        with contextlib.suppress(ConnectionError):
            # What is answered before the body is whole can be read all the same.
            for start in range(0, len(body), _PIECE):
                writer.write(body[start : start + _PIECE])
                await writer.drain()
                if chance is not None:
                    await asyncio.sleep(chance.choice([0.0, 0.0, 0.002, 0.01, 0.06]))
                    if leaves and chance.random() < 0.5:
                        return None
        if leaves:
            return None
        status_line = await reader.readuntil()
        fields: dict[str, str] = {}
        while (line := (await reader.readuntil()).strip()) != b"":
            name, _, value = line.decode("latin-1").partition(": ")
            fields[name.lower()] = value
        length = 0 if method == "HEAD" else int(fields.get("content-length", "0"))
        return Told(int(status_line.split()[1]), fields, await reader.readexactly(length))
