"""Lanes and their holders: takeover, fencing, what is compared and what is written, what a body leaves behind."""

from __future__ import annotations

import hashlib

import pytest
from tests.fixtures.engine_world import DAY, Expected, World, order

from hmac_file_server.files.contract import StorageBusy, StorageError, StorageFailed
from hmac_file_server.stores.contract import Checkpoint, StoreError
from hmac_file_server.uploads import Lease, Progress, State, Upload, UploadRefused
from hmac_file_server.uploads import engine as engine_module

BODY = bytes(range(64))
WHOLE = (0, 64)


class Digest:
    """An announced SHA-256."""

    def __init__(self, expected: bytes) -> None:
        self._hash = hashlib.sha256()
        self._expected = hashlib.sha256(expected).digest()

    def update(self, data: memoryview, /) -> None:
        self._hash.update(data)

    def matches(self) -> bool:
        return self._hash.digest() == self._expected


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def upload(world: World) -> str:
    """An empty upload of 64 bytes."""
    created = world.create(len(BODY))
    assert isinstance(created, Progress)
    return created.id


def stored(world: World) -> bytes:
    """What is published."""
    return bytes(world.disk.links["a/b.txt"].file.live)


def ranges(world: World, upload: str) -> tuple[tuple[int, int], ...]:
    return world.engine.progress(upload).ranges


def code(result: object) -> str:
    assert isinstance(result, UploadRefused | StorageError | StoreError), result
    return result.code


# ---- what a body leaves behind


def test_a_whole_body_is_published(world: World, upload: str) -> None:
    answer = world.put(upload, BODY)
    assert answer.complete
    assert answer.receipt.digest == f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    assert stored(world) == BODY
    world.end()


def test_nothing_is_told_before_it_is_durable(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY[:20])
    assert ranges(world, upload) == ()
    body.cut()
    assert ranges(world, upload) == ()
    world.step()  # the sync
    assert ranges(world, upload) == ()
    world.step()  # the commit
    assert ranges(world, upload) == ()
    world.run()
    assert ranges(world, upload) == ((0, 20),)
    world.end()


@pytest.mark.parametrize("sent", [0, 1, 63, 64])
def test_n_14_the_last_byte_of_a_lane_is_held_back_when_its_body_was_cut(world: World, upload: str, sent: int) -> None:
    """The end of a body that nobody saw may be missing a trailer, or a zero chunk."""
    body = world.lease(upload, WHOLE)
    body.write(BODY[:sent])
    body.cut()
    world.run()
    kept = min(sent, 63)
    assert ranges(world, upload) == (((0, kept),) if kept else ())
    assert world.put(upload, BODY[kept:], kept).complete
    assert stored(world) == BODY
    world.end()


def test_a_body_that_began_inside_its_lane_leaves_the_rest_alone(world: World, upload: str) -> None:
    body = world.lease(upload, (16, 32), 20)
    body.write(BODY[20:28])
    body.cut()
    world.run()
    assert ranges(world, upload) == ((20, 28),)
    world.end()


def test_a_body_longer_than_its_lane_is_refused(world: World, upload: str) -> None:
    body = world.lease(upload, (0, 16))
    body.write(BODY[:10])
    with pytest.raises(UploadRefused) as refused:
        body.write(BODY[10:17])
    assert refused.value.code == "too_large"
    body.cut()
    world.run()
    assert ranges(world, upload) == ((0, 10),)
    world.end()


@pytest.mark.parametrize("ending", ["finish", "cut"])
def test_a_wrong_digest_keeps_nothing(world: World, upload: str, ending: str) -> None:
    """Neither of a body that is not what it should be, nor of one of which nobody knows."""
    body = world.lease(upload, (0, 32), check=Digest(BODY[:32]))
    body.write(b"x" * 32 if ending == "finish" else b"x" * 31)
    if ending == "finish":
        assert code(body.finish()) == "digest_mismatch"
    else:
        body.cut()
        world.run()
    assert ranges(world, upload) == ()
    assert isinstance(world.put(upload, BODY[:32], check=Digest(BODY[:32])), Progress)
    assert world.put(upload, BODY[32:], 32).complete
    assert stored(world) == BODY
    world.end()


