"""What the machine's network looks like: interfaces, their addresses, and the way out.

Asked of the kernel by netlink; where that is not permitted (containers, seccomp), read from /proc.
"""

import array
import contextlib
import errno
import fcntl
import itertools
import os
import socket
import struct
import sys
from dataclasses import dataclass, field
from typing import Final

from hmac_file_server.network import rtnetlink

_GLOBAL: Final = 0
_TRIES: Final = 3
_REFUSED: Final = frozenset({errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOSYS})

# Of the calling thread, not of the process: network namespaces belong to threads.
_PROC: Final = "/proc/thread-self/net"
_SIOCGIFCONF: Final = 0x8912
_SIOCGIFFLAGS: Final = 0x8913
# A name, and a sockaddr_in in a union that is as large as its largest member (struct ifreq).
_IFREQ: Final = struct.Struct("16sHH4s16x" if struct.calcsize("P") == 8 else "16sHH4s8x")
_IFFLAGS: Final = struct.Struct("16sH22x")
_IFCONF: Final = struct.Struct("iP")
_UP_AND_RUNNING: Final = 0x1 | 0x40
_RTF_UP: Final = 0x1
_RTF_GATEWAY: Final = 0x2
_RTF_REJECT: Final = 0x200
_NOWHERE: Final = "0" * 32
_ROWS_MAX: Final = 2048


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """An interface in use: switched on, with a carrier, and with addresses that reach beyond its link."""

    name: str
    addresses: tuple[str, ...]
    """Its addresses of global scope, sorted, without prefix lengths."""


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """A default route, or one next hop of it. `gateway` is empty where the link itself leads there."""

    family: int
    gateway: str
    interface: str
    metric: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The network at one moment. Two are equal when nothing has changed that clients could notice.

    Not part of the comparison, because they come and go while everybody stays connected: interfaces without an
    address of global scope (a container host makes and removes these all day), the state and the lifetimes of
    IPv6 addresses, routes that are not default routes.
    """

    interfaces: frozenset[Interface]
    routes: frozenset[Route]
    addresses: frozenset[str] = field(compare=False)
    """Every address that the kernel takes for its own, also of loopback and of interfaces that are off.

    As socket.inet_ntop writes them: IPv6 without a zone, IPv4 never mapped.
    """

    def differences(self, old: "Snapshot") -> tuple[str, ...]:
        """What has changed since `old`, for people: "+eth0 192.0.2.7", "-default via 192.0.2.1 dev eth0"."""
        now, before = self._lines(), old._lines()
        return (*(f"-{line}" for line in sorted(before - now)), *(f"+{line}" for line in sorted(now - before)))

    def _lines(self) -> set[str]:
        lines = {f"{interface.name} {address}" for interface in self.interfaces for address in interface.addresses}
        for route in self.routes:
            via = f" via {route.gateway}" if route.gateway else ""
            lines.add(f"default{via} dev {route.interface} metric {route.metric}")
        return lines


def snapshot() -> Snapshot:
    """The network of the calling thread's namespace, now. Takes a fraction of a millisecond, and blocks on nothing.

    Raises OSError when it cannot be had just now (no descriptor left, the network changing all the time).
    """
    try:
        return from_netlink()
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    return from_proc()


def from_netlink() -> Snapshot:
    """A snapshot from rtnetlink. Raises OSError."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(rtnetlink.Interrupted):
            return _ask()
    return _ask()


def _ask() -> Snapshot:
    names: dict[int, str] = {}
    used: dict[int, set[str]] = {}
    everything: set[str] = set()
    with rtnetlink.Queries() as queries:
        for text, scope, index in queries.addresses():
            everything.add(text)
            if scope == _GLOBAL:
                used.setdefault(index, set()).add(text)
        # One by one: the hundreds of interfaces without such an address are never looked at.
        interfaces: set[Interface] = set()
        for index, texts in used.items():
            link = queries.link(index)
            if link is not None:
                names[index] = link.name
                if link.running:
                    interfaces.add(Interface(link.name, tuple(sorted(texts))))
        routes: set[Route] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            with rtnetlink.Queries() as own:
                hops = own.default_routes(family)
            for gateway, metric, index in hops:
                if index not in names:
                    other = queries.link(index)
                    names[index] = other.name if other is not None else ""
                routes.add(Route(family, gateway, names[index], metric))
    return Snapshot(frozenset(interfaces), frozenset(routes), frozenset(everything))


