"""Crashes at exact calls into the kernel: the server is killed, or its disk loses power, before the n-th of a kind.

First a whole upload is traced; then the same is done once for each of its calls, with a crash before it. After each
the server is started again, everything that the client had been told is asked for, the upload is brought to its end
and compared, and whatever lies in the store must be somebody's, and whole.
"""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from tests.crash.hatchery import HatchedServer, Hatchery
from tests.crash.killing import LossError
from tests.crash.one_upload import CHUNK_SIZE, OneUpload, RefusedError, check, losses, open_sessions, strangers
from tests.crash.syscalls import SYNCS, TURNS, Call, Note, Point, points
from tests.crash.volumes import Volume
from tests.faults.chunks import drafts
from tests.fixtures.child import wait_until
from tests.fixtures.server import Answer, Settings

from hmac_file_server.files.paths import PRIVATE

Make: TypeAlias = type[OneUpload]

KEPT: Final = 12
"""Finished uploads that are asked for again after each crash; the last ones."""


@dataclass(slots=True)
class Totals:
    """What was done."""

    points: int = 0
    crashes: int = 0
    restarts: int = 0
    missed: int = 0

    def __str__(self) -> str:
        """One line."""
        return f"{self.points} points, {self.crashes} crashes, {self.missed} points not met, {self.restarts} restarts"


@dataclass(frozen=True, slots=True)
class Suffered:
    """An upload, the first of its calls that failed, and the answer that its client got for it, if it was none."""

    upload: OneUpload
    hit: Note
    refused: Answer | None


