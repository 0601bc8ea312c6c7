"""Responses as bytes on the wire."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import pytest

from hmac_file_server.http.response import CommonFields, Response, json_response, problem_response


def lines(response: Response, **how: bool) -> list[bytes]:
    options = {"keep_alive": True, "http10": False, **how}
    head = response.render_head(b"Date: now\r\n", **options)
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_heads() -> None:
    assert lines(Response(200, b"X: y\r\n", b"abc")) == [
        b"HTTP/1.1 200 OK",
        b"Date: now",
        b"X: y",
        b"Content-Length: 3",
    ]
    assert lines(Response(201)) == [b"HTTP/1.1 201 Created", b"Date: now", b"Content-Length: 0"]
    assert lines(Response(200), keep_alive=False)[-1] == b"Connection: close"
    assert lines(Response(200), http10=True)[-1] == b"Connection: keep-alive"
    assert lines(Response(200), http10=True, keep_alive=False)[-1] == b"Connection: close"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_no_length(status: int) -> None:
    assert not any(line.startswith(b"Content-Length") for line in lines(Response(status, b"X: y\r\n")))


def test_a_declared_length_stands_for_the_body() -> None:
    assert lines(Response(200, declared=77))[-1] == b"Content-Length: 77"
    assert lines(Response(200, declared=0, body=b"abc"))[-1] == b"Content-Length: 0"


@pytest.mark.parametrize("status", [460, 599, *[status.value for status in HTTPStatus if status >= 200]])
def test_every_status_line_is_well_formed(status: int) -> None:
    first = lines(Response(status))[0]
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert first[13:].strip()


def test_the_date_is_now_and_made_once_a_second() -> None:
    common = CommonFields(b"X: y\r\n")
    first = common.now()
    date = first.split(b"\r\n")[0].removeprefix(b"Date: ").decode()
    assert parsedate_to_datetime(date).utcoffset() is not None
    assert date.endswith(" GMT")
    assert first.endswith(b"\r\nX: y\r\n")
    assert common.now() is first or common.now() != first


def test_json() -> None:
    response = json_response(200, {"name": "tr\u00e8s \u4e2d"}, b"X: y\r\n")
    assert json.loads(response.body) == {"name": "tr\u00e8s \u4e2d"}
    assert response.head == b"Content-Type: application/json\r\nX: y\r\n"
    with pytest.raises(ValueError, match="JSON"):
        json_response(200, {"x": float("nan")})


def test_problems() -> None:
    response = problem_response(409, "exists", "Already exists", "Other content.", "r-1", b"X: y\r\n")
    assert json.loads(response.body) == {
        "type": "urn:hmac-file-server:error:exists",
        "title": "Already exists",
        "status": 409,
        "detail": "Other content.",
        "code": "exists",
        "request_id": "r-1",
    }
    assert b"Content-Type: application/problem+json\r\n" in response.head
    assert b"Cache-Control: no-store\r\n" in response.head
    assert response.head.endswith(b"X: y\r\n")
