"""The engine against a model of what it has told, under every order of events, faults and deaths.

Soak: HMAC_FILE_SERVER_SOAK=5000 runs that many examples of each machine, with longer runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.fixtures.engine_world import DAY, MISSING, Claimed, Expected, Process, World, order

from hmac_file_server.files.contract import StorageError, StoragePath
from hmac_file_server.stores.contract import COMPLETE, OPEN
from hmac_file_server.uploads import Progress, Rules, State, UploadRefused, engine
from hmac_file_server.uploads.ranges import RangeSet

CHUNK = 8
PLACES = 6
LENGTHS = st.sampled_from([2 * CHUNK, CHUNK, 3 * CHUNK - 1, 2 * CHUNK, 1, 0])
PICK = st.integers(0, 30)
SELDOM = st.sampled_from([False] * 5 + [True])
MOSTLY = st.sampled_from([True, True, False])
TICKET = ("ticket", 3, 4e9)
SOAK = int(os.environ.get("HMAC_FILE_SERVER_SOAK", "0"))


def content(length: int, variant: int) -> bytes:
    """Two variants differ in every byte."""
    return bytes((7 * index + 1) % 251 ^ (0xFF if variant else 0) for index in range(length))


class Verdict:
    """A digest that fits, or does not."""

    def __init__(self, fits: bool) -> None:
        self.fits = fits

    def update(self, data: memoryview, /) -> None:
        """Knows already."""

    def matches(self) -> bool:
        return self.fits


@dataclass(eq=False)
class Known:
    """What the clients know of one upload."""

    id: str
    length: int
    path: str
    ticket: bool
    told: dict[Process, RangeSet] = field(default_factory=dict)
    """What each process has told, or any before it started."""
    everything: RangeSet = field(default_factory=RangeSet)
    fixed: dict[int, int] = field(default_factory=dict)
    """Bytes that were told: they never change again."""
    complete: bool = False


@dataclass(eq=False)
class Creating:
    """An order, of which the answer may be lost."""

    length: int
    path: str
    ticket: bool
    keyed: bool


@dataclass(eq=False)
class Body:
    upload: Known
    claimed: Claimed
    variant: int
    check: Verdict | None
    granted: bool = False
    stale: bool = False
    judged: bool = False

    @property
    def bytes(self) -> bytes:
        return content(self.upload.length, self.variant)


Action: TypeAlias = tuple[str, dict[str, Any]]
Method = TypeVar("Method", bound=Callable[..., None])
ACTIONS: dict[str, st.SearchStrategy[Action]] = {}
NAMES: list[str] = []
"""Those of the actions, each as often as it weighs."""
ON_UPLOADS: set[str] = set()


def action(
    *, weight: int = 1, on_uploads: bool = False, **fields: st.SearchStrategy[Any]
) -> Callable[[Method], Method]:
    """One of the things that may happen, with what has to be drawn for it.

    Rules of one machine are switched off by turns; these are not, since most need what others did.
    """

    def register(method: Method) -> Method:
        name = method.__name__
        ACTIONS[name] = st.tuples(st.just(name), st.fixed_dictionaries(fields))
        NAMES.extend([name] * weight)
        if on_uploads:
            ON_UPLOADS.add(name)
        return method

    return register


class EngineMachine(RuleBasedStateMachine):
    servers = 1

    @initialize(seed=st.integers(0, 1 << 30), hashing=st.booleans())
    def begin(self, seed: int, hashing: bool) -> None:
        rules = Rules(max_age=DAY, sessions_per_owner=PLACES)
        self.world = World(seed, servers=self.servers, rules=rules, hashing=hashing)
        self.world.hear = self.hear
        self.uploads: dict[str, Known] = {}
        self.creating: list[Creating] = []
        self.bodies: list[Body] = []
        self.orders = 0
        self.exact = True
        self.create(2 * CHUNK, ticket=True, keyed=True, pick=0, at_once=True)
        self.jumped = 0.0
        self.patches = [
            mock.patch.object(engine, "CHECKPOINT_BYTES", 5),
            mock.patch.object(engine, "_READ", 4),
        ]
        for patch in self.patches:
            patch.start()

    # -- what the engine tells

    def hear(self, process: Process, progress: Progress) -> None:
        known = self.uploads.get(progress.id)
        if known is None:
            for what in self.creating:
                if what.path == progress.path:
                    known = self.uploads[progress.id] = Known(progress.id, what.length, what.path, what.ticket)
        assert known is not None
        if progress.state not in {State.OPEN, State.PUBLISHING, State.COMPLETE}:
            assert not known.complete or progress.state is State.GONE
            return
        assert progress.complete or not known.complete
        told = known.told.setdefault(process, RangeSet())
        ranges = RangeSet(progress.ranges)
        for start, stop in told:
            assert ranges.covers(start, stop), f"told {told.spans()} before, {ranges.spans()} now"
        for start, stop in ranges:
            told.add(start, stop)
            known.everything.add(start, stop)
        if progress.complete:
            assert ranges.spans() == (((0, known.length),) if known.length else ())
            link = self.world.disk.links[known.path]
            assert link.safe
            possible = link.file.possible()
            assert len(possible) == known.length
            known.complete = True
        else:
            possible = self.world.disk.possible(known.id)
        for start, stop in ranges:
            for index in range(start, stop):
                if index not in known.fixed:
                    assert len(possible[index]) == 1, f"byte {index} is not safe"
                    known.fixed[index] = next(iter(possible[index]))

    @invariant()
    def what_was_told_is_safe(self) -> None:
        if not hasattr(self, "world"):
            return
        self.judge_bodies()
        for session in self.world.sessions.sessions.values():
            known = self.uploads.get(session.id)
            fixed = known.fixed if known is not None else {}
            if session.state == OPEN:
                possible = self.world.disk.possible(session.id)
                assert not session.ranges or len(possible) >= session.ranges[-1][1], "the draft may vanish"
                for start, stop in session.ranges:
                    for index in range(start, stop):
                        assert len(possible[index]) == 1, f"byte {index} is recorded, and not safe"
                        assert possible[index] != {MISSING}
                for index, value in fixed.items():
                    assert possible[index] == {value}, f"byte {index} has changed"
            elif session.state == COMPLETE:
                link = self.world.disk.links[session.path]
                assert link.safe
                assert link.file.possible() == [{value} for value in link.file.live]
                for index, value in fixed.items():
                    assert link.file.live[index] == value
        assert all(count <= 1 for count in self.world.disk.created.values()), "published twice"

    def judge_bodies(self) -> None:
        """Who has a lease now makes the older holders stale; answers to finished bodies are looked at."""
        # In the order in which they got it: another server's claim may be older, and wait longer.
        for body in sorted(self.bodies, key=lambda body: body.claimed.done.turn):
            if body.claimed.done.called and not body.granted and body.claimed.holds:
                for older in self.bodies:
                    if (
                        older.granted
                        and older.upload is body.upload
                        and older.claimed.lease.overlaps(body.claimed.lane)
                    ):
                        older.stale = True
                body.granted = True
        for body in self.bodies:
            finished = body.claimed.finished
            if finished is not None and finished.called and not body.judged:
                body.judged = True
                self.judge_answer(body, finished.result)
        over = [body for body in self.bodies if body.claimed.done.called and not body.claimed.holds]
        for body in over:
            if body.claimed.finished is None or body.judged:
                self.bodies.remove(body)

    def judge_answer(self, body: Body, result: Any) -> None:
        """A body that was acknowledged is there, byte for byte."""
        if body.check is not None and not body.check.fits:
            assert isinstance(result, UploadRefused)
        if isinstance(result, Progress) and result.state in {State.OPEN, State.PUBLISHING, State.COMPLETE}:
            for index in range(body.claimed.begin, body.claimed.lease.position):
                assert body.upload.fixed[index] == body.bytes[index]

    # -- what clients do

    def process(self, pick: int) -> Process:
        return self.world.processes[pick % len(self.world.processes)]

    def upload(self, pick: int) -> Known:
        """Most often one that is not complete."""
        known = [upload for upload in self.uploads.values() if not upload.complete] if pick % 8 else []
        known = known or list(self.uploads.values())
        return known[pick % len(known)]

    def body(self, pick: int) -> Body | None:
        held = [body for body in self.bodies if body.claimed.holds]
        return held[pick % len(held)] if held else None

    @action(weight=2, length=LENGTHS, ticket=st.booleans(), keyed=st.booleans(), pick=PICK, at_once=MOSTLY)
    def create(self, length: int, ticket: bool, keyed: bool, pick: int, at_once: bool) -> None:
        process = self.process(pick)
        self.orders += 1
        path = f"file-{self.orders}"
        creating = Creating(length, path, ticket, keyed)
        self.creating.append(creating)
        self.order(process, self.world.expect("create", process), creating)
        if at_once:
            self.world.run()

    def order(self, process: Process, done: Expected, what: Creating) -> None:
        process.engine.create(
            order(
                what.length,
                path=StoragePath(what.path),
                filename=what.path,
                ticket=TICKET if what.ticket else None,
                key=what.path if what.keyed else None,
            ),
            done,
        )

    @action(pick=PICK, other=PICK)
    def create_again(self, pick: int, other: int) -> None:
        """The answer was lost."""
        keyed = [creating for creating in self.creating if creating.keyed]
        if not keyed:
            return
        creating = keyed[pick % len(keyed)]
        process = self.process(other)
        self.order(process, self.world.expect("create again", process), creating)

    @action(
        weight=5,
        on_uploads=True,
        pick=PICK,
        server=PICK,
        lane=st.integers(-1, 2),
        skip=st.integers(0, CHUNK),
        variant=st.sampled_from([0, 0, 0, 1]),
        check=st.sampled_from([None, None, None, True, False]),
        obeys=st.sampled_from([True, True, False]),
        resume=st.booleans(),
        at_once=MOSTLY,
    )
    def claim(
        self,
        pick: int,
        server: int,
        lane: int,
        skip: int,
        variant: int,
        check: bool | None,
        obeys: bool,
        resume: bool,
        at_once: bool,
    ) -> None:
        known = self.upload(pick)
        first = max(0, lane) * CHUNK
        span = (0, known.length) if lane < 0 else (first, min(first + CHUNK, known.length))
        if span[0] >= span[1]:
            return
        start = min(known.everything.reach(span[0]), span[1]) if resume else min(span[0] + skip, span[1])
        verdict = None if check is None else Verdict(check)
        claimed = self.world.claim(known.id, span, start, process=self.process(server), check=verdict, obeys=obeys)
        self.bodies.append(Body(known, claimed, variant, verdict))
        if at_once:
            self.world.run()

    @action(weight=4, pick=PICK, size=st.integers(1, 3 * CHUNK))
    def write(self, pick: int, size: int) -> None:
        body = self.body(pick)
        if body is not None:
            self.write_some(body, size)

    def write_some(self, body: Body, size: int) -> None:
        lease = body.claimed.lease
        piece = body.bytes[lease.position : min(lease.position + size, lease.lane[1])]
        try:
            body.claimed.write(piece)
        except UploadRefused as refusal:
            self.judge_refusal(body, refusal.code, piece)
            body.claimed.cut()
        except StorageError:
            body.claimed.cut()
        else:
            assert not body.stale, "a stale holder wrote"

    def judge_refusal(self, body: Body, code: str, piece: bytes) -> None:
        assert code in {"upload_taken_over", "chunk_differs"}
        if code == "chunk_differs" and self.told_all(body.upload):
            there = body.upload.fixed
            position = body.claimed.lease.position
            assert any(there.get(position + index, value) != value for index, value in enumerate(piece))

    def told_all(self, known: Known) -> bool:
        """Whether everything that is durable was told."""
        session = self.world.sessions.sessions.get(known.id)
        return session is not None and all(known.everything.covers(*span) for span in session.ranges)

    @action(weight=2, pick=PICK)
    def finish(self, pick: int) -> None:
        body = self.body(pick)
        if body is not None:
            body.claimed.finish_soon()

    @action(weight=3, pick=PICK, at_once=st.booleans())
    def write_all_and_finish(self, pick: int, at_once: bool) -> None:
        self.write(pick, 4 * CHUNK)
        self.finish(pick)
        if at_once:
            self.world.run()

    @action(pick=PICK)
    def cut(self, pick: int) -> None:
        body = self.body(pick)
        if body is not None:
            body.claimed.cut()

    @action(on_uploads=True, pick=PICK, server=PICK)
    def settle(self, pick: int, server: int) -> None:
        process = self.process(server)
        process.engine.settle(self.upload(pick).id, self.world.expect("settle", process))

    @action(on_uploads=True, pick=PICK, server=PICK)
    def look(self, pick: int, server: int) -> None:
        process = self.process(server)
        with contextlib.suppress(UploadRefused):  # it has been forgotten
            self.hear(process, process.engine.progress(self.upload(pick).id))

    @action(server=PICK)
    def flush(self, server: int) -> None:
        self.process(server).engine.flush_all()

    @action(on_uploads=True, pick=PICK, server=PICK, sure=SELDOM)
    def cancel(self, pick: int, server: int, sure: bool) -> None:
        if sure:
            process = self.process(server)
            process.engine.cancel(self.upload(pick).id, self.world.expect("cancel", process))

    @action(on_uploads=True, pick=PICK, server=PICK)
    def release(self, pick: int, server: int) -> None:
        process = self.process(server)
        process.engine.release(self.upload(pick).id, self.world.expect("release", process))

    @action(weight=2, pick=PICK, server=PICK, variant=st.sampled_from([0, 1]), at_once=MOSTLY, late=st.booleans())
    def take_over(self, pick: int, server: int, variant: int, at_once: bool, late: bool) -> None:
        """Somebody continues what a body is at, and the old one comes back, perhaps."""
        old = self.body(pick)
        if old is None:
            return
        lane, known = old.claimed.lane, old.upload
        start = min(known.everything.reach(lane[0]), lane[1])
        claimed = self.world.claim(known.id, lane, start, process=self.process(server))
        self.bodies.append(Body(known, claimed, variant, None))
        if at_once:
            self.world.run()
        self.world.clock.advance(0.3)
        if at_once:
            self.world.run()
            self.judge_bodies()
        if late and old.claimed.holds:
            self.write_some(old, CHUNK)

    # -- what happens by itself

    @action(weight=5, choices=st.lists(st.integers(0, 100), min_size=1, max_size=12))
    def steps(self, choices: list[int]) -> None:
        for choice in choices:
            self.world.step(choice)
            self.what_was_told_is_safe()

    @action(
        weight=2,
    )
    def all_steps(self) -> None:
        self.world.run()

    @action(weight=2, seconds=st.sampled_from([0.1, 0.3, 1.0, 6.0, 61.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; what is due by then waits to be chosen."""
        self.world.clock.advance(seconds)

    @action(days=st.sampled_from([-10, 10]))
    def jump(self, days: int) -> None:
        self.world.clock.wall += days * DAY
        self.jumped += abs(days) * DAY

    @action(seconds=st.sampled_from([0.0, 61.0, 0.6 * DAY]), server=PICK)
    def sweep(self, seconds: float, server: int) -> None:
        self.world.clock.advance(seconds)
        self.process(server).engine.sweep()

    # -- faults

    @action(what=st.sampled_from(["sync", "write", "publish", "admission", "commit", "draft"]))
    def fail(self, what: str) -> None:
        self.world.fail(what)

    @action()
    def lose_an_answer(self) -> None:
        """The store did as it was told, and could not say so."""
        self.world.fail("answer")
        self.exact = False

    @action(server=PICK, sure=SELDOM, power=st.booleans())
    def die(self, server: int, sure: bool, power: bool) -> None:
        if not sure:
            return
        self.exact = False
        if power:
            self.world.power_cut()
        elif self.jumped:
            # Only one that starts anew hears of the jump; servers that differ by days expire each other's uploads.
            for process in self.world.processes:
                self.world.kill(process)
        else:
            self.world.kill(self.process(server))
        self.world.faults.clear()
        self.bodies = [body for body in self.bodies if body.claimed.process.alive]
        before = self.world.processes[:]
        self.world.restart()
        for old, new in zip(before, self.world.processes, strict=True):
            if old is not new:
                for known in self.uploads.values():
                    known.told[new] = RangeSet(known.everything)

    @rule(actions=st.lists(st.sampled_from(NAMES).flatmap(ACTIONS.__getitem__), min_size=4, max_size=16))
    def happen(self, actions: list[Action]) -> None:
        for name, fields in actions:
            if self.uploads or name not in ON_UPLOADS:
                getattr(self, name)(**fields)
                self.what_was_told_is_safe()

    # -- the end

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.come_to_an_end()
        finally:
            for patch in self.patches:
                patch.stop()

    def come_to_an_end(self) -> None:
        world = self.world
        world.faults.clear()
        for body in self.bodies:
            if body.claimed.holds:
                body.claimed.cut()
        for _ in range(3):
            world.advance(1.0)
            for body in self.bodies:
                if body.claimed.holds:
                    body.claimed.cut()
        world.end()
        self.what_was_told_is_safe()
        for process in world.processes:
            assert process.engine.transfers == 0
            assert not any(upload.leases for upload in process.engine._uploads.values()), "a lease is left"
        self.check_space()
        for known in list(self.uploads.values()):
            self.complete(known)
        self.check_tickets()
        self.check_nothing_is_left()

    def complete(self, known: Known) -> None:
        """Whatever happened: who sends what is missing gets the upload done."""
        session = self.world.sessions.sessions.get(known.id)
        if session is None or session.state != OPEN:
            return
        missing = RangeSet(session.ranges).missing(0, known.length) or [(0, known.length)]
        whole = content(known.length, 0)
        answers: list[Expected] = []
        for start, stop in missing:
            claimed = self.world.claim(known.id, (start, stop), process=self.world.processes[0])
            answers.append(claimed.done)
            self.world.advance(3.0)
            if claimed.holds:
                if RangeSet(session.ranges).missing(start, stop):
                    claimed.write(whole[start:stop])
                answers.append(claimed.finish_soon())
                self.world.advance(3.0)
                self.what_was_told_is_safe()
        progress = self.world.processes[0].engine.progress(known.id)
        self.hear(self.world.processes[0], progress)
        if progress.receipt is not None and progress.receipt.code == "exists":
            # An order that was repeated after the first one's upload was published and forgotten.
            assert sum(other.path == known.path for other in self.uploads.values()) > 1
            assert bytes(self.world.disk.links[known.path].file.live) != bytes(
                value for _, value in sorted(known.fixed.items())
            )
        else:
            assert progress.complete, f"not complete although all was sent: {progress}, {[a.result for a in answers]}"

    def check_space(self) -> None:
        """What is promised is what open uploads may still need."""
        for _ in range(2):  # the first may expire what another has just counted
            self.world.clock.advance(61.0)
            for process in self.world.processes:
                process.engine.sweep()
            self.world.run()
        opened = [session for session in self.world.sessions.sessions.values() if session.state == OPEN]
        for process in self.world.processes:
            assert process.pool.uploads == len(opened)
            assert process.pool.bytes == sum((session.length or 0) - session.received for session in opened)

    def check_tickets(self) -> None:
        published = sum(what.ticket and what.path in self.world.disk.links for what in self.creating)
        waiting = sum(
            session.state == OPEN and session.id not in self.uploads
            for session in self.world.sessions.sessions.values()
        )
        if self.exact and not waiting:
            assert self.world.tickets.get("ticket", 0) == published
        else:
            assert self.world.tickets.get("ticket", 0) >= published

    def check_nothing_is_left(self) -> None:
        """Two retention times later there is no trace but the files."""
        world = self.world
        for _ in range(4):
            # After a restart deadlines count by what the wall clock says.
            world.advance(self.jumped + DAY + 1)
            for process in world.processes:
                process.engine.sweep()
                world.advance(3.0)
        assert not world.sessions.sessions
        assert not [name for name, entry in world.disk.names.items() if not entry.removed], "a draft is left"
        for process in world.processes:
            assert process.pool.bytes == process.pool.uploads == 0
            assert not process.engine._uploads
        world.end()


class NeighboursMachine(EngineMachine):
    """Two servers on one storage folder."""

    servers = 2


class DeafNeighboursMachine(EngineMachine):
    """Two servers that cannot ask each other."""

    servers = 2

    @initialize(seed=st.integers(0, 1 << 30), hashing=st.booleans())
    def begin(self, seed: int, hashing: bool) -> None:
        super().begin(seed, hashing)
        self.world.deaf = True


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]
TestOneServer = EngineMachine.TestCase
TestTwoServers = NeighboursMachine.TestCase
TestDeafServers = DeafNeighboursMachine.TestCase
TestOneServer.settings = settings(
    max_examples=SOAK or 100, stateful_step_count=40 if SOAK else 12, deadline=None, suppress_health_check=CHECKS
)
TestTwoServers.settings = TestDeafServers.settings = settings(
    max_examples=SOAK or 60, stateful_step_count=40 if SOAK else 12, deadline=None, suppress_health_check=CHECKS
)
