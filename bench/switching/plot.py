"""Progress over time as SVG, made by hand: lines, outages as bands, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Final
from xml.sax.saxutils import escape

from bench.switching.scenario import Scenario

WIDTH: Final = 1020
HEIGHT: Final = 460
LEFT, TOP, RIGHT, BOTTOM = 62, 34, 310, 48
MIB: Final = 2**20

# Okabe and Ito's colours, which people who see few colours can tell apart; then the same with dashes.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#000000")
STEP: Final = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """One upload: its name, (seconds, bytes) in order of time, and when it ended."""

    name: str
    points: Sequence[tuple[float, int]]
    seconds: float
    done: bool


def ticks(most: float, wanted: int) -> list[float]:
    """Round numbers from 0 to `most`, about `wanted` of them."""
    step, scale = 1.0, 1.0
    while True:
        for one in STEP:
            step = one * scale
            if most / step <= wanted:
                return [number * step for number in range(int(most / step) + 1)]
        scale *= 10


def thinned(points: Sequence[tuple[float, float]], slack: float = 0.4) -> list[tuple[float, float]]:
    """The points without those that lie on the way between their neighbours, but for `slack`.

    x grows strictly; the first and the last point stay. A kept point is followed by the farthest one to which a
    straight line passes all points between within `slack`, so no line is more than that away from what it shows.
    """
    if len(points) < 3:
        return list(points)
    kept = [points[0]]
    low, high = float("-inf"), float("inf")
    for before, point in pairwise(points[1:]):
        x, y = kept[-1]
        width = before[0] - x
        low, high = max(low, (before[1] - slack - y) / width), min(high, (before[1] + slack - y) / width)
        slope = (point[1] - y) / (point[0] - x)
        if not low <= slope <= high:
            kept.append(before)
            low, high = float("-inf"), float("inf")
    return [*kept, points[-1]]


class Scale:
    """Seconds and bytes to places of the drawing."""

    def __init__(self, seconds: float, size: float) -> None:
        self.seconds, self.size = seconds, size

    def x(self, seconds: float) -> float:
        """Place of a time."""
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.seconds

    def y(self, count: float) -> float:
        """Place of a number of bytes."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * count / self.size


def draw(scenario: Scenario, lines: Sequence[Line]) -> str:
    """The drawing."""
    finished = [line.seconds for line in lines if line.done]
    # Those that hang would make everybody else a steep line at the left.
    seconds = 1.04 * max([1.3 * scenario.ideal, *finished])
    size = 1.04 * max([scenario.size, *(count for line in lines for when, count in line.points if when <= seconds)])
    scale = Scale(seconds, size)
    said = escape(str(scenario))
    font = 'font-family="sans-serif" font-size="12"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {font}>',
        f"<title>{said}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{said}</text>',
        *_bands(scenario, scale),
        *_axes(scale),
        *_ideal(scenario, scale),
    ]
    for number, line in enumerate(lines):
        out += _line(line, number, scale)
    return "\n".join([*out, "</svg>", ""])


def _bands(scenario: Scenario, scale: Scale) -> list[str]:
    top, height = scale.y(scale.size), scale.y(0) - scale.y(scale.size)
    return [
        f'<rect x="{scale.x(at):.1f}" y="{top:.1f}" '
        f'width="{scale.x(min(at + scenario.outage, scale.seconds)) - scale.x(at):.1f}" '
        f'height="{height:.1f}" fill="#eee"/>'
        for at in takewhile(lambda at: at < scale.seconds, scenario.switches())
    ]


def _axes(scale: Scale) -> list[str]:
    x, y = scale.x(0), scale.y(0)
    middle, height = (x + scale.x(scale.seconds)) / 2, (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 16 {height:.1f})"'
    return [
        f'<path d="M{x:.1f} {scale.y(scale.size):.1f}V{y:.1f}H{scale.x(scale.seconds):.1f}" fill="none" stroke="#333"/>',
        *(_text(scale.x(tick), y + 16, f"{tick:g}", "middle") for tick in ticks(scale.seconds, 10)),
        *(_text(x - 6, scale.y(tick * MIB) + 4, f"{tick:g}", "end") for tick in ticks(scale.size / MIB, 6)),
        _text(middle, HEIGHT - 12, "seconds", "middle"),
        _text(16, height, "MiB that have arrived", "middle", turned),
    ]


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'


def _ideal(scenario: Scenario, scale: Scale) -> list[str]:
    """Nobody can be above it: the whole rate whenever there is a link."""
    points = [(0.0, 0.0)]
    rate, sent, start = scenario.rate / 8, 0.0, 0.0
    if scenario.mptcp:
        points.append((scenario.ideal, float(scenario.size)))
    else:
        for at in scenario.switches():
            sent = min(scenario.size, sent + (at - start) * rate)
            if sent >= scenario.size:
                points.append((scenario.ideal, float(scenario.size)))
                break
            start = at + scenario.outage
            points += [(at, sent), (start, sent)]
    path = " ".join(f"{scale.x(when):.1f},{scale.y(count):.1f}" for when, count in points)
    return [
        f'<polyline points="{path}" fill="none" stroke="#999" stroke-dasharray="2 3"/>',
        *_legend("ideal", "#999", "2 3", 0),
    ]


def _line(line: Line, number: int, scale: Scale) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    dashes = "" if number < len(COLOURS) else "6 3"
    points = [(0.0, 0), *((when, count) for when, count in line.points if 0 < when <= scale.seconds)]
    if not line.done and points[-1][0] < scale.seconds:
        points.append((scale.seconds, points[-1][1]))
    places = thinned([(scale.x(when), scale.y(count)) for when, count in points])
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    words = f"{line.name}, {line.seconds:.1f} s" if line.done else f"{line.name}, never"
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashed}/>',
        *_legend(words, colour, dashes, number + 1),
    ]


def _legend(words: str, colour: str, dashes: str, row: int) -> list[str]:
    x, y = WIDTH - RIGHT + 14, TOP + 12 + row * 18
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return [
        f'<path d="M{x} {y - 4}h20" stroke="{colour}" stroke-width="2"{dashed}/>',
        f'<text x="{x + 26}" y="{y}">{escape(words)}</text>',
    ]
