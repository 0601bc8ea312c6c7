"""The monitor in a network that really changes: a child process in a namespace, which reports on a pipe."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.namespaces import End, Link, Namespace, Network
from tests.fixtures.server import environment

WATCHER = Path(__file__).parent / "watcher.py"
PATIENCE = 20.0
# A poll that no test lives to see: what is noticed was noticed by events.
NEVER = "3600"


class Watcher:
    """A monitor in a namespace."""

    def __init__(self, where: Namespace, *options: str) -> None:
        self.process = where.popen(
            [sys.executable, "-W", "error", str(WATCHER), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self._rest = b""

    def line(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """The next thing it says."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                assert selector.select(deadline - time.monotonic()), f"silent for {seconds:g} s"
                data = os.read(self._output, 65536)
                assert data, "the watcher has ended"
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        value = json.loads(line)
        assert isinstance(value, dict)
        return value

    def change(self) -> list[str]:
        """The next change, as differences."""
        changes = self.line()["changes"]
        assert isinstance(changes, list)
        return changes

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0
        # Nothing was said that no test asked for.
        assert self._rest == b""
        assert os.read(self._output, 65536) == b""


Watch = Callable[..., Watcher]


@pytest.fixture
def home(net: Network) -> Namespace:
    made = net.namespace("home")
    # Addresses are not looked for among the neighbours first, which takes a second or two.
    made.sysctl("net.ipv6.conf.default.accept_dad", 0)
    return made


@pytest.fixture
def link(net: Network, home: Namespace) -> Link:
    """A link of `home` (its first end) to some other machine, in use from the beginning."""
    made = net.link(home, net.namespace("peer"))
    home.ip("route", "add", "default", "via", made.second.address)
    settle(made.first)
    return made


@pytest.fixture
def end(link: Link) -> End:
    return link.first


@pytest.fixture
def watch(home: Namespace) -> Iterator[Watch]:
    """Watchers in `home`, which have taken their first look; all must end well and say nothing more."""
    watchers: list[Watcher] = []

    def start(*options: str) -> Watcher:
        watcher = Watcher(home, *options)
        watchers.append(watcher)
        said = watcher.line()
        if "--deaf" in options:
            assert said == {"log": "network_watch_limited", "reason": "Operation not permitted"}
            said = watcher.line()
        assert "127.0.0.1" in said["ready"]
        return watcher

    yield start
    for watcher in watchers:
        watcher.end()


def settle(end: End) -> None:
    """Until the kernel has seen the carrier, and made up its mind about its link-local address."""

    def settled() -> bool:
        shown = end.namespace.ip("addr", "show", "dev", end.device)
        return "state UP" in shown and "scope link" in shown and "tentative" not in shown

    wait_until(settled, f"{end.device} is up")


def mark(home: Namespace, watcher: Watcher) -> None:
    """A change that is sure to be noticed: what came before it without being told is no change."""
    home.add_address("lo", "203.0.113.200/32")
    assert watcher.change() == ["+lo 203.0.113.200"]
    home.delete_address("lo", "203.0.113.200/32")
    assert watcher.change() == ["-lo 203.0.113.200"]


def default(link: Link) -> str:
    return f"default via {link.second.address} dev {link.first.device} metric 0"


LOOPS = ["asyncio", "uvloop"]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return ["--uvloop"] if request.param == "uvloop" else []


def test_a_link_goes_down_and_comes_back(link: Link, end: End, watch: Watch, loop: list[str]) -> None:
    watcher = watch("--poll", NEVER, *loop)
    end.down()
    said = watcher.line()
    gone = list(said["changes"])
    # The kernel says in two steps that the route is lost and the interface is off: both may be seen as one.
    while len(gone) < 2:
        gone += watcher.change()
    assert sorted(gone) == [f"-{default(link)}", f"-{end.device} {end.address}"]
    # Its IPv4 address is still there: connections over it may live on when it comes back.
    assert end.address not in said["gone"]
    end.up()
    assert watcher.change() == [f"+{end.device} {end.address}"]
    end.namespace.ip("route", "add", "default", "via", link.second.address)
    assert watcher.change() == [f"+{default(link)}"]


def test_the_cable_is_pulled(link: Link, end: End, watch: Watch, home: Namespace) -> None:
    """The other end goes away: the interface is on, but has no carrier. Its route stays."""
    watcher = watch("--poll", NEVER)
    link.second.down()
    assert watcher.change() == [f"-{end.device} {end.address}"]
    link.second.up()
    assert watcher.change() == [f"+{end.device} {end.address}"]
    mark(home, watcher)


def test_addresses_come_and_go(end: End, watch: Watch, loop: list[str]) -> None:
    watcher = watch("--poll", NEVER, *loop)
    end.add_address("198.51.100.7/24")
    assert watcher.change() == [f"+{end.device} 198.51.100.7"]
    end.delete_address("198.51.100.7/24")
    said = watcher.line()
    assert said["changes"] == [f"-{end.device} 198.51.100.7"]
    assert said["gone"] == ["198.51.100.7"]


def test_an_ipv6_address(end: End, watch: Watch) -> None:
    watcher = watch("--poll", NEVER)
    end.add_address("2001:db8::7/64")
    assert watcher.change() == [f"+{end.device} 2001:db8::7"]
    end.delete_address("2001:db8::7/64")
    assert watcher.line() == {"changes": [f"-{end.device} 2001:db8::7"], "gone": ["2001:db8::7"]}


