"""Inputs that once showed a fault, in a parser or in its oracle; they are run for ever."""

from __future__ import annotations

FOUND: dict[str, tuple[bytes, ...]] = {}
