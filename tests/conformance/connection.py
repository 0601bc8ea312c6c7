"""A small HTTP/1.1 client on a raw socket: it sees interim answers, sends trailers, and stops wherever it likes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import socket
import ssl
import struct
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlsplit

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r?\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r?\n")
_MOST_HEAD = 1 << 18

Fields = Mapping[str, str]


class NoAnswer(Exception):  # noqa: N818 - what the server did, no error of this program
    """The server closed, reset or kept silent where an answer was due."""


class Malformed(Exception):  # noqa: N818 - what the server did, no error of this program
    """What the server sent is not HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `fields`: names in lower case, in the order they came. `interim`: the 1xx before it."""

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes = b""
    interim: tuple[Answer, ...] = ()

    def get(self, name: str) -> str | None:
        """All values of a field, joined with commas as RFC 9110 allows; None when there is none."""
        values = [value for key, value in self.fields if key == name.lower()]
        return ", ".join(values) if values else None

    def has(self, name: str) -> bool:
        return self.get(name) is not None

    def words(self, name: str) -> set[str]:
        """The members of a comma-separated field, in lower case."""
        return {word.strip().lower() for word in (self.get(name) or "").split(",") if word.strip()}

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        return 400 <= self.status < 500

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one when it is anything else."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an URL leads: host, port, whether over TLS, and what the request line and Host say."""

    host: str
    port: int
    tls: bool
    path: str
    authority: str

    @classmethod
    def of(cls, url: str) -> Address:
        """ValueError for what is no http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"no http URL: {url!r}")
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        authority = parts.netloc.rpartition("@")[2]
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, path, authority)


def request_head(method: str, address: Address, fields: Fields) -> bytes:
    """Request line and fields, with the empty line."""
    lines = [f"{method} {address.path} HTTP/1.1", f"Host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunked(body: bytes, trailers: Fields | None = None, *, size: int = 8192) -> bytes:
    """`body` in chunks of `size` bytes, with the last chunk and the trailers."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    lines = "".join(f"{name}: {value}\r\n" for name, value in (trailers or {}).items())
    return sent + b"0\r\n" + lines.encode("latin-1") + b"\r\n"


