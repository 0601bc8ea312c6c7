"""Sizes as people write them: "10MB", "1.5GiB", "8192".

KB and KiB are both 1024 bytes, as in the Go hmac-file-server, so that a file moved over keeps its meaning.
A number without a unit is bytes.
"""

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

LARGEST = 2**63 - 1
"""The largest size a file offset can hold, in bytes."""

_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
_SHAPE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?\s*(?:([kmgt]?)(?:i?b)?)", re.ASCII)


def parse(text: str) -> int:
    """Bytes of a size such as "10MB"; ValueError when it is none, or is no whole number of bytes."""
    match = _SHAPE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError("not a size")
    whole, fraction, unit = match.groups()
    scale = _UNITS[unit]
    size = int(whole) * scale
    if fraction:
        if scale == 1:
            raise ValueError("a fraction of a byte")
        size += int(fraction) * scale // 10 ** len(fraction)
    if size > LARGEST:
        raise ValueError("too large")
    return size


def show(size: int) -> str:
    """The shortest exact spelling: 10485760 is "10MB", 1000 is "1000B"; `parse` takes it back."""
    if size:
        for unit, scale in (("TB", TIB), ("GB", GIB), ("MB", MIB), ("KB", KIB)):
            if size % scale == 0:
                return f"{size // scale}{unit}"
    return f"{size}B"
