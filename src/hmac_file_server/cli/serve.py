"""`serve`: run the server."""

import contextlib
import os
from pathlib import Path

import click

from hmac_file_server.cli.options import config_option, set_option
from hmac_file_server.config import ConfigError, Loaded, load, with_secret


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

    return server.run(loaded, reread)
