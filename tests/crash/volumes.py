"""A file system whose power can be cut: ext4 in a file, mounted by a loop device, shut down by FS_IOC_SHUTDOWN.

The ioctl with NOLOGFLUSH drops everything that was not synced; the journal is replayed by the next mount,
as after a real cut. Needs root, loop devices and mkfs.ext4.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

_SHUTDOWN: Final = 0x8004587D
_NOLOGFLUSH: Final = 2


class Volume:
    """A file system of its own; `cut` takes its power away."""

    def __init__(self, folder: Path, *, size: int) -> None:
        """Of `size` bytes, in a sparse file in `folder`."""
        self.image = folder / "image"
        self.mount_point = folder / "mounted"
        self.mount_point.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True, capture_output=True)
        self.mounted = False

    def mount(self) -> None:
        """Mount it; what its journal holds is replayed."""
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount_point)], check=True, capture_output=True)
        self.mounted = True

    def cut(self) -> None:
        """Drop what was not synced; every later write fails."""
        fd = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Unmount it, if it is mounted."""
        if self.mounted:
            subprocess.run(["umount", str(self.mount_point)], check=True, capture_output=True)
            self.mounted = False


def obstacle() -> str | None:
    """Why there can be no power cut here."""
    if os.geteuid() != 0:
        return "mounting needs root"
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices"
    return None
