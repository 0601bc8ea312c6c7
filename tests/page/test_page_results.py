"""What a person has in the end: links, as text and as QR codes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, Route, expect
from tests.fixtures.server import FileServer
from tests.page.driver import OpenPage, UploadPage, link, write


def _two_files(server: FileServer, open_page: OpenPage, folder: Path, *scripts: str) -> UploadPage:
    page = open_page(link(server.url), scripts=("delete window.showOpenFilePicker", *scripts))
    page.choose(write(folder, "ä b.txt", b"one"), write(folder, "two.txt", b"two"))
    page.finished(2)
    return page


def test_links_are_copied(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = _two_files(shared_server, open_page, tmp_path)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first, second = page.row("ä b.txt"), page.row("two.txt")
    assert first.url.startswith(shared_server.url + "/")
    assert first.url.endswith("/%C3%A4%20b.txt")
    first.button("Copy link").click()
    page.announced("The link is copied.")
    expect(first.button("Copied")).to_be_visible()
    assert page.page.evaluate("navigator.clipboard.readText()") == first.url
    page.page.get_by_role("button", name="Copy all links").click()
    page.announced("2 links are copied.")
    assert page.page.evaluate("navigator.clipboard.readText()") == f"{first.url}\n{second.url}"
    # The button is itself again.
    expect(first.button("Copy link")).to_be_visible()
    expect(page.page.get_by_role("button", name="Copy all links")).to_be_visible()


def test_links_are_copied_without_a_clipboard(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    """As on a page without TLS."""
    listening = """Object.defineProperty(navigator, 'clipboard', { value: undefined });
    window.copied = [];
    document.addEventListener('copy', () => window.copied.push(document.activeElement.value));"""
    page = _two_files(shared_server, open_page, tmp_path, listening)
    row = page.row("two.txt")
    row.button("Copy link").click()
    page.announced("The link is copied.")
    assert page.page.evaluate("window.copied") == [row.url]
    expect(row.button("Copied")).to_be_focused()
    # Inside of a dialog nothing outside of it can be selected.
    row.button("QR code").click()
    page.page.get_by_role("dialog").get_by_role("button", name="Copy link").click()
    expect(page.page.get_by_role("dialog").get_by_role("button", name="Copied")).to_be_visible()
    assert page.page.evaluate("window.copied") == [row.url, row.url]


def test_links_can_be_copied_by_hand(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    nothing = """Object.defineProperty(navigator, 'clipboard', { value: undefined });
    document.execCommand = () => false;"""
    page = _two_files(shared_server, open_page, tmp_path, nothing)
    page.page.get_by_role("button", name="Copy all links").click()
    field = page.page.get_by_role("dialog").get_by_role("textbox")
    expect(field).to_be_focused()
    assert page.page.evaluate("window.getSelection().toString()") == "\n".join(
        page.row(name).url for name in ("ä b.txt", "two.txt")
    )


def test_a_qr_code(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = _two_files(shared_server, open_page, tmp_path)
    row = page.row("ä b.txt")
    row.button("QR code").click()
    dialog = page.page.get_by_role("dialog", name="Link to ä b.txt")
    image = dialog.get_by_role("img", name="QR code of the link to ä b.txt")
    address = image.get_attribute("src")
    assert address is not None
    assert parse_qs(urlsplit(address).query) == {"url": [row.url]}
    assert image.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") > 0
    expect(dialog.get_by_role("textbox")).to_have_value(row.url)
    # A click beside it closes it.
    page.page.mouse.click(5, 5)
    expect(dialog).to_be_hidden()


def test_an_address_that_is_too_long_has_no_code(
    shared_server: FileServer, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(link(shared_server.url))
    page.choose(write(tmp_path, "ü" * 80 + ".txt", b"long"))
    page.finished(1)
    assert len(page.row("ü").url) > 512
    expect(page.row("ü").button("Copy link")).to_be_visible()
    expect(page.row("ü").button("QR code")).to_have_count(0)


def test_results_outlive_the_page(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    address = link(shared_server.url)
    page = open_page(address)
    page.choose(write(tmp_path, "kept.txt", b"kept"))
    page.finished(1)
    url = page.row("kept.txt").url
    page.page.reload()
    page.finished(1)
    assert page.row("kept.txt").url == url
    # They belong to the link, not to the window.
    other = UploadPage(page.context.new_page(), page.context)
    page.page.close()
    other.page.goto(address)
    other.finished(1)
    third = UploadPage(page.context.new_page(), page.context)
    third.page.goto(link(shared_server.url))
    expect(third.page.get_by_role("button", name="Choose files")).to_be_visible()
    expect(third.rows()).to_have_count(0)


def test_what_is_done_can_be_cleared(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = _two_files(shared_server, open_page, tmp_path)
    url = page.row("two.txt").url
    page.page.get_by_role("button", name="Clear finished").click()
    expect(page.rows()).to_have_count(0)
    expect(page.page.get_by_role("button", name="Choose files")).to_be_focused()
    page.page.reload()
    expect(page.page.get_by_role("button", name="Choose files")).to_be_visible()
    expect(page.rows()).to_have_count(0)
    # From the list, not from the server.
    assert shared_server.request("GET", urlsplit(url).path).body == b"two"


def test_a_result_opens_in_a_window_of_its_own(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = _two_files(shared_server, open_page, tmp_path)
    with page.context.expect_page() as opened:
        page.page.get_by_role("link", name="two.txt").click()
    expect(opened.value.locator("body")).to_contain_text("two")
    expect(page.page).to_have_url(re.compile("/$"))


def test_behind_a_proxy_that_takes_a_prefix_off(shared_server: FileServer, chromium: Browser, tmp_path: Path) -> None:
    def pass_on(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("/offered/here/", "/")))

    context = chromium.new_context()
    try:
        page = UploadPage(context.new_page(), context)
        page.page.add_init_script("delete window.showOpenFilePicker")
        page.page.route("**/offered/here/**", pass_on)
        page.page.goto(link(shared_server.url + "/offered/here"))
        page.choose(write(tmp_path, "empty.txt", b""))
        page.finished(1)
        url = page.row("empty.txt").url
        assert url.startswith(f"{shared_server.url}/offered/here/")
        path = urlsplit(url).path.removeprefix("/offered/here")
        assert shared_server.request("GET", path).status == 200
        page.row("empty.txt").button("QR code").click()
        image = page.page.get_by_role("img", name="QR code of the link to empty.txt")
        assert image.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") > 0
    finally:
        context.close()
