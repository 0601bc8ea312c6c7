"""A TLS connection that another process serves: its bytes go through here, both ways.

The keys of the connection are here and cannot be given away, so the other process gets one end of a socket
pair, and this one en- and decrypts.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

_STEP: Final = 128 * 1024
# What may wait here for the other process before the client is no longer read.
_WAITING_MAX: Final = 512 * 1024


class Relay:
    """The near end of the pair, next to the transport of a TLS connection. On the event loop.

    `on_end(whole)` is called once: True when the other process has closed in order and all it said was
    written; False when it broke off.
    """

    __slots__ = (
        "__weakref__",
        "_client_gone",
        "_event_loop",
        "_on_end",
        "_reading",
        "_sock",
        "_transport",
        "_waiting",
        "_waiting_bytes",
        "_writing",
    )

    def __init__(self, transport: Any, sock: socket.socket, on_end: Callable[[bool], None]) -> None:
        """Takes the socket over. Nothing moves before `start`."""
        self._event_loop = asyncio.get_running_loop()
        self._transport = transport
        self._sock = sock
        self._on_end = on_end
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reading = False
        self._writing = False
        self._client_gone = False
        sock.setblocking(False)

    def start(self) -> None:
        """Begin to move bytes."""
        self.resume_writing()

    def feed(self, data: bytes) -> None:
        """The client has sent something."""
        if self._sock.fileno() < 0:
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if not self._writing:
            self._send()
        if self._waiting_bytes > _WAITING_MAX:
            self._transport.pause_reading()

    def client_gone(self) -> None:
        """The client has left. What it had sent is still delivered."""
        self._client_gone = True
        self.pause_writing()
        if not self._waiting:
            self.close()

    def pause_writing(self) -> None:
        """The client reads slower than the other process writes."""
        if self._reading:
            self._reading = False
            self._event_loop.remove_reader(self._sock.fileno())

    def resume_writing(self) -> None:
        """The client has caught up."""
        if not self._reading and self._sock.fileno() >= 0 and not self._client_gone:
            self._reading = True
            self._event_loop.add_reader(self._sock.fileno(), self._receive)

    def close(self) -> None:
        """Let go of the other process. Idempotent."""
        if self._sock.fileno() < 0:
            return
        self.pause_writing()
        self._stop_writing()
        self._sock.close()
        self._waiting.clear()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._event_loop.remove_writer(self._sock.fileno())

    def _send(self) -> None:
        """Pass on what the client has sent, as far as the other process takes it."""
        waiting = self._waiting
        try:
            while waiting:
                data = waiting[0]
                sent = self._sock.send(data)
                self._waiting_bytes -= sent
                if sent < len(data):
                    waiting[0] = data[sent:]
                else:
                    waiting.popleft()
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._event_loop.add_writer(self._sock.fileno(), self._send)
        except OSError:
            # It reads no more; what it still has to say is for its reader to find.
            waiting.clear()
            self._waiting_bytes = 0
        if not waiting:
            self._stop_writing()
            if self._client_gone:
                self.close()
                return
        if self._waiting_bytes <= _WAITING_MAX // 2 and not self._client_gone:
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()

    def _receive(self) -> None:
        """Pass on what the other process says."""
        try:
            data = self._sock.recv(_STEP)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            self._on_end(False)
            return
        if data:
            self._transport.write(data)
            return
        self.close()
        self._on_end(True)
