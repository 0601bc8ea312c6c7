"""What clients would rather have, by the weights of Accept and Accept-Encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.protocols.page_negotiation import accepts_gzip, prefers_html, weights

FIREFOX = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROMIUM = (
    b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    b"application/signed-exchange;v=b3;q=0.7"
)
LYNX = b"text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01"
W3M = b"text/html, text/*;q=0.5, image/*, application/*, video/*"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, False),
        (b"", False),
        (b"gzip", True),
        (b"gzip, deflate, br, zstd", True),
        (b"br, GZIP;q=0.001", True),
        (b"x-gzip", True),
        (b"gzip;q=0", False),
        (b"gzip;q=0.000, *", False),
        (b"*", True),
        (b"*;q=0", False),
        (b"identity", False),
        (b"br", False),
        (b"gzip;q=2", False),
        (b"gzip; q = 0.5", True),
        (b",,gzip,,", True),
        (b"gzipped", False),
    ],
)
def test_gzip(field: bytes | None, expected: bool) -> None:
    assert accepts_gzip(field) is expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, False),
        (b"", False),
        (b"*/*", False),
        (b"text/*", False),
        (b"application/json", False),
        (b"application/json, text/plain, */*", False),
        (b"text/html, application/json", False),
        (b"text/html;q=0.9, application/json", False),
        (b"text/html, application/json;q=0.9", True),
        (b"text/html", True),
        (b"TEXT/HTML;charset=utf-8", True),
        (b"text/html;q=0", False),
        (b"text/html;q=0.5, */*;q=0.5", False),
        (b"text/html, */*;q=0.5, application/json", False),
        (b"text/html;level=1;q=0.3, */*;q=0.2", True),
        (FIREFOX, True),
        (CHROMIUM, True),
        (LYNX, True),
        # It takes anything of an application as gladly, so it gets what programs get.
        (W3M, False),
    ],
)
def test_html(field: bytes | None, expected: bool) -> None:
    assert prefers_html(field) is expected


@given(st.binary(max_size=300))
def test_no_field_breaks_it(field: bytes) -> None:
    for name, weight in weights(field).items():
        assert name == name.lower()
        assert 0.0 <= weight <= 1.0
    accepts_gzip(field)
    prefers_html(field)


@given(
    st.dictionaries(
        st.sampled_from([b"text/html", b"application/json", b"*/*", b"text/*", b"gzip", b"*"]),
        st.integers(0, 1000),
    ),
    st.randoms(use_true_random=False),
)
def test_what_is_written_is_read(given_weights: dict[bytes, int], random: object) -> None:
    """Whatever the order, spaces and parameters are."""
    assert hasattr(random, "shuffle")
    items = [name + b" ; q=%d.%03d " % divmod(weight, 1000) for name, weight in given_weights.items()]
    random.shuffle(items)
    assert weights(b" , ".join(items)) == {name: weight / 1000 for name, weight in given_weights.items()}
