"""The suite itself: every case can fail, its documentation is true, and the command line says what it found."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.__main__ import main, versions
from tests.conformance.catalogue import CATALOGUE, Case, Catalogue, Failed, Family, Level, Trial
from tests.conformance.connection import Address, Answer, Connection, Malformed, NoAnswer, chunked
from tests.conformance.draft import Draft
from tests.conformance.structured import dictionary, item
from tests.conformance.suite import FAIL, SKIP, Result, Suite, chosen
from tests.conformance.target import Target, number
from tests.conformance.toy import serving
from tests.conformance.tus_checksums import crc32c

PAGE = Path(__file__).parent.parent.parent / "docs" / "conformance.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (\S+) \| ([^|]*) \| ([^|]*) \| (.*) \|$", re.MULTILINE)


# --------------------------------------------------------------------------------------------- negative control


@pytest.fixture(scope="module")
def wrong() -> dict[str, list[Result]]:
    """What every trial makes of the two wrong servers. They mostly wait, and so do it side by side."""
    trials = chosen()

    def tried(url: str, share: list[Trial]) -> list[Result]:
        suite = Suite(Target(url, patience=0.3))
        return [suite.attempt(trial) for trial in share]

    found: dict[str, list[Result]] = {trial.id: [] for trial in trials}
    for grudging in (False, True):
        with serving(grudging=grudging) as url, ThreadPoolExecutor(8) as pool:
            for results in pool.map(tried, [url] * 16, [trials[place::16] for place in range(16)]):
                for result in results:
                    found[result.trial.id].append(result)
    return found


def test_every_case_can_fail(wrong: dict[str, list[Result]]) -> None:
    """No case is content with both a server that agrees to everything and one that refuses everything."""
    content = [case for case, results in wrong.items() if all(result.verdict != FAIL for result in results)]
    assert content == []


def test_wrong_servers_are_not_skipped(wrong: dict[str, list[Result]]) -> None:
    """The negative control is one: next to nothing is passed over."""
    skipped = [case for case, results in wrong.items() if results[0].verdict == SKIP]
    assert len(skipped) < len(wrong) / 20, skipped


def test_failures_say_what_was_wrong(wrong: dict[str, list[Result]]) -> None:
    assert all(result.reason for results in wrong.values() for result in results if result.verdict == FAIL)


def test_exit_code_of_a_wrong_server(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(grudging=False) as url:
        code = main(["--url", url, "--case", "tus-core-04", "--patience", "1", "--header", "X-Signature: abc"])
    printed = capsys.readouterr().out
    assert code == 1
    assert re.search(r"^fail MUST +tus-core-04 ", printed, re.MULTILINE)
    assert "because: 203 instead of 200 or 204" in printed


# --------------------------------------------------------------------------------------------- command line


@pytest.fixture
def plain() -> Iterator[str]:
    """The URL of a server that speaks none of the protocols."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Plain(http.server.BaseHTTPRequestHandler):
    """Takes nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Print nothing."""


