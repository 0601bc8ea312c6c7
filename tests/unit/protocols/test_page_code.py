"""QR codes: which addresses get one, what is drawn, and how much of that is done at once."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocols.conftest import Site
from tests.unit.protocols.exchanges import FakeExchange, request

from hmac_file_server.http import Exchange, Response
from hmac_file_server.protocols import page_code
from hmac_file_server.protocols.page_code import LONGEST, Codes, address_of, draw

ADDRESS = b"https://files.example.org/0123456789abcdef/photo.jpg"
SVG = "{http://www.w3.org/2000/svg}"


def query(address: bytes) -> bytes:
    return b"url=" + quote(address, safe="").encode()


GOOD = (
    ADDRESS,
    b"http://h",
    b"HTTPS://files.example.org:8443/?a=b&c=d#ticket=x.y.z",
    b"http://[2001:db8::1]:8080/a",
    b"http://127.0.0.1:8080/a/%C3%BC%20b+c.jpg",
    b"https://h/" + b"a" * (LONGEST - 10),
)
BAD = (
    b"",
    b"/a",
    b"//h/a",
    b"https:",
    b"https://",
    b"https:///a",
    b"ftp://h/a",
    b"javascript:alert(1)",
    b"data:text/html,x",
    b"https://bank.example@evil.example/",
    b"https://u:p@h/",
    b"https://h/a b",
    b"https://h/\n",
    b"https://h\\a",
    b'https://h/"',
    b"https://h/<b>",
    "https://h/ü".encode(),
    b"https://h:port/",
    b"https://[::1/",
    b" https://h/",
    b"https://h/" + b"a" * (LONGEST - 9),
)


@pytest.mark.parametrize("address", GOOD)
def test_addresses(address: bytes) -> None:
    assert address_of(query(address)) == address
    assert address_of(b"x=1&" + query(address) + b"&y") == address


@pytest.mark.parametrize("address", BAD)
def test_no_addresses(address: bytes) -> None:
    assert address_of(query(address)) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"url",
        b"url=",
        b"u%72l=http%3A%2F%2Fh",
        b"URL=http%3A%2F%2Fh",
        query(ADDRESS) + b"&" + query(ADDRESS),
        query(ADDRESS) + b"&url=",
        b"url=" + b"%41" * 10_000,
    ],
)
def test_no_queries(text: bytes) -> None:
    assert address_of(text) is None


def test_an_address_is_decoded_once() -> None:
    assert address_of(query(b"https://h/%2541%20+")) == b"https://h/%2541%20+"
    # A plus is a plus; and what needs no escape may stand as it is.
    assert address_of(b"url=https://h/a+b?c=d") == b"https://h/a+b?c=d"


@given(st.binary(max_size=80))
def test_what_gets_a_code_could_stand_in_any_document(text: bytes) -> None:
    for attempt in (text, query(text), query(b"https://" + text)):
        address = address_of(attempt)
        if address is not None:
            assert re.fullmatch(rb"https?://[!-~]+", address, re.IGNORECASE)
            assert not re.search(rb'["<>\\^`{|}]', address)
            assert len(address) <= LONGEST


# --- what is drawn ---------------------------------------------------------------------------------------


def modules(svg: bytes) -> set[tuple[int, int]]:
    """(row, column) of the dark modules of a picture whose one dark path has relative moves and strokes."""
    root = ET.fromstring(svg)
    dark = [path.attrib["d"] for path in root.iter(f"{SVG}path") if path.get("stroke") == "#000"]
    assert len(dark) == 1
    row = column = 0.0
    found = set()
    for letter, numbers in re.findall(r"([Mmh])([^Mmh]*)", dark[0]):
        values = [float(number) for number in re.findall(r"-?[0-9]*\.?[0-9]+", numbers)]
        if letter == "M":
            column, row = values
        elif letter == "m":
            column, row = column + values[0], row + values[1]
        else:
            found |= {(int(row), int(column) + step) for step in range(int(values[0]))}
            column += values[0]
    return found


@pytest.mark.parametrize("address", GOOD)
def test_the_picture_is_the_code(address: bytes) -> None:
    svg = draw(address)
    code = segno.make(address.decode(), error="m", micro=False, boost_error=False)
    assert code.error == "M"
    expected = {(y, x) for y, line in enumerate(code.matrix_iter(border=2)) for x, dark in enumerate(line) if dark}
    assert modules(svg) == expected
    root = ET.fromstring(svg)
    width = code.symbol_size(border=2)[0]
    assert root.attrib["viewBox"] == f"0 0 {width} {width}"


def test_the_picture_needs_no_style_and_runs_nothing() -> None:
    root = ET.fromstring(draw(ADDRESS))
    assert {element.tag for element in root.iter()} == {f"{SVG}svg", f"{SVG}path"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert attributes <= {"viewBox", "d", "fill", "stroke", "transform"}
    assert len(draw(GOOD[-1])) < 16 * 1024


# --- how it is served ------------------------------------------------------------------------------------


def ask(site: Site, text: bytes, method: str = "GET") -> FakeExchange:
    exchange = FakeExchange(request(method, "/upload-qr.svg", text))
    site.application.handle(cast("Exchange", exchange))
    return exchange


def test_it_is_drawn_on_a_worker(site: Site) -> None:
    exchange = ask(site, query(ADDRESS))
    assert exchange.answers == []
    site.store.run_later()
    answer = exchange.answer
    assert (answer.status, answer.body) == (200, draw(ADDRESS))
    assert b"Content-Type: image/svg+xml\r\n" in answer.head
    assert b"Cache-Control: private, max-age=86400\r\n" in answer.head
    assert b"Content-Security-Policy: default-src 'none'\r\n" in answer.head
    # Remembered, so at once.
    assert ask(site, query(ADDRESS), "HEAD").answer.body == answer.body


@pytest.mark.parametrize("text", [b"", query(b"/a"), query(BAD[-1])])
def test_no_code(site: Site, text: bytes) -> None:
    answer = ask(site, text).answer
    assert answer.status == 400
    assert b'"bad_url"' in answer.body
    assert not site.store.later


def test_a_fault_is_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(address: bytes) -> bytes:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(page_code, "draw", broken)
    first, second = ask(site, query(ADDRESS)), ask(site, query(b"http://h/"))
    while site.store.later:
        site.store.run_later()
    assert [first.answer.status, second.answer.status] == [500, 500]


def test_who_has_left_is_not_answered(site: Site) -> None:
    exchange = ask(site, query(ADDRESS))
    gone = Response(499)
    exchange.answers.append(gone)
    site.store.run_later()
    assert exchange.answers == [gone]


class Bench:
    """`Codes` with a worker that works when it is told to."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.codes = Codes(self.jobs.append, self.soon)
        self.drawn: list[tuple[int, bytes | None]] = []

    def soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        callback(*arguments)

    def ask(self, number: int) -> bool:
        return self.codes.ask(b"http://h/%d" % number, lambda svg: self.drawn.append((number, svg)))

    def work(self) -> None:
        self.jobs.popleft()()


