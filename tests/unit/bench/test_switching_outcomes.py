"""What is said of a run: sent twice, stalls, the file of outcomes, the table, the goals."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from bench.errors import BenchError
from bench.switching import page
from bench.switching.journey import GRAIN, members, sparse
from bench.switching.outcome import DONE, GAVE_UP, NEVER, Outcome, Outcomes, Twice, parse, render, twice
from bench.switching.road import NOTICEABLE, Traffic, netstat, stall
from bench.switching.scenario import Scenario
from hypothesis import given, settings
from hypothesis import strategies as st

KIB = 1024
SCENARIO = Scenario()
GOOD = Outcome(
    client="python",
    server="ours",
    scenario=SCENARIO.key,
    ended=DONE,
    seconds=54.0,
    switches=10,
    sent=SCENARIO.size + 500 * KIB,
    arrived=SCENARIO.size + 130 * KIB,
    fresh=SCENARIO.size + 30 * KIB,
    connections=44,
    joined=0,
    reconnects=40,
    stall=1.1,
    equal=True,
    progress=((0.1, 1000), (54.0, SCENARIO.size)),
    when="2026-01-02T03:04:05+00:00",
)
HUNG = dataclasses.replace(
    GOOD, client="tuspy", ended=NEVER, seconds=156.0, stall=151.0, equal=None, progress=((0.1, 1000), (5.0, 9_000_000))
)

marks = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 10_000)), max_size=60).map(
    lambda steps: [
        (sum(wait for wait, _ in steps[: n + 1]) / 100, sum(more for _, more in steps[: n + 1]))
        for n in range(len(steps))
    ]
)


def test_what_was_sent_twice() -> None:
    assert twice(GOOD, SCENARIO.size) == Twice(50 * KIB, 37 * KIB, 10 * KIB, 3 * KIB)


@settings(deadline=None)
@given(st.integers(0, 2**24), st.integers(0, 2**24), st.integers(0, 2**24), st.integers(1, 20))
def test_the_parts_are_the_whole(lost: int, repeated: int, more: int, switches: int) -> None:
    fresh = SCENARIO.size + more
    one = dataclasses.replace(
        GOOD, fresh=fresh, arrived=fresh + repeated, sent=fresh + repeated + lost, switches=switches
    )
    found = twice(one, SCENARIO.size)
    assert found is not None
    assert found.lost + found.repeated + found.content == pytest.approx(found.total)
    assert (found.lost, found.repeated, found.content) == (lost / switches, repeated / switches, more / switches)


@pytest.mark.parametrize("changes", [{"switches": 0}, {"ended": NEVER}, {"ended": GAVE_UP}])
def test_nothing_is_said_of_what_cannot_be_told(changes: dict[str, object]) -> None:
    assert twice(dataclasses.replace(GOOD, **changes), SCENARIO.size) is None  # type: ignore[arg-type]


def test_stalls() -> None:
    progress = [(1.0, NOTICEABLE), (1.5, 2 * NOTICEABLE), (2.0, 2 * NOTICEABLE + 300), (3.5, 3 * NOTICEABLE)]
    assert stall(progress, 0.8, 3.6) == pytest.approx(2.0)
    assert stall(progress, 0.8, 9.0) == pytest.approx(5.5)
    assert stall(progress, -4.0, 3.6) == pytest.approx(5.0)
    assert stall([], 1.0, 4.0) == pytest.approx(3.0)


@settings(deadline=None)
@given(marks)
def test_a_stall_is_somewhere_between_began_and_ended(progress: list[tuple[float, int]]) -> None:
    ended = (progress[-1][0] if progress else 0.0) + 1
    found = stall(progress, 0.0, ended)
    assert found <= ended
    times = [0.0, *(when for when, _ in progress), ended]
    assert found >= max(later - when for when, later in itertools.pairwise(times)) - 1e-9


@settings(deadline=None)
@given(marks)
def test_a_sparse_drawing_still_shows_every_pause(progress: list[tuple[float, int]]) -> None:
    kept = sparse(progress)
    assert set(kept) <= {(round(when, 2), count) for when, count in progress}
    assert [when for when, _ in kept] == sorted({when for when, _ in kept})
    if progress:
        assert kept[0] == (round(progress[0][0], 2), progress[0][1])
        assert kept[-1] == (round(progress[-1][0], 2), progress[-1][1])
    for (when, count), (later, _) in itertools.pairwise(progress):
        if later - when >= GRAIN:
            assert (round(when, 2), count) in kept


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"done": "http://x/"}', {"done": "http://x/"}),
        (b'{"begin": true}', {"begin": True}),
        (b'{"event": "retry", "attempt": 2}', {"event": "retry", "attempt": 2}),
        (b'{"done"', {}),
        (b"done", {}),
        (b'["done"]', {}),
        (b"", {}),
    ],
)
def test_words_of_a_client(line: bytes, told: dict[str, object]) -> None:
    assert members(line) == told


def test_traffic_since_the_clock_started() -> None:
    whole, start = Traffic(1000, 900, 800, 5, 2), Traffic(300, 200, 100, 1, 1)
    assert whole.since(start) == Traffic(700, 700, 700, 5, 2)


NETSTAT = """\
TcpExt: SyncookiesSent SyncookiesRecv
TcpExt: 1 2
MPTcpExt: MPCapableSYNRX MPJoinSynRx RcvPruned
MPTcpExt: 4 7 0
"""


def test_counters_of_the_kernel() -> None:
    assert netstat(NETSTAT, "MPTcpExt") == {"MPCapableSYNRX": 4, "MPJoinSynRx": 7, "RcvPruned": 0}
    with pytest.raises(KeyError):
        netstat(NETSTAT, "IpExt")


def test_outcomes_are_kept(tmp_path: Path) -> None:
    kept = Outcomes(tmp_path / "new" / "switch.json")
    kept.put(GOOD)
    kept.put(HUNG)
    kept.put(dataclasses.replace(GOOD, seconds=53.0))
    again = Outcomes(kept.path)
    assert again.of(SCENARIO) == [dataclasses.replace(GOOD, seconds=53.0), HUNG]
    assert again.get(SCENARIO, "tuspy", "ours") == HUNG
    assert again.get(SCENARIO, "tuspy", "tuspyserver") is None
    assert again.of(Scenario(mptcp=True)) == []
    assert list(kept.path.parent.iterdir()) == [kept.path]


def test_an_outcome_is_read_as_it_was_written() -> None:
    assert parse(render([GOOD, HUNG]), "x") == [GOOD, HUNG]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0, "outcomes": []}', '{"format": 1, "outcomes": [{}]}'])
def test_what_is_no_file_of_outcomes(text: str, tmp_path: Path) -> None:
    file = tmp_path / "switch.json"
    file.write_text(text)
    with pytest.raises(BenchError, match=r"switch\.json"):
        Outcomes(file)


def test_a_line_of_the_table() -> None:
    assert dict(zip(page.COLUMNS, page.cells(GOOD, SCENARIO), strict=True)) == {
        "client": "Python client, chunks",
        "server": "ours",
        "time": "54.0 s",
        "to the ideal": "1.040",
        "sent twice a switch": "50 KiB",
        "lost + by TCP + by the client": "37 KiB + 10 KiB + 3 KiB",
        "connections": "44",
        "longest stall": "1.10 s",
        "content": "equal",
        "a hand needed": "no",
    }


def test_a_line_of_one_that_hung() -> None:
    cells = dict(zip(page.COLUMNS, page.cells(HUNG, SCENARIO), strict=True))
    assert (cells["time"], cells["to the ideal"], cells["sent twice a switch"], cells["content"]) == ("never", *"---")
    assert cells["a hand needed"] == "yes: nothing after 5 s"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ended": GAVE_UP, "seconds": 12.4}, "yes: gave up after 12 s"),
        ({"ended": NEVER, "seconds": 60.0, "stall": 3.0}, "yes: stopped"),
        ({"equal": False}, "yes: another file"),
        ({"equal": None}, "no"),
    ],
)
def test_who_needs_a_hand(changes: dict[str, object], words: str) -> None:
    one = dataclasses.replace(GOOD, **{"progress": ((58.0, 5),), **changes})  # type: ignore[arg-type]
    assert page.hand(one) == words


def test_multipath_has_columns_of_its_own() -> None:
    both = Scenario(mptcp=True)
    one = dataclasses.replace(GOOD, scenario=both.key, connections=4, joined=12, reconnects=0, stall=0.4)
    assert page.cells(one, both) == (
        "Python client, chunks", "ours", "54.0 s", "4", "12", "0", "0.40 s", "equal", "no",
    )  # fmt: skip
    assert [(goal.value, goal.met) for goal in page.goals([one], both)] == [(0, True), (0, True), (0.4, True)]
    worse = dataclasses.replace(one, reconnects=1, stall=1.2)
    assert [goal.met for goal in page.goals([one, worse], both)] == [True, False, False]


def test_goals_are_for_the_worst_of_ours() -> None:
    slow = dataclasses.replace(GOOD, client="page", seconds=60.0, sent=SCENARIO.size + 700 * KIB)
    foreign = dataclasses.replace(HUNG, server="tuspyserver")
    assert [goal.met for goal in page.goals([GOOD, HUNG, foreign], SCENARIO)] == [True, True, True]
    assert [goal.met for goal in page.goals([GOOD, slow], SCENARIO)] == [True, False, False]
    assert page.goals([HUNG, foreign], SCENARIO) == []
    lost = dataclasses.replace(GOOD, client="uploader.js", ended=NEVER, seconds=156.0)
    judged = page.goals([lost], SCENARIO)
    assert [goal.met for goal in judged] == [False, False, None]
    assert page.goal_cells(judged[2])[1:] == ("not measured", "at most 64", "-")


def test_what_the_terminal_shows() -> None:
    text = page.terminal([HUNG, dataclasses.replace(GOOD, words="went well")], SCENARIO)
    assert text.startswith(f"{SCENARIO}; ideal 51.9 s\n")
    lines = text.splitlines()
    assert lines[2].startswith("  Python client, chunks"), "ours come first"
    assert lines[3].startswith("  tuspy")
    assert "  python to ours: went well" in lines
    assert lines[-1].endswith("yes")
    assert "quiet" not in text
    loud = page.terminal([dataclasses.replace(GOOD, busy=1000.0)], SCENARIO)
    assert "  python to ours: not a quiet machine, 1000.0 cores were at work" in loud.splitlines()


def test_the_page() -> None:
    machine = {"cpu": "C", "cores": "2", "memory": "24 GiB", "kernel": "6.1"}
    both = Scenario(mptcp=True)
    text = page.markdown([(SCENARIO, [GOOD, HUNG]), (both, [])], machine, {"tuspy": "1.1.0"})
    assert text.startswith("Measured on C, 2 cores, 24 GiB, Linux 6.1; tuspy 1.1.0.")
    assert "| Python client, chunks | ours | 54.0 s | 1.040 |" in text
    assert f"**{SCENARIO}**. The ideal is 51.9 s" in text
    assert f"**{both}**" in text
    filled = page.replace_measured(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", text)
    assert filled.startswith(f"before\n{page.BEGIN}\n\nMeasured on C")
    assert filled.endswith(f"{page.END}\nafter\n")
    assert "old" not in filled
    assert page.replace_measured(filled, text) == filled
    with pytest.raises(BenchError, match="measured: begin"):
        page.replace_measured("nothing", text)


def test_the_page_that_is_there_takes_it() -> None:
    there = Path(page.__file__).parents[2] / "docs" / "switching.md"
    assert "new words" in page.replace_measured(there.read_text(encoding="utf-8"), "new words")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 KiB"), (37 * KIB, "37 KiB"), (2**20 - 1, "1024 KiB"), (5 << 20, "5.0 MiB"), (-512, "-0 KiB")],
)
def test_volumes(count: float, text: str) -> None:
    assert page.volume(count) == text
