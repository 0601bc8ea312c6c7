"""`link`: an upload link for a person with a browser."""

import secrets as randomness
from pathlib import Path

import click

from hmac_file_server.cli.access import base_url_of, secret_of, settings_of
from hmac_file_server.cli.options import DURATION, SIZE, config_option, secret_file_option, url_option
from hmac_file_server.config import Secret, sizes


@click.command()
@click.option("--max-size", type=SIZE, default="5GB", show_default=True, help="Largest file the link takes.")
@click.option("--expires", type=DURATION, default="7d", show_default=True, help="How long the link works.")
@click.option("--files", type=click.IntRange(1, 1_000_000), help="How many files the link takes; any number without.")
@config_option
@secret_file_option
@url_option
def link(
    max_size: int,
    expires: float,
    files: int | None,
    config_file: Path | None,
    secret_file: Path | None,
    base_url: str | None,
) -> int:
    """Print a link that a person opens in a browser to upload files.

    What it permits is signed into the part after #, which browsers do not send with the page's request.
    """
    from hmac_file_server.clock import SystemClock

    settings = settings_of(config_file)
    secret = secret_of(settings, config_file, secret_file, jwt=True)
    base = base_url_of(settings, base_url)
    if max_size > settings.server.max_upload_size:
        limit = sizes.show(settings.server.max_upload_size)
        click.echo(f"note: this configuration takes files up to server.max_upload_size = {limit}", err=True)
    click.echo(upload_link(base, secret, max_size=max_size, files=files, now=SystemClock.time(), lifetime=expires))
    return 0


def upload_link(base_url: str, secret: Secret, *, max_size: int, files: int | None, now: float, lifetime: float) -> str:
    """`<base URL>/#ticket=<token>`: may upload up to `max_size` bytes a file until `now + lifetime` (seconds)."""
    from hmac_file_server.auth import signing

    claims: dict[str, object] = {
        "prefix": "",
        # Paths are for the server to choose: a link is no licence to name files.
        "ops": ["upload", "create", "chunk"],
        "max_size": max_size,
        "iat": int(now),
        "exp": int(now + lifetime),
        "jti": randomness.token_urlsafe(16),
    }
    if files is not None:
        claims["files"] = files
    return f"{base_url}/#ticket={signing.ticket(secret.reveal(), claims)}"
