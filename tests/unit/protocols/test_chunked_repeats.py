"""A chunk that is sent again after its upload was published is held against the file."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.uploads.memory_store import MemoryStore

from hmac_file_server.files.contract import StorageFailed, StoragePath
from hmac_file_server.protocols.digests import BodyDigest
from hmac_file_server.protocols.repeat import RepeatedBody
from hmac_file_server.uploads import UploadRefused

PATH = StoragePath("a/b.bin")


@given(
    content=st.binary(min_size=1, max_size=200),
    span=st.tuples(st.integers(0, 199), st.integers(0, 200)),
    cuts=st.sets(st.integers(1, 199), max_size=5),
    flip=st.none() | st.integers(0, 199),
)
def test_only_the_same_bytes_pass(content: bytes, span: tuple[int, int], cuts: set[int], flip: int | None) -> None:
    store = MemoryStore()
    store.add(PATH, content)
    offset = span[0] % len(content)
    body = bytearray(content[offset : offset + span[1]])
    if flip is not None and body:
        body[flip % len(body)] ^= 1
    check = BodyDigest("sha-256", hashlib.sha256(body).digest())
    repeated = RepeatedBody(store, PATH, offset, check)
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    refused = ""
    try:
        for start, stop in itertools.pairwise(edges):
            repeated.write(memoryview(body)[start:stop])
    except UploadRefused as error:
        refused = error.code
    assert refused == ("chunk_differs" if flip is not None and body else "")
    assert refused or check.matches()
    repeated.close()
    repeated.close()
    assert store.idle


def test_bytes_behind_the_end_differ() -> None:
    store = MemoryStore()
    store.add(PATH, b"0123456789")
    repeated = RepeatedBody(store, PATH, 8, None)
    repeated.write(memoryview(b"8"))
    with pytest.raises(UploadRefused, match="Other bytes"):
        repeated.write(memoryview(b"9x"))
    repeated.close()
    assert store.idle


def test_a_file_that_was_deleted_meanwhile_is_taken_at_its_word() -> None:
    """What it was cannot be known any more; the digest of the body is still checked."""
    check = BodyDigest("sha-256", hashlib.sha256(b"abc").digest())
    repeated = RepeatedBody(MemoryStore(), PATH, 0, check)
    repeated.write(memoryview(b"abc"))
    repeated.close()
    assert check.matches()


def test_a_disk_that_fails_is_told() -> None:
    store = MemoryStore()
    store.add(PATH, b"0123456789")
    store.errors["open"] = StorageFailed("no")
    with pytest.raises(StorageFailed):
        RepeatedBody(store, PATH, 0, None)
    del store.errors["open"]
    repeated = RepeatedBody(store, PATH, 0, None)
    store.errors["read"] = StorageFailed("no")
    with pytest.raises(StorageFailed):
        repeated.write(memoryview(b"01"))
    repeated.close()
    assert store.idle
