"""THREAT_MODEL.md names tests that exist, every attack of the list, and every test that carries its id."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
from tests.security.entries import ENTRIES

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
_COLUMNS = ["threat", "what stops it", "shown by", "remains"]
_SUBSYSTEMS = (
    "Public listener and HTTP",
    "Authentication and tickets",
    "Paths and published files",
    "Downloads, and what browsers do with them",
    "Uploads, sessions and takeover",
    "Deduplication",
    "Stores and the storage folder",
    "Processes and handoff",
    "Logs and errors",
    "Configuration and secrets",
    "Upload page and clients",
)
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
NAMED = sorted(set(_TEST.findall(_PAGE)))


@functools.cache
def functions(path: str) -> frozenset[str]:
    """Names of the tests of a file, in classes too."""
    tree = ast.parse((_ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def rows(subsystem: str) -> list[list[str]]:
    """The rows of a subsystem's table, its head first."""
    section = _PAGE.split(f"\n## {subsystem}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [cells[0], *cells[2:]]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(path: str, name: str) -> None:
    assert name in functions(path)


def test_nothing_looks_like_a_test_and_is_none() -> None:
    assert len(_TEST.findall(_PAGE)) == len(re.findall(r"tests/[^\s`]*::", _PAGE))
    assert len(NAMED) > 100


def test_every_attack_of_the_list_has_its_place() -> None:
    assert set(re.findall(r"\bS-\d\d\b", _PAGE)) == set(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_tests_of_an_attack_are_named(entry: str) -> None:
    """Somewhere on the page: a test may show more than one thing."""
    missing = [test for test in ENTRIES[entry][1] if f"`{test}`" not in _PAGE]
    assert missing == []


@pytest.mark.parametrize("subsystem", _SUBSYSTEMS)
def test_a_subsystem_has_its_table(subsystem: str) -> None:
    head, *threats = rows(subsystem)
    assert head == _COLUMNS
    assert len(threats) >= 4
    for row in threats:
        assert len(row) == len(_COLUMNS), row[0]
        assert all(row), row[0]
        assert _TEST.search(row[2]), f"{row[0]}: no test shows it"
        assert row[1] != "-" or row[3] != "-", row[0]


def test_what_is_not_built_is_said() -> None:
    assert "The admin listener is not built yet" in _PAGE
