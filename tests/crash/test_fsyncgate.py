"""D-17: a real file system on a disk that fails: the sync after the failed one succeeds, with nothing on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.crash.alterations import FAILED, HEALED
from tests.crash.crash_points import CrashRig
from tests.crash.failing_disk import FailingVolume, why_not
from tests.crash.hatchery import Hatchery
from tests.crash.killing import LossError
from tests.crash.one_upload import Chunked, OneUpload, RefusedError, Slot, Tus
from tests.faults.chunks import code
from tests.fixtures.child import wait_until
from tests.fixtures.sessions import create, made, submit

from hmac_file_server.files.contract import StorageError
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.metadata import MetadataTable, Row
from hmac_file_server.stores.contract import StoreError
from hmac_file_server.stores.sqlite import SqliteStore

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def hatchery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hatchery]:
    with Hatchery(tmp_path_factory.mktemp("hatchery")) as hatchery:
        yield hatchery


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[FailingVolume]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with FailingVolume(tmp_path / "volume", size=128 << 20) as volume:
        yield volume


def begun(rig: CrashRig, make: type[OneUpload]) -> OneUpload:
    """An upload whose next request is the one that matters."""
    upload = rig.new(make)
    if make is not Slot:
        upload.step()
        upload.step()
    return upload


@pytest.mark.parametrize("make", [Chunked, Tus, Slot], ids=lambda make: make.protocol)
def test_d_17_what_was_refused_is_sent_again_and_then_it_is_there(
    tmp_path: Path, hatchery: Hatchery, volume: FailingVolume, make: type[OneUpload]
) -> None:
    with CrashRig(tmp_path, hatchery, volume=volume) as rig:
        rig.trace(make)
        upload = begun(rig, make)
        with volume.failing(), pytest.raises(RefusedError) as refused:
            upload.step()
        assert code(refused.value.answer) == (500, "storage_failed")
        # The kernel says now that all is well. The client goes on without a restart of the server.
        upload.go()
        assert upload.stored()
        rig.lose_power()
        rig.finish(upload, "a failure of the disk, and a power cut")
        rig.check()


def test_a_server_that_syncs_again_until_it_is_told_that_all_is_well_is_found(
    tmp_path: Path, hatchery: Hatchery, volume: FailingVolume
) -> None:
    with CrashRig(tmp_path, hatchery, alteration="stubborn", volume=volume) as rig, ThreadPoolExecutor(1) as pool:
        rig.trace(Chunked)
        upload = begun(rig, Chunked)
        with volume.failing():
            step = pool.submit(upload.step)
            wait_until((rig.server.folder / FAILED).exists, "a sync has failed")
        (rig.server.folder / HEALED).touch()
        step.result(30)
        rig.lose_power()
        with pytest.raises(LossError, match="chunk_differs"):
            rig.finish(upload, "a failure of the disk, and a power cut")


def test_d_17_sessions_told_after_a_failure_are_there(volume: FailingVolume) -> None:
    """Of the database: SQLite would write its next frames into the room that the disk had failed to take."""
    file = str(volume.mount_point / "sessions.db")
    store = SqliteStore(file, full=True)
    made(store, create("before"))
    with volume.failing():
        assert isinstance(submit(store, create("refused")).get(), StoreError)
    for number in range(5):
        made(store, create(f"after {number}"))
    volume.cut()
    store.close()
    volume.unmount()
    volume.mount()
    store = SqliteStore(file, full=True)
    wanted = ["before", *(f"after {number}" for number in range(5))]
    assert store.known([*wanted, "refused"]) == set(wanted)
    store.close()


def test_d_17_rows_told_after_a_failure_are_there(volume: FailingVolume) -> None:
    def row(path: str) -> Row:
        return Row(
            path=path,
            media_type="text/plain",
            filename=None,
            owner=None,
            size=1,
            digest=None,
            created=1.0,
            expires=None,
            ticket=None,
        )

    file = str(volume.mount_point / "state.db")
    table = MetadataTable(Disk(), file, full=True)
    table.put([row("before")])
    with volume.failing(), pytest.raises(StorageError):
        table.put([row("refused")])
    for number in range(5):
        table.put([row(f"after {number}")])
    volume.cut()
    table.close()
    volume.unmount()
    volume.mount()
    table = MetadataTable(Disk(), file, full=True)
    assert [table.get(f"after {number}") for number in range(5)] == [row(f"after {number}") for number in range(5)]
    assert table.get("before") == row("before")
    assert table.get("refused") is None
    table.close()
