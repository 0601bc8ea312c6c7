"""HTTP/1.1 over asyncio: connection, request heads, responses, body loops.

This room knows no route and nothing of uploads: a handler gets an `Exchange` and decides.
"""

from hmac_file_server.http.body import BodyCut, BodyEnd, BodySink
from hmac_file_server.http.exchange import Exchange
from hmac_file_server.http.limits import Limits
from hmac_file_server.http.listener import Listener
from hmac_file_server.http.request import Request
from hmac_file_server.http.response import FileSource, Response

__all__ = [
    "BodyCut",
    "BodyEnd",
    "BodySink",
    "Exchange",
    "FileSource",
    "Limits",
    "Listener",
    "Request",
    "Response",
]
