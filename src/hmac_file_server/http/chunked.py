"""The chunked transfer coding, decoded strictly and without copies (RFC 9112 section 7.1)."""

import re
from collections.abc import Iterator
from typing import Final

from hmac_file_server.http.errors import HttpError

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n")
_LINE_MAX: Final = 4096
# Lines are a few bytes in practice; a longer one is gathered piece by piece.
_WINDOW: Final = 64
_TRAILER_MAX: Final = 16 * 1024
# Framing may not outweigh what it frames: an attacker pays for extensions with body bytes.
_OVERHEAD_FREE: Final = 64 * 1024
_OVERHEAD_PER_BYTE: Final = 8
_SPANS_MAX: Final = 16

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


def pieces(buffer: memoryview, spans: list[tuple[int, int]]) -> Iterator[memoryview]:
    """The data bytes at `spans`, as views of `buffer`; many short spans are copied into one piece.

    So that a body in chunks of one byte costs a copy and not a write for each of them.
    """
    if len(spans) > _SPANS_MAX:
        yield memoryview(b"".join([buffer[start:end] for start, end in spans]))
    else:
        for start, end in spans:
            yield buffer[start:end]


class ChunkedDecoder:
    """Incremental decoder. `feed` walks a buffer and says where the data bytes lie in it."""

    __slots__ = ("_kept", "_left", "_overhead", "_state", "_trailer_bytes", "received", "trailers")

    def __init__(self) -> None:
        self.received = 0
        self._left = 0
        self._state = _SIZE
        self._kept = b""
        self._overhead = 0
        self._trailer_bytes = 0
        # Lower-case names and values; of a repeated one the first.
        self.trailers: dict[bytes, bytes] = {}

    @property
    def done(self) -> bool:
        """True once the last chunk and its trailer section have been read."""
        return self._state == _DONE

    def feed(self, buffer: memoryview) -> tuple[list[tuple[int, int]], int]:
        """Decode as much of `buffer` as is there.

        Returns the (start, end) spans of body data in it, and how many of its bytes were used: fewer
        than all only when the body ended inside the buffer. Raises HttpError 400 `bad_chunk`.
        """
        spans: list[tuple[int, int]] = []
        position = 0
        size = len(buffer)
        while position < size and self._state != _DONE:
            if self._state == _DATA:
                take = min(self._left, size - position)
                spans.append((position, position + take))
                position += take
                self._left -= take
                self.received += take
                if not self._left:
                    self._state = _DATA_END
                continue
            window = bytes(buffer[position : position + _WINDOW])
            newline = window.find(b"\n")
            if newline < 0:
                if len(self._kept) + len(window) > _LINE_MAX:
                    raise HttpError(400, "bad_chunk", "A line of the chunked body is too long.")
                self._kept += window
                position += len(window)
                if self._state == _DATA_END and self._kept not in {b"\r", b""}:
                    raise HttpError(400, "bad_chunk", "A chunk is longer than it said.")
                continue
            line = self._kept + window[: newline + 1]
            self._kept = b""
            position += newline + 1
            self._line(line)
        return spans, position

    def _line(self, line: bytes) -> None:
        self._overhead += len(line)
        if self._overhead > _OVERHEAD_FREE + _OVERHEAD_PER_BYTE * self.received or len(line) > _LINE_MAX:
            raise HttpError(400, "bad_chunk", "The chunked body has too much framing.")
        if self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise HttpError(400, "bad_chunk", "A chunk size line is malformed.")
            self._left = int(match.group(1), 16)
            self._state = _DATA if self._left else _TRAILERS
        elif self._state == _DATA_END:
            if line != b"\r\n":
                raise HttpError(400, "bad_chunk", "A chunk is longer than it said.")
            self._state = _SIZE
        elif line == b"\r\n":
            self._state = _DONE
        else:
            # Trailer fields stand apart: none changes what the head said.
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _TRAILER_MAX or _TRAILER.fullmatch(line) is None:
                raise HttpError(400, "bad_chunk", "The trailer section is malformed or too long.")
            name, _, value = line.partition(b":")
            self.trailers.setdefault(name.lower(), value.strip(b" \t\r\n"))
