"""What the servers stored: checked after each run, large files removed, small ones kept until the end."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.client import body_slice
from bench.errors import MismatchError
from bench.rows import LARGE

PROBE = 4096


def check_stored(root: Path, paths: Sequence[str], size: int) -> None:
    """Raise MismatchError unless exactly `paths` lie in their folders under `root`, each with `size` bytes."""
    expected: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        expected[folder].add(name)
    for folder, names in expected.items():
        try:
            with os.scandir(root / folder) as entries:
                found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
        except FileNotFoundError:
            raise MismatchError(f"the folder {folder} was not made, {len(names)} files should be in it") from None
        if set(found) != names:
            odd = min(set(found) ^ names)
            raise MismatchError(
                f"{folder} holds {len(found)} files instead of {len(names)}; the first that differs is {odd}"
            )
        for name, entry in found.items():
            if not stat.S_ISREG(entry.st_mode) or entry.st_size != size:
                raise MismatchError(f"{folder}/{name} has {entry.st_size} bytes instead of {size}")


def check_content(file: Path, pattern: bytes, seed: int, index: int, size: int) -> None:
    """Raise MismatchError unless the start, middle and end of a stored body are what the client sent."""
    with file.open("rb") as stored:
        for offset in sorted({0, max(0, size // 2 - PROBE // 2), max(0, size - PROBE)}):
            stored.seek(offset)
            length = min(PROBE, size - offset)
            if stored.read(length) != body_slice(pattern, seed, index, offset, length):
                raise MismatchError(f"{file.name} holds other bytes than were sent, from offset {offset}")


def remove_large(roots: Iterable[Path], private: str | None = None) -> int:
    """Unlink every regular file of LARGE bytes and more under `roots`; returns the bytes freed.

    Folders called `private` are not entered: what a server keeps there is its own, save for the roots named.
    """
    freed = 0
    for root in roots:
        for folder, folders, names in os.walk(root):
            if private in folders:
                folders.remove(private)
            for name in names:
                file = os.path.join(folder, name)
                found = os.lstat(file)
                if stat.S_ISREG(found.st_mode) and found.st_size >= LARGE:
                    os.unlink(file)
                    freed += found.st_size if found.st_nlink == 1 else 0
    return freed
