"""Record a server at work, cut the power at many places of the record, and audit what each cut leaves."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.crash.altered import AlteredServer
from tests.crash.block_log import BlockLog, Cut, Recorder, Replay, recorded
from tests.crash.cutting import end
from tests.crash.disk_audit import audit
from tests.crash.volumes import below, mount, unmount
from tests.crash.witnesses import Fact, Witnesses, body_of, resume
from tests.fixtures.server import FileServer, Settings

_MEMORY: Final = Path("/dev/shm")
_STORE: Final = "store"

Tell = Callable[[int], None]
"""Called after every cut with the number of cuts until then."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a server wrote while its clients were told things.

    `begin` and `end`: number of records when the server was ready, and when the clients had ended.
    """

    recorder: Recorder
    log: BlockLog
    facts: tuple[Fact, ...]
    begin: int
    end: int


def settings(mount_point: Path, **server: object) -> Settings:
    """Of a server that is recorded, and of one that is started on the disk of a cut."""
    return {
        "server": {"storage_path": str(mount_point / _STORE), **server},
        "uploads": {"chunk_size": "64KB", "durability": "full"},
        "logging": {"level": "warning"},
    }


def record(folder: Path, *, seed: str, facts: int, alteration: str = "", processes: int = 1) -> Recording:
    """Let a server work until its clients were told so many things. Raises NoVolumeError, AssertionError."""
    with recorded(folder) as recorder:
        chosen = settings(recorder.mount_point, processes=processes)
        server = (
            AlteredServer(folder / "server", chosen, alteration)
            if alteration
            else FileServer(folder / "server", chosen)
        )
        server.start()
        try:
            begin = recorder.length()
            witnesses = Witnesses(server, recorder.length, seed=seed)
            with witnesses.working():
                witnesses.wait(facts)
            rested = recorder.length()
            assert not witnesses.faults, witnesses.faults
        finally:
            end(server)
    log = BlockLog(recorder.log)
    return Recording(recorder, log, tuple(witnesses.facts), log.count(begin), log.count(rested))


def replay(
    recording: Recording, cuts: Sequence[Cut], *, started: Collection[int] = (), tell: Tell | None = None
) -> list[str]:
    """What is wrong after each cut; the numbers `started` are those after which a server is started.

    Cuts are in the order of the log.
    """
    lost: list[str] = []
    rebuilt = Replay(recording.recorder, recording.log)
    with (
        tempfile.TemporaryDirectory(prefix="cut-", dir=_MEMORY if _MEMORY.is_dir() else None) as work,
        below(Path(work)),
    ):
        folder = Path(work)
        mount_point = folder / "mounted"
        mount_point.mkdir()
        for index, cut in enumerate(cuts):
            disk = folder / f"disk-{index}"
            rebuilt.make(cut, disk)
            told = recording.log.length(cut.count)
            found: list[str] = []
            try:
                with _mounted(disk, mount_point):
                    if index in started:
                        # Not audited before: the databases would not be as the cut left them.
                        found += _start(folder / f"server-{index}", mount_point, recording.facts, told)
                    else:
                        found += audit(mount_point / _STORE, recording.facts, told)
                if index in started:
                    found += _check(disk)
            except subprocess.CalledProcessError as error:
                found.append(f"{error}: {error.stderr!r}")
            disk.unlink()
            lost += [f"{cut}: {each}" for each in found]
            if tell is not None:
                tell(index + 1)
    return lost


@contextlib.contextmanager
def _mounted(disk: Path, mount_point: Path) -> Iterator[None]:
    """The journal is replayed by this."""
    mount(disk, mount_point)
    try:
        yield
    finally:
        unmount(disk, mount_point)


def _check(disk: Path) -> list[str]:
    """What is wrong with the file system itself."""
    done = subprocess.run(["e2fsck", "-f", "-n", str(disk)], check=False, capture_output=True, text=True)
    return [f"e2fsck: {done.stdout[-500:]}"] if done.returncode else []


def _start(folder: Path, mount_point: Path, facts: Sequence[Fact], told: int) -> list[str]:
    """Start a server on the disk and bring all that is open to its end; what is wrong then."""
    known = [fact for fact in facts if fact.mark <= told]
    server = FileServer(folder, settings(mount_point))
    server.start()
    try:
        lost = resume(server, known)
    finally:
        server.stop()
    whole = [
        replace(fact, spans=((0, len(body_of(fact.name))),) if fact.session else (), complete=True) for fact in known
    ]
    return lost + audit(mount_point / _STORE, [*whole, *(fact for fact in facts if fact.mark > told)], told)
