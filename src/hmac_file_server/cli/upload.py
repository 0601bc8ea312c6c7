"""`upload`: files to a server, over whatever network there is; the same command again goes on where it stopped."""

import asyncio
import contextlib
import ipaddress
import os
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from hmac_file_server.cli.failure import Failure
from hmac_file_server.cli.options import DURATION

if TYPE_CHECKING:
    from hmac_file_server.cli.upload_report import Figures, Item, Mishap, Report
    from hmac_file_server.client.errors import UploadFailed
    from hmac_file_server.client.network import NetworkWatch
    from hmac_file_server.client.progress import Progress
    from hmac_file_server.client.state import StateStore
    from hmac_file_server.client.target import Target
    from hmac_file_server.client.uploader import AsyncUploader

LINK_VARIABLE: Final = "HMAC_FILE_SERVER_LINK"
TICKET_VARIABLE: Final = "HMAC_FILE_SERVER_TICKET"
SECRET_VARIABLE: Final = "HMAC_FILE_SERVER_SECRET"  # noqa: S105 - a name
PROTOCOLS: Final = ("chunked", "tus", "put")
STDIN: Final = "-"

_COPIED: Final = 1 << 20
_SHORTLY: Final = 3.0
_SIGNALS: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--to", metavar="URL", help=f"Upload link, base URL of a server, or a signed URL; or set {LINK_VARIABLE}."
)
@click.option("--ticket", metavar="TICKET", help=f"The ticket for a base URL; or set {TICKET_VARIABLE}.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File with the server's secret, for a base URL; or set {SECRET_VARIABLE}.",
)
@click.option(
    "--protocol", type=click.Choice(PROTOCOLS), help="How to upload: chunked, or put when --to is a signed URL."
)
@click.option(
    "--parallel", type=click.IntRange(1, 64), metavar="N", help="Connections side by side: 4 for chunked, 1 for tus."
)
@click.option("--name", metavar="NAME", help="Name of the file at the server; only for one FILE.")
@click.option("--type", "media_type", metavar="TYPE", help="Media type; the server goes by the name without it.")
@click.option("--json", "as_json", is_flag=True, help="Write events as JSON objects, one a line.")
@click.option("--quiet", is_flag=True, help="Write nothing but the URLs, and errors.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where unfinished uploads are remembered.",
)
@click.option("--fresh", is_flag=True, help="Begin anew, whatever an earlier run has uploaded.")
@click.option(
    "--give-up-after",
    "patience",
    type=DURATION,
    default="1h",
    show_default=True,
    help="Give a file up when nothing of it has moved for so long.",
)
def upload(
    files: tuple[str, ...],
    to: str | None,
    ticket: str | None,
    secret_file: Path | None,
    protocol: str | None,
    parallel: int | None,
    name: str | None,
    media_type: str | None,
    as_json: bool,
    quiet: bool,
    state_dir: Path | None,
    fresh: bool,
    patience: float,
) -> int:
    """Upload files; a lost network, a restart of the server or of this machine costs nothing that had arrived.

    The same command again continues where the last one stopped. FILE is a path, or - for standard input. Secrets are
    not taken from the command line, where everybody on the machine could read them.
    """
    from hmac_file_server.client.state import StateStore

    if name is not None and len(files) > 1:
        raise click.UsageError("--name is for one file")
    if as_json and quiet:
        raise click.UsageError("--json or --quiet, not both")
    if files.count(STDIN) > 1:
        raise click.UsageError("standard input can be uploaded once")
    target = _target(to, ticket, secret_file)
    chosen = _protocol(target, protocol, len(files))
    job = Job(
        target=target,
        protocol=chosen,
        parallel=parallel if parallel is not None else (4 if chosen == "chunked" else 1),
        media_type=media_type,
        store=StateStore(state_dir),
        fresh=fresh,
        patience=patience,
        report=_report(as_json=as_json, quiet=quiet),
    )
    with contextlib.ExitStack() as opened:
        sources = [_source(given, name, opened) for given in files]
        return job.run(sources)


