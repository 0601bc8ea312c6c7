"""nginx with its WebDAV module (Debian package nginx-light), tuned for large bodies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.errors import UnavailableError
from bench.peers.contract import Placement, Server, free_port, spawn, wait_until_ready

# It checks no signature, which favours it. temp path and root lie on one file system, so a PUT is temp + rename.
CONFIGURATION = """\
{user}daemon off;
worker_processes {processes};
pid {work}/nginx.pid;
error_log {work}/error.log crit;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 512k;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port}{reuseport};
    root {work}/root;
    location / {{
      dav_methods PUT;
      create_full_put_path on;
    }}
  }}
}}
"""


def configuration(work: Path, port: int, processes: int, *, as_root: bool) -> str:
    """Return the configuration file; run by root, the workers stay root so that they may write under `work`."""
    return CONFIGURATION.format(
        work=work, port=port, processes=processes, user="user root;\n" if as_root else "",
        reuseport=" reuseport" if processes > 1 else "",
    )  # fmt: skip


class Nginx:
    """The reference that all ratios are taken to."""

    name = "nginx"

    def start(self, work: Path, placement: Placement) -> Server:
        """Start nginx; raises UnavailableError when the package is missing."""
        binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise UnavailableError(
                "nginx is not installed: apt-get install nginx-light, or leave it out with --servers"
            )
        (work / "root").mkdir(parents=True)
        port = free_port()
        config = work / "nginx.conf"
        config.write_text(configuration(work, port, placement.processes, as_root=os.geteuid() == 0))
        log = work / "output.log"
        with log.open("wb") as out:
            process = spawn(
                [binary, "-p", str(work), "-e", str(work / "error.log"), "-c", str(config)], out, placement.cores
            )
        server = Server(
            name=self.name, host="127.0.0.1", port=port, host_header=f"127.0.0.1:{port}", files=work / "root" / "upload",
            process=process, root_pid=process.pid, log=log,
            settings={"workers": str(placement.processes), "access log": "off"},
        )  # fmt: skip
        return wait_until_ready(server)
