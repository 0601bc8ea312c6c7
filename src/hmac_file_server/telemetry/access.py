"""The access log: one line a request, gathered and written many at a time.

Paths are logged, queries and headers never: they hold signatures and tokens.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from hmac_file_server.telemetry.lines import LONGEST, local_time, object_line, plain, utc_time, word

GATHERED = 65536
"""Characters that are gathered before they are written without waiting for `flush`."""


class Record(Protocol):
    """What `AccessLog.record` takes."""

    def __call__(
        self,
        method: str,
        path: str,
        status: int,
        bytes_in: int,
        bytes_out: int,
        seconds: float,
        peer: str,
        request_id: str,
        owner: str | None = None,
    ) -> None:
        """Note one answered request: body bytes in and out, seconds from its first byte to its last."""
        ...


class AccessLog:
    """Renders and gathers the lines; `record` costs nothing when they are not wanted.

    `write` gets whole lines as bytes (`telemetry.log.Sink.write`); the server calls `flush` a few times a
    second and before it ends. `now` is `Clock.time`. Not thread-safe: one per event loop.
    """

    __slots__ = ("_gathered", "_lines", "_now", "_second", "_stamp", "_write", "record")

    record: Record

    def __init__(
        self,
        write: Callable[[bytes], None],
        enabled: bool,
        *,
        format: Literal["text", "json"] = "text",  # noqa: A002 - the setting's name
        now: Callable[[], float],
    ) -> None:
        self._write = write
        self._now = now
        self._lines: list[str] = []
        self._gathered = 0
        self._second = -1
        self._stamp = ""
        self.record = _nothing if not enabled else self._json if format == "json" else self._text

    def flush(self) -> None:
        """Write what was gathered."""
        if self._lines:
            lines, self._lines, self._gathered = self._lines, [], 0
            lines.append("")
            self._write("\n".join(lines).encode("utf-8", "backslashreplace"))

    def _text(
        self,
        method: str,
        path: str,
        status: int,
        bytes_in: int,
        bytes_out: int,
        seconds: float,
        peer: str,
        request_id: str,
        owner: str | None = None,
    ) -> None:
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._stamp = local_time(second)
        # Nearly every path is plain; only the others pay for being escaped.
        if not (len(path) <= LONGEST and path.isascii() and path.isprintable() and _PLAIN.isdisjoint(path)):
            path = word(path)
        line = (
            f"{self._stamp} INFO {method} {path} {status} in={bytes_in} out={bytes_out} {seconds:.3f}s "
            f"from {peer} id={request_id}"
        )
        if owner:
            line += " user=" + word(owner)
        self._keep(line)

    def _json(
        self,
        method: str,
        path: str,
        status: int,
        bytes_in: int,
        bytes_out: int,
        seconds: float,
        peer: str,
        request_id: str,
        owner: str | None = None,
    ) -> None:
        line = {
            "time": utc_time(self._now()),
            "level": "INFO",
            "event": "request",
            "method": method,
            "path": plain(path),
            "status": status,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "seconds": round(seconds, 6),
            "peer": peer,
            "request_id": request_id,
        }
        if owner:
            line["user"] = plain(owner)
        self._keep(object_line(line))

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._gathered += len(line) + 1
        if self._gathered >= GATHERED:
            self.flush()


_PLAIN = frozenset(' "\\')


def _nothing(
    method: str,
    path: str,
    status: int,
    bytes_in: int,
    bytes_out: int,
    seconds: float,
    peer: str,
    request_id: str,
    owner: str | None = None,
) -> None:
    """The record of a log that is off."""
