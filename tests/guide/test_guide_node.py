"""The guide's JavaScript class in Node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guide.node import Node
from tests.guide.script import Client, GuideScript


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    node = Node(tmp_path / "node")
    try:
        yield node
    finally:
        node.stop()


class TestNode(GuideScript):
    """Everything that is asked of the class, in Node."""
