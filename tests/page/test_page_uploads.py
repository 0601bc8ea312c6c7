"""Files and folders into the upload page, by mouse, by keyboard and by drop."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Dialog, expect
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, StartServer
from tests.page.driver import KIB, MIB, OpenPage, Row, StartRelay, link, stored, write


def test_several_files_at_once(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    bodies = {
        f"Bild {n} ü & #%.png": content(size, f"several {n}")
        for n, size in enumerate((3 * MIB + 17, 0, 1, 700 * KIB, 20_000))
    }
    page = open_page(link(shared_server.url))
    page.choose(*(write(tmp_path, name, body) for name, body in bodies.items()))
    page.finished(len(bodies))
    page.check_stored(shared_server, bodies)
    assert page.resent() == []
    expect(page.page.locator("#total-percent")).to_have_text("100%")
    expect(page.page.locator("#total-status")).to_contain_text("5 of 5 files done")
    expect(page.page).to_have_title("Done – Send files")
    page.announced("All 5 files are uploaded.")
    got = shared_server.request("HEAD", page.row("Bild 3").url.removeprefix(shared_server.url))
    assert got.headers["content-type"] == "image/png"


def test_no_more_than_three_files_are_on_the_way_at_once(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, 300 * KIB)
    page = open_page(link(relay.url))
    page.choose(*(write(tmp_path, f"{n}.bin", content(MIB, f"turn {n}")) for n in range(6)))
    assert relay.held.wait(20)
    expect(page.page.locator('.file[data-state="uploading"]')).to_have_count(3)
    expect(page.page.locator('.file[data-state="queued"]')).to_have_count(3)
    expect(page.row("5.bin").status).to_contain_text("Waits for its turn")
    relay.release()
    page.finished(6)


def test_a_folder(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    bodies = {"one.txt": b"1" * 1000, "deep/two.txt": b"2" * 2000, "deep/er/one.txt": b"3" * 3000}
    for name, body in bodies.items():
        write(tmp_path / "album", name, body)
    page = open_page(link(shared_server.url))
    page.choose_folder(tmp_path / "album")
    page.finished(3)
    rows = [Row(node) for node in page.rows().all()]
    assert {row.path: stored(shared_server, row.url) for row in rows} == {
        f"album/{name}": body for name, body in bodies.items()
    }


def test_dropped_files_and_folders(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    single = write(tmp_path, "single.bin", content(300 * KIB, "dropped"))
    write(tmp_path / "folder", "inner/deep.txt", b"deep")
    write(tmp_path / "folder", "flat.txt", b"flat")
    page = open_page(link(shared_server.url))
    page.drop(single, tmp_path / "folder")
    page.finished(3)
    page.check_stored(
        shared_server, {"single.bin": content(300 * KIB, "dropped"), "deep.txt": b"deep", "flat.txt": b"flat"}
    )
    assert page.row("deep.txt").path == "folder/inner/deep.txt"


def test_folders_are_taken_from_browsers_without_handles(
    shared_server: FileServer, open_page: OpenPage, tmp_path: Path
) -> None:
    write(tmp_path / "folder", "inner/deep.txt", b"deep")
    # More than a browser tells of at once.
    for n in range(104):
        write(tmp_path / "folder", f"n{n}.txt", b"")
    page = open_page(link(shared_server.url), scripts=("delete DataTransferItem.prototype.getAsFileSystemHandle",))
    page.drop(tmp_path / "folder")
    expect(page.rows()).to_have_count(105)
    page.row("deep.txt").wait(re.compile("queued|starting|uploading|done"))
    assert page.row("deep.txt").path == "folder/inner/deep.txt"
    page.finished(105)


def test_the_page_shows_where_things_can_be_dropped(
    shared_server: FileServer, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(link(shared_server.url))
    session = page.devtools()
    data = {"items": [], "files": [str(write(tmp_path, "a.txt", b"a"))], "dragOperationsMask": 1}
    curtain = page.page.locator("#curtain")
    session.send("Input.dispatchDragEvent", {"type": "dragEnter", "x": 9, "y": 9, "data": data})
    session.send("Input.dispatchDragEvent", {"type": "dragOver", "x": 9, "y": 9, "data": data})
    expect(curtain).to_have_text("Let go to add them")
    session.send("Input.dispatchDragEvent", {"type": "dragCancel", "x": 9, "y": 9, "data": data})
    expect(curtain).to_be_hidden()


def test_names_are_text(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>{count} %s \u202e.txt"
    page = open_page(link(shared_server.url))
    page.choose(write(tmp_path, name, b"harmless"))
    page.finished(1)
    row = Row(page.rows())
    assert row.path == name
    assert stored(shared_server, row.url) == b"harmless"
    page.announced("The file is uploaded.")


def test_a_pasted_picture(shared_server: FileServer, open_page: OpenPage) -> None:
    page = open_page(link(shared_server.url))
    page.page.evaluate("""() => {
      const clipboardData = new DataTransfer();
      clipboardData.items.add(new File(['picture'], 'image.png', { type: 'image/png' }));
      window.dispatchEvent(new ClipboardEvent('paste', { clipboardData, cancelable: true }));
    }""")
    page.finished(1)
    page.check_stored(shared_server, {"image.png": b"picture"})


def test_with_the_keyboard_alone(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    body = content(2 * MIB, "keys")
    relay = start_relay(shared_server, 500 * KIB)
    page = open_page(link(relay.url))
    keyboard = page.page.keyboard
    seen: list[str] = []

    def tab_to(label: str) -> None:
        for _ in range(20):
            keyboard.press("Tab")
            focused = page.page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
            )
            seen.append(focused)
            if focused.startswith(label):
                return
        raise AssertionError(seen)

    tab_to("Choose files")
    with page.page.expect_file_chooser() as chooser:
        keyboard.press("Enter")
    chooser.value.set_files([write(tmp_path, "keys.bin", body), write(tmp_path, "other.bin", b"other")])
    assert relay.held.wait(20)
    tab_to("Pause: keys.bin")
    keyboard.press("Space")
    row = page.row("keys.bin")
    row.wait("paused")
    expect(row.button("Resume")).to_be_focused()
    relay.release()
    keyboard.press("Enter")
    page.finished(2)
    # The button has become another one, and the keyboard is still there.
    expect(row.button("Copy link")).to_be_focused()
    tab_to("QR code: keys.bin")
    keyboard.press("Enter")
    dialog = page.page.get_by_role("dialog", name="Link to keys.bin")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("button", name="Copy link")).to_be_focused()
    keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(row.button("QR code")).to_be_focused()
    tab_to("Remove from the list: keys.bin")
    keyboard.press("Enter")
    expect(page.rows()).to_have_count(1)
    expect(page.row("other.bin").button("Remove from the list")).to_be_focused()
    keyboard.press("Enter")
    expect(page.page.get_by_role("button", name="Choose files")).to_be_focused()


def test_pause_and_resume_one_and_all(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    bodies = {f"{n}.bin": content(3 * MIB, f"pause {n}") for n in range(4)}
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    page.choose(*(write(tmp_path, name, body) for name, body in bodies.items()))
    assert relay.held.wait(20)
    first = page.row("0.bin")
    first.button("Pause").click()
    first.wait("paused")
    # Its place goes to the next one.
    page.row("3.bin").wait(re.compile("starting|uploading"))
    page.page.get_by_role("button", name="Pause all").click()
    for name in bodies:
        page.row(name).wait("paused")
    expect(page.page).to_have_title("Paused – Send files")
    expect(first.status).to_contain_text("Paused at")
    relay.release()
    page.page.get_by_role("button", name="Resume all").click()
    page.finished(4)
    page.check_stored(shared_server, bodies)
    assert page.resent() == []


def test_a_pause_tells_what_the_server_has(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, 2 * MIB)
    page = open_page(link(relay.url))
    page.choose(write(tmp_path, "half.bin", content(4 * MIB, "half")))
    assert relay.held.wait(20)
    row = page.row("half.bin")
    row.button("Pause").click()
    row.wait("paused")
    relay.release()

    def true() -> bool:
        status = shared_server.request("GET", f"/upload/status?session_id={page.session()}").json()
        return 0.2 < row.share() <= float(str(status["progress"]))

    wait_until(true, "number that the server bears out")


def test_removing_asks_as_long_as_the_row_shows_something(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    """The server has not told of one byte yet, but the person sees how far the file is."""
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    page.choose(write(tmp_path, "shown.bin", content(4 * MIB, "shown")))
    assert relay.held.wait(20)
    row = page.row("shown.bin")
    wait_until(lambda: row.share() > 0, "bytes on the way")
    row.button("Pause").click()
    expect(row.status).to_contain_text(re.compile("Paused at (?!0)"))
    row.button("Remove").click()
    expect(page.page.get_by_role("dialog", name="Remove shown.bin?")).to_be_visible()


def test_removing_gives_back_what_the_server_has(
    start_server: StartServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    server = start_server({"uploads": {"chunk_size": "256KB"}})
    relay = start_relay(server, 2 * MIB)
    page = open_page(link(relay.url, files=1))
    page.choose(write(tmp_path, "wrong.bin", content(6 * MIB, "wrong")))
    assert relay.held.wait(20)
    row = page.row("wrong.bin")
    row.button("Pause").click()
    row.wait("paused")
    relay.reset()
    expect(row.status).to_contain_text(re.compile("Paused at (?!0)"))
    row.button("Remove").click()
    dialog = page.page.get_by_role("dialog", name="Remove wrong.bin?")
    expect(dialog).to_contain_text("are on the server already")
    dialog.get_by_role("button", name="Keep").click()
    expect(dialog).to_be_hidden()
    expect(page.rows()).to_have_count(1)
    row.button("Remove").click()
    with page.page.expect_response(lambda answer: answer.request.method == "DELETE") as answer:
        dialog.get_by_role("button", name="Remove").click()
    assert answer.value.status == 204
    expect(page.rows()).to_have_count(0)
    page.announced("wrong.bin removed.")
    # The link was for one file, and that is free again.
    page.choose(write(tmp_path, "right.bin", b"right"))
    page.finished(1)
    page.check_stored(server, {"right.bin": b"right"})


def test_a_file_that_changes_meanwhile_can_be_chosen_again(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    path = write(tmp_path, "moving.bin", content(40 * MIB, "moving"))
    page.choose(path)
    assert relay.held.wait(20)
    path.write_bytes(b"another content")
    relay.reset()
    row = page.row("moving.bin")
    row.wait("failed")
    expect(row.status).to_contain_text("changed, moved or removed")
    expect(page.page.locator("#total-status")).to_contain_text("1 needs your attention")


def test_leaving_is_warned_of_only_while_something_runs(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        relay.reset()  # or the page could not be loaded
        dialog.accept()

    page.page.on("dialog", answer)
    page.choose(write(tmp_path, "leave.bin", content(8 * MIB, "leave")))
    assert relay.held.wait(20)
    page.page.reload()
    assert asked == ["beforeunload"]
    page.row("leave.bin").wait("resumable")
    page.page.reload()
    assert asked == ["beforeunload"]
    page.choose(tmp_path / "leave.bin")
    page.finished(1)
    page.page.reload()
    assert asked == ["beforeunload"]


def test_the_screen_of_a_phone_stays_on_while_something_runs(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay(shared_server, 300 * KIB)
    page = open_page(
        link(relay.url),
        touch=True,
        size=(360, 700),
        scripts=(
            "delete window.showOpenFilePicker",
            """window.locks = [];
            navigator.wakeLock.request = async (kind) => {
              window.locks.push(kind);
              return { released: false, release: async () => { window.locks.push('released'); } };
            };""",
        ),
    )
    assert page.page.evaluate("window.locks") == []
    page.choose(write(tmp_path, "awake.bin", content(MIB, "awake")))
    assert relay.held.wait(20)
    page.row("awake.bin").wait("uploading")
    assert page.page.evaluate("window.locks") == ["screen"]
    relay.release()
    page.finished(1)
    expect(page.page.locator("#total")).to_have_attribute("data-state", "done")
    assert page.page.evaluate("window.locks") == ["screen", "released"]
