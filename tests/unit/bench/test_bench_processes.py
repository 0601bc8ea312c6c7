"""CPU and memory of process trees, on written-out /proc texts and on this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import machine, processes
from bench.errors import BenchError
from bench.processes import Stat


def stat_line(pid: int, parent: int, name: str = "x", ticks: tuple[int, int, int, int] = (1, 2, 3, 4)) -> str:
    before = f"S {parent} {pid} {pid} 0 -1 4194560 10 20 0 0"
    return f"{pid} ({name}) {before} {' '.join(map(str, ticks))} 20 0 1 0 100 0 0\n"


@pytest.mark.parametrize("name", ["nginx", "with space", "odd) (name", ") S 1 2 3", "(("])
def test_parse_stat_survives_any_name(name: str) -> None:
    assert processes.parse_stat(stat_line(7, 3, name)) == Stat(pid=7, parent=3, own_ticks=3, reaped_ticks=7)


def test_tree_holds_descendants_only() -> None:
    stats = {pid: Stat(pid, parent, 1, 0) for pid, parent in [(1, 0), (10, 1), (11, 10), (12, 10), (13, 12), (20, 1)]}
    assert processes.tree(10, stats) == [10, 11, 12, 13]
    assert processes.tree(99, stats) == []


def test_cpu_seconds_adds_the_tree_and_its_reaped_children() -> None:
    stats = {10: Stat(10, 1, 100, 50), 11: Stat(11, 10, 25, 0), 20: Stat(20, 1, 9999, 0)}
    assert processes.cpu_seconds(10, stats) == 175 / processes.TICKS_PER_SECOND


def test_read_stats_skips_what_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "stat").write_text(stat_line(12, 1))
    (tmp_path / "13").mkdir()
    (tmp_path / "self").mkdir()
    (tmp_path / "uptime").write_text("1")
    assert set(processes.read_stats(tmp_path)) == {12}


def test_status_field_in_bytes() -> None:
    text = "Name:\tnginx\nVmPeak:\t  999 kB\nVmHWM:\t   16 kB\nVmRSS:\t    8 kB\n"
    assert processes.parse_status_bytes(text, "VmHWM") == 16 * 1024
    assert processes.parse_status_bytes(text, "VmRSS") == 8 * 1024
    assert processes.parse_status_bytes("Name:\tzombie\n", "VmRSS") == 0


def test_a_living_child_is_found_and_pinned() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in processes.tree(os.getpid(), processes.read_stats())
        core = min(os.sched_getaffinity(0))
        processes.pin(child.pid, {core})
        assert os.sched_getaffinity(child.pid) == {core}
        assert processes.resident_bytes(child.pid) > 0
        processes.reset_peak(child.pid)
        assert processes.peak_resident_bytes(child.pid) > 0
    finally:
        child.communicate()
    assert processes.resident_bytes(child.pid) == 0


def test_meminfo() -> None:
    assert machine.parse_meminfo("MemTotal:  10 kB\nMemFree:   4 kB\n", "MemFree") == 4096
    assert machine.parse_meminfo("MemTotal:  10 kB\n", "MemFree") == 0
    assert machine.free_memory() > 0


def test_busy_ticks_leave_out_idle_waiting_and_stolen_time() -> None:
    assert machine.parse_busy_ticks("cpu  1 2 4 1000 1000 8 16 1000 1000 1000\ncpu0 9 9 9 9 9 9 9 9 9 9\n") == 31
    assert machine.busy_seconds() > 0


MOUNTS = "/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/b /run/disk xfs rw 0 0\n"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/x", "ext4"),
        ("/run/x", "tmpfs"),
        ("/run", "tmpfs"),
        ("/running", "ext4"),
        ("/run/disk/a", "xfs"),
        ("/", "ext4"),
    ],
)
def test_filesystem_by_longest_mount_point(path: str, kind: str) -> None:
    assert machine.filesystem_of(Path(path), MOUNTS) == kind


def test_cpu_model() -> None:
    assert (
        machine.cpu_model("processor : 0\nmodel name\t: Fast CPU @ 3 GHz\nmodel name\t: other\n") == "Fast CPU @ 3 GHz"
    )
    assert machine.cpu_model("") == os.uname().machine


def test_too_little_disk_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "filesystem_of", lambda _path: "ext4")
    machine.require_disk(tmp_path, 0)
    with pytest.raises(BenchError, match="--work DIR"):
        machine.require_disk(tmp_path, 2**70)


def test_memory_as_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "filesystem_of", lambda _path: "tmpfs")
    with pytest.raises(BenchError, match="tmpfs"):
        machine.require_disk(tmp_path, 0)


def test_the_description_names_what_a_reader_needs(tmp_path: Path) -> None:
    described = machine.describe(tmp_path)
    assert set(described) == {"cpu", "cores", "memory", "kernel", "python", "filesystem"}
    assert all(described.values())
