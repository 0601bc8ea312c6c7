import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hmac_file_server.config import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("300s", 300.0),
        ("4800s", 4800.0),
        ("90m", 5400.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1.5h", 5400.0),
        ("48h", 172800.0),
        ("7d", 604800.0),
        ("2w", 1209600.0),
        ("1y", 31536000.0),
        (" 2s ", 2.0),
    ],
)
def test_what_is_a_duration(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "h", "-1s", "+1s", "1e3s", "1H", "1 hour", "s1", "1h30", "never", "١s", "1s\x00", "2000y"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        durations.parse(text)


@pytest.mark.parametrize("text", ["1", "30", "4800", "1.5"])
def test_a_bare_number_is_refused_for_its_missing_unit(text: str) -> None:
    with pytest.raises(ValueError, match="needs a unit"):
        durations.parse(text)


@given(st.integers(0, 10**9))
def test_shown_durations_are_read_back(seconds: int) -> None:
    assert durations.parse(durations.show(float(seconds))) == seconds


@given(st.integers(1, 10**7))
def test_shown_milliseconds_are_read_back(millis: int) -> None:
    assert durations.parse(durations.show(millis / 1000)) == pytest.approx(millis / 1000)


@given(st.integers(1, 10**11))
@example(4)
@example(1_000_000_000_500)
def test_shown_nanoseconds_are_read_back(nanos: int) -> None:
    seconds = round(nanos / 1e9, 9)
    assert durations.parse(durations.show(seconds)) == seconds


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = durations.parse(text)
    except ValueError:
        return
    assert 0 <= seconds <= durations.LONGEST


def test_shown_briefly() -> None:
    assert [durations.show(n) for n in (0.0, 0.5, 2.0, 5400.0, 172800.0, 3661.0)] == [
        "0s",
        "500ms",
        "2s",
        "1h30m",
        "48h",
        "1h1m1s",
    ]
