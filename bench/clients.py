"""How fast clients are over loopback: `python -m bench.clients`.

One file, rounds in turn, each client a process of its own:

    lean          the lean C client, as many PUTs of a part of the size as there are connections: what the server takes
    python        hmac_file_server.client with its defaults, the chunk API over as many connections
    uploader.js   in Node, the chunk API over as many connections
    tus-js-client in Node with its defaults, to @tus/server with its file store

Prints the median rates and two ratios: the Python client to the lean one, uploader.js to tus-js-client.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.fixtures import node
from tests.fixtures.child import Child, accepts, free_port
from tests.fixtures.server import SECRET, FileServer, environment

from bench.chunked import forget
from bench.client import Client, Load, write_targets
from bench.errors import BenchError
from bench.signing import put_target
from hmac_file_server.auth import signing

MIB: Final = 1 << 20
PROJECT: Final = Path(__file__).resolve().parents[1]
UPLOADERS: Final = Path(__file__).parent / "uploaders"
TUS_SERVER: Final = Path(__file__).parent / "switching" / "drivers" / "tus_server.mjs"
UPLOADER: Final = PROJECT / "src" / "hmac_file_server" / "web" / "uploader.js"
KEY: Final = SECRET.encode()
CHUNKED: Final = "/upload/chunked"
GOALS: Final = (("python", "lean", 0.6), ("uploader.js", "tus-js-client", 2.0))


def main() -> None:
    """Run and print."""
    options = arguments()
    # A folder in memory, where there is one: what is measured is the clients.
    folder = options.folder or (Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-clients-") as work:
        rates = measure(options, Path(work))
    for name, found in rates.items():
        print(f"{name:<16}{statistics.median(found):>8.0f} MiB/s")
    for client, other, wanted in GOALS:
        if client in rates and other in rates:
            ratio = statistics.median(a / b for a, b in zip(rates[client], rates[other], strict=True))
            verdict = "reached" if ratio >= wanted else "NOT reached"
            print(f"{client} to {other}: {ratio:.2f}, wanted {wanted:g}, {verdict}")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file (1024)")
    parser.add_argument("--parallel", type=int, default=4, help="connections (4)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5), and one to warm up")
    parser.add_argument("--no-digest", action="store_true", help="the Python client hashes nothing")
    parser.add_argument("--durability", choices=("full", "relaxed"), default="full", help="of the server (full)")
    parser.add_argument("--folder", type=Path, help="where file and servers are (in memory)")
    parser.add_argument(
        "--client", action="append", choices=("lean", "python", "uploader.js", "tus-js-client"), help="some of them"
    )
    return parser.parse_args(words)


def measure(options: argparse.Namespace, work: Path) -> dict[str, list[float]]:
    """MiB/s of each client in each round."""
    source = work / "bench.bin"
    size = options.size * MIB
    with source.open("wb") as file:
        block = os.urandom(4 * MIB)
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
    settings = {
        "server": {"max_upload_size": "64GB"},
        "uploads": {"durability": options.durability},
        "deduplication": {"enabled": False},
        "logging": {"level": "warning"},
    }
    server = FileServer(work / "server", settings)
    server.start()
    try:
        with tus_server(work) as tus:
            ways: dict[str, Callable[[int], float]] = {
                "lean": lambda number: lean(options, work, server, number),
                "python": lambda _: python(options, server, source),
                "uploader.js": lambda _: uploader_js(options, server, source),
                "tus-js-client": lambda _: tus_js_client(tus, source),
            }
            chosen = options.client or list(ways)
            rates: dict[str, list[float]] = {name: [] for name in ways if name in chosen}
            for number in range(options.rounds + 1):
                for name, found in rates.items():
                    seconds = ways[name](number)
                    if number:  # the first round warms up
                        found.append(options.size / seconds)
                    forget(server)
                    for left in (work / "tus").iterdir():
                        left.unlink()
    finally:
        server.stop()
    return rates


def lean(options: argparse.Namespace, work: Path, server: FileServer, number: int) -> float:
    """Seconds of as many PUTs as there are connections, together of the file's size."""
    client = Client.build(work, os.sched_getaffinity(0))
    part = options.size * MIB // options.parallel
    paths = [f"lean{number}/{index}.bin" for index in range(options.parallel)]
    targets = write_targets(work / "targets", [put_target("/", path, part, KEY) for path in paths])
    load = Load(
        "put", server.host, server.port, "bench", options.parallel, options.parallel, part, targets, seed=number
    )
    measured = client.run(load)
    measured.require_all_ok(options.parallel)
    return measured.wall_s


def python(options: argparse.Namespace, server: FileServer, source: Path) -> float:
    """Seconds of an upload by the Python client."""
    digest = "no" if options.no_digest else "yes"
    driver = str(UPLOADERS / "python_client.py")
    return seconds([sys.executable, driver, server.url, SECRET, str(source), str(options.parallel), digest])


def uploader_js(options: argparse.Namespace, server: FileServer, source: Path) -> float:
    """Seconds of an upload by uploader.js."""
    signature = signing.x_signature(KEY, CHUNKED)
    driver, endpoint = str(UPLOADERS / "uploader_js.mjs"), server.url + CHUNKED
    return seconds([node.node(), driver, str(UPLOADER), endpoint, signature, str(source), str(options.parallel)])


def tus_js_client(endpoint: str, source: Path) -> float:
    """Seconds of an upload by tus-js-client."""
    return seconds([node.node(), str(UPLOADERS / "tus_js_client.mjs"), str(node.PACKAGES), endpoint, str(source)])


def seconds(command: list[str]) -> float:
    """What a driver prints. Raises BenchError with its words when it fails."""
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=600)
    if ended.returncode != 0:
        raise BenchError(f"{Path(command[1]).name} failed: {ended.stderr.strip()[-500:]}")
    return float(ended.stdout.split()[-1])


@contextmanager
def tus_server(work: Path) -> Iterator[str]:
    """@tus/server with its file store; the URL where uploads are begun."""
    folder, port = work / "tus", free_port()
    folder.mkdir()
    command = [node.node(), str(TUS_SERVER), str(node.PACKAGES), str(folder), "127.0.0.1", str(port)]
    started = Child("@tus/server", command, log=work / "tus.log", env=node.environment(), cwd=work)
    try:
        started.wait_ready(lambda: accepts(port))
        yield f"http://127.0.0.1:{port}/tus"
    finally:
        started.stop(seconds=3)


if __name__ == "__main__":
    main()
