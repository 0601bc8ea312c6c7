"""Links that go down in the middle of a chunk, in networks made for the test: nobody is told, nothing is reset."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    TAKEN_OVER,
    Upload,
    arrived,
    covers,
    descriptors,
    drafts,
    number,
    outcome,
    processes,
    send_if_open,
    sockets,
    spans,
    start,
    target,
)
from tests.faults.switching import LinkWire, Rig, rig, switches, told_by
from tests.fixtures.child import free_port, wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer, Settings
from tests.server.wire import EarlyEndError, Wire

HALF = MIB // 2
SWITCHES = 40


@pytest.fixture
def two_links(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path / "server", {"uploads": {"chunk_size": "1MB"}}) as made:
        yield made


@pytest.mark.parametrize("count", [1, 2], ids=["one-process", "two-processes"])
def test_n_01_forty_switches(tmp_path: Path, count: int) -> None:
    """Each in the middle of a chunk, at another place: nothing that had arrived is lost, and it goes on at once."""
    settings: Settings = {"server": {"processes": count}, "uploads": {"chunk_size": "1MB"}}
    with rig(tmp_path / "server", settings) as made:
        found = list(switches(made, SWITCHES // count, chunk_size=MIB))
        assert len(found) == SWITCHES // count
        assert sum(one.lost for one in found) == 0
        assert max(one.status for one in found) < 1
        assert max(one.accepted for one in found) < 1
        # The fault's own bound, which a busy machine may miss now and then.
        assert sorted(one.status for one in found)[len(found) // 2] < 0.2


def test_n_01_the_server_ends_the_old_connection(two_links: Rig) -> None:
    upload = start(two_links.server, content(2 * MIB, "n-01 link"))
    with two_links.begin(upload, 0, HALF, link=1):
        two_links.cut(1)
        assert sockets(two_links.server) == 1
        with LinkWire(two_links, 2) as new:
            upload.announce(new, 0, headers={"Expect": "100-continue"})
            assert new.next_answer().status == 100
            wait_until(lambda: sockets(two_links.server) == 1, "only the newcomer is connected")
            upload.await_received((0, HALF))
            new.send(upload.chunk(0))
            assert new.answer().status == 200
    upload.finish()
    assert upload.stored() == upload.body


def test_n_02_the_old_connection_comes_back(two_links: Rig) -> None:
    """What waited at the phone for its old network comes after the takeover, and comes too late."""
    upload = start(two_links.server, content(2 * MIB, "n-02 link"))
    with two_links.begin(upload, 0, HALF, link=1) as old:
        two_links.cut(1)
        # Other bytes than those that belong there, so that every single one would show.
        old.send(bytes(20_000))
        assert not arrived(old)()
        with LinkWire(two_links, 2) as new:
            upload.announce(new, 0, offset=HALF, headers={"Expect": "100-continue"})
            assert new.next_answer().status == 100
            two_links.mend(1)
            assert outcome(old) in TAKEN_OVER
            send_if_open(old, bytes(20_000))
            assert upload.received() == [(0, HALF)]
            new.send(upload.chunk(0)[HALF:])
            assert new.answer().status == 200
    upload.finish()
    assert upload.stored() == upload.body


@pytest.mark.parametrize("sent", [1000, HALF])
def test_n_27_a_silent_connection_is_given_up(tmp_path: Path, sent: int) -> None:
    """Nobody comes back: what the connection held is freed at the stall bound, and what it brought is kept."""
    settings: Settings = {"uploads": {"chunk_size": "1MB"}, "timeouts": {"stall_timeout": "1s"}}
    with rig(tmp_path / "server", settings) as made:
        warm = start(made.server, content(MIB, "warm"))
        warm.finish()
        upload = start(made.server, content(MIB, "n-27"))
        before = descriptors(processes(made.server))
        with made.begin(upload, 0, sent, link=1):
            made.cut(1)
            wait_until(lambda: sockets(made.server) == 0, "the connection is given up")
            upload.await_received((0, sent))
            # The draft may stay open; the connection's socket may not.
            wait_until(lambda: descriptors(processes(made.server)) <= before + 1, "its descriptors are freed")
        with LinkWire(made, 2) as wire:
            upload.announce(wire, 0, offset=sent)
            wire.send(upload.body[sent:])
            assert wire.answer().json()["completed"] is True
        assert upload.stored() == upload.body


def test_n_27_the_client_is_back_before_that(two_links: Rig) -> None:
    upload = start(two_links.server, content(MIB, "n-27 early"))
    with two_links.begin(upload, 0, HALF, link=1):
        two_links.cut(1)
        with LinkWire(two_links, 2) as wire:
            upload.announce(wire, 0)
            wire.send(upload.body)
            assert wire.answer().json()["completed"] is True
    assert upload.stored() == upload.body


def test_n_28_another_address_and_port_for_each_chunk(chunk_server: FileServer) -> None:
    """A session is not bound to where it began."""
    upload = start(chunk_server, content(12 * MIB, "n-28"))
    ports = set()
    for index in range(upload.total):
        source = (f"127.0.{index % 4}.{index + 2}", 0)
        place = (chunk_server.host, chunk_server.port)
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(Wire(chunk_server))
            wire.sock.close()
            wire.sock = socket.create_connection(place, timeout=20, source_address=source)
            ports.add(wire.sock.getsockname())
            half = index % 2 * HALF
            if half:
                # One half each from two addresses.
                upload.begin(index, half).sock.close()
                wait_until(lambda index=index, half=half: upload.prefix(index) == half, "the half is there")  # type: ignore[misc]
            upload.announce(wire, index, offset=half)
            wire.send(upload.chunk(index)[half:])
            assert wire.answer().status == 200
    assert len(ports) == upload.total
    assert upload.stored() == upload.body


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_n_28_from_ipv4_to_ipv6(tmp_path: Path) -> None:
    port = free_port()
    addresses = [f"127.0.0.1:{port}", f"[::1]:{port}"]
    settings: Settings = {"server": {"listen_address": addresses}, "uploads": {"chunk_size": "1MB"}}
    server = FileServer(tmp_path / "server", settings, port=port)
    server.start()
    try:
        change_of_family(server)
    finally:
        server.stop()


def change_of_family(server: FileServer) -> None:
    upload = start(server, content(2 * MIB, "n-28 ipv6"))
    with upload.begin(0, HALF) as old:
        upload.await_received((0, HALF))
        with contextlib.closing(socket.create_connection(("::1", server.port), timeout=20)) as sock:
            new = Wire(server)
            new.sock.close()
            new.sock = sock
            upload.announce(new, 0, offset=HALF)
            new.send(upload.chunk(0)[HALF:])
            assert new.answer().status == 200
        assert outcome(old) in TAKEN_OVER
    upload.finish()
    assert upload.stored() == upload.body


RESILIENT = {
    "uploads": {"chunk_size": "1MB"},
    "network_resilience": {"stabilization_delay": "300ms", "poll_interval": "500ms", "max_pause": "2s"},
}


def pauses(server: FileServer) -> int:
    return server.log_text().count("Pausing all active uploads due to network change")


def settled(server: FileServer) -> bool:
    return server.log_text().count("Resuming all paused uploads") == pauses(server)


def test_n_36_the_server_gets_another_address(tmp_path: Path) -> None:
    """Its interface goes down and comes back with another address: it serves there, and the upload goes on."""
    with rig(tmp_path / "server", RESILIENT) as made:
        server, end = made.server, made.links[3].second
        upload = start(server, content(3 * MIB, "n-36"))
        assert upload.put(0).status == 200
        with made.begin(upload, 1, HALF, link=1):
            end.down()
            end.delete_address(f"{end.address}/24")
            end.add_address("10.80.3.77/24")
            end.up()
            made.route_server()
            # The connection's own address is gone: it is ended without waiting for anything.
            wait_until(lambda: sockets(server) == 0, "the old connection is ended")
            server.host = "10.80.3.77"
            moved = Upload(server, upload.id, upload.body, upload.chunk_size)
            moved.await_received((0, MIB + HALF))
            assert moved.put(1, offset=HALF).status == 200
            assert moved.put(2).json()["completed"] is True
        assert moved.stored() == upload.body
        assert "Network change detected" in server.log_text()
        wait_until(lambda: settled(server), "every pause has ended")


def test_n_36_a_flood_of_changes_is_one_change(tmp_path: Path) -> None:
    """Twenty changes within the stabilisation delay of each other: one pause, or two, and an upload that arrives."""
    with rig(tmp_path / "server", RESILIENT) as made:
        server, end = made.server, made.links[3].second
        upload = start(server, content(MIB, "n-36 flood"))
        with made.begin(upload, 0, HALF, link=1) as wire:
            end.add_address("10.80.3.100/24")
            # Else the whole flood may be over before the server looks, and then nothing has changed.
            wait_until(lambda: pauses(server) > 0, "the change is noticed")
            for turn in range(1, 10):
                end.add_address(f"10.80.3.{100 + turn}/24")
            for turn in range(10):
                end.delete_address(f"10.80.3.{100 + turn}/24")
            wire.send(upload.body[HALF:])
            assert wire.answer().json()["completed"] is True
        assert 1 <= pauses(server) <= 3
        wait_until(lambda: settled(server), "every pause has ended")
        assert upload.stored() == upload.body


def test_n_36_endless_changes_do_not_hold_an_upload_for_ever(tmp_path: Path) -> None:
    """The network never comes to rest; uploads go on all the same after the longest pause."""
    with rig(tmp_path / "server", RESILIENT) as made:
        server, end = made.server, made.links[3].second
        upload = start(server, content(2 * MIB, "n-36 endless"))
        stop = threading.Event()
        faults: list[BaseException] = []

        def change() -> None:
            try:
                while not stop.wait(0.05):
                    end.add_address("10.80.3.99/24")
                    stop.wait(0.05)
                    end.delete_address("10.80.3.99/24")
            except BaseException as error:
                faults.append(error)

        changing = threading.Thread(target=change)
        changing.start()
        try:
            with made.begin(upload, 0, HALF, link=1) as wire:
                wait_until(lambda: pauses(server) > 0, "the change is noticed")
                wire.send(upload.chunk(0)[HALF:])
                assert wire.answer().status == 200
            with LinkWire(made, 2) as wire:
                upload.announce(wire, 1)
                wire.send(upload.chunk(1))
                assert wire.answer().json()["completed"] is True
            assert upload.stored() == upload.body
        finally:
            stop.set()
            changing.join()
        assert faults == []
        wait_until(lambda: settled(server), "every pause has ended")
        assert server.log_text().count("Network change detected") <= 10


FLAPS = 20
FLAP = 0.5


def carry_on(made: Rig, upload: Upload, stop: threading.Event) -> int:
    """A client on a link that comes and goes: takes what the status says, sends on, gives up on silence.

    Returns how often it was connected.
    """
    connected = 0
    while not stop.is_set():
        try:
            with LinkWire(made, 1, timeout=0.4) as wire:
                connected += 1
                ranges = told_by(wire, upload)
                index = next((i for i in range(upload.total) if not covers(ranges, [chunk_span(upload, i)])), None)
                if index is None:
                    return connected
                begin, stop_at = chunk_span(upload, index)
                place = next((high - begin for low, high in ranges if low <= begin < high), 0)
                upload.announce(wire, index, offset=place)
                for low in range(begin + place, stop_at, 16 * KIB):
                    wire.send(upload.body[low : min(low + 16 * KIB, stop_at)])
                answer = wire.answer()
                assert answer.status == 200, answer.body
        except (OSError, EarlyEndError):
            stop.wait(0.02)
    return connected


def chunk_span(upload: Upload, index: int) -> tuple[int, int]:
    begin = index * upload.chunk_size
    return begin, begin + len(upload.chunk(index))


def test_n_37_a_link_that_comes_and_goes(tmp_path: Path) -> None:
    """Every half second for ten seconds: it only ever goes forward, and nothing is left open."""
    with rig(tmp_path / "server", {"uploads": {"chunk_size": "1MB"}}) as made:
        server = made.server
        for turn in range(3):
            warm = start(server, content(2 * MIB, f"warm {turn}"))
            with made.begin(warm, 0, 1000, link=2):
                warm.finish()
        wait_until(lambda: sockets(server) == 0 and drafts(server) == [], "the server is at rest")
        before = descriptors(processes(server))
        made.links[1].second.rate("24mbit")
        upload = start(server, content(16 * MIB, "n-37"))
        told: list[int] = []
        stop, over = threading.Event(), threading.Event()
        counted: list[int] = []
        faults: list[BaseException] = []

        def client() -> None:
            try:
                counted.append(carry_on(made, upload, stop))
            except BaseException as error:
                faults.append(error)

        sending = threading.Thread(target=client)
        sending.start()
        try:
            for flap in range(FLAPS):
                # The rhythm of the fault, not a wait for anything.
                over.wait(FLAP)
                if flap % 2 == 0:
                    made.cut(1)
                else:
                    made.mend(1)
                told.append(number(upload.status()["uploaded_bytes"]))
            sending.join(60)
            assert not sending.is_alive(), "the upload did not arrive after the link came to rest"
        finally:
            stop.set()
            sending.join()
        assert faults == []
        assert counted[0] > FLAPS // 4
        assert told == sorted(told)
        assert told[-1] > told[0]
        assert upload.status()["completed"] is True
        assert spans(upload.status()["missing"]) == []
        assert upload.stored() == upload.body
        assert server.request("GET", target(upload.status()["url"])).status == 200
        wait_until(lambda: drafts(server) == [], "the draft is gone")
        wait_until(lambda: descriptors(processes(server)) <= before, "the descriptors are given back")
