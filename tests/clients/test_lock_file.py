"""The file that pins the JavaScript packages, and the script that installs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.fixtures import node

ROOT = Path(__file__).parent.parent.parent
SCRIPT = Path("scripts") / "npm-packages"


def entries() -> Iterator[tuple[str, dict[str, object]]]:
    """Path and entry of every package that the file pins."""
    lock = json.loads((node.PACKAGES / "package-lock.json").read_bytes())
    yield from ((path, entry) for path, entry in lock["packages"].items() if path)


def copy(folder: Path) -> Path:
    """What the script needs, as in a fresh clone."""
    packages = folder / "tests" / "clients"
    packages.mkdir(parents=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy2(node.PACKAGES / name, packages)
    (folder / "scripts").mkdir()
    shutil.copy2(ROOT / SCRIPT, folder / SCRIPT)
    return folder / SCRIPT


def run(script: Path, path: str) -> subprocess.CompletedProcess[str]:
    """The script with these folders of programs."""
    return subprocess.run(
        [str(script)], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=100, check=False
    )


def test_every_package_is_pinned_by_its_hash() -> None:
    found = dict(entries())
    assert found
    for path, entry in found.items():
        assert str(entry["integrity"]).startswith("sha512-"), path


def test_no_package_says_where_it_is_loaded_from() -> None:
    """That is for the machine's own configuration to say."""
    assert [path for path, entry in entries() if "resolved" in entry] == []


def test_what_is_asked_for_is_pinned_to_one_version() -> None:
    wanted = json.loads((node.PACKAGES / "package.json").read_bytes())["dependencies"]
    found = {path.removeprefix("node_modules/"): entry["version"] for path, entry in entries()}
    assert wanted == {name: found[name] for name in wanted}


def test_what_is_pinned_is_installed() -> None:
    done = run(ROOT / SCRIPT, os.environ["PATH"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for path, entry in entries():
        manifest = node.PACKAGES / path / "package.json"
        if "optional" not in entry:
            assert json.loads(manifest.read_bytes())["version"] == entry["version"]


def test_a_second_run_costs_nothing(tmp_path: Path) -> None:
    """Neither npm nor the network."""
    script = copy(tmp_path)
    modules = tmp_path / "tests" / "clients" / "node_modules"
    modules.mkdir()
    (modules / ".package-lock.json").touch()
    done = run(script, programs(tmp_path, "sh", "dirname", "find"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_npm_it_says_so(tmp_path: Path) -> None:
    done = run(copy(tmp_path), programs(tmp_path, "sh", "dirname", "find"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "npm-packages: npm was not found: scripts/venv test installs it\n"


def test_the_npm_of_the_machine_will_do(tmp_path: Path) -> None:
    """It is asked for what the file says and nothing else."""
    path = programs(tmp_path, "sh", "dirname", "find", "touch", "mkdir")
    calls = tmp_path / "calls"
    npm = Path(path) / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >"{calls}"\nmkdir node_modules\n', encoding="utf-8")
    npm.chmod(0o755)
    done = run(copy(tmp_path), path)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls.read_text().split()[0] == "ci"
    assert (tmp_path / "tests" / "clients" / "node_modules" / ".package-lock.json").exists()


def programs(folder: Path, *names: str) -> str:
    """A folder with these programs of the machine and no others."""
    found = folder / "programs"
    found.mkdir()
    for name in names:
        program = shutil.which(name)
        assert program is not None
        (found / name).symlink_to(program)
    return str(found)
