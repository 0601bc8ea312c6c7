"""Digests of whole files: what is announced and wanted, and that they are computed one at a time."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocols.exchanges import request
from tests.unit.uploads.memory_store import MemoryStore

from hmac_file_server.files.contract import Metadata, StorageError, StorageFailed, StoragePath
from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols.representation import Digest, Digests, Source, announced, stored, wanted

BODY = b"a body that is hashed" * 100_000
NO_META = Metadata()


def field(algorithm: str, value: bytes) -> bytes:
    return f"{algorithm}=:{base64.b64encode(value).decode()}:".encode()


def says(value: bytes) -> Digest | None:
    return announced(request("PUT", "/a", repr_digest=value))


def test_announced_digests() -> None:
    assert announced(request("PUT", "/a")) is None
    short, long = hashlib.sha256(BODY).digest(), hashlib.sha512(BODY).digest()
    assert says(field("sha-256", short)) == Digest("sha-256", short)
    assert says(field("sha-512", long)) == Digest("sha-512", long)
    assert says(field("md5", b"x" * 16) + b", " + field("sha-512", long)) == Digest("sha-512", long)
    assert says(field("md5", b"x" * 16)) is None
    assert Digest("sha-256", short).field == b"Repr-Digest: " + field("sha-256", short) + b"\r\n"


@pytest.mark.parametrize(
    "value",
    [b"sha-256", b"sha-256=abc", b"sha-256=:AA==:", b"sha-256=:%:", b"=", b"sha-512=" + b":" + b"A" * 44 + b":"],
)
def test_malformed_digests_are_refused(value: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        says(value)
    assert refused.value.code == "bad_digest"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"sha-256=1", "sha-256"),
        (b"sha-512=1", "sha-512"),
        (b"sha-256=1, sha-512=10", "sha-512"),
        (b"sha-256=10, sha-512=10", "sha-256"),
        (b"sha-256=0", None),
        (b"md5=10, blake3=10", None),
        (b"sha-256", None),
        (b"sha-256=11", None),
        (b"sha-256=-1", None),
        (b"sha-256=1,", None),
        (b"", None),
    ],
)
def test_wanted_digests(value: bytes, expected: str | None) -> None:
    assert wanted(request("PUT", "/a", want_repr_digest=value)) == expected


@given(st.binary(max_size=60))
def test_no_field_breaks_anything(value: bytes) -> None:
    assert wanted(request("PUT", "/a", want_repr_digest=value)) in {None, "sha-256", "sha-512"}
    with contextlib.suppress(HttpError):
        found = says(value)
        assert found is None or found.algorithm in {"sha-256", "sha-512"}


class Bench:
    """Workers that work when they are told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.closed = 0
        self.opened = 0
        self.digests = Digests(self.jobs.append)
        self.results: list[bytes | StorageError] = []

    def source(self, data: bytes, length: int | None = None) -> Callable[[], Source]:
        def close() -> None:
            self.closed += 1

        def opened() -> Source:
            self.opened += 1
            read = lambda offset, count: data[offset : offset + count]  # noqa: E731 - short
            return Source(read, len(data) if length is None else length, close)

        return opened

    def work(self) -> None:
        self.jobs.pop(0)()


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, len(BODY)])
def test_digests_are_right(algorithm: str, size: int) -> None:
    bench = Bench()
    bench.digests.compute(algorithm, bench.source(BODY[:size]), bench.results.append)
    bench.work()
    assert bench.results == [hashlib.new(algorithm.replace("-", ""), BODY[:size]).digest()]
    assert bench.closed == 1


def test_one_at_a_time_and_in_order() -> None:
    bench = Bench()
    for letter in (b"a", b"b", b"c"):
        bench.digests.compute("sha-256", bench.source(letter), bench.results.append)
    for done in (1, 2, 3):
        assert (len(bench.jobs), bench.opened) == (1, done - 1)
        bench.work()
        assert bench.results == [hashlib.sha256(letter).digest() for letter in (b"a", b"b", b"c")[:done]]
    assert not bench.jobs
    bench.digests.compute("sha-256", bench.source(b"d"), bench.results.append)
    assert len(bench.jobs) == 1


def test_a_file_that_is_shorter_is_a_failure_and_the_next_is_computed() -> None:
    bench = Bench()

    def gone() -> Source:
        raise StorageFailed("gone")

    bench.digests.compute("sha-256", bench.source(b"abc", length=4), bench.results.append)
    bench.digests.compute("sha-256", gone, bench.results.append)
    bench.digests.compute("sha-256", bench.source(b"abc"), bench.results.append)
    while bench.jobs:
        bench.work()
    short, missing, right = bench.results
    assert isinstance(short, StorageFailed)
    assert isinstance(missing, StorageFailed)
    assert right == hashlib.sha256(b"abc").digest()
    assert bench.closed == 2


def test_one_that_fails_does_not_hold_up_the_next() -> None:
    bench = Bench()

    def broken(_result: bytes | StorageError) -> None:
        raise ValueError("a defect")

    bench.digests.compute("sha-256", bench.source(b"abc"), broken)
    bench.digests.compute("sha-256", bench.source(b"abc"), bench.results.append)
    with pytest.raises(ValueError, match="a defect"):
        bench.work()
    bench.work()
    assert bench.results == [hashlib.sha256(b"abc").digest()]


def test_what_is_known_is_remembered_up_to_a_point() -> None:
    digests = Digests(lambda _job: None)
    assert digests.known("1_a", "sha-256") is None
    digests.remember("1_a", Digest("sha-256", b"x"))
    assert digests.known("1_a", "sha-256") == Digest("sha-256", b"x")
    assert digests.known("1_a", "sha-512") is None
    for number in range(1024):
        digests.remember(f"2_{number}", Digest("sha-256", b"y"))
    assert digests.known("1_a", "sha-256") is None
    assert digests.known("2_1023", "sha-256") == Digest("sha-256", b"y")


def test_a_published_file_is_a_source() -> None:
    store = MemoryStore()
    with pytest.raises(StorageFailed):
        stored(store, StoragePath("a/b"))
    store.put(StoragePath("a/b"), b"content", NO_META)
    source = stored(store, StoragePath("a/b"))
    assert source.length == 7
    assert source.read(3, 100) == b"tent"
    source.close()
