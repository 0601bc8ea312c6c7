"""What a client remembers of unfinished uploads, so that the same upload goes on after a crash or a reboot.

One file per upload, `<key>.json`, readable by its owner alone, in `$XDG_STATE_HOME/hmac-file-server/uploads` (by
default below `~/.local/state`). A session's id or URL is in it, which continues the upload; no secret, no ticket.
A file that cannot be read, is damaged or of another version counts as none, and is replaced.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

VERSION: Final = 1
LIFETIME: Final = 30 * 86400.0
"""Seconds after which an entry that says nothing of its own end is swept away."""

_LARGEST: Final = 1 << 20
# Seconds after which a lock that nobody holds, or half an entry, was left by a crash.
_LEFT: Final = 86400.0
# How often, and after how many seconds, a lock is tried again that a sweep may have for a moment.
_TRIES: Final = 5
_PAUSE: Final = 0.01
_SUFFIX: Final = ".json"
_LOCK: Final = ".lock"
_NEW: Final = ".new"


class UploadHeld(Exception):  # noqa: N818 - says what is so
    """Another run, of process `pid` (0: unknown), is uploading the same file to the same place."""

    def __init__(self, pid: int) -> None:
        who = f" (process {pid})" if pid else ""
        super().__init__(f"this upload is already running{who}")
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What makes two runs the same upload.

    A file that was written to since has another `mtime_ns`, one that was replaced another `inode`: both are new
    uploads. `target` is the server's base URL without anything secret; `name` what the file is to be called there.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int
    target: str
    protocol: str
    name: str = ""

    @classmethod
    def of(cls, path: str | os.PathLike[str], status: os.stat_result, target: str, protocol: str, name: str) -> Self:
        """That of a file whose `os.fstat` is given."""
        where = os.path.realpath(path)
        return cls(where, status.st_size, status.st_mtime_ns, status.st_ino, target, protocol, name)

    @property
    def key(self) -> str:
        """32 hexadecimal digits: the name of its state file."""
        fields = (self.path, self.size, self.mtime_ns, self.inode, self.target, self.protocol, self.name)
        text = json.dumps(fields, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of one upload.

    session   what the protocol needs to go on: JSON values by name
    expires   epoch seconds from which the server will not know it any more; None: it did not say
    """

    session: Mapping[str, Any]
    expires: float | None = None


