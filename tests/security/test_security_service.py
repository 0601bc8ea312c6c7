"""S-74, G-28: the unit that `init` prints is judged by systemd itself, and leaves the server what it needs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import program
from tests.fixtures.server import SECRET, FileServer
from tests.server.disks import may_mount
from tests.server.signatures import bearer, mac, ticket
from tests.server.wire import Wire

from hmac_file_server import cli

_SCORE = 2.0
# The server goes on with as many descriptors as it has; SQLite gives files away only where it runs as root, as here.
_DISPENSABLE = {"setrlimit", "fchown"}
analyzable = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs Debian's systemd")


@pytest.fixture
def unit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """The unit as a file, its program and its storage folder where they are."""
    folder = tmp_path / "etc"
    capfd.readouterr()
    assert cli.main(["init", str(folder), "--snippet", "systemd"]) == 0
    printed = capfd.readouterr().out
    (folder / "data").mkdir(exist_ok=True)
    file = tmp_path / "hmac-file-server.service"
    file.write_text(printed[printed.index("[Unit]") :])
    return file


@analyzable
def test_g_28_the_exposure_of_the_service(unit: Path) -> None:
    words = ["security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), *words], capture_output=True, text=True, check=False, timeout=60
    )
    found = re.search(r"Overall exposure level for .*: (\d+\.\d+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= _SCORE, done.stdout


@analyzable
def test_the_unit_has_no_mistake(unit: Path) -> None:
    """Every line is known to systemd, and the program is there."""
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), "verify", "--man=false", "--recursive-errors=no", str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "hmac-file-server.service" in line]
    assert complaints == []


def call_groups() -> dict[str, set[str]]:
    """Names of system calls, and of other groups, by group."""
    told = subprocess.run(
        [program("systemd-analyze", "systemd"), "--no-pager", "syscall-filter"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    groups: dict[str, set[str]] = {}
    for line in told.splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line.strip(), set())
        elif line.strip() and not line.strip().startswith("#"):
            group.add(line.strip())
    return groups


def members(name: str, groups: dict[str, set[str]]) -> set[str]:
    """System calls of a group, or the one that is named."""
    if not name.startswith("@"):
        return {name}
    return {call for each in groups[name] for call in members(each, groups)}


def allowed(unit: Path) -> set[str]:
    """System calls that the unit leaves, with those that systemd allows to everybody."""
    groups = call_groups()
    found = members("@default", groups)
    for words in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        named = {call for word in words.lstrip("~").split() for call in members(word, groups)}
        found = found - named if words.startswith("~") else found | named
    return found


def work(server: FileServer) -> None:
    """Something of everything."""
    permission = bearer(ticket(prefix="", ops=["put", "create", "delete"]))
    for size in (1, 1000, 300_000):
        target = slots.target(f"unit/{size}", slots.v1(f"unit/{size}", size))
        assert server.request("PUT", target, b"x" * size).status == 201
        assert len(server.request("GET", f"/upload/unit/{size}").body) == size
    assert server.request("PUT", "/upload/unit/twin", b"x" * 300_000, permission).status == 201
    fields = {"X-Filename": "f.bin", "X-Total-Size": "3000", "X-Signature": mac("/upload/chunked")}
    begun = server.request("POST", "/upload/chunked", b"", fields)
    assert begun.status == 201
    named = {"X-Upload-Session-ID": str(begun.json()["session_id"]), "X-Chunk-Number": "0"}
    assert server.request("PUT", "/upload/chunked", b"c" * 3000, named).json()["completed"] is True
    for _ in range(8):
        # Some of them are given to the process that has charge.
        assert server.request("GET", f"/upload/status?session_id={named['X-Upload-Session-ID']}").status == 200
    with Wire(server) as wire:
        wire.head("PUT", slots.target("unit/cut", slots.v1("unit/cut", 100_000)), {"Content-Length": "100000"})
        wire.send(b"half")
        wire.reset()
    assert server.request("DELETE", "/upload/unit/twin", None, permission).status in {200, 204}
    os.kill(server.pid, signal.SIGHUP)
    assert server.request("GET", "/ready").status == 200


@analyzable
@pytest.mark.skipif(not may_mount() or shutil.which("strace") is None, reason="needs root and strace")
def test_the_unit_leaves_the_server_its_calls(tmp_path: Path, unit: Path) -> None:
    """From the exec to the end: no call, and no family of sockets, but those that the unit allows."""
    text = unit.read_text()
    log = tmp_path / "calls"
    server = FileServer(tmp_path / "server", {"server": {"processes": 2}})
    server.folder.mkdir()
    server.write_config(server.settings or {})
    tracer = tmp_path / "traced.py"
    tracer.write_text(
        "import os, sys\n"
        f"words = [{program('strace', 'strace')!r}, '-D', '-f', '-qq', '-o', {str(log)!r}, '--seccomp-bpf']\n"
        "program = [sys.executable, '-m', 'hmac_file_server', *sys.argv[1:]]\n"
        "os.execv(words[0], [*words, *program])\n"
    )
    server.program = ("traced",)
    os.environ["PYTHONPATH"], before = os.pathsep.join([str(tmp_path)]), os.environ.get("PYTHONPATH")
    try:
        server.start()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    try:
        work(server)
    finally:
        server.stop()
    calls = log.read_text(errors="replace")
    used = set(re.findall(r"^\d+ +([a-z0-9_]+)\(", calls, re.MULTILINE))
    assert {"fdatasync", "linkat", "accept4", "epoll_wait", "sendfile"} <= used | {"accept", "epoll_pwait"}, used
    assert used - allowed(unit) - _DISPENSABLE == set()
    families = set(re.findall(r"socket(?:pair)?\((AF_[A-Z0-9]+)", calls))
    permitted = set(re.findall(r"^RestrictAddressFamilies=(.*)$", text, re.MULTILINE)[0].split())
    assert "AF_NETLINK" in families
    assert families <= permitted
    # MemoryDenyWriteExecute: nothing asks for memory that can be written and run.
    assert not re.search(r"^\d+ +(?:mmap|mprotect)\(.*PROT_WRITE\|PROT_EXEC", calls, re.MULTILINE)
    # NoNewPrivileges and RestrictNamespaces cost it nothing.
    assert used.isdisjoint({"setuid", "setgid", "unshare", "setns", "ptrace", "mount", "chown"})


def test_g_28_no_answer_tells_a_path_of_the_machine(tmp_path: Path) -> None:
    """Good, refused and failed requests of every kind; whatever stands in an answer, no absolute path of ours does."""
    server = FileServer(tmp_path / "a-folder-of-the-server", {"uploads": {"chunk_size": "1KB"}})
    server.start()
    told = []
    permission = bearer(ticket(prefix="p", ops=["put", "create"]))
    try:
        for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            for target in (
                "/", "/upload", "/upload/", "/upload/p/a", "/upload/chunked", "/upload/status", "/tus/", "/tus/1_a",
                "/health", "/ready", "/upload/.hmac-file-server/state.db", "/upload/../x", "/upload/p/" + "n" * 300,
                "/upload/p/%00", "/upload/status?session_id=1_a",
            ):  # fmt: skip
                body = b"x" if method in {"PUT", "POST", "PATCH"} else None
                told += [
                    (method, target, server.request(method, target, body, fields))
                    for fields in ({}, permission, {"X-Signature": "0" * 64}, {**permission, "Tus-Resumable": "1.0.0"})
                ]
        # A storage folder that is not there any more.
        (server.storage / "p").mkdir(exist_ok=True)
        shutil.rmtree(server.storage)
        for number in range(3):
            told.append(("PUT", "gone", server.request("PUT", f"/upload/p/gone-{number}", b"x", permission)))
            told.append(("GET", "gone", server.request("GET", "/upload/p/a")))
    finally:
        server.stop()
    assert len({answer.status for _, _, answer in told}) >= 8
    forbidden = (str(tmp_path), "a-folder-of-the-server", "/site-packages/", "/usr/lib", "Traceback", SECRET)
    for method, target, answer in told:
        said = f"{dict(answer.headers)} {answer.body.decode('utf-8', 'replace')}"
        for mark in forbidden:
            assert mark not in said, (method, target, mark)
