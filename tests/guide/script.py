"""What the guide's JavaScript class must achieve, unmodified, wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest
from tests.fixtures.content import content
from tests.fixtures.redis import RedisServer
from tests.fixtures.server import FileServer
from tests.guide import printed
from tests.guide.conftest import StartRelay
from tests.guide.servers import StartGuideServer, crash, download, status

MIB = 1 << 20
SIZES = (0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 12 * MIB + 345, 23 * MIB)
THREE_SLICES = 12 * MIB + 345
IN_SLICE_1 = printed.SLICE + printed.SLICE // 2
"""Bytes on the wire at which slice 1 is under way; heads and preflights are a few hundred bytes."""


class Run(Protocol):
    """One upload by the class."""

    def console(self) -> list[str]:
        """What the class has logged so far."""

    def finish(self) -> list[str]:
        """Everything it logged, once `upload()` has ended; AssertionError when it was rejected."""


class Client(Protocol):
    """Somewhere the class runs."""

    def start(self, server: FileServer, file: Path, url: str | None = None) -> Run:
        """Begin to upload the file to the server, through `url` where it is given."""


def session_of(console: Sequence[str]) -> str:
    """The session that the class has logged first."""
    assert console
    first, _, session = console[0].rpartition(" ")
    assert first == "Upload session started:"
    return session


def check_arrival(server: FileServer, console: Sequence[str], file: Path) -> None:
    """The class has logged what it should, and the file is there, whole and once."""
    size = file.stat().st_size
    slices = -(-size // printed.SLICE)
    session = session_of(console)
    assert list(console[1:]) == [f"Chunk {i + 1}/{slices} uploaded" for i in range(slices)] + ["Upload completed!"]
    now = status(server, session)
    assert {key: now[key] for key in ("session_id", "filename", "total_size", "uploaded_bytes", "completed")} == {
        "session_id": session,
        "filename": file.name,
        "total_size": size,
        "uploaded_bytes": size,
        "completed": True,
    }
    assert now["progress"] == 1
    got = download(server, now["url"])
    assert got.status == 200
    assert got.body == file.read_bytes()


class GuideScript:
    """The tests; `client` is a fixture of the module that takes them."""

    @pytest.mark.parametrize("size", SIZES)
    def test_a_file_arrives(self, server: FileServer, client: Client, tmp_path: Path, size: int) -> None:
        """Slices of 5 MiB, where the server announced chunks of 10 MiB."""
        file = _file(tmp_path, f"file of {size}.bin", size)
        before = server.files()
        check_arrival(server, client.start(server, file).finish(), file)
        assert len(server.files() - before) == 1

    def test_a_name_that_a_header_can_just_carry(self, server: FileServer, client: Client, tmp_path: Path) -> None:
        """fetch() sends the characters of a header as Latin-1; others it refuses by itself."""
        file = _file(tmp_path, "Grüße à Zoë.txt", 1000)
        check_arrival(server, client.start(server, file).finish(), file)

    def test_the_connection_is_reset_in_the_middle_of_a_chunk(
        self, server: FileServer, client: Client, start_relay: StartRelay, tmp_path: Path
    ) -> None:
        file = _file(tmp_path, "reset.bin", THREE_SLICES)
        relay = start_relay(server, IN_SLICE_1)
        run = client.start(server, file, relay.url)
        assert relay.held.wait(60)
        before = relay.connections
        relay.reset()
        check_arrival(server, run.finish(), file)
        assert relay.connections > before

    def test_the_server_is_killed_in_the_middle_of_a_chunk(
        self, start_guide_server: StartGuideServer, client: Client, start_relay: StartRelay, tmp_path: Path
    ) -> None:
        server = start_guide_server()
        file = _file(tmp_path, "killed.bin", THREE_SLICES)
        relay = start_relay(server, IN_SLICE_1)
        run = client.start(server, file, relay.url)
        assert relay.held.wait(60)
        session = session_of(run.console())
        crash(server)
        server.start()
        _check_kept(server, session)
        relay.release()
        check_arrival(server, run.finish(), file)
        assert len(server.files()) == 1

    def test_redis_is_stopped_in_the_middle_of_a_chunk(
        self,
        start_guide_server: StartGuideServer,
        redis_server: RedisServer,
        client: Client,
        start_relay: StartRelay,
        tmp_path: Path,
    ) -> None:
        server = start_guide_server(*_with(redis_server))
        file = _file(tmp_path, "redis.bin", THREE_SLICES)
        relay = start_relay(server, IN_SLICE_1)
        run = client.start(server, file, relay.url)
        assert relay.held.wait(60)
        with redis_server.client() as redis:
            assert redis.dbsize() > 0, "the server does not use it"
        redis_server.stop()
        _check_kept(server, session_of(run.console()))
        relay.release()
        check_arrival(server, run.finish(), file)
        # And without Redis from the start.
        other = _file(tmp_path, "without.bin", THREE_SLICES)
        check_arrival(server, client.start(server, other).finish(), other)
        assert len(server.files()) == 2

    def test_redis_is_stopped_and_the_server_killed_in_the_middle_of_a_chunk(
        self,
        start_guide_server: StartGuideServer,
        redis_server: RedisServer,
        client: Client,
        start_relay: StartRelay,
        tmp_path: Path,
    ) -> None:
        server = start_guide_server(*_with(redis_server))
        file = _file(tmp_path, "both.bin", THREE_SLICES)
        relay = start_relay(server, IN_SLICE_1)
        run = client.start(server, file, relay.url)
        assert relay.held.wait(60)
        session = session_of(run.console())
        redis_server.stop()
        crash(server)
        server.start()
        _check_kept(server, session)
        relay.release()
        check_arrival(server, run.finish(), file)
        assert len(server.files()) == 1


def _check_kept(server: FileServer, session: str) -> None:
    """The slice that was acknowledged is still there, and the upload still open."""
    now = status(server, session)
    assert now["completed"] is False
    uploaded = now["uploaded_bytes"]
    assert isinstance(uploaded, int)
    assert printed.SLICE <= uploaded < 2 * printed.SLICE


def _file(folder: Path, name: str, size: int) -> Path:
    file = folder / name
    file.write_bytes(content(size, name))
    return file


def _with(redis: RedisServer) -> tuple[str, str]:
    return "redis.enabled=true", f"redis.url={redis.url}"
