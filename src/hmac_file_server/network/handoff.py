"""Connections given from one server process to another, with the bytes that were read from them.

One socket pair per process, made before the processes are, and held by all of them: what was sent to a process
that died waits for its successor.
"""

import contextlib
import os
import socket
import struct
from array import array
from typing import Final

# A message: how the bytes travel, the length of the peer's text, how many bytes there are; the text; the bytes.
_HEAD: Final = struct.Struct("!BHQ")
_INLINE, _IN_FILE = range(2)
# What all waiting messages may take together is the socket's send buffer: one of them may not fill it.
_INLINE_MAX: Final = 16 * 1024
_PEER_MAX: Final = 256
_MESSAGE_MAX: Final = _HEAD.size + _PEER_MAX + _INLINE_MAX
# The kernel cuts it to its own limit: many clients may come back at once.
_WAITING_BYTES: Final = 4 * 1024 * 1024
_DESCRIPTORS: Final = 2
_DESCRIPTOR_BYTES: Final = array("i").itemsize
_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class Handoff:
    """An inbox for each of `count` processes. Make it before the first fork."""

    def __init__(self, count: int) -> None:
        """Raises OSError when there are no descriptors left."""
        self._inboxes: list[socket.socket] = []
        self._outboxes: list[socket.socket] = []
        try:
            for _ in range(count):
                # One message is one connection, or none: there are no halves.
                inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                inbox.setblocking(False)
                outbox.setblocking(False)
                outbox.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WAITING_BYTES)
                self._inboxes.append(inbox)
                self._outboxes.append(outbox)
        except OSError:
            self.close()
            raise

    def inbox(self, index: int) -> socket.socket:
        """What becomes readable when a connection was given to process `index`."""
        return self._inboxes[index]

    def send(self, index: int, fd: int, data: bytes, peer: str) -> bool:
        """Give a connection to process `index`; never waits. Thread-safe.

        `fd` stays the caller's: a duplicate travels. `data`: what was read from it and is still to be served;
        `peer`: the client's address, to 256 bytes of UTF-8. False when the inbox is full, or nobody is left
        to read it; nothing was sent then.
        """
        text = peer.encode()[:_PEER_MAX]
        try:
            if len(data) <= _INLINE_MAX:
                return self._send(index, [_HEAD.pack(_INLINE, len(text), len(data)), text, data], [fd])
            held = _file_of(data)
            try:
                return self._send(index, [_HEAD.pack(_IN_FILE, len(text), len(data)), text], [fd, held])
            finally:
                os.close(held)
        except OSError:
            # Full (EAGAIN), too many descriptors under way (ETOOMANYREFS), no memory, or no reader.
            return False

    def _send(self, index: int, parts: list[bytes], descriptors: list[int]) -> bool:
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
        self._outboxes[index].sendmsg(parts, passed, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return True

    def receive(self, index: int) -> tuple[socket.socket, bytes, str] | None:
        """The next connection that was given to process `index`: (socket, data, peer). None when there is none.

        A message whose descriptors could not be taken, because this process has no room for them, is
        dropped; its client is disconnected. Raises nothing.
        """
        while True:
            try:
                message, ancillary, _flags, _ = self._inboxes[index].recvmsg(
                    _MESSAGE_MAX, socket.CMSG_SPACE(_DESCRIPTORS * _DESCRIPTOR_BYTES), _FLAGS
                )
            except OSError:
                return None
            descriptors = _passed(ancillary)
            if not message:
                return None
            given = _unpack(message, descriptors)
            if given is not None:
                return given

    def keep_only(self, index: int) -> None:
        """In the process that serves as `index`: close the other processes' inboxes, so that only they read them.

        The parent keeps all of them, and with them what waits for a process that is not there.
        """
        for number, inbox in enumerate(self._inboxes):
            if number != index:
                inbox.close()

    def close(self) -> None:
        """Close everything. Idempotent."""
        for sock in (*self._inboxes, *self._outboxes):
            sock.close()


def _file_of(data: bytes) -> int:
    fd = os.memfd_create("handoff", os.MFD_CLOEXEC)
    try:
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(fd, view[written:])
    except BaseException:
        os.close(fd)
        raise
    return fd


def _passed(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            # What was cut off is no whole descriptor.
            descriptors.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_BYTES])
    return list(descriptors)


def _unpack(message: bytes, descriptors: list[int]) -> tuple[socket.socket, bytes, str] | None:
    """The connection of a message; None, with everything closed, when something of it is missing."""
    try:
        kind, text_size, size = _HEAD.unpack_from(message)
        peer = message[_HEAD.size : _HEAD.size + text_size].decode(errors="replace")
        data = message[_HEAD.size + text_size :] if kind == _INLINE else _contents(descriptors[1], size)
        if len(data) != size:
            return None
        sock = socket.socket(fileno=descriptors[0])
        del descriptors[0]
        return sock, data, peer
    except (struct.error, IndexError, OSError):
        return None
    finally:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _contents(fd: int, size: int) -> bytes:
    parts = []
    position = 0
    while position < size:
        part = os.pread(fd, size - position, position)
        if not part:
            break
        parts.append(part)
        position += len(part)
    return b"".join(parts)
