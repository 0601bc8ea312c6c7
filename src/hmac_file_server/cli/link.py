"""`link`: an upload link for a person with a browser."""

import io
import secrets as randomness
import sys
from pathlib import Path

import click

from hmac_file_server.cli.access import base_url_of, secret_of, settings_of
from hmac_file_server.cli.options import DURATION, SIZE, config_option, secret_file_option, url_option
from hmac_file_server.config import Secret, sizes


@click.command()
@click.option("--max-size", type=SIZE, default="5GB", show_default=True, help="Largest file the link takes.")
@click.option("--expires", type=DURATION, default="7d", show_default=True, help="How long the link works.")
@click.option("--files", type=click.IntRange(1, 1_000_000), help="How many files the link takes; any number without.")
@click.option("--form", is_flag=True, help="A link to a plain form, for browsers without JavaScript.")
@click.option("--qr", is_flag=True, help="Show the link as a QR code as well.")
@config_option
@secret_file_option
@url_option
def link(
    max_size: int,
    expires: float,
    files: int | None,
    form: bool,
    qr: bool,
    config_file: Path | None,
    secret_file: Path | None,
    base_url: str | None,
) -> int:
    """Print a link that a person opens in a browser to upload files.

    What it permits is signed into the part after #, which browsers do not send with the page's request. A link
    with --form has it in the query instead, and so it may end up in the logs of proxies.
    """
    from hmac_file_server.clock import SystemClock

    settings = settings_of(config_file)
    secret = secret_of(settings, config_file, secret_file, jwt=True)
    base = base_url_of(settings, base_url)
    if max_size > settings.server.max_upload_size:
        limit = sizes.show(settings.server.max_upload_size)
        click.echo(f"note: this configuration takes files up to server.max_upload_size = {limit}", err=True)
    address = upload_link(
        base, secret, max_size=max_size, files=files, now=SystemClock.time(), lifetime=expires, form=form
    )
    click.echo(address)
    if qr:
        _show_code(address)
    return 0


def _show_code(address: str) -> None:
    """Print the QR code of an address: in half blocks where the terminal's encoding has them, else in spaces."""
    import segno

    # Of the lowest level: a screen has no scratches, and a ticket makes a large code as it is.
    code = segno.make_qr(address, error="l")
    text = io.StringIO()
    code.terminal(text, border=2, compact=True)
    try:
        text.getvalue().encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        code.terminal(sys.stdout, border=2)
        return
    # White on black whatever the terminal's own colours are: not every reader takes a code the other way round.
    before, after = ("\x1b[97;40m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    for line in text.getvalue().splitlines():
        click.echo(f"{before}{line}{after}")


def upload_link(
    base_url: str,
    secret: Secret,
    *,
    max_size: int,
    files: int | None,
    now: float,
    lifetime: float,
    form: bool = False,
) -> str:
    """`<base URL>/#ticket=<token>`: may upload up to `max_size` bytes a file until `now + lifetime` (seconds).

    With `form` it is `<base URL>/?ticket=<token>`, which leads to a plain form.
    """
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
    return f"{base_url}/{'?' if form else '#'}ticket={signing.ticket(secret.reveal(), claims)}"
