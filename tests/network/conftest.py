"""Fixtures of the tests in network namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fixtures.namespaces import Network, network


@pytest.fixture
def net() -> Iterator[Network]:
    """A network of the test's own."""
    with network() as made:
        yield made
