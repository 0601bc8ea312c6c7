"""What the page says of the link that it was opened with, and what it refuses by itself."""

from __future__ import annotations

import re
import time
from pathlib import Path

from playwright.sync_api import expect
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, StartServer
from tests.page.driver import KIB, MIB, OpenPage, StartRelay, link, write
from tests.server import signatures


def _ticket(url: str, **claims: object) -> str:
    """A link with other claims than `link` makes."""
    return f"{url}/#ticket={signatures.ticket(**claims)}"


def test_what_a_link_permits(shared_server: FileServer, open_page: OpenPage) -> None:
    page = open_page(link(shared_server.url, max_size=5 << 30, files=3))
    limits = page.page.locator("#limits li")
    expect(limits).to_have_text(
        ["Files up to 5 GB", "Takes 3 files", re.compile(r"Open until \d+ \w+ 20\d\d at \d\d:\d\d")]
    )


def test_in_the_reader_s_spelling(shared_server: FileServer, open_page: OpenPage) -> None:
    page = open_page(link(shared_server.url, max_size=1536 << 20), locale="en-US")
    expect(page.page.locator("#limits li")).to_have_text(
        ["Files up to 1.5 GB", re.compile(r"Open until \w+ \d+, 20\d\d at \d+:\d\d\s[AP]M")]
    )
    assert page.page.locator("html").get_attribute("lang") == "en"


