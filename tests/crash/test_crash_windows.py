"""The server dies at exact moments in the life of an upload, by its own hand (see `altered_server`)."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.crash.altered import AlteredServer
from tests.faults.chunks import KIB, PATH, Upload, code, covers, creation, drafts, kill, number, start, target, text
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import Answer, Settings
from tests.server import signatures

pytestmark = pytest.mark.server

Make = Callable[[str, int], AlteredServer]
CHUNK = 256 * KIB
SIZE = 3 * CHUNK + 1234


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Make]:
    """Start servers that die at a moment; those that live in the end are stopped and judged."""
    made: list[AlteredServer] = []

    def make(moment: str, processes: int) -> AlteredServer:
        settings: Settings = {"server": {"processes": processes}, "uploads": {"chunk_size": "256KB"}}
        server = AlteredServer(tmp_path / "server", settings, moment)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.stop()


def unanswered(send: Callable[[], Answer]) -> None:
    """A request whose answer never comes."""
    with pytest.raises((OSError, http.client.HTTPException)):
        send()


def revived(server: AlteredServer) -> None:
    """It has died; with one process it is started again, of two the parent starts the one that died."""
    assert server.child is not None
    assert server.settings is not None
    if server.settings["server"]["processes"] == 1:
        assert server.child.process.wait(20) == -9
        server.start()
    else:
        wait_until(lambda: "starting it again" in server.log_text(), "the dead one is replaced")


def completed(upload: Upload) -> dict[str, object]:
    """The status, once it says that the upload is complete."""
    wait_until(lambda: upload.status()["completed"] is True, "the upload is complete")
    return upload.status()


def grow_old(upload: Upload) -> None:
    """A server that died may leave the draft's name beside the file's, for a sweep that minds only old ones."""
    folder = upload.server.storage / ".hmac-file-server" / "uploads"
    for name in drafts(upload.server):
        with contextlib.suppress(FileNotFoundError):
            assert (folder / name).samefile(upload.server.storage / target(upload.status()["url"]).lstrip("/"))
            os.utime(folder / name, (0, 0))


def whole(upload: Upload) -> None:
    """One file, equal; every repeat gets one and the same answer, over a restart too; nothing is left beside it."""
    server = upload.server
    assert upload.finish().json()["completed"] is True
    told = completed(upload)
    assert upload.stored() == upload.body
    first = [upload.put(index).json() for index in range(upload.total)]
    assert {answer["url"] for answer in first} == {told["url"]}
    assert len(server.files()) == 1
    grow_old(upload)
    server.stop()
    server.start()
    wait_until(lambda: drafts(server) == [], "the draft is gone")
    assert [upload.put(index).json() for index in range(upload.total)] == first
    assert upload.status() == told
    assert len(server.files()) == 1


@pytest.fixture(params=[1, 2], ids=["one-process", "two-processes"])
def processes(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


def test_d_02_synced_and_not_told_to_the_store(dying: Make, processes: int) -> None:
    """The bytes are on the disk and nobody knows; they are sent again."""
    server = dying("synced", processes)
    upload = start(server, content(SIZE, "d-02"))
    for index in (2, 0):
        assert upload.put(index).status == 200
    told = upload.received()
    server.arm()
    unanswered(lambda: upload.put(1))
    revived(server)
    assert upload.received() == told
    whole(upload)


def test_n_09_in_the_store_and_not_answered(dying: Make, processes: int) -> None:
    """The client sends its chunk once more and finds that it is there."""
    server = dying("checkpointed", processes)
    upload = start(server, content(SIZE, "n-09"))
    assert upload.put(0).status == 200
    server.arm()
    unanswered(lambda: upload.put(1))
    revived(server)
    assert upload.received() == [(0, 2 * CHUNK)]
    answer = upload.put(1)
    assert (answer.status, answer.json()["received"]) == (200, [[0, 2 * CHUNK]])
    whole(upload)


@pytest.mark.parametrize("moment", ["checkpointed", "gathered"])
def test_d_05_the_last_chunk_is_durable_and_the_file_not_begun(dying: Make, moment: str, processes: int) -> None:
    """The start publishes it, once, whether anybody asks or not."""
    server = dying(moment, processes)
    upload = start(server, content(SIZE, "d-05"))
    for index in (0, 1, 2):
        assert upload.put(index).status == 200
    server.arm()
    unanswered(lambda: upload.put(3))
    revived(server)
    wait_until(lambda: len(server.files()) == 1, "it is published without being asked for")
    completed(upload)
    whole(upload)


def test_d_05_the_client_comes_back_before_the_start_is_over(dying: Make, processes: int) -> None:
    """The same chunk again, by several connections at the very start: one file, one answer."""
    server = dying("gathered", processes)
    upload = start(server, content(SIZE, "d-05 again"))
    for index in (0, 1, 2):
        assert upload.put(index).status == 200
    server.arm()
    unanswered(lambda: upload.put(3))
    revived(server)
    answer = upload.put(3)
    assert answer.status == 200
    assert answer.json()["completed"] is True
    whole(upload)


def test_d_08_the_file_is_there_and_the_receipt_is_not(dying: Make, processes: int) -> None:
    """The file that was linked is found to be this upload's own: complete, and no conflict with itself."""
    server = dying("published", processes)
    upload = start(server, content(SIZE, "d-08"))
    for index in (0, 1, 3):
        assert upload.put(index).status == 200
    server.arm()
    unanswered(lambda: upload.put(2))
    revived(server)
    completed(upload)
    whole(upload)


