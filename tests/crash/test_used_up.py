"""G-19, D-14, D-16, D-18: inodes, space, descriptors and the right time are gone, and come back.

Meanwhile nothing crashes, nobody gets a 5xx but 503 and 507, files are read and deleted; afterwards uploads go on
without a restart. That Redis is gone is tested in test_lost_redis.py, a full disk also in test_full_disk_uploads.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from tests.crash.crash_points import CrashRig
from tests.crash.hatchery import HatchedServer, Hatchery
from tests.crash.one_upload import CHUNK_SIZE, GONE, PROTOCOLS, Chunked, OneUpload, RefusedError, Slot, Tus
from tests.crash.syscalls import ALL
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer, Settings
from tests.server.disks import may_mount, tmpfs
from tests.server.wire import Wire

pytestmark = pytest.mark.server

DAY: Final = 86_400
NOW_FINE: Final = 20.0
"""Seconds within which all must be well again; the tests measure no time, G-19 asks for one second."""

UseUp: TypeAlias = Callable[[Path], list[Path]]

_seeds = itertools.count()


@pytest.fixture(scope="module")
def hatchery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hatchery]:
    with Hatchery(tmp_path_factory.mktemp("hatchery")) as hatchery:
        yield hatchery


def whole(server: FileServer) -> Slot:
    """A file that is there."""
    upload = Slot(server, f"used up {next(_seeds)}")
    upload.go()
    return upload


def deletes(upload: Slot) -> None:
    """It can be deleted."""
    answer = upload.server.request("DELETE", slots.target(upload.path, slots.delete_token(upload.path)))
    assert answer.status == 204, answer
    assert upload.server.request("GET", upload.url).status == 404


def is_served(upload: Slot) -> None:
    """It can be read, whole, in part, and looked at."""
    server = upload.server
    assert upload.stored()
    head = server.request("HEAD", upload.url)
    assert (head.status, head.headers["content-length"]) == (200, str(len(upload.body)))
    part = server.request("GET", upload.url, None, {"Range": "bytes=7-99"})
    assert (part.status, part.body) == (206, upload.body[7:100])


def tried(upload: OneUpload) -> int:
    """The status with which an upload stopped; 0: the connection ended, 200: it is complete."""
    try:
        upload.go()
    except RefusedError as refused:
        return refused.answer.status
    except GONE:
        return 0
    return 200


def goes_on(*uploads: OneUpload) -> None:
    """Uploads that were stopped come to their end, without a restart."""
    wait_until(lambda: all(tried(upload) == 200 for upload in uploads), "the uploads go on", seconds=NOW_FINE)
    assert all(upload.stored() for upload in uploads)
    ready = uploads[0].server
    wait_until(lambda: ready.request("GET", "/ready").status == 200, "the server is ready", seconds=NOW_FINE)


@contextmanager
def on_a_small_disk(tmp_path: Path, hatchery: Hatchery, **options: int) -> Iterator[tuple[HatchedServer, Path]]:
    """A server with its files on a tmpfs of its own, and where that is."""
    if not may_mount():
        pytest.skip("mounting needs root")
    with tmpfs(tmp_path / "small", size="48m", **options) as place:
        settings: Settings = {
            "server": {"storage_path": str(place / "files")},
            "uploads": {"chunk_size": CHUNK_SIZE},
            "logging": {"level": "warning"},
        }
        server = HatchedServer(tmp_path / "server", settings, hatchery)
        hatchery.watch.look_at(server.storage)
        server.start()
        try:
            yield server, place
        finally:
            server.stop()


def use_up_inodes(place: Path) -> list[Path]:
    """Make files until there can be no more; those."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        for number in range(100_000):
            path = place / f"other-{number}"
            path.touch()
            made.append(path)
    return made


def use_up_space(place: Path) -> list[Path]:
    """Write until there is no more space; the file."""
    path = place / "other"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return [path]


