"""A client of the IETF draft in any of its interop versions, which can also break its rules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urljoin

from tests.conformance.catalogue import Failed, Version, expect
from tests.conformance.connection import Answer, Connection, Fields, NoAnswer
from tests.conformance.structured import Bare, dictionary, item
from tests.conformance.target import PARTIAL_TYPE, Target, expect_ok, number

INTEROP = "Upload-Draft-Interop-Version"
PROBLEM = "https://iana.org/assignments/http-problem-types#"
LIMIT_KEYS = frozenset({"max-size", "min-size", "max-append-size", "min-append-size", "max-age", "expires"})


@dataclass
class Draft:
    """Requests in one version of the draft to one server."""

    target: Target
    version: Version

    @cached_property
    def spoken(self) -> str | None:
        """Why this version is not spoken here; None when it is."""
        name = "the form without a version" if self.version is None else f"version {self.version}"
        try:
            answer = self.post(last=False)
            if not answer.ok or not answer.has("location"):
                return f"{name}: a creation is answered {answer.status}, Location {answer.get('location')!r}"
            found = self.head(urljoin(self.target.url, answer.get("location") or ""))
        except (NoAnswer, OSError) as error:
            return f"{name}: {error}"
        if not found.ok or not found.has("upload-offset"):
            return f"{name}: HEAD is answered {found.status}, Upload-Offset {found.get('upload-offset')!r}"
        return None

    @property
    def newest(self) -> int:
        """The version, with the form without one as the newest."""
        return 99 if self.version is None else self.version

    @property
    def fields(self) -> dict[str, str]:
        """What every request carries."""
        return {} if self.version is None else {INTEROP: str(self.version)}

    @property
    def completeness(self) -> str:
        """Name of the field that says whether an upload is complete."""
        return "Upload-Incomplete" if self.version == 3 else "Upload-Complete"

    def last_fields(self, last: bool) -> dict[str, str]:
        """That this request ends the upload, or does not."""
        return {self.completeness: "?1" if last != (self.version == 3) else "?0"}

    def said_complete(self, answer: Answer) -> bool | None:
        """What an answer says; None when it says nothing. Failed when it is no boolean."""
        value = answer.get(self.completeness)
        if value is None:
            return None
        try:
            found = item(value)
        except ValueError as error:
            raise Failed(f"{self.completeness}: {error}") from None
        if not isinstance(found, bool):
            raise Failed(f"{self.completeness}: {value!r} is no boolean")
        return found != (self.version == 3)

    def expect_complete(self, answer: Answer, wanted: bool, what: str = "") -> None:
        found = self.said_complete(answer)
        expect(found is wanted, f"{what}{': ' if what else ''}{self.completeness}: {answer.get(self.completeness)!r}")

    def create_fields(self, *, last: bool, length: int | None = None) -> dict[str, str]:
        """Fields of a creation. `length` is told where the version knows how."""
        fields = {**self.target.headers, **self.fields, **self.last_fields(last)}
        if length is not None and self.newest >= 6:
            fields["Upload-Length"] = str(length)
        fields["Content-Type"] = "application/octet-stream"
        return fields

    def post(
        self,
        *,
        last: bool,
        body: bytes = b"",
        length: int | None = None,
        fields: Fields | None = None,
        pieces: bool = False,
    ) -> Answer:
        """A creation, however wrong. What it created is deleted after the case."""
        sent = {**self.create_fields(last=last, length=length), **(fields or {})}
        answer = self.target.ask("POST", self.target.url, sent, body, pieces=pieces)
        self.location(answer)
        return answer

    def location(self, answer: Answer) -> str | None:
        """The upload resource that an answer, or an interim one before it, names; it is deleted after the case."""
        for found in (*answer.interim, answer):
            place = found.get("location")
            if place is not None and (found.status == 104 or self.said_complete(found) is not True):
                url = urljoin(self.target.url, place)
                if found.status == 104 or found.ok:
                    self.target.remember(url, self.fields)
                return url
        return None

    def create(self, length: int | None = None, body: bytes = b"", fields: Fields | None = None) -> str:
        """The URL of a new upload that this request does not complete."""
        answer = self.post(last=False, body=body, length=length, fields=fields)
        expect_ok(answer, "creation")
        url = self.location(answer)
        if url is None:
            raise Failed("a creation without Location")
        return url

    def head(self, url: str, fields: Fields | None = None) -> Answer:
        return self.target.ask("HEAD", url, {**self.fields, **(fields or {})})

    def delete(self, url: str) -> Answer:
        return self.target.ask("DELETE", url, self.fields)

    def patch_fields(self, offset: int | str, *, last: bool) -> dict[str, str]:
        kind = PARTIAL_TYPE if self.newest >= 6 else "application/octet-stream"
        return {**self.fields, "Content-Type": kind, "Upload-Offset": str(offset), **self.last_fields(last)}

    def patch(
        self,
        url: str,
        offset: int | str,
        body: bytes,
        *,
        last: bool = False,
        fields: Fields | None = None,
        pieces: bool = False,
    ) -> Answer:
        sent = {**self.patch_fields(offset, last=last), **(fields or {})}
        return self.target.ask("PATCH", url, sent, body, pieces=pieces)

    def append(self, url: str, offset: int, body: bytes, *, last: bool = False, fields: Fields | None = None) -> Answer:
        """A PATCH that has to succeed."""
        answer = self.patch(url, offset, body, last=last, fields=fields)
        expect_ok(answer, f"PATCH of {len(body)} bytes at {offset}")
        return answer

    def begin(
        self,
        url: str,
        offset: int,
        length: int,
        body: bytes,
        *,
        last: bool = True,
        accepted: bool = True,
    ) -> Connection:
        """A PATCH that announces `length` bytes and sends only `body`. See `Target.begin`."""
        sent = {**self.patch_fields(offset, last=last), "Content-Length": str(length)}
        return self.target.begin("PATCH", url, sent, body, accepted=accepted)

    def offset(self, url: str) -> int:
        """The offset that HEAD tells."""
        answer = self.head(url)
        expect_ok(answer, "HEAD")
        return number(answer, "Upload-Offset")

    def expect_state(self, url: str, offset: int, *, complete: bool) -> None:
        """Failed unless HEAD tells this offset and completeness."""
        answer = self.head(url)
        expect_ok(answer, "HEAD")
        found = number(answer, "Upload-Offset")
        expect(found == offset, f"HEAD says offset {found} instead of {offset}")
        self.expect_complete(answer, complete, "HEAD")

    def expect_content(self, url: str, answer: Answer | None, wanted: bytes) -> None:
        """Compare what is stored: by the final answer's JSON member `url`, or else as the target knows."""
        place = answer.json().get("url") if answer is not None else None
        self.target.expect_content(urljoin(url, place) if isinstance(place, str) else url, wanted)

    def limits(self, answer: Answer) -> dict[str, Bare] | None:
        """Upload-Limit; None when there is none. Failed when it breaks its rules."""
        value = answer.get("upload-limit")
        if value is None:
            return None
        try:
            members = dictionary(value)
        except ValueError as error:
            raise Failed(f"Upload-Limit: {error}") from None
        for key in LIMIT_KEYS & members.keys():
            found = members[key]
            whole = isinstance(found, int) and not isinstance(found, bool) and found >= 0
            expect(whole, f"Upload-Limit: {key}={found!r}")
        return members

    def expect_problem(self, answer: Answer, name: str) -> dict[str, object]:
        """The problem document, which has to be of this type."""
        kind = (answer.get("content-type") or "").split(";")[0].strip().lower()
        expect(kind == "application/problem+json", f"{answer.status} with Content-Type {kind!r}")
        found = answer.json()
        expect(found.get("type") == PROBLEM + name, f"type {found.get('type')!r}")
        return found

    def missing(self) -> str:
        """The URL of an upload that never was, in the shape of one that is."""
        url = self.create()
        last = url.rstrip("/").rsplit("/", 1)[1]
        turned = last[:-4] + "".join("0" if sign != "0" else "1" for sign in last[-4:])
        return url.rstrip("/").rsplit("/", 1)[0] + "/" + turned
