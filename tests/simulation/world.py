"""A whole world out of one seed: servers on one disk, devices, a bad network, deaths; then calm, and the reckoning.

`simulate(seed)` plays it and raises `Violation` with the seed when a rule of `judge` was broken. Everything is drawn
from the seed, in one order, so the same seed is the same run, in any process.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final
from unittest import mock

from tests.simulation.devices import CHUNK, PROTOCOLS, Device, Goal, Life, remover
from tests.simulation.judge import Judge, Violation
from tests.simulation.medium import Crash, Medium
from tests.simulation.network import NOTHING, Answer, Ask, Conversation, Fault
from tests.simulation.schedule import Schedule
from tests.simulation.server import SECRET, Server

from hmac_file_server.auth import signing
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import StorageError
from hmac_file_server.stores.contract import OPEN, StoreError
from hmac_file_server.uploads import engine

STEPS: Final = 250
_CALM_STEPS: Final = 60_000
_DAY: Final = 86400.0
_TICKET: Final = "ticket"
_FILES: Final = 4
_LENGTHS: Final = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 3, 5 * CHUNK, 7 * CHUNK, 9 * CHUNK)
_FAULTS: Final = ("cut", "cut", "slow", "slow", "silent", "lost answer", "late")
_CROWDED: Final = ("cut", "slow", "slow", "slow", "late")
_worlds = itertools.count()


@dataclass(frozen=True)
class Run:
    """What became of a seed."""

    seed: int
    steps: int
    answers: int
    crashes: int
    complete: int
    digest: str


class World:
    """See the module."""

    def __init__(self, seed: int, *, keep: list[str] | None = None) -> None:
        self.seed = seed
        self.schedule = Schedule(seed, keep=keep)
        chance = self.chance = self.schedule.chance
        self.medium = Medium(self.schedule.clock.time, f"world-{next(_worlds)}")
        self.judge = Judge(self)
        self.medium.published = self.judge.published
        # ---- what kind of a world it is
        self.dedup = chance.random() < 0.4
        self.held = 1000 if chance.random() < 0.7 else 1
        self.deaf = chance.random() < 0.2
        self.contested = chance.random() < 0.35
        self.crossing = chance.random() < 0.4
        self.faulty = chance.random() < 0.25
        self.deadly = chance.random() < 0.7
        self.rough = chance.choice([0.1, 0.3, 0.6, 0.8])
        self.slow = chance.choice([0.0, 0.05, 0.3])
        self.crowded = chance.random() < 0.3
        """A few long uploads, and several devices at each of them on slow connections."""
        count = 2 if chance.random() < 0.4 else 1
        settings = Settings()
        self.settings = replace(
            settings,
            uploads=replace(settings.uploads, chunk_size=CHUNK, max_resumable_age=_DAY, max_sessions_per_owner=40),
        )
        # ---- how it stands
        self.quiet = False
        self.may_sweep = True
        self.jumped = 0.0
        self.lenient = False
        """Times are such that uploads may expire that have just been begun."""
        self.crashes = 0
        self.exact = True
        self._crashed_now = False
        self._crash_in: tuple[int, bool] | None = None
        self._faults: dict[str, int] = {}
        self._watching: list[tuple[Server, Callable[[], None]]] = []
        self.goals: list[Goal] = []
        self.servers: list[Server] = [Server(self, f"server-{number}") for number in range(count)]
        self._populate()
        self._disturbances = chance.randint(1, 5)
        if self.deadly:
            self.schedule.after(3.0 * chance.random(), None, "something", self._disturb)

    # ---- what it is made of

    def _populate(self) -> None:
        chance = self.chance
        ticket = signing.ticket(
            SECRET, {"prefix": "", "exp": 9_000_000_000, "files": _FILES, "jti": _TICKET, "ops": ["create", "chunk"]}
        ).encode()
        for number in range(chance.randint(1, 2) if self.crowded else chance.randint(2, 5)):
            protocol = chance.choice(PROTOCOLS if self.crowded else (*PROTOCOLS, "put"))
            goal = Goal(
                number,
                protocol,
                chance.choice(_LENGTHS[-3:] if self.crowded else _LENGTHS),
                b"key-%d" % number if chance.random() < 0.5 else None,
                chance.choice((None, 3, 4, 5, 6, 7, 8, 9)),
                deferred=protocol in {"tus", "draft"} and chance.random() < 0.25 and not self.crossing,
                ticket=ticket if chance.random() < 0.3 and protocol != "put" else None,
            )
            self.goals.append(goal)
            self.play(self._device(goal), chance.random())
            others = chance.randint(1, 3) if self.crowded else chance.randint(0, 2 if self.contested else 1)
            for _ in range(others):
                rogue = self.contested and protocol != "put" and chance.random() < 0.5
                self.play(self._device(goal, variant=int(rogue)), 2.0 * chance.random())
            if chance.random() < 0.1:
                self.start(remover(goal, self.pick, 3.0 * chance.random()))

    def _device(self, goal: Goal, variant: int = 0) -> Device:
        # What is not known to be long enough for a chunk cannot be gone on with in the chunk API.
        return Device(goal, self.pick, variant, cross=self.crossing and goal.protocol != "put" and not goal.deferred)

    def pick(self, count: int) -> int:
        """One of so many."""
        return int(self.chance.random() * count)

    def play(self, device: Device, delay: float) -> None:
        """Let a device begin."""
        self.schedule.after(delay, None, "device", lambda: self.start(device.live()))

    def start(self, life: Life) -> None:
        """Let a device live."""

        def resume(answer: Answer | None) -> None:
            try:
                wish = life.send(answer)
            except StopIteration:
                return
            if isinstance(wish, Ask):
                self._send(wish, resume)
            else:
                self.schedule.after(wish, None, "pause", lambda: resume(None))

        resume(None)

    def _send(self, ask: Ask, heard: Callable[[Answer | None], None]) -> None:
        chance = self.chance
        server = self.servers[self.pick(len(self.servers))]
        fault = NOTHING
        if not self.quiet and chance.random() < self.rough:
            kind = chance.choice(_CROWDED if self.crowded and ask.body else _FAULTS)
            fault = Fault("lost answer" if kind in {"cut", "slow"} and not ask.body else kind, chance.randint(0, 4))
        self.schedule.note(f"{ask.label} to {server.name}, {fault.kind}")
        Conversation(self, server, ask, fault, heard).begin()
        if not self.quiet and chance.random() < 0.06:
            # Some middle box, or the device itself, sends it once more; nobody listens to the answer.
            Conversation(self, self.servers[self.pick(len(self.servers))], ask, Fault("late"), _deaf).begin()

    def watch(self, server: Server, lost: Callable[[], None]) -> None:
        """Call when the server dies."""
        self._watching.append((server, lost))

    # ---- how long things take

    def latency(self) -> float:
        """Of a packet."""
        chance = self.chance
        if not self.quiet and chance.random() < 0.03:
            return chance.random() * 2.0
        return 0.001 + chance.random() * 0.03

    def pause(self) -> float:
        """Until a thread gets to its work, and has done it."""
        chance = self.chance
        if not self.quiet and chance.random() < self.slow:
            return chance.random() * 0.8
        return chance.random() * 0.002

    # ---- faults and deaths

    def take_fault(self, what: str) -> bool:
        """Whether the next such thing fails."""
        left = self._faults.get(what, 0)
        if left:
            self._faults[what] = left - 1
            self.exact = False
        return left > 0

    def before(self, server: Server, call: str) -> None:
        """A process is about to change something on the disk."""
        if self._crash_in is not None:
            left, power = self._crash_in
            self._crash_in = (left - 1, power)
            if left <= 0:
                self._crash_in = None
                self.crash(server, power=power)
                raise Crash
        if self._faults and self.take_fault(call):
            raise OSError(28 if call == "pwrite" else 5, "injected")

    def _disturb(self) -> None:
        """Something happens that is not of the network."""
        if self.quiet or not self._disturbances:
            return
        self._disturbances -= 1
        chance = self.chance
        roll = chance.random()
        if roll < 0.45:
            self._crash_in = (chance.randint(0, 12), chance.random() < 0.5)
        elif roll < 0.7:
            alive = [server for server in self.servers if server.alive]
            if alive:
                self.crash(chance.choice(alive), power=chance.random() < 0.5)
        elif roll < 0.8:
            self.schedule.clock.wall += chance.choice((-10, 10)) * _DAY
            self.jumped += 10 * _DAY
            self.exact = False
        elif roll < 0.9 and self.faulty:
            self._faults[chance.choice(("fdatasync", "pwrite", "commit", "unanswered commit"))] = 1
        elif roll < 0.93:
            # Nobody has come for as long as a session lives.
            self.schedule.clock.steady += _DAY + 60.0
            self.schedule.clock.wall += _DAY + 60.0
            self._all_may_end()
            # Of what is being begun at this moment the time is over as well.
            self.lenient = True
            self.schedule.after(60.0, None, "nothing expires", self._be_strict)
        self.schedule.after(0.5 + 4.0 * chance.random(), None, "something", self._disturb)

    def _be_strict(self) -> None:
        self.lenient = self.skewed

    @property
    def skewed(self) -> bool:
        """Servers that differ by days expire each other's uploads."""
        return bool(self.jumped) and len(self.servers) > 1

    def _all_may_end(self) -> None:
        self.exact = False
        for known in self.judge.known.values():
            known.may_end = True

    def crash(self, server: Server, *, power: bool) -> None:
        """SIGKILL of one server, or no power for all of them."""
        self.crashes += 1
        self.exact = False
        self._crashed_now = True
        dying = [each for each in (*self.servers, server) if each.alive] if power else [server]
        self.schedule.note(f"{'power cut' if power else 'killed'} {' '.join(each.name for each in dying)}")
        for each in dying:
            each.die()
        if power:
            self.medium.power_cut(self.chance)
            self.judge.after_cut()
        watching, self._watching = self._watching, []
        for watched, lost in watching:
            if watched.alive:
                self._watching.append((watched, lost))
            else:
                lost()
        for each in {each.name: each for each in dying}.values():
            self._restart_soon(each.name)

    def _restart_soon(self, name: str) -> None:
        self.schedule.after(0.05 + self.chance.random(), None, f"start {name}", lambda: self._restart(name))

    def _restart(self, name: str) -> None:
        number = next(number for number, server in enumerate(self.servers) if server.name == name)
        if self.servers[number].alive:
            return
        if self.jumped:
            # Who starts anew believes the wall clock.
            self._all_may_end()
            self.lenient = self.lenient or self.skewed
        with suppress(Crash):  # which arranges for another start
            self.servers[number] = Server(self, name)

    # ---- the run

    def _step(self, until: float) -> bool:
        self._crashed_now = False
        try:
            happened = self.schedule.step(until)
        except Crash:
            happened = True
        except Exception:
            # What a process that is dying stumbles over, nobody sees.
            if not self._crashed_now:
                raise
            happened = True
        self.judge.check()
        return happened

    def run(self, steps: int = STEPS) -> Run:
        """All of it. Raises Violation."""
        first = self.schedule.steps
        while self.schedule.steps - first < steps and not all(goal.ended for goal in self.goals):
            self._step(float("inf"))
        self._calm()
        self._finish_uploads()
        complete = sum(goal.complete for goal in self.goals)
        self._reckon()
        schedule = self.schedule
        return Run(
            self.seed,
            schedule.steps,
            self.judge.answers,
            self.crashes,
            complete,
            schedule.digest,
        )

    def _pass(self, seconds: float) -> None:
        until = self.schedule.clock.steady + seconds
        for _ in range(_CALM_STEPS):
            if not self._step(until):
                self.schedule.clock.wall += max(0.0, until - self.schedule.clock.steady)
                self.schedule.clock.steady = max(self.schedule.clock.steady, until)
                return
        raise Violation("it goes on for ever")

    def _calm(self) -> None:
        """The network heals, the disk as well, and everybody is there again."""
        self.schedule.note("calm")
        self.quiet = True
        self._crash_in = None
        self._faults.clear()
        self._pass(3.0)
        if self.faulty:
            # A store whose disk failed twice takes nothing until it is started anew.
            for server in self.servers:
                self.crash(server, power=False)
            self._pass(3.0)
        self._pass(45.0)

    def _finish_uploads(self) -> None:
        """Whatever happened: who sends what is missing gets it done."""
        for goal in self.goals:
            if goal.ended:
                continue
            goal.received = ()
            self.start(Device(goal, self.pick, cross=False, patience=40).live())
        self._pass(60.0)
        for goal in self.goals:
            known = self.judge.known.get(goal.lost if goal.over else goal.id)
            if goal.over in {"removed", "ticket_used_up"}:
                continue
            if goal.over and (known is None or known.told) and not (known is None or known.may_end):
                raise Violation(f"upload {goal.number} of {goal.protocol} ended: {goal.over}")
            if not goal.ended and not (goal.over == "" and known is not None and known.may_end):
                raise Violation(f"upload {goal.number} {goal} cannot be finished")

    def _reckon(self) -> None:
        """Nothing is left but the files, and every promise was kept."""
        self._check_space()
        if self.exact and not self.faulty:
            self._check_tickets()
        files = {path: bytes(node.live) for path, node in self.medium.files()}
        self.may_sweep = True
        for _ in range(4):
            # After a restart deadlines count by what the wall clock says.
            self.schedule.clock.steady += self.jumped + _DAY + 61.0
            self.schedule.clock.wall += self.jumped + _DAY + 61.0
            self._all_may_end()
            for server in self.servers:
                self._sweep(server)
            self._pass(5.0)
        store = self.servers[0].store
        left = [row[0] for row in store._writer.execute("SELECT id FROM uploads")]
        if left:
            raise Violation(f"sessions are left: {left}")
        if self.medium.drafts():
            raise Violation(f"drafts are left: {self.medium.drafts()}")
        for server in self.servers:
            if server.promised() != (0, 0):
                raise Violation(f"{server.name} still promises {server.promised()}")
            if server.engine.transfers:
                raise Violation(f"{server.engine.transfers} transfers are left")
        if files != {path: bytes(node.live) for path, node in self.medium.files()}:
            raise Violation("published files have changed, or have gone")

    def _sweep(self, server: Server) -> None:
        try:
            server.engine.sweep()
        except (StoreError, StorageError) as error:
            raise Violation(f"the sweep fails: {error!r}") from error

    def _check_space(self) -> None:
        for _ in range(2):
            self.schedule.clock.steady += 61.0
            self.schedule.clock.wall += 61.0
            for server in self.servers:
                self._sweep(server)
            self._pass(3.0)
        outstanding = list(self.servers[0].store.outstanding())
        wanted = (sum(length - received for _, length, received in outstanding), len(outstanding))
        for server in self.servers:
            # Uploads of unknown length are promised more than they need yet.
            deferred = any(goal.deferred for goal in self.goals)
            found = server.promised()
            if found[1] != wanted[1] or (found[0] != wanted[0] and not deferred):
                raise Violation(f"{server.name} promises {found}, open uploads need {wanted}")

    def _check_tickets(self) -> None:
        """A ticket has as many uses as files of it are there, or may yet come."""
        table = self.servers[0].files.metadata
        row = table._reader().execute("SELECT used FROM tickets WHERE id = ?", (_TICKET,)).fetchone()
        used = 0 if row is None else int(row[0])
        published = len(table.select("ticket = ?", (_TICKET,)))
        waiting = 0
        store = self.servers[0].store
        for upload_id in store.open_ids():
            session = store.get(upload_id)
            if session is not None and session.state == OPEN and session.owner == f"ticket:{_TICKET}":
                waiting += 1
        removed = sum(known.removed for known in self.judge.known.values())
        if not published + waiting <= used <= published + waiting + removed:
            raise Violation(f"{used} uses of the ticket, {published} files and {waiting} uploads")

    def close(self) -> None:
        """Let go of the databases."""
        for server in self.servers:
            if server.alive:
                server.die()
        self.medium.close()


def _deaf(_answer: Answer | None) -> None:
    """Nobody listens."""


@contextmanager
def small_steps() -> Iterator[None]:
    """Have the engine do after a few bytes what it does after megabytes."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(engine, "CHECKPOINT_BYTES", 5))
        patches.enter_context(mock.patch.object(engine, "_READ", 4))
        # What lies in cycles would be closed whenever the collector comes by.
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


def simulate(seed: int, *, steps: int = STEPS, keep: list[str] | None = None) -> Run:
    """Play a seed; `keep` gets what happens, line by line. Raises Violation."""
    with small_steps():
        world = None
        try:
            world = World(seed, keep=keep)
            return world.run(steps)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            if world is not None:
                world.close()
