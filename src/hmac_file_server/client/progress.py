"""How far an upload is: what `on_progress` is told."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from hmac_file_server.client.errors import UploadFailed

State = Literal["starting", "uploading", "waiting", "stalled", "offline", "finishing", "done"]

WINDOW: Final = 5.0
"""Seconds over which the rate is taken."""
INTERVAL: Final = 0.1
"""Seconds between two calls of `on_progress`, unless the state changed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of an upload.

    sent          bytes that the network took, of the whole file; never more than `total`
    acknowledged  of these, bytes that the server told are durable
    total         bytes of the file
    rate          bytes per second, over the last seconds
    seconds_left  at this rate; None while there is none
    state         starting (no session yet), uploading, waiting (for the next attempt), stalled (silence; the server
                  is being asked), offline (no address to the outside), finishing (all bytes are there), done
    attempt       failures in a row without progress
    resumed       bytes that the server had from an earlier run
    transmitted   bytes that this run handed to the network, repeats counted
    error         why the last attempt failed; None since there was progress
    retry_in      seconds until the next attempt
    """

    sent: int
    acknowledged: int
    total: int
    rate: float
    seconds_left: float | None
    state: State
    attempt: int
    resumed: int = 0
    transmitted: int = 0
    error: UploadFailed | None = None
    retry_in: float = 0.0


OnProgress = Callable[[Progress], None]


class Meter:
    """The rate at which a count grew over the last `window` seconds."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """Note the count of this moment. One that fell (bytes were lost on the way) begins anew."""
        samples = self._samples
        if samples and count < samples[-1][1]:
            lost = samples[-1][1] - count
            self._samples = samples = deque((at, max(0, seen - lost)) for at, seen in samples)
        samples.append((now, count))
        # One sample from before the window stays, so that the span is never shorter than it.
        while len(samples) > 2 and samples[1][0] <= now - self._window:
            samples.popleft()

    @property
    def rate(self) -> float:
        """Counts per second; 0 before there are two moments."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return max(0.0, (last - first) / (ended - began)) if ended > began else 0.0
