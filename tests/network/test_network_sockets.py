"""Connections while their path is lost: multipath TCP goes on over the other one, plain TCP is given up in time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.namespaces import Link, Namespace, Network

from hmac_file_server.network import Listening, has_other_path, listen, set_user_timeout

MPTCP = 262
SIZE = 16 << 20
CUT_AT = 4 << 20
CONTENT = os.urandom(1 << 20) * (SIZE >> 20)


@dataclass(frozen=True, slots=True)
class Place:
    """A server and a phone, with two links between them of 80 Mbit/s each."""

    server: Namespace
    phone: Namespace
    wifi: Link
    mobile: Link


@pytest.fixture
def place(net: Network) -> Place:
    server, phone = net.namespace("server"), net.namespace("phone")
    wifi, mobile = net.link(server, phone), net.link(server, phone)
    for link in (wifi, mobile):
        link.rate("80mbit", burst="64kb")
    return Place(server, phone, wifi, mobile)


@pytest.fixture
def multipath(place: Place) -> Place:
    """The same, and both kernels use both links: the server tells of its other address, the phone goes there."""
    try:
        place.server.new_socket(protocol=MPTCP).close()
    except OSError as error:
        pytest.skip(f"the kernel has no multipath TCP: {error}")
    for machine in (place.server, place.phone):
        machine.sysctl("net.mptcp.enabled", 1)
        machine.ip("mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4")
    place.server.ip("mptcp", "endpoint", "add", place.mobile.first.address, "dev", place.mobile.first.device, "signal")
    return place


@contextlib.contextmanager
def listening(place: Place, *, mptcp: bool, user_timeout: float = 0.0) -> Iterator[socket.socket]:
    """The server's own listening socket, on all addresses of its namespace."""
    found: Listening = place.server.call(listen, ["0.0.0.0:0"], 1, mptcp=mptcp, user_timeout=user_timeout)
    try:
        sock = found.sockets[0][0]
        sock.setblocking(True)
        sock.settimeout(20)
        yield sock
    finally:
        found.close()


@contextlib.contextmanager
def connected(place: Place, listener: socket.socket, *, protocol: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection over Wi-Fi: the phone's end and the server's."""
    with place.phone.new_socket(protocol=protocol) as client:
        client.settimeout(20)
        client.connect((place.wifi.first.address, listener.getsockname()[1]))
        accepted, peer = listener.accept()
        with accepted:
            assert peer[0] == place.wifi.second.address
            accepted.settimeout(20)
            yield client, accepted


def read_all(sock: socket.socket) -> None:
    """Until the end, or for as long as something comes."""
    while sock.recv(1 << 18):
        pass


def test_an_upload_crosses_the_loss_of_its_link(multipath: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """No reconnect, no retry, no client that knows: the same connection carries on over the other link."""
    with (
        listening(multipath, mptcp=True) as listener,
        connected(multipath, listener, protocol=MPTCP) as (client, accepted),
    ):
        accepted.settimeout(20)
        # Something must have been sent before the second path is joined.
        client.sendall(CONTENT[:1])
        assert accepted.recv(1) == CONTENT[:1]
        wait_until(lambda: has_other_path(accepted), "the second path")
        sending = multipath.phone.begin(client.sendall, CONTENT[1:])
        digest, received, cut_at = hashlib.sha256(CONTENT[:1]), 1, 0.0
        last, stall = time.perf_counter(), 0.0
        while received < SIZE:
            data = accepted.recv(1 << 18)
            assert data, f"ended after {received} bytes"
            now = time.perf_counter()
            if cut_at:
                stall = max(stall, now - last)
            last = now
            digest.update(data)
            received += len(data)
            if not cut_at and received >= CUT_AT:
                multipath.wifi.second.down()
                cut_at = last = time.perf_counter()
        sending.result(20)
        assert digest.digest() == hashlib.sha256(CONTENT).digest()
        # Nobody came a second time.
        assert select.select([listener], [], [], 0) == ([], [], [])
        # And the answer finds its way back.
        accepted.sendall(b"201 Created")
        assert client.recv(100) == b"201 Created"
    with capsys.disabled():
        print(f"\nmultipath TCP: link cut after {CUT_AT >> 20} of {SIZE >> 20} MiB, longest stall {stall:.2f} s")


def test_plain_tcp_does_not(multipath: Place) -> None:
    """The control: over the same two links, to the same listener, a plain connection stands still."""
    with (
        listening(multipath, mptcp=True) as listener,
        connected(multipath, listener, protocol=0) as (client, accepted),
    ):
        assert not has_other_path(accepted)
        client.settimeout(0.5)
        sending = multipath.phone.begin(client.sendall, CONTENT)
        assert accepted.recv(1)
        multipath.wifi.second.down()
        accepted.settimeout(1.5)
        with pytest.raises(TimeoutError):
            read_all(accepted)
        assert isinstance(sending.exception(20), OSError)


def test_one_path_is_no_other_path(multipath: Place) -> None:
    """A phone that speaks multipath TCP but has joined no second path loses its connection with its address."""
    multipath.phone.ip("mptcp", "limits", "set", "subflow", "0", "add_addr_accepted", "0")
    with (
        listening(multipath, mptcp=True) as listener,
        connected(multipath, listener, protocol=MPTCP) as (client, accepted),
    ):
        client.sendall(b"x" * 100_000)
        received = 0
        while received < 100_000:
            received += len(accepted.recv(1 << 16))
        assert not has_other_path(accepted)


def test_a_connection_that_fell_back_has_no_other_path(multipath: Place) -> None:
    """Something between the two removes what multipath TCP writes into the packets, as some networks do."""
    multipath.server.nft(
        "add table inet strip\n"
        "add chain inet strip early { type filter hook prerouting priority -300; }\n"
        "add rule inet strip early tcp flags syn reset tcp option mptcp\n"
    )
    with (
        listening(multipath, mptcp=True) as listener,
        connected(multipath, listener, protocol=MPTCP) as (client, accepted),
    ):
        client.sendall(b"as plain TCP")
        assert accepted.recv(100) == b"as plain TCP"
        assert not has_other_path(accepted)
        assert not has_other_path(client)


@pytest.mark.parametrize("mptcp", [False, True])
def test_a_connection_whose_peer_is_gone_is_given_up(place: Place, mptcp: bool) -> None:
    """What was sent is not acknowledged for a second: that is the end, not the kernel's quarter of an hour."""
    with (
        listening(place, mptcp=mptcp, user_timeout=1.0) as listener,
        connected(place, listener, protocol=0) as (_, accepted),
    ):
        if accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0:
            # A multipath listener has no such option to inherit.
            assert mptcp
            assert set_user_timeout(accepted, 1.0)
        place.wifi.second.down()
        accepted.sendall(b"206 Partial Content")
        with pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)):
            accepted.recv(1)
