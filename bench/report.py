"""Results for people: a table in the terminal and the same in docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import BenchError
from bench.goals import Verdict
from bench.results import Run
from bench.rounds import Summary, ratio
from bench.rows import ROWS, Row

MIB = 2**20
REFERENCE = "nginx"
BEGIN = "<!-- measured: begin (written by `python -m bench report`) -->"
END = "<!-- measured: end -->"

QUIET = 0.3
"""CPU of others, in cores, above which a row is marked; write-back after large uploads alone takes some."""

COLUMNS = ("server", "rate", "best", "to nginx", "CPU", "to nginx", "p50 ms", "p99 ms", "peak MiB")


def rate_text(value: float, *, large: bool) -> str:
    """Render a rate: "2.25 GiB/s" or "26,200/s"."""
    return f"{value:.2f} GiB/s" if large else f"{value:,.0f}/s"


def cpu_text(value: float | None, *, large: bool) -> str:
    """Render a cost: "0.43 s/GiB" or "37 us"; "-" when unknown."""
    if value is None:
        return "-"
    return f"{value:.2f} s/GiB" if large else f"{value:.0f} us"


def ratio_text(value: float | None) -> str:
    """Render a ratio with two digits; "-" when unknown."""
    return "-" if value is None else f"{value:.2f}"


def cells(name: str, summary: Summary, reference: Summary | None, row: Row) -> tuple[str, ...]:
    """Return one line of a row's table, in the order of COLUMNS."""
    timed = row.beside or not row.large
    return (
        name,
        rate_text(summary.rate, large=row.large),
        rate_text(summary.best, large=row.large),
        ratio_text(ratio(summary.rate, reference.rate if reference else None)),
        cpu_text(summary.cpu, large=row.large),
        ratio_text(ratio(summary.cpu, reference.cpu if reference else None)),
        f"{summary.p50_us / 1e3:.2f}" if timed else "-",
        f"{summary.p99_us / 1e3:.2f}" if timed else "-",
        "-" if summary.peak_rss_bytes is None else f"{summary.peak_rss_bytes / MIB:.0f}",
    )


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lay out columns for a terminal: the first flush left, the others flush right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def _row_lines(key: str, servers: dict[str, Summary]) -> list[tuple[str, ...]]:
    reference = servers.get(REFERENCE)
    return [cells(name, summary, reference, ROWS[key]) for name, summary in servers.items()]


def verdict_cells(verdict: Verdict) -> tuple[str, ...]:
    """Return one goal as a line: what, measured, wanted, reached."""
    value = "not measured" if verdict.value is None else f"{verdict.value:,.2f}".removesuffix(".00")
    wanted = f"{'at least' if verdict.at_least else 'at most'} {verdict.limit:,g}"
    met = {True: "yes", False: "NO", None: "-"}[verdict.met]
    return (verdict.goal, value, wanted, met)


def terminal(run: Run) -> str:
    """Return the whole result as plain text."""
    out: list[str] = []
    for key, servers in run.summaries().items():
        out.append(
            f"\n{ROWS[key].title} ({run.mode}, medians of {max((s.rounds for s in servers.values()), default=0)})"
        )
        lines = [COLUMNS, *_row_lines(key, servers)]
        out.extend("  " + line for line in aligned(lines))
        out.extend(f"  {name} is missing: {why}" for name, why in run.failures.get(key, {}).items())
        out.extend(f"  {warning}" for warning in [unquiet(servers)] if warning)
    if run.mode == "pinned":
        out.append("\nGoals")
        out.extend(
            "  " + line
            for line in aligned([("goal", "measured", "wanted", "reached"), *map(verdict_cells, run.verdicts())])
        )
    return "\n".join(out)


def unquiet(servers: dict[str, Summary]) -> str | None:
    """Return a warning when something else took more than QUIET of a core while these servers were measured."""
    shares = [s.others_cpu_share for s in servers.values() if s.others_cpu_share is not None]
    if not shares or max(shares) <= QUIET:
        return None
    return (
        f"not a quiet machine: up to {max(shares):.2f} of a core went to neither server nor client"
        " (kernel threads or other programs)"
    )


def _markdown_table(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *body = lines
    return [
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in body),
    ]


PLACEMENT = {
    "pinned": "Server on core 0, client on core 1, one server process",
    "unpinned": "Servers and client on all cores, two server processes",
}


def markdown(runs: Sequence[Run]) -> str:
    """Return the measured part of the page, one section a mode."""
    out: list[str] = []
    for run in runs:
        machine, versions = run.machine, run.versions
        out += [
            f"### {PLACEMENT[run.mode]} ({run.mode})",
            "",
            f"Measured {run.when[:10]} on {machine['cpu']}, {machine['cores']} cores, {machine['memory']}, Linux"
            f" {machine['kernel']}, {machine['filesystem']}; "
            + ", ".join(f"{n} {v}" for n, v in versions.items())
            + ".",
        ]
        for key, servers in run.summaries().items():
            rounds = max((summary.rounds for summary in servers.values()), default=0)
            out += ["", f"**{ROWS[key].title}**, medians of {rounds}", ""]
            out += _markdown_table([COLUMNS, *_row_lines(key, servers)])
            out += [f"\n{name} is missing here: {why}" for name, why in run.failures.get(key, {}).items()]
            out += [f"\n({warning})" for warning in [unquiet(servers)] if warning]
        if run.mode == "pinned":
            out += ["", "**What was to be reached**", ""]
            out += _markdown_table([("goal", "measured", "wanted", "reached"), *map(verdict_cells, run.verdicts())])
        out.append("")
    return "\n".join(out)


def replace_measured(page: str, measured: str) -> str:
    """Return the page with what lies between the two markers replaced; raises BenchError when they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{after}"
