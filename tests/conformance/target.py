"""The server under test: how it is reached, and how what was stored is read back."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from urllib.parse import urljoin

from tests.conformance.catalogue import Failed, expect
from tests.conformance.connection import Address, Answer, Connection, Fields, NoAnswer, chunked, request_head

OFFSET_TYPE = "application/offset+octet-stream"
PARTIAL_TYPE = "application/partial-upload"


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere, so that a piece at a wrong place is found."""
    return random.Random(seed).randbytes(size)


@dataclass(slots=True)
class Target:
    """A server. `url`: where uploads are created. `headers`: sent with every creation, for its permission.

    `patience`: seconds that an answer may take. `notes`: what the running case remarks without failing.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    patience: float = 10.0
    notes: list[str] = field(default_factory=list)
    made: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def connect(self, url: str) -> Connection:
        """A new connection to where `url` leads. Failed when the server named something that is no URL."""
        try:
            address = Address.of(url)
        except ValueError as error:
            raise Failed(str(error)) from None
        return Connection(address, self.patience)

    def wait_reachable(self) -> bool:
        """Whether the server takes connections, now or within the patience: one that fell may be started again."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                self.connect(self.url).close()
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.1)
            else:
                return True

    def ask(
        self,
        method: str,
        url: str,
        fields: Fields | None = None,
        body: bytes | None = None,
        *,
        pieces: bool = False,
        trailers: Fields | None = None,
    ) -> Answer:
        """One request on a connection of its own. `pieces`: the body in chunks, without Content-Length."""
        sent = dict(fields or {})
        data = body or b""
        if pieces:
            sent["Transfer-Encoding"] = "chunked"
            data = chunked(data, trailers)
        elif body is not None or method in {"POST", "PUT", "PATCH", "DELETE"}:
            sent.setdefault("Content-Length", str(len(data)))
        with self.connect(url) as connection:
            connection.request(method, sent, data)
            return connection.answer(head=method == "HEAD")

    def begin(self, method: str, url: str, fields: Fields, body: bytes, *, accepted: bool = True) -> Connection:
        """A request of which only a part is sent. `fields` say how long it is to be; the caller closes it.

        `accepted`: the body is sent once the server asked for it, so that it has the request before any later one;
        a server that does not ask has a second, or the patience if that is shorter.
        """
        connection = self.connect(url)
        try:
            if accepted:
                connection.send(request_head(method, connection.address, {**fields, "Expect": "100-continue"}))
                connection.go_ahead(min(1.0, self.patience))
                connection.send(body)
            else:
                connection.send(request_head(method, connection.address, fields) + body)
        except BaseException:
            connection.close()
            raise
        return connection

    def ask_continue(self, method: str, url: str, fields: Fields, body: bytes) -> Answer:
        """As `ask`, with Expect: 100-continue: the body goes once the server has asked for it."""
        sent = {**fields, "Content-Length": str(len(body)), "Expect": "100-continue"}
        seen: list[Answer] = []
        with self.connect(url) as connection:
            connection.send(request_head(method, connection.address, sent))
            while True:
                found = connection.next_answer()
                if found.status >= 200:
                    return Answer(found.status, found.reason, found.fields, found.body, tuple(seen))
                seen.append(found)
                if found.status == 100:
                    connection.send(body)

    def created(self, base: str, answer: Answer, fields: Fields) -> str:
        """The upload's URL, from the answer that created it; it is deleted after the case."""
        location = answer.get("location")
        if location is None:
            raise Failed(f"{answer.status} without Location")
        url = urljoin(base, location)
        self.remember(url, fields)
        return url

    def remember(self, url: str, fields: Fields) -> None:
        """Delete this upload after the case, as well as the server lets us."""
        if all(url != known for known, _ in self.made):
            self.made.append((url, dict(fields)))

    def sweep(self) -> None:
        """Delete what the case created. A server that cannot is left alone."""
        made, self.made = self.made, []
        for url, fields in made:
            try:
                self.ask("DELETE", url, fields)
            except (OSError, NoAnswer):
                continue

    def note(self, text: str) -> None:
        """Remark something that is no failure: it stands in the report."""
        self.notes.append(text)

    def read_back(self, url: str) -> bytes | None:
        """What is stored as the upload at `url`, which is complete; None when the server has no way to read it.

        No protocol here says how. Known ways: GET on the upload's URL gives the content, or a redirection to
        it, or JSON whose member `url` leads to it.
        """
        for _ in range(4):
            answer = self.ask("GET", url)
            place = answer.json().get("url") if "json" in (answer.get("content-type") or "") else None
            if 300 <= answer.status < 400:
                place = answer.get("location")
            if not isinstance(place, str):
                return answer.body if answer.status == 200 else None
            url = urljoin(url, place)
        return None

    def expect_content(self, url: str, wanted: bytes) -> None:
        """Failed unless what is stored equals `wanted`; a note when it cannot be read."""
        stored = self.read_back(url)
        if stored is None:
            self.note("content not compared: the server does not give it back")
            return
        if stored == wanted:
            return
        same = next((at for at, (a, b) in enumerate(zip(stored, wanted, strict=False)) if a != b), None)
        where = f"first difference at {same}" if same is not None else "one is the beginning of the other"
        raise Failed(f"stored are {len(stored)} bytes, sent were {len(wanted)}; {where}")


def number(answer: Answer, name: str) -> int:
    """A field that has to be a non-negative integer."""
    value = answer.get(name)
    if value is None:
        raise Failed(f"{answer.status} without {name}")
    expect(value.isascii() and value.isdigit(), f"{name}: {value!r} is no non-negative integer")
    return int(value)


def expect_status(answer: Answer, *wanted: int, what: str = "") -> None:
    """Failed unless the status is one of these."""
    if answer.status not in wanted:
        places = " or ".join(map(str, wanted))
        raise Failed(f"{what + ': ' if what else ''}{answer.status} instead of {places}{_reason(answer)}")


def expect_ok(answer: Answer, what: str = "") -> None:
    """Failed unless the status is 2xx."""
    expect(answer.ok, f"{what + ': ' if what else ''}{answer.status} instead of 2xx{_reason(answer)}")


def expect_refused(answer: Answer, what: str = "") -> None:
    """Failed unless the status is 4xx."""
    expect(answer.refused, f"{what + ': ' if what else ''}{answer.status} instead of 4xx{_reason(answer)}")


def _reason(answer: Answer) -> str:
    text = answer.body[:160].decode("utf-8", "replace").strip()
    return f" ({text})" if text and answer.status >= 400 else ""
