"""What the simulation is worth: a server with one safety taken out is caught, within a bounded number of seeds."""

from __future__ import annotations

import pytest
from tests.simulation.alterations import ALTERATIONS, altered
from tests.simulation.judge import Violation
from tests.simulation.world import simulate

SEEDS = 120


@pytest.mark.parametrize("name", sorted(ALTERATIONS))
def test_a_server_without_a_safety_is_caught(name: str) -> None:
    with altered(name):
        for seed in range(SEEDS):
            try:
                simulate(seed)
            except Violation:
                return
    pytest.fail(f"{SEEDS} seeds went well although there is: {name}")
