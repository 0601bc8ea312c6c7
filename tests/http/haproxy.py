"""haproxy in front of the server, with and without waiting for whole requests."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fixtures.child import Child, accepts, free_port, program


class HAProxy:
    """One haproxy on `port`. Each request that it forwards gets `X-Front` with its client's address.

    `buffered`: a body is awaited before its request is forwarded (as far as haproxy's buffer goes).
    """

    def __init__(self, folder: Path, backend: int, *, buffered: bool) -> None:
        self.port = free_port()
        config = folder / "haproxy.cfg"
        config.write_text(
            f"""
global
    maxconn 2000
    nbthread 1
    log stdout format raw daemon
defaults
    mode http
    log global
    option httplog
    {"option http-buffer-request" if buffered else "no option http-buffer-request"}
    retries 0
    timeout connect 5s
    timeout client 1s
    timeout server 2s
    timeout http-request 1s
    timeout http-keep-alive 1s
frontend front
    bind 127.0.0.1:{self.port}
    http-request set-header X-Front %[src]
    default_backend files
backend files
    http-reuse always
    server file-server 127.0.0.1:{backend}
""",
            encoding="utf-8",
        )
        self.child = Child(
            "haproxy",
            [program("haproxy", "haproxy"), "-db", "-f", str(config)],
            log=folder / "haproxy.out",
            env=os.environ,
            cwd=folder,
        )
        self.child.wait_ready(lambda: accepts(self.port))

    def stop(self) -> None:
        """End it at once: connections that it keeps are of no interest any more."""
        self.child.process.kill()
        self.child.process.wait()
