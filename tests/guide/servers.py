"""Servers that run on the guide's configuration, as printed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.fixtures import slots
from tests.fixtures.child import free_port, wait_until
from tests.fixtures.server import Answer, FileServer
from tests.guide import printed

StartGuideServer = Callable[..., FileServer]
"""Starts a server on the guide's configuration; takes more `section.key=value` overrides."""


def guide_server(folder: Path, *overrides: str, configuration: str = printed.CONFIGURATION) -> FileServer:
    """A server on the guide's configuration, not started.

    Only what belongs to the machine of the tests is overridden: the port, the folder, the room on its disk. The
    guide sets no secret, so the server makes one.
    """
    folder.mkdir()
    (folder / "config.toml").write_text(configuration, encoding="utf-8")
    port = free_port()
    machine = (
        f"server.listen_address=127.0.0.1:{port}",
        f"server.storage_path={folder / 'files'}",
        "server.min_free_bytes=1MB",
    )
    return FileServer(folder, None, (*machine, *overrides), port)


def signature(server: FileServer, path: str) -> str:
    """`X-Signature` of the path, with the secret that the server made."""
    secret = (server.storage / ".hmac-file-server" / "secret").read_text(encoding="ascii").strip()
    return slots.x_signature(path, secret)


def status(server: FileServer, session: str) -> dict[str, object]:
    """What the server says of the session."""
    answer = server.request("GET", f"/upload/status?session_id={session}")
    assert answer.status == 200, answer.body
    return answer.json()


def download(server: FileServer, url: object) -> Answer:
    """What lies under a `url` of an answer, which may be absolute or a path."""
    assert isinstance(url, str)
    return server.request("GET", urlsplit(url).path)


def crash(server: FileServer) -> None:
    """SIGKILL to every process of the server; returns when all of them are gone."""
    child, server.child = server.child, None
    assert child is not None
    processes = [child.pid, *_children(child.pid)]
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    assert child.process.wait(20) == -signal.SIGKILL
    wait_until(lambda: not any(map(_alive, processes)), "the processes of the server are gone")


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # in a container nobody may be there to reap it
