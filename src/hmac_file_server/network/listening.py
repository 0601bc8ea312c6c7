"""Listening sockets: made before the processes are, so that no connection is lost when one of them dies."""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hmac_file_server.config.addresses import Address
from hmac_file_server.config.addresses import parse as parse_address

_BACKLOG: Final = 4096
# socket.IPPROTO_MPTCP came with Python 3.10 only where the headers knew it.
_MPTCP: Final = 262
_SOL_MPTCP: Final = 284
_MPTCP_INFO: Final = 1
# The beginning of struct mptcp_info: subflows besides the first, and flags.
_INFO: Final = struct.Struct("=B7xI")
_FELL_BACK: Final = 0x1
_INT_MAX: Final = 2**31 - 1
_KEEPALIVE_IDLE: Final = 30
_KEEPALIVE_INTERVAL: Final = 10
_KEEPALIVE_PROBES: Final = 6
_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 - compared with, not bound


class ListenFailed(Exception):  # noqa: N818 - says what happened
    """An address that cannot be listened on. The message names it and why."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets of every process, and the addresses as they came out (port 0 replaced)."""

    sockets: tuple[tuple[socket.socket, ...], ...]
    addresses: tuple[str, ...]
    unix_paths: tuple[str, ...]

    def close(self) -> None:
        """Close all sockets and remove the Unix ones' names. Idempotent."""
        self.keep_only(-1)
        for path in self.unix_paths:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def keep_only(self, index: int) -> None:
        """Close the sockets of all processes but one, in a child that serves as that one.

        A socket that anybody holds open takes connections, also when nobody will ever accept them.
        """
        for number, group in enumerate(self.sockets):
            if number != index:
                for sock in group:
                    sock.close()


def listen(addresses: Sequence[str], processes: int, *, mptcp: bool, user_timeout: float = 0.0) -> Listening:
    """Listen on every address, with one socket a process for TCP (SO_REUSEPORT: the kernel spreads the load).

    Multipath TCP is offered where the kernel has it: a client that speaks it moves from Wi-Fi to mobile data
    without losing its connection; all others notice nothing.

    `user_timeout`, in seconds, is TCP_USER_TIMEOUT (RFC 5482) of all connections: one whose peer acknowledges
    nothing for so long, or keeps its window shut, is given up; 0 leaves that to the kernel's some 15 minutes.
    It must be longer than a download may be paused. The kernel has no such option for multipath listeners;
    `set_user_timeout` gives it to the connections that they accept. Raises ListenFailed.
    """
    groups: list[list[socket.socket]] = [[] for _ in range(processes)]
    names: list[str] = []
    unix_paths: list[str] = []
    parsed = {text: parse_address(text) for text in addresses}
    every_ipv4 = {address.port for address in parsed.values() if address.host == _EVERY_IPV4}
    for text, address in parsed.items():
        try:
            if address.path:
                sock = _listen_unix(address.path)
                unix_paths.append(address.path)
                names.append(f"unix:{address.path}")
                groups[0].append(sock)
                for group in groups[1:]:
                    group.append(sock.dup())
                continue
            for family, host in _resolve(address):
                port = address.port
                # "[::]" means both families, as operators expect, unless the other one is asked for as well.
                both = port == 0 or port not in every_ipv4
                for group in groups:
                    sock = _listen_tcp(family, host, port, shared=processes > 1, mptcp=mptcp, both=both)
                    group.append(sock)
                    set_user_timeout(sock, user_timeout)
                    port = sock.getsockname()[1]
                names.append(str(Address(host, port)))
        except OSError as error:
            Listening(tuple(map(tuple, groups)), (), tuple(unix_paths)).close()
            reason = error.strerror or str(error)
            raise ListenFailed(f"cannot listen on {text}: {reason}") from error
    return Listening(tuple(map(tuple, groups)), tuple(names), tuple(unix_paths))


def set_user_timeout(sock: socket.socket, seconds: float) -> bool:
    """Set TCP_USER_TIMEOUT of a connection; of a listener, of those it will accept. False where there is none.

    That is so for Unix sockets and for multipath TCP, whose connections outlive the loss of a path by design.
    A plain client's connection to a multipath listener is plain TCP, but inherits nothing of this.
    """
    if seconds <= 0:
        return False
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(max(1, round(seconds * 1000)), _INT_MAX))
    except OSError:
        return False
    return True


def has_other_path(sock: socket.socket) -> bool:
    """Whether a connection goes on when its own local address is lost: multipath TCP (RFC 8684) on several paths."""
    try:
        info = sock.getsockopt(_SOL_MPTCP, _MPTCP_INFO, _INFO.size)
    except OSError:
        # Plain TCP, as are all of a multipath listener's connections whose clients know no better.
        return False
    if len(info) < _INFO.size:
        return False
    more, flags = _INFO.unpack(info)
    return bool(more) and not flags & _FELL_BACK


def _resolve(address: Address) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    seen: dict[tuple[int, str], None] = {}
    for family, _, _, _, where in found:
        if family in {socket.AF_INET, socket.AF_INET6}:
            seen[family, str(where[0])] = None
    return list(seen)


def _listen_tcp(family: int, host: str, port: int, *, shared: bool, mptcp: bool, both: bool) -> socket.socket:
    sock = _new_socket(family, mptcp=mptcp)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        # Accepted sockets inherit these: a peer that vanished is noticed within about 90 s.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE),
            (socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL),
            (socket.TCP_KEEPCNT, _KEEPALIVE_PROBES),
        ):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _new_socket(family: int, *, mptcp: bool) -> socket.socket:
    if mptcp:
        with contextlib.suppress(OSError):
            return socket.socket(family, socket.SOCK_STREAM, _MPTCP)
    return socket.socket(family, socket.SOCK_STREAM)


def _listen_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            _remove_dead_socket(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        # The proxy runs as another user; who may reach the socket is the folder's business.
        os.chmod(path, 0o666)  # noqa: S103
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_dead_socket(path: str) -> None:
    """Remove a socket that nobody listens on; one in use is left, and binding fails as it should."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
