"""Two servers that do everything wrong, so that a case that cannot fail is noticed.

Both name every protocol, so that nothing is skipped. `nodding` agrees to everything and tells wrong offsets, wrong
lengths and no field that has to be there; `grudging` creates uploads, and then refuses or hangs.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import socketserver
import threading
from collections.abc import Iterator

_EXTENSIONS = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation"
_count = itertools.count()

Head = tuple[str, dict[str, str]]
Fields = list[tuple[str, str]]


class _Handler(socketserver.StreamRequestHandler):
    """One request, one answer, and the connection is closed."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            method, fields = self.read_head()
            if isinstance(self.server, Toy) and self.server.grudging:
                self.grudge(method, fields)
            else:
                self.nod(method, fields)

    def read_head(self) -> Head:
        method = self.rfile.readline().decode("latin-1").split(" ")[0]
        fields: dict[str, str] = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return method, fields

    def answer(self, status: int, fields: Fields, body: bytes = b"", *, head: bool = False) -> None:
        lines = [f"HTTP/1.1 {status} Toy", *(f"{name}: {value}" for name, value in fields)]
        if status >= 200:
            lines += [f"Content-Length: {len(body)}", "Connection: close"]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (b"" if head else body))

    def nod(self, method: str, fields: dict[str, str]) -> None:
        """Say yes, and nothing that is true."""
        same = ("Location", "/files/the-one-and-only")
        if method == "OPTIONS":
            told = [("Tus-Extension", f"{_EXTENSIONS},concatenation-unfinished,checksum-trailer")]
            told += [("Tus-Max-Size", "lots"), ("Access-Control-Allow-Origin", "*"), ("Upload-Limit", 'max-age="soon"')]
            self.answer(202, told if "tus-resumable" in fields else [*told, ("Tus-Version", "1.0.0")])
            return
        if method != "HEAD":
            self.answer(104, [same] if method == "PATCH" else [])
        if method == "POST" and "x-http-method-override" not in fields:
            told = [same, ("Upload-Complete", "?0"), ("Upload-Incomplete", "?1"), ("Upload-Limit", "max-size=5")]
            told += smuggled(fields)
            self.answer(201 if "tus-resumable" in fields else 200, told)
        elif method == "HEAD":
            told = [("Upload-Offset", "7"), ("Upload-Length", "many"), ("Upload-Complete", "?1")]
            self.answer(203, [*told, ("Upload-Incomplete", "?0"), ("Upload-Limit", 'max-age="soon"')], head=True)
        elif method == "PUT":
            self.answer(308, [("Range", "bytes=0-0")])
        elif method == "GET":
            self.answer(200, [], b"something else")
        else:
            told = [("Upload-Offset", "3"), ("Upload-Complete", "maybe"), ("Upload-Incomplete", "maybe")]
            self.answer(202, told, b"answer %d" % next(_count))

    def grudge(self, method: str, fields: dict[str, str]) -> None:
        """Create, and then fail; a PATCH that does not come to its end hangs."""
        draft = "tus-resumable" not in fields
        if method == "OPTIONS":
            told = [("Tus-Version", "1.0.0"), ("Tus-Extension", f"{_EXTENSIONS},checksum-trailer")]
            self.answer(200, [*told, ("Tus-Max-Size", "1000")])
        elif method == "POST":
            place = f"http://localhost:{self.connection.getsockname()[1]}/files/{next(_count):032x}"
            self.answer(201, [("Location", place)])
        elif method == "HEAD":
            self.answer(200 if draft else 409, [("Upload-Offset", "0")] if draft else [], head=True)
        elif method == "PUT" and fields.get("content-range", "").startswith("bytes */"):
            self.answer(308, [])
        else:
            self.rfile.read(int(fields.get("content-length", "0")))
            self.answer(500, [])


def smuggled(fields: dict[str, str]) -> Fields:
    """What comes of a file name that is put into a field as it is."""
    value = fields.get("upload-metadata", "").partition("filename ")[2].partition(",")[0]
    with contextlib.suppress(binascii.Error):
        name = base64.b64decode(value).decode("latin-1")
        return [("Content-Disposition", name)] if name else []
    return []


class Toy(socketserver.ThreadingTCPServer):
    """A wrong server on a free port of the loopback interface."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *, grudging: bool) -> None:
        self.grudging = grudging
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/files/"


@contextlib.contextmanager
def serving(*, grudging: bool) -> Iterator[str]:
    """The URL of a wrong server, for as long as the context lasts."""
    with Toy(grudging=grudging) as toy:
        thread = threading.Thread(target=toy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield toy.url
        finally:
            toy.shutdown()
            thread.join()
