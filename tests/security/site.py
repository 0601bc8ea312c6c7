"""A server asked over one line, and a picture of what is stored on it and around it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tests.fixtures.server import SECRET, FileServer
from tests.http.spellings import ESCAPE
from tests.http.wire import Answer, Line

PRIVATE = ".hmac-file-server"
CANARY = "canary.txt"
CANARY_BYTES = b"CANARY: nobody may read this"


class Site:
    """Requests as bytes, each answered before the next."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.line = Line(server.port)

    def plant(self) -> None:
        """Files that must neither be read nor changed, in the private folder and beside the storage folder."""
        (self.server.storage / PRIVATE / CANARY).write_bytes(CANARY_BYTES)
        (self.server.folder / CANARY).write_bytes(CANARY_BYTES)

    def around(self) -> dict[str, str]:
        """Digests of every file outside the storage folder, by path; the log is left out."""
        found = {}
        for path in self.server.folder.rglob("*"):
            if path.is_file() and path != self.server.log and not path.is_relative_to(self.server.storage):
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def escaped(self) -> list[Path]:
        """Files that climbing spellings try to make, in any folder above the storage folder."""
        places = [self.server.storage, *self.server.storage.parents]
        return [path for place in places for path in (place / ESCAPE, place / "tmp" / ESCAPE) if path.exists()]

    def ask(self, method: str, target: bytes, fields: Mapping[str, bytes] | None = None, body: bytes = b"") -> Answer:
        """One request; the answer is no fault of the server and holds nothing of it."""
        lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: t"]
        lines += [name.encode() + b": " + value for name, value in (fields or {}).items()]
        if body or method in {"PUT", "POST", "PATCH"}:
            lines.append(b"Content-Length: %d" % len(body))
        answer = self.line.ask(b"\r\n".join(lines) + b"\r\n\r\n" + body, head=method == "HEAD")
        assert answer.status < 500 or answer.status in {501, 505}, (method, target, fields, answer)
        for secret in (CANARY_BYTES, SECRET.encode(), str(self.server.folder).encode(), b"root:", b"Traceback"):
            assert secret not in answer.body, (method, target, fields, answer)
        return answer

    def close(self) -> None:
        self.line.close()