def test_a_body_with_a_digest_is_not_checkpointed_on_the_way(
    world: World, upload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "CHECKPOINT_BYTES", 4)
    body = world.lease(upload, WHOLE, check=Digest(BODY))
    body.write(BODY[:32])
    world.engine.flush_all()
    settled = world.expect("settle")
    world.engine.settle(upload, settled)
    world.clock.advance(60)
    body.write(BODY[32:40])
    world.run()
    assert settled.called
    assert ranges(world, upload) == ()
    body.write(BODY[40:])
    assert body.finish().complete
    world.end()


def test_a_long_body_is_checkpointed_on_the_way(world: World, upload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "CHECKPOINT_BYTES", 16)
    body = world.lease(upload, WHOLE)
    body.write(BODY[:15])
    world.run()
    assert ranges(world, upload) == ()
    body.write(BODY[15:20])
    world.run()
    assert ranges(world, upload) == ((0, 20),)
    body.write(BODY[20:21])
    world.clock.advance(5.0)
    body.write(BODY[21:22])
    world.run()
    assert ranges(world, upload) == ((0, 22),)
    body.write(BODY[22:])
    world.run()
    assert ranges(world, upload) == ((0, 63),), "the last byte waits for the end of the body"
    assert body.finish().complete
    world.end()


def test_settling_makes_durable_what_came_and_disturbs_nobody(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY[:20])
    first, second = world.expect("settle"), world.expect("settle again")
    world.engine.settle(upload, first)
    world.engine.settle(upload, second)
    assert not first.called
    assert not second.called, "it would be told less than the first"
    assert len(world.jobs) == 1, "one flush for both"
    world.run()
    assert first.called
    assert second.called
    assert ranges(world, upload) == ((0, 20),)
    assert body.taken == 0
    body.write(BODY[20:])
    assert body.finish().complete
    world.end()


def test_settling_what_came_since_waits_for_its_turn(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY[:20])
    first = world.expect("settle")
    world.engine.settle(upload, first)
    body.write(BODY[20:30])
    others = [world.expect(f"settle {number}") for number in range(3)]
    for other in others:
        world.engine.settle(upload, other)
    world.run()
    assert first.called
    assert [other.called for other in others] == [False] * 3
    world.advance(0.19)
    assert [other.called for other in others] == [False] * 3
    body.write(BODY[30:40])
    world.advance(0.02)
    assert [other.called for other in others] == [True] * 3
    assert ranges(world, upload) == ((0, 40),)
    assert body.finish().received == 40
    world.end()


def test_settling_a_transfer_that_ends_meanwhile(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY[:20])
    first = world.expect("settle")
    world.engine.settle(upload, first)
    body.write(BODY[20:30])
    second = world.expect("settle again")
    world.engine.settle(upload, second)
    body.cut()
    world.run()
    assert ranges(world, upload) == ((0, 30),)
    world.advance(0.21)
    assert second.called
    world.end()


def test_settling_does_not_wait_for_a_slow_disk(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY[:20])
    settled = world.expect("settle")
    world.engine.settle(upload, settled)
    world.clock.advance(0.45)
    assert not settled.called
    world.choices()[-1]()  # the timer, while the sync is still to come
    assert settled.called
    assert ranges(world, upload) == ()
    world.run()
    body.cut()
    world.end()


def test_settling_what_nobody_sends_is_done_at_once(world: World, upload: str) -> None:
    for which in (upload, "1_unknown"):
        settled = world.expect("settle")
        world.engine.settle(which, settled)
        assert settled.called


# ---- what is there already


def test_n_04_the_same_bytes_again_change_nothing(world: World, upload: str) -> None:
    first = world.put(upload, BODY[:32])
    pool = world.processes[0].pool
    before = (first.ranges, pool.bytes, pool.uploads)
    again = world.put(upload, BODY[:32])
    assert (again.ranges, pool.bytes, pool.uploads) == before
    world.end()


