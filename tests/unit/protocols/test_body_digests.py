"""Content-Digest (RFC 9530) and Digest (RFC 3230): what is one, what counts, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocols.exchanges import request

from hmac_file_server.http.errors import HttpError
from hmac_file_server.protocols.digests import BodyDigest, body_digest

BODY = b"the body"
HASHES = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


def encoded(algorithm: str, body: bytes = BODY) -> str:
    return base64.b64encode(HASHES[algorithm](body).digest()).decode()


def parse(**fields: str) -> BodyDigest | None:
    """`content_digest` and `digest` as a request has them."""
    return body_digest(
        request("PUT", "/", b"", None, **{name: value.encode("latin-1") for name, value in fields.items()})
    )


def fits(found: BodyDigest | None, body: bytes = BODY) -> bool:
    assert found is not None
    found.update(memoryview(body))
    return found.matches()


@pytest.mark.parametrize("algorithm", HASHES)
@pytest.mark.parametrize(
    "form",
    [
        "{name}=:{value}:",
        "  {name}=:{value}:\t",
        "{name}=:{value}:;q=1",
        "{name}=:{value}:;a;b=?1",
        "unixsum=:MTI=:, {name}=:{value}:",
        "{name}=:{value}:,crc32c=:AAAAAA==:",
        "md5=::, {name}=:{value}:",
    ],
)
def test_content_digest(algorithm: str, form: str) -> None:
    assert fits(parse(content_digest=form.format(name=algorithm, value=encoded(algorithm))))
    assert not fits(parse(content_digest=form.format(name=algorithm, value=encoded(algorithm, b"other"))))


@pytest.mark.parametrize("algorithm", HASHES)
@pytest.mark.parametrize("spelled", [str.upper, str.lower, str.title])
def test_digest_names_are_in_any_case(algorithm: str, spelled: object) -> None:
    """RFC 3230 section 4.1.1."""
    assert callable(spelled)
    name = spelled(algorithm)
    assert fits(parse(digest=f"{name}={encoded(algorithm)}"))
    assert fits(parse(digest=f"UNIXsum=30637, {name}={encoded(algorithm)}"))


def test_padding_may_be_missing() -> None:
    """RFC 9651 section 4.2.7."""
    for algorithm in HASHES:
        assert fits(parse(content_digest=f"{algorithm}=:{encoded(algorithm).rstrip('=')}:"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content_digest": "unixsum=:MTI=:"},
        {"content_digest": "md5=:MTIzNDU2Nzg5MDEyMzQ1Ng==:, *x=:AA==:"},
        {"digest": "MD5=HUXZLQLMuI/KZ5KDcJPcOA==,UNIXsum=30637"},
        {"repr_digest": "sha-256=:AAAA:"},
    ],
)
def test_what_is_not_known_says_nothing(fields: dict[str, str]) -> None:
    assert parse(**fields) is None


def test_of_several_one_is_checked() -> None:
    """Both hashes of one body say the same; of one name that stands twice the last counts (RFC 9651)."""
    for names in (("sha-256", "sha-512"), ("sha-512", "sha-256")):
        both = ", ".join(f"{name}=:{encoded(name)}:" for name in names)
        assert fits(parse(content_digest=both))
        assert not fits(parse(content_digest=both), b"other")
    right, wrong = encoded("sha-256"), encoded("sha-256", b"other")
    assert fits(parse(content_digest=f"sha-256=:{wrong}:, sha-256=:{right}:"))


def test_the_newer_field_counts() -> None:
    right, wrong = encoded("sha-256"), encoded("sha-256", b"other")
    assert fits(parse(content_digest=f"sha-256=:{right}:", digest=f"sha-256={wrong}"))
    assert not fits(parse(content_digest=f"sha-256=:{wrong}:", digest=f"sha-256={right}"))
    # Where it says nothing, the older one does.
    assert fits(parse(content_digest="unixsum=:MTI=:", digest=f"sha-256={right}"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "sha-256",
        "sha-256=",
        "sha-256=x",
        "sha-256=::",
        "sha-256=:x:",
        "sha-256=:!!!!:",
        "SHA-256=:{value}:",
        "sha-256={value}",
        "sha-256=:{value}",
        "sha-256={value}:",
        "sha-256=:{value}:,",
        ",sha-256=:{value}:",
        "sha-256=:{value}:; q, x",
        "sha-256=:{value}:junk",
        "sha-256 =:{value}:",
        "sha-256= :{value}:",
        "sha-256=: {value}:",
        "sha-256=:{value}{value}:",
        "sha-256=:{short}:",
        "sha-512=:{value}:",
        "sha-256=:{value}:\xe9",
        "unixsum=1, sha-256=:{value}:",
        "sha-256=:{value}:;" + "x" * 1024,
    ],
)
def test_malformed(value: str) -> None:
    right = encoded("sha-256")
    with pytest.raises(HttpError) as refused:
        parse(content_digest=value.format(value=right, short=right[:40]))
    assert (refused.value.status, refused.value.code) == (400, "bad_digest")


@pytest.mark.parametrize("value", ["", "SHA-256", "SHA-256=", "SHA-256=:{value}:", "SHA-256=AAAA", "={value}", "x y=1"])
def test_malformed_digest(value: str) -> None:
    with pytest.raises(HttpError, match="malformed") as refused:
        parse(digest=value.format(value=encoded("sha-256")))
    assert refused.value.code == "bad_digest"


@given(value=st.one_of(st.text(st.characters(max_codepoint=255), max_size=80), st.from_regex(r"sha-256=:.{0,60}:?")))
def test_any_value_is_a_digest_or_refused(value: str) -> None:
    for name in ("content_digest", "digest"):
        with contextlib.suppress(HttpError, UnicodeEncodeError):
            found = parse(**{name: value})
            assert found is None or isinstance(found.matches(), bool)


@given(pieces=st.lists(st.binary(max_size=50), max_size=6), algorithm=st.sampled_from(sorted(HASHES)))
def test_a_body_in_any_pieces(pieces: list[bytes], algorithm: str) -> None:
    body = b"".join(pieces)
    found = parse(content_digest=f"{algorithm}=:{encoded(algorithm, body)}:")
    assert found is not None
    for piece in pieces:
        found.update(memoryview(piece))
    assert found.matches()
    found.update(memoryview(b"x"))
    assert not found.matches()
