"""From the creation of an upload to its receipt: space, tickets, keys, publishing once, crashes in between, the end."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from tests.fixtures.engine_world import DAY, Expected, Process, World, digest_of, order

from hmac_file_server.files.contract import StorageError, StorageFull, StoragePath
from hmac_file_server.stores.contract import COMPLETE, FAILED, OPEN, Finish, StoreError, TooManySessions
from hmac_file_server.uploads import Progress, Rules, State, UploadRefused
from hmac_file_server.uploads import engine as engine_module

BODY = bytes(range(64))
TICKET = ("ticket", 1, 4e9)


@pytest.fixture
def world() -> World:
    return World()


def promised(world: World) -> tuple[int, int]:
    """Bytes and uploads that the first server has promised space to."""
    pool = world.processes[0].pool
    return pool.bytes, pool.uploads


def code(result: object) -> str:
    assert isinstance(result, UploadRefused | StorageError | StoreError), result
    return result.code


def stored(world: World, path: str = "a/b.txt") -> bytes:
    return bytes(world.disk.links[path].file.live)


def sweep(world: World) -> None:
    for process in world.processes:
        process.engine.sweep()
    world.run()


def ended(world: World, what: str, begin: Any, *arguments: Any, process: Process | None = None) -> Any:
    """Call `begin` with a callback; what that gets."""
    done = world.expect(what, process)
    begin(*arguments, done)
    world.run()
    return done.result


# ---- creation


def test_n_16_an_empty_file_is_complete_at_once(world: World) -> None:
    created = world.create(0)
    assert created.complete
    assert created.receipt.size == 0
    assert stored(world) == b""
    assert promised(world) == (0, 0)
    world.end()


def test_ids_cannot_be_guessed_and_are_served_by_their_process() -> None:
    world = World()
    world.engine._slot, world.engine._slots = 2, 3
    ids = [world.create(1, path=StoragePath(f"{number}")).id for number in range(20)]
    assert len(set(ids)) == 20
    for found in ids:
        moment, token = found.split("_")
        assert moment == str(int(world.clock.time()))
        assert len(token) == 26, "128 bits in base32"
        assert world.engine.home(found) == 2


def test_space_is_promised_when_an_upload_begins(world: World) -> None:
    first = world.create(64)
    second = world.create(100)
    assert promised(world) == (164, 2)
    world.put(first.id, BODY[:20])
    assert promised(world) == (144, 2)
    assert ended(world, "cancel", world.engine.cancel, second.id).state is State.GONE
    assert promised(world) == (44, 1)
    world.put(first.id, BODY[20:], 20)
    assert promised(world) == (0, 0)
    world.end()


def test_no_space_no_upload(world: World) -> None:
    world.fail("admission")
    assert isinstance(world.create(64, ticket=TICKET), StorageFull)
    assert promised(world) == (0, 0)
    assert not world.tickets
    assert not world.sessions.sessions
    world.end()


def test_owners_have_so_many_places() -> None:
    world = World(rules=Rules(sessions_per_owner=2))
    first = world.create(64)
    world.create(64)
    assert isinstance(world.create(64, ticket=TICKET), TooManySessions)
    assert promised(world) == (128, 2)
    assert world.tickets == {"ticket": 0}
    assert isinstance(world.create(64, places=3), Progress)
    assert isinstance(world.create(64, account="owner:bob"), Progress)
    ended(world, "cancel", world.engine.cancel, first.id)
    assert isinstance(world.create(64, places=3), Progress)
    world.end()


def test_n_08_a_repeated_order_finds_its_upload(world: World) -> None:
    first = world.create(64, key="alice 1", ticket=TICKET)
    world.put(first.id, BODY[:32])
    again = world.create(64, key="alice 1", ticket=TICKET)
    assert (again.id, again.ranges) == (first.id, ((0, 32),))
    assert promised(world) == (32, 1)
    assert world.tickets == {"ticket": 1}
    world.put(first.id, BODY[32:], 32)
    assert world.create(64, key="alice 1", ticket=TICKET).complete
    world.end()


@pytest.mark.parametrize("other", [{"length": 65}, {"filename": "c.txt"}, {"protocol": "tus"}])
def test_a_key_stands_for_one_order(world: World, other: dict[str, Any]) -> None:
    world.create(64, key="alice 1")
    fields: dict[str, Any] = {"length": 64, "key": "alice 1"} | other
    assert code(world.create(**fields)) == "key_reused"
    assert promised(world) == (64, 1)
    world.end()


def test_two_orders_with_one_key_at_once(world: World) -> None:
    dones = [world.expect("create") for _ in range(3)]
    for done in dones:
        world.engine.create(order(64, key="alice 1", ticket=("ticket", 5, 4e9)), done)
    world.run()
    assert len({done.result.id for done in dones}) == 1
    assert promised(world) == (64, 1)
    assert world.tickets == {"ticket": 1}
    world.end()


@pytest.mark.parametrize("fault", ["commit", "answer"])
def test_a_creation_that_was_not_confirmed_leaves_nothing(world: World, fault: str) -> None:
    world.fail(fault)
    assert isinstance(world.create(64, ticket=TICKET), StoreError)
    assert promised(world) == (0, 0)
    assert world.tickets == {"ticket": 0}
    assert not world.sessions.sessions
    assert isinstance(world.create(64, ticket=TICKET), Progress)
    world.end()


def test_a_creation_in_doubt_that_somebody_uses_stays(world: World) -> None:
    """Its answer was lost, and its repeat came before it could be taken back."""
    world.fail("answer")
    first = world.expect("create")
    world.engine.create(order(64, key="alice 1", ticket=TICKET), first)
    world.step()  # it is committed
    upload = next(iter(world.sessions.sessions))
    opened = world.open(upload)
    assert opened.id == upload
    assert first.result.id == upload
    assert world.tickets == {"ticket": 1}
    assert promised(world) == (64, 1)
    assert world.put(upload, BODY).complete
    assert world.tickets == {"ticket": 1}
    world.end()


# ---- tickets


def test_a_ticket_is_used_by_what_is_published(world: World) -> None:
    first = world.create(64, ticket=TICKET)
    assert code(world.create(64, ticket=TICKET)) == "ticket_used_up"
    ended(world, "cancel", world.engine.cancel, first.id)
    second = world.create(64, ticket=TICKET)
    world.put(second.id, BODY)
    assert world.tickets == {"ticket": 1}
    assert code(world.create(64, ticket=TICKET)) == "ticket_used_up"
    assert promised(world) == (0, 0)
    world.end()


@pytest.mark.parametrize("content", [BODY, BODY[::-1]])
def test_a_ticket_is_given_back_when_nothing_new_was_stored(world: World, content: bytes) -> None:
    world.put(world.create(64).id, BODY)
    world.clock.advance(100)
    again = world.create(64, ticket=TICKET)
    answer = world.put(again.id, content)
    assert answer.state is (State.COMPLETE if content == BODY else State.FAILED)
    assert world.tickets == {"ticket": 0}
    world.end()


def used_when_told(world: World, answer: Expected) -> int:
    """Uses of the ticket at the moment of the answer, when workers are as late as can be."""
    while not answer.results:
        # What workers are to do comes first among the choices.
        assert world.step(min(len(world.jobs), len(world.choices()) - 1))
    return world.tickets["ticket"]


def test_whoever_is_told_of_an_end_may_use_the_ticket_at_once(world: World) -> None:
    first = world.create(64, ticket=TICKET)
    cancelled = world.expect("cancel")
    world.engine.cancel(first.id, cancelled)
    assert used_when_told(world, cancelled) == 0
    world.run()
    world.put(world.create(64).id, BODY)
    world.clock.advance(100)
    again = world.create(64, ticket=TICKET)
    body = world.lease(again.id, (0, 64))
    body.write(BODY)
    answer = body.finish_soon()
    assert used_when_told(world, answer) == 0
    world.run()
    world.end()


def test_whoever_repeats_a_creation_has_used_the_ticket_once(world: World) -> None:
    ticket = ("ticket", 2, 4e9)
    first, again = world.expect("first"), world.expect("again")
    world.engine.create(order(64, key="alice 1", ticket=ticket), first)
    world.engine.create(order(64, key="alice 1", ticket=ticket), again)
    assert world.tickets == {"ticket": 2}
    assert used_when_told(world, again) == 1
    world.run()
    world.end()


def test_a_ticket_of_an_expired_upload_is_given_back(world: World) -> None:
    upload = world.create(64, ticket=TICKET)
    world.advance(DAY + 1)
    sweep(world)
    assert world.engine.progress(upload.id).state is State.EXPIRED
    assert world.tickets == {"ticket": 0}
    world.advance(DAY + 1)
    sweep(world)
    assert world.tickets == {"ticket": 0}
    assert not world.sessions.sessions
    world.end()


# ---- publishing


@pytest.mark.parametrize("hashing", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_n_06_chunks_in_any_order_make_the_same_file(seed: int, hashing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_READ", 100)
    world = World(seed, hashing=hashing)
    chance = random.Random(seed)
    body = chance.randbytes(1000)
    upload = world.create(len(body)).id
    starts = list(range(0, 1000, 90))
    chance.shuffle(starts)
    bodies = [world.lease(upload, (start, min(start + 90, 1000))) for start in starts]
    left = {claimed: body[claimed.lane[0] : claimed.lane[1]] for claimed in bodies}
    finished = []
    while left:
        claimed = chance.choice(list(left))
        size = chance.randint(1, 60)
        claimed.write(left[claimed][:size])
        left[claimed] = left[claimed][size:]
        if not left[claimed]:
            del left[claimed]
            finished.append(claimed.finish_soon())
        for _ in range(chance.randint(0, 3)):
            world.step(chance.randint(0, 100))
    world.run()
    assert sum(done.result.complete for done in finished) >= 1
    receipt = world.engine.progress(upload).receipt
    assert receipt is not None
    assert receipt.digest == (digest_of(body) if hashing else None)
    assert stored(world) == body
    assert world.disk.created == {"a/b.txt": 1}
    world.end()


def test_other_content_at_the_path_fails_the_upload(world: World) -> None:
    world.put(world.create(64).id, BODY)
    upload = world.create(64).id
    answer = world.put(upload, BODY[::-1])
    assert (answer.state, answer.receipt.code) == (State.FAILED, "exists")
    assert stored(world) == BODY
    assert promised(world) == (0, 0)
    assert world.engine.progress(upload).receipt == answer.receipt
    late = world.claim(upload, (0, 64))
    world.run()
    assert late.done.result.receipt == answer.receipt
    world.end()


def test_the_same_content_at_the_path_is_as_good_as_new(world: World) -> None:
    first = world.put(world.create(64).id, BODY)
    second = world.put(world.create(64).id, BODY)
    assert second.complete
    assert second.receipt == first.receipt
    world.end()


def test_a_path_that_can_never_take_a_file_fails_the_upload(world: World) -> None:
    upload = world.create(64, path=StoragePath("refused/a")).id
    answer = world.put(upload, BODY)
    assert (answer.state, answer.receipt.code) == (State.FAILED, "path_segment_too_long")
    assert promised(world) == (0, 0)
    world.end()


def test_d_16_a_full_disk_puts_the_publish_off(world: World) -> None:
    upload = world.create(64).id
    world.fail("publish", 2)
    assert isinstance(world.put(upload, BODY), StorageFull)
    assert world.engine.progress(upload).state is State.OPEN
    assert world.engine.progress(upload).ranges == ((0, 64),)
    assert isinstance(world.put(upload, BODY[32:], 32), StorageFull)
    assert world.put(upload, BODY[32:], 32).complete
    assert stored(world) == BODY
    assert promised(world) == (0, 0)
    world.end()


def test_everybody_who_waits_hears_that_the_publish_was_put_off(world: World) -> None:
    upload = world.create(64).id
    world.fail("publish")
    body = world.lease(upload, (0, 64))
    body.write(BODY)
    finished = body.finish_soon()
    while world.engine.progress(upload).state is not State.PUBLISHING:
        assert world.step()
    others = [world.claim(upload, (start, start + 8)) for start in (0, 8)]
    released = world.expect("release")
    world.engine.release(upload, released)
    world.run()
    assert isinstance(finished.result, StorageFull)
    assert all(isinstance(other.done.result, StorageFull) for other in others)
    assert released.called
    assert not world.disk.holders, "who asked for it may have it"
    world.end()


def test_d_17_a_sync_that_fails_while_publishing(world: World) -> None:
    upload = world.create(64).id
    world.put(upload, BODY[:32])
    body = world.lease(upload, (32, 64))
    body.write(BODY[32:])
    finished = body.finish_soon()
    while world.engine.progress(upload).state is not State.PUBLISHING:
        assert world.step()
    world.fail("sync")
    world.run()
    assert isinstance(finished.result, StorageError)
    assert world.engine.progress(upload).ranges == ((0, 64),)
    again = world.claim(upload, (32, 64))
    world.run()
    assert again.done.result.complete, "opened anew, it is published at once"
    assert world.disk.links["a/b.txt"].file.possible() == [{value} for value in BODY]
    world.end()


@pytest.mark.parametrize("faults", [("commit",), ("answer", "read")])
def test_a_receipt_that_was_not_confirmed_is_written_again(world: World, faults: tuple[str, ...]) -> None:
    upload = world.create(64, ticket=TICKET).id
    finished = finish_until_the_receipt(world, upload)
    for fault in faults:
        world.fail(fault)
    world.run()
    assert isinstance(finished.result, StoreError)
    again = world.claim(upload, (0, 64))
    world.run()
    if again.holds:
        again.write(BODY)
        first = again.finish()
    else:
        first = again.done.result
    if not isinstance(first, Progress):
        first = world.open(upload)
    assert first.complete
    assert world.tickets == {"ticket": 1}, "the file is there, by this upload"
    assert world.disk.created == {"a/b.txt": 1}
    world.clock.advance(61)
    sweep(world)
    assert promised(world) == (0, 0)
    world.end()


def test_a_receipt_of_which_only_the_confirmation_was_lost_counts() -> None:
    """Another server reads it in the store and tells it: this one must not say that the upload is open."""
    world = World(servers=2)
    upload = world.create(64, ticket=TICKET).id
    finished = finish_until_the_receipt(world, upload)
    world.fail("answer")
    world.run()
    assert finished.result.complete
    for process in world.processes:
        assert process.engine.progress(upload).complete
    assert world.tickets == {"ticket": 1}
    world.end()


def finish_until_the_receipt(world: World, upload: str) -> Expected:
    """A whole body whose file is published; the receipt waits to be committed."""
    body = world.lease(upload, (0, 64))
    body.write(BODY)
    finished = body.finish_soon()
    while not any(isinstance(item.change, Finish) for item in world.sessions.pending):
        assert world.step()
    return finished


def test_n_10_a_receipt_is_repeated_until_the_retention_is_over(world: World) -> None:
    upload = world.create(64).id
    receipt = world.put(upload, BODY).receipt
    world.kill(world.processes[0])
    world.restart()
    progress = world.engine.progress(upload)
    assert (progress.state, progress.receipt, progress.ranges) == (State.COMPLETE, receipt, ((0, 64),))
    assert world.open(upload).receipt == receipt
    world.advance(DAY + 1)
    sweep(world)
    with pytest.raises(UploadRefused) as refused:
        world.engine.progress(upload)
    assert refused.value.code == "upload_not_found"
    assert stored(world) == BODY
    world.end()


# ---- crashes


def reached(world: World, what: str, upload: str) -> bool:
    link = world.disk.links.get("a/b.txt")
    if what == "durable":
        return world.sessions.sessions[upload].received == 64
    if what == "publishing":
        return world.engine.progress(upload).state is State.PUBLISHING
    if what == "linked":
        return link is not None
    if what == "published":
        return link is not None and link.safe
    assert what == "receipt"
    return world.sessions.sessions[upload].state == COMPLETE


def until(world: World, what: str, upload: str) -> None:
    """Play a whole body up to some moment of its publish."""
    body = world.lease(upload, (0, 64))
    body.write(BODY)
    body.finish_soon()
    while not reached(world, what, upload):
        assert world.step()


CRASHES = list(itertools.product(["durable", "publishing", "linked", "published", "receipt"], [True, False]))


@pytest.mark.parametrize(("moment", "power"), CRASHES)
@pytest.mark.parametrize("seed", range(4))
def test_d_05_d_08_a_start_publishes_what_was_whole(moment: str, power: bool, seed: int) -> None:
    world = World(seed)
    upload = world.create(64, ticket=TICKET).id
    until(world, moment, upload)
    if power:
        world.power_cut()
    else:
        world.kill(world.processes[0])
    world.restart()
    world.run()
    progress = world.engine.progress(upload)
    assert progress.complete
    assert stored(world) == BODY
    assert world.disk.links["a/b.txt"].file.possible() == [{value} for value in BODY]
    assert world.disk.created == {"a/b.txt": 1}
    assert world.tickets == {"ticket": 1}, "the file counts, whoever wrote the receipt"
    assert promised(world) == (0, 0)
    late = world.claim(upload, (0, 64))
    world.run()
    assert late.done.result.receipt == progress.receipt
    world.end()


@pytest.mark.parametrize("seed", range(8))
def test_d_01_d_02_a_power_cut_in_the_middle_of_a_body(seed: int) -> None:
    world = World(seed)
    upload = world.create(64).id
    world.put(upload, BODY[:16])
    body = world.lease(upload, (16, 64))
    body.write(BODY[16:40])
    body.cut()
    for _ in range(seed % 4):
        world.step()
    world.power_cut()
    world.restart()
    ((start, position),) = world.engine.progress(upload).ranges
    assert start == 0
    assert position in {16, 40}
    assert promised(world) == (64 - position, 1)
    assert world.put(upload, BODY[position:], position).complete
    assert stored(world) == BODY
    world.end()


def test_d_10_orphans_are_swept_by_age_and_by_session(world: World) -> None:
    upload = world.create(64).id
    world.put(upload, BODY[:32])
    orphan = world.processes[0].files.draft("1_orphan", create=True)
    assert orphan is not None
    orphan.close()
    world.clock.advance(60)
    sweep(world)
    assert world.disk.find("1_orphan") is not None, "its session may be on its way"
    world.clock.advance(7200)
    sweep(world)
    assert world.disk.find("1_orphan") is None
    assert world.disk.find(upload) is not None, "old, and still somebody's"
    assert world.put(upload, BODY[32:], 32).complete
    world.end()


def test_d_10_a_draft_that_outlived_its_session_is_swept(world: World) -> None:
    upload = world.create(64).id
    until(world, "receipt", upload)
    world.power_cut()
    world.restart()
    world.clock.advance(7200)
    sweep(world)
    assert world.disk.find(upload) is None
    assert stored(world) == BODY
    world.end()


@pytest.mark.parametrize("damage", ["removed", "shortened"])
def test_bytes_that_somebody_removed_are_told_as_lost(world: World, damage: str) -> None:
    upload = world.create(64, ticket=TICKET).id
    world.put(upload, BODY[:32])
    ended(world, "release", lambda _, done: world.engine.release(upload, lambda: done(None)), None)
    if damage == "removed":
        del world.disk.names[upload]
    else:
        del world.disk.names[upload].file.live[20:]
    assert code(world.open(upload)) == "upload_lost"
    progress = world.engine.progress(upload)
    assert (progress.state, progress.receipt.code if progress.receipt else "") == (State.FAILED, "upload_lost")
    assert world.sessions.sessions[upload].state == FAILED
    assert promised(world) == (0, 0)
    assert world.tickets == {"ticket": 0}
    assert world.disk.find(upload) is None
    assert "upload_lost" in world.processes[0].events
    world.end()


def test_a_start_counts_what_open_uploads_still_need(world: World) -> None:
    for number, part in enumerate((0, 10, 30)):
        upload = world.create(64, path=StoragePath(f"{number}")).id
        if part:
            world.put(upload, BODY[:part])
    world.kill(world.processes[0])
    world.restart()
    assert promised(world) == (64 + 54 + 34, 3)
    world.processes[0].engine.recover()
    assert promised(world) == (64 + 54 + 34, 3)
    world.end()


# ---- the end without a file


def test_n_34_a_cancel_ends_the_transfers_first(world: World) -> None:
    upload = world.create(64, ticket=TICKET).id
    body = world.lease(upload, (0, 64))
    body.write(BODY[:32])
    done = world.expect("cancel")
    world.engine.cancel(upload, done)
    assert body.taken == 1
    assert not done.called
    world.run()
    assert done.result.state is State.GONE
    assert promised(world) == (0, 0)
    assert world.tickets == {"ticket": 0}
    assert world.disk.find(upload) is None
    assert not world.sessions.sessions
    with pytest.raises(UploadRefused):
        body.write(BODY[32:])
    assert code(ended(world, "cancel", world.engine.cancel, upload)) == "upload_not_found"
    world.end()


def test_a_cancel_of_what_is_being_published_comes_too_late(world: World) -> None:
    upload = world.create(64).id
    until(world, "publishing", upload)
    assert ended(world, "cancel", world.engine.cancel, upload).complete
    assert stored(world) == BODY
    assert not world.sessions.sessions, "its receipt is forgotten"
    world.end()


def test_two_cancels_at_once(world: World) -> None:
    upload = world.create(64).id
    dones = [world.expect("cancel") for _ in range(3)]
    for done in dones:
        world.engine.cancel(upload, done)
    world.end()
    states = [done.result.state if isinstance(done.result, Progress) else done.result.code for done in dones]
    assert State.GONE in states
    assert promised(world) == (0, 0)


def test_a_cancel_that_was_not_confirmed_may_be_repeated(world: World) -> None:
    upload = world.create(64).id
    world.fail("commit")
    assert isinstance(ended(world, "cancel", world.engine.cancel, upload), StoreError)
    assert world.engine.progress(upload).state is State.OPEN
    assert world.put(upload, BODY[:32]).ranges == ((0, 32),)
    assert ended(world, "cancel", world.engine.cancel, upload).state is State.GONE
    world.end()


def test_expired_is_told_until_it_is_forgotten(world: World) -> None:
    upload = world.create(64).id
    world.put(upload, BODY[:32])
    world.advance(DAY + 1)
    sweep(world)
    assert world.engine.progress(upload).state is State.EXPIRED
    assert world.open(upload).state is State.EXPIRED
    assert world.disk.find(upload) is None
    assert promised(world) == (0, 0)
    world.advance(DAY + 1)
    sweep(world)
    assert code(world.open(upload)) == "upload_not_found"
    world.end()


def test_what_another_server_has_in_hands_does_not_expire_here() -> None:
    world = World(servers=2)
    here, there = world.processes
    upload = world.create(64).id
    body = world.lease(upload, (0, 64))
    world.clock.advance(DAY + 1)
    body.write(BODY[:8])
    there.engine.sweep()
    world.run()
    assert body.taken == 0
    assert world.sessions.sessions[upload].state == OPEN
    here.engine.sweep()
    world.run()
    body.write(BODY[8:])
    assert body.finish().complete
    world.end()


def test_watchers_hear_of_every_change_until_they_leave(world: World) -> None:
    upload = world.create(64).id
    heard: list[int] = []
    unwatch = world.engine.watch(upload, lambda: heard.append(world.engine.progress(upload).received))
    world.put(upload, BODY[:32])
    assert heard == [32]
    world.put(upload, BODY[32:], 32)
    assert heard[-1] == 64
    count = len(heard)
    unwatch()
    unwatch()
    ended(world, "cancel", world.engine.cancel, upload)
    assert len(heard) == count
    assert not world.engine._watchers
    world.end()


def test_news_from_another_server_wake_those_who_wait_here() -> None:
    world = World(servers=2)
    _, there = world.processes
    upload = world.create(64).id
    heard: list[int] = []
    unwatch = there.engine.watch(upload, lambda: heard.append(there.engine.progress(upload).received))
    world.put(upload, BODY[:32])
    assert heard == [32]
    world.put(upload, BODY[32:], 32)
    assert there.engine.progress(upload).complete
    unwatch()
    world.end()
