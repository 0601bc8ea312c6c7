"""The upload page as its users see it: opened by a link, given files, looked at."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, BrowserContext, CDPSession, ConsoleMessage, Locator, Page, expect
from tests.fixtures.relay import Relay
from tests.fixtures.server import SECRET, FileServer

from hmac_file_server.cli.link import upload_link
from hmac_file_server.config import Secret

KIB = 1 << 10
MIB = 1 << 20
WEEK = 7 * 86_400
MILLISECONDS = 30_000

StartRelay = Callable[[FileServer, int], Relay]

# Without the dialog of the system, which a test cannot answer: then the page takes its <input>.
_NO_PICKER = "delete window.showOpenFilePicker"

# What every request with a body brought, and what the server had acknowledged before: in the order in which the page
# sees it, over all loads of it.
_LEDGER = """(() => {
  const KEY = 'test ledger';
  const note = (entry) => localStorage.setItem(KEY, JSON.stringify([...JSON.parse(localStorage.getItem(KEY) ?? '[]'), entry]));
  const prototype = XMLHttpRequest.prototype;
  const { open, setRequestHeader, send } = prototype;
  prototype.open = function (method, url, ...more) {
    this.told = { method, headers: {} };
    return open.call(this, method, url, ...more);
  };
  prototype.setRequestHeader = function (name, value) {
    this.told.headers[name.toLowerCase()] = value;
    return setRequestHeader.call(this, name, value);
  };
  prototype.send = function (body) {
    const { headers } = this.told;
    const session = headers['x-upload-session-id'];
    if (session && headers['x-chunk-number'] !== undefined) {
      note({ session, chunk: Number(headers['x-chunk-number']), offset: Number(headers['x-chunk-offset'] ?? 0), size: body.size ?? body.byteLength });
    }
    this.addEventListener('load', () => {
      try {
        const answer = JSON.parse(this.responseText);
        const known = session ?? answer.session_id;
        if (known && (answer.received || answer.chunk_size)) note({ session: known, received: answer.received ?? [], chunkSize: answer.chunk_size });
      } catch { /* an error */ }
    });
    return send.call(this, body);
  };
})();"""

# Chromium's own words about requests that do not succeed; the page tells of these by itself.
_NETWORK = re.compile(r"^Failed to load resource: (net::ERR_|the server responded with a status of )")


def link(url: str, *, max_size: int = 5 << 30, files: int | None = None, lifetime: float = WEEK) -> str:
    """What `hmac-file-server link` prints for this base URL."""
    return upload_link(url, Secret(SECRET), max_size=max_size, files=files, now=time.time(), lifetime=lifetime)


def write(folder: Path, name: str, body: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def stored(server: FileServer, url: str) -> bytes:
    """The file under the URL that the page gives."""
    answer = server.request("GET", urlsplit(url).path)
    assert answer.status == 200, answer.body
    return answer.body


@dataclass(frozen=True, slots=True)
class Row:
    """One file in the list."""

    node: Locator

    @property
    def state(self) -> str:
        return self.node.get_attribute("data-state") or ""

    @property
    def path(self) -> str:
        """Folder and name as they stand there."""
        parts = (self.node.locator(part).text_content() for part in (".file-folder", ".file-name"))
        return "/".join(filter(None, parts))

    @property
    def status(self) -> Locator:
        return self.node.locator(".status")

    @property
    def bar(self) -> Locator:
        return self.node.locator("progress")

    @property
    def url(self) -> str:
        address = self.node.locator(".file-name a").get_attribute("href")
        assert address is not None
        return address

    def button(self, label: str) -> Locator:
        return self.node.get_by_role("button", name=re.compile(f"^{re.escape(label)}: "))

    def wait(self, state: str | re.Pattern[str]) -> None:
        """Until the file is in this state."""
        expect(self.node).to_have_attribute("data-state", state, timeout=MILLISECONDS)

    def share(self) -> float:
        """How far its bar is, 0 to 1."""
        value = self.bar.evaluate("(bar) => bar.value")
        assert isinstance(value, int | float)
        return float(value)


@dataclass(slots=True)
class UploadPage:
    """One page of one browser."""

    page: Page
    context: BrowserContext

    def choose(self, *files: Path) -> None:
        """By the button and the dialog of the browser."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Choose files").click()
        chooser.value.set_files(list(files))

    def choose_folder(self, folder: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Choose a folder").click()
        chooser.value.set_files(folder)

    def drop(self, *paths: Path) -> None:
        """Drag files and folders from the desktop into the page and let go."""
        session = self.devtools()
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": data})
        session.detach()

    def reload(self, relay: Relay) -> None:
        """Load the page anew while the relay holds what it sends, and let nothing more of that through.

        A page goes on until the next one is there: what it tries meanwhile fails. And Chromium sends a request again
        by itself when its connection was not new.
        """
        self.page.route("**/upload/chunked", lambda route: route.abort())
        relay.refusing = True
        relay.reset()
        expect(self.page.locator('.file[data-state="uploading"]')).to_have_count(0, timeout=MILLISECONDS)
        relay.refusing = False
        self.page.reload()
        self.page.unroute("**/upload/chunked")

    def devtools(self) -> CDPSession:
        return self.context.new_cdp_session(self.page)

    def row(self, name: str) -> Row:
        return Row(self.page.locator(".file").filter(has=self.page.locator(".file-name", has_text=name)))

    def rows(self) -> Locator:
        return self.page.locator(".file")

    def finished(self, count: int) -> None:
        """Until so many files are done."""
        expect(self.page.locator('.file[data-state="done"]')).to_have_count(count, timeout=MILLISECONDS)

    def notice(self, key: str) -> Locator:
        return self.page.locator(f'[data-notice="{key}"]')

    def announced(self, text: str | re.Pattern[str]) -> None:
        """Until a screen reader is told this."""
        expect(self.page.get_by_role("status")).to_contain_text(text, timeout=MILLISECONDS)

    def check_stored(self, server: FileServer, bodies: Mapping[str, bytes]) -> None:
        """Every file is stored under the link that its row shows."""
        for name, body in bodies.items():
            row = self.row(name)
            got = stored(server, row.url)
            assert hashlib.sha256(got).hexdigest() == hashlib.sha256(body).hexdigest(), name
            assert unquote(row.url).endswith("/" + name)

    def session(self) -> str:
        """The session that the page used last."""
        entries = json.loads(self.page.evaluate("localStorage.getItem('test ledger')"))
        session = entries[-1]["session"]
        assert isinstance(session, str)
        return session

    def resent(self) -> Sequence[tuple[int, int]]:
        """Ranges that were sent although the server had acknowledged them to the page, over all loads of it."""
        entries = json.loads(self.page.evaluate("localStorage.getItem('test ledger') ?? '[]'"))
        sizes: dict[str, int] = {}
        received: dict[str, list[list[int]]] = {}
        again: list[tuple[int, int]] = []
        for entry in entries:
            session = entry["session"]
            if "received" in entry:
                received[session] = entry["received"]
                sizes[session] = entry.get("chunkSize") or sizes.get(session, 0)
                continue
            start = entry["chunk"] * sizes[session] + entry["offset"]
            stop = start + entry["size"]
            again += [
                (max(start, low), min(stop, high))
                for low, high in received.get(session, [])
                if max(start, low) < min(stop, high)
            ]
        if again:
            print(entries)
        assert any("chunk" in entry for entry in entries), "nothing was sent"
        return again


@dataclass(slots=True)
class Visits:
    """Opens pages and listens to what they complain about."""

    browser: Browser
    complaints: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(
        self,
        url: str,
        *,
        scripts: Sequence[str] = (_NO_PICKER,),
        scheme: str = "light",
        size: tuple[int, int] = (1000, 800),
        touch: bool = False,
        javascript: bool = True,
        reduced_motion: bool = True,
        locale: str = "en-GB",
    ) -> UploadPage:
        context = self.browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": size[0], "height": size[1]},
            has_touch=touch,
            is_mobile=touch,
            java_script_enabled=javascript,
            reduced_motion="reduce" if reduced_motion else "no-preference",
            locale=locale,
        )
        self.contexts.append(context)
        context.set_default_timeout(MILLISECONDS)
        for script in (_LEDGER, *scripts):
            context.add_init_script(script)
        page = context.new_page()
        page.on("console", lambda message: self._console(message))  # noqa: PLW0108 - slots: Playwright marks bound methods
        page.on(
            "filechooser", lambda _: None
        )  # from the beginning, so that no dialog is opened before it is watched for
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.goto(url)
        if javascript:
            page.locator("#page:not([hidden])").wait_for()
        return UploadPage(page, context)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _NETWORK.match(message.text):
            self.complaints.append(f"{message.type}: {message.text}")

    def judge(self) -> None:
        """No error of a script, no word on the console, no violation of the Content-Security-Policy (these are too)."""
        assert self.complaints == []

    def close(self) -> None:
        for context in self.contexts:
            context.close()


OpenPage = Callable[..., UploadPage]
