"""Ranges that cost other servers quadratic time, or sent more than there is (S-14)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.server import FileServer
from tests.http.wire import Answer, Line

CONTENT = b"0123456789abcdefghij"
PATH = "ranges/file.bin"
_ONE = re.compile(rb"(?i:bytes)=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*")
_LIST = b"bytes=" + b",".join(b"%d-%d" % (number % 20, number % 20) for number in range(4000))
MANY = _LIST[:30_000].rpartition(b",")[0]

VALUES = (
    MANY, b"bytes=" + b"0-," * 5000 + b"0-", b"bytes=" + b"-1," * 7000 + b"-1", b"bytes=" + b"," * 20_000, b"bytes=0-0" + b"," * 20_000,
    b"bytes=" + b" " * 20_000 + b"0-0", b"bytes=0-0" + b"\t" * 20_000, b"bytes=" + b"9" * 20_000 + b"-", b"bytes=-" + b"9" * 20_000,
    b"bytes=" + b"0" * 20_000 + b"-1", b"bytes=0-1,0-2,0-3,0-4,0-5,0-6,0-7", b"bytes=5-3,0-1", b"bytes=1-1,1-1", b"bytes=0-0;q=1",
    b"bytes", b"bytes=", b"bytes=-", b"bytes=--", b"bytes=0--1", b"bytes=1", b"bytes=a-b", b"bytes 0-1", b"bits=0-1", b"bytes=0-0=", b"=0-0",
    *(b"bytes=%d-%d" % (first, last) for first in range(0, 22, 3) for last in range(0, 24, 3)),
    *(b"bytes=-%d" % count for count in (0, 1, 19, 20, 21, 2**63, 2**64, 10**18)),
    *(b"bytes=%d-" % first for first in (0, 19, 20, 21, 2**31, 2**63 - 1, 2**63, 10**18)),
    *(b"bytes=%b-%b" % (first, last) for first in (b"+1", b"0x1", b"1_0", b"1.0", b"") for last in (b"2", b"+2", b"-2")),
)  # fmt: skip


@pytest.fixture(scope="module")
def line(quick: FileServer) -> Iterator[Line]:
    assert quick.request("PUT", slots.target(PATH, slots.v1(PATH, len(CONTENT))), CONTENT).status == 201
    made = Line(quick.port)
    yield made
    made.close()


def get(line: Line, name: bytes, value: bytes) -> Answer:
    return line.ask(b"GET /upload/" + PATH.encode() + b" HTTP/1.1\r\nHost: t\r\n" + name + b": " + value + b"\r\n\r\n")


def meant(value: bytes) -> tuple[int, bytes]:
    """Status and body, by the letter of RFC 9110 section 14 for one range; everything else gets the whole file."""
    match = _ONE.fullmatch(value)
    if match is None or match.groups() == (b"", b""):
        return 200, CONTENT
    first, last = match.groups()
    if not first:
        return (206, CONTENT[-int(last) :]) if int(last) else (416, b"")
    if last and int(last) < int(first):
        return 200, CONTENT
    if int(first) >= len(CONTENT):
        return 416, b""
    return 206, CONTENT[int(first) : int(last) + 1 if last else None]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:24].decode())
def test_a_range_is_what_the_letter_says(line: Line, value: bytes) -> None:
    """Never more than the file, never in several parts, whatever is asked for."""
    answer = get(line, b"Range", value)
    status, body = meant(value)
    assert answer.status == status, answer
    if status != 416:
        assert answer.body == body
        assert len(answer.body) <= len(CONTENT)
        assert not answer.headers[b"content-type"].startswith(b"multipart")
    if status == 206:
        first = CONTENT.index(body)
        assert answer.headers[b"content-range"] == b"bytes %d-%d/%d" % (first, first + len(body) - 1, len(CONTENT))


def cpu(server: FileServer) -> float:
    """Seconds of processor time that the server has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_many_ranges_cost_what_their_bytes_cost(quick: FileServer, line: Line) -> None:
    """CVE-2025-62727, CVE-2011-3192: a field of 30 KB full of ranges is read as any other field of 30 KB is."""
    costs = {}
    for name in (b"X-Filler", b"Range"):
        before = cpu(quick)
        for _ in range(500):
            assert get(line, name, MANY).status == 200
        costs[name] = cpu(quick) - before
    # Merging thousands of ranges pairwise would be thousands of times the work.
    assert costs[b"Range"] < 10 * costs[b"X-Filler"] + 0.5, costs
