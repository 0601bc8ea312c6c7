"""Multipath TCP (RFC 8684): whether a connection may ever have a second path, and how many it has.

Every packet of such a connection carries 20 to 28 bytes more, so it is asked for only where it can bring something:
the kernel opens further paths from the endpoints that were configured (`ip mptcp endpoint`, NetworkManager, mptcpd),
or to those that a server announces, if it was told to follow them (`ip mptcp limits`). Linux alone has both.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final

_NETLINK_GENERIC: Final = 16
_REQUEST: Final = 0x1
_DUMP: Final = 0x300
_ERROR: Final = 2
_DONE: Final = 3
_CONTROL: Final = 0x10
_GET_FAMILY: Final = 3
_FAMILY_ID: Final = 1
_FAMILY_NAME: Final = 2
_GET_ADDRESSES: Final = 3
_GET_LIMITS: Final = 6
_ADDRESSES_FOLLOWED: Final = 2
_HEAD: Final = struct.Struct("=IHHII")
_COMMAND: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_PATIENCE: Final = 1.0

_SOL_MPTCP: Final = 284
_MPTCP_INFO: Final = 1
_SUBFLOWS_TOTAL: Final = 80
"""Offset of `mptcpi_subflows_total`, which newer kernels have, in struct mptcp_info."""


def possible() -> bool:
    """Whether this system would open a second path. Asks the kernel, unprivileged; some 50 microseconds."""
    if sys.platform != "linux":
        return False
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as sock:
            sock.settimeout(_PATIENCE)
            family = _family(sock)
            if any(True for _ in _ask(sock, family, _GET_ADDRESSES, _DUMP)):
                return True
            for attributes in _ask(sock, family, _GET_LIMITS, 0):
                return int.from_bytes(attributes.get(_ADDRESSES_FOLLOWED, b""), sys.byteorder) > 0
    except (OSError, LookupError, struct.error):
        pass  # no Multipath TCP in this kernel, or nobody may ask
    return False


def paths(sock: socket.socket) -> int:
    """Paths that a connection has at this moment; 0 for one that does not speak Multipath TCP."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        info = sock.getsockopt(_SOL_MPTCP, _MPTCP_INFO, 128)
        if len(info) > _SUBFLOWS_TOTAL:
            return info[_SUBFLOWS_TOTAL]
        # Older ones count what was added to the first, which may have gone.
        return info[0] + 1
    return 0


def _family(sock: socket.socket) -> int:
    """Number of the kernel's path manager. Raises OSError, LookupError."""
    name = b"mptcp_pm\0"
    for attributes in _ask(sock, _CONTROL, _GET_FAMILY, 0, _attribute(_FAMILY_NAME, name)):
        return int.from_bytes(attributes[_FAMILY_ID], sys.byteorder)
    raise LookupError("no path manager")


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(sock: socket.socket, family: int, command: int, flags: int, body: bytes = b"") -> Iterator[dict[int, bytes]]:
    """Attributes of each message that answers. Raises OSError, struct.error."""
    body = _COMMAND.pack(command, 1, 0) + body
    sock.send(_HEAD.pack(_HEAD.size + len(body), family, _REQUEST | flags, 1, 0) + body)
    while True:
        data = sock.recv(65536)
        position = 0
        while position < len(data):
            length, kind, _, _, _ = _HEAD.unpack_from(data, position)
            if kind == _DONE or length < _HEAD.size:
                return
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", data, position + _HEAD.size)
                raise OSError(-number, "the path manager refused to answer")
            yield dict(_attributes(data[position + _HEAD.size + _COMMAND.size : position + length]))
            position += length + (-length % 4)
        if not flags:
            return


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[position + _ATTRIBUTE.size : position + length]
        position += length + (-length % 4)
