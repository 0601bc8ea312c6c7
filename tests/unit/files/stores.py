"""What the tests of the file store share: a clock by hand, disks that record, fail and lose power, a store."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hmac_file_server.files.contract import Metadata, PathRefused, Published, StorageError
from hmac_file_server.files.disk import Disk
from hmac_file_server.files.drafts import LocalDraft
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import parse

PNG = Metadata(media_type="image/png")
CALLS = tuple(name for name in vars(Disk) if not name.startswith("_"))
CHANGING = frozenset(
    {"open", "write", "pwrite", "mkdir", "link", "rename", "unlink", "rmdir", "fsync", "fdatasync", "sync", "commit"}
)
"""Calls between which a power cut can make a difference."""


class ManualClock:
    """Stands still until it is told to go on."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now
        self.steady = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.steady

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds


class WatchedDisk(Disk):
    """Every call goes through `before` (which may raise) and `after`; commits of the database count as calls."""

    def __init__(self) -> None:
        for name in CALLS:
            setattr(self, name, self._watched(name, getattr(Disk, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        if name == "connect":
            return self._connect

        def call(*args: Any, **kwargs: Any) -> Any:
            self.before(name, args, kwargs)
            result = real(*args, **kwargs)
            self.after(name, args, kwargs, result)
            return result

        return call

    def _connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    disk.before("commit", (), {})
                cursor = super().execute(sql, *rest)
                if sql == "COMMIT":
                    disk.after("commit", (), {}, None)
                return cursor

        return sqlite3.connect(*args, factory=Connection, **kwargs)

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the call."""

    def after(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """After the call."""


class FailingDisk(WatchedDisk):
    """The n-th call of some kinds fails; `count` says how many of them there were."""

    def __init__(self, kinds: frozenset[str], number: int | None = None, error: int = 5, times: int = 1) -> None:
        super().__init__()
        self.kinds = kinds
        self.number = number
        self.error = error
        self.times = times
        self.count = 0
        self._lock = threading.Lock()

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name not in self.kinds:
            return
        with self._lock:
            number, self.count = self.count, self.count + 1
        if self.number is not None and self.number <= number < self.number + self.times:
            if name == "commit":
                raise sqlite3.OperationalError("injected")
            raise OSError(self.error, "injected")


@contextmanager
def opened(root: Path, **options: Any) -> Iterator[LocalFileStore]:
    """A store for one test; syncs run on two threads unless `submit` is given."""
    with ThreadPoolExecutor(2) as pool:
        options.setdefault("clock", ManualClock())
        options.setdefault("submit", pool.submit)
        store = LocalFileStore(root, **options)
        try:
            yield store
        finally:
            store.close()


def put(store: LocalFileStore, path: str, body: bytes, meta: Metadata = PNG) -> Published:
    """Publish `body` at `path` and wait."""
    spool = store.spool(len(body))
    try:
        spool.write(body)
        return store.publish(spool, parse(path), meta)
    finally:
        spool.discard()


def put_soon(store: LocalFileStore, path: str, body: bytes, meta: Metadata = PNG) -> Callable[[], Published]:
    """Begin to publish; the function returned waits for the result."""
    spool = store.spool(len(body))
    spool.write(body)
    ready = threading.Event()
    results: list[Any] = []

    def done(result: object) -> None:
        results.append(result)
        ready.set()

    store.publish_soon(spool, parse(path), meta, done)

    def wait() -> Published:
        assert ready.wait(30), "the store never answered"
        assert len(results) == 1
        result = results[0]
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, Published)
        return result

    return wait


def draft_of(store: LocalFileStore, name: str, body: bytes = b"") -> LocalDraft:
    """A new draft that holds `body`."""
    draft = store.draft(name, create=True)
    assert draft is not None
    draft.write_at(body, 0)
    return draft


def publish_draft(
    store: LocalFileStore, draft: LocalDraft, path: str, size: int, digest: str | None = None, meta: Metadata = PNG
) -> Published:
    """Publish a draft and wait."""
    ready = threading.Event()
    results: list[Published | StorageError | PathRefused] = []

    def done(result: Published | StorageError | PathRefused) -> None:
        results.append(result)
        ready.set()

    store.publish_draft_soon(draft, parse(path), meta, size, digest, done)
    assert ready.wait(30), "the store never answered"
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


def get(store: LocalFileStore, path: str) -> bytes | None:
    """The bytes at `path`."""
    reader = store.open(parse(path))
    if reader is None:
        return None
    try:
        return reader.read(0, reader.entry.size + 1)
    finally:
        reader.close()


def attempt(action: Callable[[], Published]) -> Published | StorageError:
    """The result, or the error of the store; any other exception is a fault."""
    try:
        return action()
    except StorageError as error:
        return error


def tree(root: Path) -> dict[str, bytes | str | None]:
    """Everything below `root`, links by their target, directories as None; the private folder is left out."""
    found: dict[str, bytes | str | None] = {}
    for folder, folders, files in os.walk(root):
        if folder == os.fspath(root) and ".hmac-file-server" in folders:
            folders.remove(".hmac-file-server")
        for name in itertools.chain(folders, files):
            path = Path(folder, name)
            shown = os.fspath(path.relative_to(root))
            if path.is_symlink():
                found[shown] = os.fspath(path.readlink())
            else:
                found[shown] = None if path.is_dir() else path.read_bytes()
    return found


def open_descriptors() -> set[str]:
    """What this process has open, but for pipes and sockets."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("/") and not target.startswith("/proc/"):
            links.add(f"{name} {target}")
    return links
