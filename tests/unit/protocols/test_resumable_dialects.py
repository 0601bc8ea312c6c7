"""What each version of the draft wants to hear."""

from __future__ import annotations

import pytest
from tests.unit.protocols.exchanges import request

from hmac_file_server.protocols.interop import LATEST, Dialect, completes, dialect_of, discovery, speaks

KNOWN = (3, 4, 5, 6, 7, 8, 9)


def of(**fields: bytes) -> Dialect:
    return dialect_of(request("PATCH", "/tus/x", b"", None, **fields))


@pytest.mark.parametrize("version", [*KNOWN, 10, 15, 999])
def test_a_known_version_is_echoed(version: int) -> None:
    dialect = of(upload_draft_interop_version=b"%d" % version)
    assert dialect == Dialect(version, min(version, 9))
    assert dialect.echo == b"Upload-Draft-Interop-Version: %d\r\n" % version
    assert dialect.interim


@pytest.mark.parametrize("version", [b"0", b"1", b"2", b"-3", b"3.0", b"six", b"", b"?1", b"(8)", b'"8"'])
def test_an_unknown_version_is_none(version: bytes) -> None:
    dialect = of(upload_draft_interop_version=version)
    assert dialect == LATEST
    assert (dialect.echo, dialect.interim, dialect.progress) == (b"", False, False)


def test_the_oldest_field_alone_is_spoken_back() -> None:
    assert of(upload_incomplete=b"?1") == Dialect(None, 3)
    assert of(upload_incomplete=b"?1", upload_complete=b"?1") == LATEST
    assert of(upload_incomplete=b"?1", upload_draft_interop_version=b"8") == Dialect(8, 8)
    assert not Dialect(None, 3).interim
    assert not Dialect(None, 3).ends_by_length


@pytest.mark.parametrize("rules", KNOWN)
def test_rules(rules: int) -> None:
    dialect = Dialect(rules, rules)
    assert dialect.progress == (rules >= 5)
    assert dialect.typed == (rules >= 6)
    assert dialect.ends_by_length == (rules <= 6)
    assert dialect.locates_result == (rules <= 8)
    assert dialect.acknowledges_by_creating == (rules <= 4)
    assert dialect.cancels_plainly == (rules <= 4)
    field, true, false = ("Incomplete", "?0", "?1") if rules == 3 else ("Complete", "?1", "?0")
    assert dialect.completeness(complete=True) == f"Upload-{field}: {true}\r\n".encode()
    assert dialect.completeness(complete=False) == f"Upload-{field}: {false}\r\n".encode()
    limits = dialect.limits(1000, 60.9)
    if rules < 6:
        assert limits == b""
    else:
        age = b"expires" if rules == 6 else b"max-age"
        assert limits == b"Upload-Limit: max-size=1000, min-size=0, " + age + b"=60\r\n"
        assert b"=0\r\n" in dialect.limits(1000, -5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"upload_complete": b"?1"}, True),
        ({"upload_complete": b"?0"}, False),
        ({"upload_incomplete": b"?0"}, True),
        ({"upload_incomplete": b"?1"}, False),
        ({"upload_complete": b"?1", "upload_incomplete": b"?1"}, True),
        ({"upload_complete": b"yes", "upload_incomplete": b"?1"}, False),
        ({"upload_complete": b"1"}, None),
        ({"upload_complete": b"?1, ?1"}, None),
        ({"upload_draft_interop_version": b"8"}, None),
        ({}, None),
    ],
)
def test_completeness_of_requests(fields: dict[str, bytes], expected: bool | None) -> None:
    asked = request("PUT", "/a", b"", None, **fields)
    assert completes(asked) is expected
    assert speaks(asked) == bool(fields)


def test_discovery() -> None:
    assert discovery(5, 60.0) == (
        b"Accept-Patch: application/partial-upload\r\nUpload-Limit: max-size=5, min-size=0, max-age=60\r\n"
    )
