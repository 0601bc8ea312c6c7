"""The tree of commands; each is imported when it is run, so that `serve` starts without the others."""

from importlib import import_module
from types import MappingProxyType

import click

from hmac_file_server import __version__

MODULES: MappingProxyType[str, str] = MappingProxyType(
    {
        "serve": "hmac_file_server.cli.serve:serve",
        "init": "hmac_file_server.cli.init:init",
        "config": "hmac_file_server.cli.configuration:configuration",
        "sign": "hmac_file_server.cli.sign:sign",
        "link": "hmac_file_server.cli.link:link",
        "upload": "hmac_file_server.cli.upload:upload",
        "files": "hmac_file_server.cli.files:files",
        "sessions": "hmac_file_server.cli.sessions:sessions",
        "fsck": "hmac_file_server.cli.fsck:fsck",
    }
)
"""Command name to "module:command", in the order of the help."""


class LazyCommands(click.Group):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every command's name."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name."""
        place = MODULES.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a did-you-mean."""
        name = args[0] if args else ""
        if name not in MODULES and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, MODULES, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(MODULES)}"
            raise click.UsageError(f"no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hmac-file-server")
def program() -> None:
    """Takes signed file uploads over bad networks and never loses a byte it has acknowledged."""
