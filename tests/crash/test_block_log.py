"""G-04: every write to the disk is recorded while clients upload, and the power is cut anywhere in the record.

D-01 to D-08 in one: whatever was told before the cut is there afterwards, nothing half is visible, and a server goes on
from it. `BLOCK_CUTS=1000` cuts more often than the default; `python -m bench.block_log` does so, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.crash.altered_server import FORGETFUL, HASTY, SHORT_LOG, UNDIRECTED, UNSYNCED
from tests.crash.block_log import SECTOR, BlockLog, Cut, Loss, Recorder, Replay, cuts
from tests.crash.block_recorder import FLUSH, HEADER, WRITE
from tests.crash.replaying import Recording, record, replay
from tests.crash.volumes import NoVolumeError
from tests.crash.witnesses import CHUNKED, PUT, TUS

CUTS = int(os.environ.get("BLOCK_CUTS", "18"))
SEED = os.environ.get("BLOCK_SEED", "20261128")
FACTS = 250
IMAGE_BYTES = 1 << 18
CONTROL_CUTS = 5
CONTROL_TURNS = 20
CONTROL_FACTS = 150


def recording(folder: Path, facts: int, alteration: str, processes: int = 1) -> Recording:
    """A recording, or no test."""
    try:
        return record(folder, seed=SEED, facts=facts, alteration=alteration, processes=processes)
    except NoVolumeError as error:
        pytest.skip(str(error))


@pytest.mark.server
@pytest.mark.timeout(120 + 2 * CUTS)
@pytest.mark.parametrize(("alteration", "processes"), [("", 1), (SHORT_LOG, 2)])
def test_g_04_nothing_told_is_lost(tmp_path: Path, alteration: str, processes: int) -> None:
    """Over cuts of all three kinds; after some of them a server starts and brings everything to its end."""
    made = recording(tmp_path, FACTS, alteration, processes)
    assert {fact.protocol for fact in made.facts} == {CHUNKED, TUS, PUT}
    chosen = cuts(made.begin, made.end, number=CUTS, seed=SEED)
    assert replay(made, chosen, started={CUTS // 2}) == []


CONTROLS = [
    (UNSYNCED, "not whole"),
    (HASTY, "wrong bytes"),
    (f"{UNDIRECTED}+{SHORT_LOG}", "not there"),
    (FORGETFUL, "session"),
]


@pytest.mark.server
@pytest.mark.parametrize(("alteration", "words"), CONTROLS)
def test_a_server_that_leaves_a_sync_out_is_caught(tmp_path: Path, alteration: str, words: str) -> None:
    """The negative controls: of files, of ranges before they are told, of folders, of databases."""
    made = recording(tmp_path, CONTROL_FACTS, alteration)
    for turn in range(CONTROL_TURNS):
        # SQLite's log is written over by then, in the server where that counts.
        lost = replay(made, cuts(made.end // 3, made.end, number=CONTROL_CUTS, seed=f"{SEED} {turn}"))
        if any(words in loss for loss in lost):
            return
    pytest.fail(f"{CONTROL_TURNS * CONTROL_CUTS} cuts of a server that is {alteration} lost nothing")


# ---- the record and its disks


def page(letter: bytes) -> bytes:
    return letter * 4096


def block_log(folder: Path, *entries: tuple[int, bytes] | None) -> tuple[Recorder, BlockLog]:
    """A record of writes (offset, bytes) and flushes (None), over an empty disk."""
    recorder = Recorder(folder / "image", folder / "log", folder)
    with recorder.image.open("wb") as image:
        image.truncate(IMAGE_BYTES)
    with recorder.log.open("wb") as file:
        for entry in entries:
            offset, data = entry or (0, b"")
            file.write(HEADER.pack(WRITE if entry else FLUSH, offset, len(data)) + data)
    return recorder, BlockLog(recorder.log)


def disks(folder: Path, entries: Sequence[tuple[int, bytes] | None], chosen: Sequence[Cut]) -> list[bytes]:
    """The first four pages of the disks that the cuts leave."""
    recorder, log = block_log(folder, *entries)
    made = Replay(recorder, log)
    found = []
    for cut in chosen:
        made.make(cut, folder / "disk")
        assert (folder / "disk").stat().st_size == IMAGE_BYTES
        found.append((folder / "disk").read_bytes()[: 4 * 4096])
    return found


ENTRIES: list[tuple[int, bytes] | None] = [
    (0, page(b"a")),
    None,
    (4096, page(b"b")),
    (8192, page(b"c")),
    None,
    (0, page(b"d")),
]


def test_a_prefix_is_all_that_was_written_before_the_cut(tmp_path: Path) -> None:
    chosen = [Cut(count, Loss.PREFIX, "") for count in (0, 1, 2, 3, 4, 5, 6)]
    nothing, a, b, c, d = (page(letter) for letter in (b"\0", b"a", b"b", b"c", b"d"))
    assert disks(tmp_path, ENTRIES, chosen) == [
        nothing * 4,
        a + nothing * 3,
        a + nothing * 3,
        a + b + nothing * 2,
        a + b + c + nothing,
        a + b + c + nothing,
        d + b + c + nothing,
    ]


@pytest.mark.parametrize("loss", [Loss.SUBSET, Loss.TORN])
def test_what_a_flush_has_covered_is_always_there(tmp_path: Path, loss: Loss) -> None:
    """And of what came after it now this is there and now that, the same for the same seed."""
    chosen = [Cut(4, loss, str(number)) for number in range(40)]
    found = disks(tmp_path, ENTRIES, chosen)
    assert {disk[:4096] for disk in found} == {page(b"a")}
    ends = {(disk[4096:8192] == page(b"b"), disk[8192:12288] == page(b"c")) for disk in found}
    assert {(True, False), (False, True), (True, True), (False, False)} == ends
    again = disks(tmp_path, ENTRIES, chosen)
    assert again == found


def test_torn_writes_are_torn_between_sectors(tmp_path: Path) -> None:
    data = b"".join(bytes([index + 1]) * SECTOR for index in range(8))
    found = [disk[:4096] for disk in disks(tmp_path, [(0, data)], [Cut(1, Loss.TORN, str(n)) for n in range(40)])]
    torn = [disk for disk in found if disk not in {data, bytes(4096)}]
    assert len(torn) > 5
    for disk in torn:
        for place in range(0, 4096, SECTOR):
            assert disk[place : place + SECTOR] in {data[place : place + SECTOR], bytes(SECTOR)}


def test_cuts_are_anywhere_and_in_order() -> None:
    chosen = cuts(2, 6, number=60, seed="some")
    counts = [cut.count for cut in chosen]
    assert counts == sorted(counts)
    assert set(counts) == {2, 3, 4, 5, 6}
    assert {cut.loss for cut in chosen} == set(Loss)
    assert cuts(2, 6, number=60, seed="some") == chosen


def test_a_length_of_the_log_is_a_number_of_records(tmp_path: Path) -> None:
    _, log = block_log(tmp_path, *ENTRIES)
    assert [log.count(log.length(count)) for count in range(7)] == list(range(7))
    assert log.count(log.length(3) + 1) == 3
