"""The network between devices and servers: it delays, cuts, goes silent, loses answers and sends requests twice.

A request is a connection of its own. Its head and the pieces of its body arrive one after the other; what the handler
sees is an `Exchange` that behaves as that of a real connection does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Request, Response
from hmac_file_server.http.body import BodySink
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.response import problem_response
from hmac_file_server.uploads import Lease

if TYPE_CHECKING:
    from tests.simulation.server import Server
    from tests.simulation.world import World

_PATIENCE = 6.0
_STALL = 30.0


@dataclass(frozen=True)
class Ask:
    """A request as a device means it. `upload`: the id that it is about, where it is about one."""

    method: str
    path: str
    fields: Mapping[str, bytes] = field(default_factory=dict)
    query: str = ""
    body: bytes | None = None
    upload: str = ""
    what: str = ""
    until: int = 0
    """Where the body ends in the file."""

    @property
    def label(self) -> str:
        return f"{self.method} {self.path[:60]} {self.what}"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    head: Mapping[str, str]
    body: bytes


def answer_of(response: Response) -> Answer:
    """An answer as its client reads it."""
    head = {}
    for line in response.head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(": ")
        if name:
            head[name.lower()] = value
    return Answer(response.status, head, bytes(response.body))


class Fault:
    """What the network does to one request. `after`: pieces that arrive before."""

    __slots__ = ("after", "kind")

    def __init__(self, kind: str, after: int = 0) -> None:
        self.kind = kind
        self.after = after


NOTHING = Fault("nothing")


class Conversation:
    """One request under way, and what becomes of it. Also the `Exchange` of its handler."""

    def __init__(
        self, world: World, server: Server, ask: Ask, fault: Fault, heard: Callable[[Answer | None], None]
    ) -> None:
        self.world = world
        self.server = server
        self.ask = ask
        self.fault = fault
        self._heard: Callable[[Answer | None], None] | None = heard
        self.request = request_of(ask)
        self.request_id = "simulated"
        self.peer = "192.0.2.7:5000"
        self.owner: str | None = None
        self.fields = b""
        self.trailers: dict[bytes, bytes] = {}
        self.body_lost = False
        self.render: Callable[[Response], Response] | None = None
        # The told progress at the moment when the head arrived: no answer may say less.
        self.floor: tuple[tuple[int, int], ...] = ()
        self.was_complete = False
        self.arrived_at = 0.0
        self.lease: Lease | None = None
        self.connected = True
        self._answered = False
        self._pieces = pieces_of(ask.body or b"", world)
        if fault.kind == "cut" and world.schedule.chance.random() < 0.3:
            # Every byte comes, and nobody says that these were all.
            fault.after = len(self._pieces)
        self._arrived: list[bytes] = []
        self._ended: BodyCut | None = None
        self._whole = False
        self._sink: BodySink | None = None
        self._done: Callable[[BodyEnd], None] | None = None
        self._given = 0
        self._gone: Callable[[], None] | None = None
        self._cutting = False

    @property
    def alive(self) -> bool:
        """Whether its client still waits."""
        return self._heard is not None

    # ---- on the way

    def begin(self) -> None:
        """Send it."""
        world, chance = self.world, self.world.schedule.chance
        delay = world.latency() + (8.0 * chance.random() if self.fault.kind == "late" else 0.0)
        world.schedule.after(delay, self.server, f"head {self.ask.label}", self._head)
        if not self.server.alive:
            world.schedule.after(0.001, None, "refused", lambda: self._hear(None))
            return
        patience = 0.3 + chance.random() if self.fault.kind == "slow" else _PATIENCE
        world.schedule.after(patience, self, "patience", self._give_up)
        world.watch(self.server, self.lost)

    def lost(self) -> None:
        """The server has died: the client sees it, soon."""
        self.world.schedule.after(self.world.latency(), None, "reset", lambda: self._hear(None))

    def _give_up(self) -> None:
        if self._heard is None:
            return
        self._hear(None)
        # It closes its end; where the network is silent, the server does not hear of that, and what is slow still comes.
        if self.fault.kind not in {"silent", "slow"}:
            self.world.schedule.after(self.world.latency(), self.server, "client gone", self._disconnect)

    def _hear(self, answer: Answer | None) -> None:
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(answer)

    def _head(self) -> None:
        if not self.connected:
            return
        self.arrived_at = self.world.schedule.clock.steady
        self.world.judge.asked(self)
        if not self._pieces:
            self._whole = True
        elif self.fault.kind in {"cut", "silent"} and self.fault.after == 0:
            self._break()
        elif self.ask.body and self.world.schedule.chance.random() < 0.4 and self.fault.kind not in {"cut", "silent"}:
            # In one packet with its head.
            self._arrived, self._pieces, self._whole = [self.ask.body], [], True
        else:
            self._expect_piece()
        try:
            self.server.application.handle(cast("Exchange", self))
        except HttpError as error:
            # As a connection does.
            self.respond(problem_response(error.status, error.code, "", error.detail, self.request_id))

    def _expect_piece(self) -> None:
        chance = self.world.schedule.chance
        delay = chance.random() * 0.5 if self.fault.kind == "slow" else self.world.latency()
        self.world.schedule.after(delay, self.server, "piece", self._piece)

    def _piece(self) -> None:
        if not self.connected or not self._pieces:
            return
        self._arrived.append(self._pieces.pop(0))
        self.fault.after -= 1
        if (
            self.fault.kind in {"cut", "silent"}
            and self.fault.after <= 0
            and (self._pieces or self.fault.kind == "cut")
        ):
            self._break()
        elif self._pieces:
            self._expect_piece()
        else:
            self._whole = True
        self._pump()

    def _break(self) -> None:
        """Nothing more arrives."""
        self._pieces.clear()
        if self.fault.kind == "cut":
            self.world.schedule.after(self.world.latency(), self.server, "cut", self._disconnect)
            self.world.schedule.after(self.world.latency(), None, "cut off", lambda: self._hear(None))
        else:
            self.world.schedule.after(_STALL, self.server, "stalled", lambda: self._end_early(BodyCut.STALLED))

    def _disconnect(self) -> None:
        if self.connected:
            self.connected = False
            self.body_lost = True
            self._end_early(BodyCut.DISCONNECTED)
            if self._gone is not None and not self._answered:
                self._gone()

    def _end_early(self, cut: BodyCut) -> None:
        if not self._whole and self._ended is None:
            self._ended = cut
            self._pieces.clear()
            self._pump()

    # ---- what the handler sees

    @property
    def answered(self) -> bool:
        return self._answered

    @property
    def body_arrived(self) -> bool:
        return self._whole and not self._pieces

    def respond(self, response: Response) -> None:
        if not self.server.alive:
            return
        assert not self._answered, "answered twice"
        if self.render is not None:
            response = self.render(response)
        response.head += self.fields
        self._answered = True
        answer = answer_of(response)
        self.world.schedule.note(f"answer {answer.status} to {self.ask.label}")
        self.world.judge.answered(self, answer)
        if self.connected and self.fault.kind not in {"lost answer", "silent"}:
            self.world.schedule.after(self.world.latency(), None, "answer", functools.partial(self._hear, answer))

    def respond_soon(self, response: Response) -> None:
        self.server.call_soon(self._respond_unless_answered, response)

    def _respond_unless_answered(self, response: Response) -> None:
        if not self._answered:
            self.respond(response)

    def interim(self, status: int, head: bytes = b"") -> None:
        if not self.server.alive:
            return
        assert not self._answered
        self.world.judge.answered(self, answer_of(Response(status, head)))

    def on_gone(self, callback: Callable[[], None]) -> None:
        self._gone = callback

    def take_body(self) -> bytes:
        raise AssertionError("only without syncs")

    def receive(self, sink: BodySink, done: Callable[[BodyEnd], None], *, limit: int | None = None) -> None:
        assert self._done is None, "the body was taken twice"
        self._sink, self._done = sink, done
        self.lease = sink if isinstance(sink, Lease) else None
        if self._whole:
            self._pump()
        elif self._arrived or self._ended is not None:
            self.server.later("body", self._pump)

    def cut(self, cut: BodyCut) -> None:
        if self._done is None or self._cutting:
            return
        self._cutting = True
        world = self.world
        # A body loop that is in a slow write hears of it late.
        slow = not world.quiet and world.schedule.chance.random() < 0.3
        delay = world.schedule.chance.random() * (0.8 if slow else 0.002)
        world.schedule.after(delay, self.server, "cut by server", lambda: self._end_early(cut))

    def _pump(self) -> None:
        """Give what has arrived to the handler."""
        if self._done is None:
            return
        error: Exception | None = None
        while self._arrived and self._sink is not None:
            piece = self._arrived.pop(0)
            # Only valid during the call, as a body loop's buffer is.
            buffer = bytearray(piece)
            try:
                self._sink.write(memoryview(buffer))
            except Exception as refused:
                error = refused
                break
            buffer[:] = bytes(len(buffer))
            self._given += len(piece)
            self.world.judge.wrote(self, self.lease)
        if error is not None:
            self._finish(BodyEnd(self._given, BodyCut.REFUSED, error))
        elif self._whole:
            self._finish(BodyEnd(self._given))
        elif self._ended is not None:
            self._finish(BodyEnd(self._given, self._ended))

    def _finish(self, end: BodyEnd) -> None:
        done, self._sink = self._done, None
        if done is not None:
            self._done = _told
            self.world.judge.delivered(self, end)
            if done is not _told:
                done(end)


def _told(_end: BodyEnd) -> None:
    """The handler knows."""


def request_of(ask: Ask) -> Request:
    """As parsed."""
    fields = {name.encode(): value for name, value in ask.fields.items()}
    parsed = Request(ask.method, ask.path, ask.query.encode(), fields, http10=False)
    if ask.body is not None:
        fields[b"content-length"] = b"%d" % len(ask.body)
        parsed.content_length = len(ask.body)
    return parsed


def pieces_of(body: bytes, world: World) -> list[bytes]:
    """As they arrive."""
    pieces = []
    while body:
        size = world.schedule.chance.randint(1, 9)
        pieces.append(body[:size])
        body = body[size:]
    return pieces
