"""S-07, S-43: what two cases must have in common so that nobody can tell them apart. `python -m bench.timing` times them.

A clock is no judge on a busy machine; here what is done is compared: answers but for names and times, and the system
calls that write, sync and send. The statistics are shown to find a difference on numbers that have one.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import program, wait_until
from tests.fixtures.server import FileServer
from tests.security import timing
from tests.security.timing import Compared, Stopwatch, shape
from tests.server.disks import may_mount

_CALLS = ("write", "pwrite64", "writev", "sendto", "sendmsg", "fsync", "fdatasync", "ftruncate", "fallocate")
_LINE = re.compile(rb"^\d+ +([a-z0-9_]+)\((\d+)(?:<([^>]*)>)?.*= (\d+)", re.MULTILINE)
traceable = pytest.mark.skipif(not may_mount() or shutil.which("strace") is None, reason="needs root and strace")


@pytest.fixture(params=[None, "dedup"])
def leak(request: pytest.FixtureRequest) -> str | None:
    found = request.param
    assert found is None or isinstance(found, str)
    return found


@contextlib.contextmanager
def traced(server: FileServer, log: Path) -> Iterator[None]:
    """Note the calls of the server in a file while the block runs."""
    words = ["-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", f"trace={','.join(_CALLS)}", "-p", str(server.pid)]
    tracer = subprocess.Popen([program("strace", "strace"), *words], stderr=subprocess.DEVNULL)
    try:

        def attached() -> bool:
            tasks = Path(f"/proc/{server.pid}/task").iterdir()
            try:
                return all(f"TracerPid:\t{tracer.pid}\n" in (task / "status").read_text() for task in tasks)
            except OSError:
                return False  # a thread has ended meanwhile

        wait_until(attached, "strace has attached")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)


def effects(log: Path, server: FileServer) -> Counter[tuple[str, int]]:
    """What the calls did to files and to the client: (call and kind of file, bytes), and how often each.

    What threads wake each other with is left out, and so are the databases: what they write depends on what is in them
    already, and on who else has a row to write (tests/unit/files counts their commits).
    """
    found: Counter[tuple[str, int]] = Counter()
    storage = str(server.storage).encode()
    for call, _, place, result in _LINE.findall(log.read_bytes()):
        kind = call.decode()
        if place.startswith((b"TCP", b"socket:")):
            found["answer", int(result)] += 1
        elif place.startswith(storage) and b".db" not in place:
            found[f"{kind} of a file", int(result)] += 1
    return found


def seen(server: FileServer, log: Path, pairs: int) -> tuple[list[Counter[tuple[str, int]]], list[list[object]]]:
    """Effects of `pairs` first and of `pairs` second uploads of a content, and the shapes of the answers to both."""
    doings = [Counter[tuple[str, int]](), Counter[tuple[str, int]]()]
    shapes: list[list[object]] = [[], []]
    watch = Stopwatch(server)
    try:
        for _, request in timing.uploads(3):
            assert watch.ask(request)[1].status == 201
        for number, (owner, request) in enumerate(timing.uploads(pairs)):
            each = log.with_suffix(f".{number}")
            with traced(server, each):
                told = watch.ask(request)[1]
            shapes[owner].append(shape(told))
            doings[owner] += effects(each, server)
    finally:
        watch.close()
    return doings, shapes


@traceable
def test_s_43_first_and_second_upload_do_the_same(tmp_path: Path, leak: str | None) -> None:
    """Bytes written, files and databases synced, bytes answered; and a server that leaks does not pass."""
    server = timing.server_for(tmp_path / "server", leak)
    server.start()
    try:
        (first, second), (told, told_again) = seen(server, tmp_path / "calls", 3)
    finally:
        server.stop()
    assert sum(count for (what, _), count in first.items() if what == "answer") == 3
    assert sum(size * count for (what, size), count in first.items() if "write" in what and "file" in what) == 3 * (
        16 * 1024
    )
    assert any("fdatasync of a file" in what for what, _ in first)
    if leak is None:
        assert first == second
    else:
        assert first != second
    assert told == told_again


def test_s_43_many_pairs_have_one_answer(tmp_path: Path) -> None:
    """Status, fields and lengths: none of 120 answers differs."""
    server = timing.server_for(tmp_path / "server")
    server.start()
    watch = Stopwatch(server)
    try:
        shapes: list[list[object]] = [[], []]
        for owner, request in timing.uploads(60):
            shapes[owner].append(shape(watch.ask(request)[1]))
    finally:
        watch.close()
        server.stop()
    assert len(shapes[0]) == len(shapes[1]) == 60
    assert all(each == shapes[0][0] for each in [*shapes[0], *shapes[1]])


@traceable
def test_s_07_a_nearly_right_signature_is_refused_like_any_other(tmp_path: Path) -> None:
    server = timing.server_for(tmp_path / "server")
    server.start()
    right = slots.v1("timing/file", 0).partition("=")[2]
    doings, shapes = [], []
    watch = Stopwatch(server)
    try:
        for known in (0, 1, 32, 62, 63):
            target = f"/upload/timing/file?v={timing.refused(known, right, known)}"
            log = tmp_path / f"calls-{known}"
            with traced(server, log):
                told = watch.ask(f"PUT {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".encode())[1]
            assert told.status == 403
            shapes.append(shape(told))
            doings.append(effects(log, server))
    finally:
        watch.close()
        server.stop()
    assert all(each == doings[0] for each in doings)
    assert all(each == shapes[0] for each in shapes)


def test_the_statistics_find_a_difference_that_is_there() -> None:
    """A hundredth of the spread, in ten thousand pairs with outliers; and none where there is none."""
    chance = random.Random(7)

    def times(shift: float) -> tuple[float, ...]:
        return tuple(
            100e-6 + shift + abs(chance.gauss(0, 20e-6)) + (chance.random() < 0.05) * chance.random() * 5e-3
            for _ in range(10_000)
        )

    assert abs(Compared("none", times(0), times(0)).t) < timing.LIMIT
    assert abs(Compared("some", times(0), times(2e-6)).t) > timing.LIMIT
