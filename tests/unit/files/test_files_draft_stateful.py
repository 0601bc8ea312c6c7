"""Drafts of two servers on one folder against a plain model: who holds what, which bytes, what is published."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.files.stores import PNG, ManualClock, get, publish_draft, tree

from hmac_file_server.files import fsck
from hmac_file_server.files.contract import DraftHeld, Outcome, Published, StorageFailed
from hmac_file_server.files.drafts import LocalDraft
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import PRIVATE, parse

NAMES = st.sampled_from(["one", "two", "three"])
SERVERS = st.integers(0, 1)
PATHS = st.sampled_from(["f", "a/f"])


class DraftMachine(RuleBasedStateMachine):
    @initialize(dedup=st.booleans(), durability=st.sampled_from(["full", "relaxed"]))
    def begin(self, dedup: bool, durability: str) -> None:
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.root = Path(self.folder.name)
        self.options = {"dedup": dedup, "durability": durability}
        self.pool = ThreadPoolExecutor(2)
        self.stores = [self.open(), self.open()]
        self.bytes: dict[str, bytearray] = {}
        self.held: dict[str, tuple[int, LocalDraft]] = {}
        self.frozen: set[str] = set()
        self.published: dict[str, bytes] = {}

    def open(self) -> LocalFileStore:
        return LocalFileStore(self.root, clock=ManualClock(), submit=self.pool.submit, **self.options)  # type: ignore[arg-type]

    @rule(server=SERVERS, name=NAMES, create=st.booleans())
    def take(self, server: int, name: str, create: bool) -> None:
        try:
            draft = self.stores[server].draft(name, create=create)
        except DraftHeld:
            assert name in self.held
            return
        assert name not in self.held
        if draft is None:
            assert not create
            assert name not in self.bytes
        else:
            assert create or name in self.bytes
            self.bytes.setdefault(name, bytearray())
            self.held[name] = server, draft

    @precondition(lambda self: self.held)
    @rule(name=NAMES, offset=st.integers(0, 40), piece=st.binary(min_size=1, max_size=20))
    def write(self, name: str, offset: int, piece: bytes) -> None:
        if name not in self.held:
            return
        _, draft = self.held[name]
        if name in self.frozen:
            try:
                draft.write_at(piece, offset)
            except StorageFailed:
                return
            raise AssertionError("bytes that may be public were changed")
        draft.write_at(piece, offset)
        there = self.bytes[name]
        there += bytes(max(0, offset - len(there)))
        there[offset : offset + len(piece)] = piece

    @precondition(lambda self: self.held)
    @rule(name=NAMES)
    def sync(self, name: str) -> None:
        if name in self.held:
            self.held[name][1].sync()

    @rule(name=NAMES, drop=st.booleans())
    def let_go(self, name: str, drop: bool) -> None:
        if name not in self.held:
            return
        _, draft = self.held.pop(name)
        if not drop and name in self.frozen:
            drop = True  # what was published is not written to again; its owner discards it
        self.frozen.discard(name)
        if drop:
            draft.discard()
            del self.bytes[name]
        else:
            draft.close()

    @rule(server=SERVERS, name=NAMES)
    def drop(self, server: int, name: str) -> None:
        free = name in self.bytes and name not in self.held
        assert self.stores[server].drop_draft(name) == free
        if free:
            del self.bytes[name]

    @precondition(lambda self: self.held)
    @rule(name=NAMES, path=PATHS, hashed=st.booleans())
    def publish(self, name: str, path: str, hashed: bool) -> None:
        if name not in self.held:
            return
        server, draft = self.held[name]
        store = self.stores[server]
        body = bytes(self.bytes[name])
        hasher = store.new_hasher(len(body)) if hashed else None
        digest = None
        if hasher is not None:
            hasher.update(body)
            digest = store.digest_text(hasher)
        self.frozen.add(name)
        before = self.published.get(path)
        found: Published = publish_draft(store, draft, path, len(body), digest, PNG)
        expected = Outcome.CREATED if before is None else Outcome.SAME if before == body else Outcome.CONFLICT
        assert found.outcome is expected
        self.published.setdefault(path, body)
        assert found.entry is not None
        assert found.entry.size == len(self.published[path])

    @rule(server=SERVERS, path=PATHS)
    def delete(self, server: int, path: str) -> None:
        for store in self.stores:
            store.metadata.flush()
        assert self.stores[server].delete(parse(path), "asked") == (self.published.pop(path, None) is not None)

    @rule(server=SERVERS)
    def restart(self, server: int) -> None:
        for name in [name for name, (holder, _) in self.held.items() if holder == server]:
            self.held.pop(name)[1].close()
            if name in self.frozen:
                self.frozen.discard(name)
                assert self.stores[1 - server].drop_draft(name)
                del self.bytes[name]
        self.stores[server].close()
        self.stores[server] = self.open()

    @rule()
    def check(self) -> None:
        for store in self.stores:
            store.metadata.flush()
        assert fsck.check(self.root, repair=True, clock=ManualClock(4e9)).problems == ()

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        if not hasattr(self, "bytes"):
            return
        folder = self.root / PRIVATE / "uploads"
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == self.bytes
        for name, (_, draft) in self.held.items():
            assert draft.read_at(0, 1000) == self.bytes[name]
        for store in self.stores:
            assert sorted(store.drafts(9e12)) == sorted(set(self.bytes) - set(self.held))
            assert {path: get(store, path) for path in self.published} == self.published
        assert {path for path, body in tree(self.root).items() if body is not None} == set(self.published)

    def teardown(self) -> None:
        if hasattr(self, "held"):
            for _, draft in self.held.values():
                draft.close()
            for store in self.stores:
                store.close()
            self.pool.shutdown()
            self.folder.cleanup()


TestDrafts = DraftMachine.TestCase
TestDrafts.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
