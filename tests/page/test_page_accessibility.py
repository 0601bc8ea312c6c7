"""The upload page for everybody: axe, in every state and both colour schemes, on the smallest screen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.page.accessibility import small_targets, too_wide, violations
from tests.page.driver import KIB, MIB, OpenPage, StartRelay, UploadPage, link, write

PHONE = (320, 640)
LONG = "a-name-without-any-space-that-is-far-longer-than-the-screen-of-a-phone-is-wide_20260714_183822.jpeg"


def check(page: UploadPage, state: str) -> None:
    assert violations(page.page) == [], state
    assert too_wide(page.page) <= 0, state
    assert small_targets(page.page) == [], state


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_states_of_an_upload(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path, scheme: str
) -> None:
    relay = start_relay(shared_server, 2 * MIB)
    page = open_page(link(relay.url, files=9, max_size=7 * MIB), scheme=scheme, size=PHONE, touch=True)
    ground = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(245, 246, 248)") == (scheme == "light")
    check(page, "empty")
    page.choose(
        write(tmp_path, "done.txt", b"done"),
        write(tmp_path, LONG, content(6 * MIB, f"axe {scheme}")),
    )
    assert relay.held.wait(20)
    page.finished(1)
    # Only now, so that what got through is of the first one.
    page.choose(
        write(tmp_path, "large.iso", bytes(7 * MIB + 1)),
        *(write(tmp_path, f"wait {n}.bin", content(3 * MIB, f"axe {scheme} {n}")) for n in range(3)),
    )
    page.row(LONG).wait("uploading")
    expect(page.page.locator('.file[data-state="queued"]')).not_to_have_count(0)
    expect(page.notice("refused")).to_be_visible()
    check(page, "uploading, one done, some waiting, one refused")
    page.context.set_offline(True)
    page.row(LONG).wait("offline")
    check(page, "offline")
    page.context.set_offline(False)
    page.page.get_by_role("button", name="Pause all").click()
    page.row(LONG).wait("paused")
    check(page, "paused")
    page.row("done.txt").button("QR code").click()
    expect(page.page.get_by_role("dialog")).to_be_visible()
    check(page, "the QR code")
    page.page.keyboard.press("Escape")
    relay.release()
    expect(page.row(LONG).status).to_contain_text(re.compile("Paused at (?!0)"))
    page.row(LONG).button("Remove").click()
    expect(page.page.get_by_role("dialog")).to_be_visible()
    check(page, "a question")
    page.page.keyboard.press("Escape")
    page.page.reload()
    page.row(LONG).wait("resumable")
    check(page, "after a reload")
    page.choose(*(tmp_path / name for name in (LONG, "wait 0.bin", "wait 1.bin", "wait 2.bin")))
    page.finished(5)
    check(page, "done")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_states_without_an_upload(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path, scheme: str
) -> None:
    page = open_page(shared_server.url, scheme=scheme, size=PHONE, touch=True)
    check(page, "no link")
    page.page.goto(link(shared_server.url, lifetime=-60))
    expect(page.notice("expired")).to_be_visible()
    check(page, "expired")
    page.page.goto(shared_server.url + "/#ticket=nonsense")
    expect(page.notice("bad")).to_be_visible()
    check(page, "not a ticket")
    relay = start_relay(shared_server, 100 * KIB)
    page.page.goto(link(relay.url))
    session = page.devtools()
    data = {"items": [], "files": [str(write(tmp_path, "a.txt", b"a"))], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 9, "y": 9, "data": data})
    # It goes by itself after a moment, since the mouse does not move.
    expect(page.page.locator("#curtain")).to_be_hidden()
    page.choose(write(tmp_path, "b.bin", content(MIB, f"waiting {scheme}")))
    assert relay.held.wait(20)
    relay.refusing = True
    relay.reset()
    expect(page.notice("away")).to_be_visible(timeout=20_000)
    check(page, "no answer")
    relay.refusing = False
    page.finished(1)


def test_a_failure(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    used = link(shared_server.url, files=1)
    other = open_page(used)
    other.choose(write(tmp_path, "used.txt", b"used"))
    other.finished(1)
    for scheme in ("light", "dark"):
        page = open_page(used, scheme=scheme, size=PHONE, touch=True)
        page.choose(write(tmp_path, "late.txt", b"late"))
        page.row("late.txt").wait("failed")
        expect(page.notice("used-up")).to_be_visible()
        check(page, "failed")


def test_nothing_is_wider_than_the_screen(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(link(shared_server.url))
    page.choose(write(tmp_path / ("folder" * 8), LONG, b""))
    page.finished(1)
    for width in (320, 768, 1280):
        page.page.set_viewport_size({"width": width, "height": 700})
        assert too_wide(page.page) <= 0
        page.row(LONG).button("QR code").click()
        assert too_wide(page.page) <= 0
        page.page.keyboard.press("Escape")


def test_the_checks_find_something(chromium: Browser) -> None:
    page = chromium.new_page(viewport={"width": 320, "height": 300})
    try:
        page.set_content(
            "<html lang=en><title>t</title><main><h1>t</h1><img src='data:,'><button>x</button>" + "w" * 99
        )
        assert [rule for rule in violations(page) if rule.startswith("image-alt")]
        assert too_wide(page) > 0
        assert small_targets(page)
    finally:
        page.close()


def test_progress_is_told_to_screen_readers(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, 2 * MIB)
    page = open_page(link(relay.url))
    region = page.page.get_by_role("status")
    expect(region).to_have_attribute("aria-live", "polite")
    page.choose(write(tmp_path, "told.bin", content(4 * MIB, "told")))
    page.announced("1 file added.")
    assert relay.held.wait(20)
    expect(page.page.get_by_role("progressbar", name="told.bin, progress")).to_be_visible()
    expect(page.page.get_by_role("progressbar", name="All files, progress")).to_be_visible()
    relay.release()
    page.announced("The file is uploaded.")


def test_the_keyboard_skips_to_the_list(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(link(shared_server.url))
    page.choose(write(tmp_path, "skip.txt", b"skip"))
    page.finished(1)
    page.page.evaluate("document.activeElement.blur()")
    page.page.get_by_role("link", name="Skip to the list of files").focus()
    page.page.keyboard.press("Enter")
    expect(page.page.locator("#files")).to_be_focused()
    assert page.page.url == f"{shared_server.url}/"