def test_n_05_other_bytes_for_what_is_there_are_refused(world: World, upload: str) -> None:
    world.put(upload, BODY[:32])
    body = world.lease(upload, (0, 48))
    with pytest.raises(UploadRefused) as refused:
        body.write(BODY[:31] + b"\xff" + BODY[32:48])
    assert refused.value.code == "chunk_differs"
    body.cut()
    world.run()
    assert ranges(world, upload) == ((0, 32),)
    assert world.put(upload, BODY[32:], 32).complete
    assert stored(world) == BODY
    world.end()


def test_bytes_are_written_around_those_that_are_there(world: World, upload: str) -> None:
    for start, stop in ((4, 8), (20, 21), (40, 63)):
        assert isinstance(world.put(upload, BODY[start:stop], start), Progress)
    file = world.disk.find(upload)
    assert file is not None
    count = len(file.log)
    body = world.lease(upload, WHOLE)
    body.write(BODY[:30])
    body.write(BODY[30:])
    written = [(write.offset, write.offset + len(write.piece)) for write in file.log[count:]]
    assert written == [(0, 4), (8, 20), (21, 30), (30, 40), (63, 64)]
    assert body.finish().complete
    assert stored(world) == BODY
    world.end()


def test_a_body_is_compared_from_where_it_begins(world: World, upload: str) -> None:
    world.put(upload, BODY[:32])
    body = world.lease(upload, WHOLE, 16)
    body.write(BODY[16:])
    assert body.finish().complete
    assert stored(world) == BODY
    world.end()


# ---- takeover


def test_n_01_the_newcomer_goes_on_where_the_old_holder_was_cut(world: World, upload: str) -> None:
    old = world.lease(upload, WHOLE)
    old.write(BODY[:20])
    new = world.claim(upload, WHOLE, 20)
    assert old.taken == 1
    assert not new.done.called
    world.run()
    assert new.holds
    assert ranges(world, upload) == ((0, 20),)
    new.write(BODY[20:])
    assert new.finish().complete
    assert stored(world) == BODY
    world.end()


def test_n_02_a_holder_that_comes_back_is_fenced(world: World, upload: str) -> None:
    old = world.lease(upload, WHOLE, obeys=False)
    old.write(BODY[:20])
    new = world.claim(upload, WHOLE)
    world.run()
    assert not new.done.called
    world.advance(0.25)
    assert new.holds
    new.write(BODY[:30])
    file = world.disk.find(upload)
    assert file is not None
    before = bytes(file.live)
    with pytest.raises(UploadRefused) as refused:
        old.write(b"late")
    assert refused.value.code == "upload_taken_over"
    assert bytes(file.live) == before
    assert code(old.finish()) == "upload_taken_over"
    new.write(BODY[30:])
    assert new.finish().complete
    assert stored(world) == BODY
    world.end()


def test_who_comes_after_a_fenced_holder_waits_for_it_no_more(world: World, upload: str) -> None:
    stuck = world.lease(upload, WHOLE, obeys=False)
    second = world.claim(upload, WHOLE)
    world.advance(0.25)
    assert second.holds
    second.cut()
    world.run()
    third = world.claim(upload, WHOLE)
    world.run()
    assert third.holds, "no timer was needed"
    assert third.lease.predecessors == [stuck.lease]
    third.cut()
    stuck.cut()
    world.end()


def test_a_holder_whose_checkpoint_is_being_committed_is_waited_for(world: World, upload: str) -> None:
    old = world.lease(upload, WHOLE, obeys=False)
    old.write(BODY[:20])
    world.engine.flush_all()
    world.step()  # the sync
    new = world.claim(upload, WHOLE)
    world.clock.advance(0.3)
    timer = world.choices()[-1]
    timer()
    assert not new.done.called, "what is being committed counts"
    world.run()
    assert new.holds
    assert ranges(world, upload) == ((0, 20),)
    with pytest.raises(UploadRefused):
        old.write(BODY[20:21])
    old.cut()
    new.cut()
    world.end()


def test_of_those_who_wait_the_last_wins(world: World, upload: str) -> None:
    old = world.lease(upload, WHOLE, obeys=False)
    second, third, fourth = (world.claim(upload, WHOLE) for _ in range(3))
    assert [code(claim.done.result) for claim in (second, third)] == ["upload_taken_over"] * 2
    assert (second.taken, third.taken) == (0, 0), "they never had it"
    world.advance(0.25)
    assert fourth.holds
    old.cut()
    fourth.cut()
    world.end()


