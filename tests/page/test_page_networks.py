"""uploader.js in a browser whose network goes and comes: what the browser says of it is made use of.

Chromium leaves requests under way alone when its machine has another address: they would hang until the watchdog
looks. What is asked here is whether they are left before.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.page.driver import OpenPage, link, stored
from tests.uploader.tap import Tap

MIB = 1 << 20
SIZE = 12 * MIB
LABEL = "networks"

# The same bytes as `content` gives are fetched, since they would be a long argument.
START = """async ([ticket, source, watchdog]) => {
  const { NetworkResilientUploader } = await import('/uploader.js');
  const blob = await (await fetch(source)).blob();
  const file = new File([blob], 'networks.bin');
  const uploader = new NetworkResilientUploader(file, '/upload/chunked', { ticket, watchdog, digest: false, store: null });
  globalThis.seen = [];
  for (const name of ['retry', 'stall', 'offline', 'online']) {
    uploader.addEventListener(name, () => globalThis.seen.push(name));
  }
  globalThis.result = uploader.upload();
}"""
NEWS = """(online) => {
  Object.defineProperty(navigator, 'onLine', { configurable: true, get: () => online });
  navigator.connection?.dispatchEvent(new Event('change'));
  window.dispatchEvent(new Event(online ? 'online' : 'offline'));
}"""
OVER = "async () => ({ url: (await globalThis.result).url, seen: globalThis.seen })"


@pytest.fixture
def tap(shared_server: FileServer) -> Iterator[Tap]:
    made = Tap(shared_server.port, hold_after=5 * MIB + 100_000)
    try:
        yield made
    finally:
        made.close()


def test_bodies_are_left_when_the_network_was_gone(shared_server: FileServer, open_page: OpenPage, tap: Tap) -> None:
    seen = upload(shared_server, open_page, tap, [False, True])
    assert "stall" not in seen, "they were left to the watchdog"
    assert "retry" in seen


def test_bodies_are_left_when_the_network_is_another(shared_server: FileServer, open_page: OpenPage, tap: Tap) -> None:
    """It changed without having been away: nothing has moved between two looks."""
    seen = upload(shared_server, open_page, tap, [True])
    assert "stall" not in seen, "they were left to the watchdog"
    assert "retry" in seen


def test_bodies_that_move_are_let_alone(shared_server: FileServer, open_page: OpenPage, tap: Tap) -> None:
    """The same news, of a network on which the connections live."""
    seen = upload(shared_server, open_page, tap, [True], dark=False)
    assert seen == []


def upload(server: FileServer, open_page: OpenPage, tap: Tap, news: list[bool], *, dark: bool = True) -> list[str]:
    """What an upload went through whose connections fall silent, and whose browser then has this to say."""
    body = content(SIZE, LABEL)
    address = link(tap.url)
    path = f"{LABEL}/source.bin"
    server.request("PUT", f"/upload/{path}?{slots.v1(path, SIZE)}", body)
    page = open_page(address).page
    page.evaluate(START, [address.partition("=")[2], f"/upload/{path}", 60_000])
    assert tap.held.wait(30)
    if dark:
        tap.darken_links()
    else:
        tap.release()
    for online in news:
        page.evaluate(NEWS, online)
    over = page.evaluate(OVER)
    assert stored(server, over["url"]) == body
    assert tap.sent_twice() == 0
    seen: list[str] = over["seen"]
    return seen