@dataclass(frozen=True, slots=True)
class Source:
    """One FILE: what is said of it, what is read, and why it cannot be, where it cannot."""

    item: "Item"
    what: str | BinaryIO
    problem: str = ""


@dataclass(slots=True)
class Job:
    """One run of the command: all of its files, one after the other."""

    target: "Target"
    protocol: str
    parallel: int
    media_type: str | None
    store: "StateStore"
    fresh: bool
    patience: float
    report: "Report"
    _stopped: int = 0
    _told_of_state: bool = False

    def run(self, sources: list[Source]) -> int:
        """The exit code."""
        self.store.sweep()
        try:
            return asyncio.run(self._run(sources))
        except asyncio.CancelledError:
            return self._stopped

    async def _run(self, sources: list[Source]) -> int:
        from hmac_file_server.client.network import NetworkWatch

        began = time.monotonic()
        done = failed = size = 0
        with self._interruptible(), self.report.shown([source.item for source in sources]):
            async with NetworkWatch() as network:
                for source in sources:
                    uploaded = await self._upload(source, network)
                    if uploaded is None:
                        return self._stopped
                    done, failed = done + uploaded, failed + (not uploaded)
                    size += source.item.size if uploaded else 0
        if len(sources) > 1:
            self.report.summary(done, failed, size, time.monotonic() - began)
        return 1 if failed else 0

    async def _upload(self, source: Source, network: "NetworkWatch") -> bool | None:
        """Whether the file arrived; None when the user stopped it."""
        from hmac_file_server.cli.upload_report import Mishap, Outcome
        from hmac_file_server.client.errors import UploadFailed

        item, report = source.item, self.report
        if source.problem:
            report.failed(item, Mishap("source_unreadable", source.problem))
            return False
        told = Telling(item, report, lambda: network.online or _local(self.target.host))
        began = time.monotonic()
        try:
            if self.fresh:
                await self._forget(source, network)
            uploader = self._uploader(network, told)
            try:
                result = await uploader.upload(source.what, name=item.name, media_type=self.media_type)
            except asyncio.CancelledError:
                if self._stopped and not told.resumable(self):
                    await _discarded(uploader.discard())
                raise
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            report.interrupted(item, told.figures, resumable=told.resumable(self))
            return None
        except UploadFailed as error:
            report.failed(item, _mishap(error, told.resumable(self)))
            return False
        finally:
            self._tell_of_state()
        told.begin()
        report.done(
            item,
            Outcome(
                url=result.url,
                size=result.size,
                filename=result.filename,
                digest=result.digest,
                sent=told.transmitted,
                resumed=told.resumed,
                seconds=time.monotonic() - began,
            ),
        )
        return True

    def _uploader(self, network: "NetworkWatch", told: "Telling | None" = None) -> "AsyncUploader":
        from hmac_file_server.client.uploader import AsyncUploader

        return AsyncUploader(
            self.target,
            protocol=self.protocol,
            parallel=self.parallel,
            state=self.store,
            network=network,
            patience=self.patience,
            on_progress=None if told is None else told.progress,
        )

    async def _forget(self, source: Source, network: "NetworkWatch") -> None:
        """End what an earlier run left, so that its space and its use of the ticket are free; then forget it anyway."""
        if not isinstance(source.what, str):
            return
        await _discarded(self._uploader(network).discard(source.what, name=source.item.name))
        self.store.forget = True

    def _tell_of_state(self) -> None:
        """Once, that nothing can be remembered."""
        if self.store.problem is not None and not self._told_of_state:
            self._told_of_state = True
            self.report.note(f"{self.store.problem}: an interrupted upload will not be continued by the next run")

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the work in order; a second one ends it at once."""
        loop = asyncio.get_running_loop()
        work = asyncio.current_task()
        assert work is not None  # noqa: S101 - this is called by one

        def stop(code: int) -> None:
            self._stopped = code
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            work.cancel()

        for number, code in _SIGNALS.items():
            loop.add_signal_handler(number, stop, code)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


async def _discarded(discarding: Awaitable[bool]) -> None:
    """Let the server know that an upload is given up, if it can be told shortly; it would find out by itself."""
    from hmac_file_server.client.errors import UploadFailed

    with contextlib.suppress(UploadFailed, TimeoutError):
        await asyncio.wait_for(discarding, _SHORTLY)


class Telling:
    """What the uploader tells of one file, as the report shows it."""

    def __init__(self, item: "Item", report: "Report", online: Callable[[], bool]) -> None:
        """`online`: whether there is any way to the server."""
        self._online = online
        self._item = item
        self._report = report
        self._begun = False
        self._last: Progress | None = None
        self._attempt = 0
        self._moved = 0
        self.resumed = 0
        self.transmitted = 0

    @property
    def figures(self) -> "Figures | None":
        """Of now; None before anything is known."""
        from hmac_file_server.cli.upload_report import Figures

        last = self._last
        if last is None:
            return None
        return Figures(
            sent=self.transmitted,
            acknowledged=last.acknowledged,
            total=last.total,
            rate=last.rate or None,
            left=last.seconds_left,
            said=_said(last, online=self._online()),
            moved=self._moved,
        )

    def progress(self, progress: "Progress") -> None:
        """`on_progress` of the uploader: some ten times a second, and when the state changes."""
        self._last = progress
        self.resumed = progress.resumed
        self.transmitted = max(self.transmitted, progress.transmitted)
        # After a failure nobody knows what the server has until it was asked: most likely all that went there.
        quiet = progress.attempt > 0 or progress.state not in {"uploading", "done"}
        self._moved = max(self._moved, progress.sent) if quiet else progress.sent
        if not self._begun and progress.state != "starting" and not (progress.state == "waiting" and not progress.sent):
            self.begin()
        if progress.attempt > self._attempt:
            error = progress.error
            detail, code = (error.detail, error.code) if error is not None else ("", "")
            self._report.retry(self._item, detail, code, progress.attempt, progress.retry_in)
        self._attempt = progress.attempt
        if (figures := self.figures) is not None:
            self._report.progress(self._item, figures)

    def begin(self) -> None:
        """Say that it has begun, once; a small file may be there before anything was told of it."""
        if not self._begun:
            self._begun = True
            self._report.start(self._item, self.resumed)

    def resumable(self, job: Job) -> bool:
        """Whether another run will go on with it."""
        return self._item.given != STDIN and job.store.problem is None


def _said(progress: "Progress", *, online: bool) -> str:
    """What is going on, in plain words; empty while it goes on well."""
    if progress.state in {"offline", "waiting", "starting", "stalled"} and progress.attempt and not online:
        return "no network, waits"
    if progress.state == "stalled":
        return "server does not answer, asks it how far it is"
    if progress.state == "finishing":
        return "all is sent, waits for the server"
    if progress.state in {"waiting", "offline"} or progress.attempt:
        left = progress.retry_in
        when = f"tries again in {max(1, round(left))} s" if left > 0 else "tries again"
        return f"{_trouble(progress.error)}, {when}"
    return ""


def _local(host: str) -> bool:
    """Whether a server is on this machine, which needs no network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _trouble(error: "UploadFailed | None") -> str:
    """An error that passes, in plain words."""
    if error is not None and error.status:
        return f"server refuses for now ({error.detail.rstrip('.')})"
    if error is not None and error.code == "connection_lost":
        return error.detail.rstrip(".")
    return "server does not answer"


