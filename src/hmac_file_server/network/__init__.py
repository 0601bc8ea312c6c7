"""The network as the server sees it: listening sockets and their options."""

from hmac_file_server.network.listening import ListenFailed, Listening, listen

__all__ = ["ListenFailed", "Listening", "listen"]
