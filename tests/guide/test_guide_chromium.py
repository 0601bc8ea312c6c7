"""The guide's JavaScript class in Chromium, on a page of another origin and on one of the server's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage
from tests.fixtures.chromium import running_chromium
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.guide import printed
from tests.guide.chromium import MILLISECONDS, Chromium, signed
from tests.guide.script import THREE_SLICES, Client, GuideScript, check_arrival


class PageHandler(BaseHTTPRequestHandler):
    """Answers everything with an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method's parameter
        pass


def is_last(message: ConsoleMessage) -> bool:
    """Whether the class says that it is done, or the listing's last line that it failed."""
    return message.text == "Upload completed!" or message.type == "error"


@pytest.fixture(scope="module")
def other_origin() -> Iterator[str]:
    """Scheme and authority of a web server that is not ours."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), PageHandler)
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def chromium(browser: Browser, other_origin: str) -> Iterator[Chromium]:
    chromium = Chromium(browser, other_origin)
    try:
        yield chromium
    finally:
        chromium.close()


@pytest.fixture
def client(chromium: Chromium) -> Client:
    return chromium


class TestAnotherOrigin(GuideScript):
    """Everything that is asked of the class, on a page that the upload server did not serve."""

    def test_a_page_of_another_origin_can_read_a_refusal(
        self, server: FileServer, chromium: Chromium, other_origin: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "refused.bin"
        file.write_bytes(b"x")
        page, _ = chromium.open(other_origin, file)
        seen = page.evaluate(
            """async (endpoint) => {
                const headers = {'X-Filename': 'refused.bin', 'X-Total-Size': '1', 'X-Signature': 'wrong'};
                const response = await fetch(endpoint, {method: 'POST', headers});
                return [response.status, typeof (await response.json()).code];
            }""",
            f"{server.url}/upload/chunked",
        )
        assert seen == [403, "string"]


@pytest.mark.parametrize("size", [1, THREE_SLICES])
def test_the_guides_listing_on_a_page_of_the_server(
    server: FileServer, chromium: Chromium, tmp_path: Path, size: int
) -> None:
    """The listing to its last line: the endpoint is a path there, the file the one chosen in `fileInput`."""
    file = tmp_path / "listing.bin"
    file.write_bytes(content(size, f"listing {size}"))

    page, logged = chromium.open(server.url, file)
    with page.expect_console_message(is_last, timeout=MILLISECONDS):
        page.add_script_tag(content=signed(printed.LISTING, server))
    check_arrival(server, logged, file)
