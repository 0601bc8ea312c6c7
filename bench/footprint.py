"""Start-up time and memory: what is measured once and not round by round."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench import processes
from bench.client import Client, Load, write_targets
from bench.errors import UnavailableError
from bench.peers.contract import START_LIMIT_S, Placement, Server
from bench.peers.ours import PRIVATE, Ours
from bench.rows import GIB
from bench.storage import check_stored, remove_large
from bench.table import say

STREAM_STEPS = 5
STREAM_CONNECTIONS = 2


def put_one_byte(server: Server, path: str) -> bool:
    """Upload one byte to `path`; False when nothing listens yet or the answer is not 201."""
    head = f"PUT {server.put_target(path, 1)} HTTP/1.1\r\nHost: {server.host_header}\r\nContent-Length: 1\r\n\r\nx"
    try:
        with socket.create_connection((server.host, server.port), 5.0) as connection:
            connection.sendall(head.encode("ascii"))
            return connection.recv(64).startswith(b"HTTP/1.1 201 ")
    except OSError:
        return False


def first_byte(launch: Callable[[], Server]) -> float:
    """Return the seconds from starting the program to its answer to a first one-byte upload."""
    began = time.monotonic()
    server = launch()
    try:
        while not put_one_byte(server, "first/byte.bin"):
            if not server.alive() or time.monotonic() - began > START_LIMIT_S:
                raise UnavailableError(f"{server.name} took no upload: {server.last_words() or 'it printed nothing'}")
            time.sleep(0.002)
        return time.monotonic() - began
    finally:
        server.stop()


def measure(client: Client, work: Path, cores: frozenset[int], rounds: int, *, long: bool) -> dict[str, float]:
    """Return the facts `bench.goals` asks for: first_byte_s, rest_rss_bytes and, when `long`, the stream's."""
    defaults = Ours("ours-default", dedup=True, durability="full", access_log=True)
    placement = Placement(cores, 1)
    say("from start to the first accepted byte:")
    times = []
    for number in range(rounds + 1):
        folder = work / f"start-{number}"
        taken = first_byte(lambda folder=folder: defaults.launch(folder, placement))  # type: ignore[misc]
        say(f"  round {number or 'thrown away'}  {taken * 1e3:.0f} ms")
        times.append(taken)
    facts = {"first_byte_s": statistics.median(times[1:])}
    with contextlib.closing(_Stopping(defaults.start(work / "rest", placement))) as rest:
        facts["rest_rss_bytes"] = processes.resident_bytes(rest.pid)
    say(f"memory at rest: {facts['rest_rss_bytes'] / 2**20:.1f} MiB")
    if long:
        facts.update(_stream(client, work, placement))
    return facts


class _Stopping:
    """Stops a server when closed."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def pid(self) -> int:
        if self.server.root_pid is None:
            raise UnavailableError(f"{self.server.name} was not started here")
        return self.server.root_pid

    def close(self) -> None:
        self.server.stop()


def _stream(client: Client, work: Path, placement: Placement) -> dict[str, float]:
    """Let 10 GiB in and 10 GiB out, hashed, and return how far the memory rose above what it was before."""
    with contextlib.closing(_Stopping(Ours("ours-stream", dedup=True).start(work / "stream", placement))) as held:
        server, files = held.server, held.server.files
        if files is None:
            raise UnavailableError("the files of the server are not known")

        def transfer(mode: str, wanted: list[str], requests: int, size: int, seed: int) -> None:
            targets = [server.put_target(p, size) if mode == "put" else server.get_target(p) for p in wanted]
            load = Load(
                mode=mode, host=server.host, port=server.port, host_header=server.host_header,
                connections=STREAM_CONNECTIONS, requests=requests, size=size, seed=seed,
                targets=write_targets(work / "targets-stream", targets),
            )  # fmt: skip
            client.run(load).require_all_ok(requests)

        small = [f"warm/f{i}.bin" for i in range(100)]
        transfer("put", small, len(small), 1024, 1)  # what is loaded at the first use is there before we look
        transfer("get", small, len(small), 1024, 1)
        processes.reset_peak(held.pid)
        before = processes.resident_bytes(held.pid)
        for step in range(STREAM_STEPS):
            wanted = [f"stream-{step}/f{i}.bin" for i in range(STREAM_CONNECTIONS)]
            transfer("put", wanted, STREAM_CONNECTIONS, GIB, 100 + step)
            check_stored(files, wanted, GIB)
            transfer("get", wanted, STREAM_CONNECTIONS, GIB, 0)
            remove_large((files, *server.scratch), PRIVATE)
        after, peak = processes.resident_bytes(held.pid), processes.peak_resident_bytes(held.pid)
    say(
        f"10 GiB in and out: {before / 2**20:.1f} MiB before, {peak / 2**20:.1f} at the peak, {after / 2**20:.1f} after"
    )
    return {
        "stream_before_bytes": before, "stream_peak_bytes": peak, "stream_after_bytes": after,
        "stream_growth_bytes": peak - before,
    }  # fmt: skip
