"""The parent of the server processes, with real children: started, replaced, told, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

PROGRAM = """
import os, select, signal, sys, time
from hmac_file_server import processes
from hmac_file_server.processes import HANDLED, Supervisor

processes._QUICK_DEATH = 0.0

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def serve(index, lifeline):
    if index == UNFIT:
        say("unfit", index)
        return 1
    read, write = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(write)
    for number in HANDLED:
        signal.signal(number, lambda number, frame: None)
    say("blocked", index, len(HANDLED & signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    say("serving", index, os.getpid())
    while True:
        ready, _, _ = select.select([read, lifeline], [], [])
        if lifeline in ready:
            say("orphan", index)
            return 0
        for number in os.read(read, 16):
            name = signal.Signals(number).name
            say(name, index)
            if name != "SIGHUP":
                return STATUS

supervisor = Supervisor(
    COUNT, serve, on_reload=lambda: say("check") or GOOD, on_stop=lambda: say("stop")
)
say("parent", os.getpid())
status = supervisor.run()
say("end", status)
sys.exit(status)
"""


class Parent:
    """A supervisor in a process of its own, and what it and its children say."""

    def __init__(self, count: int = 2, *, good: bool = True, status: int = 0, unfit: int = -1) -> None:
        head = f"COUNT, GOOD, STATUS, UNFIT = {count}, {good}, {status}, {unfit}\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", head + textwrap.dedent(PROGRAM)], stdout=subprocess.PIPE, text=True
        )
        self.pids: dict[int, int] = {}
        self.said: list[str] = []

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def hear(self, *words: str) -> None:
        """Read lines until each of `words` has been said, in any order."""
        missing = list(words)
        while missing:
            line = self.output.readline()
            assert line, f"ended before it said {missing}: {self.said}"
            self.take(line.strip())
            if self.said[-1] in missing:
                missing.remove(self.said[-1])

    def take(self, line: str) -> None:
        if line.startswith("serving "):
            _, index, pid = line.split()
            self.pids[int(index)] = int(pid)
            line = f"serving {index}"
        self.said.append(line)

    def rest(self) -> int:
        """Everything until the end; the exit status."""
        for line in self.output:
            self.take(line.strip())
        return self.process.wait(20)


@pytest.fixture
def parents() -> Iterator[list[Parent]]:
    found: list[Parent] = []
    yield found
    for parent in found:
        if parent.process.poll() is None:
            parent.process.kill()
        parent.process.wait(20)
        parent.output.close()


def started(parents: list[Parent], count: int = 2, *, good: bool = True, status: int = 0) -> Parent:
    parent = Parent(count, good=good, status=status)
    parents.append(parent)
    parent.hear(*(f"serving {index}" for index in range(count)))
    return parent


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_all(parents: list[Parent], number: signal.Signals) -> None:
    parent = started(parents, 3)
    parent.process.send_signal(number)
    assert parent.rest() == 0
    assert sorted(line for line in parent.said if line.startswith("SIGTERM")) == [f"SIGTERM {i}" for i in range(3)]
    assert parent.said.count("stop") == 1
    # The sockets are given up before the children are told.
    assert parent.said.index("stop") < min(parent.said.index(f"SIGTERM {index}") for index in range(3))
    assert parent.said[-1] == "end 0"
    assert not [pid for pid in parent.pids.values() if alive(pid)]


def test_children_begin_with_their_signals_held_back(parents: list[Parent]) -> None:
    parent = started(parents, 2)
    assert {line for line in parent.said if line.startswith("blocked")} == {"blocked 0 3", "blocked 1 3"}
    parent.process.terminate()
    assert parent.rest() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_child_that_died_is_replaced(parents: list[Parent], number: signal.Signals) -> None:
    parent = started(parents, 3)
    before = dict(parent.pids)
    os.kill(before[1], number)
    parent.hear("serving 1")
    assert parent.pids[1] != before[1]
    assert (parent.pids[0], parent.pids[2]) == (before[0], before[2])
    assert alive(parent.pids[0])
    parent.process.terminate()
    assert parent.rest() == 0


def test_all_children_at_once(parents: list[Parent]) -> None:
    """Signals of children melt into one: all of them are looked after."""
    parent = started(parents, 4)
    for pid in list(parent.pids.values()):
        os.kill(pid, signal.SIGKILL)
    parent.hear(*(f"serving {index}" for index in range(4)))
    parent.process.terminate()
    assert parent.rest() == 0
    assert len([line for line in parent.said if line.startswith("SIGTERM")]) == 4


def test_a_child_that_ends_by_itself_is_replaced_too(parents: list[Parent]) -> None:
    parent = started(parents, 2)
    os.kill(parent.pids[0], signal.SIGTERM)
    parent.hear("SIGTERM 0", "serving 0")
    parent.process.terminate()
    assert parent.rest() == 0


def test_a_good_configuration_reaches_all(parents: list[Parent]) -> None:
    parent = started(parents, 2, good=True)
    parent.process.send_signal(signal.SIGHUP)
    parent.hear("check", "SIGHUP 0", "SIGHUP 1")
    assert parent.said.count("check") == 1
    parent.process.terminate()
    assert parent.rest() == 0


def test_a_bad_configuration_reaches_nobody(parents: list[Parent]) -> None:
    parent = started(parents, 2, good=False)
    parent.process.send_signal(signal.SIGHUP)
    parent.hear("check")
    parent.process.terminate()
    assert parent.rest() == 0
    assert not [line for line in parent.said if line.startswith("SIGHUP")]


def test_the_worst_status_of_the_children_is_the_parents(parents: list[Parent]) -> None:
    parent = started(parents, 2, status=3)
    parent.process.terminate()
    assert parent.rest() == 1


def test_the_children_notice_that_their_parent_is_gone(parents: list[Parent]) -> None:
    parent = started(parents, 3)
    parent.process.kill()
    parent.hear("orphan 0", "orphan 1", "orphan 2")
    # The pipe ends with the last of them.
    assert parent.output.read() == ""


def test_a_replaced_child_notices_it_as_well(parents: list[Parent]) -> None:
    parent = started(parents, 2)
    os.kill(parent.pids[0], signal.SIGKILL)
    parent.hear("serving 0")
    parent.process.kill()
    parent.hear("orphan 0", "orphan 1")
    assert parent.output.read() == ""


def test_a_first_child_that_cannot_serve_ends_all(parents: list[Parent]) -> None:
    """As one process would: the supervisor of the machine is told, and not kept waiting by a loop of restarts."""
    parent = Parent(3, unfit=1)
    parents.append(parent)
    assert parent.rest() == 1
    assert parent.said.count("unfit 1") == 1
    assert parent.said.count("stop") == 1
    assert not [pid for pid in parent.pids.values() if alive(pid)]


def test_a_later_child_that_cannot_serve_is_tried_again(parents: list[Parent]) -> None:
    """Others serve, so the store was good a moment ago."""
    parent = started(parents, 2, status=1)
    os.kill(parent.pids[0], signal.SIGKILL)
    parent.hear("serving 0")
    # Ends with 1 a moment after its start, and comes again.
    os.kill(parent.pids[0], signal.SIGTERM)
    parent.hear("SIGTERM 0", "serving 0")
    parent.process.terminate()
    assert parent.rest() == 1