def _mishap(error: "UploadFailed", resumable: bool) -> "Mishap":
    from hmac_file_server.cli.upload_report import Mishap

    detail = error.detail
    if error.status and error.code:
        detail += f" ({error.code})"
    if error.code == "gave_up" and resumable:
        detail += "; the same command again continues"
    return Mishap(error.code, detail, error.status or None, error.retriable, error.request_id or None)


def _target(to: str | None, ticket: str | None, secret_file: Path | None) -> "Target":
    """Where to, and what permits it: what was given on the command line counts before the environment."""
    from hmac_file_server.client.target import Target, TargetError

    if ticket is not None and secret_file is not None:
        raise click.UsageError("--ticket or --secret-file, not both")
    url = to if to is not None else os.environ.get(LINK_VARIABLE)
    if not url:
        raise click.UsageError(f"no server: give --to with an upload link or a URL, or set {LINK_VARIABLE}")
    try:
        if ticket is not None:
            return Target.parse(url, ticket=ticket)
        if secret_file is not None:
            return Target.parse(url, secret=_secret(secret_file))
        target = Target.parse(url)
        if target.kind != "none":
            return target
        if from_environment := os.environ.get(TICKET_VARIABLE):
            return Target.parse(url, ticket=from_environment)
        if from_environment := os.environ.get(SECRET_VARIABLE):
            return Target.parse(url, secret=from_environment)
        return target
    except TargetError as error:
        raise click.UsageError(str(error)) from None


