"""What happens to uploads in the page when the network, the server or the page itself goes away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.guide.servers import crash
from tests.page.driver import KIB, MIB, OpenPage, StartRelay, UploadPage, link, write

# Files of the browser's own file system, whose handles can be kept as those of the user's files are; and a dialog
# that chooses all of them at once.
_HANDLES = """
window.showOpenFilePicker = async () => {
  const folder = await navigator.storage.getDirectory();
  const handles = [];
  for await (const handle of folder.values()) handles.push(handle);
  return handles;
};
"""
# Permission to read is gone with the page, until somebody clicks.
_ASKS = """
window.asked = [];
FileSystemHandle.prototype.queryPermission = async () => 'prompt';
FileSystemHandle.prototype.requestPermission = async function ({ mode }) {
  window.asked.push([this.name, mode, navigator.userActivation.isActive]);
  return 'granted';
};
"""


def test_two_reloads_in_the_middle(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    bodies = {"first.bin": content(9 * MIB + 5, "reload"), "second.bin": content(9 * MIB, "reload too")}
    paths = [write(tmp_path, name, body) for name, body in bodies.items()]
    relay = start_relay(shared_server, 3 * MIB)
    page = open_page(link(relay.url))
    page.choose(*paths)
    shown = 0.0
    for last in (False, True):
        assert relay.held.wait(20)
        page.reload(relay)
        for name in bodies:
            page.row(name).wait("resumable")
        expect(page.notice("resumable")).to_contain_text("There are 2 unfinished uploads from before.")
        row = page.row("first.bin")
        expect(row.status).to_contain_text(re.compile(r"\d+% are there already. Choose the file again to continue."))
        assert row.share() > shown
        shown = row.share()
        # The ticket is not in the address any more, and the page has it all the same.
        assert page.page.url == f"{relay.url}/"
        if last:
            # Those that are begun are known among others.
            page.choose(*paths)
        else:
            relay.hold_again(4 * MIB)
            for path in paths:
                with page.page.expect_file_chooser() as chooser:
                    page.row(path.name).button("Choose again").click()
                chooser.value.set_files(path)
    page.finished(2)
    page.check_stored(shared_server, bodies)
    assert page.resent() == []


def test_five_ends_of_the_server(
    server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    bodies = {"a.bin": content(11 * MIB, "killed"), "b.bin": content(7 * MIB + 1, "killed too")}
    relay = start_relay(server, 2 * MIB)
    page = open_page(link(relay.url))
    page.choose(*(write(tmp_path, name, body) for name, body in bodies.items()))
    for _ in range(5):
        assert relay.held.wait(30)
        crash(server)
        relay.release()
        relay.hold_again(2 * MIB)
        server.start()
    assert relay.held.wait(30)
    relay.release()
    page.finished(2)
    page.check_stored(server, bodies)
    assert page.resent() == []
    expect(page.notice("away")).to_have_count(0)


def test_offline_for_a_while(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    body = content(5 * MIB, "offline")
    relay = start_relay(shared_server, 2 * MIB)
    page = open_page(link(relay.url))
    page.choose(write(tmp_path, "offline.bin", body))
    assert relay.held.wait(20)
    row = page.row("offline.bin")
    before = row.share()
    page.context.set_offline(True)
    row.wait("offline")
    text = "No connection. Nothing is lost; it goes on by itself when the network is back."
    expect(page.notice("offline")).to_have_text(text)
    page.announced(text)
    expect(row.status).to_contain_text("No connection; goes on by itself")
    expect(page.page).to_have_title("No connection – Send files")
    assert row.share() >= before
    # What is added meanwhile waits.
    page.choose(write(tmp_path, "later.bin", b"later"))
    page.row("later.bin").wait("offline")
    relay.reset()
    page.context.set_offline(False)
    page.finished(2)
    expect(page.notice("offline")).to_have_count(0)
    page.check_stored(shared_server, {"offline.bin": body, "later.bin": b"later"})
    assert page.resent() == []


def test_a_server_that_is_away(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    body = content(3 * MIB, "away")
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    page.choose(write(tmp_path, "away.bin", body))
    assert relay.held.wait(20)
    relay.refusing = True
    relay.reset()
    row = page.row("away.bin")
    expect(page.notice("away")).to_have_text(
        "The server does not answer at the moment. Nothing is lost; it goes on by itself.", timeout=20_000
    )
    expect(row.status).to_contain_text("No answer; tries again")
    relay.refusing = False
    page.finished(1)
    expect(page.notice("away")).to_have_count(0)
    page.check_stored(shared_server, {"away.bin": body})
    assert page.resent() == []


@pytest.mark.parametrize("asks", [False, True], ids=["goes-on-by-itself", "one-click"])
def test_a_file_whose_handle_is_kept_is_not_chosen_again(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, asks: bool
) -> None:
    relay = start_relay(shared_server, 2 * MIB)
    page = open_page(link(relay.url), scripts=(_HANDLES, *([_ASKS] if asks else [])))
    page.page.evaluate("""async () => {
      const folder = await navigator.storage.getDirectory();
      const writable = await (await folder.getFileHandle('kept.bin', { create: true })).createWritable();
      await writable.write(new Uint8Array(5 * 2 ** 20).map((_, place) => place * 7));
      await writable.close();
    }""")
    body = bytes((place * 7) & 255 for place in range(5 * MIB))
    page.page.get_by_role("button", name="Choose files").click()
    assert relay.held.wait(20)
    page.reload(relay)
    if asks:
        row = page.row("kept.bin")
        row.wait("resumable")
        expect(row.status).to_contain_text("are there already. Continue when you like.")
        assert page.page.evaluate("window.asked") == []
        row.button("Continue").click()
    page.finished(1)
    page.check_stored(shared_server, {"kept.bin": body})
    assert page.resent() == []
    if asks:
        assert page.page.evaluate("window.asked") == [["kept.bin", "read", True]]


def test_what_was_paused_stays_paused_over_a_reload(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay
) -> None:
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url), scripts=(_HANDLES,))
    page.page.evaluate("""async () => {
      const folder = await navigator.storage.getDirectory();
      const writable = await (await folder.getFileHandle('paused.bin', { create: true })).createWritable();
      await writable.write(new Uint8Array(3 * 2 ** 20));
      await writable.close();
    }""")
    page.page.get_by_role("button", name="Choose files").click()
    assert relay.held.wait(20)
    page.row("paused.bin").button("Pause").click()
    page.row("paused.bin").wait("paused")
    relay.reset()
    page.page.reload()
    page.row("paused.bin").wait("resumable")
    page.page.get_by_role("button", name="Resume all").click()
    page.finished(1)
    page.check_stored(shared_server, {"paused.bin": bytes(3 * MIB)})


def test_another_file_does_not_continue_an_upload(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    body = content(3 * MIB, "the one")
    path = write(tmp_path, "same.bin", body)
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    page.choose(path)
    assert relay.held.wait(20)
    page.reload(relay)
    row = page.row("same.bin")
    row.wait("resumable")
    with page.page.expect_file_chooser() as chooser:
        row.button("Choose again").click()
    chooser.value.set_files(write(tmp_path / "elsewhere", "same.bin", content(3 * MIB - 1, "another")))
    expect(page.notice("refused")).to_contain_text("This is not the same file, or it was changed since: same.bin")
    row.wait("resumable")
    page.page.get_by_role("button", name="Close this message").click()
    expect(page.notice("refused")).to_have_count(0)
    page.drop(path)
    page.finished(1)
    page.check_stored(shared_server, {"same.bin": body})


def test_an_upload_that_was_finished_elsewhere(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    """As when the last answer was lost with the page: nothing needs to be chosen again."""
    body = content(3 * MIB, "finished elsewhere")
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    page.choose(write(tmp_path, "finished.bin", body))
    assert relay.held.wait(20)
    session = page.session()
    page.page.goto("about:blank")
    relay.reset()
    status = shared_server.request("GET", f"/upload/status?session_id={session}").json()
    size = status["chunk_size"]
    assert isinstance(size, int)
    for number in range(-(-len(body) // size)):
        answer = shared_server.request(
            "PUT",
            "/upload/chunked",
            body[number * size : (number + 1) * size],
            {"X-Upload-Session-ID": session, "X-Chunk-Number": str(number)},
        )
        assert answer.status == 200, answer.body
    page.page.goto(relay.url)
    page.finished(1)
    page.check_stored(shared_server, {"finished.bin": body})


def test_an_upload_that_the_server_forgot_begins_anew(
    shared_server: FileServer, open_page: OpenPage, start_relay: StartRelay, tmp_path: Path
) -> None:
    body = content(3 * MIB, "forgotten")
    path = write(tmp_path, "forgotten.bin", body)
    relay = start_relay(shared_server, MIB)
    page = open_page(link(relay.url))
    page.choose(path)
    assert relay.held.wait(20)
    session = page.session()
    page.page.goto("about:blank")
    relay.reset()

    def forgotten() -> bool:
        head = {"X-Upload-Session-ID": session}
        return shared_server.request("DELETE", "/upload/chunked", headers=head).status == 204

    wait_until(forgotten, "session that is deleted")
    page.page.goto(relay.url)
    row = page.row("forgotten.bin")
    row.wait("resumable")
    expect(row.status).to_have_text("Nothing of it is there yet. Choose the file again to begin.")
    page.choose(path)
    page.finished(1)
    page.check_stored(shared_server, {"forgotten.bin": body})


def test_two_windows_do_not_fight_for_a_file(shared_server: FileServer, open_page: OpenPage, tmp_path: Path) -> None:
    body = content(3 * MIB, "windows")
    path = write(tmp_path, "window.bin", body)
    page = open_page(link(shared_server.url))
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100 * KIB}
    page.devtools().send("Network.emulateNetworkConditions", slow)
    page.choose(path)
    page.row("window.bin").wait("uploading")
    other = UploadPage(page.context.new_page(), page.context)
    other.page.goto(link(shared_server.url))
    expect(other.page.get_by_role("button", name="Choose files")).to_be_visible()
    expect(other.rows()).to_have_count(0)
    page.page.close()
    # Now it is free.
    other.row("window.bin").wait("resumable")
    other.choose(path)
    other.finished(1)
    other.check_stored(shared_server, {"window.bin": body})


def test_a_private_window_says_that_it_keeps_nothing(
    shared_server: FileServer, open_page: OpenPage, tmp_path: Path
) -> None:
    broken = "IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError'); };"
    page = open_page(link(shared_server.url), scripts=("delete window.showOpenFilePicker", broken))
    expect(page.notice("memory")).to_contain_text("keeps nothing for later")
    page.choose(write(tmp_path, "private.bin", b"private"))
    page.finished(1)
    page.check_stored(shared_server, {"private.bin": b"private"})
