"""Keys: none, empty and short ones are refused; MACs are HMAC-SHA256; nothing prints a secret."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.auth import Key, KeyRefused, KeyRing
from hmac_file_server.auth.keys import SHORTEST_KEY, key_id


@pytest.mark.parametrize(
    ("secrets", "code"),
    [
        ([], "key_missing"),
        ([b""], "key_empty"),
        ([b"a" * 32, b""], "key_empty"),
        ([b"a" * (SHORTEST_KEY - 1)], "key_short"),
        ([b"a" * 32, b"b"], "key_short"),
        ([b"a" * 32, b"a" * 32], "key_repeated"),
    ],
)
def test_unusable_secrets_are_refused(secrets: list[bytes], code: str) -> None:
    with pytest.raises(KeyRefused) as refusal:
        KeyRing(secrets)
    assert refusal.value.code == code
    assert "aaaa" not in str(refusal.value)


def test_an_empty_secret_is_refused_even_where_short_ones_are_allowed() -> None:
    with pytest.raises(KeyRefused) as refusal:
        KeyRing([b""], shortest=0)
    assert refusal.value.code == "key_empty"


def test_the_first_key_signs_and_all_are_found() -> None:
    ring = KeyRing([b"n" * 32, b"o" * 32])
    assert ring.signing.secret == b"n" * 32
    assert [key.secret for key in ring] == [b"n" * 32, b"o" * 32]
    assert len(ring) == 2
    assert ring.find(key_id(b"o" * 32)) is ring.keys[1]
    assert ring.find("00000000") is None


def test_no_representation_shows_a_secret() -> None:
    ring = KeyRing([b"correct horse battery"])
    for text in (repr(ring), str(ring), repr(ring.signing), str(ring.signing), f"{ring.signing}"):
        assert "horse" not in text
        assert ring.signing.id in text


@given(secret=st.binary(min_size=1, max_size=200), message=st.binary(max_size=300))
def test_macs_equal_the_standard_library(secret: bytes, message: bytes) -> None:
    key = Key(secret)
    assert key.mac(message) == hmac.digest(secret, message, "sha256")
    assert key.mac(message) == hmac.digest(secret, message, "sha256"), "the keyed states must not be used up"


@given(secret=st.binary(min_size=1, max_size=80))
def test_key_ids_are_eight_hex_digits_and_no_plain_hash(secret: bytes) -> None:
    identity = key_id(secret)
    assert len(identity) == 8
    assert int(identity, 16) >= 0
    assert identity != hashlib.sha256(secret).hexdigest()[:8]
