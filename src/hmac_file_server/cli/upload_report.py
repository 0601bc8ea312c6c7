"""What `upload` says while it works: bars on a terminal, final lines elsewhere, JSON for programs.

The result's URL goes to standard output, one a line; everything else goes to standard error. With JSON all of it is
on standard output, one object a line.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

EVERY: Final = 1.0
"""Seconds between two progress events of JSON."""

# Columns of the terminal from which there is room for bars and speed, and for sizes.
_BARS: Final = 60
_SIZES: Final = 90


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the command line: as it was given, the name it gets, its size in bytes."""

    given: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Figures:
    """How far an upload is.

    sent          bytes that this run has sent, repeats counted
    acknowledged  bytes that the server has said it has
    moved         these, and those that the network has taken since: where the bar is
    rate          bytes per second, None while it is not known
    left          seconds, None while they are not known
    said          what is going on, in plain words; empty while it goes on well
    """

    sent: int
    acknowledged: int
    total: int
    rate: float | None = None
    left: float | None = None
    said: str = ""
    moved: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A file that arrived. `digest` as "sha-256:<hex>" or None; `sent` bytes of this run; `resumed` bytes of before."""

    url: str
    size: int
    filename: str
    digest: str | None
    sent: int
    resumed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Mishap:
    """Why a file did not arrive; `code` is the server's stable word, or one of ours."""

    code: str
    detail: str
    status: int | None = None
    retriable: bool = False
    request_id: str | None = None