def test_nothing_is_tried_where_nothing_is_spoken(plain: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server of other things is no failure, but the suite does not call it conforming."""
    assert main(["--url", plain, "--patience", "2", "--json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert {row["result"] for row in rows} == {"skip"}
    assert all(row["reason"] for row in rows)


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert main(["--url", f"http://127.0.0.1:{port}/", "--patience", "0.2"]) == 2
    assert "nothing takes connections" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--url", "ftp://x/"], ["--url", "http://x/", "--header", "nocolon"]])
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_unknown_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://127.0.0.1:1/", "--case", "tus-core-99"]) == 2
    assert "tus-core-99" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` names every case, also of one protocol and as JSON."""
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{case.id} " in printed and case.title in printed for case in CATALOGUE.cases.values())
    assert main(["--list", "--only", "content-range", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    wanted = [case.id for case in CATALOGUE.cases.values() if case.family is Family.CONTENT_RANGE]
    assert [row["id"] for row in rows] == wanted


def test_choice() -> None:
    """A case of the draft is tried in each of its versions, or in one."""
    assert [trial.id for trial in chosen(case_ids=("draft-append-02",))] == [f"draft-append-02@{v}" for v in (3, 4, 5)]
    assert [trial.id for trial in chosen(case_ids=("draft-create-01@unversioned",))] == ["draft-create-01@unversioned"]
    assert {trial.case.family for trial in chosen(Family.TUS)} == {Family.TUS}
    with pytest.raises(ValueError, match="draft-append-02@9"):
        chosen(case_ids=("draft-append-02@9",))


def test_only_a_failed_must_is_fatal() -> None:
    for level in Level:
        case = Case("x", Family.TUS, level, "t", "s", lambda _: None)
        catalogue = Catalogue()
        catalogue.add(case)
        (trial,) = catalogue.trials()
        assert Result(trial, FAIL, "", 0).fatal is (level is Level.MUST)
        assert not Result(trial, SKIP, "", 0).fatal


def test_ids_are_unique() -> None:
    catalogue = Catalogue()
    case = Case("x", Family.TUS, Level.MUST, "t", "s", lambda _: None)
    catalogue.add(case)
    with pytest.raises(ValueError, match="x"):
        catalogue.add(case)


# --------------------------------------------------------------------------------------------- documentation


def test_the_page_lists_every_case() -> None:
    """docs/conformance.md and the suite say the same of every case, in the same order."""
    documented = [match.groups() for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))]
    wanted = [
        (case.id, case.level.value, versions(case.versions) or ", ".join(case.needs) or "-", case.source, case.title)
        for case in CATALOGUE.cases.values()
    ]
    assert documented == wanted


def test_nothing_of_this_server_in_it() -> None:
    """The suite imports nothing of the server it was written for, but in the test of that server."""
    for module in Path(__file__).parent.glob("*.py"):
        if not module.name.startswith("test_"):
            assert "hmac_file_server" not in module.read_text(encoding="utf-8"), module.name


# --------------------------------------------------------------------------------------------- the client


def conversation(sent: bytes, *, close: bool = True) -> Connection:
    """A connection on which a server has sent these bytes."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        connection = Connection(Address.of(f"http://127.0.0.1:{listening.getsockname()[1]}/"), 0.3)
        accepted, _ = listening.accept()
    accepted.sendall(sent)
    if close:
        accepted.close()
    else:
        threading.Timer(1, accepted.close).start()
    return connection


def test_interim_answers_are_seen() -> None:
    sent = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 104 Upload Resumption Supported\r\nLocation: /u\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\nX-A: 1\r\nx-a: 2\r\n\r\nabc"
    )
    with conversation(sent) as connection:
        answer = connection.answer()
    assert [found.status for found in answer.interim] == [100, 104]
    assert answer.interim[1].get("LOCATION") == "/u"
    assert (answer.status, answer.body, answer.get("x-a")) == (201, b"abc", "1, 2")


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nX: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_bodies(sent: bytes, body: bytes) -> None:
    with conversation(sent) as connection:
        assert connection.answer().body == body


def test_head_has_no_body() -> None:
    with conversation(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n") as connection:
        assert connection.answer(head=True).get("content-length") == "500"


@pytest.mark.parametrize(
    "sent",
    [
        b"HTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http(sent: bytes) -> None:
    with conversation(sent) as connection, pytest.raises(Malformed):
        connection.answer()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 100 C\r\n\r\n"])
def test_what_is_no_answer(sent: bytes) -> None:
    with conversation(sent) as connection, pytest.raises(NoAnswer):
        connection.answer()


def test_silence_is_no_answer() -> None:
    with conversation(b"", close=False) as connection:
        with pytest.raises(NoAnswer):
            connection.answer()
        assert connection.interim(0.01) is None
        assert not connection.ended(0.01)


def test_chunks_and_trailers() -> None:
    assert chunked(b"abcde", {"X-Sum": "1"}, size=3) == b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"


def test_numbers_are_strict() -> None:
    def having(value: str) -> Answer:
        return Answer(200, "OK", (("upload-offset", value),))

    assert number(having("007"), "Upload-Offset") == 7
    for value in ("-1", "1.5", "", "1, 1", "²"):
        with pytest.raises(Failed):
            number(having(value), "Upload-Offset")
    with pytest.raises(Failed):
        number(Answer(200, "OK", ()), "Upload-Offset")


def test_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283


# --------------------------------------------------------------------------------------------- structured fields


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("?1", True),
        ("?0;a=1;b", False),
        ("42", 42),
        ("-0.5", -0.5),
        ('"a\\"b"', 'a"b'),
        ("token/1:x", "token/1:x"),
        (":AAEC:", b"\0\1\2"),
        ("  7  ", 7),
    ],
)
def test_items(text: str, value: object) -> None:
    assert item(text) == value
    assert type(item(text)) is type(value)


@pytest.mark.parametrize("text", ["", "?2", "1 2", "1,2", '"a', ":?:", "1.", "1.2345", "1234567890123456", "?1;", ";a"])
def test_no_items(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        item(text)


def test_dictionaries() -> None:
    assert dictionary("max-size=10, a, b;x=1,\tc=?0") == {"max-size": 10, "a": True, "b": True, "c": False}
    assert dictionary("a=1, a=2") == {"a": 2}
    assert dictionary("") == {}
    for text in ("a=1,", "a=1 b=2", "A=1", "=1", "a=", "a=(1 2)", ","):
        with pytest.raises(ValueError, match=r"."):
            dictionary(text)


@given(
    st.dictionaries(st.from_regex(r"[a-z*][a-z0-9_\-.*]{0,8}", fullmatch=True), st.integers(-(10**15) + 1, 10**15 - 1))
)
def test_dictionaries_of_integers(members: dict[str, int]) -> None:
    assert dictionary(", ".join(f"{key}={value}" for key, value in members.items())) == members


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (item, dictionary):
        try:
            read(text)
        except ValueError:
            continue


def test_both_senses_of_completeness() -> None:
    """Version 3 says it the other way round."""
    target = Target("http://127.0.0.1/")
    old, new = Draft(target, 3), Draft(target, 9)
    assert old.last_fields(True) == {"Upload-Incomplete": "?0"}
    assert new.last_fields(True) == {"Upload-Complete": "?1"}
    assert old.said_complete(Answer(200, "", (("upload-incomplete", "?1"),))) is False
    assert new.said_complete(Answer(200, "", (("upload-complete", "?1"),))) is True
    assert new.said_complete(Answer(200, "", (("upload-incomplete", "?1"),))) is None
    with pytest.raises(Failed):
        new.said_complete(Answer(200, "", (("upload-complete", "1"),)))