def test_what_a_link_forbids_is_refused_at_once(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(link(shared_server.url, max_size=100_000, files=2))
    page.choose(
        write(tmp_path, "large.iso", bytes(100_001)),
        write(tmp_path, "one.txt", b"1"),
        write(tmp_path, "exactly.bin", bytes(100_000)),
        write(tmp_path, "three.txt", b"3"),
    )
    notice = page.notice("refused")
    expect(notice).to_contain_text("2 files were not added")
    expect(notice).to_contain_text("large.iso has 97.7 kB. This link takes files up to 97.7 kB.")
    expect(notice).to_contain_text("three.txt: this link takes 2 files in all.")
    page.finished(2)
    expect(page.page.locator("#limits")).to_contain_text("Takes 2 files, 0 more")
    assert page.rows().count() == 2
    page.announced(re.compile("files were not added|are uploaded"))


def test_many_refusals_are_not_told_one_by_one(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(link(shared_server.url, max_size=1))
    page.choose(*(write(tmp_path, f"{n}.bin", b"ab") for n in range(12)))
    lines = page.notice("refused").locator("p")
    expect(lines).to_have_count(6)
    expect(lines.last).to_have_text("And 7 more.")
    expect(page.rows()).to_have_count(0)
    page.page.get_by_role("button", name="Close this message").click()
    expect(page.page.get_by_role("button", name="Choose files")).to_be_focused()


def test_a_file_that_is_in_the_list(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, 100 * KIB)
    page = open_page(link(relay.url))
    path = write(tmp_path, "twice.bin", content(MIB, "twice"))
    page.choose(path)
    assert relay.held.wait(20)
    page.choose(path)
    expect(page.notice("refused")).to_contain_text("twice.bin is in the list already.")
    expect(page.rows()).to_have_count(1)
    relay.release()
    page.finished(1)


def test_an_empty_folder(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    page = open_page(link(shared_server.url))
    page.drop(tmp_path / "empty")
    expect(page.notice("refused")).to_have_text("There was no file in what you added.")


def test_a_link_for_one_type(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(_ticket(shared_server.url, prefix="", type="image/png", ops=["create", "chunk"]))
    page.choose(write(tmp_path, "text.txt", b"text"), write(tmp_path, "image.png", b"image"))
    expect(page.notice("refused")).to_contain_text("This link takes image/png only.")
    page.finished(1)
    page.check_stored(shared_server, {"image.png": b"image"})


def test_a_link_for_one_path(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(_ticket(shared_server.url, path=f"one/place{time.time_ns()}.txt"))
    expect(page.page.locator("#limits")).to_contain_text("Takes 1 file")
    page.choose(write(tmp_path, "a.txt", b"a"), write(tmp_path, "b.txt", b"b"))
    expect(page.notice("refused")).to_contain_text("this link takes 1 file in all.")
    page.finished(1)


def test_an_expired_link(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(link(shared_server.url, lifetime=-86_400))
    notice = page.notice("expired")
    expect(notice.get_by_role("heading")).to_have_text("This link has expired")
    expect(notice).to_contain_text(re.compile(r"It was open until \d+ \w+ 20\d\d at"))
    expect(page.page.get_by_role("button", name="Choose files")).to_be_hidden()
    page.drop(write(tmp_path, "late.txt", b"late"))
    expect(page.rows()).to_have_count(0)


def test_a_clock_that_is_wrong_does_not_lock_a_good_link_out(
    shared_server: FileServer, open_page: OpenPage, tmp_path: Path
) -> None:
    late = "const now = Date.now; Date.now = () => now() + 30 * 86_400_000;"
    with_input = "delete window.showOpenFilePicker"
    page = open_page(link(shared_server.url), scripts=(late, with_input))
    page.choose(write(tmp_path, "late.txt", b"in time"))
    page.finished(1)
    expect(page.notice("expired")).to_have_count(0)


def test_a_link_that_expires_while_files_are_on_the_way(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    """What has begun is finished; what waits fails with the reason."""
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url, lifetime=3))
    bodies = {f"{n}.bin": content(2 * MIB, f"expires {n}") for n in range(4)}
    page.choose(*(write(tmp_path, name, body) for name, body in bodies.items()))
    assert relay.held.wait(20)
    page.row("3.bin").wait("queued")
    page.page.get_by_role("button", name="Pause all").click()
    relay.release()
    expect(page.notice("expired")).to_be_visible(timeout=20_000)
    expect(page.notice("expired")).to_contain_text("What has begun may still be finished.")
    page.announced("This link has expired")
    page.page.get_by_role("button", name="Resume all").click()
    row = page.row("3.bin")
    row.wait("failed")
    expect(row.status).to_have_text("The link has expired. Ask for a new one.")
    page.finished(3)
    del bodies["3.bin"]
    page.check_stored(shared_server, bodies)


def test_a_link_that_others_have_used_up(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    used = link(shared_server.url, files=1)
    first = open_page(used)
    first.choose(write(tmp_path, "first.txt", b"first"))
    first.finished(1)
    page = open_page(used)
    page.choose(write(tmp_path, "late.txt", b"late"))
    row = page.row("late.txt")
    row.wait("failed")
    expect(row.status).to_have_text("The link takes no more files. Ask for a new one.")
    expect(page.notice("used-up")).to_contain_text("This link has been used up")
    expect(page.page.get_by_role("button", name="Choose files")).to_be_hidden()


def test_what_is_not_a_ticket(shared_server: FileServer, open_page: OpenPage) -> None:
    page = open_page(link(shared_server.url))
    for fragment in ("nonsense", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.eyJleHAi.x", "eyJhbGciOiJIUzI1NiJ9.W10=.x", ""):
        page.page.goto(f"{shared_server.url}/#ticket={fragment}")
        expect(page.notice("bad")).to_contain_text("This link does not work")
        expect(page.page.get_by_role("button", name="Choose files")).to_be_hidden()
        page.page.goto(link(shared_server.url))
        expect(page.page.get_by_role("button", name="Choose files")).to_be_visible()
        expect(page.notice("bad")).to_have_count(0)


def test_a_ticket_of_another_server(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    good = link(shared_server.url)
    page = open_page(good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"))
    page.choose(write(tmp_path, "foreign.txt", b"foreign"), write(tmp_path, "second.txt", b"second"))
    page.row("foreign.txt").wait("failed")
    expect(page.row("foreign.txt").status).to_have_text("The server does not know this link. Ask for a new one.")
    expect(page.notice("bad")).to_be_visible()


def test_a_ticket_for_something_else(shared_server: FileServer, open_page: OpenPage) -> None:
    page = open_page(_ticket(shared_server.url, prefix="", ops=["download"]))
    expect(page.notice("wrong")).to_contain_text("It permits something else than uploading files here.")


def test_what_only_the_server_knows(start_server: StartServer, open_page: OpenPage, tmp_path: Path) -> None:
    server = start_server(
        {"server": {"max_upload_size": "1MB"}, "uploads": {"allowed_extensions": [".txt"], "durability": "relaxed"}}
    )
    page = open_page(link(server.url))
    page.choose(
        write(tmp_path, "large.txt", bytes(MIB + 1)),
        write(tmp_path, "program.exe", b"program"),
        write(tmp_path, "fine.txt", b"fine"),
    )
    page.finished(1)
    page.row("large.txt").wait("failed")
    expect(page.row("large.txt").status).to_have_text("The file is larger than the server takes.")
    page.row("program.exe").wait("failed")
    expect(page.row("program.exe").status).to_have_text("The server does not take files with this ending.")
    # The link is as good as it was.
    expect(page.page.get_by_role("button", name="Choose files")).to_be_visible()
    page.row("program.exe").button("Remove").click()
    expect(page.rows()).to_have_count(2)


def test_a_server_that_takes_signed_requests_only(
    start_server: StartServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    server = start_server({"security": {"strict_signatures": True}, "uploads": {"durability": "relaxed"}})
    relay = start_relay(server, MIB)
    page = open_page(link(relay.url))
    body = content(3 * MIB, "strict")
    path = write(tmp_path, "strict.bin", body)
    page.choose(path)
    assert relay.held.wait(20)
    page.reload(relay)
    row = page.row("strict.bin")
    row.wait("resumable")
    expect(row.status).to_contain_text(re.compile("[1-9][0-9]?% are there already"))
    page.choose(path)
    page.finished(1)
    page.check_stored(server, {"strict.bin": body})


def test_the_ticket_leaves_the_address_and_stays_with_the_page(shared_server: FileServer, open_page: OpenPage) -> None:
    page = open_page(link(shared_server.url, files=7))
    assert page.page.url == f"{shared_server.url}/"
    page.page.reload()
    expect(page.page.locator("#limits")).to_contain_text("Takes 7 files")
    # Not in another window.
    other = page.context.new_page()
    other.goto(shared_server.url)
    expect(other.get_by_role("heading", name="This server takes signed file uploads")).to_be_visible()


def test_the_ticket_stays_in_the_address_where_nothing_else_keeps_it(
    shared_server: FileServer, open_page: OpenPage
) -> None:
    broken = "Storage.prototype.setItem = () => { throw new DOMException('no', 'QuotaExceededError'); };"
    address = link(shared_server.url, files=7)
    page = open_page(address, scripts=(broken,))
    assert page.page.url == address
    page.page.reload()
    expect(page.page.locator("#limits")).to_contain_text("Takes 7 files")


def test_another_link_in_the_same_window(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url, files=7))
    body = content(2 * MIB, "two links")
    page.choose(write(tmp_path, "first.bin", body))
    assert relay.held.wait(20)
    second = link(relay.url, files=5)
    page.page.evaluate("(hash) => { location.hash = hash; }", second.partition("#")[2])
    expect(page.page.locator("#limits")).to_contain_text("Takes 5 files")
    assert page.page.url == f"{relay.url}/"
    relay.release()
    page.choose(write(tmp_path, "second.txt", b"second"))
    page.finished(2)
    page.check_stored(shared_server, {"first.bin": body, "second.txt": b"second"})
    expect(page.page.locator("#limits")).to_contain_text("Takes 5 files, 4 more")
    # Other fragments are no links.
    page.page.evaluate("location.hash = 'list'")
    expect(page.page.locator("#limits")).to_contain_text("Takes 5 files, 4 more")


def test_without_a_link_the_page_explains_itself(
    shared_server: FileServer, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(shared_server.url)
    text = page.page.locator("#explanation")
    for words in (
        "This server takes signed file uploads",
        "nothing to browse here",
        "hmac-file-server link",
        "hmac-file-server link --form",
        "hmac-file-server sign PUT /name.jpg",
        "hmac-file-server init",
        f'curl -H "Authorization: Bearer TICKET" -F file=@photo.jpg {shared_server.url}/upload',
    ):
        expect(text).to_contain_text(words)
    page.drop(write(tmp_path, "nothing.txt", b"nothing"))
    expect(page.rows()).to_have_count(0)


def test_without_javascript(shared_server: FileServer, open_page: OpenPage) -> None:
    page = open_page(link(shared_server.url), javascript=False)
    expect(page.page.get_by_role("heading", name="You were given an upload link")).to_be_visible()
    expect(page.page.locator("noscript .card").first).to_contain_text("write /?ticket= instead of /#ticket=")
    expect(page.page.locator("noscript .card").last).to_contain_text("hmac-file-server link --form")
    expect(page.page.locator("#page")).to_be_hidden()
    # What it says works.
    page.page.goto(page.page.url.replace("/#ticket=", "/?ticket="))
    expect(page.page.locator("input[type=file]")).to_be_visible()
