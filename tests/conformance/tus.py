"""A client of tus 1.0.0 that can also break its rules."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property

from tests.conformance.catalogue import expect, skip
from tests.conformance.connection import Answer, Connection, Fields, NoAnswer
from tests.conformance.target import OFFSET_TYPE, Target, expect_ok, expect_status, number

RESUMABLE = {"Tus-Resumable": "1.0.0"}


@dataclass
class Tus:
    """Requests of tus 1.0.0 to one server."""

    target: Target

    @cached_property
    def configuration(self) -> Answer:
        """The answer to OPTIONS."""
        return self.target.ask("OPTIONS", self.target.url)

    @cached_property
    def spoken(self) -> str | None:
        """Why tus 1.0.0 is not spoken here; None when it is."""
        try:
            answer = self.configuration
        except (NoAnswer, OSError) as error:
            return f"OPTIONS: {error}"
        if "1.0.0" not in answer.words("tus-version"):
            return f"OPTIONS names no tus 1.0.0 ({answer.status}, Tus-Version {answer.get('tus-version')!r})"
        return None

    @cached_property
    def extensions(self) -> frozenset[str]:
        return frozenset(self.configuration.words("tus-extension"))

    @cached_property
    def max_size(self) -> int | None:
        value = self.configuration.get("tus-max-size")
        return int(value) if value is not None and value.isdecimal() else None

    def need_max_size(self) -> int:
        if self.max_size is None:
            skip("the server names no Tus-Max-Size")
        return self.max_size

    def post(self, fields: Fields, body: bytes = b"", *, pieces: bool = False) -> Answer:
        """A creation, however wrong. What it created is deleted after the case."""
        answer = self.target.ask(
            "POST", self.target.url, {**self.target.headers, **RESUMABLE, **fields}, body, pieces=pieces
        )
        if answer.ok and answer.has("location"):
            self.target.created(self.target.url, answer, RESUMABLE)
        return answer

    def create(self, length: int | None, fields: Fields | None = None, body: bytes = b"") -> str:
        """The URL of a new upload; `length` None defers it."""
        size = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        kind = {"Content-Type": OFFSET_TYPE} if body else {}
        answer = self.post({**size, **kind, **(fields or {})}, body)
        expect_status(answer, 201, what="creation")
        return self.target.created(self.target.url, answer, RESUMABLE)

    def final(self, *parts: str, fields: Fields | None = None) -> str:
        """The URL of a new upload made of partial ones."""
        answer = self.post({"Upload-Concat": "final;" + " ".join(parts), **(fields or {})})
        expect_status(answer, 201, what="creation of the final upload")
        return self.target.created(self.target.url, answer, RESUMABLE)

    def head(self, url: str, fields: Fields | None = None) -> Answer:
        return self.target.ask("HEAD", url, {**RESUMABLE, **(fields or {})})

    def patch(
        self,
        url: str,
        offset: int | str,
        body: bytes,
        fields: Fields | None = None,
        *,
        pieces: bool = False,
        trailers: Fields | None = None,
    ) -> Answer:
        return self.target.ask(
            "PATCH", url, {**self.patch_fields(offset), **(fields or {})}, body, pieces=pieces, trailers=trailers
        )

    def patch_fields(self, offset: int | str) -> dict[str, str]:
        return {**RESUMABLE, "Content-Type": OFFSET_TYPE, "Upload-Offset": str(offset)}

    def append(self, url: str, offset: int, body: bytes, fields: Fields | None = None) -> None:
        """A PATCH that has to succeed."""
        answer = self.patch(url, offset, body, fields)
        expect_status(answer, 204, what=f"PATCH of {len(body)} bytes at {offset}")
        found = number(answer, "Upload-Offset")
        expect(found == offset + len(body), f"Upload-Offset {found} after {len(body)} bytes at {offset}")

    def offset(self, url: str) -> int:
        """The offset that HEAD tells."""
        answer = self.head(url)
        expect_ok(answer, "HEAD")
        return number(answer, "Upload-Offset")

    def expect_offset(self, url: str, wanted: int) -> None:
        found = self.offset(url)
        expect(found == wanted, f"HEAD says offset {found} instead of {wanted}")

    def begin(
        self,
        url: str,
        offset: int,
        length: int,
        body: bytes,
        fields: Fields | None = None,
        *,
        accepted: bool = True,
    ) -> Connection:
        """A PATCH that announces `length` bytes and sends only `body`. See `Target.begin`."""
        sent = {**self.patch_fields(offset), "Content-Length": str(length), **(fields or {})}
        return self.target.begin("PATCH", url, sent, body, accepted=accepted)

    def finish(self, url: str, data: bytes, sent: int) -> None:
        """Do what a client does that lost its connection after `sent` bytes: ask, go on, and ask again after a 409.

        The old request may be met on its way: then the offset moves after it was told. Failed when it is never
        accepted, when it is beyond what was sent, or when the content is not that of the client at the end.
        """
        for attempt in range(5):
            offset = self.offset(url)
            expect(offset <= sent, f"offset {offset} after {sent} bytes")
            answer = self.patch(url, offset, data[offset:])
            if answer.status != 409:
                break
            self.target.note(f"attempt {attempt + 1} at {offset} was answered 409")
        expect_status(answer, 204, what=f"PATCH at {offset} after {sent} bytes and a cut")
        self.expect_offset(url, len(data))
        self.target.expect_content(url, data)

    def missing(self) -> str:
        """The URL of an upload that never was, in the shape of one that is."""
        url = self.create(10)
        last = url.rstrip("/").rsplit("/", 1)[1]
        turned = last[:-4] + "".join("0" if sign != "0" else "1" for sign in last[-4:])
        return url.rstrip("/").rsplit("/", 1)[0] + "/" + turned


def metadata(**pairs: bytes) -> str:
    """Upload-Metadata of these keys and values."""
    return ",".join(f"{key} {base64.b64encode(value).decode()}" for key, value in pairs.items())
