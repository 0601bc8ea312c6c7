"""The figures of the takeover benchmark, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import takeover
from bench.errors import BenchError
from bench.takeover import lines, reached, spread
from hypothesis import given
from hypothesis import strategies as st
from tests.faults.switching import Switch


def test_percentiles_are_values_that_occurred() -> None:
    found = spread([number / 1000 for number in range(500, 0, -1)])
    assert (found.p50, found.p99, found.most) == (0.250, 0.495, 0.500)
    assert str(found) == "p50  250.00 ms   p99  495.00 ms   max  500.00 ms"


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300))
def test_percentiles_are_in_order(values: list[float]) -> None:
    found = spread(values)
    assert found.p50 <= found.p99 <= found.most == max(values)
    assert {found.p50, found.p99} <= set(values)
    assert sum(value <= found.p99 for value in values) >= 0.99 * len(values)
    assert sum(value < found.p99 for value in values) < 0.99 * len(values)


GOOD = Switch(0.010, 0.020, 0)


@pytest.mark.parametrize(
    ("bad", "goal"),
    [
        (Switch(0.050, 0.020, 0), "status p99 below 50 ms"),
        (Switch(0.010, 0.100, 0), "next byte p99 below 100 ms"),
        (Switch(0.010, 0.020, 1), "no received byte lost"),
    ],
)
def test_goals(bad: Switch, goal: str) -> None:
    assert reached([GOOD] * 50)
    assert f"reached      {goal}" in lines([GOOD] * 50)
    assert not reached([GOOD] * 50 + [bad])
    told = lines([GOOD] * 50 + [bad])
    assert [line for line in told if line.startswith("NOT")] == [f"NOT REACHED  {goal}"]
    assert "switches              51" in told


def test_one_slow_round_of_many_is_not_the_p99() -> None:
    assert reached([GOOD] * 199 + [Switch(1.0, 1.0, 0)])
    assert not reached([GOOD] * 199 + [Switch(0.010, 0.020, 5)])


def test_without_namespaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(takeover, "why_not", lambda: "network namespaces need root")
    with pytest.raises(BenchError, match="need root"):
        takeover.measure(1, 1, tmp_path, print)
    assert takeover.main(["--work", str(tmp_path / "work")]) == 1
    assert capsys.readouterr().err == "bench: network namespaces need root\n"
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("words", [["--switches", "0"], ["--processes", "0"], ["--switches", "x"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        takeover.main(words)
    assert ended.value.code == 2
    assert "usage: python -m bench.takeover" in capsys.readouterr().err
