"""What `init` prints works as printed: configuration, Prosody, ejabberd and nginx."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.fixtures import slots
from tests.fixtures.child import free_port
from tests.fixtures.content import content
from tests.fixtures.documents import snippet
from tests.fixtures.nginx import Nginx
from tests.fixtures.server import SECRET, FileServer, environment, request
from tests.fixtures.xmpp import Ejabberd, Prosody, XmppHost, logged_in


def printed(folder: Path, port: int, domain: str, *snippets: str) -> str:
    """Run `init` for a server on the port: its whole output."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hmac_file_server", "init", str(folder)),
            *("--url", f"http://127.0.0.1:{port}/upload/", "--xmpp-domain", domain),
            *("--listen", f"127.0.0.1:{port}"),
            *(word for name in snippets for word in ("--snippet", name)),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def snippet_of(output: str) -> str:
    """The text below the only `--- title ---` of the output."""
    _, _, text = output.partition("\n--- ")
    return text.partition("\n")[2]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[FileServer, Path]]:
    """A server that will run on the configuration that `init` writes into its folder."""
    folder = tmp_path / "site"
    port = free_port()
    # Of the machine, not of the configuration: room on the disk of the tests.
    overrides = ("server.min_free_bytes=1MB",)
    server = FileServer(folder, None, overrides, port)
    try:
        yield server, folder
    finally:
        server.stop()


def upload(host: XmppHost, body: bytes) -> str:
    async def run() -> str:
        async with logged_in(host) as client:
            url: str = await client.plugin["xep_0363"].upload_file(
                "très cool.jpg",
                size=len(body),
                content_type="image/jpeg",
                input_file=io.BytesIO(body),
                timeout=10,
            )
            return url

    return asyncio.run(run())


def assert_served(server: FileServer, url: str, body: bytes) -> None:
    assert url.startswith(f"{server.url}/upload/")
    got = server.request("GET", urlsplit(url).path)
    assert (got.status, got.body == body, got.headers["content-type"]) == (200, True, "image/jpeg")


@pytest.mark.parametrize("kind", ["prosody-v1", "prosody-v2", "prosody-jwt"])
def test_prosody_with_the_printed_component(site: tuple[FileServer, Path], tmp_path: Path, kind: str) -> None:
    server, folder = site
    component = snippet_of(printed(folder, server.port, "init.test", kind))
    server.start()
    home = tmp_path / "prosody"
    home.mkdir()
    prosody = Prosody(home, {"init.test": component})
    try:
        body = content(400_000, kind)
        assert_served(server, upload(prosody.hosts["init.test"], body), body)
    finally:
        prosody.stop()


def test_ejabberd_with_the_printed_modules(site: tuple[FileServer, Path], tmp_path: Path) -> None:
    server, folder = site
    modules = snippet_of(printed(folder, server.port, "localhost", "ejabberd"))
    server.start()
    home = tmp_path / "ejabberd"
    home.mkdir()
    # The snippet goes into a configuration that has mod_disco already, as the one of the package does.
    ejabberd = Ejabberd(home, modules + "  mod_disco: {}\n")
    try:
        body = content(400_000, "ejabberd")
        assert_served(server, upload(ejabberd.host, body), body)
    finally:
        ejabberd.stop()


def test_nginx_with_the_printed_block(site: tuple[FileServer, Path], tmp_path: Path) -> None:
    server, folder = site
    block = snippet_of(printed(folder, server.port, "init.test", "nginx"))
    secret = next(line.split('"')[1] for line in server.config.read_text().splitlines() if line.startswith("secret ="))
    server.start()
    home = tmp_path / "nginx"
    home.mkdir()
    nginx = Nginx(home, server.port, block)
    try:
        body = content(3_000_000, "nginx")
        where = slots.target("init/file.jpg", slots.v1("init/file.jpg", len(body), secret))
        sent = request("127.0.0.1", nginx.printed, "PUT", where, body, {"Content-Type": "image/jpeg"})
        assert sent.status == 201
        got = request("127.0.0.1", nginx.printed, "GET", "/upload/init/file.jpg", headers={"Range": "bytes=5-"})
        assert (got.status, got.body == body[5:]) == (206, True)
    finally:
        nginx.stop()


def test_the_configuration_of_the_page(site: tuple[FileServer, Path]) -> None:
    """The configuration of docs/xmpp.md with Metronome's keys: started, used, and its limit kept."""
    server, folder = site
    folder.mkdir()
    sample = "the-same-long-secret-on-both-sides"
    metronome = snippet("xmpp.md", "metronome-config", {sample: SECRET}).partition("\n")
    assert metronome[0] == "[security]"
    server.config.write_text(
        snippet(
            "xmpp.md",
            "config",
            {
                "127.0.0.1:8080": f"127.0.0.1:{server.port}",
                "/var/lib/hmac-file-server": str(server.storage),
                f'secret = "{sample}"\n': metronome[2],
            },
        )
    )
    server.config.chmod(0o600)
    server.start()
    body = b"documented"
    assert server.request("PUT", slots.target("d/a.txt", slots.v1("d/a.txt", len(body))), body).status == 201
    token = slots.delete_token("d/a.txt", "another-long-secret-for-deletions")
    assert server.request("DELETE", slots.target("d/a.txt", token)).status == 204
    assert server.files() == set()
    large = 100 * 1024 * 1024 + 1
    head = {"Content-Length": str(large), "Expect": "100-continue"}
    over = server.request("PUT", slots.target("d/b.bin", slots.v1("d/b.bin", large)), None, head)
    assert over.status == 413
    assert "WARNING" not in server.log_text()