def test_lanes_that_do_not_overlap_do_not_meet(world: World, upload: str) -> None:
    bodies = [world.lease(upload, (start, start + 16)) for start in (32, 0, 48, 16)]
    for step in (0, 8):
        for body in bodies:
            start = body.lane[0] + step
            body.write(BODY[start : start + 8])
    answers = [body.finish() for body in bodies]
    assert [answer.complete for answer in answers] == [False, False, False, True]
    assert all(body.taken == 0 for body in bodies)
    assert stored(world) == BODY
    world.end()


def test_a_claim_of_the_whole_takes_all_lanes(world: World, upload: str) -> None:
    bodies = [world.lease(upload, (start, start + 16)) for start in (0, 16)]
    for body in bodies:
        body.write(BODY[body.lane[0] : body.lane[0] + 4])
    new = world.lease(upload, WHOLE)
    assert [body.taken for body in bodies] == [1, 1]
    assert ranges(world, upload) == ((0, 4), (16, 20))
    new.write(BODY)
    assert new.finish().complete
    world.end()


def test_empty_lanes_at_one_place_are_one_lane(world: World, upload: str) -> None:
    first = world.lease(upload, (16, 16))
    second = world.lease(upload, (16, 16))
    elsewhere = world.lease(upload, (17, 17))
    assert (first.taken, second.taken) == (1, 0)
    for body in (second, elsewhere):
        body.cut()
    world.end()


def test_a_holder_is_told_of_the_takeover_after_it_was_told_of_its_lease(world: World, upload: str) -> None:
    """The newcomer comes while the lease is being handed out."""
    opened = world.open(upload)
    assert isinstance(opened, Upload)
    heard: list[str] = []

    def granted(result: object) -> None:
        world.engine.claim(opened, WHOLE, 0, on_taken=lambda: None, done=world.expect("newcomer"))
        heard.append("granted")
        assert isinstance(result, Lease)
        leases.append(result)

    leases: list[Lease] = []
    world.engine.claim(opened, WHOLE, 0, on_taken=lambda: heard.append("taken"), done=granted)
    assert heard == ["granted", "taken"]
    world.engine.cut(leases[0])
    world.end()
    for expected in world.expected:
        if isinstance(expected.result, Lease):
            world.engine.cut(expected.result)
    world.end()


def test_who_waits_while_the_upload_is_published_gets_its_receipt(world: World, upload: str) -> None:
    old = world.lease(upload, WHOLE)
    old.write(BODY)
    done = old.finish_soon()
    new = world.claim(upload, WHOLE)
    world.run()
    assert done.result.complete
    assert new.done.result.complete
    assert old.taken == 1
    world.end()


def test_n_07_two_bodies_that_finish_at_once_publish_once(world: World, upload: str) -> None:
    bodies = [world.lease(upload, (start, start + 32)) for start in (0, 32)]
    for body in bodies:
        body.write(BODY[body.lane[0] : body.lane[1]])
    answers = [body.finish_soon() for body in bodies]
    world.run()
    assert any(answer.result.complete for answer in answers)
    assert world.engine.progress(upload).complete
    assert world.disk.created == {"a/b.txt": 1}
    assert stored(world) == BODY
    world.end()


def test_answers_of_the_store_in_any_order(world: World, upload: str) -> None:
    """A flush under way and the end of the same body are committed, and answered the other way round."""
    body = world.lease(upload, WHOLE)
    body.write(BODY[:63])
    world.engine.flush_all()
    body.write(BODY[63:])
    body.finish_soon()
    world.step()  # both syncs
    world.step()
    first, second = world.sessions.pending
    assert isinstance(first.change, Checkpoint)
    assert isinstance(second.change, Checkpoint)
    world.sessions.commit(first)
    world.sessions.commit(second)
    world.sessions.answers.reverse()
    world.run()
    assert world.engine.progress(upload).complete
    assert stored(world) == BODY
    world.end()


# ---- failures


