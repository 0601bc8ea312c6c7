"""`fsck`: check the stored files."""

from pathlib import Path

import click

from hmac_file_server.cli.access import settings_of
from hmac_file_server.cli.failure import Failure
from hmac_file_server.cli.options import config_option
from hmac_file_server.config import sizes
from hmac_file_server.telemetry.lines import escaped


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended; nothing that is stored is deleted by it.")
@config_option
def fsck(*, repair: bool, config_file: Path | None) -> int:
    """Check the stored files, one line a problem; exit 1 when a problem is left.

    Works while the server runs.
    """
    from hmac_file_server.files import fsck as checker

    root = settings_of(config_file).server.storage_path
    if not root.is_dir():
        raise Failure(f"{root}: no such folder")
    report = checker.check(root, repair=repair)
    repaired = set(report.repaired)
    for problem in report.problems:
        done = ", repaired" if problem in repaired else ""
        click.echo(f"{problem.code}: {escaped(problem.path, 4096)}: {escaped(problem.text, 4096)}{done}")
    counted = f"{report.files} files, {sizes.show(report.bytes)}"
    left = len(report.problems) - len(repaired)
    if not report.problems:
        click.echo(f"{counted}: no problems")
    else:
        click.echo(f"{counted}: {len(report.problems)} problems, {len(repaired)} repaired")
    return 1 if left else 0
