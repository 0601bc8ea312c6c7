"""Several processes on one tree, as the server runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.files.stores import get, opened, put

from hmac_file_server.files import fsck
from hmac_file_server.files.contract import Metadata, Outcome, StoreInUse
from hmac_file_server.files.locking import lock
from hmac_file_server.files.paths import parse

WORKER = """
import json, sys
from pathlib import Path
from tests.unit.files.stores import opened, put, get
from hmac_file_server.clock import SystemClock
from hmac_file_server.files.contract import Metadata
from hmac_file_server.files.paths import parse

root, name, durability, dedup = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "dedup"
with opened(root, durability=durability, dedup=dedup, clock=SystemClock()) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    outcomes = []
    for i in range(60):
        outcomes.append(put(store, f"shared/{i % 7}/{i}", f"{name}-{i}".encode(), Metadata("text/x-" + name)).outcome.name)
        assert put(store, f"own-{name}/{i}/f", b"the same for all", Metadata("text/x-" + name)).outcome.name == "CREATED"
        assert get(store, f"own-{name}/{i}/f") == b"the same for all"
        assert put(store, f"agreed/{i}", b"agreed").outcome.name in {"CREATED", "SAME"}
        if i % 3 == 0:
            assert store.delete(parse(f"own-{name}/{i}/f"), "done")
    taken = sum(store.take_ticket("ticket", 50, 9e9) for _ in range(60))
print(json.dumps([outcomes, taken]), flush=True)
"""


@pytest.mark.parametrize(("durability", "dedup"), [("full", "dedup"), ("relaxed", "plain")])
def test_processes_share_a_tree(tmp_path: Path, durability: str, dedup: str) -> None:
    names = ["one", "two", "three"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "root"), name, durability, dedup],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        reports = {}
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        for name, worker in zip(names, workers, strict=True):
            output, _ = worker.communicate(timeout=100)
            assert worker.returncode == 0
            reports[name] = json.loads(output)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert sum(taken for _, taken in reports.values()) == 50
    with opened(tmp_path / "root") as store:
        for i in range(60):
            winners = [name for name in names if reports[name][0][i] == "CREATED"]
            assert len(winners) == 1, "one path, one winner"
            assert all(reports[name][0][i] in {"CREATED", "CONFLICT"} for name in names)
            path = f"shared/{i % 7}/{i}"
            assert get(store, path) == f"{winners[0]}-{i}".encode()
            entry = store.head(parse(path))
            assert entry is not None
            assert entry.media_type == f"text/x-{winners[0]}", "and the winner's metadata"
            assert (store.head(parse(f"own-one/{i}/f")) is None) == (i % 3 == 0)
    assert fsck.check(tmp_path / "root", repair=False).problems == ()


def test_the_lock_holds_against_another_process_and_ends_with_its_holder(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from hmac_file_server.files.locking import lock; held = lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.readline()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse):
            lock(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    lock(tmp_path).release()


def test_a_process_that_is_killed_leaves_a_tree_to_go_on_with(tmp_path: Path) -> None:
    """D-08 by SIGKILL: relaxed rows that were never written are the most that is lost."""
    code = """
import os, signal, sys
from pathlib import Path
from tests.unit.files.stores import opened, put
from hmac_file_server.files.contract import Metadata
with opened(Path(sys.argv[1]), durability=sys.argv[2]) as store:
    store._committer.flush_soon = lambda: None
    put(store, "a/f.txt", b"hello", Metadata("text/x-own"))
    store.spool().write(b"under way")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for durability, expected in (("full", "text/x-own"), ("relaxed", "text/plain")):
        root = tmp_path / durability
        ended = subprocess.run([sys.executable, "-c", code, str(root), durability], check=False)
        assert ended.returncode == -9
        with opened(root) as store:
            entry = store.head(parse("a/f.txt"))
            assert entry is not None
            assert entry.media_type == expected
            assert put(store, "a/f.txt", b"hello", Metadata("text/x-own")).outcome is Outcome.SAME
            healed = store.head(parse("a/f.txt"))
            assert healed is not None
            assert healed.media_type == "text/x-own"
        assert fsck.check(root, repair=False).problems == ()
