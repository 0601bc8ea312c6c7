"""Runs the rows: all servers of a table up at once, all but one idle."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine, processes, profiling
from bench.client import Client, Load, Measured, write_targets
from bench.errors import BenchError, MismatchError, UnavailableError
from bench.peers.contract import Peer, Placement, Server
from bench.peers.ours import PRIVATE
from bench.rounds import Sample, schedule
from bench.rows import GIB, Row, paths
from bench.storage import check_content, check_stored, remove_large

SMALL_TOUCH = GIB
_seeds = itertools.count(1)


@dataclass(slots=True)
class RowResult:
    """The samples of one row by server, and why a server dropped out of it."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a table is run. `touch` is the memory written to before a large run, in bytes; `perf` where recordings go."""

    rounds: int
    server_cores: frozenset[int]
    client_cores: frozenset[int]
    processes: int
    touch: int
    perf: Path | None = None


def say(text: str) -> None:
    """Tell the person waiting how far it is."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def running(peers: Sequence[Peer], work: Path, placement: Placement, *, strict: bool) -> Iterator[list[Server]]:
    """Start the peers; the one that cannot start is an error when `strict`, else told and left out."""
    servers: list[Server] = []
    try:
        for peer in peers:
            try:
                servers.append(peer.start(work / peer.name, placement))
            except UnavailableError as error:
                if strict:
                    raise
                say(f"left out: {error}")
        yield servers
    finally:
        for server in servers:
            server.stop()


class Table:
    """Runs rows against servers that are up."""

    def __init__(self, client: Client, work: Path, plan: Plan) -> None:
        self._client = client
        self._work = work
        self._plan = plan
        self._pattern = client.pattern()

    def run(self, row: Row, servers: Sequence[Server]) -> RowResult:
        """Visit the servers round by round; a server that fails once is out of the row."""
        result = RowResult(row, {server.name: [] for server in servers})
        prepared: dict[str, list[str]] = {}
        for server in servers:
            with self._guard(result, server):
                if row.mode == "get":
                    prepared[server.name] = self._prepare(row, server, row.files, row.size)
                elif row.beside:
                    prepared[server.name] = self._prepare(row, server, 100, 10 * 1024)
        say(f"{row.title}:")
        for number, server in schedule(servers, self._plan.rounds):
            if server.name in result.failures:
                continue
            with self._guard(result, server):
                sample = self._sample(row, server, number, prepared.get(server.name, []))
                result.samples[server.name].append(sample)
                rate = f"{sample.gib_per_s:.2f} GiB/s" if row.large else f"{sample.requests_per_s:,.0f}/s"
                latency = f", p99 {sample.p99_us / 1e3:.2f} ms" if row.beside or not row.large else ""
                say(f"  round {number or 'thrown away'}  {server.name:<16} {rate}{latency}")
        if row.large:
            for server in servers:
                self._clean(server)
        return result

    @contextlib.contextmanager
    def _guard(self, result: RowResult, server: Server) -> Iterator[None]:
        try:
            yield
        except BenchError as error:
            words = "" if server.alive() else f" (it ended: {server.last_words()})"
            result.failures[server.name] = f"{error}{words}"
            say(f"  {server.name} is out of this row: {error}{words}")

    def _load(
        self, row: Row, server: Server, mode: str, wanted: Sequence[str], requests: int, size: int, seed: int
    ) -> Load:
        if mode == "put":
            targets = [server.put_target(path, size) for path in wanted]
        else:
            targets = [server.get_target(path) for path in wanted]
        file = write_targets(self._work / f"targets-{mode}", targets)
        return Load(
            mode=mode, host=server.host, port=server.port, host_header=server.host_header, connections=row.connections,
            requests=requests, size=size, targets=file, seed=seed,
        )  # fmt: skip

    def _prepare(self, row: Row, server: Server, count: int, size: int) -> list[str]:
        """Upload, untimed, what the downloads of a row will fetch."""
        seed = next(_seeds)
        wanted = [f"{row.key}-files-{seed}/f{i:06d}.bin" for i in range(count)]
        load = self._load(row, server, "put", wanted, count, size, seed)
        self._client.run(load).require_all_ok(count)
        self._check(server, wanted, size, seed)
        return wanted

    def _sample(self, row: Row, server: Server, number: int, prepared: list[str]) -> Sample:
        seed = next(_seeds)
        count = row.requests_for(server.settings.get("uploads.durability"))
        wanted = prepared if row.mode == "get" else paths(row, f"{seed}", count)
        load = self._load(row, server, row.mode, wanted, count, row.size, seed)
        os.sync()  # nobody's earlier pages are written back while this run is timed
        touch = self._plan.touch if row.large else min(self._plan.touch, SMALL_TOUCH)
        self._client.touch(min(touch, machine.free_memory() * 8 // 10))
        root = server.root_pid
        if root is not None:
            processes.reset_peak(root)
        before = processes.cpu_seconds(root) if root is not None else None
        with contextlib.ExitStack() as stack:
            if self._plan.perf is not None and root is not None and number == self._plan.rounds:
                stack.enter_context(profiling.recorded(root, self._plan.perf / f"perf-{row.key}-{server.name}.data"))
            idle = machine.busy_seconds()
            measured, latencies = self._timed(row, server, load, prepared)
        busy = machine.busy_seconds() - idle
        cpu = None if root is None or before is None else processes.cpu_seconds(root) - before
        peak = None if root is None else processes.peak_resident_bytes(root)
        measured.require_all_ok(count)
        if row.mode == "put":
            self._check(server, wanted, row.size, seed)
            if row.large:
                self._clean(server)
        return Sample.of(number, measured, cpu, peak, latencies, busy)

    def _timed(self, row: Row, server: Server, load: Load, prepared: list[str]) -> tuple[Measured, Measured | None]:
        """Run the load, beside small downloads where the row says so; returns it and the downloads."""
        if not row.beside:
            return self._client.run(load), None
        quiet = self._load(row, server, "get", prepared, 0, 10 * 1024, 0)
        background = dataclasses.replace(quiet, connections=1, interval_us=row.beside_interval_us or 0)
        latencies, measured = self._client.run_beside(background, load)
        latencies.require_all_ok(latencies.requests)
        return measured, latencies

    def _check(self, server: Server, wanted: Sequence[str], size: int, seed: int) -> None:
        if server.files is None:
            return
        check_stored(server.files, wanted, size)
        for index in {0, len(wanted) - 1}:
            check_content(server.files / wanted[index], self._pattern, seed, index, size)

    def _clean(self, server: Server) -> None:
        if server.files is not None:
            remove_large((server.files, *server.scratch), PRIVATE)


def require_distinct(names: Sequence[str]) -> None:
    """Raise BenchError when two servers of a table share a name."""
    for name in names:
        if names.count(name) > 1:
            raise BenchError(f"two servers are called {name}")


__all__ = ["MismatchError", "Plan", "RowResult", "Table", "require_distinct", "running", "say"]
