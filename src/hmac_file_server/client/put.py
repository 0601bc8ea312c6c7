"""One PUT, as XMPP clients make it (XEP-0363); one that can be resumed where the server says that it can be.

    OPTIONS  whether it can: Accept-Patch: application/partial-upload
    PUT      Upload-Complete: ?0, Upload-Length: begins, without bytes
    HEAD     how far it is
    PATCH    Upload-Offset, Upload-Complete: ?1: everything that is missing

That is draft-ietf-httpbis-resumable-upload (docs/api.md#ietf-resumable-uploads) in its form without a version, in which
no server sends interim answers. A server that does not say so gets a plain PUT, which begins anew after a failure.

Where to: a signed URL as it is; with a ticket that permits `put`, a path below its prefix; with another ticket, or a
secret, `POST /upload`, where the server chooses the path; a plain URL as curl's `-T` does it: one that ends in a slash
is a folder.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from hmac_file_server.client.errors import BadAnswer, Refused, SessionGone, UploadFailed, json_of, refusal
from hmac_file_server.client.protocol import Answer, Body, Exchanges, Facts, Piece, Received, Request, Result, Session
from hmac_file_server.client.status import own_path, result_of, session_of, status
from hmac_file_server.client.target import Target

PARTIAL: Final = "application/partial-upload"

_NUMBER: Final = re.compile("[0-9]{1,15}")
_ENDED: Final = frozenset({200, 204, 404, 405, 410, 501})


@dataclass(frozen=True, slots=True)
class Place:
    """Where an upload is begun, and whether a body there is the file and nothing else."""

    method: str
    path: str
    plain: bool


class Put:
    """A PUT as an upload protocol of the client; see `protocol.Remote`."""

    name = "put"
    parallel = False

    def __init__(self, exchanges: Exchanges, target: Target) -> None:
        self._exchanges = exchanges
        self._target = target
        self._resumable = True

    @property
    def resumable(self) -> bool:
        """Whether the server can resume; known once an upload has begun."""
        return self._resumable

    # ---- of Remote

    async def begin(self, facts: Facts) -> tuple[Session, Received]:
        """Without bytes where the server can resume; else nothing but the place where they will go."""
        place = self._place(facts)
        self._resumable = await self._can_resume(place.path)
        if not self._resumable:
            return await self._begin_plainly(facts)
        complete = "?1" if facts.size == 0 else "?0"
        fields = {
            "Upload-Complete": complete,
            "Upload-Length": str(facts.size),
            "Idempotency-Key": facts.key,
            **self._named(facts, place),
        }
        answer = await self._request(place.method, place.path, fields, size=facts.size)
        # That is the answer to a repeat when the first one has begun an upload which has bytes by now.
        found = answer.status == 409 and "location" in answer.headers and "upload-offset" in answer.headers
        if answer.status not in {200, 201, 204} and not found:
            raise refusal(answer)
        if facts.size == 0:
            session = Session(place.path.partition("?")[0], 0, 0, extra={"name": facts.name, "plain": True})
            return session, Received((), result_of(json_of(answer), self._target, session.id, facts.name, 0))
        location = answer.headers.get("location")
        if not location or "upload-complete" not in answer.headers:
            raise BadAnswer("the server said that uploads can be resumed, and did not begin one", status=answer.status)
        path = own_path(self._target, place.path, location)
        session = Session(path, facts.size, 0, extra={"name": facts.name})
        if found or facts.repeated:
            return session, await self.ask(session)
        return session, Received(())

    async def ask(self, session: Session, *, wait: float = 0.0) -> Received:
        """On this server its status, which disturbs no transfer; on others HEAD, which ends one."""
        if session.extra.get("plain"):
            return Received(())
        own = session_of(session.id)
        told = None
        if own is not None:
            told = await status(self._exchanges, self._target, session.id, own, session.size, wait=wait)
        if told is not None:
            if told.result is None:
                return await self._finish(session) if told.ranges == ((0, session.size),) else told
            slot = self._target.slot
            if slot is None:
                return told
            # That the server tells another path of the same file is no news for those who got this one.
            return replace(told, result=replace(told.result, url=self._target.origin + slot.partition("?")[0]))
        answer = await self._request("HEAD", session.id, {})
        if answer.status not in {200, 204}:
            raise refusal(answer)
        offset = _number(answer.headers.get("upload-offset", ""))
        if offset is None:
            raise BadAnswer("the server does not say how far this upload is", status=answer.status)
        if offset > session.size:
            raise SessionGone("the server has another upload at this place", code="length_conflict", status=200)
        return await self._finish(session) if offset == session.size else _told(offset, None)

    async def send(self, session: Session, piece: Piece, body: Body) -> Received:
        """PATCH to the end, or the whole PUT."""
        if session.extra.get("plain"):
            return await self._send_plainly(session, body)
        last = piece.stop == session.size
        fields = {
            "Content-Type": PARTIAL,
            "Upload-Offset": str(piece.start),
            "Upload-Complete": "?1" if last else "?0",
        }
        answer = await self._request("PATCH", session.id, fields, body)
        if answer.status not in {200, 201, 204}:
            raise _error(answer)
        if last:
            return Received(((0, session.size),), self._result(session, answer))
        offset = _number(answer.headers.get("upload-offset", ""))
        if offset is None or not piece.start <= offset <= piece.stop:
            raise BadAnswer("the server's Upload-Offset is not within what was sent", status=answer.status)
        return _told(offset, None)

    async def discard(self, session: Session) -> None:
        """DELETE; of a plain PUT there is nothing to end."""
        if session.extra.get("plain"):
            return
        answer = await self._request("DELETE", session.id, {})
        if answer.status not in _ENDED:
            raise refusal(answer)

    def saved(self, session: Session) -> Mapping[str, Any]:
        """The session's fields by name; of a plain PUT nothing, which could only begin anew."""
        if session.extra.get("plain"):
            return {}
        return {"url": session.id, "size": session.size, "expires": session.expires, "name": session.extra.get("name")}

    def restored(self, saved: Mapping[str, Any], facts: Facts) -> Session | None:
        """None when it cannot be one of ours, or is of another length."""
        url, expires = saved.get("url"), saved.get("expires")
        if not isinstance(url, str) or re.fullmatch("/[!-~]*", url) is None or saved.get("size") != facts.size:
            return None
        if not (expires is None or isinstance(expires, int | float)):
            return None
        self._resumable = True
        return Session(url, facts.size, 0, expires, {"name": facts.name})

    # ---- where

    def _place(self, facts: Facts) -> Place:
        target = self._target
        if target.slot is not None:
            return Place("PUT", target.slot, plain=True)
        if target.kind == "none":
            return Place(
                "PUT", target.given_path + (_segment(facts.name) if target.given_path.endswith("/") else ""), True
            )
        claims = target.claims
        if claims is None or not claims.operations or "put" in claims.operations:
            if claims is not None and claims.path is not None:
                return Place("PUT", f"{target.prefix}/{quote(claims.path)}", plain=True)
            if target.kind == "ticket":
                return Place("PUT", self._below(claims.prefix if claims is not None else None, facts), plain=True)
        return Place("POST", target.path("/upload"), plain=False)

    def _below(self, prefix: str | None, facts: Facts) -> str:
        """A path that nobody has: a repeat of the same upload finds it again by the key."""
        folder = re.sub("[^0-9A-Za-z]", "", facts.key)[:32] or "0"
        return "/".join((self._target.prefix, *filter(None, [quote(prefix or "")]), folder, _segment(facts.name)))

    def _named(self, facts: Facts, place: Place) -> dict[str, str]:
        fields = {} if facts.media_type is None else {"Content-Type": facts.media_type}
        if not place.plain:
            fields["Content-Disposition"] = f"attachment; filename*=UTF-8''{_segment(facts.name)}"
        return fields

    async def _can_resume(self, path: str) -> bool:
        answer = await self._exchanges.exchange(Request("OPTIONS", path, {}))
        return PARTIAL in {word.strip().lower() for word in answer.headers.get("accept-patch", "").split(",")}

    # ---- a plain PUT

    async def _begin_plainly(self, facts: Facts) -> tuple[Session, Received]:
        place = self._place(facts)
        path = place.path
        if not place.plain:
            if self._target.kind == "ticket":
                raise Refused(
                    "the server resumes no uploads by PUT, and this link permits no other PUT; use another protocol",
                    code="not_resumable",
                )
            path = self._below("upload", facts)
        extra = {"plain": True, "name": facts.name, "type": facts.media_type, "target": path}
        session = Session(path.partition("?")[0], facts.size, 0, extra=extra)
        if facts.size == 0:
            return session, await self._send_plainly(session, None)
        return session, Received(())

    async def _send_plainly(self, session: Session, body: Body | None) -> Received:
        media_type = session.extra.get("type")
        fields = {} if media_type is None else {"Content-Type": str(media_type)}
        path = str(session.extra.get("target", session.id))
        answer = await self._request("PUT", path, fields, body, size=session.size)
        if not 200 <= answer.status < 300:
            raise refusal(answer)
        ranges = ((0, session.size),) if session.size else ()
        return Received(ranges, self._result(session, answer))

    # ---- requests and answers

    async def _request(
        self, method: str, path: str, fields: Mapping[str, str], body: Body | None = None, *, size: int | None = None
    ) -> Answer:
        if size is None:
            size = 0 if body is None else body.length
        permission = self._target.permission(method, path, size=size)
        headers = {**permission, **fields}
        return await self._exchanges.exchange(Request(method, path, headers, body))

    async def _finish(self, session: Session) -> Received:
        """Every byte is there: complete it, or have the answer once more."""
        fields = {"Content-Type": PARTIAL, "Upload-Offset": str(session.size), "Upload-Complete": "?1"}
        answer = await self._request("PATCH", session.id, fields)
        if answer.status not in {200, 201, 204}:
            raise _error(answer)
        return Received(((0, session.size),), self._result(session, answer))

    def _result(self, session: Session, answer: Answer) -> Result:
        """A receipt where the server gives one, the URL of the PUT otherwise."""
        slot = self._target.slot
        told = json_of(answer)
        base = session.id if slot is None else slot
        return result_of(told, self._target, base, str(session.extra.get("name", "")), session.size)


def _told(offset: int, result: Result | None) -> Received:
    return Received(((0, offset),) if offset else (), result)


def _error(answer: Answer) -> UploadFailed:
    """As `refusal`, for servers that say it by nothing but the status and the draft's problem types."""
    error = refusal(answer)
    if answer.status == 409 and error.code == "http_409":
        error.code, error.retriable = "offset_mismatch", True
    return error


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _segment(name: str) -> str:
    """A file name as one segment of a path, and as filename* (RFC 8187)."""
    return quote(name, safe="", errors="replace")
