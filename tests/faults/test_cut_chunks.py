"""Chunks that are cut, too long or empty: what came is kept, what is not whole is no file."""

from __future__ import annotations

import socket

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    PATH,
    Upload,
    arrived,
    code,
    created,
    descriptors,
    drafts,
    outcome,
    processes,
    send_if_open,
    spans,
    start,
    target,
)
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, StartServer
from tests.server.wire import Wire

SIZES = pytest.mark.parametrize("sent", [1, 10_000, 700_000])


def is_missing(upload: Upload, index: int) -> bool:
    return any(first <= index <= last for first, last in spans(upload.status()["missing"]))


@SIZES
def test_n_12_reset_in_the_middle_of_a_chunk(chunk_server: FileServer, sent: int) -> None:
    """What was there before the reset stays, exactly; the chunk is missing; the rest alone completes it."""
    upload = start(chunk_server, content(2 * MIB, f"n-12 {sent}"))
    with upload.begin(1, sent) as wire:
        upload.await_received((MIB, MIB + sent))
        wire.reset()
    upload.await_received((MIB, MIB + sent))
    assert is_missing(upload, 1)
    assert upload.status()["completed"] is False
    answer = upload.put(1, offset=sent)
    assert (answer.status, answer.json()["received"]) == (200, [[MIB, 2 * MIB]])
    assert upload.put(0).json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_12_reset_right_after_a_burst(chunk_server: FileServer) -> None:
    """The kernel may throw away what the server had not read; what is told is a beginning of what was sent."""
    for turn in range(8):
        upload = start(chunk_server, content(2 * MIB, f"n-12 {turn}"))
        sent = (turn + 1) * 100_000
        with upload.begin(0, sent) as wire:
            wait_until(arrived(wire), "all has arrived")
            wire.reset()
        told = upload.received()
        assert told in ([], [(0, told[0][1] if told else 0)])
        assert upload.prefix(0) <= sent
        assert is_missing(upload, 0)
        assert upload.finish().json()["completed"] is True
        assert upload.stored() == upload.body


@SIZES
@pytest.mark.parametrize("ending", ["close", "half-close"])
def test_n_13_end_in_the_middle_of_a_chunk(chunk_server: FileServer, sent: int, ending: str) -> None:
    """A FIN loses nothing: all that was sent is kept. There is no success, and nothing to be seen."""
    upload = start(chunk_server, content(MIB, f"n-13 {sent}"))
    with upload.begin(0, sent) as wire:
        if ending == "half-close":
            wire.sock.shutdown(socket.SHUT_WR)
            status, _ = outcome(wire)
            assert status == 0 or status >= 400
        wire.sock.close()
    upload.await_received((0, sent))
    told = upload.status()
    assert (told["completed"], told["uploaded_bytes"]) == (False, sent)
    assert chunk_server.files() == set()
    if "url" in told:
        assert chunk_server.request("GET", target(told["url"])).status == 404
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


@pytest.mark.parametrize("ending", ["close", "half-close"])
def test_n_13_end_in_the_middle_of_a_small_chunk(start_server: StartServer, ending: str) -> None:
    """A body so small that the server reads it whole before it writes: what came of it is kept all the same."""
    size = 32 * KIB
    server = start_server({"uploads": {"chunk_size": "32KB"}})
    upload = start(server, content(2 * size, f"n-13 small {ending}"))
    for index, sent in ((1, 20_000), (0, size - 1)):
        with upload.begin(index, sent) as wire:
            if ending == "half-close":
                wire.sock.shutdown(socket.SHUT_WR)
                status, _ = outcome(wire)
                assert status == 0 or status >= 400
        wait_until(lambda index=index, sent=sent: upload.prefix(index) == sent, "the prefix is kept")  # type: ignore[misc]
        assert server.files() == set()
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


def framed(data: bytes, piece: int = 50_000) -> bytes:
    """Chunked coding, without the last, empty chunk."""
    pieces = [data[begin : begin + piece] for begin in range(0, len(data), piece)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in pieces)


