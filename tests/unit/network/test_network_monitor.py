"""The monitor: which events make it look, what it tells, and what it does when it can hear or see nothing."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from hmac_file_server.network import Interface, Monitor, Route, Snapshot

POLL = 5.0


def seen(*addresses: str, gateway: str = "192.0.2.1") -> Snapshot:
    interfaces = frozenset({Interface("eth0", addresses)} if addresses else ())
    routes = frozenset({Route(socket.AF_INET, gateway, "eth0", 0)} if gateway else ())
    return Snapshot(interfaces, routes, frozenset({"127.0.0.1", *addresses}))


def event(kind: int, to: int = 0) -> bytes:
    """A netlink event; 16 and 17 are of links, 20 and 21 of addresses, 24 and 25 of routes."""
    return struct.pack("=IHHII", 28, kind, 0, 0, 0) + bytes([2, to]) + bytes(10)


LINK, ADDRESS, DEFAULT_ROUTE, OTHER_ROUTE = event(16), event(20), event(24), event(24, to=24)


@dataclass(order=True)
class Call:
    due: float
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Call] = []
        self.readers: dict[int, Callable[[], None]] = {}

    def call_later(self, delay: float, callback: Callable[[], None]) -> Call:
        self.calls.append(Call(self.now + delay, callback))
        return self.calls[-1]

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        assert fd not in self.readers
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = sorted(call for call in self.calls if not call.cancelled and call.due <= end)
            if not due:
                break
            self.calls.remove(due[0])
            self.now = due[0].due
            due[0].callback()
        self.now = end

    def timers(self) -> int:
        return sum(not call.cancelled for call in self.calls)


class Events:
    """A netlink socket: what is put into `queue` is read, or raised."""

    numbers = iter(range(1000, 9999))

    def __init__(self) -> None:
        self.queue: list[bytes | OSError] = []
        self.number = next(self.numbers)
        self.closed = False

    def fileno(self) -> int:
        assert not self.closed
        return self.number

    def recv(self, size: int) -> bytes:
        assert size >= 1 << 15
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "nothing")
        found = self.queue.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    def close(self) -> None:
        self.closed = True


class World:
    """A monitor with everything around it."""

    def __init__(self, poll_interval: float = POLL) -> None:
        self.loop = Loop()
        self.network: Snapshot | OSError = seen("192.0.2.7")
        self.refused: OSError | None = None
        self.sockets: list[Events] = []
        self.looks: list[float] = []
        self.changes: list[tuple[Snapshot, Snapshot]] = []
        self.logged: list[tuple[str, object]] = []
        self.monitor = Monitor(
            cast("asyncio.AbstractEventLoop", self.loop),
            lambda old, new: self.changes.append((old, new)),
            poll_interval,
            take=self.take,
            events=self.open,
            monotonic=lambda: self.loop.now,
            log=self.log,
        )

    def log(self, name: str, /, **fields: object) -> None:
        self.logged.append((name, fields["reason"]))

    def take(self) -> Snapshot:
        self.looks.append(self.loop.now)
        if isinstance(self.network, OSError):
            raise self.network
        return self.network

    def open(self) -> socket.socket:
        if self.refused is not None:
            raise self.refused
        self.sockets.append(Events())
        return cast("socket.socket", self.sockets[-1])

    def happen(self, *events: bytes | OSError) -> None:
        """The socket becomes readable."""
        self.sockets[-1].queue += events
        self.loop.readers[self.sockets[-1].fileno()]()


@pytest.fixture
def world() -> World:
    made = World()
    made.monitor.start()
    return made


def test_the_beginning_is_no_change(world: World) -> None:
    assert world.monitor.current == seen("192.0.2.7")
    assert world.monitor.listening
    assert world.changes == []
    assert world.logged == []


def test_it_listens_before_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a change between the two would stay unknown until the next poll."""
    order: list[str] = []
    world = World()

    def listen() -> socket.socket:
        order.append("listen")
        return world.open()

    def look() -> Snapshot:
        order.append("look")
        return world.take()

    monkeypatch.setattr(world.monitor, "_open_events", listen)
    monkeypatch.setattr(world.monitor, "_take", look)
    world.monitor.start()
    assert order == ["listen", "look"]


