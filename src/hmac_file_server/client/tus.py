"""Uploads by tus 1.0.0 (https://tus.io/protocols/resumable-upload) to this server or any other.

    OPTIONS  what the server can do; asked only for parts and checksums
    POST     Upload-Length, Upload-Metadata: begins an upload; Upload-Concat: a part, or the whole of the parts
    HEAD     how far it is
    PATCH    Upload-Offset, Upload-Checksum: appends
    DELETE   ends it

One PATCH carries everything that is missing, because a server keeps what came of a request that was cut. Of one with a
checksum it must not, so checksums need pieces. With `parallel` the file is sent as that many parts side by side, where
the server has the extension "concatenation".
"""

import asyncio
import base64
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

from hmac_file_server.client.errors import BadAnswer, Refused, SessionGone, UploadFailed, refusal
from hmac_file_server.client.protocol import Answer, Body, Exchanges, Facts, Piece, Received, Request, Result, Session
from hmac_file_server.client.status import own_path, result_of, session_of, status
from hmac_file_server.client.target import Target

VERSION: Final = "1.0.0"
LEAST_PART: Final = 1 << 20
"""Bytes below which a part of its own is not worth its requests."""
CHECKED_PIECE: Final = 5 << 20
"""Bytes of a piece with a checksum, unless another size is asked for."""

_STREAM: Final = "application/offset+octet-stream"
_NUMBER: Final = re.compile("[0-9]{1,19}")
_MOST_PARTS: Final = 64
_ENDED: Final = frozenset({200, 204, 404, 405, 410, 501})
_ALGORITHMS: Final = {"sha1": "sha1", "sha256": "sha256", "sha512": "sha512", "md5": "md5"}


