"""Messages of rtnetlink, the kernel's own account of interfaces, addresses and routes (RFC 3549, rtnetlink(7)).

Only what a snapshot needs is read. The numbers are those of <linux/netlink.h>, <linux/rtnetlink.h>,
<linux/if_addr.h> and <linux/if_link.h>, in the machine's byte order.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple, Self

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_NUMBER: Final = struct.Struct("=i")
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, to, from, tos, table, protocol, scope, type, flags
_HOP: Final = struct.Struct("=HBBi")  # length, flags, hops, index

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 0x1
_NLM_F_DUMP_INTR: Final = 0x10
_NLM_F_DUMP: Final = 0x300
_SOL_NETLINK: Final = 270
_NETLINK_GET_STRICT_CHK: Final = 12

_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22
_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_RTM_GETROUTE: Final = 26

_IFLA_IFNAME: Final = 3
_IFLA_EXT_MASK: Final = 29
_RTEXT_FILTER_SKIP_STATS: Final = 8
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_MULTIPATH: Final = 9
_RTA_VIA: Final = 18
_RTN_UNICAST: Final = 1
_RTM_F_CLONED: Final = 0x200
_UP_AND_RUNNING: Final = 0x1 | 0x40

_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_EXT_MASK: Final = _ATTRIBUTE.pack(8, _IFLA_EXT_MASK) + _NUMBER.pack(_RTEXT_FILTER_SKIP_STATS)
_BUFFER: Final = 1 << 16
# Answers are made while they are read: a router's table is given up rather than read to its end.
_ROUTES_MAX: Final = 2048
_PATIENCE: Final = 1.0

GROUPS: Final = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""Multicast groups: links, IPv4 and IPv6 addresses, IPv4 and IPv6 routes (RTMGRP_*)."""


class LinkState(NamedTuple):
    """An interface. `running`: switched on and, where it has a carrier at all, with one (RFC 2863 "up")."""

    name: str
    running: bool


class AddressState(NamedTuple):
    """An address of this machine, and the number of the interface it is on. Scope 0 is global."""

    text: str
    scope: int
    interface: int


class Hop(NamedTuple):
    """One next hop of a default route; `gateway` is empty where the link itself leads there."""

    gateway: str
    metric: int
    interface: int


