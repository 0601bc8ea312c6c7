"""The network as the server sees it: listening sockets, proxies in front, and changes of the machine's own."""

from hmac_file_server.network.addresses import Interface, Route, Snapshot, snapshot
from hmac_file_server.network.gate import PauseGate
from hmac_file_server.network.listening import ListenFailed, Listening, has_other_path, listen, set_user_timeout
from hmac_file_server.network.monitor import Monitor
from hmac_file_server.network.proxies import TrustedProxies

__all__ = [
    "Interface",
    "ListenFailed",
    "Listening",
    "Monitor",
    "PauseGate",
    "Route",
    "Snapshot",
    "TrustedProxies",
    "has_other_path",
    "listen",
    "set_user_timeout",
    "snapshot",
]
