"""An upload in one piece: what it takes before a byte, what it gives back however it ends, what it answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.uploads.memory_store import MemoryStore

from hmac_file_server.files.contract import (
    Metadata,
    PathRefused,
    Published,
    Spool,
    StorageError,
    StorageFailed,
    StorageFull,
    StoragePath,
)
from hmac_file_server.uploads import Plan, SingleUpload, Stored, UploadRefused
from hmac_file_server.uploads.single import Result

MIB = 1 << 20
PATH = StoragePath("dir/a.png")
META = Metadata("image/png", None, "alice@example.org")
STEP = 16 * MIB


def plan(
    size: int | None, limit: int = 1000, *, ticket: tuple[str, int, float] | None = None, expected: int = 0
) -> Plan:
    return Plan(PATH, size, limit, META, ticket, expected)


def finish(upload: SingleUpload, store: MemoryStore, *, inline: bool = False) -> Result:
    """The result; a second one would be a fault."""
    results: list[Result] = []
    upload.finish(results.append, inline=inline)
    store.run_later()
    assert len(results) == 1
    return results[0]


def refused(result: Result, code: str) -> None:
    assert isinstance(result, UploadRefused)
    assert result.code == code
    assert result.detail


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize("look_first", [False, True])
@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("pieces", [[], [b"abc"], [b"a", b"", b"bc", b"d" * 100]])
def test_what_was_written_is_published(store: MemoryStore, look_first: bool, inline: bool, pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    upload = SingleUpload(store, plan(len(body)), look_first=look_first)
    for piece in pieces:
        upload.write(memoryview(piece))
    assert PATH not in store.files
    assert upload.received == len(body)
    result = finish(upload, store, inline=inline)
    assert isinstance(result, Stored)
    assert result.created
    assert (result.entry.size, result.entry.owner, result.entry.media_type) == (len(body), META.owner, "image/png")
    assert store.files[PATH][1] == body
    assert store.idle


@pytest.mark.parametrize("look_first", [False, True])
@pytest.mark.parametrize("size", [3, None])
def test_the_same_again(store: MemoryStore, look_first: bool, size: int | None) -> None:
    entry = store.add(PATH, b"abc")
    upload = SingleUpload(store, plan(size), look_first=look_first)
    assert store.spools == (0 if look_first else 1)
    upload.write(memoryview(b"abc"))
    result = finish(upload, store)
    assert isinstance(result, Stored)
    assert (result.created, result.entry) == (False, entry)
    assert store.idle


@pytest.mark.parametrize("look_first", [False, True])
@pytest.mark.parametrize("body", [b"abd", b"ab", b"abcd", b""])
def test_other_bytes_are_a_conflict(store: MemoryStore, look_first: bool, body: bytes) -> None:
    store.add(PATH, b"abc")
    upload = SingleUpload(store, plan(None), look_first=look_first)
    upload.write(memoryview(body))
    refused(finish(upload, store), "exists")
    assert store.files[PATH][1] == b"abc"
    assert store.idle


def test_another_size_is_a_conflict_before_a_byte(store: MemoryStore) -> None:
    store.add(PATH, b"abc")
    with pytest.raises(UploadRefused) as caught:
        SingleUpload(store, plan(4), look_first=True)
    assert caught.value.code == "exists"
    assert store.admitted == []
    assert store.idle


def test_a_file_that_goes_between_two_looks(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted after it was seen: the body is stored like any other."""
    store.add(PATH, b"abc")
    monkeypatch.setattr(store, "compare", lambda path: store.files.clear())
    upload = SingleUpload(store, plan(3), look_first=True)
    upload.write(memoryview(b"abc"))
    result = finish(upload, store)
    assert isinstance(result, Stored)
    assert result.created


def test_a_file_that_comes_while_the_body_does(store: MemoryStore) -> None:
    upload = SingleUpload(store, plan(3), look_first=True)
    upload.write(memoryview(b"abc"))
    store.add(PATH, b"xyz")
    refused(finish(upload, store), "exists")
    assert store.idle