def _secret(path: Path) -> bytes:
    from hmac_file_server.config import secrets

    try:
        return secrets.read(path).reveal()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None


def _protocol(target: "Target", asked: str | None, files: int) -> str:
    if target.kind == "slot":
        if asked not in {None, "put"}:
            raise click.UsageError(f"a signed URL is for one PUT; it cannot be uploaded to by {asked}")
        if files > 1:
            raise click.UsageError("a signed URL is for one file")
        return "put"
    if target.kind == "none" and asked in {None, "chunked"}:
        raise click.UsageError(
            f"nothing permits the upload: give a link, --ticket or --secret-file, or set {TICKET_VARIABLE} or "
            f"{SECRET_VARIABLE}"
        )
    return asked or "chunked"


def _report(*, as_json: bool, quiet: bool) -> "Report":
    from hmac_file_server.cli.upload_report import BarReport, JsonReport, LineReport, Report

    if as_json:
        return JsonReport()
    if quiet:
        return Report()
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return LineReport()
    from rich.console import Console

    return BarReport(Console(stderr=True))


def _source(given: str, name: str | None, opened: contextlib.ExitStack) -> Source:
    """Look at a FILE before anything is sent: what it is, and how large."""
    from hmac_file_server.cli.upload_report import Item

    # The server takes names in UTF-8 only.
    called = name or os.fsencode(os.path.basename(given)).decode("utf-8", "replace")
    if given == STDIN:
        called = name or "stdin"
    try:
        if given == STDIN:
            spooled = _spooled(sys.stdin.buffer, opened)
            return Source(Item(given, called, os.fstat(spooled.fileno()).st_size), spooled)
        status = os.stat(given)
        if stat.S_ISREG(status.st_mode):
            return Source(Item(given, called, status.st_size), given)
        if stat.S_ISDIR(status.st_mode):
            return Source(Item(given, called, 0), given, "this is a folder; files are uploaded one by one")
        with open(given, "rb") as stream:
            spooled = _spooled(stream, opened)
        return Source(Item(given, called, os.fstat(spooled.fileno()).st_size), spooled)
    except OSError as error:
        return Source(Item(given, called, 0), given, f"cannot be read: {error.strerror or error}")


def _spooled(stream: BinaryIO, opened: contextlib.ExitStack) -> BinaryIO:
    """A file without a name that has all of a stream: a size must be known to begin, and bytes be there to repeat."""
    spooled = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by the stack
    while piece := stream.read(_COPIED):
        spooled.write(piece)
    spooled.flush()
    return spooled
