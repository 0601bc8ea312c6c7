"""Snapshots of real networks: what counts, what does not, and that /proc tells the same as netlink."""

from __future__ import annotations

import errno
import os
import socket
import timeit

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.namespaces import Namespace, Network

from hmac_file_server.network import Interface, Route, Snapshot, rtnetlink, snapshot
from hmac_file_server.network.addresses import from_netlink, from_proc

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def home(net: Network) -> Namespace:
    made = net.namespace("home")
    made.sysctl("net.ipv6.conf.default.accept_dad", 0)
    return made


def look(home: Namespace) -> Snapshot:
    """By netlink; /proc must say the same."""
    found, other = home.call(from_netlink), home.call(from_proc)
    assert found == other
    assert found.addresses == other.addresses
    assert home.call(snapshot) == found
    return found


def carrier(home: Namespace, device: str) -> None:
    wait_until(lambda: "state UP" in home.ip("link", "show", device), f"{device} is up")


def test_a_machine_that_is_alone(home: Namespace) -> None:
    assert look(home) == Snapshot(frozenset(), frozenset(), frozenset())
    assert look(home).addresses == {"127.0.0.1", "::1"}


def test_a_link_with_both_families(net: Network, home: Namespace) -> None:
    link = net.link(home, net.namespace(), ipv6=True)
    carrier(home, "v1")
    home.ip("route", "add", "default", "via", link.second.address, "metric", "100")
    home.ip("-6", "route", "add", "default", "via", "fe80::1", "dev", "v1")
    # Other routes, which are no way out.
    home.ip("route", "add", "10.0.0.0/8", "via", link.second.address)
    home.ip("-6", "route", "add", "2001:db8::/32", "via", link.second.address6)
    home.ip("route", "add", "unreachable", "default", "metric", "4000")
    home.ip("-6", "route", "add", "unreachable", "default", "metric", "4000")
    found = look(home)
    assert found.interfaces == {Interface("v1", ("10.80.1.1", "fd80:1::1"))}
    assert found.routes == {Route(V4, "10.80.1.2", "v1", 100), Route(V6, "fe80::1", "v1", 1024)}
    assert found.addresses > {"127.0.0.1", "::1", "10.80.1.1", "fd80:1::1"}
    (link_local,) = found.addresses - {"127.0.0.1", "::1", "10.80.1.1", "fd80:1::1"}
    assert link_local.startswith("fe80::")
    assert "%" not in link_local


def test_what_does_not_count(net: Network, home: Namespace) -> None:
    before = look(home)
    home.veth("c1", "d1")
    home.up("c1")
    home.up("d1")
    carrier(home, "c1")
    home.ip("addr", "add", "169.254.1.1/16", "dev", "c1", "scope", "link")
    wait_until(lambda: home.ip("-6", "addr").count("inet6 fe80") == 2, "link-local addresses")
    now = look(home)
    assert now == before
    assert now.addresses - before.addresses > {"169.254.1.1"}


def test_an_interface_that_is_off_or_has_no_carrier(net: Network, home: Namespace) -> None:
    link = net.link(home, net.namespace())
    carrier(home, "v1")
    on = look(home)
    link.second.down()
    wait_until(lambda: "NO-CARRIER" in home.ip("link", "show", "v1"), "no carrier")
    assert look(home).interfaces == set()
    assert "10.80.1.1" in look(home).addresses
    link.second.up()
    carrier(home, "v1")
    assert look(home) == on
    link.first.down()
    assert look(home).interfaces == set()
    assert "10.80.1.1" in look(home).addresses


def test_many_addresses_labels_and_points(net: Network, home: Namespace) -> None:
    net.link(home, net.namespace())
    carrier(home, "v1")
    for number in range(200):
        home.ip("addr", "add", f"10.90.0.{number + 1}/24", "dev", "v1", "label", f"v1:{number}")
    home.ip("addr", "add", "10.91.0.1", "peer", "10.91.0.2", "dev", "v1")
    (interface,) = look(home).interfaces
    assert len(interface.addresses) == 202
    # Our own end, not the other one.
    assert "10.91.0.1" in interface.addresses
    assert "10.91.0.2" not in look(home).addresses


def test_default_routes_of_every_kind(net: Network, home: Namespace) -> None:
    net.link(home, net.namespace())
    net.link(home, net.namespace())
    home.ip("route", "add", "default", "dev", "v1", "metric", "7")
    assert look(home).routes == {Route(V4, "", "v1", 7)}
    hops = ["nexthop", "via", "10.80.1.2", "nexthop", "via", "10.80.2.2"]
    home.ip("route", "replace", "default", "metric", "7", *hops)
    both = {Route(V4, "10.80.1.2", "v1", 7), Route(V4, "10.80.2.2", "v2", 7)}
    assert home.call(from_netlink).routes == both
    # /proc knows the first of several next hops only.
    assert home.call(from_proc).routes < both
    home.ip("route", "del", "default", "metric", "7")
    home.ip("route", "add", "default", "via", "10.80.2.2", "table", "51820")
    assert home.call(from_netlink).routes == {Route(V4, "10.80.2.2", "v2", 0)}
    assert home.call(from_proc).routes == set()
    home.ip("route", "del", "default", "table", "51820")
    home.ip("-4", "route", "add", "default", "via", "inet6", "fe80::1", "dev", "v1")
    assert home.call(from_netlink).routes == {Route(V4, "fe80::1", "v1", 0)}


