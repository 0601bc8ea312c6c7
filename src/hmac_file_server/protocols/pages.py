"""The upload page, and the files that belong to it: fixed names at the root of the URL space, out of the package.

They are there whatever the base paths are, and nothing that is stored stands in front of them: whoever may put a file
somewhere could otherwise put it in place of the page's script. The page uses relative addresses only, so it works
behind a proxy that takes a prefix off.
"""

import gzip
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from hmac_file_server.http import Exchange, Response
from hmac_file_server.protocols.answers import refuse
from hmac_file_server.protocols.page_negotiation import accepts_gzip

_SCRIPT: Final = "text/javascript; charset=utf-8"
# Path -> (file of the package, type).
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/uploader.js": ("uploader.js", _SCRIPT),
    "/upload-page.js": ("upload-page.js", _SCRIPT),
    "/upload-texts.js": ("upload-texts.js", _SCRIPT),
    "/upload-form.js": ("upload-form.js", _SCRIPT),
    "/upload-page.css": ("upload-page.css", "text/css; charset=utf-8"),
    "/upload-icon.svg": ("upload-icon.svg", "image/svg+xml"),
}
CODE: Final = "/upload-qr.svg"
PATHS: Final = frozenset({*_FILES, CODE})
"""Where the page and its files are, and where no file is stored."""

POLICY: Final = (
    b"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data: blob:; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'\r\n"
    b"Cross-Origin-Opener-Policy: same-origin\r\n"
    b"Referrer-Policy: no-referrer\r\n"
)
"""On every page that people see: nothing inline runs, nothing is loaded from elsewhere, nothing frames it."""

_FILE_POLICY: Final = b"Content-Security-Policy: default-src 'none'\r\nReferrer-Policy: no-referrer\r\n"


class _Variant:
    """One representation: the head of its answer, the validator, the bytes."""

    __slots__ = ("body", "etag", "head")

    def __init__(self, common: bytes, etag: bytes, body: bytes, coding: bytes = b"") -> None:
        self.etag = etag
        self.body = body
        self.head = common + b"ETag: " + etag + b"\r\n" + coding


class _File:
    """A file with its two representations, plain and compressed."""

    __slots__ = ("_common", "_gzip", "_tag", "plain")

    def __init__(self, content: bytes, media_type: str, policy: bytes) -> None:
        self._tag = hashlib.sha256(content).hexdigest()[:32].encode("ascii")
        self._common = (
            b"Content-Type: " + media_type.encode("ascii") + b"\r\n" + policy + b"Cache-Control: no-cache\r\n"
            b"Vary: Accept-Encoding\r\n"
        )
        self.plain = _Variant(self._common, b'"' + self._tag + b'"', content)
        self._gzip: _Variant | None = None

    def gzip(self) -> _Variant:
        """Compressed when it is asked for the first time; the same bytes in every process."""
        if self._gzip is None:
            body = gzip.compress(self.plain.body, 9, mtime=0)
            if len(body) < len(self.plain.body):
                coding = b"Content-Encoding: gzip\r\n"
                self._gzip = _Variant(self._common, b'"' + self._tag + b'-gzip"', body, coding)
            else:
                self._gzip = self.plain
        return self._gzip


class Pages:
    """The files as they were when the server started."""

    __slots__ = ("_files",)

    def __init__(self, folder: Traversable | None = None) -> None:
        """`folder` holds the files, by default that of the package; one that is not there is answered with 404."""
        folder = resources.files("hmac_file_server.web") if folder is None else folder
        self._files: dict[str, _File] = {}
        for path, (name, media_type) in _FILES.items():
            file = folder.joinpath(name)
            if file.is_file():
                policy = POLICY if media_type.startswith("text/html") else _FILE_POLICY
                self._files[path] = _File(file.read_bytes(), media_type, policy)

    def has(self, path: str) -> bool:
        """Whether there is a file for this path."""
        return path in self._files

    def respond(self, exchange: Exchange) -> None:
        """Answer GET or HEAD of one of the paths, but that of the codes."""
        request = exchange.request
        file = self._files.get(request.path)
        if file is None:
            refuse(exchange, "not_found", "There is no such file.")
            return
        variant = file.gzip() if accepts_gzip(request.header(b"accept-encoding")) else file.plain
        if _known(request.header(b"if-none-match"), variant.etag):
            exchange.respond(Response(304, variant.head))
        else:
            exchange.respond(Response(200, variant.head, variant.body))


def _known(field: bytes | None, etag: bytes) -> bool:
    """Whether If-None-Match names this representation (RFC 9110 section 13.1.2: the weak comparison)."""
    if field is None:
        return False
    # No tag of ours has a comma in it.
    tags = [tag.strip(b" \t").removeprefix(b"W/") for tag in field.split(b",")]
    return etag in tags or field == b"*"