@pytest.mark.parametrize("use_up", [use_up_inodes, use_up_space], ids=["inodes", "space"])
def test_g_19_no_inodes_no_space(tmp_path: Path, hatchery: Hatchery, use_up: UseUp) -> None:
    """Uploads under way, too: every one of them is told so, and goes on afterwards."""
    with on_a_small_disk(tmp_path, hatchery, inodes=400) as (server, place):
        kept, unwanted = whole(server), whole(server)
        begun = [Chunked(server, "begun"), Tus(server, "begun")]
        for upload in begun:
            upload.step()
            upload.step()
        others = use_up(place)
        stopped = [*begun, *(make(server, "new") for make in PROTOCOLS)]
        got = {upload.seed: tried(upload) for upload in stopped}
        assert set(got.values()) <= {507, 503, 200}, got
        assert 507 in {got[upload.seed] for upload in stopped if "new" in upload.seed}
        assert server.request("GET", "/health").status == 200
        assert server.request("GET", "/ready").status == 503
        is_served(kept)
        begun[0].look()  # what it tells must cover what was told; whoever asks for the file may hear 507
        for path in others:
            path.unlink()
        assert [loss for upload in begun for loss in upload.lost()] == []
        goes_on(*stopped)
        deletes(unwanted)
        is_served(kept)


@pytest.mark.parametrize("use_up", [use_up_inodes, use_up_space], ids=["inodes", "space"])
def test_g_19_what_is_deleted_makes_room(tmp_path: Path, hatchery: Hatchery, use_up: UseUp) -> None:
    """A file of ours is deleted while nothing else could be: a row that cannot be removed stands in nobody's way."""
    with on_a_small_disk(tmp_path, hatchery, inodes=400) as (server, place):
        kept, unwanted = whole(server), whole(server)
        others = use_up(place)
        answer = server.request("DELETE", slots.target(unwanted.path, slots.delete_token(unwanted.path)))
        assert answer.status in {204, 507}
        is_served(kept)
        if answer.status == 204:
            assert server.request("GET", unwanted.url).status == 404
        for path in others:
            path.unlink()
        answer = server.request("DELETE", slots.target(unwanted.path, slots.delete_token(unwanted.path)))
        assert answer.status in {204, 404}
        assert server.request("GET", unwanted.url).status == 404
        goes_on(Slot(server, "more"))


