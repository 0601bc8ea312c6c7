"""What came of one run, and the file that keeps the outcomes of many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.errors import BenchError
from bench.switching.scenario import Scenario

FORMAT: Final = 1

DONE: Final = "done"
GAVE_UP: Final = "gave up"
NEVER: Final = "never"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One client, one server, one scenario. Seconds and bytes; only content of TCP counts, and no heads of packets.

    ended       "done", "gave up" (it ended by itself, without the file), or "never" (it was stopped)
    seconds     from its first packet to its word that it is done, or until it ended
    switches    links that died meanwhile
    sent, arrived, fresh, connections, joined   see `bench.switching.road.Traffic`
    reconnects  connections begun after the first link died
    stall       longest time without new bytes of the file
    equal       whether the server has the file; None when that cannot be seen
    progress    (seconds, fresh)
    busy        cores that everything on this machine together kept at work, on average
    words       the end of what the client complained of, when it is not done
    """

    client: str
    server: str
    scenario: str
    ended: str
    seconds: float
    switches: int
    sent: int
    arrived: int
    fresh: int
    connections: int
    joined: int
    reconnects: int
    stall: float
    equal: bool | None
    progress: Sequence[tuple[float, int]] = field(default_factory=tuple)
    busy: float = 0.0
    words: str = ""
    when: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """There is one outcome of each: scenario, client, server."""
        return (self.scenario, self.client, self.server)


@dataclass(frozen=True, slots=True)
class Twice:
    """What was sent beyond the file's bytes, a switch; the three parts add up to `total`.

    lost     it went on the air and did not come to the server
    repeated TCP sent it again although it had come
    content  the client sent it again, or it is a head of HTTP or a question about the status
    """

    total: float
    lost: float
    repeated: float
    content: float


def twice(outcome: Outcome, size: int) -> Twice | None:
    """Bytes sent twice a switch; None when the file is not there, or no link died."""
    if outcome.ended != DONE or not outcome.switches:
        return None
    parts = (outcome.sent - outcome.arrived, outcome.arrived - outcome.fresh, outcome.fresh - size)
    lost, repeated, content = (part / outcome.switches for part in parts)
    return Twice((outcome.sent - size) / outcome.switches, lost, repeated, content)


class Outcomes:
    """Outcomes by what they are of, in a file of JSON that is written anew with each."""

    def __init__(self, path: Path) -> None:
        """Read the file if it is there; raises BenchError for one that is no such file."""
        self.path = path
        self._found: dict[tuple[str, str, str], Outcome] = {}
        if path.exists():
            for outcome in parse(path.read_text(encoding="utf-8"), path.name):
                self._found[outcome.key] = outcome

    def get(self, scenario: Scenario, client: str, server: str) -> Outcome | None:
        """The outcome of a run that was made before."""
        return self._found.get((scenario.key, client, server))

    def put(self, outcome: Outcome) -> None:
        """Keep one, in place of an earlier one of the same."""
        self._found[outcome.key] = outcome
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(render(self._found.values()), encoding="utf-8")
        fresh.replace(self.path)

    def of(self, scenario: Scenario) -> list[Outcome]:
        """All of a scenario, in the order in which they were made first."""
        return [outcome for outcome in self._found.values() if outcome.scenario == scenario.key]


def render(outcomes: Iterable[Outcome]) -> str:
    """As JSON."""
    return json.dumps({"format": FORMAT, "outcomes": [asdict(outcome) for outcome in outcomes]}, indent=1)


def parse(text: str, name: str) -> list[Outcome]:
    """Parse what `render` wrote; raises BenchError for anything else."""
    try:
        tree: dict[str, Any] = json.loads(text)
        if tree["format"] != FORMAT:
            raise BenchError(f"{name}: format {tree['format']} is not {FORMAT}")
        return [
            Outcome(**{**one, "progress": tuple((float(when), int(what)) for when, what in one["progress"])})
            for one in tree["outcomes"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{name}: not the outcomes of bench.switch: {error!r}") from error