# --- room ------------------------------------------------------------------------------------------------


def test_room_is_found_before_a_byte(store: MemoryStore) -> None:
    upload = SingleUpload(store, plan(700), look_first=True)
    assert store.admitted == [700]
    assert store.promised == 700
    upload.abandon()
    assert store.idle


@pytest.mark.parametrize("look_first", [False, True])
def test_no_room(look_first: bool) -> None:
    store = MemoryStore(free=10)
    with pytest.raises(StorageFull):
        SingleUpload(store, plan(11), look_first=look_first)
    assert store.idle


@pytest.mark.parametrize("look_first", [False, True])
@pytest.mark.parametrize(("body", "same"), [(b"x" * 11, True), (b"y" * 11, False)])
def test_what_is_there_needs_no_room(look_first: bool, body: bytes, same: bool) -> None:
    store = MemoryStore(free=10)
    store.add(PATH, b"x" * 11)
    upload = SingleUpload(store, plan(11), look_first=look_first)
    upload.write(memoryview(body))
    result = finish(upload, store)
    assert isinstance(result, Stored if same else UploadRefused)
    assert store.idle


def test_a_body_of_unknown_length_is_admitted_in_steps() -> None:
    store = MemoryStore(free=3 * STEP)
    upload = SingleUpload(store, plan(None, limit=1 << 40), look_first=False)
    assert store.admitted == [0]
    piece = memoryview(bytes(MIB))
    for _ in range(STEP // MIB + 1):
        upload.write(piece)
    assert store.admitted == [0, MIB + STEP]
    upload.write(piece)
    # No more than one step is outstanding, however much has been written.
    assert store.promised <= STEP + MIB
    store.free = 0
    for _ in range(STEP // MIB):
        upload.write(piece)
    with pytest.raises(StorageFull):
        upload.write(piece)
    upload.abandon()
    assert store.idle


def test_an_expected_length_is_admitted_at_once(store: MemoryStore) -> None:
    upload = SingleUpload(store, plan(None, limit=1 << 40, expected=5 * MIB), look_first=False)
    assert store.admitted == [5 * MIB]
    for _ in range(5):
        upload.write(memoryview(bytes(MIB)))
    assert store.admitted == [5 * MIB]
    upload.write(memoryview(b"x"))
    assert len(store.admitted) == 2
    assert isinstance(finish(upload, store), Stored)
    assert store.idle


# --- size ------------------------------------------------------------------------------------------------


def test_more_than_the_limit_is_refused_before_a_byte(store: MemoryStore) -> None:
    with pytest.raises(UploadRefused) as caught:
        SingleUpload(store, plan(1001, limit=1000), look_first=True)
    assert caught.value.code == "too_large"
    assert store.admitted == []


@pytest.mark.parametrize("size", [10, None])
def test_more_than_announced_or_allowed_is_refused_while_it_comes(store: MemoryStore, size: int | None) -> None:
    upload = SingleUpload(store, plan(size, limit=10), look_first=True)
    upload.write(memoryview(bytes(10)))
    with pytest.raises(UploadRefused) as caught:
        upload.write(memoryview(b"x"))
    assert caught.value.code == "too_large"
    assert upload.received == 10
    upload.abandon()
    assert store.idle
    assert store.files == {}


def test_less_than_announced_is_no_file(store: MemoryStore) -> None:
    upload = SingleUpload(store, plan(10), look_first=True)
    upload.write(memoryview(bytes(9)))
    refused(finish(upload, store), "incomplete")
    assert store.idle
    assert store.files == {}


# --- tickets ---------------------------------------------------------------------------------------------

TICKET = ("ticket-1", 1, 2_000_000_000.0)


def test_a_use_is_counted_for_a_new_file(store: MemoryStore) -> None:
    upload = SingleUpload(store, plan(3, ticket=TICKET), look_first=False)
    assert store.tickets == {"ticket-1": 1}
    upload.write(memoryview(b"abc"))
    assert isinstance(finish(upload, store), Stored)
    assert store.tickets == {"ticket-1": 1}


def test_a_used_up_ticket(store: MemoryStore) -> None:
    store.tickets["ticket-1"] = 1
    with pytest.raises(UploadRefused) as caught:
        SingleUpload(store, plan(3, ticket=TICKET), look_first=False)
    assert caught.value.code == "ticket_used_up"
    assert store.idle
    assert store.tickets == {"ticket-1": 1}


@pytest.mark.parametrize("look_first", [False, True])
def test_a_repeat_costs_no_use(store: MemoryStore, look_first: bool) -> None:
    store.tickets["ticket-1"] = 1
    store.add(PATH, b"abc")
    upload = SingleUpload(store, plan(3, ticket=TICKET), look_first=look_first)
    upload.write(memoryview(b"abc"))
    assert isinstance(finish(upload, store), Stored)
    assert store.tickets == {"ticket-1": 1}


@pytest.mark.parametrize("how", ["abandoned", "short", "conflict", "same meanwhile", "failed", "no spool"])
def test_a_use_is_given_back_once(store: MemoryStore, how: str) -> None:
    if how == "no spool":
        store.errors["spool"] = StorageFailed("no")
        with pytest.raises(StorageFailed):
            SingleUpload(store, plan(3, ticket=TICKET), look_first=False)
    else:
        upload = SingleUpload(store, plan(3, ticket=TICKET), look_first=False)
        upload.write(memoryview(b"ab" if how == "short" else b"abc"))
        if how == "abandoned":
            upload.abandon()
        else:
            if how == "conflict":
                store.add(PATH, b"xyz")
            elif how == "same meanwhile":
                store.add(PATH, b"abc")
            elif how == "failed":
                store.errors["publish"] = StorageFailed("no")
            finish(upload, store)
        upload.abandon()
    assert store.tickets == {"ticket-1": 0}
    assert store.idle


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["head", "admit", "ticket", "spool", "open"])
def test_a_store_that_fails_at_the_beginning(store: MemoryStore, step: str) -> None:
    if step == "open":
        store.add(PATH, b"abc")
    store.errors[step] = StorageFailed("no")
    with pytest.raises(StorageFailed):
        SingleUpload(store, plan(3, ticket=TICKET), look_first=True)
    assert store.idle
    assert store.tickets.get("ticket-1", 0) == 0


@pytest.mark.parametrize("inline", [False, True])
def test_a_store_that_fails_to_publish(store: MemoryStore, inline: bool) -> None:
    store.errors["publish"] = StorageFailed("no")
    upload = SingleUpload(store, plan(3), look_first=False)
    upload.write(memoryview(b"abc"))
    assert finish(upload, store, inline=inline) is store.errors["publish"]
    assert store.idle
    assert store.files == {}


def test_a_path_that_the_file_system_refuses(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(spool: Spool, path: StoragePath, meta: Metadata) -> Published:
        spool.discard()
        raise PathRefused("path_segment_too_long", "a segment is too long")

    monkeypatch.setattr(store, "publish", publish)
    upload = SingleUpload(store, plan(3), look_first=False)
    upload.write(memoryview(b"abc"))
    result = finish(upload, store, inline=True)
    assert isinstance(result, PathRefused)
    assert store.idle


def test_a_store_that_fails_to_write(store: MemoryStore) -> None:
    upload = SingleUpload(store, plan(3), look_first=False)
    store.errors["write"] = StorageFull("no")
    with pytest.raises(StorageFull):
        upload.write(memoryview(b"abc"))
    upload.abandon()
    assert store.idle


@pytest.mark.parametrize("step", ["same", "read"])
def test_a_store_that_fails_to_compare(store: MemoryStore, step: str) -> None:
    """A file that could not be read, or made durable, is not acknowledged again; and it is closed."""
    store.add(PATH, b"abc")
    upload = SingleUpload(store, plan(3), look_first=True)
    upload.write(memoryview(b"abc"))
    store.errors[step] = StorageFailed("no")
    assert finish(upload, store) is store.errors[step]
    assert store.idle


def test_endings_after_the_first_do_nothing(store: MemoryStore) -> None:
    upload = SingleUpload(store, plan(3), look_first=False)
    upload.write(memoryview(b"abc"))
    results: list[Result] = []
    upload.finish(results.append)
    upload.finish(results.append)
    upload.abandon()
    assert results == []
    store.run_later()
    assert len(results) == 1
    upload.abandon()
    assert PATH in store.files
    assert store.idle


# --- any order of everything -----------------------------------------------------------------------------


@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans(), st.booleans())
def test_two_uploads_of_one_path(first: bytes, second: bytes, look_first: bool, known: bool) -> None:
    """Whatever they bring: the path has the bytes of the first that ended, and both are told the truth."""
    store = MemoryStore()
    uploads = []
    for body in (first, second):
        upload = SingleUpload(store, plan(len(body) if known else None), look_first=look_first)
        upload.write(memoryview(body))
        uploads.append(upload)
    one, two = (finish(upload, store) for upload in reversed(uploads))
    assert isinstance(one, Stored)
    assert one.created
    assert store.files[PATH][1] == second
    if first == second:
        assert isinstance(two, Stored)
        assert not two.created
    else:
        refused(two, "exists")
    assert store.idle


class Uploads(RuleBasedStateMachine):
    """Many uploads to few paths, cut, finished and failing in any order.

    After each step: what is outstanding belongs to an upload under way; a path never changes its content; the
    ticket was taken as often as it has new files or uploads under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(free=500)
        self.running: list[tuple[SingleUpload, Plan, bytearray]] = []
        self.publishing = 0
        self.content: dict[str, bytes] = {}
        self.by_ticket = 0

    @initialize()
    def begin(self) -> None:
        self.store.add("there", b"there")
        self.content["there"] = b"there"

    @rule(
        path=st.sampled_from(["a", "b", "there"]),
        size=st.none() | st.integers(0, 60),
        look_first=st.booleans(),
        ticket=st.booleans(),
    )
    def start(self, path: str, size: int | None, look_first: bool, ticket: bool) -> None:
        uses = ("t", 3, 2e9) if ticket else None
        wanted = Plan(StoragePath(path), size, 50, META, uses, 0)
        try:
            upload = SingleUpload(self.store, wanted, look_first=look_first)
        except (UploadRefused, StorageError):
            return
        self.running.append((upload, wanted, bytearray()))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100), piece=st.sampled_from([b"", b"t", b"here", b"x" * 30]))
    def write(self, which: int, piece: bytes) -> None:
        upload, _, body = self.running[which % len(self.running)]
        try:
            upload.write(memoryview(piece))
        except (UploadRefused, StorageError):
            upload.abandon()
            del self.running[which % len(self.running)]
        else:
            body += piece

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100))
    def cut(self, which: int) -> None:
        upload, _, _ = self.running.pop(which % len(self.running))
        upload.abandon()

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100), inline=st.booleans(), fails=st.booleans())
    def end(self, which: int, inline: bool, fails: bool) -> None:
        upload, wanted, body = self.running.pop(which % len(self.running))
        if fails:
            self.store.errors["publish"] = StorageFailed("no")
        result = finish(upload, self.store, inline=inline)
        self.store.errors.clear()
        if isinstance(result, Stored):
            assert wanted.size in {None, len(body)}
            if result.created:
                assert not fails
                assert wanted.path not in self.content
                self.content[wanted.path] = bytes(body)
                self.by_ticket += wanted.ticket is not None
            else:
                assert self.content[wanted.path] == bytes(body)

    @invariant()
    def nothing_changes_and_nothing_leaks(self) -> None:
        assert {path: content for path, (_, content) in self.store.files.items()} == self.content
        assert self.store.spools + self.store.readers == len(self.running)
        assert self.store.tickets.get("t", 0) <= 3
        if not self.running:
            assert self.store.idle
            assert self.store.tickets.get("t", 0) == self.by_ticket


TestUploads = Uploads.TestCase
TestUploads.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
