"""Tells a client when its network changed, so that it need not wait out a pause between two attempts.

On Linux by rtnetlink (rtnetlink(7), RFC 3549), which tells within a millisecond and needs no privilege; elsewhere, and
where that is refused, by looking at the addresses which the routing table picks.
"""

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self

POLL_INTERVAL: Final = 1.0
"""Seconds between two looks where nobody tells of changes."""

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, to, from, tos, table, protocol, scope, type, flags
_NUMBER: Final = struct.Struct("=I")

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 0x1
_NLM_F_DUMP_INTR: Final = 0x10
_NLM_F_DUMP: Final = 0x300
_RTM_NEWLINK: Final = 16
_RTM_DELLINK: Final = 17
_RTM_GETLINK: Final = 18
_RTM_NEWADDR: Final = 20
_RTM_DELADDR: Final = 21
_RTM_GETADDR: Final = 22
_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE."""
_IFLA_EXT_MASK: Final = 29
_RTEXT_FILTER_SKIP_STATS: Final = 8
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_FLAGS: Final = 8
# Duplicate address detection has failed, or is not over: nothing can be sent from this address.
_UNUSABLE: Final = 0x08 | 0x40
_UP_AND_RUNNING: Final = 0x1 | 0x40
_RTN_UNICAST: Final = 1
_RTM_F_CLONED: Final = 0x200
_SCOPE_HOST: Final = 254
_SCOPE_LINK: Final = 253
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_BUFFER: Final = 1 << 16
# Datagrams read in one go, before others on the event loop have their turn.
_READS: Final = 64
_PATIENCE: Final = 1.0
_TRIES: Final = 5
# Nothing is ever sent there: networks for documentation (RFC 5737, RFC 3849).
_SOMEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


@dataclass(frozen=True, slots=True)
class Change:
    """What changed.

    reachable   something may be reachable now that was not: a new address, link or route, or another route
    vanished    addresses of this machine from which nothing can be sent any more; their connections are dead
    """

    reachable: bool
    vanished: frozenset[str]


class Address(NamedTuple):
    """An address that can be sent from. `outside`: not only on this machine or this link."""

    text: str
    outside: bool


Look = Callable[[], frozenset[Address]]
"""The addresses of now; raises OSError."""


class NetworkWatch:
    """Watches the network of this process, on the running event loop. An async context manager.

    `subscribe` tells of every `Change`; `reachable` waits for the next one that may have made something reachable. All
    events of one turn of the loop are one change. `online` says whether there is any address to the outside.
    """

    def __init__(
        self,
        *,
        poll_interval: float = POLL_INTERVAL,
        events: Callable[[], socket.socket] | None = None,
        look: Look | None = None,
    ) -> None:
        """`poll_interval` in seconds; `events` opens the socket of events, and may raise OSError."""
        linux = sys.platform == "linux"
        self._poll_interval = poll_interval
        self._open_events = events or (_events if linux else _no_events)
        self._picked = PickedAddresses()
        self._look = look or (_addresses if linux else self._picked)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: socket.socket | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._hinted = False
        self._known: frozenset[Address] = frozenset()
        self._listeners: dict[object, Callable[[Change], None]] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self.generation = 0
        """How often something may have become reachable since the start."""

    # ---- its life

    def start(self) -> None:
        """Watch from now on, on the running loop. Does not fail: without events it looks. Idempotent."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        # In this order nothing can happen in between unnoticed.
        try:
            self._events = self._open_events()
        except OSError:
            self._poll = self._loop.call_later(self._poll_interval, self._poll_now)
        else:
            self._loop.add_reader(self._events.fileno(), self._readable)
        with contextlib.suppress(OSError):
            self._known = self._take()

    def stop(self) -> None:
        """Watch no more; whoever waits is woken. Idempotent, to be called before the loop is closed."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        self._deaf(loop)
        for handle in (self._poll, self._soon):
            if handle is not None:
                handle.cancel()
        self._poll = self._soon = None
        self._wake()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- what it tells

    @property
    def listening(self) -> bool:
        """Whether the kernel tells of changes; otherwise they are looked for every `poll_interval`."""
        return self._events is not None

    @property
    def online(self) -> bool:
        """Whether this machine has any address from which others could be reached."""
        return any(address.outside for address in self._known)

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses that can be sent from; elsewhere than on Linux only those that routes pick."""
        return frozenset(address.text for address in self._known)

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` with every change, on the loop; it must not raise. Returns what ends this."""
        key = object()
        self._listeners[key] = listener

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    async def reachable(self, after: int | None = None) -> int:
        """Wait until something may have become reachable. Returns the new `generation`, or that of the end of watching.

        `after` is a generation that is known: had another one come meanwhile, this returns at once.
        """
        since = self.generation if after is None else after
        while self.generation <= since and self._loop is not None:
            woken = self._loop.create_future()
            self._waiting.add(woken)
            try:
                await woken
            finally:
                self._waiting.discard(woken)
        return self.generation

    # ---- events

    def _readable(self) -> None:
        loop = self._loop
        for _ in range(_READS):
            if self._events is None or loop is None:
                return
            try:
                data = self._events.recv(_BUFFER)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # ENOBUFS: some were lost, nobody knows which.
                self._hinted = True
                self._look_soon()
                if error.errno != errno.ENOBUFS:
                    self._deaf(loop)
                    self._poll = loop.call_later(self._poll_interval, self._poll_now)
                    return
            else:
                told, hinted = read_events(data)
                self._hinted = self._hinted or hinted
                if told:
                    self._look_soon()

    def _deaf(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._events is not None:
            loop.remove_reader(self._events.fileno())
            self._events.close()
            self._events = None

    def _look_soon(self) -> None:
        if self._soon is None and self._loop is not None:
            self._soon = self._loop.call_soon(self._look_now)

    def _look_now(self) -> None:
        self._soon = None
        hinted, self._hinted = self._hinted, False
        old = self._known
        try:
            new = self._take()
        except OSError:
            # Until a look succeeds the network is taken to be as it was; an attempt costs little.
            new = old
        self._known = new
        vanished = frozenset(address.text for address in old) - frozenset(address.text for address in new)
        change = Change(hinted or bool(new - old), vanished)
        if not change.reachable and not change.vanished:
            return
        if change.reachable:
            self.generation += 1
        for listener in tuple(self._listeners.values()):
            listener(change)
        if change.reachable:
            self._wake()

    def _poll_now(self) -> None:
        if self._loop is None:
            return
        self._poll = self._loop.call_later(self._poll_interval, self._poll_now)
        self._look_now()

    def _take(self) -> frozenset[Address]:
        try:
            return self._look()
        except OSError:
            if self._look is not _addresses:
                raise
            return self._picked()

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)


def read_events(data: bytes) -> tuple[bool, bool]:
    """What a datagram of rtnetlink tells: whether to look, and whether something may have become reachable.

    Of links and addresses only a look tells what a change means: a link is told of again and again while nothing of
    it changes. A route is the change itself, whether it comes or goes: then another one may lead there.
    """
    look = hint = False
    for kind, _, _, body in _messages(data):
        if kind in {_RTM_NEWLINK, _RTM_DELLINK, _RTM_DELADDR}:
            look = True
        elif kind == _RTM_NEWADDR:
            look = True
            hint = hint or _usable_address(body) is not None
        elif kind in {_RTM_NEWROUTE, _RTM_DELROUTE} and len(body) >= _ROUTE.size:
            _, _, _, _, _, _, _, what, flags = _ROUTE.unpack_from(body)
            # Not what the kernel keeps of single neighbours, broadcasts and its own addresses.
            if what == _RTN_UNICAST and not flags & _RTM_F_CLONED:
                look = hint = True
    return look, hint


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in one datagram: type, flags, sequence number, body. What is cut off is left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size or at + length > len(body):
            break
        # The two upper bits are flags (nested, byte order).
        found[kind & 0x3FFF] = body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _usable_address(body: bytes) -> tuple[int, Address] | None:
    """The interface and the address that a message is about; None for one that nothing can be sent from (yet)."""
    if len(body) < _ADDRESS.size:
        return None
    family, _, flags, scope, index = _ADDRESS.unpack_from(body)
    attributes = _attributes(body, _ADDRESS.size)
    # All 32 flags; the header has room for eight of them.
    if len(longer := attributes.get(_IFA_FLAGS, b"")) >= _NUMBER.size:
        (flags,) = _NUMBER.unpack_from(longer)
    # On a point-to-point link IFA_ADDRESS is the other end.
    own = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if family not in _FAMILIES or flags & _UNUSABLE or own is None:
        return None
    try:
        text = socket.inet_ntop(family, own)
    except (ValueError, OSError):
        return None
    return index, Address(text, scope < _SCOPE_LINK)


def _events() -> socket.socket:
    """A socket that hears of every change of links, addresses and routes; non-blocking. Raises OSError."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    try:
        sock.bind((0, _GROUPS))
    except BaseException:
        sock.close()
        raise
    return sock


def _no_events() -> socket.socket:
    raise OSError(errno.EAFNOSUPPORT, "changes are not told here")


def _addresses() -> frozenset[Address]:
    """The addresses of all interfaces that are up and have a carrier. Some ten microseconds; raises OSError."""
    skip = _ATTRIBUTE.pack(8, _IFLA_EXT_MASK) + _NUMBER.pack(_RTEXT_FILTER_SKIP_STATS)
    for _ in range(_TRIES):
        with _questions() as kernel:
            try:
                links = {
                    index
                    for body in _ask(kernel, 1, _RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + skip)
                    if len(body) >= _LINK.size
                    for _, _, index, flags, _ in [_LINK.unpack_from(body)]
                    if flags & _UP_AND_RUNNING == _UP_AND_RUNNING
                }
                found = [
                    _usable_address(body)
                    for body in _ask(kernel, 2, _RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
                ]
            except InterruptedError:
                continue
            return frozenset(told[1] for told in found if told is not None and told[0] in links)
    raise OSError(errno.EAGAIN, "the network does not stand still")


def _questions() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.settimeout(_PATIENCE)
    return sock


def _ask(kernel: socket.socket, sequence: int, kind: int, body: bytes) -> Iterator[bytes]:
    """The answers to one question for a list. Raises OSError; InterruptedError when it changed while it was read."""
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    kernel.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body)
    while True:
        for got, got_flags, answered, answer in _messages(kernel.recv(_BUFFER)):
            if answered != sequence:
                continue
            if got == _NLMSG_ERROR:
                raise OSError(errno.EIO, "the kernel does not tell of the network")
            if got_flags & _NLM_F_DUMP_INTR:
                raise InterruptedError(errno.EINTR, "the network changed while it was read")
            if got == _NLMSG_DONE:
                return
            if len(answer) >= _ADDRESS.size:
                yield answer


class PickedAddresses:
    """The addresses from which the routing table sends to the outside. No packet is sent; looking never raises.

    One that is not picked any more, but is still there, is told of as leading nowhere: its connections may live.
    """

    def __init__(self) -> None:
        self._seen: dict[str, socket.AddressFamily] = {}

    def __call__(self) -> frozenset[Address]:
        """Look."""
        picked: dict[str, socket.AddressFamily] = {}
        for family, somewhere in _SOMEWHERE:
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                picked[probe.getsockname()[0]] = family
        left = {text: family for text, family in self._seen.items() if text not in picked and _bindable(family, text)}
        self._seen = {**left, **picked}
        return frozenset(Address(text, text in picked) for text in self._seen)


def _bindable(family: socket.AddressFamily, text: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((text, 0))
    except OSError:
        return False
    return True
