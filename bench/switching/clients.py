"""The clients that upload: each a command, run in a namespace of its own with what it has to do in a file."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.fixtures import node
from tests.fixtures.server import environment
from tests.guide import printed

from bench.errors import BenchError
from bench.switching.servers import DRIVERS, KEY, PROJECT, Kind, Site
from hmac_file_server.auth import signing

UPLOADER: Final = PROJECT / "src" / "hmac_file_server" / "web" / "uploader.js"
TUS_JS_CLIENT: Final = PROJECT / "tests" / "clients" / "upload.mjs"
CURL_RETRIES: Final = ("--retry", "10", "--retry-all-errors")
CURL_WATCHES: Final = ("--retry-delay", "1", "--speed-limit", "1000", "--speed-time", "3", "--connect-timeout", "3")


@dataclass(frozen=True, slots=True)
class Job:
    """What to upload, where to, and a folder for whatever the client writes."""

    path: Path
    site: Site
    folder: Path

    def write(self, name: str, content: str) -> str:
        """A file in the folder; its path."""
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return str(path)

    def file(self) -> str:
        """The path of a file that says all of it as JSON."""
        site = self.site
        told = {
            "path": str(self.path),
            "name": self.path.name,
            "base": site.base,
            "tus": site.tus,
            "tusFields": dict(site.tus_fields),
            "chunked": site.chunked,
            "chunkedFields": dict(site.chunked_fields),
            "secret": site.secret,
        }
        return self.write("job.json", json.dumps(told))


Command = Callable[[Job], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Client:
    """One way to upload a file.

    title   in tables
    chunked it speaks the chunk API, and so needs a server that has it; otherwise tus
    begin   makes the command line; it ends with 0, or prints a line of JSON with `done`, when the file is there
    needs   makes sure that it is there; what is missing, in words
    mptcp   it speaks Multipath TCP
    announces   it prints a line of JSON with `begin` when it begins; for others that is their first packet
    """

    name: str
    title: str
    chunked: bool
    begin: Command
    needs: Callable[[], str]
    mptcp: bool = False
    announces: bool = False

    def fits(self, server: Kind) -> bool:
        """Whether client and server have a protocol in common."""
        return server.chunked or not self.chunked


def nothing() -> str:
    """No need."""
    return ""


def ours_in_python() -> str:
    """The package."""
    return "" if find_spec("hmac_file_server.client") else "hmac_file_server.client is not there"


def ours_in_javascript() -> str:
    """The module."""
    return "" if UPLOADER.exists() else "uploader.js is not there"


def javascript() -> str:
    """The packages of the tests."""
    there = (node.PACKAGES / "node_modules" / "tus-js-client").is_dir()
    return "" if there else "tus-js-client is not installed: run scripts/npm-packages"


def python_client(protocol: str) -> Command:
    """Our Python client."""
    return lambda job: [sys.executable, str(DRIVERS / "python_client.py"), protocol, job.file()]


def uploader_js(job: Job) -> list[str]:
    """Our JavaScript client, in Node."""
    return [node.node(), str(DRIVERS / "uploader.mjs"), str(UPLOADER), job.file()]


def upload_page(job: Job) -> list[str]:
    """Our page in Chromium, with the link that a person would have."""
    now = int(time.time())
    claims = {"prefix": "", "ops": ["upload", "create", "chunk"], "max_size": 5 << 30, "iat": now, "exp": now + 86400}
    link = f"{job.site.base}/#ticket={signing.ticket(KEY, {**claims, 'jti': 'bench'})}"
    return [sys.executable, str(DRIVERS / "page_client.py"), link, str(job.path)]


def tus_js_client(job: Job) -> list[str]:
    """tus-js-client in Node, with the options of docs/clients.md."""
    options = {
        "endpoint": job.site.tus,
        "headers": dict(job.site.tus_fields),
        "metadata": {"filename": job.path.name, "filetype": "application/octet-stream"},
    }
    told = {"path": str(job.path), "options": options, "input": "buffer"}
    return [node.node(), str(TUS_JS_CLIENT), job.write("job.json", json.dumps(told))]


def tuspy(job: Job) -> list[str]:
    """tuspy."""
    return [sys.executable, str(DRIVERS / "tuspy_client.py"), job.file()]


def curl(*options: str) -> Command:
    """The guide's curl lines."""

    def command(job: Job) -> list[str]:
        signature = job.site.chunked_fields["X-Signature"]
        return ["sh", str(DRIVERS / "curl.sh"), str(job.path), job.site.chunked, signature, *options]

    return command


def guide(job: Job) -> list[str]:
    """The guide's class as printed, but for the signature that a reader has to fill in."""
    signed = printed.CLASS.replace(printed.SCRIPT_SIGNATURE, job.site.chunked_fields["X-Signature"])
    driver = (printed.HERE / "node-driver.js").read_text(encoding="utf-8")
    return [node.node(), job.write("upload.cjs", signed + driver), job.site.chunked, str(job.path), job.path.name]


CLIENTS: Final[Mapping[str, Client]] = {
    client.name: client
    for client in (
        Client("uploader.js", "`uploader.js` in Node", True, uploader_js, ours_in_javascript),
        Client("python", "Python client, chunks", True, python_client("chunked"), ours_in_python, mptcp=True),
        Client("python-tus", "Python client, tus", False, python_client("tus"), ours_in_python, mptcp=True),
        Client("page", "upload page in Chromium", True, upload_page, ours_in_javascript, announces=True),
        Client("tus-js-client", "tus-js-client in Node", False, tus_js_client, javascript),
        Client("tuspy", "tuspy, `retries=5`", False, tuspy, nothing),
        Client("curl", "curl `--retry`", True, curl(*CURL_RETRIES), nothing),
        Client("curl-watching", "curl `--retry --speed-time`", True, curl(*CURL_RETRIES, *CURL_WATCHES), nothing),
        Client("guide", "the guide's class", True, guide, nothing),
    )
}


def chosen(names: Sequence[str]) -> list[Client]:
    """Clients by name; all for none. Raises BenchError for an unknown one."""
    for name in names:
        if name not in CLIENTS:
            raise BenchError(f"unknown client {name}; there are {', '.join(CLIENTS)}")
    return [client for name, client in CLIENTS.items() if not names or name in names]


def surroundings() -> dict[str, str]:
    """The environment of every client: this code, and nothing that changes Node or curl."""
    left_out = ("NODE_", "CURL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {name: value for name, value in environment().items() if not name.upper().startswith(left_out)}
    return {**kept, "PYTHONPATH": os.pathsep.join([kept["PYTHONPATH"], str(PROJECT)])}
