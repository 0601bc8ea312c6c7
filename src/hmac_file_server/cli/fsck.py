"""`fsck`: check the stored files."""

from pathlib import Path

import click

from hmac_file_server.cli.access import settings_of
from hmac_file_server.cli.failure import Failure
from hmac_file_server.cli.options import config_option
from hmac_file_server.telemetry.lines import escaped


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended; nothing that is stored is deleted by it.")
@config_option
def fsck(*, repair: bool, config_file: Path | None) -> int:
    """Check the stored files, one line a problem; exit 1 when a problem is left."""
    from hmac_file_server.files import fsck as checker

    root = settings_of(config_file).server.storage_path
    if not root.is_dir():
        raise Failure(f"{root}: no such folder")
    report = checker.check(root, repair=repair)
    for code, path, text in report.problems:
        click.echo(f"{code}: {escaped(str(path), 4096)}: {text}")
    found, mended = len(report.problems), _count(report.repaired)
    if not found:
        click.echo("no problems")
        return 0
    click.echo(f"{found} problem{'s' if found > 1 else ''}, {mended} repaired")
    return 0 if mended >= found else 1


def _count(repaired: object) -> int:
    return repaired if isinstance(repaired, int) else len(repaired)  # type: ignore[arg-type]
