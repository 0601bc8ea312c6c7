"""Sources: files and file objects, read exactly, noticed when they change; and their digests."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import tempfile
from pathlib import Path

import blake3
import pytest
from tests.fixtures.content import content

from hmac_file_server.client.digest import SourceDigest, known
from hmac_file_server.client.errors import SourceChanged
from hmac_file_server.client.source import Source

DATA = content(300_000, "source")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "name of it.bin"
    found.write_bytes(DATA)
    return found


def test_a_path(path: Path) -> None:
    for given in (path, str(path)):
        source = Source(given)
        assert (source.name, source.size, source.path) == ("name of it.bin", len(DATA), str(path))
        assert source.fileno is not None
        assert source.read(1000, 2000) == DATA[1000:3000]
        assert source.status is not None
        source.check()
        descriptor = source.fileno
        source.close()
        source.close()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)


@pytest.mark.parametrize("buffering", [0, -1])
def test_an_open_file_is_sent_from_its_descriptor_and_stays_open(path: Path, buffering: int) -> None:
    with path.open("rb", buffering=buffering) as file:
        file.read(10)
        source = Source(file)
        assert source.fileno == file.fileno()
        assert (source.size, source.name, source.path) == (len(DATA), "name of it.bin", None)
        assert source.read(0, 5) == DATA[:5]
        source.close()
        assert not file.closed


def test_what_was_written_but_not_flushed_is_there(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"more")
        source = Source(file)
        assert source.size == len(DATA) + 4
        assert source.read(len(DATA), 4) == b"more"


def test_objects_that_are_no_files(path: Path) -> None:
    memory = Source(io.BytesIO(DATA))
    assert (memory.fileno, memory.status, memory.name, memory.size) == (None, None, "", len(DATA))
    assert memory.read(7, 70_000) == DATA[7:70_007]
    memory.check()
    with gzip.open(path.with_suffix(".gz"), "wb") as packed:
        packed.write(DATA)
    with gzip.open(path.with_suffix(".gz"), "rb") as unpacked:
        source = Source(unpacked)  # type: ignore[arg-type]
        # Its descriptor has other bytes.
        assert source.fileno is None
        assert source.size == len(DATA)
        assert source.read(100, 1000) == DATA[100:1100]
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(b"abc")
        assert Source(spooled).read(0, 3) == b"abc"  # type: ignore[arg-type]


def test_objects_that_give_little_at_a_time() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1000))

    assert Source(Slow(DATA)).read(5, 50_000) == DATA[5:50_005]


@pytest.mark.parametrize("what", ["nothing", "folder", "pipe", "no permission to seek"])
def test_what_cannot_be_read_is_told(tmp_path: Path, what: str) -> None:
    source: object = tmp_path / "nothing"
    opened = []
    if what == "folder":
        source = tmp_path
    elif what == "pipe":
        read, write = os.pipe()
        opened = [os.fdopen(read, "rb"), os.fdopen(write, "wb")]
        source = opened[0]
    elif what == "no permission to seek":

        class Unseekable(io.BytesIO):
            def seek(self, *_: int) -> int:
                raise io.UnsupportedOperation("seek")

        source = Unseekable()
    with pytest.raises(SourceChanged) as failed:
        Source(source)  # type: ignore[arg-type]
    assert failed.value.code == "source_unreadable"
    assert not failed.value.retriable
    for file in opened:
        file.close()


@pytest.mark.parametrize("change", ["longer", "shorter", "written"])
def test_changes_are_noticed(path: Path, change: str) -> None:
    source = Source(path)
    try:
        source.check()
        with path.open("r+b") as file:
            if change == "written":
                file.write(b"x")
            else:
                file.truncate(len(DATA) + (1 if change == "longer" else -1))
        with pytest.raises(SourceChanged) as failed:
            source.check()
        assert failed.value.code == "source_changed"
    finally:
        source.close()


def test_short_reads_are_noticed(path: Path) -> None:
    source = Source(path)
    try:
        os.truncate(path, 1000)
        assert source.read(0, 1000) == DATA[:1000]
        with pytest.raises(SourceChanged, match="shorter"):
            source.read(500, 1000)
    finally:
        source.close()


def test_a_file_that_takes_anothers_place_is_not_looked_at(path: Path) -> None:
    source = Source(path)
    try:
        path.unlink()
        path.write_bytes(b"another")
        source.check()
        assert source.read(0, 10) == DATA[:10]
    finally:
        source.close()


# ---- digests


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_digests_are_taken_in_order_by_whoever_comes(algorithm: str) -> None:
    data = content(9_000_000, "digest")
    expected = blake3.blake3(data).hexdigest() if algorithm == "blake3" else hashlib.sha256(data).hexdigest()

    async def work() -> str:
        digest = SourceDigest(Source(io.BytesIO(data)), algorithm)
        await asyncio.gather(digest.advance(1), digest.advance(8_000_000), digest.advance(5_000_000))
        assert digest.done == 8_000_000
        whole = await asyncio.gather(digest.whole(), digest.whole())
        assert whole[0] == whole[1]
        return whole[0]

    assert asyncio.run(work()) == f"{algorithm}:{expected}"
    assert known(algorithm)
    assert not known("md5")


def test_a_cancelled_digest_takes_no_byte_twice() -> None:
    data = content(9_000_000, "cancelled digest")

    async def work() -> str:
        digest = SourceDigest(Source(io.BytesIO(data)))
        task = asyncio.create_task(digest.advance(9_000_000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await digest.whole()

    assert asyncio.run(work()) == f"blake3:{blake3.blake3(data).hexdigest()}"


def test_a_source_that_fails_fails_its_digest(path: Path) -> None:
    source = Source(path)
    try:
        os.truncate(path, 10)
        with pytest.raises(SourceChanged):
            asyncio.run(SourceDigest(source).whole())
    finally:
        source.close()
