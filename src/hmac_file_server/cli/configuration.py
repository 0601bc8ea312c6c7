"""`config check` and `config show`."""

import os
from pathlib import Path

import click

from hmac_file_server.cli.options import config_option, set_option
from hmac_file_server.config import load
from hmac_file_server.config.model import KEYS


@click.group("config")
def configuration() -> None:
    """Check the configuration, or show what counts and why."""


@configuration.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@config_option
@set_option
def check(file: Path | None, config_file: Path | None, overrides: tuple[str, ...]) -> int:
    """Say whether the server would start with this configuration; exit 1 when not.

    FILE is the same as --config FILE.
    """
    path = file if file is not None else config_file
    loaded = load(path, environ=os.environ, overrides=overrides)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    name = str(path) if path is not None else "embedded defaults"
    count = len(loaded.warnings)
    click.echo(f"{name}: usable" + (f", {count} warning{'s' if count > 1 else ''}" if count else ""))
    return 0


@configuration.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@config_option
@set_option
@click.option("--origin/--no-origin", default=True, show_default=True, help="Say where each value comes from.")
def show(file: Path | None, config_file: Path | None, overrides: tuple[str, ...], *, origin: bool) -> int:
    """Print every setting as TOML, each with its origin; secrets are masked.

    FILE is the same as --config FILE.
    """
    path = file if file is not None else config_file
    loaded = load(path, environ=os.environ, overrides=overrides)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    section = ""
    for name, key in KEYS.items():
        if key.section != section:
            click.echo(f"{chr(10) if section else ''}[{key.section}]")
            section = key.section
        line = f"{key.name} = {key.kind.show(key.value(loaded.settings))}"
        click.echo(f"{line:<50} # {loaded.origins[name]}" if origin else line)
    return 0