def test_the_state_of_an_ipv6_address_is_no_change(end: End, watch: Watch, home: Namespace) -> None:
    home.sysctl(f"net.ipv6.conf.{end.device}.accept_dad", 1)
    watcher = watch("--poll", "0.1")
    home.ip("addr", "add", "2001:db8::7/64", "dev", end.device)
    assert watcher.change() == [f"+{end.device} 2001:db8::7"]
    wait_until(
        lambda: "tentative" not in home.ip("-6", "addr", "show", "dev", end.device), "the address is no duplicate"
    )
    for valid, preferred in (("2000", "1000"), ("2000", "0"), ("forever", "forever")):
        lifetimes = ["valid_lft", valid, "preferred_lft", preferred]
        home.ip("addr", "change", "2001:db8::7/64", "dev", end.device, *lifetimes)
        assert ("deprecated" in home.ip("-6", "addr", "show", "dev", end.device)) == (preferred == "0")
    mark(home, watcher)


def test_another_default_route(link: Link, end: End, watch: Watch, home: Namespace) -> None:
    watcher = watch("--poll", NEVER)
    home.ip("route", "replace", "default", "via", "10.80.1.77")
    assert watcher.change() == [f"-{default(link)}", f"+default via 10.80.1.77 dev {end.device} metric 0"]
    home.ip("route", "add", "default", "via", "10.80.1.78", "metric", "50")
    assert watcher.change() == [f"+default via 10.80.1.78 dev {end.device} metric 50"]
    home.ip("route", "del", "default", "via", "10.80.1.78", "metric", "50")
    assert watcher.change() == [f"-default via 10.80.1.78 dev {end.device} metric 50"]
    home.ip("route", "del", "default")
    assert watcher.change() == [f"-default via 10.80.1.77 dev {end.device} metric 0"]


def test_an_ipv6_default_route(end: End, watch: Watch, home: Namespace) -> None:
    watcher = watch("--poll", NEVER)
    home.ip("-6", "route", "add", "default", "via", "fe80::1", "dev", end.device)
    assert watcher.change() == [f"+default via fe80::1 dev {end.device} metric 1024"]
    home.ip("-6", "route", "del", "default")
    assert watcher.change() == [f"-default via fe80::1 dev {end.device} metric 1024"]


def test_what_a_container_host_does_all_day_is_no_change(watch: Watch, home: Namespace, link: Link) -> None:
    watcher = watch("--poll", "0.1")
    for number in range(10):
        home.veth(f"c{number}", f"d{number}")
        home.up(f"c{number}")
        home.up(f"d{number}")
        home.ip("addr", "add", f"169.254.9.{number}/32", "dev", f"c{number}", "scope", "link")
        home.ip("route", "add", f"10.99.{number}.0/24", "dev", f"c{number}")
    # All of them get link-local IPv6 addresses in a while, too.
    wait_until(lambda: home.ip("-6", "addr").count("inet6 fe80") >= 20, "link-local addresses")
    for number in range(10):
        home.ip("link", "del", f"c{number}")
    mark(home, watcher)


def test_another_network_is_another_matter(watch: Watch, home: Namespace, link: Link) -> None:
    """Events of the peer's namespace do not reach this one."""
    watcher = watch("--poll", "0.1")
    link.second.add_address("198.51.100.9/24")
    link.second.namespace.add_address("lo", "203.0.113.9/32")
    mark(home, watcher)


def test_flapping_is_told_flap_by_flap(end: End, watch: Watch) -> None:
    watcher = watch("--poll", NEVER)
    for _ in range(10):
        end.delete_address(f"{end.address}/24")
        lost = watcher.line()
        assert f"-{end.device} {end.address}" in lost["changes"]
        assert lost["gone"] == [end.address]
        end.add_address(f"{end.address}/24")
        while f"+{end.device} {end.address}" not in watcher.change():
            pass


def test_where_netlink_events_are_refused_the_poll_finds_the_change(end: End, watch: Watch, loop: list[str]) -> None:
    watcher = watch("--deaf", "--poll", "0.2", *loop)
    end.add_address("198.51.100.7/24")
    assert watcher.change() == [f"+{end.device} 198.51.100.7"]
    end.delete_address("198.51.100.7/24")
    assert watcher.line() == {"changes": [f"-{end.device} 198.51.100.7"], "gone": ["198.51.100.7"]}


def test_lost_events_are_made_up_for(end: End, watch: Watch) -> None:
    watcher = watch("--lossy", "--poll", NEVER)
    end.add_address("198.51.100.7/24")
    assert watcher.change() == [f"+{end.device} 198.51.100.7"]
    end.delete_address("198.51.100.7/24")
    assert watcher.line() == {"changes": [f"-{end.device} 198.51.100.7"], "gone": ["198.51.100.7"]}


def test_how_soon_a_change_is_noticed(end: End, watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = watch("--poll", NEVER)
    delays: list[float] = []
    for _ in range(20):
        for change in (end.add_address, end.delete_address):
            change("198.51.100.7/24")
            begun = time.perf_counter()
            assert watcher.change()
            delays.append(time.perf_counter() - begun)
            # The next one is not part of this burst.
            time.sleep(0.06)
    with capsys.disabled():
        middle = sorted(delays)[len(delays) // 2] * 1000
        print(f"\nchange of an address to report: median {middle:.1f} ms, worst {max(delays) * 1000:.1f} ms")