class Tus:
    """tus as an upload protocol of the client; see `protocol.Remote`.

    `parallel` and `checksum` fall back to a plain upload where the server has no such extension.
    """

    name = "tus"
    resumable = True

    def __init__(
        self,
        exchanges: Exchanges,
        target: Target,
        *,
        parallel: int = 1,
        chunk_size: int | None = None,
        checksum: str | None = None,
    ) -> None:
        """`chunk_size`: bytes of one PATCH at most; `checksum`: "sha1", "sha256", "sha512" or "md5" with each."""
        if checksum is not None and checksum not in _ALGORITHMS:
            raise ValueError(f"checksum is one of {', '.join(_ALGORITHMS)}")
        self._exchanges = exchanges
        self._target = target
        self._wanted = min(parallel, _MOST_PARTS)
        self._chunk_size = chunk_size or (CHECKED_PIECE if checksum else 0)
        self._checksum = checksum
        self._parts: list[int] = []
        """How far each part of the current session is."""
        self._final: Result | None = None
        self._joining = asyncio.Lock()

    @property
    def parallel(self) -> bool:
        """Whether the current session has parts."""
        return len(self._parts) > 1

    # ---- of Remote

    async def begin(self, facts: Facts) -> tuple[Session, Received]:
        """One creation, or one for each part."""
        parts = await self._count(facts.size)
        self._parts = []
        self._final = None
        if parts == 1:
            answer = await self._create(facts, str(facts.size), facts.size, facts.key)
            path = self._location(answer)
            session = Session(path, facts.size, self._chunk_size, _expiry(answer), {"name": facts.name})
            # A repeat may have found an upload that has bytes, and an empty file is complete by now.
            if facts.repeated or not facts.size:
                return session, await self.ask(session)
            return session, Received(())
        length = math.ceil(facts.size / parts)
        sizes = [min(length, facts.size - start) for start in range(0, facts.size, length)]
        answers = [
            await self._create(facts, str(size), size, f"{facts.key}-{number}", concat="partial")
            for number, size in enumerate(sizes)
        ]
        paths = [self._location(answer) for answer in answers]
        expiries = [expiry for expiry in map(_expiry, answers) if expiry is not None]
        extra = {"parts": paths, "name": facts.name, "type": facts.media_type, "key": facts.key}
        session = Session(paths[0], facts.size, length, min(expiries, default=None), extra)
        self._parts = [0] * len(paths)
        return session, await self.ask(session) if facts.repeated else Received(())

    async def ask(self, session: Session, *, wait: float = 0.0) -> Received:
        """HEAD, of each part. On this server `wait` is a long poll, on another a pause before the HEAD."""
        paths = _parts_of(session)
        if paths:
            if wait > 0:
                await asyncio.sleep(wait)
            offsets = await asyncio.gather(*(self._offset(path, None) for path in paths))
            self._parts = [min(offset, size) for offset, size in zip(offsets, _sizes(session), strict=True)]
            return self._told(session, await self._joined(session) if self._whole(session) else None)
        if wait > 0:
            own = session_of(session.id)
            if own is not None:
                told = await status(self._exchanges, self._target, session.id, own, session.size, wait=wait)
                if told is not None:
                    return told
            await asyncio.sleep(wait)
        offset = await self._offset(session.id, session.size)
        return _sequential(offset, await self._result(session, session.id) if offset == session.size else None)

    async def send(self, session: Session, piece: Piece, body: Body) -> Received:
        """PATCH."""
        paths = _parts_of(session)
        path = paths[piece.chunk] if paths else session.id
        base = piece.chunk_start if paths else 0
        fields = {"Content-Type": _STREAM, "Upload-Offset": str(piece.start - base)}
        if self._checksum is not None:
            digest = await body.digest(_ALGORITHMS[self._checksum])
            fields["Upload-Checksum"] = f"{self._checksum} {base64.b64encode(digest).decode('ascii')}"
        answer = await self._request("PATCH", path, fields, body)
        if answer.status not in {200, 204}:
            raise _error(answer)
        offset = _number(answer.headers.get("upload-offset", ""))
        if offset is None or not piece.start - base <= offset <= piece.stop - base:
            raise BadAnswer("the server's Upload-Offset is not within what was sent", status=answer.status)
        if not paths:
            complete = offset == session.size
            return _sequential(offset, await self._result(session, path) if complete else None, _expiry(answer))
        self._parts[piece.chunk] = offset
        return self._told(session, await self._joined(session) if self._whole(session) else None)

    async def discard(self, session: Session) -> None:
        """DELETE, of each part; a server that has no such extension keeps them until they expire."""
        for path in _parts_of(session) or [session.id]:
            answer = await self._request("DELETE", path, {})
            if answer.status not in _ENDED:
                raise refusal(answer)

    def saved(self, session: Session) -> Mapping[str, Any]:
        """The session's fields by name."""
        return {
            "url": session.id,
            "size": session.size,
            "chunk_size": session.chunk_size,
            "expires": session.expires,
            "extra": dict(session.extra),
        }

    def restored(self, saved: Mapping[str, Any], facts: Facts) -> Session | None:
        """None when it cannot be one of ours, or is of another length."""
        url, size, chunk_size = saved.get("url"), saved.get("size"), saved.get("chunk_size")
        expires, extra = saved.get("expires"), saved.get("extra")
        if not (_is_path(url) and size == facts.size and type(chunk_size) is int and isinstance(extra, dict)):
            return None
        if not (expires is None or isinstance(expires, int | float)):
            return None
        session = Session(str(url), facts.size, chunk_size, expires, extra)
        paths = extra.get("parts", [])
        if not (isinstance(paths, list) and all(map(_is_path, paths))):
            return None
        if paths and (chunk_size <= 0 or len(_sizes(session)) != len(paths) or not isinstance(extra.get("key"), str)):
            return None
        self._parts = [0] * len(paths)
        self._final = None
        return session

    # ---- requests

    async def _request(self, method: str, path: str, fields: Mapping[str, str], body: Body | None = None) -> Answer:
        permission = self._target.permission(method, path, size=0 if body is None else body.length)
        headers = {"Tus-Resumable": VERSION, **permission, **fields}
        return await self._exchanges.exchange(Request(method, path, headers, body))

    def _endpoint(self) -> str:
        """Where uploads are begun: the URL that was given, or this server's own place for them below it."""
        target = self._target
        if target.kind == "none" and target.prefix:
            return target.given_path
        return "/".join((target.prefix.removesuffix("/tus"), "tus/"))

    async def _create(self, facts: Facts, length: str, size: int, key: str, *, concat: str = "") -> Answer:
        path = self._endpoint()
        fields = {"Tus-Resumable": VERSION, "Idempotency-Key": key}
        if concat:
            fields["Upload-Concat"] = concat
        if length:
            fields["Upload-Length"] = length
        else:
            # What a signature binds: parts have lengths of their own, and the whole of them none.
            fields["X-Total-Size"] = str(size)
        if concat != "partial":
            fields["Upload-Metadata"] = metadata(facts.name, facts.media_type)
        permission = self._target.permission("POST", path, size=size)
        headers = {**permission, **fields}
        answer = await self._exchanges.exchange(Request("POST", path, headers))
        if answer.status != 201:
            raise _error(answer)
        return answer

    def _location(self, answer: Answer) -> str:
        location = answer.headers.get("location")
        if not location:
            raise BadAnswer("the server began an upload and did not say where", retriable=False)
        return own_path(self._target, self._endpoint(), location)

    async def _offset(self, path: str, size: int | None) -> int:
        answer = await self._request("HEAD", path, {})
        if answer.status not in {200, 204}:
            raise self._lost(answer)
        offset = _number(answer.headers.get("upload-offset", ""))
        length = _number(answer.headers.get("upload-length", ""))
        if offset is None:
            raise BadAnswer("the server does not say how far this upload is", status=answer.status)
        if size is not None and (offset > size or length not in {size, None}):
            raise SessionGone("the server has another upload at this place", code="length_conflict", status=200)
        return offset

    def _lost(self, answer: Answer) -> UploadFailed:
        """tus: an upload that is not found is answered with 404, 410 or 403."""
        if answer.status == 403 and self._target.kind == "none":
            return SessionGone("the server does not know this upload any more", code="upload_not_found", status=403)
        return _error(answer)

    async def _count(self, size: int) -> int:
        """How many parts to send side by side."""
        wanted = min(self._wanted, size // LEAST_PART)
        if wanted <= 1 and self._checksum is None:
            return 1
        path = self._endpoint()
        answer = await self._exchanges.exchange(Request("OPTIONS", path, {}))
        able = {word.strip() for word in answer.headers.get("tus-extension", "").split(",")}
        most = _number(answer.headers.get("tus-max-size", "").strip())
        if most is not None and size > most:
            raise Refused(f"the server takes files of up to {most} bytes", code="too_large", status=413)
        algorithms = {word.strip() for word in answer.headers.get("tus-checksum-algorithm", "").split(",")}
        if self._checksum is not None and ("checksum" not in able or self._checksum not in algorithms):
            self._checksum = None
        return wanted if wanted > 1 and "concatenation" in able else 1

    # ---- parts

    def _whole(self, session: Session) -> bool:
        return self._parts == _sizes(session)

    def _told(self, session: Session, result: Result | None) -> Received:
        ranges: list[tuple[int, int]] = []
        start = 0
        for offset, size in zip(self._parts, _sizes(session), strict=True):
            if offset:
                if ranges and ranges[-1][1] == start:
                    ranges[-1] = (ranges[-1][0], start + offset)
                else:
                    ranges.append((start, start + offset))
            start += size
        return Received(tuple(ranges), result)

    async def _joined(self, session: Session) -> Result:
        """Make the whole of the parts, once: two of them may have ended at the same moment."""
        async with self._joining:
            if self._final is None:
                self._final = await self._join(session)
            return self._final

    async def _join(self, session: Session) -> Result:
        extra = session.extra
        facts = Facts(str(extra.get("name", "")), session.size, extra.get("type"), str(extra["key"]))
        concat = "final;" + " ".join(quote(path, safe="/:?&=%+,;@~!$'()*") for path in _parts_of(session))
        try:
            answer = await self._create(facts, "", session.size, f"{facts.key}-final", concat=concat)
        except Refused as error:
            if error.code == "part_missing":
                raise SessionGone(error.detail, code=error.code, status=error.status) from error
            raise
        return await self._result(session, self._location(answer))

    # ---- results

    async def _result(self, session: Session, path: str) -> Result:
        """This server says under which URL the file is served; on others that is the upload's."""
        name = str(session.extra.get("name", ""))
        own = session_of(path)
        if own is not None:
            told = await status(self._exchanges, self._target, path, own, session.size)
            if told is not None and told.result is not None:
                return told.result
        return result_of({}, self._target, path, name, session.size)


def metadata(name: str, media_type: str | None) -> str:
    """Upload-Metadata with the file's name and type."""
    pairs = {"filename": name, **({} if media_type is None else {"filetype": media_type})}
    return ",".join(
        f"{key} {base64.b64encode(value.encode('utf-8', 'replace')).decode('ascii')}" for key, value in pairs.items()
    )


def _error(answer: Answer) -> UploadFailed:
    """As `refusal`, for servers that say it by nothing but the status."""
    error = refusal(answer)
    if answer.status == 409 and error.code == "http_409":
        error.code, error.retriable = "offset_mismatch", True
    if answer.status == 460:
        error.code, error.retriable = "checksum_mismatch", True
    return error


def _sequential(offset: int, result: Result | None, expires: float | None = None) -> Received:
    return Received(((0, offset),) if offset else (), result, expires=expires)


def _parts_of(session: Session) -> list[str]:
    paths: list[str] = session.extra.get("parts", [])
    return paths


def _sizes(session: Session) -> list[int]:
    """Bytes of each part; chunks of the session are its parts."""
    if not _parts_of(session):
        return []
    return [
        min(session.chunk_size, session.size - start) for start in range(0, session.size, max(1, session.chunk_size))
    ]


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _is_path(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("/[!-~]*", value) is not None


def _expiry(answer: Answer) -> float | None:
    """Upload-Expires as epoch seconds."""
    try:
        return parsedate_to_datetime(answer.headers["upload-expires"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
