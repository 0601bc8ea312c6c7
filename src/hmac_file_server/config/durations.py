"""Durations as people write them: "48h", "1h30m", "300s", "500ms", "30d".

The grammar is Go's, and d, w and y of the Go hmac-file-server's TTL strings beside it (a year is 365 days).
A bare number is refused, for nobody can tell seconds from hours; only "0" needs no unit.
"""

import re

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # the micro sign
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "y": 365 * 86400.0,
}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(ns|us|µs|μs|ms|s|m|h|d|w|y)\s*", re.ASCII)

LONGEST = 1000 * 365 * 86400.0
"""Longest duration taken, in seconds; beyond it file times overflow."""


def parse(text: str) -> float:
    """Seconds of a duration such as "1h30m"; ValueError when it is none or has no unit."""
    rest = text.strip()
    if rest == "0":
        return 0.0
    if not rest:
        raise ValueError("not a duration")
    seconds, at = 0.0, 0
    while at < len(rest):
        match = _PART.match(rest, at)
        if match is None:
            if rest.isascii() and rest.replace(".", "", 1).isdigit():
                raise ValueError("a duration needs a unit")
            raise ValueError("not a duration")
        seconds += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if seconds > LONGEST:
        raise ValueError("too long")
    return round(seconds, 9)


def show(seconds: float) -> str:
    """A short exact spelling: 5400.0 is "1h30m", 0.5 is "500ms"; `parse` takes it back."""
    whole = int(seconds)
    if seconds != whole:
        millis = round(seconds * 1000, 6)
        short = f"{millis:g}"
        # Below a tenth of a microsecond that would have an exponent.
        return f"{short}ms" if "e" not in short and float(short) == millis else f"{seconds:.9f}s"
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + (f"{secs}s" if secs else "")
    return text or "0s"