def test_d_09_the_receipt_is_there_and_the_answer_lost(dying: Make, processes: int) -> None:
    """N-10 as well: the finishing request, repeated, gets what the first would have got."""
    server = dying("receipted", processes)
    upload = start(server, content(SIZE, "d-09"))
    for index in (3, 2, 1):
        assert upload.put(index).status == 200
    server.arm()
    unanswered(lambda: upload.put(0))
    revived(server)
    assert upload.status()["completed"] is True
    whole(upload)


def test_n_10_the_answer_is_lost_and_the_server_killed(dying: Make, processes: int) -> None:
    """Whatever it was doing when it was killed, the answer is the one that the first client got."""
    server = dying("receipted", processes)
    upload = start(server, content(SIZE, "n-10"))
    answers = [upload.put(index).json() for index in range(upload.total)]
    assert answers[-1]["completed"] is True
    told = upload.status()
    for _ in range(3):
        kill(server)
        server.start()
        assert upload.put(3).json() == answers[-1]
        assert upload.status() == told
    whole(upload)


def test_killed_again_at_every_start(dying: Make) -> None:
    """A crash in the recovery from a crash, three times over."""
    server = dying("published", 1)
    upload = start(server, content(SIZE, "again"))
    for index in (0, 1, 2):
        assert upload.put(index).status == 200
    told = upload.received()
    server.arm()
    unanswered(lambda: upload.put(3))
    for _ in range(3):
        assert server.child is not None
        assert server.child.process.wait(20) == -9
        server.arm()
        with contextlib.suppress(AssertionError):  # it may be ready for a moment, or never
            server.start()
    assert server.child is not None
    assert server.child.process.wait(20) == -9
    server.start()
    completed(upload)
    assert covers(upload.received(), told)
    whole(upload)


def test_d_08_a_use_of_the_ticket_stays_used(dying: Make) -> None:
    """The file was made before the crash, so it is not one that had been there all along."""
    server = dying("published", 1)
    permit = signatures.bearer(signatures.ticket(prefix="once", files=1))
    body = content(SIZE, "d-08 ticket")
    head = {name: value for name, value in creation(SIZE).items() if name != "X-Signature"} | permit
    answer = server.request("POST", PATH, None, head)
    assert answer.status == 201, answer.body
    told = answer.json()
    upload = Upload(server, text(told["session_id"]), body, number(told["chunk_size"]))
    for index in (0, 1, 2):
        assert upload.put(index).status == 200
    server.arm()
    unanswered(lambda: upload.put(3))
    revived(server)
    completed(upload)
    assert upload.stored() == body
    assert code(server.request("POST", PATH, None, head)) == (403, "ticket_used_up")
