import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.config import sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("8192", 8192),
        ("8192B", 8192),
        ("64b", 64),
        ("1K", 1024),
        ("1KB", 1024),
        ("1kb", 1024),
        ("1KiB", 1024),
        ("10MB", 10 * 1024**2),
        ("10 MB", 10 * 1024**2),
        (" 10mib ", 10 * 1024**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("1.5GB", 3 * 1024**3 // 2),
        ("2TB", 2 * 1024**4),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_what_is_a_size(text: str, size: int) -> None:
    assert sizes.parse(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "MB",
        "-1",
        "+1",
        "1e3",
        "0x10",
        "1_000",
        "1,5GB",
        "1.5",
        "1.5B",
        "10 M B",
        "10PB",
        "10MBs",
        "adaptive",
        "١MB",
        "\x0b1 MB\x0b2",
        "9223372036854775808",
        "9999999999999999999999",
        "9000000TB",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        sizes.parse(text)


@given(st.integers(0, sizes.LARGEST))
def test_shown_sizes_are_read_back(size: int) -> None:
    assert sizes.parse(sizes.show(size)) == size


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        size = sizes.parse(text)
    except ValueError:
        return
    assert 0 <= size <= sizes.LARGEST


def test_shown_in_the_largest_exact_unit() -> None:
    assert [sizes.show(n) for n in (0, 1, 1000, 1024, 1536, 10 * 1024**2, 1024**3, 1024**4)] == [
        "0B",
        "1B",
        "1000B",
        "1KB",
        "1536B",
        "10MB",
        "1GB",
        "1TB",
    ]
