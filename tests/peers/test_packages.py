"""scripts/test-packages with a package database and an apt-get of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "test-packages"


def run(folder: Path, *, missing: str = "", user: int = 1000, sudo: bool = False) -> tuple[int, str, str]:
    """Run the script with programs that only note how they were called: (exit code, stderr, calls)."""
    calls = folder / "calls"
    calls.write_text("")
    programs = {
        "dpkg-query": f'for last; do :; done\ncase " {missing} " in *" $last "*) exit 1;; esac\nprintf installed',
        "apt-get": f'echo "apt-get $*" >>"{calls}"',
        "id": f"echo {user}",
        "sudo": f'echo "sudo $*" >>"{calls}"\n' + ("exit 0" if sudo else "exit 1"),
    }
    for name, body in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    done = subprocess.run(
        [str(SCRIPT)],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr, calls.read_text()


def test_nothing_missing_costs_nothing(tmp_path: Path) -> None:
    assert run(tmp_path) == (0, "", "")


def test_without_rights_the_missing_packages_are_named(tmp_path: Path) -> None:
    code, said, calls = run(tmp_path, missing="ejabberd strace")
    assert code == 1
    assert "missing Debian packages: ejabberd strace" in said
    assert "apt-get" not in calls


def test_this_machine_has_them_all() -> None:
    """The packages that the tests of this folder drive are really here."""
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
