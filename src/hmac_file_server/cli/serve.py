"""`serve`: run the server."""

import contextlib
import os
from pathlib import Path

import click

from hmac_file_server.cli.link import upload_link
from hmac_file_server.cli.options import config_option, set_option
from hmac_file_server.clock import SystemClock
from hmac_file_server.config import ConfigError, Loaded, Settings, addresses, load, with_secret

_LINK_SECONDS = 86400.0


@click.command()
@config_option
@set_option
def serve(config_file: Path | None, overrides: tuple[str, ...]) -> int:
    """Run the server until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    Without --config it runs on embedded defaults: files below ./data, a secret of its own,
    http://127.0.0.1:8080.
    """
    from hmac_file_server.telemetry import events, log

    started = dict(os.environ)

    def read() -> Loaded:
        return load(config_file, environ=started, overrides=overrides)

    def reread() -> Loaded:
        # Before the configuration is looked at: a mistake in it must not keep a moved log file open.
        with contextlib.suppress(OSError):
            log.reopen()
        return read()

    loaded, new_secret = with_secret(read())
    try:
        log.configure(loaded.settings.logging)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", str(loaded.settings.logging.file), key="logging.file", code="file"
        ) from None
    for warning in loaded.warnings:
        log.event(events.CONFIG_WARNING, warning=warning)
    if new_secret is not None:
        log.event(events.SECRET_CREATED, path=str(new_secret))
    from hmac_file_server import server

    # Somebody who tries it out gets something to try; a service with a configuration prints no tickets.
    return server.run(loaded, reread, _print_link if config_file is None else None)


def _print_link(settings: Settings, listening: tuple[str, ...]) -> None:
    """An upload link and a command that uses it, on standard output."""
    url = next((address.url for address in map(addresses.parse, listening) if address.url), "")
    if not url:
        return
    if settings.server.tls_certificate is not None:
        url = "https" + url.removeprefix("http")
    secret = (settings.security.jwt_secret or settings.security.secret)[0]
    now = SystemClock.time()
    link = upload_link(
        url, secret, max_size=settings.server.max_upload_size, files=None, now=now, lifetime=_LINK_SECONDS
    )
    ticket = link.partition("#ticket=")[2]
    click.echo(f"\nUpload link, good for a day:\n  {link}\n")
    click.echo(f'or with curl:\n  curl -H "Authorization: Bearer {ticket}" -F file=@README.md {url}/upload\n')
