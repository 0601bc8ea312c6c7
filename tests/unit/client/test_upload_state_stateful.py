"""What is remembered, as a machine: runs come, save, crash and end in any order while time passes and sweeps run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hmac_file_server.client.state import Entry, Fingerprint, HeldEntry, StateStore, UploadHeld

UPLOADS = [Fingerprint(f"/home/a/{number}", 1, 2, 3, "https://h", "tus", "n") for number in range(3)]
WHICH = st.integers(0, len(UPLOADS) - 1)


class Runs(RuleBasedStateMachine):
    """`told` is what a later run must find: the last that was saved, until it is deleted or has expired."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="upload-state-"))
        # Entries are as old as their files say, so that time begins with them.
        self.now = 0.0
        self.store = StateStore(self.folder / "uploads", clock=lambda: self.now)
        self.held: dict[int, HeldEntry] = {}
        self.told: dict[int, Entry] = {}
        self.count = 0

    @initialize()
    def begin(self) -> None:
        probe = self.folder / "probe"
        probe.write_bytes(b"")
        self.now = probe.stat().st_mtime

    @rule(which=WHICH)
    def take(self, which: int) -> None:
        if which in self.held:
            with pytest.raises(UploadHeld) as refusal:
                self.store.hold(UPLOADS[which])
            assert refusal.value.pid == os.getpid()
        else:
            self.held[which] = self.store.hold(UPLOADS[which])

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data(), lifetime=st.none() | st.floats(1, 1000))
    def save(self, data: st.DataObject, lifetime: float | None) -> None:
        which = data.draw(st.sampled_from(sorted(self.held)))
        self.count += 1
        entry = Entry({"number": self.count}, None if lifetime is None else self.now + lifetime)
        self.held[which].save(entry)
        self.told[which] = entry

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(sorted(self.held)))
        self.held[which].delete()
        self.told.pop(which, None)

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data(), crash=st.booleans())
    def end(self, data: st.DataObject, crash: bool) -> None:
        which = data.draw(st.sampled_from(sorted(self.held)))
        held = self.held.pop(which)
        if crash:
            # The kernel lets go of the lock, and the files stay.
            assert held._lock is not None
            os.close(held._lock)
            held._lock = None
            (self.store.folder / f"{UPLOADS[which].key}.new").write_bytes(b'{"half')
        else:
            held.close()

    @rule(seconds=st.floats(0, 2000))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        expired = {which for which in self.told if not self.alive(which)}
        swept = self.store.sweep()
        assert swept == len(expired - self.held.keys())
        for which in expired - self.held.keys():
            del self.told[which]

    @rule(which=WHICH)
    def damage(self, which: int) -> None:
        path = self.store.folder / f"{UPLOADS[which].key}.json"
        if path.exists():
            path.write_bytes(path.read_bytes()[:-5])
            self.told.pop(which, None)

    def alive(self, which: int) -> bool:
        expires = self.told[which].expires
        return expires is None or self.now < expires

    @invariant()
    def what_was_saved_is_found(self) -> None:
        for which, held in self.held.items():
            expected = self.told.get(which) if which in self.told and self.alive(which) else None
            assert held.load() == expected
        assert self.store.problem is None

    def teardown(self) -> None:
        for held in self.held.values():
            held.close()
        shutil.rmtree(self.folder)


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
