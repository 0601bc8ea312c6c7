"""Builds and drives the lean C client."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError, MismatchError, UnavailableError

SOURCE = Path(__file__).with_name("lean_client.c")
STAMP_LENGTH = 32
PATTERN_LENGTH = 256 * 1024


@dataclass(frozen=True, slots=True)
class Load:
    """One run of the client: `requests` of `size` body bytes over `connections`; 0 requests = until stopped."""

    mode: str
    host: str
    port: int
    host_header: str
    connections: int
    requests: int
    size: int
    targets: Path
    seed: int = 0
    interval_us: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What the client saw. Times in seconds, latencies in microseconds."""

    requests: int
    ok: int
    failed: int
    gave_up: bool
    reconnects: int
    body_bytes: int
    wall_s: float
    client_cpu_s: float
    requests_per_s: float
    bytes_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    statuses: dict[str, int] = field(default_factory=dict)
    first_failure: str = ""

    def require_all_ok(self, expected: int) -> None:
        """Raise MismatchError unless every one of `expected` requests was answered as it should be."""
        if self.failed or self.gave_up or self.ok != expected:
            raise MismatchError(
                f"{self.ok} of {expected} requests succeeded, {self.failed} failed;"
                f" first: {self.first_failure or 'none'}; statuses {self.statuses}",
            )


def parse_report(text: str) -> Measured:
    """Parse the last line the client printed; raises BenchError when it is no report."""
    lines = text.strip().splitlines()
    try:
        fields: dict[str, Any] = json.loads(lines[-1])
        return Measured(**fields)
    except (IndexError, ValueError, TypeError) as error:
        raise BenchError(f"the client printed no report: {text.strip()[-200:]!r}") from error


class Client:
    """The compiled client, pinned to `cores`."""

    def __init__(self, binary: Path, cores: AbstractSet[int]) -> None:
        self._binary = binary
        self._cores = cores

    @classmethod
    def build(cls, work: Path, cores: AbstractSet[int], compiler: str | None = None) -> Client:
        """Compile the client into `work`; raises UnavailableError without a C compiler."""
        compiler = compiler or shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise UnavailableError(
                "no C compiler for the load client: install the package gcc (apt-get install gcc libc6-dev)"
            )
        binary = work / "lean_client"
        command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(binary), str(SOURCE)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            first = next((line for line in built.stderr.splitlines() if "error" in line), built.stderr.strip()[:200])
            raise UnavailableError(f"the load client did not compile ({first}): are gcc and libc6-dev installed?")
        return cls(binary, cores)

    def on(self, cores: AbstractSet[int]) -> Client:
        """Return the same client pinned to other cores."""
        return Client(self._binary, cores)

    def _start(self, load: Load) -> subprocess.Popen[str]:
        arguments: dict[str, object] = {
            "mode": load.mode, "host": load.host, "port": load.port, "host-header": load.host_header,
            "connections": load.connections, "requests": load.requests, "size": load.size,
            "targets": load.targets, "seed": load.seed, "interval-us": load.interval_us,
        }  # fmt: skip
        command = [str(self._binary), "run", *(part for k, v in arguments.items() for part in (f"--{k}", str(v)))]
        return subprocess.Popen(
            on_cores(self._cores, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, load: Load) -> Measured:
        """Run the load to its end; raises BenchError when the client could not do it."""
        process = self._start(load)
        try:
            out, err = process.communicate()
        finally:
            _end(process)
        if process.returncode != 0:
            raise BenchError(err.strip() or f"the load client ended with status {process.returncode}")
        return parse_report(out)

    def run_beside(self, background: Load, foreground: Load) -> tuple[Measured, Measured]:
        """Run `background` (open-ended) while `foreground` runs; its figures cover only that time."""
        steady = self._start(background)
        try:
            if steady.stdout is None or steady.stdout.readline().strip() != "running":
                steady.kill()
                raise BenchError(steady.communicate()[1].strip() or "the load client ended before its first answer")
            main = self._start(foreground)
            try:
                steady.send_signal(signal.SIGUSR1)
                out, err = main.communicate()
                steady.send_signal(signal.SIGTERM)
            finally:
                _end(main)
            if main.returncode != 0:
                raise BenchError(err.strip() or f"the load client ended with status {main.returncode}")
            steady_out, steady_err = steady.communicate()
            if steady.returncode != 0:
                raise BenchError(steady_err.strip() or f"the load client ended with status {steady.returncode}")
            return parse_report(steady_out), parse_report(out)
        finally:
            _end(steady)

    def touch(self, size: int) -> None:
        """Write to `size` bytes of fresh memory, so that the host has backed them before the clock starts."""
        if size > 0:
            subprocess.run([str(self._binary), "touch", str(size)], check=True)

    def pattern(self) -> bytes:
        """Return the buffer that bodies repeat (PATTERN_LENGTH bytes)."""
        return subprocess.run([str(self._binary), "pattern"], check=True, capture_output=True).stdout


def on_cores(cores: AbstractSet[int], command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` on `cores` only, under the same process id (util-linux taskset)."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def stamp(seed: int, index: int) -> bytes:
    """Return the first bytes of body number `index`: what makes each body differ from all others."""
    return b"%016x%016x" % (seed, index)


def body_slice(pattern: bytes, seed: int, index: int, offset: int, length: int) -> bytes:
    """Return bytes [offset, offset + length) of body number `index`, of any size."""
    head = stamp(seed, index)[offset : offset + length]
    start = max(offset, STAMP_LENGTH)
    wanted = length - len(head)
    first = start % len(pattern)
    copies = pattern[first:] + pattern * (wanted // len(pattern) + 1)
    return head + copies[:wanted]


def write_targets(path: Path, targets: Iterable[str]) -> Path:
    """Write one request target a line and return the path."""
    path.write_text("".join(f"{target}\n" for target in targets), encoding="ascii")
    return path
