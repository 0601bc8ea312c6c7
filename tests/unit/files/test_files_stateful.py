"""The store against a model of itself: a dictionary of what was published."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.files.stores import ManualClock, get, put, put_soon, tree

from hmac_file_server.files import fsck
from hmac_file_server.files.contract import Metadata, Outcome, Published
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.paths import PRIVATE, parse

SEGMENTS = st.sampled_from(["a", "b", "c", "é", "😀 x", "%2e"])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)
BODIES = st.sampled_from([b"", b"x", b"y", b"hello", b"z" * 5000])
TYPES = st.sampled_from([None, "image/png", "text/x-own"])
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass
class Known:
    body: bytes
    media_type: str | None
    owner: str | None
    created: float
    expires: float | None


class StoreMachine(RuleBasedStateMachine):
    """Publish, repeat, compare, delete, let time pass, reopen; a second store on the same tree reads along."""

    @initialize(full=st.booleans(), dedup=st.booleans(), ttl=st.sampled_from([None, 100.0]))
    def begin(self, full: bool, dedup: bool, ttl: float | None) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.root = self.folder / "root"
        self.clock = ManualClock()
        self.pool = ThreadPoolExecutor(2)
        self.options = {"durability": "full" if full else "relaxed", "dedup": dedup, "file_ttl": ttl}
        self.ttl = ttl
        self.model: dict[str, Known] = {}
        self.store = self.open()
        self.other = self.open()

    def open(self) -> LocalFileStore:
        return LocalFileStore(self.root, clock=self.clock, submit=self.pool.submit, **self.options)  # type: ignore[arg-type]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.other.close()
            self.pool.shutdown()
            shutil.rmtree(self.folder)

    def expected(self, path: str, body: bytes) -> Outcome:
        segments = path.split("/")
        above = {"/".join(segments[:i]) for i in range(1, len(segments))}
        if above & self.model.keys() or any(known.startswith(path + "/") for known in self.model):
            return Outcome.CONFLICT
        if path not in self.model:
            return Outcome.CREATED
        return Outcome.SAME if self.model[path].body == body else Outcome.CONFLICT

    def account(self, path: str, body: bytes, meta: Metadata, result: Published) -> None:
        expected = self.expected(path, body)
        assert result.outcome is expected
        if expected is Outcome.CREATED:
            self.model[path] = Known(body, meta.media_type, meta.owner, self.clock.now, meta.expires)

    @rule(
        path=PATHS,
        body=BODIES,
        media_type=TYPES,
        owner=st.sampled_from([None, "alice"]),
        life=st.sampled_from([None, 5.0, 50.0]),
        soon=st.booleans(),
    )
    def publish(
        self, path: str, body: bytes, media_type: str | None, owner: str | None, life: float | None, soon: bool
    ) -> None:
        meta = Metadata(media_type, None, owner, None if life is None else self.clock.now + life, None)
        result = put_soon(self.store, path, body, meta)() if soon else put(self.store, path, body, meta)
        self.account(path, body, meta, result)

    @rule(paths=st.lists(PATHS, min_size=2, max_size=6, unique=True), body=BODIES)
    def publish_together(self, paths: list[str], body: bytes) -> None:
        paths = [p for p in paths if not any(q != p and q.startswith(p + "/") for q in paths)]
        waits = [(path, put_soon(self.store, path, body, Metadata())) for path in paths]
        for path, wait in waits:
            self.account(path, body, Metadata(), wait())

    @rule(path=PATHS, body=BODIES)
    def compare(self, path: str, body: bytes) -> None:
        comparison = self.store.compare(parse(path))
        assert (comparison is not None) == (path in self.model)
        if comparison is not None:
            comparison.write(body[:1])
            comparison.write(body[1:])
            assert comparison.same() == (self.model[path].body == body)
            comparison.close()

    @rule(path=PATHS)
    def delete(self, path: str) -> None:
        assert self.store.delete(parse(path), "asked") == (self.model.pop(path, None) is not None)

    @rule(body=BODIES)
    def discard(self, body: bytes) -> None:
        spool = self.store.spool()
        spool.write(body)
        spool.discard()

    @rule(seconds=st.sampled_from([1.0, 10.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.store.metadata.flush()
        due = {
            path
            for path, known in self.model.items()
            if (known.expires is not None and known.expires <= self.clock.now)
            or (self.ttl is not None and known.created + self.ttl <= self.clock.now)
        }
        assert {deletion.path for deletion in self.store.expire(self.clock.now)} == due
        for path in due:
            del self.model[path]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    @rule()
    def check(self) -> None:
        self.store.metadata.flush()
        assert fsck.check(self.root, repair=True, clock=self.clock).problems == ()

    @invariant()
    def the_tree_is_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        files = {path: body for path, body in tree(self.root).items() if body is not None}
        assert files == {path: known.body for path, known in self.model.items()}
        folders = {path for path, body in tree(self.root).items() if body is None}
        assert folders == {p.rsplit("/", i)[0] for p in self.model for i in range(1, p.count("/") + 1)}
        assert os.listdir(self.root / PRIVATE / "spool") == []
        assert self.store._space.outstanding() == 0

    @invariant()
    def every_entry_is_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        self.store.metadata.flush()
        for store in (self.store, self.other):
            for path, known in self.model.items():
                assert get(store, path) == known.body
                entry = store.head(parse(path))
                assert entry is not None
                assert (entry.owner, entry.created, entry.expires) == (known.owner, known.created, known.expires)
                assert known.media_type is None or entry.media_type == known.media_type
            for path in ("a", "b", "a/b", "a/b/c", "c/é"):
                assert (store.head(parse(path)) is None) == (path not in self.model)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
