"""hmac-file-server itself, in the settings whose cost is of interest."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UnavailableError
from bench.peers.contract import Placement, Server, free_port, spawn, wait_until_ready

PRIVATE = ".hmac-file-server"

CONFIGURATION = """\
[server]
listen_address = "127.0.0.1:{port}"
base_path = ["/", "/upload/"]
storage_path = "{storage}"
max_upload_size = "32GB"
processes = {processes}

[deduplication]
maxsize = "32GB"

[security]
secret = "{secret}"

"""


@dataclass(frozen=True, slots=True)
class Ours:
    """One variant of the settings; the name says how it differs from dedup off, relaxed, no access log."""

    name: str = "ours"
    dedup: bool = False
    durability: str = "relaxed"
    access_log: bool = False

    def settings(self) -> dict[str, str]:
        """Return the varied settings as `--set` takes them."""
        return {
            "deduplication.enabled": "true" if self.dedup else "false",
            "uploads.durability": self.durability,
            "logging.level": "info" if self.access_log else "warning",
        }

    def start(self, work: Path, placement: Placement) -> Server:
        """Start it and wait until it answers; raises UnavailableError when it is not installed or ends."""
        return wait_until_ready(self.launch(work, placement))

    def launch(self, work: Path, placement: Placement) -> Server:
        """Start it and return at once; raises UnavailableError when it is not installed in this environment."""
        work.mkdir(parents=True)
        port, secret = free_port(), secrets.token_hex(32)
        storage, config, log = work / "files", work / "config.toml", work / "output.log"
        storage.mkdir()
        config.touch(mode=0o600)
        config.write_text(
            CONFIGURATION.format(
                port=port, storage=storage, secret=secret, processes=placement.processes,
            ),
        )  # fmt: skip
        with log.open("wb") as out:
            process = spawn(command(config, self.settings()), out, placement.cores, {"PYTHONUNBUFFERED": "1"})
        return Server(
            name=self.name, host="127.0.0.1", port=port, host_header=f"127.0.0.1:{port}", secret=secret.encode(),
            files=storage, scratch=(storage / PRIVATE / "blobs",), process=process, root_pid=process.pid, log=log,
            settings={**self.settings(), "server.processes": str(placement.processes)},
        )  # fmt: skip


def program() -> str:
    """Return the installed command; HMAC_FILE_SERVER_BENCH_COMMAND names another. Raises UnavailableError."""
    chosen = os.environ.get("HMAC_FILE_SERVER_BENCH_COMMAND")
    beside = Path(sys.executable).with_name("hmac-file-server")
    found = chosen or (str(beside) if beside.exists() else shutil.which("hmac-file-server"))
    if not found:
        raise UnavailableError("hmac-file-server is not installed in this environment: pip install -e .")
    return found


def command(config: Path, settings: dict[str, str]) -> list[str]:
    """Return the command line that serves with `config` and the settings on top."""
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [program(), "serve", "--config", str(config), *changes]


VARIANTS = {
    variant.name: variant
    for variant in (
        Ours(),
        Ours("ours-dedup", dedup=True),
        Ours("ours-full", durability="full"),
        Ours("ours-dedup-full", dedup=True, durability="full"),
        Ours("ours-log", access_log=True),
    )
}
