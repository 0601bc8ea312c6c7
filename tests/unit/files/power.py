"""A disk whose power can be cut between any two calls, and what may be found on it afterwards.

The model knows what a file system promises and nothing more. Bytes of a file are safe once it was synced after they
were written; an entry of a directory is safe once the directory was synced; a commit of the database is safe
(SQLite's own syncs are not modelled). Of all the rest any part may be there after the cut: any subset of the entries, and
of a file that was never synced nothing, the front, zeros or all, and of one that was, any of the later writes.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.files.stores import CHANGING, WatchedDisk

from hmac_file_server.files.paths import PRIVATE


class PowerCut(BaseException):
    """No call returns any more."""


def place(there: bytearray, piece: bytes, offset: int) -> None:
    """What pwrite does: zeros up to `offset` where there is nothing."""
    there += bytes(max(0, offset - len(there)))
    there[offset : offset + len(piece)] = piece


class Node:
    """One inode: a file with its bytes, or a directory with its entries."""

    def __init__(self, *, folder: bool) -> None:
        self.folder = folder
        self.bytes = bytearray()
        self.safe_bytes: bytes | None = None
        self.entries: dict[str, Node] = {}
        self.safe_entries: dict[str, Node] = {}
        self.changes: list[tuple[str, Node | None]] = []
        self.writes: list[tuple[int, bytes]] = []

    def write(self, piece: bytes, offset: int) -> None:
        self.writes.append((offset, piece))
        place(self.bytes, piece, offset)

    def change(self, name: str, node: Node | None) -> None:
        self.changes.append((name, node))
        if node is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = node


class PowerDisk(WatchedDisk):
    """Works on a real tree until `cut_after` changing calls were made; then every call raises PowerCut.

    `ignored` are kinds of calls that are made but promise nothing: the negative controls.
    """

    def __init__(self, root: Path, cut_after: int | None = None, ignored: frozenset[str] = frozenset()) -> None:
        # A call and what is noted of it are one: else a number that one thread closes can be another's new file.
        self._one_at_a_time = threading.RLock()
        super().__init__()
        self.root = root
        self.cut_after = cut_after
        self.ignored = ignored
        self.calls = 0
        self.dead = False
        self._tree = Node(folder=True)
        self._descriptors: dict[int, Node] = {}

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        watched = super()._watched(name, real)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._one_at_a_time:
                return watched(*args, **kwargs)

        return call

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name in {"close", "flock"}:  # what the kernel does for a process that is no more
            return
        if self.dead:
            raise PowerCut
        if name in CHANGING:
            if self.cut_after is not None and self.calls >= self.cut_after:
                self.dead = True
                raise PowerCut
            self.calls += 1

    def after(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if name == "close":
            self._descriptors.pop(args[0], None)
        elif name == "open":
            self._opened(str(args[0]), args[1], kwargs.get("dir_fd"), result)
        elif name == "write":
            node = self._descriptors[args[0]]
            node.write(bytes(args[1][:result]), len(node.bytes))
        elif name == "pwrite":
            self._descriptors[args[0]].write(bytes(args[1][:result]), args[2])
        elif name == "mkdir":
            self._descriptors[kwargs["dir_fd"]].change(args[0], Node(folder=True))
        elif name == "link":
            source = args[0]
            if isinstance(source, bytes):
                node = self._descriptors[int(source)]
            else:
                node = self._descriptors[kwargs["src_dir_fd"]].entries[source]
            self._descriptors[kwargs["dst_dir_fd"]].change(args[1], node)
        elif name in {"unlink", "rmdir"}:
            self._descriptors[kwargs["dir_fd"]].change(args[0], None)
        elif name in {"fsync", "fdatasync"} and name not in self.ignored:
            self._synced(self._descriptors[args[0]])

    def _opened(self, name: str, flags: int, dir_fd: int | None, fd: int) -> None:
        if name == os.fspath(self.root):
            self._descriptors[fd] = self._tree
        elif dir_fd is None:
            return
        elif (flags & os.O_TMPFILE) == os.O_TMPFILE:
            self._descriptors[fd] = Node(folder=False)
        elif dir_fd in self._descriptors:
            above = self._descriptors[dir_fd]
            if name not in above.entries:
                above.change(name, Node(folder=False))
            self._descriptors[fd] = above.entries[name]

    @staticmethod
    def _synced(node: Node) -> None:
        if node.folder:
            node.safe_entries = dict(node.entries)
            node.changes = []
        else:
            node.safe_bytes = bytes(node.bytes)
            node.writes = []

    def survivors(self, where: Path, chance: random.Random) -> None:
        """Lay out in `where` one tree that may be found after the cut."""
        where.mkdir()
        files: dict[int, Path] = {}
        self._lay(self._tree, where, chance, files)
        private = where / PRIVATE
        private.mkdir(mode=0o700, exist_ok=True)
        # Whatever was committed is in these two files; SQLite rebuilds the third.
        for name in ("state.db", "state.db-wal"):
            if (self.root / PRIVATE / name).exists():
                shutil.copyfile(self.root / PRIVATE / name, private / name)

    def _lay(self, folder: Node, where: Path, chance: random.Random, files: dict[int, Path]) -> None:
        entries = dict(folder.safe_entries)
        for name, node in folder.changes:
            if chance.random() < 0.5:
                if node is None:
                    entries.pop(name, None)
                else:
                    entries[name] = node
        for name, node in entries.items():
            if name.startswith("state.db"):
                continue
            place = where / name
            if node.folder:
                place.mkdir()
                self._lay(node, place, chance, files)
            elif id(node) in files:
                os.link(files[id(node)], place)
            else:
                files[id(node)] = place
                place.write_bytes(self._remains(node, chance))

    @staticmethod
    def _remains(node: Node, chance: random.Random) -> bytes:
        if node.safe_bytes is not None:
            there = bytearray(node.safe_bytes)
            for offset, piece in node.writes:
                if chance.random() < 0.5:
                    place(there, chance.choice([piece, piece[: len(piece) // 2]]), offset)
            return bytes(there)
        whole = bytes(node.bytes)
        return chance.choice([b"", whole[: len(whole) // 2], bytes(len(whole)), whole])
