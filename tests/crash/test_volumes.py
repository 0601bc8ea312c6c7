"""Volumes: what a cut drops, and that an unmount is one for everybody."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.crash.volumes import KINDS, NoVolumeError, mounted
from tests.fixtures.child import program, wait_until


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_drops_what_was_not_synced(tmp_path: Path, kind: str) -> None:
    try:
        with mounted(tmp_path / "volume", size=0, kind=kind) as volume:
            kept, dropped = volume.mount_point / "kept", volume.mount_point / "dropped"
            with kept.open("wb") as file:
                file.write(b"kept")
                file.flush()
                os.fsync(file.fileno())
            dropped.write_bytes(b"dropped")
            volume.cut()
            with pytest.raises(OSError, match="error"):
                kept.write_bytes(b"other")
            volume.replay()
            assert kept.read_bytes() == b"kept"
            assert not dropped.exists() or dropped.read_bytes() == b""
    except NoVolumeError as error:
        pytest.skip(str(error))


def test_a_namespace_with_a_copy_of_the_mount_does_not_keep_it(tmp_path: Path) -> None:
    """As `ip netns exec` makes them: else the file system would live on in it, and write to the disk later."""
    words = [program("unshare", "util-linux"), "--mount", "--propagation", "slave", "cat"]
    try:
        with mounted(tmp_path / "volume", size=0) as volume:
            child = subprocess.Popen(words, stdin=subprocess.PIPE)
            try:
                wait_until(lambda: _namespace(child.pid) != _namespace(os.getpid()), "it has a namespace of its own")
                wait_until(lambda: str(volume.mount_point) in _mounts(child.pid), "it has the mount")
                volume.unmount()
                assert str(volume.mount_point) not in _mounts(child.pid)
            finally:
                child.communicate(b"")
    except NoVolumeError as error:
        pytest.skip(str(error))


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


def _mounts(pid: int) -> str:
    return Path(f"/proc/{pid}/mounts").read_text()