def test_one_at_a_time_and_not_too_many() -> None:
    bench = Bench()
    asked = 0
    while bench.ask(asked):
        asked += 1
        assert len(bench.jobs) == 1
    assert 8 <= asked <= 64
    assert bench.ask(0), "one that waits already costs nothing more"
    bench.work()
    assert [number for number, _ in bench.drawn] == [0, 0]
    assert bench.ask(asked), "there is room for one again"
    while bench.jobs:
        bench.work()
    assert [number for number, _ in bench.drawn] == [0, *range(asked + 1)]
    assert all(svg == draw(b"http://h/%d" % number) for number, svg in bench.drawn)


def test_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_code, "draw", lambda address: b"<" + address + b">")
    bench = Bench()

    def draws(number: int) -> bool:
        """Ask; whether it had to be drawn."""
        assert bench.ask(number)
        waited = bool(bench.jobs)
        while bench.jobs:
            bench.work()
        return waited

    assert all(draws(number) for number in range(64))
    assert not draws(0), "asked for again, so the latest"
    assert draws(64)
    assert not draws(0)
    assert draws(1), "the oldest has gone"


def test_a_callback_may_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_code, "draw", bytes)
    bench = Bench()
    bench.codes.ask(b"http://h/a", lambda _svg: cast("None", bench.ask(1)))
    while bench.jobs:
        bench.work()
    assert [number for number, _ in bench.drawn] == [1]
