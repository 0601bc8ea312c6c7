"""Which bytes go next: never one that the server holds, never one twice at the same time."""

from bisect import bisect_right
from collections.abc import Iterable
from heapq import heappop, heappush

from hmac_file_server.client.protocol import Piece, Ranges, Span


def merged(spans: Iterable[Span]) -> Ranges:
    """The same bytes as spans in order, apart from each other, none of them empty."""
    joined: list[Span] = []
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return tuple(joined)


def first_missing(ranges: Ranges, start: int) -> int:
    """The first byte from `start` on that is in none of the ranges."""
    index = bisect_right(ranges, start, key=lambda span: span[0]) - 1
    return max(start, ranges[index][1]) if index >= 0 else start


class Plan:
    """The bytes of a file, what the server has of them, and which chunks are on their way.

    A piece begins at the first byte that is missing in its chunk and reaches to the chunk's end, because that is what
    a request for a chunk can bring. A chunk is on its way in one piece at a time.
    """

    def __init__(self, size: int, chunk_size: int, received: Ranges = ()) -> None:
        """`size` of the file and of its chunks in bytes; a `chunk_size` of 0 makes one chunk of the file."""
        self.size = size
        self.chunk_size = chunk_size or max(size, 1)
        self.received: Ranges = merged(received)
        self._taken: set[int] = set()
        self._unknown: dict[int, int] = {}
        self._returned: list[int] = []
        self._next = 0

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.size // self.chunk_size)

    @property
    def acknowledged(self) -> int:
        """Bytes that the server has."""
        return sum(stop - start for start, stop in self.received)

    @property
    def whole(self) -> bool:
        """Whether the server has every byte."""
        return first_missing(self.received, 0) >= self.size

    @property
    def under_way(self) -> int:
        """How many pieces are taken."""
        return len(self._taken)

    def learn(self, ranges: Ranges) -> None:
        """The server has these bytes, too."""
        self.received = merged((*self.received, *ranges))

    def correct(self, ranges: Ranges) -> None:
        """The server has these bytes and no others. Only while nothing is under way."""
        self.received = merged(ranges)
        self._unknown.clear()
        self._returned.clear()
        self._next = 0

    def take(self) -> Piece | None:
        """The next piece, which is under way until it is given back; None when there is none to take now."""
        while self._returned:
            piece = self._piece(heappop(self._returned))
            if piece is not None:
                return piece
        while self._next < self.chunks:
            # What is received as a whole is passed over in one step.
            at = self._next * self.chunk_size
            self._next = max(self._next, min(first_missing(self.received, at), self.size) // self.chunk_size)
            if self._next >= self.chunks:
                break
            self._next += 1
            piece = self._piece(self._next - 1)
            if piece is not None:
                return piece
        return None

    @property
    def unknown(self) -> int:
        """Of how many chunks nobody knows what arrived."""
        return len(self._unknown)

    def give_back(self, piece: Piece, *, unknown: int | None = None) -> None:
        """The piece is under way no more. What the server lacks of its chunk is taken next.

        With `unknown` some of it may have arrived: it is not taken before question number `unknown` is answered.
        """
        self._taken.discard(piece.chunk)
        if unknown is None:
            heappush(self._returned, piece.chunk)
        else:
            self._unknown[piece.chunk] = unknown

    def answered(self, question: int) -> None:
        """Questions up to this number are answered, and `learn` was told what they say."""
        for chunk in [chunk for chunk, needed in self._unknown.items() if needed <= question]:
            del self._unknown[chunk]
            heappush(self._returned, chunk)

    def missing(self, piece: Piece) -> int:
        """The first byte of the piece that the server lacks, the piece's end if it has them all."""
        return min(first_missing(self.received, piece.start), piece.stop)

    def _piece(self, chunk: int) -> Piece | None:
        if chunk in self._taken or chunk in self._unknown:
            return None
        start = chunk * self.chunk_size
        stop = min(start + self.chunk_size, self.size)
        begin = first_missing(self.received, start)
        if begin >= stop:
            return None
        self._taken.add(chunk)
        return Piece(begin, stop, chunk, start)