class CrashRig:
    """One server, which is crashed and started again, and the uploads to it.

    `volume`: its files are on that file system, whose power may be cut. `alteration`: see `alterations`.
    """

    def __init__(self, folder: Path, hatchery: Hatchery, *, alteration: str = "", volume: Volume | None = None) -> None:
        self._volume = volume
        self._seeds = itertools.count()
        self.totals = Totals()
        self.watch = hatchery.watch
        self.uploads: list[OneUpload] = []
        self._digests: set[str] = set()
        place = folder / "files" if volume is None else volume.mount_point / "files"
        settings: Settings = {
            "server": {"storage_path": str(place)},
            "uploads": {"chunk_size": CHUNK_SIZE},
            "logging": {"level": "warning"},
        }
        self.server = HatchedServer(folder / "server", settings, hatchery, alteration=alteration)

    def __enter__(self) -> Self:
        volume = self._volume
        self.watch.look_at(self.server.storage, mounted_at=None if volume is None else volume.mount_point)
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watch.rest()
        if kind is None:
            self.server.stop()
        else:
            self.server.kill(judge=False)

    def new(self, make: Make, **options: int) -> OneUpload:
        """An upload of its own content."""
        upload = make(self.server, str(next(self._seeds)), **options)
        self.uploads = [*self.uploads[-KEPT:], upload]
        self._digests.add(upload.digest)
        return upload

    def trace(self, make: Make, **options: int) -> list[Note]:
        """The calls of one whole upload, in their order."""
        upload = self.new(make, **options)
        self.watch.begin()
        upload.go()
        self._settle(upload)
        notes = self.watch.notes()
        self.watch.rest()
        assert upload.stored()
        return notes

    def crash(self, make: Make, point: Point, *, cut: bool = False, **options: int) -> bool:
        """An upload during which the server dies at a point, and what becomes of it; whether the point was met.

        Raises LossError.
        """
        upload = self.new(make, **options)
        self.totals.points += 1
        self.watch.kill_at(point, cut=cut)
        met = self._run(upload)
        if met:
            self.totals.crashes += 1
            self._revive(cut=cut)
        else:
            self.totals.missed += 1
        self._judge(upload, f"a crash before {point} of {upload.seed!r}")
        return met

    def crash_again_and_again(self, make: Make, point: Point, **options: int) -> int:
        """A crash at a point, then one at each call between the start of the next server and the end of the upload.

        How many there were. Raises LossError.
        """
        upload = self.new(make, **options)
        self.watch.kill_at(point)
        crashes = 0
        if not self._run(upload):
            return 0
        for number in itertools.count(1):
            crashes += 1
            self.totals.restarts += 1
            self.watch.kill_at_any(number)
            self.server.launch()
            if self.server.came_up() and not self._run(upload):
                break
            assert self.server.exit_code() == -9
        self._judge(upload, f"{crashes} crashes in a row, the first before {point} of {upload.seed!r}")
        return crashes

    def suffer(self, make: Make, arm: Callable[[], None], *, meanwhile: bool = True, **options: int) -> Suffered | None:
        """An upload during which calls fail as `arm` says, until it is refused; None when none of its calls did.

        The fault is over when this returns; `meanwhile`: files are read before it is. Raises LossError when what was
        told is not so.
        """
        upload = self.new(make, **options)
        earlier = [each for each in self.uploads if each.complete][-2:]
        arm()
        self.totals.points += 1
        refused: Answer | None = None
        try:
            upload.go()
        except RefusedError as error:
            refused = error.answer
        hit = self.watch.hit() if self.watch.hits else None
        found = losses(earlier) if meanwhile else []
        self.watch.rest()
        assert not self.server.ended(), self.server.log_text()[-4000:]
        found += losses([*earlier, upload])
        if found:
            raise LossError(f"after a failed {hit} of {upload.seed!r}:\n" + "\n".join(found[:20]))
        return None if hit is None else Suffered(upload, hit, refused)

    def lose_power(self) -> None:
        """Cut the power of the disk and start again from what it has."""
        assert self._volume is not None
        self._volume.cut()
        self.server.kill(judge=False)
        self._revive(cut=True)

    def finish(self, upload: OneUpload, when: str) -> None:
        """Bring an upload to its end, from wherever it is, and look at everything. Raises LossError."""
        self._judge(upload, when)

    def _run(self, upload: OneUpload) -> bool:
        """Whether the server died of it, as it was told."""
        upload.run_until_gone()
        if not self.watch.hits and upload.complete:
            self._settle(upload)
        died = self.watch.hits > 0
        if died:
            assert self.server.exit_code() == -9
        else:
            self.watch.rest()
            assert not self.server.ended(), self.server.log_text()[-4000:]
            upload.go()
        return died

    def _settle(self, upload: OneUpload) -> None:
        """Until the server has nothing more to do for it; it may have answered before."""
        root = self.server.storage
        wait_until(lambda: self.watch.hits > 0 or not set(drafts(self.server)) - open_sessions(root), upload.seed)

    def _revive(self, *, cut: bool) -> None:
        self.watch.rest()
        if cut:
            self.remount()
        self.totals.restarts += 1
        self.server.start()

    def remount(self) -> None:
        """What the disk has after its power was cut."""
        volume = self._volume
        assert volume is not None

        def unmounted() -> bool:
            try:
                volume.unmount()
            except subprocess.CalledProcessError:
                return False
            return True

        wait_until(unmounted, "nothing uses the volume")
        volume.mount()

    def _judge(self, upload: OneUpload, when: str) -> None:
        found = losses(self.uploads)
        if not found:
            upload.go()
            upload.repeat()
            self._settle(upload)
            found = losses(self.uploads) + strangers(self.server.storage, self._digests)
            if not upload.stored():
                found.append(f"{upload.seed}: not what was uploaded")
        if found:
            raise LossError(f"after {when}:\n" + "\n".join(found[:20]))

    def check(self) -> None:
        """Have `fsck` look at the whole store. Raises LossError."""
        found = check(self.server.storage)
        if found:
            raise LossError("fsck:\n" + "\n".join(found[:20]))


def sample(notes: Sequence[Note], share: float, chance: random.Random) -> list[Point]:
    """Some of the points, among them every sync, link and unlink."""
    return [point for point in points(notes) if point.call in TURNS or chance.random() < share]


def unsynced(notes: Iterable[Note]) -> list[str]:
    """What had been written, or named, and was not synced yet when an answer was sent: an order of the calls alone.

    A sync of one file may take others' names along, on this file system and today. Nobody may rely on that.
    Left out are the second names of contents, which are made for deduplication and may be lost.
    """
    found = []
    dirty: set[str] = set()
    for note in notes:
        if note.name.startswith(f"/{PRIVATE}/blobs"):
            continue
        if note.call in {Call.WRITE, Call.PWRITE, Call.TRUNCATE, Call.COPY}:
            dirty.add(note.name)
        elif note.call in {Call.LINK, Call.MKDIR, Call.RENAME}:
            dirty.add(note.name.rpartition("/")[0])
        elif note.call in SYNCS:
            dirty.discard(note.name)
        elif note.call is Call.ANSWER:
            found += [f"{name or '/'} is not synced at an answer" for name in sorted(dirty)]
    return found


def crash_at_each(
    rig: CrashRig, make: Make, wanted: Iterable[Point], *, cut: bool = False, **options: int
) -> list[Point]:
    """A crash at each of the points; those that were not met. Raises LossError."""
    return [point for point in wanted if not rig.crash(make, point, cut=cut, **options)]
