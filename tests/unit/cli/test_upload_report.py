"""What `upload` says: bars, lines, JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hmac_file_server.cli.upload_report import (
    BarReport,
    Figures,
    Item,
    JsonReport,
    LineReport,
    Mishap,
    Outcome,
    Report,
    printable,
    size_of,
    time_of,
)

MIB = 1024 * 1024
FILM = Item("films/film.mkv", "film.mkv", 100 * MIB)
SONG = Item("song.ogg", "song.ogg", 5 * MIB)
HALF = Figures(60 * MIB, 50 * MIB, 100 * MIB, 2.5 * MIB, 20.0)
THERE = Outcome("https://h/1/film.mkv", 100 * MIB, "film.mkv", "sha-256:00", 60 * MIB, 40 * MIB, 20.0)
REFUSED = Mishap("too_large", "The file may have at most 5 bytes.", 413, request_id="9f2c")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def everything(report: Report) -> None:
    with report.shown([FILM, SONG]):
        report.note("nothing is remembered")
        report.start(FILM, 40 * MIB)
        report.progress(FILM, HALF)
        report.retry(FILM, "connection lost", "connection", 1, 0.25)
        report.done(FILM, THERE)
        report.start(SONG, 0)
        report.failed(SONG, REFUSED)
    report.summary(1, 1, 100 * MIB, 20.0)


def test_quiet_is_urls_and_errors() -> None:
    out, err = io.StringIO(), io.StringIO()
    everything(Report(out, err))
    assert out.getvalue() == "https://h/1/film.mkv\n"
    assert err.getvalue() == "hmac-file-server: song.ogg: The file may have at most 5 bytes.\n"


def test_lines_when_nobody_watches() -> None:
    out, err = io.StringIO(), io.StringIO()
    everything(LineReport(out, err))
    assert out.getvalue() == "https://h/1/film.mkv\n"
    assert err.getvalue().splitlines() == [
        "note: nothing is remembered",
        "film.mkv: goes on after 40.0 MiB of 100.0 MiB",
        "film.mkv: 100.0 MiB in 20 s, 3.0 MiB/s (40.0 MiB were there already)",
        "hmac-file-server: song.ogg: The file may have at most 5 bytes.",
        "1 file uploaded, 100.0 MiB in 20 s; 1 failed",
    ]


def test_json_is_one_object_a_line() -> None:
    out, err = io.StringIO(), io.StringIO()
    everything(JsonReport(out, err))
    assert events(out.getvalue()) == [
        {"event": "note", "detail": "nothing is remembered"},
        {"event": "start", "file": "films/film.mkv", "name": "film.mkv", "size": 100 * MIB,
         "acknowledged": 40 * MIB, "resumed": True},
        {"event": "progress", "file": "films/film.mkv", "sent": 60 * MIB, "acknowledged": 50 * MIB,
         "total": 100 * MIB, "rate": 2.5 * MIB, "seconds_left": 20.0, "waits_for": None},
        {"event": "retry", "file": "films/film.mkv", "error": "connection lost", "code": "connection",
         "attempt": 1, "delay": 0.25},
        {"event": "done", "file": "films/film.mkv", "url": "https://h/1/film.mkv", "size": 100 * MIB,
         "digest": "sha-256:00", "filename": "film.mkv", "sent": 60 * MIB, "resumed": 40 * MIB, "seconds": 20.0},
        {"event": "start", "file": "song.ogg", "name": "song.ogg", "size": 5 * MIB, "acknowledged": 0,
         "resumed": False},
        {"event": "error", "file": "song.ogg", "code": "too_large", "detail": "The file may have at most 5 bytes.",
         "status": 413, "retriable": False, "request_id": "9f2c", "url": None, "size": 5 * MIB, "digest": None},
    ]  # fmt: skip
    assert err.getvalue() == "hmac-file-server: song.ogg: The file may have at most 5 bytes.\n"


def test_json_tells_progress_once_a_second() -> None:
    now = [100.0]
    out = io.StringIO()
    report = JsonReport(out, io.StringIO(), monotonic=lambda: now[0])
    report.start(FILM, 0)
    for _ in range(25):
        report.progress(FILM, HALF)
        now[0] += 0.1
    assert [told["event"] for told in events(out.getvalue())] == ["start"] + ["progress"] * 3
    report.start(SONG, 0)
    report.progress(SONG, HALF)
    assert events(out.getvalue())[-1]["file"] == "song.ogg"


@pytest.mark.parametrize("name", ["tr\u00e8s.txt", "a\nb", "\udcff.bin", '"', "\x1b[31m"])
def test_json_carries_any_name(name: str) -> None:
    out = io.StringIO()
    JsonReport(out, io.StringIO()).start(Item(name, name, 1), 0)
    assert out.getvalue().isascii()
    assert events(out.getvalue())[0]["file"] == name


def test_an_interruption_says_how_to_go_on() -> None:
    for report in (LineReport(io.StringIO(), err := io.StringIO()), Report(io.StringIO(), err2 := io.StringIO())):
        report.interrupted(FILM, HALF, resumable=True)
    line = (
        "hmac-file-server: interrupted; 50.0 MiB of 100.0 MiB of films/film.mkv are safe, "
        "the same command again continues\n"
    )
    assert err.getvalue() == err2.getvalue() == line
    report = JsonReport(out := io.StringIO(), err := io.StringIO())
    report.interrupted(FILM, None, resumable=False)
    assert "must be sent from its beginning" in err.getvalue()
    assert events(out.getvalue()) == [
        {"event": "interrupted", "file": "films/film.mkv", "acknowledged": 0, "size": 100 * MIB, "resumable": False}
    ]


# ---- bars


def terminal(width: int = 100) -> tuple[Console, Terminal]:
    screen = Terminal()
    return Console(file=screen, force_terminal=True, width=width, height=20, legacy_windows=False), screen


def test_bars_on_a_terminal() -> None:
    console, screen = terminal()
    out = io.StringIO()
    report = BarReport(console, out)
    with report.shown([FILM, SONG]):
        report.start(FILM, 40 * MIB)
        report.progress(FILM, HALF)
        shown = screen.getvalue()
        for text in ("film.mkv", "50 %", "50.0 MiB / 100.0 MiB", "2.5 MiB/s", "20 s left", "total, 1 of 2 files",
                     "47 %", "50.0 MiB / 105.0 MiB", "22 s left"):  # fmt: skip
            assert text in shown, text
        report.progress(FILM, Figures(60 * MIB, 50 * MIB, 100 * MIB, 2.5 * MIB, 20.0, "no network, waits"))
        assert "no network, waits" in screen.getvalue()
        report.done(FILM, THERE)
        report.start(SONG, 0)
        assert "total, 2 of 2 files" in screen.getvalue()
        assert "100.0 MiB / 105.0 MiB" in screen.getvalue()
        report.failed(SONG, REFUSED)
    report.summary(1, 1, 100 * MIB, 20.0)
    assert out.getvalue() == "https://h/1/film.mkv\n"
    shown = screen.getvalue()
    assert "film.mkv: 100.0 MiB in 20 s, 3.0 MiB/s (40.0 MiB were there already)" in shown
    assert "hmac-file-server: song.ogg: The file may have at most 5 bytes." in shown
    assert "1 file uploaded, 100.0 MiB in 20 s; 1 failed" in shown


def test_one_file_needs_no_total() -> None:
    console, screen = terminal()
    report = BarReport(console, io.StringIO())
    with report.shown([FILM]):
        report.start(FILM, 0)
    assert "total" not in screen.getvalue()


def test_the_url_goes_above_the_bars_where_both_are_one_terminal() -> None:
    console, screen = terminal()
    out = Terminal()
    report = BarReport(console, out)
    with report.shown([FILM]):
        report.start(FILM, 0)
        report.done(FILM, THERE)
    assert out.getvalue() == ""
    assert "https://h/1/film.mkv\n" in screen.getvalue().replace("\r", "")


def test_a_bar_is_full_only_when_all_is_there() -> None:
    console, screen = terminal()
    report = BarReport(console, io.StringIO())
    with report.shown([FILM]):
        report.progress(FILM, Figures(1, FILM.size - 1, FILM.size))
        assert "99 %" in screen.getvalue()
        assert "100 %" not in screen.getvalue()
        report.progress(FILM, Figures(1, FILM.size, FILM.size))
        assert "100 %" in screen.getvalue()


def test_an_empty_file_has_a_full_bar() -> None:
    console, screen = terminal()
    report = BarReport(console, io.StringIO())
    with report.shown([Item("a", "a", 0)]):
        report.start(Item("a", "a", 0), 0)
    assert "100 %" in screen.getvalue()


def test_the_bar_is_where_the_network_is() -> None:
    """A server tells of whole chunks only: bytes that are on their way move the bar, but never to its end."""
    console, screen = terminal()
    report = BarReport(console, io.StringIO())
    with report.shown([FILM]):
        report.progress(FILM, Figures(0, 5 * MIB, FILM.size, moved=30 * MIB))
        assert "30 %" in screen.getvalue()
        assert "30.0 MiB / 100.0 MiB" in screen.getvalue()
        report.progress(FILM, Figures(0, 5 * MIB, FILM.size, moved=FILM.size))
        assert "99 %" in screen.getvalue()
        assert "100 %" not in screen.getvalue()


def test_no_speed_is_shown_while_nothing_moves() -> None:
    console, screen = terminal()
    report = BarReport(console, io.StringIO())
    with report.shown([FILM, SONG]):
        report.progress(FILM, Figures(60 * MIB, 50 * MIB, 100 * MIB, 2.5 * MIB, 20.0, "no network, waits"))
        assert "no network, waits" in screen.getvalue()
        assert "left" not in screen.getvalue()
        assert "/s" not in screen.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_narrow_and_wide_terminals(width: int) -> None:
    console, screen = terminal(width)
    report = BarReport(console, io.StringIO())
    long = Item("x" * 300, "x" * 300, 100 * MIB)
    with report.shown([long, SONG]):
        report.progress(long, HALF)
    for line in screen.getvalue().replace("\r", "\n").splitlines():
        assert len(line) < width * 12


def test_names_cannot_draw_on_the_terminal() -> None:
    console, screen = terminal()
    report = BarReport(console, io.StringIO())
    bad = Item("\x1b]0;evil\x07[red]", "\x1b]0;evil\x07[red]", 5)
    with report.shown([bad]):
        report.start(bad, 0)
        report.failed(bad, Mishap("x", "\x1b[2Jdetail"))
    assert "\x1b]0;evil" not in screen.getvalue()
    assert "\x1b[2Jdetail" not in screen.getvalue()
    assert "?]0;evil?[red]" in screen.getvalue()


# ---- words


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (MIB - 1, "1.0 MiB"), (MIB, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"), (3 * 1024**4, "3.0 TiB"), (5000 * 1024**4, "5000.0 TiB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size_of(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (61, "1 min 1 s"),
        (3599.7, "1 h"), (3660, "1 h 1 min"), (86400, "24 h"), (3 * 86400, "3 days"),
    ],
)  # fmt: skip
def test_times(seconds: float, text: str) -> None:
    assert time_of(seconds) == text


@given(st.integers(0, 2**70), st.floats(0, 1e12))
def test_figures_are_short(count: int, seconds: float) -> None:
    assert len(size_of(min(count, 2**62))) <= 13
    assert time_of(seconds)


@given(st.text())
def test_what_is_printed_is_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
