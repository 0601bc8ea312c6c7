"""Who the client is behind proxies."""

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hmac_file_server.network import TrustedProxies

OURS = TrustedProxies(("127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32", "unix:"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1:5000", b"203.0.113.7", "203.0.113.7"),
        ("[2001:db8::1]:5000", b"203.0.113.7", "203.0.113.7"),
        ("unix", b"203.0.113.7", "203.0.113.7"),
        # a client that lies: what it wrote stands before what our proxy wrote
        ("127.0.0.1:5000", b"1.2.3.4, 203.0.113.7", "203.0.113.7"),
        ("127.0.0.1:5000", b"1.2.3.4, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("127.0.0.1:5000", b"10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("127.0.0.1:5000", b"[2001:db9::7]", "2001:db9::7"),
        ("127.0.0.1:5000", b"2001:db9::7", "2001:db9::7"),
        ("[::ffff:127.0.0.1]:5000", b"203.0.113.7", "203.0.113.7"),
        # nobody we know: the header is air
        ("198.51.100.1:5000", b"203.0.113.7", "198.51.100.1:5000"),
        ("[fe80::1%eth0]:5000", b"203.0.113.7", "[fe80::1%eth0]:5000"),
        # nonsense stops the reading
        ("127.0.0.1:5000", b"203.0.113.7, unknown", "127.0.0.1:5000"),
        ("127.0.0.1:5000", b"evil\x1b[0m", "127.0.0.1:5000"),
        ("127.0.0.1:5000", b"", "127.0.0.1:5000"),
        ("127.0.0.1:5000", b"1.2.3.4, nonsense, 10.0.0.1", "10.0.0.1"),
        ("127.0.0.1:5000", None, "127.0.0.1:5000"),
    ],
)
def test_the_last_address_that_is_not_ours(peer: str, forwarded: bytes | None, client: str) -> None:
    assert OURS.client(peer, forwarded) == client


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    nobody = TrustedProxies(())
    assert nobody.client("127.0.0.1:5000", b"203.0.113.7") == "127.0.0.1:5000"
    assert nobody.client("unix", b"203.0.113.7") == "unix"


@given(st.binary(max_size=300))
@example(b"fe80::1%\x1b[31mred")
@example(b"fe80::1%eth0, 10.0.0.1")
def test_no_header_raises_or_brings_text_of_the_client_into_the_log(forwarded: bytes) -> None:
    client = OURS.client("127.0.0.1:5000", forwarded)
    if client != "127.0.0.1:5000":
        assert str(ip_address(client)) == client
        assert "%" not in client
