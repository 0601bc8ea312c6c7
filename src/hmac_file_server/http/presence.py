"""Which connections were made to an address that the machine still has."""

import contextlib
import ipaddress
import socket
from typing import Any, Final

# socket.IPPROTO_MPTCP came with Python 3.10 only where the headers knew it.
_MPTCP: Final = 262


class Presence:
    """The machine's addresses at one moment."""

    def __init__(self, addresses: frozenset[str]) -> None:
        """`addresses`: as text, IPv4 and IPv6; what is no address counts for nothing."""
        self._present = {address for address in map(_canonical, addresses) if address is not None}
        self._loopback = any(address.version == 4 and address.is_loopback for address in self._present)

    def lacks(self, transport: Any) -> bool:
        """Whether a TCP connection's own address is gone.

        Of 127.0.0.0/8 every address is there when one is. Multipath TCP connections are never without
        an address: they move to another by themselves.
        """
        try:
            sock = transport.get_extra_info("socket")
            name = sock.getsockname()
            if not isinstance(name, tuple) or sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == _MPTCP:
                return False
        except OSError:
            return False
        address = _canonical(name[0])
        if address is None or address in self._present:
            return False
        return not (self._loopback and address.version == 4 and address.is_loopback)


def _canonical(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address without its zone; IPv4 in IPv6 (RFC 4291 section 2.5.5.2) as IPv4."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return address.ipv4_mapped
        return address
    return None
