"""Fifty at once for the last places: of a ticket's files, of an owner's sessions, of the disk (G-24, S-11, S-46).

Every race is for fewer places than there are runners. How many got one is counted at the client, and what the server
counts is asked for afterwards: it must have given neither one too many nor one too few, nor forget any in a crash.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin

from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer
from tests.load.asking import Told, at_once
from tests.server.signatures import bearer, ticket

RUNNERS: Final = 50
SESSIONS: Final = 20
RESERVE: Final = 1 << 20
_KINDS: Final = ("PUT", "chunked", "tus")
_BODY: Final = b"0123456789" * 100
# What the databases of the server may grow by while space is raced for.
_JOURNAL: Final = 8 << 20


def settings(processes: int) -> dict[str, dict[str, object]]:
    """Of a server for races."""
    return {
        "server": {"processes": processes, "min_free_bytes": RESERVE},
        "uploads": {"max_sessions_per_owner": SESSIONS},
        "logging": {"level": "warning"},
    }


@dataclass(slots=True)
class Tally:
    """What came of all races."""

    rounds: int = 0
    runners: int = 0
    given: int = 0
    refused: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    def note(self, answers: list[Told]) -> None:
        """Count the answers of a race."""
        self.rounds += 1
        self.runners += len(answers)
        for answer in answers:
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            if answer.status == 201:
                self.given += 1
            else:
                self.refused += 1

    def line(self) -> str:
        """One line of all."""
        return (
            f"{self.rounds} races of {RUNNERS}: {self.given} given, {self.refused} refused, statuses"
            f" {dict(sorted(self.statuses.items()))}; none too many, none too few, the same after SIGKILL"
        )


def request(kind: str, permission: str, folder: str, number: int, size: int = len(_BODY)) -> bytes:
    """One upload, or the beginning of one, of `size` bytes."""
    common = f"Host: t\r\nAuthorization: {permission}\r\n"
    if kind == "PUT":
        head = f"PUT /upload/{folder}/put-{number} HTTP/1.1\r\n{common}Content-Length: {len(_BODY)}\r\n\r\n"
        return head.encode() + _BODY
    if kind == "chunked":
        fields = f"X-Filename: chunked-{number}\r\nX-Total-Size: {size}\r\n"
        return f"POST /upload/chunked HTTP/1.1\r\n{common}{fields}Content-Length: 0\r\n\r\n".encode()
    fields = f"Tus-Resumable: 1.0.0\r\nUpload-Length: {size}\r\n"
    return f"POST /tus/ HTTP/1.1\r\n{common}{fields}Content-Length: 0\r\n\r\n".encode()


def permission_for(folder: str, **claims: object) -> str:
    """A ticket of its own, as a field's value."""
    return bearer(ticket(prefix=folder, ops=["put", "create"], **claims))["Authorization"]


def session_of(told: Told) -> str:
    """Where the upload of a 201 is, whatever protocol began it."""
    if told.body:
        return f"/tus/{json.loads(told.body)['session_id']}"
    return urljoin("/tus/", told.headers["location"])


def end(server: FileServer, sessions: list[str]) -> None:
    """Give up uploads."""
    for target in sessions:
        answer = server.request("DELETE", target, None, {"Tus-Resumable": "1.0.0"})
        assert answer.status == 204, (target, answer)


def race_for_files(server: FileServer, number: int, tally: Tally) -> None:
    """A ticket for a few files, asked for in three ways at once."""
    folder, places = f"files-{number}", 1 + number % 13
    permission = permission_for(folder, files=places)
    requests = [request(_KINDS[runner % 3], permission, folder, runner) for runner in range(RUNNERS)]
    answers = at_once(server, requests)
    tally.note(answers)
    for answer in answers:
        assert answer.status == 201 or json.loads(answer.body)["code"] == "ticket_used_up", answer
    given = [runner for runner, answer in enumerate(answers) if answer.status == 201]
    assert len(given) == places, f"{len(given)} of a ticket for {places}"
    stored = {runner for runner in given if runner % 3 == 0}
    assert stored == {runner for runner in range(RUNNERS) if (server.storage / folder / f"put-{runner}").exists()}
    # What is given up is free again, once: as many as were given up, and no more.
    sessions = [session_of(answers[runner]) for runner in given if runner % 3]
    end(server, sessions)
    again: list[Told] = []

    def others() -> bool:
        more = at_once(server, [request("PUT", permission, folder, 1000 + len(again) + runner) for runner in range(14)])
        again.extend(more)
        return sum(answer.status == 201 for answer in again) >= len(sessions)

    wait_until(others, "what was given up is free again")
    assert sum(answer.status == 201 for answer in again) == len(sessions)


