"""A small file system for one test: a tmpfs, where the tests may mount one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def may_mount() -> bool:
    """Whether this process can mount (root with the capability, not merely uid 0 in a container)."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective & 1 << 21)  # CAP_SYS_ADMIN


@contextmanager
def tmpfs(folder: Path, *, size: str, inodes: int = 0) -> Iterator[Path]:
    """A tmpfs of `size` (and `inodes`) mounted at `folder`, unmounted at the end."""
    folder.mkdir(parents=True)
    options = f"size={size},mode=0755" + (f",nr_inodes={inodes}" if inodes else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)
