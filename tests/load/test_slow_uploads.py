"""A share of `python -m bench.load slow-uploads` and `drop`: bounds and counts, no speed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.load import drops, slow_uploads
from tests.load.gauges import MIB

COUNT = 1000


def test_g_10_slow_uploads_hold_little(tmp_path: Path) -> None:
    """None is cut, none has a thread, and ten thousand of them would fit into 128 MiB."""
    seen = slow_uploads.measure(tmp_path, COUNT, processes=2, seconds=0.5)
    assert seen.refused == 0
    assert seen.sent >= 2 * COUNT * slow_uploads.KIB
    assert seen.during.threads <= seen.before.threads + 2
    # A socket, the body loop's duplicate of it, and a spool.
    assert seen.during.descriptors <= seen.before.descriptors + 3 * COUNT + 20
    growth = seen.during.proportional - seen.before.proportional
    assert growth < COUNT * 9 * slow_uploads.KIB, f"{growth / COUNT:.0f} bytes each"
    assert seen.before.proportional < 64 * MIB


@pytest.mark.parametrize("kind", ["PUT", "tus"])
def test_g_23_n_29_all_are_cut_at_once_and_come_back(tmp_path: Path, kind: str) -> None:
    """A few lines, every descriptor back, and nobody who returns is told that it is the server's fault."""
    seen = drops.measure(tmp_path, COUNT, processes=2, kind=kind, seconds=0.5)
    assert seen.lines <= 100
    assert seen.after <= seen.base + 2
    if seen.back is not None:
        assert seen.back.statuses == {"200": COUNT}
