import json
import re
from typing import Literal

import pytest

from hmac_file_server.telemetry.access import GATHERED, AccessLog


class Written:
    """Takes what is written."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.now = 1752751996.0

    def log(self, *, enabled: bool = True, style: Literal["text", "json"] = "text") -> AccessLog:
        return AccessLog(self.calls.append, enabled, format=style, now=lambda: self.now)

    @property
    def lines(self) -> list[str]:
        return b"".join(self.calls).decode().splitlines()


@pytest.fixture
def written() -> Written:
    return Written()


def put(access: AccessLog, path: str = "/upload/u1/a.txt", owner: str | None = None) -> None:
    access.record("PUT", path, 201, 1048576, 0, 0.0421, "192.0.2.7", "a1b2c3", owner)


def test_a_line_of_text(written: Written) -> None:
    access = written.log()
    put(access)
    access.flush()
    assert re.fullmatch(
        r"2025-07-17 \d\d:\d\d:16 INFO PUT /upload/u1/a.txt 201 in=1048576 out=0 0.042s from 192.0.2.7 id=a1b2c3",
        written.lines[0],
    )


def test_a_line_of_json(written: Written) -> None:
    access = written.log(style="json")
    put(access, owner="alice@example.org")
    access.flush()
    assert json.loads(written.lines[0]) == {
        "time": "2025-07-17T11:33:16.000Z",
        "level": "INFO",
        "event": "request",
        "method": "PUT",
        "path": "/upload/u1/a.txt",
        "status": 201,
        "bytes_in": 1048576,
        "bytes_out": 0,
        "seconds": 0.0421,
        "peer": "192.0.2.7",
        "request_id": "a1b2c3",
        "user": "alice@example.org",
    }


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a b", '"/a b"'),
        ('/a"b', '"/a\\"b"'),
        ("/a\nINFO forged", '"/a\\x0aINFO forged"'),
        ("/\u202e", "/\\u202e"),
        ("/a\\b", "/a\\\\b"),
        ("/tr\u00e8s", "/tr\u00e8s"),
        ("/" + "x" * 300, "/" + "x" * 199 + "…"),
    ],
)
def test_a_path_is_one_escaped_column(written: Written, path: str, shown: str) -> None:
    access = written.log()
    put(access, path)
    access.flush()
    assert len(written.lines) == 1
    assert f" PUT {shown} 201 " in written.lines[0]


@pytest.mark.parametrize("style", ["text", "json"])
def test_odd_text_never_makes_a_second_line(written: Written, style: Literal["text", "json"]) -> None:
    access = written.log(style=style)
    for odd in ("\r\n", "\u2028", "\x85", "\ud800", "\x00"):
        put(access, "/" + odd, owner="a" + odd)
    access.flush()
    data = b"".join(written.calls)
    assert data.count(b"\n") == 5
    assert len(data.decode().splitlines()) == 5


def test_the_user_is_named_when_known(written: Written) -> None:
    access = written.log()
    put(access, owner="alice@example.org")
    put(access)
    access.flush()
    assert written.lines[0].endswith(" user=alice@example.org")
    assert written.lines[1].endswith(" id=a1b2c3")


def test_lines_are_gathered_until_flush(written: Written) -> None:
    access = written.log()
    for _ in range(3):
        put(access)
    assert written.calls == []
    access.flush()
    access.flush()
    assert len(written.calls) == 1
    assert len(written.lines) == 3
    assert written.calls[0].endswith(b"\n")


def test_64_kib_are_written_at_once(written: Written) -> None:
    access = written.log()
    count = 0
    while not written.calls:
        put(access)
        count += 1
    assert GATHERED <= len(written.calls[0]) < GATHERED + 200
    assert len(written.lines) == count
    access.flush()
    assert len(written.calls) == 1


def test_the_time_moves_on(written: Written) -> None:
    access = written.log()
    put(access)
    written.now += 0.9
    put(access)
    written.now += 0.1
    put(access)
    access.flush()
    assert [line[17:19] for line in written.lines] == ["16", "16", "17"]


def test_a_log_that_is_off_does_nothing(written: Written) -> None:
    access = written.log(enabled=False)
    for _ in range(10_000):
        put(access)
    access.flush()
    assert written.calls == []
    assert access.record.__name__ == "_nothing"  # type: ignore[attr-defined]