def begin_framed(upload: Upload, index: int, data: bytes) -> Wire:
    wire = Wire(upload.server)
    wire.head("PUT", PATH, {**upload.head(index), "Transfer-Encoding": "chunked"})
    send_if_open(wire, data)
    return wire


def test_n_14_chunked_coding(chunk_server: FileServer) -> None:
    """A client that does not say how long its chunk is: taken as it is, in length and in content."""
    upload = start(chunk_server, content(2 * MIB, "n-14"))
    for index in (0, 1):
        with begin_framed(upload, index, framed(upload.chunk(index)) + b"0\r\n\r\n") as wire:
            assert wire.answer().status == 200
    assert upload.stored() == upload.body


@pytest.mark.parametrize("lacks", [1, 500_000], ids=["a-byte", "half"])
def test_n_14_chunked_coding_cut_in_the_data(chunk_server: FileServer, lacks: int) -> None:
    upload = start(chunk_server, content(MIB, "n-14 data"))
    with begin_framed(upload, 0, b"%x\r\n%b" % (MIB, upload.body[: MIB - lacks])) as wire:
        wire.sock.shutdown(socket.SHUT_WR)
        status, _ = outcome(wire)
        assert status == 0 or status >= 400
    upload.await_received((0, MIB - lacks))
    assert upload.status()["completed"] is False
    assert chunk_server.files() == set()
    upload.finish()
    assert upload.stored() == upload.body


def test_n_14_chunked_coding_cut_before_the_zero_chunk(chunk_server: FileServer) -> None:
    """Every byte came, but not the word that this was all: no success for that, and one for the repetition."""
    upload = start(chunk_server, content(MIB, "n-14 zero"))
    with begin_framed(upload, 0, framed(upload.body)) as wire:
        wire.sock.shutdown(socket.SHUT_WR)
        status, _ = outcome(wire)
        assert status == 0 or status >= 400
    assert chunk_server.files() == set()
    assert upload.put(0).json()["completed"] is True
    assert upload.stored() == upload.body


@pytest.mark.parametrize("excess", [1, 1000, 8 * MIB])
def test_n_15_a_chunk_that_announces_too_much(chunk_server: FileServer, excess: int) -> None:
    """Refused by its head, with the length it should have; the upload goes on."""
    upload = start(chunk_server, content(2 * MIB + 5, "n-15"))
    assert upload.put(0).status == 200
    for index, expected in ((0, MIB), (1, MIB), (2, 5)):
        with Wire(chunk_server) as wire:
            upload.announce(wire, index, length=expected + excess, headers={"Expect": "100-continue"})
            answer = wire.next_answer()
            assert code(answer) == (400, "bad_chunk_length")
            assert answer.json()["expected"] == expected
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_15_a_first_chunk_that_announces_more_than_the_whole(chunk_server: FileServer) -> None:
    """A first chunk may be of another length than announced, as the guide's own client has it; not of this one."""
    upload = start(chunk_server, content(2 * MIB + 5, "n-15 first"))
    with Wire(chunk_server) as wire:
        upload.announce(wire, 0, length=len(upload.body) + 1, headers={"Expect": "100-continue"})
        assert code(wire.next_answer()) == (400, "bad_chunk_length")
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


@pytest.mark.parametrize("lacks", [1, MIB - 1, MIB])
def test_n_15_a_chunk_that_announces_too_little(chunk_server: FileServer, lacks: int) -> None:
    upload = start(chunk_server, content(3 * MIB, "n-15 little"))
    assert upload.put(0).status == 200
    answer = upload.put(1, upload.chunk(1)[: MIB - lacks])
    assert (*code(answer), answer.json()["expected"]) == (400, "bad_chunk_length", MIB)
    assert upload.received() == [(0, MIB)]
    answer = upload.put(1, upload.chunk(1), offset=7)
    assert (*code(answer), answer.json()["expected"]) == (400, "bad_chunk_length", MIB - 7)
    assert upload.received() == [(0, MIB)]
    upload.finish()
    assert upload.stored() == upload.body


