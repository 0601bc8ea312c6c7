"""A file system whose power can be cut: ext4 or xfs in a file, mounted by a loop device, shut down by FS_IOC_SHUTDOWN.

The ioctl with NOLOGFLUSH drops everything that was not synced; the journal is replayed by the next mount,
as after a real cut. Needs root, loop devices, and mkfs.ext4 or mkfs.xfs.

Other tests make mount namespaces (`ip netns exec` does), and these begin with a copy of every mount: a file system
that is unmounted here would live on in them, and write to its disk later. So mounts are made below a folder whose
unmounts reach those copies, and an unmount is only over when no loop device has the disk any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.fixtures.child import wait_until

EXT4: Final = "ext4"
XFS: Final = "xfs"
KINDS: Final = (EXT4, XFS)
LEAST: Final = {EXT4: 8 << 20, XFS: 320 << 20}
"""Bytes below which there is no such file system."""

_SHUTDOWN: Final = 0x8004587D
_NOLOGFLUSH: Final = 2
_MAKE: Final = {EXT4: ("mkfs.ext4", "-q", "-F"), XFS: ("mkfs.xfs", "-q", "-f")}


class NoVolumeError(Exception):
    """There can be no such file system here; why."""


class Volume:
    """A file system of its own; `cut` takes its power away."""

    _shared: Path | None = None
    """The folder that was shared for its mount."""

    def __init__(self, folder: Path, *, size: int, kind: str = EXT4) -> None:
        """Of `size` bytes, at least `LEAST`, in a sparse file in `folder`."""
        self.kind = kind
        self.image = folder / "image"
        self.mount_point = folder / "mounted"
        self.mount_point.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(max(size, LEAST[kind]))
        subprocess.run([*_MAKE[kind], str(self.image)], check=True, capture_output=True)
        self.mounted = False

    def mount(self) -> None:
        """Mount it; what its journal holds is replayed. Raises CalledProcessError."""
        folder = self.mount_point.parent
        _share(folder)
        try:
            mount(self.image, self.mount_point)
        except BaseException:
            _unshare(folder)
            raise
        self._shared = folder
        self.mounted = True

    def cut(self) -> None:
        """Drop what was not synced; every later write fails."""
        fd = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Unmount it, if it is mounted, as soon as nothing uses it any more."""
        if self.mounted:
            unmount(self.image, self.mount_point)
            self.mounted = False
        folder, self._shared = self._shared, None
        if folder is not None:
            _unshare(folder)

    def replay(self) -> None:
        """After a cut: mount it anew."""
        self.unmount()
        self.mount()


@contextlib.contextmanager
def below(folder: Path) -> Iterator[Path]:
    """A folder below which mounts go away for everybody when they are unmounted here."""
    folder.mkdir(parents=True, exist_ok=True)
    _share(folder)
    try:
        yield folder
    finally:
        _unshare(folder)


def _share(folder: Path) -> None:
    _run("mount", "--bind", str(folder), str(folder))
    _run("mount", "--make-shared", str(folder))


def _unshare(folder: Path) -> None:
    wait_until(lambda: _works("umount", str(folder)), "nothing uses the folder")


def mount(disk: Path, mount_point: Path) -> None:
    """Mount a disk by a loop device. Raises CalledProcessError."""
    _run("mount", "-o", "loop", str(disk), str(mount_point))


def unmount(disk: Path, mount_point: Path) -> None:
    """Unmount it as soon as nothing uses it any more, and wait until nothing can be written to the disk."""
    wait_until(lambda: _works("umount", str(mount_point)), "nothing uses the file system")
    wait_until(lambda: not _attached(disk), "no loop device has the disk")


def _attached(disk: Path) -> bool:
    for place in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it let go just now
            if place.read_text().strip() == str(disk):
                return True
    return False


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _works(*words: str) -> bool:
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def obstacle(kind: str = EXT4) -> str | None:
    """Why there can be no power cut here."""
    if os.geteuid() != 0:
        return "mounting needs root"
    for tool in (_MAKE[kind][0], "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices"
    return None


@contextlib.contextmanager
def mounted(folder: Path, *, size: int, kind: str = EXT4) -> Iterator[Volume]:
    """A volume, mounted now and unmounted in the end. Raises NoVolumeError."""
    reason = obstacle(kind)
    if reason is not None:
        raise NoVolumeError(reason)
    volume = Volume(folder, size=size, kind=kind)
    try:
        volume.mount()
    except subprocess.CalledProcessError as error:
        raise NoVolumeError(f"no loop mount here: {error.stderr.decode().strip()}") from error
    try:
        yield volume
    finally:
        volume.unmount()
