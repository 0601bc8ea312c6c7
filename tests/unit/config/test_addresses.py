import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.config import addresses
from hmac_file_server.config.addresses import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:80", Address("localhost", 80)),
        ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
        ("*:8080", Address("0.0.0.0", 8080)),
        ("[::]:8080", Address("::", 8080)),
        ("[::1]:0", Address("::1", 0)),
        ("[fe80::1%eth0]:443", Address("fe80::1%eth0", 443)),
        ("8080", Address("127.0.0.1", 8080)),
        (":8080", Address("127.0.0.1", 8080)),
        ("unix:/run/a b.sock", Address("", 0, "/run/a b.sock")),
    ],
)
def test_what_is_an_address(text: str, address: Address) -> None:
    assert addresses.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:8o80",
        "127.0.0.1:٨٠",
        "::1:8080",
        "[::1:8080",
        "[127.0.0.1]:80",
        "[zz::]:80",
        "a b:80",
        "http://127.0.0.1:80",
        "unix:run.sock",
        "unix:",
        "unix:/" + "x" * 200,
        "unix:/a\0b",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        addresses.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_that_is_read_back_or_a_value_error(text: str) -> None:
    try:
        address = addresses.parse(text)
    except ValueError:
        return
    assert addresses.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "url", "loopback"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("127.9.9.9:1", "http://127.9.9.9:1", True),
        ("localhost:1", "http://localhost:1", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("0.0.0.0:8080", "http://127.0.0.1:8080", False),
        ("[::]:8080", "http://[::1]:8080", False),
        ("upload.example.org:80", "http://upload.example.org:80", False),
        ("unix:/run/x.sock", "", True),
    ],
)
def test_its_url_and_who_reaches_it(text: str, url: str, *, loopback: bool) -> None:
    address = addresses.parse(text)
    assert (address.url, address.loopback) == (url, loopback)


@pytest.mark.parametrize(("text", "only"), [("8080", True), (":8080", True), ("a:8080", False), ("", False)])
def test_a_port_alone(text: str, *, only: bool) -> None:
    assert addresses.is_port_only(text) is only
