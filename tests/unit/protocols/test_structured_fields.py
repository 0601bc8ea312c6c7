"""Structured fields: what is taken, and that everything else is as good as absent."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.protocols.structured import boolean, dictionary, natural

PARAMETERS = (b";a", b";a=1", b"; a=?0;b=token", b';a="text"')


@pytest.mark.parametrize("parameters", [b"", *PARAMETERS])
def test_booleans(parameters: bytes) -> None:
    assert boolean(b"?1" + parameters) is True
    assert boolean(b"?0" + parameters) is False
    assert boolean(b" ?1" + parameters) is True


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"1",
        b"0",
        b"true",
        b"?2",
        b"?",
        b"?1?",
        b"?1, ?1",
        b'"?1"',
        b"?1;",
        b"?1;A=1",
        b"(?1)",
        b"\xff",
        b"?1 x",
    ],
)
def test_what_is_no_boolean(value: bytes | None) -> None:
    assert boolean(value) is None


@pytest.mark.parametrize("parameters", [b"", *PARAMETERS])
def test_naturals(parameters: bytes) -> None:
    assert natural(b"0" + parameters) == 0
    assert natural(b"007" + parameters) == 7
    assert natural(b"999999999999999" + parameters) == 999_999_999_999_999


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"-1",
        b"+1",
        b"1.0",
        b"1.5",
        b"1e3",
        b"?1",
        b"1000000000000000",
        b"1, 2",
        b"0x10",
        b'"1"',
        b"@1",
        b":AA==:",
    ],
)
def test_what_is_no_natural(value: bytes | None) -> None:
    assert natural(value) is None


def test_minus_zero_is_zero() -> None:
    # RFC 9651 section 3.3.1 allows it.
    assert natural(b"-0") == 0


@given(st.integers(min_value=0, max_value=999_999_999_999_999))
def test_every_natural_is_read(number: int) -> None:
    assert natural(str(number).encode()) == number


@given(st.binary(max_size=60))
def test_nothing_that_is_sent_raises(value: bytes) -> None:
    assert boolean(value) in {True, False, None}
    found = natural(value)
    assert found is None or found >= 0
    members = dictionary(value)
    assert members is None or all(isinstance(key, str) for key in members)


def test_what_is_too_long_is_not_parsed() -> None:
    assert natural(b"1" + b";a" * 4000) is None
    assert boolean(b"?1" + b";a" * 4000) is None
    assert dictionary(b"a=1," * 4000 + b"a=1") is None


@given(
    st.dictionaries(
        st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True),
        st.one_of(st.booleans(), st.integers(-(10**15) + 1, 10**15 - 1), st.binary(max_size=40)),
        min_size=1,
        max_size=6,
    )
)
def test_dictionaries_are_read_as_they_are_written(members: dict[str, bool | int | bytes]) -> None:
    def spelled(value: bool | int | bytes) -> str:
        if isinstance(value, bool):
            return f"=?{int(value)}"
        if isinstance(value, int):
            return f"={value}"
        return f"=:{base64.b64encode(value).decode()}:"

    text = ", ".join(key + spelled(value) for key, value in members.items())
    parsed = dictionary(text.encode())
    assert parsed is not None
    assert {key: item for key, (item, _) in parsed.items()} == members


def test_parts_of_dictionaries() -> None:
    parsed = dictionary(b"a, b=(1 2), c=1;p=2, a=:AQ==:")
    assert parsed is not None
    assert set(parsed) == {"a", "c"}
    assert parsed["a"][0] == b"\x01"
    assert parsed["c"] == (1, {"p": 2})
    assert dictionary(b"") == {}
    assert dictionary(None) is None
    for bad in (b"a=", b"A=1", b"a=1,", b"a=1 b=2", b"=1", b"a=:%:", b"a;;b"):
        assert dictionary(bad) is None


def test_the_parser_is_loaded_for_what_needs_it_only() -> None:
    script = (
        "import sys; from hmac_file_server.protocols.structured import boolean, natural\n"
        "assert boolean(b'?1') and natural(b'123') == 123\n"
        "assert 'http_sf' not in sys.modules\n"
        "assert boolean(b'?1;a') and 'http_sf' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
