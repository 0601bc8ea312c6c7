"""Seeds of the simulation: some new ones, and all that once broke a rule.

SIMULATE=N plays N seeds, from SIMULATE_FIRST on; `python -m bench.simulate` plays many on every core.
"""

from __future__ import annotations

import os

import pytest
from tests.simulation.seeds import ONCE_BROKEN
from tests.simulation.world import simulate

FIRST = int(os.environ.get("SIMULATE_FIRST", "0"))
COUNT = int(os.environ.get("SIMULATE", "500"))
SHARE = 25


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, SHARE))
def test_d_01_to_d_17_no_seed_breaks_a_rule(first: int) -> None:
    answers = sum(simulate(seed).answers for seed in range(first, min(first + SHARE, FIRST + COUNT)))
    assert answers > SHARE, "nobody was answered"


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_a_seed_that_once_broke_a_rule_does_so_no_more(seed: int) -> None:
    assert simulate(seed).steps > 0
