"""How the commands print what is known of one thing."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import click

from hmac_file_server.telemetry.lines import escaped


def show_record(fields: Mapping[str, object], *, as_json: bool) -> None:
    """Print the fields as one JSON object, or a line each; "-" for what is not known."""
    if as_json:
        click.echo(json.dumps(fields))
    else:
        for name, value in fields.items():
            click.echo(f"{name + ':':<12} {escaped(str(value), 4096) if value is not None else '-'}")


def utc(epoch: float) -> str:
    """Epoch seconds as RFC 3339, in UTC."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
