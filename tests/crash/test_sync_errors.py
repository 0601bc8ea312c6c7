"""G-05, D-16, D-17: the disk says no, once or for a while, at each call of an upload that could hear it.

Never is anything acknowledged that is not on the disk, nobody else suffers, and the upload goes on once the fault is
over. `SYSCALL_SHARE=1` tries longer uploads, which sync more than fifty times.
"""

from __future__ import annotations

import errno
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.crash_points import CrashRig, Make, Suffered
from tests.crash.hatchery import Hatchery
from tests.crash.killing import LossError
from tests.crash.one_upload import PROTOCOLS, SIZE, Chunked, Slot, Tus
from tests.crash.syscalls import GROWING, SYNCS, Call
from tests.crash.volumes import Volume, obstacle
from tests.faults.chunks import code

from hmac_file_server.files.paths import PRIVATE

pytestmark = pytest.mark.server

LONG = float(os.environ.get("SYSCALL_SHARE", "0")) >= 1
BODY = 1_500_000 if LONG else SIZE
"""The long ones of those that come in pieces sync more than fifty times."""
MOST = 1000
DRAFTS = f"/{PRIVATE}/uploads"

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
    volume = Volume(tmp_path / "volume", size=512 << 20)
    try:
        volume.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop mount here: {error.stderr.decode().strip()}")
    try:
        yield volume
    finally:
        volume.unmount()


def failed_sync(rig: CrashRig, make: Make, number: int) -> Suffered | None:
    """An upload whose `number`-th sync fails; what there was of it to be told is told, and on the disk."""
    suffered = rig.suffer(make, functools.partial(rig.watch.fail_at, SYNCS, number), size=BODY)
    if suffered is None:
        return None
    when = f"a failed {suffered.hit} of {suffered.upload.seed!r}"
    # SQLite takes no notice of a folder that it cannot sync; the server has done so itself, when it started.
    if suffered.refused is None and suffered.hit.name != f"/{PRIVATE}":
        raise LossError(f"{when} was answered as if nothing were")
    assert suffered.refused is None or suffered.refused.status in {500, 503}, (when, suffered.refused)
    if number % 2 and suffered.hit.name != DRAFTS:
        # The server goes on, and the upload with it; then the power goes.
        rig.finish(suffered.upload, when)
    rig.lose_power()
    rig.finish(suffered.upload, when)
    return suffered


@each_protocol
def test_d_17_each_sync_fails_once(tmp_path: Path, hatchery: Hatchery, volume: Volume, make: Make) -> None:
    """G-05: after every second of them the upload goes on at once, else after a power cut."""
    number = 1
    with CrashRig(tmp_path, hatchery, volume=volume) as rig:
        rig.trace(make)
        while failed_sync(rig, make, number) is not None:
            number += 1
            assert number < MOST
        rig.check()
    print(f"\n{make.__name__}: {number - 1} syncs")
    assert number > (50 if LONG and make in {Chunked, Tus} else 3)


def test_d_17_the_folder_of_drafts_cannot_be_synced(tmp_path: Path, hatchery: Hatchery) -> None:
    """The upload whose name may be lost is refused until a restart, however often it is tried; others go on."""
    with CrashRig(tmp_path, hatchery) as rig:
        notes = rig.trace(Chunked)
        syncs = [note for note in notes if note.call in SYNCS]
        number = 1 + next(index for index, note in enumerate(syncs) if note.name == DRAFTS)
        suffered = rig.suffer(Chunked, functools.partial(rig.watch.fail_at, SYNCS, number))
        assert suffered is not None
        assert suffered.hit.name == DRAFTS
        for _ in range(3):
            again = rig.suffer(type(suffered.upload), rig.watch.begin)
            assert again is None
            with pytest.raises(AssertionError, match="storage_failed"):
                suffered.upload.go()
        rig.server.stop()
        rig.server.start()
        rig.finish(suffered.upload, "a failed sync of the folder")


