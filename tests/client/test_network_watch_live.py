"""The watch in a network that really changes: in a namespace, without any privilege."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.namespaces import End, Link, Namespace, Network, network
from tests.fixtures.server import environment

from hmac_file_server.client.network import Change, NetworkWatch

NEVER = 3600.0
Step = Callable[[], object]


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def phone(net: Network) -> Namespace:
    made = net.namespace("phone")
    # Addresses are not looked for among the neighbours first, which takes a second or two.
    made.sysctl("net.ipv6.conf.default.accept_dad", 0)
    return made


@pytest.fixture
def link(net: Network, phone: Namespace) -> Link:
    made = net.link(phone, net.namespace("peer"))

    def settled() -> bool:
        shown = phone.ip("addr", "show", "dev", made.first.device)
        return "state UP" in shown and "inet6 fe80" in shown and "tentative" not in shown

    wait_until(settled, "the link is up")
    return made


@pytest.fixture
def end(link: Link) -> End:
    return link.first


class Witness:
    """Collects what a watch tells, until it told enough."""

    def __init__(self, watch: NetworkWatch) -> None:
        self.watch = watch
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        watch.subscribe(self.changes.put_nowait)

    async def until(self, *, reachable: bool = False, vanished: str = "") -> None:
        """Wait for a change that has this; the kernel may tell of one cause in several steps."""
        while True:
            change = await self.changes.get()
            if (not reachable or change.reachable) and (not vanished or vanished in change.vanished):
                return


def inside(where: Namespace, test: Callable[[Witness], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def body() -> None:
        async with asyncio.timeout(20), NetworkWatch(**{"poll_interval": NEVER, **options}) as watch:
            await test(Witness(watch))

    where.call(asyncio.run, body())


def test_an_address_comes_and_goes(phone: Namespace, end: End) -> None:
    async def test(witness: Witness) -> None:
        assert witness.watch.listening
        end.add_address("198.51.100.7/24")
        await witness.until(reachable=True)
        assert "198.51.100.7" in witness.watch.addresses
        end.delete_address("198.51.100.7/24")
        await witness.until(vanished="198.51.100.7")
        assert "198.51.100.7" not in witness.watch.addresses

    inside(phone, test)


def test_an_interface_is_switched_off_and_on(phone: Namespace, end: End) -> None:
    async def test(witness: Witness) -> None:
        assert witness.watch.online
        end.down()
        await witness.until(vanished=end.address)
        assert not witness.watch.online
        end.up()
        await witness.until(reachable=True)
        while not witness.watch.online:
            await witness.until(reachable=True)

    inside(phone, test)


def test_the_cable_is_pulled_and_put_back(phone: Namespace, link: Link) -> None:
    async def test(witness: Witness) -> None:
        link.second.down()
        await witness.until(vanished=link.first.address)
        assert not witness.watch.online
        link.second.up()
        await witness.until(reachable=True)

    inside(phone, test)


@pytest.mark.parametrize(
    ("address", "gateway"), [("198.51.100.7/24", "198.51.100.1"), ("2001:db8::7/64", "2001:db8::1")]
)
def test_a_route_is_worth_an_attempt(phone: Namespace, end: End, address: str, gateway: str) -> None:
    async def test(witness: Witness) -> None:
        known = witness.watch.generation
        phone.ip("route", "add", "default", "via", gateway, "dev", end.device)
        known = await witness.watch.reachable(after=known)
        # Another one may lead there now.
        phone.ip("route", "del", "default", "via", gateway, "dev", end.device)
        await witness.watch.reachable(after=known)

    end.add_address(address)
    inside(phone, test)


def test_an_ipv6_address_counts_when_it_may_be_used(phone: Namespace, end: End) -> None:
    phone.sysctl(f"net.ipv6.conf.{end.device}.accept_dad", 1)

    async def test(witness: Witness) -> None:
        phone.ip("addr", "add", "2001:db8::7/64", "dev", end.device)
        while "2001:db8::7" not in witness.watch.addresses:
            await witness.until(reachable=True)
        assert "tentative" not in phone.ip("addr", "show", "dev", end.device)

    inside(phone, test)


def test_without_events_the_routes_are_looked_at(phone: Namespace, link: Link) -> None:
    from hmac_file_server.client.network import PickedAddresses

    def refused() -> Any:
        raise PermissionError(1, "Operation not permitted")

    async def test(witness: Witness) -> None:
        assert not witness.watch.online
        phone.ip("route", "add", "default", "via", link.second.address)
        await witness.until(reachable=True)
        assert witness.watch.online
        link.first.delete_address(f"{link.first.address}/24")
        await witness.until(vanished=link.first.address)

    inside(phone, test, events=refused, look=PickedAddresses(), poll_interval=0.01)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up privileges that it must have first")
def test_it_needs_no_privilege(phone: Namespace, end: End) -> None:
    program = (
        "import asyncio\n"
        "from hmac_file_server.client.network import NetworkWatch\n"
        "async def main():\n"
        f"    async with NetworkWatch(poll_interval={NEVER}) as watch:\n"
        "        print(watch.listening, watch.online, flush=True)\n"
        "        print(await watch.reachable(), flush=True)\n"
        "asyncio.run(main())\n"
    )
    # Without capabilities; the user stays, so that the files of a virtual environment can be read.
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-W", "error", "-c", program]
    child = phone.popen(command, stdout=subprocess.PIPE, env=environment())
    assert child.stdout is not None
    assert child.stdout.readline() == b"True True\n"
    end.add_address("198.51.100.7/24")
    assert child.stdout.readline() == b"1\n"
    assert child.wait(20) == 0
