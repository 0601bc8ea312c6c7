"""The guide's JavaScript class on pages of Chromium."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page
from tests.fixtures.server import FileServer
from tests.guide import printed
from tests.guide.script import Run
from tests.guide.servers import signature

# An element with an id is a variable of that name: the guide's own lines use `fileInput`.
PAGE = '<!doctype html><meta charset="utf-8"><title>Upload</title><input type="file" id="fileInput">'
BEGIN = """
    (endpoint) => {
        window.outcome = null;
        new NetworkResilientUploader(fileInput.files[0], endpoint).upload()
            .then(() => { window.outcome = 'fulfilled'; }, (error) => { window.outcome = `rejected: ${error}`; });
    }
"""
MILLISECONDS = 60_000


@dataclass(frozen=True, slots=True)
class PageRun:
    page: Page
    logged: list[str]

    def console(self) -> list[str]:
        self.page.evaluate("0")  # what was logged before arrives before the answer
        return list(self.logged)

    def finish(self) -> list[str]:
        self.page.wait_for_function("window.outcome !== null", timeout=MILLISECONDS)
        assert self.page.evaluate("window.outcome") == "fulfilled"
        return self.console()


@dataclass(slots=True)
class Chromium:
    """Runs the class on a page of `origin`, or, where that is None, of the server's."""

    browser: Browser
    origin: str | None
    pages: list[Page] = field(default_factory=list)

    def open(self, url: str, file: Path) -> tuple[Page, list[str]]:
        """A page of the URL's origin with the file chosen, and what will be logged on it."""
        page = self.browser.new_page(bypass_csp=True)
        self.pages.append(page)
        logged: list[str] = []

        def note(message: ConsoleMessage) -> None:
            if message.type == "log":
                logged.append(message.text)

        page.on("console", note)
        page.goto(url)
        page.set_content(PAGE)  # the origin stays
        page.set_input_files("#fileInput", file)
        return page, logged

    def start(self, server: FileServer, file: Path, url: str | None = None) -> Run:
        page, logged = self.open(self.origin or server.url, file)
        page.add_script_tag(content=signed(printed.CLASS, server))
        page.evaluate(BEGIN, f"{url or server.url}/upload/chunked")
        return PageRun(page, logged)

    def close(self) -> None:
        for page in self.pages:
            page.close()


def signed(text: str, server: FileServer) -> str:
    """The script with the one thing that its reader must fill in."""
    assert text.count(printed.SCRIPT_SIGNATURE) == 1
    return text.replace(printed.SCRIPT_SIGNATURE, signature(server, "/upload/chunked"))
