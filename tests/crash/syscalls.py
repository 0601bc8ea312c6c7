"""Calls of a server into the kernel, counted and altered: killed at one of them, failed, cut from its disk.

A library of ours (`syscalls.c`) is loaded into the server by LD_PRELOAD and shares a block of memory with the
test. Which calls count, and what is to happen at which, can be set at any moment, without a pause of the server.
The same library moves the server's wall clock, and nothing else of it.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import mmap
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fixtures.child import program

_SOURCE: Final = Path(__file__).with_suffix(".c")
_NOTES: Final = 8192
_FOREVER: Final = 1 << 62


class Call(enum.IntEnum):
    """What is counted; the members are those of `enum call` in syscalls.c."""

    OPEN = 0
    WRITE = 1
    PWRITE = 2
    FDATASYNC = 3
    FSYNC = 4
    LINK = 5
    UNLINK = 6
    MKDIR = 7
    TRUNCATE = 8
    RENAME = 9
    COPY = 10
    ANSWER = 11


ALL: Final = tuple(Call)
SYNCS: Final = (Call.FDATASYNC, Call.FSYNC)
TURNS: Final = (Call.FDATASYNC, Call.FSYNC, Call.LINK, Call.UNLINK)
"""The calls that matter most: a sample of points has all of them."""
GROWING: Final = (Call.WRITE, Call.PWRITE, Call.LINK, Call.MKDIR, Call.TRUNCATE, Call.RENAME, Call.COPY)
"""Calls for which a disk may lack space."""


class Action(enum.IntEnum):
    """What happens; the members are those of `enum action` in syscalls.c. `SHORT`: half is written."""

    NOTHING = 0
    KILL = 1
    CUT = 2
    FAIL = 3
    SHORT = 4


class _Note(ctypes.Structure):
    _fields_ = (("call", ctypes.c_int32), ("name", ctypes.c_char * 120))


class _Block(ctypes.Structure):
    _fields_ = (
        ("root", ctypes.c_char * 256),
        ("mount", ctypes.c_char * 256),
        ("offset", ctypes.c_int64),
        ("watching", ctypes.c_int64),
        ("action", ctypes.c_int64),
        ("mask", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("error", ctypes.c_int64),
        ("seen", ctypes.c_int64),
        ("hits", ctypes.c_int64),
        ("noted", ctypes.c_int64),
        ("notes", _Note * _NOTES),
    )


@dataclass(frozen=True, slots=True)
class Note:
    """One call, and the file that it was about, below the watched folder."""

    call: Call
    name: str

    def __str__(self) -> str:
        """As in a message of a test."""
        return f"{self.call.name.lower()} {self.name or '/'}"


@dataclass(frozen=True, slots=True)
class Point:
    """Before the `number`-th call of its kind; 1 is the first."""

    call: Call
    number: int

    def __str__(self) -> str:
        """As in a message of a test."""
        return f"{self.call.name.lower()} {self.number}"


def points(notes: Iterable[Note]) -> list[Point]:
    """Every point of what was noted, in its order."""
    counts: dict[Call, int] = {}
    found = []
    for note in notes:
        counts[note.call] = counts.get(note.call, 0) + 1
        found.append(Point(note.call, counts[note.call]))
    return found


def build(folder: Path) -> Path:
    """Compile the library into a folder; its path."""
    library = folder / "syscalls.so"
    if not library.exists():
        compiler = program("gcc", "gcc, libc6-dev")
        made = folder / f"syscalls-{os.getpid()}.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(_SOURCE)], check=True)
        made.rename(library)
    return library


class Watch:
    """What the library is told, and what it tells. For the servers that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        """Make the block of memory, and the library, in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._library = build(folder)
        self._file = folder / "block"
        with self._file.open("w+b") as file:
            file.truncate(ctypes.sizeof(_Block))
            self._memory = mmap.mmap(file.fileno(), ctypes.sizeof(_Block))
        self._block = _Block.from_buffer(self._memory)

    @property
    def environment(self) -> Mapping[str, str]:
        """What has a process be watched, and its children."""
        return {"LD_PRELOAD": str(self._library), "SYSCALLS_BLOCK": str(self._file)}

    def look_at(self, root: Path, *, mounted_at: Path | None = None) -> None:
        """Count calls on what is in a folder; of the file system mounted there the power may be cut."""
        self.rest()
        self._block.root = os.fsencode(root)
        self._block.mount = b"" if mounted_at is None else os.fsencode(mounted_at)

    def rest(self) -> None:
        """From here on nothing is counted, and nothing happens; there were no hits."""
        self._block.action = Action.NOTHING
        self._block.watching = 0
        self._block.hits = 0

    def begin(self) -> None:
        """Count and note from here on; nothing happens."""
        self._set(Action.NOTHING, ALL, _FOREVER, _FOREVER)

    def kill_at(self, point: Point, *, cut: bool = False) -> None:
        """Have the process killed before that call, counted from here on; `cut`: with the power of its disk."""
        self._set(Action.CUT if cut else Action.KILL, (point.call,), point.number, _FOREVER)

    def kill_at_any(self, number: int) -> None:
        """Have the process killed before the `number`-th of all calls."""
        self._set(Action.KILL, ALL, number, _FOREVER)

    def fail_at(
        self, calls: Iterable[Call], first: int, *, last: int | None = None, error: int = errno.EIO, short: bool = False
    ) -> None:
        """Fail those calls from the `first` to the `last` one (only the first if not given), or let them do half."""
        action = Action.SHORT if short else Action.FAIL
        self._set(action, calls, first, first if last is None else last, error)

    def fail_all(self, calls: Iterable[Call], error: int, *, first: int = 1) -> None:
        """Fail all of those calls from the `first` one on, until something else is said."""
        self._set(Action.FAIL, calls, first, _FOREVER, error)

    def _set(self, action: Action, calls: Iterable[Call], first: int, last: int, error: int = 0) -> None:
        block = self._block
        block.action = Action.NOTHING
        block.mask = sum(1 << call for call in set(calls))
        block.first, block.last, block.error = first, last, error
        block.seen = block.hits = block.noted = 0
        block.action = action
        block.watching = 1

    @property
    def seen(self) -> int:
        """How many of the calls asked for there were."""
        return int(self._block.seen)

    @property
    def hits(self) -> int:
        """How often it happened."""
        return int(self._block.hits)

    def hit(self) -> Note:
        """The first call at which it happened. Only for calls that fail: of a kill there is no note to be sure of."""
        first = int(self._block.first)
        mask = int(self._block.mask)
        return [note for note in self.notes() if mask & 1 << note.call][first - 1]

    def notes(self) -> list[Note]:
        """The calls since it was last said what should happen, in their order."""
        count = int(self._block.noted)
        assert count <= _NOTES, f"{count} calls are more than can be noted"
        return [
            Note(Call(note.call), note.name.decode(errors="replace"))
            for note in (self._block.notes[index] for index in range(count))
        ]

    @contextmanager
    def clock_moved(self, seconds: int) -> Iterator[None]:
        """Meanwhile the wall clock of the processes is wrong by so many seconds."""
        self._block.offset = seconds
        try:
            yield
        finally:
            self._block.offset = 0
