"""Outcomes for people: a table in the terminal, and the same in docs/switching.md."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.errors import BenchError
from bench.report import aligned
from bench.switching.clients import CLIENTS
from bench.switching.outcome import DONE, NEVER, Outcome, twice
from bench.switching.scenario import Scenario

BEGIN: Final = "<!-- measured: begin (written by `python -m bench.switch --write-docs`) -->"
END: Final = "<!-- measured: end -->"

COLUMNS: Final = (
    "client", "server", "time", "to the ideal", "sent twice a switch", "lost + by TCP + by the client",
    "connections", "longest stall", "content", "a hand needed",
)  # fmt: skip
MPTCP_COLUMNS: Final = (
    "client", "server", "time", "connections", "paths added", "reconnects", "longest stall", "content", "a hand needed",
)  # fmt: skip

KIB: Final = 1024
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached by our own clients with our own server."""

    words: str
    value: float | None
    limit: float

    @property
    def met(self) -> bool | None:
        """Whether it is; None when it was not measured."""
        return None if self.value is None else self.value <= self.limit


QUIET: Final = 0.6
"""Share of the cores at work above which a run is marked: the clients, the router and the server take a third at most."""

OURS: Final = ("uploader.js", "python", "python-tus", "page")


def title(name: str) -> str:
    """Of a client, in tables."""
    return CLIENTS[name].title if name in CLIENTS else name


def volume(count: float) -> str:
    """Bytes as "37 KiB" or "4.1 MiB"."""
    return f"{count / MIB:.1f} MiB" if abs(count) >= MIB else f"{count / KIB:.0f} KiB"


def hand(outcome: Outcome) -> str:
    """Whether somebody had to do something."""
    if outcome.ended == DONE:
        return "no" if outcome.equal is not False else "yes: another file"
    at = last_arrival(outcome)
    if outcome.ended == NEVER:
        return f"yes: nothing after {at:.0f} s" if outcome.seconds - at > 0.9 * outcome.stall else "yes: stopped"
    return f"yes: gave up after {outcome.seconds:.0f} s"


def last_arrival(outcome: Outcome) -> float:
    """When the last bytes of content came, in seconds."""
    return outcome.progress[-1][0] if outcome.progress else 0.0


def content(outcome: Outcome) -> str:
    """Whether the server has the file."""
    if outcome.ended != DONE:
        return "-"
    return {True: "equal", False: "DIFFERS", None: "not known"}[outcome.equal]


def time(outcome: Outcome, scenario: Scenario) -> tuple[str, str]:
    """The time and its ratio to the ideal; "never" where there is none."""
    if outcome.ended != DONE:
        return ("never", "-")
    return (f"{outcome.seconds:.1f} s", f"{outcome.seconds / scenario.ideal:.3f}")


def cells(outcome: Outcome, scenario: Scenario) -> tuple[str, ...]:
    """One line of the table, in the order of COLUMNS or MPTCP_COLUMNS."""
    took, ratio = time(outcome, scenario)
    ends = (f"{outcome.stall:.2f} s", content(outcome), hand(outcome))
    if scenario.mptcp:
        counts = (str(outcome.connections), str(outcome.joined), str(outcome.reconnects))
        return (title(outcome.client), outcome.server, took, *counts, *ends)
    again = twice(outcome, scenario.size)
    total = "-" if again is None else volume(again.total)
    parts = "-" if again is None else " + ".join(volume(part) for part in (again.lost, again.repeated, again.content))
    return (title(outcome.client), outcome.server, took, ratio, total, parts, str(outcome.connections), *ends)


def columns(scenario: Scenario) -> tuple[str, ...]:
    """The heads of the table."""
    return MPTCP_COLUMNS if scenario.mptcp else COLUMNS


def goals(outcomes: Sequence[Outcome], scenario: Scenario) -> list[Goal]:
    """What is to be reached, judged by the worst of our clients with our server."""
    mine = [one for one in outcomes if one.client in OURS and one.server == "ours"]
    if not mine:
        return []
    unfinished = sum(one.ended != DONE or one.equal is not True for one in mine)
    hands = Goal("uploads of our clients that needed a hand, or brought another file", float(unfinished), 0)
    if scenario.mptcp:
        return [
            hands,
            Goal("reconnects", float(max(one.reconnects for one in mine)), 0),
            Goal("longest stall in seconds", max(one.stall for one in mine), 1.0),
        ]
    most = max((again.total for one in mine if (again := twice(one, scenario.size)) is not None), default=None)
    return [
        hands,
        Goal("time to the ideal, the slowest of our clients", max(one.seconds for one in mine) / scenario.ideal, 1.05),
        Goal("KiB sent twice a switch, the most", None if most is None else most / KIB, 64),
    ]


def goal_cells(goal: Goal) -> tuple[str, ...]:
    """One goal as a line: what, measured, wanted, reached."""
    value = "not measured" if goal.value is None else f"{goal.value:.3f}".rstrip("0").rstrip(".")
    return (goal.words, value, f"at most {goal.limit:g}", {True: "yes", False: "NO", None: "-"}[goal.met])


GOAL_COLUMNS: Final = ("goal", "measured", "wanted", "reached")


def ordered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """In the order of the clients; each with its servers as they come."""
    rank = {name: number for number, name in enumerate(CLIENTS)}
    return sorted(outcomes, key=lambda one: (one.server != "ours", rank.get(one.client, len(rank))))


def terminal(outcomes: Sequence[Outcome], scenario: Scenario) -> str:
    """All of it as plain text."""
    lines = [columns(scenario), *(cells(one, scenario) for one in ordered(outcomes))]
    out = [f"{scenario}; ideal {scenario.ideal:.1f} s", *("  " + line for line in aligned(lines))]
    out += [f"  {one.client} to {one.server}: {one.words}" for one in ordered(outcomes) if one.words]
    out += [
        f"  {one.client} to {one.server}: not a quiet machine, {one.busy:.1f} cores were at work"
        for one in ordered(outcomes)
        if one.busy > QUIET * (os.cpu_count() or 1)
    ]
    judged = goals(outcomes, scenario)
    if judged:
        out += ["", *("  " + line for line in aligned([GOAL_COLUMNS, *map(goal_cells, judged)]))]
    return "\n".join(out)


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *body = lines
    return [
        "| " + " | ".join(head) + " |",
        "| --- |" + " --- |" * (len(head) - 1),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in body),
    ]


def markdown(
    parts: Sequence[tuple[Scenario, Sequence[Outcome]]], machine: dict[str, str], versions: dict[str, str]
) -> str:
    """The measured part of the page: a section for each scenario."""
    out = [
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['memory']}, Linux {machine['kernel']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
    ]
    for scenario, outcomes in parts:
        out += ["", f"**{scenario}**", ""]
        if not scenario.mptcp:
            out[-2] += (
                f". The ideal is {scenario.ideal:.1f} s; {scenario.ideal_of_packets:.1f} s with the heads of IP and TCP "
                f"in every packet, {scenario.ideal_of_packets / scenario.ideal:.3f} times as much."
            )
        out += _table([columns(scenario), *(cells(one, scenario) for one in ordered(outcomes))])
        judged = goals(outcomes, scenario)
        if judged:
            out += ["", *_table([GOAL_COLUMNS, *map(goal_cells, judged)])]
    return "\n".join(out)


def replace_measured(page: str, measured: str) -> str:
    """The page with what lies between the two markers replaced; raises BenchError when they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{after}"
