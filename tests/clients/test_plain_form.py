"""The plain form in Chromium: with JavaScript switched off, and on the way to the upload page where it is on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.fixtures.chromium import running_chromium
from tests.fixtures.server import FileServer, running
from tests.server.signatures import in_future, ticket

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
BODY = b"What is in the file.\n" * 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    yield from running(tmp_path_factory.mktemp("plain-form"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as started:
        yield started


def link(server: FileServer, **claims: object) -> str:
    return f"{server.url}/?ticket=" + ticket(**{"prefix": "", "ops": ["upload", "create", "chunk"], **claims})


@contextmanager
def tab(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page of a person of its own; nothing on it may be refused by its policy."""
    context = browser.new_context(**options)
    try:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        yield page
        assert not [text for text in said if "Content Security Policy" in text or "MIME" in text], said
    finally:
        context.close()


def choose(page: Page, name: str = "My photo.txt", body: bytes = BODY) -> None:
    page.get_by_label("File").set_input_files({"name": name, "mimeType": "text/plain", "buffer": body})


def test_an_upload_without_javascript(browser: Browser, server: FileServer) -> None:
    with tab(browser, java_script_enabled=False) as page:
        page.goto(link(server, max_size=1 << 20))
        expect(page.get_by_role("heading")).to_have_text("Send a file")
        expect(page.get_by_text("Up to 1 MB")).to_be_visible()
        choose(page, 'My "best" <photo>.txt')
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("heading")).to_have_text("Your file has arrived")
        address = page.get_by_label("Its address").input_value()
        assert address.startswith(f"{server.url}/")
        path = address.removeprefix(server.url)
        assert server.request("GET", path).body == BODY
        assert page.get_by_role("link").first.evaluate("link => link.href") == address
        picture = page.get_by_role("img", name="QR code")
        assert picture.evaluate("async picture => { await picture.decode(); return picture.complete }")
        # Another one, by the same link.
        page.get_by_role("link", name="Send another file").click()
        choose(page, "second.txt", b"second")
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("link", name="second.txt")).to_be_visible()


def test_nothing_chosen_and_too_much(browser: Browser, server: FileServer) -> None:
    with tab(browser, java_script_enabled=False) as page:
        page.goto(link(server, max_size=10))
        page.get_by_role("button", name="Upload").click()
        # The browser itself asks for a file.
        expect(page.get_by_role("heading")).to_have_text("Send a file")
        choose(page, body=b"x" * 11)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("heading")).to_have_text("The file is too large")
        page.get_by_role("link", name="Back to the form").click()
        choose(page, body=b"x" * 10)
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("heading")).to_have_text("Your file has arrived")


def test_with_the_keyboard_alone(browser: Browser, server: FileServer) -> None:
    with tab(browser, java_script_enabled=False) as page:
        page.goto(link(server))
        page.keyboard.press("Tab")
        expect(page.get_by_label("File")).to_be_focused()
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Space")
        chooser.value.set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"keyboard"})
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Upload")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading")).to_have_text("Your file has arrived")


def test_javascript_takes_the_ticket_out_of_requests(browser: Browser, server: FileServer) -> None:
    with tab(browser) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        url = link(server)
        page.goto(url)
        page.wait_for_url(re.compile(r"/(#.*)?$"))
        expect(page.locator("#form-upload")).to_have_count(0)
        assert [target for target in asked if "ticket=" in target] == [url], "once, by the link itself"
        # Nor is it where one gets with "back".
        assert page.evaluate("history.length") <= 2


def refuse_script(route: Route) -> None:
    route.abort()


def violations(page: Page) -> list[str]:
    """What axe finds, in one line each."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = json.loads(page.evaluate("async () => JSON.stringify((await axe.run()).violations)"))
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]


Visit = Callable[[Page, FileServer], object]


def the_form(page: Page, server: FileServer) -> None:
    page.goto(link(server, max_size=1 << 20, files=3, type="text/plain"))


def the_answer(page: Page, server: FileServer) -> None:
    page.goto(link(server))
    choose(page)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading")).to_have_text("Your file has arrived")


def the_refusal(page: Page, server: FileServer) -> None:
    page.goto(link(server, exp=in_future(-5)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("visit", [the_form, the_answer, the_refusal])
def test_everybody_can_use_it(browser: Browser, server: FileServer, visit: Visit, scheme: Any) -> None:
    """Axe finds nothing, in both colour schemes, and nothing has to be scrolled sideways on a small phone."""
    with tab(browser, color_scheme=scheme, viewport={"width": 320, "height": 568}) as page:
        page.route("**/upload-form.js", refuse_script)
        visit(page, server)
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
