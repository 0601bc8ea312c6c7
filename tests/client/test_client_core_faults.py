"""The Python client against the real server over connections that are cut, fall silent, or lose their server."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.client.client_core_run import (
    CHUNK,
    SETTINGS,
    Notes,
    Upload,
    assert_stored,
    descriptors,
    file_of,
    relay,
    started,
    uploader,
)
from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer, StartServer, running

from hmac_file_server.client import ContentDiffers, SourceChanged, StateStore, UploadFailed
from hmac_file_server.client.network import Change

pytestmark = pytest.mark.server

SIZE = 3 * 1024 * 1024 + 12_345
MIDDLE = SIZE // 2


@pytest.fixture(scope="module")
def small_chunks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    yield from running(tmp_path_factory.mktemp("small-chunks"), SETTINGS)


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_cut_on_both_sides_costs_no_acknowledged_byte(
    small_chunks: FileServer, tmp_path: Path, parallel: int
) -> None:
    path, notes = file_of(tmp_path, SIZE, f"both-{parallel}"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes, parallel=parallel)
        assert between.held.wait(30)
        between.reset()
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert result.verified
    assert notes.twice == []
    assert len(set(notes.begun)) == 1
    assert upload.moments[-1].state == "done"


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_server_that_was_not_told_of_the_cut_makes_way(
    small_chunks: FileServer, tmp_path: Path, parallel: int
) -> None:
    path, notes = file_of(tmp_path, SIZE, f"client-{parallel}"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes, parallel=parallel)
        assert between.held.wait(30)
        between.reset_clients()
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []
    # What went on is the rest of a chunk, not the chunk.
    assert any(piece.start % CHUNK for piece in notes.pieces)


@pytest.mark.parametrize("parallel", [1, 4])
def test_connections_that_fall_silent_are_left(small_chunks: FileServer, tmp_path: Path, parallel: int) -> None:
    path, notes = file_of(tmp_path, SIZE, f"silent-{parallel}"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes, parallel=parallel)
        assert between.held.wait(30)
        between.abandon()
        result = upload.result()
        assert between.connections > parallel
    assert_stored(small_chunks, result, path)
    assert notes.twice == []


def test_a_network_that_swallows_everything_is_waited_out(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes = file_of(tmp_path, SIZE, "swallowed"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes, answer_timeout=1.0)
        assert between.held.wait(30)
        upload.wait_for(lambda moment: moment.state == "stalled" and moment.attempt > 0)
        between.release()
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []


def test_a_server_that_cannot_be_reached_is_tried_until_it_can(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes = file_of(tmp_path, SIZE, "refused"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes)
        assert between.held.wait(30)
        between.refusing = True
        between.reset()
        moment = upload.wait_for(lambda moment: moment.state == "waiting" and moment.attempt >= 3)
        assert 0 < moment.acknowledged < SIZE
        between.refusing = False
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []


def test_many_cuts_at_any_place(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes, places = file_of(tmp_path, SIZE, "many"), Notes(), random.Random(5)
    with relay(small_chunks, places.randrange(1, CHUNK)) as between:
        upload = started(between.url, path, notes)
        for _ in range(8):
            assert between.held.wait(30)
            places.choice([between.reset, between.reset_clients])()
            between.hold_again(places.randrange(1, CHUNK))
        assert between.held.wait(30)
        between.release()
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []
    assert len(set(notes.begun)) == 1


def test_a_server_that_is_killed_five_times(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server({"uploads": {"chunk_size": CHUNK}})
    path, notes = file_of(tmp_path, SIZE, "killed"), Notes()
    with relay(server, SIZE // 7) as between:
        upload = started(between.url, path, notes)
        for _ in range(5):
            assert between.held.wait(30)
            assert server.child is not None
            os.kill(server.pid, signal.SIGKILL)
            server.child.process.wait()
            between.reset()
            between.hold_again(SIZE // 7)
            server.start()
        assert between.held.wait(30)
        between.release()
        result = upload.result()
    assert_stored(server, result, path)
    assert result.verified
    assert notes.twice == []
    assert len(set(notes.begun)) == 1


def test_the_answer_to_the_creation_is_lost(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes = file_of(tmp_path, SIZE, "creation"), Notes()
    notes.lose_creation = True
    result = started(small_chunks.url, path, notes).result()
    assert_stored(small_chunks, result, path)
    assert len(notes.begun) == 2
    assert len(set(notes.begun)) == 1
    assert len(set(notes.keys)) == 1


def test_the_last_answer_is_lost(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes = file_of(tmp_path, SIZE, "last"), Notes()
    notes.lose_end = True
    result = started(small_chunks.url, path, notes).result()
    assert_stored(small_chunks, result, path)
    assert notes.sent == SIZE


def test_without_faults_every_byte_is_sent_once_and_nothing_is_asked(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes = file_of(tmp_path, SIZE, "once"), Notes()
    before = descriptors()
    upload = started(small_chunks.url, path, notes)
    result = upload.result()
    assert descriptors() == before
    assert_stored(small_chunks, result, path)
    assert notes.sent == SIZE
    assert notes.asked == 0
    assert len(notes.pieces) == -(-SIZE // CHUNK)
    reported = [moment.acknowledged for moment in upload.moments]
    assert reported == sorted(reported)
    assert all(moment.acknowledged <= moment.sent <= moment.total == SIZE for moment in upload.moments)
    assert upload.moments[-1].sent == SIZE


def test_another_run_goes_on_where_one_was_cancelled(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes, state = file_of(tmp_path, SIZE, "cancelled"), Notes(), StateStore(tmp_path / "state")
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes, state=state)
        assert between.held.wait(30)
        before = upload.wait_for(lambda moment: moment.acknowledged > 0)
        upload.cancel()
        between.reset()
        assert len(list((tmp_path / "state").glob("*.json"))) == 1
        again = started(between.url, path, notes, state=state)
        result = again.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []
    assert len(notes.begun) == 1
    assert again.moments[-1].resumed >= before.acknowledged
    assert list((tmp_path / "state").iterdir()) == []


def test_a_run_that_was_killed_before_the_creation_was_answered(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes, state = file_of(tmp_path, SIZE, "early"), Notes(), StateStore(tmp_path / "state")
    with relay(small_chunks, 0) as between:
        upload = started(between.url, path, notes, state=state)
        assert between.held.wait(30)
        upload.cancel()
    result = started(small_chunks.url, path, notes, state=StateStore(tmp_path / "state")).result()
    # Another address is another server.
    assert_stored(small_chunks, result, path)
    assert len(set(notes.keys)) == 2
    (left,) = (tmp_path / "state").glob("*.json")
    assert '"key"' in left.read_text()


def test_a_session_that_is_gone_is_begun_anew_once(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes = file_of(tmp_path, SIZE, "gone"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes)
        assert between.held.wait(30)
        ended = small_chunks.request("DELETE", "/upload/chunked", headers={"X-Upload-Session-ID": notes.begun[0]})
        assert ended.status == 204
        notes.told = ()
        between.reset()
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert len(set(notes.begun)) == 2
    assert len(set(notes.keys)) == 2


def test_two_runs_of_one_upload_are_one_too_many(small_chunks: FileServer, tmp_path: Path) -> None:
    path, state = file_of(tmp_path, SIZE, "held"), StateStore(tmp_path / "state")
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, Notes(), state=state)
        assert between.held.wait(30)
        with pytest.raises(UploadFailed) as failed:
            started(between.url, path, Notes(), state=state).result()
        assert failed.value.code == "already_running"
        between.release()
        assert_stored(small_chunks, upload.result(), path)


def test_discarding_ends_the_session(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes, state = file_of(tmp_path, SIZE, "discarded"), Notes(), StateStore(tmp_path / "state")
    with relay(small_chunks, MIDDLE) as between:
        upload = Upload()
        sender = uploader(between.url, notes, upload, state=state)
        upload.start(lambda: sender.upload(path))
        assert between.held.wait(30)
        upload.cancel()
        between.reset()
        session = sender.session
        assert session is not None
        assert session.id == notes.begun[0]
        assert Upload().start(lambda: sender.discard(path)).result() is True
        assert Upload().start(lambda: sender.discard(path)).result() is False
    status = small_chunks.request("GET", f"/upload/status?session_id={session.id}")
    assert status.status == 404
    assert list((tmp_path / "state").iterdir()) == []


def test_the_latest_session_is_discarded_without_a_state(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes = file_of(tmp_path, SIZE, "stateless"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        sender, upload = uploader(between.url, notes), Upload()
        upload.start(lambda: sender.upload(path))
        assert between.held.wait(30)
        upload.cancel()
        between.reset()
        assert Upload().start(sender.discard).result() is True
        assert Upload().start(sender.discard).result() is False
    assert small_chunks.request("GET", f"/upload/status?session_id={notes.begun[0]}").status == 404


@pytest.mark.parametrize("change", ["longer", "shorter", "written"])
def test_a_file_that_changes_ends_the_upload_and_its_session(
    small_chunks: FileServer, tmp_path: Path, change: str
) -> None:
    path, notes = file_of(tmp_path, SIZE, f"changes-{change}"), Notes()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes)
        assert between.held.wait(30)
        with path.open("r+b") as file:
            if change == "written":
                file.write(b"other")
            else:
                file.truncate(SIZE + 1 if change == "longer" else 1000)
        between.release()
        with pytest.raises(SourceChanged) as failed:
            upload.result()
    assert failed.value.code == "source_changed"
    assert not failed.value.retriable
    wait_until(
        lambda: small_chunks.request("GET", f"/upload/status?session_id={notes.begun[0]}").status == 404,
        "the session is gone",
    )


def test_what_was_changed_unseen_between_two_runs_is_found_by_the_digest(
    small_chunks: FileServer, tmp_path: Path
) -> None:
    path, notes, state = file_of(tmp_path, SIZE, "unseen"), Notes(), StateStore(tmp_path / "state")
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes, state=state)
        assert between.held.wait(30)
        upload.wait_for(lambda moment: moment.acknowledged > 0)
        upload.cancel()
        between.reset()
        status = path.stat()
        start = notes.told[0][0]
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes([file.read(1)[0] ^ 1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with path.open("r+b") as file:
            file.seek(start)
            byte = file.read(1)[0]
            file.seek(start)
            file.write(bytes([byte ^ 1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        again = started(between.url, path, notes, state=state)
        with pytest.raises(ContentDiffers) as failed:
            again.result()
    assert failed.value.url.startswith("http://")
    assert list((tmp_path / "state").iterdir()) == []


class Network:
    """A network that changes when a test says so; see `protocol.NetworkShape`."""

    online = True

    def __init__(self) -> None:
        self._listeners: list[Callable[[Change], None]] = []
        self.subscribed = threading.Event()

    def start(self) -> None:
        """It always watches."""

    def stop(self) -> None:
        """It always watches."""

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        self.subscribed.set()
        return lambda: self._listeners.remove(listener)

    def change(self, upload: Upload, *, vanished: frozenset[str] = frozenset()) -> None:
        def tell() -> None:
            for listener in tuple(self._listeners):
                listener(Change(reachable=True, vanished=vanished))

        upload.call(tell)


def test_a_new_network_ends_a_long_wait(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes, network = file_of(tmp_path, SIZE, "hurry"), Notes(), Network()
    with relay(small_chunks, MIDDLE) as between:
        # Whoever waits out these delays is not done within the time of a test.
        upload = started(
            between.url, path, notes, network=network, retry_delay=(3600.0, 3600.0), draw=lambda: 0.5, patience=None
        )
        assert between.held.wait(30)
        between.reset()
        upload.wait_for(lambda moment: moment.state == "waiting")
        network.change(upload)
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []


def test_connections_whose_address_has_vanished_are_left_at_once(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes, network = file_of(tmp_path, SIZE, "vanished"), Notes(), Network()
    with relay(small_chunks, MIDDLE) as between:
        # The watchdog would take an hour.
        upload = started(between.url, path, notes, network=network, mptcp=False, stall_timeout=3600.0)
        assert between.held.wait(30)
        between.abandon()
        network.change(upload, vanished=frozenset({"127.0.0.1"}))
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []


def test_connections_that_live_after_a_change_are_kept(small_chunks: FileServer, tmp_path: Path) -> None:
    path, notes, network = file_of(tmp_path, SIZE, "alive"), Notes(), Network()
    with relay(small_chunks, MIDDLE) as between:
        upload = started(between.url, path, notes, network=network, mptcp=False)
        assert between.held.wait(30)
        network.change(upload)
        between.release()
        result = upload.result()
    assert_stored(small_chunks, result, path)
    assert notes.twice == []
    assert notes.sent == SIZE
