"""Uppy on pages of Chromium."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, Page
from tests.clients.arrivals import SIGNED
from tests.fixtures import node

HERE = Path(__file__).parent
MARKUP = b'<!doctype html><meta charset="utf-8"><title>Uppy</title><input type="file" multiple><script src="/page.js"></script>'
MILLISECONDS = 60_000


def bundle(folder: Path, code: str | None = None) -> bytes:
    """A script, or that of the page, with everything that it imports."""
    script = folder / "page.js"
    subprocess.run(
        [
            node.node(),
            str(node.package("esbuild") / "bin" / "esbuild"),
            *("--bundle", "--format=iife", "--log-level=warning", f"--outfile={script}"),
        ],
        cwd=HERE,  # packages are looked for from there
        env=node.environment(),
        input=(code or (HERE / "uppy-page.js").read_text(encoding="utf-8")).encode(),
        check=True,
        timeout=60,
    )
    return script.read_bytes()


@contextmanager
def website(script: bytes) -> Iterator[str]:
    """Scheme and authority of a web server that has the page."""
    files = {"/": (b"text/html; charset=utf-8", MARKUP), "/page.js": (b"text/javascript; charset=utf-8", script)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            media_type, body = files.get(self.path, (b"text/plain", b""))
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", media_type.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method's parameter
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


@dataclass(frozen=True, slots=True)
class Upload:
    """What Uppy does on one page."""

    page: Page

    def choose(self, *files: Path) -> None:
        """Have these uploaded."""
        self.page.set_input_files("input", files)

    def wait_for(self, condition: str) -> None:
        """Until an expression of the page is true."""
        self.page.wait_for_function(condition, timeout=MILLISECONDS)

    def finish(self) -> Sequence[str]:
        """URLs of the uploads, once all have ended; none may have failed."""
        self.wait_for("window.outcome !== null")
        outcome = self.page.evaluate("window.outcome")
        assert outcome["errors"] == []
        urls = outcome["urls"]
        assert isinstance(urls, list)
        return urls


@dataclass(slots=True)
class Uppy:
    """Opens pages with Uppy on them, each as if in a browser of its own."""

    browser: Browser
    site: str
    pages: list[Page] = field(default_factory=list)

    def open(self, endpoint: str, *, retrieve: bool = False, options: Mapping[str, object] | None = None) -> Upload:
        """A page that uploads to the endpoint; `options` are those of Uppy's tus plug-in."""
        told = {"endpoint": endpoint, "headers": SIGNED, "retrieve": retrieve, "options": options or {}}
        page = self.browser.new_page()
        self.pages.append(page)
        page.goto(f"{self.site}/#{quote(json.dumps(told))}")
        return Upload(page)

    def close(self) -> None:
        for page in self.pages:
            page.close()