@pytest.mark.parametrize("what", [LINK, ADDRESS, DEFAULT_ROUTE, event(17), event(21), event(25)])
def test_an_event_is_looked_into_at_once(world: World, what: bytes) -> None:
    world.loop.sleep(1)
    world.network = seen("198.51.100.7")
    world.happen(what)
    assert world.changes == [(seen("192.0.2.7"), seen("198.51.100.7"))]
    assert world.monitor.current == seen("198.51.100.7")


def test_an_event_that_changes_nothing_is_not_told(world: World) -> None:
    world.loop.sleep(1)
    world.happen(LINK)
    assert len(world.looks) == 2
    # The addresses of interfaces that do not count may come and go.
    assert isinstance(world.network, Snapshot)
    world.network = Snapshot(world.network.interfaces, world.network.routes, frozenset({"fe80::1"}))
    world.loop.sleep(1)
    world.happen(ADDRESS)
    assert len(world.looks) == 3
    assert world.changes == []
    # But they are known.
    assert world.monitor.current is not None
    assert world.monitor.current.addresses == {"fe80::1"}


def test_routes_that_are_not_default_routes_are_not_even_looked_at(world: World) -> None:
    world.loop.sleep(1)
    world.happen(OTHER_ROUTE, OTHER_ROUTE)
    assert len(world.looks) == 1


def test_a_burst_is_one_look(world: World) -> None:
    world.loop.sleep(1)
    world.happen(*[LINK, ADDRESS, OTHER_ROUTE] * 15)
    assert world.looks == [0, 1]


def test_a_storm_is_looked_into_twenty_times_a_second(world: World) -> None:
    for turn in range(1000):
        world.network = seen(f"192.0.2.{turn % 250}")
        world.happen(LINK)
        world.loop.sleep(0.001)
    assert 18 <= len(world.looks) <= 22
    # And what came last is seen.
    world.loop.sleep(0.1)
    assert world.monitor.current == seen("192.0.2.249")
    assert world.changes[-1][1] == seen("192.0.2.249")
    assert all(old != new for old, new in world.changes)
    assert all(first[1] == second[0] for first, second in zip(world.changes, world.changes[1:], strict=False))


def test_more_events_than_one_turn_takes_are_read_in_the_next(world: World) -> None:
    world.loop.sleep(1)
    world.happen(*[OTHER_ROUTE] * 200)
    assert len(world.sockets[0].queue) > 100
    for _ in range(5):
        world.happen()
    assert world.sockets[0].queue == []


def test_lost_events_make_it_look(world: World) -> None:
    world.loop.sleep(1)
    world.network = seen("198.51.100.7")
    world.happen(OSError(errno.ENOBUFS, "No buffer space available"))
    assert len(world.changes) == 1
    assert world.monitor.listening
    # It hears what comes after.
    world.loop.sleep(1)
    world.network = seen()
    world.happen(LINK)
    assert len(world.changes) == 2
    assert world.logged == []


def test_a_broken_socket_is_replaced_at_the_next_poll(world: World) -> None:
    world.loop.sleep(1)
    world.network = seen("198.51.100.7")
    world.happen(OSError(errno.EIO, "Input/output error"))
    assert len(world.changes) == 1
    assert world.sockets[0].closed
    assert world.loop.readers == {}
    assert not world.monitor.listening
    assert world.logged == [("network_watch_limited", "Input/output error")]
    world.loop.sleep(POLL)
    assert world.monitor.listening
    world.network = seen()
    world.happen(LINK)
    assert len(world.changes) == 2


def test_it_looks_every_five_seconds_whatever_it_hears(world: World) -> None:
    world.loop.sleep(0.5)
    world.happen(LINK)
    world.loop.sleep(19.6)
    assert world.looks == [0, 0.5, 5, 10, 15, 20]
    world.network = seen("198.51.100.7")
    world.loop.sleep(5)
    assert len(world.changes) == 1


