"""File names of uploads in chunks: what is meant, whatever a client can send, and chunks that are missing."""

from __future__ import annotations

import itertools
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.protocols.chunked import file_name, missing_chunks

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(name=TEXT)
def test_utf8_is_taken_as_it_is(name: str) -> None:
    """Whatever comes raw with a character beyond ASCII was not escaped by its client."""
    if not name.isascii() or "%" not in name:
        assert file_name(name.encode()) == name


@given(name=TEXT)
def test_escaped_names(name: str) -> None:
    """encodeURIComponent, and a client that escapes everything."""
    assert file_name(quote(name, safe="-_.!~*'()").encode()) == name
    assert file_name("".join(f"%{byte:02x}" for byte in name.encode()).encode()) == name


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b"100%.txt", "100%.txt"),
        (b"50%25.txt", "50%.txt"),
        (b"%zz%", "%zz%"),
        # Escaped Latin-1 is not UTF-8: taken as it is spelled.
        (b"caf%E9.txt", "caf%E9.txt"),
        (b"caf\xe9.txt", "caf\u00e9.txt"),
        (b"caf\xe9%20.txt", "caf\u00e9%20.txt"),
        ("na\u00efve %41.txt".encode(), "na\u00efve %41.txt"),
        (b"a+b.txt", "a+b.txt"),
        (b"%00.txt", "\0.txt"),
        (b"%2e%2e%2fetc", "../etc"),
    ],
)
def test_odd_names(sent: bytes, meant: str) -> None:
    assert file_name(sent) == meant


@given(sent=st.binary(min_size=1, max_size=60))
def test_any_bytes_are_some_name(sent: bytes) -> None:
    name = file_name(sent)
    assert name
    assert unicodedata.normalize("NFC", name).encode("utf-8")


@given(
    size=st.integers(1, 9),
    length=st.integers(0, 60),
    cuts=st.sets(st.integers(0, 60), max_size=14),
)
def test_missing_chunks_against_bytes(size: int, length: int, cuts: set[int]) -> None:
    """A chunk is missing when a byte of it is; the runs are in order, apart, and not empty."""
    edges = sorted(cut for cut in cuts if cut <= length)
    ranges = tuple(zip(edges[::2], edges[1::2], strict=False))
    there = {byte for start, stop in ranges for byte in range(start, stop)}
    chunks = -(-length // size)
    expected = {
        number for number in range(chunks) if not set(range(number * size, min(length, (number + 1) * size))) <= there
    }
    runs = missing_chunks(ranges, size, length)
    assert {number for first, last in runs for number in range(first, last + 1)} == expected
    assert all(first <= last for first, last in runs)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(runs))


def test_missing_chunks_of_a_large_file_are_few_runs() -> None:
    tib = 1 << 40
    assert missing_chunks((), 1 << 20, tib) == [(0, (1 << 20) - 1)]
    assert missing_chunks(((0, tib),), 1 << 20, tib) == []
    assert missing_chunks(((1, tib),), 1 << 20, tib) == [(0, 0)]
    assert missing_chunks(((0, tib - 1),), 1 << 20, tib) == [((1 << 20) - 1, (1 << 20) - 1)]
    assert missing_chunks((), 5, 0) == []
