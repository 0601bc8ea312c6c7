"""Addresses to listen on: "127.0.0.1:8080", "[::]:8080", "localhost:8080", "unix:/run/x.sock"."""

from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """One place to listen: TCP when `path` is empty, else a Unix socket.

    `host` carries no brackets; `port` 0 lets the kernel choose.
    """

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or self.host in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def url(self) -> str:
        """The http URL by which this machine reaches it, without a trailing slash; "" for a Unix socket."""
        if self.path:
            return ""
        host = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}.get(self.host, self.host)  # noqa: S104
        return f"http://{Address(host, self.port)}"


def parse(text: str) -> Address:
    """An address as written; a bare port ("8080", ":8080") is on 127.0.0.1. ValueError when it is none."""
    text = text.strip()
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/") or "\0" in path:
            raise ValueError("a Unix socket needs an absolute path")
        if len(path.encode()) > 107:
            raise ValueError("a Unix socket path of more than 107 bytes")
        return Address("", 0, path)
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("no port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host or not _ipv6(host):
            raise ValueError("no IPv6 address in the brackets")
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets")
    elif colon and host == "*":
        host = "0.0.0.0"  # noqa: S104 - asked for in so many words
    elif not all(c.isalnum() or c in "-._" for c in host):
        raise ValueError("not a host name or an IP address")
    return Address(host or LOOPBACK, int(port))


def is_port_only(text: str) -> bool:
    """Whether the text names a port and no host, as the Go hmac-file-server's listen_address does."""
    return text.strip().removeprefix(":").isdigit()


def _ipv6(host: str) -> bool:
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return False
    return True
