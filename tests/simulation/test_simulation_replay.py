"""A seed is the same run every time: event by event, and in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.world import simulate

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(40, 52)
PROGRAM = "from tests.simulation.world import simulate\nfor seed in range({0}, {1}): print(simulate(seed).digest)"


def digests_elsewhere(hash_seed: str) -> list[str]:
    """What another process makes of the seeds."""
    played = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(SEEDS.start, SEEDS.stop)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return played.stdout.split()


def test_a_seed_is_the_same_run_every_time() -> None:
    for seed in SEEDS:
        first: list[str] = []
        second: list[str] = []
        assert simulate(seed, keep=first) == simulate(seed, keep=second)
        assert first == second
        assert len(first) > 50


def test_a_seed_is_the_same_run_in_any_process() -> None:
    here = [simulate(seed).digest for seed in SEEDS]
    assert len(set(here)) == len(here)
    assert digests_elsewhere("1") == here
    assert digests_elsewhere("4242") == here
