"""What answers mean, what is told of it, and what a rate and a progress are."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_file_server.client.errors import GaveUp, Redirected, Refused, SessionGone, UploadFailed, refusal
from hmac_file_server.client.progress import Meter
from hmac_file_server.client.protocol import Answer


def problem(status: int, code: str | None = None, fields: Mapping[str, str] | None = None, **more: object) -> Answer:
    body = {"status": status, **({"code": code} if code is not None else {}), **more}
    headers = {"content-type": "application/problem+json; charset=utf-8", **(fields or {})}
    return Answer(status, headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (408, "body_stalled"),
        (408, "network_changed"),
        (409, "upload_taken_over"),
        (409, "offset_mismatch"),
        (400, "digest_mismatch"),
        (460, "checksum_mismatch"),
        (423, None),
        (425, None),
        (429, "too_many_sessions"),
        (500, "internal_error"),
        (502, None),
        (503, "server_busy"),
        (504, None),
        (507, "storage_full"),
    ],
)
def test_what_may_be_tried_again(status: int, code: str | None) -> None:
    failure = refusal(problem(status, code))
    assert failure.retriable
    assert failure.code == (code or f"http_{status}")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_field"),
        (401, "bad_token"),
        (403, "bad_signature"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (409, "exists"),
        (409, "chunk_differs"),
        (411, "length_required"),
        (413, "too_large"),
        (415, "extension_refused"),
        (422, "key_reused"),
        (501, "method_not_implemented"),
        (505, "version_not_supported"),
    ],
)
def test_what_would_be_answered_the_same(status: int, code: str) -> None:
    failure = refusal(problem(status, code))
    assert type(failure) is Refused
    assert not failure.retriable


@pytest.mark.parametrize("code", ["upload_not_found", "upload_expired", "upload_lost", "upload_overrun"])
def test_sessions_that_are_gone(code: str) -> None:
    assert isinstance(refusal(problem(410, code)), SessionGone)


@pytest.mark.parametrize("status", [404, 410])
def test_without_a_code_the_status_says_it(status: int) -> None:
    assert isinstance(refusal(Answer(status, {}, b"not here")), SessionGone)


def test_what_the_problem_tells_is_kept() -> None:
    answer = problem(
        503,
        "server_busy",
        {"retry-after": "7", "date": "Mon, 23 Nov 2026 01:00:00 GMT"},
        detail="Too much to do.",
        request_id="9f2c-1",
    )
    failure = refusal(answer)
    assert (failure.detail, failure.request_id) == ("Too much to do.", "9f2c-1")
    assert (failure.retry_after, failure.date) == ("7", "Mon, 23 Nov 2026 01:00:00 GMT")
    assert str(failure) == "Too much to do. (server_busy, HTTP 503, request 9f2c-1)"


def test_redirects_are_told_and_not_followed() -> None:
    failure = refusal(Answer(308, {"location": "https://elsewhere.example/\x1b[2J"}, b""))
    assert isinstance(failure, Redirected)
    assert not failure.retriable
    assert "https://elsewhere.example/?[2J" in str(failure)


def test_terminals_are_safe_from_what_servers_say() -> None:
    failure = refusal(problem(400, "bad\x1b[2J", detail="a\nb\x07" + "x" * 1000, request_id="\x00"))
    assert failure.code == "bad?[2J"
    assert failure.detail.startswith("a?b?xxx")
    assert len(failure.detail) == 500
    assert failure.request_id == "?"


@settings(deadline=None)
@given(st.integers(300, 599), st.binary(max_size=200), st.sampled_from(["application/problem+json", "text/html", ""]))
def test_any_answer_means_something(status: int, body: bytes, kind: str) -> None:
    failure = refusal(Answer(status, {"content-type": kind}, body))
    assert isinstance(failure, UploadFailed)
    assert failure.code
    assert failure.detail
    assert failure.status == status
    assert str(failure).isprintable()


def test_giving_up_tells_what_was_last() -> None:
    last = refusal(problem(503, "server_busy", detail="Too much to do.", request_id="1"))
    failure = GaveUp(600.0, last)
    assert str(failure) == "no progress for 600 s: Too much to do. (gave_up, HTTP 503, request 1)"
    assert not failure.retriable
    assert str(GaveUp(0.5, None)) == "no progress for 0.5 s (gave_up)"


# ---- rates


def test_a_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter(5.0)
    assert meter.rate == 0.0
    for second in range(20):
        meter.add(float(second), 100 * second if second < 10 else 900)
        assert meter.rate >= 0
    assert meter.rate == 0.0
    meter.add(20.0, 1400)
    assert meter.rate == pytest.approx(100.0)


def test_bytes_that_were_lost_do_not_make_a_rate_negative() -> None:
    meter = Meter(5.0)
    meter.add(0.0, 0)
    meter.add(1.0, 1000)
    meter.add(2.0, 600)
    assert meter.rate == pytest.approx(300.0)
    meter.add(3.0, 700)
    assert meter.rate == pytest.approx(700 / 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.001, 3), st.integers(-5000, 5000)), max_size=40))
def test_a_rate_is_never_negative(steps: list[tuple[float, int]]) -> None:
    meter, now, count = Meter(), 0.0, 0
    for seconds, change in steps:
        now, count = now + seconds, max(0, count + change)
        meter.add(now, count)
        assert meter.rate >= 0
