"""G-02: a crash before every single call of an upload into the kernel, killed or with the power of the disk cut.

Here a sample of them, with every sync, link and unlink; `python -m bench.syscalls` does all, of longer uploads.
`SYSCALL_SHARE=1` takes all of them here, `SYSCALL_SEED` another sample.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.crash_points import CrashRig, Make, crash_at_each, sample, unsynced
from tests.crash.hatchery import Hatchery
from tests.crash.killing import LossError
from tests.crash.one_upload import PROTOCOLS, Chunked, Slot, Tus
from tests.crash.syscalls import SYNCS, TURNS, Call, Note, Point, points
from tests.crash.volumes import Volume, obstacle
from tests.fixtures.child import program, wait_until

pytestmark = pytest.mark.server

SHARE = float(os.environ.get("SYSCALL_SHARE", "0.15"))
SEED = os.environ.get("SYSCALL_SEED", "20261128")
CUTS = 8
"""Power cuts of each upload."""

each_protocol = pytest.mark.parametrize("make", PROTOCOLS, ids=lambda make: make.protocol)


@pytest.fixture(scope="module")
def hatchery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hatchery]:
    with Hatchery(tmp_path_factory.mktemp("hatchery")) as hatchery:
        yield hatchery


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
    volume = Volume(tmp_path / "volume", size=256 << 20)
    try:
        volume.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop mount here: {error.stderr.decode().strip()}")
    try:
        yield volume
    finally:
        volume.unmount()


def traced(rig: CrashRig, make: Make) -> list[Note]:
    """The calls of an upload that is not the first one: that one makes folders which the others find."""
    rig.trace(make)
    return rig.trace(make)


@each_protocol
def test_g_02_killed_at_each_call(tmp_path: Path, hatchery: Hatchery, make: Make) -> None:
    with CrashRig(tmp_path, hatchery) as rig:
        notes = traced(rig, make)
        wanted = sample(notes, SHARE, random.Random(SEED))
        missed = crash_at_each(rig, make, wanted)
        rig.check()
        print(f"\n{make.__name__}: {len(notes)} calls, {rig.totals}")
    # What was there already is not made again; every sync, link and unlink is met.
    assert not [point for point in missed if point.call in TURNS]
    assert len(missed) <= len(wanted) // 10 + 1


@each_protocol
def test_g_02_the_power_goes_at_a_call(tmp_path: Path, hatchery: Hatchery, volume: Volume, make: Make) -> None:
    """A kill leaves what the kernel has; this leaves what the disk has. The turns, some of them."""
    chance = random.Random(SEED)
    with CrashRig(tmp_path, hatchery, volume=volume) as rig:
        wanted = [point for point in points(traced(rig, make)) if point.call in (*TURNS, Call.ANSWER)]
        if SHARE < 1:
            wanted = chance.sample(wanted, min(CUTS, len(wanted)))
        assert crash_at_each(rig, make, wanted, cut=True) == []
        rig.check()


@pytest.mark.parametrize(
    ("make", "point"),
    [(Chunked, Point(Call.LINK, 1)), (Tus, Point(Call.UNLINK, 1)), (Slot, Point(Call.LINK, 1))],
    ids=lambda value: str(value).replace(" ", "-") if isinstance(value, Point) else value.protocol,
)
def test_g_02_killed_at_each_call_of_what_follows(tmp_path: Path, hatchery: Hatchery, make: Make, point: Point) -> None:
    """The next server dies at its first call, the one after that at its second, and so on until one lives."""
    with CrashRig(tmp_path, hatchery) as rig:
        traced(rig, make)
        crashes = rig.crash_again_and_again(make, point)
        rig.check()
    print(f"\n{make.__name__}: {crashes} crashes in a row")
    assert crashes > 10


@each_protocol
def test_every_answer_comes_after_its_syncs(tmp_path: Path, hatchery: Hatchery, make: Make) -> None:
    with CrashRig(tmp_path, hatchery) as rig:
        first, second = rig.trace(make), rig.trace(make)
    assert unsynced(first) == []
    assert unsynced(second) == []
    assert {note.call for note in second} >= {Call.FDATASYNC, Call.FSYNC, Call.LINK, Call.ANSWER}


# ---- else nothing of this would prove anything


@pytest.mark.parametrize(
    ("alteration", "what"),
    [("without-file-sync", "is not synced at an answer"), ("without-directory-sync", "/ is not synced at an answer")],
)
def test_without_syncs_the_order_is_wrong(tmp_path: Path, hatchery: Hatchery, alteration: str, what: str) -> None:
    with CrashRig(tmp_path, hatchery, alteration=alteration) as rig:
        for make in (Chunked, Slot):
            assert any(what in found for found in unsynced(rig.trace(make)))


@pytest.mark.parametrize(
    ("alteration", "call", "file"), [("hasty", Call.PWRITE, "uploads.db-wal"), ("piecewise", Call.WRITE, "f.bin")]
)
def test_a_kill_finds_what_is_told_too_early_and_what_is_not_whole(
    tmp_path: Path, hatchery: Hatchery, alteration: str, call: Call, file: str
) -> None:
    with CrashRig(tmp_path, hatchery, alteration=alteration) as rig:
        notes = rig.trace(Chunked)
        wanted = [
            point
            for note, point in zip(notes, points(notes), strict=True)
            if note.call is call and note.name.endswith(file)
        ]
        assert wanted
        with pytest.raises(LossError):
            crash_at_each(rig, Chunked, wanted)


def test_a_power_cut_finds_what_is_not_synced(tmp_path: Path, hatchery: Hatchery, volume: Volume) -> None:
    with CrashRig(tmp_path, hatchery, alteration="without-file-sync", volume=volume) as rig:
        rig.trace(Slot)
        with pytest.raises(LossError, match="200 with 0 bytes"):
            crash_at_each(rig, Slot, [Point(Call.ANSWER, 1), Point(Call.LINK, 1)], cut=True)


def test_strace_counts_the_same(tmp_path: Path, hatchery: Hatchery) -> None:
    """The library meets every call that the kernel gets: none of them could go by unseen."""
    kinds = {
        "pwrite64": Call.PWRITE,
        "fdatasync": Call.FDATASYNC,
        "fsync": Call.FSYNC,
        "linkat": Call.LINK,
        "unlinkat": Call.UNLINK,
        "mkdirat": Call.MKDIR,
    }
    others = {"pwritev", "pwritev2", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "link", "unlink"}
    others |= {"mkdir", "symlinkat", "sync_file_range", "syncfs", "copy_file_range", "truncate"}
    if os.geteuid() != 0:
        pytest.skip("attaching strace needs root")
    log = tmp_path / "strace.log"
    with CrashRig(tmp_path, hatchery) as rig:
        rig.trace(Chunked)
        command = [program("strace", "strace"), "-f", "-o", str(log), "-e", f"trace={','.join((*kinds, *others))}"]
        tracer = subprocess.Popen([*command, "-p", str(rig.server.pid)], stderr=subprocess.PIPE, text=True)
        try:
            assert tracer.stderr is not None
            line = tracer.stderr.readline()
            assert "attached" in line, line
            notes = rig.trace(Chunked)
        finally:
            tracer.terminate()
            tracer.communicate(timeout=20)
    seen = [line.split(None, 1)[1].partition("(")[0] for line in log.read_text().splitlines() if "resumed>" not in line]
    counts = {call: sum(kinds.get(name) is call for name in seen) for call in kinds.values()}
    assert counts == {call: sum(note.call is call for note in notes) for call in kinds.values()}
    assert not set(seen) & others
    assert counts[Call.FDATASYNC] >= len(SYNCS)


def test_counts_are_of_all_threads_together(tmp_path: Path, hatchery: Hatchery) -> None:
    """The second sync of an upload is on another thread than the first, and is met all the same."""
    with CrashRig(tmp_path, hatchery) as rig:
        rig.trace(Chunked)
        rig.watch.kill_at(Point(Call.FDATASYNC, 6))
        upload = rig.new(Chunked)
        assert not upload.run_until_gone()
        wait_until(rig.server.ended, "the server has died")
        assert rig.watch.seen == 6
        rig.watch.rest()
        rig.server.start()
        upload.go()
        assert upload.stored()
