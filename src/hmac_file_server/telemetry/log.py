"""The log: standard library logging, one line an event, as text or as JSON.

`event` is what the server calls. Records of libraries come out the same way, so that a log has one format.
"""

import logging
import os
import traceback
from typing import Any

from hmac_file_server.config import Logging
from hmac_file_server.telemetry.events import EVENTS, WARNING, Event
from hmac_file_server.telemetry.lines import (
    HIDDEN,
    escaped,
    local_time,
    object_line,
    plain,
    shown,
    utc_time,
)

_LOGGER = logging.getLogger("hmac_file_server")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MASK = "***"


class Sink:
    """Where lines go: standard error, or a file that can be opened anew after it was moved away.

    A line is written with one call, so lines of several processes do not mix. What cannot be written is
    dropped and counted: a full disk must not stop the server.
    """

    __slots__ = ("_fd", "_owned", "dropped", "path")

    def __init__(self, path: str | None = None, fd: int = 2) -> None:
        self.path = path
        self.dropped = 0
        self._owned = path is not None
        self._fd = _open(path) if path is not None else fd

    def write(self, data: bytes) -> None:
        """Write whole lines; never raises."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self.dropped += bytes(view).count(b"\n")

    def reopen(self) -> None:
        """Open the file of that name again; on an error (raised as OSError) the old one stays in use."""
        if self.path is None:
            return
        new, old = _open(self.path), self._fd
        self._fd = new
        os.close(old)

    def close(self) -> None:
        """Close the file, if it is one."""
        if self._owned and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


class TextFormat(logging.Formatter):
    """2025-07-17 12:34:56 INFO Network change detected."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end."""
        kind, fields = _event_of(record)
        message = escaped(record.getMessage(), 2000) if kind is None else kind.text.format_map(_Shown(fields))
        if record.exc_info and record.exc_info[1] is not None:
            message += f" [{_summary(record.exc_info[1])}]"
        return f"{local_time(record.created)} {record.levelname} {message}"


class JsonFormat(logging.Formatter):
    """One object a line: time, level, event, message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end."""
        kind, fields = _event_of(record)
        line: dict[str, Any] = {"time": utc_time(record.created), "level": record.levelname}
        if kind is not None:
            line["event"] = kind.name
            line["message"] = kind.text.format_map(_Shown(fields))
            line.update((name, _MASK if name in HIDDEN else plain(value)) for name, value in fields.items())
        else:
            line["event"] = "message"
            line["message"] = record.getMessage()[:2000]
            line["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "".join(traceback.format_exception(record.exc_info[1]))[-8000:]
        return object_line(line)


class _Handler(logging.Handler):
    """Formats a record and hands it to the sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self.sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # a faulty message must not take the server down
            line = f"{local_time(record.created)} ERROR Log line lost: {type(error).__name__}"
        self.sink.write(line.encode("utf-8", "backslashreplace") + b"\n")


_handler: _Handler | None = None


def configure(settings: Logging, *, fd: int = 2) -> Sink:
    """Set up logging for the whole process and return its sink; again, to change it at a reload.

    `fd` is where lines go while no file is set. Raises OSError when the file cannot be opened; the logging
    that was set up before then stays.
    """
    global _handler  # noqa: PLW0603 - logging is one for the process, as the standard library's is
    sink = Sink(str(settings.file) if settings.file is not None else None, fd)
    handler = _Handler(sink)
    handler.setFormatter(JsonFormat() if settings.format == "json" else TextFormat())
    root = logging.getLogger()
    root.addHandler(handler)
    if _handler is not None:
        root.removeHandler(_handler)
        _handler.sink.close()
    _handler = handler
    level = _LEVELS[settings.level]
    # Libraries at debug tell of themselves, not of uploads.
    root.setLevel(max(level, logging.INFO))
    _LOGGER.setLevel(level)
    return sink


def reopen() -> None:
    """Open the log file anew, after it was moved away; OSError when that fails."""
    if _handler is not None:
        _handler.sink.reopen()


def shows(event: Event) -> bool:
    """Whether the level lets the event through."""
    return _LOGGER.isEnabledFor(event.level)


def event(kind: Event, /, *, exc: BaseException | None = None, **fields: Any) -> None:
    """Log an event with its fields.

    Fields of the template come out in the text; all of them in JSON. Values are escaped and cut here, callers
    pass them as they are. A field named as a secret (`lines.HIDDEN`) is masked.
    """
    if _LOGGER.isEnabledFor(kind.level):
        info = (type(exc), exc, exc.__traceback__) if exc is not None else None
        extra = {"event_kind": kind, "event_fields": fields}
        _LOGGER.log(kind.level, kind.text, exc_info=info, extra=extra)


def named(name: str, /, **fields: Any) -> None:
    """`event` by the event's name, for rooms that do not know telemetry and are handed a callable.

    A name that is not in the catalogue is logged all the same, as a warning with its fields.
    """
    kind = EVENTS.get(name)
    if kind is None:
        kind = Event(name, WARNING, " ".join([name, *(f"{field}={{{field}}}" for field in fields)]))
    event(kind, **fields)


class _Shown(dict[str, Any]):
    """A template's view of the fields: escaped, masked, and "-" for one that was not passed."""

    def __missing__(self, name: str) -> str:
        return "-"

    def __getitem__(self, name: str) -> str:
        if name in HIDDEN:
            return _MASK
        value = super().__getitem__(name)
        return value if name not in self else shown(value)


def _event_of(record: logging.LogRecord) -> tuple[Event | None, dict[str, Any]]:
    kind = getattr(record, "event_kind", None)
    return (kind, record.event_fields) if kind is not None else (None, {})  # type: ignore[attr-defined]


def _summary(error: BaseException) -> str:
    """An exception on one line: what it is, and the last places it went through, innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames))
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return escaped(text) + (f" at {places}" if places else "")