@contextmanager
def descriptors_left(server: FileServer, count: int) -> Iterator[None]:
    """So many more descriptors the server may have, and no more."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{server.pid}/fd"))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (highest + 1 + count, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))


def test_d_18_descriptors_are_used_up(tmp_path: Path, hatchery: Hatchery) -> None:
    """From none to enough: 503 or a connection that is closed, and never a wrong answer."""
    with CrashRig(tmp_path, hatchery) as rig:
        kept = whole(rig.server)
        stopped: list[OneUpload] = []
        seen: set[int] = set()
        for count in range(10):
            tries = [make(rig.server, f"descriptors {count}") for make in PROTOCOLS]
            with descriptors_left(rig.server, count):
                seen |= {tried(upload) for upload in tries}
                with contextlib.suppress(*GONE):
                    answer = rig.server.request("GET", kept.url)
                    assert answer.status == 503 or answer.body == kept.body
            stopped += tries
        assert seen <= {0, 200, 503}
        assert seen > {503}
        assert not rig.server.ended()
        goes_on(*stopped)
        is_served(kept)


def test_d_18_more_connections_than_descriptors(tmp_path: Path, hatchery: Hatchery) -> None:
    """Those that are there are served while others are not, and the next ones as soon as they go."""
    with CrashRig(tmp_path, hatchery) as rig:
        kept = whole(rig.server)
        with Wire(rig.server) as first, contextlib.ExitStack() as crowd, descriptors_left(rig.server, 12):
            first.head("GET", "/health")
            assert first.answer().status == 200
            for _ in range(50):
                crowd.enter_context(Wire(rig.server))
            assert statuses(rig.server, 5) <= {0, 503, 200}
            first.head("GET", "/health")
            assert first.answer().status == 200
            crowd.close()
            # The limit stays; the crowd has gone.
            goes_on(Slot(rig.server, "after the crowd"))
            is_served(kept)
        assert not rig.server.ended()


def statuses(server: FileServer, count: int) -> set[int]:
    """What so many more clients get, one after the other; 0: nothing."""
    got = set()
    for _ in range(count):
        try:
            got.add(server.request("GET", "/health").status)
        except GONE:
            got.add(0)
    return got


@pytest.mark.parametrize("days", [10, -10])
def test_d_14_the_clock_jumps(tmp_path: Path, hatchery: Hatchery, days: int) -> None:
    """In the middle of uploads: none expires, no file goes, no permission is asked for anew."""
    with CrashRig(tmp_path, hatchery) as rig:
        server = rig.server
        kept = whole(server)
        begun = [Chunked(server, "clock"), Tus(server, "clock")]
        for upload in begun:
            upload.step()
            upload.step()
        with rig.watch.clock_moved(days * DAY):
            is_served(kept)
            for upload in begun:
                upload.look()
                upload.go()
                assert upload.stored()
            later = [make(server, f"clock {days}") for make in PROTOCOLS]
            for upload in later:
                upload.go()
                assert upload.stored()
            # Begun under the wrong clock, ended under the right one.
            unfinished = [Chunked(server, f"unfinished {days}"), Tus(server, f"unfinished {days}")]
            for upload in unfinished:
                upload.step()
                upload.step()
        for upload in unfinished:
            upload.look()
            upload.go()
        assert all(upload.stored() for upload in (*begun, *later, *unfinished))
        rig.check()


def date_of(server: FileServer) -> str:
    """The date of an answer."""
    return server.request("GET", "/health").headers["date"]


def test_the_clock_of_the_server_does_jump(tmp_path: Path, hatchery: Hatchery) -> None:
    """Else the test above would prove nothing."""
    with CrashRig(tmp_path, hatchery) as rig:
        year = date_of(rig.server).split()[3]
        with rig.watch.clock_moved(3 * 366 * DAY):
            wait_until(lambda: date_of(rig.server).split()[3] == str(int(year) + 3), "it is three years later")
        wait_until(lambda: date_of(rig.server).split()[3] == year, "it is not")


def test_d_14_a_restart_under_another_clock(tmp_path: Path, hatchery: Hatchery) -> None:
    """A day or less either way, as after a battery failed: sessions live as long as they should."""
    with CrashRig(tmp_path, hatchery) as rig:
        kept = whole(rig.server)
        begun = [Chunked(rig.server, "restarted"), Tus(rig.server, "restarted")]
        for upload in begun:
            upload.step()
            upload.step()
        for seconds in (-10 * DAY, DAY // 2):
            rig.server.kill()
            with rig.watch.clock_moved(seconds):
                rig.server.start()
                is_served(kept)
                for upload in begun:
                    upload.look()
                assert [loss for upload in begun for loss in upload.lost()] == []
        rig.server.kill()
        rig.server.start()
        goes_on(*begun)
        is_served(kept)


def test_d_16_a_log_that_cannot_be_written_fails_no_upload(tmp_path: Path, hatchery: Hatchery) -> None:
    settings: Settings = {
        "uploads": {"chunk_size": CHUNK_SIZE},
        "logging": {"file": "/dev/full", "level": "debug"},
    }
    server = HatchedServer(tmp_path / "server", settings, hatchery)
    hatchery.watch.look_at(server.storage)
    server.start()
    uploads = [make(server, "log") for make in PROTOCOLS]
    for upload in uploads:
        upload.go()
        assert upload.stored()
    hatchery.watch.begin()
    is_served(whole(server))
    assert hatchery.watch.seen > len(ALL)
    hatchery.watch.rest()
    server.stop()