class StateStore:
    """The folder of the entries. Without a folder that can be written, everything works and nothing is remembered."""

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        forget: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is made when it is first needed; None: `default_folder()`. `forget`: see below.

        `clock` tells epoch seconds.
        """
        self.folder = default_folder() if folder is None else Path(folder)
        self.forget = forget
        """Whether what earlier runs left of an upload is forgotten as soon as it is held."""
        self._clock = clock
        self.problem: str | None = None
        """Why nothing is remembered, for people; None while all is well."""

    def hold(self, fingerprint: Fingerprint) -> "HeldEntry":
        """Take an upload for this process until the result is closed. Raises UploadHeld when another one has it."""
        key = fingerprint.key
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._lock(key)
        except OSError as error:
            self._failed(error)
            return HeldEntry(self, fingerprint, None)
        held = HeldEntry(self, fingerprint, lock)
        if self.forget:
            held.delete()
        return held

    def sweep(self) -> int:
        """Remove what has expired and what crashes left behind, unless a run has it. Returns how many uploads."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return 0
        keys = {name.partition(".")[0] for name in names if name.endswith((_SUFFIX, _LOCK, _NEW))}
        swept = 0
        for key in keys:
            # Only what is to go is locked: a run that begins at this moment must not take this for another run.
            if len(key) != 32 or not key.isalnum() or not (self._outlived(key) or self._abandoned(key)):
                continue
            with contextlib.suppress(OSError, UploadHeld):
                lock = self._lock(key)
                try:
                    if self._outlived(key):
                        swept += self._unlink(key + _SUFFIX)
                    if self._age(key + _SUFFIX) is None:
                        self._unlink(key + _NEW)
                    self._unlink(key + _LOCK)
                finally:
                    os.close(lock)
        return swept

    def _outlived(self, key: str) -> bool:
        """Whether there is an entry that nobody will need."""
        entry, written = self._read(key)
        if entry is not None:
            return self._clock() >= _end(entry, written)
        # Perhaps a later version can read it.
        age = self._age(key + _SUFFIX)
        return age is not None and age >= LIFETIME

    def _abandoned(self, key: str) -> bool:
        """Whether there is no entry, but what was left by a crash."""
        if self._age(key + _SUFFIX) is not None:
            return False
        ages = [self._age(key + suffix) for suffix in (_NEW, _LOCK)]
        return all(age is None or age >= _LEFT for age in ages)

    def _age(self, name: str) -> float | None:
        try:
            return self._clock() - os.stat(self.folder / name, follow_symlinks=False).st_mtime
        except OSError:
            return None

    # ---- of held entries

    def _lock(self, key: str) -> int:
        """An open file with the lock on this key. Raises UploadHeld, OSError."""
        path = self.folder / (key + _LOCK)
        tries = 0
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it before may have removed the file in between: then this lock keeps nobody out.
                if _same(lock, path):
                    os.truncate(lock, 0)
                    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
                    taken, lock = lock, -1
                    return taken
            except BlockingIOError:
                tries += 1
                if tries == _TRIES:
                    raise UploadHeld(_pid(lock)) from None
                time.sleep(_PAUSE)
            finally:
                if lock >= 0:
                    os.close(lock)

    def _read(self, key: str) -> tuple[Entry | None, float]:
        """The entry and when it was written; None when there is none that can be used."""
        try:
            with open(self.folder / (key + _SUFFIX), "rb", opener=_no_links) as file:
                status = os.fstat(file.fileno())
                told = json.loads(file.read(_LARGEST))
        except (OSError, ValueError, RecursionError):
            return None, 0.0
        if not isinstance(told, dict) or told.get("version") != VERSION:
            return None, 0.0
        session, expires = told.get("session"), told.get("expires")
        sound = isinstance(session, dict) and (expires is None or isinstance(expires, int | float))
        return (Entry(session or {}, expires), status.st_mtime) if sound else (None, 0.0)

    def _write(self, fingerprint: Fingerprint, entry: Entry) -> None:
        told = {
            "version": VERSION,
            # For people who look; what counts is the file's name.
            "path": fingerprint.path,
            "size": fingerprint.size,
            "target": fingerprint.target,
            "protocol": fingerprint.protocol,
            "expires": entry.expires,
            "session": dict(entry.session),
        }
        new = self.folder / (fingerprint.key + _NEW)
        with open(new, "wb", opener=_private) as file:
            file.write(json.dumps(told).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.folder / (fingerprint.key + _SUFFIX))
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unlink(self, name: str) -> bool:
        try:
            os.unlink(self.folder / name)
        except OSError:
            return False
        return True

    def _failed(self, error: OSError) -> None:
        if self.problem is None:
            self.problem = f"{self.folder}: {error.strerror or error}"


class HeldEntry:
    """One upload, held by this process. A context manager."""

    def __init__(self, store: StateStore, fingerprint: Fingerprint, lock: int | None) -> None:
        """Use `StateStore.hold`."""
        self._store = store
        self._fingerprint = fingerprint
        self._lock = lock

    @property
    def remembered(self) -> bool:
        """Whether what is saved outlives this process."""
        return self._lock is not None and self._store.problem is None

    def load(self) -> Entry | None:
        """What an earlier run left; None when there is nothing that still counts."""
        if self._lock is None:
            return None
        entry, written = self._store._read(self._fingerprint.key)
        return entry if entry is not None and self._store._clock() < _end(entry, written) else None

    def save(self, entry: Entry) -> None:
        """Remember it, durably, in the place of what was remembered. A failure is told by `StateStore.problem`."""
        if self._lock is None:
            return
        try:
            self._store._write(self._fingerprint, entry)
        except OSError as error:
            self._store._failed(error)

    def delete(self) -> None:
        """Forget it: the upload is complete, or there is nothing to go on with."""
        if self._lock is not None:
            self._store._unlink(self._fingerprint.key + _SUFFIX)
            self._store._unlink(self._fingerprint.key + _NEW)

    def close(self) -> None:
        """Let others have it. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            # Before the lock goes, so that nobody's lock is on a file that is not there any more.
            self._store._unlink(self._fingerprint.key + _LOCK)
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def default_folder(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_STATE_HOME/hmac-file-server/uploads`, else below `~/.local/state` (XDG Base Directory Specification)."""
    told = (os.environ if environ is None else environ).get("XDG_STATE_HOME", "")
    # The specification: a relative path is to be ignored.
    base = Path(told) if os.path.isabs(told) else Path(os.path.expanduser("~")) / ".local" / "state"
    return base / "hmac-file-server" / "uploads"


def _end(entry: Entry, written: float) -> float:
    return written + LIFETIME if entry.expires is None else entry.expires


def _pid(lock: int) -> int:
    try:
        return int(os.pread(lock, 32, 0))
    except (OSError, ValueError):
        return 0


def _same(lock: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    ours = os.fstat(lock)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