def test_no_ipv6_at_all(net: Network, home: Namespace) -> None:
    home.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    net.link(home, net.namespace())
    carrier(home, "v1")
    assert look(home).addresses == {"127.0.0.1", "10.80.1.1"}


def test_a_router_has_no_default_route_that_counts(net: Network, home: Namespace) -> None:
    """A table of thousands is not read to its end, every time that something changes."""
    net.link(home, net.namespace(), ipv6=True)
    lines = [f"route add 11.{number // 256}.{number % 256}.0/24 via 10.80.1.2" for number in range(3000)]
    lines += [f"-6 route add 2001:db8:{number:x}::/48 via fd80:1::2" for number in range(3000)]
    home.run("ip", "-force", "-batch", "-", given="\n".join(line for line in lines if not line.startswith("-6")))
    home.run("ip", "-6", "-batch", "-", given="\n".join(line[3:] for line in lines if line.startswith("-6")))
    home.ip("route", "add", "default", "via", "10.80.1.2")
    home.ip("-6", "route", "add", "default", "via", "fd80:1::2")
    assert home.call(from_netlink).routes == set()


def test_hundreds_of_interfaces_are_not_asked_one_by_one(
    net: Network, home: Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net.link(home, net.namespace())
    carrier(home, "v1")
    small = home.call(timeit.repeat, from_netlink, number=20, repeat=5)
    home.run("ip", "-batch", "-", given="\n".join(f"link add c{n} type veth peer name d{n}" for n in range(150)))
    home.run("ip", "-batch", "-", given="\n".join(f"link set {side}{n} up" for n in range(150) for side in "cd"))
    # While they come up, a look may be interrupted all the time.
    wait_until(lambda: home.ip("-6", "addr").count("inet6 fe80") == 301, "link-local addresses")
    asked: list[int] = []
    original = rtnetlink.Queries.link

    def link(self: rtnetlink.Queries, index: int) -> rtnetlink.LinkState | None:
        asked.append(index)
        return original(self, index)

    large = home.call(timeit.repeat, from_netlink, number=20, repeat=5)
    with monkeypatch.context() as patch:
        patch.setattr(rtnetlink.Queries, "link", link)
        home.call(from_netlink)
    assert len(asked) == 1
    with capsys.disabled():
        microseconds = [f"{min(times) / 20 * 1e6:.0f}" for times in (small, large)]
        print(f"\nsnapshot: {microseconds[0]} us with 2 interfaces, {microseconds[1]} us with 302")


def test_snapshots_leave_no_descriptor_open(home: Namespace) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        home.call(from_netlink)
        home.call(from_proc)
    assert len(os.listdir("/proc/self/fd")) == before


# --- failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT])
def test_where_netlink_is_not_permitted_proc_tells(
    net: Network, home: Namespace, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    net.link(home, net.namespace())
    carrier(home, "v1")
    expected = home.call(from_netlink)

    def refuse() -> rtnetlink.Queries:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(rtnetlink, "Queries", refuse)
    assert home.call(snapshot) == expected


def test_other_failures_are_failures(home: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What /proc would tell instead may differ in details, and that would look like a change."""

    def refuse() -> rtnetlink.Queries:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(rtnetlink, "Queries", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        home.call(snapshot)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_interrupted_look_is_taken_again(home: Namespace, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    expected = home.call(from_netlink)
    original = rtnetlink.Queries.addresses
    tries: list[int] = []

    def addresses(self: rtnetlink.Queries) -> list[rtnetlink.AddressState]:
        tries.append(1)
        if len(tries) <= times:
            raise rtnetlink.Interrupted
        return original(self)

    monkeypatch.setattr(rtnetlink.Queries, "addresses", addresses)
    if times < 3:
        assert home.call(from_netlink) == expected
        assert len(tries) == times + 1
    else:
        with pytest.raises(rtnetlink.Interrupted):
            home.call(from_netlink)


def test_an_interface_that_vanishes_between_two_questions(
    net: Network, home: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.link(home, net.namespace())
    home.ip("route", "add", "default", "via", "10.80.1.2")
    monkeypatch.setattr(rtnetlink.Queries, "link", lambda self, index: None)
    found = home.call(from_netlink)
    assert found.interfaces == set()
    assert found.routes == {Route(V4, "10.80.1.2", "", 0)}
