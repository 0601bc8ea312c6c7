"""The query: precedence, and everything that is malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.auth.heads import NOW, SECRET, Head, gate, granted, put, refused

from hmac_file_server.auth import Operation, signing
from hmac_file_server.auth.query import parse
from hmac_file_server.auth.refusals import Malformed

PATH = "/upload/u1/a.txt"
V1 = signing.v1(SECRET, "u1/a.txt", 5)
V2 = signing.v2(SECRET, "u1/a.txt", 5, "application/octet-stream")
EXPIRES = int(NOW) + 60
V3 = signing.v3(SECRET, "PUT", PATH, EXPIRES)
BAD = "0" * 64


@pytest.mark.parametrize(
    ("query", "scheme"),
    [
        (f"v={V1}&v2={V2}", "v2"),
        (f"v2={V2}&v={V1}", "v2"),
        (f"v={BAD}&v2={V2}", "v2"),
        (f"v={BAD}&v2={V2}&token={BAD}&v3={BAD}&expires=1", "v2"),
        (f"v={V1}&token={V2}", "token"),
        (f"token={V2}&v3={BAD}", "token"),
        (f"v={V1}&v3={BAD}&expires=1", "v1"),
        (f"v3={V3}&expires={EXPIRES}", "v3"),
        (f"expires={EXPIRES}&v3={V3}", "v3"),
        (f"v={V1}&session_id=1&resume_allowed=true&x", "v1"),
        (f"a=1&a=2&v={V1}", "v1"),
        (f"v={V1}&expires=1", "v1"),
    ],
)
def test_the_highest_version_alone_decides(query: str, scheme: str) -> None:
    assert granted(gate().authorise(put(PATH, query), Operation.PUT)).scheme == scheme


@pytest.mark.parametrize(
    "query",
    [f"v={V1}&v2={BAD}", f"v2={BAD}&v={V1}", f"v={V1}&token={BAD}", f"v2={BAD}&token={V2}", f"token={BAD}&v={V1}"],
)
def test_a_right_lower_version_does_not_save_a_wrong_higher_one(query: str) -> None:
    refused(gate().authorise(put(PATH, query), Operation.PUT), "bad_signature")


def test_the_highest_version_is_the_highest_that_is_enabled() -> None:
    judge = gate(schemes=("v1",))
    assert granted(judge.authorise(put(PATH, f"v={V1}&v2={V2}"), Operation.PUT)).scheme == "v1"
    refused(judge.authorise(put(PATH, f"v2={V2}"), Operation.PUT), "scheme_disabled")


MALFORMED = [
    f"v={V1}&v={V1}",
    f"v={V1}&v={BAD}",
    f"v2={V2}&v2={V2}",
    f"v3={V3}&expires={EXPIRES}&expires={EXPIRES}",
    "v=",
    "v",
    "v2=",
    "token",
    f"v={V1}&v2=",
    f"v={V1};x=1",
    f"v={V1};v2={V2}",
    f"v={V1}&",
    f"&v={V1}",
    f"a=1&&v={V1}",
    f"V={V1}",
    f"V2={V2}",
    f"%76={V1}",
    f"v%3D{V1}",
    f"v%3d{V1}",
    f"Token={V2}",
    "v=" + "0" * 63,
    "v=" + "0" * 65,
    "v=" + "g" * 64,
    "v=0x" + "0" * 62,
    "v=" + "0" * 62 + "%3",
    "v=+" + "0" * 63,
    "v=" + "0 " * 32,
    "v=" + "\uff10" * 64,
    f"v3={V3}",
    f"v3={V3}&expires=",
    f"v3={V3}&expires=0{EXPIRES}",
    f"v3={V3}&expires=+{EXPIRES}",
    f"v3={V3}&expires=-1",
    f"v3={V3}&expires={EXPIRES}.0",
    f"v3={V3}&expires=1_7",
    f"v3={V3}&expires= {EXPIRES}",
    f"v3={V3}&expires=" + "9" * 20,
    f"v3={V3}&expires=0x10",
    f"v3={V3}&expires=1e9",
    f"v3={V3}&expires=\u0661\u0667",
    f"v3={V3}&expires=\uff11",
    "&".join(f"a{n}=1" for n in range(40)) + f"&v={V1}",
    "ticket=",
]


@pytest.mark.parametrize("query", MALFORMED)
def test_malformed(query: str) -> None:
    refusal = refused(gate().authorise(put(PATH, query), Operation.PUT), "malformed_credentials", "malformed")
    assert (refusal.status, refusal.challenge) == (403, None)


def test_the_short_way_and_the_long_way_agree() -> None:
    # A query of exactly 66 bytes that begins with v= takes a short cut past the parser.
    for tail in ("&v2=" + "0" * 60, ";" + "0" * 63, "%" + "0" * 63, "&" + "0" * 63):
        assert len(tail) == 64
        refused(gate().authorise(put(PATH, "v=" + tail), Operation.PUT), "malformed_credentials")
    granted(gate().authorise(put(PATH, f"v={V1}"), Operation.PUT))
    granted(gate().authorise(put(PATH, f"v={V1}&a=1"), Operation.PUT))
    refused(gate(schemes=("v2",)).authorise(put(PATH, f"v={V1}"), Operation.PUT), "scheme_disabled")


def test_a_path_that_is_no_unicode_text_is_refused() -> None:
    for query in (f"v={V1}", f"v2={V2}", f"v3={V3}&expires={EXPIRES}"):
        refused(gate().authorise(put("/upload/\udcff", query), Operation.PUT), "malformed_credentials")
    head = Head("POST", "/\udcff", b"", 5, {b"x-signature": BAD.encode()})
    refused(gate().authorise(head, Operation.UPLOAD), "malformed_credentials")


FRAGMENTS = st.sampled_from(
    [
        b"v",
        b"v2",
        b"v3",
        b"token",
        b"ticket",
        b"expires",
        b"=",
        b"&",
        b";",
        b"%",
        b"%3d",
        b"\xff",
        b"\0",
        V1.encode(),
        b"1",
    ]
)


@given(query=st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=20).map(b"".join)))
def test_no_query_raises_or_permits(query: bytes) -> None:
    for method, operation in (("PUT", Operation.PUT), ("DELETE", Operation.DELETE), ("GET", Operation.DOWNLOAD)):
        refused(gate(b"another key of 32 bytes for this").authorise(Head(method, PATH, query, 5), operation))


@given(query=st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=20).map(b"".join)))
def test_what_parses_is_ours_and_unescaped(query: bytes) -> None:
    try:
        found = parse(query)
    except Malformed:
        return
    assert found.keys() <= {b"v", b"v2", b"v3", b"token", b"ticket", b"expires"}
    for name, value in found.items():
        assert value
        assert query.count(name + b"=" + value) >= 1


@given(
    signature=st.one_of(st.none(), st.binary(max_size=80)),
    authorization=st.one_of(st.none(), st.binary(max_size=80), st.binary(max_size=80).map(lambda b: b"Bearer " + b)),
    expires=st.one_of(st.none(), st.binary(max_size=30)),
    total=st.one_of(st.none(), st.binary(max_size=30)),
    path=st.text(max_size=40).map(lambda text: "/" + text),
    operation=st.sampled_from(list(Operation)),
    method=st.sampled_from(["PUT", "POST", "GET", "HEAD", "DELETE", "PATCH"]),
    size=st.one_of(st.none(), st.integers(min_value=0)),
)
def test_no_header_raises_or_permits(
    signature: bytes | None,
    authorization: bytes | None,
    expires: bytes | None,
    total: bytes | None,
    path: str,
    operation: Operation,
    method: str,
    size: int | None,
) -> None:
    given = {
        b"x-signature": signature,
        b"authorization": authorization,
        b"x-signature-expires": expires,
        b"x-total-size": total,
        b"x-filename": total,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    refused(gate().authorise(Head(method, path, b"", size, fields), operation))
