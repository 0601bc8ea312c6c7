"""A disk whose writes fail as long as a file is there, below a real ext4: nbdkit's error filter, nbdfuse, a loop device.

So that the kernel does what it does with a real disk: it tells one caller of the failure, calls the lost pages clean,
and has the next sync succeed with nothing on the disk. Needs root, FUSE, loop devices, nbdkit and nbdfuse.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.crash.volumes import EXT4, Volume, obstacle
from tests.fixtures.child import wait_until

_TOOLS: Final = ("nbdkit", "nbdfuse", "fusermount3")


class FailingVolume(Volume):
    """An ext4 on such a disk."""

    def __init__(self, folder: Path, *, size: int) -> None:
        """Start the disk, of `size` bytes in memory, and make the file system."""
        self._trouble = folder / "trouble"
        self._socket = folder / "socket"
        self._disk = folder / "disk"
        folder.mkdir(parents=True)
        self._disk.touch()
        command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", str(self._socket), "--filter=error"]
        options = ["error=EIO", "error-pwrite-rate=100%", f"error-pwrite-file={self._trouble}"]
        self._processes = [subprocess.Popen([*command, "memory", str(size), *options])]
        try:
            wait_until(self._socket.exists, "nbdkit listens")
            nbdfuse = ["setpriv", "--pdeathsig", "TERM", "nbdfuse", str(self._disk), "--unix", str(self._socket)]
            self._processes.append(subprocess.Popen(nbdfuse))
            wait_until(lambda: self._disk.stat().st_size == size, "the disk is there")
            self._make(folder)
        except BaseException:
            self.remove()
            raise

    def _make(self, folder: Path) -> None:
        self.kind = EXT4
        self.image = self._disk
        # Its folder is shared with other namespaces; what is mounted beside it would be hidden by that.
        self.mount_point = folder / "system" / "mounted"
        self.mount_point.mkdir(parents=True)
        self.mounted = False
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True, capture_output=True)

    def mount(self) -> None:
        """Mount it; its journal is not written by itself while a test has the disk fail for a moment."""
        super().mount()
        subprocess.run(["mount", "-o", "remount,commit=600", str(self.mount_point)], check=True, capture_output=True)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Meanwhile every write of the disk fails."""
        self._trouble.touch()
        try:
            yield
        finally:
            self._trouble.unlink()

    def remove(self) -> None:
        """End the disk; it must not be mounted."""
        subprocess.run(["fusermount3", "-u", str(self._disk)], check=False, capture_output=True)
        for process in reversed(self._processes):
            process.terminate()
            process.wait(20)

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.unmount()
        except subprocess.CalledProcessError:
            # Somebody still has it open; nothing of it may stay behind all the same.
            subprocess.run(["umount", "--lazy", str(self.mount_point)], check=False)
            raise
        finally:
            self.remove()


def why_not() -> str | None:
    """Why there can be no such disk here."""
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return obstacle() if os.path.exists("/dev/fuse") else "there is no FUSE"
