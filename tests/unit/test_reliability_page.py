"""docs/reliability.md: every goal has a row with a figure; every command and path on the page exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
_MAKEFILE = (_ROOT / "Makefile").read_text(encoding="utf-8")
GOALS = [f"G-{number:02}" for number in (*range(1, 13), *range(14, 25), 27, 28)]
MODULES = sorted(set(re.findall(r"python -m ([a-z_.]+)", _PAGE)))
PATHS = sorted(set(re.findall(r"`((?:tests|bench|docs|src)/[A-Za-z0-9_./]+)`", _PAGE)))


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading, without its head."""
    section = _PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_goal_has_one_row_with_a_figure_and_its_command() -> None:
    goals = rows("Figures")
    assert [row[0] for row in goals] == GOALS
    for row in goals:
        assert len(row) == 5, row
        goal, wanted, measured, command, reached = row
        assert re.search(r"\d", wanted), goal
        assert re.search(r"\d", measured), goal
        assert "`" in command, goal
        assert reached.startswith(("yes", "no", "in part")), goal


def test_what_is_not_reached_says_what_it_would_take() -> None:
    section = _PAGE.split("\n## What is not reached\n", 1)[1].split("\n## ", 1)[0]
    for goal, _, _, _, reached in rows("Figures"):
        assert (f"**{goal}**" in section) == (not reached.startswith("yes")), goal


@pytest.mark.parametrize("module", MODULES)
def test_a_command_exists(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("path", PATHS)
def test_a_path_exists(path: str) -> None:
    assert (_ROOT / path).exists()


def test_the_hunts_of_the_makefile_are_told() -> None:
    soak = _MAKEFILE.split("\nsoak:\n", 1)[1].split("\n\n", 1)[0]
    commands = set(re.findall(r"-m ((?:bench|tests)\.[a-z_.]+)", soak))
    assert commands
    assert commands <= set(MODULES)
