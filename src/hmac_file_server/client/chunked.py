"""Uploads in chunks (docs/api.md, "Uploads in chunks"): in any order, over several connections, resumed inside a chunk.

POST   /upload/chunked   X-Filename, X-Total-Size, Idempotency-Key
PUT    /upload/chunked   X-Upload-Session-ID, X-Chunk-Number, X-Chunk-Offset
GET    /upload/status    ?session_id=&wait=
DELETE /upload/chunked   X-Upload-Session-ID
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from hmac_file_server.client.errors import BadAnswer, Refused, json_of, refusal
from hmac_file_server.client.protocol import (
    Answer,
    Body,
    Exchanges,
    Facts,
    Piece,
    Received,
    Request,
    Session,
)
from hmac_file_server.client.status import ranges_of, result_of, time_of
from hmac_file_server.client.target import Target

LONGEST_WAIT: Final = 60.0
"""Seconds that a status may be waited for."""

_UPLOADS: Final = "/upload/chunked"
_STATUS: Final = "/upload/status"
_OCTETS: Final = "application/octet-stream"
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,200}")
_MOST_CHUNKS: Final = 10_000_000


class Chunked:
    """The chunk API as an upload protocol of the client; see `protocol.Remote`. The server's chunk size counts."""

    name = "chunked"
    parallel = True
    resumable = True

    def __init__(self, exchanges: Exchanges, target: Target, *, piece_digests: bool = False) -> None:
        """`piece_digests`: every body goes with a Content-Digest; then nothing is kept of one that was cut."""
        self._exchanges = exchanges
        self._target = target
        self._digests = piece_digests
        # The session's id is permission enough, unless the server is strict (`security.strict_signatures`). A ticket
        # that expires in the middle of an upload ends it only there.
        self._strict = False

    async def begin(self, facts: Facts) -> tuple[Session, Received]:
        """Begin; the same key finds the same session, should the first answer have been lost."""
        path = self._target.path(_UPLOADS)
        name = quote(facts.name, safe="")
        headers = {
            "X-Filename": name,
            "X-Total-Size": str(facts.size),
            "Content-Type": facts.media_type or _OCTETS,
            "Idempotency-Key": facts.key,
            **self._target.permission("POST", path, size=facts.size, filename=name),
        }
        told = _document(await self._exchanges.exchange(Request("POST", path, headers)), 201)
        found, chunk_size = told.get("session_id"), told.get("chunk_size")
        if not isinstance(found, str) or _ID.fullmatch(found) is None:
            raise BadAnswer("the server told no session", retriable=False)
        if type(chunk_size) is not int or chunk_size < 1 or facts.size // chunk_size > _MOST_CHUNKS:
            raise BadAnswer("the server told no size of chunks", retriable=False)
        session = Session(found, facts.size, chunk_size, time_of(told.get("expires_at")))
        # A repeat may have found a session which has bytes; and an empty file is complete by now.
        if facts.repeated or told.get("completed") is True:
            return session, await self.ask(session)
        return session, Received(())

    async def ask(self, session: Session, *, wait: float = 0.0) -> Received:
        """GET of the status; disturbs no transfer."""
        target = f"{self._target.path(_STATUS)}?session_id={session.id}"
        wait = min(wait, LONGEST_WAIT)
        if wait > 0:
            target += f"&wait={wait:g}"
        told = _document(await self._permitted("GET", target, {}, None, wait), 200)
        total, chunk_size = told.get("total_size"), told.get("chunk_size")
        if total != session.size:
            raise BadAnswer("the server has an upload of another size under this session", retriable=False)
        if type(chunk_size) is not int or chunk_size < 1:
            chunk_size = None
        return self._received(session, told, chunk_size)

    async def send(self, session: Session, piece: Piece, body: Body) -> Received:
        """PUT of a chunk or of its rest."""
        headers = {
            "X-Upload-Session-ID": session.id,
            "X-Chunk-Number": str(piece.chunk),
            "Content-Type": _OCTETS,
        }
        if piece.start > piece.chunk_start:
            headers["X-Chunk-Offset"] = str(piece.start - piece.chunk_start)
        if self._digests:
            digest = base64.b64encode(await body.digest("sha256")).decode("ascii")
            headers["Content-Digest"] = f"sha-256=:{digest}:"
        told = _document(await self._permitted("PUT", self._target.path(_UPLOADS), headers, body), 200)
        return self._received(session, told, None)

    async def discard(self, session: Session) -> None:
        """DELETE."""
        answer = await self._permitted("DELETE", self._target.path(_UPLOADS), {"X-Upload-Session-ID": session.id}, None)
        if answer.status not in {200, 204, 404, 410}:
            raise refusal(answer)

    def saved(self, session: Session) -> Mapping[str, Any]:
        """What `restored` needs."""
        return {"id": session.id, "size": session.size, "chunk_size": session.chunk_size}

    def restored(self, saved: Mapping[str, Any], facts: Facts) -> Session | None:
        """A session of an earlier run."""
        found, size, chunk_size = saved.get("id"), saved.get("size"), saved.get("chunk_size")
        if not isinstance(found, str) or _ID.fullmatch(found) is None or size != facts.size:
            return None
        if type(chunk_size) is not int or chunk_size < 1:
            return None
        return Session(found, facts.size, chunk_size)

    async def _permitted(
        self, method: str, target: str, headers: Mapping[str, str], body: Body | None, wait: float = 0.0
    ) -> Answer:
        """A request of a session, signed if the server wants that as well."""
        if not self._strict:
            answer = await self._exchanges.exchange(Request(method, target, headers, body, wait))
            if answer.status not in {401, 403} or not self._permission(method, target, body):
                return answer
            self._strict = True
            if body is not None:
                raise Refused(
                    "the server wants every request signed",
                    code="signature_wanted",
                    status=answer.status,
                    retriable=True,
                )
        permission = self._permission(method, target, body)
        return await self._exchanges.exchange(Request(method, target, {**headers, **permission}, body, wait))

    def _permission(self, method: str, target: str, body: Body | None) -> dict[str, str]:
        return self._target.permission(method, target, size=0 if body is None else body.length)

    def _received(self, session: Session, told: Mapping[str, Any], chunk_size: int | None) -> Received:
        ranges = ranges_of(told.get("received"), session.size)
        result = None
        if told.get("completed") is True:
            receipt = result_of(told, self._target, self._target.path(_UPLOADS), "", session.size)
            result = replace(receipt, session_id=session.id)
        return Received(ranges, result, chunk_size, time_of(told.get("expires_at")))


def _document(answer: Answer, status: int) -> dict[str, Any]:
    """The JSON of a good answer; raises what any other one means."""
    if not 200 <= answer.status < 300:
        raise refusal(answer)
    told = json_of(answer)
    if answer.status not in {status, 200, 201} or not told:
        raise BadAnswer("this is no server of uploads in chunks", status=answer.status, retriable=False)
    return told
