"""The command line: `hmac-file-server COMMAND`.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted. Whatever a user can get wrong gives
one clear line on standard error and no traceback.
"""

import sys
from collections.abc import Sequence

import click

from hmac_file_server.cli.commands import program
from hmac_file_server.cli.failure import Failure
from hmac_file_server.config.errors import ConfigError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` default to those of the process."""
    try:
        result = program.main(
            args=None if arguments is None else list(arguments),
            prog_name="hmac-file-server",
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx is not None else "hmac-file-server"
        return _say(f"{name}: {_sentence(error.format_message())} (see {name} --help)", USAGE)
    except ConfigError as error:
        for one in error.all:
            _say(str(one), FAILED)
        return FAILED
    except Failure as failure:
        return _say(f"hmac-file-server: {failure}", failure.exit_code)
    except click.ClickException as error:
        return _say(f"hmac-file-server: {error.format_message()}", FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _say("hmac-file-server: interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); the interpreter must not complain of it at exit.
        _silence(sys.stdout)
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"hmac-file-server: {where}{error.strerror or error}", FAILED)
    return result if isinstance(result, int) else DONE


def _say(line: str, code: int) -> int:
    click.echo(" ".join(line.split("\n")), err=True)
    return code


def _sentence(message: str) -> str:
    return " ".join(part.strip() for part in message.rstrip(".").splitlines())


def _silence(stream: object) -> None:
    import os

    fileno = getattr(stream, "fileno", None)
    if fileno is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, fileno())
        os.close(null)
