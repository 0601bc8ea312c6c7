import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.telemetry import lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\r\nb", "a\\x0d\\x0ab"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\u2028b\u2066c\ufeff", "a\\u2028b\\u2066c\\ufeff"),
        ("\x85\xa0", "\\x85\\xa0"),
        ("\U000e0001", "\\U000e0001"),
        ("\ud800", "\\ud800"),
        ("back\\slash", "back\\\\slash"),
        ("très 日本", "très 日本"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert lines.escaped(text) == shown


@given(st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    shown = lines.escaped(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown


@given(st.text(max_size=50), st.text(max_size=50))
def test_two_texts_are_never_shown_alike(one: str, two: str) -> None:
    assert (lines.escaped(one) == lines.escaped(two)) == (one == two)


def test_long_text_is_cut_before_it_is_escaped() -> None:
    assert lines.escaped("x" * 200) == "x" * 200
    assert lines.escaped("x" * 201) == "x" * 200 + "…"
    assert lines.escaped("\n" * 1000) == "\\x0a" * 200 + "…"
    assert lines.escaped("abcdef", 3) == "abc…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a/b", "a/b"), ("a b", '"a b"'), ('a"b', '"a\\"b"'), ("", '""'), ("a\\b c", '"a\\\\b c"')],
)
def test_a_word_is_one_column(text: str, shown: str) -> None:
    assert lines.word(text) == shown


@pytest.mark.parametrize("target", ["/a?v=secret", b"/a?v=secret", "/a?", b"/a"])
def test_a_target_loses_its_query(target: str | bytes) -> None:
    assert lines.path_only(target) == "/a"


def test_a_target_that_is_no_ascii() -> None:
    assert lines.path_only(b"/\xff?x") == "/\\xff"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1"),
        (True, "True"),
        (None, "None"),
        (0.12345, "0.123"),
        (["a", 1], "a, 1"),
        (OSError(5, "x\n"), "[Errno 5] x\\x0a"),
    ],
)
def test_values_in_text(value: object, shown: str) -> None:
    assert lines.shown(value) == shown


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (1, 1),
        (True, True),
        (None, None),
        (0.1, 0.1),
        (float("nan"), None),
        (float("inf"), None),
        ("a\n", "a\n"),
        ("x" * 300, "x" * 200 + "…"),
        (("a", 1), ["a", 1]),
        (OSError(5, "x"), "[Errno 5] x"),
    ],
)
def test_values_in_json(value: object, plain: object) -> None:
    assert lines.plain(value) == plain


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=20), st.integers(), st.none())))
def test_an_object_is_one_line_of_ascii_that_is_read_back(fields: dict[str, object]) -> None:
    line = lines.object_line(fields)
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == fields


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        assert lines.local_time(1752751996.9) == "2025-07-17 12:33:16"
        assert lines.utc_time(1752751996.123) == "2025-07-17T11:33:16.123Z"
    finally:
        monkeypatch.undo()
        time.tzset()
