"""The watch of the network: what its events mean, and what it does when it can hear or see nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.client.network import Address, Change, NetworkWatch, PickedAddresses, read_events

HOME = Address("127.0.0.1", outside=False)
WIFI = Address("192.0.2.7", outside=True)
MOBILE = Address("198.51.100.7", outside=True)
NEVER = 3600.0


def message(kind: int, body: bytes) -> bytes:
    padded = body + bytes(-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + padded


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def address(text: str, *, flags: int = 0, long_flags: int | None = None) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    body = struct.pack("=BBBBI", family, 24, flags, 0, 2) + attribute(2, socket.inet_pton(family, text))
    return body if long_flags is None else body + attribute(8, struct.pack("=I", long_flags))


def route(*, what: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, what, flags)


LINK = message(16, struct.pack("=BxHiII", 0, 1, 2, 0x41, 0))


class World:
    """A network that a test changes: its addresses, and the far end of the socket of events."""

    def __init__(self, *addresses: Address) -> None:
        self.now: frozenset[Address] | OSError = frozenset(addresses)
        self.far, self._near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._near.setblocking(False)
        self.looks = 0

    def events(self) -> socket.socket:
        return self._near

    def look(self) -> frozenset[Address]:
        self.looks += 1
        if isinstance(self.now, OSError):
            raise self.now
        return self.now

    def close(self) -> None:
        self.far.close()
        self._near.close()


def refused() -> socket.socket:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def run(test: Callable[[World, NetworkWatch], Coroutine[None, None, None]], *, poll: float = NEVER) -> None:
    async def body() -> None:
        world = World(HOME, WIFI)
        try:
            async with NetworkWatch(poll_interval=poll, events=world.events, look=world.look) as watch:
                async with asyncio.timeout(10):
                    await test(world, watch)
        finally:
            world.close()

    asyncio.run(body())


def gather(watch: NetworkWatch) -> asyncio.Queue[Change]:
    found: asyncio.Queue[Change] = asyncio.Queue()
    watch.subscribe(found.put_nowait)
    return found


def test_what_is_there_at_the_start_is_no_change() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        assert watch.listening
        assert watch.online
        assert watch.addresses == {HOME.text, WIFI.text}
        assert watch.generation == 0

    run(test)


def test_a_new_address_wakes_who_waits() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        changes = gather(watch)
        waiting = asyncio.create_task(watch.reachable())
        await asyncio.sleep(0)
        world.now = frozenset({HOME, WIFI, MOBILE})
        world.far.send(message(20, address(MOBILE.text)))
        assert await waiting == 1
        assert await changes.get() == Change(reachable=True, vanished=frozenset())
        # Who knows of an older state need not wait.
        assert await watch.reachable(after=0) == 1

    run(test)


def test_an_address_that_vanished_is_told_and_wakes_nobody() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        changes = gather(watch)
        world.now = frozenset({HOME})
        world.far.send(message(21, address(WIFI.text)))
        assert await changes.get() == Change(reachable=False, vanished=frozenset({WIFI.text}))
        assert watch.generation == 0
        assert not watch.online

    run(test)


def test_a_link_that_says_nothing_new_is_no_change() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        changes = gather(watch)
        for _ in range(5):
            world.far.send(LINK)
        world.far.send(message(24, route()))
        assert await changes.get() == Change(reachable=True, vanished=frozenset())
        assert changes.empty()
        assert watch.generation == 1

    run(test)


def test_a_burst_is_one_change() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        changes = gather(watch)
        world.now = frozenset({HOME, MOBILE})
        for _ in range(5):
            world.far.send(message(24, route()) + message(21, address(WIFI.text)) + message(20, address(MOBILE.text)))
        looks = world.looks
        assert await changes.get() == Change(reachable=True, vanished=frozenset({WIFI.text}))
        assert world.looks == looks + 1
        assert changes.empty()

    run(test)


def test_lost_events_count_as_a_change() -> None:
    """More events than the socket holds (ENOBUFS), which a socket pair does not know: its `recv` is ours."""

    class Full(socket.socket):
        lost = True

        def recv(self, size: int, flags: int = 0, /) -> bytes:
            data = super().recv(size, flags)
            if self.lost:
                raise OSError(errno.ENOBUFS, "No buffer space available")
            return data

    async def body() -> None:
        far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        full = Full(fileno=near.detach())
        full.setblocking(False)
        with far:
            async with NetworkWatch(poll_interval=NEVER, events=lambda: full, look=lambda: frozenset({WIFI})) as watch:
                far.send(LINK)
                assert await watch.reachable(after=0) == 1
                assert watch.listening
                full.lost = False
                far.send(message(24, route()))
                assert await watch.reachable(after=1) == 2
        assert full.fileno() == -1

    asyncio.run(body())


def test_a_socket_that_fails_is_given_up_and_looking_goes_on() -> None:
    class Broken(socket.socket):
        def recv(self, size: int, flags: int = 0, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    async def body() -> None:
        world = World(HOME)
        far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        broken = Broken(fileno=near.detach())
        with far:
            async with NetworkWatch(poll_interval=0.001, events=lambda: broken, look=world.look) as watch:
                far.send(LINK)
                assert await watch.reachable(after=0) == 1
                assert not watch.listening
                world.now = frozenset({HOME, WIFI})
                assert await watch.reachable(after=1) == 2
        world.close()

    asyncio.run(body())


def test_without_events_changes_are_looked_for() -> None:
    async def body() -> None:
        world = World(HOME)
        async with NetworkWatch(poll_interval=0.001, events=refused, look=world.look) as watch:
            assert not watch.listening
            changes = gather(watch)
            world.now = frozenset({HOME, WIFI})
            assert await changes.get() == Change(reachable=True, vanished=frozenset())
            world.now = OSError(errno.EAGAIN, "busy")
            looks = world.looks
            while world.looks < looks + 3:
                await asyncio.sleep(0)
            world.now = frozenset({HOME})
            assert await changes.get() == Change(reachable=False, vanished=frozenset({WIFI.text}))
            assert changes.empty()
        world.close()

    asyncio.run(body())


def test_a_look_that_fails_at_an_event_is_worth_an_attempt_all_the_same() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        world.now = OSError(errno.EAGAIN, "busy")
        world.far.send(message(24, route()))
        assert await watch.reachable(after=0) == 1
        assert watch.online

    run(test)


def test_the_end_wakes_who_waits_and_closes_everything() -> None:
    async def body() -> None:
        world = World(HOME)
        watch = NetworkWatch(poll_interval=NEVER, events=world.events, look=world.look)
        watch.start()
        watch.start()
        waiting = asyncio.create_task(watch.reachable())
        await asyncio.sleep(0)
        watch.stop()
        watch.stop()
        assert await waiting == 0
        assert await watch.reachable() == 0
        assert world.events().fileno() == -1
        world.close()

    asyncio.run(body())


def test_who_does_not_want_to_hear_any_more_does_not() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        heard: list[Change] = []
        end = watch.subscribe(heard.append)
        end()
        end()
        world.far.send(message(24, route()))
        await watch.reachable(after=0)
        assert heard == []

    run(test)


def test_who_stops_waiting_is_forgotten() -> None:
    async def test(world: World, watch: NetworkWatch) -> None:
        waiting = asyncio.create_task(watch.reachable())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        world.far.send(message(24, route()))
        assert await watch.reachable(after=0) == 1

    run(test)


# ---- what events mean


@pytest.mark.parametrize(
    ("data", "look", "hint"),
    [
        (LINK, True, False),
        (message(17, b""), True, False),
        (message(21, address("192.0.2.1")), True, False),
        (message(20, address("192.0.2.1")), True, True),
        (message(20, address("2001:db8::1", flags=0x40)), True, False),
        (message(20, address("2001:db8::1", flags=0x40, long_flags=0x40)), True, False),
        (message(20, address("2001:db8::1", flags=0x40, long_flags=0)), True, True),
        (message(20, address("2001:db8::1", flags=0x08)), True, False),
        (message(20, b""), True, False),
        (message(24, route()), True, True),
        (message(25, route()), True, True),
        (message(24, route(what=2)), False, False),
        (message(24, route(what=3)), False, False),
        (message(24, route(flags=0x200)), False, False),
        (message(24, b"\2"), False, False),
        (message(3, b""), False, False),
        (b"", False, False),
        (b"\xff" * 40, False, False),
        (message(24, route(what=2)) + message(24, route()), True, True),
    ],
)
def test_an_event(data: bytes, look: bool, hint: bool) -> None:
    assert read_events(data) == (look, hint)


@given(st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=60))), st.binary(max_size=40))
def test_any_datagram_is_survived(parts: list[tuple[int, bytes]], rest: bytes) -> None:
    data = b"".join(message(kind, body) for kind, body in parts)
    whole = read_events(data)
    assert read_events(data + rest)[0] >= whole[0]
    for cut in range(len(data)):
        read_events(data[:cut])


@given(st.binary())
def test_any_attributes_of_an_address_are_survived(rest: bytes) -> None:
    look, _ = read_events(message(20, address("192.0.2.1") + rest))
    assert look


# ---- without netlink


def test_addresses_that_routes_pick_can_be_bound() -> None:
    look = PickedAddresses()
    first = look()
    assert look() == first
    for found in first:
        assert found.outside
        family = socket.AF_INET6 if ":" in found.text else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((found.text, 0))


def test_an_address_that_is_picked_no_more_but_still_there_has_not_vanished() -> None:
    look = PickedAddresses()
    look._seen = {"127.0.0.1": socket.AF_INET, "192.0.2.77": socket.AF_INET}
    found = look()
    assert Address("127.0.0.1", outside=False) in found
    assert "192.0.2.77" not in {one.text for one in found}


def test_the_real_network_is_watched() -> None:
    async def body() -> None:
        async with NetworkWatch() as watch:
            assert watch.listening
            assert "127.0.0.1" in watch.addresses

    asyncio.run(body())