def test_where_events_are_not_permitted_looking_must_do() -> None:
    world = World()
    world.refused = PermissionError(errno.EPERM, "Operation not permitted")
    world.monitor.start()
    assert not world.monitor.listening
    world.loop.sleep(12)
    # Said once, not every five seconds.
    assert world.logged == [("network_watch_limited", "Operation not permitted")]
    world.network = seen("198.51.100.7")
    world.loop.sleep(POLL)
    assert world.changes == [(seen("192.0.2.7"), seen("198.51.100.7"))]
    # They are permitted now.
    world.refused = None
    world.loop.sleep(POLL)
    assert world.monitor.listening
    # And if they end again, that is said again.
    world.refused = PermissionError(errno.EPERM, "Operation not permitted")
    world.happen(OSError(errno.EIO, "Input/output error"))
    assert [reason for _, reason in world.logged] == ["Operation not permitted", "Input/output error"]


def test_a_network_that_cannot_be_looked_at_is_as_it_was(world: World) -> None:
    world.loop.sleep(1)
    world.network = OSError(errno.EMFILE, "Too many open files")
    world.happen(LINK)
    world.loop.sleep(20)
    assert world.changes == []
    assert world.monitor.current == seen("192.0.2.7")
    assert world.logged == [("network_unreadable", "Too many open files")]
    # It is tried every second, not only at the next poll.
    assert len(world.looks) > 20
    world.network = seen("198.51.100.7")
    world.loop.sleep(1)
    assert len(world.changes) == 1
    looks = len(world.looks)
    world.loop.sleep(POLL)
    assert len(world.looks) == looks + 1


def test_a_beginning_in_the_dark() -> None:
    world = World()
    world.network = OSError(errno.EMFILE, "Too many open files")
    world.monitor.start()
    assert world.monitor.current is None
    world.network = seen("192.0.2.7")
    world.loop.sleep(1)
    assert world.monitor.current == seen("192.0.2.7")
    # The first look that succeeds is a beginning, no change.
    assert world.changes == []


def test_without_an_interval_it_only_listens() -> None:
    world = World(poll_interval=0)
    world.monitor.start()
    world.loop.sleep(1000)
    assert world.looks == [0]
    world.network = seen()
    world.happen(LINK)
    assert len(world.changes) == 1


@pytest.mark.parametrize("pending", [False, True])
def test_stopping_leaves_nothing_behind(world: World, pending: bool) -> None:
    if pending:
        # Too soon after the first look: the next one waits for a timer.
        world.happen(LINK)
        assert len(world.looks) == 1
    world.monitor.stop()
    world.monitor.stop()
    assert world.loop.timers() == 0
    assert world.loop.readers == {}
    assert world.sockets[0].closed
    world.network = seen()
    world.loop.sleep(100)
    assert world.changes == []


def test_a_listener_that_stops_it() -> None:
    world = World()

    def stop(old: Snapshot, new: Snapshot) -> None:
        world.changes.append((old, new))
        world.monitor.stop()

    world.monitor._on_change = stop
    world.monitor.start()
    world.network = seen()
    world.loop.sleep(100)
    assert len(world.changes) == 1
    assert world.loop.timers() == 0


def test_a_listener_that_raises_ends_no_poll(world: World) -> None:
    def fail(old: Snapshot, new: Snapshot) -> None:
        raise RuntimeError("of the listener")

    world.monitor._on_change = fail
    world.network = seen()
    with pytest.raises(RuntimeError, match="of the listener"):
        world.loop.sleep(POLL)
    world.loop.sleep(2 * POLL)
    assert len(world.looks) == 4


def test_differences_for_people() -> None:
    old, new = seen("192.0.2.7"), seen("192.0.2.7", "2001:db8::7", gateway="192.0.2.254")
    assert new.differences(old) == (
        "-default via 192.0.2.1 dev eth0 metric 0",
        "+default via 192.0.2.254 dev eth0 metric 0",
        "+eth0 2001:db8::7",
    )
    assert seen(gateway="").differences(seen("192.0.2.7", gateway="")) == ("-eth0 192.0.2.7",)
    assert old.differences(old) == ()
