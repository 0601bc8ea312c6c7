"""An answer made another on its way out, whoever gives it."""

from __future__ import annotations

from typing import cast

import pytest

from hmac_file_server.http import Exchange, Request, Response
from hmac_file_server.http.connection import Connection


class Wire:
    """A connection as far as an answer is concerned."""

    def __init__(self) -> None:
        self.answers: list[Response] = []

    def answer(self, exchange: Exchange, response: Response) -> None:
        self.answers.append(response)

    def abort_exchange(self, exchange: Exchange) -> None:
        self.answers.clear()


def exchange_on(wire: Wire) -> Exchange:
    return Exchange(cast("Connection", wire), Request("GET", "/", b"", {}, http10=False), b"")


def upper(response: Response) -> Response:
    return Response(response.status, response.head + b"X: rendered\r\n", response.body.upper())


def test_it_is_rendered_once_and_keeps_the_other_fields() -> None:
    wire = Wire()
    exchange = exchange_on(wire)
    exchange.fields = b"Y: always\r\n"
    exchange.render = upper
    exchange.respond(Response(404, b"", b"not here"))
    (answer,) = wire.answers
    assert (answer.status, answer.head, answer.body) == (404, b"X: rendered\r\nY: always\r\n", b"NOT HERE")
    with pytest.raises(RuntimeError):
        exchange.respond(Response(200))
    assert len(wire.answers) == 1


def test_what_cannot_be_rendered_leaves_the_exchange_open_for_a_plain_answer() -> None:
    wire = Wire()
    exchange = exchange_on(wire)

    def broken(response: Response) -> Response:
        raise ValueError("a fault of ours")

    exchange.render = broken
    with pytest.raises(ValueError, match="a fault of ours"):
        exchange.respond(Response(200, b"", b"a"))
    assert not exchange.answered
    exchange.respond(Response(500, b"", b"b"))
    assert [answer.body for answer in wire.answers] == [b"b"]


def test_nothing_is_rendered_for_a_client_that_was_dropped() -> None:
    wire = Wire()
    exchange = exchange_on(wire)
    rendered: list[Response] = []

    def render(response: Response) -> Response:
        rendered.append(response)
        return response

    exchange.render = render
    exchange.abort()
    exchange.respond(Response(200))
    assert rendered == wire.answers == []
