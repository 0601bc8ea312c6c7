"""The drawing: well-formed, inside its frame, true to what it shows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from bisect import bisect_right

import pytest
from bench.switching import plot
from bench.switching.plot import Line, Scale, draw, thinned, ticks
from bench.switching.scenario import Scenario
from hypothesis import given, settings
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"
SCENARIO = Scenario()
WHOLE = Line("uploader.js <in> Node", [(0.5, 1000), (30.0, 60 << 20), (54.0, 100 << 20)], 54.0, True)
HUNG = Line("tuspy & friends", [(0.5, 1000), (5.0, 11 << 20)], 156.0, False)

steps = st.lists(st.tuples(st.floats(0.5, 20), st.floats(0, 30)), min_size=1, max_size=80).map(
    lambda pairs: [
        (sum(x for x, _ in pairs[: n + 1]), 400 - sum(y for _, y in pairs[: n + 1])) for n in range(len(pairs))
    ]
)


def root(text: str) -> ET.Element:
    return ET.fromstring(text)


def places(line: ET.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]


def test_it_has_a_line_for_each_and_the_ideal() -> None:
    tree = root(draw(SCENARIO, [WHOLE, HUNG]))
    lines = tree.findall(f"{SVG}polyline")
    assert len(lines) == 3
    words = [text.text or "" for text in tree.findall(f"{SVG}text")]
    assert "uploader.js <in> Node, 54.0 s" in words
    assert "tuspy & friends, never" in words
    assert str(SCENARIO) in words
    title = tree.find(f"{SVG}title")
    assert title is not None
    assert title.text == str(SCENARIO)


def test_a_line_begins_and_ends_where_the_upload_does() -> None:
    tree = root(draw(SCENARIO, [WHOLE, HUNG]))
    _, whole, hung = map(places, tree.findall(f"{SVG}polyline"))
    seconds, size = 1.04 * 1.3 * SCENARIO.ideal, 1.04 * SCENARIO.size
    scale = Scale(seconds, size)
    assert whole[0] == pytest.approx((scale.x(0), scale.y(0)), abs=0.06)
    assert whole[-1] == pytest.approx((scale.x(54), scale.y(100 << 20)), abs=0.06)
    # Who hangs is shown to hang for as long as the drawing goes.
    assert hung[-1] == pytest.approx((scale.x(seconds), scale.y(11 << 20)), abs=0.06)


def test_the_ideal_is_above_everybody_and_ends_in_time() -> None:
    tree = root(draw(SCENARIO, [WHOLE]))
    ideal = places(tree.findall(f"{SVG}polyline")[0])
    scale = Scale(1.04 * 1.3 * SCENARIO.ideal, 1.04 * SCENARIO.size)
    assert ideal[-1] == pytest.approx((scale.x(SCENARIO.ideal), scale.y(SCENARIO.size)), abs=0.06)
    assert len(ideal) == 2 + 2 * SCENARIO.switches_within(SCENARIO.ideal)


def test_there_is_a_band_for_each_outage() -> None:
    tree = root(draw(SCENARIO, [WHOLE]))
    bands = [rect for rect in tree.findall(f"{SVG}rect") if rect.attrib["fill"] == "#eee"]
    assert len(bands) == SCENARIO.switches_within(1.04 * 1.3 * SCENARIO.ideal)


def test_everything_is_inside_the_frame() -> None:
    many = [Line(f"client {n}", [(n + 0.5, n << 20), (n + 9.0, 103 << 20)], n + 9.0, n % 2 == 0) for n in range(12)]
    text = draw(SCENARIO, many)
    tree = root(text)
    for line in tree.findall(f"{SVG}polyline"):
        assert all(0 <= x <= plot.WIDTH and 0 <= y <= plot.HEIGHT for x, y in places(line))
    for said in tree.findall(f"{SVG}text"):
        assert 0 <= float(said.attrib["x"]) <= plot.WIDTH
        assert 0 <= float(said.attrib["y"]) <= plot.HEIGHT
    # Two lines of one colour are told apart by their dashes.
    looks = [(line.attrib["stroke"], line.attrib.get("stroke-dasharray")) for line in tree.findall(f"{SVG}polyline")]
    assert len(set(looks)) == len(looks)
    assert "nan" not in text
    assert re.search(r"\binf\b", text) is None


def test_with_multipath_the_ideal_is_straight() -> None:
    tree = root(draw(Scenario(mptcp=True), []))
    assert len(places(tree.findall(f"{SVG}polyline")[0])) == 2


@pytest.mark.parametrize(
    ("most", "wanted", "found"),
    [(54, 6, [0, 10, 20, 30, 40, 50]), (1, 1, [0, 1]), (104, 6, [0, 20, 40, 60, 80, 100]), (7, 10, list(range(8)))],
)
def test_ticks_are_round(most: float, wanted: int, found: list[int]) -> None:
    assert ticks(most, wanted) == found


@settings(deadline=None)
@given(st.floats(0.5, 1e5), st.integers(2, 12))
def test_ticks_are_about_as_many_as_wanted(most: float, wanted: int) -> None:
    found = ticks(most, wanted)
    assert found[0] == 0
    assert found[-1] <= most
    assert len(found) <= wanted + 1


@settings(deadline=None)
@given(steps, st.floats(0.1, 3))
def test_thinning_moves_no_point_further_than_the_slack(points: list[tuple[float, float]], slack: float) -> None:
    kept = thinned(points, slack)
    assert set(kept) <= set(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    xs = [x for x, _ in kept]
    for x, y in points:
        at = min(max(1, bisect_right(xs, x)), len(kept) - 1)
        if not at:
            continue
        (x0, y0), (x1, y1) = kept[at - 1], kept[at]
        assert abs(y0 + (y1 - y0) * (x - x0) / (x1 - x0) - y) <= slack + 1e-6


def test_a_straight_line_is_two_points() -> None:
    assert thinned([(float(x), 2.0 * x) for x in range(100)]) == [(0.0, 0.0), (99.0, 198.0)]
    assert thinned([(0.0, 0.0)]) == [(0.0, 0.0)]
    assert thinned([]) == []