def from_proc() -> Snapshot:
    """A snapshot from /proc and ioctls, which know the main routing table only. Raises OSError."""
    used: dict[str, set[str]] = {}
    everything: set[str] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name, address in _ipv4(sock):
            everything.add(address)
            if not address.startswith(("127.", "169.254.")):
                used.setdefault(name, set()).add(address)
        for name, address, scope in _ipv6():
            everything.add(address)
            if scope == _GLOBAL:
                used.setdefault(name, set()).add(address)
        interfaces = {Interface(name, tuple(sorted(texts))) for name, texts in used.items() if _running(sock, name)}
    return Snapshot(frozenset(interfaces), frozenset([*_routes4(), *_routes6()]), frozenset(everything))


def _ipv4(sock: socket.socket) -> list[tuple[str, str]]:
    """Interface and address, of each IPv4 address (netdevice(7), SIOCGIFCONF)."""
    size = 4096
    while True:
        room = array.array("B", bytes(size))
        # It says how much it wrote, never how much there is: what fills the room may not be all.
        filled = fcntl.ioctl(sock, _SIOCGIFCONF, _IFCONF.pack(size, room.buffer_info()[0]))
        length = int(_IFCONF.unpack(filled)[0])
        if length + _IFREQ.size <= size:
            break
        size *= 2
    return [
        # "eth0:1" is a label, on eth0.
        (os.fsdecode(name.partition(b"\0")[0]).partition(":")[0], socket.inet_ntop(socket.AF_INET, address))
        for name, _, _, address in _IFREQ.iter_unpack(room[:length])
    ]


def _running(sock: socket.socket, name: str) -> bool:
    try:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFFLAGS.pack(os.fsencode(name), 0))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    flags = int(_IFFLAGS.unpack(answer)[1])
    return flags & _UP_AND_RUNNING == _UP_AND_RUNNING


def _ipv6() -> list[tuple[str, str, int]]:
    """Interface, address and scope of each IPv6 address (0 is global)."""
    return [
        (words[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0])), int(words[3], 16))
        for words in _table("if_inet6")
    ]


def _routes4() -> list[Route]:
    found: list[Route] = []
    # Sorted by destination: the default routes come first, however many there are.
    for words in _table("route"):
        interface, to, gateway, flags, metric, mask = (words[at] for at in (0, 1, 2, 3, 6, 7))
        if to == mask == "00000000" and _is_used(int(flags, 16)):
            via = int(gateway, 16).to_bytes(4, sys.byteorder)
            text = socket.inet_ntop(socket.AF_INET, via) if int(flags, 16) & _RTF_GATEWAY else ""
            found.append(Route(socket.AF_INET, text, interface, int(metric)))
    return found


def _routes6() -> list[Route]:
    found: list[Route] = []
    for words in _table("ipv6_route"):
        to, length, gateway, metric, flags, interface = (words[at] for at in (0, 1, 4, 5, 8, 9))
        if to == _NOWHERE and length == "00" and _is_used(int(flags, 16)):
            text = "" if gateway == _NOWHERE else socket.inet_ntop(socket.AF_INET6, bytes.fromhex(gateway))
            found.append(Route(socket.AF_INET6, text, interface, int(metric, 16)))
    return found


def _is_used(flags: int) -> bool:
    return flags & (_RTF_UP | _RTF_REJECT) == _RTF_UP


def _table(name: str) -> list[list[str]]:
    """The first lines of a table in /proc, in words, without a head line; none where it is missing."""
    try:
        with open(f"{_PROC}/{name}", encoding="utf-8", errors="surrogateescape") as table:
            rows = [line.split() for line in itertools.islice(table, _ROWS_MAX)]
    except FileNotFoundError:
        return []
    return [words for words in rows if words and words[0] != "Iface"]