def test_d_17_a_sync_that_failed_is_never_tried_again(world: World, upload: str) -> None:
    world.put(upload, BODY[:16])
    body = world.lease(upload, (16, 48))
    body.write(BODY[16:48])
    draft = body.lease.upload.draft
    world.fail("sync")
    assert isinstance(body.finish(), StorageFailed)
    with pytest.raises(StorageFailed):
        draft.sync()
    assert ranges(world, upload) == ((0, 16),)
    assert world.put(upload, BODY[16:], 16).complete
    assert world.disk.links["a/b.txt"].file.possible() == [{value} for value in BODY]
    world.end()


def test_a_failed_sync_ends_every_body_of_the_upload(world: World, upload: str) -> None:
    failing = world.lease(upload, (0, 16))
    other = world.lease(upload, (16, 32))
    failing.write(BODY[:16])
    other.write(BODY[16:24])
    world.fail("sync")
    failing.finish()
    assert other.taken == 1
    with pytest.raises(UploadRefused) as refused:
        other.write(BODY[24:32])
    assert refused.value.code == "upload_taken_over"
    world.run()
    assert ranges(world, upload) == ()
    world.end()


@pytest.mark.parametrize("fault", ["commit", "answer"])
def test_after_a_checkpoint_that_was_not_confirmed_the_store_is_asked(world: World, upload: str, fault: str) -> None:
    body = world.lease(upload, (0, 32))
    body.write(BODY[:32])
    world.fail(fault)
    assert isinstance(body.finish(), StoreError)
    assert ranges(world, upload) == (() if fault == "commit" else ((0, 32),))
    assert world.put(upload, BODY[:32]).ranges == ((0, 32),)
    assert world.put(upload, BODY[32:], 32).complete
    assert stored(world) == BODY
    world.end()


def test_a_write_that_failed_leaves_nothing_that_counts(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY[:16])
    world.fail("write")
    with pytest.raises(StorageError):
        body.write(b"x" * 32)
    body.cut()
    world.run()
    assert ranges(world, upload) == ((0, 16),)
    assert world.put(upload, BODY[16:], 16).complete
    assert stored(world) == BODY
    world.end()


# ---- letting go


def test_an_upload_at_rest_is_let_go_and_continued(world: World, upload: str) -> None:
    world.put(upload, BODY[:32])
    world.clock.advance(61)
    world.engine.sweep()
    assert not world.disk.holders
    assert world.put(upload, BODY[32:], 32).complete
    assert stored(world) == BODY
    world.end()