def race_for_sessions(server: FileServer, number: int, tally: Tally) -> None:
    """More uploads begun at once than one owner may have unfinished."""
    permission = permission_for(f"sessions-{number}")
    requests = [request(_KINDS[1 + runner % 2], permission, "", runner) for runner in range(RUNNERS)]
    answers = at_once(server, requests)
    tally.note(answers)
    sessions = [session_of(answer) for answer in answers if answer.status == 201]
    assert {answer.status for answer in answers} == {201, 429}
    assert len(sessions) == SESSIONS
    end(server, sessions[: number % SESSIONS])
    more = at_once(server, [request("tus", permission, "", runner) for runner in range(RUNNERS)])
    tally.note(more)
    assert sum(answer.status == 201 for answer in more) == number % SESSIONS
    end(server, sessions[number % SESSIONS :] + [session_of(answer) for answer in more if answer.status == 201])


def free(server: FileServer) -> int:
    """Bytes that the file system would give to uploads."""
    found = os.statvfs(server.storage)
    return found.f_bavail * found.f_frsize - RESERVE


def race_for_space(server: FileServer, number: int, tally: Tally) -> None:
    """More bytes wanted at once than there are; the server must have the file system for itself."""
    permissions = [permission_for(f"space-{number}-{part}") for part in range(3)]
    places = 3 + number % 20
    size = (free(server) - _JOURNAL) // places
    requests = [request(_KINDS[1 + runner % 2], permissions[runner % 3], "", runner, size) for runner in range(RUNNERS)]
    answers = at_once(server, requests)
    tally.note(answers)
    assert {answer.status for answer in answers} == {201, 507}, {answer.status for answer in answers}
    sessions = [session_of(answer) for answer in answers if answer.status == 201]
    # Of two processes that want the last bytes in one moment both may be refused, and have them when they ask again.
    while len(sessions) < places:
        (told,) = at_once(server, [request("tus", permissions[number % 3], "", 0, size)])
        assert told.status == 201, told
        sessions.append(session_of(told))
    assert len(sessions) == places
    exactly(server, permissions[0], free(server) - places * size)
    end(server, sessions)


def exactly(server: FileServer, permission: str, left: int) -> None:
    """So many bytes can be promised, and not one more."""
    (over,) = at_once(server, [request("tus", permission, "", 0, left + 1)])
    assert over.status == 507, over
    # The refusal may have written a page; what is left is asked for as it is now.
    (told,) = at_once(server, [request("tus", permission, "", 0, left)])
    assert told.status == 201, told
    end(server, [session_of(told)])


def race(server: FileServer, rounds: int, *, space: bool) -> Tally:
    """So many races of each kind."""
    tally = Tally()
    for number in range(rounds):
        race_for_files(server, number, tally)
        race_for_sessions(server, number, tally)
        if space:
            race_for_space(server, number, tally)
    return tally


def crash(server: FileServer, *, space: bool) -> None:
    """SIGKILL with uploads begun, files stored and bytes promised: all of it counts as before afterwards."""
    folder, files, begun, stored, size = "crash", 17, 9, 5, 3 << 20
    permission = permission_for(folder, files=files)
    requests = [request("tus", permission, folder, number, size) for number in range(begun)]
    requests += [request("PUT", permission, folder, number) for number in range(stored)]
    answers = at_once(server, requests)
    assert [answer.status for answer in answers] == [201] * (begun + stored)
    sessions = [session_of(answer) for answer in answers[:begun]]
    assert server.child is not None
    server.child.process.kill()
    server.child.process.wait()
    server.child = None
    server.start()
    if space:
        exactly(server, permission_for("other"), free(server) - begun * size)
    left = files - begun - stored
    more = at_once(server, [request("PUT", permission, folder, 100 + number) for number in range(RUNNERS)])
    assert sum(answer.status == 201 for answer in more) == left
    end(server, sessions)
    again: list[Told] = []

    def others() -> bool:
        numbers = range(200 + len(again), 200 + len(again) + begun + 5)
        again.extend(at_once(server, [request("PUT", permission, folder, number) for number in numbers]))
        return sum(answer.status == 201 for answer in again) >= begun

    wait_until(others, "what was given up is free again")
    assert sum(answer.status == 201 for answer in again) == begun