class Connection:
    """One connection. Every wait is bounded by `patience` seconds."""

    def __init__(self, address: Address, patience: float) -> None:
        self.address = address
        self.patience = patience
        self.gone = False
        self._received = bytearray()
        self._ended = False
        sock = socket.create_connection((address.host, address.port), timeout=patience)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=address.host)
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        """Send all of it, as long as the server takes it; `gone` says that it did not."""
        if self.gone:
            return
        try:
            self._sock.settimeout(self.patience)
            self._sock.sendall(data)
        except (OSError, ssl.SSLError):
            # It may have said its last word already: that is still read.
            self.gone = True

    def request(self, method: str, fields: Fields, body: bytes = b"") -> None:
        """A whole request in one piece; Content-Length has to be among the fields."""
        self.send(request_head(method, self.address, fields) + body)

    def finish(self) -> None:
        """No more will be sent: FIN."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Drop the connection with a RST, as a network does that forgot it."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def delivered(self) -> bool:
        """Wait until the other side's kernel has acknowledged everything sent; False if it never does."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            queued = struct.unpack("i", fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
            if queued == 0:
                return True
            time.sleep(0.001)
        return False

    def ended(self, seconds: float | None = None) -> bool:
        """Whether the server ends this connection, or answers on it with a final answer, in time."""
        deadline = time.monotonic() + (self.patience if seconds is None else seconds)
        while not self._ended:
            answer = self._parse(head=False, whole=False)
            if answer is not None and answer.status >= 200:
                return True
            if answer is None and not self._more(deadline):
                return self._ended
        return True

    def next_answer(self, *, head: bool = False, seconds: float | None = None) -> Answer:
        """The next answer, interim or final. NoAnswer when there is none in time."""
        deadline = time.monotonic() + (self.patience if seconds is None else seconds)
        while True:
            answer = self._parse(head=head, whole=self._ended)
            if answer is not None:
                return answer
            if self._ended:
                raise NoAnswer(f"the connection was closed after {bytes(self._received[:120])!r}")
            if not self._more(deadline):
                if self._ended:
                    continue
                raise NoAnswer("no answer in time")

    def answer(self, *, head: bool = False, seconds: float | None = None) -> Answer:
        """The final answer, with the interim ones before it."""
        interim: list[Answer] = []
        while True:
            found = self.next_answer(head=head, seconds=seconds)
            if found.status >= 200:
                return replace(found, interim=tuple(interim))
            interim.append(found)

    def interim(self, seconds: float) -> Answer | None:
        """An interim answer if one comes within `seconds`; nothing is lost when a final one does."""
        deadline = time.monotonic() + seconds
        while True:
            line = _STATUS.match(self._received)
            if line is not None and not line.group(1).startswith(b"1"):
                return None
            answer = self._parse(head=False, whole=False) if line is not None else None
            if answer is not None:
                return answer
            if self._ended or not self._more(deadline):
                return None

    def go_ahead(self, seconds: float) -> bool:
        """Wait for 100 (Continue), dropping other interim answers. False when none comes in time."""
        deadline = time.monotonic() + seconds
        while (found := self.interim(deadline - time.monotonic())) is not None:
            if found.status == 100:
                return True
        return False

    def _more(self, deadline: float) -> bool:
        """Read once; False when nothing came before the deadline or nothing will."""
        left = deadline - time.monotonic()
        if left <= 0 or self._ended:
            return False
        self._sock.settimeout(left)
        try:
            data = self._sock.recv(1 << 18)
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self._ended = True
            return False
        self._received += data
        return True

    def _parse(self, *, head: bool, whole: bool) -> Answer | None:
        """Take one answer from what was read; None while it is not whole. `whole`: nothing more will come."""
        data = self._received
        if not data:
            return None
        line = _STATUS.match(data)
        if line is None:
            if b"\n" in data or len(data) > _MOST_HEAD:
                raise Malformed(f"no status line: {bytes(data[:80])!r}")
            return None
        position = line.end()
        fields: list[tuple[str, str]] = []
        while not data.startswith((b"\r\n", b"\n"), position):
            pair = _FIELD.match(data, position)
            if pair is None:
                if data.find(b"\n", position) >= 0 or len(data) - position > _MOST_HEAD:
                    raise Malformed(f"no field line: {bytes(data[position : position + 80])!r}")
                return None
            fields.append((pair.group(1).decode().lower(), pair.group(2).decode("latin-1")))
            position = pair.end()
        position += 2 if data.startswith(b"\r\n", position) else 1
        answer = Answer(int(line.group(1)), (line.group(2) or b"").decode("latin-1"), tuple(fields))
        taken = _body(answer, data, position, head=head, whole=whole)
        if taken is None:
            return None
        body, position = taken
        del data[:position]
        return replace(answer, body=body)


def _body(answer: Answer, data: bytearray, start: int, *, head: bool, whole: bool) -> tuple[bytes, int] | None:
    """The body that begins at `start` and where it ends; None while it is not whole."""
    if head or answer.status < 200 or answer.status in {204, 304}:
        return b"", start
    if "chunked" in answer.words("transfer-encoding"):
        return _unchunk(data, start)
    length = answer.get("content-length")
    if length is None:
        return (bytes(data[start:]), len(data)) if whole else None
    if not length.isdecimal():
        raise Malformed(f"Content-Length: {length}")
    stop = start + int(length)
    return (bytes(data[start:stop]), stop) if len(data) >= stop else None


def _unchunk(data: bytearray, position: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        try:
            size = int(bytes(data[position:end]).split(b";")[0], 16)
        except ValueError:
            raise Malformed(f"no chunk size: {bytes(data[position:end])!r}") from None
        position = end + 2
        if size == 0:
            while not data.startswith(b"\r\n", position):
                end = data.find(b"\r\n", position)
                if end < 0:
                    return None
                position = end + 2
            return bytes(body), position + 2
        if len(data) < position + size + 2:
            return None
        body += data[position : position + size]
        position += size + 2
