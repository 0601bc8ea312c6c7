"""Chunks that come twice, in any order, at once, damaged; answers that nobody heard. Each counts once."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    PATH,
    Upload,
    arrived,
    code,
    content_digest,
    created,
    creation,
    digest,
    kill,
    number,
    outcome,
    shuffled,
    spans,
    start,
    target,
    text,
)
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, StartServer
from tests.server.wire import EarlyEndError, Wire


def test_n_04_duplicate_chunk_same_bytes(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(3 * MIB - 7, "n-04"))
    first = upload.put(0)
    assert (first.status, first.json()["uploaded_bytes"]) == (200, MIB)
    for _ in range(3):
        again = upload.put(0)
        assert (again.status, again.json()) == (200, first.json())
    assert upload.put(1).json()["uploaded_bytes"] == 2 * MIB
    last = upload.put(2)
    assert (last.status, last.json()["completed"], last.json()["uploaded_bytes"]) == (200, True, len(upload.body))


def test_n_04_duplicate_chunk_same_bytes_after_completion(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(3 * MIB - 7, "n-04 after"))
    for index in (2, 0):
        assert upload.put(index).status == 200
    last = upload.put(1)
    assert last.json()["completed"] is True
    status = upload.status()
    assert (status["completed"], status["url"]) == (True, last.json()["url"])
    assert upload.put(1).json() == last.json()
    for index in (0, 1, 2, 1):
        again = upload.put(index)
        told = again.json()
        assert (again.status, told["chunk"], told["uploaded_bytes"]) == (200, index, len(upload.body))
        assert told["url"] == last.json()["url"]
    assert upload.status() == status
    assert len(chunk_server.files()) == 1
    assert upload.stored() == upload.body


def test_n_05_duplicate_chunk_other_bytes(chunk_server: FileServer) -> None:
    """Whichever byte differs: 409, and what is stored stays."""
    upload = start(chunk_server, content(2 * MIB, "n-05"))
    assert upload.put(0).status == 200
    for place in (0, MIB // 2, MIB - 1):
        other = bytearray(upload.chunk(0))
        other[place] ^= 1
        assert code(upload.put(0, bytes(other))) == (409, "chunk_differs")
        assert upload.received() == [(0, MIB)]
    assert upload.put(0).status == 200
    assert upload.put(1).json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_05_duplicate_chunk_other_bytes_after_completion(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * MIB, "n-05 after"))
    upload.finish()
    for index in (0, 1):
        other = upload.chunk(index)[:-1] + bytes([upload.chunk(index)[-1] ^ 1])
        assert code(upload.put(index, other)) == (409, "chunk_differs")
    assert upload.stored() == upload.body


def test_n_05_other_bytes_for_a_part_of_a_chunk(chunk_server: FileServer) -> None:
    """The half that is there already is held against what comes; the other half is not stored."""
    upload = start(chunk_server, content(2 * MIB, "n-05 part"))
    half = MIB // 2
    with upload.begin(0, half) as wire:
        upload.await_received((0, half))
        wire.sock.close()
    other = bytes([upload.chunk(0)[0] ^ 1]) + upload.chunk(0)[1:]
    assert code(upload.put(0, other)) == (409, "chunk_differs")
    upload.finish()
    assert upload.stored() == upload.body


@pytest.mark.parametrize("processes", [1, 2])
def test_n_06_chunks_in_any_order_in_parallel(start_server: StartServer, processes: int) -> None:
    server = start_server({"server": {"processes": processes}, "uploads": {"chunk_size": "96KB"}})
    for turn in range(3):
        upload = start(server, content(40 * 96 * KIB + 11, f"n-06 {turn}"), name=f"{turn}.bin")
        order = shuffled(upload.total, f"n-06 {turn}")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(upload.put, order))
        assert {answer.status for answer in answers} == {200}
        completed = [answer.json() for answer in answers if answer.json()["completed"]]
        assert completed
        assert {text(told["url"]) for told in completed} == {upload.status()["url"]}
        assert all(told["uploaded_bytes"] == len(upload.body) for told in completed)
        assert upload.stored() == upload.body
        assert len(server.files()) == turn + 1


def test_n_07_the_last_two_chunks_at_the_same_instant(chunk_server: FileServer) -> None:
    """One publish, and a final answer for both."""
    for turn in range(10):
        upload = start(chunk_server, content(4 * MIB, f"n-07 {turn}"), name=f"{turn}.bin")
        for index in (0, 2):
            assert upload.put(index).status == 200
        barrier = threading.Barrier(2)

        def last(index: int, upload: Upload = upload, barrier: threading.Barrier = barrier) -> dict[str, object]:
            with upload.begin(index, MIB - 1) as wire:
                barrier.wait(20)
                wire.send(upload.chunk(index)[-1:])
                answer = wire.answer()
                assert answer.status == 200
                return answer.json()

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(last, (1, 3)))
        final = [told for told in answers if told["completed"]]
        assert final
        assert {told["url"] for told in final} == {upload.status()["url"]}
        assert all(number(told["uploaded_bytes"]) >= 3 * MIB for told in answers)
        assert len(chunk_server.files()) == turn + 1
        assert upload.stored() == upload.body


def test_n_08_the_answer_to_the_creation_is_lost(chunk_server: FileServer) -> None:
    """The key makes the repetition the same upload, also when both come at once."""
    body = content(1000, "n-08")
    for turn in range(5):
        headers = {"Idempotency-Key": f'"n-08-{turn}"'}
        with Wire(chunk_server) as wire:
            wire.head("POST", PATH, {**creation(len(body)), **headers})
        barrier = threading.Barrier(4)

        def repeat(_: int, headers: dict[str, str] = headers, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(20)
            answer = created(chunk_server, len(body), headers=headers)
            assert answer.status in {200, 201}
            return text(answer.json()["session_id"])

        with ThreadPoolExecutor(4) as pool:
            ids = set(pool.map(repeat, range(4)))
        assert len(ids) == 1
        upload = start(chunk_server, body, headers=headers)
        assert {upload.id} == ids
        assert upload.put(0).json()["completed"] is True
        # And once it is complete, it is still the same.
        assert start(chunk_server, body, headers=headers).id == upload.id
        assert len(chunk_server.files()) == turn + 1
    assert start(chunk_server, body, headers={"Idempotency-Key": '"another"'}).id not in ids


def test_n_08_a_creation_without_a_key_expires_as_an_orphan(start_server: StartServer) -> None:
    server = start_server({"uploads": {"max_resumable_age": "1s"}})
    upload = start(server, b"abc")
    wait_until(lambda: upload.look().status == 410, "the orphan has expired")
    # That it has expired is forgotten after as long again.
    assert code(upload.put(0)) in {(410, "upload_expired"), (404, "upload_not_found")}
    assert start(server, b"abc").id != upload.id


def lose_the_answer(upload: Upload, index: int) -> None:
    """Send a chunk, and be gone when its answer comes."""
    with upload.begin(index, upload.chunk_size) as wire:
        begin = index * upload.chunk_size
        wanted = (begin, begin + len(upload.chunk(index)))
        wait_until(
            lambda: any(start <= wanted[0] and wanted[1] <= stop for start, stop in upload.received()),
            "the chunk is there",
        )
        wire.reset()


def test_n_09_the_answer_to_a_chunk_is_lost(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(3 * MIB, "n-09"))
    for index in (1, 0):
        lose_the_answer(upload, index)
        before = upload.status()
        answer = upload.put(index)
        told = answer.json()
        assert (answer.status, told["chunk"], told["completed"]) == (200, index, False)
        assert told["uploaded_bytes"] == before["uploaded_bytes"]
        assert told["received"] == before["received"]
        assert upload.status() == before
    assert upload.put(2).json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_10_the_final_answer_is_lost_and_the_server_killed(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * MIB, "n-10"))
    assert upload.put(0).status == 200
    with upload.begin(1, MIB) as wire:
        wait_until(lambda: upload.status()["completed"] is True, "the upload is complete")
        url = upload.status()["url"]
        kill(chunk_server)
        wire.sock.close()
    chunk_server.start()
    for _ in range(2):
        again = upload.put(1).json()
        assert (again["completed"], again["url"], again["uploaded_bytes"]) == (True, url, 2 * MIB)
        status = upload.status()
        assert (status["completed"], status["url"], status["missing"]) == (True, url, [])
    assert upload.stored() == upload.body
    assert len(chunk_server.files()) == 1


def test_n_10_killed_around_the_final_answer(chunk_server: FileServer) -> None:
    """The kill falls anywhere between the last byte and the answer: one file, whole, at one URL."""
    for turn in range(6):
        upload = start(chunk_server, content(2 * MIB, f"n-10 {turn}"), name=f"{turn}.bin")
        assert upload.put(0).status == 200
        url: object = None
        with upload.begin(1, MIB) as wire:
            # From one turn to the next the server is a little further.
            for _ in range(turn):
                if (told := upload.status())["completed"]:
                    url = told["url"]
            kill(chunk_server)
            with contextlib.suppress(EarlyEndError, OSError):
                url = wire.answer().json()["url"]
        chunk_server.start()
        final = upload.finish().json()
        assert final["completed"] is True
        assert url is None or final["url"] == url
        assert upload.stored() == upload.body
        assert len(chunk_server.files()) == turn + 1


@pytest.mark.parametrize("size", [20_000, 3 * MIB], ids=["collected", "offloaded"])
def test_n_11_the_answer_to_a_slot_is_lost(server: FileServer, size: int) -> None:
    """A PUT slot of XEP-0363: the same file again is a success, another one a conflict, and nothing is ever short."""
    path = "n-11/f.bin"
    body = content(size, path)
    slot = slots.target(path, slots.v1(path, size))
    with Wire(server) as wire:
        wire.head("PUT", slot, {"Content-Length": str(size)})
        wire.send(body)
        wait_until(lambda: server.request("GET", f"/upload/{path}").status == 200, "the file is there")
        wire.reset()
    assert server.request("GET", f"/upload/{path}").body == body
    for _ in range(2):
        assert server.request("PUT", slot, body).status in {200, 201}
    other = body[:-1] + bytes([body[-1] ^ 1])
    assert code(server.request("PUT", slot, other)) == (409, "exists")
    with Wire(server) as wire:
        wire.head("PUT", slot, {"Content-Length": str(size)})
        wire.send(body[: size // 2])
        assert server.request("GET", f"/upload/{path}").body == body
        wire.reset()
    assert server.request("GET", f"/upload/{path}").body == body
    assert server.files() == {path}


CLOSES = 200


def test_n_38_two_hundred_connections_closed_between_the_last_byte_and_the_answer(chunk_server: FileServer) -> None:
    """Under load, four at a time: no publish is lost, none happens twice."""

    def once(turn: int) -> Upload:
        upload = start(chunk_server, content(2000 + turn, f"n-38 {turn}"), name=f"{turn}.bin")
        wire = upload.begin(0, len(upload.body))
        if turn % 3 == 0:
            wire.reset()
        elif turn % 3 == 1:
            wire.sock.close()
        else:
            wire.sock.shutdown(1)
            wire.sock.close()
        return upload

    with ThreadPoolExecutor(4) as pool:
        uploads = list(pool.map(once, range(CLOSES)))

        def again(upload: Upload) -> str:
            told = upload.put(0).json()
            assert (told["completed"], told["uploaded_bytes"]) == (True, len(upload.body))
            assert upload.stored() == upload.body
            return target(told["url"])

        assert len(set(pool.map(again, uploads))) == CLOSES
    assert len(chunk_server.files()) == CLOSES


@pytest.mark.parametrize("size", [16 * KIB, MIB], ids=["collected", "offloaded"])
@pytest.mark.parametrize("field", ["Content-Digest", "Digest"])
def test_n_39_a_damaged_chunk(start_server: StartServer, size: int, field: str) -> None:
    """A proxy flips a bit: 400, nothing of it is kept, and the repetition succeeds."""
    server = start_server({"uploads": {"chunk_size": f"{size // KIB}KB"}})
    value = {"Content-Digest": content_digest, "Digest": digest}[field]
    upload = start(server, content(3 * size - 1, f"n-39 {field}"))
    assert upload.put(0, headers={field: value(upload.chunk(0))}).status == 200
    for index in (1, 2):
        good = upload.chunk(index)
        before = upload.status()
        for place in (0, len(good) - 1):
            damaged = bytearray(good)
            damaged[place] ^= 0x10
            answer = upload.put(index, bytes(damaged), headers={field: value(good)})
            assert code(answer) == (400, "digest_mismatch")
            after = upload.status()
            assert (after["received"], after["missing"]) == (before["received"], before["missing"])
        assert upload.put(index, headers={field: value(good)}).status == 200
    assert upload.status()["completed"] is True
    # A repeat with a wrong digest is a damaged one as well.
    assert upload.put(0, headers={field: value(b"")}).status in {400, 409}
    assert upload.stored() == upload.body


def test_n_39_damage_is_found_in_what_was_checkpointed_on_the_way(chunk_server: FileServer) -> None:
    """A body that stood still was told in part already; when its digest is wrong, that part is taken back."""
    upload = start(chunk_server, content(2 * MIB, "n-39 way"))
    good = upload.chunk(1)
    damaged = bytes([good[0] ^ 1]) + good[1:]
    with upload.begin(1, MIB // 2, body=damaged, headers={"Content-Digest": content_digest(good)}) as wire:
        # Whether it is told by now is the server's choice: a promise to check forbids nothing but to keep it.
        for _ in range(3):
            upload.received()
        wire.send(damaged[MIB // 2 :])
        assert code(wire.answer()) == (400, "digest_mismatch")
    assert upload.received() == []
    assert upload.put(1).status == 200
    upload.finish()
    assert upload.stored() == upload.body


def test_n_39_damage_in_a_chunk_that_was_cut(chunk_server: FileServer) -> None:
    """What was to be checked and never could be must not stand in the way of the right bytes."""
    upload = start(chunk_server, content(2 * MIB, "n-39 cut"))
    good = upload.chunk(0)
    damaged = bytes([good[0] ^ 1]) + good[1:]
    with upload.begin(0, MIB // 2, body=damaged, headers={"Content-Digest": content_digest(good)}) as wire:
        wait_until(arrived(wire), "the damaged bytes have arrived")
        wire.sock.shutdown(1)
        assert outcome(wire)[0] != 200
    assert upload.put(0, headers={"Content-Digest": content_digest(good)}).status == 200
    upload.finish()
    assert upload.stored() == upload.body


def test_n_39_unknown_digests_are_passed_over(chunk_server: FileServer) -> None:
    """RFC 9530: an algorithm that is not known says nothing; a known one beside it counts."""
    upload = start(chunk_server, content(MIB + 1, "n-39 unknown"))
    odd = "unixsum=:" + base64.b64encode(b"12").decode() + ":"
    both = odd + ", " + content_digest(upload.chunk(0))
    assert upload.put(0, headers={"Content-Digest": both}).status == 200
    wrong = odd + ", " + content_digest(hashlib.sha256(b"").digest())
    assert code(upload.put(1, headers={"Content-Digest": wrong})) == (400, "digest_mismatch")
    assert upload.put(1, headers={"Content-Digest": odd}).json()["completed"] is True
    assert spans(upload.status()["missing"]) == []
