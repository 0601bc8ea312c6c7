"""What a request body is made of: a sink that takes it, and the way it ended."""

from enum import Enum
from typing import Protocol

import msgspec


class BodySink(Protocol):
    """Takes body bytes in order. Called from one thread at a time, not always the same."""

    def write(self, view: memoryview) -> None:
        """Take all of `view`, which is only valid during the call. Any exception ends the body."""
        ...


class BodyCut(Enum):
    """Why a body ended before it was whole."""

    DISCONNECTED = "disconnected"
    STALLED = "stalled"
    TOO_SLOW = "too_slow"
    TIMED_OUT = "timed_out"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    REFUSED = "refused"
    ABORTED = "aborted"
    # Another request has taken over what the body is for.
    TAKEN_OVER = "taken_over"
    # The address that the connection was made to is no longer one of the machine's.
    NETWORK_GONE = "network_gone"


class BodyEnd(msgspec.Struct, frozen=True, gc=False):
    """How a body ended: whole when `cut` is None. `received` counts body bytes given to the sink.

    `error` is what the sink raised (cut REFUSED) or the HttpError of malformed framing.
    """

    received: int
    cut: BodyCut | None = None
    error: Exception | None = None
