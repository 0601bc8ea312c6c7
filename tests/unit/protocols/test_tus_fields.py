"""Upload-Metadata and Upload-Concat: what is read in them, and what is refused."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols.tus import parse_concat, parse_metadata

ID = "1795386961_7u3infms7nxslonh44ovdpz5ji"
OTHER = "1795386962_a"
KEYS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-./:;<=>?@[]^_`{|}~\"()\\", min_size=1, max_size=12)


@given(st.dictionaries(KEYS, st.binary(max_size=40), max_size=6), st.booleans(), st.sampled_from(["", " ", "\t"]))
def test_metadata_come_back(values: dict[str, bytes], bare: bool, space: str) -> None:
    pairs = [
        key if not value and bare else f"{key} {base64.b64encode(value).decode()}" for key, value in values.items()
    ]
    assert parse_metadata(f",{space}".join(pairs).encode()) == values


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        (b"", {}),
        (b"a", {"a": b""}),
        (b"a,b,c", {"a": b"", "b": b"", "c": b""}),
        (b"filename d29ybGQ=,x", {"filename": b"world", "x": b""}),
    ],
)
def test_plain_metadata(text: bytes, metadata: dict[str, bytes]) -> None:
    assert parse_metadata(text) == metadata


@pytest.mark.parametrize(
    "text",
    [
        b",",
        b"a,",
        b",a",
        b"a,,b",
        b"a,a",
        b"a YQ==,b,a",
        b"a YQ",
        b"a YQ= =",
        b"a YQ== YQ==",
        b"a -_==",
        b"a  YQ==",
        b"\xc3\xa9 YQ==",
        b"a\x7f YQ==",
        b"a\tb YQ==",
    ],
)
def test_metadata_that_are_none(text: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        parse_metadata(text)
    assert (refused.value.status, refused.value.code) == (400, "bad_field")


@given(st.binary(max_size=60))
def test_any_metadata_are_read_or_refused(text: bytes) -> None:
    try:
        found = parse_metadata(text)
    except HttpError:
        found = {}
    assert all(key.isascii() and " " not in key and "," not in key for key in found)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"partial", ()),
        (f"final;/tus/{ID}".encode(), (ID,)),
        (f"final;/tus/{ID} https://files.example.org/tus/{OTHER}".encode(), (ID, OTHER)),
        (f"final;  /tus/{ID}  /tus/{ID} ".encode(), (ID, ID)),
        # A proxy may serve this under another path; relative to the collection, as Location has it.
        (f"final;https://example.org/files/tus/{ID}?x=y#z http://[::1]:80/tus/{ID}/".encode(), (ID, ID)),
        (f"final;tus/{ID} {ID}".encode(), (ID, ID)),
    ],
)
def test_parts(text: bytes, parts: tuple[str, ...]) -> None:
    assert parse_concat(text) == (text.decode(), parts)


def test_no_parts() -> None:
    assert parse_concat(None) == ("", ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Partial",
        "partial;",
        "final",
        "final;",
        "final; ",
        "final;/tus/",
        "final;/tus/x",
        f"final;/tusk/{ID}",
        f"final;/tus/{ID}%2f",
        f"final;/tus/{ID} /tus/../{ID}x/",
        f"final;/tus/{ID},/tus/{ID}",
        f"final;http://[/tus/{ID}",
        f"whole;/tus/{ID}",
        f"final;/tus/{ID}\u00e9",
    ],
)
def test_concatenations_that_are_none(text: str) -> None:
    with pytest.raises(HttpError) as refused:
        parse_concat(text.encode())
    assert (refused.value.status, refused.value.code) == (400, "bad_field")
