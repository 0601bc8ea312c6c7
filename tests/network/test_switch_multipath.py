"""Multipath TCP at both ends: a link is cut in the middle of a body, and nobody has to connect again."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.content import content
from tests.fixtures.link_uploads import KIB, MIB, Phone, phone
from tests.fixtures.links import Bed, Quality, bed

MPTCP = 262
USUAL = Quality(rate=20e6, delay=0.015)
PATIENCE = 30.0
STALL = 1.0
"""Seconds for which nothing may move (issue: below 1 s), and what a busy machine may add."""
MARGIN = 1.0


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, "the other end is gone"
        data += piece
    return data


def asked(made: Bed) -> tuple[int, int]:
    """Connections of Multipath TCP, and further paths of these, that the server was asked for (MPTcpExt of netstat)."""
    text = made.server.run("cat", "/proc/net/netstat")
    names, values = (line.split()[1:] for line in re.findall(r"^MPTcpExt:.*$", text, re.MULTILINE))
    told = dict(zip(names, map(int, values), strict=True))
    return told["MPCapableSYNRX"], told["MPJoinSynRx"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    folder = tmp_path_factory.mktemp("multipath")
    with phone(folder, quality=USUAL, mptcp=True, settings={"server": {"mptcp": True}}) as made:
        yield made


@pytest.fixture
def made(shared: Phone) -> Iterator[Phone]:
    shared.reset(USUAL)
    yield shared
    shared.stop()


def test_the_bed_has_two_paths() -> None:
    data = content(3 * MIB, "two paths")
    with (
        bed(mptcp=True) as made,
        made.server.new_socket(protocol=MPTCP) as listener,
        made.client.new_socket(protocol=MPTCP) as near,
    ):
        listener.bind((made.address, 900))
        listener.listen()
        near.connect((made.address, 900))
        far, _ = listener.accept()
        with far:
            far.settimeout(PATIENCE)
            sending = made.client.begin(near.sendall, data)
            received = receive(far, MIB)
            made.cut("wifi")
            received += receive(far, len(data) - MIB)
            sending.result(PATIENCE)
        assert received == data
        assert asked(made) == (1, 1)
        assert [both.to_server.connections for both in made.counters().values()] == [1, 1]
        assert all(both.to_server.fresh > 0 for both in made.counters().values())


def test_plain_tcp_has_one() -> None:
    with bed(mptcp=True) as made, made.server.call(socket.create_server, (made.address, 900)) as listener:
        with made.client.connect((made.address, 900)) as near:
            listener.accept()[0].close()
            assert near.recv(1) == b""
        assert asked(made) == (0, 0)
        assert made.connections() == 1


@pytest.mark.parametrize("parallel", [1, 4])
def test_wifi_is_cut_in_the_middle_of_a_body(made: Phone, parallel: int) -> None:
    connections, paths = asked(made.bed)
    carried = made.bed.counters()["mobile"].to_server.fresh
    upload = made.upload("python", 4 * MIB, parallel=parallel)
    upload.wait(2 * MIB + 300 * KIB)
    assert asked(made.bed)[0] == connections + parallel
    made.bed.cut("wifi")
    upload.finish()
    stall = upload.result["stall"]
    assert isinstance(stall, float)
    print(f"Multipath TCP, {parallel} connections: wifi cut after 2.3 of 4 MiB, longest stall {stall:.2f} s")
    # No reconnect at all, and the client has noticed nothing.
    assert asked(made.bed) == (connections + parallel, paths + parallel)
    assert [line["event"] for line in upload.told()[:-1]] == [
        "starting 0", "uploading 0", "finishing 0", "done 0",
    ]  # fmt: skip
    assert made.bed.counters()["mobile"].to_server.fresh - carried > MIB
    assert stall < STALL + MARGIN


def test_back_to_wifi_and_from_mobile(made: Phone) -> None:
    connections, _ = asked(made.bed)
    upload = made.upload("python", 4 * MIB, parallel=1)
    upload.wait(MIB)
    made.bed.down("wifi")
    upload.wait(2 * MIB)
    made.bed.up("wifi", "new")
    upload.wait(3 * MIB)
    # The new path over wifi is another one, of the same connection.
    made.bed.down("mobile")
    upload.finish()
    print(f"Multipath TCP: to mobile and back to wifi, longest stall {upload.result['stall']:.2f} s")
    assert asked(made.bed)[0] == connections + 1


def test_a_server_without_it_gets_plain_tcp(tmp_path: Path) -> None:
    with phone(tmp_path, quality=USUAL, mptcp=True, settings={"server": {"mptcp": False}}) as made:
        upload = made.upload("python", MIB, parallel=1)
        upload.wait(300 * KIB)
        made.bed.switch("wifi")
        upload.finish()
        # It asked, and was not understood; then it went over to mobile by itself.
        assert asked(made.bed)[1] == 0
        assert made.bed.connections() > 1
        assert upload.twice() < 64 * KIB
        # With the address there again the phone tells the server that the old connection is no more; its end need not
        # wait for that one.
        made.bed.up("wifi")
