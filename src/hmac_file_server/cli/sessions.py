"""`sessions list`, `sessions show` and `sessions delete`: look after uploads in pieces, also while the server runs."""

import contextlib
import json
import os
import threading
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
    from hmac_file_server.stores.contract import Session
    from hmac_file_server.stores.sqlite import SqliteStore

_ALL = 1 << 60


@click.group()
def sessions() -> None:
    """List, show or delete upload sessions, also while the server runs."""


@sessions.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that have ended and are remembered.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
def list_sessions(config_file: Path | None, *, every: bool, as_json: bool) -> int:
    """List upload sessions, the one that expires first on top: last activity, state, progress, id, file name."""
    with _opened(settings_of(config_file)) as store:
        for found in store.due(float(_ALL), _ALL):
            session = store.get(found.id) if every or found.state == "open" else None
            if session is None:
                continue
            if as_json:
                click.echo(json.dumps(_fields(session)))
            else:
                stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.active))
                size = "?" if session.length is None else sizes.show(session.length)
                progress = f"{sizes.show(session.received)}/{size}"
                click.echo(f"{stamp}  {session.state:<8}  {progress:>21}  {session.id}  {escaped(session.filename)}")
    return 0


@sessions.command()
@click.argument("session_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@config_option
def show(session_id: str, config_file: Path | None, *, as_json: bool) -> int:
    """Show what is known of the session ID."""
    with _opened(settings_of(config_file)) as store:
        session = store.get(session_id)
    if session is None:
        raise Failure(f"{escaped(session_id)}: no such session")
    fields = _fields(session)
    show_record(fields, as_json=as_json)
    return 0


@sessions.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
@config_option
def delete(session_ids: tuple[str, ...], config_file: Path | None) -> int:
    """End the sessions and drop their bytes; exit 1 when one of them was not there."""
    missing = 0
    settings = settings_of(config_file)
    with _opened(settings) as store:
        for session_id in session_ids:
            session = store.get(session_id)
            if session is not None and _remove(store, session):
                _drop(settings, session)
                click.echo(f"deleted {escaped(session_id)}")
            else:
                missing += 1
                click.echo(f"{escaped(session_id)}: no such session", err=True)
    return 1 if missing else 0


def _remove(store: "SqliteStore", session: "Session") -> bool:
    """Forget the session, whoever has charge of it: that server's next change of it is refused, and it lets go."""
    from hmac_file_server.stores.contract import Remove, Result, StoreError

    results: list[Result] = []
    done = threading.Event()

    def told(result: Result) -> None:
        results.append(result)
        done.set()

    store.submit(Remove(session.id, session.epoch), told)
    done.wait()
    if isinstance(results[0], StoreError):
        raise results[0]
    return results[0] is True


def _drop(settings: Settings, session: "Session") -> None:
    """Give back what the session held: its bytes, unless a server has them open, and its use of a ticket."""
    from hmac_file_server.clock import SystemClock
    from hmac_file_server.files.contract import StorageError
    from hmac_file_server.files.local import LocalFileStore
    from hmac_file_server.uploads.receipt import details_of

    if session.state != "open":
        return
    try:
        store = LocalFileStore(
            settings.server.storage_path, durability="relaxed", clock=SystemClock(), submit=lambda job: job()
        )
        try:
            # A server that holds the draft removes it an hour after it let go.
            store.drop_draft(session.id)
            ticket = details_of(session).ticket
            if ticket is not None:
                store.give_back_ticket(ticket[0])
        finally:
            store.close()
    except StorageError as error:
        raise Failure(f"{settings.server.storage_path}: {error}") from None


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator["SqliteStore"]:
    from hmac_file_server.files.paths import PRIVATE
    from hmac_file_server.sessions import DATABASE
    from hmac_file_server.stores.contract import StoreError
    from hmac_file_server.stores.sqlite import SqliteStore

    file = settings.server.storage_path / PRIVATE / DATABASE
    if not file.is_file():
        raise Failure(f"{file}: no such file; the server makes it when it first starts")
    try:
        store = SqliteStore(os.fspath(file), full=True)
        try:
            yield store
        finally:
            store.close()
    except StoreError as error:
        raise Failure(f"{file}: {error}") from None


def _fields(session: "Session") -> dict[str, object]:
    return {
        "id": session.id,
        "state": session.state,
        "protocol": session.protocol,
        "path": session.path,
        "filename": session.filename,
        "type": session.media_type,
        "length": session.length,
        "received": session.received,
        "ranges": [list(span) for span in session.ranges],
        "chunk_size": session.chunk_size,
        "owner": session.owner,
        "created": utc(session.created),
        "active": utc(session.active),
        "expires": utc(session.deadline),
    }
