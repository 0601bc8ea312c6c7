"""The network as the server sees it: listening sockets and their options, proxies in front."""

from hmac_file_server.network.listening import ListenFailed, Listening, listen
from hmac_file_server.network.proxies import TrustedProxies

__all__ = ["ListenFailed", "Listening", "TrustedProxies", "listen"]