@pytest.mark.parametrize("excess", [1, 200_000])
@pytest.mark.parametrize("index", [1, 2], ids=["middle", "last"])
def test_n_15_an_overrun_without_a_length(chunk_server: FileServer, index: int, excess: int) -> None:
    """Chunked coding that does not end where the chunk does: no success, and not a byte beside its place."""
    upload = start(chunk_server, content(2 * MIB + 1000, "n-15 overrun"))
    assert upload.put(0).status == 200
    with begin_framed(upload, index, framed(upload.chunk(index) + bytes(excess)) + b"0\r\n\r\n") as wire:
        assert outcome(wire) in {(400, "bad_chunk_length"), (413, "too_large")}
    told = upload.received()
    assert all(stop <= len(upload.body) for _, stop in told)
    assert upload.finish().json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_15_there_is_no_such_chunk(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * MIB, "n-15 none"))
    for number in ("2", "99999999999999999999", "-1", "x", ""):
        answer = chunk_server.request("PUT", PATH, b"abc", {"X-Upload-Session-ID": upload.id, "X-Chunk-Number": number})
        assert answer.status == 400, number
    for offset in (str(MIB + 1), "-1", "x"):
        answer = upload.put(0, b"", headers={"X-Chunk-Offset": offset})
        assert answer.status == 400, offset
    assert upload.received() == []
    upload.finish()
    assert upload.stored() == upload.body


def test_n_15_an_upload_that_is_too_large(start_server: StartServer) -> None:
    server = start_server({"server": {"max_upload_size": "1MB"}})
    assert created(server, MIB + 1).status == 413
    assert created(server, MIB).status == 201


def test_n_16_a_file_without_bytes(chunk_server: FileServer) -> None:
    """Complete at once; a client that sends its chunk 0 all the same is told so."""
    upload = start(chunk_server, b"", name="empty.txt")
    status = upload.status()
    assert (status["completed"], status["uploaded_bytes"], status["missing"]) == (True, 0, [])
    for _ in range(2):
        answer = upload.put(0, b"")
        assert (answer.status, answer.json()["completed"], answer.json()["url"]) == (200, True, status["url"])
    assert upload.stored() == b""
    assert len(chunk_server.files()) == 1


def test_n_16_no_bytes_for_a_chunk(chunk_server: FileServer) -> None:
    """Nothing at the end of a chunk that is there is a success without effect; in place of a chunk it is wrong."""
    upload = start(chunk_server, content(2 * MIB, "n-16"))
    assert upload.put(0).status == 200
    before = upload.status()
    answer = upload.put(0, b"", offset=MIB)
    assert (answer.status, answer.json()["uploaded_bytes"]) == (200, MIB)
    assert code(upload.put(1, b"")) == (400, "bad_chunk_length")
    assert upload.status() == before
    upload.finish()
    assert upload.stored() == upload.body


def test_cut_chunks_leave_no_descriptor(chunk_server: FileServer) -> None:
    """However a connection ended, what it held is given back: sockets, and the file once the upload is complete."""

    def turn(name: str) -> None:
        upload = start(chunk_server, content(8 * MIB, name))
        for index in range(8):
            with upload.begin(index, 30_000 * (index + 1)) as wire:
                if index % 2:
                    wire.reset()
        wires = [upload.begin(index, 1000, claimed=True) for index in range(8)]
        upload.finish()
        for wire in wires:
            assert outcome(wire)[0] != 200
            wire.sock.close()
        assert upload.stored() == upload.body
        wait_until(lambda: drafts(chunk_server) == [], "the draft is gone")

    # The first uploads open what stays open: folders, a database a thread.
    for number in range(3):
        turn(f"warm {number}")
    before = descriptors(processes(chunk_server))
    for number in range(4):
        turn(f"leak {number}")
    wait_until(lambda: descriptors(processes(chunk_server)) <= before, "the descriptors are given back")