class Report:
    """Says nothing but results and errors: for `--quiet`, and what the others build on."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err

    @contextlib.contextmanager
    def shown(self, items: "list[Item]") -> Iterator[None]:
        """While the files are uploaded."""
        del items
        yield

    def start(self, item: Item, acknowledged: int) -> None:
        """A file begins, or goes on after `acknowledged` bytes."""

    def progress(self, item: Item, figures: Figures) -> None:
        """It goes on."""

    def retry(self, item: Item, error: str, code: str, attempt: int, delay: float) -> None:
        """An attempt failed; the next comes after `delay` seconds."""

    def done(self, item: Item, outcome: Outcome) -> None:
        """It arrived."""
        del item
        _line(self.out, outcome.url)

    def failed(self, item: Item, mishap: Mishap) -> None:
        """It did not."""
        self.say(f"hmac-file-server: {printable(item.given)}: {printable(mishap.detail)}")

    def note(self, text: str) -> None:
        """Something worth knowing that is no error."""

    def say(self, text: str) -> None:
        """A line on standard error."""
        _line(self.err, text)

    def interrupted(self, item: Item, figures: Figures | None, *, resumable: bool) -> None:
        """The user stopped it."""
        self.say(farewell(item, figures, resumable=resumable))

    def summary(self, done: int, failed: int, size: int, seconds: float) -> None:
        """At the end of several files."""


class LineReport(Report):
    """One line for each file, when nobody watches."""

    def start(self, item: Item, acknowledged: int) -> None:
        """Say what goes on rather than begins."""
        if acknowledged:
            self.say(f"{printable(item.name)}: goes on after {size_of(acknowledged)} of {size_of(item.size)}")

    def done(self, item: Item, outcome: Outcome) -> None:
        """Its figures, and its URL."""
        self.say(f"{printable(item.name)}: {arrived(outcome)}")
        super().done(item, outcome)

    def note(self, text: str) -> None:
        """As a line."""
        self.say(f"note: {text}")

    def summary(self, done: int, failed: int, size: int, seconds: float) -> None:
        """One line."""
        self.say(tally(done, failed, size, seconds))


class JsonReport(Report):
    """One object a line on standard output: `event` is start, progress, retry, note, done, error or interrupted."""

    def __init__(
        self, out: TextIO | None = None, err: TextIO | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(out, err)
        self._monotonic = monotonic
        self._last = float("-inf")
        self._begun: Item | None = None

    def start(self, item: Item, acknowledged: int) -> None:
        """`acknowledged` is what the server has of an earlier run."""
        self._last = float("-inf")
        self._begun = item
        self._tell("start", item, name=item.name, size=item.size, acknowledged=acknowledged, resumed=acknowledged > 0)

    def progress(self, item: Item, figures: Figures) -> None:
        """At most one a second; before the start only while there is something to wait for."""
        now = self._monotonic()
        if now - self._last < EVERY or (self._begun is not item and not figures.said):
            return
        self._last = now
        self._tell(
            "progress",
            item,
            sent=figures.sent,
            acknowledged=figures.acknowledged,
            total=figures.total,
            rate=None if figures.rate is None else round(figures.rate),
            seconds_left=None if figures.left is None else round(figures.left, 1),
            waits_for=figures.said or None,
        )

    def retry(self, item: Item, error: str, code: str, attempt: int, delay: float) -> None:
        """`delay` in seconds."""
        self._tell("retry", item, error=error, code=code, attempt=attempt, delay=round(delay, 3))

    def done(self, item: Item, outcome: Outcome) -> None:
        """The last one for a file that arrived."""
        self._tell(
            "done",
            item,
            url=outcome.url,
            size=outcome.size,
            digest=outcome.digest,
            filename=outcome.filename,
            sent=outcome.sent,
            resumed=outcome.resumed,
            seconds=round(outcome.seconds, 3),
        )

    def failed(self, item: Item, mishap: Mishap) -> None:
        """The last one for a file that did not; on standard error as well, for people."""
        super().failed(item, mishap)
        self._tell(
            "error",
            item,
            code=mishap.code,
            detail=mishap.detail,
            status=mishap.status,
            retriable=mishap.retriable,
            request_id=mishap.request_id,
            url=None,
            size=item.size,
            digest=None,
        )

    def note(self, text: str) -> None:
        """Without a file."""
        self._write({"event": "note", "detail": text})

    def interrupted(self, item: Item, figures: Figures | None, *, resumable: bool) -> None:
        """The last one for a file that was stopped."""
        super().interrupted(item, figures, resumable=resumable)
        acknowledged = 0 if figures is None else figures.acknowledged
        self._tell("interrupted", item, acknowledged=acknowledged, size=item.size, resumable=resumable)

    def _tell(self, event: str, item: Item, **fields: Any) -> None:
        self._write({"event": event, "file": item.given, **fields})

    def _write(self, told: dict[str, Any]) -> None:
        # ASCII, so that a file name which is no text comes through.
        _line(self.out, json.dumps(told))


class BarReport(Report):
    """A bar for each file that is under way, one for all of them, and lines above for those that arrived."""

    def __init__(self, console: "Console", out: TextIO | None = None) -> None:
        """`console` writes to a terminal on standard error."""
        super().__init__(out)
        self._console = console
        self._live: Live | None = None
        self._items: list[Item] = []
        self._now: tuple[Item, Figures] | None = None
        self._begun = 0
        self._passed = 0

    @contextlib.contextmanager
    def shown(self, items: list[Item]) -> Iterator[None]:
        """Shows the bars."""
        from rich.live import Live

        self._items = items
        # Drawn when there is something new: a thread that draws would be one more that a signal can hit.
        with Live(console=self._console, auto_refresh=False, transient=True, get_renderable=self._picture) as live:
            self._live = live
            try:
                yield
            finally:
                self._now = None
                self._live = None

    def start(self, item: Item, acknowledged: int) -> None:
        """A new bar."""
        self._begun += 1
        self._now = (item, Figures(0, acknowledged, item.size))
        self._draw()

    def progress(self, item: Item, figures: Figures) -> None:
        """Moves the bar."""
        self._now = (item, figures)
        self._draw()

    def done(self, item: Item, outcome: Outcome) -> None:
        """A line above the bars, and the URL."""
        self._end(item)
        self.say(f"{printable(item.name)}: {arrived(outcome)}")
        if self.out.isatty() and self._live is not None:
            # Both on one terminal: the bars must not be written over.
            self.say(outcome.url)
        else:
            _line(self.out, outcome.url)

    def failed(self, item: Item, mishap: Mishap) -> None:
        """A line above the bars."""
        self._end(item)
        super().failed(item, mishap)

    def note(self, text: str) -> None:
        """A line above the bars."""
        self.say(f"note: {text}")

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def summary(self, done: int, failed: int, size: int, seconds: float) -> None:
        """One line."""
        self.say(tally(done, failed, size, seconds))

    def _end(self, item: Item) -> None:
        self._passed += item.size
        self._now = None
        self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _picture(self) -> "RenderableType":
        from rich.table import Table

        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        if self._roomy(_BARS):
            table.add_column(ratio=3, min_width=8)
        for wanted in (0, _SIZES, _BARS, 0):
            if self._roomy(wanted):
                table.add_column(justify="right", no_wrap=True)
        if self._now is None:
            return table
        item, figures = self._now
        self._row(table, printable(item.name), figures)
        if len(self._items) > 1:
            total = sum(one.size for one in self._items)
            acknowledged, moved = self._passed + figures.acknowledged, self._passed + _position(figures)
            left = None if not figures.rate else (total - moved) / figures.rate
            whole = Figures(0, acknowledged, total, figures.rate, left, figures.said, moved)
            self._row(table, f"total, {self._begun} of {len(self._items)} files", whole)
        if not figures.said:
            return table
        from rich.console import Group
        from rich.text import Text

        return Group(table, Text(figures.said, style="yellow", no_wrap=True, overflow="ellipsis"))

    def _row(self, table: Any, title: str, figures: Figures) -> None:
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        moved = _position(figures)
        share = moved / figures.total if figures.total else 1.0
        well = not figures.said
        rate = f"{size_of(int(figures.rate))}/s" if figures.rate and well else ""
        left = f"{time_of(figures.left)} left" if figures.left is not None and well else ""
        cells: list[tuple[int, RenderableType]] = [
            (0, Text(title)),
            (_BARS, ProgressBar(total=max(1, figures.total), completed=moved)),
            # Never 100 % before it is there.
            (0, f"{min(99, int(share * 100)) if figures.acknowledged < figures.total else 100} %"),
            (_SIZES, f"{size_of(moved)} / {size_of(figures.total)}"),
            (_BARS, rate),
            (0, left),
        ]
        table.add_row(*(cell for wanted, cell in cells if self._roomy(wanted)))

    def _roomy(self, wanted: int) -> bool:
        return self._console.width >= wanted


def _position(figures: Figures) -> int:
    return min(max(figures.acknowledged, figures.moved), figures.total)


def farewell(item: Item, figures: Figures | None, *, resumable: bool) -> str:
    """How to go on after an interruption."""
    there = 0 if figures is None else figures.acknowledged
    name = printable(item.given)
    if not resumable:
        return f"hmac-file-server: interrupted; {name} was not uploaded and must be sent from its beginning"
    return (
        f"hmac-file-server: interrupted; {size_of(there)} of {size_of(item.size)} of {name} are safe, "
        "the same command again continues"
    )


def arrived(outcome: Outcome) -> str:
    """The figures of a file that is there."""
    text = f"{size_of(outcome.size)} in {time_of(outcome.seconds)}"
    if outcome.seconds >= EVERY and outcome.sent:
        text += f", {size_of(int(outcome.sent / outcome.seconds))}/s"
    return text + (f" ({size_of(outcome.resumed)} were there already)" if outcome.resumed else "")


def tally(done: int, failed: int, size: int, seconds: float) -> str:
    """All files in one line."""
    text = f"{done} file{'' if done == 1 else 's'} uploaded, {size_of(size)} in {time_of(seconds)}"
    return text + (f"; {failed} failed" if failed else "")


def size_of(count: int) -> str:
    """Bytes for people: "512 B", "1.5 MiB"."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        # What would be shown as 1024.0 is one of the next.
        if value < 1023.95 or unit == "TiB":
            return f"{value:.1f} {unit}"
    raise AssertionError


def time_of(seconds: float) -> str:
    """Seconds for people: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def printable(text: str) -> str:
    """A name or a message that moves no cursor and is text: what is not printable becomes `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _line(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()
