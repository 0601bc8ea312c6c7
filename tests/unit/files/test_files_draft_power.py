"""Power cuts after every call in the life of uploads in pieces: no range that was told of is ever lost."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from tests.unit.files.power import PowerCut, PowerDisk
from tests.unit.files.stores import ManualClock, draft_of, get, publish_draft, put

from hmac_file_server.files import fsck
from hmac_file_server.files.contract import Metadata, Outcome, StorageError
from hmac_file_server.files.drafts import LocalDraft
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import parse

BODIES = {
    "one": b"first upload " * 300,
    "two": b"second upload " * 300,
    "twin": b"first upload " * 300,
}
PATHS = {"one": "a/b/one", "two": "a/two", "twin": "c/twin"}
OWN = Metadata("text/x-own")


class Told:
    """What the server told its clients before the power went."""

    def __init__(self) -> None:
        self.ranges: dict[str, list[tuple[int, int]]] = {name: [] for name in BODIES}
        self.receipts: set[str] = set()
        """Uploads whose receipt is durable: only then is the draft dropped."""


def digest(name: str) -> str:
    return "blake3:" + blake3(BODIES[name]).hexdigest()


def scenario(store: LocalFileStore, told: Told) -> None:
    """Chunks out of order on three uploads, a change of hands, an overlapping repeat, the end of each."""
    held: dict[str, LocalDraft] = {}

    def chunk(name: str, start: int, end: int, *, checkpoint: bool = True) -> None:
        held[name].write_at(BODIES[name][start:end], start)
        if checkpoint:
            held[name].sync()
            told.ranges[name].append((start, end))

    def finish(name: str) -> None:
        published = publish_draft(store, held[name], PATHS[name], len(BODIES[name]), digest(name), OWN)
        assert published.outcome is Outcome.CREATED
        told.receipts.add(name)
        held[name].discard()

    try:
        for name in BODIES:
            held[name] = draft_of(store, name)
        chunk("one", 2000, 3000)
        chunk("two", 0, 1000, checkpoint=False)
        chunk("two", 1000, 2500)
        told.ranges["two"].append((0, 1000))
        chunk("one", 0, 1500)
        held["one"].close()
        again = store.draft("one", create=False)
        assert again is not None
        held["one"] = again
        chunk("one", 1200, 2100)
        chunk("one", 3000, len(BODIES["one"]))
        put(store, "a/bystander", b"x")
        finish("one")
        chunk("twin", 0, len(BODIES["twin"]))
        finish("twin")
        chunk("two", 2500, len(BODIES["two"]))
        finish("two")
    finally:
        for draft in held.values():
            with contextlib.suppress(PowerCut):
                draft.close()


def run(disk: PowerDisk, dedup: bool) -> Told:
    told = Told()
    store: LocalFileStore | None = None
    try:
        store = LocalFileStore(
            disk.root, disk=disk, dedup=dedup, clock=ManualClock(), submit=lambda work: work(), random=bytes
        )
        scenario(store, told)
    except (PowerCut, StorageError):
        assert disk.dead
    if store is not None:
        try:
            store.close()
        except (PowerCut, StorageError):
            assert disk.dead
    return told


def violations(where: Path, told: Told, dedup: bool) -> Iterator[str]:
    """What is wrong with a tree found after the cut."""
    store = LocalFileStore(where, clock=ManualClock(), submit=lambda work: work(), dedup=dedup)
    try:
        for name, body in BODIES.items():
            path = PATHS[name]
            there = get(store, path)
            if there not in {None, body}:
                yield f"{name}: visible, but not whole"
            draft = store.draft(name, create=False)
            if name in told.receipts:
                entry = store.head(parse(path))
                if there != body or entry is None or entry.media_type != "text/x-own":
                    yield f"{name}: acknowledged, and now {there!r:.40}"
            elif draft is None:
                if told.ranges[name]:
                    yield f"{name}: acknowledged, and its draft is gone"
            else:
                for start, end in told.ranges[name]:
                    if draft.read_at(start, end - start) != body[start:end]:
                        yield f"{name}: acknowledged {start}-{end}, and it is lost"
            # The client goes on, or the engine does: the rest is written and published, once more where it was.
            if draft is None:
                draft = draft_of(store, name)
            draft.write_at(body, 0)
            try:
                outcome = publish_draft(store, draft, path, len(body), digest(name), OWN).outcome
            except StorageError as error:
                yield f"{name}: cannot be finished: {error!r}"
            else:
                if outcome is Outcome.CONFLICT:
                    yield f"{name}: the end is refused"
            draft.discard()
            if get(store, path) != body:
                yield f"{name}: finished, and not whole"
    finally:
        store.close()
    for problem in fsck.check(where, repair=True, clock=ManualClock()).problems:
        if "mismatch" in problem.code:
            yield f"fsck: {problem}"


def cut_everywhere(
    memory_path: Path, *, dedup: bool, rounds: int, step: int = 1, ignored: frozenset[str] = frozenset()
) -> list[str]:
    whole = PowerDisk(memory_path / "whole")
    whole.root.mkdir()
    assert run(whole, dedup).receipts == set(BODIES)
    assert whole.calls > 60
    found = []
    for cut in range(0, whole.calls + 1, step):
        disk = PowerDisk(memory_path / "disk", cut, ignored)
        disk.root.mkdir()
        told = run(disk, dedup)
        for seed in range(rounds):
            where = memory_path / "after"
            disk.survivors(where, random.Random(f"{cut} {seed}"))
            found += [f"cut {cut} seed {seed}: {text}" for text in violations(where, told, dedup)]
            shutil.rmtree(where)
        shutil.rmtree(disk.root)
    return found


@pytest.mark.parametrize("dedup", [False, True], ids=["plain", "dedup"])
def test_nothing_acknowledged_is_lost_wherever_the_power_goes(memory_path: Path, dedup: bool) -> None:
    assert cut_everywhere(memory_path, dedup=dedup, rounds=4) == []


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_the_model_notices_when_a_sync_is_left_out(memory_path: Path, call: str) -> None:
    """The negative control: without this the test above would prove nothing."""
    found = cut_everywhere(memory_path, dedup=False, rounds=2, step=5, ignored=frozenset({call}))
    assert any("acknowledged" in text for text in found)
