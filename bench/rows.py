"""What is measured: the rows of the table and which servers take part in each."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB = 2**10, 2**20, 2**30
LARGE = MIB
"""Stored files of this size and more are removed after each run; smaller ones stay until the end, because ext4
slows down for everybody after thousands of deletes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of load.

    `requests` of `size` bytes over `connections`; `files` is how many different files a download row visits;
    `per_folder` how many uploads share a folder; `variants` which of our settings make a difference;
    `synced_requests` how many a server in full durability gets, where the disk and not the CPU sets the rate.
    """

    key: str
    title: str
    mode: str
    connections: int
    requests: int
    size: int
    variants: tuple[str, ...]
    files: int = 0
    per_folder: int = 1000
    synced_requests: int = 0
    beside_interval_us: int | None = None

    @property
    def large(self) -> bool:
        """Whether throughput is told in GiB/s and CPU per GiB, or in requests."""
        return self.size >= LARGE

    @property
    def beside(self) -> bool:
        """Whether small downloads are timed while the upload of this row runs."""
        return self.beside_interval_us is not None

    def requests_for(self, durability: str | None) -> int:
        """Return how many requests a server with that durability gets."""
        return self.synced_requests or self.requests if durability == "full" else self.requests


RELAXED = ("ours", "ours-dedup")
ALL_PUT = ("ours", "ours-dedup", "ours-full", "ours-dedup-full")

ROWS = {
    row.key: row
    for row in (
        Row("put-1g", "PUT 1 GiB", "put", 1, 1, GIB, ALL_PUT),
        Row("put-8x256m", "PUT 8 x 256 MiB", "put", 8, 8, 256 * MIB, ALL_PUT),
        Row("get-1g", "GET 1 GiB, three times on one connection", "get", 1, 3, GIB, ("ours",), files=1),
        Row("put-10k", "PUT 10 KiB, 32 connections", "put", 32, 15_000, 10 * KIB, (*ALL_PUT, "ours-log"), synced_requests=4000),
        Row("put-10k-folders", "PUT 10 KiB, 32 connections, a folder for each file as XMPP slots have it", "put", 32, 6000, 10 * KIB,
            ALL_PUT, per_folder=1, synced_requests=2000),
        Row("get-10k", "GET 10 KiB, 32 connections", "get", 32, 60_000, 10 * KIB, ("ours", "ours-log"), files=1000),
        Row("beside-put", "GET 10 KiB one after another beside a PUT of 1 GiB", "put", 1, 1, GIB, RELAXED, beside_interval_us=0),
        Row("beside-put-paced", "GET 10 KiB every millisecond beside a PUT of 1 GiB", "put", 1, 1, GIB, RELAXED,
            beside_interval_us=1000),
    )
}  # fmt: skip


def folder_of(row: Row, index: int) -> str:
    """Return the folder of upload number `index` inside its run's folder."""
    return f"{index // row.per_folder:05d}"


def paths(row: Row, run: str, count: int) -> list[str]:
    """Return the relative paths of `count` uploads of one run; `run` makes them differ from all other runs."""
    return [f"{row.key}-{run}-{folder_of(row, i)}/f{i:06d}.bin" for i in range(count)]


def disk_needed(rows: list[Row], servers: dict[str, list[str]], rounds: int) -> int:
    """Return an upper bound in bytes of what the rows keep on disk at once.

    `servers` maps each row's key to the servers taking part; a kept small file takes its blocks, an inode and its
    share of directories; large files exist for one run (uploads) or for one row and all its servers (downloads).
    """
    kept, transient = 0, 0
    for row in rows:
        if row.large:
            copies = len(servers[row.key]) * row.files if row.mode == "get" else row.requests
            transient = max(transient, copies * row.size)
        elif row.mode == "put":
            per_file = -(-row.size // 4096) * 4096 + 1024 + (4096 if row.per_folder == 1 else 0)
            kept += len(servers[row.key]) * row.requests * per_file * rounds
    return kept + transient + 2 * GIB
