"""TCP sockets for uploads, and what the kernel knows of them.

Little unsent data lies in the kernel (TCP_NOTSENT_LOWAT), so that a cut loses little and numbers are true, while
nothing bounds what is in flight. How much the peer's kernel has acknowledged tells a path that is dead from one that
is slow: SIOCOUTQ counts what it has not (tcp(7)).
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
from itertools import zip_longest
from typing import Final

from hmac_file_server.client import multipath
from hmac_file_server.client.errors import ConnectionLost

UNSENT: Final = 128 * 1024
"""Bytes that may wait in the kernel without having been sent once."""
STAGGER: Final = 0.25
"""Seconds until the next address is tried beside the ones before (RFC 8305, section 8)."""

_IPPROTO_MPTCP: Final = 262
_TCP_NOTSENT_LOWAT: Final = {"linux": 25, "darwin": 0x201}
_SIOCOUTQ: Final = 0x5411
_TCP_INFO_LAST_ACK: Final = struct.Struct("=56xI")
_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 60_000))

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def resolved(host: str, port: int) -> list[Address]:
    """Addresses of a host, the families taken in turn, IPv6 or whatever the system prefers first. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses: list[Address] = [(family, address) for family, _, _, _, address in found]
    preferred = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for pair in zip_longest(preferred, others) for address in pair if address is not None]


async def connected(addresses: list[Address], *, mptcp: bool) -> socket.socket:
    """A non-blocking socket that is connected to one of the addresses (RFC 8305). Raises ConnectionLost."""
    attempts: set[asyncio.Task[socket.socket]] = set()
    left = list(addresses)
    failure: BaseException | None = None
    try:
        while left or attempts:
            if left:
                attempts.add(asyncio.create_task(_connect(left.pop(0), mptcp=mptcp)))
            done, attempts = await asyncio.wait(
                attempts, timeout=STAGGER if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            winners = [attempt for attempt in done if attempt.exception() is None]
            for loser in winners[1:]:
                loser.result().close()
            if winners:
                return winners[0].result()
            failure = next((attempt.exception() for attempt in done), failure)
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_late)
            attempt.cancel()
        if attempts:
            # Their sockets are closed before anybody can close the loop.
            await asyncio.wait(attempts)
    why = failure.strerror if isinstance(failure, OSError) and failure.strerror else failure
    raise ConnectionLost(f"no connection to the server: {why or 'it has no address'}") from failure


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(address: Address, *, mptcp: bool) -> socket.socket:
    family, where = address
    sock = _socket(family, mptcp=mptcp)
    try:
        sock.setblocking(False)
        prepare(sock)
        # Not loop.sock_connect(): that resolves the address once more, which fails for sockets of MPTCP.
        try:
            sock.connect(where)
        except BlockingIOError:
            await _writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock.fileno())


def _socket(family: socket.AddressFamily, *, mptcp: bool) -> socket.socket:
    """A socket for Multipath TCP (RFC 8684), which falls back by itself where the peer lacks it, or for TCP."""
    if mptcp and multipath.possible():
        with contextlib.suppress(OSError):
            return socket.socket(family, socket.SOCK_STREAM, _IPPROTO_MPTCP)
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)


def prepare(sock: socket.socket) -> None:
    """Set what an upload needs. Options that this system lacks are left out."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError, KeyError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT[sys.platform], UNSENT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were written and that the peer's kernel has not acknowledged; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0


def silence(sock: socket.socket) -> float | None:
    """Seconds since the peer acknowledged anything, a probe of a closed window too; None where nobody tells.

    Of Multipath TCP it is that of the first subflow.
    """
    if sys.platform != "linux":
        return None
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LAST_ACK.size)
        return float(_TCP_INFO_LAST_ACK.unpack(told)[0]) / 1000
    except (OSError, struct.error):
        return None


def abort(sock: socket.socket) -> None:
    """Close with a reset: what the kernel still holds is not sent."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
    sock.close()


def lost(error: OSError) -> str:
    """An error of a socket in words."""
    if error.errno in {errno.ECONNRESET, errno.EPIPE}:
        return "the connection was cut"
    return f"the connection failed: {error.strerror or error}"
