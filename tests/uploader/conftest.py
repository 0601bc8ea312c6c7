"""uploader.js against one server, and what stands between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.server import FileServer
from tests.uploader.tap import Intervention, Tap
from tests.uploader.uploading import NodeUploader

StartTap = Callable[..., Tap]
MakeFile = Callable[[int], Path]


@pytest.fixture
def uploader(tmp_path: Path) -> Iterator[NodeUploader]:
    """Starts uploads; what still runs at the end of the test is ended."""
    client = NodeUploader(tmp_path / "uploader")
    try:
        yield client
    finally:
        client.stop()


@pytest.fixture
def start_tap() -> Iterator[StartTap]:
    """A factory of taps in front of a server."""
    with contextlib.ExitStack() as started:

        def start(
            server: FileServer, *, hold_after: int = 1 << 62, rate: float = 0, intervene: Intervention = lambda _: None
        ) -> Tap:
            tap = Tap(server.port, hold_after=hold_after, rate=rate, intervene=intervene)
            started.callback(tap.close)
            return tap

        yield start


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """A factory of files of random bytes."""

    def make(size: int) -> Path:
        path = tmp_path / f"file-{size}.bin"
        with Path("/dev/urandom").open("rb") as noise:
            path.write_bytes(noise.read(size))
        return path

    return make
