"""Any server that already runs: `--peer NAME=URL[,secret=S][,pid=N][,files=DIR]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.errors import BenchError, UnavailableError
from bench.peers.contract import Placement, Server, answers


@dataclass(frozen=True, slots=True)
class External:
    """A server started by somebody else; paths are appended to its URL.

    With a secret uploads are signed (slot v1); with the process id its CPU and memory are read; with the folder
    of its files they are checked and large ones removed after each run.
    """

    name: str
    host: str
    port: int
    prefix: str
    secret: bytes | None = None
    pid: int | None = None
    files: Path | None = None

    def start(self, work: Path, placement: Placement) -> Server:  # noqa: ARG002 - the Peer protocol
        """Look whether it answers; raises UnavailableError."""
        if not answers(self.host, self.port):
            raise UnavailableError(f"{self.name} does not answer at {self.host}:{self.port}")
        return Server(
            name=self.name, host=self.host, port=self.port, host_header=f"{self.host}:{self.port}", prefix=self.prefix,
            secret=self.secret, root_pid=self.pid, files=self.files, settings={"started": "by others, where it is pinned is unknown"},
        )  # fmt: skip


def parse(text: str) -> External:
    """Parse the value of `--peer`; raises BenchError."""
    name, equals, rest = text.partition("=")
    url, *options = rest.split(",")
    parts = urlsplit(url)
    if not equals or not name or parts.scheme != "http" or not parts.hostname:
        raise BenchError(f"--peer {text}: expected NAME=http://HOST:PORT/PREFIX/[,secret=S][,pid=N][,files=DIR]")
    values = dict(option.partition("=")[::2] for option in options)
    if unknown := set(values) - {"secret", "pid", "files"}:
        raise BenchError(f"--peer {name}: unknown option {min(unknown)}; known are secret, pid and files")
    try:
        pid = int(values["pid"]) if "pid" in values else None
        port = parts.port or 80
    except ValueError as error:
        raise BenchError(f"--peer {text}: {error}") from None
    path = parts.path or "/"
    return External(
        name=name, host=parts.hostname, port=port, prefix=path if path.endswith("/") else path + "/",
        secret=values["secret"].encode() if "secret" in values else None, pid=pid,
        files=Path(values["files"]) if "files" in values else None,
    )  # fmt: skip
