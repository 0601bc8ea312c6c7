"""D-16 for uploads in chunks: the disk fills in the middle of one, by somebody else's doing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.chunks import MIB, Upload, code, covers, created, drafts, start
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, Settings

pytestmark = pytest.mark.server

CHUNK = MIB
SIZE = 6 * MIB + 321


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small file system by its kind: "tmpfs", or "ext4" on a loop device."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    places: list[Path] = []

    def mount(kind: str) -> Path:
        place = tmp_path / f"mounted-{len(places)}"
        place.mkdir()
        if kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)]
        else:
            image = tmp_path / "image"
            with image.open("wb") as file:
                file.truncate(48 * MIB)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
            command = ["mount", "-o", "loop", str(image), str(place)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no mount here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


class SmallServer(FileServer):
    """One that is started on a full disk, too: whatever it says of itself."""

    def _ready(self) -> bool:
        try:
            return self.request("GET", "/ready").status in {200, 503}
        except OSError:
            return False


@pytest.fixture(params=["tmpfs", "ext4"])
def small(
    request: pytest.FixtureRequest, mounted: Callable[[str], Path], tmp_path: Path
) -> Iterator[tuple[FileServer, Path]]:
    """A server on a small disk, and the disk."""
    place = mounted(request.param)
    settings: Settings = {
        "server": {"storage_path": str(place / "files"), "processes": 2},
        "uploads": {"chunk_size": "1MB"},
    }
    server = SmallServer(tmp_path / "server", settings)
    server.start()
    yield server, place
    server.stop()


@contextlib.contextmanager
def occupied(place: Path) -> Iterator[None]:
    """Somebody else takes all the space there is, and gives it back."""
    other = place / "somebody else"
    with other.open("wb", buffering=0) as taken:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    taken.write(bytes(size))
    try:
        yield
    finally:
        other.unlink()


def refused(upload: Upload, index: int) -> None:
    """A chunk for which there is no space."""
    answer = upload.put(index)
    assert code(answer) == (507, "storage_full"), answer.body


def test_d_16_the_disk_fills_in_the_middle(small: tuple[FileServer, Path]) -> None:
    """507, what was there stays, and the upload goes on when there is space again."""
    server, place = small
    upload = start(server, content(SIZE, "d-16"))
    for index in (0, 4):
        assert upload.put(index).status == 200
    told = upload.received()
    with occupied(place):
        for index in (1, 2, 1):
            refused(upload, index)
        status = upload.status()
        assert status["completed"] is False
        assert covers(upload.received(), told)
        assert code(created(server, SIZE)) == (507, "storage_full")
        # Bytes that are there can be sent again all the same.
        assert upload.put(0).status == 200
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


def test_d_16_a_connection_that_is_sending_when_the_disk_fills(small: tuple[FileServer, Path]) -> None:
    """Half a chunk was written before: it is told as far as it is durable, and never more."""
    server, place = small
    upload = start(server, content(SIZE, "d-16 sending"))
    with upload.begin(0, CHUNK // 2) as wire:
        upload.await_received((0, CHUNK // 2))
        with occupied(place):
            wire.send(upload.chunk(0)[CHUNK // 2 :])
            answer = wire.answer()
            assert code(answer) == (507, "storage_full"), answer.body
            assert covers(upload.received(), [(0, CHUNK // 2)])
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


def test_d_16_the_server_restarts_on_a_full_disk(small: tuple[FileServer, Path]) -> None:
    """It serves what is there, tells what was received, and takes more once it can."""
    server, place = small
    upload = start(server, content(SIZE, "d-16 restart"))
    whole = start(server, content(MIB + 1, "d-16 whole"), name="whole.bin")
    whole.finish()
    assert upload.put(3).status == 200
    with occupied(place):
        refused(upload, 1)
        server.stop()
        server.start()
        # It is not for a load balancer to choose, but there for those who come.
        assert server.request("GET", "/ready").status == 503
        assert covers(upload.received(), [(3 * MIB, 4 * MIB)])
        assert whole.stored() == whole.body
        # There is not even space to write down that it is served again.
        assert code(upload.put(2)) in {(507, "storage_full"), (503, "sessions_unavailable")}
    assert server.request("GET", "/ready").status == 200
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body
    assert whole.stored() == whole.body
    wait_until(lambda: drafts(FileServer(place)) == [], "no draft is left")