def test_an_upload_in_use_is_not_let_go(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    world.clock.advance(600)
    world.engine.sweep()
    world.run()
    assert body.taken == 0
    body.write(BODY)
    assert body.finish().complete
    world.end()


def test_a_claim_after_the_upload_was_let_go_opens_it_anew(world: World, upload: str) -> None:
    """Between the look at the upload and the claim."""
    opened = world.open(upload)
    assert isinstance(opened, Upload)
    released = world.expect("release")
    world.engine.release(upload, released)
    assert released.called
    done = world.expect("claim")
    world.engine.claim(opened, WHOLE, 0, on_taken=lambda: None, done=done)
    world.run()
    lease = done.result
    assert isinstance(lease, Lease)
    assert lease.upload is not opened
    lease.write(memoryview(BODY))
    finished = world.expect("finish")
    world.engine.finish(lease, finished)
    world.run()
    assert finished.result.complete
    world.end()


def test_a_release_ends_the_transfers_first(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY[:20])
    released = world.expect("release")
    world.engine.release(upload, released)
    assert not released.called
    world.run()
    assert released.called
    assert body.taken == 1
    assert not world.disk.holders
    assert ranges(world, upload) == ((0, 20),)
    world.end()


def test_a_body_whose_checkpoint_comes_after_a_release_was_taken_over(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    body.write(BODY)
    answer = body.finish_soon()
    released = world.expect("release")
    world.engine.release(upload, released)
    world.clock.advance(engine_module.FENCE_SECONDS)
    while not released.called:  # timers, while the worker has not come to the sync yet
        timer = next(timer for timer in world.timers if timer.due <= world.clock.steady)
        world.timers.remove(timer)
        timer.call()
    world.run()
    assert code(answer.result) == "upload_taken_over"
    assert world.put(upload, BODY).complete
    world.end()


def test_two_servers_hand_an_upload_to_and_fro() -> None:
    world = World(servers=2)
    here, there = world.processes
    upload = world.create(64).id
    position = 0
    for turn in range(8):
        body = world.lease(upload, WHOLE, position, process=(there, here)[turn % 2])
        body.write(BODY[position : position + 7])
        position += 7
    last = world.lease(upload, WHOLE, position, process=here)
    last.write(BODY[position:])
    assert last.finish().complete
    assert stored(world) == BODY
    world.clock.advance(61)
    for process in world.processes:
        process.engine.sweep()
        assert (process.pool.bytes, process.pool.uploads) == (0, 0)
    world.end()


def test_a_creation_answered_late_does_not_write_with_an_old_epoch() -> None:
    world = World(servers=2)
    here, there = world.processes
    created = world.expect("create", there)
    there.engine.create(order(64, key="once"), created)
    for item in world.sessions.first_of_each():
        world.sessions.commit(item)
    late = world.sessions.answers.pop()
    # Its client asked again, elsewhere, and has moved on.
    again = world.expect("create", here)
    here.engine.create(order(64, key="once"), again)
    world.run()
    upload = again.result.id
    body = world.lease(upload, WHOLE, process=here)
    body.write(BODY[:10])
    body.cut()
    released = world.expect("release", here)
    here.engine.release(upload, released)
    world.run()
    world.sessions.answers.append(late)
    world.run()
    assert created.result.offset == 10
    rest = world.lease(upload, WHOLE, 10, process=there)
    assert rest.lease.upload.epoch == world.sessions.sessions[upload].epoch > 0
    rest.write(BODY[10:])
    assert rest.finish().complete
    assert stored(world) == BODY
    world.end()


def test_a_server_that_cannot_ask_waits_a_moment_for_the_lock() -> None:
    world = World(servers=2)
    world.deaf = True
    here, there = world.processes
    upload = world.create(64).id
    body = world.claim(upload, WHOLE, process=there)
    world.advance(0.2)
    assert not body.done.called
    released = world.expect("release", here)
    here.engine.release(upload, released)
    world.advance(0.2)
    assert body.holds
    refused = world.claim(upload, WHOLE, process=here)
    world.advance(3)
    assert code(refused.done.result) == "upload_busy"
    body.cut()
    world.end()


def test_out_of_descriptors_is_said_and_passes(world: World) -> None:
    world.fail("draft")
    created = world.create(64)
    assert created.state is State.OPEN
    world.fail("draft")
    assert isinstance(world.open(created.id), StorageBusy)
    assert world.put(created.id, BODY).complete
    world.end()


def test_closing_lets_go_of_everything(world: World, upload: str) -> None:
    world.put(upload, BODY[:32])
    second = world.create(64)
    late = world.expect("create")
    world.engine.create(order(64, path="late"), late)
    world.engine.close()
    world.run()
    assert not world.disk.holders
    assert late.result.state is State.OPEN
    refused = world.open(second.id)
    assert isinstance(refused, StorageBusy)
    assert not world.disk.holders
    world.engine.close()
    world.end()
    world.kill(world.processes[0])
    world.restart()
    for found in (upload, second.id, late.result.id):
        assert isinstance(world.open(found), Upload)


# ---- time


@pytest.mark.parametrize("days", [-10, 10])
def test_d_14_a_jump_of_the_wall_clock_expires_nothing_and_keeps_nothing(world: World, upload: str, days: int) -> None:
    world.put(upload, BODY[:32])
    world.clock.wall += days * DAY
    world.engine.sweep()
    world.run()
    assert ranges(world, upload) == ((0, 32),)
    world.advance(DAY - 60)
    world.engine.sweep()
    world.run()
    assert ranges(world, upload) == ((0, 32),)
    world.advance(120)
    world.engine.sweep()
    world.run()
    assert world.engine.progress(upload).state is State.EXPIRED
    world.end()


def test_n_35_a_transfer_under_way_never_expires_under_its_client(world: World, upload: str) -> None:
    body = world.lease(upload, WHOLE)
    for position in range(64):
        world.clock.advance(DAY / 2)
        world.engine.sweep()
        world.run()
        body.write(BODY[position : position + 1])
    assert body.taken == 0
    assert body.finish().complete
    world.end()


@pytest.mark.parametrize("client_first", [True, False])
def test_a_client_that_comes_when_the_upload_is_due(world: World, upload: str, client_first: bool) -> None:
    """Whoever is first has it, whole: nothing is half expired."""
    world.put(upload, BODY[:32])
    world.clock.advance(61)
    world.engine.sweep()
    assert not world.disk.holders, "it is at rest, and was let go"
    world.clock.advance(DAY)
    if client_first:
        body = world.claim(upload, (32, 64))
        world.engine.sweep()
        world.run()
        assert body.taken == 0
        body.write(BODY[32:])
        assert body.finish().complete
        assert stored(world) == BODY
    else:
        world.engine.sweep()
        body = world.claim(upload, (32, 64))
        world.run()
        assert body.done.result.state is State.EXPIRED
        assert not world.disk.links
    assert (world.processes[0].pool.bytes, world.processes[0].pool.uploads) == (0, 0)
    world.end()


# ---- an end under way


def whole_and_open(world: World) -> str:
    """An upload that has all its bytes, and whose client has yet to say that these are all."""
    upload = world.create(len(BODY), explicit=True).id
    assert world.put(upload, BODY).state is State.OPEN
    assert isinstance(upload, str)
    return upload


def end_under_way(world: World, upload: str, way: str) -> Expected:
    """An upload is being ended, and the store has yet to hear of it."""
    ended = world.expect(way)
    if way == "cancel":
        world.engine.cancel(upload, ended)
    else:
        world.engine.reject(upload, UploadRefused("upload_overrun", "Too much."), ended)
    world.clock.advance(engine_module.FENCE_SECONDS)
    while not world.sessions.pending:
        timer = next(timer for timer in world.timers if timer.due <= world.clock.steady)
        world.timers.remove(timer)
        timer.call()
    return ended


@pytest.mark.parametrize("way", ["cancel", "reject"])
@pytest.mark.parametrize("confirmed", [True, False])
def test_nothing_is_published_while_its_end_is_under_way(world: World, way: str, confirmed: bool) -> None:
    upload = whole_and_open(world)
    held = world.open(upload)
    if not confirmed:
        world.fail("commit")
    ended = end_under_way(world, upload, way)
    completed = world.expect("complete")
    world.engine.complete(held, completed)
    world.advance(1.0)
    if confirmed:
        assert isinstance(ended.result, Progress)
        assert not world.disk.links
        if way == "cancel":
            assert code(completed.result) == "upload_not_found"
        else:
            assert completed.result.state is State.FAILED
    else:
        assert code(ended.result) == "sessions_unavailable"
        assert completed.result.complete
        assert stored(world) == BODY
    assert (world.processes[0].pool.bytes, world.processes[0].pool.uploads) == (0, 0)
    world.end()


def test_a_fenced_body_of_known_bytes_publishes_nothing_that_is_being_ended(world: World) -> None:
    upload = whole_and_open(world)
    body = world.lease(upload, WHOLE, obeys=False)
    body.write(BODY)
    ended = end_under_way(world, upload, "cancel")
    answer = world.expect("finish")
    world.engine.finish(body.lease, answer, last=True)
    body.finished = answer
    while world.jobs:  # its checkpoint comes before the store's answer
        _, job = world.jobs.pop(0)
        job()
    world.advance(1.0)
    assert ended.result.state is State.GONE
    assert code(answer.result) == "upload_taken_over"
    assert not world.disk.links
    assert (world.processes[0].pool.bytes, world.processes[0].pool.uploads) == (0, 0)
    world.end()


def test_a_body_that_goes_on_after_the_upload_was_completed_is_told_so(world: World) -> None:
    upload = whole_and_open(world)
    body = world.lease(upload, WHOLE)
    body.write(BODY[:10])
    completed = world.expect("complete")
    world.engine.complete(body.lease.upload, completed)
    world.run()
    assert completed.result.complete
    with pytest.raises(UploadRefused) as refused:
        body.write(BODY[10:20])
    assert refused.value.code == "upload_taken_over"
    body.cut()
    world.end()
