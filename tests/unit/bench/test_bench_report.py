"""Results as JSON, as text and as the page; the goals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from bench import report, results
from bench.errors import BenchError
from bench.goals import Verdict, judge
from bench.report import BEGIN, END, aligned, markdown, replace_measured, terminal, verdict_cells
from bench.results import Run, merge, newest, parse
from bench.rounds import GIB, Sample
from bench.rows import ROWS
from bench.table import RowResult

MACHINE = {"cpu": "C", "cores": "2", "memory": "24 GiB", "kernel": "6.1", "python": "3.11.7", "filesystem": "ext4"}


def large(number: int, wall: float, cpu: float | None = 0.4) -> Sample:
    return Sample(number, 1, GIB, wall, cpu, 0.2, 20 * 2**20, 1000.0, 2000.0, 3000.0)


def small(number: int, rate: float, p99: float = 1500.0) -> Sample:
    return Sample(number, 10_000, 10_000 * 10_240, 10_000 / rate, 0.37, 0.2, 20 * 2**20, 800.0, p99, 9000.0)


def run_of(samples: dict[str, dict[str, list[Sample]]], **changes: object) -> Run:
    run = Run(
        "pinned", "2026-01-02T03:04:05+00:00", dict(MACHINE), {"nginx": "1.22.1"}, {"rounds": "2"}, samples=samples
    )
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def two_servers() -> Run:
    return run_of(
        {
            "put-1g": {
                "nginx": [large(0, 9.0), large(1, 0.5), large(2, 0.5)],
                "ours": [large(0, 9.0), large(1, 0.4, 0.44), large(2, 0.4, 0.44)],
            },
            "put-10k": {
                "nginx": [small(1, 20_000.0)], "ours": [small(1, 19_000.0)], "ours-full": [small(1, 1500.0)],
            },
        },
    )  # fmt: skip


def test_json_round_trip_keeps_every_sample() -> None:
    run = two_servers()
    run.failures = {"get-1g": {"other": "404"}}
    run.facts = {"first_byte_s": 0.25}
    run.settings = {"ours": {"deduplication.enabled": "false"}}
    text = run.to_json()
    assert parse(text, "x") == run
    tree = json.loads(text)
    assert tree["medians"]["put-1g"]["ours"]["rate"] == pytest.approx(2.5)
    assert {goal["goal"]: goal["met"] for goal in tree["goals"]}["PUT 1 GiB, throughput to nginx"] is True


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 99}', '{"format": 1, "samples": {"a": {"b": [{}]}}}', '{"format": 1}']
)
def test_other_files_are_refused_by_name(text: str) -> None:
    with pytest.raises(BenchError, match=r"odd\.json"):
        parse(text, "odd.json")


def test_a_failed_server_keeps_only_its_reason() -> None:
    run = run_of({})
    run.add(RowResult(ROWS["put-1g"], {"nginx": [large(1, 1.0)], "ours": [large(0, 1.0)], "late": []}, {"ours": "403"}))
    assert set(run.samples["put-1g"]) == {"nginx"}
    assert run.failures == {"put-1g": {"ours": "403"}}


def test_goals_are_ratios_of_medians() -> None:
    by_name = {verdict.goal: verdict for verdict in two_servers().verdicts()}
    throughput, cpu = by_name["PUT 1 GiB, throughput to nginx"], by_name["PUT 1 GiB, CPU to nginx"]
    assert throughput.value == pytest.approx(1.25)
    assert throughput.met is True
    assert cpu.value == pytest.approx(1.1)
    assert cpu.met is True
    assert by_name["PUT 10 KiB, rate to nginx"].value == pytest.approx(0.95)
    assert by_name["durable PUT 10 KiB at 32 connections, per second"].value == pytest.approx(1500)
    assert by_name["GET 1 GiB, throughput to nginx"].met is None


def test_goals_from_latencies_and_facts() -> None:
    beside = {"ours-dedup": [Sample(1, 1, GIB, 1.0, 0.6, 0.2, None, 20.0, 5100.0, 9000.0)]}
    run = run_of(
        {"beside-put": beside}, facts={"first_byte_s": 0.4, "rest_rss_bytes": 65 * 2**20, "stream_growth_bytes": 2**20}
    )
    by_name = {verdict.goal: verdict for verdict in run.verdicts()}
    latency = by_name["GET 10 KiB beside a hashed 1 GiB PUT, p99 in ms"]
    assert latency.value == pytest.approx(5.1)
    assert latency.met is False
    assert by_name["memory at rest, MiB"].met is False
    assert by_name["memory growth while 10 GiB stream through, MiB"].value == 1
    assert by_name["from start to first accepted byte, ms"].value == pytest.approx(400)


def test_without_a_reference_there_is_no_ratio() -> None:
    verdicts = judge(run_of({"put-1g": {"ours": [large(1, 1.0)]}}).summaries(), {})
    assert all(verdict.value is None for verdict in verdicts if "nginx" in verdict.goal)


@pytest.mark.parametrize(
    ("verdict", "met"),
    [
        (Verdict("g", 1.0, 1.0, at_least=True), True),
        (Verdict("g", 0.99, 1.0, at_least=True), False),
        (Verdict("g", 1.0, 1.0, at_least=False), True),
        (Verdict("g", 1.01, 1.0, at_least=False), False),
        (Verdict("g", None, 1.0, at_least=False), None),
    ],
)
def test_limits_are_inclusive(verdict: Verdict, met: bool | None) -> None:
    assert verdict.met is met


def test_verdict_lines() -> None:
    assert verdict_cells(Verdict("g", 0.5, 0.9, at_least=True)) == ("g", "0.50", "at least 0.9", "NO")
    assert verdict_cells(Verdict("g", 1500.0, 1000, at_least=True)) == ("g", "1,500", "at least 1,000", "yes")
    assert verdict_cells(Verdict("g", None, 8, at_least=False)) == ("g", "not measured", "at most 8", "-")


def test_terminal_names_rows_ratios_goals_and_who_is_missing() -> None:
    run = two_servers()
    run.failures = {"put-1g": {"other": "refused (status 403)"}}
    text = terminal(run)
    assert "PUT 1 GiB (pinned, medians of 2)" in text
    assert "2.50 GiB/s" in text
    assert "1.25" in text
    assert "other is missing: refused (status 403)" in text
    assert "Goals" in text


def test_goals_are_judged_on_pinned_runs_only() -> None:
    run = two_servers()
    run.mode = "unpinned"
    assert "Goals" not in terminal(run)
    assert "to be reached" not in markdown([run])


def test_large_rows_show_no_latency_and_small_ones_no_gigabytes() -> None:
    run = two_servers()
    large_cells = report.cells("ours", run.summaries()["put-1g"]["ours"], None, ROWS["put-1g"])
    small_cells = report.cells("ours", run.summaries()["put-10k"]["ours"], None, ROWS["put-10k"])
    assert large_cells == ("ours", "2.50 GiB/s", "2.50 GiB/s", "-", "0.44 s/GiB", "-", "-", "-", "20")
    assert small_cells == ("ours", "19,000/s", "19,000/s", "-", "37 us", "-", "0.80", "1.50", "20")


def test_unknown_cost_is_a_dash() -> None:
    summary = run_of({"put-1g": {"other": [large(1, 1.0, None)]}}).summaries()["put-1g"]["other"]
    assert report.cells("other", summary, summary, ROWS["put-1g"])[4:6] == ("-", "-")


def test_rows_of_a_busy_machine_are_marked() -> None:
    run = two_servers()
    assert "quiet" not in terminal(run) + markdown([run])
    noisy = [dataclasses.replace(sample, others_cpu_s=sample.wall_s) for sample in run.samples["put-1g"]["ours"]]
    run.samples["put-1g"]["ours"] = noisy
    assert "up to 1.00 of a core" in terminal(run)
    assert "up to 1.00 of a core" in markdown([run])


def test_columns_line_up() -> None:
    assert aligned([("a", "long"), ("longer", "b")]) == ["a       long", "longer     b"]


def test_markdown_tables_are_whole() -> None:
    text = markdown([two_servers()])
    lines = text.splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert "**PUT 1 GiB**, medians of 2" in lines
    assert "| ours | 2.50 GiB/s | 2.50 GiB/s | 1.25 | 0.44 s/GiB | 1.10 | - | - | 20 |" in lines
    assert all(line.endswith("|") for line in tables)
    assert "nginx 1.22.1" in text
    assert "Measured 2026-01-02 on C, 2 cores, 24 GiB, Linux 6.1, ext4" in text


def test_only_the_measured_part_of_the_page_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    replaced = replace_measured(page, "\nnew\n\n")
    assert replaced == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert replace_measured(replaced, "new") == replaced
    with pytest.raises(BenchError):
        replace_measured("no markers", "new")
    with pytest.raises(BenchError):
        replace_measured(f"only {BEGIN}", "new")


def test_the_page_has_its_markers() -> None:
    page = Path(__file__).parents[3] / "docs" / "performance.md"
    assert "x" in replace_measured(page.read_text(encoding="utf-8"), "x")


def test_later_runs_replace_whole_rows() -> None:
    first, second = two_servers(), run_of({"put-1g": {"ours": [large(1, 0.1)]}}, when="2026-02-02T00:00:00+00:00")
    first.failures = {"put-1g": {"other": "gone"}, "put-10k": {"other": "gone"}}
    first.facts, second.facts = {"a": 1.0, "b": 1.0}, {"b": 2.0}
    merged = merge([first, second])
    assert set(merged.samples["put-1g"]) == {"ours"}
    assert set(merged.samples["put-10k"]) == {"nginx", "ours", "ours-full"}
    assert merged.failures == {"put-10k": {"other": "gone"}}
    assert merged.facts == {"a": 1.0, "b": 2.0}
    assert merged.when == second.when
    assert set(first.samples["put-1g"]) == {"nginx", "ours"}  # the inputs stay as they were


def test_runs_of_two_machines_are_not_mixed() -> None:
    with pytest.raises(BenchError, match="machines"):
        merge([two_servers(), run_of({}, machine={**MACHINE, "cpu": "D"})])


def test_newest_of_each_mode(tmp_path: Path) -> None:
    for name in (
        "20260101T000000Z-pinned.json",
        "20260102T000000Z-pinned.json",
        "20251231T000000Z-unpinned.json",
        "notes.json",
    ):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in newest(tmp_path)] == [
        "20260102T000000Z-pinned.json",
        "20251231T000000Z-unpinned.json",
    ]


def test_no_results_yet(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no results yet"):
        results.newest(tmp_path)
