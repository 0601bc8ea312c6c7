"""aiohttp, the framework a Python programmer would reach for (in the test requirements)."""

from __future__ import annotations

import importlib.util
import secrets
import sys
from pathlib import Path

from bench.errors import UnavailableError
from bench.peers.contract import Placement, Server, free_port, spawn, wait_until_ready

PROGRAM = Path(__file__).with_name("aiohttp_server.py")


class Aiohttp:
    """The plain aiohttp server of `aiohttp_server.py`."""

    name = "aiohttp"

    def start(self, work: Path, placement: Placement) -> Server:
        """Start it; raises UnavailableError when aiohttp is not in this environment."""
        if importlib.util.find_spec("aiohttp") is None:
            raise UnavailableError(
                "aiohttp is not in this environment: pip install -r requirements/test.txt, or leave it out with --servers"
            )
        work.mkdir(parents=True)
        port, secret, log = free_port(), secrets.token_hex(16), work / "output.log"
        command = [sys.executable, str(PROGRAM), str(port), str(work / "root"), secret, str(placement.processes)]
        with log.open("wb") as out:
            process = spawn(command, out, placement.cores)
        server = Server(
            name=self.name, host="127.0.0.1", port=port, host_header=f"127.0.0.1:{port}", secret=secret.encode(),
            files=work / "root", process=process, root_pid=process.pid, log=log,
            settings={"processes": str(placement.processes), "access log": "off"},
        )  # fmt: skip
        return wait_until_ready(server)
