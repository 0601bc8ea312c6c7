"""`init`: a configuration with a fresh secret, and what the neighbours need to know of it."""

import json
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from hmac_file_server.cli.failure import Failure
from hmac_file_server.cli.snippets import SNIPPETS, Site
from hmac_file_server.config import addresses, secrets, template

SIZE_LIMIT = 1024**3
"""Bytes that the XMPP servers are told they may hand out slots for."""


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--url",
    default="https://upload.example.org/",
    show_default=True,
    help="Public URL of the server; its path becomes a base path.",
)
@click.option(
    "--xmpp-domain", metavar="DOMAIN", help="Domain of the XMPP server; by default that of --url less its first label."
)
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Address the server listens on.")
@click.option(
    "--snippet",
    "names",
    multiple=True,
    type=click.Choice([*SNIPPETS, "none"]),
    help="Print only this snippet; may be repeated.",
)
def init(folder: Path, url: str, xmpp_domain: str | None, listen: str, names: tuple[str, ...]) -> int:
    """Write DIR/config.toml (mode 0600) with a fresh secret.

    Prints what Prosody, ejabberd, Metronome, Caddy, nginx and systemd need for it. The secret stands in the
    snippets of the XMPP servers, so they are not for a public log.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise click.BadParameter(f"{url!r}: write https://host/ or https://host/path/", param_hint="--url")
    try:
        address = addresses.parse(listen)
    except ValueError as error:
        raise click.BadParameter(f"{listen!r}: {error}", param_hint="--listen") from None
    url = url.rstrip("/") + "/"
    path = folder.absolute() / "config.toml"
    site = Site(
        url=url,
        xmpp_domain=xmpp_domain or _parent_domain(parts.hostname),
        backend=str(address),
        secret=secrets.fresh().reveal().decode(),
        delete_secret=secrets.fresh().reveal().decode(),
        size_limit=SIZE_LIMIT,
        config_file=os.path.normpath(path),
        storage_path=os.path.normpath(folder.absolute() / "data"),
        program=_program(),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        secrets.write_private(path, configuration_text(site).encode())
    except FileExistsError:
        raise Failure(f"{path} is there already; nothing was changed") from None
    click.echo(f"Wrote {path}, with a fresh secret that only you can read.")
    click.echo(f"Start the server with: {site.program} serve --config {path}")
    for name, (title, render) in SNIPPETS.items():
        if not names or name in names:
            click.echo(f"\n--- {title} ---\n{render(site)}", nl=False)
    return 0


def configuration_text(site: Site) -> str:
    """The commented config.toml of a site."""
    prefixes = list(dict.fromkeys(["/", "/upload/", urlsplit(site.url).path or "/"]))
    return template.render(
        {
            "server.listen_address": json.dumps(site.backend),
            "server.base_path": json.dumps(prefixes),
            "server.storage_path": json.dumps(site.storage_path, ensure_ascii=False),
            "server.trusted_proxies": json.dumps(["127.0.0.1", "::1", "unix:"]),
            "security.secret": json.dumps(site.secret),
            "security.delete_secret": json.dumps(site.delete_secret),
        }
    )


def _program() -> str:
    """The command as a unit file must name it."""
    own = Path(sys.argv[0])
    if own.name == "hmac-file-server" and own.exists():
        return os.path.abspath(own)
    beside = Path(sys.executable).parent / "hmac-file-server"
    return str(beside) if beside.exists() else shutil.which("hmac-file-server") or "/usr/local/bin/hmac-file-server"


def _parent_domain(host: str) -> str:
    _, _, parent = host.partition(".")
    return parent if "." in parent or parent == "localhost" else host