class Interrupted(OSError):  # noqa: N818 - says what happened
    """The network changed while it was read, so that the account of it is not consistent: ask again."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "the network changed while it was read")


class Queries:
    """A socket for questions to the kernel. An answer takes some ten microseconds and waits for nothing.

    After an error a socket is to be closed: the rest of an answer may still be in it.
    """

    def __init__(self) -> None:
        """Raises OSError: PermissionError or EAFNOSUPPORT where netlink is not permitted."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0
        self._strict = False
        # Linux 4.20: filters in questions are heeded. Without it more is answered, and filtered here.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            self._strict = True
        self._socket.settimeout(_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def addresses(self) -> list[AddressState]:
        """Every address of this machine, whatever its interface's state. Raises OSError, Interrupted."""
        found: list[AddressState] = []
        for body in self._ask(_RTM_GETADDR, _NLM_F_DUMP, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            if len(body) < _ADDRESS.size:
                continue
            family, _, _, scope, index = _ADDRESS.unpack_from(body)
            if family not in _FAMILIES:
                continue
            attributes = _attributes(body, _ADDRESS.size)
            # On a point-to-point link IFA_ADDRESS is the other end.
            own = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            text = "" if own is None else _text(family, own)
            if text:
                found.append(AddressState(text, scope, index))
        return found

    def link(self, index: int) -> LinkState | None:
        """One interface; None when it is gone. Raises OSError."""
        question = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _EXT_MASK
        try:
            answer = next(self._ask(_RTM_GETLINK, 0, question))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        if len(answer) < _LINK.size:
            return None
        _, _, _, flags, _ = _LINK.unpack_from(answer)
        name = _attributes(answer, _LINK.size).get(_IFLA_IFNAME, b"").rstrip(b"\0")
        return LinkState(os.fsdecode(name), flags & _UP_AND_RUNNING == _UP_AND_RUNNING)

    def default_routes(self, family: int) -> list[Hop]:
        """The default routes of a family, in all tables; none where there are thousands of routes.

        The last question on a socket: the rest of a long answer stays unread. Raises OSError, Interrupted.
        """
        kind = _RTN_UNICAST if self._strict else 0
        found: list[Hop] = []
        answers = self._ask(_RTM_GETROUTE, _NLM_F_DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, kind, 0))
        for count, body in enumerate(answers):
            if count == _ROUTES_MAX:
                return []
            # Nearly all are of no interest, and this must be quick.
            if len(body) < _ROUTE.size or body[1] or body[7] != _RTN_UNICAST or body[0] != family:
                continue
            if not _ROUTE.unpack_from(body)[8] & _RTM_F_CLONED:
                found += _hops(family, _attributes(body, _ROUTE.size))
        return found

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for got, got_flags, sequence, answer in messages(self._socket.recv(_BUFFER)):
                if sequence != self._sequence:
                    continue
                if got in {_NLMSG_ERROR, _NLMSG_DONE}:
                    code = -_NUMBER.unpack_from(answer)[0] if len(answer) >= _NUMBER.size else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                if got_flags & _NLM_F_DUMP_INTR:
                    raise Interrupted
                if got == _NLMSG_DONE:
                    return
                yield answer


def events() -> socket.socket:
    """A socket that hears of every change of links, addresses and routes; non-blocking. Raises OSError as Queries."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    try:
        sock.bind((0, GROUPS))
    except BaseException:
        sock.close()
        raise
    return sock


def tells_of_change(data: bytes) -> bool:
    """Whether events may mean that a snapshot looks different now: of routes, only default ones do."""
    for kind, _, _, body in messages(data):
        if kind not in {_RTM_NEWROUTE, _RTM_DELROUTE} or len(body) < 2 or not body[1]:
            return True
    return False


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in one datagram: type, flags, sequence number, body. What is cut off is left out."""
    at = 0
    end = len(data) - _HEADER.size
    unpack = _HEADER.unpack_from
    while at <= end:
        length, kind, flags, sequence, _ = unpack(data, at)
        if length < 16 or at + length > len(data):
            return
        yield kind, flags, sequence, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    """The attributes that follow in a body from `at`, by type."""
    found: dict[int, bytes] = {}
    end = len(body) - _ATTRIBUTE.size
    unpack = _ATTRIBUTE.unpack_from
    while at <= end:
        length, kind = unpack(body, at)
        if length < 4 or at + length > len(body):
            break
        # The two upper bits are flags (nested, byte order).
        found[kind & 0x3FFF] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _hops(family: int, attributes: dict[int, bytes]) -> list[Hop]:
    metric = _number(attributes.get(_RTA_PRIORITY))
    several = attributes.get(_RTA_MULTIPATH)
    if several is None:
        return [Hop(_gateway(family, attributes), metric, _number(attributes.get(_RTA_OIF)))]
    found: list[Hop] = []
    at = 0
    while at + _HOP.size <= len(several):
        length, _, _, index = _HOP.unpack_from(several, at)
        if length < _HOP.size or at + length > len(several):
            break
        own = _attributes(several[: at + length], at + _HOP.size)
        found.append(Hop(_gateway(family, own), metric, index))
        at += (length + 3) & ~3
    return found


def _gateway(family: int, attributes: dict[int, bytes]) -> str:
    via = attributes.get(_RTA_VIA)
    if via is not None and len(via) > 2:
        # IPv4 by way of an IPv6 neighbour (RFC 8950).
        return _text(int.from_bytes(via[:2], sys.byteorder), via[2:])
    gateway = attributes.get(_RTA_GATEWAY)
    return "" if gateway is None else _text(family, gateway)


def _text(family: int, address: bytes) -> str:
    """An address as text; empty when it is none of that family."""
    try:
        return socket.inet_ntop(family, address)
    except (ValueError, OSError):
        return ""


def _number(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value[:4], sys.byteorder)
