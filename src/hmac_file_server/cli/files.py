"""`files list`, `files show` and `files delete`: look after the stored files, also while the server runs."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hmac_file_server.cli.access import settings_of
from hmac_file_server.cli.failure import Failure
from hmac_file_server.cli.options import config_option
from hmac_file_server.cli.records import show_record, utc
from hmac_file_server.config import Settings, sizes
from hmac_file_server.telemetry.lines import escaped

if TYPE_CHECKING:
    from hmac_file_server.files.contract import Entry, StoragePath
    from hmac_file_server.files.local import LocalFileStore


@click.group()
def files() -> None:
    """List, show or delete stored files, also while the server runs."""


@files.command("list")
@click.argument("prefix", default="")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
def list_files(prefix: str, config_file: Path | None, *, as_json: bool) -> int:
    """List stored files whose path begins with PREFIX: time, size, path."""
    from hmac_file_server.files.contract import StoragePath

    with _opened(settings_of(config_file)) as store:
        for path in sorted(path for path in store.paths() if path.startswith(prefix)):
            entry = store.head(StoragePath(path))
            if entry is None:
                continue
            if as_json:
                click.echo(json.dumps(_fields(entry)))
            else:
                click.echo(f"{_time(entry.created)}  {sizes.show(entry.size):>12}  {escaped(path, 4096)}")
    return 0


@files.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@config_option
def show(path: str, config_file: Path | None, *, as_json: bool) -> int:
    """Show what is known of the file at PATH (a storage path, as `files list` prints it)."""
    with _opened(settings_of(config_file)) as store:
        entry = store.head(_parsed(path))
        if entry is None:
            raise Failure(f"{path}: no such stored file")
        fields = _fields(entry)
    show_record(fields, as_json=as_json)
    return 0


@files.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@config_option
def delete(paths: tuple[str, ...], config_file: Path | None) -> int:
    """Delete the files at the PATHs; exit 1 when one of them was not there."""
    missing = 0
    with _opened(settings_of(config_file)) as store:
        for path, parsed in [(path, _parsed(path)) for path in paths]:
            if store.delete(parsed, "command"):
                click.echo(f"deleted {escaped(path, 4096)}")
            else:
                missing += 1
                click.echo(f"{escaped(path, 4096)}: no such stored file", err=True)
    os.sync()
    return 1 if missing else 0


class _Opened:
    """A store with a way to walk it."""

    def __init__(self, store: "LocalFileStore") -> None:
        self.head = store.head
        self.delete = store.delete
        self._store = store

    def paths(self) -> Iterator[str]:
        from hmac_file_server.files.directories import is_regular
        from hmac_file_server.files.expiry import walk

        for path, found in walk(self._store._disk, self._store._directories):
            if is_regular(found.st_mode):
                yield path


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[_Opened]:
    from hmac_file_server.clock import SystemClock
    from hmac_file_server.files.contract import StorageError
    from hmac_file_server.files.local import LocalFileStore

    root = settings.server.storage_path
    if not root.is_dir():
        raise Failure(f"{root}: no such folder")
    try:
        # Relaxed, whatever the server's durability: opened in full, the store would take all of a relaxed server's
        # files for synced. What is deleted is synced by `delete`.
        store = LocalFileStore(root, durability="relaxed", clock=SystemClock(), submit=lambda job: job())
        try:
            yield _Opened(store)
        finally:
            store.close()
    except StorageError as error:
        raise Failure(f"{root}: {error}") from None


def _parsed(path: str) -> "StoragePath":
    from hmac_file_server.files.contract import PathRefused
    from hmac_file_server.files.paths import parse

    try:
        return parse(path)
    except PathRefused as refused:
        raise Failure(f"{escaped(path)}: {refused.reason}") from None


def _fields(entry: "Entry") -> dict[str, object]:
    return {
        "path": entry.path,
        "size": entry.size,
        "type": entry.media_type,
        "filename": entry.filename,
        "created": utc(entry.created),
        "expires": None if entry.expires is None else utc(entry.expires),
        "owner": entry.owner,
        "digest": entry.digest,
        "etag": entry.etag,
    }


def _time(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))
