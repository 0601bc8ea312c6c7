"""Options that several commands share, and values as people write them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hmac_file_server.config import durations, sizes

if TYPE_CHECKING:
    _SizeType = click.ParamType[int]
    _DurationType = click.ParamType[float]
else:  # not generic at run time before click 8.3
    _SizeType = _DurationType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """--config FILE."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="HMAC_FILE_SERVER_CONFIG",
        show_envvar=True,
        help="Configuration file; without one the embedded defaults count.",
    )(function)


def set_option(function: F) -> F:
    """--set section.key=value, any number of times."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Set one value over file and environment; may be repeated.",
    )(function)


def secret_file_option(function: F) -> F:
    """--secret-file FILE."""
    return click.option(
        "--secret-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with the secret; or set HMAC_FILE_SERVER_SECRET.",
    )(function)


def url_option(function: F) -> F:
    """--url URL."""
    return click.option(
        "--url",
        "base_url",
        metavar="URL",
        help="Base URL of the server as clients reach it; by default its first address.",
    )(function)


class Size(_SizeType):
    """A size such as 10MB, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        try:
            return sizes.parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}; write 1048576, 10MB or 1.5GiB", param, ctx)


class Duration(_DurationType):
    """A duration such as 1h30m, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, at least 1."""
        if isinstance(value, float):
            return value
        try:
            seconds = durations.parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}; write 90s, 1h30m or 7d", param, ctx)
        if seconds < 1:
            self.fail(f"{value!r}: at least 1s", param, ctx)
        return seconds


SIZE = Size()
DURATION = Duration()
