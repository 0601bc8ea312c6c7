"""The list of attacks has no holes, and names tests that exist."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
from tests.security.entries import ENTRIES

_ROOT = Path(__file__).parents[2]
_NUMBERS = (*range(1, 27), *range(30, 38), *range(40, 47), *range(50, 61), *range(70, 78))


@functools.cache
def functions(path: str) -> frozenset[str]:
    """Names of the tests of a file, in classes too."""
    tree = ast.parse((_ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test"))


def test_every_attack_of_the_list_has_its_tests() -> None:
    assert list(ENTRIES) == [f"S-{number:02}" for number in _NUMBERS]
    assert all(title and tests for title, tests in ENTRIES.values())


@pytest.mark.parametrize(("entry", "test"), [(entry, test) for entry, (_, tests) in ENTRIES.items() for test in tests])
def test_a_named_test_exists(entry: str, test: str) -> None:
    path, _, name = test.partition("::")
    assert name in functions(path), entry


def test_the_ids_in_names_of_tests_are_those_of_the_list() -> None:
    """Both ways: a test with an id stands with that entry, and a test of this folder stands only with its own ids."""
    for path in sorted(Path(__file__).parent.glob("test_security_*.py")):
        here = f"tests/security/{path.name}"
        for name in functions(here):
            ids = {f"S-{number}" for number in re.findall(r"s_(\d\d)_", name)}
            for entry in ids:
                assert f"{here}::{name}" in ENTRIES[entry][1], (entry, name)
