"""Bounds on what one client may make the server hold or wait for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes, times are seconds."""

    head_bytes: int = 32 * 1024
    target_bytes: int = 8 * 1024
    head_fields: int = 100
    header_timeout: float = 15.0
    read_timeout: float = 4800.0
    write_timeout: float = 4800.0
    idle_timeout: float = 4800.0
    stall_timeout: float = 30.0
    send_stall_timeout: float = 60.0
    min_rate: float = 64.0
    min_rate_grace: float = 30.0
    linger_bytes: int = 16 * 1024 * 1024
    linger_timeout: float = 5.0
    # A body that has not come whole with its head, but is no larger than this, is collected in memory;
    # any larger one goes to a body loop at once.
    collect_bytes: int = 64 * 1024
    # What all connections together may collect before even small bodies go to a body loop.
    collect_total: int = 8 * 1024 * 1024
    inline_file_bytes: int = 64 * 1024
    pipeline_burst: int = 64
    pending_bytes: int = 64 * 1024
    max_connections: int = 15_000
