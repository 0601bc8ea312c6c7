"""What axe-core and a ruler say about a page."""

from __future__ import annotations

from functools import cache

from playwright.sync_api import Page
from tests.fixtures import node

TARGET = 44
"""Least side of what is touched, in CSS pixels (WCAG 2.2, 2.5.5)."""


@cache
def _axe() -> str:
    return (node.package("axe-core") / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page) -> list[str]:
    """What axe finds, with all of its rules but the experimental ones."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    found = page.evaluate("""async () => {
      const { violations } = await axe.run(document, { resultTypes: ['violations'] });
      return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => [id, html, failureSummary].join('\\n')));
    }""")
    assert isinstance(found, list)
    return found


def too_wide(page: Page) -> int:
    """By how many pixels the page must be scrolled to the side."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def small_targets(page: Page) -> list[str]:
    """Buttons and fields that are hard to hit with a finger; links inside of text may be as small as the text."""
    found = page.evaluate(
        """(least) => [...document.querySelectorAll('button, input, textarea, summary')]
          .filter((node) => node.checkVisibility() && !node.closest('.visually-hidden'))
          .map((node) => [node.outerHTML.slice(0, 120), node.getBoundingClientRect()])
          .filter(([, box]) => box.width < least - 0.01 || box.height < least - 0.01)
          .map(([html, box]) => `${html}: ${box.width} x ${box.height}`)""",
        TARGET,
    )
    assert isinstance(found, list)
    return found