def test_d_17_two_failed_syncs_close_the_store(tmp_path: Path, hatchery: Hatchery) -> None:
    """A disk that fails again is not trusted: no more uploads, but downloads; a restart opens it again."""
    with CrashRig(tmp_path, hatchery) as rig:
        rig.trace(Slot)
        for _ in range(2):
            suffered = rig.suffer(Slot, functools.partial(rig.watch.fail_at, [Call.FDATASYNC], 1))
            assert suffered is not None
            assert suffered.refused is not None
            assert code(suffered.refused) == (500, "storage_failed")
        closed = rig.suffer(Slot, functools.partial(rig.watch.fail_at, [Call.OPEN], MOST))
        assert closed is None
        upload = rig.uploads[-1]
        with pytest.raises(AssertionError, match="storage_read_only"):
            upload.go()
        assert rig.server.request("GET", "/ready").status == 503
        assert rig.uploads[0].stored()
        rig.server.stop()
        rig.server.start()
        rig.finish(upload, "two failed syncs")


@each_protocol
def test_d_16_each_call_finds_no_space(tmp_path: Path, hatchery: Hatchery, make: Make) -> None:
    """Once, or from there on: 507, and afterwards the upload goes on without a restart."""
    with CrashRig(tmp_path, hatchery) as rig:
        rig.trace(make)
        found = 0
        for number in range(1, MOST):
            if number % 2:
                arm = functools.partial(rig.watch.fail_all, GROWING, errno.ENOSPC, first=number)
            else:
                arm = functools.partial(rig.watch.fail_at, GROWING, number, error=errno.ENOSPC)
            suffered = rig.suffer(make, arm)
            if suffered is None:
                break
            found += 1
            when = f"no space for {suffered.hit} of {suffered.upload.seed!r}"
            # A second name of the content, for deduplication, is not worth an upload.
            assert suffered.refused is not None or suffered.hit.name.startswith(f"/{PRIVATE}/blobs"), when
            assert suffered.refused is None or code(suffered.refused) == (507, "storage_full"), when
            rig.finish(suffered.upload, when)
        rig.check()
    print(f"\n{make.__name__}: {found} calls")
    assert found > 5


@each_protocol
def test_d_18_no_file_can_be_opened(tmp_path: Path, hatchery: Hatchery, make: Make) -> None:
    """EMFILE at each of the server's opens, once: 503, or nothing that anybody would notice."""
    with CrashRig(tmp_path, hatchery) as rig:
        rig.trace(make)
        for number in range(1, MOST):
            arm = functools.partial(rig.watch.fail_at, [Call.OPEN], number, error=errno.EMFILE)
            suffered = rig.suffer(make, arm, meanwhile=False)
            if suffered is None:
                break
            if suffered.refused is not None:
                assert code(suffered.refused) == (503, "storage_busy"), suffered.hit
            rig.finish(suffered.upload, f"EMFILE at {suffered.hit} of {suffered.upload.seed!r}")
        assert number > 3
        rig.check()


@each_protocol
def test_a_short_write_is_no_error(tmp_path: Path, hatchery: Hatchery, make: Make) -> None:
    """Each write takes half of what it was given, once."""
    with CrashRig(tmp_path, hatchery) as rig:
        rig.trace(make)
        for number in range(1, MOST, 1 if LONG else 3):
            arm = functools.partial(rig.watch.fail_at, [Call.WRITE, Call.PWRITE], number, short=True)
            suffered = rig.suffer(make, arm)
            if suffered is None:
                break
            assert suffered.refused is None
            rig.finish(suffered.upload, f"a short {suffered.hit}")
        assert number > 1
        rig.check()


def test_a_server_that_does_not_hear_of_a_failed_sync_is_found(
    tmp_path: Path, hatchery: Hatchery, volume: Volume
) -> None:
    """Its answers are wrong, and a power cut shows that they are."""
    with CrashRig(tmp_path, hatchery, alteration="deaf", volume=volume) as rig:
        rig.trace(Slot)
        with pytest.raises(LossError, match="was answered as if nothing were"):
            failed_sync(rig, Slot, 1)
        suffered = rig.suffer(Slot, functools.partial(rig.watch.fail_at, SYNCS, 1))
        assert suffered is not None
        assert suffered.upload.complete
        rig.lose_power()
        with pytest.raises(LossError, match="200 with 0 bytes"):
            rig.finish(suffered.upload, "a failed sync")
