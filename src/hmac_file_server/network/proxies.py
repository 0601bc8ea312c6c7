"""Who the client is when proxies stand between: X-Forwarded-For, believed of named proxies only."""

import ipaddress
from collections.abc import Sequence
from typing import Final

UNIX: Final = "unix:"
"""Stands for every peer on a Unix socket in the list of trusted proxies."""

_HOPS_MAX: Final = 16


class TrustedProxies:
    """The networks of our own proxies. For logs only: nothing is permitted or refused by address."""

    __slots__ = ("_networks", "_unix")

    def __init__(self, networks: Sequence[str]) -> None:
        """Addresses and networks as the settings hold them, and `UNIX`."""
        self._unix = UNIX in networks
        self._networks = tuple(ipaddress.ip_network(text) for text in networks if text != UNIX)

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """The client's address: the last in X-Forwarded-For that is none of our proxies.

        `peer` is "ip:port", "[ip]:port" or "unix". Whoever is not trusted speaks for itself only, so the
        list is read from its end, where our own proxy wrote (ASVS 4.1.3).
        """
        if forwarded is None or not (self._unix if peer == "unix" else self._trusted(_host(peer))):
            return peer
        client = peer
        for hop in reversed(forwarded.decode("latin-1").split(",")[-_HOPS_MAX:]):
            # A zone ("%eth0") is free text, and means nothing on this machine.
            host = hop.strip().partition("%")[0]
            try:
                client = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
            except ValueError:
                # What a proxy of ours did not write is not to be believed, nor is what stands before it.
                return client
            if not self._trusted(client):
                return client
        return client

    def _trusted(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def _host(peer: str) -> str:
    return peer.rpartition(":")[0].removeprefix("[").removesuffix("]")
